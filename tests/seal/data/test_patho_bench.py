"""Patho-Bench's task folders: what it asks for is written, what it publishes is read, what is wrong is said."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from seal.data.patho_bench import read_code, read_task, read_tasks, write_split, write_task
from seal.data.slide_cohorts import build_task
from seal.data.slide_tasks import SlideTask
from seal.errors import SealError


def cohort(kind="classes", patients=20, prefix="P", **more):
    """Columns of a label table: two slides of each third case."""
    cases = [f"{prefix}{i:02d}" for i in range(patients) for _ in range(1 + (i % 3 == 0))]
    number = np.array([int(case[len(prefix) :]) for case in cases])
    columns = {"case": cases, "slide": [f"S{prefix}{i:02d}" for i in range(len(cases))]}
    if kind == "survival":
        columns |= {"event": (number % 2).astype(str).tolist(), "days": (10 + 7 * number).astype(str).tolist()}
    else:
        labels = number / 8 if kind == "numbers" else number % 3
        columns["label"] = labels.astype(str).tolist()
    return columns | more


def patho_bench_reads(folder, split="k=all"):
    """What Patho-Bench's SplitFactory, DataSplit and LabelDataset (660e770) do with a folder, with their assertions."""
    info = yaml.safe_load((folder / "config.yaml").read_text())
    for key, kind in (("sample_col", str), ("extra_cols", list), ("label_dict", dict), ("metrics", list)):
        assert isinstance(info[key], kind)
    frame = pd.read_csv(folder / f"{split}.tsv", sep="\t", dtype={"case_id": str, "slide_id": str, "id": str})
    name, samples = info["task_col"], {}
    folds = sorted((c for c in frame if "fold_" in c), key=lambda c: int(c.split("_")[-1]))
    for sample, rows in frame.dropna(subset=[name]).groupby(info["sample_col"], sort=False):
        assert len(set(rows[name])) == 1
        assert all(len(set(rows[fold])) == 1 for fold in folds)
        samples[sample] = {
            "label": int(rows[name].iloc[0]),
            "folds": [rows[fold].iloc[0] for fold in folds],
            **{column: rows[column].tolist() for column in [*info["extra_cols"], "slide_id"]},
        }
        if name.startswith(("OS", "PFS", "DSS", "DFS")):
            for column in (f"{name}_event", f"{name}_days"):
                torch.tensor(samples[sample][column][0])
    return info, samples


@pytest.mark.parametrize(("name", "kind"), [("grade", "classes"), ("OS", "survival"), ("PFS_2", "survival")])
def test_patho_bench_reads_what_is_written(tmp_path, name, kind):
    columns = cohort(kind, site=[f"T{i % 7}" for i in range(27)] if name == "grade" else [""] * 27)
    task = build_task(columns | ({"site": columns["case"]} if name == "grade" else {}), name)
    write_task(tmp_path / name, task)
    info, samples = patho_bench_reads(tmp_path / name)
    assert list(samples) == list(dict.fromkeys(task.cases))
    assert info["num_samples"] == len(samples) == 20
    assert info["task_type"] == {"classes": "classification", "survival": "survival"}[kind]
    assert {s["label"] for s in samples.values()} <= set(info["label_dict"])
    for k, (train, test) in enumerate(task.folds.values()):
        for side, rows in (("train", train), ("test", test)):
            assert {c for c, s in samples.items() if s["folds"][k] == side} == {task.cases[i] for i in rows}


@pytest.mark.parametrize(("kind", "name"), [("classes", "a"), ("grades", "b"), ("numbers", "c"), ("survival", "DSS")])
def test_what_is_written_is_read_again(tmp_path, kind, name):
    task = build_task(cohort(kind, site=["x"] * 27), name, kind=kind, group="molecular", datasets=("mine",))
    task = replace(task, simulated=True, strength="weak")
    write_task(tmp_path / name, task, "about")
    again = read_task(tmp_path / name)
    for key in ("name", "group", "kind", "metric", "classes", "cases", "slides", "site", "simulated", "strength"):
        assert getattr(again, key) == getattr(task, key), key
    assert (again.datasets, again.sample, again.dropped) == (("mine",), "case", {})
    for key in ("labels", "event", "days"):
        np.testing.assert_array_equal(getattr(again, key), getattr(task, key))
    assert list(again.folds) == list(task.folds)
    for fold in task.folds:
        assert [rows.tolist() for rows in again.folds[fold]] == [rows.tolist() for rows in task.folds[fold]]
    write_task(tmp_path / "second" / name, again, "about")
    for file in ("config.yaml", "k=all.tsv"):
        assert (tmp_path / "second" / name / file).read_bytes() == (tmp_path / name / file).read_bytes()


