"""What MIL models are trained with and on: settings, jobs, and what a finished job says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from seal.data.slide_tasks import SlideTask
from seal.errors import SealError, require_known
from seal.files import digest
from seal.models.mil import QUARTILES

KINDS = ("classes", "grades", "numbers", "survival", "cox")


@dataclass(frozen=True)
class MilSettings:
    """How MIL models are trained; by default Patho-Bench's recipe for ABMIL."""

    model: str = "abmil"  # of seal.models.mil.FORMS
    hidden: int | None = None  # width of the layers; None: the form's
    attention: int | None = None  # width of the attention's hidden layer; None: the form's
    epochs: int = 20
    lr: float = 3e-4
    weight_decay: float = 1e-5
    bag: int = 2048  # patches that a step sees at most, drawn anew each time; at evaluation all are seen
    blocks: int = 0  # steps of an epoch, each on the mean loss of several bags; 0: a step a bag
    balanced: bool = True  # classes count alike
    precision: str = "float32"  # of matrix products in training, "float32" or "bfloat16"
    seed: int = 0  # of the order of bags


@dataclass(frozen=True)
class MilJob:
    """One training: what it learns from and what it predicts. Labels of what it predicts are not known to it.

    Raises
    ------
    SealError
        No training bag, a bag on both sides, numbers of labels that differ, a label that is no number or no class.
    """

    kind: str  # classes, grades, numbers, survival (discrete time) or cox
    train: tuple[str, ...]  # bags
    labels: tuple[float, ...]  # of `train`: number of a class or grade, a number, the quartile (0 to 3) of survival
    test: tuple[str, ...]  # bags
    seed: int  # of weights, dropout and patches
    classes: int = 1  # of classes and grades
    event: tuple[bool, ...] = ()  # of survival and cox
    days: tuple[float, ...] = ()  # of cox
    name: str = ""  # in messages

    def __post_init__(self) -> None:
        require_known("kind", self.kind, KINDS)
        event = self.event if self.kind in ("survival", "cox") else self.train
        days = self.days if self.kind == "cox" else self.train
        numbers = np.array([*self.labels, *self.days], dtype=float)
        wrong = {
            "it has no training bag": not self.train,
            "a bag is on both sides, or twice": len({*self.train, *self.test}) < len(self.train) + len(self.test),
            "labels, events or days are missing": {len(self.labels), len(event), len(days)} != {len(self.train)},
            "a label or a time is not finite": not np.isfinite(numbers).all(),
            "a label is none of its classes": self.outputs > 1 and not set(self.labels) <= set(range(self.outputs)),
            "no case had the event": self.kind in ("survival", "cox") and not any(event),
        }
        for what in (what for what, so in wrong.items() if so):
            expected = "bags that are trained on or predicted, one finite label each, times and events of survival"
            do = "correct the task's labels and folds"
            raise SealError(f"training {self.name or self.kind}: {what}", expected=expected, do=do)

    @property
    def outputs(self) -> int:
        """Outputs of its model."""
        return {"survival": QUARTILES, "numbers": 1, "cox": 1}.get(self.kind, self.classes)

    @property
    def scale(self) -> tuple[float, float]:
        """Mean and sd of a number's training labels, in which it is learnt."""
        if self.kind != "numbers":
            return 0.0, 1.0
        return float(np.mean(self.labels)), float(np.std(self.labels)) or 1.0


@dataclass(frozen=True)
class Trained:
    """What a job's model, as its last step leaves it, says of its test bags, which it sees whole."""

    predictions: np.ndarray  # probabilities [n, K] of classes and grades; numbers [n]; risk [n] of survival and cox
    curves: np.ndarray | None = None  # of survival: probability to live beyond each quartile, [n, 4]
    attention: Mapping[str, np.ndarray] = field(default_factory=dict)  # bag -> [patches], which sum to 1


def make_jobs(task: SlideTask, seeds: Sequence[int], cox: bool = False) -> list[MilJob]:
    """Make a job of each fold and seed of a slide-level task (seal.data.slide_tasks.SlideTask).

    Folds of a task and tasks draw independently; encoders that are compared draw alike.
    """
    jobs = []
    for fold, sides in task.folds.items():
        train, test = ({task.bags[row]: row for row in reversed(rows.tolist())} for rows in sides)
        rows = list(train.values())
        own = {"labels": tuple(float(task.labels[row]) for row in rows)}
        if task.kind == "survival":
            own["labels"] = tuple(float(task.labels[row] % QUARTILES) for row in rows)
            own["event"] = tuple(bool(task.event[row]) for row in rows)
            own["days"] = tuple(float(task.days[row]) for row in rows) if cox else ()
        kind = "cox" if cox and task.kind == "survival" else task.kind
        own |= {"train": tuple(train), "test": tuple(test), "classes": len(task.classes)}
        for seed in seeds:
            draw, name = int(digest([seed, task.name, fold])[:8], 16), f"{task.name}, {fold}, seed {seed}"
            jobs.append(MilJob(kind, seed=draw, name=name, **own))
    return jobs
