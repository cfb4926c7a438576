"""The atlas's tables, read and checked: what a biologist may change without touching code.

Every table is a csv file in `tables/`; lines that begin with # are remarks. Lengths are in um, densities in
cells a mm2, stain amounts in optical density (OD), shares between 0 and 1.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from seal.errors import SealError
from seal.files import digest, sha256

FOLDER = Path(__file__).with_name("tables")
STATES = ("Cancer", "Diseased", "Healthy", "Treated")
VOCABULARY = {  # of structures.csv
    "form": ("scattered", "packed", "fill"),
    "along": ("flow", "across", "random"),
    "pose": ("radial", "flat", "random", "flow"),
    "lumen": ("empty", "secretion", "mucin", "blood", "debris", "keratin", "colloid", "fluid"),
}
Row = TypeVar("Row")


@cache
def tables_digest() -> str:
    """Digest of all tables: whatever is simulated follows from them."""
    return digest([(path.name, sha256(path)) for path in sorted(FOLDER.glob("*.csv"))])


@dataclass(frozen=True)
class Organ:
    """An organ, whether training may see it, and the cell type its tumours descend from (- where it has none)."""

    organ: str
    role: str  # atlas, or unseen: kept for out-of-distribution tests
    parent: str


@dataclass(frozen=True)
class CellType:
    """A cell type as it is drawn: its nucleus, and the cell body of those that lie alone in the stroma."""

    cell: str
    group: str  # immune, stroma, epithelium, nerve, muscle or blood
    length: float  # um, long axis of the nucleus; 0: no nucleus
    spread: float  # relative sd of the length
    ratio: float  # width / length
    chromatin: float  # haematoxylin of the nucleus, OD
    vesicular: float  # how far the middle of the nucleus is washed out
    nucleolus: float  # haematoxylin of a nucleolus, OD
    body: float  # um, diameter of the cell body; 0: not drawn
    body_eosin: float
    body_haematoxylin: float
    body_pigment: float
    halo: float  # um of empty space around the body


@dataclass(frozen=True)
class Compartment:
    """A region of an organ, and its ground: what lies between the structures."""

    organ: str
    states: str  # letters of the states it belongs to: C, D, H, T
    compartment: str
    place: str  # depth (a layer below the surface), patch (irregular areas) or rest
    top: float  # depth: um below the surface where it begins
    share: float  # patch: share of the section's area
    scale: float  # um: size of patches, or of a layer's undulation
    wave: float  # um: how far a layer's upper border undulates
    eosin: float
    haematoxylin: float
    fibre: float  # relative contrast of the fibres
    width: float  # um: thickness of the fibres
    length: float  # um: length of the fibres
    cleft: float  # share of gaps between the fibres
    flow: str  # how fibres run: surface, random or swirl


@dataclass(frozen=True)
class Structure:
    """A kind of body in a compartment: gland, tubule, vessel, nest, fat cell, muscle fascicle, epithelium.

    A body with a wall has a lumen; without one it is solid. The outline is distance 0, inside counts downwards.
    """

    organ: str
    states: str
    compartment: str
    structure: str
    form: str  # scattered (single bodies), packed (side by side) or fill (the whole compartment)
    cell: str
    outer: str  # a second cell type along the outline, - for none
    spacing: float  # um between centres
    radius: float  # um; of packed bodies the largest, which rounds their corners
    spread: float  # relative sd of the radius
    share: float  # of the places that are taken
    stretch: float  # length / width
    along: str  # what a stretched body follows: flow, or random
    warp: float  # um: how far the outline is bent
    gap: float  # um between packed bodies, or to earlier structures
    wall: float  # um from outline to lumen; 0: solid
    layers: int  # rings of nuclei in the wall
    step: float  # um between neighbouring nuclei; 0: none
    basal: float  # um from the outline to the first ring of nuclei
    pose: str  # nuclei: radial, flat, random or flow
    lumen: str  # empty, secretion, mucin, blood, debris, keratin, colloid or fluid
    eosin: float  # of the cytoplasm
    haematoxylin: float
    pigment: float
    polar: float  # how much bluer the base is than the top
    border: float  # how far cell borders show
    clear: float  # how far the cytoplasm is washed out
    fibre: float  # fibre texture instead of cytoplasm: its contrast
    goblet: float  # share of cells that hold a drop of mucin (or of fat)
    mixed: str  # the cell type of these, - for the same
    halo: float  # um of empty space around the body
    nuclei: float  # factor on the size of the nuclei


@dataclass(frozen=True)
class Density:
    """Single cells in the ground of a compartment."""

    organ: str
    states: str
    compartment: str
    cell: str
    per_mm2: float
    crowding: float  # sd of the log density over the section, within 120 um or so


@dataclass(frozen=True)
class Programme:
    """A pathway programme: its level by state, how it moves in space, and what of it shows in nuclei."""

    name: str
    hallmark: str
    share: float
    cells: str
    healthy: float
    diseased: float
    cancer: float
    treated: float
    field_sd: float
    scale_um: float
    donor_sd: float
    nucleus_length: float
    nucleus_ratio: float
    nucleus_chromatin: float
    immune: float

    @property
    def seen(self) -> bool:
        """Whether a picture can show it at all."""
        return any((self.nucleus_length, self.nucleus_ratio, self.nucleus_chromatin, self.immune))

    def level(self, state: str) -> float:
        """Mean activity in a state, 0 to 1."""
        return getattr(self, state.lower())


@dataclass(frozen=True)
class Site:
    """Where sections are cut, stained and scanned."""

    site: str
    role: str  # training, or unseen: kept for out-of-distribution tests
    scanner: str
    haematoxylin: float  # strength, 1 as in the tables
    eosin: float
    hue: float  # share of the yellowish vector in eosin
    spread: float  # relative sd of the strengths among the site's donors
    thickness: float  # blur by the section's thickness, um
    folds: float  # mean number a mm2
    bubbles: float


@dataclass(frozen=True)
class Donor:
    """A donor of the atlas, its section's organ, state and site."""

    donor: str
    organ: str
    state: str
    site: str


