"""Our 44 tasks and their public counterparts; what a fold needs; label tables as they come."""

import re
from collections import Counter

import numpy as np
import pytest

from seal.data.slide_tasks import METRICS, SlideTask, find_fold_problem, find_missing, public_tasks, read_columns
from seal.errors import SealError
from seal_atlas.patients.tasks import GROUPS, slide_tasks

KINDS = {"classification": "classes", "regression": "numbers", "survival": "survival"}


def test_our_tasks_are_those_of_the_atlas_in_its_order():
    ours, atlas = public_tasks(), slide_tasks()
    assert list(ours) == list(atlas)
    assert (
        Counter(task.group for task in ours.values())
        == GROUPS
        == {
            "molecular": 18,
            "pathway": 12,
            "response": 8,
            "morphology": 6,
        }
    )
    for name, task in ours.items():
        kind = "grades" if atlas[name].metric == "weighted_kappa" else KINDS[atlas[name].type]
        assert (task.group, task.metric, task.kind) == (atlas[name].group, atlas[name].metric, kind)


@pytest.mark.parametrize("name", list(public_tasks()))
def test_counterparts_have_a_code_a_source_and_a_match(name):
    task = public_tasks()[name]
    assert task.match == ("none" if not task.patho_bench else task.match)
    assert task.match in ("same", "near", "none")
    assert all(re.fullmatch(r"[\w-]+?--\w+", code) for code in task.patho_bench)
    assert (task.source == "-") == (not task.patho_bench)
    assert task.paper.startswith("unknown: ") == (task.group != "morphology")


def test_which_are_in_public_hands():
    """Of the caption's six, four are named there; no pathway task has a counterpart."""
    matches = Counter((task.group, task.match) for task in public_tasks().values())
    assert matches["pathway", "none"] == 12
    assert {name for name, task in public_tasks().items() if task.group == "morphology" and task.match == "same"} == {
        "diagnosis",
        "breast_fine",
        "breast_coarse",
    }


def task_of(labels, classes=("a", "b", "c"), event=None):
    names = tuple(str(i) for i in range(len(labels)))
    days = None if event is None else np.ones(len(labels))
    return SlideTask("t", "", "classes", METRICS[0], classes, names, names, np.array(labels), {}, event, days)


@pytest.mark.parametrize(
    ("task", "train", "test", "problem", "missing"),
    [
        (task_of([0, 1, 2, 0, 1, 2]), [0, 1, 2], [3, 4, 5], None, []),
        (task_of([0, 1, 2, 0, 1, 2]), [0, 1, 2], [3, 4], None, ["no c to test on"]),
        (task_of([0, 1, 2, 0, 1, 2]), [0, 1, 3], [2, 4], "no case of c to train on", None),
        (task_of([0, 1, 2, 0, 1, 2]), [0, 1, 2, 4, 5], [3], "only a to test on", None),
        (task_of([0, 1, 2]), [0, 1, 2], [], "no case to test on", None),
        (task_of([0.5, 0.5, 1.0, 2.0], ()), [2, 3], [0, 1], "only 0.5 to test on", []),
        (task_of([0, 1, 4, 5], event=np.array([0, 0, 1, 1])), [0, 2], [1, 3], None, []),
        (
            task_of([0, 1, 4, 5], event=np.array([0, 0, 1, 1])),
            [0, 1, 2, 3],
            [1],
            "no event to test on",
            ["no event to test on"],
        ),
        (task_of([0, 1, 4, 5], event=np.array([0, 0, 1, 1])), [0, 1, 2], [3], None, []),
    ],
)
def test_what_a_fold_needs(task, train, test, problem, missing):
    rows = np.array(train, dtype=int), np.array(test, dtype=int)
    assert find_fold_problem(task, *rows) == problem
    if missing is not None:
        assert find_missing(task, *rows) == missing


def test_tables_as_spreadsheets_write_them(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('\ufeffcase, slide ,label\r\n1,"a,b", x\r\n\r\n2,c,NA\r\n', encoding="utf-8")
    assert read_columns(path) == {"case": ["1", "2"], "slide": ["a,b", "c"], "label": ["x", "NA"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 lines"),
        ("case,slide\n", "1 lines"),
        ("case,case\n1,2\n", "2 lines, columns"),
        ("case;slide\n1;2,3\n", "line 2 has 2 values"),
    ],
)
def test_broken_tables_say_what_is_wrong(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(SealError, match=message):
        read_columns(tmp_path / "a.csv")
    with pytest.raises(SealError, match="cannot read"):
        read_columns(tmp_path / "none.csv")
