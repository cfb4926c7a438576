"""Where what lies in a section: compartments, then bodies in them, as distances on a coarse grid.

A body's outline is where `distance` is 0. A distance changes smoothly, so the pictures, four times finer, read
crisp outlines from it.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from seal_atlas.growing.fields import (
    jittered_lattice,
    nearest_label,
    read_field,
    smooth_field,
    sort_into_squares,
    two_nearest,
)
from seal_atlas.tables import Architecture, Compartment, Structure

STEP = 2.0  # um between the grid's points
FAR = 128.0  # um: beyond it, distances only say that it is far


@dataclass(frozen=True)
class Layout:
    """A section's plan: fields on the grid, [h, w] of `STEP` um, and tables of its bodies."""

    size: tuple[float, float]  # height, width, um
    glass: np.ndarray  # um to the tissue's edge, negative where there is tissue
    depth: np.ndarray  # um below the surface
    compartment: np.ndarray  # uint8, index into the architecture's
    distance: np.ndarray  # um outside the nearest body's outline, negative inside
    owner: np.ndarray  # int32, that body
    flow: np.ndarray  # [2, h, w], coordinates across and along the fibres, um
    structure: np.ndarray  # [bodies], index into the architecture's
    hollow: np.ndarray  # bool [bodies], whether it has a lumen
    turn: np.ndarray  # [bodies], direction of its fibres against the flow, radians
    cut: np.ndarray  # [bodies], 0: its fibres are cut along, 1: across

    def structure_at(self, xy: np.ndarray) -> np.ndarray:
        """The structure of the nearest body at points, [n]."""
        return self.structure[nearest_label(self.owner, xy, STEP)]


def plan_layout(
    seed: list[int], tissue: Architecture, size: tuple[float, float], outlined: bool, gland: float
) -> Layout:
    """Lay out a section.

    Parameters
    ----------
    size
        Height and width, um.
    outlined
        Whether the tissue ends within the section, as on a whole slide.
    gland
        Factor on the share of bodies that have a lumen.
    """
    streams = [np.random.default_rng([*seed, part]) for part in range(4)]
    shape = tuple(int(np.ceil(side / STEP)) + 2 for side in size)
    depth, glass = _surface(streams[0], shape, tissue, outlined)
    compartment, inside = _compartments(streams[1], shape, tissue.compartments, depth, glass)
    flow = _flow(streams[2], shape, depth)
    bodies = _Bodies(streams[3], size, shape, flow)
    for number, kind in enumerate(tissue.structures):
        where = next(i for i, c in enumerate(tissue.compartments) if c.compartment == kind.compartment)
        bodies.place(number, kind, inside[where])
    structure = np.concatenate(bodies.structure)
    solid = np.array([s.wall == 0 for s in tissue.structures] or [True])[structure]
    hollow = ~solid & (streams[3].random(len(structure)) < gland)
    turn, cut = streams[3].uniform(0, np.pi, len(structure)), streams[3].random(len(structure)) ** 2
    return Layout(size, glass, depth, compartment, bodies.distance, bodies.owner, flow, structure, hollow, turn, cut)


def _surface(rng, shape, tissue: Architecture, outlined: bool):
    """Depth below the organ's surface, and distance to the edge of the tissue (negative inside), um."""
    h, w = shape
    rows, cols = np.arange(h)[:, None] * STEP, np.arange(w)[None] * STEP
    layered = any(c.place == "depth" for c in tissue.compartments)
    tilt = rng.uniform(-0.12, 0.12)
    uneven = 14 * smooth_field(rng, shape, 160 / STEP) + 3 * smooth_field(rng, shape, 40 / STEP)
    depth = (rows - 30 + tilt * (cols - cols.mean()) + uneven).astype(np.float32)
    glass = -depth if layered else np.full(shape, -FAR, dtype=np.float32)
    if outlined:
        y, x = (rows / (h * STEP) - 0.5) / 0.47, (cols / (w * STEP) - 0.5) / 0.47
        squared = np.sqrt(x**4 + y**4) ** 0.5  # between a circle and a square
        edge = (squared - 1) * min(h, w) * STEP * 0.47 + 22 * smooth_field(rng, shape, 200 / STEP)
        glass = np.maximum(glass, edge + 4 * smooth_field(rng, shape, 30 / STEP))
    return depth, np.clip(glass, -FAR, FAR).astype(np.float32)


