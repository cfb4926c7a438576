"""Gene names, neighbourhoods, context and normalisation on cases counted by hand."""

import numpy as np
import pytest
from scipy.sparse import csr_array, diags_array

from seal.data.expression import normalise, spot_context, totals
from seal.data.grid import neighbours
from seal.errors import SealError


def grid(kind, n=7):
    if kind == "square":
        return np.divmod(np.arange(n * n), n)
    row, k = np.divmod(np.arange(n * n), n)
    return row, 2 * k + row % 2


@pytest.mark.parametrize(("kind", "full"), [("visium", 6), ("square", 4)])
def test_inner_spots_have_all_true_neighbours_at_equal_distance(kind, full):
    row, col = grid(kind)
    adjacency = neighbours(row, col, kind).toarray()
    assert (adjacency == adjacency.T).all()
    assert adjacency.diagonal().sum() == 0
    middle = 24
    assert adjacency[middle].sum() == full
    # in um, where Visium's columns are half a pitch and its rows sqrt(3)/2 of a pitch apart
    scale = (np.sqrt(3) / 2, 0.5) if kind == "visium" else (1, 1)
    xy = np.stack([row * scale[0], col * scale[1]], axis=1)
    distance = np.linalg.norm(xy - xy[middle], axis=1)
    np.testing.assert_allclose(distance[adjacency[middle] > 0], 1, atol=1e-9)
    assert (np.sort(distance)[full + 1 :] > 1.01).all()


def test_bad_grids_are_named():
    with pytest.raises(SealError, match="'hexagon'"):
        neighbours(np.array([0]), np.array([0]), "hexagon")
    with pytest.raises(SealError, match=r"\(1, 3\)"):
        neighbours(np.array([1, 1]), np.array([3, 3]), "visium")


def test_context_is_half_own_half_mean_of_neighbours():
    row, col = np.array([0, 0, 0, 9]), np.array([0, 1, 2, 9])
    counts = csr_array(np.array([[4.0, 0], [0, 8], [2, 2], [5, 5]]))
    mixed = spot_context(counts, neighbours(row, col, "square"), 0.5).toarray()
    np.testing.assert_allclose(mixed, [[2, 4], [1.5, 4.5], [1, 5], [5, 5]])


@pytest.mark.parametrize("kind", ["visium", "square"])
def test_context_equals_the_plain_formula(kind):
    """One product instead of three, to the last bit: a I x + (1 - a) D^-1 A x."""
    draw = np.random.default_rng(1)
    row, col = np.divmod(draw.permutation(400)[:150], 20)  # gaps, alone standing spots, no order
    col = 2 * col + row % 2 if kind == "visium" else col
    adjacency = neighbours(row, col, kind)
    counts = csr_array(draw.poisson(0.7, (150, 90)).astype(np.float32))
    degree = adjacency.sum(axis=1).astype(float)
    share = np.where(degree > 0, (1 - 0.7) / np.maximum(degree, 1), 0)
    plain = diags_array(np.where(degree > 0, 0.7, 1.0)) @ counts + diags_array(share) @ (adjacency @ counts)
    plain = csr_array(plain.astype(np.float32))
    plain.sort_indices()
    mixed = spot_context(counts, adjacency, 0.7)
    assert (degree == 0).any()
    assert mixed.has_sorted_indices
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(mixed, name), getattr(plain, name))


@pytest.mark.parametrize("spots", [slice(0, 7), slice(7, 40), slice(36, 99)])
def test_context_of_some_spots_is_that_of_all(spots):
    row, col = np.divmod(np.random.default_rng(3).permutation(60)[:40], 8)
    counts = csr_array(np.random.default_rng(4).poisson(1.0, (40, 9)).astype(np.float32))
    adjacency = neighbours(row, col, "square")
    whole = spot_context(counts, adjacency, 0.5).toarray()
    np.testing.assert_array_equal(spot_context(counts, adjacency, 0.5, spots).toarray(), whole[spots])


def test_some_genes_alone_need_the_totals_of_all():
    counts = csr_array(np.random.default_rng(2).poisson(2.0, (30, 12)).astype(np.float32))
    columns = [7, 0, 3]
    some = normalise(counts[:, columns], 1e4, totals(counts))
    np.testing.assert_array_equal(some.toarray(), normalise(counts, 1e4)[:, columns].toarray())


def test_normalise():
    x = normalise(csr_array(np.array([[1, 3], [0, 5]])), 1e4).toarray()
    np.testing.assert_allclose(x, np.log1p([[2500, 7500], [0, 1e4]]), rtol=1e-6)


def test_normalise_names_empty_spots():
    with pytest.raises(SealError, match="1 of 2 spots"):
        normalise(csr_array(np.array([[0, 0], [0, 5]])), 1e4)
