"""Counts from what is true of spots: RNA of their cells, activity of pathway programmes, donor and site.

A spot's expected share of a gene follows from the profiles of its cell types (`cell_type_profiles`), what active
programmes add, and ambient RNA of the section. What no picture shows lies on top: the states of cells that look
alike, unseen programmes, donor, site, the capture of each gene, and the drawing of the counts. The genes stand for
the whole transcriptome. All numbers are in tables/genes.csv, programmes.csv, content.csv and expression.csv.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from zlib import crc32

import numpy as np

from seal.errors import SealError
from seal_atlas import tables
from seal_atlas.tables import FOLDER, read_numbered

PARAMETERS = (
    *("median_counts", "depth_sd", "library_sd", "content_power", "ambient", "dispersion", "donor_sd", "site_sd"),
    *("capture", "capture_sd", "housekeeping", "mitochondrial", "basal", "tumour_organ", "tumour_common"),
    *("states", "state_sd", "content_sd", "bulk_counts", "bulk_sd"),
)


@dataclass(frozen=True)
class SpotTruth:
    """What is true of spots, in the order of `tables.cell_types()` and `tables.programmes()`."""

    rna: np.ndarray  # [n, cell types], RNA content by cell type; a fibroblast = 1
    activity: np.ndarray  # [n, programmes], 0 to 1


@dataclass(frozen=True)
class SimulatedCounts:
    """Counts of spots, and their expected shares: what a picture can tell (oracle), what is true (ceiling)."""

    counts: np.ndarray  # int32 [n, genes]
    oracle: np.ndarray  # float32 [n, genes], rows sum to 1
    ceiling: np.ndarray  # float32 [n, genes], rows sum to 1


@dataclass(frozen=True)
class SectionEffects:
    """What all spots of a section have in common."""

    effect: np.ndarray  # [genes], factor on the shares: donor, site, capture
    depth: float  # factor on the counts


@cache
def expression_parameters(path: Path = FOLDER / "expression.csv") -> Mapping[str, float]:
    """Scalars of the model by name; units are in the table.

    Raises
    ------
    SealError
        A name is unknown, missing or twice there, or a value is not a number >= 0.
    """
    values: dict[str, float] = {}
    for number, row in read_numbered(path):
        name, value = row["name"], _number(row["value"], path, number)
        if name not in PARAMETERS or name in values:
            raise _wrong(path, number, name, f"each of {', '.join(PARAMETERS)} once")
        values[name] = value
    missing = [name for name in PARAMETERS if name not in values]
    if missing:
        raise SealError(f"{path} lacks {missing[0]}", expected=", ".join(PARAMETERS), do="add the line")
    return MappingProxyType(values)


@cache
def rna_content(path: Path = FOLDER / "content.csv") -> np.ndarray:
    """Mean RNA content of a cell by type, [cell types]; a fibroblast = 1.

    Raises
    ------
    SealError
        The table does not name each cell type once, or a value is not a number >= 0.
    """
    values: dict[str, float] = {}
    for number, row in read_numbered(path):
        if row["cell"] not in tables.cell_types() or row["cell"] in values:
            raise _wrong(path, number, row["cell"], "each cell type of cells.csv once")
        values[row["cell"]] = _number(row["content"], path, number)
    missing = [cell for cell in tables.cell_types() if cell not in values]
    if missing:
        raise SealError(f"{path} lacks {missing[0]}", expected="each cell type of cells.csv once", do="add the line")
    return _fixed([values[cell] for cell in tables.cell_types()])


@cache
def programme_shares(path: Path = FOLDER / "genes.csv") -> Mapping[str, np.ndarray]:
    """Shares of the genes (`gene_names`) in every programme, each [genes], summing to 1.

    Raises
    ------
    SealError
        A weight is not above 0, a gene is twice in a programme, or a programme is unknown or has no genes.
    """
    found = _weights(path)
    column = {gene: i for i, gene in enumerate(gene_names(path))}
    made = {}
    for programme, weights in found.items():
        values = np.zeros(len(column))
        values[[column[gene] for gene in weights]] = list(weights.values())
        made[programme] = _fixed(values / values.sum())
    return MappingProxyType(made)


@cache
def gene_names(path: Path = FOLDER / "genes.csv") -> tuple[str, ...]:
    """Symbols of the genes in the order of every array, alphabetical."""
    return tuple(sorted({gene for weights in _weights(path).values() for gene in weights}))


def programme_names() -> tuple[str, ...]:
    """Pathway programmes in the order of every activity."""
    return tuple(tables.programmes())


@cache
def _weights(path: Path) -> dict[str, dict[str, float]]:
    needed = ["housekeeping", "mitochondrial", "tumour", *programme_names()]
    needed += [cell for cell in tables.cell_types() if cell != "tumour"]
    needed += [f"tumour_{organ.organ}" for organ in tables.organs().values() if organ.parent != "-"]
    optional = [f"tumour_{organ}" for organ in tables.organs()]
    found: dict[str, dict[str, float]] = {}
    for number, row in read_numbered(path):
        gene, programme = row["gene"], row["programme"]
        if programme not in needed and programme not in optional:
            raise _wrong(path, number, programme, f"one of {', '.join(needed)}")
        weight = _number(row["weight"], path, number)
        if weight == 0 or gene in found.setdefault(programme, {}):
            raise _wrong(path, number, gene, "a gene once in a programme, its weight above 0")
        found[programme][gene] = weight
    missing = [programme for programme in needed if programme not in found]
    if missing:
        raise SealError(f"{path} has no genes of {missing[0]}", expected="some for each programme", do="add them")
    return found


@cache
def _own(organ: str) -> np.ndarray:
    """What a cell type does beside what all cells do, [cell types, genes], rows sum to 1."""
    made = []
    for cell in tables.cell_types():
        parts = {cell: 1.0}
        if cell == "tumour":
            parent, p = tables.organs()[organ].parent, expression_parameters()
            parts = {f"tumour_{organ}": p["tumour_organ"], "tumour": p["tumour_common"]}
            parts[parent] = 1 - sum(parts.values())
        # An organ may lack a parent.
        known = {name: share for name, share in parts.items() if name in programme_shares()}
        made.append(sum(share * programme_shares()[name] for name, share in known.items()) / sum(known.values()))
    return _fixed(made)


@cache
def _general() -> np.ndarray:
    """What all cells do, [genes], summing to its share of a cell's RNA."""
    p = expression_parameters()
    even = np.full(len(gene_names()), p["basal"] / len(gene_names()))
    return _fixed(
        p["housekeeping"] * programme_shares()["housekeeping"]
        + p["mitochondrial"] * programme_shares()["mitochondrial"]
        + even
    )