def _compartments(rng, shape, compartments: tuple[Compartment, ...], depth, glass):
    """Index of the compartment at each point, and each one's distance to its border (negative inside)."""
    label, taken, inside = np.zeros(shape, dtype=np.uint8), np.maximum(-glass, -FAR), []
    taken = -taken  # what is left: negative where tissue is not yet given away
    depths = [c for c in compartments if c.place == "depth"]
    borders = {c.compartment: depth - c.top - c.wave * smooth_field(rng, shape, c.scale / STEP) for c in depths}
    for number, kind in enumerate(compartments):
        if kind.place == "patch":
            own = _patches(rng, shape, kind)
        elif kind.place == "depth":
            own = -borders[kind.compartment]
            below = [c for c in depths if c.top > kind.top]
            if below:
                own = np.maximum(own, borders[below[0].compartment])
        else:
            own = np.full(shape, -FAR)
        own = np.clip(np.maximum(own, taken), -FAR, FAR).astype(np.float32)
        inside.append(own)
        label[own < 0] = number
        taken = np.maximum(taken, -own)
    return label, inside


def _patches(rng, shape, kind: Compartment):
    """Irregular areas that cover a share of the section: distance to their border, roughly in um."""
    field = smooth_field(rng, shape, kind.scale / STEP) + 0.15 * smooth_field(rng, shape, kind.scale / STEP / 5)
    if kind.share <= 0:
        return np.full(shape, FAR)
    return (np.quantile(field[::4, ::4], 1 - min(kind.share, 1)) - field) * kind.scale * 0.6


def _flow(rng, shape, depth):
    """Coordinates across and along the fibres: along the surface, gently bent."""
    rows, cols = np.arange(shape[0])[:, None] * STEP, np.arange(shape[1])[None] * STEP
    bent = [40 * smooth_field(rng, shape, 180 / STEP) + 5 * smooth_field(rng, shape, 45 / STEP) for _ in range(2)]
    return np.stack([rows + bent[0] + 0 * cols, cols + bent[1] + 0 * rows]).astype(np.float32)


