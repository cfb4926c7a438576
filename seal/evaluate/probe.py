"""The linear probe: scale, PCA, ridge, with the penalty chosen on training donors alone."""

from collections.abc import Sequence

import numpy as np

from seal.evaluate.metrics import mean_pearson


def ridge_probe(
    train: np.ndarray,
    target: np.ndarray,
    groups: Sequence[str],
    test: np.ndarray,
    components: int,
    alphas: Sequence[float],
) -> tuple[np.ndarray, float]:
    """Predict expression from embeddings.

    StandardScaler -> PCA -> ridge, y = mean(y) + t' (T'T + alpha I)^-1 T' (Y - mean(Y)). Alpha is the one with
    the highest mean Pearson correlation when each training group is left out in turn.

    Parameters
    ----------
    train, test
        Embeddings, [n, d] and [m, d].
    target
        Expression of the training spots, [n, G].
    groups
        What is left out when alpha is chosen, [n]: donors if there are several, see `alpha_groups`.

    Returns
    -------
    Prediction [m, G] and the alpha taken.

    Source: HEST-Bench (scaler, PCA 256, ridge); alpha chosen, with an intercept: our choice.
    """
    groups = np.asarray(groups)
    scores = np.zeros(len(alphas))
    for group in np.unique(groups):
        inside, outside = groups == group, groups != group
        path = _ridge_path(train[outside], target[outside], train[inside], components, alphas)
        # a group in which no gene varies cannot speak for any alpha
        scores += np.nan_to_num([mean_pearson(prediction, target[inside]) for prediction in path])
    best = float(alphas[int(np.argmax(scores))])
    return _ridge_path(train, target, test, components, [best])[0], best


def _ridge_path(train, target, test, components: int, alphas: Sequence[float]) -> list[np.ndarray]:
    """Predictions for several alphas from one decomposition.

    The PCA scores are orthogonal, so T'T is diagonal and each alpha costs one division.
    """
    mean, sd = train.mean(axis=0), train.std(axis=0)
    sd = np.where(sd > 0, sd, 1.0)
    z, z_test = (train - mean) / sd, (test - mean) / sd
    u, s, vt = np.linalg.svd(z, full_matrices=False)
    k = min(components, int((s > s[0] * 1e-6).sum())) if s[0] > 0 else 1
    centre = target.mean(axis=0)
    projected = u[:, :k].T @ (target - centre)
    scores = z_test @ vt[:k].T
    return [centre + scores @ (projected * (s[:k] / (s[:k] ** 2 + a))[:, None]) for a in alphas]


def alpha_groups(donors: np.ndarray, sections: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Groups to leave out when alpha is chosen: donors, else sections, else five strips of the one section.

    Parameters
    ----------
    donors, sections
        [n].
    position
        Grid column of each spot, [n]; strips keep neighbouring spots on one side of the cut.
    """
    for labels in (donors, sections):
        if len(np.unique(labels)) > 1:
            return labels
    edges = np.quantile(position, [0.2, 0.4, 0.6, 0.8])
    return np.searchsorted(edges, position)
