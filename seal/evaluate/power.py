"""What a cohort can show: paired bootstrap over cases, Holm's correction, and the smallest difference it could find."""

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np

from seal.errors import SealError
from seal.evaluate.metrics import holm, interval, resamples, two_sided
from seal.evaluate.slide import SlideLabels, mean_known, require_scorable, weighted_scores

LEVEL, POWER = 0.05, 0.8
WORTH = 0.05  # a difference that matters, as a share of the way from guessing to perfect: our choice
FOUND, NOT_FOUND, UNDECIDABLE = "found", "not found", "undecidable at this n"
# What public captions claim of slide tasks (arXiv 2602.14177, extended figure 1): how it is measured, and no number.
CLAIMS = dict.fromkeys(("molecular", "pathway", "response"), "B: performance relative to the ST-Net baseline")
CLAIMS |= {"morphology": "A: relative change of SEAL over the vision-only baseline"}


def resample_cases(cases: np.ndarray, fold: np.ndarray, times: int, seed: int) -> np.ndarray:
    """How often each row of a table of held-out predictions counts in each resample, [times, n].

    Cases are drawn, with all their rows. Where each is tested in one fold, they are drawn within folds, so that folds
    keep their sizes; where folds overlap (Patho-Bench's 50 random ones), they are drawn from all, and a case counts
    alike in each fold: its repeats are no further evidence.

    Parameters
    ----------
    cases, fold
        Case of each row, and the fold in which it is tested, [n].
    """
    names, which = np.unique(cases, return_inverse=True)
    home = np.zeros(len(names), dtype=int)
    home[which] = folds = np.unique(fold, return_inverse=True)[1]
    if not np.array_equal(home[which], folds):
        home[:] = 0
    weights = np.empty((times, len(names)))
    for number in np.unique(home):
        mine = np.flatnonzero(home == number)
        weights[:, mine] = resamples(len(mine), times, [seed, number])
    return weights[:, which]


