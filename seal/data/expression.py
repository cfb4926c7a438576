"""From raw counts to what the models see: gene names, spot context, normalisation."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from seal.errors import SealError

if TYPE_CHECKING:
    from seal.data.genes import Aliases

# Probes that measure nothing (release).
_CONTROL = re.compile(r"BLANK|CONTROL|AMBIGUOUS")
# A reference of several genomes puts the genome before each gene; HEST-1k has GRCh38_, GRCh38__ and GRCh38______.
# Other genomes keep their prefix: a mouse or viral gene is not the human gene of that name.
_HUMAN = re.compile(r"^(GRCH3[78]|HG19|HG38)_+")

# Steps in (array_row, array_col) to a spot's true neighbours. Visium numbers the columns of odd rows
# between those of even rows, so the neighbour in the same row is two columns away.
STEPS = {
    "visium": ((0, -2), (0, 2), (-1, -1), (-1, 1), (1, -1), (1, 1)),
    "square": ((0, -1), (0, 1), (-1, 0), (1, 0)),
}


def clean_genes(symbols: Sequence[str], aliases: "Aliases | None" = None) -> tuple[list[str], np.ndarray]:
    """Upper-case gene symbols without duplicates, control probes and the human genome's prefix.

    Parameters
    ----------
    symbols
        A table's columns.
    aliases
        If given, earlier symbols, aliases and Ensembl ids become the approved symbols they lead to.

    Returns
    -------
    The genes that stay, in order of first appearance, and each one's position in `symbols`: of several columns that
    give one gene, the first that bears the gene's own name, else the first.

    Source: release; prefix and aliases our choice.
    """
    kept: dict[str, int] = {}
    own = set()  # genes whose column bears their own name
    for position, symbol in enumerate(symbols):
        name = _HUMAN.sub("", str(symbol).strip().upper())
        if not name or _CONTROL.search(name):
            continue
        gene = aliases.official(name) if aliases else name
        if gene not in kept or (name == gene and gene not in own):
            kept[gene] = position
        if name == gene:
            own.add(gene)
    return list(kept), np.fromiter(kept.values(), dtype=np.int64, count=len(kept))


def neighbours(array_row: np.ndarray, array_col: np.ndarray, grid: str):
    """Adjacency of the spots of one section.

    Parameters
    ----------
    array_row, array_col
        Integer grid positions, shape [n].
    grid
        "visium" (hexagonal, six neighbours) or "square" (four).

    Returns
    -------
    scipy.sparse.csr_array of ones, [n, n], zero diagonal, symmetric.

    Raises
    ------
    SealError
        Unknown grid, or two spots at one position.
    """
    from scipy.sparse import csr_array

    if grid not in STEPS:
        raise SealError(
            f"unknown spot grid {grid!r}",
            expected=f"one of {', '.join(STEPS)}",
            do="set the `grid` column of metadata.csv",
        )
    where: dict[tuple[int, int], int] = {}
    for spot, position in enumerate(zip(array_row.tolist(), array_col.tolist(), strict=True)):
        if position in where:
            raise SealError(
                f"two spots lie at array_row, array_col = {position}",
                expected="one spot a grid position",
                do="remove the duplicate from the section's h5ad",
            )
        where[position] = spot
    edges = [
        (spot, where[(row + dr, col + dc)])
        for (row, col), spot in where.items()
        for dr, dc in STEPS[grid]
        if (row + dr, col + dc) in where
    ]
    source, target = np.array(edges, dtype=np.int32).reshape(-1, 2).T
    n = len(where)
    return csr_array((np.ones(len(edges), dtype=np.float32), (source, target)), shape=(n, n))


def spot_context(counts, adjacency, own_weight: float, spots: slice = slice(None)):
    """Mix a spot's counts with the mean over its neighbours.

    x'_i = a x_i + (1 - a) mean_{j in N(i)} x_j, with a = `own_weight` (0.5); a spot without neighbours
    keeps its own counts.

    Parameters
    ----------
    counts
        Sparse counts of one section, [n, genes].
    adjacency
        From `neighbours`, [n, n].
    spots
        Those whose context is wanted; all of a large section at once take much memory.

    Returns
    -------
    scipy.sparse.csr_array, float32, [spots, genes].

    Source: release (a = 0.5); the neighbourhood is ours: all true neighbours of the grid, where the
    release's radius reaches four of Visium's six.
    """
    from scipy.sparse import csr_array, eye_array

    near = adjacency[spots]
    degree = np.asarray(near.sum(axis=1)).ravel()
    own = np.where(degree > 0, own_weight, 1.0)
    share = np.divide(1 - own, degree, out=np.zeros_like(degree, dtype=float), where=degree > 0)
    # One product gives both: the neighbours' sum as the real part, the spot's own counts as the imaginary one.
    itself = eye_array(adjacency.shape[0], dtype=np.complex64, format="csr")[spots]
    sums = (near.astype(np.complex64) + 1j * itself) @ counts
    sums = sums.tocsc().tocsr()  # the genes within a spot in order, faster than by sorting
    stored = np.diff(sums.indptr)
    mixed = np.repeat(own, stored)
    mixed *= sums.data.imag
    mixed += np.repeat(share, stored) * sums.data.real
    return csr_array((mixed.astype(np.float32), sums.indices, sums.indptr), shape=sums.shape)


def totals(counts) -> np.ndarray:
    """Counts of each spot, in the counts' own precision, [n]."""
    return np.asarray(counts.sum(axis=1)).ravel()


def normalise(counts, target_sum: float, total: np.ndarray | None = None):
    """Total-count normalisation and log: log(1 + x * target_sum / sum(x)), natural logarithm.

    Parameters
    ----------
    counts
        Sparse, [n, genes].
    total
        Counts of each spot, [n]; needed where `counts` are some of the genes alone.

    Returns
    -------
    scipy.sparse.csr_array, float32, [n, genes].

    Raises
    ------
    SealError
        A spot has no counts at all.

    Source: release (target_sum 1e4).
    """
    from scipy.sparse import csr_array

    counts = csr_array(counts, dtype=np.float32, copy=True)
    total = totals(counts) if total is None else total
    if (total <= 0).any():
        raise SealError(
            f"{int((total <= 0).sum())} of {len(total)} spots have no counts",
            expected="at least one count a spot",
            do="filter the spots first (PanelSettings.min_spot_counts)",
        )
    counts.data *= np.repeat((target_sum / total).astype(np.float32), np.diff(counts.indptr))
    np.log1p(counts.data, out=counts.data)
    return counts
