"""The probe against scikit-learn's pipeline, and the choice of alpha."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from seal.evaluate.probe import alpha_groups, ridge_probe


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(12, 3))
    x, x_test = rng.normal(size=(90, 12)) * 3 + 1, rng.normal(size=(20, 12)) * 3 + 1
    return x, x @ w + 20 * rng.normal(size=(90, 3)), x_test


@pytest.mark.parametrize("components", [5, 12, 256])
def test_equals_scikit_learn(data, components):
    x, y, x_test = data
    prediction, alpha = ridge_probe(x, y, np.arange(90) % 3, x_test, components, [10.0])
    plain = make_pipeline(StandardScaler(), PCA(min(components, 12), svd_solver="full"), Ridge(alpha=10.0))
    assert alpha == 10.0
    np.testing.assert_allclose(prediction, plain.fit(x, y).predict(x_test), atol=1e-8)


def test_alpha_is_chosen_on_the_training_groups(data):
    x, y, x_test = data
    rng = np.random.default_rng(1)
    wide = np.hstack([x, rng.normal(size=(90, 60))])
    noise = ridge_probe(wide, y, np.arange(90) % 3, np.hstack([x_test, np.zeros((20, 60))]), 256, [1e-6, 1e3])[1]
    clean = ridge_probe(x, x @ np.ones((12, 1)), np.arange(90) % 3, x_test, 256, [1e-6, 1e6])[1]
    assert noise == 1e3
    assert clean == 1e-6


def test_a_constant_feature_is_harmless(data):
    x, y, x_test = data
    prediction, _ = ridge_probe(np.ones_like(x), y, np.arange(90) % 3, np.ones_like(x_test), 5, [1.0])
    np.testing.assert_allclose(prediction, np.repeat(y.mean(0, keepdims=True), 20, axis=0), atol=1e-8)


def test_alpha_groups_prefer_donors_then_sections_then_strips():
    donors, sections, column = np.array(["A", "A", "B"]), np.array(["1", "2", "3"]), np.arange(3)
    assert alpha_groups(donors, sections, column) is donors
    assert alpha_groups(np.array(["A"] * 3), sections, column) is sections
    strips = alpha_groups(np.array(["A"] * 100), np.array(["1"] * 100), np.arange(100))
    assert len(np.unique(strips)) == 5
    assert (np.diff(strips) >= 0).all()
