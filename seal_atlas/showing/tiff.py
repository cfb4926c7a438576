"""Pyramidal, tiled JPEG TIFF, as HEST-1k and TRIDENT read whole sections: OpenSlide opens it as a generic slide."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numba import njit

from seal.files import atomic

TILE = 256  # px
DESCRIPTION = "SIMULATED tissue; nothing in this picture was measured"


def write_tiff(path: Path, image: np.ndarray, um_per_px: float, quality: int) -> None:
    """Write a picture as a pyramid, each level half the size of the one before, down to one tile.

    The same picture gives the same bytes: no time, no software version.

    Parameters
    ----------
    image
        uint8 [H, W, 3].
    um_per_px
        Of the full resolution; written as the TIFF's resolution, which OpenSlide gives back as mpp.
    quality
        JPEG quality, 1 to 100; chroma is kept at half the resolution, as scanners keep it.
    """
    import tifffile

    levels = _pyramid(image)
    per_cm = 1e4 / um_per_px
    # BigTIFF only where a classic TIFF might not hold it (JPEG is never larger than its pixels in practice).
    with atomic(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=image.nbytes > 2**31) as file:
        for number, level in enumerate(levels):
            scale = 2**number
            file.write(
                _tiles(level, quality),
                shape=level.shape,
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                resolution=(per_cm / scale, per_cm / scale),
                resolutionunit="CENTIMETER",
                subfiletype=int(number > 0),
                description=DESCRIPTION if number == 0 else None,
                software=False,
                metadata=None,
            )


def _pyramid(image: np.ndarray) -> list[np.ndarray]:
    levels = [np.ascontiguousarray(image)]
    while max(levels[-1].shape[:2]) > TILE and min(levels[-1].shape[:2]) > 1:
        levels.append(_halved(levels[-1]))
    return levels


@njit(cache=True, nogil=True)
def _halved(image):
    """Mean of each 2 x 2 pixels, rounded; an odd last row or column is dropped."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    out = np.empty((height, width, 3), dtype=np.uint8)
    for y in range(height):
        for x in range(width):
            for c in range(3):
                total = np.uint32(image[2 * y, 2 * x, c]) + np.uint32(image[2 * y, 2 * x + 1, c])
                total += np.uint32(image[2 * y + 1, 2 * x, c]) + np.uint32(image[2 * y + 1, 2 * x + 1, c])
                out[y, x, c] = (total + np.uint32(2)) >> np.uint32(2)
    return out


def _tiles(level: np.ndarray, quality: int) -> Iterator[bytes]:
    """JPEG streams of a level's tiles, row by row; the last ones are filled up with their border's colours."""
    from imagecodecs import jpeg8_encode

    height, width = level.shape[:2]
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            tile = level[y : y + TILE, x : x + TILE]
            missing = (TILE - tile.shape[0], TILE - tile.shape[1])
            if any(missing):
                tile = np.pad(tile, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
            yield jpeg8_encode(
                np.ascontiguousarray(tile), level=quality, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"
            )
