"""The frozen trunk's tokens on disk: what they are made from, and one file, written by one process or many.

A folder holds one tokens.npy, [1 + views, pairs, T, D] (bfloat16 as uint16, which numpy lacks), written in parts;
tokens.json, written last, makes it whole. Until then the folder has a hidden name, and done.npy says which parts are
there. `seal.train.batches` says what is written here, and reads it.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seal.data.pairs import Pairs
from seal.data.store import RowFile, create, read_layout
from seal.errors import SealError
from seal.files import Made, find_partial, progress, require_room, swap, write_json
from seal.models import weights
from seal.train import parallel

VERSION = 1  # counted up when the same patches and settings give other tokens
# Of a profile, what its tokens depend on.
SETTINGS = (
    *("source", "source_settings", "selection", "image_size", "um_per_px", "panel__min_spot_counts", "encoder"),
    *("panel__min_gene_counts", "panel__rare_genes"),  # where rare genes are dropped, a spot may have no counts left
    *("vision__blocks", "vision__views", "compute__token_dtype", "compute__precision"),
)
AUGMENTATION_SEED = 42  # release's seed; the views are the same for every fold and training seed
CHUNK = {"cpu": 64, "cuda": 256}  # patches a forward pass
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PERSIST_SECONDS = 30.0  # how often what is done is made sure of on disk

Request = tuple[np.ndarray, np.ndarray]  # views and rows, int64 [B] each; what comes back is [B, T, D]
Stream = Callable[[Sequence[Request]], Iterator[Sequence[Tensor]]]  # of each request one result a file


def made_from(pairs: Pairs) -> Made:
    """Everything that a profile's tokens depend on, kept or not."""
    profile = pairs.profile
    parts = {
        "patches": pairs.digest_of("patches.npy"),
        "encoder": profile.encoder,
        "weights": weights.fingerprint(profile.encoder),
        "image_size": profile.image_size,
        "blocks": profile.vision.blocks,
        "views": profile.vision.views,
        "augmentation": AUGMENTATION_SEED,
        "token_dtype": profile.compute.token_dtype,
        "precision": profile.compute.precision,
    }
    return Made("tokens", VERSION, parts)


@dataclass(frozen=True)
class TokenFile:
    """A tokens.npy of the dtype that `ComputeSettings.token_dtype` names."""

    folder: Path
    dtype: str

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "tokens.npy"

    @cached_property
    def rows(self) -> RowFile:
        """[1 + views, pairs, T, D]: a row for each view and pair."""
        return RowFile(self.path, _numpy_dtype(self.dtype), read_layout(self.path)[2][2:])

    def read(self, views: np.ndarray, rows: np.ndarray) -> Tensor:
        """Read some tokens, [B, T, D], into memory of their own."""
        return self._as_tensor(self.rows.read(views * self.rows.shape[1] + rows))

    def read_all(self) -> Tensor:
        """All tokens in memory, [1 + views, pairs, T, D]."""
        return self._as_tensor(np.load(self.path))

    def _as_tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).view(DTYPES[self.dtype])

    def write(self, view: int, row: int, tokens: Tensor) -> None:
        """Put the tokens of consecutive rows of a view, [B, T, D], in their place; all must fit the dtype."""
        kept = tokens.to(DTYPES[self.dtype])
        if not torch.isfinite(kept).all():
            raise SealError(
                f"a token of {tokens.abs().max():.3g} does not fit {self.dtype}",
                expected="finite tokens",
                do="set ComputeSettings.token_dtype to bfloat16 or float32",
            )
        kept = kept.cpu().view(torch.uint16) if self.dtype == "bfloat16" else kept.cpu()
        self.rows.write(view * self.rows.shape[1] + row, kept.numpy())


def _numpy_dtype(dtype: str) -> np.dtype:
    return np.dtype(np.uint16 if dtype == "bfloat16" else dtype)


@dataclass(frozen=True)
class Wanted:
    """Tokens that shall lie in a folder: made from what, and what gives T and D, asked only if they must be made."""

    folder: Path
    made: Made
    token_shape: Callable[[], tuple[int, int]]


def write_tokens(wanted: Sequence[Wanted], shape: tuple[int, int], dtype: str, make: Callable[..., Stream]) -> None:
    """Write what is not there and current, all of it in one pass; goes on where a killed run stopped.

    Parameters
    ----------
    shape
        Views, the plain one among them, and pairs.
    make
        Gives the stream of some of `wanted`, by their positions: of each request one tensor for each of these.
    """
    with ExitStack() as stack:
        current = [stack.enter_context(parallel.one_maker(w.made, w.folder / "tokens.json")) for w in wanted]
        missing = [i for i, there in enumerate(current) if not there]
        if not missing:
            return
        size, own = CHUNK[parallel.device().type], [wanted[i] for i in missing]
        with parallel.main_first() as main:
            found = [find_partial(w.folder, w.made, f".{size}") for w in own]
            for w, (partial, _) in zip(own, found, strict=True) if main else ():
                _prepare(partial, (*shape, *w.token_shape()), dtype, size)
        if all(partial.is_dir() for partial, _ in found):  # they are not where a process sees another disk
            _fill([TokenFile(partial, dtype) for partial, _ in found], make(missing), size)
        parallel.state().wait_for_everyone()
        for w, (partial, made) in zip(own, found, strict=True) if main else ():
            if left := int((np.load(partial / "done.npy") == 0).sum()):
                raise parallel.explain_other_disk(f"{left} parts of {partial} were not made by any process")
            write_json(partial / "tokens.json", made.stamp() | {"dtype": dtype})
            swap(partial, w.folder)
            (w.folder / "done.npy").unlink()
        parallel.state().wait_for_everyone()


def _prepare(partial: Path, shape: tuple[int, ...], dtype: str, size: int) -> None:
    partial.mkdir(parents=True, exist_ok=True)
    if (partial / "done.npy").is_file():
        return
    require_room(partial, math.prod(shape) * DTYPES[dtype].itemsize, "tokens; see compute.tokens='recompute'")
    create(partial / "tokens.npy", _numpy_dtype(dtype), shape)
    create(partial / "done.npy", np.uint8, (shape[0] * -(-shape[1] // size),))


def _fill(files: Sequence[TokenFile], stream: Stream, size: int) -> None:
    """Make the parts that are not there in every file: this process every k-th of them."""
    done = [np.load(tokens.folder / "done.npy", mmap_mode="r+") for tokens in files]
    views, pairs = files[0].rows.shape[:2]
    blocks = [np.arange(start, min(start + size, pairs)) for start in range(0, pairs, size)]
    every = [(np.full(len(rows), view), rows) for view in range(views) for rows in blocks]
    mine = range(parallel.state().process_index, len(every), parallel.state().num_processes)
    parts = [part for part in mine if not all(each[part] for each in done)]
    requests = [every[part] for part in parts]
    made, saved = [], time.monotonic()
    with progress("trunk", len(parts), "part") as advance:
        for part, (view, rows), values in zip(parts, requests, stream(requests), strict=True):
            for tokens, value in zip(files, values, strict=True):
                tokens.write(int(view[0]), int(rows[0]), value)
            made.append(part)
            advance()
            if time.monotonic() - saved > PERSIST_SECONDS:
                _persist(files, done, made)
                made, saved = [], time.monotonic()
    _persist(files, done, made)


def _persist(files: Sequence[TokenFile], done: Sequence[np.ndarray], made: list[int]) -> None:
    """First the tokens, then the word that they are there."""
    for tokens, of_file in zip(files, done, strict=True):
        tokens.rows.sync()
        of_file[made] = 1
        of_file.flush()
