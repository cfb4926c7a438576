"""Tasks as Patho-Bench has them: a folder a task with config.yaml and k=all.tsv, folds by case.

config.yaml holds datasets, task_col, extra_cols, task_type, metrics, label_dict, sample_col and num_samples, as the
files of the data set MahmoodLab/Patho-Bench do; `simulated` and `strength` are ours. k=all.tsv is tab-separated:
case_id, slide_id, the label under the task's name, extra columns, fold_0 to fold_4 (train or test). A second split,
k=sites.tsv, trains at the seen sites and tests at the unseen ones. Patho-Bench itself has no regression; ours is
marked so in task_type.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seal.files import atomic
from seal_atlas import tables
from seal_atlas.patients.cohort import Patient
from seal_atlas.patients.tasks import CohortTruth, Labels, labels, tasks

FOLDS = 5
DATASET = "seal_atlas_simulated"


def folds(cases: Sequence[str], strata: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Deal slides to folds by case, evenly within strata.

    Parameters
    ----------
    cases
        The case of each slide; a case's slides stay together, in the stratum of its first.
    strata
        Label, or bin of the label, of each slide, [n].

    Returns
    -------
    The fold in which each slide is tested, int [n].
    """
    first = dict(zip(reversed(cases), strata[::-1].tolist(), strict=True))
    fold, dealt = {}, int(rng.integers(number))
    for stratum in sorted(set(first.values())):
        mine = sorted(case for case, of in first.items() if of == stratum)
        for i in rng.permutation(len(mine)).tolist():
            fold[mine[i]] = dealt % number
            dealt += 1
    return np.array([fold[case] for case in cases], dtype=int)


def strata(of: Labels) -> np.ndarray:
    """What a task's folds are balanced by: the label, or its fifth where it is a number."""
    if of.classes:
        return of.label
    return np.searchsorted(np.quantile(of.label, (0.2, 0.4, 0.6, 0.8)), of.label, side="right")


def too_small(of: Labels) -> str | None:
    """Say why a task cannot be split into folds, None if it can: each class needs a case a fold."""
    if len(of.rows) < 2 * FOLDS:
        return f"{len(of.rows)} cases"
    if of.event is not None:
        return f"{of.event.sum()} events" if of.event.sum() < FOLDS else None
    if not of.classes:
        return None
    counts = np.bincount(of.label, minlength=len(of.classes))
    short = int(counts.argmin())
    return f"{counts[short]} cases of {of.classes[short]}" if counts[short] < FOLDS else None


def write(
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
        for task in tasks().values():
            of = labels(task, patients, truth, seed)
            reason = too_small(of)
            row = {"task": task.task, "group": task.group, "metric": task.metric, "strength": task.strength}
            listed.append({**row, "cases": len(of.rows), "classes": len(of.classes), "left_out": reason or ""})
            if reason is None:
                (folder / task.task).mkdir()
                _write_task(folder / task.task, of, patients, slides, seed)
    with atomic(Path(root) / "tasks.csv") as temporary:
        pd.DataFrame(listed).to_csv(temporary, index=False)


def _write_task(
    folder: Path, of: Labels, patients: Sequence[Patient], slides: dict[str, str], seed: Sequence[int]
) -> None:
    import pandas as pd
    import yaml

    name = of.task.task
    chosen = [patients[i] for i in of.rows]
    frame = pd.DataFrame({"case_id": [p.case for p in chosen], "slide_id": [slides[p.case] for p in chosen]})
    frame[name] = of.label if of.classes else np.round(of.label, 6)
    extra = []
    if of.event is not None:
        extra = [f"{name}_event", f"{name}_days"]
        frame[extra[0]], frame[extra[1]] = of.event, of.days
    split = folds([p.case for p in chosen], strata(of), FOLDS, np.random.default_rng([*seed, 4]))
    by_site = frame.copy()
    for number in range(FOLDS):
        frame[f"fold_{number}"] = np.where(split == number, "test", "train")
    by_site["fold_0"] = ["test" if tables.sites()[p.site].role == "unseen" else "train" for p in chosen]
    frame.to_csv(folder / "k=all.tsv", sep="\t", index=False)
    by_site.to_csv(folder / "k=sites.tsv", sep="\t", index=False)
    config = {
        "datasets": [DATASET],
        "task_col": name,
        "extra_cols": extra,
        "task_type": of.task.type,
        "metrics": [of.task.metric],
        "label_dict": dict(enumerate(of.classes)),
        "sample_col": "case_id",
        "num_samples": len(of.rows),
        "simulated": True,
        "description": f"SIMULATED. {of.task.group}: {of.task.of}; strength of the signal: {of.task.strength}",
        "strength": of.task.strength,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
