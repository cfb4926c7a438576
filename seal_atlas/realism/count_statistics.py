"""What counts look like in numbers: depth, zeros, spread, how genes go together, how smooth they are on the tissue."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from seal.data.expression import normalise
from seal.data.genes import clean_genes
from seal.data.grid import SHAPE
from seal.data.sample_files import read_counts
from seal.data.samples import Sample
from seal_atlas.realism.statistic import NAN, Statistic

if TYPE_CHECKING:
    from anndata import AnnData

# Two panels and two depths differ in zeros, noise and smoothness for that reason alone. So these are measured
# twice: of a section as it stands, and of the same genes, thinned to the same counts, in as many spots.
DEPTH = 1000  # counts a spot, over the common genes
SPOTS = 80  # neighbouring spots; a section of the atlas has about 90
FEWEST = 40  # spots that reach the depth; below, a section says nothing about it
MEAN = 0.5  # counts a spot; what rarer genes say about dispersion is noise
CORRELATED = 200  # common genes with the largest share of counts, whose correlations are looked at
VARIABLE = 100  # most variable genes, whose smoothness is looked at
TARGET = 1e4  # counts a spot before the logarithm

PITCH = {"visium": 100.0, "square": 200.0}  # um between next spots


def read_clean(sample: Sample) -> "AnnData":
    """Read a sample's spots in tissue, its genes upper-case, without duplicates and control probes."""
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    data = read_counts(sample)
    if "in_tissue" in data.obs:
        data = data[data.obs["in_tissue"].to_numpy()]
    genes, summed = clean_genes(data.var_names)
    clean = AnnData(csr_matrix(data.X @ summed), obs=data.obs.copy(), obsm={"spatial": data.obsm["spatial"]})
    clean.var_names = genes
    return clean


def common_genes(samples: Sequence[Sample]) -> list[str]:
    """Genes that every sample's panel holds, by their mean share of a section's counts, largest first.

    Simulated and real sections weigh half each, whatever their number. Samples that were normalised by whoever
    published them are passed over.
    """
    import pandas as pd

    shares: dict[bool, list[pd.Series]] = {}
    for sample in samples:
        if not sample.normalised:
            data = read_clean(sample)
            total = np.asarray(data.X.sum(axis=0), dtype=float).ravel()
            shares.setdefault(sample.simulated, []).append(pd.Series(total / max(total.sum(), 1), index=data.var_names))
    if not shares:
        return []
    means = [pd.concat(parts, axis=1, join="inner").mean(axis=1) for parts in shares.values()]
    mean = pd.concat(means, axis=1, join="inner").mean(axis=1).rename_axis("gene").reset_index(name="share")
    return mean.sort_values(["share", "gene"], ascending=[False, True])["gene"].tolist()


def expression_statistics(sample: Sample, genes: Sequence[str], seed: int = 0) -> list[Statistic]:
    """Measure the counts of one section.

    Parameters
    ----------
    genes
        From `common_genes`.
    seed
        Of the thinning; each sample has a stream of its own.

    Returns
    -------
    Statistics of kinds "expression" and "curve"; of a section in which fewer than 40 spots have 1,000 counts over
    `genes`, those alone that need no common depth; none where the counts were normalised by whoever published them.
    """
    from scipy.sparse import csr_matrix

    if sample.normalised:
        return []
    data = read_clean(sample)
    found = _depth(data)
    data = data[:, list(genes)].copy()
    total = np.asarray(data.X.sum(axis=1)).ravel()
    data, total = data[total > 0].copy(), total[total > 0]
    found.append(Statistic("counts_common", *_quartiles(total)))
    found.append(Statistic("depth_spread", float(np.log(total).std())))
    found.append(count_dispersion(data.X.toarray(), "dispersion"))
    found += spatial_smoothness(data, "moran", sample.grid, PITCH[sample.grid])
    deep = np.flatnonzero(total >= DEPTH)
    if len(deep) < FEWEST:
        return found
    data = data[deep[_block(data.obsm["spatial"][deep])]].copy()
    counts = thin_counts(data.X.toarray(), DEPTH, np.random.default_rng([seed, *sample.id.encode()]))
    data.X = csr_matrix(counts.astype(np.float32))
    return [
        *found,
        Statistic("zeros_common", float((counts == 0).mean())),
        count_dispersion(counts, "dispersion_common"),
        *mean_variance(counts),
        *correlation_spectrum(normalise(data.X[:, :CORRELATED], TARGET).toarray()),
        *spatial_smoothness(data, "moran_200", sample.grid, 200.0),
    ]


def _depth(data: "AnnData") -> list[Statistic]:
    """Counts and genes a spot, and the share of zeros, of the section and the genes as they stand."""
    each = {"counts": data.X.sum(axis=1), "genes": (data.X > 0).sum(axis=1)}
    found = [Statistic(name, *_quartiles(np.asarray(values))) for name, values in each.items()]
    return [*found, Statistic("zeros", 1 - data.X.count_nonzero() / float(np.prod(data.shape)))]


def _quartiles(values: np.ndarray) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    return tuple(map(float, np.quantile(values, [0.5, 0.25, 0.75])))


def _block(xy: np.ndarray) -> np.ndarray:
    """The spots nearest to the middle of the section: neighbours, so that they span a like field everywhere."""
    distance = np.linalg.norm(xy - np.median(xy, axis=0), axis=1)
    return np.sort(np.argsort(distance, kind="stable")[:SPOTS])


