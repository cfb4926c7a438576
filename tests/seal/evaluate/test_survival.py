"""Survival against plain twins by hand, and against scikit-survival where that is installed."""

import sys

import numpy as np
import pytest

from seal.errors import SealError
from seal.evaluate.slide import SlideLabels, predict_linear, score
from seal.evaluate.survival import (
    brier_losses,
    cumulative_hazard,
    fit_coxnet,
    log_rank_scores,
    require_survival,
    survival_curves,
    time_grid,
)

PEERS = "scikit-survival is not installed: its numbers are not compared"


@pytest.fixture
def cohort():
    """150 training and 60 test cases, days with many ties, a third censored; two of six features matter."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(210, 6))
    dies = rng.exponential(400 * np.exp(-0.8 * x[:, 0] + 0.5 * x[:, 1]))
    leaves = rng.uniform(50, 1500, 210)
    days = np.ceil(np.minimum(dies, leaves) / 20) * 20
    event = (dies <= leaves).astype(int)
    return x[:150], (days[:150], event[:150]), x[150:], (days[150:], event[150:])


def test_log_rank_scores_sum_to_zero_and_fall_with_survival():
    days, event = np.array([1, 2, 2, 3, 5]), np.array([1, 1, 0, 1, 1])
    scores = log_rank_scores(days, event)
    hazard = np.cumsum([1 / 5, 1 / 4, 1 / 2, 1 / 1])
    np.testing.assert_allclose(scores, event - hazard[[0, 1, 1, 2, 3]])
    assert scores.sum() == pytest.approx(0)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0, -3.0])
def test_days_that_are_none_are_named(wrong):
    with pytest.raises(SealError, match=rf"1 of 3 survival times cannot be used, first row 1: {wrong} days, event 1"):
        require_survival(np.array([5.0, wrong, 4.0]), np.array([1, 1, 0]))


def test_an_event_is_0_or_1():
    with pytest.raises(SealError, match="1 of 2 survival times cannot be used, first row 0: 5 days, event 2"):
        require_survival(np.array([5, 4]), np.array([2, 1]))


def plain_brier(train, test, survival, times):
    """The definition, one case and one time after the other."""
    scores = []
    for j, t in enumerate(times):
        total = 0.0
        for i, (day, died) in enumerate(zip(*test, strict=True)):
            if day <= t and died:
                total += survival[i, j] ** 2 / uncensored(train, day)
            elif day > t:
                total += (1 - survival[i, j]) ** 2 / uncensored(train, t)
        scores.append(total / len(test[0]))
    area = sum((b - a) * (x + y) / 2 for a, b, x, y in zip(times, times[1:], scores, scores[1:], strict=False))
    return area / (times[-1] - times[0])


def uncensored(train, t):
    chance = 1.0
    for day in sorted(set(train[0][train[0] <= t])):
        left = ((train[0] == day) & (train[1] == 0)).sum()
        died = ((train[0] == day) & (train[1] == 1)).sum()
        chance *= 1 - left / ((train[0] >= day).sum() - died) if left else 1
    return chance


def test_the_brier_score_is_the_mean_of_its_losses(cohort):
    _, train, x, test = cohort
    times = time_grid(train)
    told = survival_curves(train, np.zeros(150), np.zeros(60), times)
    losses = brier_losses(train, test, told, times)
    assert losses.mean() == pytest.approx(plain_brier(train, test, told, times), rel=1e-12)
    labels = SlideLabels(metric="ibs", label=np.zeros(60, int), event=test[1], days=test[0])
    assert score(labels, losses) == pytest.approx(losses.mean())
    right = survival_curves(train, 0.8 * cohort[0][:, 0], 0.8 * x[:, 0], times)
    wrong = survival_curves(train, 0.8 * cohort[0][:, 0], -0.8 * x[:, 0], times)
    assert (
        brier_losses(train, test, right, times).mean() < losses.mean() < brier_losses(train, test, wrong, times).mean()
    )


@pytest.mark.parametrize("times", [[100.0], [200.0, 100.0], [100.0, 5000.0]])
def test_times_at_which_nothing_is_known_are_refused(cohort, times):
    _, train, _, test = cohort
    with pytest.raises(SealError, match="the Brier score is asked for at days"):
        brier_losses(train, test, np.ones((60, len(times))), np.array(times))


def test_a_hazard_without_risks_counts_deaths_by_those_still_followed():
    times, total = cumulative_hazard(np.array([1, 2, 2, 4]), np.array([1, 1, 0, 1]))
    np.testing.assert_allclose(times, [1, 2, 4])
    np.testing.assert_allclose(total, np.cumsum([0, 1 / 4, 1 / 3, 1]))


def test_the_brier_score_equals_scikit_survivals(cohort):
    metrics = pytest.importorskip("sksurv.metrics", reason=PEERS)
    from sksurv.util import Surv

    _, train, x, test = cohort
    train_y, test_y = (Surv.from_arrays(event == 1, days) for days, event in (train, test))
    times = np.arange(30.0, test[0].max(), 35)
    told = survival_curves(train, np.zeros(150), 0.7 * x[:, 0], times)
    theirs = metrics.integrated_brier_score(train_y, test_y, told, times)
    assert brier_losses(train, test, told, times).mean() == pytest.approx(theirs, rel=1e-12)


def test_the_c_index_equals_scikit_survivals(cohort):
    metrics = pytest.importorskip("sksurv.metrics", reason=PEERS)
    _, _, x, (days, event) = cohort
    labels = SlideLabels(metric="cindex", label=event, event=event, days=days)
    for risk in (x[:, 0], np.round(x[:, 0]), np.zeros(60)):
        theirs = metrics.concordance_index_censored(event == 1, days, risk)[0]
        assert score(labels, risk) == pytest.approx(theirs, abs=1e-12)


def test_coxnet_and_its_curves_equal_scikit_survivals(cohort):
    linear = pytest.importorskip("sksurv.linear_model", reason=PEERS)
    from sksurv.util import Surv

    x, train, others, _ = cohort
    labels = SlideLabels(metric="cindex", label=train[1], event=train[1], days=train[0])
    risk = predict_linear(labels, x, others, cox_alpha=0.02)
    theirs = linear.CoxnetSurvivalAnalysis(alphas=[0.02], l1_ratio=0.5, max_iter=100_000, fit_baseline_model=True).fit(
        x, Surv.from_arrays(train[1] == 1, train[0])
    )
    np.testing.assert_array_equal(risk, theirs.predict(others))
    times = time_grid(train)
    curves = np.array([step(times) for step in theirs.predict_survival_function(others)])
    ours = survival_curves(train, predict_linear(labels, x, x, cox_alpha=0.02), risk, times)
    np.testing.assert_allclose(ours, curves, rtol=1e-10)


def test_coxnet_refuses_the_all_censored(cohort):
    x, (days, _), *_ = cohort
    with pytest.raises(SealError, match="all 150 cases of training are censored"):
        fit_coxnet(x, (days, np.zeros(150, int)), 0.07)


def test_without_scikit_survival_the_error_names_it(cohort, monkeypatch):
    monkeypatch.setitem(sys.modules, "sksurv.linear_model", None)
    with pytest.raises(SealError, match=r"CoxNet: .*sksurv"):
        fit_coxnet(cohort[0], cohort[1], 0.07)
