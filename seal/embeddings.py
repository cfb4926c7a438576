"""Patch embeddings on disk, one h5 a section, in TRIDENT's layout."""

from pathlib import Path

import numpy as np

from seal import paths
from seal.data.pairs import Pairs
from seal.errors import SealError
from seal.slides import trident


def folder(pairs: Pairs, method: str) -> Path:
    """{mag}x_{px}px_{overlap}px_overlap/features_{encoder}_{method}, as TRIDENT names it.

    Patches lie on spots, so their overlap is given as 0.
    """
    profile = pairs.profile
    scale = trident.scale_folder(profile.um_per_px, profile.image_size, 0)
    return trident.features_folder(paths.embeddings(profile.name), scale, f"{profile.encoder}_{method}")


def write(pairs: Pairs, method: str, features: np.ndarray) -> list[Path]:
    """Write the embeddings of all pairs, [pairs, d], a file a section: features, coords and barcodes.

    `coords` is the patch's upper left corner in pixels of the full-resolution image (x, y).
    """
    frame = pairs.frame()
    if len(features) != pairs.n_pairs:
        raise SealError(
            f"{len(features)} embeddings for {pairs.n_pairs} pairs",
            expected="one embedding a pair, in row order",
            do="embed all of pairs.patches",
        )
    written = []
    for section in (s for s in pairs.sections if s.has_image):
        rows = slice(section.start, section.stop)
        spots = frame.iloc[rows]
        centre = spots[["x", "y"]].to_numpy()
        half = pairs.profile.image_size * pairs.profile.um_per_px / 2 / section.um_per_px
        path = folder(pairs, method) / f"{section.sample}.h5"
        trident.write_features(
            path,
            features[rows],
            np.rint(centre - half),
            encoder=f"{pairs.profile.encoder}_{method}",
            tables={"barcodes": np.array(spots["barcode"], dtype="S")},
        )
        written.append(path)
    return written


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read features [n, d] and coords [n, 2] of one file.

    Raises
    ------
    SealError
        As `seal.slides.trident.read_features`.
    """
    found = trident.read_features(path)
    return found.features, found.coords