@dataclass(frozen=True)
class Architecture:
    """All rows of the tables that make one organ in one state."""

    organ: str
    state: str
    compartments: tuple[Compartment, ...]
    structures: tuple[Structure, ...]
    densities: tuple[Density, ...]


def read_numbered(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Read the rows of a csv file with the numbers of their lines; remarks (#) and empty lines are left out.

    Raises
    ------
    SealError
        The file is missing, or a line has not as many values as there are columns.
    """
    if not path.is_file():
        raise SealError(f"{path} is missing", expected="a table of the atlas", do="restore the file")
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [(i, line) for i, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    table = []
    header: list[str] = []
    for (number, line), values in zip(kept, csv.reader(line for _, line in kept), strict=True):
        values = [value.strip() for value in values]
        if not header:
            header = values
            continue
        if len(values) != len(header) or "" in values:
            raise SealError(
                f"{path}, line {number}: {line!r}",
                expected=f"{len(header)} values: {', '.join(header)} (- for none)",
                do="mend the line",
            )
        table.append((number, dict(zip(header, values, strict=True))))
    return table


def read_typed(kind: type[Row], path: Path) -> tuple[Row, ...]:
    """Read a table into dataclasses, each value as the type of its field.

    Raises
    ------
    SealError
        A column is missing or unknown, or a value is not of its type; names file and line.
    """
    made = []
    for number, row in read_numbered(path):
        wanted = [f.name for f in fields(kind)]
        if sorted(row) != sorted(wanted):
            raise SealError(
                f"{path} has the columns {', '.join(row)}", expected=", ".join(wanted), do="mend the table's first line"
            )
        try:
            made.append(kind(**{f.name: _value(f.type, row[f.name]) for f in fields(kind)}))
        except ValueError as error:
            raise SealError(
                f"{path}, line {number}: {error}", expected="a number where a number belongs", do="mend the line"
            ) from None
    return tuple(made)


def _value(kind: Any, text: str) -> Any:
    if kind is str:
        return text
    value = kind(text)
    if not -float("inf") < value < float("inf"):
        raise ValueError(f"{text!r} is not a finite number")
    return value


def _known(path: Path, what: str, values: Iterable[str], allowed: Iterable[str]) -> None:
    unknown = sorted(set(values) - set(allowed))
    if unknown:
        raise SealError(
            f"{path} names the unknown {what} {unknown[0]}",
            expected=f"one of {', '.join(allowed)}",
            do=f"correct the name, or add the {what} to its table",
        )


@cache
def organs() -> dict[str, Organ]:
    """Organs by name."""
    return {organ.organ: organ for organ in read_typed(Organ, FOLDER / "organs.csv")}


@cache
def cell_types() -> dict[str, CellType]:
    """Cell types by name, in the order of every composition."""
    return {cell.cell: cell for cell in read_typed(CellType, FOLDER / "cells.csv")}


@cache
def programmes() -> dict[str, Programme]:
    """Pathway programmes by name, in the order of every activity."""
    return {programme.name: programme for programme in read_typed(Programme, FOLDER / "programmes.csv")}


@cache
def sites() -> dict[str, Site]:
    """Sites by name."""
    return {site.site: site for site in read_typed(Site, FOLDER / "sites.csv")}


@cache
def donors() -> tuple[Donor, ...]:
    """Donors of the atlas, seen and unseen."""
    path = FOLDER / "donors.csv"
    found = read_typed(Donor, path)
    _known(path, "organ", (d.organ for d in found), tuple(organs()))
    _known(path, "state", (d.state for d in found), STATES)
    _known(path, "site", (d.site for d in found), tuple(sites()))
    return found


@cache
def _parts() -> tuple[tuple[Compartment, ...], tuple[Structure, ...], tuple[Density, ...]]:
    named = {"compartments.csv": Compartment, "structures.csv": Structure, "densities.csv": Density}
    parts = tuple(read_typed(kind, FOLDER / name) for name, kind in named.items())
    compartments = {(c.organ, c.compartment) for c in parts[0]}
    for name, part in zip(named, parts, strict=True):
        path = FOLDER / name
        _known(path, "organ", (row.organ for row in part), tuple(organs()))
        lost = [row for row in part if (row.organ, row.compartment) not in compartments]
        if lost:
            raise SealError(
                f"{path} puts something into {lost[0].organ}'s compartment {lost[0].compartment}",
                expected="a compartment of compartments.csv",
                do="correct the name, or add the compartment",
            )
    _known(FOLDER / "compartments.csv", "place", (c.place for c in parts[0]), ("depth", "patch", "rest"))
    _known(FOLDER / "compartments.csv", "flow", (c.flow for c in parts[0]), ("surface", "random", "swirl"))
    _known(FOLDER / "structures.csv", "cell", (s.cell for s in parts[1]), tuple(cell_types()))
    for column, allowed in VOCABULARY.items():
        _known(FOLDER / "structures.csv", column, (getattr(s, column) for s in parts[1]), allowed)
    for column in ("outer", "mixed"):
        _known(FOLDER / "structures.csv", "cell", (getattr(s, column) for s in parts[1]), ("-", *cell_types()))
    _known(FOLDER / "densities.csv", "cell", (d.cell for d in parts[2]), tuple(cell_types()))
    return parts


@cache
def architecture(organ: str, state: str) -> Architecture:
    """Rows of one organ in one state, in the order of the tables.

    Raises
    ------
    SealError
        The tables have no such tissue.
    """
    chosen = [[r for r in part if r.organ == organ and state[0] in r.states] for part in _parts()]
    if state not in STATES or not chosen[0]:
        known = sorted({f"{c.organ} ({c.states})" for c in _parts()[0]})
        raise SealError(
            f"the atlas has no {state} {organ}",
            expected=f"one of {', '.join(known)} (letters of {', '.join(STATES)})",
            do="add its rows to compartments.csv, structures.csv and densities.csv",
        )
    return Architecture(organ, state, *(tuple(rows) for rows in chosen))


def states_of(organ: str) -> tuple[str, ...]:
    """States in which the tables have an organ."""
    letters = {letter for c in _parts()[0] if c.organ == organ for letter in c.states}
    return tuple(state for state in STATES if state[0] in letters)
