"""Image fingerprints: do two samples show the same tissue?

Patches of one section may be cut on another grid, so no hash of a patch is compared but hashes of points that the
tissue itself marks: dark blobs the size of a nucleus. A point's hash says which of the 8 x 8 places around it, 4 um
apart, are darker than their median; its least value over quarter turns and reflections is kept, so that a section
scanned upside down has the same hashes. Two samples share tissue where equal hashes lie in one arrangement.

Source: our choice; blobs: Lowe 2004, hashes: Calonder et al. 2010 (BRIEF), arrangement: votes for a shift, then an
affine fit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from seal.data.samples import FIELD

SIZE = 56  # px a patch's side
UM_PER_PX = FIELD / SIZE
BLOB = 2.0  # px, standard deviation: 4 um
CONTRAST = 6.0  # grey levels of 255 by which a blob stands out; empty glass has none
APART = 6  # px between points, at least
SMOOTH, PITCH, SIDE = 1.5, 2.0, 8  # px, px and places: how the surroundings of a point are read
SHIFT = 100.0  # um, the cells in which shifts are counted: room for a scale that is off by a percent
NEAR = 20.0  # um between a point and where the fit puts its partner, at most
PATCHES = 10  # with a partner, at least: by chance, two to five have one


@dataclass(frozen=True)
class ImageFingerprint:
    """Points of a sample's patches; a hash that occurs twice in a sample is left out, for it tells no place.

    Attributes
    ----------
    hashes
        Ascending, uint64 [k].
    places
        x and y in the full-resolution image, um, float32 [k, 2].
    patches
        The patch of each point, int32 [k].
    """

    hashes: np.ndarray
    places: np.ndarray
    patches: np.ndarray


def of(chunks: Iterable[np.ndarray], centres: np.ndarray) -> ImageFingerprint:
    """Fingerprint of patches; their order is nothing.

    Parameters
    ----------
    chunks
        uint8 [n, 56, 56, 3] each, of 112 um.
    centres
        x and y of all patches, um, [patches, 2].
    """
    found, first = [], 0
    for chunk in chunks:
        patch, offset, hashes = _points(chunk)
        found.append((hashes, centres[first + patch] + offset * UM_PER_PX, first + patch))
        first += len(chunk)
    hashes, places, patches = (np.concatenate(part) for part in zip(*found, strict=True))
    once, where, times = np.unique(hashes, return_index=True, return_counts=True)
    where = where[times == 1]
    return ImageFingerprint(once[times == 1], places[where].astype(np.float32), patches[where].astype(np.int32))


def _points(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of patches: the patch of each, x and y from its centre in px, and its hash."""
    from scipy import ndimage

    dark = 255 - patches.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    blobs = ndimage.gaussian_filter(dark, (0, BLOB, BLOB)) - ndimage.gaussian_filter(dark, (0, 1.6 * BLOB, 1.6 * BLOB))
    peaks = (blobs == ndimage.maximum_filter(blobs, (1, 2 * APART + 1, 2 * APART + 1))) & (blobs > CONTRAST)
    margin = int(np.ceil(max((SIDE - 1) / 2 * PITCH + 1, APART)))
    inside = np.zeros_like(peaks)
    inside[:, margin:-margin, margin:-margin] = True
    patch, row, col = np.nonzero(peaks & inside)
    centre = blobs[patch, row, col]
    # Without the place between pixels, hashes would depend on how the grid of pixels fell on the tissue.
    y = row + _vertex(blobs[patch, row - 1, col], centre, blobs[patch, row + 1, col])
    x = col + _vertex(blobs[patch, row, col - 1], centre, blobs[patch, row, col + 1])
    steps = (np.arange(SIDE) - (SIDE - 1) / 2) * PITCH
    shape = (len(patch), SIDE, SIDE)
    around = [
        np.broadcast_to(patch[:, None, None], shape),
        np.broadcast_to(y[:, None, None] + steps[:, None], shape),
        np.broadcast_to(x[:, None, None] + steps, shape),
    ]
    smooth = ndimage.gaussian_filter(dark, (0, SMOOTH, SMOOTH))
    values = ndimage.map_coordinates(smooth, np.stack(around), order=1)
    bits = values > np.median(values.reshape(len(patch), SIDE * SIDE), axis=1)[:, None, None]
    middle = (patches.shape[1] - 1) / 2
    return patch, np.stack([x - middle, y - middle], axis=1), _hashes(bits)


