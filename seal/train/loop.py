"""The one training loop, used by both stages."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from seal.errors import SealError
from seal.files import atomic, progress, remove_parts, swap, write_json
from seal.shapes import Float, Int
from seal.train import parallel

AGAIN = "delete it; training starts again from the first step"
CHECKPOINT_SECONDS = 60.0  # a checkpoint at the first step that ends this long after the last one


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train. The learning rate falls from `lr` to zero along a half cosine."""

    epochs: int
    batch: int
    lr: float
    weight_decay: float
    seed: int


@dataclass(frozen=True)
class Batch:
    """Row positions of one step, and the seed of everything that the step draws."""

    rows: Int[Tensor, " batch"]
    seed: int


@runtime_checkable
class Task(Protocol):
    """What a stage gives the loop."""

    model: nn.Module
    n: int  # training rows
    shared: bool  # whether all processes take part in each step

    def stream(self, batches: Sequence[Batch]) -> Iterator[Any]:
        """The inputs of each batch in turn; may read ahead."""

    def backward(self, inputs: Any) -> dict[str, Float[Tensor, ""]]:
        """Put gradients into the model's trained parameters; the named loss terms, with `total`."""


def make_seed(*words: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def fit(task: Task, schedule: Schedule, folder: Path, key: str, description: str) -> list[dict[str, Any]]:
    """Minimise `total` with AdamW, keeping a checkpoint.

    A step draws from its own seed alone, which follows from (schedule.seed, epoch, step). So a run that was
    killed goes on from its last checkpoint and ends with the same weights, bit for bit on a CPU.

    Parameters
    ----------
    task
        Its model is left in evaluation mode with its trained weights. Parameters with requires_grad are trained;
        scalars (a temperature) without weight decay. Each epoch visits every row once, in batches of at least
        `schedule.batch` rows where there are as many.
    key
        Digest of everything the run depends on; a checkpoint of another key is not resumed.

    Returns
    -------
    The log: one dict a step, with epoch, step, lr and every loss term.

    Raises
    ------
    SealError
        Fewer than two rows, or a loss that is not finite.
    """
    model = task.model
    if task.n < 2:
        raise SealError(f"{description}: {task.n} training rows", expected="at least two", do="check split and data")
    optimiser = _optimiser(model, schedule)
    checkpoint = folder / "checkpoint.pt"
    if parallel.is_main():
        remove_parts(folder)
    first, log = _resume(checkpoint, key, model, optimiser)
    if task.shared:
        parallel.require_same(first, f"{description}: the step to go on from")
    batches = max(1, task.n // schedule.batch)
    steps = schedule.epochs * batches
    saved = time.monotonic()
    model.train()
    with parallel.own_random_state(), progress(description, steps, "step", first) as advance:
        for step, inputs in enumerate(task.stream(_plan(task.n, batches, first, steps, schedule.seed)), start=first):
            lr = schedule.lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            epoch = step // batches
            terms = _step(task, inputs, optimiser, lr, f"{description}, epoch {epoch}, step {step}")
            log.append({"epoch": epoch, "step": step, "lr": lr, **terms})
            advance(note=f"loss {terms['total']:.3f}")
            if time.monotonic() - saved >= CHECKPOINT_SECONDS and parallel.is_main():
                _save(checkpoint, key, model, optimiser, step + 1, log)
                saved = time.monotonic()
    model.eval()
    return log


def _plan(n: int, batches: int, first: int, steps: int, seed: int) -> list[Batch]:
    """All batches from step `first` on: a new order an epoch, cut into parts of nearly equal size."""
    plan = []
    for epoch in range(first // batches, steps // batches):
        order = torch.randperm(n, generator=torch.Generator().manual_seed(make_seed(seed, epoch)))  # [n]
        parts = torch.tensor_split(order, batches)  # [B] each
        plan += [Batch(rows, make_seed(seed, epoch, i)) for i, rows in enumerate(parts) if epoch * batches + i >= first]
    return plan


def _optimiser(model: nn.Module, schedule: Schedule) -> torch.optim.AdamW:
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 0]},
        {"params": [p for p in trained if p.ndim == 0], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.lr, weight_decay=schedule.weight_decay, fused=True)


def _step(task: Task, inputs: Any, optimiser: torch.optim.AdamW, lr: float, where: str) -> dict[str, float]:
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.zero_grad(set_to_none=True)
    terms = {name: float(value.detach()) for name, value in task.backward(inputs).items()}
    if not all(math.isfinite(value) for value in terms.values()):
        do = "look for NaN in the expression and the patches, or lower the learning rate"
        raise SealError(f"{where}: the loss is not finite ({terms})", expected="finite numbers", do=do)
    optimiser.step()
    return terms


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: parameters with requires_grad, and buffers such as BatchNorm's statistics."""
    wanted = {name for name, p in model.named_parameters() if p.requires_grad}
    wanted |= {name for name, _ in model.named_buffers()}
    return {name: value for name, value in model.state_dict().items() if name in wanted}


def _save(path: Path, key: str, model: nn.Module, optimiser: torch.optim.AdamW, step: int, log: list) -> None:
    state = {"key": key, "model": trained_state(model), "optimiser": optimiser.state_dict(), "step": step, "log": log}
    with atomic(path) as temporary:
        torch.save(state, temporary)


def _resume(path: Path, key: str, model: nn.Module, optimiser: torch.optim.AdamW) -> tuple[int, list]:
    if not path.is_file():
        return 0, []
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        what = f"{path} cannot be read ({type(error).__name__})"
        raise SealError(what, expected="a checkpoint this loop wrote", do=AGAIN) from error
    if state["key"] != key:  # settings, data or code have changed since: start again
        return 0, []
    if state["model"].keys() != trained_state(model).keys():
        expected = f"{len(trained_state(model))} tensors named as the model's"
        raise SealError(f"{path} holds other weights than this model", expected=expected, do=AGAIN)
    model.load_state_dict({**model.state_dict(), **state["model"]})
    optimiser.load_state_dict(state["optimiser"])
    return state["step"], state["log"]


def finish(partial: Path, folder: Path, log: list[dict[str, Any]], record: dict[str, Any]) -> None:
    """Write the log and, last, run.json, which makes the run whole; then give it its name and drop the checkpoint."""
    write_json(partial / "log.json", log)
    write_json(partial / "run.json", record)
    swap(partial, folder)
    (folder / "checkpoint.pt").unlink(missing_ok=True)  # last: killed before, the run goes on from it
