"""Looking at embeddings: projections to two dimensions and a linear yardstick."""

import numpy as np


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


def pca_reconstruction(train: np.ndarray, x: np.ndarray, components: int) -> np.ndarray:
    """Reconstruct x from its first principal components of the training spots, [n, G] and [m, G] -> [m, G]."""
    from sklearn.decomposition import PCA

    pca = PCA(min(components, *train.shape), svd_solver="full").fit(train)
    return pca.inverse_transform(pca.transform(x)).astype(np.float32)
