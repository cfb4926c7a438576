"""Slide-level tasks: their metrics, of one prediction or of many in many resamples, and linear models."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from seal.data import slide_tasks
from seal.data.slide_folds import FOLDS
from seal.errors import SealError, require_known
from seal.evaluate.metrics import pearson
from seal.evaluate.survival import COX_ALPHAS, fit_coxnet, log_rank_scores, require_survival

# Patho-Bench's, then Spearman's correlation and the integrated Brier score (whose predictions are `brier_losses`).
METRICS = (*slide_tasks.METRICS, "spearman", "ibs")
_ALPHAS = np.logspace(0, 4, 9)  # of ridge
HESSIAN = 1500  # weights of a logistic regression that is fitted by Newton's steps, at most
_TIED = 1e-8  # risks nearer than this are alike, as scikit-survival has it
_T = 2.776  # 97.5 % quantile of Student's t with FOLDS - 1 degrees of freedom


@dataclass(frozen=True, kw_only=True)
class SlideLabels:
    """Labels of a task's slides, and the metric that scores them.

    Survival has `event` (1: died, or progressed) and `days`; its `label` is a class by which folds are balanced.
    """

    metric: str  # one of `METRICS`
    label: np.ndarray  # [n], numbers of `classes`, or floats where there are none
    classes: tuple[str, ...] = ()
    event: np.ndarray | None = None  # [n]
    days: np.ndarray | None = None  # [n]

    @property
    def chance(self) -> float:
        """The metric's value of guessing; NaN of the Brier score, of which less is better."""
        if self.metric == "bacc":
            return 1 / len(self.classes)
        return {"macro-ovr-auc": 0.5, "cindex": 0.5, "ibs": float("nan")}.get(self.metric, 0.0)

    def take(self, rows: np.ndarray) -> "SlideLabels":
        """Some of the slides."""
        own = {name: None if (of := getattr(self, name)) is None else of[rows] for name in ("label", "event", "days")}
        return replace(self, **own)


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
        values.append(score(labels.take(test), _predict(labels, scaled, train, test)))
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
    model = RidgeCV(alphas=_ALPHAS).fit(x[train], target)
    guess = model.predict(x[test])
    if labels.metric != "weighted_kappa":
        return guess
    # Grades by rank: ridge shrinks towards the mean, so its numbers would miss the outer grades.
    fitted = np.sort(model.predict(x[train]))
    ends = np.cumsum(np.bincount(labels.label[train], minlength=len(labels.classes)))[:-1]
    return np.searchsorted(fitted[np.minimum(ends, len(fitted) - 1)], guess, side="right")


def predict_linear(
    labels: SlideLabels, features: np.ndarray, others: np.ndarray, cox_alpha: float = COX_ALPHAS[0]
) -> np.ndarray:
    """Learn from training cases' features [n, d] and labels, and predict for `others` [m, d], as Patho-Bench does.

    Returns
    -------
    Classes and grades: probabilities [m, K], 0 for a class that was not trained; logistic regression, C 0.5, balanced.
    Numbers: [m]; ridge on standardised features, its penalty by leave-one-out (our choice: Patho-Bench has none).
    Survival: log relative hazards [m]; CoxNet.

    Raises
    ------
    SealError
        NaN, a label that is no class, one class only; see also `fit_coxnet`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    _require_labels(labels)
    if not all(np.isfinite(x).all() for x in (features, others)):
        raise SealError("features hold NaN or infinity", expected="numbers", do="embed these slides again")
    if labels.event is not None:
        return fit_coxnet(features, (labels.days, labels.event), cox_alpha).predict(others)
    if not labels.classes:
        return make_pipeline(StandardScaler(), RidgeCV(alphas=_ALPHAS)).fit(features, labels.label).predict(others)
    if reason := explain_unscored(labels):
        raise SealError(f"training cases have {reason}", expected="two classes", do="balance the folds by class")
    features, others = _rotate(features, others)
    classes = np.unique(labels.label)
    # Patho-Bench's lbfgs stops short of the optimum, by up to .05 of a probability. Newton's steps go there, and are
    # the faster ones while there are few weights.
    few = features.shape[1] * (1 if len(classes) == 2 else len(classes)) <= HESSIAN
    own = {"max_iter": 10_000} | ({"solver": "newton-cholesky", "tol": 1e-8} if few else {})
    model = LogisticRegression(C=0.5, class_weight="balanced", **own)
    found = np.zeros((len(others), len(labels.classes)))
    with warnings.catch_warnings(category=ConvergenceWarning, action="ignore"):  # then it goes on with lbfgs
        found[:, classes] = model.fit(features, labels.label).predict_proba(others)
    return found


def _rotate(x: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotate features so that the columns in which the n training cases do not differ from 0 fall away.

    What is penalised by the length of its weights predicts the same in n columns as in d, of which n span the cases.
    """
    if x.shape[1] <= x.shape[0]:
        return x, others
    axes = np.linalg.svd(x, full_matrices=False)[2].T  # [d, n]
    return x @ axes, others @ axes


