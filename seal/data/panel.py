"""The gene panel: which genes, in which order, chosen on which donors, and proof that it is the same one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from seal.errors import SealError
from seal.files import digest, read_json, write_json
from seal.profiles import PanelSettings


@dataclass(frozen=True)
class Panel:
    """An ordered gene panel.

    Attributes
    ----------
    genes
        Upper-case symbols in the order of every expression matrix and decoder output.
    test
        Test organ -> those of `genes` that patch-level evaluation scores in it, the most variable first.
    donors
        The donors on whose spots both were chosen: training donors only.
    """

    genes: tuple[str, ...]
    test: Mapping[str, tuple[str, ...]]
    donors: tuple[str, ...]

    @property
    def hash(self) -> str:
        """SHA-256 of the ordered genes."""
        return digest(list(self.genes))

    @property
    def test_genes(self) -> tuple[str, ...]:
        """The test genes of all organs, organ by organ, each gene once: the columns of what is measured."""
        return tuple(dict.fromkeys(gene for genes in self.test.values() for gene in genes))

    @property
    def test_columns(self) -> np.ndarray:
        """Positions of the test genes in the panel."""
        return _positions(self.genes, self.test_genes)

    def scored(self, organ: str) -> np.ndarray:
        """Positions of an organ's test genes among all test genes; of all of them for an organ that is not tested."""
        return _positions(self.test_genes, self.test.get(organ, self.test_genes))

    def first(self, genes: int | None) -> "Panel":
        """The panel's first genes, all of them if None; test genes are those that are left of them."""
        kept = set(self.genes[:genes])
        test = {organ: tuple(gene for gene in scored if gene in kept) for organ, scored in self.test.items()}
        return replace(self, genes=self.genes[:genes], test=test)

    def save(self, path: Path) -> Path:
        """Write the panel as JSON, with its hash."""
        return write_json(path, {**asdict(self), "hash": self.hash})

    def require(self, other: "Panel", owner: str) -> None:
        """Assert that `other` is this panel, gene for gene.

        Raises
        ------
        SealError
            Names the first gene that differs, or the lengths.
        """
        require_genes(self.genes, other.genes, owner)


def _positions(genes: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    where = {gene: column for column, gene in enumerate(genes)}
    return np.array([where[gene] for gene in wanted], dtype=np.int64)


def require_genes(expected: Sequence[str], got: Sequence[str], owner: str) -> None:
    """Assert that two ordered gene lists are equal.

    Raises
    ------
    SealError
        Names `owner`, the first position that differs and both genes; says if one is a permutation.
    """
    if list(expected) == list(got):
        return
    pairs = enumerate(zip(expected, got, strict=False))
    position = next((i for i, (a, b) in pairs if a != b), min(len(expected), len(got)))
    wanted = expected[position] if position < len(expected) else "the end of the panel"
    found = got[position] if position < len(got) else "the end of the panel"
    same = " (the same genes in another order)" if sorted(expected) == sorted(got) else ""
    raise SealError(
        f"the gene panel of {owner} differs at position {position}: {found}, {len(got)} genes{same}",
        expected=f"{wanted} at position {position}, {len(expected)} genes",
        do="use the panel.json that was saved with the model; genes are never matched by position alone",
    )


def load(path: Path) -> Panel:
    """Read a panel.

    Raises
    ------
    SealError
        The file is missing, lacks a field, or its genes do not give the hash stored with them.
    """
    stored = read_json(path)
    try:
        test = {organ: tuple(genes) for organ, genes in stored["test"].items()}
        panel = Panel(tuple(stored["genes"]), test, tuple(stored["donors"]))
        stored_hash = stored["hash"]
    except (KeyError, TypeError, AttributeError) as error:
        raise SealError(
            f"{path} is not a gene panel ({error} is missing)",
            expected="genes, test, donors, hash",
            do="assemble the pairs again (notebook 01)",
        ) from error
    if panel.hash != stored_hash:
        raise SealError(
            f"{path}: the genes give the hash {panel.hash[:12]}",
            expected=f"{stored_hash[:12]}, the hash stored in the file",
            do="the file was edited after it was written; assemble the pairs again (notebook 01)",
        )
    return panel


def select(
    counts,
    log_expression,
    genes: Sequence[str],
    donors: Sequence[str],
    scored: Mapping[str, Sequence[str]],
    settings: PanelSettings,
) -> Panel:
    """Choose the panel and each organ's test genes on training spots.

    The panel: `settings.genes` most variable genes (scanpy, Seurat flavour) among those with at least
    `min_gene_counts` counts, in the order of their normalised dispersion, ties by symbol. An organ's test genes: of
    these, detected in at least 10 % of its scored donors' spots, the `test_genes` of highest variance within a
    donor. What differs between donors or organs only cannot be predicted within one, so it is not asked for.

    Parameters
    ----------
    counts, log_expression
        Sparse, [training spots, genes]: raw counts, and the normalised log expression of the same spots.
    donors
        The donor of each of these spots; written into the panel.
    scored
        Test organ -> the training donors that choose its test genes: those of that organ.

    Raises
    ------
    SealError
        Fewer than two genes are left.

    Source: release (flavour, number, filter; test genes by organ); order and the variance our choice.
    """
    import anndata
    import pandas as pd
    import scanpy as sc
    from scipy.sparse import csr_matrix

    enough = np.asarray(counts.sum(axis=0)).ravel() >= settings.min_gene_counts
    if enough.sum() < 2:
        raise SealError(
            f"{int(enough.sum())} genes have {settings.min_gene_counts} counts or more in the training spots",
            expected="at least two",
            do="check the sections' counts, or lower PanelSettings.min_gene_counts",
        )
    names = np.asarray(genes)[enough]
    # scanpy 1.11 knows scipy's matrices, not yet its sparse arrays
    data = anndata.AnnData(csr_matrix(log_expression[:, enough]), var=pd.DataFrame(index=names))
    ranked = sc.pp.highly_variable_genes(
        data, flavor="seurat", n_top_genes=min(settings.genes, len(names)), inplace=False
    )
    ranked = ranked.set_index(names).assign(gene=names).query("highly_variable")
    ranked = ranked.sort_values(["dispersions_norm", "gene"], ascending=[False, True])
    panel = ranked["gene"].tolist()[: settings.genes]
    values = data.X[:, _positions(names, panel)]
    test = _test_genes(values, panel, np.asarray(donors), scored, settings.test_genes)
    return Panel(tuple(panel), test, tuple(sorted(set(donors))))


def _test_genes(
    values, panel: list[str], donors: np.ndarray, scored: Mapping[str, Sequence[str]], number: int
) -> dict[str, tuple[str, ...]]:
    chosen = {donor for names in scored.values() for donor in names}
    variances = {donor: _variance(values[donors == donor]) for donor in chosen}
    test = {}
    for organ, names in scored.items():
        variance = np.mean([variances[donor] for donor in sorted(set(names))], axis=0)
        detected = np.asarray((values[np.isin(donors, list(names))] > 0).mean(axis=0)).ravel()
        variance = np.where(detected >= 0.1, variance, 0)
        order = sorted(range(len(panel)), key=lambda i: (-variance[i], panel[i]))
        test[organ] = tuple(panel[i] for i in order[:number] if variance[i] > 0)
    return test


def _variance(values) -> np.ndarray:
    return np.asarray(values.multiply(values).mean(axis=0) - np.square(values.mean(axis=0))).ravel()
