"""Correlations against numpy's own, the bootstraps against resampled rows and donors."""

import numpy as np
import pytest

from seal.evaluate.metrics import cluster_means, holm, interval, mean_pearson, pearson, resamples, two_sided


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(30, 4)) + 5
    return y + rng.normal(size=y.shape), y


def test_pearson_equals_corrcoef(data):
    x, y = data
    expected = [np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(4)]
    np.testing.assert_allclose(pearson(x, y), expected, atol=1e-12)


def test_weights_equal_resampled_rows(data):
    x, y = data
    weights = resamples(len(x), 5, seed=1)
    assert (weights.sum(axis=1) == len(x)).all()
    for row, value in zip(weights, pearson(x, y, weights), strict=True):
        drawn = np.repeat(np.arange(len(x)), row)
        expected = [np.corrcoef(x[drawn, i], y[drawn, i])[0, 1] for i in range(4)]
        np.testing.assert_allclose(value, expected, atol=1e-10)


def test_constant_prediction_scores_zero_and_constant_truth_is_left_out(data):
    x, y = data
    x, y = x.copy(), y.copy()
    x[:, 0], y[:, 1] = 3.0, 7.0
    r = pearson(x, y)
    assert r[0] == 0
    assert np.isnan(r[1])
    assert mean_pearson(x, y) == pytest.approx((r[0] + r[2] + r[3]) / 3)


def test_interval_is_the_percentile_interval():
    low, high = interval(np.arange(1001))
    assert (low, high) == pytest.approx((25, 975))


def test_cluster_bootstrap_equals_drawing_donors_one_by_one():
    rng = np.random.default_rng(3)
    donors = np.repeat(["a", "b", "c", "d"], [1, 3, 2, 1])
    values = rng.normal(size=len(donors))
    names = np.unique(donors)
    expected = []
    for counts in resamples(4, 20, seed=5):
        drawn = [values[donors == name] for name, times in zip(names, counts, strict=True) for _ in range(times)]
        expected.append(np.concatenate(drawn).mean())
    got = cluster_means(values, donors, 20, seed=5)
    np.testing.assert_allclose(got, expected, atol=1e-12)
    np.testing.assert_allclose(cluster_means(values + 1, donors, 20, seed=5), got + 1, atol=1e-12)  # the same donors
    assert np.ptp(got) > 0.1


def test_one_donor_gives_no_interval():
    assert np.isnan(cluster_means(np.ones(3), np.array(["a"] * 3), 5, seed=0)).all()


def test_holm_by_hand():
    adjusted = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(adjusted, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1.0, 1.0])
    adjusted = holm(np.array([np.nan, 0.02, 0.5]))
    np.testing.assert_allclose(adjusted[1:], [0.06, 1.0])
    assert np.isnan(adjusted[0])


def test_significance_counts_the_other_side():
    assert two_sided(np.arange(1, 100)) == 2 / 100
    assert two_sided(np.array([-1.0, 1, 2, 3, 4, 5, 6, 7, 8])) == 2 * 2 / 10
    assert two_sided(-np.array([-1.0, 1, 2, 3, 4, 5, 6, 7, 8])) == 2 * 2 / 10
    assert two_sided(np.zeros(9)) == 1
    assert two_sided(np.arange(1, 1000), units=4) == 1 / 8, "four donors that agree: a coin does so one time in eight"
    assert two_sided(np.arange(1, 1000), units=56) == 2 / 1000
    assert np.isnan(two_sided(np.array([np.nan, 1.0])))
