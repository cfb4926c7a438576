"""Fingerprints of expression: the sampling noise of the counts, which only one and the same library has.

For each gene, a bit a spot says whether the gene's part in the spot's counts is greater than in its neighbours'. What
changes slowly over the tissue falls out, and so do depth and the panel; what is left differs between serial sections,
however alike they are, and agrees wherever the same molecules were counted. Spots are compared by content, so neither
barcodes (each Visium slide has the same 4,992) nor the order of spots and genes plays a part.

The agreement of two spots is z = sum over shared genes of the standardised bits' products / sqrt(genes): about N(0, 1)
for two libraries, near sqrt(genes) for one.

Source: our choice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from seal.data.expression import clean_genes
from seal.data.maple import arrangement

GENES = 2048  # those with most counts; of a targeted panel's 1,000 some 300 are among them
SCREENED = 768  # genes that the first look at all pairs takes of the section with fewer genes
QUERIES = 48  # spots of a section that are looked for in every other
ALIKE = 6.0  # z of two spots that may be one: 1 in 10^9 by chance, more often where genes go together
CONFIRMED = 3.0  # z of two spots that already lie in one place: 1 in 700 by chance
AGREEMENT = 0.2  # and this share of what a spot has with itself
HITS = 3  # spots that must be found for a closer look
_AT_ONCE = 64  # sections looked for at a time
_RARE = 0.05  # bits that are set (or not) in fewer spots than this make z heavy-tailed
_NEIGHBOURS = 1.5  # pitch: 6 on a hexagonal grid, 8 on a square one


@dataclass(frozen=True)
class ExpressionPrint:
    """A section's bits.

    Attributes
    ----------
    genes
        Upper-case symbols, those with most counts first, [g].
    bits
        uint8 [spots, ceil(g / 8)], packed along the genes.
    places
        float32 [spots, 2], x and y in units of the pitch; spots are sorted by them.
    """

    genes: np.ndarray
    bits: np.ndarray
    places: np.ndarray

    def values(self) -> np.ndarray:
        """Standardised bits, float32 [spots, g], without what depth alone would do to a spot's bits."""
        bits = np.unpackbits(self.bits, axis=1, count=len(self.genes)).astype(np.float32)
        if not len(self.genes):
            return bits
        p = bits.mean(axis=0)
        bits -= p
        bits /= np.sqrt(p * (1 - p))
        # a spot with hardly any counts has no bit set, a very deep one all of them: neither is a likeness
        depth = np.stack([np.ones_like(p), np.sqrt(p / (1 - p)), np.sqrt((1 - p) / p)], axis=1)
        basis = np.linalg.qr(depth)[0]
        bits -= (bits @ basis) @ basis.T
        return bits


def of(counts, symbols: Sequence[str], positions: np.ndarray) -> ExpressionPrint:
    """Take a section's fingerprint.

    Parameters
    ----------
    counts
        Sparse, [spots, genes]; raw or normalised.
    symbols
        The genes.
    positions
        x and y of the spots in px, [spots, 2].
    """
    from scipy.sparse import csr_array

    names, columns = clean_genes(symbols)
    genes = np.array(names, dtype=str)
    order = np.lexsort(positions.T[::-1])
    places = positions[order] / arrangement.pitch(positions)
    counts = csr_array(counts, dtype=np.float64)[order][:, columns]
    total = np.asarray(counts.sum(axis=0)).ravel()
    top = np.lexsort((genes, -total))[:GENES]
    bits = _bits(counts, top, places)
    set_in = bits.mean(axis=0)
    kept = (set_in >= _RARE) & (set_in <= 1 - _RARE)
    return ExpressionPrint(genes[top][kept], np.packbits(bits[:, kept], axis=1), places.astype(np.float32))


