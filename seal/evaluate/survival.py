"""Survival: times that can be used, hazards, curves from risks, the Brier score under censoring, and CoxNet."""

import warnings

import numpy as np

from seal.errors import SealError

Survival = tuple[np.ndarray, np.ndarray]  # days and event (1: died, or progressed; 0: censored) of cases, [n] each
COX_ALPHAS = (0.07, 0.02, 0.01)  # Patho-Bench's; the first is the strictest


def require_survival(days: np.ndarray, event: np.ndarray) -> None:
    """Refuse what nothing can be learned from or scored by: days that are missing or not above 0, events not 0 or 1."""
    wrong = ~(np.isfinite(days) & (np.asarray(days) > 0)) | ~np.isin(event, (0, 1))
    if wrong.any():
        at = int(wrong.argmax())
        first = f"row {at}: {days[at]} days, event {event[at]}"
        what = f"{wrong.sum()} of {len(wrong)} survival times cannot be used, first {first}"
        expected = "days above 0, event 0 (censored) or 1 (died, or progressed)"
        raise SealError(what, expected=expected, do="correct these rows of the label table, or leave them out")


def cumulative_hazard(
    days: np.ndarray, event: np.ndarray, risk: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Breslow's cumulative baseline hazard; without risks, Nelson and Aalen's.

    H0(t) = sum over event times t_k <= t of  deaths at t_k / sum of exp(risk) of those still followed at t_k

    Parameters
    ----------
    risk
        Log relative hazard of each case, [n].

    Returns
    -------
    The event times, [T], and H0 before the first and from each of them on, [T + 1].
    """
    relative = np.ones(len(days)) if risk is None else np.exp(risk)
    times = np.unique(days[event == 1])
    hazard = [(event[days == t]).sum() / relative[days >= t].sum() for t in times]
    return times, np.concatenate([[0.0], np.cumsum(hazard)])


def log_rank_scores(days: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Martingale residuals of the model without covariates: events minus Nelson-Aalen's cumulative hazard."""
    times, total = cumulative_hazard(days, event)
    return event - total[np.searchsorted(times, days, side="right")]


def survival_curves(train: Survival, train_risk: np.ndarray, risk: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Survival that the risks of a Cox model mean, by Breslow's hazard of the training cases.

    S(t | x) = exp(-H0(t) exp(risk)),  [m, T]

    Parameters
    ----------
    train_risk, risk
        Of training cases [n] and of others [m], by one model.
    """
    centre = np.mean(train_risk)  # cancels out, and exp stays finite
    steps, total = cumulative_hazard(*train, train_risk - centre)
    return np.exp(-np.exp(risk - centre)[:, None] * total[np.searchsorted(steps, times, side="right")])


def time_grid(train: Survival) -> np.ndarray:
    """Days at which survival is scored, our choice: the nine deciles of the training cases' event times."""
    return np.unique(np.quantile(train[0][train[1] == 1], np.arange(1, 10) / 10))


def brier_losses(train: Survival, test: Survival, survival: np.ndarray, times: np.ndarray) -> np.ndarray:
    """What each case adds to the integrated Brier score, which is their mean, [n]; 0 is best.

    L(t) = S(t)^2 1[d <= t, died] / G(d) + (1 - S(t))^2 1[d > t] / G(t),  its mean over t by trapezia

    Parameters
    ----------
    train
        Of these is G, Kaplan and Meier's estimate of not being censored yet.
    survival
        Predicted S: the probability to live beyond each of `times`, [n, T].
    times
        Days, rising, [T]; a SealError unless two or more that end within the follow-up of training.

    Source: Graf et al. 1999.
    """
    require_survival(*train)
    require_survival(*test)
    (days, event), ends = test, np.unique(train[0])
    if len(times) < 2 or np.any(np.diff(times) <= 0) or times[-1] >= ends[-1]:
        expected = f"two rising times or more, before the last day of training, {ends[-1]:g}"
        raise SealError(f"the Brier score is asked for at days {times}", expected=expected, do="take `time_grid`'s")
    censored = [np.sum((train[0] == t) & (train[1] == 0)) for t in ends]
    followed = [np.sum((train[0] > t) | ((train[0] == t) & (train[1] == 0))) for t in ends]  # who dies at t does first
    free = np.concatenate([[1.0], np.cumprod(1 - np.divide(censored, np.maximum(followed, 1)))])
    weight = np.divide(1, free, out=np.zeros_like(free), where=free > 0)
    own, at = (weight[np.searchsorted(ends, t, side="right")] for t in (days, times))
    gone, there = (days[:, None] <= times) & (event[:, None] == 1), days[:, None] > times
    loss = survival**2 * gone * own[:, None] + (1 - survival) ** 2 * there * at
    return np.trapezoid(loss, times, axis=1) / (times[-1] - times[0])


def fit_coxnet(x: np.ndarray, train: Survival, alpha: float):
    """Fit Cox's model with an elastic net as Patho-Bench does: l1_ratio 0.5, 100,000 iterations, features as they are.

    Returns
    -------
    scikit-survival's model; ``predict`` gives log relative hazards.

    Raises
    ------
    SealError
        No scikit-survival, days that cannot be used, all cases censored, or a fit that does not come to an end.
    """
    days, event = train
    require_survival(days, event)
    if not np.any(event):
        what = f"all {len(event)} cases of training are censored"
        raise SealError(what, expected="an event at least", do="take another endpoint, or balance the folds by event")
    try:
        from sksurv.linear_model import CoxnetSurvivalAnalysis
        from sksurv.util import Surv
    except ImportError as error:
        raise SealError(f"CoxNet: {error}", expected="the package", do="pip install scikit-survival") from error
    model = CoxnetSurvivalAnalysis(alphas=[alpha], l1_ratio=0.5, max_iter=100_000)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "all coefficients are zero")  # all risks alike: a guess's score says so
            return model.fit(x, Surv.from_arrays(np.asarray(event) == 1, days))
    except ArithmeticError as error:
        raise SealError(f"CoxNet, alpha {alpha}: {error}", expected="a fit", do="take a larger alpha") from error
