"""Regions out of full-resolution images, whatever their format, depth and colours."""

from functools import cached_property
from pathlib import Path

import numpy as np

from seal.errors import SealError
from seal.slides.pixels import open_image, over_white, tiff_um_per_px, unreadable

_BLOCK = 2048  # px a side that `overview` reads at once
_SAME = 1.01  # a level this much coarser than asked for is taken all the same: sizes of levels are rounded


class SlideImage:
    """An image from which regions are cut. Threads may share one; processes open their own.

    Parameters
    ----------
    path
        A slide that OpenSlide reads, or any image that Pillow or tifffile reads (then it is held in memory). Grey,
        palettes, CMYK, planes and 16 bits a channel become 8-bit RGB; what is transparent becomes white.

    Raises
    ------
    SealError
        The file is missing, truncated, of no known format, or of channels or values that are no colours.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._slide, self._array = open_image(self.path)
        if self._slide is None:
            self.height, self.width = self._array.shape[:2]
        else:
            self.width, self.height = self._slide.dimensions

    def region(self, x: float, y: float, side: float, size: int) -> np.ndarray:
        """Cut the square of `side` full-resolution px around (x, y) and resample it to `size` px.

        What lies outside the image is white. Lanczos resampling, antialiased.

        Returns
        -------
        uint8 [size, size, 3].

        Raises
        ------
        SealError
            The centre lies outside the image, or the image is damaged there.
        """
        from PIL import Image

        if not (0 <= x < self.width and 0 <= y < self.height):
            raise SealError(
                f"{self.path}: spot centre ({x:.0f}, {y:.0f}) lies outside the image",
                expected=f"0 <= x < {self.width} and 0 <= y < {self.height} px",
                do="check that spots and image belong together and have the same resolution",
            )
        left, top, whole = round(x - side / 2), round(y - side / 2), max(1, round(side))
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + whole, self.width), min(top + whole, self.height)
        filled = np.full((whole, whole, 3), 255, dtype=np.uint8)
        filled[y0 - top : y1 - top, x0 - left : x1 - left] = self._pixels(0, x0, y0, x1 - x0, y1 - y0)
        pixels = Image.fromarray(filled)
        if whole != size:
            pixels = pixels.resize((size, size), Image.Resampling.LANCZOS)
        return np.asarray(pixels)

    def area(self, x: float, y: float, width: float, height: float, size: tuple[int, int]) -> np.ndarray:
        """Resample a rectangle inside the image, from the coarsest level that is still fine enough.

        Lanczos resampling, antialiased, at exact places: neighbours outside the rectangle count where there are any.

        Parameters
        ----------
        x, y, width, height
            Upper left corner and sides, full-resolution px.
        size
            Width and height of the result, px.

        Returns
        -------
        uint8 [size[1], size[0], 3].

        Raises
        ------
        SealError
            The image is damaged there.
        """
        from PIL import Image

        level = self._level(min(width / size[0], height / size[1]))
        scale, ratio, columns, rows = self._levels[level]
        reach = 3 * max(width / size[0], height / size[1], scale)  # of Lanczos
        # OpenSlide counts in whole px of level 0, by its own ratio, and interpolates between the pixels of a level.
        start = [round(max(int((v - reach) / scale), 0) * ratio) for v in (x, y)]
        left, top = (v / ratio for v in start)
        end = [min(int((v + reach) / scale) + 1, n) for v, n in ((x + width, columns), (y + height, rows))]
        pixels = Image.fromarray(self._pixels(level, *start, int(end[0] - left), int(end[1] - top)))
        corners = ((v / scale - o) for v, o in ((x, left), (y, top), (x + width, left), (y + height, top)))
        box = [min(max(v, 0.0), n) for v, n in zip(corners, pixels.size * 2, strict=True)]
        return np.asarray(pixels.resize(size, Image.Resampling.LANCZOS, box=tuple(box)))

    def overview(self, scale: float) -> np.ndarray:
        """Resample the whole image to about 1 / `scale` of its size, whole px, reading a block at a time.

        Returns
        -------
        uint8 [h, w, 3], of pixels of width / w by height / h full-resolution px.

        Raises
        ------
        SealError
            The image is damaged.
        """
        height, width = (max(round(n / scale), 1) for n in (self.height, self.width))
        x, y = self.width / width, self.height / height
        out = np.empty((height, width, 3), dtype=np.uint8)
        step = max(int(_BLOCK * self._levels[self._level(min(x, y))][0] / scale), 1)
        for i in range(0, height, step):
            for j in range(0, width, step):
                w, h = min(step, width - j), min(step, height - i)
                out[i : i + h, j : j + w] = self.area(j * x, i * y, w * x, h * y, (w, h))
        return out

    @cached_property
    def um_per_px(self) -> tuple[float, float] | None:
        """Width and height of a full-resolution pixel, um, as the file says; None if it says nothing."""
        if self._slide is None or self._slide.properties["openslide.vendor"] == "generic-tiff":
            return tiff_um_per_px(self.path, (self.width, self.height))
        values = [self._slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
        return None if None in values else (float(values[0]), float(values[1]))

    @cached_property
    def _levels(self) -> list[tuple[float, float, int, int]]:
        """Of each level full-resolution px a pixel, the same as OpenSlide has it, width and height."""
        if self._slide is None:
            return [(1.0, 1.0, self.width, self.height)]
        levels = []
        for ratio, (width, height) in zip(self._slide.level_downsamples, self._slide.level_dimensions, strict=True):
            # A level of half the size drops an odd last row, which OpenSlide's ratio of the sides takes for a scale.
            halved = abs(self.width / round(ratio) - width) < 1 and abs(self.height / round(ratio) - height) < 1
            levels.append((float(round(ratio)) if halved else ratio, ratio, width, height))
        return levels

    def _level(self, scale: float) -> int:
        return max(i for i, (own, *_) in enumerate(self._levels) if i == 0 or own <= scale * _SAME)

    def _pixels(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Read a rectangle inside a level as it is: its corner in full-resolution px, its sides in the level's."""
        if self._array is not None:
            return self._array[y : y + height, x : x + width]
        import openslide

        try:
            rgba = np.asarray(self._slide.read_region((x, y), level, (width, height)))
        except openslide.OpenSlideError as error:
            raise unreadable(self.path, error) from error
        if (rgba[..., 3] == 255).all():
            return rgba[..., :3]
        return over_white(rgba)  # OpenSlide leaves what was never scanned transparent
