"""Statistics over cases: resamples, fold-wise scores, verdicts, and power against simulated cohorts."""

import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from seal.errors import SealError
from seal.evaluate.metrics import holm
from seal.evaluate.power import (
    CLAIMS,
    FOUND,
    NOT_FOUND,
    UNDECIDABLE,
    bootstrap_scores,
    compare,
    judge,
    resample_cases,
    smallest_difference,
    training_factor,
)
from seal.evaluate.slide import SlideLabels


def cohort(n=100, folds=5, seed=0, methods=(0.0, 1.0), seeds=2):
    """A made-up task of two classes; a method's guess follows the label as strongly as its number says."""
    rng = np.random.default_rng(seed)
    labels = SlideLabels(metric="macro-ovr-auc", label=rng.integers(2, size=n), classes=("no", "yes"))
    offset = rng.normal(size=folds)  # folds have models of their own: their outputs are on scales of their own
    fold = np.arange(n) % folds
    guesses = {}
    for strength in methods:
        yes = strength * labels.label + rng.normal(size=(seeds, n)) + 3 * offset[fold]
        guesses[f"method {strength}"] = np.stack([-yes, yes], axis=2)
    return labels, fold, guesses


def test_a_case_is_drawn_with_all_its_rows_within_its_fold():
    cases = np.array(["a", "a", "b", "c", "d", "e"])
    fold = np.array([0, 0, 0, 1, 1, 1])
    weights = resample_cases(cases, fold, 200, 0)
    assert weights.shape == (200, 6)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 1])
    assert set((weights[:, 1] + weights[:, 2]).tolist()) == {2.0}
    assert set(weights[:, 3:].sum(axis=1).tolist()) == {3.0}
    assert weights.std(axis=0).min() > 0
    assert np.corrcoef(weights[:, 0], weights[:, 3])[0, 1] < 0.3  # folds have draws of their own


def test_where_folds_overlap_a_case_counts_alike_in_each():
    cases, fold = np.array(["a", "b", "c", "a", "c", "d"]), np.array([0, 0, 0, 1, 1, 1])
    weights = resample_cases(cases, fold, 200, 0)
    np.testing.assert_array_equal(weights[:, [0, 2]], weights[:, [3, 4]])
    assert set(weights[:, [0, 1, 2, 5]].sum(axis=1).tolist()) == {4.0}


def test_scores_are_taken_within_folds_and_averaged_over_folds_and_seeds():
    labels, fold, guesses = cohort()
    weights = resample_cases(np.arange(100), fold, 20, 1)
    found = bootstrap_scores(labels, fold, guesses, weights)
    for name, guess in guesses.items():
        for b, weight in enumerate([np.ones(100, int), *weights.astype(int)]):
            plain = []
            for one in guess:
                for f in range(5):
                    rows = np.repeat(np.flatnonzero(fold == f), weight[fold == f])
                    plain.append(roc_auc_score(labels.label[rows], one[rows, 1]))
            assert found[name][b] == pytest.approx(np.mean(plain), abs=1e-12)


def test_pooled_over_folds_a_null_goes_against_the_labels_and_fold_by_fold_it_does_not():
    """Predicting the training folds' mean label knows nothing, yet pooled it scores below chance."""
    pooled, apart = [], []
    for seed in range(30):
        labels, fold, _ = cohort(n=60, seed=seed)
        mean = np.array([labels.label[fold != f].mean() for f in range(5)])[fold]
        guess = {"mean": np.stack([-mean, mean], axis=1)[None]}
        pooled.append(roc_auc_score(labels.label, mean))
        apart.append(bootstrap_scores(labels, fold, guess, np.ones((1, 60)))["mean"][0])
    assert np.mean(pooled) < 0.4
    assert np.mean(apart) == 0.5


