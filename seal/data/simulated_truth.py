"""The truth behind simulated counts, where samples bring it: layers "oracle" and "ceiling" of their h5ad.

A layer holds the share of a spot's RNA that is expected of each gene, [spots, genes], rows sum to 1: "oracle" from
the true cell composition and the activity of programmes that a picture can show, "ceiling" from everything that is
true but the drawing of counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seal.data.expression import clean_genes
from seal.data.hest import Sample
from seal.data.pairs import TRUTH
from seal.errors import SealError


@dataclass(frozen=True)
class Shares:
    """Expected shares of the cleaned genes, a matrix [spots, genes] and its genes for each section with patches."""

    sections: tuple[tuple[np.ndarray, list[str]], ...]

    def log_expression(self, genes: Sequence[str], target_sum: float) -> np.ndarray:
        """Expected expression as `seal.data.expression.normalise` would give it: log(1 + target_sum x share).

        Returns
        -------
        float32 [pairs, genes]; 0 where a section lacks the gene.
        """
        blocks = []
        for shares, names in self.sections:
            where = {name: column for column, name in enumerate(names)}
            block = np.zeros((len(shares), len(genes)), dtype=np.float32)
            known = [i for i, gene in enumerate(genes) if gene in where]
            block[:, known] = np.log1p(target_sum * shares[:, [where[genes[i]] for i in known]].astype(np.float64))
            blocks.append(block)
        return np.concatenate(blocks)


def gather(samples: Sequence[Sample], tables) -> dict[str, Shares]:
    """Take the truth out of the samples' tables (AnnData), scaled to the genes that `clean_genes` keeps.

    Returns
    -------
    Name of the layer -> `Shares` of the samples with an image, in their order; empty unless all of those are
    simulated and hold both layers.

    Raises
    ------
    SealError
        A layer is not finite and above 0 in every spot.
    """
    shown = [(s, t) for s, t in zip(samples, tables, strict=True) if s.has_image]
    if not all(sample.simulated and set(TRUTH) <= set(table.layers) for sample, table in shown):
        return {}
    return {name: Shares(tuple(_shares(sample, table, name) for sample, table in shown)) for name in TRUTH}


def _shares(sample: Sample, table, name: str) -> tuple[np.ndarray, list[str]]:
    genes, positions = clean_genes(table.var_names)
    shares = np.asarray(table.layers[name], dtype=np.float32)[:, positions]
    total = shares.sum(axis=1, keepdims=True, dtype=np.float64)
    if not (np.isfinite(shares).all() and (shares >= 0).all() and (total > 0).all()):
        raise SealError(
            f"{sample.st_path}: layer {name!r} holds values that are no shares",
            expected="expected shares of each gene, [spots, genes], none negative, above 0 in every spot's sum",
            do="simulate the sample again",
        )
    return (shares / total).astype(np.float32), genes
