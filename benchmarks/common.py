"""What benchmarks share: patches without data assembly, two ways measured in turn, one JSON line."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seal.data.store import RowFile
from seal.profiles import Profile


@dataclass(frozen=True)
class Patches:
    """Random patches on disk, as much of `seal.data.pairs.Pairs` as training needs."""

    path: Path
    profile: Profile
    n_pairs: int
    key: str = "benchmark"

    @cached_property
    def patches(self) -> RowFile:
        """uint8 [pairs, size, size, 3], read when asked for."""
        return RowFile(self.path, np.uint8, (self.profile.image_size, self.profile.image_size, 3))

    def digest_of(self, _: str) -> str:
        """What tokens of these patches follow from."""
        return self.key


def make_patches(path: Path, profile: Profile, n: int) -> Patches:
    """Write n patches; some hundred random ones, again and again."""
    shape = (n, profile.image_size, profile.image_size, 3)
    file = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    piece = np.random.default_rng(0).integers(0, 256, (min(n, 256), *shape[1:]), dtype=np.uint8)
    for start in range(0, n, len(piece)):
        part = file[start : start + len(piece)]
        part[:] = piece[: len(part)]
    file.flush()
    return Patches(path, profile, n)


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work: Callable[[], Any]) -> float:
    """Seconds that one call takes."""
    synchronise()
    start = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - start


def alternate(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each way; they take turns, so that a busy machine slows them alike. Warm them up first."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, work in ways.items():
            taken[name].append(seconds(work))
    return {name: statistics.median(values) for name, values in taken.items()}


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """|found - wanted| / |wanted|, Euclidean."""
    found, wanted = found.detach().double(), wanted.detach().double()
    return float((found - wanted).norm() / wanted.norm())


def machine() -> str:
    """Say what it was measured on, without a name."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    parts = [f"{os.cpu_count()} cores", platform.machine(), torch.backends.cpu.get_cpu_capability(), *gpus]
    return ", ".join([*parts, f"torch {torch.__version__}"])


def rounded(value: Any) -> Any:
    """Floats to four digits, wherever in a line."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: rounded(entry) for name, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


def report(benchmark: str, **line: Any) -> None:
    """Print one JSON line."""
    print(json.dumps(rounded({"benchmark": benchmark, **line, "machine": machine()})), flush=True)
