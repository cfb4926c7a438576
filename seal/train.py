"""The one training loop, used by both stages."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seal.errors import SealError
from seal.files import atomic, write_json

# What a batch costs: given row positions 0..n-1, the named loss terms with `total`.
BatchLoss = Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train. The learning rate falls from `lr` to zero along a half cosine."""

    epochs: int
    batch: int
    lr: float
    weight_decay: float
    seed: int


def fit(
    model: nn.Module, loss: BatchLoss, n: int, schedule: Schedule, folder: Path, key: str, description: str
) -> list[dict[str, Any]]:
    """Minimise `total` with AdamW, epoch by epoch, keeping a checkpoint.

    Every epoch draws from its own seed (seed, epoch), so a run that was killed resumes at the start of the
    epoch it was in and ends with the same weights, bit for bit on a CPU.

    Parameters
    ----------
    model
        Left in evaluation mode with its trained weights. Parameters with requires_grad are trained.
    loss
        Maps row positions of one batch (int64 [B]) to named terms.
    n
        Rows; each epoch visits every row once, in batches of at least `schedule.batch` where n allows.
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
    from tqdm import tqdm

    if n < 2:
        raise SealError(f"{description}: {n} training rows", expected="at least two", do="check the split and the data")
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=schedule.lr, weight_decay=schedule.weight_decay)
    checkpoint = folder / "checkpoint.pt"
    first, log = _resume(checkpoint, key, model, optimiser)
    batches = max(1, n // schedule.batch)
    bar = tqdm(total=schedule.epochs * batches, initial=first * batches, desc=description, leave=False)
    model.train()
    for epoch in range(first, schedule.epochs):
        with torch.random.fork_rng():
            torch.manual_seed(int(np.random.SeedSequence([schedule.seed, epoch]).generate_state(1)[0]))
            for i, rows in enumerate(torch.tensor_split(torch.randperm(n), batches)):
                step = epoch * batches + i
                lr = schedule.lr * 0.5 * (1 + math.cos(math.pi * step / (schedule.epochs * batches)))
                terms = _step(loss, rows, optimiser, lr, f"{description}, epoch {epoch}, step {step}")
                log.append({"epoch": epoch, "step": step, "lr": lr, **terms})
                bar.update()
                bar.set_postfix(loss=f"{terms['total']:.3f}")
        _save(checkpoint, key, model, optimiser, epoch + 1, log)
    bar.close()
    model.eval()
    return log


def _step(loss: BatchLoss, rows: Tensor, optimiser, lr: float, where: str) -> dict[str, float]:
    for group in optimiser.param_groups:
        group["lr"] = lr
    terms = loss(rows)
    values = {name: float(value.detach()) for name, value in terms.items()}
    if not all(math.isfinite(value) for value in values.values()):
        raise SealError(
            f"{where}: the loss is not finite ({values})",
            expected="finite numbers",
            do="look for NaN in the expression and the patches, or lower the learning rate",
        )
    optimiser.zero_grad(set_to_none=True)
    terms["total"].backward()
    optimiser.step()
    return values


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: parameters with requires_grad, and buffers such as BatchNorm's statistics."""
    wanted = {name for name, p in model.named_parameters() if p.requires_grad}
    wanted |= {name for name, _ in model.named_buffers()}
    return {name: value for name, value in model.state_dict().items() if name in wanted}


def _save(path: Path, key: str, model: nn.Module, optimiser, epoch: int, log: list) -> None:
    state = {
        "key": key,
        "model": trained_state(model),
        "optimiser": optimiser.state_dict(),
        "epoch": epoch,
        "log": log,
    }
    with atomic(path) as temporary:
        torch.save(state, temporary)


def _resume(path: Path, key: str, model: nn.Module, optimiser) -> tuple[int, list]:
    if not path.is_file():
        return 0, []
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SealError(
            f"{path} cannot be read ({type(error).__name__})",
            expected="a checkpoint this loop wrote",
            do="delete it; training starts again from the first epoch",
        ) from error
    if state["key"] != key:  # settings, data or code have changed since: start again
        return 0, []
    current = model.state_dict()
    if state["model"].keys() != trained_state(model).keys():
        raise SealError(
            f"{path} holds other weights than this model",
            expected=f"{len(trained_state(model))} tensors named as the model's",
            do="delete it; training starts again from the first epoch",
        )
    model.load_state_dict({**current, **state["model"]})
    optimiser.load_state_dict(state["optimiser"])
    return state["epoch"], state["log"]


def finish(folder: Path, key: str, log: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Write the log and, last, run.json, which makes the run whole; remove the checkpoint."""
    write_json(folder / "log.json", log)
    write_json(folder / "run.json", {"key": key, **settings})
    (folder / "checkpoint.pt").unlink(missing_ok=True)
