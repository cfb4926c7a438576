"""The slide level from features to verdicts: each number by a plain way, nulls that stay null."""

import h5py
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from seal.data.slide_tasks import SlideTask
from seal.evaluate import slide_level
from seal.evaluate.power import FOUND
from seal.evaluate.slide import SlideLabels, predict_linear, score
from seal.train.mil_jobs import MilSettings, make_jobs

CASES, WIDTH = 40, 6


def draw_task(name, kind="classes", metric="macro-ovr-auc", signal=True, sample="case"):
    """40 cases, two of two slides; the label follows the case's number."""
    cases = [f"c{i}" for i in range(CASES)] + ["c0", "c1"]
    number = np.array([int(case[1:]) for case in cases])
    labels = number % 2 if signal else np.random.default_rng(3).permutation(CASES)[number] % 2
    survival = {}
    if kind == "numbers":
        labels = (number % 2) + 0.1 * np.sin(number)
    if kind == "survival":
        days, event = np.where(number % 2, 100.0, 900.0) + number, (number % 5 > 0).astype(int)
        labels, survival = np.searchsorted([150, 500, 920], days) + 4 * event, {"days": days, "event": event}
    fold = number // 2 % 4
    sides = {f"fold_{k}": (np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(4)}
    classes = () if kind == "numbers" else tuple("abcdefgh") if kind == "survival" else ("no", "yes")
    return SlideTask(
        **{"name": name, "group": "molecular", "kind": kind, "metric": metric, "classes": classes, "sample": sample},
        **{"cases": tuple(cases), "slides": tuple(f"s{i}" for i in range(len(cases))), "labels": labels},
        **{"folds": sides, "simulated": True, **survival},
    )


TASKS = (
    draw_task("told"),
    draw_task("null", signal=False),
    draw_task("number", "numbers", "pearson"),
    draw_task("OS", "survival", "cindex"),
)


def write_features(folder, signal, seed):
    """Slides of five patches; the case's parity stands in the first column as far as `signal` says."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(CASES + 2):
        z = rng.standard_normal((5, WIDTH)).astype(np.float32)
        z[:, 0] += signal * ((i if i < CASES else i - CASES) % 2)
        with h5py.File(folder / f"s{i}.h5", "w") as file:
            file["features"] = z
            file["features"].attrs["encoder"] = folder.name
            file["coords"] = np.zeros((5, 2), dtype=np.int64)
    return folder


@pytest.fixture(scope="module")
def level(tmp_path_factory):
    root = tmp_path_factory.mktemp("slides")
    signals = {("frozen", 0): 0.2, ("seal", 0): 3.0, ("seal", 1): 3.0, ("seal_shuffled", 0): 0.2, ("stnet", 0): 0.2}
    folders = {key: write_features(root / f"{key[0]}_{key[1]}", s, i) for i, (key, s) in enumerate(signals.items())}
    settings = {"abmil": MilSettings(hidden=8, attention=8, epochs=12, lr=1e-2), "mean": None, "linear": None}
    settings["mean"] = MilSettings(model="mean", hidden=8, epochs=12, lr=1e-2)
    return slide_level.SlideLevel("own", TASKS, folders, (0, 1)).run(settings, root / "kept")


def test_every_task_method_and_model_is_predicted_for_every_test_bag(level):
    methods = ("frozen", "seal", "seal_shuffled", "stnet")
    assert set(level.guesses) == {(t.name, m, k) for t in TASKS for m in methods for k in ("abmil", "mean", "linear")}
    for (name, _, model), guess in level.guesses.items():
        held = slide_level.hold_out(next(task for task in TASKS if task.name == name))
        assert sorted(held.cases) == sorted(set(TASKS[0].cases))
        assert guess.shape[:2] == (2, CASES), (name, model)
        assert np.isfinite(guess).all()


def test_a_bag_is_in_the_order_of_the_jobs():
    for task in TASKS:
        held, jobs = slide_level.hold_out(task), make_jobs(task, [0])
        assert held.cases.tolist() == [case for job in jobs for case in job.test]
        assert held.fold.tolist() == [fold for fold, job in enumerate(jobs) for _ in job.test]


def test_slides_that_have_labels_of_their_own_are_bags_of_their_own():
    task = draw_task("own", sample="slide")
    held, jobs = slide_level.hold_out(task), make_jobs(task, [0])
    assert len(held.cases) == CASES + 2
    assert held.cases.tolist() == [slide for job in jobs for slide in job.test]
    assert slide_level.slides_of([task])["s40"] == ["s40"]
    assert slide_level.slides_of(TASKS)["c0"] == ["s0", "s40"]


def test_the_linear_model_sees_the_mean_of_a_cases_slides(level):
    task = TASKS[0]
    folder, rows = level.folders["seal", 1], range(CASES + 2)
    mean = {i: np.asarray(h5py.File(folder / f"s{i}.h5")["features"]).mean(axis=0, dtype=np.float64) for i in rows}
    pooled = np.stack([(mean[i] + mean[i + CASES]) / 2 if i < 2 else mean[i] for i in range(CASES)])
    number = np.arange(CASES)
    train, test = number[number // 2 % 4 != 2], number[number // 2 % 4 == 2]
    labels = SlideLabels(metric=task.metric, label=train % 2, classes=task.classes)
    plain = predict_linear(labels, pooled[train], pooled[test])
    held = slide_level.hold_out(task)
    found = level.guesses["told", "seal", "linear"][1][held.fold == 2]
    order = [int(case[1:]) for case in held.cases[held.fold == 2]]
    np.testing.assert_allclose(found[np.argsort(order)], plain, atol=1e-6)


def test_scores_are_a_fold_and_seed_each(level):
    table = slide_level.scores(level)
    assert not table.duplicated(["task", "method", "model", "fold", "seed"]).any()
    held = slide_level.hold_out(TASKS[0])
    rows = held.fold == 1
    expected = roc_auc_score(held.labels.label[rows], level.guesses["told", "seal", "abmil"][0][rows][:, 1])
    row = table.query("task == 'told' and method == 'seal' and model == 'abmil' and fold == 1 and seed == 0").iloc[0]
    assert row["value"] == pytest.approx(expected)
    assert (row["cases"], row["chance"], row["kind"]) == (10, 0.5, "adapted")
    assert table.loc[table["method"] == "stnet_probed", "label"].unique().tolist() == ["ST-Net's encoder"]


def test_summary_finds_what_is_there_and_nothing_else(level):
    table = slide_level.summary(level, 400)
    assert not table.duplicated(["task", "method", "model", "against"]).any()
    for model in ("abmil", "mean", "linear"):
        rows = table[(table["model"] == model) & (table["method"] == "seal")].set_index(["task", "against"])
        assert set(rows.index.get_level_values("against")) == {"frozen", "seal_shuffled", "stnet_probed"}
        assert rows.loc[("told", "frozen"), "verdict"] == FOUND, model
        assert rows.loc[("told", "frozen"), "difference"] > 0.1
        assert rows.loc[("null", "frozen"), "verdict"] != FOUND
        alone = table[(table["model"] == model) & (table["method"] == "seal_shuffled")]
        assert (alone["verdict"] != FOUND).all()
    means = slide_level.scores(level).groupby(["task", "method", "model"])["value"].mean()
    for row in table.itertuples():
        assert row.mean == pytest.approx(means[row.task, row.method, row.model])
        assert row.low <= row.mean <= row.high
    frozen = table[table["against"] == ""]
    assert set(frozen["method"]) == {"frozen"}
    assert frozen["difference"].isna().all()


def test_a_method_of_one_set_of_features_is_trained_anew_in_each_seed(level):
    first, second = level.guesses["told", "frozen", "abmil"]
    assert np.abs(first - second).max() > 1e-3
    first, second = level.guesses["told", "frozen", "linear"]  # in which nothing is drawn
    np.testing.assert_array_equal(first, second)


def test_what_is_finished_is_read(level, monkeypatch, tmp_path):
    from seal.train import mil

    again = slide_level.SlideLevel("own", TASKS, level.folders, (0, 1))
    kept = level.folders["frozen", 0].parent / "kept"
    monkeypatch.setattr(mil.Stack, "fit", lambda *_: pytest.fail("trained again"))
    settings = {"abmil": MilSettings(hidden=8, attention=8, epochs=12, lr=1e-2)}
    again.run(settings, kept)
    for key, guess in again.guesses.items():
        np.testing.assert_array_equal(guess, level.guesses[key])


def test_scores_of_a_null_task_are_chance(level):
    held = slide_level.hold_out(TASKS[1])
    own = level.guesses["null", "seal", "linear"].mean(axis=0)
    values = [score(held.labels.take(held.fold == k), own[held.fold == k]) for k in range(4)]
    assert abs(np.mean(values) - 0.5) < 0.25


def test_a_mean_that_most_resamples_cannot_tell_has_no_interval(level, monkeypatch):
    plain = slide_level.bootstrap_scores

    def mostly_unknown(*given):
        return {name: np.r_[values[:1], np.full(len(values) - 1, np.nan)] for name, values in plain(*given).items()}

    monkeypatch.setattr(slide_level, "bootstrap_scores", mostly_unknown)
    table = slide_level.summary(level, 400)
    assert table["mean"].notna().all()
    assert table[["low", "high", "difference_low"]].isna().all(axis=None)
