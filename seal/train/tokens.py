"""The frozen trunk's tokens: kept, or computed anew each time; the same numbers either way.

Only the last blocks of the encoder have trainable weights, so everything before them is a constant of the
patch. Three ways to have that constant, one face (`TokenSource`): on disk, read row by row; the same held in
memory; or nothing kept, each batch's patches augmented and sent through the trunk when they are needed. View 0
is the plain patch; views 1, 2, ... are augmented, each a function of its number and the patch alone.

On disk they are one tokens.npy, [1 + views, pairs, T, D] (bfloat16 as uint16, which numpy lacks), written in parts by
one process or many; tokens.json, written last, makes the folder whole. Until then the folder has a hidden name, and
done.npy says which parts are there.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seal import paths
from seal.data.augment import augmented
from seal.data.pairs import Pairs
from seal.data.store import RowFile, create, read_layout
from seal.errors import SealError
from seal.files import Made, find_partial, read_json, require_room, swap, write_json
from seal.models import encoders, weights
from seal.models.encoders import VisionEncoder
from seal.profiles import difference
from seal.train import parallel

VERSION = 1  # counted up when the same patches and settings give other tokens
# Of a profile, what its tokens depend on.
SETTINGS = (
    *("source", "source_settings", "selection", "image_size", "um_per_px", "panel__min_spot_counts", "encoder"),
    *("vision__blocks", "vision__views", "compute__token_dtype", "compute__precision"),
)
AUGMENTATION_SEED = 42  # release's seed; the views are the same for every fold and training seed
CHUNK = {"cpu": 64, "cuda": 256}  # patches a forward pass
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
PERSIST_SECONDS = 30.0  # how often what is done is made sure of on disk

Request = tuple[np.ndarray, np.ndarray]  # views and rows, int64 [B] each; what comes back is [B, T, D]
Stream = Callable[[Sequence[Request]], Iterator[Tensor]]


class TokenSource(ABC):
    """Trunk tokens of a profile's pairs; `key`: of all that they depend on, the same whether they are kept or not."""

    def __init__(self, pairs: Pairs, key: str) -> None:
        self.pairs = pairs
        self.key = key

    @property
    def views(self) -> int:
        """Augmented views beside the plain one."""
        return self.pairs.profile.vision.views

    @cached_property
    def encoder(self) -> VisionEncoder:
        """The pretrained encoder on this process's device; read once, its trunk shared by all that is trained."""
        profile = self.pairs.profile
        return encoders.build(profile.encoder, image_size=profile.image_size).to(parallel.device())

    @abstractmethod
    def stream(self, requests: Sequence[Request]) -> Iterator[Tensor]:
        """Tokens of each request in turn, [B, T, D] on this process's device, read ahead."""

    def plain(self, rows: np.ndarray | None = None) -> Iterator[Tensor]:
        """Tokens of plain patches, all of them by default, in pieces."""
        rows = np.arange(self.pairs.n_pairs) if rows is None else rows
        size = CHUNK[parallel.device().type]
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        return self.stream([(np.zeros(len(part), dtype=np.int64), part) for part in parts])


class StoredTokens(TokenSource):
    """Tokens that lie on disk, in memory too if `held`."""

    def __init__(self, pairs: Pairs, key: str, file: "TokenFile", *, held: bool) -> None:
        super().__init__(pairs, key)
        self.file = file
        self._held = file.read_all() if held else None

    def stream(self, requests: Sequence[Request]) -> Iterator[Tensor]:
        """Read each request's tokens; from disk in a thread, one request ahead of the one in use."""
        if self._held is not None:
            yield from map(self._read, requests)
            return
        with ThreadPoolExecutor(max_workers=1) as reader:
            coming = []
            for request in requests:
                coming.append(reader.submit(self._read, request))
                if len(coming) > 1:
                    yield coming.pop(0).result()
            yield from (last.result() for last in coming)

    def _read(self, request: Request) -> Tensor:
        if self._held is None:
            found = self.file.read(*request)
        else:
            found = self._held[torch.from_numpy(request[0]), torch.from_numpy(request[1])]
        return found.to(parallel.device(), parallel.PRECISIONS[self.pairs.profile.compute.precision], non_blocking=True)