def _vertex(before: np.ndarray, at: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where a parabola through three neighbouring values has its peak, from the middle one."""
    bend = np.minimum(before + after - 2 * at, -1e-6)
    return np.clip((before - after) / (2 * bend), -0.5, 0.5)


def _hashes(bits: np.ndarray) -> np.ndarray:
    """64 bits each as one number, the least over quarter turns and reflections, uint64 [k]."""
    turned = [np.rot90(side, quarter, axes=(1, 2)) for side in (bits, bits[:, :, ::-1]) for quarter in range(4)]
    numbers = [np.packbits(t.reshape(len(t), 64), axis=1).view(">u8")[:, 0] for t in turned]
    return np.min(numbers, axis=0).astype(np.uint64)


def shares(fingerprints: Sequence[ImageFingerprint | None]) -> np.ndarray:
    """Share of the smaller sample's patches that show tissue which the larger one shows too, for all pairs.

    Patches without any point (empty, blurred) count for nothing.

    Returns
    -------
    float64 [n, n]; 0 where less than ten patches have a partner, or there is no image.
    """
    from tqdm import tqdm

    n = len(fingerprints)
    found = np.zeros((n, n))
    there = [i for i, f in enumerate(fingerprints) if f is not None]
    if not there:
        return found
    sizes = [0 if f is None else len(np.unique(f.patches)) for f in fingerprints]
    hashes, samples = np.unique(np.concatenate([fingerprints[i].hashes for i in there]), return_counts=True)
    index = hashes[samples > 1]  # most occur in one sample alone
    indexed = {i: _only(fingerprints[i], index) for i in there}
    for position, i in enumerate(tqdm(there, desc="tissue of sections", unit="sample")):
        for j in there[position + 1 :]:
            small, large = (i, j) if sizes[i] <= sizes[j] else (j, i)
            patches = _with_partner(indexed[small], indexed[large])
            found[i, j] = found[j, i] = patches / sizes[small] if patches >= PATCHES else 0
    return found


def _only(fingerprint: ImageFingerprint, hashes: np.ndarray) -> ImageFingerprint:
    kept = np.isin(fingerprint.hashes, hashes, assume_unique=True)
    return ImageFingerprint(*(array[kept] for array in vars(fingerprint).values()))


def _with_partner(small: ImageFingerprint, large: ImageFingerprint) -> int:
    """How many patches of the one have a point that lies in the other, in one arrangement."""
    _, i, j = np.intersect1d(small.hashes, large.hashes, assume_unique=True, return_indices=True)
    if len(i) < PATCHES:
        return 0
    agree = _in_one_arrangement(small.places[i].astype(float), large.places[j].astype(float))
    return len(np.unique(small.patches[i[agree]]))


# Quarter turns and reflections of the plane.
_QUARTERS = [np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), quarter) for quarter in range(4)]
_TURNS = np.stack([*_QUARTERS, *(quarter @ np.diag([-1.0, 1.0]) for quarter in _QUARTERS)])


def _in_one_arrangement(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Which matches one affine map explains that is nearly a shift, after a quarter turn or reflection; bool [k]."""
    turned = here @ _TURNS.transpose(0, 2, 1)
    shifts = there - turned
    cells = np.floor(shifts / SHIFT).astype(np.int64)
    cells -= cells.min(axis=(0, 1))
    width = cells.max(axis=(0, 1)) + 1
    keys = (np.arange(len(_TURNS))[:, None] * width[0] + cells[..., 0]) * width[1] + cells[..., 1]
    values, votes = np.unique(keys, return_counts=True)
    if votes.max() < PATCHES / 4:  # a shift near a corner is shared out among four cells
        return np.zeros(len(here), dtype=bool)
    voted = keys == values[votes.argmax()]
    turn = voted.any(axis=1).argmax()
    start = np.median(shifts[turn][voted[turn]], axis=0)
    agree = np.abs(shifts[turn] - start).max(axis=1) < SHIFT / 2
    design = np.column_stack([turned[turn], np.ones(len(here))])
    for _ in range(4):
        if agree.sum() < PATCHES:
            break
        fit = np.linalg.lstsq(design[agree], there[agree])[0]
        agree = np.linalg.norm(there - design @ fit, axis=1) < NEAR
    return agree
