"""Stage 2 of the maple profile at its true size, with random weights and patches and nothing prepared."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Patches, make_patches, seconds
from torch import Tensor

from seal import profiles
from seal.models import architecture
from seal.models.encoder_registry import UNI2_H, Geometry
from seal.models.encoders import VisionEncoder
from seal.models.omics import SealOmics
from seal.models.vision import SealVision
from seal.profiles import OmicsSettings, Profile
from seal.train import parallel
from seal.train.batches import RecomputedTokens, TokenSource
from seal.train.loop import Schedule, fit
from seal.train.steps import VisionTask
from seal.train.tokens import Request


@dataclass(frozen=True)
class Setup:
    """Sizes, and what parts share."""

    folder: Path
    pairs: int
    workers: int
    batch: int
    genes: int
    deadline: float
    tiny: bool

    @cached_property
    def profile(self) -> Profile:
        """Maple, with as many workers as asked."""
        compute = replace(profiles.MAPLE.compute, workers=self.workers, tokens="recompute")
        profile = replace(profiles.MAPLE, compute=compute, vision=replace(profiles.MAPLE.vision, batch=self.batch))
        return replace(profile, image_size=28) if self.tiny else profile

    @cached_property
    def encoder(self) -> VisionEncoder:
        """UNI2-h's shape, made where it is used."""
        with torch.device(parallel.device()):
            model = architecture.make_random(UNI2_H, self.profile.image_size, tiny=self.tiny)
        return VisionEncoder(UNI2_H, model).eval()

    @cached_property
    def patches(self) -> Patches:
        """The store: patches on disk."""
        return make_patches(self.folder / "patches.npy", self.profile, self.pairs)

    @property
    def blocks(self) -> int:
        """N."""
        return self.profile.vision.blocks

    @property
    def geometry(self) -> Geometry:
        """The trunk's shape."""
        return UNI2_H.geometry.tiny() if self.tiny else UNI2_H.geometry

    @property
    def words(self) -> str:
        """What is computed, in words."""
        name = "UNI2-h's geometry" + (", tiny" if self.tiny else "")
        return f"{name}, random weights, {self.profile.image_size} px, N {self.blocks}, bfloat16, batch {self.batch}"

    @property
    def patch_bytes(self) -> int:
        """Bytes of one patch's kept tokens."""
        return int(np.prod(self.encoder.token_shape)) * 2

    def images(self, n: int) -> Tensor:
        """Preprocessed images."""
        size = self.profile.image_size
        draw = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=draw)
        return self.encoder.preprocess(images.to(parallel.device()))

    def recomputed(self) -> RecomputedTokens:
        """Tokens made anew from the store each time."""
        source = RecomputedTokens(self.patches, "key")
        source.encoder = self.encoder
        return source

    def task(self, source: TokenSource, n: int) -> VisionTask:
        """Stage 2 with every setting at the profile's value."""
        torch.manual_seed(0)
        omics = SealOmics(
            self.genes, self.encoder.dim, OmicsSettings(), torch.zeros(self.genes), torch.ones(self.genes)
        )
        model = SealVision(self.encoder.fork(self.blocks), omics, self.profile.vision).to(parallel.device())
        x = torch.rand(n, self.genes, device=parallel.device())
        return VisionTask(model, source, np.arange(n), x, self.profile.compute.precision)

    def epoch(self, source: TokenSource, n: int, epochs: int = 1) -> tuple[float, list[float]]:
        """Train over n rows; seconds of the loop alone, and the losses."""
        task = self.task(source, n)
        schedule = Schedule(epochs, self.batch, 1e-4, 0.2, 0)
        log: list[dict] = []
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)  # an epoch of over a minute leaves one of the same key
        taken = seconds(lambda: log.extend(fit(task, schedule, self.folder, "key", type(source).__name__)))
        return taken, [entry["total"] for entry in log]

    def remaining(self) -> float:
        """Seconds until the session must end."""
        return self.deadline - time.monotonic()


class Resident(TokenSource):
    """Tokens that lie where they are computed with, [1, n, T, D]."""

    def __init__(self, pairs: Any, held: Tensor) -> None:
        super().__init__(pairs, "key")
        self.held = held

    def stream(self, requests: Sequence[Request]) -> Iterator[Tensor]:
        """Pick each request's tokens."""
        for views, rows in requests:
            where = [torch.from_numpy(index).to(self.held.device) for index in (views, rows)]
            yield self.held[where[0], where[1]]
