"""Random fields and lattices, the same bytes on any CPU.

Compiled loops hold to + - * / and square roots, which every CPU rounds alike; numpy's vectorised exponentials
and BLAS do not, so they stay away from anything that becomes a pixel.
"""

import numpy as np
from numba import njit

_BSPLINE_SD = 151 / 315  # sd of a plane of cubic B-splines with unit normal weights, averaged over positions


@njit(cache=True, nogil=True)
def _weights(t: float) -> tuple[float, float, float, float]:
    """Weights of the four knots around a point `t` of the way from the second to the third."""
    b, c = (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6
    return (1 - t) ** 3 / 6, b, c, t**3 / 6


@njit(cache=True, nogil=True)
def _spline(knots: np.ndarray, height: int, width: int, pitch: float) -> np.ndarray:
    """Cubic B-spline surface over a plane of weights, one pixel apart: float32 [height, width]."""
    out = np.empty((height, width), dtype=np.float32)
    row = np.empty(knots.shape[1])
    for y in range(height):
        j = int(y / pitch)
        a, b, c, d = _weights(y / pitch - j)
        for k in range(row.size):
            row[k] = a * knots[j, k] + b * knots[j + 1, k] + c * knots[j + 2, k] + d * knots[j + 3, k]
        for x in range(width):
            k = int(x / pitch)
            a, b, c, d = _weights(x / pitch - k)
            out[y, x] = a * row[k] + b * row[k + 1] + c * row[k + 2] + d * row[k + 3]
    return out


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Draw a smooth random field.

    Parameters
    ----------
    shape, scale
        Height, width and the length over which it changes, all in the same pixels.

    Returns
    -------
    float32 `shape`, of zero mean and unit variance.
    """
    pitch = max(scale * 0.6, 1.0)
    knots = rng.standard_normal((int(shape[0] / pitch) + 5, int(shape[1] / pitch) + 5)) / _BSPLINE_SD
    return _spline(knots, shape[0], shape[1], pitch)


def jittered_lattice(rng: np.random.Generator, size: tuple[float, float], spacing: float, jitter: float) -> np.ndarray:
    """Hexagonal lattice over a rectangle (height, width), each site moved by a normal jitter (share of spacing).

    Returns
    -------
    (x, y) of the sites, [sites, 2], in the unit of `size`.
    """
    across = np.arange(0, size[0] + spacing, spacing * 0.866)
    along = np.arange(0, size[1] + spacing, spacing)
    x = along[None] + spacing / 2 * (np.arange(len(across)) % 2)[:, None]
    sites = np.stack([x.ravel(), np.repeat(across, len(along))], axis=1)
    sites += jitter * spacing * rng.standard_normal(sites.shape)
    inside = (sites >= 0).all(axis=1) & (sites < (size[1], size[0])).all(axis=1)
    return sites[inside]


@njit(cache=True, nogil=True)
def read_field(field: np.ndarray, xy: np.ndarray, step: float) -> np.ndarray:
    """Read a field at points, bilinear.

    Parameters
    ----------
    field
        [h, w], its pixels `step` apart, the first at 0.
    xy
        [n, 2]; what lies outside reads the border.

    Returns
    -------
    float32 [n].
    """
    h, w = field.shape
    out = np.empty(len(xy), dtype=np.float32)
    for i in range(len(xy)):
        x = min(max(xy[i, 0] / step, 0.0), w - 1.001)
        y = min(max(xy[i, 1] / step, 0.0), h - 1.001)
        c, r = int(x), int(y)
        u, v = x - c, y - r
        top = field[r, c] * (1 - u) + field[r, c + 1] * u
        bottom = field[r + 1, c] * (1 - u) + field[r + 1, c + 1] * u
        out[i] = top * (1 - v) + bottom * v
    return out


def nearest_label(field: np.ndarray, xy: np.ndarray, step: float) -> np.ndarray:
    """Read a field of labels at points, [n]."""
    h, w = field.shape
    col = np.clip((xy[:, 0] / step + 0.5).astype(int), 0, w - 1)
    row = np.clip((xy[:, 1] / step + 0.5).astype(int), 0, h - 1)
    return field[row, col]


def sort_into_squares(points: np.ndarray, side: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
    """Sort points into squares, so that neighbours are found at once.

    Returns
    -------
    The points' order by square, where each square begins in it [squares + 1], the corner (x, y) of the first
    square, and the number of (rows, columns).
    """
    if not len(points):
        return np.empty(0, np.int64), np.zeros(2, np.int64), np.zeros(2), (1, 1)
    corner = points.min(axis=0) - 1e-6
    col, row = ((points - corner) / side).astype(np.int64).T
    grid = int(row.max()) + 1, int(col.max()) + 1
    square = row * grid[1] + col
    order = np.argsort(square, kind="stable")
    starts = np.searchsorted(square[order], np.arange(grid[0] * grid[1] + 1))
    return order, starts, corner, grid


@njit(cache=True, nogil=True)
def _thin(xy, distance, group, order, starts, corner, grid, side):
    keep = np.zeros(len(xy), dtype=np.bool_)
    for i in range(len(xy)):
        col, row = int((xy[i, 0] - corner[0]) / side), int((xy[i, 1] - corner[1]) / side)
        free = True
        for r in range(max(row - 1, 0), min(row + 2, grid[0])):
            for c in range(max(col - 1, 0), min(col + 2, grid[1])):
                square = r * grid[1] + c
                for k in range(starts[square], starts[square + 1]):
                    j = order[k]
                    if keep[j] and group[j] == group[i]:
                        dx, dy = xy[i, 0] - xy[j, 0], xy[i, 1] - xy[j, 1]
                        if dx * dx + dy * dy < distance * distance:
                            free = False
            if not free:
                break
        keep[i] = free
    return keep


def thin_points(xy: np.ndarray, distance: float, group: np.ndarray) -> np.ndarray:
    """Keep points one after the other unless one of the same group was kept nearer than `distance`: bool [n]."""
    order, starts, corner, grid = sort_into_squares(xy, distance)
    return _thin(xy, distance, group, order, starts, corner, grid, distance)


@njit(cache=True, nogil=True)
def two_nearest(at, points, order, starts, corner, grid, side):
    """Distances to the two nearest points and which the nearest is; 1e9 and -1 where none is near.

    Searched in the 5 x 5 squares around, so exact up to twice `side`.
    """
    first = np.full(len(at), 1e9)
    second = np.full(len(at), 1e9)
    which = np.full(len(at), -1, dtype=np.int64)
    for i in range(len(at)):
        x, y = at[i, 0], at[i, 1]
        col, row = int((x - corner[0]) / side), int((y - corner[1]) / side)
        near, far, best = 1e18, 1e18, -1
        for r in range(max(row - 2, 0), min(row + 3, grid[0])):
            for c in range(max(col - 2, 0), min(col + 3, grid[1])):
                square = r * grid[1] + c
                for k in range(starts[square], starts[square + 1]):
                    j = order[k]
                    dx, dy = points[j, 0] - x, points[j, 1] - y
                    q = dx * dx + dy * dy
                    if q < near:
                        far, near, best = near, q, j
                    elif q < far:
                        far = q
        if best >= 0:
            first[i], which[i] = near**0.5, best
            if far < 1e18:
                second[i] = far**0.5
    return first, second, which
