"""The same work in this process's threads, in processes on this machine, or on a Dask scheduler anywhere.

The environment variable SEAL_DASK names a scheduler ("tcp://host:8786"); its workers must see the same disks under the
same names. Without it a profile's `ComputeSettings.assembly` says "threads" or "processes".
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seal.errors import SealError

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = "15s"  # to reach a scheduler, or the first of its workers


@contextmanager
def opened(how: str, jobs: int) -> "Iterator[Run]":
    """Give what runs the steps of one assembly; processes and the way to a scheduler are opened once for all of them.

    Parameters
    ----------
    how
        "threads" or "processes"; a scheduler that SEAL_DASK names comes first.
    jobs
        Of a step, at most: more processes are not started.

    Raises
    ------
    SealError
        The scheduler cannot be reached.
    """
    if address := os.environ.get("SEAL_DASK"):
        with _scheduler(address) as client:
            yield Run(client)
    elif how == "processes" and jobs > 1:
        with _processes(jobs) as client:
            yield Run(client)
    else:
        yield Run(None)


@dataclass(frozen=True)
class Run:
    """Applies a function to each of some jobs: ``run(function, jobs, label, sizes)``; None: in threads."""

    client: "Client | None"

    def __call__(self, function: Callable[[Any], Any], jobs: Sequence[Any], label: str, sizes: Sequence[int]) -> list:
        """Do the jobs, with a progress bar in bytes and time left.

        Parameters
        ----------
        function
            Of a module, so that other processes find it.
        sizes
            Bytes that each job reads or writes, for the bar.

        Returns
        -------
        The results in the order of the jobs.

        Raises
        ------
        SealError
            What a job raised, as it was.
        """
        from tqdm import tqdm

        with tqdm(total=sum(sizes), desc=label, unit="B", unit_scale=True) as bar:
            if self.client is None:
                return _threads(function, jobs, sizes, bar)
            return _distributed(self.client, function, jobs, sizes, bar)


def _threads(function, jobs: Sequence[Any], sizes: Sequence[int], bar) -> list[Any]:
    import dask
    from dask.callbacks import Callback

    tasks = {f"job-{i}": (function, job) for i, job in enumerate(jobs)}

    def done(key: str, *_: object) -> None:
        if key in tasks:
            bar.update(sizes[int(key.removeprefix("job-"))])

    with Callback(posttask=done):
        return list(dask.threaded.get(tasks, list(tasks), num_workers=min(cores(), len(jobs))))


def _distributed(client: "Client", function, jobs: Sequence[Any], sizes: Sequence[int], bar) -> list[Any]:
    from distributed import as_completed

    futures = client.map(function, jobs, pure=False, retries=0)
    place = {future.key: i for i, future in enumerate(futures)}
    results: list[Any] = [None] * len(jobs)
    try:
        for future in as_completed(futures):
            i = place[future.key]
            results[i] = future.result()  # raises what the job raised
            bar.update(sizes[i])
    finally:
        client.cancel(futures)
    return results


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Undo what distributed leaves in this process's environment (OMP_NUM_THREADS=1), which later children inherit."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _processes(jobs: int) -> "Iterator[Client]":
    from distributed import Client, LocalCluster

    with (
        _environment_kept(),
        LocalCluster(
            n_workers=min(cores(), jobs), threads_per_worker=1, dashboard_address=None, silence_logs="ERROR"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _scheduler(address: str) -> "Iterator[Client]":
    from distributed import Client

    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError, TypeError) as error:
        raise _unreachable(address, str(error)) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise _unreachable(address, "it has no workers") from error
        yield client


def _unreachable(address: str, problem: str) -> SealError:
    return SealError(
        f"SEAL_DASK={address}: no Dask scheduler to work with ({problem.splitlines()[0] if problem else 'no answer'})",
        expected="the address of a running scheduler with workers, such as tcp://host:8786",
        do="start `dask scheduler` and `dask worker`, correct the address, or unset SEAL_DASK",
    )
