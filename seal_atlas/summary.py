"""What notebook 01 shows of the simulated atlas: fields of tissue, the cohort's tasks, one slide by five scanners."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seal.data.hest import Sample
from seal.profiles import AtlasSettings
from seal.slides.image import SlideImage
from seal_atlas.patients import oracle
from seal_atlas.writing import cohorts

if TYPE_CHECKING:
    import pandas as pd

FIELD = 560.0  # um, wide enough for an organ's architecture


def fields(samples: Sequence[Sample], columns: int = 4, size: int = 224) -> tuple[np.ndarray, list[str]]:
    """Cut the upper middle of each section, where a layered organ has its surface; organs in rows.

    Returns
    -------
    uint8 [sections, size, size, 3] of 560 um each, the first `columns` of every organ; their titles.
    """
    chosen: list[Sample] = []
    for organ in sorted({s.organ for s in samples}):
        chosen += [s for s in samples if s.organ == organ][:columns]
    pictures = []
    for sample in chosen:
        image = SlideImage(sample.wsi_path)
        side = FIELD / sample.um_per_px
        pictures.append(image.region(image.width / 2, min(side / 2, image.height / 2), side, size))
    return np.stack(pictures), [f"{s.organ}, {s.disease_state}" for s in chosen]


def scanned(root: Path, number: int = 0, field: float = 150.0, size: int = 224) -> tuple[np.ndarray, list[str]]:
    """Cut the middle of one slide as each scanner gives it: uint8 [scanners, size, size, 3], and their names."""
    import pandas as pd

    slides = pd.read_csv(root / "slides.csv")
    own = slides[slides["cohort"] == "scanners"]
    own = own[own["case_id"] == own["case_id"].unique()[number]]
    pictures = []
    for row in own.itertuples():
        image = SlideImage(root / "wsis" / f"{row.slide_id}.tif")
        pictures.append(image.region(image.width / 2, image.height / 2, field / row.um_per_px, size))
    return np.stack(pictures), [f"scanner {name}" for name in own["scanner"]]


def slide_tasks(root: Path, settings: AtlasSettings) -> "pd.DataFrame":
    """Score every slide-level task by its oracle, `seal_atlas.patients.oracle`.

    Returns
    -------
    One row a task: task, group, type, strength (as the table that made the labels says), metric, cases, oracle with
    its 95 % interval over folds (low, high), chance, gained (share of the way from chance to perfect).
    """
    import pandas as pd

    drawn, _ = cohorts.draw_cohorts(settings)
    scores = oracle.score_tasks(drawn, cohorts.read_cohort_truth(root), cohorts.cohort_seed(settings))
    rows = [
        {
            "task": s.task.task,
            "group": s.task.group,
            "type": s.task.type,
            "strength": s.task.strength,
            "metric": s.task.metric,
            "cases": s.cases,
            "oracle": s.value,
            "low": s.low,
            "high": s.high,
            "chance": s.chance,
            "gained": s.gained,
        }
        for s in scores
    ]
    return pd.DataFrame(rows)
