"""Slide-level scores: folds by case, each metric on made-up slides, chance where nothing tells the label."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from seal.data.slide_folds import FOLDS, deal_cases, find_shortage, strata_of_labels
from seal.errors import SealError
from seal.evaluate import slide
from seal.evaluate.slide import (
    SlideLabels,
    concordance,
    explain_unscored,
    predict_linear,
    score,
    score_slides,
    weighted_scores,
)

SLIDES = 200


def test_concordance_of_known_orders():
    days, event = np.array([1, 2, 3, 4]), np.array([1, 1, 1, 0])
    assert concordance(days, event, np.array([4, 3, 2, 1])) == 1
    assert concordance(days, event, np.array([1, 2, 3, 4])) == 0
    assert concordance(days, event, np.zeros(4)) == 0.5


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


CLASSES = ("a", "b", "c", "d")


def plain_auc(label, guess):
    """Share of pairs in order, pair by pair."""
    pairs = [(p, n) for p in guess[label] for n in guess[~label]]
    return np.mean([(p > n) + 0.5 * (p == n) for p, n in pairs])


def plain_concordance(days, event, risk):
    """Pair by pair; who is censored on the day another dies outlives it."""
    told = [
        (risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j])
        for i in np.flatnonzero(event)
        for j in range(len(days))
        if days[j] > days[i] or (days[j] == days[i] and not event[j])
    ]
    return np.mean(told)


def plain_score(metric, label, event, days, guess):
    """The metric by scikit-learn, SciPy or pair by pair."""
    if metric == "macro-ovr-auc":
        return np.mean([roc_auc_score(label == k, guess[:, k]) for k in range(4)])
    if metric == "bacc":
        return balanced_accuracy_score(label, guess.argmax(axis=1))
    if metric == "weighted_kappa":
        return cohen_kappa_score(label, guess, weights="quadratic", labels=range(4))
    if metric == "cindex":
        return plain_concordance(days, event, guess)
    if metric == "ibs":
        return guess.mean()
    return np.corrcoef(label, guess)[0, 1] if metric == "pearson" else spearmanr(label, guess).statistic


def scored_task(metric, n=60):
    """Labels that a guess follows with error and with ties, and the guess."""
    rng = np.random.default_rng(4)
    numbers = metric in ("pearson", "spearman")
    label = np.round(rng.normal(size=n), 1) if numbers else rng.integers(4, size=n)
    survival = {"event": rng.integers(2, size=n), "days": rng.integers(1, 30, size=n)} if metric == "cindex" else {}
    if metric in ("macro-ovr-auc", "bacc"):
        guess = np.round(np.eye(4)[label] + rng.normal(size=(2, n, 4)), 1)
    else:
        guess = np.round(label + rng.normal(size=(2, n)), 1)
    if metric == "weighted_kappa":
        guess = np.clip(np.round(guess), 0, 3).astype(int)
    return SlideLabels(metric=metric, label=label, classes=() if numbers else CLASSES, **survival), guess


METRICS = ["macro-ovr-auc", "bacc", "weighted_kappa", "pearson", "spearman", "cindex", "ibs"]


@pytest.mark.parametrize("metric", METRICS)
def test_each_metric_is_that_of_slides_repeated_by_their_weight(metric):
    task, guess = scored_task(metric)
    weights = np.random.default_rng(5).multinomial(60, np.full(60, 1 / 60), size=30)
    weights[0] = 1
    found = weighted_scores(task, guess, weights)
    assert found.shape == (2, 30)
    for m in range(2):
        for b in range(30):
            rows = np.repeat(np.arange(60), weights[b])
            of = (None, None) if task.event is None else (task.event[rows], task.days[rows])
            assert found[m, b] == pytest.approx(plain_score(metric, task.label[rows], *of, guess[m][rows]), abs=1e-10)
    assert score(task, guess[1]) == pytest.approx(found[1, 0], abs=1e-14)


def test_the_auc_of_two_classes_is_that_of_the_second():
    rng = np.random.default_rng(6)
    label, guess = rng.integers(2, size=50), np.round(rng.random((50, 2)), 1)
    task = SlideLabels(metric="macro-ovr-auc", label=label, classes=("no", "yes"))
    assert score(task, guess) == pytest.approx(plain_auc(label == 1, guess[:, 1]))


def test_kappa_counts_grades_that_nobody_has():
    task = SlideLabels(metric="weighted_kappa", label=np.array([0, 0, 1, 3, 3, 1]), classes=CLASSES)
    guess = np.array([0, 1, 1, 3, 1, 3])
    assert score(task, guess) == pytest.approx(
        cohen_kappa_score(task.label, guess, weights="quadratic", labels=range(4))
    )
    assert score(task, guess) != pytest.approx(cohen_kappa_score(task.label, guess, weights="quadratic"))


@pytest.mark.parametrize("metric", METRICS[:-1])
def test_a_constant_prediction_scores_as_guessing(metric):
    task, guess = scored_task(metric)
    constant = np.full_like(guess[0], 0.1) if metric != "weighted_kappa" else np.full(60, 2)
    if metric in ("pearson", "spearman"):
        constant[:] = 1 / 3  # whose mean is not exactly itself
    assert score(task, constant) == pytest.approx(task.chance, abs=1e-9)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (SlideLabels(metric="macro-ovr-auc", label=np.ones(6, int), classes=("no", "yes")), "yes only"),
        (SlideLabels(metric="weighted_kappa", label=np.zeros(6, int), classes=CLASSES), "a only"),
        (SlideLabels(metric="pearson", label=np.full(6, 0.3)), "one value only"),
        (SlideLabels(metric="spearman", label=np.full(6, 0.3)), "one value only"),
        (
            SlideLabels(metric="cindex", label=np.zeros(6, int), event=np.zeros(6, int), days=np.arange(1, 7)),
            "all censored",
        ),
        (
            SlideLabels(metric="cindex", label=np.zeros(6, int), event=np.eye(6, dtype=int)[5], days=np.arange(1, 7)),
            "no pair of which it is known who died first",
        ),
    ],
)
def test_what_cannot_be_scored_is_no_number_and_says_why(task, reason):
    guess = np.linspace(0, 1, 6)
    guess = np.column_stack([guess, 1 - guess]) if task.metric == "macro-ovr-auc" else guess
    assert np.isnan(score(task, guess))
    assert explain_unscored(task) == reason


def test_what_can_be_scored_has_no_reason():
    assert [explain_unscored(scored_task(metric)[0]) for metric in METRICS] == [None] * len(METRICS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "auc"}, "unknown metric 'auc'"),
        ({"label": np.array([0, 1, 4])}, "1 of 3 labels cannot be used, first 4, row 2"),
        ({"label": np.array([0, np.nan, 1])}, "1 of 3 labels cannot be used, first nan, row 1"),
        ({"label": np.array([0.5, np.inf, 1]), "classes": (), "metric": "pearson"}, "first inf, row 1"),
        ({"event": np.array([1, 0, 1]), "days": np.array([3, -1, 2]), "metric": "cindex"}, "row 1: -1 days"),
    ],
)
def test_labels_that_are_none_are_refused(change, message):
    task = SlideLabels(**({"metric": "bacc", "label": np.array([0, 1, 2]), "classes": CLASSES} | change))
    with pytest.raises(SealError, match=message):
        score(task, np.zeros(3))


@pytest.mark.parametrize("metric", METRICS)
def test_predictions_with_nan_or_of_other_slides_are_refused(metric):
    task, guess = scored_task(metric)
    broken = guess[0].astype(float)
    broken[7] = np.nan
    with pytest.raises(SealError, match="NaN or infinite values"):
        score(task, broken)
    with pytest.raises(SealError, match=f"for {metric}"):
        score(task, guess[0][:-1])


@pytest.mark.parametrize("known", [(0, 3), (0, 1, 3)])
@pytest.mark.parametrize("columns", [4, 200])
@pytest.mark.parametrize("most", [1500, 0])  # weights for which Newton's steps are taken
def test_logistic_regression_is_scikit_learns(known, columns, most, monkeypatch):
    monkeypatch.setattr(slide, "HESSIAN", most)
    rng = np.random.default_rng(7)
    x, others = rng.normal(3, 1, size=(80, columns)), rng.normal(3, 1, size=(9, columns))
    task = SlideLabels(metric="bacc", label=rng.choice(known, size=80), classes=CLASSES)
    model = LogisticRegression(C=0.5, class_weight="balanced", max_iter=10_000, tol=1e-9).fit(x, task.label)
    found = predict_linear(task, x, others)
    np.testing.assert_allclose(found[:, known], model.predict_proba(others), atol=1e-5 if most else 0.1)
    assert not np.delete(found, known, axis=1).any()  # a class that was not trained


def test_ridge_is_scikit_learns():
    rng = np.random.default_rng(7)
    x, others = rng.normal(size=(80, 4)), rng.normal(size=(9, 4))
    numbers = SlideLabels(metric="pearson", label=x[:, 0] + rng.normal(size=80))
    scaler = StandardScaler().fit(x)
    ridge = RidgeCV(alphas=np.logspace(0, 4, 9)).fit(scaler.transform(x), numbers.label)
    np.testing.assert_allclose(predict_linear(numbers, x, others), ridge.predict(scaler.transform(others)), rtol=1e-12)


def test_nothing_is_learned_from_one_class_or_from_nan():
    x, task = np.zeros((4, 2)), SlideLabels(metric="bacc", label=np.zeros(4, int), classes=CLASSES)
    with pytest.raises(SealError, match="training cases have a only"):
        predict_linear(task, x, x)
    for which in (0, 1):
        features = [x, x.copy()]
        features[which] = np.full((4, 2), np.nan)
        with pytest.raises(SealError, match="features hold NaN"):
            predict_linear(task, *features)
