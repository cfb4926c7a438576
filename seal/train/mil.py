"""Many small trainings of MIL models at once: all tasks, folds and seeds that read a slide train on it together.

Runs of one form are stacked (seal.models.mil) and take their steps side by side, each with its own AdamW state, cosine,
dropout and sample of patches. All of them see an epoch's bags in one order, which follows from the settings' seed, the
epoch and the bags' names; a run takes part where the bag is one of its own. So an epoch is one pass over the files,
whatever the number of runs; each run sees its bags in a random order that no other run changes, and ends where it would
end alone. That the order is shared is our choice: Patho-Bench draws one for each training.
"""

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from seal.errors import SealError, require_known
from seal.files import Made, atomic, digest, progress
from seal.models import mil
from seal.shapes import Float
from seal.train import parallel
from seal.train.bags import Bags
from seal.train.loop import CHECKPOINT_SECONDS, make_seed

VERSION = 1  # counted up when the same bags, jobs and settings give other predictions
KINDS = ("classes", "grades", "numbers", "survival", "cox")
LEAST_LR = 1e-8  # where the cosine ends
STATE = ("weights", "mean", "square", "taken")
FIXED = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False, "maximize": False}  # of AdamW: torch's own
SPARE = 0.75  # runs that stand together are computed without a copy if at least this share of them is wanted
WORK = {"cpu": 2**23, "cuda": 2**33}  # bytes that runs which are computed at once may take: a CPU's fit its cache


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
class Job:
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
        return {"survival": mil.QUARTILES, "numbers": 1, "cox": 1}.get(self.kind, self.classes)

    @property
    def scale(self) -> tuple[float, float]:
        """Mean and sd of a number's training labels, in which it is learnt."""
        return (
            (float(np.mean(self.labels)), float(np.std(self.labels)) or 1.0) if self.kind == "numbers" else (0.0, 1.0)
        )


@dataclass(frozen=True)
class Trained:
    """What a job's model, as its last step leaves it, says of its test bags, which it sees whole."""

    predictions: np.ndarray  # probabilities [n, K] of classes and grades; numbers [n]; risk [n] of survival and cox
    curves: np.ndarray | None = None  # of survival: probability to live beyond each quartile, [n, 4]
    attention: Mapping[str, np.ndarray] = field(default_factory=dict)  # bag -> [patches], which sum to 1


def make_jobs(task: Any, seeds: Sequence[int], cox: bool = False) -> list[Job]:
    """Make a job of each fold and seed of a slide-level task (seal.data.patho_bench.SlideTask); a bag is a case.

    Folds of a task and tasks draw independently; encoders that are compared draw alike.
    """
    jobs = []
    for fold, sides in task.folds.items():
        train, test = ({task.cases[row]: row for row in reversed(rows.tolist())} for rows in sides)
        rows = list(train.values())
        own = {"labels": tuple(float(task.labels[row]) for row in rows)}
        if task.kind == "survival":
            own["labels"] = tuple(float(task.labels[row] % mil.QUARTILES) for row in rows)
            own["event"] = tuple(bool(task.event[row]) for row in rows)
            own["days"] = tuple(float(task.days[row]) for row in rows) if cox else ()
        kind = "cox" if cox and task.kind == "survival" else task.kind
        for seed in seeds:
            draw, name = int(digest([seed, task.name, fold])[:8], 16), f"{task.name}, {fold}, seed {seed}"
            jobs.append(
                Job(kind, tuple(train), test=tuple(test), seed=draw, classes=len(task.classes), name=name, **own)
            )
    return jobs


def train_jobs(
    bags: Bags,
    jobs: Sequence[Job],
    settings: MilSettings,
    folder: Path | None = None,
    attention: Collection[str] = (),
) -> list[Trained]:
    """Train all jobs, as many at once as half of the bags' memory holds, and predict their test bags.

    Parameters
    ----------
    folder
        Where a file a finished job is kept; what is there and follows from the same is read. A killed training goes
        on from its last checkpoint, an epoch's end.
    attention
        Test bags whose attention is wanted too.

    Raises
    ------
    SealError
        See `Bags`; a loss is not finite; "cox" with a step a bag, where no case can be compared with another.
    """
    if any(job.kind == "cox" for job in jobs) and not settings.blocks:
        do = "set blocks, the steps of an epoch, to a tenth of the cases or less"
        raise SealError("cox has a step a bag", expected="steps of many cases, which it compares", do=do)
    names = sorted({name for job in jobs for name in (*job.train, *job.test)})
    bags.look(names)
    keys = list(_keys(bags, names, jobs, settings, attention)) if folder else [""] * len(jobs)
    places = [folder / f"{key}.npz" if folder else None for key in keys]
    found = {i: _load(place) for i, place in enumerate(places) if place and place.is_file()}
    missing = [i for i in range(len(jobs)) if i not in found]
    at_once = max(
        1,
        int(
            bags.memory / 2 // (16 * sum(value.numel() for value in _make(jobs, 1, bags.width, settings).parameters()))
        ),
    )  # float32, with AdamW's state
    chunks = [missing[start : start + at_once] for start in range(0, len(missing), at_once)]
    with progress("MIL trainings", len(jobs) * settings.epochs, "epoch", len(found) * settings.epochs) as advance:
        for chunk in chunks:
            stack = Stack([jobs[i] for i in chunk], bags.width, settings)
            checkpoint = folder / f"{digest([keys[i] for i in chunk])}.checkpoint.pt" if folder else None
            for _ in stack.fit(bags, checkpoint):
                advance(len(chunk))
            for i, trained in zip(chunk, stack.predict(bags, attention), strict=True):
                found[i] = trained
                if folder:
                    _save(places[i], trained)
            if checkpoint:
                checkpoint.unlink(missing_ok=True)
    return [found[i] for i in range(len(jobs))]


