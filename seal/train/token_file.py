"""Trunk tokens on disk: one contiguous file, written in resumable parts by one process or many.

tokens.npy holds [1 + views, pairs, T, D]; anything that reads numpy's format reads it (bfloat16 as uint16, which
numpy lacks). tokens.json, written last, makes the folder whole. While it is being written the folder has a
hidden name and done.npy says which parts are there.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seal.errors import SealError
from seal.files import Made, require_room, swap, write_json
from seal.train import parallel

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_NUMPY = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}
PERSIST_SECONDS = 30.0  # how often what is done is made sure of on disk

# Views and rows, int64 [B] each; what comes back is [B, T, D].
Request = tuple[np.ndarray, np.ndarray]
Stream = Callable[[Sequence[Request]], Iterator[Tensor]]


@dataclass(frozen=True)
class TokenFile:
    """A whole tokens.npy."""

    folder: Path
    dtype: str

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "tokens.npy"

    @cached_property
    def array(self) -> np.ndarray:
        """A memory map of the file, as numpy sees it."""
        return np.load(self.path, mmap_mode="r")

    def rows(self, views: np.ndarray, rows: np.ndarray) -> Tensor:
        """Read some tokens, [B, T, D], into memory of their own.

        Read, not mapped: what was mapped would count as this process's memory until it ends.
        """
        out = np.empty((len(rows), *self.array.shape[2:]), dtype=self.array.dtype)
        size = self.array[0, 0].nbytes
        file = os.open(self.path, os.O_RDONLY)
        try:
            for i, number in enumerate((views * self.array.shape[1] + rows).tolist()):
                if os.preadv(file, [memoryview(out[i]).cast("B")], self.array.offset + number * size) != size:
                    raise SealError(
                        f"{self.path} ends early",
                        expected=f"{self.array.nbytes:,} bytes of tokens",
                        do=f"delete {self.folder} and run again",
                    )
        finally:
            os.close(file)
        return _tensor(out, self.dtype)

    def write(self, view: int, row: int, tokens: np.ndarray) -> None:
        """Put the tokens of consecutive rows, [B, T, D], in their place; like `rows` without mapping them."""
        offset = self.array.offset + (view * self.array.shape[1] + row) * self.array[0, 0].nbytes
        left = memoryview(np.ascontiguousarray(tokens)).cast("B")
        try:
            file = os.open(self.path, os.O_WRONLY)
            try:
                while left:
                    written = os.pwrite(file, left, offset)
                    left, offset = left[written:], offset + written
            finally:
                os.close(file)
        except OSError as error:
            raise SealError(
                f"cannot write {self.path}: {error.strerror}",
                expected="a writable disk with room for all tokens",
                do="free some space or set SEAL_HOME to another disk, then run again: it goes on from here",
            ) from error

    def whole(self) -> Tensor:
        """All tokens in memory, [1 + views, pairs, T, D]."""
        return _tensor(np.load(self.path), self.dtype)


def _tensor(array: np.ndarray, dtype: str) -> Tensor:
    return torch.from_numpy(array).view(DTYPES[dtype]) if dtype == "bfloat16" else torch.from_numpy(array)


def _array(tokens: Tensor, dtype: str) -> np.ndarray:
    tokens = tokens.to(DTYPES[dtype]).cpu()
    return tokens.view(torch.uint16).numpy() if dtype == "bfloat16" else tokens.numpy()


def build(
    folder: Path,
    made: Made,
    shape: tuple[int, int],
    token_shape: Callable[[], tuple[int, int]],
    dtype: str,
    stream: Stream,
    size: int,
) -> TokenFile:
    """Write tokens unless they are there and current; goes on where a killed run stopped.

    Parameters
    ----------
    shape
        Views (the plain one among them) and pairs.
    token_shape
        Gives T and D; asked only if something must be written.
    stream
        Makes tokens; asked for parts of `size` rows, a share of them in each process.

    Raises
    ------
    SealError
        Tokens too large for their dtype, or a full disk.
    """
    if made.is_current(folder / "tokens.json"):
        return TokenFile(folder, dtype)
    partial = folder.with_name(f".{folder.name}.{made.key[:12]}.{size}.part")
    with parallel.main_first() as main:
        if main and not made.is_current(folder / "tokens.json"):
            _prepare(folder, partial, (*shape, *token_shape()), dtype, size)
    if partial.is_dir():
        _fill(partial, dtype, stream, size)
    parallel.state().wait_for_everyone()
    if parallel.is_main() and partial.is_dir():
        _require_done(partial)
        write_json(partial / "tokens.json", made.stamp() | {"dtype": dtype})
        swap(partial, folder)
        (folder / "done.npy").unlink()
    parallel.state().wait_for_everyone()
    return TokenFile(folder, dtype)


def _require_done(partial: Path) -> None:
    left = int((np.load(partial / "done.npy") == 0).sum())
    if left:
        raise SealError(
            f"{left} parts of {partial} were not made by any process",
            expected="every process to see the same SEAL_HOME",
            do="put SEAL_HOME on a disk that all machines share, then run again: it goes on from here",
        )


def _prepare(folder: Path, partial: Path, shape: tuple[int, ...], dtype: str, size: int) -> None:
    """Make room; what was half-made from something else goes, whole tokens stay until the new are."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for other in folder.parent.glob(f".{folder.name}.*.part"):
        if other != partial:
            shutil.rmtree(other, ignore_errors=True)
    partial.mkdir(exist_ok=True)
    if (partial / "done.npy").is_file():
        return
    require_room(partial, int(np.prod(shape)) * DTYPES[dtype].itemsize, "tokens; see compute.tokens='recompute'")
    np.lib.format.open_memmap(partial / "tokens.npy", "w+", _NUMPY[dtype], shape)
    parts = shape[0] * -(-shape[1] // size)
    temporary = partial / "new.npy"
    np.save(temporary, np.zeros(parts, dtype=np.uint8))
    temporary.rename(partial / "done.npy")


def _fill(partial: Path, dtype: str, stream: Stream, size: int) -> None:
    """Make the parts that are not there yet: this process every k-th of them."""
    from tqdm import tqdm

    tokens = TokenFile(partial, dtype)
    done = np.load(partial / "done.npy", mmap_mode="r+")
    views, pairs = tokens.array.shape[:2]
    per_view = len(done) // views
    mine = range(parallel.state().process_index, len(done), parallel.state().num_processes)
    parts = [part for part in mine if not done[part]]
    requests = [_request(part, per_view, size, pairs) for part in parts]
    made, saved = [], time.monotonic()
    bar = tqdm(requests, desc="trunk", unit="part", disable=None if parallel.is_main() else True)
    for part, (view, rows), values in zip(parts, bar, stream(requests), strict=True):
        kept = values.to(DTYPES[dtype])
        if not torch.isfinite(kept).all():
            raise SealError(
                f"a token of {values.abs().max():.3g} does not fit {dtype}",
                expected="finite tokens",
                do="set ComputeSettings.token_dtype to bfloat16 or float32",
            )
        tokens.write(int(view[0]), int(rows[0]), _array(kept, dtype))
        made.append(part)
        if time.monotonic() - saved > PERSIST_SECONDS:
            _persist(tokens, done, made)
            made, saved = [], time.monotonic()
    _persist(tokens, done, made)


def _request(part: int, per_view: int, size: int, pairs: int) -> Request:
    view, block = divmod(part, per_view)
    rows = np.arange(block * size, min((block + 1) * size, pairs))
    return np.full(len(rows), view), rows


def _persist(tokens: TokenFile, done: np.ndarray, made: list[int]) -> None:
    """First the tokens, then the word that they are there."""
    with tokens.path.open("rb") as file:
        os.fsync(file.fileno())
    done[made] = 1
    done.flush()
