"""Patho-Bench's own layout of slide-level tasks, read and written: a folder a task.

ROOT/DATASET/TASK, or ROOT/TASK::

    config.yaml   datasets, task_col, extra_cols, task_type, metrics, label_dict, sample_col, num_samples
    k=all.tsv     case_id, slide_id, the label under the task's name, extra columns, fold_0, fold_1, ... (train, test)
    k=NAME.tsv    the same rows by other folds; k=sites.tsv tests at sites that training never saw

Survival has the columns TASK_event and TASK_days; its label is one of 4 quarters of the days x 2 events. Ours are the
keys simulated, description, strength and group, and the task_type regression: Patho-Bench casts labels to int.

Source: mahmoodlab/Patho-Bench, patho_bench/SplitFactory.py, datasets/DataSplit.py, DatasetFactory.py (660e770).
"""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from seal.data.slide_tasks import (
    METRICS,
    SlideTask,
    check_folds,
    clean_rows,
    public_tasks,
    read_columns,
    read_number,
    rows_by_side,
)
from seal.errors import SealError, explain_unreadable, require_known
from seal.files import atomic

TYPES = {"classes": "classification", "grades": "classification", "numbers": "regression", "survival": "survival"}
SURVIVAL_NAMES = ("OS", "PFS", "DSS", "DFS")  # Patho-Bench takes a task for survival if its name begins with one
ALL, SITES = "k=all", "k=sites"
_KEYS = {"task_col": str, "task_type": str, "sample_col": str, "extra_cols": list, "metrics": list, "label_dict": dict}
_FOLD = "fold_"  # Patho-Bench takes every column with this in its name for a fold
_SIDES = ("train", "test", "val", "-1")
_AGAIN = "correct the file, or fetch the task again"


def read_task(folder: Path, split: str = ALL) -> SlideTask:
    """Read a task's folder, ours or Patho-Bench's.

    Parameters
    ----------
    split
        Whose folds: the name of a tsv file without its suffix.

    Raises
    ------
    SealError
        A file, key or column is missing; a label is not in label_dict; a case is on two sides of a fold; what
        `clean_rows` and `check_folds` refuse.
    """
    config, path = _read_config(Path(folder) / "config.yaml"), Path(folder) / f"{split}.tsv"
    name, labels, columns = config["task_col"], config["label_dict"], read_columns(path, "\t")
    wanted = {"case": "case_id", "slide": "slide_id", "label": name}
    if config["task_type"] == TYPES["survival"]:
        wanted |= {"event": f"{name}_event", "days": f"{name}_days"}
    wanted |= {"site": "site"} if "site" in config["extra_cols"] else {}
    folds = {column: texts for column, texts in columns.items() if column.startswith(_FOLD)}
    lacking = [column for column in (*wanted.values(), *config["extra_cols"]) if column not in columns]
    if lacking or not folds:
        what = f"{path} lacks the columns {', '.join(lacking) or f'{_FOLD}0, {_FOLD}1, ...'}"
        raise SealError(what, expected="what config.yaml names, and folds", do=_AGAIN)
    codes, sample = {int(key): i for i, key in enumerate(labels)}, config["sample_col"].removesuffix("_id")
    own = {key: columns[column] for key, column in wanted.items()}
    rows, kept, dropped = clean_rows(path, own, sample, lambda text: _read_label(text, codes))
    metric = next(m for m in METRICS if m in config["metrics"])
    kind = next(kind for kind, own in TYPES.items() if own == config["task_type"])
    task = SlideTask(
        name=name,
        group=config.get("group") or _find_group(config),
        kind="grades" if kind == "classes" and metric == "weighted_kappa" else kind,
        metric=metric,
        classes=tuple(map(str, labels.values())),
        cases=tuple(rows["case"]),
        slides=tuple(rows["slide"]),
        labels=np.array(rows["label"]),
        folds={fold: _read_sides(f"{path}, {fold}", rows["case"], [s[i] for i in kept]) for fold, s in folds.items()},
        site=tuple(rows["site"]) if "site" in rows else None,
        simulated=bool(config.get("simulated", False)),
        dropped=dropped,
        datasets=tuple(config.get("datasets") or ()),
        sample=sample,
        strength=config.get("strength", ""),
        **{key: np.array(rows[key]) for key in ("event", "days") if key in rows},
    )
    return check_folds(task, path)


def read_tasks(root: Path) -> list[SlideTask]:
    """Read all tasks below a folder, in the order of our 44, then by folder; see `read_task`."""
    folders = sorted(path.parent for path in Path(root).rglob("config.yaml"))
    if not folders:
        raise SealError(f"no task below {root}", expected="folders with config.yaml and k=all.tsv", do="name another")
    order = {name: i for i, name in enumerate(public_tasks())}
    return [read_task(folder) for folder in sorted(folders, key=lambda f: order.get(f.name, len(order)))]