def test_a_fold_of_one_class_is_left_out_of_the_mean():
    labels = SlideLabels(metric="macro-ovr-auc", label=np.array([0, 1, 1, 1, 1, 1]), classes=("no", "yes"))
    guess = {"a": np.stack([np.zeros(6), np.array([0.1, 0.9, 0.9, 0.2, 0.3, 0.1])], axis=1)[None]}
    assert bootstrap_scores(labels, np.array([0, 0, 0, 1, 1, 1]), guess, np.ones((1, 6)))["a"][0] == 1


def test_differences_are_paired():
    """Two methods that share their error differ by less than two that do not, and a method not at all from itself."""
    labels, fold, guesses = cohort(n=150, methods=(1.0, 1.5))
    own, other = guesses.values()
    guesses["near"] = own + 0.05 * (other - own)
    scores = bootstrap_scores(labels, fold, guesses, resample_cases(np.arange(150), fold, 400, 0))
    base = scores["method 1.0"]
    near, far, same = (compare(scores[name], base, labels, 150, 1) for name in ("near", "method 1.5", "method 1.0"))
    assert near["error"] < 0.3 * far["error"]
    assert far["low"] <= far["difference"] <= far["high"]
    assert (same["difference"], same["error"], same["p"]) == (0, 0, 1)


def test_what_cannot_be_scored_is_undecidable():
    labels, fold, guesses = cohort(n=40)
    labels = SlideLabels(metric="macro-ovr-auc", label=np.zeros(40, int), classes=("no", "yes"))
    scores = bootstrap_scores(labels, fold, guesses, resample_cases(np.arange(40), fold, 100, 0))
    none = compare(*scores.values(), labels, 40, 1)
    assert np.isnan([none["difference"], none["error"], none["p"]]).all()
    assert judge({"task": none}, 100)["verdict"].tolist() == [UNDECIDABLE]


def difference(value, error, p, base=0.7):
    low, high = value - 2 * error, value + 2 * error
    return {"base": base, "difference": value, "low": low, "high": high, "error": error, "p": p, "chance": 0.5}


def test_verdicts_follow_the_rule():
    family = {
        "clear": difference(0.1, 0.02, 0.002),
        "worse": difference(-0.1, 0.02, 0.002),
        "not after Holm": difference(0.1, 0.02, 0.02),
        "null in a large cohort": difference(0.001, 0.005, 0.8),
        "null in a small cohort": difference(0.001, 0.03, 0.8),
    }
    table = judge(family, 1000).set_index("task")
    assert table["verdict"].tolist() == [FOUND, FOUND, UNDECIDABLE, NOT_FOUND, UNDECIDABLE]
    np.testing.assert_allclose(table["p_holm"], holm([0.002, 0.002, 0.02, 0.8, 0.8]))
    np.testing.assert_allclose(table["matters"], 0.025)
    assert table["claimed"].isna().all()
    np.testing.assert_allclose(table["smallest_relative"], table["smallest"] / 0.7)
    assert judge({"base of nothing": difference(0, 1, 1, base=0.01)}, 100)["smallest_relative"].isna().all()


def test_a_claimed_size_takes_the_place_of_ours():
    """20 % of an AUC of 0.7 is 0.14: a cohort too small for 0.025 is large enough to miss that."""
    table = judge({"task": difference(0.001, 0.03, 0.8)}, 1000, {"task": 0.2})
    assert table["claimed"].tolist() == [pytest.approx(0.14)] == table["matters"].tolist()
    assert table["verdict"].tolist() == [NOT_FOUND]


def test_too_few_resamples_for_a_family_are_refused():
    with pytest.raises(SealError, match="1000 resamples for 44 tasks"):
        judge({str(i): difference(0, 1, 1) for i in range(44)}, 1000)


def test_captions_hold_what_is_said_of_them_and_no_size(shared):
    words = " ".join((shared / "paper.txt").read_text(encoding="utf-8").split())
    caption = words.partition("Slide-level morphological and IHC tasks")[2].partition("Figure 2:")[0]
    a, b = caption.split("(B).")
    assert CLAIMS["morphology"].removeprefix("A: ") in a
    assert CLAIMS["pathway"].removeprefix("B: performance ") in b
    assert set(CLAIMS) == {"morphology", "molecular", "pathway", "response"}
    assert "%" not in caption


