"""How well the truth itself tells the labels: the bound for any method that sees the slide, and a check of the design.

The oracle knows each slide's cells, the programmes that a picture can show, and the quantities of the picture; a linear
model (`seal.evaluate.slide`) learns from them on the tasks' own folds.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from seal.data.slide_folds import find_shortage
from seal.evaluate.slide import SlideScore, score_slides
from seal_atlas import tables
from seal_atlas.patients.people import Patient
from seal_atlas.patients.tasks import CohortTruth, SlideTask, deal_folds, label_slides, slide_tasks

if TYPE_CHECKING:
    import pandas as pd


def oracle_features(truth: CohortTruth) -> np.ndarray:
    """What a perfect reader of the slide knows.

    Returns
    -------
    float64 [n, cell types + seen programmes + factors]: logs of shares (plus 0.001), logits, logs.
    """
    seen = [i for i, programme in enumerate(tables.programmes().values()) if programme.seen]
    activity = np.clip(truth.activity[:, seen], 1e-3, 1 - 1e-3)
    logit = np.log(activity / (1 - activity))
    return np.hstack([np.log(truth.composition + 1e-3), logit, np.log(truth.morphology)])


def score_tasks(
    patients: Sequence[Patient], truth: CohortTruth, seed: Sequence[int]
) -> list[tuple[SlideTask, SlideScore]]:
    """Score every task that has cases enough, in the table's order; `seed` as for `task_folders.write_tasks`."""
    features = oracle_features(truth)
    labelled = (label_slides(task, patients, truth, seed) for task in slide_tasks().values())
    return [
        (labels.task, score_slides(features[labels.rows], labels, deal_folds(labels, truth.cases, seed)))
        for labels in labelled
        if find_shortage(labels.label, labels.classes, labels.event) is None
    ]


def tabulate_scores(scores: Sequence[tuple[SlideTask, SlideScore]]) -> "pd.DataFrame":
    """One row a task: what it is, the strength of its signal by the table that made the labels, and its score.

    Returns
    -------
    DataFrame with task, group, type, strength, metric, cases, oracle with its 95 % interval over folds (low, high),
    chance, gained (share of the way from chance to perfect).
    """
    import pandas as pd

    about = ("task", "group", "type", "strength", "metric")
    rows = [
        {name: getattr(task, name) for name in about}
        | {"cases": score.slides, "oracle": score.value, "low": score.low, "high": score.high}
        | {"chance": score.chance, "gained": score.gained}
        for task, score in scores
    ]
    return pd.DataFrame(rows)
