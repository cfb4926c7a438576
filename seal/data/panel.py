"""The gene panel: which genes, in which order, chosen on which donors, and proof that it is the same one.

It is chosen from sums over spots (`Moments`): one pass over all sections serves any number of folds, and a section's
sums are small and add up, so memory depends on the number of genes alone.
"""

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from seal.errors import SealError
from seal.files import atomic, digest, read_json, write_json
from seal.profiles import PanelSettings

FORMAT = 1  # of the file
BLOCK = 1 << 18  # stored values summed at a time: their copies in double precision then stay in the cache


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
        """Write the panel as JSON, with the file's format and the panel's hash."""
        return write_json(path, {"version": FORMAT, **asdict(self), "hash": self.hash})

    def require(self, other: "Panel", owner: str) -> None:
        """Assert that `other` is this panel, gene for gene; see `require_genes`."""
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
        The file is missing, of another format, lacks a field, or its genes do not give the hash stored with them.
    """
    stored = read_json(path)
    version = stored.get("version") if isinstance(stored, dict) else None
    if version != FORMAT:
        raise _bad_panel(path, f"its version is {version!r}", f"version {FORMAT}")
    try:
        test = {organ: tuple(genes) for organ, genes in stored["test"].items()}
        panel, stored_hash = Panel(tuple(stored["genes"]), test, tuple(stored["donors"])), stored["hash"]
    except (KeyError, TypeError, AttributeError) as error:
        raise _bad_panel(path, f"{error} is missing", "genes, test, donors, hash") from error
    if panel.hash != stored_hash:
        problem = f"edited after it was written: its genes give the hash {panel.hash[:12]}"
        raise _bad_panel(path, problem, f"{stored_hash[:12]}, the hash stored in the file")
    return panel


def _bad_panel(path: Path, problem: str, expected: str) -> SealError:
    return SealError(
        f"{path} is no gene panel of format {FORMAT} ({problem})",
        expected=expected,
        do="assemble the pairs again (notebook 01), or read it with the seal that wrote it",
    )


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over the spots of a section, or of several; all but `spots` have a value a gene, [genes].

    Sums are float64, numbers of spots int64. Expression is normalised to a total.
    """

    spots: int
    counts: np.ndarray  # raw
    linear: np.ndarray  # expression before the log
    linear_squared: np.ndarray
    log: np.ndarray  # and after log(1 + x)
    log_squared: np.ndarray
    detected: np.ndarray  # spots with expression above 0
    measured: np.ndarray  # spots of the sections that list the gene; elsewhere it counts as 0

    @property
    def linear_variance(self) -> np.ndarray:
        """Variance over spots of the expression before the log, divided by n, [genes]."""
        return _variance(self.linear, self.linear_squared, self.spots)

    @property
    def log_variance(self) -> np.ndarray:
        """Variance over spots of the log expression, divided by n, [genes]."""
        return _variance(self.log, self.log_squared, self.spots)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def save(self, path: Path) -> Path:
        """Write the sums as an npz file, atomically."""
        with atomic(path) as temporary:
            np.savez(temporary, **vars(self))
        return path