class RecomputedTokens(TokenSource):
    """Tokens that are computed each time they are asked for; nothing is kept."""

    def stream(self, requests: Sequence[Request]) -> Iterator[Tensor]:
        """Augment each request's patches (in other processes if the profile says so) and run the trunk."""
        from torch.utils.data import DataLoader

        compute = self.pairs.profile.compute
        more = {"prefetch_factor": 2, "pin_memory": parallel.device().type == "cuda"} if compute.workers else {}
        patches = _Patches(self.pairs, requests)
        yield from map(self.trunk, DataLoader(patches, batch_size=None, num_workers=compute.workers, **more))

    @torch.no_grad()
    def trunk(self, images: Tensor) -> Tensor:
        """Tokens of uint8 images, [B, T, D], rounded as keeping them does, in the dtype that the tail computes in."""
        compute, parts = self.pairs.profile.compute, []
        self.encoder.eval()
        for part in images.split(CHUNK[parallel.device().type]):
            with parallel.autocast(compute.precision):
                part = self.encoder.preprocess(part.to(parallel.device(), non_blocking=True))  # [B, 3, S, S]
                tokens = self._run(part, self.pairs.profile.vision.blocks)
            parts.append(tokens.to(DTYPES[compute.token_dtype]).to(parallel.PRECISIONS[compute.precision]))
        return torch.cat(parts)

    @cached_property
    def _run(self) -> Callable[[Tensor, int], Tensor]:
        """The encoder's trunk, compiled if the profile says so."""
        return torch.compile(self.encoder.trunk) if self.pairs.profile.compute.compile else self.encoder.trunk


class _Patches(torch.utils.data.Dataset):
    """Patches as their views show them, uint8 [B, S, S, 3], one item a request."""

    def __init__(self, pairs: Pairs, requests: Sequence[Request]) -> None:
        self.patches, self.requests = pairs.patches, requests

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, i: int) -> Tensor:
        views, rows = self.requests[i]
        out = torch.empty(len(rows), *self.patches.shape[1:], dtype=torch.uint8)
        for view in np.unique(views):
            where = np.flatnonzero(views == view)
            out[where] = augmented(self.patches.read(rows[where]), rows[where], int(view), AUGMENTATION_SEED)
        return out


# --- making them ------------------------------------------------------------------------------------------


def build(pairs: Pairs) -> TokenSource:
    """Give a profile's tokens: made now, read if they are there and current, or recomputed on the way.

    Raises
    ------
    SealError
        Tokens that overflow their dtype; a full disk.
    """
    profile, made = pairs.profile, _made_from(pairs)
    maker, kind = RecomputedTokens(pairs, made.key), choose(pairs)
    if kind == "recompute":
        return maker
    folder = paths.tokens(profile.name, difference(profile, SETTINGS))
    shape = (1 + profile.vision.views, pairs.n_pairs)
    token_shape = lambda: maker.encoder.token_shape  # noqa: E731 - asked only if something must be made
    file = write_tokens(folder, made, shape, token_shape, profile.compute.token_dtype, maker.stream)
    source = StoredTokens(pairs, read_json(folder / "tokens.json")["key"], file, held=kind == "memory")
    if "encoder" in maker.__dict__:
        source.encoder = maker.encoder
    return source


def choose(pairs: Pairs) -> str:
    """Where a profile's tokens are kept: what it says, or by size if it says "auto"."""
    compute = pairs.profile.compute
    if compute.tokens != "auto":
        return compute.tokens
    size, here = gigabytes(pairs), parallel.processes_here()  # each process would hold its own
    return "memory" if size * here <= compute.memory_gb else "disk" if size <= compute.disk_gb else "recompute"