def _keys(bags: Bags, names: Sequence[str], jobs: Sequence[Job], settings: MilSettings, attention: Collection[str]):
    """Key of each job: all that its predictions follow from."""
    own = bags.digests(names)
    for job in jobs:
        parts = {"settings": asdict(settings), "job": asdict(job) | {"name": ""}, "held": str(bags.dtype)}
        parts["bags"] = [own[name] for name in (*job.train, *job.test)]
        parts["attention"] = sorted(set(attention) & set(job.test))
        yield Made("MIL", VERSION, parts).key


def _save(path: Path, trained: Trained) -> None:
    curves = {} if trained.curves is None else {"curves": trained.curves}
    with atomic(path) as temporary:
        np.savez(
            temporary, predictions=trained.predictions, **curves, **{f"/{n}": a for n, a in trained.attention.items()}
        )


def _load(path: Path) -> Trained:
    with np.load(path) as file:
        attention = {name[1:]: file[name] for name in file.files if name[0] == "/"}
        return Trained(file["predictions"], file["curves"] if "curves" in file.files else None, attention)


def _make(jobs: Sequence[Job], runs: int, width: int, settings: MilSettings) -> torch.nn.Module:
    outputs = max(job.outputs for job in jobs)
    return mil.make_mil(settings.model, runs, width, outputs, settings.hidden, settings.attention)


@cache
def bag_number(name: str) -> int:
    """Give a bag's number, from which its place in an epoch and what is drawn for it follow."""
    return int(digest(name)[:15], 16)


def order_bags(names: Sequence[str], epoch: int, settings: MilSettings) -> list[list[str]]:
    """Cut an epoch's bags into steps, by a number that follows from a bag's name, the epoch and the settings' seed.

    So the steps of some of the bags are those of all, less the others.
    """
    ids = torch.tensor([bag_number(name) for name in names])
    rank = mil.mix(mil.mix(ids + mil.mix(torch.tensor(settings.seed))) + epoch)  # [N]
    blocks: dict[int, list[str]] = {}
    for place, i in enumerate(rank.argsort().tolist()):
        block = math.floor((int(rank[i]) / 2**64 + 0.5) * settings.blocks) if settings.blocks else place
        blocks.setdefault(block, []).append(names[i])
    return list(blocks.values())