def _variance(total: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    """E[x^2] - E[x]^2, 0 where that is no more than what rounding of the sums can leave of equal values."""
    mean_square = squares / n
    variance = mean_square - np.square(total / n)
    return np.where(variance > n * np.finfo(np.float64).eps * mean_square, variance, 0.0)


def load_moments(path: Path) -> Moments:
    """Read what `Moments.save` wrote."""
    with np.load(path) as sums:
        return Moments(**(dict(sums) | {"spots": int(sums["spots"])}))


def sum_spots(counts, smooth, listed: np.ndarray) -> Moments:
    """Sum over the spots of one section, in double precision.

    Parameters
    ----------
    counts, smooth
        scipy CSR, [spots, genes], each entry stored once: raw counts, and normalised log expression, of the spots'
        own counts or of their context as `PanelSettings.variable_genes` says.
    listed
        Whether the section's table has the gene, bool [genes].
    """
    spots, genes = smooth.shape
    sums = np.zeros((5, genes))
    for start in range(0, smooth.nnz, BLOCK):
        columns = smooth.indices[start : start + BLOCK].astype(np.intp)
        log = smooth.data[start : start + BLOCK].astype(np.float64)
        linear = np.expm1(log)
        for row, values in zip(sums, (linear, linear * linear, log, log * log, log > 0), strict=True):
            row += np.bincount(columns, values, genes)
    detected, measured = sums[4].astype(np.int64), np.where(listed, spots, 0).astype(np.int64)
    return Moments(spots, np.bincount(counts.indices, counts.data, genes), *sums[:4], detected, measured)


def add_moments(parts: Iterable[Moments]) -> Moments:
    """Add sums up, one after the other, one or more; the order decides the last bits, so give one order."""
    return functools.reduce(operator.add, parts)


def select(
    sum_donor: Callable[[str], Moments],
    donors: Iterable[str],
    genes: Sequence[str],
    scored: Mapping[str, Sequence[str]],
    settings: PanelSettings,
) -> Panel:
    """Choose the panel and each organ's test genes on training spots.

    The panel: the `settings.genes` most variable genes (`normalised_dispersion`) among those with at least
    `min_gene_counts` counts and listed by sections that hold at least the share `coverage` of the spots, in the
    order of their normalised dispersion, ties by symbol. An organ's test genes: of these, detected in at least
    10 % of its scored donors' spots, the `test_genes` of highest variance within a donor, which is the mean over
    these donors. What differs between donors or organs only cannot be predicted within one, so it is not asked for.

    Parameters
    ----------
    sum_donor, donors
        The sums over a donor's spots, asked for one donor at a time, so that they may be read from disk; and the
        training donors, which are written into the panel.
    genes
        The genes of these sums.
    scored
        Test organ -> the training donors that choose its test genes: those of that organ.

    Raises
    ------
    SealError
        Fewer than two genes are left, or no gene varies.

    Source: release (flavour, number, filter; test genes by organ); order, coverage and the variance our choice.
    """
    donors = sorted(donors)
    whole = add_moments(sum_donor(donor) for donor in donors)
    listed = whole.measured / whole.spots >= settings.coverage
    columns = np.flatnonzero((whole.counts >= settings.min_gene_counts) & listed)
    if len(columns) < 2:
        raise SealError(
            f"{len(columns)} genes have {settings.min_gene_counts} counts or more in the training spots and are "
            f"listed for {settings.coverage:.0%} of them",
            expected="at least two",
            do="check the sections' counts and gene names, or lower PanelSettings.min_gene_counts or coverage",
        )
    variability = normalised_dispersion(whole.linear[columns] / whole.spots, whole.linear_variance[columns])
    ranked = [i for i in range(len(columns)) if not np.isnan(variability[i])]
    ranked.sort(key=lambda i: (-variability[i], genes[columns[i]]))
    if not ranked:
        raise SealError(
            f"none of {len(columns)} genes varies over the training spots",
            expected="spots that differ",
            do="check the sections' counts",
        )
    chosen = columns[ranked[: settings.genes]]
    panel = tuple(genes[column] for column in chosen)
    test = _test_genes(sum_donor, chosen, panel, scored, settings.test_genes)
    return Panel(panel, test, tuple(donors))


def normalised_dispersion(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """How variable genes are for their level: log(variance / mean), standardised within 20 bins of log(1 + mean).

    As scanpy 1.11 has it (`sc.pp.highly_variable_genes(flavor="seurat")`), from the means and variances alone: a gene
    alone in its bin is given 1.

    Parameters
    ----------
    mean, variance
        Over spots, of the expression before the log, [genes]. A factor common to all variances (n or n - 1) cancels.

    Returns
    -------
    float64 [genes]; NaN for a gene that does not vary, and for one whose bin's genes are all equally dispersed.

    Source: Satija et al. 2015; scanpy (bins, genes alone in one).
    """
    import pandas as pd

    dispersion = pd.Series(np.log(np.where(variance > 0, variance, np.nan) / mean))
    in_bin = dispersion.groupby(pd.cut(pd.Series(np.log1p(mean)), bins=20), observed=True)
    centre, spread = in_bin.transform("mean"), in_bin.transform("std")
    alone = spread.isna()
    return ((dispersion - centre.where(~alone, 0)) / spread.where(~alone, centre)).to_numpy()


def _test_genes(
    sum_donor: Callable[[str], Moments],
    columns: np.ndarray,
    panel: Sequence[str],
    scored: Mapping[str, Sequence[str]],
    number: int,
) -> dict[str, tuple[str, ...]]:
    test = {}
    for organ, names in scored.items():
        variances, detected, spots = [], np.zeros(len(panel)), 0
        for donor in sorted(set(names)):
            part = sum_donor(donor)
            variances.append(part.log_variance[columns])
            detected += part.detected[columns]
            spots += part.spots
        variance = np.where(detected / spots >= 0.1, np.mean(variances, axis=0), 0)
        order = sorted(range(len(panel)), key=lambda i: (-variance[i], panel[i]))
        test[organ] = tuple(panel[i] for i in order[:number] if variance[i] > 0)
    return test
