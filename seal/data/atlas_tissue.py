"""Simulated tissue: cells placed in space, then drawn as haematoxylin and eosin.

A section is a stroma with fat and muscle in it; on it lie bodies (ducts, crypts, tubules, vessels, nests):
warped discs with rings of nuclei around a lumen. The same cells that are drawn give a spot its composition,
so a picture and its counts agree because they come from one truth. Nothing here is fitted: sizes are those
of textbook histology, read off against real sections before any model was trained.
"""

from dataclasses import astuple, dataclass

import numpy as np
from scipy.spatial import cKDTree

from seal.data.atlas_organs import CELL_TYPES, NUCLEI, Architecture

UM_PER_PX = 1.0  # of the canvas: 1 px is 1 um, so lengths below need no conversion


@dataclass(frozen=True)
class Cells:
    """Cells of a section, one entry each.

    Attributes
    ----------
    xy
        Position, um, [cells, 2].
    kind
        Index into `CELL_TYPES`.
    length, ratio, angle, chromatin
        Nucleus: long axis (um), width / length, direction (radians), haematoxylin (OD).
    cycling
        Share of the cell's state that is proliferation, 0 to 1; larger, darker nuclei.
    goblet
        True where the cell holds a drop of mucin.
    """

    xy: np.ndarray
    kind: np.ndarray
    length: np.ndarray
    ratio: np.ndarray
    angle: np.ndarray
    chromatin: np.ndarray
    cycling: np.ndarray
    goblet: np.ndarray


@dataclass(frozen=True)
class Layout:
    """Where what lies on the canvas: arrays [height, width] (um), and the bodies' tables."""

    distance: np.ndarray  # um outside the nearest body's outline, negative inside
    owner: np.ndarray  # its index
    warp: np.ndarray  # [2, height, width], (x, y)
    fat: np.ndarray  # bool
    septum: np.ndarray  # um from the nearest border between fat cells, doubled
    muscle: np.ndarray  # bool
    flow: np.ndarray  # [2, height, width], coordinates across and along the fibres (um)
    centre: np.ndarray  # [bodies, 2]
    radius: np.ndarray  # [bodies]
    body: np.ndarray  # [bodies], index into Architecture.bodies


