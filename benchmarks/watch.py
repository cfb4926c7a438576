"""What a run does to the machine: how busy the GPU is, how much memory was used, and a disk that is really read."""

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import synchronise


class Busy:
    """How long the device works on what is wrapped: CUDA events around each call, the clock on a CPU.

    Attributes
    ----------
    first
        When the first call came, by `time.perf_counter`.
    """

    def __init__(self) -> None:
        self.spans: list[tuple[Any, Any]] = []
        self.first: float | None = None

    def _now(self) -> Any:
        if not torch.cuda.is_available():
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wrap(self, function: Callable) -> Callable:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.first = self.first or time.perf_counter()
            start = self._now()
            result = function(*args, **kwargs)
            self.spans.append((start, self._now()))
            return result

        return timed

    def seconds(self) -> float:
        """Sum of all calls."""
        synchronise()
        if not torch.cuda.is_available():
            return sum(end - start for start, end in self.spans)
        return sum(start.elapsed_time(end) for start, end in self.spans) / 1000


@contextlib.contextmanager
def watched() -> Iterator[dict[str, float | None]]:
    """Sample five times a second while something runs; the dict is filled when it ends.

    nvidia_smi_busy
        The driver's utilisation of the first GPU, mean; None without nvidia-smi.
    gpu_peak_gb
        Memory that tensors held on this process's GPU.
    host_peak_gb, workers_peak_gb
        Memory of this process and of its children together (pages they share count in each), 10^9 bytes, without
        `mapped_peak_gb`: files that are mapped, whose pages the system takes back when it needs them.
    """
    found: dict[str, float | None] = {}
    reset_peak()
    over, peaks = threading.Event(), {"host_peak_gb": 0.0, "workers_peak_gb": 0.0, "mapped_peak_gb": 0.0}

    def sample() -> None:
        done = False
        while not done:
            done = over.wait(0.2)
            own = _memory("self")
            now = {
                "host_peak_gb": own["RssAnon"],
                "workers_peak_gb": sum(_memory(child)["RssAnon"] for child in _children()),
                "mapped_peak_gb": own["RssFile"],
            }
            peaks.update({name: max(value, peaks[name]) for name, value in now.items()})

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        with _driver_busy() as samples:
            yield found
    finally:
        over.set()
        sampler.join()
        found["nvidia_smi_busy"] = float(np.mean(samples)) if samples else None
        found["gpu_peak_gb"] = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
        found.update(peaks)


def _memory(process: str) -> dict[str, float]:
    """Memory of a process by kind, 10^9 bytes; zeros where there is no /proc, or the process has ended."""
    found = {"RssAnon": 0.0, "RssFile": 0.0}
    with contextlib.suppress(OSError):
        for line in Path("/proc", process, "status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in found:
                found[name] = int(rest.split()[0]) * 1024 / 1e9
    return found


def _children() -> list[str]:
    """Process ids of this process's children."""
    found: list[str] = []
    for task in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):
            found += (task / "children").read_text().split()
    return found


@contextlib.contextmanager
def _driver_busy() -> Iterator[list[float]]:
    """The driver's utilisation of the first GPU, 0 to 1, into a list; it stays empty without nvidia-smi."""
    samples: list[float] = []
    if not (torch.cuda.is_available() and shutil.which("nvidia-smi")):
        yield samples
        return
    query = ["nvidia-smi", "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as process:

        def read() -> None:
            for line in process.stdout:
                with contextlib.suppress(ValueError):
                    samples.append(float(line) / 100)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield samples
        finally:
            process.terminate()
            reader.join()


def reset_peak() -> None:
    """Start the GPU's peak anew."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def filesystem(folder: Path) -> str:
    """What kind of file system a folder lies on: tmpfs is memory, not a disk."""
    if not Path("/proc/mounts").is_file():
        return "unknown"
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [(len(at), kind) for at, kind in mounts if folder.resolve().is_relative_to(at)]
    return max(inside)[1] if inside else "unknown"


def forget(path: Path) -> None:
    """Drop a file from the page cache, so that reading it means the disk (the host's own cache may still hold it)."""
    file = os.open(path, os.O_RDWR)
    os.fsync(file)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