def score(labels: SlideLabels, guess: np.ndarray) -> float:
    """Score a prediction, see `weighted_scores`; NaN where `explain_unscored` says why, a guess's score if constant."""
    guess = np.asarray(guess)[None]
    require_scorable(labels, guess)
    return float(weighted_scores(labels, guess, np.ones((1, len(labels.label))))[0, 0])


def concordance(days: np.ndarray, event: np.ndarray, risk: np.ndarray) -> float:
    """Harrell's C of a risk: the score of survival."""
    return score(SlideLabels(metric="cindex", label=event, event=event, days=days), risk)


def explain_unscored(labels: SlideLabels) -> str | None:
    """Say why the metric cannot tell good from bad on some slides, None if it can."""
    if labels.metric == "cindex":
        reason = "no pair of which it is known who died first" if labels.event.any() else "all censored"
        return None if _comparable(labels).any() else reason
    if labels.metric == "ibs" or len(np.unique(labels.label)) > 1:
        return None
    return f"{labels.classes[labels.label[0]]} only" if labels.classes and len(labels.label) else "one value only"


def require_scorable(labels: SlideLabels, guess: np.ndarray) -> None:
    """Refuse what no score can be taken of: an unknown metric, NaN, labels or predictions [M, n(, K)] of other form."""
    require_known("metric", labels.metric, METRICS)
    _require_labels(labels)
    n, k = len(labels.label), len(labels.classes)
    shapes = {"macro-ovr-auc": [(n, k)], "bacc": [(n,), (n, k)], "weighted_kappa": [(n,), (n, k)]}
    allowed = shapes.get(labels.metric, [(n,)])
    if guess.shape[1:] not in allowed or not np.isfinite(guess).all():
        what = f"a prediction of shape {guess.shape[1:]} with {np.sum(~np.isfinite(guess))} NaN or infinite values"
        expected = f"numbers of shape {' or '.join(map(str, allowed))} for {labels.metric}"
        raise SealError(what, expected=expected, do="look at what made it")


def _require_labels(labels: SlideLabels) -> None:
    if labels.event is not None:
        require_survival(labels.days, labels.event)
    wrong, expected = ~np.isfinite(labels.label), "a number a slide"
    if labels.classes:
        wrong, expected = ~np.isin(labels.label, range(len(labels.classes))), f"0 to {len(labels.classes) - 1}"
    if wrong.any():
        first = f"first {labels.label[wrong][0]}, row {wrong.argmax()}"
        what = f"{wrong.sum()} of {len(wrong)} labels cannot be used, {first}"
        raise SealError(what, expected=expected, do="correct these rows, or leave them out and say how many")