def thin_counts(counts: np.ndarray, depth: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `depth` of each spot's counts without putting back, [n, genes]; a spot has at least as many."""
    whole = np.rint(counts).astype(np.int64)
    return np.stack([rng.multivariate_hypergeometric(row, depth, method="marginals") for row in whole])


def count_dispersion(counts: np.ndarray, name: str) -> Statistic:
    """Dispersion a of variance = mean + a mean^2, the median over genes with a mean of 0.5 counts or more.

    a_g = sum_i [(x_ig - mu_ig)^2 n / (n - 1) - mu_ig] / sum_i mu_ig^2, with mu_ig the gene's mean times the spot's
    total over the mean total: how much a spot holds in all adds nothing. 0 = Poisson.

    Parameters
    ----------
    counts
        [n spots, genes]; no spot is empty.
    """
    size = counts.sum(axis=1, keepdims=True) / counts.sum(axis=1).mean()
    kept = counts.mean(axis=0) >= MEAN
    if not kept.any():
        return Statistic(name, NAN)
    expected = counts[:, kept].mean(axis=0) * size
    squares = (counts[:, kept] - expected) ** 2 * (len(counts) / (len(counts) - 1))
    each = (squares - expected).sum(axis=0) / (expected**2).sum(axis=0)
    return Statistic(name, *_quartiles(each))


def mean_variance(counts: np.ndarray) -> list[Statistic]:
    """Median variance of genes by their mean, four steps a decade from 0.1 counts a spot; [spots, genes]."""
    mean, variance = counts.mean(axis=0), counts.var(axis=0, ddof=1)
    edges = np.geomspace(0.1, 31.6, 11)
    curve = []
    for low, high in itertools.pairwise(edges):
        inside = (mean >= low) & (mean < high)
        if inside.sum() >= 3:
            at = float(np.median(mean[inside]))
            curve.append(Statistic("variance", *_quartiles(variance[inside]), x=at))
    return curve


def correlation_spectrum(log: np.ndarray) -> list[Statistic]:
    """Eigenvalues of the genes' correlation matrix, as shares of the variance.

    Noise alone gives eigenvalues up to (1 + sqrt(p / n))^2 (Marchenko and Pastur 1967), p genes, n spots.

    Parameters
    ----------
    log
        Normalised log expression, [n, genes]; genes without variance are left out.
    """
    values = log[:, log.std(axis=0) > 0]
    n, p = values.shape
    z = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    eigenvalues = np.linalg.svd(z, compute_uv=False) ** 2 / (n - 1)
    signal = eigenvalues[eigenvalues > noise_edge(n, p)]
    return [
        Statistic("first_component", float(eigenvalues[0] / p)),
        Statistic("above_noise", float(signal.sum() / p)),
        Statistic("components", float(len(signal))),
        *(Statistic("spectrum", float(v / p), x=float(i)) for i, v in enumerate(eigenvalues[:20], start=1)),
    ]


def noise_edge(n: int, p: int) -> float:
    """Largest eigenvalue of a correlation matrix of p independent genes over n spots (Marchenko and Pastur 1967)."""
    return float((1 + np.sqrt(p / n)) ** 2)


def spatial_smoothness(data: "AnnData", name: str, grid: str, lag: float) -> list[Statistic]:
    """Moran's I of the most variable genes over spots `lag` um apart.

    ST arrays have a pitch of 200 um, Visium one of 100: only at the same distance do the two compare.

    Returns
    -------
    The median over genes; none where no spot has another at that distance.
    """
    log = normalise(data.X, TARGET).toarray()
    kept = np.flatnonzero((log > 0).mean(axis=0) >= 0.1)
    chosen = kept[np.argsort(-log[:, kept].var(axis=0), kind="stable")[:VARIABLE]]
    pairs = spots_apart(data.obs["array_row"].to_numpy(), data.obs["array_col"].to_numpy(), grid, lag)
    if not pairs.nnz or not len(chosen):
        return []
    values = morans_i(log[:, chosen], pairs)
    return [Statistic(name, *_quartiles(values[np.isfinite(values)]))]


def spots_apart(array_row: np.ndarray, array_col: np.ndarray, grid: str, lag: float):
    """Pairs of spots that lie `lag` um apart on the array, give or take a tenth.

    Returns
    -------
    scipy.sparse.csr_matrix of ones, [n, n], symmetric, zero diagonal.
    """
    from scipy.sparse import csr_matrix
    from scipy.spatial import KDTree

    tree = KDTree(np.column_stack([array_row, array_col]) * SHAPE[grid] * PITCH[grid])
    near = tree.sparse_distance_matrix(tree, 1.1 * lag, output_type="coo_matrix")
    kept = near.data > 0.9 * lag
    return csr_matrix((np.ones(kept.sum()), (near.row[kept], near.col[kept])), shape=near.shape)


def morans_i(values: np.ndarray, pairs) -> np.ndarray:
    """Moran's I of each column, by squidpy, a spot's neighbours weighing one together.

    Parameters
    ----------
    values
        [spots, genes].
    pairs
        From `spots_apart`; spots without a neighbour are left out.

    Returns
    -------
    [genes]; expected to be -1 / (n - 1) without any pattern, 1 at most; NaN for a gene that does not vary.
    """
    import warnings

    import anndata
    import pandas as pd

    with warnings.catch_warnings():  # its documentation's decorators complain as they are read
        warnings.simplefilter("ignore", SyntaxWarning)
        import squidpy

    kept = np.flatnonzero(np.asarray(pairs.sum(axis=1)).ravel() > 0)
    names = pd.Index(np.arange(values.shape[1]).astype(str))
    varies = values[kept].std(axis=0) > 0
    data = anndata.AnnData(values[kept][:, varies], var=pd.DataFrame(index=names[varies]))
    data.obsp["spatial_connectivities"] = pairs[kept][:, kept]
    table = squidpy.gr.spatial_autocorr(data, mode="moran", copy=True, n_jobs=1, show_progress_bar=False)
    return table["I"].reindex(names).to_numpy(dtype=float)
