"""Which spots of a section are neighbours on the array's grid; the grid held against where they lie in the image."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seal.errors import SealError

if TYPE_CHECKING:
    import pandas as pd

# Steps in (array_row, array_col) to a spot's true neighbours. Visium numbers the columns of odd rows
# between those of even rows, so the neighbour in the same row is two columns away.
STEPS = {
    "visium": ((0, -2), (0, 2), (-1, -1), (-1, 1), (1, -1), (1, 1)),
    "square": ((0, -1), (0, 1), (-1, 0), (1, 0)),
}

PLACES = ["array_row", "array_col"]
PIXELS = ["pxl_col_in_fullres", "pxl_row_in_fullres"]
POOLED = 128.0  # um a side of HEST-1k's bins of Visium HD (mahmoodlab/HEST, readers.py)
SHAPE = {"visium": (np.sqrt(3) / 2, 0.5), "square": (1.0, 1.0)}  # pitches from row to row and from column to column
NEAR = 1.3  # times the distance to the nearest: no farther than the next neighbours, nearer than those across
STRETCH = 1.3  # times as far in the image, or as near, as usual
ASTRAY = 0.05  # of the pairs may be
OFF = 0.25  # of a pitch, that a place may lie beside the lattice, or the pitch beside what is stated


def neighbours(array_row: np.ndarray, array_col: np.ndarray, grid: str):
    """Adjacency of the spots of one section.

    Parameters
    ----------
    array_row, array_col
        Integer grid positions, shape [n].
    grid
        "visium" (hexagonal, six neighbours) or "square" (four).

    Returns
    -------
    scipy.sparse.csr_array of ones, [n, n], zero diagonal, symmetric.

    Raises
    ------
    SealError
        Unknown grid, or two spots at one position.
    """
    import pandas as pd
    from scipy.sparse import csr_array

    if grid not in STEPS:
        raise SealError(
            f"unknown spot grid {grid!r}",
            expected=f"one of {', '.join(STEPS)}",
            do="set the `grid` column of metadata.csv",
        )
    places = pd.MultiIndex.from_arrays([array_row, array_col])
    if (again := places.duplicated()).any():
        raise SealError(
            f"two spots lie at array_row, array_col = ({array_row[again][0]}, {array_col[again][0]})",
            expected="one spot a grid position",
            do="remove the duplicate from the section's h5ad",
        )
    beside = [pd.MultiIndex.from_arrays([array_row + row, array_col + col]) for row, col in STEPS[grid]]
    found = np.stack([places.get_indexer(index) for index in beside])  # -1 where no spot is
    source, target = np.nonzero(found >= 0)[1].astype(np.int32), found[found >= 0].astype(np.int32)
    values = np.ones(len(source), dtype=np.float32)
    return csr_array((values, (source, target)), shape=(len(places), len(places)))


def lattice(obs: "pd.DataFrame", um_per_px: float) -> "pd.DataFrame | None":
    """Read a square grid's rows and columns off the spots' pixel positions.

    HEST-1k pools Visium HD into bins of 128 um along the image's sides, drops the empty ones and then counts the rest
    through: its array_row and array_col are no places (mahmoodlab/HEST, readers.py, pool_bins_visiumhd).

    Parameters
    ----------
    um_per_px
        Of the image; where it is known and no two bins of 128 um touch, their pitch follows from it.

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
    if um_per_px > 0 and pitch > NEAR * POOLED / um_per_px:
        pitch = POOLED / um_per_px
    steps = (places - places.min(axis=0)) / pitch
    found = np.rint(steps).astype(np.int64)
    if np.abs(steps - found).max() > OFF or len(np.unique(found, axis=0)) < len(found):
        return None
    return pd.DataFrame({"array_row": found[:, 1], "array_col": found[:, 0]}, index=obs.index)


def astray(obs: "pd.DataFrame", kind: str) -> float:
    """Share of pairs of spots that are next to each other, on the grid or in the image, but not in both.

    A pair's distance in the image over its distance on the grid is one number for a whole section, however it is
    turned or mirrored; a pair is astray where it is more than 1.3 times the median, or less than 1 / 1.3 of it.

    Returns
    -------
    0 to 1; 0 for a single spot.

    Raises
    ------
    SealError
        As `neighbours`.
    """
    ratio = _ratios(obs, kind)
    if not len(ratio):
        return 0.0
    usual = np.median(ratio)
    return float(((ratio > STRETCH * usual) | (ratio < usual / STRETCH)).mean())


def _ratios(obs: "pd.DataFrame", kind: str) -> np.ndarray:
    """Distance in the image, px, over that on the grid, pitches, of each pair that touches in either."""
    from scipy.spatial import cKDTree

    if len(obs) < 2:
        return np.empty(0)
    on_grid = neighbours(obs["array_row"].to_numpy(), obs["array_col"].to_numpy(), kind).tocoo()
    at, places = obs[PLACES].to_numpy(dtype=float) * SHAPE[kind], obs[PIXELS].to_numpy(dtype=float)
    distance, others = cKDTree(places).query(places, k=min(7, len(places)))
    spot, k = np.nonzero(distance[:, 1:] <= NEAR * distance[:, 1:2])
    first, second = np.append(spot, on_grid.row), np.append(others[spot, k + 1], on_grid.col)
    apart = first != second  # of spots at one pixel, the first found may be the spot itself or the other
    first, second = first[apart], second[apart]
    return np.linalg.norm(places[first] - places[second], axis=1) / np.linalg.norm(at[first] - at[second], axis=1)


def require_places(
    obs: "pd.DataFrame", kind: str, path: Path, um_per_px: float = np.nan, distance: float = np.nan
) -> None:
    """Assert that a section's positions on a grid, read from `path`, are its own and belong to its pixel positions.

    Parameters
    ----------
    um_per_px, distance
        Of the image, and um from a spot to the next, as the table has them; NaN where it does not say.

    Raises
    ------
    SealError
        Two spots at one place of the grid, more than 5 % of the pairs astray, or spots that lie more than a quarter
        nearer or farther than the table says.
    """
    again = obs.duplicated(PLACES)
    ratios = _ratios(obs, kind) if not again.any() else []
    found = np.median(ratios) * um_per_px if len(ratios) else np.nan
    if again.any():
        what = f"spot {obs.index[again][0]} has the array_row and array_col of another"
    elif (share := astray(obs, kind)) > ASTRAY:
        what = f"of the pairs of spots that touch on the {kind} grid or in the image, {share:.0%} do so in one alone"
    elif abs(found - distance) > OFF * distance:
        what = (
            f"its spots are {found:.4g} um apart, by pixel_size_um_estimated ({um_per_px:.4g}), where inter_spot_dist "
            f"says {distance:g}: the scale is another, or the positions are not in full-resolution px"
        )
    else:
        return
    raise SealError(
        f"{path}: {what}",
        expected="array_row and array_col, one place a spot, that belong to pxl_row_in_fullres and pxl_col_in_fullres",
        do="correct the positions, or the table's `grid` and um, or leave the sample out of the metadata table",
    )
