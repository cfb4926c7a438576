"""Whether spots that look alike in two sections also lie alike: by one turn, shift and scale for all of them.

Places are in units of a section's pitch, so that the scale of its image plays no part. Chance matches are scattered;
those of a section with itself agree on the shift.
"""

from collections.abc import Sequence

import numpy as np

TURNS = tuple((swap, x, y) for swap in (False, True) for x in (1, -1) for y in (1, -1))  # swap axes, then mirror
AGREE = 10  # spots that must lie alike; of 100 simulated chance matches at most 3 do
NEAR = 0.5  # pitch: nearer than this, two spots are in one place
_VOTE = 1.5  # pitch: what a scale that is 2 % off does to the shift over 75 spots
_SKEW = 0.1  # how far from a mere turn the fitted map may be


def pitch(places: np.ndarray) -> float:
    """Median distance of a spot to its nearest neighbour, in the units of `places` [n, 2]; 1 for a single spot."""
    from scipy.spatial import cKDTree

    if len(places) < 2:
        return 1.0
    return float(np.median(cKDTree(places).query(places, k=2)[0][:, 1])) or 1.0


def matrix(turn: tuple[bool, int, int]) -> np.ndarray:
    """The turn of positions (x, y), [2, 2]."""
    swap, x, y = turn
    return np.diag([x, y]) @ (np.eye(2)[::-1] if swap else np.eye(2))


def fit(a: np.ndarray, b: np.ndarray, turns: Sequence[tuple[bool, int, int]] = TURNS) -> np.ndarray | None:
    """Find the map that most matches agree on.

    Parameters
    ----------
    a, b
        Places of matched spots, [m, 2] each, some of them matched by chance.
    turns
        Those to try.

    Returns
    -------
    [3, 2], so that (x, y, 1) of `a` times it is the place in `b`; None where fewer than `AGREE` spots agree.
    """
    found = [_fit(a, b, matrix(turn)) for turn in turns] if len(a) >= AGREE else []
    agreeing, best = max(found, key=lambda pair: pair[0], default=(0, None))
    return best if agreeing >= AGREE else None


def _fit(a: np.ndarray, b: np.ndarray, turn: np.ndarray) -> tuple[int, np.ndarray]:
    """Start from the shift with most votes, then twice a least-squares map through what it explains."""
    from scipy.spatial import cKDTree

    shifts = b - a @ turn.T
    votes = cKDTree(shifts).query_ball_point(shifts, _VOTE, return_length=True)
    agree = np.hypot(*(shifts - shifts[votes.argmax()]).T) <= _VOTE
    start = np.vstack([turn.T, shifts[agree].mean(axis=0)])
    best = start
    for _ in range(2):
        if agree.sum() < AGREE:
            break
        fitted = np.linalg.lstsq(_padded(a[agree]), b[agree], rcond=None)[0]
        best = fitted if np.abs(fitted[:2] - turn.T).max() <= _SKEW else start
        agree = np.hypot(*(_padded(a) @ best - b).T) <= NEAR
    return int(agree.sum()), best


def _padded(places: np.ndarray) -> np.ndarray:
    return np.column_stack([places, np.ones(len(places))])


def partners(mapping: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of spots that a map of `fit` puts in one place: their rows in `a` and in `b`, each of `b` once at most."""
    from scipy.spatial import cKDTree

    distance, nearest = cKDTree(b).query(_padded(a) @ mapping)
    rows = np.flatnonzero(distance <= NEAR)
    rows = rows[np.argsort(distance[rows], kind="stable")]
    _, first = np.unique(nearest[rows], return_index=True)
    return rows[first], nearest[rows[first]]
