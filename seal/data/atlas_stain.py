"""Simulated tissue drawn as haematoxylin and eosin, by optical density.

A pixel's transmitted light is I = 10^-(h H + e E), h and e the amounts of the two stains, H and E their
vectors (Beer-Lambert). Amounts are drawn first, colours come last, so a donor's stain changes colour alone.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from seal.data.atlas_organs import Architecture
from seal.data.atlas_tissue import Cells, Layout, borders, smooth

# Unit optical-density vectors of haematoxylin, eosin and a third, brownish one, which shifts eosin's hue
# from magenta to pink. Source: Ruifrok & Johnston 2001.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


@dataclass(frozen=True)
class Stain:
    """How a donor's section was stained: strengths, hue (share of the third vector in eosin), blur (px)."""

    haematoxylin: float
    eosin: float
    hue: float
    blur: float


def draw(rng: np.random.Generator, layout: Layout, cells: Cells, tissue: Architecture, stain: Stain) -> np.ndarray:
    """Draw a section.

    Returns
    -------
    uint8 [height, width, 3], one canvas for all patches, so that overlapping patches agree.
    """
    haematoxylin, eosin = _ground(rng, layout, tissue)
    _bodies(rng, layout, cells, tissue, haematoxylin, eosin)
    haematoxylin, eosin = (ndimage.gaussian_filter(amount, 0.7) for amount in (haematoxylin, eosin))
    nuclei = _nuclei(rng, cells, haematoxylin.shape)
    haematoxylin += nuclei
    eosin *= np.exp(-nuclei)
    pink = STAINS[1] + stain.hue * STAINS[2]
    vectors = np.stack([STAINS[0] / np.linalg.norm(STAINS[0]), pink / np.linalg.norm(pink)])
    amounts = np.stack([stain.haematoxylin * haematoxylin, stain.eosin * eosin], axis=-1)
    light = 10 ** -(amounts @ vectors.astype(np.float32))
    light = ndimage.gaussian_filter(light, (stain.blur, stain.blur, 0))
    light += 0.008 * rng.standard_normal(light.shape, dtype=np.float32)
    return np.clip(244 * light, 0, 255).astype(np.uint8)


def _ground(rng: np.random.Generator, layout: Layout, tissue: Architecture):
    """Stroma, muscle and fat: amounts of haematoxylin and eosin, float32 [height, width]."""
    shape = layout.distance.shape
    across, along = layout.flow
    coarse, fine = _fibres(rng, across / 7, along / 60), _fibres(rng, across / 2.2, along / 25)
    density = smooth(rng, shape, 160)
    collagen = tissue.collagen * (1 + 0.2 * density + 0.25 * coarse + 0.2 * fine)
    cleft = np.clip((-coarse - 1.1 - 0.4 * density) * 2, 0, 1)  # shrinkage leaves gaps between bundles
    eosin = np.clip(collagen, 0.05, None) * (1 - 0.85 * cleft)
    eosin = np.where(layout.muscle, 0.42 + 0.04 * coarse + 0.05 * fine, eosin)
    eosin = np.where(layout.fat, 0.02 + 0.33 * np.exp(-((layout.septum / 2.4) ** 2)), eosin)
    return (0.12 * eosin).astype(np.float32), eosin.astype(np.float32)


def _fibres(rng: np.random.Generator, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """White noise stretched along the fibres, read at fibre coordinates (wrapped), unit sd."""
    noise = rng.standard_normal((256, 256)).astype(np.float32)
    texture = ndimage.map_coordinates(noise, [across, along], order=1, mode="grid-wrap")
    return texture / texture.std()


def _bodies(rng: np.random.Generator, layout: Layout, cells: Cells, tissue: Architecture, haematoxylin, eosin) -> None:
    """Draw cytoplasm, lumens and halos over the ground, in place."""
    shape = layout.fat.shape
    grain = 1 + 0.10 * rng.standard_normal(shape, dtype=np.float32) + 0.12 * smooth(rng, shape, 40)
    for number, kind in enumerate(tissue.bodies):
        mine = layout.body[layout.owner] == number
        inside = mine & (layout.distance < 0)
        empty = mine & (layout.distance >= 0) & (layout.distance < kind.halo)
        if kind.wall:
            empty |= inside & (layout.distance < -kind.wall)
        eosin[inside] = kind.eosin * grain[inside]
        haematoxylin[inside] = kind.basophilia * grain[inside]
        if kind.clear:
            wall = np.exp(-((borders(cells.xy, inside) / 2.5) ** 2))
            eosin[inside] *= 1 - kind.clear * (1 - wall)
            haematoxylin[inside] *= 1 - kind.clear * (1 - wall)
        eosin[empty] = 0.02
        haematoxylin[empty] = 0
    # A goblet cell's mucin lies above its nucleus, towards the lumen (angle points away from it).
    angle = cells.angle[cells.goblet]
    drops = cells.xy[cells.goblet] - 9 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    mucin = _stamp(drops, 10, 0.8, angle, 1, shape)
    eosin *= 1 - 0.75 * mucin
    haematoxylin *= 1 - 0.4 * mucin


def _nuclei(rng: np.random.Generator, cells: Cells, shape: tuple[int, int]) -> np.ndarray:
    """Haematoxylin of the nuclei, clumped by chromatin."""
    clumps = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 1.0) * 3.5
    ink = _stamp(cells.xy, cells.length, cells.ratio, cells.angle, cells.chromatin, shape)
    return ink * np.clip(1 + 0.18 * clumps, 0.5, 1.5)


def _stamp(xy, length, ratio, angle, ink, shape: tuple[int, int], reach: int = 12) -> np.ndarray:
    """Soft ellipses, the darkest winning where they overlap: float32 [height, width].

    ink / (1 + exp(4 (rho^2 - 1) min(a, b))) with rho the elliptic radius: an edge about 1 px wide.
    """
    canvas = np.zeros((shape[0] + 2 * reach, shape[1] + 2 * reach), dtype=np.float32)
    step = np.arange(-reach, reach + 1)
    # A centre beyond the border keeps its place (dx, dy) in a window that stays on the canvas.
    corner = np.clip(np.floor(xy).astype(int), 0, (shape[1] - 1, shape[0] - 1))
    length, ratio, angle, ink = (np.broadcast_to(np.float32(v), len(xy)) for v in (length, ratio, angle, ink))
    dx = (step[None, None] + (corner - xy)[:, 0, None, None]).astype(np.float32)
    dy = (step[None, :, None] + (corner - xy)[:, 1, None, None]).astype(np.float32)
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    long, short = (length / 2)[:, None, None], (length * ratio / 2)[:, None, None]
    rho = ((dx * cos + dy * sin) / long) ** 2 + ((dy * cos - dx * sin) / short) ** 2
    value = ink[:, None, None] / (1 + np.exp(np.minimum(short * (rho - 1), 30)))
    rows = corner[:, 1, None, None] + step[None, :, None] + reach
    cols = corner[:, 0, None, None] + step[None, None] + reach
    np.maximum.at(canvas, (rows, cols), value)
    return canvas[reach : reach + shape[0], reach : reach + shape[1]]
