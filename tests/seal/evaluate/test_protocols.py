"""The ladder of protocols against plain loops, on pairs whose neighbours are alike."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from seal import results
from seal.evaluate import protocols as ladder
from seal.evaluate import scoring
from seal.evaluate.metrics import pearson
from seal.evaluate.protocols import probes, protocols


@pytest.fixture(scope="module")
def evaluation(evaluated):
    """The evaluation of the small profile, whose embeddings are read from the home that they were made in."""
    home = next(folder for folder in evaluated[0].pairs.folder.parents if (folder / "data").is_dir())

    def read(*which):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SEAL_HOME", str(home))
            return evaluated[0].embeddings.read(*which)

    return replace(evaluated[0], embeddings=SimpleNamespace(read=read))


@pytest.fixture(scope="module")
def table(evaluation):
    return protocols(evaluation)


def test_columns_and_rows(table):
    assert set(table.columns) == set(results.RESULTS["protocols"].columns)
    assert table["protocol"].unique().tolist() == list(ladder.HELD_OUT)
    assert set(table["method"]) == set(ladder.COMPARED)
    assert set(table["organ"]) == {"all", "Breast", "Kidney"}
    assert set(table["genes"]) == {8}  # an organ has fewer test genes than the release's ten
    assert not table.duplicated(["method", "protocol", "organ", "genes", "correlation"]).any()
    assert ((table["reason"] == "") == table["value"].notna()).all()
    assert (table.loc[table["organ"] == "all", "organs"] == 2).all()


@pytest.mark.parametrize(("protocol", "target"), [("release", "context"), ("own_counts", "measured")])
def test_the_release_is_its_own_plain_loop(table, evaluation, protocol, target):
    """Each fold's embeddings of all spots of its tested organs, five splits, the union's penalty, mean over genes."""
    scores = {}
    pairs, seed = evaluation.pairs, evaluation.pairs.profile.evaluation.seeds[0]
    for fold in evaluation.folds():
        panel, n = pairs.panel(fold), pairs.n_pairs
        rows = np.flatnonzero(np.isin(pairs.per_spot("organ")[:n], list(panel.test)))
        z = evaluation.embeddings.read("seal", fold.name, seed).astype(np.float64)[rows]
        y = pairs.context(fold)[:, panel.test_columns] if target == "context" else pairs.measured(fold)
        y = np.asarray(y, dtype=np.float64)[rows]
        for f in range(5):
            x, x_test, train, test = train_test_split(z, y, train_size=0.8, random_state=f)
            reduce = make_pipeline(StandardScaler(), PCA(min(256, *x.shape), svd_solver="full"))
            x, x_test = reduce.fit_transform(x), reduce.transform(x_test)
            model = Ridge(alpha=100 / (x.shape[1] * y.shape[1]), fit_intercept=False).fit(x, train)
            for gene, r in zip(panel.test_genes, pearson(model.predict(x_test), test), strict=True):
                for organ in panel.test:
                    if gene in panel.test[organ]:
                        scores.setdefault((organ, gene), []).append(r)
    means = {key: np.nanmean(r) for key, r in scores.items() if np.isfinite(r).any()}
    spreads = {key: np.nanstd(r) for key, r in scores.items() if np.isfinite(r).sum() > 1}  # one value has none
    rows = table.query("method == 'seal' and protocol == @protocol and correlation == 'pooled'").set_index("organ")
    for organ in ("Breast", "Kidney"):
        own = [key for key in means if key[0] == organ]
        assert rows.loc[organ, "value"] == pytest.approx(np.mean([means[key] for key in own]), abs=1e-6)
        assert rows.loc[organ, "sd"] == pytest.approx(
            np.mean([spreads[key] for key in own if key in spreads]), abs=1e-6
        )
    assert rows.loc["all", "value"] == pytest.approx(rows.loc[["Breast", "Kidney"], "value"].mean())


def test_ours_is_what_the_evaluation_scores(table, evaluation):
    """Where a fold is one section, its correlation per sample is the summary's, but averaged by gene."""
    genes = scoring.gene_scores(evaluation).query("method == 'frozen'").dropna(subset="value")
    found = table.query("method == 'frozen' and protocol == 'ours' and correlation == 'per sample'").set_index("organ")
    expected = genes.groupby(["organ", "gene"])["value"].mean().groupby("organ").mean()
    for organ, value in expected.items():
        assert found.loc[organ, "value"] == pytest.approx(value, abs=1e-9)


