"""Ridge on scaled PCA scores: one decomposition for all genes and penalties, one pass over the rows for all folds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from seal.errors import SealError

SMALL = 2e9  # rows x dimensions^2, of 0.1 s on one core
LEFT = 1e-4  # of a column's sum of squares, what must be left once rows are subtracted: 12 digits stay


def ridge_sweep(
    x: np.ndarray,
    target: np.ndarray,
    left_out: Iterable[np.ndarray],
    components: int,
    alphas: Sequence[float],
    intercept: bool = True,
) -> Iterator[np.ndarray]:
    """Predict the rows that each fold leaves out, by `ridge_probe`'s ridge on all others, for every alpha.

    One pass over the rows gives X'X and X'Y of all; a fold's are these less those of the rows left out, its means
    and standard deviations too, so that each fold costs one decomposition of [d, d], shared by genes and alphas.
    As scikit-learn's StandardScaler, PCA(svd_solver="full") and Ridge have it, to 1e-6, in float64.

    Parameters
    ----------
    x, target
        Embeddings [n, d] and expression [n, G] of all rows.
    left_out
        The rows of each fold, bool [n].
    intercept
        Whether to add the training mean. Scaled and centred features need none: correlations are the same.

    Yields
    ------
    Predictions of a fold, [rows left out, alphas, G].

    Raises
    ------
    SealError
        NaN or infinity, or a fold leaves fewer than two rows to train on.
    """
    require_finite({"embeddings": x, "expression": target})
    left_out = list(left_out)
    with few_threads(x):
        for rows, fit in zip(left_out, fit_ridges(x, target, left_out, components), strict=True):
            yield fit.predict(x[rows], alphas) - (0.0 if intercept else fit.centre)


def require_finite(tables: Mapping[str, np.ndarray]) -> None:
    """Assert that named tables [n, d] hold finite numbers."""
    for name, values in tables.items():
        if bad := int((~np.isfinite(values).all(axis=1)).sum()):
            do = "look at the encoder's weights and precision, and embed anew"
            raise SealError(f"{bad} of {len(values)} {name} hold NaN or infinity", expected="finite numbers", do=do)


def few_threads(x: np.ndarray) -> threadpool_limits:
    """Hold BLAS to one thread for a small table [n, d].

    A second saves little there, and on a busy machine the first may wait for it 30 times as long.
    """
    return threadpool_limits(1 if len(x) * x.shape[1] ** 2 < SMALL else None, user_api="blas")


def fit_ridges(x: np.ndarray, y: np.ndarray, left_out: Iterable[np.ndarray], components: int) -> Iterator["PcaRidge"]:
    """The ridge of all rows but those left out, by subtraction where no digits are lost by it."""
    centred = whole = None
    for rows in left_out:
        if (kept := len(x) - int(rows.sum())) < 2:
            what, do = f"a fold leaves {kept} of {len(x)} rows to train on", "leave out less, or add sections"
            raise SealError(what, expected="two or more", do=do)
        if kept > x.shape[1]:
            if whole is None:  # sums about the overall means stay small
                origin = x.mean(axis=0)
                centred = x - origin, y.astype(np.float64) - y.mean(axis=0)
                whole = _Sums.of(*centred)
            sums = whole - _Sums.of(*(part[rows] for part in centred))
            if (sums.squares() > LEFT * whole.xx.diagonal()).all():
                yield PcaRidge.of_sums(sums, origin, y[~rows].mean(axis=0), components)
                continue
        yield PcaRidge.fit(x[~rows], y[~rows], components)


@dataclass(frozen=True)
class _Sums:
    """Sums over rows, which add up and subtract."""

    n: int
    x: np.ndarray  # [d]
    y: np.ndarray  # [G]
    xx: np.ndarray  # [d, d]
    xy: np.ndarray  # [d, G]

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> "_Sums":
        return cls(len(x), x.sum(axis=0), y.sum(axis=0), x.T @ x, x.T @ y)

    def __sub__(self, other: "_Sums") -> "_Sums":
        return _Sums(*(a - b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def squares(self) -> np.ndarray:
        """Squared distances from the rows' own mean, [d]."""
        return self.xx.diagonal() - self.x**2 / self.n


@dataclass(frozen=True)
class PcaRidge:
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
    def fit(cls, train: np.ndarray, target: np.ndarray, components: int) -> "PcaRidge":
        mean, sd = train.mean(axis=0), train.std(axis=0)
        sd = np.where(np.ptp(train, axis=0) > 0, sd, 1.0)  # of equal values it can be a rounding error
        z, centre = (train - mean) / sd, target.mean(axis=0)
        return cls._of_axes(mean, sd, *principal_axes(z), z.T @ (target - centre), centre, components)

    @classmethod
    def of_sums(cls, sums: _Sums, origin: np.ndarray, centre: np.ndarray, components: int) -> "PcaRidge":
        """The same from sums about any two points: about `origin` that of x, and the mean of y, [G]."""
        mean, sd = sums.x / sums.n, np.sqrt(sums.squares() / sums.n)
        gram = (sums.xx - np.outer(sums.x, mean)) / np.outer(sd, sd)
        product = (sums.xy - np.outer(mean, sums.y)) / sd[:, None]
        return cls._of_axes(mean + origin, sd, *_decompose(gram), product, centre, components)

    @classmethod
    def _of_axes(cls, mean, sd, variance, axes, product, centre, components: int) -> "PcaRidge":
        # singular values above a millionth of the first, one axis at least
        k = max(1, min(components, int((variance > variance[0] * 1e-12).sum())))
        return cls(mean, sd, axes[:, :k], variance[:k], axes[:, :k].T @ product, centre)

    def reduce(self, x: np.ndarray) -> np.ndarray:
        """PCA scores of scaled embeddings, [m, k]."""
        return (x - self.mean) / self.sd @ self.axes

    def predict(self, x: np.ndarray, alphas: Sequence[float], columns=slice(None)) -> np.ndarray:
        """Predictions [m, alphas, columns]."""
        scores = self.reduce(x)
        weights = self.projected[:, None, columns] / np.add.outer(self.variance, alphas)[:, :, None]
        return self.centre[columns] + (scores @ weights.reshape(len(weights), -1)).reshape(len(x), *weights.shape[1:])


def principal_axes(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared singular values of z [n, d], largest first, and their axes [d, min(n, d)].

    Of many rows the Gram matrix z'z, [d, d], is decomposed instead of z: the same axes, many times faster.
    """
    if len(z) <= z.shape[1]:
        _, s, vt = np.linalg.svd(z, full_matrices=False)
        return s**2, vt.T
    return _decompose(z.T @ z)


def _decompose(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, largest first, and eigenvectors of a Gram matrix [d, d]."""
    values, axes = np.linalg.eigh(gram)
    return np.maximum(values[::-1], 0.0), axes[:, ::-1]
