"""Haematoxylin, eosin and pigment: amounts to transmitted light, and the folds and bubbles of a mounted section.

A pixel lets through I = 10^-(h H + e E + p P), with the amounts h, e, p and the stains' vectors (Beer-Lambert).
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from seal_atlas.growing.fields import smooth_field
from seal_atlas.tables import Site

# Unit optical-density vectors in red, green, blue of haematoxylin, eosin and DAB, which is brown like melanin
# and turns eosin from magenta to the orange of red cells. Source: Ruifrok & Johnston 2001.
VECTORS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_LEVELS = 1024  # steps of the look-up table in one OD, a fifth of a percent of the light each


@dataclass(frozen=True)
class Stain:
    """How one section was stained: strengths, the yellowish share of eosin, blur by thickness (um)."""

    haematoxylin: float = 1.0
    eosin: float = 1.0
    hue: float = 0.5
    thickness: float = 0.4

    @property
    def vectors(self) -> np.ndarray:
        """OD of the three amounts in red, green and blue, [3, 3]."""
        pink = VECTORS[1] + self.hue * VECTORS[2]
        unit = np.stack([VECTORS[0], pink, VECTORS[2]])
        unit /= np.sqrt((unit**2).sum(axis=1, keepdims=True))
        return unit * np.array([[self.haematoxylin], [self.eosin], [1.0]])


def stain_of_donor(site: Site, rng: np.random.Generator) -> Stain:
    """A donor's stain: the site's, varied from day to day."""
    strength = np.exp(site.spread * rng.standard_normal(2))
    return Stain(
        haematoxylin=site.haematoxylin * float(strength[0]),
        eosin=site.eosin * float(strength[1]),
        hue=max(site.hue + 0.08 * float(rng.standard_normal()), 0.0),
        thickness=site.thickness,
    )


@njit(cache=True, nogil=True)
def _transmit(amounts, vectors, table):
    height, width, _ = amounts.shape
    out = np.empty((height, width, 3), dtype=np.uint16)
    for y in range(height):
        for x in range(width):
            h, e, p = amounts[y, x, 0], amounts[y, x, 1], amounts[y, x, 2]
            for c in range(3):
                density = h * vectors[0, c] + e * vectors[1, c] + p * vectors[2, c]
                out[y, x, c] = table[min(max(int(density * 1024 + 0.5), 0), table.size - 1)]
    return out


def transmit_light(amounts: np.ndarray, stain: Stain) -> np.ndarray:
    """Light through a section.

    Parameters
    ----------
    amounts
        Haematoxylin, eosin, pigment, float32 [H, W, 3], OD, none below 0.

    Returns
    -------
    uint16 [H, W, 3], red, green, blue; 65,535 is the light of the empty slide.
    """
    table = np.array([round(65535 * 10 ** (-i / _LEVELS)) for i in range(4 * _LEVELS)], dtype=np.uint16)
    return _transmit(amounts, stain.vectors.astype(np.float32), table)


@njit(cache=True, nogil=True)
def blur_amounts(amounts, weight):
    """Blur in place by (w, 1 - 2w, w) along rows and columns."""
    height, width, channels = amounts.shape
    keep = 1 - 2 * weight
    above = amounts[0].copy()
    for y in range(height):
        below = amounts[min(y + 1, height - 1)]
        row = amounts[y].copy()
        for x in range(width):
            for c in range(channels):
                amounts[y, x, c] = keep * row[x, c] + weight * (above[x, c] + below[x, c])
        above = row
        left = amounts[y, 0].copy()
        for x in range(width):
            right = min(x + 1, width - 1)
            for c in range(channels):
                here = amounts[y, x, c]
                amounts[y, x, c] = keep * here + weight * (left[c] + amounts[y, right, c])
                left[c] = here


@njit(cache=True, nogil=True)
def _fold(amounts, field, step, width):
    """Double the tissue where a smooth field is near zero: a strip, in place."""
    for y in range(amounts.shape[0]):
        r, v = y // step, (y % step) / step
        for x in range(amounts.shape[1]):
            c, u = x // step, (x % step) / step
            top = field[r, c] * (1 - u) + field[r, c + 1] * u
            value = abs(top * (1 - v) + (field[r + 1, c] * (1 - u) + field[r + 1, c + 1] * u) * v) / width
            if value < 1:
                more = 1 + 0.9 * min(1.0, 4 * (1 - value))
                for c in range(3):
                    amounts[y, x, c] *= more


@njit(cache=True, nogil=True)
def _bubble(amounts, cx, cy, radius):
    """An air bubble under the cover glass: paler inside, a dark ring where light is bent away. In place."""
    for y in range(max(int(cy - radius) - 4, 0), min(int(cy + radius) + 5, amounts.shape[0])):
        for x in range(max(int(cx - radius) - 4, 0), min(int(cx + radius) + 5, amounts.shape[1])):
            away = ((x - cx) ** 2 + (y - cy) ** 2) ** 0.5 - radius
            if away < 3:
                ring = max(0.0, 1 - abs(away) / 3)
                for c in range(3):
                    amounts[y, x, c] *= 0.72
                amounts[y, x, 0] += 0.35 * ring
                amounts[y, x, 2] += 0.25 * ring


def add_blemishes(rng: np.random.Generator, amounts: np.ndarray, site: Site, um_per_px: float) -> None:
    """Add folds and bubbles to the amounts of a section, in place; how many follows from its area."""
    height, width, _ = amounts.shape
    mm2 = height * width * um_per_px**2 / 1e6
    folds, bubbles = (rng.poisson(rate * mm2) for rate in (site.folds, site.bubbles))
    step = 8
    for _ in range(folds):
        rows, cols = np.arange(height // step + 2)[:, None], np.arange(width // step + 2)[None]
        turn, at = rng.uniform(0, np.pi), rng.uniform(0.2, 0.8, 2)
        line = (rows - at[0] * height / step) * np.cos(turn) + (cols - at[1] * width / step) * np.sin(turn)
        bend = 12 * smooth_field(rng, line.shape, 60)
        length = np.hypot(rows - at[0] * height / step, cols - at[1] * width / step)
        strip = line + bend + np.where(length > rng.uniform(20, 60), 1e6, 0)
        _fold(amounts, strip.astype(np.float32), step, rng.uniform(1.2, 2.4))
    for _ in range(bubbles):
        _bubble(amounts, rng.uniform(0, width), rng.uniform(0, height), rng.uniform(25, 70) / um_per_px)
