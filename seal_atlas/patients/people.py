"""Who the patients of the slide cohort are: diagnoses, sites and alterations, and what these do to tissue.

Everything here is drawn before any tissue grows; numbers and effects stand in tables/cohort.csv, subtypes.csv,
alterations.csv and morphology.csv. An alteration's value does not depend on the organ, so an organ tells nothing of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from zlib import crc32

import numpy as np

from seal.errors import SealError
from seal_atlas import tables
from seal_atlas.tables import read_numbered, read_typed

LEVEL = "level"  # the value of an alteration that is a standard normal number


@dataclass(frozen=True)
class Effect:
    """What one cause does: logit shifts of programmes, factors of `Morphology`."""

    shifts: dict[str, float]
    factors: dict[str, float]


@dataclass(frozen=True)
class Subtype:
    """A diagnosis."""

    subtype: str
    organ: str
    state: str
    group: str
    diagnosis: str
    effect: Effect


@dataclass(frozen=True)
class Alteration:
    """A molecular state, and whose tumours can have it."""

    alteration: str
    values: tuple[str, ...]
    shares: tuple[float, ...]
    organs: tuple[str, ...]
    states: str
    effects: tuple[Effect, ...]

    @property
    def is_level(self) -> bool:
        """Whether it is a number instead of a class."""
        return self.values == (LEVEL,)


@dataclass(frozen=True)
class Factor:
    """How a quantity of the picture varies between patients."""

    factor: str
    sd: float  # of its logarithm
    low: float
    high: float


@dataclass(frozen=True)
class _Count:
    subtype: str
    patients: int
    sites: str


@dataclass(frozen=True)
class Patient:
    """One patient and the slide that is made of it."""

    case: str
    subtype: str
    organ: str
    state: str
    site: str
    alterations: dict[str, str | float]  # those its tumour can have
    morphology: dict[str, float]  # by factor; 1 where its tissue cannot show it
    shifts: dict[str, float]  # by programme, logit


def parse_effect(text: str, where: str) -> Effect:
    """Read effects such as `proliferation:+0.5 nuclear_size:x1.10`; - for none.

    Raises
    ------
    SealError
        An effect is unreadable, or names neither a programme nor a factor; `where` says where it stands.
    """
    shifts: dict[str, float] = {}
    factors: dict[str, float] = {}
    for part in text.split() if text != "-" else ():
        name, _, value = part.partition(":")
        try:
            if name in tables.programmes() and value[:1] in "+-":
                shifts[name] = float(value)
                continue
            if name in morphology_factors() and value[:1] == "x" and float(value[1:]) > 0:
                factors[name] = float(value[1:])
                continue
        except ValueError:
            pass
        raise SealError(
            f"{where}: effect {part!r}",
            expected="programme:+n, programme:-n or factor:xN, of programmes.csv and morphology.csv",
            do="mend the effect",
        )
    return Effect(shifts, factors)


def require_known_organs(organs: Iterable[str], where: str) -> None:
    """Assert that organs are those of the atlas; `where` says where they stand.

    Raises
    ------
    SealError
        One is not.
    """
    unknown = sorted(set(organs) - set(tables.organs()))
    if unknown:
        raise SealError(
            f"{where} names the unknown organ {unknown[0]}",
            expected=f"one of {', '.join(tables.organs())}",
            do="correct the name",
        )


@cache
def morphology_factors() -> dict[str, Factor]:
    """Quantities of the picture by name, in the table's order."""
    return {factor.factor: factor for factor in read_typed(Factor, tables.FOLDER / "morphology.csv")}


@cache
def subtypes() -> dict[str, Subtype]:
    """Diagnoses by name, in the order of their labels."""
    path, found = tables.FOLDER / "subtypes.csv", {}
    for line, row in read_numbered(path):
        if row["state"] not in tables.states_of(row["organ"]):
            raise SealError(
                f"{path}, line {line}: the atlas has no {row['state']} {row['organ']}",
                expected="an organ and a state of compartments.csv",
                do="correct the line, or add the tissue's rows",
            )
        effect = parse_effect(row.pop("effects"), f"{path}, line {line}")
        found[row["subtype"]] = Subtype(**row, effect=effect)
    return found


@cache
def alterations() -> dict[str, Alteration]:
    """Alterations by name.

    Raises
    ------
    SealError
        An effect is unreadable, or shares do not sum to 1, or the values of one differ in organs or states.
    """
    path = tables.FOLDER / "alterations.csv"
    lines: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for line, row in read_numbered(path):
        lines.setdefault(row["alteration"], []).append((line, row))
    found = {}
    for name, rows in lines.items():
        values = tuple(row["value"] for _, row in rows)
        shares = tuple(
            1.0 if value == LEVEL else float(row["share"]) for value, (_, row) in zip(values, rows, strict=True)
        )
        if abs(sum(shares) - 1) > 1e-6 or len({(row["organs"], row["states"]) for _, row in rows}) > 1:
            raise SealError(
                f"{path}: the values of {name} do not fit together",
                expected="shares that sum to 1, the same organs and states",
                do=f"mend lines {rows[0][0]} to {rows[-1][0]}",
            )
        organs = tuple(tables.organs()) if rows[0][1]["organs"] == "all" else tuple(rows[0][1]["organs"].split())
        require_known_organs(organs, f"{path}, line {rows[0][0]}")
        effects = tuple(parse_effect(row["effects"], f"{path}, line {line}") for line, row in rows)
        found[name] = Alteration(name, values, shares, organs, rows[0][1]["states"], effects)
    return found