def bootstrap_scores(
    labels: SlideLabels, fold: np.ndarray, guesses: Mapping[str, np.ndarray], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Score methods on a cohort and in resamples of it, the same for all: differences between methods are paired.

    The metric is taken within each fold, since folds have models of their own, and averaged over the folds that can
    tell, then over seeds. These are the models' scores on other cases; for other models see `training_factor`.

    Parameters
    ----------
    fold
        In which each row is tested, [n].
    guesses
        Of each method, of several seeds: [S, n], or [S, n, K] of classes.
    weights
        See `resample_cases`, [B, n].

    Returns
    -------
    By method, the score of the cohort itself, then of each resample, [1 + B].
    """
    for guess in guesses.values():
        require_scorable(labels, guess)
    every = np.concatenate(list(guesses.values()))
    weights = np.vstack([np.ones(len(fold)), weights])
    rows = [np.flatnonzero(fold == number) for number in np.unique(fold)]
    scores = mean_known([weighted_scores(labels.take(own), every[:, own], weights[:, own]) for own in rows])
    ends = np.cumsum([len(guess) for guess in guesses.values()])[:-1]
    return {name: own.mean(axis=0) for name, own in zip(guesses, np.split(scores, ends), strict=True)}


def training_factor(folds: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> float:
    """How much wider a difference scatters than the bootstrap says, since other cases would train other models.

    sqrt((1 / K + n_test / n_train) n / n_test),  of K folds that test n cases in all;  1.5 of five folds

    Without it, two equally good encoders were told apart in 12 to 17 of 100 simulated cohorts, at a level of 5.

    Parameters
    ----------
    folds
        Rows of training and of the test, by fold.

    Source: Nadeau and Bengio 2003, who correct the variance over folds; put on the bootstrap by us.
    """
    train, test = (np.mean([len(sides[i]) for sides in folds.values()]) for i in (0, 1))
    tested = len(np.unique(np.concatenate([own for _, own in folds.values()])))
    return float(np.sqrt((1 / len(folds) + test / train) * tested / test))


def compare(scores: np.ndarray, base: np.ndarray, labels: SlideLabels, cases: int, factor: float) -> dict[str, float]:
    """Compare a method with another by their `bootstrap_scores` of so many cases.

    Differences in resamples are spread out from the cohort's own by `factor`: the `training_factor`, or 1 where the
    models are given and not trained on these folds.

    Returns
    -------
    base (the other's score), difference, low, high (95 % interval), error (standard error), p, chance (the metric's
    value of guessing). A resample in which no fold can tell is left out; NaN where these are half of them.
    """
    return {"base": float(base[0]), **subtract(scores, base, cases, factor), "chance": labels.chance}


def subtract(scores: np.ndarray, base: np.ndarray, cases: int, factor: float) -> dict[str, float]:
    """Take the difference of two scores in resamples, [1 + B] each; see `compare`, which says more of it."""
    own, *drawn = scores - base
    known = own + factor * (np.array(drawn)[np.isfinite(drawn)] - own)
    said = len(known) >= max(len(drawn) / 2, 2) and np.isfinite(own)
    low, high = interval(known) if said else (np.nan, np.nan)
    row = {"difference": float(own), "low": low, "high": high}
    return row | {
        "error": float(known.std(ddof=1)) if said else np.nan,
        "p": two_sided(known, cases) if said else np.nan,
    }


def smallest_difference(error: np.ndarray | float, level: float = LEVEL) -> np.ndarray | float:
    """The smallest true difference that a cohort shows with 80 % power, of the paired difference's standard error.

    (z_{1 - level / 2} + z_{0.8}) x error
    """
    return (NormalDist().inv_cdf(1 - level / 2) + NormalDist().inv_cdf(POWER)) * error


def judge(rows: Mapping[str, Mapping[str, float]], resampled: int, claimed: Mapping[str, float] | None = None):
    """Judge a family of tasks by what `compare` says of each.

    found: Holm's p is at most 0.05; the sign of the difference says which method is better.
    not found: it is not, though a difference that matters would have been found with 80 % power.
    undecidable at this n: even that one could have been missed, or the task cannot be scored.

    What matters is the difference that is claimed, where its size is known, else `WORTH` of the way from guessing to
    perfect. Power is that of Holm's first and strictest step, level / tasks.

    Parameters
    ----------
    resampled
        The number of resamples; a SealError where no p of this family could be small enough with these.
    claimed
        Relative to the other method's score, by task, from a source the caller names; captions hold none, see `CLAIMS`.

    Returns
    -------
    DataFrame, a row a task: task, what `compare` gives, p_holm, smallest (the smallest difference this cohort could
    show), smallest_relative (to base; NaN of a base near 0), claimed (absolute), matters, verdict.
    """
    import pandas as pd

    if 2 * len(rows) > LEVEL * (resampled + 1):
        what = f"{resampled} resamples for {len(rows)} tasks: after Holm no p can be {LEVEL} or less"
        need = int(np.ceil(2 * len(rows) / LEVEL)) - 1
        raise SealError(what, expected=f"{need} at least", do="draw more, or judge smaller families")
    table = pd.DataFrame([{"task": task, **row} for task, row in rows.items()])
    smallest = smallest_difference(table["error"], LEVEL / len(rows))
    claim = (table["task"].map(claimed or {}).astype(float) * table["base"]).abs()
    table = table.assign(p_holm=holm(table["p"]), smallest=smallest, claimed=claim)
    table["smallest_relative"] = smallest / table["base"].where(table["base"] > WORTH)
    table["matters"] = claim.fillna(WORTH * (1 - table["chance"]))
    missed = np.where(table["smallest"] <= table["matters"], NOT_FOUND, UNDECIDABLE)
    return table.assign(verdict=np.where(table["p_holm"] <= LEVEL, FOUND, missed))
