"""Pearson correlation a gene, and its bootstrap over spots or over donors."""

from collections.abc import Sequence

import numpy as np


def pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Pearson correlation of each column of a prediction with its measurement.

    r = cov(x, y) / (sd(x) sd(y)), over spots.

    Parameters
    ----------
    x
        Prediction, [n, G].
    y
        Measurement, [n, G].
    weights
        How often each spot counts, [B, n]; default once each.

    Returns
    -------
    [G], or [B, G] with weights. A constant prediction knows nothing and scores 0; a gene whose measurement is
    constant cannot be scored and gives NaN.
    """
    x = np.asarray(x, dtype=np.float64) - np.mean(x, axis=0)  # centred first: the sums below stay small
    y = np.asarray(y, dtype=np.float64) - np.mean(y, axis=0)
    w = np.ones((1, len(x))) if weights is None else np.asarray(weights, dtype=np.float64)
    w = w / w.sum(axis=1, keepdims=True)
    mx, my = w @ x, w @ y
    vx, vy = w @ x**2 - mx**2, w @ y**2 - my**2
    covariance = w @ (x * y) - mx * my
    flat_x, flat_y = vx <= 1e-12, vy <= 1e-12
    r = covariance / np.sqrt(np.where(flat_x | flat_y, 1.0, vx * vy))
    r = np.where(flat_y, np.nan, np.where(flat_x, 0.0, r))
    return r[0] if weights is None else r


def mean_pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean of `pearson` over the genes that can be scored: a number, or [B] with weights; NaN if there are none."""
    r = pearson(x, y, weights)
    scored = np.isfinite(r)
    number = scored.sum(axis=-1)
    mean = np.where(scored, r, 0.0).sum(axis=-1) / np.maximum(number, 1)
    return np.where(number > 0, mean, np.nan)


def resamples(n: int, times: int, seed: int | Sequence[int]) -> np.ndarray:
    """How often each of n spots (or donors) is drawn in each bootstrap resample, [times, n]."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=times)


def cluster_means(values: np.ndarray, clusters: np.ndarray, times: int, seed: int) -> np.ndarray:
    """Mean of values in each bootstrap resample of whole clusters, drawn with replacement, as many as there are.

    Parameters
    ----------
    values
        [n]; with equal `clusters` and `seed`, other values are averaged over the very same resamples.
    clusters
        What each value belongs to, [n]: the test donors.

    Returns
    -------
    [times]; NaN where there is one cluster only, which says nothing of how others would differ.

    Source: cluster bootstrap (Davison and Hinkley 1997, 3.8).
    """
    names, which = np.unique(clusters, return_inverse=True)
    if len(names) < 2:
        return np.full(times, np.nan)
    weights = resamples(len(names), times, seed)[:, which]
    return weights @ np.asarray(values, dtype=np.float64) / weights.sum(axis=1)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap values [B]."""
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def two_sided(values: np.ndarray, units: int | None = None) -> float:
    """Achieved significance of a difference: how often bootstrap values [B] lie on the other side of zero.

    p = min(1, 2 (1 + min(#{d <= 0}, #{d >= 0})) / (B + 1)),  at least 2^(1 - n);  NaN where a value is

    Parameters
    ----------
    units
        n, what is resampled: a few donors that all agree prove no more than as many tosses of a coin.

    Source: Davison and Hinkley 1997, 4.2 (with the added one, so that B draws never claim less than 2 / (B + 1)); the
    bound, which is that of the sign test, is our choice.
    """
    if not np.isfinite(values).all():
        return float("nan")
    beyond = min(np.count_nonzero(values <= 0), np.count_nonzero(values >= 0))
    least = 0.0 if units is None else 2.0 ** (1 - units)
    return min(1.0, max(least, 2 * (1 + beyond) / (len(values) + 1)))


def holm(p: np.ndarray) -> np.ndarray:
    """Adjust the p-values of a family of comparisons: the chance of one false claim or more stays below the level.

    p'_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)),  p_(1) <= ... <= p_(m);  NaN stays NaN and counts in m

    Source: Holm 1979.
    """
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p)  # NaN last
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(p), 0, -1) * p[order]))
    return adjusted