def _counts(number: int, organs: Iterable[str] | None) -> list[tuple[_Count, int]]:
    """Patients of each diagnosis, in the table's proportions (largest remainders), `number` in all."""
    path = tables.FOLDER / "cohort.csv"
    rows = list(read_typed(_Count, path))
    unknown = [row.subtype for row in rows if row.subtype not in subtypes()]
    if unknown:
        raise SealError(
            f"{path} names the unknown subtype {unknown[0]}",
            expected=f"one of {', '.join(subtypes())}",
            do="correct the name, or add the subtype to subtypes.csv",
        )
    if organs is not None:
        rows = [row for row in rows if subtypes()[row.subtype].organ in set(organs)]
    if not rows:
        raise SealError(
            f"{path} has no diagnosis of the organs {', '.join(organs or ())}",
            expected="at least one of the profile's organs",
            do="add organs to the source_settings of the profile",
        )
    exact = np.array([row.patients for row in rows], dtype=float)
    exact *= number / exact.sum()
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: number - whole.sum()]] += 1
    return list(zip(rows, whole.tolist(), strict=True))


def draw_patients(
    number: int, seed: Sequence[int], prefix: str = "P", organs: Iterable[str] | None = None
) -> list[Patient]:
    """Draw patients.

    Parameters
    ----------
    number
        Of patients; of each diagnosis in the proportions of tables/cohort.csv.
    seed
        Of the random streams; the same gives the same patients.
    prefix
        Of their names.
    organs
        Those that are wanted, None for all.

    Returns
    -------
    Patients in an order that tells nothing.
    """
    rng = np.random.default_rng([*seed, 0])
    kinds, sites = [], []
    for row, count in _counts(number, organs):
        kinds += [row.subtype] * count
        deck = (row.sites * (count // len(row.sites) + 1))[: max(count, len(row.sites))]
        sites += [deck[i] for i in rng.permutation(len(deck))[:count]]
    order = rng.permutation(number)
    diagnoses = [subtypes()[kinds[i]] for i in order]
    values = {name: _values(alteration, diagnoses, seed) for name, alteration in alterations().items()}
    spread = np.random.default_rng([*seed, 1]).standard_normal((number, len(morphology_factors())))
    drawn = []
    for i, subtype in enumerate(diagnoses):
        own = {name: column[i] for name, column in values.items() if column[i] is not None}
        shifts, factors = _together(subtype, own, spread[i])
        drawn.append(
            Patient(
                f"{prefix}{i + 1:05d}",
                subtype.subtype,
                subtype.organ,
                subtype.state,
                sites[order[i]],
                own,
                factors,
                shifts,
            )
        )
    return drawn


def _values(alteration: Alteration, diagnoses: Sequence[Subtype], seed: Sequence[int]) -> list[str | float | None]:
    """An alteration's value in each patient, None where it cannot occur: exact shares, dealt at random."""
    rng = np.random.default_rng([*seed, 2, crc32(alteration.alteration.encode())])
    able = [i for i, s in enumerate(diagnoses) if s.organ in alteration.organs and s.state[0] in alteration.states]
    column: list[str | float | None] = [None] * len(diagnoses)
    if alteration.is_level:
        for i, value in zip(able, rng.standard_normal(len(able)).tolist(), strict=True):
            column[i] = value
        return column
    ends = np.rint(np.cumsum(alteration.shares) * len(able)).astype(int)
    for rank, i in enumerate(rng.permutation(able).astype(int).tolist()):
        column[i] = alteration.values[int(np.searchsorted(ends, rank, side="right"))]
    return column


@cache
def shown_factors(organ: str, state: str) -> frozenset[str]:
    """Quantities that a picture of this tissue can show at all: no tumour, no tumour nuclei."""
    tissue = tables.architecture(organ, state)
    needs = {
        "necrosis": any(c.compartment == "necrosis" for c in tissue.compartments),
        "mucin": any(s.goblet > 0 for s in tissue.structures),
        "gland": any(s.wall > 0 for s in tissue.structures),
    }
    tumour = any(row.cell == "tumour" for row in (*tissue.structures, *tissue.densities))
    needs |= dict.fromkeys(("nuclear_size", "nuclear_dark", "pleomorphism"), tumour)
    return frozenset(name for name in morphology_factors() if needs.get(name, True))


def _together(subtype: Subtype, values: dict[str, str | float], spread: np.ndarray):
    """Sum of all effects on a patient: shifts, and factors within their bounds."""
    effects = [(subtype.effect, 1.0)]
    for name, value in values.items():
        alteration = alterations()[name]
        if alteration.is_level:
            effects.append((alteration.effects[0], float(value)))
        else:
            effects.append((alteration.effects[alteration.values.index(str(value))], 1.0))
    shifts: dict[str, float] = {}
    logs = {name: factor.sd * float(z) for (name, factor), z in zip(morphology_factors().items(), spread, strict=True)}
    for effect, times in effects:
        for name, value in effect.shifts.items():
            shifts[name] = shifts.get(name, 0.0) + times * value
        for name, value in effect.factors.items():
            logs[name] += times * float(np.log(value))
    bounds, shows = morphology_factors(), shown_factors(subtype.organ, subtype.state)
    factors = {
        n: min(max(float(np.exp(v)), bounds[n].low), bounds[n].high) if n in shows else 1.0 for n, v in logs.items()
    }
    return shifts, factors