def test_the_bytes_of_a_small_task(tmp_path):
    task = SlideTask(
        name="OS",
        group="",
        kind="survival",
        metric="cindex",
        classes=("low", "high"),
        cases=("a", "a", "b", "c"),
        slides=("1", "2", "3", "4"),
        labels=np.array([1, 1, 0, 1]),
        folds={"fold_0": (np.array([0, 1]), np.array([2])), "fold_1": (np.array([2, 3]), np.array([0, 1]))},
        event=np.array([1, 1, 0, 1]),
        days=np.array([3.0, 3.0, 4.5, 5.0]),
        datasets=("d",),
    )
    write_task(tmp_path / "OS", task, "x")
    assert (tmp_path / "OS" / "k=all.tsv").read_text() == (
        "case_id\tslide_id\tOS\tOS_event\tOS_days\tfold_0\tfold_1\n"
        "a\t1\t1\t1\t3\ttrain\ttest\na\t2\t1\t1\t3\ttrain\ttest\nb\t3\t0\t0\t4.5\ttest\ttrain\nc\t4\t1\t1\t5\tval\ttrain\n"
    )
    assert (tmp_path / "OS" / "config.yaml").read_text() == (
        "datasets:\n- d\ntask_col: OS\nextra_cols:\n- OS_event\n- OS_days\ntask_type: survival\nmetrics:\n- cindex\n"
        "label_dict:\n  0: low\n  1: high\nsample_col: case_id\nnum_samples: 3\nsimulated: false\ndescription: x\n"
    )


@pytest.mark.parametrize(("name", "kind"), [("PFI", "survival"), ("OSCC_grade", "classes")])
def test_a_name_that_patho_bench_takes_for_another_kind_is_stated(tmp_path, name, kind):
    write_task(tmp_path / name, build_task(cohort(kind), name), "mine")
    about = yaml.safe_load((tmp_path / name / "config.yaml").read_text())["description"]
    assert about == "mine. Patho-Bench reads as survival what begins with OS, PFS, DSS, DFS, and nothing else"


def published(folder, *, config="", rows=None, head=None):
    """A folder as the data set MahmoodLab/Patho-Bench has it: remarks, extra columns before the label, whole floats."""
    folder.mkdir(parents=True)
    name = folder.name
    extra = (
        f"[]  # none\nlabel_dict:\n  0: 0\n  1: 1\n  2: {name}"
        if name != "OS"
        else "[OS_event, OS_days]\nlabel_dict: {0: x, 1: y}"
    )
    text = f"""datasets:
  - {folder.parent.name}

task_col: {name}
extra_cols: {extra}
task_type: {"survival" if name == "OS" else "classification"}
metrics:
  - {"cindex" if name == "OS" else "weighted_kappa"}
sample_col: case_id # a remark
num_samples: 12
{config}"""
    (folder / "config.yaml").write_text(text)
    if rows is None:
        rows = [
            [f"c{i}", f"c{i}-{j}", str(i % 3), "test" if i % 4 == 0 else "train"] for i in range(12) for j in (1, 2)
        ]
    if name == "OS":
        rows = [
            [case, slide, str(int(label) % 2), f"{label}9.0", str(int(label) % 2), side]
            for case, slide, label, side in rows
        ]
    head = head or ["case_id", "slide_id", *(["OS_event", "OS_days"] if name == "OS" else []), name, "fold_0"]
    (folder / "k=all.tsv").write_text("\n".join("\t".join(row) for row in [head, *rows]) + "\n")
    return folder


