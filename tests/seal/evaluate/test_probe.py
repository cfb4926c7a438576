"""The probe against scikit-learn's pipeline and against plain twins, and the choice of alpha."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from seal.errors import SealError
from seal.evaluate import probe
from seal.evaluate.metrics import mean_pearson
from seal.evaluate.probe import Validation, _path_scores, ridge_probe, validation
from seal.evaluate.ridge import PcaRidge, principal_axes

THIRDS = np.arange(90) % 3


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(12, 3))
    x, x_test = rng.normal(size=(90, 12)) * 3 + 1, rng.normal(size=(20, 12)) * 3 + 1
    return x, x @ w + 20 * rng.normal(size=(90, 3)), x_test


def plain_path(x, y, x_test, components, alphas):
    """Scale, PCA by SVD, ridge: nothing shared, one alpha after the other."""
    mean, sd = x.mean(axis=0), x.std(axis=0)
    u, s, vt = np.linalg.svd((x - mean) / sd, full_matrices=False)
    u, s, vt = u[:, :components], s[:components], vt[:components]
    t = (x_test - mean) / sd @ vt.T
    return [y.mean(axis=0) + t @ (np.diag(s / (s**2 + a)) @ u.T @ (y - y.mean(axis=0))) for a in alphas]


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(data, which, value):
    arrays = [array.copy() for array in data]
    arrays[which][3, 1] = value
    with pytest.raises(SealError, match=f"1 of {len(arrays[which])} .* hold NaN or infinity"):
        ridge_probe(arrays[0], arrays[1], Validation(THIRDS, THIRDS), arrays[2], 5, [10.0])


@pytest.mark.parametrize("components", [5, 12, 256])
def test_equals_scikit_learn(data, components):
    x, y, x_test = data
    prediction, alpha = ridge_probe(x, y, Validation(THIRDS, THIRDS), x_test, components, [10.0])
    plain = make_pipeline(StandardScaler(), PCA(min(components, 12), svd_solver="full"), Ridge(alpha=10.0))
    assert alpha == 10.0
    np.testing.assert_allclose(prediction, plain.fit(x, y).predict(x_test), atol=1e-8)


@pytest.mark.parametrize(("noise", "axes"), [(0.0, 12), (1e-4, 13)])
def test_a_repeated_column_is_no_axis_but_a_nearly_repeated_one_is(data, noise, axes):
    x, y, _ = data
    again = x[:, :1] + noise * np.random.default_rng(1).normal(size=(len(x), 1))
    fit = PcaRidge.fit(np.hstack([x, again]), y, 256)
    assert fit.axes.shape[1] == len(fit.variance) == axes


@pytest.mark.parametrize("n", [30, 40, 41, 400])  # fewer rows than columns, as many, more, many more
def test_the_gram_matrix_gives_what_the_svd_gives(n):
    rng = np.random.default_rng(n)
    x, x_test = (rng.normal(size=(m, 40)) @ np.diag(np.geomspace(30, 0.01, 40)) for m in (n, 15))
    y = x @ rng.normal(size=(40, 7)) + rng.normal(size=(n, 7))
    groups = np.arange(n) % 2
    for alpha in (0.1, 10.0, 1e4):
        prediction, _ = ridge_probe(x, y, Validation(groups, groups), x_test, 25, [alpha])
        expected = plain_path(x, y, x_test, 25, [alpha])[0]
        np.testing.assert_allclose(prediction, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())
    variance, axes = principal_axes(x)
    _, s, vt = np.linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose(variance, s**2, rtol=1e-8, atol=1e-8 * s[0] ** 2)
    np.testing.assert_allclose(np.abs((axes[:, :5] * vt[:5].T).sum(axis=0)), 1, rtol=1e-8)


def test_columns_that_say_the_same_are_dropped_by_both_ways(data):
    x, y, x_test = data
    twice, twice_test = np.hstack([x, x]), np.hstack([x_test, x_test])
    once = ridge_probe(x, y, Validation(THIRDS, THIRDS), x_test, 256, [10.0])[0]
    doubled = ridge_probe(twice, y, Validation(THIRDS, THIRDS), twice_test, 256, [20.0])[0]  # singular values grow by 2
    np.testing.assert_allclose(doubled, once, atol=1e-8)


def test_alpha_is_chosen_on_the_training_groups(data):
    x, y, x_test = data
    rng = np.random.default_rng(1)
    wide, thirds = np.hstack([x, rng.normal(size=(90, 60))]), Validation(THIRDS, THIRDS)
    noise = ridge_probe(wide, y, thirds, np.hstack([x_test, np.zeros((20, 60))]), 256, [1e-6, 1e3])[1]
    clean = ridge_probe(x, x @ np.ones((12, 1)), thirds, x_test, 256, [1e-6, 1e6])[1]
    assert noise == 1e3
    assert clean == 1e-6


def test_alpha_equals_a_plain_search_over_groups_parts_and_their_genes():
    """Two groups of two donors each; a donor is judged by its own organ's genes, within its own spots."""
    rng = np.random.default_rng(2)
    donors = np.repeat(["a", "b", "c", "d"], 20)
    x, x_test = rng.normal(size=(80, 9)), rng.normal(size=(5, 9))
    y = x @ rng.normal(size=(9, 6)) + 4 * rng.normal(size=(80, 6)) + 50 * (donors == "a")[:, None]
    columns = {"a": np.array([0, 1]), "b": np.array([2, 3, 4]), "c": np.array([5]), "d": np.array([0, 5])}
    groups, alphas = np.isin(donors, ["b", "d"]), [0.01, 1.0, 10.0, 100.0, 1e3, 1e4]
    scores = np.zeros(len(alphas))
    for donor, genes in columns.items():
        own, train = donors == donor, groups != groups[donors == donor][0]
        for i, prediction in enumerate(plain_path(x[train], y[train], x[own], 9, alphas)):
            scores[i] += mean_pearson(prediction[:, genes], y[own][:, genes])
    _, alpha = ridge_probe(x, y, Validation(groups, donors, columns), x_test, 9, alphas)
    assert alpha == alphas[int(np.argmax(scores))]
    assert 0.01 < alpha < 1e4


