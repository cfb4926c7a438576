"""Simulated patches against real ones, and the controls: real against real, simulated against simulated."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seal.data.sample_files import read_counts
from seal.data.samples import Sample
from seal.evaluate.robustness import measure_separability
from seal.models.baselines.colour import colour_statistics
from seal_atlas.realism.measure import COLUMNS, patch_numbers, read_spread
from seal_atlas.realism.statistic import STATISTICS

if TYPE_CHECKING:
    import pandas as pd

PAIRS = 10  # at most so many pairs of sections a kind
EACH = 24  # patches of each section of a pair, so that all pairs are equally hard
POOLED = ("simulated and real, like organs", "simulated and real, all organs")
PAIRED = (
    "a simulated and a real section",
    "two real patients",
    "two real sections of a patient",
    "two simulated donors",
)


@dataclass(frozen=True)
class ComparedPatches:
    """Patches of several sections, as an encoder sees them."""

    images: np.ndarray  # uint8 [n, S, S, 3]
    spots: "pd.DataFrame"  # a row a patch: sample, donor, organ, species, simulated, half (of its section: 0 or 1)


def draw_patches(samples: Sequence[Sample], size: int, um_per_px: float) -> ComparedPatches:
    """Read the patches that `apart_statistics` compares, about 300 simulated and 300 real ones.

    Parameters
    ----------
    size, um_per_px
        As the encoder wants them.
    """
    import pandas as pd

    images, frames = [], []
    numbers = patch_numbers(samples)
    for sample in (s for s in samples if s.has_image):
        pixels, barcodes = read_spread(sample, numbers[sample.id], size, um_per_px)
        y = read_counts(sample).obs.loc[barcodes, "pxl_row_in_fullres"].to_numpy(dtype=float)
        frame = pd.DataFrame({"sample": sample.id, "half": (y > np.median(y)).astype(int)})
        about = {name: getattr(sample, name) for name in ("donor", "organ", "species", "simulated")}
        frames.append(frame.assign(**about))
        images.append(pixels)
    return ComparedPatches(np.concatenate(images), pd.concat(frames, ignore_index=True))


def apart_statistics(patches: ComparedPatches, embeddings: np.ndarray, seed: int = 0) -> "pd.DataFrame":
    """Tell patches apart by embedding and by colour alone: simulated from real, and the controls.

    Simulated and real: cross-validated by donor, serial sections of a patient together. Pairs of sections: one half
    of each section is held out, since most patients have one section with a picture; the halves share their stain.

    Parameters
    ----------
    embeddings
        Of `patches`, [n, d].

    Returns
    -------
    DataFrame as of `section_statistics`; source names the comparison (`POOLED`, `PAIRED`), group the pair; low and
    high are 95 % intervals over donors, where there are enough.
    """
    import pandas as pd

    features = {"encoder": embeddings, "colour": colour_statistics(patches.images)}
    rows = []
    for kind, name, chosen, second, groups in _comparisons(patches.spots, seed):
        for feature, values in features.items():
            found = measure_separability(values[chosen], second, groups, seed)
            about = {"source": kind, "simulated": "simulated" in kind, "group": name, "organ": ""}
            numbers = {
                "auc": (found.auc, *found.auc_interval),
                "accuracy": (found.accuracy, *found.accuracy_interval),
                "distance": (found.distance, np.nan, np.nan),
            }
            for statistic, (value, low, high) in numbers.items():
                key = f"{statistic}_{feature}"
                one = {"statistic": key, "unit": STATISTICS[key].unit, "value": value, "low": low, "high": high}
                rows.append(about | one | {"x": np.nan})
    return pd.DataFrame(rows, columns=COLUMNS)


Comparison = tuple[str, str, np.ndarray, np.ndarray, np.ndarray]


def _comparisons(spots: "pd.DataFrame", seed: int) -> Iterator[Comparison]:
    """Kind, name, chosen rows, which of them are of the second class, and their groups."""
    simulated = spots["simulated"].to_numpy(dtype=bool)
    real = spots[~simulated]
    like = (spots["organ"].isin(real["organ"]) | ~simulated).to_numpy()
    for kind, chosen in zip(POOLED, (like, np.ones(len(spots), dtype=bool)), strict=True):
        part = spots[chosen]
        donors = part.groupby("simulated")["donor"].nunique()
        if len(donors) == 2 and donors.min() > 1:
            yield kind, kind, np.flatnonzero(chosen), ~simulated[chosen], part["donor"].to_numpy(dtype=str)
    rng = np.random.default_rng(seed)
    for kind, pairs in _pairs(spots).items():
        some = sorted(rng.permutation(len(pairs))[:PAIRS])
        for first, second in (pairs[i] for i in some):
            chosen = np.concatenate([_evenly(spots, name) for name in (first, second)])
            part = spots.iloc[chosen]
            groups = (part["sample"] + " half " + part["half"].astype(str)).to_numpy(dtype=str)
            yield kind, f"{first} / {second}", chosen, (part["sample"] == second).to_numpy(), groups


def _pairs(spots: "pd.DataFrame") -> dict[str, list[tuple[str, str]]]:
    """Pairs of sections of one organ and species, by kind."""
    found: dict[str, list[tuple[str, str]]] = {kind: [] for kind in PAIRED}
    sections = spots.drop_duplicates("sample").sort_values(["simulated", "sample"], ascending=[False, True])
    focus = set(spots.loc[~spots["simulated"].astype(bool), "organ"]) or {"Breast"}
    for a, b in itertools.combinations(sections[sections["organ"].isin(focus)].itertuples(), 2):
        if (a.organ, a.species) != (b.organ, b.species):
            continue
        if a.simulated and b.simulated:
            kind = "two simulated donors" if a.donor != b.donor else None
        elif a.simulated:
            kind = "a simulated and a real section"
        else:
            kind = "two real patients" if a.donor != b.donor else "two real sections of a patient"
        if kind:
            found[kind].append((a.sample, b.sample))
    return found


def _evenly(spots: "pd.DataFrame", sample: str) -> np.ndarray:
    rows = np.flatnonzero(spots["sample"] == sample)
    return rows[np.unique(np.linspace(0, len(rows) - 1, EACH).astype(int))]
