"""Files that are whole or absent: atomic writes, digests, JSON."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seal.errors import SealError


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
        if temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
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
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Delete what a killed process left half-written in a folder: temporary names of `atomic`."""
    for path in Path(folder).glob(".*.part*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


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
            f"{path} is not valid JSON ({error})",
            expected="a whole JSON file",
            do=f"delete {path} and run again",
        ) from error
