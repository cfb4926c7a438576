from collections import Counter

import numpy as np
import pandas as pd
import pytest
import yaml

from seal.data import patho_bench
from seal_atlas import tables
from seal_atlas.patients import people, tasks
from seal_atlas.writing import slides, task_folders
from tests.seal_atlas.patients.truth_of_undrawn import expected_truth

SEED = [7, 40]


@pytest.fixture(scope="module")
def drawn():
    return people.draw_patients(200, SEED)


@pytest.fixture(scope="module")
def truth(drawn):
    cells = np.random.default_rng(0).dirichlet(np.ones(len(tables.cell_types())), 200)
    return expected_truth(drawn, cells, SEED)


@pytest.fixture(scope="module")
def root(drawn, truth, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    task_folders.write_tasks(folder, drawn, truth, {p.case: slides.slide_id(p.case) for p in drawn}, SEED)
    return folder


def read(root, task, split="k=all.tsv"):
    frame = pd.read_csv(root / "tasks" / task / split, sep="\t", dtype={"case_id": str, "slide_id": str})
    return frame, yaml.safe_load((root / "tasks" / task / "config.yaml").read_text())


@pytest.mark.parametrize("task", list(tasks.slide_tasks()))
def test_files_have_the_fields_of_patho_bench(root, task):
    frame, config = read(root, task)
    folds = [f"fold_{i}" for i in range(5)]
    assert frame.columns.tolist() == ["case_id", "slide_id", config["task_col"], *config["extra_cols"], *folds]
    ours = ["simulated", "description", "strength"]
    theirs = ["datasets", "task_col", "extra_cols", "task_type", "metrics", "label_dict", "sample_col", "num_samples"]
    assert list(config) == theirs + ours
    assert config["simulated"] is True
    assert "SIMULATED" in config["description"]
    assert config["num_samples"] == len(frame)
    assert config["sample_col"] == "case_id"
    assert set(frame[folds].to_numpy().ravel()) == {"train", "test"}


@pytest.mark.parametrize("task", list(tasks.slide_tasks()))
def test_each_case_is_tested_once_and_no_class_is_missing_from_a_fold(root, task):
    frame, config = read(root, task)
    tested = frame[[f"fold_{i}" for i in range(5)]].to_numpy() == "test"
    assert (tested.sum(axis=1) == 1).all()
    assert frame["case_id"].is_unique
    sizes = tested.sum(axis=0)
    assert sizes.max() - sizes.min() <= 1
    if config["task_type"] == "classification":
        labels = frame[task].to_numpy()
        assert set(labels) == set(config["label_dict"])
        counts = [Counter(labels[tested[:, i]]) for i in range(5)]
        for label in config["label_dict"]:
            spread = [c[label] for c in counts]
            assert min(spread) >= 1
            assert max(spread) - min(spread) <= 1


def test_survival_has_event_and_days_and_quarters_as_labels(root):
    frame, config = read(root, "OS")
    assert config["extra_cols"] == ["OS_event", "OS_days"]
    assert config["task_type"] == "survival"
    assert config["metrics"] == ["cindex"]
    assert config["label_dict"][0] == "Quartile 1, Event 0"
    assert config["label_dict"][7] == "Quartile 4, Event 1"
    assert (frame["OS"] // 4 == frame["OS_event"]).all()
    assert frame.groupby(frame["OS"] % 4)["OS_days"].max().is_monotonic_increasing


def test_regression_is_marked(root):
    frame, config = read(root, "hypoxia")
    assert config["task_type"] == "regression"
    assert config["label_dict"] == {}
    assert frame["hypoxia"].nunique() > 100


def test_unseen_sites_are_tested_apart(root, drawn):
    frame, _ = read(root, "diagnosis", "k=sites.tsv")
    site = {p.case: p.site for p in drawn}
    assert [c for c in frame if c.startswith("fold")] == ["fold_0"]
    assert set(frame.loc[frame["fold_0"] == "test", "case_id"].map(site)) == {"E", "F"}
    assert set(frame.loc[frame["fold_0"] == "train", "case_id"].map(site)) == set("ABCD")


@pytest.mark.parametrize("name", ["TP53", "hypoxia", "OS", "diagnosis"])
def test_the_bytes_are_those_of_pandas_and_yaml(root, drawn, truth, name):
    """What earlier versions wrote: nobody's cohort is another for a change of its writer."""
    task = tasks.slide_tasks()[name]
    labels = tasks.label_slides(task, drawn, truth, SEED)
    chosen = [drawn[i] for i in labels.rows]
    frame = pd.DataFrame({"case_id": [p.case for p in chosen], "slide_id": [slides.slide_id(p.case) for p in chosen]})
    frame[name] = labels.label if labels.classes else np.round(labels.label, 6)
    extra = [f"{name}_event", f"{name}_days"] if labels.event is not None else []
    if extra:
        frame[extra[0]], frame[extra[1]] = labels.event, labels.days
    by_site = frame.assign(fold_0=["test" if tables.sites()[p.site].role == "unseen" else "train" for p in chosen])
    split = tasks.deal_folds(labels, truth.cases, SEED)
    for number in range(5):
        frame[f"fold_{number}"] = np.where(split == number, "test", "train")
    config = {
        "datasets": ["seal_atlas_simulated"],
        "task_col": name,
        "extra_cols": extra,
        "task_type": task.type,
        "metrics": [task.metric],
        "label_dict": dict(enumerate(labels.classes)),
        "sample_col": "case_id",
        "num_samples": len(frame),
        "simulated": True,
        "description": f"SIMULATED. {task.group}: {task.of}; strength of the signal: {task.strength}",
        "strength": task.strength,
    }
    folder = root / "tasks" / name
    assert (folder / "k=all.tsv").read_text() == frame.to_csv(sep="\t", index=False)
    assert (folder / "k=sites.tsv").read_text() == by_site.to_csv(sep="\t", index=False)
    assert (folder / "config.yaml").read_text() == yaml.safe_dump(config, sort_keys=False)


@pytest.mark.parametrize("split", ["k=all", "k=sites"])
def test_every_task_is_read_again_with_its_group(root, split):
    read = {folder.name: patho_bench.read_task(folder, split) for folder in (root / "tasks").iterdir()}
    assert set(read) == set(tasks.slide_tasks())
    for name, task in tasks.slide_tasks().items():
        assert (read[name].group, read[name].strength, read[name].metric) == (task.group, task.strength, task.metric)
        assert read[name].simulated
        assert len(read[name].folds) == {"k=all": 5, "k=sites": 1}[split]
        assert not read[name].dropped


def test_sites_without_two_classes_are_no_split_and_said(tmp_path):
    few = people.draw_patients(80, SEED)
    cells = np.random.default_rng(0).dirichlet(np.ones(len(tables.cell_types())), 80)
    task_folders.write_tasks(tmp_path, few, expected_truth(few, cells, SEED), {p.case: p.case for p in few}, SEED)
    table = pd.read_csv(tmp_path / "tasks.csv", keep_default_na=False).set_index("task")
    assert table.loc["MSI", "left_out"] == "k=sites: only stable to test on"
    assert {path.name for path in (tmp_path / "tasks" / "MSI").iterdir()} == {"config.yaml", "k=all.tsv"}
    assert table.loc["TP53", "left_out"] == ""
    assert (tmp_path / "tasks" / "TP53" / "k=sites.tsv").is_file()


def test_list_of_tasks(root):
    table = pd.read_csv(root / "tasks.csv", keep_default_na=False)
    assert table["task"].tolist() == list(tasks.slide_tasks())
    assert (table["left_out"] == "").all()
    assert not list(root.glob(".tasks*"))


def test_small_cohorts_leave_tasks_out_and_say_why(tmp_path):
    few = people.draw_patients(40, SEED)
    cells = np.full((40, len(tables.cell_types())), 1 / len(tables.cell_types()))
    truth = expected_truth(few, cells, SEED)
    task_folders.write_tasks(tmp_path, few, truth, {p.case: p.case for p in few}, SEED)
    table = pd.read_csv(tmp_path / "tasks.csv", keep_default_na=False).set_index("task")
    assert "cases of" in table.loc["diagnosis", "left_out"]
    assert not (tmp_path / "tasks" / "diagnosis").exists()
    assert table.loc["TP53", "left_out"] == ""
    assert (tmp_path / "tasks" / "TP53" / "k=all.tsv").is_file()


def test_same_seed_same_files(root, drawn, truth, tmp_path):
    task_folders.write_tasks(tmp_path, drawn, truth, {p.case: slides.slide_id(p.case) for p in drawn}, SEED)
    for path in root.rglob("*.tsv"):
        assert (tmp_path / path.relative_to(root)).read_bytes() == path.read_bytes()
