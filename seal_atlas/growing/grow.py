"""Simulated tissue: an organ's architecture filled with cells, from which picture and counts both follow.

A picture and its counts agree because they come from the same cells. Sizes are those of textbook histology and
of real sections; the tables hold them (`seal_atlas.tables`).
"""

from dataclasses import dataclass, replace

import numpy as np

from seal_atlas import tables
from seal_atlas.growing.fields import jittered_lattice, nearest_label, read_field, smooth_field, thin_points
from seal_atlas.growing.layout import STEP, Layout, plan_layout
from seal_atlas.tables import Architecture, Structure

FIELD_STEP = 16.0  # um between points of an activity field, which changes over 100 um or more


@dataclass(frozen=True)
class Morphology:
    """What a patient's alterations change in the picture: factors, 1 as the tables say."""

    nuclear_size: float = 1.0  # of tumour nuclei
    nuclear_dark: float = 1.0  # of tumour nuclei
    pleomorphism: float = 1.0  # of the spread of their sizes
    immune: float = 1.0  # of the density of immune cells
    necrosis: float = 1.0  # of the area of necrosis
    fibrosis: float = 1.0  # of collagen and of fibroblasts
    mucin: float = 1.0  # of cells that hold mucin
    gland: float = 1.0  # of bodies with a lumen


@dataclass(frozen=True)
class Cells:
    """Cells of a section, one entry each."""

    xy: np.ndarray  # [n, 2], um
    kind: np.ndarray  # index into the cell types
    length: np.ndarray  # of the nucleus, um
    ratio: np.ndarray  # width / length
    angle: np.ndarray  # radians
    chromatin: np.ndarray  # OD
    goblet: np.ndarray  # whether it holds a drop


@dataclass(frozen=True)
class GrownTissue:
    """A section: its plan, its cells, and the activity of every programme."""

    architecture: Architecture
    layout: Layout
    cells: Cells
    activity: np.ndarray  # [programmes, h, w], 0 to 1, points FIELD_STEP um apart

    @property
    def size(self) -> tuple[float, float]:
        """Height and width, um."""
        return self.layout.size

    def inside(self, xy: np.ndarray) -> np.ndarray:
        """Whether points (um) lie in the tissue, bool [n]."""
        return read_field(self.layout.glass, xy, STEP) < 0

    def activity_at(self, xy: np.ndarray) -> np.ndarray:
        """Activity of the programmes at points (um), [n, programmes]."""
        return np.stack([read_field(field, xy, FIELD_STEP) for field in self.activity], axis=1).astype(float)

    def composition(self, centres: np.ndarray, radius: float, weight: np.ndarray | None = None) -> np.ndarray:
        """Cells (or their weights) by type within `radius` um of points that lie farther apart, [n, cell types]."""
        from scipy.spatial import cKDTree

        distance, point = cKDTree(centres).query(self.cells.xy)
        near = distance <= radius
        total = np.zeros((len(centres), len(tables.cell_types())))
        value = np.ones(near.sum()) if weight is None else weight[near]
        np.add.at(total, (point[near], self.cells.kind[near]), value)
        return total


def grow_tissue(
    seed: list[int],
    organ: str,
    state: str,
    size: tuple[float, float],
    morphology: Morphology | None = None,
    outlined: bool = False,
    shifts: dict[str, float] | None = None,
) -> GrownTissue:
    """Grow a section.

    Parameters
    ----------
    seed
        Of its random streams.
    size
        Height and width, um.
    morphology, shifts
        What a patient's alterations do: to the picture, and to programmes by name (on the logit scale).
    outlined
        Whether the tissue ends within the section, as on a whole slide.

    Raises
    ------
    SealError
        The tables have no such tissue.
    """
    morphology = morphology or Morphology()
    architecture = _altered(tables.architecture(organ, state), morphology)
    layout = plan_layout([*seed, 0], architecture, size, outlined, morphology.gland)
    activity = _activity(np.random.default_rng([*seed, 1]), state, size, shifts or {})
    grower = _Grower(seed, architecture, layout, activity, morphology)
    return GrownTissue(architecture, layout, grower.cells(), activity)


def _altered(tissue: Architecture, by: Morphology) -> Architecture:
    compartments = tuple(
        replace(
            c,
            share=min(c.share * (by.necrosis if c.compartment == "necrosis" else 1), 0.9),
            eosin=c.eosin * (1 + 0.4 * (by.fibrosis - 1)),
        )
        for c in tissue.compartments
    )
    structures = tuple(replace(s, goblet=min(s.goblet * by.mucin, 1)) for s in tissue.structures)
    groups = {name: cell.group for name, cell in tables.cell_types().items()}
    factor = {"immune": by.immune, "stroma": by.fibrosis}
    densities = tuple(replace(d, per_mm2=d.per_mm2 * factor.get(groups[d.cell], 1)) for d in tissue.densities)
    return replace(tissue, compartments=compartments, structures=structures, densities=densities)


