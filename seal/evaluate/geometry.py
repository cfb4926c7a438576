"""Looking at embeddings: how they lie on the sphere, how many directions they use, what finds what."""

import numpy as np


def _unit(z: np.ndarray) -> np.ndarray:
    z = np.asarray(z, dtype=np.float64)
    return z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)


def sample(rows: np.ndarray, most: int = 4000) -> np.ndarray:
    """At most so many of the rows, always the same ones: what compares all with all cannot take an atlas.

    Above 4,096 rows UMAP looks for neighbours by code that takes most of a minute to compile.
    """
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))


def alignment(z_v: np.ndarray, z_o: np.ndarray) -> float:
    """How far paired embeddings lie apart: the mean of |z_v/|z_v| - z_o/|z_o||^2 over pairs; 0 (equal) to 4.

    Shapes: [n, d], [n, d]. Source: Wang and Isola 2020 (alpha 2).
    """
    return float(((_unit(z_v) - _unit(z_o)) ** 2).sum(axis=1).mean())


def uniformity(z: np.ndarray) -> float:
    """How evenly embeddings cover the sphere: log mean exp(-2 |z_i - z_j|^2) over pairs i != j, z at length 1.

    0 if all are equal; about -4 if they are spread evenly over a sphere of many dimensions. Shape: [n, d].
    Source: Wang and Isola 2020 (t 2).
    """
    unit = _unit(z)
    near = np.exp(np.minimum(4 * (unit @ unit.T) - 4, 0))  # exp(-2 |z_i - z_j|^2), [n, n]
    return float(np.log((near.sum() - np.trace(near)) / (len(near) * (len(near) - 1))))


def effective_rank(z: np.ndarray) -> float:
    """How many directions embeddings use: exp(-sum p_i log p_i), p_i = s_i / sum s, s the centred singular values.

    1 (all on a line) to min(n - 1, d). Shape: [n, d]. Source: Roy and Vetterli 2007.
    """
    centred = np.asarray(z, dtype=np.float64) - np.mean(z, axis=0)
    gram = centred.T @ centred if len(z) > centred.shape[1] else centred @ centred.T  # many times faster than the SVD
    s = np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0))  # below 1e-7 of the first it is rounding
    s = s[s > s[0] * 1e-7]
    p = s / s.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def recall(z_v: np.ndarray, z_o: np.ndarray, k: int) -> float:
    """Share of patches whose own spot is among the k nearest omics embeddings by cosine; chance is k / n.

    Shapes: [n, d], [n, d]. Ties count against.
    """
    similarity = _unit(z_v) @ _unit(z_o).T
    own = np.diagonal(similarity)[:, None]
    return float(((similarity >= own).sum(axis=1) <= k).mean())


def umap2d(z: np.ndarray, seed: int) -> np.ndarray:
    """UMAP of embeddings by cosine distance, [n, d] -> [n, 2]; the same for the same seed and machine.

    Source: umap-learn with its default neighbourhood of 15.
    """
    import warnings

    import umap

    with warnings.catch_warnings():
        # A fixed seed means one thread; umap says so every time.
        warnings.filterwarnings("ignore", message="n_jobs value")
        return umap.UMAP(metric="cosine", random_state=seed).fit_transform(z)