def weighted_scores(labels: SlideLabels, guess: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Score M predictions in B resamples: each metric as of slides repeated by their weight, [M, B].

    macro-ovr-auc: each class that is there against the rest, their mean; of two classes the second.
    bacc: mean over classes of the share that is told.
    weighted_kappa: 1 - E(t - g)^2 / E(t - g')^2, the truth t and a guess g' drawn apart.
    cindex: Harrell's; who is censored on the day another dies outlives it.
    ibs: mean of the cases' losses.

    Parameters
    ----------
    guess
        Numbers, grades, risks (the higher dies first) or `brier_losses`, [M, n]; of classes, [M, n, K].
    weights
        How often each slide counts, [B, n]; NaN is given where these cannot tell: one class, one value, no pair.

    Source: scikit-learn (kappa with all grades as its labels), SciPy, scikit-survival.
    """
    weights, truth, metric = np.asarray(weights, dtype=np.float64), labels.label, labels.metric
    if metric == "cindex":
        return _pair_shares(_comparable(labels), guess, weights, _TIED)
    if metric in ("weighted_kappa", "bacc") and guess.ndim == 3:
        guess = guess.argmax(axis=2)
    present = [k for k in range(len(labels.classes)) if (truth == k).any()]
    if metric == "bacc":
        own = [(guess[:, truth == k] == k, weights[:, truth == k]) for k in present]
        return mean_known([right @ w.T / np.where(w.any(axis=1), w.sum(axis=1), np.nan) for right, w in own])
    if metric == "macro-ovr-auc":
        present = present[-1:] if len(labels.classes) == 2 else present
        return mean_known([_pair_shares(np.outer(truth == k, truth != k), guess[..., k], weights) for k in present])
    if metric == "spearman":
        return np.stack([_rank_correlations(truth, g, weights) for g in guess])
    if metric == "pearson":
        x, y = _spread_to_one(guess).T, _spread_to_one(truth[None]).T
        return pearson(x, np.broadcast_to(y, x.shape), weights).T
    share = weights / weights.sum(axis=1, keepdims=True)
    return guess @ share.T if metric == "ibs" else _kappas(truth, guess, share)


def mean_known(values: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of some arrays, element by element, over those that are no NaN; NaN where all are."""
    known = np.isfinite(values)
    number = known.sum(axis=0)
    return np.where(number > 0, np.where(known, values, 0).sum(axis=0) / np.maximum(number, 1), np.nan)


def _comparable(labels: SlideLabels) -> np.ndarray:
    """Whether the first of two cases is known to have died first, [n, n]."""
    days, dead = labels.days, labels.event == 1
    return dead[:, None] & ((days[:, None] < days) | ((days[:, None] == days) & ~dead))


def _pair_shares(first: np.ndarray, guess: np.ndarray, weights: np.ndarray, tied: float = 0.0) -> np.ndarray:
    """Weighted share of the pairs `first`, [n, n], in which the first has the higher guess; ties count half; [M, B]."""
    rows, columns = np.flatnonzero(first.any(axis=1)), np.flatnonzero(first.any(axis=0))
    first, own, other = first[np.ix_(rows, columns)].astype(float), weights[:, rows], weights[:, columns]
    count = lambda pairs: np.einsum("bj,bj->b", own @ pairs, other)  # noqa: E731
    ahead = (g[rows, None] - g[columns] for g in guess)
    higher = np.array([count(first * ((a > tied) + 0.5 * (np.abs(a) <= tied))) for a in ahead])
    total = count(first)
    return np.where(total > 0, higher / np.where(total > 0, total, 1), np.nan)


def _kappas(truth: np.ndarray, guess: np.ndarray, share: np.ndarray) -> np.ndarray:
    apart = (guess**2) @ share.T + share @ truth**2 - 2 * (guess @ share.T) * (share @ truth)
    flat = share @ truth**2 - (share @ truth) ** 2 <= 1e-9
    return np.where(flat, np.nan, 1 - ((guess - truth) ** 2) @ share.T / np.where(flat, 1, apart))


def _spread_to_one(values: np.ndarray) -> np.ndarray:
    """Divide each row by its range; a constant row, but for rounding, becomes 0."""
    spread = np.ptp(values, axis=1, keepdims=True)
    return values / np.where(spread > 1e-12 * np.abs(values).max(axis=1, keepdims=True), spread, np.inf)


def _rank_correlations(truth: np.ndarray, guess: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the ranks within each resample, [B]; tied values share their mean rank."""
    x, y = (weights @ ((v[:, None] < v) + 0.5 * (v[:, None] == v)) for v in (guess, truth))
    share = weights / weights.sum(axis=1, keepdims=True)
    x, y = (rank - np.sum(share * rank, axis=1, keepdims=True) for rank in (x, y))
    vx, vy, both = (np.sum(share * a * b, axis=1) for a, b in ((x, x), (y, y), (x, y)))
    r = np.where(vx > 1e-9, both / np.sqrt(np.where((vx > 1e-9) & (vy > 1e-9), vx * vy, 1)), 0)
    return np.where(vy > 1e-9, r, np.nan)