def test_a_part_with_many_genes_counts_as_much_as_one_with_few():
    """The mean over a part's genes that vary, for each alpha."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 5))
    y[:, 1] = 2.0  # cannot be scored
    fit, alphas = PcaRidge.fit(x, y, 4), [0.1, 100.0]
    for columns in (slice(None), np.array([0, 2]), np.array([1])):
        found = _path_scores(fit, x, y[:, columns], columns, alphas)
        expected = [mean_pearson(p, y[:, columns]) for p in np.moveaxis(fit.predict(x, alphas, columns), 1, 0)]
        np.testing.assert_allclose(found, np.nan_to_num(expected), atol=1e-9)


def test_a_constant_feature_is_harmless(data):
    x, y, x_test = data
    prediction, _ = ridge_probe(np.ones_like(x), y, Validation(THIRDS, THIRDS), np.ones_like(x_test), 5, [1.0])
    np.testing.assert_allclose(prediction, np.repeat(y.mean(0, keepdims=True), 20, axis=0), atol=1e-8)


def test_parts_are_donors_then_sections_then_strips():
    donors, sections, column = np.array(["A", "A", "B"]), np.array(["1", "2", "3"]), np.arange(3)
    same = np.array(["o"] * 3)
    found = validation(donors, sections, column, same, same)
    assert found.parts is donors
    assert found.groups is donors
    assert found.columns == {}
    assert validation(np.array(["A"] * 3), sections, column, same, same).parts is sections
    one = np.array(["A"] * 100)
    strips = validation(one, one, np.arange(100), one, one).parts
    assert len(np.unique(strips)) == 5
    assert (np.diff(strips) >= 0).all()


def test_many_donors_are_merged_into_five_groups_of_every_organ():
    donors = np.repeat([f"d{i:02}" for i in range(30)], 4)
    organs, states = np.repeat([f"o{i // 10}" for i in range(30)], 4), np.repeat([f"s{i % 2}" for i in range(30)], 4)
    genes = {f"o{i}": np.array([i]) for i in range(3)}
    found = validation(donors, donors, np.arange(120), organs, states, genes)
    assert (found.parts == donors).all()
    assert sorted(np.unique(found.groups, return_counts=True)[1]) == [24] * 5
    for donor in np.unique(donors):
        assert len(np.unique(found.groups[donors == donor])) == 1
    for group in range(5):
        inside = found.groups == group
        assert np.unique(organs[inside], return_counts=True)[1].tolist() == [8, 8, 8]  # two donors each
        assert np.unique(states[inside], return_counts=True)[1].tolist() == [12, 12]
    assert {donor: columns.tolist() for donor, columns in found.columns.items()} == {
        donor: [int(donor[1:]) // 10] for donor in np.unique(donors)
    }


def bench_data(n=120, d=12, genes=3):
    rng = np.random.default_rng(7)
    x, x_test = rng.normal(size=(n, d)) * 2 + 5, rng.normal(size=(30, d)) * 2 + 5
    w = rng.normal(size=(d, genes))
    return x, np.tanh(x @ w / 8) + 4, x_test, np.tanh(x_test @ w / 8) + 4


@pytest.mark.parametrize(("n", "d"), [(400, 300), (120, 12), (40, 90)])  # 256 components, all, fewer spots than columns
def test_hest_bench_is_its_recipe(n, d):
    """Scaler, PCA, ridge without intercept, alpha 100 / (components x genes); the target as it is given."""
    x, y, x_test, _ = bench_data(n, d)
    reduce = make_pipeline(StandardScaler(), PCA(min(256, n, d), svd_solver="full"))
    train = reduce.fit_transform(x)
    plain = Ridge(alpha=100 / (train.shape[1] * 3), fit_intercept=False).fit(train, y).predict(reduce.transform(x_test))
    np.testing.assert_allclose(probe.PROBES["hest_bench"](x, y, x_test), plain, rtol=1e-6, atol=1e-6)
    assert np.abs(plain.mean()) < 1 < y.mean()  # the training mean is not added


@pytest.mark.parametrize("name", probe.PROBES)
@pytest.mark.parametrize(("d", "genes"), [(12, 3), (12, 1), (1, 3)])  # one gene; an encoder of one dimension
def test_probes_predict_what_can_be_predicted(name, d, genes):
    if name == "xgboost":
        pytest.importorskip("xgboost", reason="an extra of pyproject.toml")
    x, y, x_test, truth = bench_data(400, d, genes)
    found = probe.PROBES[name](x.astype(np.float32), y.astype(np.float32), x_test.astype(np.float32))
    assert found.shape == truth.shape
    assert mean_pearson(found, truth) > 0.5
    np.testing.assert_array_equal(found, probe.PROBES[name](*(a.astype(np.float32) for a in (x, y, x_test))))


@pytest.mark.parametrize("name", probe.PROBES)
def test_probes_refuse_what_is_no_number(name):
    if name == "xgboost":
        pytest.importorskip("xgboost", reason="an extra of pyproject.toml")
    x, y, x_test, _ = bench_data()
    x[4, 2] = np.nan
    with pytest.raises(SealError, match="1 of 120 training embeddings hold NaN"):
        probe.PROBES[name](x, y, x_test)


def test_neighbours_are_fifty_or_all():
    x, y, x_test, _ = bench_data(20)
    np.testing.assert_allclose(probe.predict_knn(x, y, x_test), np.tile(y.mean(axis=0), (30, 1)))


def test_a_constant_gene_does_no_harm_to_the_mlp():
    x, y, x_test, _ = bench_data()
    y[:, 1] = 2.0
    np.testing.assert_allclose(probe.predict_mlp(x, y, x_test)[:, 1], 2.0, atol=0.2)


def test_xgboost_has_hest_benchs_settings(monkeypatch):
    """And sees the PCA scores, whose signs are fixed."""
    seen = {}

    class Stand:
        def __init__(self, **settings):
            seen.update(settings)

        def fit(self, x, y):
            seen["x"] = x
            return self

        def predict(self, x):
            return np.zeros((len(x), 3))

    monkeypatch.setitem(sys.modules, "xgboost", SimpleNamespace(XGBRegressor=Stand))
    x, y, x_test, _ = bench_data()
    probe.predict_xgboost(x, y, x_test)
    scores = PCA(12, svd_solver="full").fit_transform(StandardScaler().fit_transform(x))
    np.testing.assert_allclose(np.abs(seen.pop("x")), np.abs(scores), atol=1e-8)
    assert seen == {
        **{"n_estimators": 100, "learning_rate": 0.1, "max_depth": 3, "min_child_weight": 1, "gamma": 0},
        **{"subsample": 0.8, "colsample_bytree": 0.8, "reg_alpha": 0, "reg_lambda": 1, "random_state": 1},
        **{"max_bin": 120, "n_jobs": 1},
    }


@pytest.mark.parametrize("n", [30, 120])
def test_xgboost_needs_no_more_cuts_than_spots(n):
    xgboost = pytest.importorskip("xgboost")
    x, y, x_test, _ = bench_data()
    x, y = x[:n], y[:n]
    trees = {"n_estimators": 100, "learning_rate": 0.1, "max_depth": 3, "random_state": 1, "max_bin": 256}
    scores, scores_test = probe._bench_scores(x, y, x_test)
    plain = xgboost.XGBRegressor(**trees, subsample=0.8, colsample_bytree=0.8).fit(scores, y).predict(scores_test)
    np.testing.assert_array_equal(probe.predict_xgboost(x, y, x_test), plain)


def test_without_xgboost_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    x, y, x_test, _ = bench_data()
    with pytest.raises(SealError, match="pip install xgboost"):
        probe.predict_xgboost(x, y, x_test)
