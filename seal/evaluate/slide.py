"""Slide-level tasks: a linear model on features of whole slides, cross-validated and scored by the task's metric."""

from dataclasses import dataclass

import numpy as np

from seal.data.slide_folds import FOLDS

_T = 2.776  # 97.5 % quantile of Student's t with FOLDS - 1 degrees of freedom


@dataclass(frozen=True, kw_only=True)
class SlideLabels:
    """Labels of a task's slides, and the metric that scores them.

    Survival has `event` (1: died, or progressed) and `days`; its `label` is a class by which folds are balanced.
    """

    metric: str  # macro-ovr-auc, bacc, weighted_kappa, pearson or cindex
    label: np.ndarray  # [n], numbers of `classes`, or floats where there are none
    classes: tuple[str, ...] = ()
    event: np.ndarray | None = None  # [n]
    days: np.ndarray | None = None  # [n]

    @property
    def chance(self) -> float:
        """The metric's value of guessing."""
        if self.metric == "bacc":
            return 1 / len(self.classes)
        return {"pearson": 0.0, "weighted_kappa": 0.0}.get(self.metric, 0.5)


@dataclass(frozen=True)
class SlideScore:
    """A task's score."""

    value: float
    low: float  # of the 95 % interval
    high: float
    chance: float  # the value of guessing
    slides: int

    @property
    def gained(self) -> float:
        """Share of the way from guessing to perfect."""
        return (self.value - self.chance) / (1 - self.chance)


def score_slides(features: np.ndarray, labels: SlideLabels, fold: np.ndarray) -> SlideScore:
    """Cross-validate a linear model on a task; the task's metric, mean of the folds.

    Parameters
    ----------
    features
        Of the task's slides, [n, d].
    fold
        In which each slide is tested, 0 to `FOLDS` - 1, int [n]; every class is in every fold.

    Returns
    -------
    SlideScore; its interval follows from the spread of the folds, widened because they share training cases (Nadeau &
    Bengio 2003). Classes: logistic regression (C = 0.1 on standardised features); grades, numbers and survival
    (log-rank scores): ridge, its penalty chosen by leave-one-out within the training folds.

    Folds are scored apart, as Patho-Bench does: held-out predictions pooled over folds would go against the labels
    where there is no signal, because a fold with high labels is predicted from folds with low ones.
    """
    values = []
    for number in range(FOLDS):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        mean, sd = features[train].mean(axis=0), features[train].std(axis=0)
        scaled = (features - mean) / np.where(sd > 1e-9, sd, 1)
        values.append(_measure(labels, test, _predict(labels, scaled, train, test)))
    values = np.array([value for value in values if np.isfinite(value)])
    spread = _T * values.std(ddof=1) * np.sqrt(1 / FOLDS + 1 / (FOLDS - 1)) if len(values) > 1 else np.inf
    value = float(values.mean()) if len(values) else labels.chance
    return SlideScore(value, value - float(spread), value + float(spread), labels.chance, len(features))


def _predict(labels: SlideLabels, x: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression, RidgeCV

    if labels.metric in ("macro-ovr-auc", "bacc"):
        model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=500).fit(x[train], labels.label[train])
        return model.predict_proba(x[test])
    survival = labels.event is not None
    target = log_rank_scores(labels.days[train], labels.event[train]) if survival else labels.label[train]
    model = RidgeCV(alphas=np.logspace(0, 4, 9)).fit(x[train], target)
    guess = model.predict(x[test])
    if labels.metric != "weighted_kappa":
        return guess
    # Grades by rank: ridge shrinks towards the mean, so its numbers would miss the outer grades.
    fitted = np.sort(model.predict(x[train]))
    ends = np.cumsum(np.bincount(labels.label[train], minlength=len(labels.classes)))[:-1]
    return np.searchsorted(fitted[np.minimum(ends, len(fitted) - 1)], guess, side="right")


def log_rank_scores(days: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Martingale residuals of the model without covariates: events minus Nelson-Aalen's cumulative hazard."""
    times = np.unique(days[event == 1])
    hazard = np.array([(event[days == t]).sum() / (days >= t).sum() for t in times])
    total = np.concatenate([[0.0], np.cumsum(hazard)])
    return event - total[np.searchsorted(times, days, side="right")]


def concordance(days: np.ndarray, event: np.ndarray, risk: np.ndarray) -> float:
    """Harrell's C: share of comparable pairs in which who dies first has the higher risk; ties count half."""
    first = (event[:, None] == 1) & (days[:, None] < days[None])
    higher = (risk[:, None] > risk[None]) + 0.5 * (risk[:, None] == risk[None])
    return float(higher[first].mean()) if first.any() else float("nan")


def _measure(labels: SlideLabels, at: np.ndarray, guess: np.ndarray) -> float:
    """The task's metric over some slides; not a number where they cannot tell (one class, one value, no pair)."""
    from sklearn.metrics import cohen_kappa_score, roc_auc_score

    true = labels.label[at]
    if labels.metric == "cindex":
        return concordance(labels.days[at], labels.event[at], guess)
    if len(set(true.tolist())) < 2:
        return float("nan")
    if labels.metric == "pearson":
        return float(np.corrcoef(true, guess)[0, 1]) if guess.std() > 0 else 0.0
    if labels.metric == "weighted_kappa":
        return float(cohen_kappa_score(true, guess, weights="quadratic"))
    present = sorted(set(true.tolist()))
    if labels.metric == "bacc":
        right = guess.argmax(axis=1) == true
        return float(np.mean([right[true == k].mean() for k in present]))
    if len(labels.classes) == 2:
        return float(roc_auc_score(true, guess[:, 1]))
    return float(np.mean([roc_auc_score(true == k, guess[:, k]) for k in present]))