def test_published_folders_are_read(tmp_path):
    published(tmp_path / "cohort" / "grade")
    published(tmp_path / "cohort" / "OS")
    survival, grade = read_tasks(tmp_path)
    assert (grade.kind, grade.classes, grade.group) == ("grades", ("0", "1", "grade"), "")
    assert (survival.name, survival.kind, survival.days[:3].tolist()) == ("OS", "survival", [9.0, 9.0, 19.0])
    assert len(grade.cases) == 24
    assert len(set(grade.bags)) == 12
    assert grade.simulated is False
    assert set(patho_bench_reads(tmp_path / "cohort" / "grade")[1]) == set(grade.cases)


def test_counterparts_of_our_tasks_have_their_group(tmp_path):
    for code in ("cptac_brca/TP53_mutation", "elsewhere/TP53_mutation"):
        folder = published(tmp_path / code)
        text = (folder / "config.yaml").read_text().replace("weighted_kappa", "macro-ovr-auc")
        (folder / "config.yaml").write_text(text)
    assert [task.group for task in read_tasks(tmp_path)] == ["molecular", ""]


def test_across_cohorts_the_first_trains_and_the_second_tests(tmp_path):
    for prefix, name in (("P", "one"), ("Q", "two")):
        write_task(tmp_path / name / "OS", build_task(cohort("survival", prefix=prefix), "OS", datasets=(name,)))
    task = read_code(tmp_path, "one==two--OS")
    ((train, test),) = task.folds.values()
    assert (task.name, task.datasets) == ("one==two--OS", ("one", "two"))
    assert {task.cases[i][0] for i in train} == {"P"}
    assert {task.cases[i][0] for i in test} == {"Q"}
    assert len(task.event) == len(task.days) == len(task.labels) == len(task.cases) == len(train) + len(test)
    assert list(read_code(tmp_path, "two--OS").folds) == [f"fold_{k}" for k in range(5)]
    write_task(tmp_path / "three" / "OS", build_task(cohort("survival"), "OS"))
    with pytest.raises(SealError, match=r"one==three--OS: 47 cases or slides in both, first P00"):
        read_code(tmp_path, "one==three--OS")
    for wrong in ("one", "one==--OS", "one==one--OS", "a--b--c"):
        with pytest.raises(SealError, match="task code"):
            read_code(tmp_path, wrong)


def change(column, row, value):
    """Change one value of the table."""

    def do(frame, config):
        frame.loc[row, column] = value

    return do


def twice(frame, config):
    frame.loc[1, "slide_id"] = frame.loc[0, "slide_id"]


def no_label(frame, config):
    del frame["grade"]