def test_no_neighbour_of_a_left_out_section_is_trained_on(evaluation, monkeypatch):
    held = []

    def watch(x, target, left_out, components, alphas, intercept):
        held.append([out.copy() for out in left_out])
        return (np.zeros((int(out.sum()), len(alphas), target.shape[1])) for out in left_out)

    monkeypatch.setattr(ladder, "ridge_sweep", watch)
    fold, method = evaluation.folds()[0], evaluation.methods[0]
    genes = ladder._choose_genes(evaluation.pairs, fold)
    splits = list(ladder._splits(evaluation, fold, method, genes))
    sections = evaluation.pairs.per_spot("sample")
    tested = {name: [rows for p, rows, *_ in splits if p == name] for name in ladder.HELD_OUT}
    inside = [set(sections[rows]) for rows in tested["sections"]]
    assert sum(map(len, inside)) == len(set().union(*inside))
    organs = np.isin(evaluation.pairs.per_spot("organ"), list(evaluation.pairs.panel(fold).test))
    assert sorted(np.concatenate(tested["sections"])) == np.flatnonzero(organs).tolist()
    assert all(
        set(sections[rows]) & set(sections[np.setdiff1d(np.flatnonzero(organs), rows)]) for rows in tested["release"]
    )
    np.testing.assert_array_equal(tested["donors"][0], fold.test)
    assert [len(each) for each in held] == [5, len(inside), 1]


def test_two_spots_make_no_correlation(evaluation):
    pairs, fold = evaluation.pairs, evaluation.folds()[0]
    genes = ladder._choose_genes(pairs, fold)
    for number, finite in ((2, False), (3, True)):
        rows = fold.test[:number]
        truth = np.random.default_rng(0).normal(size=(number, len(pairs.panel(fold).test_genes)))
        rows_of = list(ladder._score(pairs, fold, ("ours", rows, truth, dict.fromkeys(genes, truth)), genes))
        assert len(rows_of) == 2
        assert all(np.isfinite(row["r"]).all() == finite for row in rows_of)


def test_what_cannot_be_scored_is_an_empty_row_with_its_reason(evaluation, monkeypatch):
    monkeypatch.setattr(ladder, "_correlate", lambda prediction, truth: np.full(truth.shape[1], np.nan))
    table = protocols(replace(evaluation, methods=evaluation.methods[:1]))
    assert table["value"].isna().all()
    assert (table["reason"] == "no gene varies over 3 spots").all()
    assert set(table["organs"]) == {0}


def test_probes_are_scored_as_every_method(evaluation, monkeypatch):
    """Our ridge's rows are the summary of its first genes and first seed; one that knows the mean scores 0."""
    seen = []

    def mean(train, target, test):
        seen.append((train.shape, target.shape, test.shape))
        return np.repeat(target.mean(axis=0, keepdims=True), len(test), axis=0)

    monkeypatch.setattr(ladder, "PROBES", {"hest_bench": mean, "xgboost": mean})
    monkeypatch.setattr(ladder, "predict_xgboost", lambda *tables, bins: mean(*tables))
    table = probes(evaluation)
    assert set(results.RESULTS["probes"].columns) <= set(table.columns)
    assert table["probe"].unique().tolist() == ["ridge", "hest_bench", "xgboost"]
    assert set(table["method"]) == {"frozen", "seal"}
    assert (table["seeds"] == 1).all()
    assert (table.loc[table["probe"] != "ridge", "mean"].abs() < 1e-12).all()
    assert all(target[1] == 5 for _, target, _ in seen)
    genes = scoring.gene_scores(evaluation).query("method == 'seal' and seed == 0")
    first = {}
    for fold in evaluation.folds():
        panel = evaluation.pairs.panel(fold)
        first |= {(fold.name, gene): None for organ in panel.test for gene in panel.test[organ][:5]}
    genes = genes[[key in first for key in zip(genes["fold"], genes["gene"], strict=True)]]
    expected = genes.groupby(["fold", "donor"])["value"].mean().mean()
    found = table.query("probe == 'ridge' and method == 'seal' and organ == 'all'")["mean"].item()
    assert found == pytest.approx(expected, abs=1e-9)
