"""From raw counts to what the models see: spot context and normalisation."""

import numpy as np

from seal.errors import SealError


def spot_context(counts, adjacency, own_weight: float, spots: slice = slice(None)):
    """Mix a spot's counts with the mean over its neighbours.

    x'_i = a x_i + (1 - a) mean_{j in N(i)} x_j, with a = `own_weight` (0.5); a spot without neighbours
    keeps its own counts.

    Parameters
    ----------
    counts
        Sparse counts of one section, [n, genes].
    adjacency
        From `seal.data.grid.neighbours` or, as the release has it, `neighbourhood`, [n, n].
    spots
        Those whose context is wanted; all of a large section at once take much memory.

    Returns
    -------
    scipy.sparse.csr_array, float32, [spots, genes].

    Source: release (a = 0.5).
    """
    from scipy.sparse import csr_array, eye_array

    near = adjacency[spots]
    degree = np.asarray(near.sum(axis=1)).ravel()
    own = np.where(degree > 0, own_weight, 1.0)
    share = np.divide(1 - own, degree, out=np.zeros_like(degree, dtype=float), where=degree > 0)
    # One product gives both: the neighbours' sum as the real part, the spot's own counts as the imaginary one.
    itself = eye_array(adjacency.shape[0], dtype=np.complex64, format="csr")[spots]
    sums = (near.astype(np.complex64) + 1j * itself) @ counts
    sums = sums.tocsc().tocsr()  # the genes within a spot in order, faster than by sorting
    stored = np.diff(sums.indptr)
    mixed = np.repeat(own, stored)
    mixed *= sums.data.imag
    mixed += np.repeat(share, stored) * sums.data.real
    return csr_array((mixed.astype(np.float32), sums.indices, sums.indptr), shape=sums.shape)


def neighbourhood(array_row: np.ndarray, array_col: np.ndarray):
    """A spot and those up to a row and a column away: an adjacency of ones for `spot_context`, [n, n].

    On Visium's grid, whose columns are numbered in steps of two, these are four of six neighbours: a spot's own weight
    is then 0.5 + 0.5 / 5 = 0.6; among eight of a square grid it is 0.556.

    Source: release (Visium and Visium HD; other technologies have no context there).
    """
    from scipy.sparse import csr_array
    from scipy.spatial import cKDTree

    n, near = len(array_row), cKDTree(np.stack([array_row, array_col], axis=1)).query_pairs(1.5, output_type="ndarray")
    pairs = np.concatenate([near, near[:, ::-1], np.stack([np.arange(n)] * 2, axis=1)]).astype(np.int32)
    return csr_array((np.ones(len(pairs), dtype=np.float32), pairs.T), shape=(n, n))


def totals(counts) -> np.ndarray:
    """Counts of each spot, in the counts' own precision, [n]."""
    return np.asarray(counts.sum(axis=1)).ravel()


def normalise(counts, target_sum: float, total: np.ndarray | None = None):
    """Total-count normalisation and log: log(1 + x * target_sum / sum(x)), natural logarithm.

    Parameters
    ----------
    counts
        Sparse, [n, genes].
    total
        Counts of each spot, [n]; needed where `counts` are some of the genes alone.

    Returns
    -------
    scipy.sparse.csr_array, float32, [n, genes].

    Raises
    ------
    SealError
        A spot has no counts at all.

    Source: release (target_sum 1e4).
    """
    from scipy.sparse import csr_array

    counts = csr_array(counts, dtype=np.float32, copy=True)
    total = totals(counts) if total is None else total
    if (total <= 0).any():
        raise SealError(
            f"{int((total <= 0).sum())} of {len(total)} spots have no counts",
            expected="at least one count a spot",
            do="filter the spots first (PanelSettings.min_spot_counts)",
        )
    counts.data *= np.repeat((target_sum / total).astype(np.float32), np.diff(counts.indptr))
    np.log1p(counts.data, out=counts.data)
    return counts
