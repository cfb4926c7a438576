"""Which real sections are at hand, and what is measured of each section, as a tidy table."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from seal import paths, profiles
from seal.data import sample_files
from seal.data.samples import Sample, read_samples
from seal.data.sources import her2st
from seal.errors import SealError
from seal_atlas.realism import mouse
from seal_atlas.realism.count_statistics import common_genes, expression_statistics
from seal_atlas.realism.picture_statistics import picture_statistics
from seal_atlas.realism.statistic import STATISTICS, Statistic

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["statistic", "unit", "source", "simulated", "group", "organ", "x", "value", "low", "high"]
# Patches a section: of simulated ones those of an organ that real sections show, others; of real ones, about
# 300 over all of them.
ALIKE, OTHERS, REAL, FEWEST_REAL, MOST_REAL = 24, 3, 300, 8, 60
MEASURED = 6  # patches of each simulated section whose colours and nuclei are measured
SIDE, UM_PER_PX = 224, 0.5  # px and um a px of the patches that are measured


def real_sections() -> list[Sample]:
    """Real sections that are at hand without a large download, and say which in one line.

    Those of her2st if SEAL_HER2ST names a copy or if they were prepared before, and 49 spots of mouse brain
    (6 MB from the package index).

    Returns
    -------
    Samples, none where there are none.
    """
    found, said = [], []
    if os.environ.get("SEAL_HER2ST"):
        found += read_samples(her2st.prepare(profiles.get("her2st")))
    elif (paths.samples("her2st") / "metadata.csv").is_file():
        found += read_samples(paths.samples("her2st"))
    said.append(f"{len(found)} of her2st" if found else "none of her2st (set SEAL_HER2ST to a copy)")
    try:
        found += read_samples(mouse.prepare())
        said.append("1 of mouse brain")
    except SealError as error:
        said.append(f"none of mouse brain ({error.what})")
    print("real sections:", ", ".join(said))
    return found


def source_name(sample: Sample) -> str:
    """What a sample's source is called: simulated, her2st or mouse brain, else its data set's title."""
    if sample.simulated:
        return "simulated"
    if sample.id.startswith("HER2ST-"):
        return "her2st"
    return "mouse brain" if sample.id == mouse.NAME else sample.dataset


def section_statistics(samples: Sequence[Sample]) -> "pd.DataFrame":
    """Measure each section's counts and pictures, simulated and real ones alike.

    Returns
    -------
    DataFrame, a row a section and statistic: statistic, unit, source, simulated, group (the section), organ, x,
    value, low, high.
    """
    import pandas as pd

    genes = common_genes(samples)
    numbers = patch_numbers(samples)
    rows = []
    for sample in samples:
        found = expression_statistics(sample, genes)
        if sample.has_image:
            number = MEASURED if sample.simulated else numbers[sample.id]
            found = [*found, *picture_statistics(read_spread(sample, number, SIDE, UM_PER_PX)[0], UM_PER_PX)]
        where = {"source": source_name(sample), "simulated": sample.simulated}
        rows += [_row(one, **where, group=sample.id, organ=sample.organ) for one in found]
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(one: Statistic, **where) -> dict:
    found = {"statistic": one.name, "unit": STATISTICS[one.name].unit, **where}
    return found | {"x": one.x, "value": one.value, "low": one.low, "high": one.high}


def patch_numbers(samples: Sequence[Sample]) -> dict[str, int]:
    """How many patches of each section are looked at: more of organs that real sections show too."""
    real = [s for s in samples if s.has_image and not s.simulated]
    organs = {s.organ for s in real} or {"Breast"}
    each = int(np.clip(REAL // max(len(real), 1), FEWEST_REAL, MOST_REAL))
    return {s.id: each if not s.simulated else ALIKE if s.organ in organs else OTHERS for s in samples if s.has_image}


def read_spread(sample: Sample, number: int, size: int, um_per_px: float) -> tuple[np.ndarray, list[str]]:
    """Read up to `number` patches of a section, evenly over its spots.

    Returns
    -------
    uint8 [n, size, size, 3] and the barcodes.
    """
    names = sample_files.patch_barcodes(sample)
    chosen = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, number).astype(int))]
    return np.concatenate(list(sample_files.read_patches(sample, chosen, size, um_per_px))), chosen
