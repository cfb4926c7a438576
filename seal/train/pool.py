"""Several trainings at once on a CPU: each in a process of its own with one thread.

A second thread saves a run of small batches little; a second run beside it loses little. So as many runs train as there
are cores. Runs are independent of each other but for stage 1, which comes first, once for all that share it. Where
there is a GPU, where other processes share the work already, or where there is little to do, runs train here, one by
one.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

from seal import paths, profiles
from seal.errors import SealError, run_command
from seal.files import progress, say_done
from seal.train import batches, parallel, runs
from seal.train.batches import TokenSource
from seal.train.runs import Run
from seal.train.tokens import SETTINGS

LEAST = (
    200_000  # patches through the tail, over all runs and epochs: below it starting processes costs more than it saves
)
MOST = 4  # processes, each of about a gigabyte
RUNS = "runs.pickle"
FINISHED = "finished a run"  # what a process says of each
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def train_runs(chosen: Sequence[Run], source: TokenSource) -> None:
    """Train those of some runs that are not trained yet; what was cut off goes on from where it stopped.

    `source` has the tokens of the first run's profile.
    """
    began, missing = time.monotonic(), [run for run in chosen if not run.is_trained(source)]
    with progress("training", len(missing), "run", shown=bool(missing)) as advance:
        if (processes := count_processes(missing)) > 1:
            _train_apart(missing, source, processes, advance)
        else:
            for run in missing:
                runs.train_vision(run, source)
                advance()
    where, found = paths.runs(source.pairs.profile.name), len(chosen) - len(missing)
    say_done(f"{len(chosen)} runs", where, began, found, len(missing), "trained")


def count_processes(chosen: Sequence[Run]) -> int:
    """How many processes shall train these runs; 1: this one alone."""
    work = sum(len(run.fold.train) * run.pairs.profile.vision.epochs for run in chosen)
    if work < LEAST or parallel.device().type != "cpu" or parallel.is_one_of_many():
        return 1
    if any(batches.choose(run.pairs) == "recompute" for run in chosen):
        return 1
    return min(len(chosen), os.cpu_count() or 1, MOST)


def _train_apart(chosen: Sequence[Run], source: TokenSource, processes: int, advance: Callable[[], object]) -> None:
    """Train runs in so many processes, which read tokens from the disk and share its pages."""
    for run in chosen:
        source.of(run.pairs)  # makes tokens that are lacking, here, once
    first = {run.stage_1.record: run.stage_1 for run in chosen if run.learns_omics and not run.stage_1.record.is_file()}
    with tempfile.TemporaryDirectory() as folder:
        for jobs, tell in ((list(first.values()), lambda: None), (list(chosen), advance)):
            if jobs:
                (Path(folder) / RUNS).write_bytes(pickle.dumps([_plain(run) for run in jobs]))
                _spread(Path(folder), len(jobs), min(processes, len(jobs)), tell)


def _plain(run: Run) -> Run:
    """The run as another process takes it: no open file, and tokens from the disk."""
    profile = profiles.changed(run.pairs.profile, compute__tokens="disk")
    return replace(run, pairs=replace(run.pairs, profile=profile))


def _spread(folder: Path, jobs: int, processes: int, advance: Callable[[], object]) -> None:
    waiting: SimpleQueue[int] = SimpleQueue()
    for job in range(jobs):
        waiting.put(job)
    with ExitStack() as stack, ThreadPoolExecutor(processes) as threads:
        started = []
        for number in range(processes):
            said = stack.enter_context((folder / f"{number}.txt").open("w+"))
            own = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": said, "text": True}
            command = [sys.executable, "-m", "seal.train.pool", str(folder / RUNS)]
            worker = stack.enter_context(subprocess.Popen(command, **own, env=os.environ | THREADS))
            started.append(threads.submit(_feed, worker, waiting, advance))
        for number, end in enumerate(started):
            try:
                end.result()
            except OSError as error:
                print((folder / f"{number}.txt").read_text(), file=sys.stderr)
                what, do = "a process that trained runs failed", "read what it said; the same command goes on from here"
                raise SealError(what, expected="runs trained to their ends", do=do) from error


def _feed(worker: subprocess.Popen, waiting: "SimpleQueue[int]", advance: Callable[[], object]) -> None:
    """Give a process one run after the other until none is left; where it dies, none is left for the others either."""
    while not waiting.empty():
        worker.stdin.write(f"{waiting.get()}\n")
        worker.stdin.flush()
        if not any(line.strip() == FINISHED for line in iter(worker.stdout.readline, "")):
            while not waiting.empty():
                waiting.get()
            raise BrokenPipeError
        advance()
    worker.stdin.close()


def _serve(file: str) -> None:
    """Train the runs whose numbers come in, one a line."""
    chosen: list[Run] = pickle.loads(Path(file).read_bytes())
    sources: dict[str, batches.TokenSource] = {}
    for line in sys.stdin:
        run = chosen[int(line)]
        key = profiles.difference(run.pairs.profile, SETTINGS)
        if key not in sources:
            sources[key] = batches.build(run.pairs)
        source = sources[key]
        if run.method == "omics":
            runs.train_omics(run, source.encoder.dim)
        else:
            runs.train_vision(run, source)
        print(FINISHED, flush=True)


if __name__ == "__main__":
    sys.exit(run_command(_serve, sys.argv[1]))
