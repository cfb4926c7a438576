"""The same work in this process's threads, in processes on this machine, or on a Dask scheduler anywhere.

The environment variable SEAL_DASK names a scheduler ("tcp://host:8786"); its workers must see the same disks under the
same names. Without it a profile's `ComputeSettings.assembly` says "threads" or "processes".
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from seal.errors import SealError
from seal.files import progress

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = "15s"  # to reach a scheduler, or the first of its workers


@contextmanager
def open_executor(how: str, jobs: int) -> Iterator[Executor]:
    """Open what runs the steps of one assembly, at most `jobs` at a time; a scheduler that SEAL_DASK names comes first.

    Threads are Python's own: a Dask client in this process gives the same, two seconds later (distributed's import).

    Raises
    ------
    SealError
        The scheduler cannot be reached.
    """
    address, workers = os.environ.get("SEAL_DASK"), min(cores(), jobs)
    if not address and (how == "threads" or jobs == 1):
        with ThreadPoolExecutor(workers) as executor:
            yield executor
    else:
        with _keep_environment(), _open_client(address, workers) as client:
            yield client.get_executor(pure=False, retries=0)


def _open_client(address: str | None, workers: int) -> "Client":
    from distributed import Client

    if not address:
        return Client(n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs="ERROR")
    client = None
    try:
        client = Client(address, timeout=PATIENCE)
        client.wait_for_workers(1, timeout=PATIENCE)
        return client
    except (OSError, ValueError, TypeError) as error:  # a timeout is an OSError
        if client is not None:
            client.close()
        raise SealError(
            f"SEAL_DASK={address}: no Dask scheduler to work with ({next(iter(str(error).splitlines()), 'no answer')})",
            expected="the address of a running scheduler with workers, such as tcp://host:8786",
            do="start `dask scheduler` and `dask worker`, correct the address, or unset SEAL_DASK",
        ) from error


@contextmanager
def _keep_environment() -> Iterator[None]:
    """Undo what distributed leaves in this process's environment (OMP_NUM_THREADS=1), which later children inherit."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def run_jobs(
    executor: Executor, function: Callable[[Any], Any], jobs: Sequence[Any], label: str, sizes: Sequence[int]
) -> list[Any]:
    """Apply a function of a module to each job, with a progress bar in bytes (`sizes`); the results in their order.

    What a job raises comes through as it was, and the others are called off.
    """
    futures = {executor.submit(function, job): size for job, size in zip(jobs, sizes, strict=True)}
    with progress(label, sum(sizes), "B", unit_scale=True) as advance:
        try:
            for future in as_completed(futures):
                future.result()
                advance(futures[future])
        finally:
            for future in futures:
                future.cancel()
    return [future.result() for future in futures]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