def cell_type_profiles(organ: str) -> np.ndarray:
    """Mean expression of each cell type without pathway programmes, [cell types, genes], rows sum to 1.

    A tumour cell is a mixture of its parent cell type, what tumours have in common, and its organ's tumour.
    """
    return _general() + (1 - _general().sum()) * _own(organ)


@cache
def programme_reach() -> np.ndarray:
    """Which cell types (rows) a programme (columns) can be active in, bool [cell types, programmes]."""
    cells = tables.cell_types()
    made = np.zeros((len(cells), len(tables.programmes())), bool)
    for column, programme in enumerate(tables.programmes().values()):
        for name in programme.cells.split():
            rows = [i for i, c in enumerate(cells.values()) if name in ("all", c.group, c.cell)]
            if not rows:
                raise SealError(
                    f"{FOLDER / 'programmes.csv'}: {programme.name} names the unknown cells {name}",
                    expected="all, or groups and cell types of cells.csv",
                    do="correct the name",
                )
            made[rows, column] = True
    return _fixed(made)


@cache
def gene_groups() -> np.ndarray:
    """Which of a cell type's groups of genes (its states) a gene belongs to, [genes]; by its name's checksum."""
    return _fixed([crc32(gene.encode()) % int(expression_parameters()["states"]) for gene in gene_names()])


def visible_truth(truth: SpotTruth, state: str) -> SpotTruth:
    """The part of the truth that a picture can show: unseen programmes are at the state's mean."""
    activity = truth.activity.copy()
    for column, programme in enumerate(tables.programmes().values()):
        if not programme.seen:
            activity[:, column] = programme.level(state)
    return replace(truth, activity=activity)


def expected_shares(
    truth: SpotTruth, organ: str, states: np.ndarray | None = None, effect: np.ndarray | float = 1.0
) -> np.ndarray:
    """Expected share of each gene in each spot of a section.

    p_s ~ effect x [r_s general + sum over c of r_sc (g_sc own_c + sum over k of share_k a_sk programme_k)],
    share = (1 - w_s) p_s + w_s p_section,  w_s = A m / (A m + (1 - A) r_s): the same amount of ambient RNA everywhere

    Parameters
    ----------
    states
        g, [n, cell types, groups of genes]: how strongly cells express their own genes; 1 where none is given.
    effect
        Factor on genes, [genes].

    Returns
    -------
    float64 [n, genes], rows sum to 1. r: RNA of a spot, m: its median over spots with cells, A: `ambient`.

    Raises
    ------
    SealError
        No spot has a cell.
    """
    total = truth.rna.sum(axis=1)
    if not (total > 0).any():
        raise SealError("no spot of the section has a cell", expected="one or more", do="simulate a larger section")
    own, factors = (1 - _general().sum()) * _own(organ), np.array([p.share for p in tables.programmes().values()])
    mean = total[:, None] * _general() + (truth.activity * (truth.rna @ programme_reach()) * factors) @ _programmes()
    if states is None:
        mean += truth.rna @ own
    else:
        for group in range(states.shape[2]):
            columns = gene_groups() == group
            mean[:, columns] += (truth.rna * states[:, :, group]) @ own[:, columns]
    mean *= effect
    section = mean.sum(axis=0) / mean.sum()
    ambient = expression_parameters()["ambient"] * np.median(total[total > 0])
    weight = (ambient / (ambient + (1 - expression_parameters()["ambient"]) * total))[:, None]
    sums = mean.sum(axis=1, keepdims=True)
    return (1 - weight) * mean / np.where(sums > 0, sums, 1) + weight * section


