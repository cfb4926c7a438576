"""A sweep over folds and penalties against scikit-learn's plain loop."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from seal.errors import SealError
from seal.evaluate import ridge
from seal.evaluate.ridge import ridge_sweep

ALPHAS = [1e-3, 0.1, 10.0, 1e3]


def plain_loop(x, y, left_out, components, intercept=True):
    """Scaler, PCA and ridge of scikit-learn for each fold and penalty."""
    for out in left_out:
        found = []
        for alpha in ALPHAS:
            scaler, pca = StandardScaler(), PCA(min(components, *x[~out].shape), svd_solver="full")
            train = pca.fit_transform(scaler.fit_transform(x[~out]))
            model = Ridge(alpha=alpha, fit_intercept=intercept).fit(train, y[~out])
            found.append(model.predict(pca.transform(scaler.transform(x[out]))).reshape(int(out.sum()), -1))
        yield np.stack(found, axis=1)


def make(n, d, genes, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * np.geomspace(10, 0.1, d) + rng.normal(size=d) * 20
    return x, x @ rng.normal(size=(d, genes)) / 5 + rng.normal(size=(n, genes)) + 3


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize(
    ("n", "d", "genes", "components"),
    [(200, 20, 7, 12), (200, 20, 1, 256), (60, 90, 5, 256), (45, 40, 3, 30), (200, 1, 3, 256)],  # 45 less 15: n < d
)
def test_equals_scikit_learns_plain_loop(n, d, genes, components, intercept):
    x, y = make(n, d, genes)
    left_out = [np.arange(n) % 3 == i for i in range(3)] + [np.arange(n) < 2]  # the last: a group of two spots
    found = list(ridge_sweep(x, y, left_out, components, ALPHAS, intercept))
    for ours, plain in zip(found, plain_loop(x, y, left_out, components, intercept), strict=True):
        assert ours.shape == (len(plain), len(ALPHAS), genes)
        np.testing.assert_allclose(ours, plain, rtol=1e-6, atol=1e-6)


def test_columns_that_are_constant_or_vary_only_where_they_are_left_out():
    x, y = make(90, 10, 4)
    x[:, 3], x[:, 5], x[:, 7] = 0.1, 1e6, np.where(np.arange(90) < 30, np.arange(90), 0.1)
    left_out = [np.arange(90) // 30 == i for i in range(3)]
    for ours, plain in zip(ridge_sweep(x, y, left_out, 256, ALPHAS), plain_loop(x, y, left_out, 256), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-6, atol=1e-6)


def test_a_column_that_all_but_vanishes_with_a_fold_is_not_subtracted(monkeypatch):
    """Its spread is 1e-2, and 1e4 where it is left out: subtraction would leave it few digits."""
    x, y = make(90, 6, 2)
    x[:, 2] = np.where(np.arange(90) < 30, 1e4, 1e-2) * np.random.default_rng(3).normal(size=90)
    left_out = [np.arange(90) < 30]
    (plain,) = plain_loop(x, y, left_out, 6)
    (ours,) = ridge_sweep(x, y, left_out, 6, ALPHAS)
    np.testing.assert_allclose(ours, plain, rtol=1e-6, atol=1e-6 * np.abs(plain).max())
    monkeypatch.setattr(ridge, "LEFT", 0.0)
    (subtracted,) = ridge_sweep(x, y, left_out, 6, ALPHAS)
    assert np.abs(subtracted - plain).max() > 1e-5 * np.abs(plain).max()


def test_rows_are_summed_once_and_each_fold_decomposed_once(monkeypatch):
    x, y = make(120, 8, 3)
    summed, decomposed = [], []
    of, decompose = ridge._Sums.of.__func__, ridge._decompose
    monkeypatch.setattr(ridge._Sums, "of", classmethod(lambda cls, *a: summed.append(len(a[0])) or of(cls, *a)))
    monkeypatch.setattr(ridge, "_decompose", lambda gram: decomposed.append(gram.shape) or decompose(gram))
    list(ridge_sweep(x, y, [np.arange(120) % 4 == i for i in range(4)], 5, ALPHAS))
    assert summed == [120, 30, 30, 30, 30]
    assert decomposed == [(8, 8)] * 4


def test_bad_input_is_refused():
    x, y = make(20, 4, 2)
    everything = np.ones(20, dtype=bool)
    with pytest.raises(SealError, match="leaves 0 of 20 rows"):
        list(ridge_sweep(x, y, [everything], 4, ALPHAS))
    for which in (0, 1):
        tables = [x.copy(), y.copy()]
        tables[which][3, 1] = np.nan
        with pytest.raises(SealError, match=r"1 of 20 .* hold NaN"):
            list(ridge_sweep(*tables, [np.arange(20) < 5], 4, ALPHAS))
