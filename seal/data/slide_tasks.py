"""Slide-level tasks: labels of slides, folds by case, what is refused and what is left out by name; our 44."""

import csv
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from seal.errors import SealError, explain_unreadable

METRICS = ("macro-ovr-auc", "bacc", "weighted_kappa", "pearson", "cindex")  # Patho-Bench's names, but for pearson
# Some of what pandas, and so Patho-Bench, takes for no value.
MISSING = {"", "nan", "NaN", "-nan", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None"}
# Of a label table's columns: why a row that has a value there cannot be used.
_UNUSABLE = {"label": "a label of no class of the task", "event": "", "days": "days not above 0"}


@dataclass(frozen=True, eq=False)
class SlideTask:
    """One task: labels of n slides, one a row, and folds by case. A case's slides are one bag.

    Where the slides of a case have labels of their own (`sample` "slide"), each slide is a bag.
    """

    name: str  # the label's column
    group: str  # molecular, pathway, response or morphology; "" where unknown
    kind: str  # classes, grades, numbers or survival
    metric: str
    classes: tuple[str, ...]  # in order; () for numbers
    cases: tuple[str, ...]  # [n]
    slides: tuple[str, ...]  # [n]
    labels: np.ndarray  # [n], int of `classes`, or floats where there are none
    folds: Mapping[str, tuple[np.ndarray, np.ndarray]]  # name -> rows of training, of the test
    event: np.ndarray | None = None  # [n], 1: died, or progressed
    days: np.ndarray | None = None  # [n], above 0
    site: tuple[str, ...] | None = None  # [n]
    simulated: bool = False
    dropped: Mapping[str, int] = field(default_factory=dict)  # why rows were left out -> how many
    notes: tuple[str, ...] = ()  # of folds: which were left out, what others lack, how they were dealt
    datasets: tuple[str, ...] = ()
    sample: str = "case"
    strength: str = ""  # of a simulated signal; "none" where there is nothing to find

    @property
    def bags(self) -> tuple[str, ...]:
        """The bag of each row, [n]."""
        return self.cases if self.sample == "case" else self.slides


@dataclass(frozen=True)
class PublicTask:
    """One of our 44 tasks, and what of it is public."""

    task: str
    group: str
    kind: str
    metric: str
    patho_bench: tuple[str, ...]  # its counterparts there, DATASET--TASK
    match: str  # same: one question, as many classes; near: another marker, cut or number of classes; none
    source: str  # where the counterparts' images are
    paper: str  # what the paper's public captions say of it


@cache
def public_tasks() -> dict[str, PublicTask]:
    """Our 44 tasks by name, in order. Which the paper took is public for six of them; which genes, for none.

    Source: the task files of the data set MahmoodLab/Patho-Bench; the captions of arXiv 2602.14177.
    """
    columns = read_columns(Path(__file__).with_name("slide_tasks.csv"))
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return {row["task"]: PublicTask(**row | {"patho_bench": tuple(row["patho_bench"].split())}) for row in rows}


def read_columns(path: Path, separator: str = ",") -> dict[str, list[str]]:
    """Read a table's columns as text.

    Raises
    ------
    SealError
        The file cannot be read, has no row, names a column twice, or a line has another number of values.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file, delimiter=separator) if line]
    except (OSError, ValueError, csv.Error) as error:
        why, do = explain_unreadable(path, error)
        raise SealError(f"cannot read {path}: {why}", expected="a table of labels", do=do) from error
    head = [name.strip() for name in lines[0]] if lines else []
    wrong = next((i for i, line in enumerate(lines, 1) if len(line) != len(head)), 0)
    if len(lines) < 2 or wrong or len(set(head)) < len(head):
        what = f"line {wrong} has {len(lines[wrong - 1])} values" if wrong else f"{len(lines)} lines, columns {head}"
        expected = f"{len(head)} values a line, a row or more, each column once"
        raise SealError(f"{path}: {what}", expected=expected, do="correct the table, or its separator")
    return {name: [line[i].strip() for line in lines[1:]] for i, name in enumerate(head)}


def clean_rows(
    where: Path | str, columns: Mapping[str, Sequence[str]], sample: str, code: Callable[[str], int | float | None]
) -> tuple[dict[str, list], list[int], dict[str, int]]:
    """Take the rows of a label table that can be used, and count the others by reason.

    Parameters
    ----------
    columns
        Texts of case, slide, and of label, event, days, site those that there are.
    sample
        case or slide: whose rows must agree.
    code
        The label that a text means; None if it is none of the task's.

    Returns
    -------
    The values by column; which rows they are; reason -> number of rows left out.

    Raises
    ------
    SealError
        A row without case or slide, a slide twice, a value that cannot be read, a bag of two labels, a case of two
        sites, no row left, all censored.
    """
    read = {"label": code, "event": _read_event, "days": _read_days}
    values, why = {key: [] for key in columns}, {}
    for key, i, text in ((key, i, text) for key, texts in columns.items() for i, text in enumerate(texts)):
        missing = key in read and text in MISSING
        try:
            value = None if missing else read.get(key, str)(text)
        except ValueError as error:
            what = f"{where}, slide {columns['slide'][i]}, {key}: {error}"
            raise SealError(what, expected="numbers; events 0 or 1", do="correct the table") from None
        if value is None:
            why.setdefault(i, f"no {key}" if missing else _UNUSABLE[key])
        values[key].append(value)
    kept = [i for i in range(len(values["case"])) if i not in why]
    rows, dropped = {key: [own[i] for i in kept] for key, own in values.items()}, dict(Counter(why.values()))
    if problem := _find_problem(columns, rows, sample, dropped):
        expected = "each slide once, one label a case (or a slide, where these are the samples)"
        raise SealError(f"{where}: {problem}", expected=expected, do="correct the table")
    return rows, kept, dropped


def _find_problem(columns: Mapping, rows: Mapping, sample: str, dropped: Mapping[str, int]) -> str | None:
    """Say what is wrong with a table as a whole."""
    if nameless := [i for key in ("case", "slide") for i, name in enumerate(columns[key], 1) if not name]:
        return f"row {nameless[0]} names no case or no slide"
    if twice := [slide for slide, number in Counter(columns["slide"]).items() if number > 1]:
        return f"{len(twice)} slides are there more than once, first {twice[0]}"
    if not rows["case"]:
        return "no row can be used: " + ", ".join(f"{number} {reason}" for reason, number in dropped.items())
    if not any(rows.get("event", [1])):
        return f"all {len(rows['case'])} rows are censored"
    for key in {"label", "event", "days", "site"} & {*rows}:
        held: dict[str, Any] = {}
        bags = rows["case" if key == "site" else sample]
        differ = [bag for bag, value in zip(bags, rows[key], strict=True) if held.setdefault(bag, value) != value]
        if differ:
            return f"{differ[0]} has two values of {key}"
    return None


def read_number(text: str) -> float:
    """Read a finite number; a ValueError if it is none."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text!r} is not finite")
    return value


