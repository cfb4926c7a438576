"""The frozen trunk runs once; its tokens are kept.

Only the last blocks of the encoder have trainable weights, so everything before them is a constant of the
patch. `tokens` keeps that constant for the plain patch (view 0) and a few augmented views.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seal import dependencies, paths
from seal.data.augment import augmented
from seal.data.pairs import Pairs
from seal.errors import SealError
from seal.files import atomic, digest, read_json, write_json
from seal.models import encoders
from seal.models.encoders import VisionEncoder

CHUNK = 64  # patches a forward pass of the trunk
AUGMENTATION_SEED = 42  # release's seed; the views are the same for every fold and training seed


def device() -> torch.device:
    """The first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class TokenStore:
    """Trunk tokens of all pairs, [1 + views, pairs, T, D], memory-mapped; view 0 is the plain patch."""

    folder: Path
    key: str

    @cached_property
    def array(self) -> np.ndarray:
        """The memory map."""
        return np.load(self.folder / "tokens.npy", mmap_mode="r")

    @property
    def views(self) -> int:
        """Augmented views kept beside the plain one."""
        return len(self.array) - 1

    def batch(self, views: np.ndarray, rows: np.ndarray) -> Tensor:
        """Tokens of one view a row, float32 [B, T, D]."""
        return torch.from_numpy(self.array[views, rows].astype(np.float32))


def build(pairs: Pairs) -> TokenStore:
    """Make the tokens of a profile's encoder, or read them if they are there and current."""
    profile = pairs.profile
    vision = profile.vision
    if vision.token_dtype not in ("float32", "float16"):
        raise SealError(
            f"unknown token dtype {vision.token_dtype!r}",
            expected="'float32' or 'float16'",
            do="set VisionSettings.token_dtype",
        )
    spec = [profile.encoder, profile.image_size, vision.blocks, vision.views, vision.token_dtype]
    key = digest([pairs.key, spec, AUGMENTATION_SEED, dependencies.code_digest(["seal.tokens"])])
    folder = paths.tokens(profile.name)
    if not (folder / "tokens.json").is_file() or read_json(folder / "tokens.json")["key"] != key:
        encoder = encoders.build(profile.encoder, image_size=profile.image_size)
        with atomic(folder) as temporary:
            temporary.mkdir()
            _write(temporary / "tokens.npy", pairs, encoder)
            write_json(temporary / "tokens.json", {"key": key, "encoder": profile.encoder})
    return TokenStore(folder, key)


@torch.no_grad()
def _write(path: Path, pairs: Pairs, encoder: VisionEncoder) -> None:
    from tqdm import tqdm

    vision = pairs.profile.vision
    encoder = encoder.to(device()).eval()
    store = None
    shape = (1 + vision.views, pairs.n_pairs)
    with tqdm(total=shape[0] * shape[1], desc="trunk", unit="patch") as bar:
        for view in range(1 + vision.views):
            for rows in _chunks(pairs.n_pairs):
                images = augmented(pairs.patches[rows], rows, view, AUGMENTATION_SEED)
                tokens = encoder.trunk(encoder.preprocess(images).to(device()), vision.blocks).cpu().numpy()
                if store is None:
                    dtype = np.dtype(vision.token_dtype)
                    store = np.lib.format.open_memmap(path, "w+", dtype, (*shape, *tokens.shape[1:]))
                store[view, rows] = tokens
                bar.update(len(rows))
    store.flush()


def _chunks(n: int) -> Iterator[np.ndarray]:
    for start in range(0, n, CHUNK):
        yield np.arange(start, min(start + CHUNK, n))


@torch.no_grad()
def embed_tokens(encoder: VisionEncoder, store: TokenStore, blocks: int) -> np.ndarray:
    """Embeddings of the plain patches from their tokens, float32 [pairs, d]."""
    encoder = encoder.to(device()).eval()
    parts = []
    for rows in _chunks(store.array.shape[1]):
        tokens = store.batch(np.zeros(len(rows), dtype=np.int64), rows).to(device())
        parts.append(encoder.tail(tokens, blocks).cpu().numpy())
    return np.concatenate(parts)


@torch.no_grad()
def embed_patches(encoder: VisionEncoder, patches: np.ndarray, description: str) -> np.ndarray:
    """Embeddings straight from patches, the plain twin of `embed_tokens`, float32 [n, d]."""
    from tqdm import tqdm

    encoder = encoder.to(device()).eval()
    parts = []
    for rows in tqdm(list(_chunks(len(patches))), desc=description):
        parts.append(encoder(encoder.preprocess(np.ascontiguousarray(patches[rows])).to(device())).cpu().numpy())
    return np.concatenate(parts)
