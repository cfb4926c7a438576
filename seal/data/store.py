"""Arrays in npy files whose size is known before they are filled: rows are written at their place, by anyone."""

import hashlib
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from seal.errors import SealError

BEHIND = 1 << 26  # bytes before the last one written that the kernel is reminded of


def create(path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    """Make an npy file of zeros; its room on the disk is taken when it is written."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + math.prod(shape) * np.dtype(dtype).itemsize)


def layout(path: Path) -> tuple[int, np.dtype, tuple[int, ...]]:
    """Where an npy file's data begin, and its dtype and shape.

    Raises
    ------
    SealError
        It is missing, no npy file, or shorter than its header says.
    """
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
        expected, size = offset + math.prod(shape) * dtype.itemsize, path.stat().st_size
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if size != expected:
        raise _damaged(path, f"{size:,} bytes instead of {expected:,}")
    return offset, dtype, shape


def _damaged(path: Path, problem: str) -> SealError:
    return SealError(
        f"{path} cannot be read ({problem})",
        expected="a whole npy file, as the assembly wrote it",
        do=f"delete {path.parent} and assemble the pairs again (notebook 01)",
    )


class Rows:
    """Consecutive rows of an npy file, written once from the first to the last, and their SHA-256.

    Parameters
    ----------
    folder, name
        The file is `folder / name`; `name` is what its checksum bears.
    start, stop
        The rows.
    owner
        The sample they belong to.
    """

    def __init__(self, folder: Path, name: str, start: int, stop: int, owner: str) -> None:
        self.path, self.name, self.owner = folder / name, name, owner
        self.start, self.stop, self._row = start, stop, start
        self._hash = hashlib.sha256()

    def __enter__(self) -> "Rows":
        self._offset, self._dtype, self._shape = layout(self.path)
        self._file = os.open(self.path, os.O_WRONLY)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def write(self, values: np.ndarray) -> None:
        """Write the next rows.

        Raises
        ------
        SealError
            They have another shape or go beyond the last row; the disk is full.
        """
        values = np.ascontiguousarray(values, dtype=self._dtype)
        if values.shape[1:] != self._shape[1:] or self._row + len(values) > self.stop:
            raise SealError(
                f"{self.owner}: {values.shape} after row {self._row} of {self.path.name}",
                expected=f"rows of shape {self._shape[1:]} up to row {self.stop}",
                do="the sample's files changed while it was read: run the same command again",
            )
        left = memoryview(values.reshape(-1)).cast("B") if values.size else memoryview(b"")
        self._hash.update(left)
        place = self._offset + self._row * math.prod(self._shape[1:]) * self._dtype.itemsize
        try:
            while left:
                written = os.pwrite(self._file, left, place)
                left, place = left[written:], place + written
        except OSError as error:
            raise full(self.path, error) from error
        self._row += len(values)
        self._let_go(place)

    def _let_go(self, end: int) -> None:
        """Have the kernel write what it still holds, and forget what is on the disk but for the last of it.

        Otherwise the disk idles until `close`, and the page cache fills with what nobody reads soon.
        """
        begin = max(self._offset, end - BEHIND)
        if hasattr(os, "posix_fadvise") and end > begin:
            with suppress(OSError):  # not every file system takes advice
                os.posix_fadvise(self._file, begin, end - begin, os.POSIX_FADV_DONTNEED)

    def close(self) -> dict[str, Any]:
        """Make sure that the rows are on the disk; give their checksum.

        Raises
        ------
        SealError
            Rows are missing, or the disk is full.
        """
        if self._row != self.stop:
            raise SealError(
                f"{self.owner}: {self._row - self.start} of {self.stop - self.start} rows for {self.path.name}",
                expected="all of them",
                do="the sample's files changed while it was read: run the same command again",
            )
        try:
            os.fsync(self._file)
        except OSError as error:
            raise full(self.path, error) from error
        return {
            "file": self.name,
            "sample": self.owner,
            "rows": [self.start, self.stop],
            "sha256": self._hash.hexdigest(),
        }


def write_rows(folder: Path, name: str, start: int, values: np.ndarray, owner: str) -> dict[str, Any]:
    """Write one sample's rows of a file at once; give their checksum."""
    with Rows(folder, name, start, start + len(values), owner) as rows:
        rows.write(values)
        return rows.close()


def head(path: Path) -> dict[str, Any]:
    """The checksum of what comes before an npy file's data, and of the first entry of indptr, which no sample writes.

    Returns
    -------
    bytes (how many) and sha256.
    """
    offset, dtype, _ = layout(path)
    size = offset + (dtype.itemsize if path.name == "indptr.npy" else 0)
    with path.open("rb") as file:
        return {"bytes": size, "sha256": hashlib.sha256(file.read(size)).hexdigest()}


def full(path: Path, error: OSError) -> SealError:
    """What a failed write means."""
    return SealError(
        f"cannot write {path}: {error.strerror}",
        expected="a writable disk with room for all pairs",
        do="free some space or set SEAL_HOME to another disk, then run the same command: it goes on from here",
    )
