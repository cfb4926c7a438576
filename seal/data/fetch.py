"""HEST-1k from the hub to disk, by sample: one commit, every checksum verified, going on where it stopped.

A file grows below .fetch/, is verified there, and only then renamed to its place, so that what lies in st/, patches/,
metadata/ and wsis/ is whole. fetch.json, beside the table, records the commit and what was verified.
"""

import fcntl
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seal.data import hest_hub, maple
from seal.data.fetch_plan import (
    ABSENT,
    PARTS,
    RECORD,
    UNVERIFIED,
    WHOLE,
    Plan,
    Planned,
    gb,
    leftovers,
    look,
    part,
    plan,
    read_record,
    verified,
)
from seal.data.hest_hub import HubFile
from seal.errors import SealError
from seal.files import write_json
from seal.hub_errors import is_passing
from seal.profiles import SelectionSettings

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["Plan", "Planned", "fetch", "maple_ids", "plan"]


def fetch(plan: Plan, workers: int = 8, check: bool = False) -> None:
    """Download what a plan lacks; killed or cut off, the same call goes on where it stopped.

    Parameters
    ----------
    workers
        Files at once.
    check
        Whether files that were verified earlier are read again; what is no longer whole is fetched anew.

    Raises
    ------
    SealError
        No network, no token, no access, a disk that is full or fails, a checksum that differs twice, or another fetch
        at work there.
    """
    if workers < 1:
        raise SealError(f"{workers} workers", expected="1 or more", do="give --workers, for example, 8")
    with _disk(plan.root), _alone(plan.root):
        _Fetch(plan, workers).run(check)
        for path in leftovers(plan):  # the lock stays: another process may have opened it
            path.unlink(missing_ok=True)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Say in one message what the system did not do with a file or folder."""
    try:
        yield
    except OSError as error:
        expected = "a disk that can be read and written, with enough free space"
        raise hest_hub.refused(error, f"read or write {path}", expected) from error


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep a second fetch out of the same folder; the system lets go of the lock when a process dies."""
    try:
        (root / PARTS).mkdir(parents=True, exist_ok=True)
        lock = (root / PARTS / "lock").open("w")
    except OSError as error:
        raise SealError(
            f"{root} cannot be written to ({error.strerror})",
            expected="a folder for HEST-1k, yours to write to",
            do="set SEAL_HEST (or SEAL_HOME) to another folder",
        ) from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SealError(
                f"another fetch is at work in {root}",
                expected="one at a time",
                do="wait for it, or stop it; the next one goes on from there",
            ) from error
        yield


class _Stopped(Exception):
    """Another file's error ended the fetch."""


