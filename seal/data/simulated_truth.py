"""The truth behind simulated counts, where samples bring it: layers "oracle" and "ceiling" of their h5ad.

A layer holds the share of a spot's RNA that is expected of each gene, [spots, genes], rows sum to 1: "oracle" from
the true cell composition and the activity of programmes that a picture can show, "ceiling" from everything that is
true but the drawing of counts.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from seal.data.hest import Sample
from seal.data.pairs import TRUTH
from seal.errors import SealError

if TYPE_CHECKING:
    from anndata import AnnData


def shares(sample: Sample, data: "AnnData", spots: np.ndarray, columns: np.ndarray) -> dict[str, np.ndarray]:
    """Take the truth out of one sample, scaled to the genes that are kept.

    Parameters
    ----------
    spots, columns
        Which rows (a mask) and which columns of `data` are kept.

    Returns
    -------
    Name of the layer -> float32 [kept spots, kept genes]; empty unless the sample is simulated, has an image and
    holds both layers.

    Raises
    ------
    SealError
        A layer is not finite and above 0 in every spot.
    """
    if not (sample.simulated and sample.has_image and set(TRUTH) <= set(data.layers)):
        return {}
    return {name: _scaled(sample, np.asarray(data.layers[name])[spots][:, columns], name) for name in TRUTH}


def _scaled(sample: Sample, layer: np.ndarray, name: str) -> np.ndarray:
    layer = layer.astype(np.float32)
    total = layer.sum(axis=1, keepdims=True, dtype=np.float64)
    if not (np.isfinite(layer).all() and (layer >= 0).all() and (total > 0).all()):
        raise SealError(
            f"{sample.st_path}: layer {name!r} holds values that are no shares",
            expected="expected shares of each gene, [spots, genes], none negative, above 0 in every spot's sum",
            do="simulate the sample again",
        )
    return (layer / total).astype(np.float32)


def log_expression(layer: np.ndarray, names: Sequence[str], genes: Sequence[str], target_sum: float) -> np.ndarray:
    """Expected expression as `seal.data.expression.normalise` would give it: log(1 + target_sum x share).

    Parameters
    ----------
    layer, names
        Shares [spots, genes] and their genes.
    genes
        Those that are wanted.

    Returns
    -------
    float32 [spots, wanted genes]; 0 where the sample lacks the gene.
    """
    where = {name: column for column, name in enumerate(names)}
    found = np.zeros((len(layer), len(genes)), dtype=np.float32)
    known = [i for i, gene in enumerate(genes) if gene in where]
    found[:, known] = np.log1p(target_sum * layer[:, [where[genes[i]] for i in known]].astype(np.float64))
    return found
