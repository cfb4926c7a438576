"""Fingerprints of images: a perceptual hash a patch, signs of its lowest cosine frequencies.

Scale, JPEG, brightness and slight changes of colour leave the signs of most frequencies as they are; so do shifts that
are small beside the shortest wave, a quarter of the patch. A quarter turn or a mirror swaps and negates them, so that
the hashes of all eight follow from one. Patches of glass or without contrast have no hash.

Source: the perceptual hash by cosine transform, common practice; turns, thresholds and search our choice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from seal.data.maple import arrangement

SIDE = 32  # px to which a patch is reduced
WAVES = 8  # frequencies an axis, 0 to 7 half waves; all but the mean make 63 bits
GLASS = 215  # grey value from which a pixel is background
MOST_GLASS = 0.5  # share of background from which a patch is left out: edges of tissue look alike
CONTRAST = 6.0  # standard deviation of the grey values below which it is
ALIKE = 10  # differing bits of patches that may be one; two other patches differ in 31.5 on average
CONFIRMED = 16  # differing bits of two patches that already lie in one place
HITS = 5  # patches that must be found for a closer look
BANDS = 4  # parts of a hash, one of which must be equal to be found
_REACH = 64  # neighbours in the sorted order of a band that are compared
_ROWS = 512  # patches compared with a section's at a time

_ORDER = sorted(((u, v) for u in range(WAVES) for v in range(WAVES)), key=lambda uv: (sum(uv), max(uv), uv))
_COSINES = np.cos(np.pi * (2 * np.arange(SIDE) + 1) * np.arange(WAVES)[:, None] / (2 * SIDE)).astype(np.float32)


@dataclass(frozen=True)
class ImagePrint:
    """A section's patches.

    Attributes
    ----------
    hashes
        uint64 [patches], low frequencies in the high bits.
    places
        float32 [patches, 2], x and y in units of the pitch of the section's spots.
    """

    hashes: np.ndarray
    places: np.ndarray


def of(chunks: Iterable[np.ndarray], positions: np.ndarray, pitch: float) -> ImagePrint:
    """Take a section's fingerprint.

    Parameters
    ----------
    chunks
        Patches, uint8 [n, SIDE, SIDE, 3], in the order of `positions`.
    positions
        x and y of the spots in px, [spots, 2].
    pitch
        Of all the section's spots, px.
    """
    parts = [hashes(chunk) for chunk in chunks]
    kept = np.concatenate([usable for _, usable in parts]) if parts else np.zeros(0, dtype=bool)
    found = np.concatenate([values for values, _ in parts]) if parts else np.zeros(0, dtype=np.uint64)
    return ImagePrint(found[kept], (positions[kept] / pitch).astype(np.float32))


def hashes(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes, uint64 [n], of patches uint8 [n, SIDE, SIDE, 3], and which of them can be told from others, bool [n]."""
    grey = patches.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    usable = (grey.std(axis=(1, 2)) >= CONTRAST) & ((grey >= GLASS).mean(axis=(1, 2)) < MOST_GLASS)
    waves = _COSINES @ grey @ _COSINES.T
    waves[:, 0, 0] = 0
    rows, columns = np.array(_ORDER).T
    return _packed(waves[:, rows, columns] > 0), usable


def _packed(bits: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(">u8")[:, 0].astype(np.uint64)


def _unpacked(values: np.ndarray) -> np.ndarray:
    return np.unpackbits(values.astype(">u8")[:, None].view(np.uint8), axis=1).astype(bool)


def turned(values: np.ndarray, turn: tuple[bool, int, int]) -> np.ndarray:
    """The hashes that turned patches would have; `turn` as in `arrangement.TURNS`."""
    swap, x, y = turn
    source = [_ORDER.index((v, u) if swap else (u, v)) for u, v in _ORDER]
    negated = [(y < 0 and u % 2) != (x < 0 and v % 2) for u, v in _ORDER]
    bits = _unpacked(values)[:, source] ^ np.array(negated, dtype=bool)
    bits[:, 0] = False
    return _packed(bits)


def canonical(values: np.ndarray) -> np.ndarray:
    """One of a patch's eight hashes, the same for all its turns: the smallest, which the lowest frequencies decide."""
    return np.min([turned(values, turn) for turn in arrangement.TURNS], axis=0)


def candidates(prints: Sequence[ImagePrint]) -> list[tuple[int, int]]:
    """The pairs (i, j), i < j, of sections that deserve `shared`: an index of parts of the hashes, then votes."""
    n = len(prints)
    values = np.concatenate([canonical(one.hashes) for one in prints]) if n else np.zeros(0, dtype=np.uint64)
    owner = np.repeat(np.arange(n), [len(one.hashes) for one in prints])
    bits = _unpacked(values)
    votes = np.zeros((n, n), dtype=np.int64)
    for band in range(BANDS):
        # the band first, the rest behind it, so that equal hashes of large buckets are neighbours
        key = _packed(np.concatenate([np.roll(bits, -k, axis=1)[:, ::BANDS] for k in _rolled(band)], axis=1))
        order = np.argsort(key, kind="stable")
        prefix, sorted_values, sorted_owner = key[order] >> np.uint64(64 - 64 // BANDS), values[order], owner[order]
        for step in range(1, min(_REACH, len(order))):
            near = np.flatnonzero((prefix[step:] == prefix[:-step]) & (sorted_owner[step:] != sorted_owner[:-step]))
            differ = np.bitwise_count(sorted_values[near] ^ sorted_values[near + step])
            near = near[differ <= ALIKE]
            np.add.at(votes, (sorted_owner[near], sorted_owner[near + step]), 1)
    votes += votes.T
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(votes, 1) >= HITS)]


def _rolled(band: int) -> list[int]:
    return [(band + k) % BANDS for k in range(BANDS)]


def shared(a: ImagePrint, b: ImagePrint) -> int:
    """How many patches of the two are the same: alike by their hashes and lying alike, in the best of eight turns."""
    return max((_shared(a, b, turn) for turn in arrangement.TURNS), default=0)


def _shared(a: ImagePrint, b: ImagePrint, turn: tuple[bool, int, int]) -> int:
    if not len(a.hashes) or not len(b.hashes):
        return 0
    values = turned(a.hashes, turn)
    nearest, differ = _nearest(values, b.hashes)
    rows = np.flatnonzero(differ <= ALIKE)
    mapping = arrangement.fit(a.places[rows], b.places[nearest[rows]], [turn])
    if mapping is None:
        return 0
    in_a, in_b = arrangement.partners(mapping, a.places, b.places)
    return int((np.bitwise_count(values[in_a] ^ b.hashes[in_b]) <= CONFIRMED).sum())


def _nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each hash of `a` the row of the most similar in `b`, and in how many bits they differ."""
    rows, least = [], []
    for i in range(0, len(a), _ROWS):
        differ = np.bitwise_count(a[i : i + _ROWS, None] ^ b)
        rows.append(differ.argmin(axis=1))
        least.append(differ.min(axis=1))
    return np.concatenate(rows), np.concatenate(least)