class _Fetch:
    """One run of a plan, with its record and its bar; the threads share them under a lock."""

    def __init__(self, plan: Plan, workers: int) -> None:
        self.plan, self.root, self.workers = plan, plan.root, workers
        self.record = {**read_record(plan.root), "repository": hest_hub.REPOSITORY, "revision": plan.commit}
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.bar: tqdm | None = None

    def run(self, check: bool) -> None:
        """Verify what must be, and fetch what is not there."""
        now = [look(planned.file, self.root, self.record) for planned in self.plan.files]
        for planned in now:
            if planned.state == WHOLE:
                self.record["files"][planned.file.path]["revision"] = self.plan.commit
        write_json(self.root / RECORD, self.record)
        reread = [planned.file for planned in now if planned.state == UNVERIFIED or (check and planned.state == WHOLE)]
        damaged = self._reread(reread)
        wanted = [planned.file for planned in now if planned.state == ABSENT or planned.file.path in damaged]
        if wanted:
            self._require_space(wanted)
            self._in_threads(self._download, wanted, "HEST-1k", self._grown(wanted))

    def _reread(self, there: Sequence[HubFile]) -> set[str]:
        """Verify files that are there; give the paths of those that are not what the hub lists."""
        damaged = set()

        def reread(file: HubFile) -> None:
            if verified(self.root / file.path, file):
                self._enter(file)
            else:
                with self.lock:
                    self.record["files"].pop(file.path, None)
                    damaged.add(file.path)
            self._advance(file.size)

        if there:
            self._in_threads(reread, there, "checksums", 0)
        return damaged

    def _in_threads(self, job: Any, files: Sequence[HubFile], description: str, initial: int) -> None:
        """Do a job for each file, some at once; the first error ends them all."""
        from tqdm import tqdm

        def one(file: HubFile) -> None:
            if self.stop.is_set():
                return
            try:
                with _disk(self.root / file.path):
                    job(file)
            except _Stopped:
                return  # the error that stopped it is raised
            except BaseException:
                self.stop.set()
                raise

        total = sum(file.size for file in files)
        options = {"unit": "B", "unit_scale": True, "unit_divisor": 1000, "smoothing": 0.05}
        with (
            tqdm(total=total, initial=initial, desc=description, **options) as self.bar,
            ThreadPoolExecutor(self.workers) as pool,
        ):
            try:
                for done in as_completed([pool.submit(one, file) for file in files]):
                    done.result()
            except BaseException:
                self.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _grown(self, wanted: Sequence[HubFile]) -> int:
        """Bytes of unfinished files, which are not fetched again."""
        unfinished = [part(self.root, file) for file in wanted]
        return sum(path.stat().st_size for path in unfinished if path.is_file())

    def _require_space(self, wanted: Sequence[HubFile]) -> None:
        need = sum(file.size for file in wanted) - self._grown(wanted)
        free = shutil.disk_usage(self.root).free
        if need > free:
            raise SealError(
                f"{self.root} has {gb(free)} free for {gb(need)} of HEST-1k",
                expected="room for all of it",
                do="free some space, set SEAL_HEST (or SEAL_HOME) to a folder on another disk, or fetch fewer samples "
                "with --samples",
            )

    def _download(self, file: HubFile) -> None:
        """Fetch one file; where what came is not what the hub lists, once more from its beginning."""
        grown, path = part(self.root, file), self.root / file.path
        for _ in range(2):
            self._complete(grown, file)
            if verified(grown, file):
                path.parent.mkdir(parents=True, exist_ok=True)
                grown.replace(path)
                self._enter(file)
                return
            self._advance(-grown.stat().st_size)
            grown.unlink()
        raise SealError(
            f"{file.path} of HEST-1k came twice with another checksum or size than the hub lists; it was not kept",
            expected=f"{file.checksum}, {file.size} bytes",
            do="something between the hub and here changes files: try another network or proxy, then run the same "
            "command",
        )

    def _complete(self, grown: Path, file: HubFile) -> None:
        """Lengthen a file until it has its size; waits longer and longer while nothing comes."""
        grown.touch()
        waits = iter(hest_hub.WAITS)
        while (before := grown.stat().st_size) < file.size:
            problem = self._try(grown, file, before)
            if grown.stat().st_size > before:
                waits = iter(hest_hub.WAITS)
                continue
            wait = next(waits, None)
            if wait is None:
                raise problem
            if self.stop.wait(wait):
                raise _Stopped

    def _try(self, grown: Path, file: HubFile, before: int) -> SealError:
        """Add what comes to a file; give what is to be said if nothing came."""
        what = f"fetch {file.path} of HEST-1k"
        try:
            self._append(grown, file, before)
        except _Stopped:
            raise
        except Exception as error:  # the client's, its HTTP library's and the system's
            if not is_passing(error):
                raise hest_hub.refused(error, what) from error
            return hest_hub.refused(error, what)
        return SealError(
            f"cannot {what}: every answer ends after {before} of {file.size} bytes",
            expected="the whole file",
            do="try another network or proxy, or wait; the same command goes on from there",
        )

    def _append(self, grown: Path, file: HubFile, before: int) -> None:
        with hest_hub.stream(file, self.plan.commit, before) as (start, pieces), grown.open("r+b") as content:
            content.truncate(start)
            content.seek(start)
            self._advance(start - before)
            for piece in pieces:
                if self.stop.is_set():
                    raise _Stopped
                content.write(piece)
                self._advance(len(piece))
                if content.tell() > file.size:
                    return  # its checksum will tell

    def _advance(self, size: int) -> None:
        with self.lock:
            self.bar.update(size)

    def _enter(self, file: HubFile) -> None:
        """Record a file as verified."""
        entry = {"size": file.size, "checksum": file.checksum, "revision": self.plan.commit}
        with self.lock:
            self.record["files"][file.path] = entry
            write_json(self.root / RECORD, self.record)


def maple_ids(root: Path, settings: SelectionSettings, revision: str | None = None) -> list[str]:
    """Fetch HEST-1k's metadata table and select MAPLE's samples from it.

    Raises
    ------
    SealError
        See `plan` and `fetch`, or the folder has a table of its own.
    """
    fetch(plan([], root, revision))
    selection = maple.read_selection(root, settings)
    if selection is None:
        raise SealError(
            f"{root}/metadata.csv is not HEST-1k's table",
            expected="HEST_v*.csv alone",
            do="set SEAL_HEST to a folder for HEST-1k, or name samples with --samples",
        )
    return selection.samples["id"].tolist()