def simulate(seed, gain, n=200):
    """Difference of two predictions of a number on one cohort; the second follows the truth the better by `gain`."""
    rng = np.random.default_rng(seed)
    latent, noise, other = rng.normal(size=(3, n))
    labels = SlideLabels(metric="pearson", label=latent)
    guesses = {"base": (0.6 * latent + noise)[None], "more": ((0.6 + gain) * latent + 0.8 * noise + 0.6 * other)[None]}
    fold = np.arange(n) % 5
    scores = bootstrap_scores(labels, fold, guesses, resample_cases(np.arange(n), fold, 200, seed))
    return compare(scores["more"], scores["base"], labels, n, 1)


def test_the_smallest_difference_is_shown_by_four_cohorts_of_five():
    errors = [simulate(seed, 0.2)["error"] for seed in range(20)]
    smallest = smallest_difference(float(np.mean(errors)))
    strength = lambda gain: (0.6 + gain) / np.hypot(0.6 + gain, 1) - 0.6 / np.hypot(0.6, 1)  # noqa: E731
    gain = min(np.linspace(0, 1, 2001), key=lambda g: abs(strength(g) - smallest))
    shown = np.mean([simulate(1000 + i, gain)["p"] <= 0.05 for i in range(250)])
    null = np.mean([simulate(5000 + i, 0.0)["p"] <= 0.05 for i in range(250)])
    assert 0.72 < shown < 0.88
    assert null < 0.1


def test_the_factor_of_five_folds_of_a_split_and_of_random_folds():
    rows = np.arange(100)
    five = {str(f): (rows[rows % 5 != f], rows[rows % 5 == f]) for f in range(5)}
    assert training_factor(five) == pytest.approx(1.5)
    assert training_factor({"once": (rows[:80], rows[80:])}) == pytest.approx(np.sqrt(1.25))
    shuffled = [np.random.default_rng(i).permutation(100) for i in range(50)]
    assert training_factor({str(i): (own[:80], own[80:]) for i, own in enumerate(shuffled)}) == pytest.approx(
        np.sqrt((1 / 50 + 0.25) / 0.2)
    )


def encoders_alike(seed, n=60):
    """Two made-up encoders that know a label equally well, and a direction trained on each; p by factor 1 and 1.5."""
    rng = np.random.default_rng(seed)
    labels = SlideLabels(metric="macro-ovr-auc", label=rng.integers(2, size=n), classes=("no", "yes"))
    fold, guesses, yes = rng.permutation(n) % 5, {}, labels.label == 1
    for encoder in ("one", "other"):
        x, told = rng.normal(size=(n, 20)), np.zeros(n)
        x[:, 0] += labels.label
        for f in range(5):
            direction = x[yes & (fold != f)].mean(axis=0) - x[~yes & (fold != f)].mean(axis=0)
            told[fold == f] = x[fold == f] @ direction
        guesses[encoder] = np.stack([-told, told], axis=1)[None]
    scores = bootstrap_scores(labels, fold, guesses, resample_cases(np.arange(n), fold, 200, seed))
    return [compare(scores["one"], scores["other"], labels, n, factor)["p"] for factor in (1, 1.5)]


def test_equal_encoders_are_told_apart_too_often_unless_training_is_counted():
    found = np.mean([np.array(encoders_alike(seed)) <= 0.05 for seed in range(300)], axis=0)
    assert found[0] > 0.1
    assert found[1] < 0.09


def test_forty_four_tasks_of_twenty_methods_take_seconds():
    labels, fold, guesses = cohort(n=200, methods=tuple(np.linspace(0, 2, 20)), seeds=1)
    weights = resample_cases(np.arange(200), fold, 1000, 0)
    start = time.perf_counter()
    bootstrap_scores(labels, fold, guesses, weights)
    assert 44 * (time.perf_counter() - start) < 30
