"""The linear probe: scale, PCA, ridge, with the penalty chosen on training donors alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from threadpoolctl import threadpool_limits

from seal.data.folds import deal_units
from seal.errors import SealError
from seal.evaluate.metrics import pearson

GROUPS = 5  # at most so many fits to choose alpha
SMALL = 2e9  # rows x dimensions^2, of 0.1 s on one core


@dataclass(frozen=True)
class Validation:
    """How alpha is judged on the training spots, see `validation`."""

    groups: np.ndarray  # what is left out together, [n]
    parts: np.ndarray  # within what a correlation is taken, [n]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)  # part -> those of the target that count in it


def ridge_probe(
    train: np.ndarray,
    target: np.ndarray,
    how: Validation,
    test: np.ndarray,
    components: int,
    alphas: Sequence[float],
) -> tuple[np.ndarray, float]:
    """Predict expression from embeddings.

    StandardScaler -> PCA -> ridge, y = mean(y) + t' (T'T + alpha I)^-1 T' (Y - mean(Y)). Alpha is the one with
    the highest mean Pearson correlation when each training group is left out in turn: the mean over a part's own
    genes, then over parts, just as a test donor is scored.

    Parameters
    ----------
    train, test
        Embeddings, [n, d] and [m, d].
    target
        Expression of the training spots, [n, G].
    how
        The groups that are left out and what is scored in them.

    Returns
    -------
    Prediction [m, G] and the alpha taken.

    Raises
    ------
    SealError
        NaN or infinity in embeddings or expression.

    Source: HEST-Bench (scaler, PCA 256, ridge); alpha chosen, with an intercept: our choice.
    """
    for name, values in (("training embeddings", train), ("expression", target), ("test embeddings", test)):
        if bad := int((~np.isfinite(values).all(axis=1)).sum()):
            do = "look at the encoder's weights and precision, and embed anew"
            raise SealError(f"{bad} of {len(values)} {name} hold NaN or infinity", expected="finite numbers", do=do)
    # A second thread saves little of so small a work, and on a busy machine the first may wait for it 30 times as long.
    with threadpool_limits(1 if len(train) * train.shape[1] ** 2 < SMALL else None, user_api="blas"):
        scores = np.zeros(len(alphas))
        for group in np.unique(how.groups):
            inside = how.groups == group
            fit = _Ridge.fit(train[~inside], target[~inside], components)
            for part in np.unique(how.parts[inside]):
                rows = inside & (how.parts == part)
                columns = how.columns.get(part, slice(None))
                scores += _path_scores(fit, train[rows], target[rows][:, columns], columns, alphas)
        best = float(alphas[int(np.argmax(scores))])
        return _Ridge.fit(train, target, components).predict(test, [best])[:, 0], best


def _path_scores(fit: "_Ridge", x: np.ndarray, y: np.ndarray, columns, alphas: Sequence[float]) -> np.ndarray:
    """Mean correlation over genes for each alpha, 0 where no gene varies: such a part cannot speak for any."""
    predictions = fit.predict(x, alphas, columns).reshape(len(x), -1)
    r = pearson(predictions, np.tile(y, len(alphas))).reshape(len(alphas), -1)
    scored = np.isfinite(r)
    return np.where(scored, r, 0.0).sum(axis=1) / np.maximum(scored.sum(axis=1), 1)


@dataclass(frozen=True)
class _Ridge:
    """One decomposition that serves every alpha.

    The PCA scores T are orthogonal, so T'T = diag(variance) and each alpha costs one division.
    """

    mean: np.ndarray  # [d]
    sd: np.ndarray  # [d]
    axes: np.ndarray  # [d, k]
    variance: np.ndarray  # [k], squared singular values
    projected: np.ndarray  # T' (Y - mean(Y)), [k, G]
    centre: np.ndarray  # [G]

    @classmethod
    def fit(cls, train: np.ndarray, target: np.ndarray, components: int) -> "_Ridge":
        mean, sd = train.mean(axis=0), train.std(axis=0)
        sd = np.where(sd > 0, sd, 1.0)
        z = (train - mean) / sd
        variance, axes = _principal(z)
        # singular values above a millionth of the first, one axis at least
        k = max(1, min(components, int((variance > variance[0] * 1e-12).sum())))
        axes, centre = axes[:, :k], target.mean(axis=0)
        return cls(mean, sd, axes, variance[:k], axes.T @ (z.T @ (target - centre)), centre)

    def predict(self, x: np.ndarray, alphas: Sequence[float], columns=slice(None)) -> np.ndarray:
        """Predictions [m, alphas, columns]."""
        scores = (x - self.mean) / self.sd @ self.axes
        weights = self.projected[:, None, columns] / np.add.outer(self.variance, alphas)[:, :, None]
        return self.centre[columns] + (scores @ weights.reshape(len(weights), -1)).reshape(len(x), *weights.shape[1:])


def _principal(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared singular values of z [n, d], largest first, and their axes [d, min(n, d)].

    Of many rows the Gram matrix z'z, [d, d], is decomposed instead of z: the same axes, many times faster.
    """
    if len(z) <= z.shape[1]:
        _, s, vt = np.linalg.svd(z, full_matrices=False)
        return s**2, vt.T
    values, axes = np.linalg.eigh(z.T @ z)
    return np.maximum(values[::-1], 0.0), axes[:, ::-1]


def validation(
    donors: np.ndarray,
    sections: np.ndarray,
    position: np.ndarray,
    organs: np.ndarray,
    states: np.ndarray,
    genes: Mapping[str, np.ndarray] | None = None,
) -> Validation:
    """Leave donors out, else sections, else five strips of the one section; at most five groups of them.

    More than five donors (or sections) are dealt into five groups by the rule of the folds: each organ's donors
    spread evenly, disease states balanced; see `seal.data.folds.deal`.

    Parameters
    ----------
    donors, sections, organs, states
        Of the training spots, [n].
    position
        Grid column of each spot, [n]; strips keep neighbouring spots on one side of the cut.
    genes
        Organ -> columns of the target that count in its parts; None: all columns everywhere.

    Source: our choice.
    """
    strips = np.searchsorted(np.quantile(position, [0.2, 0.4, 0.6, 0.8]), position)
    parts = next((labels for labels in (donors, sections) if len(np.unique(labels)) > 1), strips)
    names, first = np.unique(parts, return_index=True)
    columns = {name: genes[organs[row]] for name, row in zip(names, first, strict=True)} if genes else {}
    if len(names) <= GROUPS:
        return Validation(parts, parts, columns)
    group_of = deal_units({name: (organs[row], states[row]) for name, row in zip(names, first, strict=True)}, GROUPS)
    return Validation(np.array([group_of[part] for part in parts]), parts, columns)
