"""Sections that two samples share, found in their files: by the molecules they count and by the tissue they show.

Serial sections of one donor are told apart from one section published twice: they look alike, but their counting
noise and their nuclei are not the same (`expression_fingerprints`, `image_fingerprints`).

Thresholds. her2st, 496 pairs of sections, 54 of them of one donor, some serial: expression at the spots at most 0.02,
over the section at most -0.25; pictures of four sections, three of one donor: at most 4 patches in one arrangement,
so 0. Simulated serial sections that lie alike to the micrometre: 0.16 at the spots, 0.01 over the section. The same
sections again, changed (half of the molecules, another panel, spots lost; another grid, scale, compression, colours,
turned): expression 0.6 and more, pictures 0.8 and more. So 0.25 and 0.02 part them; below 0.5 less than half is
shared, which is an overlap.

Source: our choice.
"""

import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seal.data import grid
from seal.data.sample_files import patch_barcodes, read_counts, read_patches, require_um_per_px
from seal.data.samples import Sample
from seal.errors import SealError
from seal.files import atomic, contents, digest, remove_parts
from tools.hest_audit import expression as expression_fingerprints
from tools.hest_audit import pictures
from tools.hest_audit.expression import ExpressionFingerprint
from tools.hest_audit.pictures import ImageFingerprint

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1  # counted up when the same files give other fingerprints
COLUMNS = ("sample_a", "sample_b", "kind", "share", "verdict")
SAME = 0.5  # of the smaller sample
OVERLAPPING = {"expression": 0.25, "image": 0.02}


@dataclass(frozen=True)
class Fingerprint:
    """One sample's fingerprints; `image` is None where it has no image."""

    id: str
    expression: ExpressionFingerprint
    image: ImageFingerprint | None


def of(sample: Sample) -> Fingerprint:
    """Read a sample's files and take its fingerprints; patches are read a few at a time.

    Raises
    ------
    SealError
        A file is missing or damaged (see `seal.data.sample_files`), or um a pixel is not known.
    """
    data = read_counts(sample)
    return Fingerprint(sample.id, expression_fingerprints.of(data), _of_image(sample, data.obs))


def _of_image(sample: Sample, obs: "pd.DataFrame") -> ImageFingerprint | None:
    if not sample.has_image:
        return None
    require_um_per_px(sample)
    barcodes = [name for name in patch_barcodes(sample, obs) if name in obs.index]
    if not barcodes:
        return None
    centres = obs.loc[barcodes, grid.PIXELS].to_numpy(dtype=float) * sample.um_per_px
    chunks = read_patches(sample, barcodes, pictures.SIZE, pictures.UM_PER_PX)
    return pictures.of(chunks, centres)


def overlaps(fingerprints: Sequence[Fingerprint]) -> "pd.DataFrame":
    """Compare all samples with each other.

    Returns
    -------
    DataFrame, a row a pair of samples and kind of fingerprint that finds it: sample_a, sample_b, kind ("expression",
    "image"), share (of the smaller sample) and verdict ("same section", "overlapping"). All others are left out.
    """
    import pandas as pd

    if len(fingerprints) < 2:
        return pd.DataFrame(columns=list(COLUMNS))
    ordered = sorted(fingerprints, key=lambda f: f.id)
    expression = [f.expression for f in ordered]
    over_section = expression_fingerprints.shares_over_section(expression)
    shares = {
        # over the section a part of the noise is no sign of a part of the spots, so it counts from SAME on
        "expression": np.maximum(
            expression_fingerprints.shares_at_spots(expression), np.where(over_section >= SAME, over_section, 0)
        ),
        "image": pictures.shares([f.image for f in ordered]),
    }
    rows = [
        (ordered[i].id, ordered[j].id, kind, min(float(share[i, j]), 1.0))
        for kind, share in shares.items()
        for i, j in np.argwhere(np.triu(share >= OVERLAPPING[kind], 1))
    ]
    rows = [(*row, "same section" if row[-1] >= SAME else "overlapping") for row in sorted(rows)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def audit_files(samples: Sequence[Sample], folder: Path, workers: int = 2) -> "pd.DataFrame":
    """Take the fingerprints of all samples that have none in `folder` yet, and compare all of them.

    Killed, it goes on where it was. A fingerprint is taken again when its sample's files or these modules change.

    Parameters
    ----------
    folder
        Where fingerprints are kept, ID.npz.
    workers
        Processes that read files.

    Returns
    -------
    See `overlaps`.

    Raises
    ------
    SealError
        See `of`, or less than one worker; what other samples have given by then is kept.
    """
    from tqdm import tqdm

    if workers < 1:
        raise SealError(f"{workers} workers", expected="1 or more", do="give --workers, for example, 2")
    folder = Path(folder)
    remove_parts(folder)
    kept = {sample.id: _load(folder, sample) for sample in samples}
    waiting = [sample for sample in samples if kept[sample.id] is None]
    # spawned, not forked: a process forked beside threads (torch, h5py) can hang
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        jobs = [pool.submit(_take, folder, sample) for sample in waiting]
        try:
            for job in tqdm(as_completed(jobs), total=len(jobs), desc="fingerprints", unit="sample"):
                fingerprint = job.result()
                kept[fingerprint.id] = fingerprint
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return overlaps([kept[sample.id] for sample in samples])


def _take(folder: Path, sample: Sample) -> Fingerprint:
    fingerprint = of(sample)
    _save(folder, sample, fingerprint)
    return fingerprint


def _key(sample: Sample) -> str:
    """Digest of what a fingerprint depends on."""
    files = [sample.st_path, sample.patches_path if sample.patches_path.is_file() else sample.wsi_path]
    read = contents(path for path in files if path and path.is_file())
    return digest([VERSION, read, sample.um_per_px, sample.normalised, sample.technology])


def _save(folder: Path, sample: Sample, fingerprint: Fingerprint) -> None:
    arrays = {
        f"{kind}.{name}": value
        for kind in ("expression", "image")
        if getattr(fingerprint, kind) is not None
        for name, value in vars(getattr(fingerprint, kind)).items()
    }
    with atomic(folder / f"{sample.id}.npz") as temporary:
        np.savez_compressed(temporary, key=np.array(_key(sample)), **arrays)


def _load(folder: Path, sample: Sample) -> Fingerprint | None:
    """The fingerprint that is kept, None where there is none of these files or it is damaged."""
    try:
        with np.load(folder / f"{sample.id}.npz") as file:
            if str(file["key"]) != _key(sample):
                return None
            expression = {f.name: file[f"expression.{f.name}"] for f in fields(ExpressionFingerprint)}
            there = "image.hashes" in file
            image = {f.name: file[f"image.{f.name}"] for f in fields(ImageFingerprint)} if there else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    expression["spots"] = int(expression["spots"])
    return Fingerprint(
        sample.id, ExpressionFingerprint(**expression), None if image is None else ImageFingerprint(**image)
    )
