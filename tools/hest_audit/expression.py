"""Expression fingerprints: do two samples count the same molecules?

Two sections, however alike, share their tissue but not their counting noise: each counts molecules of its own. One
section counted twice (another panel, another pipeline) shares the noise too. The share is estimated in two ways.

1. At the spots. Of each gene g at spot s we keep what its total T and the spots n around it do not explain,
   r_sg = x_sg - T_s sum_n x_ng / sum_n T_n, and sum it over the spots with random signs e that belong to places on the
   array: t_gj = sum_s e_sj r_sg / |r_g|, j = 1..16. Then t_gj t'_gj of two samples has the mean corr(r_g, r'_g), and
   their mean over j and the genes that both list tells, whatever the panels, how much of the noise is the same.
2. Over the whole section, wherever its spots lie (each processing of Visium HD pools another grid). Counts a_g and
   b_g of genes that both list, k = sum a / sum b: if they are independent, (a - k b)^2 / (a + k^2 b) has a mean of 1
   or more; if b counts the same molecules, less. The share is 1 less its median over that of chi^2(1).

Source: our choice; random signs: Alon, Matias and Szegedy 1996.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seal.data import grid
from seal.data.genes import clean_genes

if TYPE_CHECKING:
    from anndata import AnnData

SIGNS = 16
AROUND = 1.5  # pitches: 6 spots on a hexagonal grid, 8 on a square one
LEAST_SPOTS = 10  # in which a gene is found, to be compared at the spots
BLOCK = 512  # genes at a time
SIGMAS = 10  # of the estimate at the spots if genes were independent; they are not quite
LEAST_GENES = 1000  # for the estimate over the section: its standard error is then 0.07
COUNTS = (5, 200)  # of a gene in the shallower section: enough to compare, few enough that noise is most of it
CHI2_MEDIAN = 0.4549


@dataclass(frozen=True)
class ExpressionFingerprint:
    """What is kept of a sample's counts.

    Attributes
    ----------
    genes
        Hashes of the gene symbols, ascending, uint64 [G].
    totals
        Counts of each gene, float32 [G]; 0 where the sample holds no whole counts.
    sketched
        Which genes have a sketch, int64 [g].
    sketch
        t_gj, float16 [g, 16].
    spots
        Number of spots.
    """

    genes: np.ndarray
    totals: np.ndarray
    sketched: np.ndarray
    sketch: np.ndarray
    spots: int


def of(data: "AnnData") -> ExpressionFingerprint:
    """Fingerprint of checked counts (`seal.data.sample_files.read_counts`); the order of spots and genes is nothing."""
    from scipy.sparse import csc_array

    symbols, summed = clean_genes(data.var_names)
    hashes = np.array([int.from_bytes(hashlib.blake2b(s.encode(), digest_size=8).digest()) for s in symbols], np.uint64)
    order = np.argsort(hashes)
    counts = csc_array(csc_array(data.X, dtype=np.float64) @ summed[:, order])
    whole = np.array_equal(counts.data, np.rint(counts.data))
    totals = np.asarray(counts.sum(axis=0)).ravel() if whole else np.zeros(len(order))
    sketched = np.flatnonzero(np.diff(counts.indptr) >= LEAST_SPOTS)
    sketch = np.zeros((len(sketched), SIGNS), dtype=np.float16)
    if len(sketched):
        expected = _expected(data, np.asarray(data.X.sum(axis=1)).ravel())
        signs = _signs(data.obs["array_row"].to_numpy(), data.obs["array_col"].to_numpy())
        for start in range(0, len(sketched), BLOCK):
            block = counts[:, sketched[start : start + BLOCK]]
            residual = (block - expected @ block).toarray()
            norm = np.maximum(np.linalg.norm(residual, axis=0), 1e-12)
            sketch[start : start + BLOCK] = (residual / norm).T @ signs
    return ExpressionFingerprint(hashes[order], totals.astype(np.float32), sketched, sketch, data.n_obs)


def _expected(data: "AnnData", total: np.ndarray):
    """Weights [spots, spots] that give the counts that a spot's total and the spots around it lead one to expect.

    A spot with nothing around it is as expected.
    """
    from scipy.sparse import csr_array, diags_array
    from scipy.spatial import KDTree

    places = data.obs[grid.PIXELS].to_numpy(dtype=float)
    tree = KDTree(places)
    pitch = np.median(tree.query(places, k=2)[0][:, 1])
    a, b = tree.query_pairs(AROUND * pitch, output_type="ndarray").T
    near = csr_array((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), shape=(len(places), len(places)))
    around = near @ total
    alone = around <= 0
    weight = np.divide(total, around, out=np.zeros(len(places)), where=~alone)
    return diags_array(weight) @ near + diags_array(alone.astype(float))


def _signs(row: np.ndarray, col: np.ndarray) -> np.ndarray:
    """Random signs [spots, 16] that depend on the place on the array alone (bits of splitmix64)."""
    place = (row.astype(np.int64) << 32) ^ (col.astype(np.int64) & 0xFFFFFFFF)
    bits = place.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    bits ^= bits >> np.uint64(31)
    return 2.0 * ((bits[:, None] >> np.arange(SIGNS, dtype=np.uint64)) & np.uint64(1)) - 1


def _in_common(fingerprints: Sequence[ExpressionFingerprint]) -> tuple[int, list[np.ndarray]]:
    """The number of genes of all samples, and each sample's genes as positions among them."""
    union = np.unique(np.concatenate([f.genes for f in fingerprints]))
    return len(union), [np.searchsorted(union, f.genes) for f in fingerprints]


