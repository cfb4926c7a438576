"""Where a section's spots lie on the array's grid, held against where they lie in the image."""

from typing import TYPE_CHECKING

import numpy as np

from seal.data.expression import neighbours

if TYPE_CHECKING:
    import pandas as pd

PIXELS = ["pxl_col_in_fullres", "pxl_row_in_fullres"]
NEAR = 1.3  # times the distance to the nearest: no farther than the four neighbours, nearer than those across
FAR = 1.5  # times the usual distance of two neighbours
ASTRAY = 0.05  # of the pairs of neighbours may be farther apart, or nearer, in the image
OFF = 0.25  # of a pitch, that a place may lie beside the lattice


def lattice(obs: "pd.DataFrame") -> "pd.DataFrame | None":
    """Read a square grid's rows and columns off the spots' pixel positions.

    HEST-1k pools Visium HD into bins of 128 um along the image's sides, drops the empty ones and then counts the rest
    through: its array_row and array_col are no places (mahmoodlab/HEST, src/hest/readers.py, pool_bins_visiumhd).

    Returns
    -------
    array_row and array_col, int64, the first of each 0; None where the spots lie on no lattice along the image's sides.
    """
    import pandas as pd
    from scipy.spatial import cKDTree

    places = obs[PIXELS].to_numpy(dtype=float)
    if len(places) < 2:
        return None
    tree = cKDTree(places)
    nearest = np.median(tree.query(places, k=2)[0][:, 1])
    if not nearest > 0:
        return None
    # the nearest of four is nearer than they are on average
    beside = tree.query_pairs(NEAR * nearest, output_type="ndarray")
    pitch = np.linalg.norm(places[beside[:, 0]] - places[beside[:, 1]], axis=1).mean()
    steps = (places - places.min(axis=0)) / pitch
    found = np.rint(steps).astype(np.int64)
    if np.abs(steps - found).max() > OFF or len(np.unique(found, axis=0)) < len(found):
        return None
    return pd.DataFrame({"array_row": found[:, 1], "array_col": found[:, 0]}, index=obs.index)


def astray(obs: "pd.DataFrame", kind: str) -> float:
    """Share of the grid's neighbours whose distance in the image is not what is usual in this section, 0 to 1.

    Raises
    ------
    SealError
        As `neighbours`.
    """
    pairs = neighbours(obs["array_row"].to_numpy(), obs["array_col"].to_numpy(), kind).tocoo()
    if not pairs.nnz:
        return 0.0
    places = obs[PIXELS].to_numpy(dtype=float)
    distance = np.linalg.norm(places[pairs.row] - places[pairs.col], axis=1)
    usual = np.median(distance)
    return float(((distance > FAR * usual) | (distance < usual / FAR)).mean())
