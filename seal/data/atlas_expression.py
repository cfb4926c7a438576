"""Counts of simulated spots, from the cells in them and from what no picture shows.

The weights in `atlas_genes.csv` are tiers of abundance (100, 30, 10, 3, 1), not measurements; its genes stand
for the whole transcriptome. All numbers were set before any model was trained on them and are not tuned.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from seal.data.atlas_organs import CELL_TYPES
from seal.errors import SealError

GENES = Path(__file__).with_name("atlas_genes.csv")
STATES = ("proliferation", "hypoxia", "interferon")


@dataclass(frozen=True)
class ExpressionModel:
    """How counts follow from cells. Source: orders of magnitude of Visium data; the values are our choice."""

    median_counts: float = 5000  # a spot
    library_sd: float = 0.35  # of the log library size, beyond what the cells explain
    content_power: float = 0.5  # library size grows with the spot's RNA content to this power
    ambient: float = 0.08  # share of a spot's counts that come from the whole section (SpotClean, 2022)
    dispersion: float = 0.3  # a: variance = mean + a mean^2
    donor_sd: float = 0.25  # of the log effect of a donor on a gene
    organ_share: float = 0.5  # of an epithelial cell's own programme that is its organ's
    tumour_share: float = 0.4  # of a tumour cell's own programme that is the tumour's
    housekeeping: float = 0.40  # shares of a cell's RNA; the rest is its own programme
    mitochondrial: float = 0.12
    hypoxia: float = 0.12  # shares added where the state is full; invisible in the picture
    interferon: float = 0.12
    proliferation: float = 0.15  # shares added in a cycling cell; weakly visible in its nucleus
    cycling: tuple[float, float] = (0.35, 0.08)  # mean of that state in cancer, in healthy epithelium
    content_sd: float = 0.5  # of the log RNA content of a cell among those of its type
    # RNA of a cell relative to a fibroblast's, in the order of CELL_TYPES
    content: tuple[float, ...] = (2.0, 1.0, 0.6, 0.8, 1.2, 1.0)


MODEL = ExpressionModel()


@cache
def programmes(table: Path = GENES) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Read the gene table.

    Returns
    -------
    The genes in alphabetical order, and a programme's shares of them, [genes], summing to 1.

    Raises
    ------
    SealError
        A line is not gene,programme,weight with a positive weight, or repeats an earlier one.
    """
    weights: dict[tuple[str, str], float] = {}
    for number, line in enumerate(table.read_text(encoding="utf-8").splitlines()[1:], start=2):
        try:
            gene, programme, weight = line.split(",")
            if not float(weight) > 0 or (programme, gene) in weights:
                raise ValueError
        except ValueError:
            raise SealError(
                f"{table}, line {number}: {line!r}",
                expected="gene,programme,weight, the weight above 0, a gene once a programme",
                do="mend the line",
            ) from None
        weights[programme, gene] = float(weight)
    genes = tuple(sorted({gene for _, gene in weights}))
    column = {gene: i for i, gene in enumerate(genes)}
    shares: dict[str, np.ndarray] = {}
    for (programme, gene), weight in weights.items():
        shares.setdefault(programme, np.zeros(len(genes)))[column[gene]] = weight
    return genes, {name: values / values.sum() for name, values in shares.items()}


def profiles_of(organ: str, disease: str) -> np.ndarray:
    """Mean expression of each cell type at rest, [cell types, genes], rows sum to 1."""
    shares = programmes()[1]
    rows = []
    for name in CELL_TYPES:
        own = shares[name]
        if name == "epithelial":
            own = (1 - MODEL.organ_share) * own + MODEL.organ_share * shares[f"epithelial_{organ}"]
            if disease == "Cancer":
                own = (1 - MODEL.tumour_share) * own + MODEL.tumour_share * shares[f"tumour_{organ}"]
        general = MODEL.housekeeping * shares["housekeeping"] + MODEL.mitochondrial * shares["mitochondrial"]
        rows.append(general + (1 - MODEL.housekeeping - MODEL.mitochondrial) * own)
    return np.stack(rows)


def express(rng: np.random.Generator, rna: np.ndarray, cycling: np.ndarray, hidden: np.ndarray, rest: np.ndarray):
    """Draw counts of all spots of a section.

    mean = L [(1 - a) p + a p_section],  p ~ donor effect x (rna @ rest + sum of states x programmes)

    Parameters
    ----------
    rna
        RNA content of the spot by cell type, [spots, cell types].
    cycling
        RNA content of the spot's cycling cells, [spots].
    hidden
        Hypoxia and interferon, 0 to 1, [spots, 2].
    rest
        `profiles_of` the section, [cell types, genes].

    Returns
    -------
    int32 [spots, genes], negative binomial with variance mean + `MODEL.dispersion` mean^2.
    """
    shares = programmes()[1]
    content = rna.sum(axis=1)
    mean = rna @ rest + MODEL.proliferation * np.outer(cycling, shares["proliferation"])
    for values, name, share in zip(hidden.T, STATES[1:], (MODEL.hypoxia, MODEL.interferon), strict=True):
        mean += share * np.outer(values * content, shares[name])
    mean *= np.exp(rng.normal(0, MODEL.donor_sd, mean.shape[1]))
    section = mean.sum(axis=0) / mean.sum()
    mean /= np.maximum(mean.sum(axis=1, keepdims=True), 1e-9)
    ambient = np.where(content > 0, MODEL.ambient, 1.0)[:, None]  # a spot without cells holds nothing else
    mean = (1 - ambient) * mean + ambient * section
    relative = np.maximum(content / np.median(content), 0.02)
    library = relative**MODEL.content_power * np.exp(rng.normal(0, MODEL.library_sd, len(content)))
    mean *= (MODEL.median_counts * library / np.median(library))[:, None]
    return rng.poisson(rng.gamma(1 / MODEL.dispersion, MODEL.dispersion * mean)).astype(np.int32)