def _bits(counts, top: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Whether a gene's part in a spot is greater than in the spots around it (where there are none, in all)."""
    adjacency = _adjacency(places)
    depth = np.asarray(counts.sum(axis=1)).ravel()
    own = counts[:, top].toarray()
    around, depth_around = adjacency @ own, adjacency @ depth
    alone = depth_around == 0
    around[alone], depth_around[alone] = own.sum(axis=0), depth.sum()
    return own * depth_around[:, None] > around * depth[:, None]


def _adjacency(places: np.ndarray):
    from scipy.sparse import csr_array
    from scipy.spatial import cKDTree

    a, b = cKDTree(places).query_pairs(_NEIGHBOURS, output_type="ndarray").T
    rows, columns = np.concatenate([a, b]), np.concatenate([b, a])
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(places), len(places)))


def agreement(a: np.ndarray, b: np.ndarray, genes: "int | np.ndarray") -> np.ndarray:
    """The z of every spot of `a` [n, columns] with every spot of `b` [m, columns], [n, m], of so many shared genes."""
    z = a @ b.T
    z /= np.sqrt(np.maximum(genes, 1))
    return z


def _needed(genes: "int | np.ndarray") -> np.ndarray:
    """The z from which two spots may be one."""
    return np.maximum(ALIKE, AGREEMENT * np.sqrt(genes))


def candidates(prints: Sequence[ExpressionPrint]) -> Iterator[list[tuple[int, int]]]:
    """Look for a few spots of every section in every other.

    Returns
    -------
    For each section in turn, the pairs (i, j), i < j, of it and another that deserve `shared`; no pair comes twice.
    """
    names = np.unique(np.concatenate([one.genes for one in prints])) if prints else np.zeros(0, dtype=str)
    ids = [np.searchsorted(names, one.genes) for one in prints]
    queries = [_queries(one) for one in prints]
    # the section with fewer genes is searched: a targeted panel lies whole in its first genes, others do not
    order = sorted(range(len(prints)), key=lambda i: (len(ids[i]), i))
    for rank, i in enumerate(order):
        column = np.full(len(names), -1)
        column[ids[i][:SCREENED]] = np.arange(len(ids[i][:SCREENED]))
        values = prints[i].values()[:, :SCREENED]
        found = []
        for start in range(rank + 1, len(order), _AT_ONCE):
            others = order[start : start + _AT_ONCE]
            looked_for, genes = _in_columns(column, values.shape[1], [(ids[j], queries[j]) for j in others])
            z = agreement(looked_for, values, np.repeat(genes, QUERIES)[:, None])
            best = z.max(axis=1, initial=0).reshape(-1, QUERIES)
            hits = (best >= _needed(genes)[:, None]).sum(axis=1)
            found += [(min(i, j), max(i, j)) for j, n in zip(others, hits, strict=True) if n >= HITS]
        yield found


def _queries(one: ExpressionPrint) -> np.ndarray:
    return one.values()[np.unique(np.linspace(0, len(one.places) - 1, QUERIES).round().astype(int))]


def _in_columns(
    column: np.ndarray, width: int, others: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Other sections' queries in the columns of one section, [others * QUERIES, width]; how many genes they share."""
    out = np.zeros((len(others) * QUERIES, width), dtype=np.float32)
    genes = np.zeros(len(others), dtype=int)
    for k, (ids, queries) in enumerate(others):
        where = column[ids]
        there = np.flatnonzero(where >= 0)
        out[k * QUERIES : k * QUERIES + len(queries), where[there]] = queries[:, there]
        genes[k] = len(there)
    return out, genes


def shared(a: ExpressionPrint, b: ExpressionPrint) -> int:
    """How many spots of the two are the same: alike in their bits and lying alike."""
    _, of_a, of_b = np.intersect1d(a.genes, b.genes, return_indices=True)
    values_a, values_b = a.values()[:, of_a], b.values()[:, of_b]
    z = agreement(values_a, values_b, len(of_a))
    rows = np.flatnonzero(z.max(axis=1, initial=0) >= _needed(len(of_a)))
    mapping = arrangement.fit(a.places[rows], b.places[z[rows].argmax(axis=1)]) if len(rows) else None
    if mapping is None:
        return 0
    in_a, in_b = arrangement.partners(mapping, a.places, b.places)
    return int((z[in_a, in_b] >= CONFIRMED).sum())
