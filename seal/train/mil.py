"""Train many MIL models at once, predict their test bags, and keep what is finished."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from seal.errors import SealError
from seal.files import Made, atomic, digest, progress
from seal.train.bags import Bags
from seal.train.mil_jobs import MilJob, MilSettings, Trained
from seal.train.mil_stack import Stack, make_model

VERSION = 1  # counted up when the same bags, jobs and settings give other predictions


def train_jobs(
    bags: Bags,
    jobs: Sequence[MilJob],
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
    numbers = sum(value.numel() for value in make_model(jobs, 1, bags.width, settings).parameters())
    at_once = max(1, int(bags.memory / 2 // (16 * numbers)))  # weights, their gradients and AdamW's two, in float32
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


def _keys(
    bags: Bags, names: Sequence[str], jobs: Sequence[MilJob], settings: MilSettings, attention: Collection[str]
) -> Iterator[str]:
    """Key of each job: all that its predictions follow from."""
    own = bags.digests(names)
    for job in jobs:
        parts = {"settings": asdict(settings), "job": asdict(job) | {"name": ""}, "held": str(bags.dtype)}
        parts["bags"] = [own[name] for name in (*job.train, *job.test)]
        parts["attention"] = sorted(set(attention) & set(job.test))
        yield Made("MIL", VERSION, parts).key


def _save(path: Path, trained: Trained) -> None:
    curves = {} if trained.curves is None else {"curves": trained.curves}
    attention = {f"/{name}": seen for name, seen in trained.attention.items()}
    with atomic(path) as temporary:
        np.savez(temporary, predictions=trained.predictions, **curves, **attention)


def _load(path: Path) -> Trained:
    with np.load(path) as file:
        attention = {name[1:]: file[name] for name in file.files if name[0] == "/"}
        return Trained(file["predictions"], file["curves"] if "curves" in file.files else None, attention)
