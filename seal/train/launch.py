"""Training over several processes of this machine; several machines start `python -m seal train` themselves.

`torchrun` or `accelerate launch` start the same command on many nodes, for instance::

    torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:PORT -m seal train --profile maple

All of them must see the same SEAL_HOME: tokens, checkpoints and models are files there.
"""

import dataclasses
import subprocess
import sys
from collections.abc import Sequence

import torch

from seal import profiles
from seal.errors import SealError
from seal.profiles import Profile
from seal.train import parallel


def gpus_to_share() -> int:
    """GPUs of this machine if there are several and this process was not started as one of many; else 0."""
    count = torch.cuda.device_count()
    return count if count > 1 and not parallel.is_one_of_many() else 0


def train(profile: Profile, fold: str, seed: int, method: str, processes: int) -> None:
    """Run `python -m seal train` in so many processes of this machine and wait for them.

    Raises
    ------
    SealError
        One of them failed; its message has been printed.
    """
    what = ["--fold", fold, "--seed", str(seed), "--method", method]
    again(["train", "--profile", profile.name, *what, *_changes(profile)], processes)


def again(words: Sequence[str], processes: int) -> None:
    """Run `python -m seal` with these words in so many processes of this machine and wait for them.

    Raises
    ------
    SealError
        One of them failed; its message has been printed.
    """
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "seal"]
    command = [sys.executable, "-m", *launcher, *words]
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        raise SealError(
            f"training in {processes} processes ended with status {done.returncode}",
            expected="all of them to finish",
            do="see the message above; the same command goes on from the last checkpoint",
        )


def _changes(profile: Profile) -> list[str]:
    """Settings in which a profile differs from the one of its name, as --set options."""
    base, options = profiles.get(profile.name), []
    for field in dataclasses.fields(Profile):
        mine, theirs = getattr(profile, field.name), getattr(base, field.name)
        if dataclasses.is_dataclass(mine):
            pairs = [(f.name, getattr(mine, f.name), getattr(theirs, f.name)) for f in dataclasses.fields(mine)]
            options += [f"{field.name}__{name}={value!r}" for name, value, default in pairs if value != default]
        elif mine != theirs:
            options.append(f"{field.name}={mine!r}")
    return [word for option in options for word in ("--set", option)]


def settings(options: Sequence[str]) -> dict[str, object]:
    """Read --set options, KEY=VALUE with Python's notation of values; what is none is taken as text.

    Raises
    ------
    SealError
        An option without "=".
    """
    import ast

    changes: dict[str, object] = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator:
            raise SealError(
                f"setting {option!r} has no value",
                expected="KEY=VALUE",
                do="write, for example, --set vision__rank=16",
            )
        try:
            changes[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            changes[key] = value
    return changes
