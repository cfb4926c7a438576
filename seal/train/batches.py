"""How patches, or the tokens kept of them, become batches on the GPU.

The way there: h5 of a source -> `seal.data.assemble_sample` -> patches.npy, rows that `seal.data.store` reads ->
`seal.data.pairs` -> here, [B, T, D] on this process's device -> `seal.train.steps`.

Only the last blocks of the encoder have trainable weights, so everything before them, the trunk, is a constant of the
patch. Three ways to have that constant, one face (`TokenSource`), the same numbers: on disk (`seal.train.tokens`), read
row by row; the same held in memory; or nothing kept, each batch's patches augmented and sent through the trunk when
they are needed. View 0 is the plain patch; views 1, 2, ... are augmented, each a function of its number and the patch
alone.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seal import paths
from seal.data.augment import augmented
from seal.data.pairs import Pairs
from seal.files import read_json
from seal.models import encoders
from seal.models.encoder_registry import find_spec
from seal.models.encoders import VisionEncoder
from seal.profiles import Profile, difference
from seal.train import parallel
from seal.train.tokens import (
    AUGMENTATION_SEED,
    CHUNK,
    DTYPES,
    SETTINGS,
    Request,
    Stream,
    TokenFile,
    Wanted,
    made_from,
    write_tokens,
)


class TokenSource(ABC):
    """Trunk tokens of a profile's pairs; `key`: of all that they depend on, the same whether they are kept or not."""

    def __init__(self, pairs: Pairs, key: str) -> None:
        self.pairs = pairs
        self.key = key
        self._others: dict[str, TokenSource] = {}  # of other settings, by what differs

    def of(self, pairs: Pairs) -> "TokenSource":
        """The source of these pairs' tokens: itself, or where their settings ask for others one that is made once."""
        if (other := difference(pairs.profile, SETTINGS)) == difference(self.pairs.profile, SETTINGS):
            return self
        if other not in self._others:
            self._others[other] = build(pairs)
        return self._others[other]

    @cached_property
    def encoder(self) -> VisionEncoder:
        """The pretrained encoder on this process's device; read once, its trunk shared by all that is trained."""
        profile = self.pairs.profile
        return encoders.build(profile.encoder, image_size=profile.image_size).to(parallel.device())

    @cached_property
    def frozen(self) -> np.ndarray:
        """Embeddings of all plain patches by the encoder as it came, float32 [pairs, d]; computed once a process."""
        return embed({"frozen": self.encoder}, self)["frozen"]

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

    def __init__(self, pairs: Pairs, key: str, file: TokenFile, *, held: bool) -> None:
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
        after = self.encoder.depth - self.pairs.profile.vision.blocks
        return (tokens for (tokens,) in self.stream_several(requests, (after,)))

    def stream_several(self, requests: Sequence[Request], after: Sequence[int]) -> Iterator[list[Tensor]]:
        """Give the tokens after several numbers of blocks, as `stream` does after its own."""
        from torch.utils.data import DataLoader

        compute = self.pairs.profile.compute
        more = {"prefetch_factor": 2, "pin_memory": parallel.device().type == "cuda"} if compute.workers else {}
        patches = _Patches(self.pairs, requests)
        loader = DataLoader(patches, batch_size=None, num_workers=compute.workers, **more)
        yield from (self.trunks(images, after) for images in loader)

    @torch.no_grad()
    def trunks(self, images: Tensor, after: Sequence[int]) -> list[Tensor]:
        """Tokens of uint8 images, [B, T, D], rounded as keeping them does, in the dtype that the tail computes in."""
        compute, parts = self.pairs.profile.compute, []
        self.encoder.eval()
        for part in images.split(CHUNK[parallel.device().type]):
            with parallel.autocast(compute.precision):
                part = self.encoder.preprocess(part.to(parallel.device(), non_blocking=True))  # [B, 3, S, S]
                tokens = self._run(part, after)
            kept = [each.to(DTYPES[compute.token_dtype]) for each in tokens]
            parts.append([each.to(parallel.PRECISIONS[compute.precision]) for each in kept])
        return [torch.cat(each) for each in zip(*parts, strict=True)]

    @cached_property
    def _run(self) -> Callable[[Tensor, Sequence[int]], list[Tensor]]:
        """The encoder's trunk, compiled if the profile says so."""
        return torch.compile(self.encoder.trunks) if self.pairs.profile.compute.compile else self.encoder.trunks


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


