"""The 44 slide-level tasks (tables/tasks.csv) and their labels, from the patients and the truth of their slides.

Alterations are labels by themselves. Pathway scores, markers, response and survival follow from the truth of all
slides, since quantiles and means over the cohort enter them; they are drawn last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from zlib import crc32

import numpy as np

from seal.data.slide_folds import FOLDS, deal_cases, strata_of_labels
from seal.data.slide_tasks import METRICS
from seal.errors import SealError
from seal.evaluate.slide import SlideLabels
from seal_atlas import tables
from seal_atlas.patients.people import LEVEL, Patient, alterations, morphology_factors, require_known_organs, subtypes
from seal_atlas.tables import read_typed

GROUPS = {"molecular": 18, "pathway": 12, "response": 8, "morphology": 6}
STRENGTHS = ("strong", "moderate", "weak", "none")
# Survival, our choice: Weibull times with this shape and median (days) at mean risk, and uniform follow-up.
_SHAPE, _MEDIAN, _FOLLOW_UP = 1.2, 1100.0, (200.0, 2800.0)


@dataclass(frozen=True)
class SlideTask:
    """One task; the table's head says what the columns mean."""

    task: str
    group: str
    type: str
    organs: str
    states: str
    of: str
    classes: str
    share: str
    weights: str
    signal: str
    metric: str
    strength: str

    @property
    def is_null(self) -> bool:
        """Whether nothing tells the label."""
        return self.strength == "none"

    def takes(self, patient: Patient) -> bool:
        """Whether a patient's slide belongs to the task."""
        return (self.organs == "all" or patient.organ in self.organs.split()) and patient.state[0] in self.states


@dataclass(frozen=True)
class CohortTruth:
    """What is true of each slide, in the order of the patients."""

    cases: tuple[str, ...]
    composition: np.ndarray  # [n, cell types], shares of the cells
    activity: np.ndarray  # [n, programmes], mean over the slide, 0 to 1
    morphology: np.ndarray  # [n, factors]
    scores: np.ndarray  # [n, programmes], of the bulk expression (`slides.expression_scores`)


@dataclass(frozen=True, kw_only=True)
class TaskLabels(SlideLabels):
    """A task's labels; `rows` are the patients it takes. Survival's classes are quarters of the days by event."""

    task: SlideTask
    rows: np.ndarray


@cache
def slide_tasks() -> dict[str, SlideTask]:
    """Tasks by name, in the table's order.

    Raises
    ------
    SealError
        A task names something that does not exist, or calls itself null and is not.
    """
    path = tables.FOLDER / "tasks.csv"
    found = {task.task: task for task in read_typed(SlideTask, path)}
    for task in found.values():
        require_known_organs(() if task.organs == "all" else task.organs.split(), f"{path}, task {task.task}")
        problem = _problem(task)
        if problem:
            raise SealError(
                f"{path}, task {task.task}: {problem}", expected="what the table's head says", do="mend its row"
            )
    return found


def _problem(task: SlideTask) -> str | None:
    kind, _, name = task.of.partition(":")
    known = {
        "alteration": tuple(alterations()),
        "pathway": tuple(tables.programmes()),
        "subtype": ("diagnosis", "group"),
        "latent": ("",),
        "survival": ("",),
    }
    if task.group not in GROUPS or task.metric not in METRICS or task.strength not in STRENGTHS:
        return f"group {task.group}, metric {task.metric}, strength {task.strength}"
    if kind not in known or name not in known[kind]:
        return f"of {task.of}"
    if kind == "latent" and len(task.share.split("/")) != len(task.classes.split("/")):
        return "as many shares as classes are needed"
    if task.is_null and kind == "alteration" and any(e.shifts or e.factors for e in alterations()[name].effects):
        return f"strength none, but {name} has effects"
    if task.is_null and kind in ("latent", "survival") and float(task.signal) != 0:
        return f"strength none, but signal {task.signal}"
    try:
        _weights(task)
    except ValueError as error:
        return str(error)
    return None


def _weights(task: SlideTask) -> dict[str, float]:
    """Weights by name.

    Raises
    ------
    ValueError
        A name is nothing that a slide or patient has.
    """
    weights = {}
    groups = {cell.group for cell in tables.cell_types().values()}
    for part in task.weights.split() if task.weights != "-" else ():
        name, _, value = part.rpartition(":")
        alteration, _, wanted = name.partition("=")
        is_value = alteration in alterations() and (wanted or LEVEL) in alterations()[alteration].values
        if not (is_value or name in {*tables.cell_types(), *groups, *tables.programmes(), *morphology_factors()}):
            raise ValueError(f"weight {part}")
        weights[name] = float(value)
    return weights


def label_slides(task: SlideTask, patients: Sequence[Patient], truth: CohortTruth, seed: Sequence[int]) -> TaskLabels:
    """Label the slides of a task.

    Parameters
    ----------
    patients, truth
        Of the whole cohort, in the same order.
    seed
        Of the noise; each task has its own stream.
    """
    rows = np.array([i for i, patient in enumerate(patients) if task.takes(patient)], dtype=int)
    rng = np.random.default_rng([*seed, 3, crc32(task.task.encode())])
    chosen = [patients[i] for i in rows]
    kind, _, name = task.of.partition(":")
    if kind == "alteration":
        return _of_alteration(task, name, rows, chosen)
    if kind == "subtype":
        return _of_subtype(task, name, rows, chosen)
    if kind == "pathway":
        score = truth.scores[rows, list(tables.programmes()).index(name)]
        return _labels(task, rows, rng.permutation(score) if task.is_null else score)
    risk = sum(
        (w * _standard(_quantity(n, chosen, truth, rows)) for n, w in _weights(task).items()), np.zeros(len(rows))
    )
    return (_survival if kind == "survival" else _latent)(task, rows, _standard(risk), rng)


