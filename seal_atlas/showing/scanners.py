"""Simulated whole-slide scanners: light through a section to 8-bit pictures (tables/scanners.csv).

Optics, sensor and electronics in the order in which they act: point spread, sampling, colour matrix, tone curve,
noise, sharpening. Whole numbers only, so that any CPU gives the same picture; JPEG follows in `tiff.write_tiff`.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit

from seal.errors import SealError
from seal_atlas import tables

UM_PER_PX = 0.5  # of the light and of the pictures
_DEPTH = 12  # bits of the tone curve's look-up table
_FINE = 16  # steps of a value between tone curve and sharpening
_UNIT = 1024  # weights of the point spread sum to it


@dataclass(frozen=True)
class Scanner:
    """One scanner model; the table's head says what the columns mean."""

    scanner: str
    description: str
    um_per_px: float
    blur: float
    rr: float
    rg: float
    rb: float
    gr: float
    gg: float
    gb: float
    br: float
    bg: float
    bb: float
    gamma: float
    contrast: float
    white_red: float
    white_green: float
    white_blue: float
    black: float
    sharpen: float
    noise: float
    quality: int

    @property
    def matrix(self) -> np.ndarray:
        """Light's channels to the picture's, [3, 3]."""
        return np.array([[self.rr, self.rg, self.rb], [self.gr, self.gg, self.gb], [self.br, self.bg, self.bb]])

    @property
    def white(self) -> np.ndarray:
        """Value of empty glass in red, green and blue, [3]."""
        return np.array([self.white_red, self.white_green, self.white_blue])


@cache
def scanners() -> dict[str, Scanner]:
    """Scanner models by name.

    Raises
    ------
    SealError
        A row of the table is no scanner: its matrix moves white, or a value is out of range.
    """
    path = tables.FOLDER / "scanners.csv"
    found = {model.scanner: model for model in tables.read_typed(Scanner, path)}
    for model in found.values():
        good = np.allclose(model.matrix.sum(axis=1), 1) and 0 <= model.black < model.white.min()
        if not (good and model.white.max() <= 255 and model.gamma > 0 and 1 <= model.quality <= 100):
            raise SealError(
                f"{path}: scanner {model.scanner} has values that no scanner has",
                expected="matrix rows that sum to 1, 0 <= black < white <= 255, gamma > 0, quality 1 to 100",
                do="mend its row",
            )
    return found


def find_scanner(name: str) -> Scanner:
    """Look a scanner model up.

    Raises
    ------
    SealError
        There is no such scanner.
    """
    if name not in scanners():
        raise SealError(
            f"unknown scanner {name!r}",
            expected=f"one of {', '.join(scanners())}",
            do="correct the name, or add a row to tables/scanners.csv",
        )
    return scanners()[name]


