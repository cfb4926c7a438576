"""Patches of a whole slide: a grid over its tissue at a stated um/px, read in batches."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seal.errors import SealError
from seal.slides.image import SlideImage
from seal.slides.tissue import Tissue, TissueSettings, find_tissue

SQUARE = 0.01  # by how much the sides of a pixel may differ
PLAUSIBLE = (0.05, 10.0)  # um/px; 72 and 96 dpi, which image programs write unasked, are 353 and 265
ENLARGED = 2.0  # how much coarser than asked for a slide may be


@dataclass(frozen=True)
class PatchSettings:
    """Which patches are taken."""

    um_per_px: float = 0.5
    size: int = 224  # px a side, at um_per_px
    overlap: int = 0  # px, at um_per_px
    tissue_share: float = 0.5  # least share of tissue in a patch; our choice, as the simulated slides have it
    tissue: TissueSettings = field(default_factory=TissueSettings)

    def __post_init__(self) -> None:
        if not 0 < self.um_per_px < np.inf or self.size < 1 or not 0 <= self.overlap < self.size:
            raise SealError(
                f"patches of {self.size} px at {self.um_per_px:g} um/px that overlap by {self.overlap} px",
                expected="um/px above 0, a size of 1 px or more, an overlap of 0 px or more and less than the size",
                do="change --um-per-px, --size or --overlap",
            )


def find_um_per_px(image: SlideImage, stated: float | None = None) -> float:
    """Give the um/px of a slide's full resolution.

    Parameters
    ----------
    stated
        Taken instead of what the file says; where they differ, stderr says so.

    Raises
    ------
    SealError
        Nothing is stated, and the file does not say it, its value is none of a slide or its pixels are not square; or
        what is stated is none of a slide.
    """
    if stated is None:
        return _read_um_per_px(image)
    own = image.um_per_px
    if own and max(abs(value - stated) for value in own) > SQUARE * stated:
        print(f"{image.path} says {own[0]:g} x {own[1]:g} um/px; {stated:g} is taken, as stated", file=sys.stderr)
    return require_plausible(image.path, stated, "as stated")


def _read_um_per_px(image: SlideImage) -> float:
    found = image.um_per_px
    if found is None:
        raise SealError(
            f"{image.path} does not say how large its pixels are",
            expected="openslide.mpp-x and openslide.mpp-y, or a TIFF's resolution, in the file",
            do="state it with --slide-um-per-px (often 0.25 for a 40x and 0.5 for a 20x scan; its scanner's log knows)",
        )
    x, y = (require_plausible(image.path, value, "in its file") for value in found)
    if abs(x - y) > SQUARE * min(x, y):
        raise SealError(
            f"{image.path} has pixels of {x:g} x {y:g} um",
            expected=f"square pixels (sides within {SQUARE:.0%})",
            do="state --slide-um-per-px if one of the two is wrong; else resample the slide",
        )
    return (x + y) / 2


def require_plausible(whose: object, value: float, where: str) -> float:
    """Give um/px back that a slide can have; else raise SealError."""
    if not PLAUSIBLE[0] <= value <= PLAUSIBLE[1]:
        raise SealError(
            f"{whose} has {value:g} um/px, {where}",
            expected=f"{PLAUSIBLE[0]:g} to {PLAUSIBLE[1]:g} um/px (programs that are not a scanner's write any value)",
            do="state the right one with --slide-um-per-px",
        )
    return value


def lay_grid(image: SlideImage, slide_um_per_px: float, settings: PatchSettings) -> np.ndarray:
    """Corners of all patches that lie wholly in the image, from its upper left corner, columns first.

    Patch k of a row begins at round(k (size - overlap) um_per_px / slide_um_per_px): a rounded exact place, so that
    no error grows along the row.

    Returns
    -------
    int64 [n, 2], (x, y) of the upper left corners, level-0 px.

    Raises
    ------
    SealError
        The slide is smaller than a patch, or too coarse for it.
    """
    if slide_um_per_px > ENLARGED * settings.um_per_px:
        raise SealError(
            f"{image.path} has {slide_um_per_px:g} um/px: patches at {settings.um_per_px:g} would be invented",
            expected=f"a slide of {ENLARGED * settings.um_per_px:g} um/px or finer",
            do="ask for a larger --um-per-px",
        )
    scale = settings.um_per_px / slide_um_per_px
    side, step = settings.size * scale, (settings.size - settings.overlap) * scale
    along = [np.rint(np.arange(int(n / step) + 1) * step) for n in (image.width, image.height)]
    columns, rows = (v[v + side <= n + 0.5] for v, n in zip(along, (image.width, image.height), strict=True))
    if not len(columns) or not len(rows):
        raise SealError(
            f"{image.path} is {image.width} x {image.height} px, smaller than one patch of {side:.0f} px",
            expected="room for a patch",
            do="ask for a smaller --size, or check the slide's um/px",
        )
    return np.stack(np.meshgrid(columns, rows, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.int64)


class Patches:
    """Patches of one slide, read when they are asked for.

    Attributes
    ----------
    image, path
        The slide and its file.
    coords
        int64 [n, 2], (x, y) of the upper left corners, level-0 px.
    side
        Of a patch, level-0 px; not whole in general.
    size
        Of a patch as it is read, px.
    """

    def __init__(self, image: SlideImage, coords: np.ndarray, side: float, size: int) -> None:
        self.image, self.path = image, image.path
        self.coords, self.side, self.size = coords, side, size

    def __len__(self) -> int:
        return len(self.coords)

    def __getitem__(self, index: int) -> np.ndarray:
        """Read one patch, uint8 [size, size, 3]."""
        x, y = self.coords[index].tolist()
        # A rounded corner and a side that is not whole may reach past the border by less than a pixel.
        width, height = min(self.side, self.image.width - x), min(self.side, self.image.height - y)
        return self.image.area(x, y, width, height, (self.size, self.size))

    def batches(self, size: int, threads: int = 1) -> Iterator[np.ndarray]:
        """Read all patches in order, the next batch while one is in use.

        Parameters
        ----------
        threads
            That read at once: OpenSlide decodes outside of Python's lock.

        Returns
        -------
        Batches, uint8 [<= size, size of a patch, size of a patch, 3].
        """
        starts = range(0, len(self), size)
        with ThreadPoolExecutor(threads) as pool:

            def read(start: int) -> list:
                return [pool.submit(self.__getitem__, i) for i in range(start, min(start + size, len(self)))]

            coming = read(0)
            for start in starts:
                ready, coming = coming, read(start + size)
                yield np.stack([one.result() for one in ready])


class Extraction(NamedTuple):
    """What `extract` gives."""

    patches: Patches  # those with a share of tissue of `PatchSettings.tissue_share` or more
    tissue: Tissue
    um_per_px: float  # of level 0


def extract(path: Path, settings: PatchSettings = PatchSettings(), slide_um_per_px: float | None = None) -> Extraction:
    """Find a slide's tissue and lay patches over it.

    Parameters
    ----------
    slide_um_per_px
        See `find_um_per_px`.

    Raises
    ------
    SealError
        The slide cannot be read, does not say its um/px, is blank, or has no room for a patch on its tissue.
    """
    image = SlideImage(path)
    own = find_um_per_px(image, slide_um_per_px)
    corners, side = lay_grid(image, own, settings), settings.size * settings.um_per_px / own
    tissue = find_tissue(image, own, settings.tissue)
    kept = corners[tissue.share_of(corners, side) >= settings.tissue_share]  # [n, 2]
    if not len(kept):
        raise SealError(
            f"{path} has no patch of {settings.size} px with tissue on {settings.tissue_share:.0%} or more",
            expected="tissue larger than a patch",
            do="ask for a smaller --size",
        )
    return Extraction(Patches(image, kept, side, settings.size), tissue, own)