def deal_folds(labels: TaskLabels, cases: Sequence[str], seed: Sequence[int]) -> np.ndarray:
    """Deal a task's slides to folds: the fold in which each is tested, int [n].

    Parameters
    ----------
    cases
        Of the whole cohort.
    seed
        As for `label_slides`.
    """
    own = [cases[i] for i in labels.rows]
    return deal_cases(own, strata_of_labels(labels.label, labels.classes), FOLDS, np.random.default_rng([*seed, 4]))


def _labels(task: SlideTask, rows: np.ndarray, label: np.ndarray, classes=(), event=None, days=None) -> TaskLabels:
    return TaskLabels(task=task, rows=rows, metric=task.metric, label=label, classes=classes, event=event, days=days)


def _of_alteration(task: SlideTask, name: str, rows: np.ndarray, chosen: Sequence[Patient]) -> TaskLabels:
    merged = {}
    names = []
    for number, part in enumerate(task.classes.split("/")):
        label, _, values = part.partition("=")
        names.append(label)
        merged |= dict.fromkeys(values.split("|") if values else [label], number)
    has = [i for i, patient in enumerate(chosen) if patient.alterations.get(name) in merged]
    values = np.array([merged[chosen[i].alterations[name]] for i in has], dtype=int)
    return _labels(task, rows[has], values, tuple(names))


def _of_subtype(task: SlideTask, column: str, rows: np.ndarray, chosen: Sequence[Patient]) -> TaskLabels:
    present = {patient.subtype for patient in chosen}
    names = list(dict.fromkeys(getattr(s, column) for s in subtypes().values() if s.subtype in present))
    values = np.array([names.index(getattr(subtypes()[p.subtype], column)) for p in chosen], dtype=int)
    return _labels(task, rows, values, tuple(names))


def _latent(task: SlideTask, rows: np.ndarray, risk: np.ndarray, rng: np.random.Generator) -> TaskLabels:
    """Cut sqrt(R2) risk + sqrt(1 - R2) noise into classes, R2 being the task's signal."""
    signal = float(task.signal)
    latent = np.sqrt(signal) * risk + np.sqrt(1 - signal) * rng.standard_normal(len(rows))
    ends = np.rint(np.cumsum([float(s) for s in task.share.split("/")]) * len(rows))
    rank = np.argsort(np.argsort(latent, kind="stable"), kind="stable")
    values = np.minimum(np.searchsorted(ends, rank, side="right"), len(ends) - 1)
    return _labels(task, rows, values, tuple(task.classes.split("/")))


def _survival(task: SlideTask, rows: np.ndarray, risk: np.ndarray, rng: np.random.Generator) -> TaskLabels:
    """Weibull times whose hazard is exp(signal x risk), censored at the end of follow-up."""
    scale = _MEDIAN / np.log(2) ** (1 / _SHAPE)
    time = scale * (rng.exponential(size=len(rows)) * np.exp(-float(task.signal) * risk)) ** (1 / _SHAPE)
    follow_up = rng.uniform(*_FOLLOW_UP, len(rows))
    days = np.maximum(np.rint(np.minimum(time, follow_up)), 1).astype(int)
    event = (time <= follow_up).astype(int)
    quarter = np.searchsorted(np.quantile(days, (0.25, 0.5, 0.75)), days, side="right") if len(days) else days
    classes = tuple(f"Quartile {q}, Event {e}" for e in (0, 1) for q in (1, 2, 3, 4))
    return _labels(task, rows, quarter + 4 * event, classes, event, days)


def _quantity(name: str, chosen: Sequence[Patient], truth: CohortTruth, rows: np.ndarray) -> np.ndarray:
    """A named quantity of the task's slides, [cases]."""
    cells, programmes = list(tables.cell_types().values()), list(tables.programmes())
    alteration, _, value = name.partition("=")
    if name in programmes:
        activity = np.clip(truth.activity[rows, programmes.index(name)], 1e-3, 1 - 1e-3)
        return np.log(activity / (1 - activity))
    if name in morphology_factors():
        return np.log(truth.morphology[rows, list(morphology_factors()).index(name)])
    if alteration in alterations():
        own = [patient.alterations.get(alteration) for patient in chosen]
        return np.array([float(v == value) if value else float(v or 0) for v in own])
    mine = [i for i, cell in enumerate(cells) if name in (cell.cell, cell.group)]
    return np.log(truth.composition[rows][:, mine].sum(axis=1) + 1e-3)


def _standard(values: np.ndarray) -> np.ndarray:
    """Zero mean, unit variance; zeros where all are alike."""
    if not len(values):
        return values
    sd = values.std()
    return (values - values.mean()) / sd if sd > 1e-12 else np.zeros(len(values))