def shares_at_spots(fingerprints: Sequence[ExpressionFingerprint]) -> np.ndarray:
    """Share of the noise at the smaller sample's spots that is the larger one's too, for all pairs.

    Returns
    -------
    float64 [n, n], about 0 for samples of different molecules and 1 for identical ones (sqrt(p q) if of the same
    molecules each counts the share p or q); 0 where it is within ten standard errors or nothing can be compared.
    """
    n = len(fingerprints)
    genes, places = _in_common(fingerprints)
    products, shared = np.zeros((n, n)), np.zeros((n, n))
    for start in range(0, genes, BLOCK):
        sketches = np.zeros((n, BLOCK, SIGNS), dtype=np.float32)
        for i, (f, place) in enumerate(zip(fingerprints, places, strict=True)):
            there = place[f.sketched]  # ascending, as `genes` are
            low, high = np.searchsorted(there, (start, start + BLOCK))
            sketches[i, there[low:high] - start] = f.sketch[low:high]
        flat = sketches.reshape(n, -1)
        products += flat @ flat.T
        listed = sketches.any(axis=2).astype(np.float32)
        shared += listed @ listed.T
    spots = np.array([f.spots for f in fingerprints], dtype=float)
    # The correlation is over all spots of both; in the smaller sample alone it is larger by this factor.
    factor = np.sqrt(np.maximum.outer(spots, spots) / np.minimum.outer(spots, spots))
    shared = np.maximum(shared, 1)
    share = factor * products / (SIGNS * shared)
    return np.where(share > SIGMAS * factor / np.sqrt(SIGNS * shared), share, 0.0)


def shares_over_section(fingerprints: Sequence[ExpressionFingerprint]) -> np.ndarray:
    """Share of the noise in the genes' counts over the whole section that two samples have in common, for all pairs.

    Returns
    -------
    float64 [n, n], 1 for identical counts, 0 or less for independent ones; -inf where too few genes are counted.
    """
    from tqdm import tqdm

    n = len(fingerprints)
    genes, places = _in_common(fingerprints)
    totals = np.full((n, genes), -1, dtype=np.float32)
    for i, (f, place) in enumerate(zip(fingerprints, places, strict=True)):
        totals[i, place] = f.totals
    shares = np.full((n, n), -np.inf)
    for i in tqdm(range(n), desc="counts of sections", unit="sample"):
        listed = np.flatnonzero(totals[i] >= 0)
        for j in range(i + 1, n):
            shares[i, j] = shares[j, i] = _share(totals[i, listed], totals[j, listed])
    return shares


def _share(a: np.ndarray, b: np.ndarray) -> float:
    both = b >= 0
    a, b = a[both], b[both]
    depth = float(a.sum(dtype=float)), float(b.sum(dtype=float))
    if min(depth) <= 0:
        return -np.inf
    expected = (a + b) * (min(depth) / sum(depth))
    counted = (expected >= COUNTS[0]) & (expected <= COUNTS[1])
    if counted.sum() < LEAST_GENES:
        return -np.inf
    a, b = a[counted], b[counted]
    if not b.any():
        return -np.inf
    k = a.sum(dtype=float) / b.sum(dtype=float)
    return 1 - float(np.median((a - k * b) ** 2 / (a + k * k * b))) / CHI2_MEDIAN
