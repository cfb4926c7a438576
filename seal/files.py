"""Files that are whole or absent, what was made from what (`Made`), and how far a job is (`progress`)."""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from seal import paths
from seal.errors import FULL, SealError, explain_unwritable

# What is asked where something was made by another version of its writer: "keep" or "anew".
OLD = "SEAL_OLD"
QUICK = 1 << 30  # bytes whose digests are taken without a progress bar
SETTLED = 2_000_000_000  # ns: a file changed later than this before its digest was taken may change again unseen
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
_WRITER = re.compile(r"\.([0-9a-f]{6})-(\d+)-[0-9a-f]{8}\.part")  # host and process in a temporary name


def make_folder(path: Path) -> None:
    """Make a folder and those above it unless they are there; a SealError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_unwritable(path, error) from error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` if the block succeeds, remove it if not.

    The temporary name keeps the suffix (writers choose a format by it). A folder is written the same way:
    make the temporary name a folder, and it replaces `path` as a whole.

    Raises
    ------
    SealError
        The disk is full or the folder cannot be written.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.stem}.{HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        yield temporary
        _open_to_readers(temporary)
        swap(temporary, path)
    except OSError as error:
        # all else is of what the block reads (h5py and Pillow raise OSError for corrupt input): not ours to explain
        ours = str(error.filename or temporary).startswith(str(temporary))
        if error.errno in FULL or (ours and error.errno in REFUSED):
            raise explain_unwritable(path, error) from error
        raise
    finally:
        _remove(temporary)


def _open_to_readers(path: Path) -> None:
    """Give files the mode that the umask gives: safetensors writes its own for the owner alone, whatever the umask."""
    private = [file for file in (path, *path.rglob("*")) if file.is_file() and file.stat().st_mode & 0o777 == 0o600]
    if private:
        probe = path.with_name(f"{path.stem}.mode.part")
        probe.touch()  # the umask itself can only be read by setting it, which other threads would feel
        mode = probe.stat().st_mode & 0o777
        probe.unlink()
        for file in private:
            file.chmod(mode)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def swap(new: Path, path: Path) -> None:
    """Give a file or folder its name; a folder of that name before it goes last. Of two processes, both succeed."""
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old.part")
    try:
        if new.is_dir() and path.is_dir():
            path.rename(old)
        new.replace(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST) or not new.exists():
            raise
        swap(new, path)  # another process put the old one aside, or was first to put its own there
    shutil.rmtree(old, ignore_errors=True)


def find_partial(folder: Path, made: "Made", more: str = "") -> tuple[Path, "Made"]:
    """Where a folder lies until it is whole, so that a killed process's work goes on; what has other inputs goes.

    What an older version of its writer began is kept or goes as SEAL_OLD says, see `Made.matches`. What is made there
    is given too: the older one, if kept.
    """
    place = lambda each: folder.with_name(f".{folder.name}.{each.key[:12]}{more}.part")  # noqa: E731
    older = (replace(made, version=version) for version in range(1, made.version))
    begun = next((old for old in older if place(old).is_dir() and not place(made).is_dir()), made)
    if begun is not made and made.keeps(begun.stamp(), folder.parent):
        made = begun
    for other in folder.parent.glob(f".{folder.name}.*.part"):
        if other != place(made):
            shutil.rmtree(other, ignore_errors=True)
    return place(made), made


def remove_parts(folder: Path) -> None:
    """Delete what a killed process left half-written in a folder: temporary names of `atomic`."""
    for path in Path(folder).glob(".*.part*"):
        if not _is_written(path):
            _remove(path)


def _is_written(path: Path) -> bool:
    """Whether the process that a temporary name bears may live; of another host's nothing is known."""
    writer = _WRITER.search(path.name)
    if writer is None or writer[1] != HOST:
        return writer is not None
    try:
        os.kill(int(writer[2]), 0)
    except OSError as error:
        return error.errno == errno.EPERM  # it lives, of another user
    return True


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value, hex; equal values give equal digests whatever their key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def write_json(path: Path, value: Any) -> Path:
    """Write a value as indented JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, default=str) + "\n", encoding="utf-8")
    return Path(path)


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises
    ------
    SealError
        The file is missing or is not JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise SealError(
            f"{path} is missing", expected="a JSON file that an earlier step writes", do="run that step again"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SealError(
            f"{path} is not valid JSON ({error})", expected="a whole JSON file", do=f"delete {path} and run again"
        ) from error


@contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Let one process at a time do `what` to `path`; the system frees the lock of one that died.

    Where nothing can be written, or the disk knows no locks, there is none: what writes there says so itself.
    """
    import fcntl

    with ExitStack() as stack:
        with suppress(SealError, OSError):
            make_folder(path.parent)
            file = stack.enter_context((path.parent / f".{path.name}.lock").open("a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"another process {what} {path}: waiting for it", file=sys.stderr)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                _say(f"{path.parent} knows no locks ({error.strerror}): let one process at a time work there")
        yield


def require_room(path: Path, size: int, what: str) -> None:
    """Assert that a disk has room for `size` more bytes.

    Raises
    ------
    SealError
        It has less.
    """
    free = shutil.disk_usage(path).free
    if size > free:
        raise SealError(
            f"{path} has {free / 1e9:.1f} GB free for {size / 1e9:.1f} GB of {what}",
            expected="room for all of them",
            do="free some space, set SEAL_HOME to a larger disk, or ask for less",
        )


# ---- how far a job is --------------------------------------------------------------------------------------

KERNEL = "ipykernel.zmqshell"  # a module of Jupyter's processes
FIRST = os.environ.get("RANK", "0") == "0"  # of the processes of a training
_bars: list[Any] = []  # the one that is shown, once for each job that runs


@contextmanager
def progress(what: str, total: int, unit: str, begun: int = 0, shown: bool = True, **more: Any) -> Iterator[Callable]:
    """Show how far a job is; what it gives is called with the units just done and a note.

    A job inside another is named behind the other's bar. Of many processes the first shows one.
    """
    with warnings.catch_warnings(action="ignore"):  # Jupyter without ipywidgets: a bar of text does
        from tqdm.auto import tqdm
    off = not shown or not FIRST or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")  # tqdm.notebook asks not
    often = sys.stderr.isatty() or KERNEL in sys.modules  # a log gets a line every half minute
    more |= {"initial": begun, "disable": off, "miniters": 0, "mininterval": 0.1 if often else 30}
    inner, done = bool(_bars), begun
    with nullcontext(_bars[0]) if inner else tqdm(total=total, desc=what, unit=unit, **more) as bar:

        def advance(number: int = 1, note: str = "") -> None:
            nonlocal done
            done += number
            bar.set_postfix_str(f"{what} {done}/{total} {note}".strip() if inner else note, refresh=False)
            bar.update(0 if inner else number)

        _bars.append(bar)
        try:
            yield advance
        finally:
            _bars.pop()


def say_done(what: str, where: Path, began: float, found: int, made: int, verb: str = "made") -> None:
    """Say in one line what was found and what was made since `began`; inside a larger job, that one says it."""
    parts = {
        f"loaded from {os.path.relpath(where, paths.home())}": found,
        f"{verb} in {time.monotonic() - began:.0f} s": made,
    }
    words = [f"{number} {text}" if found and made else text for text, number in parts.items() if number]
    if FIRST and not _bars:
        print(f"{what}: {', '.join(words)}", file=sys.stdout if KERNEL in sys.modules else sys.stderr)


# ---- what was made from what -------------------------------------------------------------------------------


def contents(files: Iterable[Path]) -> list[str]:
    """SHA-256 of each file. A file whose size and time are as they were when it was last asked for is not read again.

    So a copied or moved file is known again, and a file that was mended in place is noticed. What is known lies in
    data/.digests.json of SEAL_HOME.
    """
    files = [Path(path).absolute() for path in files]
    kept = paths.home() / "data" / ".digests.json"
    known: dict[str, list] = {}
    with suppress(OSError, ValueError):  # nothing kept, or half of it: all is read again
        known = json.loads(kept.read_text(encoding="utf-8"))
    names = [str(path.relative_to(paths.home())) if path.is_relative_to(paths.home()) else str(path) for path in files]
    facts = [[stat.st_size, stat.st_mtime_ns] for stat in (path.stat() for path in files)]
    new = [i for i, name in enumerate(names) if known.get(name, [])[:2] != facts[i]]
    if new:
        now = time.time_ns()
        long = sum(facts[i][0] for i in new) >= QUICK
        with ThreadPoolExecutor() as pool, progress("digests", len(new), "file", shown=long) as advance:
            for i, own in zip(new, pool.map(sha256, [files[i] for i in new]), strict=True):
                known[names[i]] = [*facts[i], own]
                advance()
        settled = {name: entry for name, entry in known.items() if now - entry[1] > SETTLED}
        with suppress(SealError, OSError):  # a home that cannot be written is asked again next time, no more
            write_json(kept, settled)
    return [known[name][2] for name in names]


@cache
def _say(text: str) -> None:
    print(text, file=sys.stderr)


@dataclass(frozen=True)
class Made:
    """What something is made from, and whether what lies on disk was made from the same.

    Attributes
    ----------
    what
        Its name in messages.
    version
        Of its writer: an integer that stands beside the writer and is counted up when the same inputs and settings
        give something else. Source text is no part of it, so a changed word makes nothing anew.
    parts
        All that it follows from, by name: settings, digests of contents, keys of earlier steps. No paths.
    """

    what: str
    version: int
    parts: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """Digest of version and parts."""
        return digest([self.version, self._flat])

    @cached_property
    def _flat(self) -> dict[str, Any]:
        """The parts with dotted names, long values as digests: what a record keeps to say later what has changed."""
        flat: dict[str, Any] = {}
        for name, value in json.loads(json.dumps(self.parts, default=str)).items():
            inside = {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
            flat |= {k: v if len(json.dumps(v)) <= 80 else digest(v) for k, v in inside.items()}
        return flat

    def stamp(self) -> dict[str, Any]:
        """Give the fields of a record: key, version, from."""
        return {"key": self.key, "version": self.version, "from": self._flat}

    def is_current(self, record: Path) -> bool:
        """Say whether a record (JSON, written last) is there and says the same; see `matches`."""
        return record.is_file() and self.matches(read_json(record), record.parent)

    def matches(self, stamp: Mapping[str, Any], where: Path) -> bool:
        """Say whether a stamp was made from the same. Where inputs or settings differ, it is said which.

        Raises
        ------
        SealError
            All is the same but the writer's version, and SEAL_OLD does not say what to do.
        """
        if stamp.get("key") == self.key:
            return True
        old = stamp.get("from") or self._flat  # a stamp that kept none
        changed = sorted(name for name in {**self._flat, **old} if self._flat.get(name) != old.get(name))
        if changed:
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            _say(f"{self.what} in {where}: made anew, for these have changed: {', '.join(changed[:5])}{more}")
            return False
        return self.keeps(stamp, where)

    def keeps(self, stamp: Mapping[str, Any], where: Path) -> bool:
        """Say whether SEAL_OLD says to keep what another version of the writer made or began; see `matches`."""
        answer = os.environ.get(OLD)
        if answer not in ("keep", "anew"):
            version = f"version {stamp['version']}" if "version" in stamp else "a version that left no number"
            raise SealError(
                f"{self.what} in {where} were made by {version} of what makes them; it is at {self.version} now",
                expected=f"{OLD}=keep to go on with them as they are, or {OLD}=anew to make them anew",
                do=f"set one of these and run the same command, for instance {OLD}=keep make figures",
            )
        return answer == "keep"
