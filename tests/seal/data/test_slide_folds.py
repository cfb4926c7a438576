"""Folds of slide-level tasks: cases and whole sites stay together, labels are spread, too small tasks say why."""

import numpy as np
import pytest

from seal.data.slide_folds import deal_cases, deal_groups, find_shortage


def test_slides_of_a_case_stay_together():
    cases = ["a", "b", "c", "d", "e", "f"] * 3
    strata = np.array([0, 0, 0, 1, 1, 1] * 3)
    fold = deal_cases(cases, strata, 3, np.random.default_rng(0))
    by_case = {case: {int(f) for f, c in zip(fold, cases, strict=True) if c == case} for case in set(cases)}
    assert all(len(f) == 1 for f in by_case.values())
    for label in (0, 1):
        assert sorted({by_case[c].copy().pop() for c in ("abc", "def")[label]}) == [0, 1, 2]


def made_up_sites(seed):
    """Sites of a cohort: a few large ones, many small, each with its own share of a rare label."""
    rng = np.random.default_rng(seed)
    sizes = np.maximum(1, rng.geometric(0.08, 30))
    sites = np.repeat([f"S{i:02d}" for i in range(30)], sizes)
    rare = np.repeat(rng.beta(0.5, 4, 30), sizes)
    return sites, np.where(rng.random(len(sites)) < rare, 2, rng.integers(0, 2, len(sites)))


@pytest.mark.parametrize("seed", range(4))
def test_whole_sites_are_dealt_and_labels_are_spread(seed):
    sites, label = made_up_sites(seed)
    fold = deal_groups(sites, label, 5)
    assert all(len(set(fold[sites == site])) == 1 for site in set(sites))
    chance = np.random.default_rng(seed).integers(0, 5, 30)[np.unique(sites, return_inverse=True)[1]]
    assert unevenness(label, fold) < 0.4 * unevenness(label, chance)


def unevenness(label, fold):
    """Sum over folds and labels of the squared distance from an even share."""
    counts = np.array([[np.sum((fold == f) & (label == k)) for k in np.unique(label)] for f in range(5)])
    return float(((counts / counts.sum(axis=0) - 1 / 5) ** 2).sum())


def test_the_order_of_rows_changes_no_fold():
    sites, label = made_up_sites(0)
    order = np.random.default_rng(1).permutation(len(sites))
    np.testing.assert_array_equal(deal_groups(sites[order], label[order], 5), deal_groups(sites, label, 5)[order])


@pytest.mark.parametrize(
    ("label", "classes", "event", "reason"),
    [
        (np.arange(9.0), (), None, "9 cases"),
        (np.array([0] * 20 + [1] * 4), ("a", "b"), None, "4 cases of b"),
        (np.zeros(20, int), (), np.eye(20, dtype=int)[0], "1 events"),
        (np.array([0] * 20 + [1] * 5), ("a", "b"), None, None),
    ],
)
def test_too_small_tasks_say_why(label, classes, event, reason):
    assert find_shortage(label, classes, event) == reason