def smooth(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """Draw a smooth random field of zero mean and unit sd, which changes over `scale` um: float32 `shape`."""
    pitch = scale / 2
    weights = []
    for side in shape:
        knots = np.arange(-4, side / pitch + 5) * pitch
        weights.append(np.exp(-(((np.arange(side)[:, None] - knots) / pitch) ** 2) / 2).astype(np.float32))
    noise = rng.standard_normal((weights[0].shape[1], weights[1].shape[1]), dtype=np.float32)
    return weights[0] @ noise @ weights[1].T / np.sqrt(np.pi)  # a Gaussian squared sums to pi over knots


def borders(points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """How much farther the second nearest point is than the nearest, um, at each pixel of the mask."""
    rows, cols = np.nonzero(mask)
    near = cKDTree(points).query(np.stack([cols, rows], axis=1), k=2)[0]
    return (near[:, 1] - near[:, 0]).astype(np.float32)


def lattice(rng: np.random.Generator, shape: tuple[int, int], spacing: float, jitter: float) -> np.ndarray:
    """Hexagonal lattice over the canvas, each site moved by a normal jitter (share of spacing): [sites, 2]."""
    rows = np.arange(0, shape[0] + spacing, spacing * 0.866)
    cols = np.arange(0, shape[1] + spacing, spacing)
    x = cols[None] + spacing / 2 * (np.arange(len(rows)) % 2)[:, None]
    sites = np.stack([x.ravel(), np.repeat(rows, len(cols))], axis=1)
    sites += rng.normal(0, jitter * spacing, sites.shape)
    inside = (sites >= 0).all(axis=1) & (sites < (shape[1] - 1, shape[0] - 1)).all(axis=1)
    return sites[inside]


def _at(field: np.ndarray, xy: np.ndarray) -> np.ndarray:
    return field[..., xy[:, 1].astype(int), xy[:, 0].astype(int)]


def lay_out(rng: np.random.Generator, shape: tuple[int, int], tissue: Architecture) -> Layout:
    """Place fat, muscle, fibres and bodies on a canvas of `shape` (height, width), um."""
    rows = np.arange(shape[0], dtype=np.float32)[:, None]
    cols = np.arange(shape[1], dtype=np.float32)[None]
    ground = smooth(rng, shape, 220) + 0.15 * smooth(rng, shape, 45) + tissue.layered * 12 * (rows / shape[0] - 0.5)
    low, high = np.quantile(ground[::8, ::8], [tissue.fat, 1 - tissue.muscle])
    turn = np.pi / 2 if tissue.layered else rng.uniform(0, np.pi)
    bent = [45 * smooth(rng, shape, 180) + 5 * smooth(rng, shape, 45) for _ in range(2)]
    across = cols * np.cos(turn) + rows * np.sin(turn) + bent[0]
    along = -cols * np.sin(turn) + rows * np.cos(turn) + bent[1]
    warp = tissue.warp * np.stack([smooth(rng, shape, 80), smooth(rng, shape, 80)])
    fat, muscle = ground < low, ground > high
    centre, radius, body = _sites(rng, tissue, fat | muscle, warp)
    distance, owner = _distances(shape, warp, centre, radius)
    fat &= distance > 4
    muscle &= distance > 4
    septum = np.full(shape, 99, dtype=np.float32)
    septum[fat] = borders(lattice(rng, shape, 62, 0.16), fat)
    return Layout(distance, owner, warp, fat, septum, muscle, np.stack([across, along]), centre, radius, body)


def _sites(rng: np.random.Generator, tissue: Architecture, taken: np.ndarray, warp: np.ndarray):
    """Centres (in warped coordinates), radii and kinds of all bodies; later ones keep off earlier ones."""
    # The first lies far off the canvas, so that every pixel has an owner even where no body fits.
    centre, radius, body = np.full((1, 2), -1e4), np.ones(1), np.zeros(1, dtype=int)
    for number, kind in enumerate(tissue.bodies):
        xy = lattice(rng, taken.shape, kind.spacing, 0.07)
        cluster = _at(smooth(rng, taken.shape, 130), xy)
        xy = xy[np.argsort(cluster)[: round(kind.share * len(xy))]]
        xy = xy[~_at(taken, xy)]
        r = kind.radius * np.exp(rng.normal(0, kind.spread, len(xy)))
        placed = xy + _at(warp, xy).T
        gap = np.linalg.norm(placed[:, None] - centre[None], axis=2) - r[:, None] - radius[None]
        free = (gap > 4).all(axis=1)
        centre = np.concatenate([centre, placed[free]])
        radius = np.concatenate([radius, r[free]])
        body = np.concatenate([body, np.full(free.sum(), number)])
    return centre, radius, body


def _distances(shape: tuple[int, int], warp: np.ndarray, centre: np.ndarray, radius: np.ndarray):
    """Signed distance to the nearest outline, and whose it is; beyond 40 um only that it is far."""
    distance = np.full(shape, 40.0, dtype=np.float32)
    owner = np.zeros(shape, dtype=np.int32)
    slack = 40 + np.abs(warp).max()
    for number, ((x, y), r) in enumerate(zip(centre, radius, strict=True)):
        top, left = (max(0, int(v - r - slack)) for v in (y, x))
        bottom, right = (max(0, int(v + r + slack)) for v in (y, x))
        window = np.s_[top:bottom, left:right]
        rows = np.arange(shape[0], dtype=np.float32)[window[0], None] + warp[1][window] - y
        cols = np.arange(shape[1], dtype=np.float32)[None, window[1]] + warp[0][window] - x
        outside = np.hypot(rows, cols) - r
        nearer = outside < distance[window]
        distance[window][nearer] = outside[nearer]
        owner[window][nearer] = number
    return distance, owner


def grow(rng: np.random.Generator, layout: Layout, tissue: Architecture, cycling: float) -> Cells:
    """Fill a layout with cells; `cycling` is the mean share of proliferation among epithelial cells."""
    shape = layout.distance.shape
    parts = [make(rng, layout, tissue) for make in (_ring_cells, _nest_cells, _stroma_cells)]
    xy, kind, angle, goblet = (np.concatenate(column) for column in zip(*parts, strict=True))
    # Proliferation comes in patches; the same number drives genes and, weakly, nuclear size and darkness.
    patch = 1 / (1 + np.exp(-1.5 * _at(smooth(rng, shape, 150), xy)))
    state = np.clip(2 * cycling * patch * rng.gamma(2.0, 0.5, len(xy)), 0, 1) * (kind == 0)
    nuclei = [NUCLEI[name] for name in CELL_TYPES]
    mean_length, spread, mean_ratio, dark = np.array([astuple(n) for n in nuclei])[kind].T
    length = mean_length * np.exp(spread * rng.standard_normal(len(xy))) * (1 + 0.3 * state)
    ratio = np.minimum(mean_ratio * np.exp(0.1 * rng.standard_normal(len(xy))), 1)
    chromatin = dark * np.exp(0.15 * rng.standard_normal(len(xy))) * (1 + 0.3 * state)
    return Cells(xy, kind, length, ratio, angle, chromatin, state, goblet)


def _ring_cells(rng: np.random.Generator, layout: Layout, tissue: Architecture):
    """Cells in the walls of bodies with a lumen: (xy, kind, angle, goblet)."""
    ring, around, owner = [np.empty(0)], [np.empty(0)], [np.empty(0, dtype=int)]
    for number, (r, body) in enumerate(zip(layout.radius, layout.body, strict=True)):
        kind = tissue.bodies[body]
        for at in r - kind.basal - 0.9 * kind.step * np.arange(kind.layers):
            if at < max(r - kind.wall, kind.step / 3):
                break
            n = max(3, round(2 * np.pi * at / kind.step))
            around.append(rng.uniform(0, 2 * np.pi) + np.arange(n) * 2 * np.pi / n)
            ring.append(np.full(n, at))
            owner.append(np.full(n, number))
    ring, around, owner = (np.concatenate(column) for column in (ring, around, owner))
    warped = layout.centre[owner] + ring[:, None] * np.stack([np.cos(around), np.sin(around)], axis=1)
    warped += rng.normal(0, 1.2, warped.shape)
    xy, last = warped.copy(), np.array(layout.fat.shape)[::-1] - 1.0
    for _ in range(3):  # xy + warp(xy) = warped, solved by fixed point
        xy = warped - _at(layout.warp, np.clip(xy, 0, last)).T
    keep = ((xy >= 0) & (xy < last)).all(axis=1)
    xy, around, owner = xy[keep], around[keep], owner[keep]
    keep = (_at(layout.owner, xy) == owner) & (_at(layout.distance, xy) < -1.5)
    xy, around, body = xy[keep], around[keep], layout.body[owner[keep]]
    kind = np.array([CELL_TYPES.index(body.cell) for body in tissue.bodies])[body]
    # Glands' nuclei point to the lumen, a vessel's lie along its wall.
    angle = around + np.where(kind == 0, 0, np.pi / 2) + rng.normal(0, 0.25, len(xy))
    goblet = rng.random(len(xy)) < np.array([body.goblet for body in tissue.bodies])[body]
    return xy, kind, angle, goblet


def _nest_cells(rng: np.random.Generator, layout: Layout, tissue: Architecture):
    """Cells that fill solid bodies: (xy, kind, angle, goblet)."""
    xy, kind = [np.empty((0, 2))], [np.empty(0, dtype=int)]
    for number, body in enumerate(tissue.bodies):
        if body.wall == 0:
            sites = lattice(rng, layout.fat.shape, body.step, 0.17)
            inside = (_at(layout.distance, sites) < -3.5) & (layout.body[_at(layout.owner, sites)] == number)
            xy.append(sites[inside])
            kind.append(np.full(inside.sum(), CELL_TYPES.index(body.cell)))
    xy, kind = np.concatenate(xy), np.concatenate(kind)
    return xy, kind, rng.uniform(0, np.pi, len(xy)), np.zeros(len(xy), dtype=bool)


def _stroma_cells(rng: np.random.Generator, layout: Layout, tissue: Architecture):
    """Cells between the bodies, thinned from a dense lattice: (xy, kind, angle, goblet)."""
    shape, spacing = layout.distance.shape, 6.2
    xy = lattice(rng, shape, spacing, 0.2)
    xy = xy[_at(layout.distance, xy) > 3]
    fat, muscle = _at(layout.fat, xy), _at(layout.muscle, xy)
    crowd = np.exp(0.9 * _at(smooth(rng, shape, 120), xy) - 0.4)
    per_mm = np.zeros((len(CELL_TYPES), len(xy)))  # cells per 1,000 um2
    per_mm[1] = np.where(fat, 0, np.where(muscle, 0.2, tissue.fibroblast))
    per_mm[2] = np.where(muscle, 0.1, np.where(fat, 0, tissue.immune * crowd))
    per_mm[3] = np.where(fat, np.where(_at(layout.septum, xy) < 4, 0.6, 0), np.where(muscle, 0.2, tissue.endothelial))
    per_mm[4] = np.where(muscle, 3.0, 0)
    per_mm[5] = np.where(fat & (_at(layout.septum, xy) < 5), 3.0, 0)
    share = np.cumsum(per_mm * 0.866 * spacing**2 / 1000, axis=0)
    kind = (rng.random(len(xy)) > share).sum(axis=0)
    xy, kind = xy[kind < len(CELL_TYPES)], kind[kind < len(CELL_TYPES)]
    up, left = np.gradient(layout.flow[0])
    angle = np.arctan2(_at(up, xy), _at(left, xy)) + np.pi / 2 + rng.normal(0, 0.2, len(xy))
    return xy, kind, angle, np.zeros(len(xy), dtype=bool)
