"""Many small trainings of MIL models at once: all tasks, folds and seeds that read a slide train on it together.

Runs of one form are stacked (seal.models.mil) and take their steps side by side, each with its own AdamW state, cosine,
dropout and sample of patches. All of them see an epoch's bags in one order, which follows from the settings' seed, the
epoch and the bags' names; a run takes part where the bag is one of its own. So an epoch is one pass over the files,
whatever the number of runs; each run sees its bags in a random order that no other run changes, and ends where it would
end alone. That the order is shared is our choice: Patho-Bench draws one for each training.
"""

import math
import time
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from seal.errors import SealError
from seal.files import atomic, digest
from seal.models import mil
from seal.shapes import Float
from seal.train import parallel
from seal.train.bags import Bags
from seal.train.loop import CHECKPOINT_SECONDS, make_seed
from seal.train.mil_jobs import MilJob, MilSettings, Trained

LEAST_LR = 1e-8  # where the cosine ends
STATE = ("weights", "mean", "square", "taken")
FIXED = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False, "maximize": False}  # of AdamW: torch's own
SPARE = 0.6  # runs that stand together are computed without a copy if at least this share of them is wanted
WORK = {"cpu": 2**26, "cuda": 2**33}  # bytes that runs which are computed at once may take


def make_model(jobs: Sequence[MilJob], runs: int, width: int, settings: MilSettings) -> nn.Module:
    """Make so many models for jobs; they share the outputs of the job that has most."""
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

    def __init__(self, jobs: Sequence[MilJob], width: int, settings: MilSettings) -> None:
        self.jobs, self.width, self.settings, self.device = jobs, width, settings, parallel.device()
        self.model = make_model(jobs, len(jobs), width, settings)
        for run, job in enumerate(jobs):
            self.model.start(run, make_seed(job.seed), job.outputs)
        self.shapes = {name: value.shape[1:] for name, value in self.model.named_parameters()}
        self.weights = torch.cat([value.detach().flatten(1) for value in self.model.parameters()], dim=1)
        self.weights = self.weights.to(self.device)  # [R, P]
        self.mean, self.square = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        self.taken = torch.zeros(len(jobs), device=self.device)  # steps
        self.rows = [[[row] for row in rows] for rows in zip(*(getattr(self, name) for name in STATE), strict=True)]
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

    def fit(self, bags: Bags, checkpoint: Path | None = None) -> Iterator[int]:
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
            weights, steps = self.weights[part].detach().requires_grad_(), self.taken[part].long()  # [A, P], [A]
            draws = [mil.Draws(self.seeds[part], steps, bag_number(name)) for name in names]
            layers = self._cut(weights)
            outputs = [self._see(layers, bag, draw)[own] for bag, draw in zip(bags, draws, strict=True)]
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
        layers = sum(shape[1] for shape in self.shapes.values())  # weights and biases: twice each layer's outputs
        numbers = patches * (3 * layers + 2 * self.width) + 2 * self.weights.shape[1]
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

    def _see(self, layers: dict[str, Tensor], bag: Tensor, draws: mil.Draws) -> Float[Tensor, "runs outputs"]:
        """Give some runs' outputs for a bag in training; of a large bag each sees patches of its own."""
        if len(bag) > self.settings.bag:
            bag = bag[draws.sample(len(bag), self.settings.bag)]  # [A, bag, d]
        with parallel.autocast(self.settings.precision):
            return functional_call(self.model, layers, (bag.float(), draws))[0].float()

    def _losses(self, outputs: Float[Tensor, "runs bags outputs"], rows: list[int], places: list[int]) -> Tensor:
        """Mean loss of each run over those of the bags that it learns from, [A]."""
        at = np.ix_(rows, places)
        member = torch.from_numpy(self.trains[at]).to(self.device)  # [A, B]
        own = {name: table[at] for name, table in self.tables.items()}
        outputs = outputs.masked_fill(self.beyond[rows][:, None], -torch.inf)
        total = outputs.new_zeros(len(rows))
        for kind in sorted(set(self.kinds[rows])):
            mine = torch.from_numpy(np.flatnonzero(self.kinds[rows] == kind)).to(self.device)
            loss = self._loss(kind, outputs[mine], member[mine], {name: table[mine] for name, table in own.items()})
            total = total.index_add(0, mine, loss)
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
        self.rows[run][3][0] += 1
        weights, mean, square, taken = self.rows[run]
        # what torch.optim.AdamW(fused=True) calls: what it does before takes longer than a small model's update
        torch._fused_adamw_(weights, [gradient], mean, square, [], taken, lr=lr, weight_decay=decay, **FIXED)

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
        own = [outputs[run, [self.place[name] for name in job.test]] for run, job in enumerate(self.jobs)]
        return [_tell(*each) for each in zip(self.jobs, own, kept, strict=True)]


def _tell(job: MilJob, outputs: Float[Tensor, "bags outputs"], attention: dict[str, np.ndarray]) -> Trained:
    """Turn outputs into what the task's metric reads."""
    outputs = outputs[:, : job.outputs]
    if job.kind in ("classes", "grades"):
        return Trained(outputs.softmax(dim=1).numpy(), None, attention)
    if job.kind == "survival":
        curves = mil.survival_curve(outputs)
        return Trained(-curves.sum(dim=1).numpy(), curves.numpy(), attention)
    return Trained(outputs[:, 0].numpy() * job.scale[1] + job.scale[0], None, attention)
