"""Baselines that know nothing of tissue."""

import numpy as np

from seal.errors import SealError
from seal.shapes import Float, RowReader


def colour_statistics(patches: RowReader) -> Float[np.ndarray, "patches 6"]:
    """Describe each patch by the mean and the standard deviation of its three colours, nothing else.

    What an encoder predicts beyond this is more than stain and cell density seen as colour.

    Parameters
    ----------
    patches
        RGB, uint8 [n, S, S, 3]; read in pieces.

    Returns
    -------
    float32: mean of R, G, B, then sd (over pixels, not of a sample) of R, G, B; unit: full scale = 1.

    Raises
    ------
    SealError
        The patches are not uint8 RGB.

    Source: our choice.
    """
    if patches.dtype != np.uint8 or len(patches.shape) != 4 or patches.shape[-1] != 3:
        raise SealError(
            f"patches are {patches.dtype} {list(patches.shape)}",
            expected="uint8 [n, S, S, 3]",
            do="give RGB patches as they are stored in patches.npy",
        )
    statistics = np.empty((len(patches), 6), dtype=np.float32)  # [n, 6]
    for start in range(0, len(patches), 256):
        piece = np.asarray(patches[start : start + 256], dtype=np.float64) / 255  # [256, S, S, 3]
        statistics[start : start + 256, :3] = piece.mean(axis=(1, 2))
        statistics[start : start + 256, 3:] = piece.std(axis=(1, 2))
    return statistics
