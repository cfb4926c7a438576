"""Slide-level scores: folds by case, each metric on made-up slides, chance where nothing tells the label."""

import numpy as np
import pytest

from seal.data.slide_folds import FOLDS, deal_cases, find_shortage, strata_of_labels
from seal.evaluate.slide import SlideLabels, concordance, log_rank_scores, score_slides

SLIDES = 200


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
    assert find_shortage(task.label, task.classes, task.event) is None
    fold = deal_cases([str(i) for i in range(SLIDES)], strata_of_labels(task.label, task.classes), FOLDS, rng)
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
