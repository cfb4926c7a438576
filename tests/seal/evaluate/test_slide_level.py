"""The slide level from features to verdicts: each number by a plain way, nulls that stay null."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from seal.data.slide_tasks import SlideTask
from seal.errors import SealError
from seal.evaluate import slide_level, slide_scores
from seal.evaluate.power import FOUND
from seal.evaluate.slide import SlideLabels, predict_linear, score
from seal.paths import PROJECT
from seal.train.bags import Bags
from seal.train.mil import train_jobs
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


ABMIL = MilSettings(hidden=8, attention=8, epochs=12, lr=1e-2)
METHODS = ("frozen", "seal", "seal_shuffled", "stnet")
MODELS = (
    slide_level.SlideModel("abmil", ABMIL, METHODS, (0, 1)),
    slide_level.SlideModel("mean", replace(ABMIL, model="mean"), METHODS, (0, 1)),
    slide_level.SlideModel("linear", None, (*METHODS, "permuted", "oracle"), (0,)),
)
TRUTH = {f"s{i}": np.array([(i if i < CASES else i - CASES) % 2, 0.0]) for i in range(CASES + 2)}
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
    return slide_level.SlideLevel("own", TASKS, folders, MODELS, root / "kept", known={"oracle": TRUTH})


def test_every_task_method_and_model_is_predicted_for_every_test_bag(level):
    expected = {(t.name, m, k) for t in TASKS for m in METHODS for k in ("abmil", "mean", "linear")}
    assert set(level.guesses) == expected | {(t.name, m, "linear") for t in TASKS for m in ("permuted", "oracle")}
    for (name, method, model), guesses in level.guesses.items():
        held = slide_level.hold_out(next(task for task in TASKS if task.name == name))
        assert sorted(held.cases) == sorted(set(TASKS[0].cases))
        drawn = model != "linear" or method in ("seal", "permuted")  # the linear model draws nothing
        assert len(guesses) == 1 + drawn
        for guess in guesses:
            assert len(guess.prediction) == len(guess.losses) == CASES
            assert np.isfinite(guess.prediction).all()
            assert np.isfinite(guess.losses).all() == (name == "OS")


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
    found = level.guesses["told", "seal", "linear"][1].prediction[held.fold == 2]
    order = [int(case[1:]) for case in held.cases[held.fold == 2]]
    np.testing.assert_allclose(found[np.argsort(order)], plain, atol=1e-6)


def test_scores_are_a_fold_and_seed_each(level):
    table = slide_scores.scores(level)
    assert not table.duplicated(["task", "method", "model", "fold", "seed", "metric"]).any()
    held = slide_level.hold_out(TASKS[0])
    rows = held.fold == 1
    expected = roc_auc_score(held.labels.label[rows], level.guesses["told", "seal", "abmil"][0].prediction[rows][:, 1])
    row = table.query(
        "task == 'told' and method == 'seal' and model == 'abmil' and fold == 1 and seed == 0 and main"
    ).iloc[0]
    assert row["value"] == pytest.approx(expected)
    assert (row["cases"], row["chance"], row["kind"]) == (10, 0.5, "adapted")
    assert table.loc[table["method"] == "stnet_probed", "label"].unique().tolist() == ["ST-Net's encoder"]


def test_summary_finds_what_is_there_and_nothing_else(level):
    table = slide_scores.summary(level, 400)
    assert not table.duplicated(["task", "method", "model", "against"]).any()
    for model in ("abmil", "mean", "linear"):
        rows = table[(table["model"] == model) & (table["method"] == "seal")].set_index(["task", "against"])
        assert set(rows.index.get_level_values("against")) == {"frozen", "seal_shuffled", "stnet_probed"}
        assert rows.loc[("told", "frozen"), "verdict"] == FOUND, model
        assert rows.loc[("told", "frozen"), "difference"] > 0.1
        assert rows.loc[("null", "frozen"), "verdict"] != FOUND
        alone = table[(table["model"] == model) & (table["method"] == "seal_shuffled")]
        assert (alone["verdict"] != FOUND).all()
    own = slide_scores.scores(level).query("main")
    means = own.groupby(["task", "method", "model"])["value"].mean()
    for row in table.itertuples():
        assert row.mean == pytest.approx(means[row.task, row.method, row.model])
        assert row.low <= row.mean <= row.high
    frozen = table[table["against"] == ""]
    assert set(frozen["method"]) == {"frozen", "oracle"}
    assert frozen["difference"].isna().all()
    assert table["chance"].notna().all()


def test_a_method_of_one_set_of_features_is_trained_anew_in_each_seed(level):
    first, second = level.guesses["told", "frozen", "abmil"]
    assert np.abs(first.prediction - second.prediction).max() > 1e-3


def test_what_is_finished_is_read(level, monkeypatch):
    from seal.train import mil

    _ = level.guesses
    monkeypatch.setattr(slide_level, "AT_ONCE", 1)
    again = replace(level, models=MODELS[:1])
    monkeypatch.setattr(mil.Stack, "fit", lambda *_: pytest.fail("trained again"))
    for key, guesses in again.guesses.items():
        for one, other in zip(guesses, level.guesses[key], strict=True):
            np.testing.assert_array_equal(one.prediction, other.prediction)


def test_processes_side_by_side_give_what_one_gives(level, monkeypatch):
    monkeypatch.setattr(slide_level, "AT_ONCE", 1)
    alone = replace(level, models=MODELS[2:])
    for key, guesses in alone.guesses.items():
        for one, other in zip(guesses, level.guesses[key], strict=True):
            np.testing.assert_array_equal(one.prediction, other.prediction)


WAITS = """
import os, sys, time
from seal.evaluate.slide_level import _many
def wait(path):
    open(path, "w").write(str(os.getpid()))
    time.sleep(600)