def _activity(rng, state: str, size: tuple[float, float], shifts: dict[str, float]) -> np.ndarray:
    """sigmoid(logit(level of the state) + shift + donor + sd field(x, y)) of every programme."""
    shape = tuple(int(np.ceil(side / FIELD_STEP)) + 2 for side in size)
    fields = []
    for name, programme in tables.programmes().items():
        level = min(max(programme.level(state), 1e-3), 1 - 1e-3)
        at = np.log(level / (1 - level)) + shifts.get(name, 0.0) + programme.donor_sd * rng.standard_normal()
        field = programme.field_sd * smooth_field(rng, shape, programme.scale_um / FIELD_STEP).astype(np.float64)
        fields.append(1 / (1 + np.exp(-at - field)))
    return np.stack(fields)


class _Grower:
    """Fills a layout with cells."""

    def __init__(self, seed, tissue: Architecture, layout: Layout, activity, morphology: Morphology) -> None:
        self.rng, self.tissue, self.layout = np.random.default_rng([*seed, 2]), tissue, layout
        self.activity, self.morphology = activity, morphology
        self.names = list(tables.cell_types())
        self.parts: list[tuple[np.ndarray, ...]] = []

    def cells(self) -> Cells:
        """All cells, structure by structure, then those in the ground."""
        for number, kind in enumerate(self.tissue.structures):
            if kind.step > 0:
                fill = self._lined if kind.wall > 0 else self._filled
                fill(number, kind)
            if kind.outer != "-":
                self._row(number, kind, 2.5, 9.0, self.names.index(kind.outer), "flat")
        self._ground()
        columns = [np.concatenate(column) for column in zip(*self.parts, strict=True)]
        return self._nuclei(*columns)

    def _add(self, xy, kind: int, pose: str, goblet: float = 0.0, mixed: int | None = None, size: float = 1.0) -> None:
        inside = (xy >= 0).all(axis=1) & (xy < np.array(self.layout.size)[::-1]).all(axis=1)
        xy = xy[inside]
        slope = self._slope(xy)
        if pose in ("radial", "flat"):
            angle = np.arctan2(slope[:, 1], slope[:, 0]) + (np.pi / 2 if pose == "flat" else 0)
        elif pose == "flow":
            angle = self._along(xy)
        else:
            angle = self.rng.uniform(0, np.pi, len(xy))
        angle = angle + 0.2 * self.rng.standard_normal(len(xy))
        drop = self.rng.random(len(xy)) < goblet
        kinds = np.where(drop, kind if mixed is None else mixed, kind)
        self.parts.append((xy, kinds, angle, drop, np.full(len(xy), size)))

    def _slope(self, xy: np.ndarray) -> np.ndarray:
        """Direction in which the distance grows, unit length, [n, 2]."""
        d = self.layout.distance
        ahead = [read_field(d, xy + s, STEP) - read_field(d, xy - s, STEP) for s in np.eye(2) * 2.0]
        slope = np.stack(ahead, axis=1).astype(float)
        return slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-6)

    def _along(self, xy: np.ndarray) -> np.ndarray:
        """Direction of the fibres at points, radians; a body turns its own."""
        steps = np.eye(2) * 6.0
        dx, dy = (
            read_field(self.layout.flow[0], xy + s, STEP) - read_field(self.layout.flow[0], xy - s, STEP) for s in steps
        )
        turn = self.layout.turn[nearest_label(self.layout.owner, xy, STEP)]
        return np.arctan2(dy, dx) + np.pi / 2 + np.where(self._in_fibres(xy), turn, 0)

    def _in_fibres(self, xy: np.ndarray) -> np.ndarray:
        fibre = np.array([s.fibre > 0 and s.along == "random" for s in self.tissue.structures] or [False])
        return fibre[self.layout.structure_at(xy)] & (read_field(self.layout.distance, xy, STEP) < 0)

    def _mine(self, number: int, xy: np.ndarray) -> np.ndarray:
        owner = nearest_label(self.layout.owner, xy, STEP)
        return (self.layout.structure[owner] == number) & (owner > 0)

    def _lined(self, number: int, kind: Structure) -> None:
        """Rings of nuclei in the walls of hollow bodies; solid ones are filled."""
        for layer in range(max(kind.layers, 1)):
            at = kind.basal + 0.9 * kind.step * layer
            if at < kind.wall:
                self._row(number, kind, at, kind.step, self.names.index(kind.cell), kind.pose, solid=False)
        self._filled(number, kind, solid=True)

    def _row(self, number: int, kind: Structure, at: float, step: float, cell: int, pose: str, solid=None) -> None:
        """Nuclei in a row `at` um inside the outline, `step` um apart."""
        xy = jittered_lattice(self.rng, self.layout.size, min(0.45 * step, 6), 0.2)
        xy = xy[np.abs(read_field(self.layout.distance, xy, STEP) + at) < max(0.35 * step, 2.5)]
        xy = xy[self._mine(number, xy)]
        for _ in range(2):
            off = read_field(self.layout.distance, xy, STEP).astype(float) + at
            xy = xy - off[:, None] * self._slope(xy)
        owner = nearest_label(self.layout.owner, xy, STEP)
        good = np.abs(read_field(self.layout.distance, xy, STEP) + at) < 1.2
        if kind.form == "fill":  # an epithelium's basal cells lie on its lower side alone
            good &= self._slope(xy)[:, 1] > 0.3
        if solid is not None:
            good &= self.layout.hollow[owner] != solid
        xy, owner = xy[good], owner[good]
        xy = xy[thin_points(xy, 0.82 * step, owner)]
        xy = xy + 0.5 * self.rng.standard_normal(xy.shape)
        if self.names[cell] == kind.cell:
            self._add(xy, cell, pose, kind.goblet, self._mixed(kind), kind.nuclei)
        else:
            self._add(xy, cell, pose)

    def _mixed(self, kind: Structure) -> int | None:
        return None if kind.mixed == "-" else self.names.index(kind.mixed)

    def _filled(self, number: int, kind: Structure, solid=None) -> None:
        xy = jittered_lattice(self.rng, self.layout.size, kind.step, 0.15)
        margin = min(max(kind.basal, 2.5), 0.45 * kind.step + 1)
        xy = xy[(read_field(self.layout.distance, xy, STEP) < -margin) & self._mine(number, xy)]
        if solid is not None:
            xy = xy[self.layout.hollow[nearest_label(self.layout.owner, xy, STEP)] != solid]
        self._add(xy, self.names.index(kind.cell), kind.pose, kind.goblet, self._mixed(kind), kind.nuclei)

    def _ground(self) -> None:
        """Single cells between the bodies, thinned from a dense lattice."""
        spacing = 5.0
        xy = jittered_lattice(self.rng, self.layout.size, spacing, 0.22)
        xy = xy[(read_field(self.layout.distance, xy, STEP) > 1.5) & (read_field(self.layout.glass, xy, STEP) < -3)]
        where = nearest_label(self.layout.compartment, xy, STEP)
        number = {c.compartment: i for i, c in enumerate(self.tissue.compartments)}
        immune = self._immune(xy)
        shape, share = self.layout.distance.shape, []
        for row in self.tissue.densities:
            crowd = row.crowding * smooth_field(self.rng, shape, 110 / STEP)
            density = row.per_mm2 * np.exp(read_field(crowd, xy, STEP).astype(float) - row.crowding**2 / 2)
            density *= np.where(where == number[row.compartment], 1.0, 0.0)
            if tables.cell_types()[row.cell].group == "immune":
                density = density * immune
            share.append(density * 0.866 * spacing**2 / 1e6)
        chosen = (self.rng.random(len(xy)) > np.cumsum(share, axis=0)).sum(axis=0) if share else np.zeros(len(xy))
        for i, row in enumerate(self.tissue.densities):
            self._add(xy[chosen == i], self.names.index(row.cell), "flow")

    def _immune(self, xy: np.ndarray) -> np.ndarray:
        """How many times more immune cells the programmes call in at points, [n]."""
        factor = np.ones(len(xy))
        for programme, field in zip(tables.programmes().values(), self.activity, strict=True):
            if programme.immune:
                factor *= 1 + programme.immune * read_field(field, xy, FIELD_STEP).astype(float)
        return factor

    def _nuclei(self, xy, kind, angle, goblet, size) -> Cells:
        types = list(tables.cell_types().values())
        length, spread, ratio, dark = (
            np.array([getattr(t, name) for t in types])[kind] for name in ("length", "spread", "ratio", "chromatin")
        )
        tumour, by = kind == self.names.index("tumour"), self.morphology
        noise = self.rng.standard_normal((3, len(xy)))
        length = length * size * np.exp(spread * np.where(tumour, by.pleomorphism, 1) * noise[0])
        ratio, dark = ratio * np.exp(0.1 * noise[1]), dark * np.exp(0.2 * noise[2])
        length, dark = length * np.where(tumour, by.nuclear_size, 1), dark * np.where(tumour, by.nuclear_dark, 1)
        moved = np.isin(kind, [i for i, t in enumerate(types) if t.group == "epithelium"])
        for programme, field in zip(tables.programmes().values(), self.activity, strict=True):
            if programme.seen:
                level = np.where(moved, read_field(field, xy, FIELD_STEP), 0)
                length = length * (1 + programme.nucleus_length * level)
                ratio = ratio * (1 + programme.nucleus_ratio * level)
                dark = dark * (1 + programme.nucleus_chromatin * level)
        return Cells(xy, kind, length, np.clip(ratio, 0.12, 1), angle, dark, goblet)