class _Bodies:
    """Places the structures one after the other; earlier ones keep their place."""

    def __init__(self, rng, size, shape, flow) -> None:
        self.rng, self.size, self.shape, self.flow = rng, size, shape, flow
        self.distance = np.full(shape, FAR, dtype=np.float32)
        self.owner = np.zeros(shape, dtype=np.int32)
        self.structure = [np.zeros(1, dtype=np.int64)]  # body 0 owns what is far from all
        self.count = 1

    def place(self, number: int, kind: Structure, inside: np.ndarray) -> None:
        """Add the bodies of one structure within a compartment (`inside`: distance to its border)."""
        if kind.share <= 0 or not (inside < 0).any():
            return
        warp = [kind.warp * smooth_field(self.rng, self.shape, max(0.7 * kind.radius, 14) / STEP) for _ in range(2)]
        added = getattr(self, f"_{kind.form}")(kind, inside, warp)
        self.structure.append(np.full(added, number))
        self.count += added

    def _fill(self, kind: Structure, inside, warp) -> int:
        value = np.maximum(inside, np.float32(kind.gap) - self.distance)
        nearer = value < self.distance
        self.distance[nearer], self.owner[nearer] = value[nearer], self.count
        return 1

    def _scattered(self, kind: Structure, inside, warp) -> int:
        xy = jittered_lattice(self.rng, self.size, kind.spacing, 0.12)
        cluster = read_field(smooth_field(self.rng, self.shape, 1.5 * kind.spacing / STEP), xy, STEP)
        xy = xy[read_field(inside, xy, STEP) < -0.5 * kind.radius]
        cluster = cluster[: len(xy)]  # any random order will do, this one leaves gaps that are near each other
        xy = xy[np.argsort(cluster, kind="stable")[: round(kind.share * len(xy))]]
        radius = kind.radius * np.exp(np.clip(kind.spread * self.rng.standard_normal(len(xy)), -1, 1))
        free = read_field(self.distance, xy, STEP) > np.minimum(radius * 0.9, FAR - 4) + kind.gap
        xy, radius = xy[free], radius[free]
        turn = self.rng.uniform(0, np.pi, len(xy))
        if kind.along == "flow":
            turn = 0.25 * self.rng.standard_normal(len(xy))
        at = xy + np.stack([read_field(w, xy, STEP) for w in warp], axis=1)
        _discs(
            self.distance, self.owner, at, radius, kind.stretch, np.cos(turn), np.sin(turn), warp[0], warp[1], inside,
            kind.gap, self.count, STEP, kind.wall > 0,
        )  # fmt: skip
        return len(xy)

    def _packed(self, kind: Structure, inside, warp) -> int:
        rows, cols = (np.arange(n, dtype=np.float64) * STEP for n in self.shape)
        v = (self.flow[0] if kind.along == "flow" else rows[:, None] + 0 * cols[None]) + warp[1]
        u = (self.flow[1] if kind.along == "flow" else cols[None] + 0 * rows[:, None]) + warp[0]
        if kind.along == "across":
            u, v = v, u
        u = u / kind.stretch
        low = np.array([u.min(), v.min()]) - 2 * kind.spacing
        extent = float(v.max() - low[1]) + 2 * kind.spacing, float(u.max() - low[0]) + 2 * kind.spacing
        sites = jittered_lattice(self.rng, extent, kind.spacing, 0.13) + low
        sites = sites[self.rng.random(len(sites)) < kind.share] if kind.share < 1 else sites
        mask = (inside < 0) & (self.distance > -kind.gap)
        at = np.stack([u[mask], v[mask]], axis=1)
        side = kind.spacing * 0.8
        near, far, which = two_nearest(at, sites, *sort_into_squares(sites, side), side)
        radius = kind.radius * np.exp(np.clip(kind.spread * self.rng.standard_normal(len(sites)), -1, 1))
        value = np.maximum(kind.gap / 2 - (far - near) / 2, near - radius[which])
        if kind.stretch > 1:
            value = value / _slope(value, mask, kind.stretch)
        value = np.maximum(value, np.maximum(inside[mask] + 1, kind.gap - self.distance[mask]))
        nearer = (value < self.distance[mask]) & (which >= 0)
        index = np.flatnonzero(mask.ravel())[nearer]
        self.distance.ravel()[index] = value[nearer]
        self.owner.ravel()[index] = which[nearer] + self.count
        return len(sites)


def _slope(value: np.ndarray, mask: np.ndarray, stretch: float) -> np.ndarray:
    """How steeply a stretched distance changes at the points of a mask: 1 across its bodies, less along them."""
    whole = np.full(mask.shape, np.nan)
    whole[mask] = value
    rows, cols = np.gradient(whole, STEP)
    steep = np.sqrt(rows**2 + cols**2)[mask]
    return np.clip(np.where(np.isfinite(steep), steep, 1), 1 / stretch, 1)


@njit(cache=True, nogil=True)
def _discs(distance, owner, at, radius, stretch, cos, sin, warp_x, warp_y, inside, gap, first, step, apart):
    """Lower the distance by warped ellipses, in place; what was there before keeps `gap` from them.

    Solid bodies may run into each other; with `apart` they do not, so that each keeps its wall.
    """
    before = distance.copy()
    slack = 48.0
    for i in range(len(at)):
        reach = radius[i] * stretch + slack
        top, bottom = int((at[i, 1] - reach) / step), int((at[i, 1] + reach) / step) + 1
        left, right = int((at[i, 0] - reach) / step), int((at[i, 0] + reach) / step) + 1
        for r in range(max(top, 0), min(bottom, distance.shape[0])):
            for c in range(max(left, 0), min(right, distance.shape[1])):
                x = c * step + warp_x[r, c] - at[i, 0]
                y = r * step + warp_y[r, c] - at[i, 1]
                along, across = (x * cos[i] + y * sin[i]) / stretch, y * cos[i] - x * sin[i]
                away = (along * along + across * across) ** 0.5
                # over the slope of this ellipse's own distance, which makes it um in every direction
                slope = (along * along / (stretch * stretch) + across * across) ** 0.5 / max(away, 1e-3)
                value = (away - radius[i]) / max(slope, 0.5 / stretch)
                value = max(value, inside[r, c], gap - (distance[r, c] if apart else before[r, c]))
                if value < distance[r, c]:
                    distance[r, c] = value
                    owner[r, c] = first + i
