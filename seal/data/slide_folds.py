"""Folds of slide-level tasks: how cases and whole sites are dealt, evenly within strata of the label."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from seal.data.slide_tasks import SlideTask, find_fold_problem, find_missing
from seal.errors import SealError

FOLDS = 5


def deal_cases(cases: Sequence[str], strata: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Deal slides to folds by case, evenly within strata; int [n], the fold in which each slide is tested.

    Parameters
    ----------
    cases
        The case of each slide; a case's slides stay together, in the stratum of its first.
    strata
        See `strata_of_labels`, [n].
    """
    first = dict(zip(reversed(cases), strata[::-1].tolist(), strict=True))
    fold, dealt = {}, int(rng.integers(number))
    for stratum in sorted(set(first.values())):
        mine = sorted(case for case, own in first.items() if own == stratum)
        for i in rng.permutation(len(mine)).tolist():
            fold[mine[i]] = dealt % number
            dealt += 1
    return np.array([fold[case] for case in cases], dtype=int)


def deal_groups(groups: Sequence[str], strata: np.ndarray, number: int) -> np.ndarray:
    """Deal whole groups that hold several strata (sites; cases of unlike slides) to folds; int [n], as `deal_cases`.

    scikit-learn's StratifiedGroupKFold, which draws nothing; rows are sorted first: their order changes nothing. Where
    each stratum has fewer rows than there are folds, they are one.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    fold, order = np.empty(len(groups), dtype=int), np.lexsort((strata, groups))
    own, strata = np.asarray(groups)[order], np.asarray(strata)[order]
    if np.unique(strata, return_counts=True)[1].max() < number:
        strata = np.zeros_like(strata)
    with warnings.catch_warnings(action="ignore"):  # of a stratum with fewer rows than folds
        for k, (_, test) in enumerate(StratifiedGroupKFold(number).split(own, strata, own)):
            fold[order[test]] = k
    return fold


def strata_of_labels(label: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """What a task's folds are balanced by: the label, or its fifth where it is a number."""
    return label if classes else np.searchsorted(np.quantile(label, (0.2, 0.4, 0.6, 0.8)), label, side="right")


def find_shortage(label: np.ndarray, classes: Sequence[str], event: np.ndarray | None = None) -> str | None:
    """Say why a task cannot be split into folds, None if it can: each class needs a case a fold.

    Parameters
    ----------
    label, event
        Of each case, [n].
    """
    if len(label) < 2 * FOLDS:
        return f"{len(label)} cases"
    if event is not None:
        return f"{event.sum()} events" if event.sum() < FOLDS else None
    if not classes:
        return None
    counts = np.bincount(label, minlength=len(classes))
    short = int(counts.argmin())
    return f"{counts[short]} cases of {classes[short]}" if counts[short] < FOLDS else None


def split_task(task: SlideTask, seed: int = 0) -> SlideTask:
    """Give a task `FOLDS` folds, the same each time, evenly within labels, and note how they were dealt.

    Where sites are known, each is on one side of a fold, if that leaves each class on both; else they are left aside.

    Raises
    ------
    SealError
        One class only; a class with fewer cases, or survival with fewer events, than folds; a class that no dealing by
        case brings to both sides.
    """
    first: dict[tuple, int] = {}
    for i, pair in enumerate(zip(task.cases, task.labels.tolist(), strict=True)):
        first.setdefault(pair, i)
    rows = list(first.values())  # each label of a case once
    cases, label = [task.cases[i] for i in rows], task.labels[rows]
    if problem := find_shortage(label, task.classes, None if task.event is None else task.event[rows]):
        raise _refuse(task, problem)
    if len(np.unique(label)) < 2:
        raise _refuse(task, "one label only")
    strata, note = strata_of_labels(label, task.classes), "folds by case"
    if task.site:
        sites = [task.site[i] for i in rows]
        number = len(set(sites))
        made, lack = task, f"{number} sites for {FOLDS} folds"
        if number >= FOLDS:
            made, lack = _give_folds(task, cases, deal_groups(sites, strata, FOLDS))
        if not lack:
            return replace(made, notes=("folds by site: each site is on one side",))
        note = f"folds by case, since by site: {lack}"
    mixed = len(set(cases)) < len(cases)
    rng = np.random.default_rng(seed)
    made, problem = _give_folds(
        task, cases, deal_groups(cases, strata, FOLDS) if mixed else deal_cases(cases, strata, FOLDS, rng)
    )
    if problem:
        raise _refuse(task, problem)
    return replace(made, notes=(note,))


def _refuse(task: SlideTask, problem: str) -> SealError:
    expected = f"{2 * FOLDS} cases, {FOLDS} of each class or with an event, and each class on both sides of a fold"
    return SealError(f"task {task.name}: {problem}", expected=expected, do="merge or leave out classes, or add cases")


def _give_folds(task: SlideTask, cases: Sequence[str], dealt: np.ndarray) -> tuple[SlideTask, str]:
    """The task with folds, and what they lack."""
    fold_of = dict(zip(cases, dealt.tolist(), strict=True))
    fold = np.array([fold_of[case] for case in task.cases])
    folds = {f"fold_{k}": (np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)}
    lacks = {
        name: find_fold_problem(task, *rows) or ", ".join(find_missing(task, *rows)) for name, rows in folds.items()
    }
    return replace(task, folds=folds), "; ".join(f"{name} has {lack}" for name, lack in lacks.items() if lack)
