"""Rows of npy files, read and written at their place by any number of threads, processes and machines.

Patches, counts, expression and tokens lie in npy files whose size is known before they are filled. Rows are read by
position and not through a memory map: from a cold disk that is some thirty times as fast, because a batch's rows are
announced to the kernel before the first is read; and what was mapped would count as a process's memory until it ends.
"""

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from seal.errors import SealError, explain_unwritable
from seal.files import atomic

BEHIND = 1 << 26  # bytes before the last one written that the kernel is reminded of
CHUNK = 1 << 22  # bytes of a checksum read at a time


def create(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    """Make an npy file of zeros unless it is there, whole or not at all; its room on the disk is taken when written."""
    if path.is_file():
        return
    with atomic(path) as temporary:
        np.lib.format.open_memmap(temporary, "w+", dtype=dtype, shape=shape)


def read_layout(path: Path) -> tuple[int, np.dtype, tuple[int, ...]]:
    """Where an npy file's data begin, and its dtype and shape.

    Raises
    ------
    SealError
        It is missing, no npy file, in columns, or not as long as its header says.
    """
    try:
        array, size = np.lib.format.open_memmap(path, "r"), path.stat().st_size
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    expected = array.offset + array.nbytes
    if size != expected or not array.flags.c_contiguous:
        raise _damaged(path, f"{size:,} bytes instead of {expected:,}, or stored in columns")
    return array.offset, array.dtype, array.shape


def _damaged(path: Path, problem: str) -> SealError:
    return SealError(
        f"{path} cannot be read ({problem})",
        expected="a whole npy file, as it was written",
        do=f"delete {path.parent} and run the step that writes it again (notebook 01 assembles pairs)",
    )


def find_runs(rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """Where in `rows` the runs of numbers that follow each other begin and end."""
    starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
    return pairwise([*starts.tolist(), len(rows)])


class RowFile:
    """The rows of an npy file; nothing is opened before the first use, in each process anew; pickled it is a path.

    Parameters
    ----------
    dtype, row
        What the file must hold; `row` is a row's shape, and the axes before it number the rows in C order.
    """

    def __init__(self, path: Path, dtype: DTypeLike, row: tuple[int, ...]) -> None:
        self.path, self.dtype, self.row = Path(path), np.dtype(dtype), tuple(row)
        self._row_bytes = math.prod(row) * self.dtype.itemsize

    def __reduce__(self):
        return RowFile, (self.path, self.dtype, self.row)

    def __len__(self) -> int:
        return math.prod(self.shape[: len(self.shape) - len(self.row)])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return self._layout[1]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Read rows in any order, also one several times, into memory of their own, [n, ...].

        Raises
        ------
        IndexError
            A row that is not there.
        SealError
            The file is missing, damaged, holds something else or ends early.
        """
        rows = np.asarray(rows, dtype=np.int64)
        outside = rows[(rows < 0) | (rows >= len(self))]
        if outside.size:
            raise IndexError(f"there is no row {outside[0]} among {len(self)} of {self.path}")
        out = np.empty((len(rows), *self.row), dtype=self.dtype)
        offset, size, whole = self._layout[0], self._row_bytes, _bytes_of(out)
        runs = [(whole[i * size : j * size], offset + int(rows[i]) * size) for i, j in find_runs(rows)]
        for left, place in runs:  # all are announced to the kernel before the first is read
            _advise(self._reading, place, len(left), "POSIX_FADV_WILLNEED")
        for left, place in runs:
            while left:
                got = os.preadv(self._reading.fileno(), [left], place)
                if not got:
                    raise _damaged(self.path, "it ends early")
                left, place = left[got:], place + got
        return out

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Read the rows that a slice names."""
        return self.read(np.arange(*rows.indices(len(self))))

    def write(self, start: int, values: np.ndarray) -> None:
        """Put consecutive rows in their place; `sync` makes sure that they are on the disk.

        The kernel is told to write what it still holds and to forget what is on the disk, but for the last of it:
        otherwise the disk idles until `sync`, and the page cache fills with what nobody reads soon.
        """
        left = _bytes_of(np.ascontiguousarray(values, dtype=self.dtype))
        place = self._layout[0] + start * self._row_bytes
        try:
            while left:
                written = os.pwrite(self._writing.fileno(), left, place)
                left, place = left[written:], place + written
        except OSError as error:
            raise explain_unwritable(self.path, error) from error
        begin = max(self._layout[0], place - BEHIND)
        _advise(self._writing, begin, place - begin, "POSIX_FADV_DONTNEED")

    def sync(self) -> None:
        """Return when all that was written is on the disk."""
        try:
            os.fsync(self._writing.fileno())
        except OSError as error:
            raise explain_unwritable(self.path, error) from error

    @cached_property
    def _layout(self) -> tuple[int, tuple[int, ...]]:
        offset, dtype, shape = read_layout(self.path)
        axes = len(shape) - len(self.row)
        if dtype != self.dtype or axes < 1 or shape[axes:] != self.row:
            raise _damaged(self.path, f"it is {dtype} {list(shape)}, not {self.dtype} rows of {list(self.row)}")
        return offset, shape

    @cached_property
    def _reading(self) -> FileIO:
        return FileIO(self.path)

    @cached_property
    def _writing(self) -> FileIO:
        return FileIO(self.path, "r+")


def _advise(file: FileIO, place: int, length: int, advice: str) -> None:
    with suppress(OSError, AttributeError):  # not every system and file system takes advice
        os.posix_fadvise(file.fileno(), place, length, getattr(os, advice))


def _bytes_of(values: np.ndarray) -> memoryview:
    return memoryview(values.reshape(-1)).cast("B") if values.size else memoryview(b"")


class Block:
    """A sample's rows `start` to `stop` of `folder / name`, written once from first to last, and their SHA-256."""

    def __init__(self, folder: Path, name: str, start: int, stop: int, sample: str) -> None:
        self.name, self.sample, self.start, self.stop = name, sample, start, stop
        _, dtype, shape = read_layout(folder / name)
        self._rows, self._row, self._hash = RowFile(folder / name, dtype, shape[1:]), start, hashlib.sha256()

    def write(self, values: np.ndarray) -> None:
        """Write the next rows; a SealError where they have another shape or go beyond the last row."""
        values = np.ascontiguousarray(values, dtype=self._rows.dtype)
        row = self._rows.row
        if values.shape[1:] != row or self._row + len(values) > self.stop:
            raise self._changed(f"{values.shape} after row {self._row}", f"rows of shape {row} up to row {self.stop}")
        self._hash.update(_bytes_of(values))
        self._rows.write(self._row, values)
        self._row += len(values)

    def close(self) -> dict[str, Any]:
        """Make sure that all rows are there and on the disk; give file, sample, rows and sha256."""
        if self._row != self.stop:
            raise self._changed(f"{self._row - self.start} of {self.stop - self.start} rows", "all of them")
        self._rows.sync()
        rows = [self.start, self.stop]
        return {"file": self.name, "sample": self.sample, "rows": rows, "sha256": self._hash.hexdigest()}

    def _changed(self, problem: str, expected: str) -> SealError:
        do = "the sample's files changed while it was read: run the same command again"
        return SealError(f"{self.sample}: {problem} for {self.name}", expected=expected, do=do)


def write_block(folder: Path, name: str, start: int, values: np.ndarray, sample: str) -> dict[str, Any]:
    """Write one sample's rows of a file at once; give their checksum, as `Block.close`."""
    block = Block(folder, name, start, start + len(values), sample)
    block.write(values)
    return block.close()


def hash_bytes(path: Path, start: int, stop: int) -> str:
    """SHA-256 of a file's bytes `start` to `stop`, hex; a SealError names a file that cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            file.seek(start)
            for begin in range(start, stop, CHUNK):
                found.update(file.read(min(CHUNK, stop - begin)))
    except OSError as error:
        raise _damaged(path, str(error)) from error
    return found.hexdigest()


def hash_head(path: Path) -> dict[str, Any]:
    """Bytes and sha256 of what no sample writes: all before an npy file's data, and the first entry of indptr."""
    offset, dtype, _ = read_layout(path)
    size = offset + (dtype.itemsize if path.name == "indptr.npy" else 0)
    return {"bytes": size, "sha256": hash_bytes(path, 0, size)}
