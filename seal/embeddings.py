"""Patch embeddings on disk, one h5 a section, in TRIDENT's layout."""

from pathlib import Path

import h5py
import numpy as np

from seal import paths
from seal.data.pairs import Pairs
from seal.errors import SealError
from seal.files import atomic


def folder(pairs: Pairs, method: str) -> Path:
    """{mag}x_{px}px_{overlap}px_overlap/features_{encoder}_{method}, as TRIDENT names it.

    Magnification is 10 at 1 um/px; patches lie on spots, so their overlap is given as 0.
    """
    profile = pairs.profile
    scale = f"{10 / profile.um_per_px:g}x_{profile.image_size}px_0px_overlap"
    return paths.embeddings(profile.name) / scale / f"features_{profile.encoder}_{method}"


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
        with atomic(path) as temporary, h5py.File(temporary, "w") as file:
            file["features"] = features[rows].astype(np.float32)
            file["coords"] = np.rint(centre - half).astype(np.int64)
            file["barcodes"] = np.array(spots["barcode"], dtype="S")
            file["features"].attrs["encoder"] = f"{pairs.profile.encoder}_{method}"
        written.append(path)
    return written


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read features [n, d] and coords [n, 2] of one file.

    Raises
    ------
    SealError
        The file is missing, truncated or lacks a table.
    """
    try:
        with h5py.File(path, "r") as file:
            return file["features"][:], file["coords"][:]
    except (OSError, KeyError) as error:
        raise SealError(
            f"{path} cannot be read ({error})",
            expected="an h5 with `features` [n, d] and `coords` [n, 2]",
            do="delete it and run notebook 03 again",
        ) from error
