"""Folds of slide-level tasks: how cases and whole sites are dealt, evenly within strata of the label."""

import warnings
from collections.abc import Sequence

import numpy as np

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
