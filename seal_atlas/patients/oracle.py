"""How well the truth itself tells the labels: the bound for any method that sees the slide, and a check of the design.

The oracle knows each slide's cells, the programmes that a picture can show, and the quantities of the picture; a linear
model learns from them on the tasks' own folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seal_atlas import tables
from seal_atlas.patients.cohort import Patient, morphology_factors
from seal_atlas.patients.tasks import CohortTruth, Labels, Task, labels, tasks
from seal_atlas.writing.pathobench import FOLDS, folds, strata, too_small

_T = 2.776  # 97.5 % quantile of Student's t with FOLDS - 1 degrees of freedom


@dataclass(frozen=True)
class Score:
    """A task's score with its 95 % interval, and the value of guessing."""

    task: Task
    value: float
    low: float
    high: float
    chance: float
    cases: int

    @property
    def gained(self) -> float:
        """Share of the way from guessing to perfect."""
        return (self.value - self.chance) / (1 - self.chance)


def expected_truth(patients: Sequence[Patient], composition: np.ndarray, seed: Sequence[int]) -> CohortTruth:
    """Truth of slides that are never drawn: cheap, for tests and power calculations.

    Parameters
    ----------
    composition
        [n, cell types], shares of cells before what the patient's morphology does to them.

    Returns
    -------
    Immune cells, fibroblasts and goblet cells are multiplied by the patient's factors (immune cells by the programmes
    that call them in, too); activities are the state's mean, shifted, with a donor effect; scores are the change of
    activity plus noise (sd 0.15 logit), where slides have bulk expression.
    """
    rng = np.random.default_rng([*seed, 5])
    programmes, factors = tables.programmes(), list(morphology_factors())
    mean_logit, logit = np.empty((2, len(patients), len(programmes)))
    for column, programme in enumerate(programmes.values()):
        mean = np.clip([programme.level(p.state) for p in patients], 1e-3, 1 - 1e-3)
        shift = np.array([p.shifts.get(programme.name, 0.0) for p in patients])
        mean_logit[:, column] = np.log(mean / (1 - mean))
        logit[:, column] = mean_logit[:, column] + shift + programme.donor_sd * rng.standard_normal(len(patients))
    activity = 1 / (1 + np.exp(-logit))
    morphology = np.array([[p.morphology[f] for f in factors] for p in patients])
    called = np.prod([1 + p.immune * activity[:, i] for i, p in enumerate(programmes.values())], axis=0)
    cells = composition.copy()
    for column, cell in enumerate(tables.cell_types().values()):
        if cell.group == "immune":
            cells[:, column] *= called * morphology[:, factors.index("immune")]
        elif cell.cell == "fibroblast":
            cells[:, column] *= morphology[:, factors.index("fibrosis")]
        elif cell.cell == "goblet":
            cells[:, column] *= morphology[:, factors.index("mucin")]
    scores = logit - mean_logit + 0.15 * rng.standard_normal(logit.shape)
    cases = tuple(p.case for p in patients)
    return CohortTruth(cases, cells / cells.sum(axis=1, keepdims=True), activity, morphology, scores)


def oracle_features(truth: CohortTruth) -> np.ndarray:
    """What a perfect reader of the slide knows.

    Returns
    -------
    float64 [n, cell types + seen programmes + factors]: logs of shares (plus 0.001), logits, logs.
    """
    seen = [i for i, programme in enumerate(tables.programmes().values()) if programme.seen]
    activity = np.clip(truth.activity[:, seen], 1e-3, 1 - 1e-3)
    logit = np.log(activity / (1 - activity))
    return np.hstack([np.log(truth.composition + 1e-3), logit, np.log(truth.morphology)])


def scores(patients: Sequence[Patient], truth: CohortTruth, seed: Sequence[int]) -> list[Score]:
    """Score every task that has cases enough, in the table's order; `seed` as for `pathobench.write`."""
    features = oracle_features(truth)
    labelled = (labels(task, patients, truth, seed) for task in tasks().values())
    return [score(features, of, truth.cases, seed) for of in labelled if too_small(of) is None]