BAD = {
    "a case on two sides": (change("fold_0", 1, "train"), r"fold_0: 1 cases are on two sides, first c0"),
    "a side that is none": (change("fold_0", [0, 1], "tset"), r"unknown side in .*fold_0 'tset'"),
    "a label of no class": (change("grade", [0, 1], "7"), r"slide c0-1, grade|label: '7' is not in label_dict"),
    "a label that is no number": (change("grade", 0, "high"), r"slide c0-1, label: could not convert"),
    "a case of two labels": (change("grade", 1, "1"), r"c0 has two values of label"),
    "a slide twice": (twice, r"1 slides are there more than once, first c0-1"),
    "a row without a case": (change("case_id", 3, ""), r"row 4 names no case or no slide"),
    "no label column": (no_label, r"lacks the columns grade"),
    "no label at all": (change("grade", slice(None), ""), r"no row can be used: 24 no label"),
    "one class in each test": (
        change("grade", slice(None), "1"),
        r"no fold can be trained and scored: fold_0 left out",
    ),
    "no fold": (lambda frame, config: frame.pop("fold_0"), r"lacks the columns fold_0"),
    "an unknown metric": (lambda frame, config: config.update(metrics=["dice"]), r"unknown metric in .*dice"),
    "an unknown type": (lambda frame, config: config.update(task_type="segmentation"), r"unknown task_type"),
    "a key too few": (lambda frame, config: config.pop("label_dict"), r"lacks what a task has"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said(tmp_path, case):
    break_it, message = BAD[case]
    folder = published(tmp_path / "cohort" / "grade")
    frame = pd.read_csv(folder / "k=all.tsv", sep="\t", dtype=str, keep_default_na=False)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    break_it(frame, config)
    frame.to_csv(folder / "k=all.tsv", sep="\t", index=False)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SealError, match=message):
        read_task(folder)


def test_missing_and_broken_files_are_said(tmp_path):
    with pytest.raises(SealError, match="no task below"):
        read_tasks(tmp_path)
    folder = published(tmp_path / "cohort" / "grade")
    with pytest.raises(SealError, match=r"cannot read .*k=sites.tsv"):
        read_task(folder, "k=sites")
    (folder / "k=all.tsv").write_text("case_id\tslide_id\na\n")
    with pytest.raises(SealError, match="line 2 has 1 values"):
        read_task(folder)
    (folder / "config.yaml").write_text("a: [")
    with pytest.raises(SealError, match=r"cannot read .*config.yaml"):
        read_task(folder)


def test_rows_that_cannot_be_used_are_counted(tmp_path):
    folder = published(tmp_path / "cohort" / "OS")
    frame = pd.read_csv(folder / "k=all.tsv", sep="\t", dtype=str)
    frame.loc[0:1, "OS_days"] = ["-3", "-3"]
    frame.loc[2:3, "OS_event"] = ["", ""]
    frame.loc[4:5, "OS"] = ["nan", "nan"]
    frame.to_csv(folder / "k=all.tsv", sep="\t", index=False)
    task = read_task(folder)
    assert task.dropped == {"days not above 0": 2, "no event": 2, "no label": 2}
    assert len(task.cases) == 18
    ((train, test),) = task.folds.values()
    assert sorted([*train, *test]) == list(range(18))
    frame["OS_event"] = "0"
    frame.to_csv(folder / "k=all.tsv", sep="\t", index=False)
    with pytest.raises(SealError, match="rows are censored"):
        read_task(folder)


def test_folds_that_cannot_be_scored_are_left_out_by_name(tmp_path):
    folder = published(tmp_path / "cohort" / "grade")
    frame = pd.read_csv(folder / "k=all.tsv", sep="\t", dtype=str)
    label = frame["grade"].astype(int)
    frame["fold_1"] = np.where(label == 2, "test", "train")  # one class in the test
    frame["fold_2"] = np.where(label > 0, "test", "train")  # classes that training never saw
    frame["fold_3"] = np.where(frame["case_id"].isin(["c0", "c1"]), "test", "train")  # the test lacks a class of three
    frame["fold_4"] = np.where(frame["case_id"] == "c1", "val", frame["fold_0"])
    frame.to_csv(folder / "k=all.tsv", sep="\t", index=False)
    task = read_task(folder)
    assert list(task.folds) == ["fold_0", "fold_3", "fold_4"]
    assert task.notes == (
        "fold_1 left out, 8 rows of its test: only grade to test on",
        "fold_2 left out, 16 rows of its test: only 0 to train on",
        "fold_3: no grade to test on",
        "fold_4: 2 rows on neither side",
    )


def test_other_folds_are_written_beside(tmp_path):
    task = build_task(cohort(), "grade")
    write_task(tmp_path / "grade", task)
    by_case = np.array([case < "P10" for case in task.cases])
    other = replace(task, folds={"fold_0": (np.flatnonzero(by_case), np.flatnonzero(~by_case))})
    write_split(tmp_path / "grade", other, "k=sites")
    assert read_task(tmp_path / "grade", "k=sites").folds["fold_0"][0].tolist() == np.flatnonzero(by_case).tolist()
    torn = replace(task, folds={"fold_0": (np.array([0]), np.array([1]))})
    with pytest.raises(SealError, match="1 cases are on two sides, first P00"):
        write_task(tmp_path / "torn", torn)
    assert not (tmp_path / "torn").exists()
    with pytest.raises(SealError, match="a name without fold_"):
        write_task(tmp_path / "x", replace(task, name="my_fold_change"))
