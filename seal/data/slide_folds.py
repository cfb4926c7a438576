"""Folds of slide-level tasks: how cases and whole sites are dealt, evenly within strata of the label."""

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
    """Deal whole groups of several labels (sites, cases with unlike slides) to folds; int [n], as `deal_cases`.

    The largest group comes first, and each goes where it lowers most
    sum over folds f, strata s of (n_fs / n_s - 1 / folds)^2,
    then any group moves, or two change places, wherever that lowers it. Names decide between equals, chance nothing.

    Parameters
    ----------
    groups
        Of each row; at least as many as folds.
    strata
        See `strata_of_labels`, [n].
    """
    names, group = np.unique(groups, return_inverse=True)
    stratum = np.unique(strata, return_inverse=True)[1]
    share = np.zeros((len(names), stratum.max() + 1))
    np.add.at(share, (group, stratum), 1)
    order = np.argsort(-share.sum(axis=1), kind="stable")
    share /= share.sum(axis=0)
    held, fold = np.full((number, share.shape[1]), -1 / number), np.empty(len(names), dtype=int)
    for own in order:
        fold[own] = np.argmin((2 * held * share[own]).sum(axis=1))
        held[fold[own]] += share[own]
    while sum([_exchange(own, share, held, fold) for own in range(len(names))]):
        pass
    return fold[group]


def _exchange(own: int, share: np.ndarray, held: np.ndarray, fold: np.ndarray) -> bool:
    """Let a group go to a fold, or change places with another, whichever evens out the strata most; say if it did."""
    here, there = fold[own], np.concatenate([np.arange(len(held)), fold])
    gone = share[own] - np.concatenate([np.zeros_like(held), share])
    change = (gone * (gone - held[here] + held[there])).sum(axis=1)  # half of what the sum of squares changes by
    change[there == here] = 0
    best = int(change.argmin())
    if change[best] >= -1e-9:
        return False
    held[here] -= gone[best]
    held[there[best]] += gone[best]
    if best >= len(held):
        fold[best - len(held)] = here
    fold[own] = there[best]
    return True


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