def gigabytes(pairs: Pairs) -> float:
    """Size of all views' tokens, 10^9 bytes."""
    profile = pairs.profile
    geometry = encoders.find_spec(profile.encoder).geometry
    tokens = 1 + geometry.registers + (profile.image_size // geometry.patch) ** 2
    width = DTYPES[profile.compute.token_dtype].itemsize
    return (1 + profile.vision.views) * pairs.n_pairs * tokens * geometry.width * width / 1e9


def _made_from(pairs: Pairs) -> Made:
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


# --- on disk ----------------------------------------------------------------------------------------------


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


def write_tokens(
    folder: Path,
    made: Made,
    shape: tuple[int, int],
    token_shape: Callable[[], tuple[int, int]],
    dtype: str,
    stream: Stream,
) -> TokenFile:
    """Write what `stream` makes unless it is there and current; goes on where a killed run stopped.

    Parameters
    ----------
    shape, token_shape
        Views (the plain one among them) and pairs; what gives T and D, asked only if something must be written.
    """
    if made.is_current(folder / "tokens.json"):
        return TokenFile(folder, dtype)
    size = CHUNK[parallel.device().type]
    with parallel.main_first() as main:
        partial = find_partial(folder, f"{made.key[:12]}.{size}")
        if main:
            _prepare(partial, (*shape, *token_shape()), dtype, size)
    if partial.is_dir():  # it is not where a process sees another disk
        _fill(TokenFile(partial, dtype), stream, size)
    parallel.state().wait_for_everyone()
    if main:
        if left := int((np.load(partial / "done.npy") == 0).sum()):
            raise parallel.explain_other_disk(f"{left} parts of {partial} were not made by any process")
        write_json(partial / "tokens.json", made.stamp() | {"dtype": dtype})
        swap(partial, folder)
        (folder / "done.npy").unlink()
    parallel.state().wait_for_everyone()
    return TokenFile(folder, dtype)


def _prepare(partial: Path, shape: tuple[int, ...], dtype: str, size: int) -> None:
    partial.mkdir(parents=True, exist_ok=True)
    if (partial / "done.npy").is_file():
        return
    require_room(partial, math.prod(shape) * DTYPES[dtype].itemsize, "tokens; see compute.tokens='recompute'")
    create(partial / "tokens.npy", _numpy_dtype(dtype), shape)
    create(partial / "done.npy", np.uint8, (shape[0] * -(-shape[1] // size),))


def _fill(tokens: TokenFile, stream: Stream, size: int) -> None:
    """Make the parts that are not there yet: this process every k-th of them."""
    from tqdm import tqdm

    done = np.load(tokens.folder / "done.npy", mmap_mode="r+")
    views, pairs = tokens.rows.shape[:2]
    blocks = [np.arange(start, min(start + size, pairs)) for start in range(0, pairs, size)]
    every = [(np.full(len(rows), view), rows) for view in range(views) for rows in blocks]
    mine = range(parallel.state().process_index, len(every), parallel.state().num_processes)
    parts = [part for part in mine if not done[part]]
    requests = [every[part] for part in parts]
    made, saved = [], time.monotonic()
    bar = tqdm(requests, desc="trunk", unit="part", disable=None if parallel.is_main() else True)
    for part, (view, rows), values in zip(parts, bar, stream(requests), strict=True):
        tokens.write(int(view[0]), int(rows[0]), values)
        made.append(part)
        if time.monotonic() - saved > PERSIST_SECONDS:
            _persist(tokens, done, made)
            made, saved = [], time.monotonic()
    _persist(tokens, done, made)


def _persist(tokens: TokenFile, done: np.ndarray, made: list[int]) -> None:
    """First the tokens, then the word that they are there."""
    tokens.rows.sync()
    done[made] = 1
    done.flush()


# --- embedding --------------------------------------------------------------------------------------------


def embed(tails: Mapping[str, VisionEncoder], source: TokenSource) -> dict[str, np.ndarray]:
    """Embed the plain patches of all pairs with several tails of one encoder, name -> float32 [pairs, d]."""
    pieces = list(embed_pieces(tails, source))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in tails}


def embed_pieces(tails: Mapping[str, VisionEncoder], source: TokenSource) -> Iterator[dict[str, np.ndarray]]:
    """Embed as `embed` does, in one pass over the trunk's tokens, and give the rows piece by piece."""
    profile = source.pairs.profile
    for encoder in tails.values():
        encoder.to(parallel.device()).eval()
    for tokens in source.plain():
        with torch.no_grad(), parallel.autocast(profile.compute.precision):
            piece = {name: encoder.tail(tokens, profile.vision.blocks) for name, encoder in tails.items()}  # [B, d]
        yield {name: z.float().cpu().numpy() for name, z in piece.items()}
