"""How well a linear classifier tells two kinds of patches apart, judged on sections that it has not seen."""

from dataclasses import dataclass

import numpy as np

from seal.errors import SealError

FOLDS = 5  # at most; as many as the rarer class has groups, if that is fewer
ENOUGH = 5  # groups a class from which a bootstrap over groups says anything
REPEATS = 1000


@dataclass(frozen=True)
class Separability:
    """Result of `measure_separability`; the 95 % intervals are NaN where there are fewer than five groups a class."""

    auc: float
    auc_interval: tuple[float, float]
    accuracy: float  # balanced: 0.5 = chance
    accuracy_interval: tuple[float, float]
    distance: float  # see `energy_distance`
    folds: int


def deal_groups(second: np.ndarray, groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Deal groups into folds so that each fold holds both classes and no group is split; int [n], each patch's fold.

    Parameters
    ----------
    second, groups
        See `measure_separability`.

    Raises
    ------
    SealError
        A group holds both classes, or a class has fewer than two groups.
    """
    rng, names = np.random.default_rng(seed), _names_by_class(second, groups)
    both = np.intersect1d(*names)
    if len(both) or min(map(len, names)) < 2:
        raise SealError(
            f"group {both[0]} holds both classes" if len(both) else f"{len(names[0])} and {len(names[1])} groups",
            expected="groups of one class each, at least two a class",
            do="group patches by section or donor; take more sections, or parts of them, where there is one",
        )
    folds = min(FOLDS, *map(len, names))
    fold = {name: i % folds for side in names for i, name in enumerate(rng.permutation(side))}
    return np.array([fold[name] for name in groups])


def _names_by_class(second: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    return [np.unique(groups[second == side]) for side in (False, True)]


def measure_separability(features: np.ndarray, second: np.ndarray, groups: np.ndarray, seed: int = 0) -> Separability:
    """Tell two classes of patches apart by logistic regression on standardised features.

    Classes weigh the same whatever their numbers. Each patch is scored by a classifier that saw none of its group;
    AUC and accuracy are of all patches' scores together. The interval draws groups, within each class.

    Parameters
    ----------
    features
        Embeddings or other descriptions, [n, d].
    second
        Whether a patch is of the second class, bool [n].
    groups
        Names of sections, donors or other units that must not be on both sides, [n].

    Raises
    ------
    SealError
        See `deal_groups`.

    Source: our choice.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    second, groups = np.asarray(second, dtype=bool), np.asarray(groups, dtype=str)
    fold = deal_groups(second, groups, seed)
    scores = np.empty(len(second))
    for k in np.unique(fold):
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
        model.fit(features[fold != k], second[fold != k])
        scores[fold == k] = model.predict_proba(features[fold == k])[:, 1]
    drawn = _bootstrap(scores, second, groups, seed)
    intervals = [tuple(map(float, np.quantile(values, [0.025, 0.975]))) for values in drawn]
    return Separability(
        *(_auc(scores, second), intervals[0]),
        *(_accuracy(scores, second), intervals[1]),
        distance=energy_distance(features[~second], features[second]),
        folds=int(fold.max()) + 1,
    )


def _auc(scores: np.ndarray, second: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(second, scores))


def _accuracy(scores: np.ndarray, second: np.ndarray) -> float:
    right = (scores > 0.5) == second
    return float(right[second].mean() + right[~second].mean()) / 2


def _bootstrap(scores: np.ndarray, second: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """AUC and accuracy of each draw of groups, [2, repeats]; NaN where there are too few groups."""
    rng, names = np.random.default_rng(seed), _names_by_class(second, groups)
    if min(map(len, names)) < ENOUGH:
        return np.full((2, 1), np.nan)
    rows = {name: np.flatnonzero(groups == name) for side in names for name in side}
    drawn = []
    for _ in range(REPEATS):
        chosen = [name for side in names for name in rng.choice(side, len(side))]
        where = np.concatenate([rows[name] for name in chosen])
        drawn.append((_auc(scores[where], second[where]), _accuracy(scores[where], second[where])))
    return np.array(drawn).T


def energy_distance(first: np.ndarray, second: np.ndarray) -> float:
    """How far two sets lie apart, where a classifier has long been perfect.

    1 - (E|X - X'| + E|Y - Y'|) / (2 E|X - Y|): 0 for one distribution, 1 for two points.

    Shapes: [n, d], [m, d]; each feature is divided by its sd over both.

    Source: Szekely and Rizzo 2013, normalised; without the pairs of a patch with itself.
    """
    from scipy.spatial.distance import cdist, pdist

    scale = np.concatenate([first, second]).std(axis=0)
    x, y = (part[:, scale > 0] / scale[scale > 0] for part in (first, second))
    return float(1 - (pdist(x).mean() + pdist(y).mean()) / (2 * cdist(x, y).mean()))