class Stack:
    """Runs of one form that train side by side: their weights and AdamW's state, each stacked."""

    def __init__(self, jobs: Sequence[Job], width: int, settings: MilSettings) -> None:
        self.jobs, self.settings, self.device = jobs, settings, parallel.device()
        self.model = _make(jobs, len(jobs), width, settings)
        for run, job in enumerate(jobs):
            self.model.start(run, make_seed(job.seed), job.outputs)
        self.shapes = {name: value.shape[1:] for name, value in self.model.named_parameters()}
        self.weights = torch.cat([value.detach().flatten(1) for value in self.model.parameters()], dim=1)
        self.weights = self.weights.to(self.device)  # [R, P]
        self.mean, self.square = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.taken = torch.zeros(len(jobs), device=self.device)  # steps
        self.seeds = torch.tensor([job.seed for job in jobs], device=self.device)
        self.kinds = np.array(["classes" if job.kind == "grades" else job.kind for job in jobs])
        outputs = torch.tensor([[job.outputs] for job in jobs], device=self.device)
        self.beyond = torch.arange(int(outputs.max()), device=self.device) >= outputs  # [R, K]: outputs of other runs
        self._lay_out()

    def _lay_out(self) -> None:
        """Lay out what each run learns from each bag, [R, N], the bags of each epoch, and each run's steps."""
        self.names = sorted({name for job in self.jobs for name in (*job.train, *job.test)})
        self.place = {name: i for i, name in enumerate(self.names)}
        shape = len(self.jobs), len(self.names)
        self.trains, self.tests = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        tables = {name: np.zeros(shape) for name in ("label", "weight", "event", "days")}
        for run, job in enumerate(self.jobs):
            own = [self.place[name] for name in job.train]
            self.trains[run, own], self.tests[run, [self.place[name] for name in job.test]] = True, True
            tables["label"][run, own] = (np.array(job.labels) - job.scale[0]) / job.scale[1]
            balanced = self.settings.balanced and job.kind in ("classes", "grades")
            tables["weight"][run, own] = mil.balance(job.labels) if balanced else 1
            tables["event"][run, own], tables["days"][run, own] = job.event or 0, job.days or 0
        self.tables = {n: torch.tensor(t, dtype=torch.float32, device=self.device) for n, t in tables.items()}
        trained = [self.names[i] for i in np.flatnonzero(self.trains.any(axis=0))]
        self.plan = [order_bags(trained, epoch, self.settings) for epoch in range(self.settings.epochs)]
        blocks = [[self.place[name] for name in block] for blocks in self.plan for block in blocks]
        self.total = sum(
            self.trains[:, block].any(axis=1).astype(int) for block in blocks
        ).tolist()  # steps of each run
        self.steps = [0] * len(self.jobs)

    def fit(self, bags: Bags, checkpoint: Path | None = None):
        """Train epoch by epoch, from the checkpoint on if there is one; gives each epoch's number when it is done."""
        first, saved = self._resume(checkpoint), time.monotonic()
        for epoch in range(first, self.settings.epochs):
            stream = bags.stream([name for block in self.plan[epoch] for name in block])
            for block in self.plan[epoch]:
                self.step(block, [next(stream) for _ in block])
            if checkpoint and time.monotonic() - saved >= CHECKPOINT_SECONDS:
                state = {"epoch": epoch + 1, "steps": self.steps, **{name: getattr(self, name) for name in STATE}}
                with atomic(checkpoint) as temporary:
                    torch.save(state, temporary)
                saved = time.monotonic()
            yield epoch

    def _resume(self, checkpoint: Path | None) -> int:
        """Take up what a killed training left; the epoch to go on with."""
        if not checkpoint or not checkpoint.is_file():
            return 0
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        for name in STATE:
            getattr(self, name).copy_(state[name])
        self.steps = state["steps"]
        return state["epoch"]

    def step(self, names: Sequence[str], bags: Sequence[Tensor]) -> None:
        """Let every run that learns from some of these bags take one step on the mean of its losses."""
        places = [self.place[name] for name in names]
        bags = [bag.to(self.device) for bag in bags]
        size = sum(min(len(bag), self.settings.bag) for bag in bags)
        for rows in self._split(np.flatnonzero(self.trains[:, places].any(axis=1)), size):
            part, own = self._find(rows)
            weights = self.weights[part].detach().requires_grad_()  # [A, P]
            steps = torch.tensor(self.steps, device=self.device)[part]
            draws = [mil.Draws(self.seeds[part], steps, bag_number(name)) for name in names]
            outputs = [self._see(weights, bag, draw)[own] for bag, draw in zip(bags, draws, strict=True)]
            loss = self._losses(torch.stack(outputs, dim=1), rows, places)  # [len(rows)]
            if not loss.isfinite().all():
                job = self.jobs[rows[int((~loss.isfinite()).nonzero()[0])]]
                do = "look at the features' size, or lower the learning rate"
                raise SealError(f"training {job.name}: the loss is not finite", expected="finite numbers", do=do)
            (gradients,) = torch.autograd.grad(loss.sum(), weights)
            gradients = gradients.unbind(0)
            for run, at in zip(rows, own, strict=True):
                self._update(run, gradients[at])

    def _split(self, rows: np.ndarray, patches: int) -> list[list[int]]:
        """Cut runs into parts that are computed at once, each as large as `WORK` allows for so many patches."""
        numbers = 6 * patches * sum(shape[1] for shape in self.shapes.values()) // 2 + 2 * self.weights.shape[1]
        at_once = max(1, WORK[self.device.type] // (4 * numbers))
        return [part.tolist() for part in np.array_split(rows, -(-len(rows) // at_once))] if len(rows) else []

    def _find(self, rows: list[int]) -> tuple[slice | list[int], list[int]]:
        """Which runs to compute, and where among them `rows` are: a few more than these, if that spares a copy."""
        span = rows[-1] + 1 - rows[0]
        if SPARE * span > len(rows):
            return rows, list(range(len(rows)))
        return slice(rows[0], rows[-1] + 1), [run - rows[0] for run in rows]

    def _cut(self, weights: Float[Tensor, "runs parameters"]) -> dict[str, Tensor]:
        """Cut rows of weights into the model's parameters."""
        parts = weights.split([math.prod(shape) for shape in self.shapes.values()], dim=1)
        return {n: part.view(len(weights), *shape) for (n, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def _see(self, weights: Tensor, bag: Tensor, draws: mil.Draws) -> Float[Tensor, "runs outputs"]:
        """Give some runs' outputs for a bag in training; of a large bag each sees patches of its own."""
        if len(bag) > self.settings.bag:
            bag = bag[draws.sample(len(bag), self.settings.bag)]  # [A, bag, d]
        with parallel.autocast(self.settings.precision):
            return functional_call(self.model, self._cut(weights), (bag.float(), draws))[0].float()

    def _losses(self, outputs: Float[Tensor, "runs bags outputs"], rows: list[int], places: list[int]) -> Tensor:
        """Mean loss of each run over those of the bags that it learns from, [A]."""
        at = np.ix_(rows, places)
        member = torch.from_numpy(self.trains[at]).to(self.device)  # [A, B]
        own = {name: table[at] for name, table in self.tables.items()}
        outputs = outputs.masked_fill(self.beyond[rows][:, None], -torch.inf)
        total = outputs.new_zeros(len(rows))
        for kind in sorted(set(self.kinds[rows])):
            mine = torch.from_numpy(np.flatnonzero(self.kinds[rows] == kind)).to(self.device)
            total = total.index_add(
                0, mine, self._loss(kind, outputs[mine], member[mine], {n: t[mine] for n, t in own.items()})
            )
        return total

    def _loss(self, kind: str, outputs: Tensor, member: Tensor, own: dict[str, Tensor]) -> Tensor:
        label, event = own["label"], own["event"] > 0
        if kind == "cox":
            return mil.cox_loss(outputs[..., 0], own["days"], event, member)
        if kind == "classes":
            each = mil.class_loss(outputs, label.long(), own["weight"])
        elif kind == "survival":
            each = mil.survival_loss(outputs[..., : mil.QUARTILES], label.long(), event)
        else:
            each = (outputs[..., 0] - label) ** 2
        return (each * member).sum(dim=1) / member.sum(dim=1)

    def _update(self, run: int, gradient: Float[Tensor, " parameters"]) -> None:
        """Take AdamW's step of one run, at its own place of its own cosine."""
        cosine = 0.5 * (1 + math.cos(math.pi * self.steps[run] / self.total[run]))
        lr, decay = LEAST_LR + (self.settings.lr - LEAST_LR) * cosine, self.settings.weight_decay
        self.steps[run] += 1
        self.taken[run] += 1
        tables = [[table[run]] for table in (self.weights, self.mean, self.square, self.taken)]
        # what torch.optim.AdamW(fused=True) calls: what it does before takes longer than a small model's update
        torch._fused_adamw_(tables[0], [gradient], *tables[1:3], [], tables[3], lr=lr, weight_decay=decay, **FIXED)

    @torch.no_grad()
    def predict(self, bags: Bags, attention: Collection[str] = ()) -> list[Trained]:
        """Predict each job's test bags, whole."""
        outputs = torch.zeros(*self.tests.shape, self.beyond.shape[1])  # [R, N, K]
        kept: list[dict[str, np.ndarray]] = [{} for _ in self.jobs]
        names = [self.names[i] for i in np.flatnonzero(self.tests.any(axis=0))]
        for name, bag in zip(names, bags.stream(names), strict=True):
            for rows in self._split(np.flatnonzero(self.tests[:, self.place[name]]), len(bag)):
                weights = self._cut(self.weights[rows])
                found, seen = functional_call(self.model, weights, (bag.to(self.device).float(),))
                outputs[rows, self.place[name]] = found.cpu()
                for run, own in zip(rows, seen.cpu().numpy() if name in attention else (), strict=name in attention):
                    kept[run][name] = own
        return [
            self._tell(run, outputs[run, [self.place[n] for n in job.test]], kept[run])
            for run, job in enumerate(self.jobs)
        ]

    def _tell(self, run: int, outputs: Float[Tensor, "bags outputs"], attention: dict[str, np.ndarray]) -> Trained:
        """Turn outputs into what the task's metric reads."""
        job = self.jobs[run]
        outputs = outputs[:, : job.outputs]
        if job.kind in ("classes", "grades"):
            return Trained(outputs.softmax(dim=1).numpy(), None, attention)
        if job.kind == "survival":
            curves = mil.survival_curve(outputs)
            return Trained(-curves.sum(dim=1).numpy(), curves.numpy(), attention)
        return Trained(outputs[:, 0].numpy() * job.scale[1] + job.scale[0], None, attention)