def scan_light(light: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
    """Scan a section.

    Parameters
    ----------
    light
        uint16 [H, W, 3] at 0.5 um/px, 65,535 for empty glass.
    name
        A scanner in tables/scanners.csv.
    rng
        Draws the noise alone.

    Returns
    -------
    uint8 [H, W, 3] at 0.5 um/px, before compression.

    Raises
    ------
    SealError
        There is no such scanner.
    """
    model = find_scanner(name)
    light, shape = np.ascontiguousarray(light), light.shape[:2]
    if model.um_per_px != UM_PER_PX:
        light = _resized(light, *(round(side * UM_PER_PX / model.um_per_px) for side in shape))
    noise, starts = _noise(model, rng, light.shape)
    toned = _expose(
        light, _point_spread(model), np.rint(model.matrix * 4096).astype(np.int32), _curve(model), noise, starts
    )
    picture = _sharpen(toned, round(model.sharpen * 256))
    return picture if picture.shape[:2] == shape else _resized(picture, *shape)


def _point_spread(model: Scanner) -> np.ndarray:
    """Weights of a pixel, its neighbours and theirs, int32 [3]; over both sides they sum to `_UNIT`."""
    sd = model.blur / model.um_per_px
    beside = [np.exp(-(k**2) / (2 * sd**2)) for k in (1, 2)]
    total = 1 + 2 * sum(beside)
    near, far = (round(_UNIT * value / total) for value in beside)
    return np.array([_UNIT - 2 * (near + far), near, far], dtype=np.int32)


def _curve(model: Scanner) -> np.ndarray:
    """Tone curve: light in `_DEPTH` bits to 1/16 of a value, int16 [3, 4096]."""
    t = (np.arange(2**_DEPTH) + 0.5) / 2**_DEPTH
    t = t ** (1 / model.gamma)
    t = t + model.contrast * t * (1 - t) * (2 * t - 1)
    values = model.black + (model.white[:, None] - model.black) * t
    return np.rint(_FINE * values).astype(np.int16)


def _noise(model: Scanner, rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A stretch of noise in 1/16 of a value, and where in it each row begins."""
    length = 3 * shape[1]
    spare = 30_011
    stretch = np.rint(model.noise * _FINE * rng.standard_normal(length + spare)).astype(np.int16)
    return stretch, rng.integers(0, spare, shape[0])


@njit(cache=True, nogil=True)
def _resized(image, height, width):
    """Bilinear, corner to corner, in 1/256 of a pixel."""
    rows, cols, _ = image.shape
    out = np.empty((height, width, 3), dtype=image.dtype)
    left, part = np.empty(width, dtype=np.int64), np.empty(width, dtype=np.int64)
    for x in range(width):
        at = min(max((2 * x + 1) * cols * 128 // width - 128, 0), (cols - 1) * 256)
        left[x] = min(at >> 8, cols - 2)
        part[x] = at - (left[x] << 8)
    line = np.empty(cols * 3, dtype=np.int32)
    for y in range(height):
        at = min(max((2 * y + 1) * rows * 128 // height - 128, 0), (rows - 1) * 256)
        top = min(at >> 8, rows - 2)
        v = np.int32(at - (top << 8))
        above, below = image[top].reshape(-1), image[top + 1].reshape(-1)
        for i in range(line.size):
            line[i] = np.int32(above[i]) * (np.int32(256) - v) + np.int32(below[i]) * v
        for x in range(width):
            k, u = 3 * left[x], part[x]
            for c in range(3):
                out[y, x, c] = (np.int64(line[k + c]) * (256 - u) + np.int64(line[k + 3 + c]) * u + 32768) >> 16
    return out


@njit(cache=True, nogil=True)
def _expose(light, spread, matrix, curve, noise, starts):
    """Point spread, colour matrix, tone curve and noise: int16 [h, w, 3] in 1/16 of a value."""
    height, width, _ = light.shape
    flat = light.reshape(height, width * 3)
    out = np.empty((height, width, 3), dtype=np.int16)
    line = np.empty(width * 3 + 12, dtype=np.int32)
    row = np.empty(width * 3, dtype=np.int32)
    own, near, far = spread[0], spread[1], spread[2]
    half = np.int32(512)
    for y in range(height):
        a, b, c = flat[max(y - 2, 0)], flat[max(y - 1, 0)], flat[y]
        d, e = flat[min(y + 1, height - 1)], flat[min(y + 2, height - 1)]
        for i in range(width * 3):
            total = (
                own * np.int32(c[i])
                + near * (np.int32(b[i]) + np.int32(d[i]))
                + far * (np.int32(a[i]) + np.int32(e[i]))
            )
            line[i + 6] = (total + half) >> np.int32(10)
        for i in range(6):
            line[i] = line[6 + i % 3]
            line[width * 3 + 6 + i] = line[width * 3 + 3 + i % 3]
        for i in range(width * 3):
            total = own * line[i + 6] + near * (line[i + 3] + line[i + 9]) + far * (line[i] + line[i + 12])
            row[i] = (total + half) >> np.int32(10)
        start = starts[y]
        for x in range(width):
            red, green, blue = row[3 * x], row[3 * x + 1], row[3 * x + 2]
            for k in range(3):
                value = (matrix[k, 0] * red + matrix[k, 1] * green + matrix[k, 2] * blue) >> np.int32(16)
                value = min(max(value, np.int32(0)), np.int32(4095))
                out[y, x, k] = curve[k, value] + noise[start + 3 * x + k]
    return out


@njit(cache=True, nogil=True)
def _sharpen(toned, amount):
    """Unsharp masking by (1, 2, 1) / 4 along rows and columns, then 8 bits."""
    height, width, _ = toned.shape
    flat = toned.reshape(height, width * 3)
    out = np.empty((height, width, 3), dtype=np.uint8)
    flat_out = out.reshape(height, width * 3)
    line = np.empty(width * 3 + 6, dtype=np.int32)
    weight = np.int32(amount)
    for y in range(height):
        above, here, below = flat[max(y - 1, 0)], flat[y], flat[min(y + 1, height - 1)]
        for i in range(width * 3):
            line[i + 3] = np.int32(above[i]) + np.int32(2) * np.int32(here[i]) + np.int32(below[i])
        for c in range(3):
            line[c], line[width * 3 + 3 + c] = line[3 + c], line[width * 3 + c]
        for i in range(width * 3):
            mean = line[i] + np.int32(2) * line[i + 3] + line[i + 6]  # 16 times
            value = np.int32(here[i])
            value += (weight * (np.int32(16) * value - mean)) >> np.int32(12)
            value = (value + np.int32(8)) >> np.int32(4)
            flat_out[y, i] = min(max(value, np.int32(0)), np.int32(255))
    return out
