"""The truth behind simulated counts as two methods of evaluation: what no encoder can surpass.

A simulated sample's h5ad has the layers "oracle" and "ceiling": the share of a spot's RNA that is expected of each
gene, [spots, genes], rows sum to 1. The oracle follows from the true cell composition and the activity of programmes
that a picture can show, the ceiling from everything that is true but the drawing of counts.
"""

import importlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import h5py
import numpy as np

from seal import paths
from seal.data.folds import Fold
from seal.data.genes import Aliases, clean_genes
from seal.data.sample_files import read_counts
from seal.data.samples import Sample, read_samples
from seal.errors import SealError
from seal.evaluate.methods import Method

if TYPE_CHECKING:
    from anndata import AnnData

    from seal.data.pairs import Pairs

LAYERS = ("oracle", "ceiling")


def methods(pairs: "Pairs") -> tuple[Method, ...]:
    """Oracle and ceiling, where every sample with a picture is simulated and brings both layers; else none."""
    shown = [sample for sample in _samples(pairs).values() if sample.has_image]
    if not shown or not all(map(has_truth, shown)):
        return ()
    return tuple(
        Method(
            name=name,
            label=f"{name} (simulated truth)",
            kind="truth",
            seeded="none",
            predict=partial(expected_expression, name),
        )
        for name in LAYERS
    )


def has_truth(sample: Sample) -> bool:
    """Whether a sample is simulated and brings both layers."""
    if not sample.simulated:
        return False
    with h5py.File(sample.st_path) as file:
        return set(LAYERS) <= set(file.get("layers", ()))


def expected_expression(
    name: str, pairs: "Pairs", fold: Fold, embedding: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """Expected expression of a fold's test spots, as `seal.data.expression.normalise` would give it.

    log(1 + T s), with s a gene's expected share and T the counts a spot is scaled to.

    Parameters
    ----------
    name
        "oracle" or "ceiling".
    embedding, seed
        Not read: the truth is known without a picture, and one. Every method takes them.

    Returns
    -------
    float32 [test spots, test genes]; 0 where a section lacks the gene.

    Raises
    ------
    SealError
        A layer is not finite and above 0 in every spot.
    """
    genes, target = pairs.panel(fold).test_genes, pairs.profile.panel.target_sum
    expected = np.zeros((len(fold.test), len(genes)), dtype=np.float32)
    for sample, barcodes, places, rows in _test_sections(pairs, fold):
        data = read_counts(sample)[barcodes]
        shares, names = layer_shares(sample, data, name)  # of the whole section, so that no sum depends on the fold
        column = {gene: i for i, gene in enumerate(names)}
        known = [i for i, gene in enumerate(genes) if gene in column]
        chosen = shares[np.ix_(rows, [column[genes[i]] for i in known])].astype(np.float64)
        expected[np.ix_(places, known)] = np.log1p(target * chosen)
    return expected


def layer_shares(sample: Sample, data: "AnnData", name: str) -> tuple[np.ndarray, Sequence[str]]:
    """A layer of a sample's table, scaled to the genes that `clean_genes` keeps: float32 [spots, genes], and these."""
    table = paths.given("SEAL_ALIASES")  # as the assembly of the pairs names genes
    genes, summed = clean_genes(data.var_names, Aliases.read(table) if table else None)
    shares = np.asarray(data.layers[name], dtype=np.float32) @ summed
    total = shares.sum(axis=1, keepdims=True, dtype=np.float64)
    if not (np.isfinite(shares).all() and (shares >= 0).all() and (total > 0).all()):
        raise SealError(
            f"{sample.st_path}: layer {name!r} holds values that are no shares",
            expected="expected shares of each gene, [spots, genes], none negative, above 0 in every spot's sum",
            do="simulate the sample again",
        )
    return (shares / total).astype(np.float32), genes


def _samples(pairs: "Pairs") -> dict[str, Sample]:
    """The samples of the pairs by name, where their source has them."""
    root = importlib.import_module(pairs.profile.source).prepare(pairs.profile)
    return {sample.id: sample for sample in read_samples(root)}


def _test_sections(pairs: "Pairs", fold: Fold) -> Iterator[tuple[Sample, list[str], np.ndarray, np.ndarray]]:
    """Each test section: its sample and barcodes, its places among the test spots, their rows in the section."""
    found, barcodes = _samples(pairs), pairs.frame()["barcode"].to_numpy()
    for section in pairs.sections:
        places = np.flatnonzero((fold.test >= section.start) & (fold.test < section.stop))
        if len(places):
            own = barcodes[section.start : section.stop].tolist()
            yield found[section.sample], own, places, fold.test[places] - section.start