def score(features: np.ndarray, of: Labels, cases: Sequence[str], seed: Sequence[int]) -> Score:
    """Cross-validate a linear model on a task; the task's metric, mean of the folds.

    Parameters
    ----------
    features
        [n, d], of the whole cohort.
    cases
        Of the whole cohort.

    Returns
    -------
    Score; its interval follows from the spread of the folds, widened because they share training cases (Nadeau &
    Bengio 2003). Classes: logistic regression (C = 0.1 on standardised features); grades, numbers and survival
    (log-rank scores): ridge, its penalty chosen by leave-one-out within the training folds.

    Folds are scored apart, as Patho-Bench does: held-out predictions pooled over folds would go against the labels
    where there is no signal, because a fold with high labels is predicted from folds with low ones.
    """
    split = folds([cases[i] for i in of.rows], strata(of), FOLDS, np.random.default_rng([*seed, 4]))
    x = features[of.rows]
    held_out = [np.flatnonzero(split == fold) for fold in range(FOLDS)]
    guesses = []
    for test in held_out:
        train = np.setdiff1d(np.arange(len(x)), test)
        mean, sd = x[train].mean(axis=0), x[train].std(axis=0)
        scaled = (x - mean) / np.where(sd > 1e-9, sd, 1)
        guesses.append(_predict(of, scaled, train, test))
    values = np.array([_metric(of, test, guess) for test, guess in zip(held_out, guesses, strict=True)])
    values = values[np.isfinite(values)]
    spread = _T * values.std(ddof=1) * np.sqrt(1 / FOLDS + 1 / (FOLDS - 1)) if len(values) > 1 else np.inf
    value = float(values.mean()) if len(values) else _chance(of)
    return Score(of.task, value, value - float(spread), value + float(spread), _chance(of), len(x))


def _predict(of: Labels, x: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression, RidgeCV

    metric = of.task.metric
    if metric in ("macro-ovr-auc", "bacc"):
        model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=500).fit(x[train], of.label[train])
        return model.predict_proba(x[test])
    target = _log_rank(of.days[train], of.event[train]) if of.event is not None else of.label[train]
    model = RidgeCV(alphas=np.logspace(0, 4, 9)).fit(x[train], target)
    guess = model.predict(x[test])
    if metric != "weighted_kappa":
        return guess
    # Grades by rank: ridge shrinks towards the mean, so its numbers would miss the outer grades.
    fitted = np.sort(model.predict(x[train]))
    ends = np.cumsum(np.bincount(of.label[train], minlength=len(of.classes)))[:-1]
    return np.searchsorted(fitted[np.minimum(ends, len(fitted) - 1)], guess, side="right")


def _log_rank(days: np.ndarray, event: np.ndarray) -> np.ndarray:
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


def _metric(of: Labels, at: np.ndarray, guess: np.ndarray) -> float:
    """The task's metric over some cases; not a number where they cannot tell (one class, one value, no pair)."""
    from sklearn.metrics import cohen_kappa_score, roc_auc_score

    metric, true = of.task.metric, of.label[at]
    if metric == "cindex":
        return concordance(of.days[at], of.event[at], guess)
    if len(set(true.tolist())) < 2:
        return float("nan")
    if metric == "pearson":
        return float(np.corrcoef(true, guess)[0, 1]) if guess.std() > 0 else 0.0
    if metric == "weighted_kappa":
        return float(cohen_kappa_score(true, guess, weights="quadratic"))
    if metric == "bacc":
        right = guess.argmax(axis=1) == true
        return float(np.mean([right[true == k].mean() for k in sorted(set(true.tolist()))]))
    return float(roc_auc_score(true, guess[:, 1]))


def _chance(of: Labels) -> float:
    if of.task.metric == "bacc":
        return 1 / len(of.classes)
    return {"pearson": 0.0, "weighted_kappa": 0.0}.get(of.task.metric, 0.5)