def build(pairs: Pairs) -> TokenSource:
    """Give a profile's tokens: made now, read if they are there and current, or recomputed on the way.

    Where tokens are made, those of the profile's further encoders that share its trunk are made in the same pass.

    Raises
    ------
    SealError
        Tokens that overflow their dtype; a full disk.
    """
    maker, kind = RecomputedTokens(pairs, made_from(pairs).key), choose(pairs)
    if kind == "recompute":
        return maker
    _keep_tokens([maker, *_find_relatives(pairs)])
    folder, dtype = _folder(pairs.profile), pairs.profile.compute.token_dtype
    key = read_json(folder / "tokens.json")["key"]
    source = StoredTokens(pairs, key, TokenFile(folder, dtype), held=kind == "memory")
    if "encoder" in maker.__dict__:
        source.encoder = maker.encoder
    return source


def _find_relatives(pairs: Pairs) -> list[RecomputedTokens]:
    """What makes the tokens of the further encoders that are cut from the same as the profile's own."""
    own, further = find_spec(pairs.profile.encoder).file_name, pairs.profile.further_encoders
    shared = [name for name in further if find_spec(name).file_name == own]
    others = [other for other in pairs.by_encoder() if other.profile.encoder in shared] if shared else []
    return [RecomputedTokens(other, made_from(other).key) for other in others if choose(other) != "recompute"]


def _folder(profile: Profile) -> Path:
    return paths.tokens(profile.name, difference(profile, SETTINGS))


def _keep_tokens(makers: Sequence["RecomputedTokens"]) -> None:
    """Write the tokens of encoders that share a trunk, in one pass of the deepest whose tokens are lacking."""
    profile = makers[0].pairs.profile
    wanted = [Wanted(_folder(m.pairs.profile), made_from(m.pairs), lambda m=m: m.encoder.token_shape) for m in makers]

    def make(missing: Sequence[int]) -> Stream:
        cuts = {i: makers[i].encoder.depth - makers[i].pairs.profile.vision.blocks for i in missing}
        deepest = makers[max(cuts, key=cuts.get)]
        return lambda requests: deepest.stream_several(requests, tuple(cuts.values()))

    shape = (1 + profile.vision.views, makers[0].pairs.n_pairs)
    write_tokens(wanted, shape, profile.compute.token_dtype, make)


def find(pairs: Pairs) -> TokenSource:
    """Give a profile's tokens to who needs their encoder and their key alone: none is made or read until asked for."""
    made = made_from(pairs)
    record = _folder(pairs.profile) / "tokens.json"
    kept = choose(pairs) != "recompute" and made.is_current(record)  # perhaps by another version, see `Made.matches`
    return RecomputedTokens(pairs, read_json(record)["key"] if kept else made.key)


def choose(pairs: Pairs) -> str:
    """Where a profile's tokens are kept: what it says, or by size if it says "auto"."""
    compute = pairs.profile.compute
    if compute.tokens != "auto":
        return compute.tokens
    size, here = gigabytes(pairs), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # each process would hold its own
    return "memory" if size * here <= compute.memory_gb else "disk" if size <= compute.disk_gb else "recompute"


def gigabytes(pairs: Pairs) -> float:
    """Size of all views' tokens, 10^9 bytes."""
    profile = pairs.profile
    geometry = encoders.find_spec(profile.encoder).geometry
    tokens = 1 + geometry.registers + (profile.image_size // geometry.patch) ** 2
    width = DTYPES[profile.compute.token_dtype].itemsize
    return (1 + profile.vision.views) * pairs.n_pairs * tokens * geometry.width * width / 1e9


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
