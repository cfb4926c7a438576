"""One process or many: starting them, device, precision, and what they say to each other (through accelerate).

`start_training` starts the processes of one machine. `torchrun` or `accelerate launch` start the same command on many
machines, for instance::

    torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:PORT -m seal train --profile maple

All of them must see the same SEAL_HOME: tokens, checkpoints and models are files there.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from functools import cache
from pathlib import Path
from threading import Timer

import torch
from accelerate import PartialState
from torch import Tensor, nn

from seal import profiles
from seal.errors import SealError, require_known
from seal.files import Made, lock, say_done
from seal.profiles import Profile

# "float32" means float32: by default a GPU would round what its convolutions read (the patch embedding) to TF32.
torch.backends.cudnn.allow_tf32 = False

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")  # of torchrun, accelerate and MPI
PATIENCE = 5.0  # seconds until it is said that other processes are waited for


@cache
def state() -> PartialState:
    """Who this process is among those that torchrun or accelerate started; alone otherwise.

    Raises
    ------
    SealError
        The environment, as a scheduler may set it, announces others, but not where to meet them.
    """
    said = " ".join(f"{name}={os.environ[name]}" for name in SIZES if os.environ.get(name, "1") != "1")
    do = f"start the others, or kill {os.getpid()}, unset what is named here and train in one process"
    text = f"waiting at {os.environ.get('MASTER_ADDR')} for the processes that {said} announces\n  what to do: {do}"
    notice = Timer(PATIENCE, print, [text], {"file": sys.stderr, "flush": True})
    if said:
        notice.start()
    try:
        # Others wait while one process assembles pairs or trains stage 1, which can take longer than the usual minutes.
        found = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=2))
        if said and found.num_processes == 1:  # with a GPU, accelerate asks for this variable alone
            raise ValueError("LOCAL_RANK is unset")
        return found
    except ValueError as error:
        expected = "MASTER_ADDR, RANK and LOCAL_RANK besides, as torchrun sets them"
        raise SealError(f"{said} announces processes, but {error}", expected=expected, do=do) from error
    finally:
        notice.cancel()


def is_one_of_many() -> bool:
    """Whether torchrun or accelerate started this process beside others."""
    return state().num_processes > 1


def gpus_to_share() -> int:
    """GPUs of this machine if there are several and this process was not started as one of many; else 0."""
    count = torch.cuda.device_count()
    return count if count > 1 and not is_one_of_many() else 0


def start_training(profile: Profile, folds: Sequence[str], seeds: Sequence[int], method: str, processes: int) -> None:
    """Run `python -m seal train` in so many processes of this machine and wait for them; no fold or seed means all.

    Raises
    ------
    SealError
        One of them failed; its message has been printed.
    """
    what = [word for fold in folds for word in ("--fold", fold)]
    what += [word for seed in seeds for word in ("--seed", str(seed))]
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "profile.json"
        file.write_text(profiles.to_json(profile), encoding="utf-8")
        words = ["train", "--profile-file", str(file), *what, "--method", method]
        done = subprocess.run([sys.executable, "-m", *launcher, "-m", "seal", *words], check=False)
    if done.returncode != 0:
        raise SealError(
            f"training in {processes} processes ended with status {done.returncode}",
            expected="all of them to finish",
            do="see the message above; the same command goes on from the last checkpoint",
        )


def require_same(number: int, what: str) -> None:
    """Assert that all processes have the same number.

    Raises
    ------
    SealError
        They do not: they see different disks.
    """
    found = gather_rows(torch.tensor([[number]], device=device()), [1] * state().num_processes).unique().tolist()
    if len(found) > 1:
        raise explain_other_disk(f"{what} differs between processes: {found}")


def explain_other_disk(what: str) -> SealError:
    """Say that a process does not see what another has written; what is whole stays, so a new run goes on from it."""
    return SealError(
        what,
        expected="every process to see the same SEAL_HOME",
        do="put SEAL_HOME on a disk that all machines share, then run again: it goes on from here",
    )


def device() -> torch.device:
    """Give the GPU of this process if there is one, else the CPU."""
    return state().device


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return state().is_main_process


@contextmanager
def one_maker(made: Made, record: Path) -> Iterator[bool]:
    """Say to all processes of this run whether something is current; if not, keep other runs from making it inside."""
    began, current = time.monotonic(), _all_say(made.is_current(record))
    with lock(record.parent, "makes") if is_main() and not current else nullcontext():
        if not current:
            state().wait_for_everyone()
            current = _all_say(made.is_current(record))
        yield current
    say_done(made.what, record.parent, began, found=current, made=not current)


def _all_say(yes: bool) -> bool:
    return bool(gather_rows(torch.tensor([[int(yes)]], device=device()), [1] * state().num_processes).all())


@contextmanager
def main_first() -> Iterator[bool]:
    """Let the first process through alone, then the others, who find what it left on disk; give `is_main()`."""
    with state().main_process_first():
        yield is_main()


def autocast(precision: str) -> torch.autocast:
    """Compute matrix products in bfloat16 inside, or, for "float32", leave everything as it is."""
    require_known("precision", precision, PRECISIONS)
    return torch.autocast(device().type, torch.bfloat16, enabled=precision == "bfloat16")


def seed(number: int) -> None:
    """Seed what this process draws from: the CPU's generator and its GPU's.

    torch.manual_seed also asks every other kind of device that could exist, and remembers each call for those that
    are not there: too slow, and a leak, where it is called for every block of every step.
    """
    torch.default_generator.manual_seed(number)
    if device().type == "cuda":
        torch.cuda.manual_seed(number)


@contextmanager
def own_random_state(start: int | None = None) -> Iterator[None]:
    """Leave torch's random state, the CPU's and this process's GPU's, as it was; seeded inside if a seed is given."""
    gpu = [device()] if device().type == "cuda" else []
    with torch.random.fork_rng(devices=gpu):
        if start is not None:
            seed(start)
        yield


def gather_rows(rows: Tensor, counts: list[int]) -> Tensor:
    """Stack the rows of all processes in their order, without gradients: [n_k, d] of process k -> [sum n_k, d].

    `counts` are all n_k: collectives need equal shapes, so shorter ones are padded meanwhile.
    """
    if not is_one_of_many():
        return rows
    padded = nn.functional.pad(rows, (0, 0, 0, max(counts) - len(rows)))
    parts = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def sum_gradients(parameters: Iterable[nn.Parameter], share: float = 1.0) -> None:
    """Add up the gradients of all processes, each times `share`; nothing to do where there is one process."""
    parameters = [p for p in parameters if p.requires_grad]
    if not parameters or not is_one_of_many():
        return
    for p in parameters:
        if p.grad is None:  # a process without rows takes part all the same
            p.grad = torch.zeros_like(p)
    flat = torch.cat([p.grad.reshape(-1) for p in parameters]).mul_(share)
    torch.distributed.all_reduce(flat)
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad.copy_(part.view_as(p))
