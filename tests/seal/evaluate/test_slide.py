"""Slide-level scores: folds by case, each metric on made-up slides, chance where nothing tells the label."""

import numpy as np
import pytest

from seal.evaluate.slide import (
    FOLDS,
    SlideLabels,
    concordance,
    deal_cases,
    find_shortage,
    log_rank_scores,
    score_slides,
    strata_of_labels,
)

SLIDES = 200


def test_slides_of_a_case_stay_together():
    cases = ["a", "b", "c", "d", "e", "f"] * 3
    strata = np.array([0, 0, 0, 1, 1, 1] * 3)
    fold = deal_cases(cases, strata, 3, np.random.default_rng(0))
    by_case = {case: {int(f) for f, c in zip(fold, cases, strict=True) if c == case} for case in set(cases)}
    assert all(len(f) == 1 for f in by_case.values())
    for label in (0, 1):
        assert sorted({by_case[c].copy().pop() for c in ("abc", "def")[label]}) == [0, 1, 2]


def test_concordance_of_known_orders():
    days, event = np.array([1, 2, 3, 4]), np.array([1, 1, 1, 0])
    assert concordance(days, event, np.array([4, 3, 2, 1])) == 1
    assert concordance(days, event, np.array([1, 2, 3, 4])) == 0
    assert concordance(days, event, np.zeros(4)) == 0.5


def test_log_rank_scores_sum_to_zero_and_fall_with_survival():
    days, event = np.array([1, 2, 2, 3, 5]), np.array([1, 1, 0, 1, 1])
    scores = log_rank_scores(days, event)
    hazard = np.cumsum([1 / 5, 1 / 4, 1 / 2, 1 / 1])
    np.testing.assert_allclose(scores, event - hazard[[0, 1, 1, 2, 3]])
    assert scores.sum() == pytest.approx(0)


def labels(metric, latent):
    """Labels that follow a number a slide."""
    rank = np.argsort(np.argsort(latent))
    if metric == "pearson":
        return SlideLabels(metric=metric, label=latent)
    if metric == "cindex":
        days = np.argsort(np.argsort(-latent)) + 1  # who has the largest number dies first
        event = (np.arange(len(latent)) % 3 > 0).astype(int)
        classes = tuple(f"Quartile {q}, Event {e}" for e in (0, 1) for q in (1, 2, 3, 4))
        return SlideLabels(
            metric=metric, label=4 * event + (days - 1) * 4 // len(days), classes=classes, event=event, days=days
        )
    number = {"macro-ovr-auc": 2, "bacc": 4, "weighted_kappa": 6}[metric]
    return SlideLabels(metric=metric, label=rank * number // len(rank), classes=tuple("abcdef"[:number]))


@pytest.mark.parametrize("metric", ["macro-ovr-auc", "bacc", "weighted_kappa", "pearson", "cindex"])
def test_a_signal_is_found_and_noise_is_chance(metric):
    rng = np.random.default_rng(0)
    latent, noise = rng.normal(size=(2, SLIDES))
    task = labels(metric, latent)
    assert find_shortage(task) is None
    fold = deal_cases([str(i) for i in range(SLIDES)], strata_of_labels(task), FOLDS, rng)
    features = rng.normal(size=(SLIDES, 5))
    good = score_slides(np.column_stack([features, latent + 0.2 * noise]), task, fold)
    assert good.low > good.chance
    assert good.gained > 0.5
    assert good.slides == SLIDES
    nothing = score_slides(features, task, fold)
    assert nothing.low < nothing.chance < nothing.high
    assert abs(nothing.gained) < 0.25


def test_the_auc_of_several_classes_is_their_mean():
    rng = np.random.default_rng(1)
    label = np.arange(SLIDES) % 3
    task = SlideLabels(metric="macro-ovr-auc", label=label, classes=("a", "b", "c"))
    fold = deal_cases([str(i) for i in range(SLIDES)], label, FOLDS, rng)
    told = np.eye(3)[label] + 0.3 * rng.normal(size=(SLIDES, 3))
    only_the_first = told * (1, 0, 0)
    assert score_slides(told, task, fold).value > 0.95
    assert 0.6 < score_slides(only_the_first, task, fold).value < 0.9


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (SlideLabels(metric="pearson", label=np.arange(9.0)), "9 cases"),
        (SlideLabels(metric="bacc", label=np.array([0] * 20 + [1] * 4), classes=("a", "b")), "4 cases of b"),
        (SlideLabels(metric="cindex", label=np.zeros(20, int), event=np.eye(20, dtype=int)[0]), "1 events"),
    ],
)
def test_too_small_tasks_say_why(task, reason):
    assert find_shortage(task) == reason
