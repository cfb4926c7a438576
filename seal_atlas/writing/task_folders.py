"""The simulated cohort's tasks in Patho-Bench's layout (`seal.data.patho_bench`), folds by case.

A second split, k=sites.tsv, trains at the seen sites and tests at the unseen ones. Where these have too few cases it is
not written, and the list of tasks says why.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from seal.data.patho_bench import SITES, write_split, write_task
from seal.data.slide_folds import FOLDS, find_shortage
from seal.data.slide_tasks import SlideTask, find_fold_problem
from seal.files import atomic
from seal_atlas import tables
from seal_atlas.patients.people import Patient
from seal_atlas.patients.tasks import CohortTruth, TaskLabels, deal_folds, label_slides, slide_tasks

DATASET = "seal_atlas_simulated"


def write_tasks(
    root: Path, patients: Sequence[Patient], truth: CohortTruth, slides: dict[str, str], seed: Sequence[int]
) -> None:
    """Write every task that has cases enough to `root`/tasks, and the list of all to `root`/tasks.csv.

    Parameters
    ----------
    patients, truth
        Of the whole cohort, in the same order.
    slides
        Slide by case.
    seed
        Of labels and folds.
    """
    import pandas as pd

    listed = []
    with atomic(Path(root) / "tasks") as folder:
        folder.mkdir()
        for task in slide_tasks().values():
            labels = label_slides(task, patients, truth, seed)
            reason = find_shortage(labels.label, labels.classes, labels.event)
            if reason is None:
                reason = _write_task(folder / task.task, labels, patients, slides, seed)
            row = {"task": task.task, "group": task.group, "metric": task.metric, "strength": task.strength}
            listed.append({**row, "cases": len(labels.rows), "classes": len(labels.classes), "left_out": reason or ""})
    with atomic(Path(root) / "tasks.csv") as temporary:
        pd.DataFrame(listed).to_csv(temporary, index=False)


def _write_task(
    folder: Path, labels: TaskLabels, patients: Sequence[Patient], slides: dict[str, str], seed: Sequence[int]
) -> str | None:
    """Write a task; say why the split by sites is left out, if it is."""
    task, about = _slide_task(labels, [patients[i] for i in labels.rows], slides), labels.task
    split = deal_folds(labels, [p.case for p in patients], seed)
    folds = {f"fold_{k}": (np.flatnonzero(split != k), np.flatnonzero(split == k)) for k in range(FOLDS)}
    description = f"SIMULATED. {about.group}: {about.of}; strength of the signal: {about.strength}"
    write_task(folder, replace(task, folds=folds), description)
    unseen = np.array([tables.sites()[patients[i].site].role == "unseen" for i in labels.rows])
    by_site = np.flatnonzero(~unseen), np.flatnonzero(unseen)
    problem = find_fold_problem(task, *by_site)
    if problem is None:
        write_split(folder, replace(task, folds={"fold_0": by_site}), SITES)
    return f"{SITES}: {problem}" if problem else None


def _slide_task(labels: TaskLabels, chosen: Sequence[Patient], slides: dict[str, str]) -> SlideTask:
    about = labels.task
    kinds = {"regression": "numbers", "survival": "survival"}
    return SlideTask(
        name=about.task,
        group=about.group,
        kind=kinds.get(about.type, "grades" if about.metric == "weighted_kappa" else "classes"),
        metric=about.metric,
        classes=labels.classes,
        cases=tuple(p.case for p in chosen),
        slides=tuple(slides[p.case] for p in chosen),
        labels=labels.label if labels.classes else np.round(labels.label, 6),
        folds={},
        event=labels.event,
        days=labels.days,
        simulated=True,
        datasets=(DATASET,),
        strength=about.strength,
    )
