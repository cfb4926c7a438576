"""Yardsticks of embeddings, against cases whose answer is known."""

import numpy as np
import pytest

from seal.evaluate import geometry


@pytest.fixture
def z():
    return np.random.default_rng(0).normal(size=(400, 64))


def test_alignment_from_equal_to_opposite(z):
    assert geometry.alignment(z, 3 * z) == pytest.approx(0, abs=1e-12)
    assert geometry.alignment(z, -z) == pytest.approx(4)
    assert geometry.alignment(z, np.roll(z, 1, axis=0)) == pytest.approx(2, abs=0.05)


def test_uniformity_from_a_point_to_the_whole_sphere(z):
    assert geometry.uniformity(np.ones((10, 5))) == pytest.approx(0)
    assert geometry.uniformity(z) == pytest.approx(-4 + 8 / 64, abs=0.05)  # to second order in the cosines
    opposite = np.array([[1.0, 0], [-1, 0]])
    assert geometry.uniformity(opposite) == pytest.approx(-8)


def test_effective_rank_counts_equal_directions():
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(50, 50)))[0]
    centred = basis - basis.mean(axis=0)
    assert geometry.effective_rank(centred[:, :1] @ np.ones((1, 7))) == pytest.approx(1)
    signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])  # two equal singular values
    assert geometry.effective_rank(signs) == pytest.approx(2)
    assert geometry.effective_rank(signs + 100.0) == pytest.approx(2)


def test_recall_of_perfect_random_and_constant_embeddings(z):
    assert geometry.recall(z, z, 1) == 1
    unrelated = np.random.default_rng(2).normal(size=z.shape)
    assert geometry.recall(z, unrelated, 40) == pytest.approx(0.1, abs=0.05)
    assert geometry.recall(z, np.ones_like(z), 10) == 0  # a constant finds nothing


def test_they_are_what_their_formulas_say(z):
    distances = ((geometry._unit(z)[:, None] - geometry._unit(z)[None]) ** 2).sum(axis=2)[np.triu_indices(400, k=1)]
    assert geometry.uniformity(z) == pytest.approx(np.log(np.exp(-2 * distances).mean()), rel=1e-12)
    for wide in (z * np.linspace(1e-5, 1, 64), z[:40] * np.linspace(1e-5, 1, 64)):  # more rows than columns, and fewer
        s = np.linalg.svd(wide - wide.mean(axis=0), compute_uv=False)
        p = s[s > 1e-12 * s[0]] / s.sum()
        assert geometry.effective_rank(wide) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