@cache
def _programmes() -> np.ndarray:
    return _fixed([programme_shares()[name] for name in programme_names()])


def draw_states(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw how strongly the cells of a type express each group of their genes in a spot; lognormal, mean 1.

    Returns
    -------
    [n, cell types, groups of genes].
    """
    sd = expression_parameters()["state_sd"]
    shape = n, len(tables.cell_types()), int(expression_parameters()["states"])
    return np.exp(rng.normal(-(sd**2) / 2, sd, shape))


def draw_section_effects(rng: np.random.Generator, donor: str, site: str) -> SectionEffects:
    """Draw a section's depth and capture of genes; the same donor or site always has the same effect."""
    p, n = expression_parameters(), len(gene_names())
    z = np.log(p["capture"] / (1 - p["capture"])) + p["capture_sd"] * rng.standard_normal(n)
    return SectionEffects(
        donor_and_site_effects(donor, site) / (1 + np.exp(-z)), float(np.exp(p["depth_sd"] * rng.standard_normal()))
    )


def donor_and_site_effects(donor: str, site: str) -> np.ndarray:
    """Factors of a donor and a site on genes, [genes]; they follow from the names alone."""
    logs = 0.0
    for kind, name in (("donor", donor), ("site", site)):
        rng = np.random.default_rng(crc32(f"{kind} {name}".encode()))
        logs = logs + expression_parameters()[f"{kind}_sd"] * rng.standard_normal(len(gene_names()))
    return np.exp(logs)


def draw_counts(rng: np.random.Generator, share: np.ndarray, rna: np.ndarray, depth: float) -> np.ndarray:
    """Draw library sizes, then counts of expected shares.

    L = median_counts depth ((1 - A) r / m + A)^content_power e^(library_sd z),  x ~ NB(L share, dispersion)

    Parameters
    ----------
    share
        [n, genes].
    rna
        r, the spots' RNA, [n].

    Returns
    -------
    int32 [n, genes], negative binomial: variance = mean + dispersion mean^2.
    """
    p = expression_parameters()
    relative = (1 - p["ambient"]) * rna / np.median(rna[rna > 0]) + p["ambient"]
    noise = np.exp(p["library_sd"] * rng.standard_normal(len(rna)))
    mean = (p["median_counts"] * depth * relative ** p["content_power"] * noise)[:, None] * share
    return rng.poisson(mean * rng.standard_gamma(1 / p["dispersion"], mean.shape) * p["dispersion"]).astype(np.int32)


def simulate_counts(
    rng: np.random.Generator, truth: SpotTruth, organ: str, state: str, donor: str, site: str
) -> SimulatedCounts:
    """Draw the counts of a section's spots, with what could be known of them.

    Returns
    -------
    SimulatedCounts. Its oracle knows the RNA of the cell types (how much each cell holds included, which is a little
    more than a picture tells) and the seen programmes (`visible_truth`), with ambient RNA as it follows from these; its
    ceiling knows all but the library sizes and the drawing of counts.

    Raises
    ------
    SealError
        No spot has a cell.
    """
    section = draw_section_effects(rng, donor, site)
    ceiling = expected_shares(truth, organ, draw_states(rng, len(truth.rna)), section.effect)
    counts = draw_counts(rng, ceiling, truth.rna.sum(axis=1), section.depth)
    oracle = expected_shares(visible_truth(truth, state), organ)
    # Rounded, so that the last bit of a sum, which differs between CPUs, is not stored.
    return SimulatedCounts(counts, *(share.round(9).astype(np.float32) for share in (oracle, ceiling)))


def _number(text: str, path: Path, number: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < np.inf:
        raise _wrong(path, number, text, "a number >= 0")
    return value


def _wrong(path: Path, number: int, what: str, wanted: str) -> SealError:
    return SealError(f"{path}, line {number}: {what!r}", expected=wanted, do="mend the line")


def _fixed(values) -> np.ndarray:
    """An array that nobody can change, as it is kept."""
    made = np.asarray(values)
    made.flags.writeable = False
    return made
