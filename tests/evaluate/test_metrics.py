"""Correlations against numpy's own, the bootstrap against resampled rows."""

import numpy as np
import pytest

from seal.evaluate.metrics import interval, mean_pearson, pearson, resamples


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
