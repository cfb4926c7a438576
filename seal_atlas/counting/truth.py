"""The truth behind simulated counts, where a sample brings it: layers "oracle" and "ceiling" of its h5ad.

A layer holds the share of a spot's RNA that is expected of each gene, [spots, genes], rows sum to 1: "oracle" from
the true cell composition and the activity of programmes that a picture can show, "ceiling" from everything that is
true but the drawing of counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seal.data.genes import clean_genes
from seal.data.samples import Sample
from seal.errors import SealError

if TYPE_CHECKING:
    from anndata import AnnData

    from seal.data.genes import Aliases

TRUTH = ("oracle", "ceiling")


@dataclass(frozen=True)
class Shares:
    """Expected shares of one section's cleaned genes, [spots, genes]."""

    shares: np.ndarray
    genes: tuple[str, ...]

    def log_expression(self, genes: Sequence[str], target_sum: float) -> np.ndarray:
        """Expected expression as `seal.data.expression.normalise` would give it: log(1 + target_sum x share).

        Returns
        -------
        float32 [spots, genes]; 0 where the section lacks the gene.
        """
        where = {name: column for column, name in enumerate(self.genes)}
        found = np.zeros((len(self.shares), len(genes)), dtype=np.float32)
        known = [i for i, gene in enumerate(genes) if gene in where]
        columns = [where[genes[i]] for i in known]
        found[:, known] = np.log1p(target_sum * self.shares[:, columns].astype(np.float64))
        return found


def is_there(sample: Sample, data: "AnnData") -> bool:
    """Whether a sample is simulated and brings both layers."""
    return sample.simulated and set(TRUTH) <= set(data.layers)


def gather(sample: Sample, data: "AnnData", aliases: "Aliases | None" = None) -> dict[str, Shares]:
    """Take the truth out of a sample's table, scaled to the genes that `clean_genes` keeps: name -> `Shares`.

    Raises
    ------
    SealError
        A layer is not finite and above 0 in every spot.
    """
    genes, positions = clean_genes(data.var_names, aliases)
    return {name: Shares(_shares(sample, data, name, positions), tuple(genes)) for name in TRUTH}


def _shares(sample: Sample, data: "AnnData", name: str, positions: np.ndarray) -> np.ndarray:
    shares = np.asarray(data.layers[name], dtype=np.float32)[:, positions]
    total = shares.sum(axis=1, keepdims=True, dtype=np.float64)
    if not (np.isfinite(shares).all() and (shares >= 0).all() and (total > 0).all()):
        raise SealError(
            f"{sample.st_path}: layer {name!r} holds values that are no shares",
            expected="expected shares of each gene, [spots, genes], none negative, above 0 in every spot's sum",
            do="simulate the sample again",
        )
    return (shares / total).astype(np.float32)