def read_code(root: Path, code: str) -> SlideTask:
    """Read a task by Patho-Bench's code: DATASET--TASK, or TRAIN==TEST--TASK across cohorts.

    Across cohorts there is one fold: all of the first is trained on, all of the second tested, as Patho-Bench does.

    Raises
    ------
    SealError
        The code is none; the cohorts have other classes, or a case or slide in common; see `read_task`.
    """
    source, _, name = code.partition("--")
    first, across, second = source.partition("==")
    if not (first and name) or "--" in name or (across and second in ("", first)):
        raise SealError(f"task code {code!r}", expected="DATASET--TASK or TRAIN==TEST--TASK", do="correct the code")
    one = read_task(Path(root) / first / name)
    if not across:
        return one
    both = [one, read_task(Path(root) / second / name)]
    common = [name for names in ("cases", "slides") for name in set.intersection(*({*getattr(t, names)} for t in both))]
    if common or len({(t.kind, t.classes, t.event is None) for t in both}) > 1:
        what = f"{len(common)} cases or slides in both, first {min(common)}" if common else "other classes in each"
        raise SealError(f"{code}: {what}", expected="the same question in other patients", do="choose other cohorts")
    joined = {key: sum((getattr(t, key) for t in both), ()) for key in ("cases", "slides", "datasets")}
    arrays = ("labels",) if one.event is None else ("labels", "event", "days")
    joined |= {key: np.concatenate([getattr(t, key) for t in both]) for key in arrays}
    joined |= {"dropped": dict(sum((Counter(t.dropped) for t in both), Counter())), "notes": (), "site": None}
    fold = tuple(np.split(np.arange(len(joined["cases"])), [len(one.cases)]))
    simulated = any(t.simulated for t in both)
    return check_folds(replace(one, **joined, name=code, folds={f"{_FOLD}0": fold}, simulated=simulated), root)


def write_task(folder: Path, task: SlideTask, description: str = "") -> None:
    """Write a task's folder, whole or not at all; its folds as k=all.tsv, see `write_split` for others.

    Raises
    ------
    SealError
        See `write_split`.
    """
    import yaml

    survival = task.event is not None
    if survival != task.name.startswith(SURVIVAL_NAMES):  # its reader would look for no event, or for one
        warning = f"Patho-Bench reads as survival what begins with {', '.join(SURVIVAL_NAMES)}, and nothing else"
        description = f"{description}. {warning}" if description else warning
    config: dict[str, Any] = {
        "datasets": list(task.datasets),
        "task_col": task.name,
        "extra_cols": [f"{task.name}_event", f"{task.name}_days"] * survival + ["site"] * bool(task.site),
        "task_type": TYPES[task.kind],
        "metrics": [task.metric],
        "label_dict": dict(enumerate(task.classes)),
        "sample_col": f"{task.sample}_id",
        "num_samples": len(set(task.bags)),
        "simulated": task.simulated,
        "description": description,
    }
    config |= {"strength": task.strength} if task.strength else {}
    config |= {"group": task.group} if task.group != _find_group(config) else {}
    with atomic(Path(folder)) as made:
        made.mkdir()
        write_split(made, task)
        (made / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def write_split(folder: Path, task: SlideTask, split: str = ALL) -> None:
    """Write a task's rows and folds as one tsv file of its folder.

    Raises
    ------
    SealError
        The task's name would be taken for a fold, or a case is on two sides.
    """
    if _FOLD in task.name:
        raise SealError(f"task {task.name!r}", expected=f"a name without {_FOLD}", do="rename it")
    columns: dict[str, Sequence[Any]] = {"case_id": task.cases, "slide_id": task.slides}
    columns[task.name] = task.labels.tolist()
    if task.event is not None:
        columns[f"{task.name}_event"] = task.event.tolist()
        columns[f"{task.name}_days"] = [int(day) if day == int(day) else day for day in task.days.tolist()]
    columns |= {"site": task.site} if task.site else {}
    for fold, rows in task.folds.items():
        sides = np.full(len(task.cases), "val", dtype="U5")
        for side, own in zip(_SIDES, rows, strict=False):
            sides[own] = side
        columns[fold] = sides.tolist()
        rows_by_side(f"task {task.name}, {fold}", task.cases, columns[fold])
    with atomic(Path(folder) / f"{split}.tsv") as made, made.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _read_config(path: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        why, do = explain_unreadable(path, error)
        raise SealError(f"cannot read {path}: {why}", expected="a task's config.yaml", do=do) from error
    held = config if isinstance(config, dict) else {}
    if wrong := [f"{key} ({kind.__name__})" for key, kind in _KEYS.items() if not isinstance(held.get(key), kind)]:
        raise SealError(f"{path} lacks what a task has", expected=", ".join(wrong), do=_AGAIN)
    require_known(f"task_type in {path}", held["task_type"], dict.fromkeys(TYPES.values()))
    require_known(f"sample_col in {path}", held["sample_col"], ("case_id", "slide_id"))
    if not set(held["metrics"]) & set(METRICS):
        require_known(f"metric in {path}", str(held["metrics"]), METRICS)
    return held


def _read_label(text: str, codes: Mapping[int, int]) -> float:
    value = read_number(text)
    if codes and value not in codes:
        raise ValueError(f"{text!r} is not in label_dict, which has {', '.join(map(str, codes))}")
    return codes[int(value)] if codes else value


def _read_sides(where: str, cases: Sequence[str], sides: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    for side in dict.fromkeys(sides):
        require_known(f"side in {where}", side, _SIDES)
    return rows_by_side(where, cases, sides)


def _find_group(config: Mapping[str, Any]) -> str:
    """Group of one of our 44 tasks, by its name where it is simulated, else as a counterpart of one."""
    name = config["task_col"]
    codes = {name} if config.get("simulated") else {f"{own}--{name}" for own in config.get("datasets") or ()}
    alike = (t for t in public_tasks().values() if codes & {t.task, *t.patho_bench} and t.metric in config["metrics"])
    return next((task.group for task in alike), "")