if __name__ == "__main__":
    with _many(2) as run:
        list(run(wait, sys.argv[1:]))
"""


def test_workers_compute_with_one_thread():
    with slide_level._many(2) as run:
        assert [n for (n,) in run(_count_threads, range(2))] == [1, 1]


def _count_threads(_):
    import sklearn.linear_model  # noqa: F401, loads SciPy's
    import torch
    from threadpoolctl import threadpool_info

    np.ones(2) @ np.ones(2)
    return {torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info())}


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="processes are looked up in /proc")
def test_workers_end_with_the_process_that_asked(tmp_path):
    (tmp_path / "waits.py").write_text(WAITS)
    places = [tmp_path / name for name in "ab"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    parent = subprocess.Popen([sys.executable, tmp_path / "waits.py", *places], env=environment)
    wait_for(lambda: all(place.is_file() and place.read_text() for place in places))
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(is_alive(int(place.read_text())) for place in places))


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def is_alive(process):
    status = Path(f"/proc/{process}/stat")
    return status.is_file() and status.read_text().split()[2] != "Z"


def test_permuted_labels_tell_nothing_and_the_truth_all(level):
    table = slide_scores.summary(level, 400).query("model == 'linear' and task == 'told'")
    means = table.drop_duplicates("method").set_index("method")["mean"]
    assert means["oracle"] == pytest.approx(1)
    assert abs(means["permuted"] - 0.5) < 0.25
    assert table["oracle"].unique() == pytest.approx(1)
    assert (table.loc[table["method"] == "oracle", "kind"] == "truth").all()


def test_the_brier_score_is_by_a_plain_way(level):
    from sksurv.metrics import integrated_brier_score
    from sksurv.util import Surv

    task = TASKS[3]
    held = slide_level.hold_out(task)
    (train, _), (job,) = task.folds["fold_1"], make_jobs(replace(task, folds={"fold_1": task.folds["fold_1"]}), [0])
    folder = level.folder("seal", 0)
    (trained,) = train_jobs(Bags(folder, slide_level.slides_of(TASKS)), [job], ABMIL, None)
    train = train[train < CASES]  # a case once
    days, event = task.days[train], task.event[train] == 1
    times = np.quantile(days[event], np.arange(1, 10) / 10)
    ends = [days[task.labels[train] % 4 <= q].max() for q in range(4)]
    curves = np.array([np.interp(times, [0, *ends], [1, *own]) for own in trained.curves])
    at = held.fold == 1
    test = Surv.from_arrays(held.labels.event[at] == 1, held.labels.days[at])
    inside = held.labels.days[at] < days.max()  # scikit-survival refuses a test beyond the training's follow-up
    plain = integrated_brier_score(Surv.from_arrays(event, days), test[inside], curves[inside], times)
    own = level.guesses["OS", "seal", "abmil"][0].losses[at][inside]
    assert own.mean() == pytest.approx(plain, abs=1e-6)


def test_groups_are_means_of_their_tasks_and_draw_patients_once(level):
    table = slide_scores.summary(level, 400)
    own = slide_scores.groups(level, table, 400)
    assert not own.duplicated(["group", "method", "model", "against"]).any()
    row = own.query("group == 'molecular' and method == 'seal' and model == 'abmil' and against == 'frozen'").iloc[0]
    tasks = table.query("method == 'seal' and model == 'abmil' and against == 'frozen'")
    assert row["mean"] == pytest.approx(tasks["mean"].mean())
    assert row["difference"] == pytest.approx(tasks["difference"].mean())
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert row["tasks"] == len(TASKS) == row["found"] + row["lost"] + row["undecided"]
    assert row["found"] == ((tasks["verdict"] == FOUND) & (tasks["difference"] > 0)).sum() > 0
    # one task four times is no more evidence than once
    alike = tuple(replace(TASKS[0], name=f"told{i}") for i in range(4))
    once, often = (replace(level, tasks=tasks, models=MODELS[2:], known={}) for tasks in (alike[:1], alike))
    wide, wider = (
        slide_scores.groups(each, slide_scores.summary(each, 400), 400).query(
            "group == 'molecular' and method == 'seal' and against == 'frozen'"
        )
        for each in (once, often)
    )
    np.testing.assert_allclose(*(w[["difference_low", "difference_high"]] for w in (wide, wider)), atol=1e-9)


def test_survival_by_risk_is_kaplan_and_meiers(level):
    table = slide_scores.survival_by_risk(level)
    assert set(table["task"]) == {"OS"}
    assert set(table["method"]) == {"frozen", "seal"}
    own = table.query("method == 'seal' and model == 'linear' and risk == 'high'")
    held, risk = slide_level.hold_out(TASKS[3]), level.guesses["OS", "seal", "linear"][0].prediction
    high = np.concatenate([risk[held.fold == k] > np.median(risk[held.fold == k]) for k in range(4)])
    days, event = held.labels.days[high], held.labels.event[high]
    alive = 1.0
    for row in own.iloc[1:].itertuples():
        alive *= 1 - ((days == row.days) & (event == 1)).sum() / (days >= row.days).sum()
        assert row.survival == pytest.approx(alive)
        assert row.at_risk == (days >= row.days).sum()
    assert own["p"].iloc[0] < 0.05
    assert own["days"].iloc[0] == 0


def test_attention_is_of_the_tests_slides_or_of_others_but_none_that_is_trained_on(level):
    test = {TASKS[0].slides[row] for row in TASKS[0].folds["fold_0"][1]}
    own = slide_level.attend(level, "seal", TASKS[0], ABMIL)
    assert set(own.attention) == test
    for seen in own.attention.values():
        assert len(seen) == 5
        assert seen.sum() == pytest.approx(1, abs=1e-5)
    other = slide_level.attend(level, "seal", TASKS[0], ABMIL, ["s8", "s1"])
    assert set(other.attention) == {"s8", "s1"}
    np.testing.assert_allclose(other.attention["s8"], own.attention["s8"], atol=1e-6)
    with pytest.raises(SealError, match="s2 is trained on"):
        slide_level.attend(level, "seal", TASKS[0], ABMIL, ["s2"])


def test_scores_of_a_null_task_are_chance(level):
    held = slide_level.hold_out(TASKS[1])
    own = np.mean([guess.prediction for guess in level.guesses["null", "seal", "linear"]], axis=0)
    values = [score(held.labels.take(held.fold == k), own[held.fold == k]) for k in range(4)]
    assert abs(np.mean(values) - 0.5) < 0.25


def test_a_mean_that_most_resamples_cannot_tell_has_no_interval(level, monkeypatch):
    plain = slide_scores.bootstrap_scores

    def mostly_unknown(*given):
        return {name: np.r_[values[:1], np.full(len(values) - 1, np.nan)] for name, values in plain(*given).items()}

    monkeypatch.setattr(slide_scores, "bootstrap_scores", mostly_unknown)
    table = slide_scores.summary(level, 400)
    assert table["mean"].notna().all()
    assert table[["low", "high", "difference_low"]].isna().all(axis=None)
