"""Sums over spots from which gene panels are chosen: one pass over all sections serves any number of folds.

A section's sums are small and add up, so memory depends on the number of genes alone, not on sections or spots.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from seal.errors import SealError
from seal.files import atomic

BLOCK = 1 << 18  # stored values summed at a time: their copies in double precision then stay in the cache


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over the spots of a section, or of several; all but `spots` have a value a gene, shape [genes].

    Attributes
    ----------
    spots
        How many spots.
    counts
        Raw counts, float64.
    linear, linear_squared
        Expression before the log (smoothed counts, normalised to a total) and its square, float64.
    log, log_squared
        The same after log(1 + x), float64.
    detected
        Spots with smoothed expression above 0, int64.
    measured
        Spots of the sections that list the gene, int64; elsewhere it counts as 0.
    """

    spots: int
    counts: np.ndarray
    linear: np.ndarray
    linear_squared: np.ndarray
    log: np.ndarray
    log_squared: np.ndarray
    detected: np.ndarray
    measured: np.ndarray

    @property
    def linear_variance(self) -> np.ndarray:
        """Variance over spots of the expression before the log, divided by n, [genes]."""
        return _variance(self.linear, self.linear_squared, self.spots)

    @property
    def log_variance(self) -> np.ndarray:
        """Variance over spots of the log expression, divided by n, [genes]."""
        return _variance(self.log, self.log_squared, self.spots)

    def save(self, path: Path) -> Path:
        """Write the sums as an npz file, atomically."""
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **vars(self))
        return Path(path)


def _variance(total: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    """E[x^2] - E[x]^2, 0 where that is no more than what rounding of the sums can leave of equal values."""
    mean_square = squares / n
    variance = mean_square - np.square(total / n)
    return np.where(variance > n * np.finfo(np.float64).eps * mean_square, variance, 0.0)


def of(counts, smooth, listed: np.ndarray) -> Moments:
    """Sum over the spots of one section.

    Parameters
    ----------
    counts, smooth
        scipy CSR, [spots, genes], each entry stored once: raw counts, and the normalised log expression of the
        spots' context (`seal.data.expression.normalise` of `spot_context`).
    listed
        Whether the section's table has the gene, bool [genes].

    Returns
    -------
    Moments, summed in double precision.

    Raises
    ------
    SealError
        The three differ in their spots or genes.
    """
    spots, genes = smooth.shape
    if counts.shape != smooth.shape or len(listed) != genes:
        raise SealError(
            f"counts {counts.shape}, expression {smooth.shape} and {len(listed)} genes do not belong together",
            expected="the same spots and genes",
            do="bring all of them to the same list of genes first",
        )
    sums = np.zeros((5, genes))
    for start in range(0, smooth.nnz, BLOCK):
        columns = smooth.indices[start : start + BLOCK].astype(np.intp)
        log = smooth.data[start : start + BLOCK].astype(np.float64)
        linear = np.expm1(log)
        for row, values in zip(sums, (linear, linear * linear, log, log * log, log > 0), strict=True):
            row += np.bincount(columns, values, genes)
    linear, linear_squared, log, log_squared, detected = sums
    return Moments(
        spots=spots,
        counts=np.bincount(counts.indices, counts.data, genes),
        linear=linear,
        linear_squared=linear_squared,
        log=log,
        log_squared=log_squared,
        detected=detected.astype(np.int64),
        measured=np.where(listed, spots, 0).astype(np.int64),
    )


def total(parts: Iterable[Moments]) -> Moments:
    """Add sums up, one after the other; the order decides the last bits, so give one order.

    Raises
    ------
    SealError
        There are none, or they differ in their number of genes.
    """
    parts = iter(parts)
    first = next(parts, None)
    if first is None:
        raise SealError("no sections to sum over", expected="at least one", do="check which sections are trained on")
    sums = {name: np.array(value) for name, value in vars(first).items()}
    for part in parts:
        if part.counts.shape != first.counts.shape:
            raise SealError(
                f"moments of {len(part.counts)} genes beside moments of {len(first.counts)}",
                expected="the same genes in all sections",
                do="take the moments of all sections over one list of genes",
            )
        for name, value in sums.items():
            value += getattr(part, name)
    return Moments(**(sums | {"spots": int(sums["spots"])}))


def load(path: Path) -> Moments:
    """Read sums.

    Raises
    ------
    SealError
        The file is missing, damaged, or holds something else.
    """
    path = Path(path)
    names = [field.name for field in fields(Moments)]
    if not path.is_file():
        raise SealError(f"{path} is missing", expected="a section's moments (npz)", do="assemble the pairs again")
    try:
        with np.load(path) as file:
            stored = {name: file[name] for name in names}
        found = Moments(**(stored | {"spots": stored["spots"].item()}))
    # zipfile, zlib, numpy and a missing field each have their own; all mean a file that is not what it should be
    except Exception as error:
        raise _bad(path, f"{type(error).__name__}: {error}") from error
    shapes = {value.shape for name, value in stored.items() if name != "spots"}
    if len(shapes) != 1 or len(shapes.pop()) != 1:
        raise _bad(path, "no value a gene in each array")
    return found


def _bad(path: Path, problem: str) -> SealError:
    return SealError(
        f"{path} holds no moments ({problem})",
        expected="a whole npz file with one value a gene in each array",
        do=f"delete {path} and run again",
    )
