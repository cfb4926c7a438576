"""Files that are whole or absent, what was made from what (`Made`), and the errors of disk and hub in words."""

import errno
import hashlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from seal import paths
from seal.errors import SealError

# What is asked where something was made by another version of its writer: "keep" or "anew".
OLD = "SEAL_OLD"
QUICK = 1 << 30  # bytes whose digests are taken without a progress bar
SETTLED = 2_000_000_000  # ns: a file changed later than this before its digest was taken may change again unseen


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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        yield temporary
        swap(temporary, path)
    except OSError as error:
        if error.errno is None:  # h5py and Pillow raise OSError for corrupt input too: theirs to explain
            raise
        if temporary.exists() or error.errno == 28:  # ENOSPC
            raise SealError(
                f"cannot write {path}: {error.strerror}",
                expected="a writable folder with enough free space",
                do="free some space or set SEAL_HOME to a folder on another disk, then run the same command",
            ) from error
        raise
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def swap(new: Path, path: Path) -> None:
    """Give a file or folder its name; a folder of that name before it goes last."""
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old.part")
    if new.is_dir() and path.is_dir():
        path.rename(old)
    new.replace(path)
    shutil.rmtree(old, ignore_errors=True)


def find_partial(folder: Path, key: str) -> Path:
    """Where a folder of this key lies until it is whole, so that a killed process's work goes on; other keys' goes."""
    partial = folder.with_name(f".{folder.name}.{key}.part")
    for other in folder.parent.glob(f".{folder.name}.*.part"):
        if other != partial:
            shutil.rmtree(other, ignore_errors=True)
    return partial


def remove_parts(folder: Path, older: float = 0.0) -> None:
    """Delete what a killed process left half-written in a folder: temporary names of `atomic`.

    Where another process may be writing, only those that nobody wrote to for so many seconds.
    """
    for path in Path(folder).glob(".*.part*"):
        with suppress(FileNotFoundError):  # it got its name
            if path.stat().st_mtime <= time.time() - older:
                _remove(path)


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
    """Let one process at a time do `what` to `path`; the system frees the lock of one that died."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process {what} {path}: waiting for it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
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


def explain_hub_error(
    error: BaseException, what: str, *, expected: str, address: str, otherwise: str = ""
) -> SealError:
    """Say in one message why the Hugging Face hub, or the disk, did not do it; never shows a token.

    Parameters
    ----------
    what, expected
        What was tried, and what should have been there.
    address
        The repository's page, where access is asked for.
    otherwise
        Another way to the same end, if there is one.
    """
    why, do = _hub_reason(error, address)
    return SealError(f"{what}: {why}", expected=expected, do=f"{do}; {otherwise}" if otherwise else do)


def _hub_reason(error: BaseException, address: str) -> tuple[str, str]:
    """Why it was not done, and what to do.

    The hub's client raises errors of its own, of its HTTP library and of the system, and changes them between
    versions: they are told apart by status and by name.
    """
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    names = {kind.__name__ for e in chain for kind in type(e).__mro__}
    answers = (getattr(e, "response", None) for e in chain)
    status = next((answer.status_code for answer in answers if answer is not None), None)
    # the system's own errors: TLS and name servers have modules and numbers of their own
    plain = (e for e in chain if isinstance(e, OSError) and type(e).__module__ == "builtins" and e.errno)
    disk = next((e for e in plain if not isinstance(e, ConnectionError | TimeoutError)), None)
    space = "set HF_HOME (for HEST-1k: SEAL_HEST) to a folder on another disk"
    if (disk and disk.errno in (errno.ENOSPC, errno.EDQUOT)) or any("No space left" in str(e) for e in chain):
        return "the disk is full", f"free some space, or {space}"
    if disk and "TransportError" not in names:
        where = disk.filename2 or disk.filename
        return f"{disk.strerror}{f' ({where})' if where else ''}", f"look at the folder and its disk, or {space}"
    if "HFValidationError" in names:
        return "the hub allows no such name", 'give it as "user/name", of letters, digits, - _ .'
    if "LocalTokenNotFoundError" in names or status == 401:
        do = f"ask for access at {address} if it is gated, then run `hf auth login` or set HF_TOKEN"
        return "the hub knows no valid token, or no such repository", do
    if status == 403:
        do = f"ask for access at {address} (an answer can take days), or use a token with that right"
        return "the token's account has no access", do
    if status in (408, 425, 429) or (status or 0) >= 500:
        return f"the hub answered {status}, so it is busy or out of order", "run the same command later"
    if status is not None:
        return f"the hub answered {status}", f"look whether {address} still exists"
    why = f"the hub cannot be reached, or its answer broke off ({type(error).__name__})"
    return why, "connect to the network (HF_HUB_OFFLINE unset), then run the same command"


# ---- what was made from what -------------------------------------------------------------------------------


def contents(files: Iterable[Path]) -> list[str]:
    """SHA-256 of each file. A file whose size and time are as they were when it was last asked for is not read again.

    So a copied or moved file is known again, and a file that was mended in place is noticed. What is known lies in
    data/.digests.json of SEAL_HOME.
    """
    from tqdm.contrib.concurrent import thread_map

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
        short = sum(facts[i][0] for i in new) < QUICK
        found = thread_map(sha256, [files[i] for i in new], desc="digests", unit="file", disable=short)
        known |= {names[i]: [*facts[i], own] for i, own in zip(new, found, strict=True)}
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
        answer = os.environ.get(OLD)
        if answer not in ("keep", "anew"):
            version = f"version {stamp['version']}" if "version" in stamp else "a version that left no number"
            raise SealError(
                f"{self.what} in {where} were made by {version} of what makes them; it is at {self.version} now",
                expected=f"{OLD}=keep to go on with them as they are, or {OLD}=anew to make them anew",
                do=f"set one of these and run the same command, for instance {OLD}=keep make figures",
            )
        return answer == "keep"
