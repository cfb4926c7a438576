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

from seal.evaluate.slide import FOLDS, find_shortage
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
            reason = find_shortage(labels)
            row = {"task": task.task, "group": task.group, "metric": task.metric, "strength": task.strength}
            listed.append({**row, "cases": len(labels.rows), "classes": len(labels.classes), "left_out": reason or ""})
            if reason is None:
                (folder / task.task).mkdir()
                _write_task(folder / task.task, labels, patients, slides, seed)
    with atomic(Path(root) / "tasks.csv") as temporary:
        pd.DataFrame(listed).to_csv(temporary, index=False)


def _write_task(
    folder: Path, labels: TaskLabels, patients: Sequence[Patient], slides: dict[str, str], seed: Sequence[int]
) -> None:
    import pandas as pd
    import yaml

    name = labels.task.task
    chosen = [patients[i] for i in labels.rows]
    frame = pd.DataFrame({"case_id": [p.case for p in chosen], "slide_id": [slides[p.case] for p in chosen]})
    frame[name] = labels.label if labels.classes else np.round(labels.label, 6)
    extra = []
    if labels.event is not None:
        extra = [f"{name}_event", f"{name}_days"]
        frame[extra[0]], frame[extra[1]] = labels.event, labels.days
    split = deal_folds(labels, [p.case for p in patients], seed)
    by_site = frame.copy()
    for number in range(FOLDS):
        frame[f"fold_{number}"] = np.where(split == number, "test", "train")
    by_site["fold_0"] = ["test" if tables.sites()[p.site].role == "unseen" else "train" for p in chosen]
    frame.to_csv(folder / "k=all.tsv", sep="\t", index=False)
    by_site.to_csv(folder / "k=sites.tsv", sep="\t", index=False)
    about = f"{labels.task.group}: {labels.task.of}; strength of the signal: {labels.task.strength}"
    config = {
        "datasets": [DATASET],
        "task_col": name,
        "extra_cols": extra,
        "task_type": labels.task.type,
        "metrics": [labels.task.metric],
        "label_dict": dict(enumerate(labels.classes)),
        "sample_col": "case_id",
        "num_samples": len(labels.rows),
        "simulated": True,
        "description": f"SIMULATED. {about}",
        "strength": labels.task.strength,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
