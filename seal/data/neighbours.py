"""Which spots lie around each spot, as rows of the pairs: what baselines with context look at."""

import numpy as np

from seal.data.grid import PLACES, STEPS
from seal.data.pairs import Pairs

# Steps to a spot itself and to all around it: 5 x 5 on a square grid, two rings on Visium's.
WINDOW = {
    "square": tuple((row, col) for row in range(-2, 3) for col in range(-2, 3)),
    "visium": tuple(sorted({(a + c, b + d) for a, b in (*STEPS["visium"], (0, 0)) for c, d in STEPS["visium"]})),
}


def places(pairs: Pairs) -> np.ndarray:
    """Read each spot's array_row and array_col, int64 [pairs, 2]."""
    return pairs.frame()[PLACES].to_numpy()[: pairs.n_pairs]


def find_around(pairs: Pairs, steps: dict[str, tuple[tuple[int, int], ...]]) -> np.ndarray:
    """Find the spots around each spot: those with a patch, of its own section.

    Parameters
    ----------
    steps
        Grid -> steps in (array_row, array_col), `seal.data.grid.STEPS` for true neighbours or `WINDOW`.

    Returns
    -------
    Rows of the pairs, int64 [pairs, most steps]; a step has the same column everywhere, -1 where no spot is.
    """
    at, found = places(pairs).tolist(), np.full((pairs.n_pairs, max(map(len, steps.values()))), -1)
    for section in (section for section in pairs.sections if section.has_image):
        row_of, around = {tuple(at[row]): row for row in range(section.start, section.stop)}, steps[section.grid]
        for (row, col), own in row_of.items():
            found[own, : len(around)] = [row_of.get((row + r, col + c), -1) for r, c in around]
    return found


def find_sections(pairs: Pairs) -> np.ndarray:
    """Give the first row of each spot's section and the one behind its last, int64 [pairs, 2]."""
    ends = [(s.start, s.stop) for s in pairs.sections if s.has_image]
    return np.repeat(np.array(ends), [stop - start for start, stop in ends], axis=0)