def _read_event(text: str) -> int:
    if (value := read_number(text)) not in (0, 1):
        raise ValueError(f"{text!r} is neither 0 nor 1")
    return int(value)


def _read_days(text: str) -> float | None:
    return value if (value := read_number(text)) > 0 else None


def find_fold_problem(task: SlideTask, train: np.ndarray, test: np.ndarray) -> str | None:
    """Say why a fold cannot be trained or scored, None if it can.

    A side has no case; survival: no event; else: one class or number only, or tests a class that is not trained on.
    That the test lacks one class of several is no reason, see `find_missing`.
    """
    for to, rows in (("train on", train), ("test on", test)):
        if not len(rows):
            return f"no case to {to}"
        if task.event is not None and not task.event[rows].any():
            return f"no event to {to}"
        if task.event is None and len(np.unique(task.labels[rows])) < 2:
            only = task.labels[rows[0]]
            return f"only {task.classes[only] if task.classes else only} to {to}"
    untrained = np.setdiff1d(task.labels[test], task.labels[train]) if task.classes and task.event is None else []
    return f"no case of {task.classes[untrained[0]]} to train on" if len(untrained) else None


def find_missing(task: SlideTask, train: np.ndarray, test: np.ndarray) -> list[str]:
    """Name the task's classes that a side of a fold has no case of; of survival, an event."""
    own, names = (task.labels, dict(enumerate(task.classes))) if task.event is None else (task.event, {1: "event"})
    sides = (("train on", train), ("test on", test))
    return [f"no {names[k]} to {to}" for to, rows in sides for k in np.unique(own) if k in names and k not in own[rows]]


def check_folds(task: SlideTask, where: Path | str) -> SlideTask:
    """Leave out the folds that cannot be trained or scored, and note it, and what the others lack.

    Raises
    ------
    SealError
        No fold is left.
    """
    kept, notes = {}, list(task.notes)
    for fold, (train, test) in task.folds.items():
        if problem := find_fold_problem(task, train, test):
            notes.append(f"{fold} left out, {len(test)} rows of its test: {problem}")
            continue
        kept[fold] = (train, test)
        neither = len(task.cases) - len(train) - len(test)
        lacks = find_missing(task, train, test) + ([f"{neither} rows on neither side"] if neither else [])
        notes += [f"{fold}: {', '.join(lacks)}"] if lacks else []
    if not kept:
        what = f"{where}, task {task.name}: no fold can be trained and scored: {'; '.join(notes) or 'there is none'}"
        raise SealError(what, expected="cases of each class on both sides of a fold", do="add cases, or merge classes")
    return replace(task, folds=kept, notes=tuple(notes))


def rows_by_side(where: str, cases: Sequence[str], sides: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of training and of the test, from the side of each row.

    Raises
    ------
    SealError
        A case is on two sides.
    """
    held: dict[str, str] = {}
    torn = [case for case, side in zip(cases, sides, strict=True) if held.setdefault(case, side) != side]
    if torn:
        what = f"{where}: {len(set(torn))} cases are on two sides, first {torn[0]}"
        raise SealError(what, expected="all slides of a case on one side", do="deal the folds by case")
    return np.flatnonzero(np.array(sides) == "train"), np.flatnonzero(np.array(sides) == "test")
