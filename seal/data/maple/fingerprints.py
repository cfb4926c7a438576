"""Sections that two samples share, found in their files: by the noise of their counts and by the look of their patches.

Serial sections look alike, but neither is the noise of their counts the same nor do their patches match, so they are
told apart from one section published twice. Three steps, for either kind: some spots of each section are looked for in
all others; where enough are found, every spot is, and those alike must lie alike (`arrangement`); then each spot is
compared with the one that lies in its place. The share is of the smaller section's spots (patches with tissue).

Measured on her2st (32 sections of 8 donors, some of them serial): of 496 pairs none shares a spot, and no pair of the
four pictures a patch. The same sections again, each changed: at least 0.98 of the spots with spots lost, two
independent thinnings to 0.7 of the molecules, or 1,000 genes against the whole transcriptome; 0.84 with half of the
molecules gone besides; at least 0.98 of the patches with JPEG, scales of 0.5 to 1.5, other colours, shifts of 4 um.
A grid of spots shifted by 8 um or more is beyond the
image's reach: then the expression must tell.

Source: our choice.
"""

import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from seal import dependencies
from seal.data.hest import FIELD, Sample
from seal.data.maple import arrangement, expression_prints, image_prints
from seal.data.maple.expression_prints import ExpressionPrint
from seal.data.maple.image_prints import ImagePrint
from seal.data.sample_files import patch_barcodes, read_counts, read_patches
from seal.errors import SealError
from seal.files import atomic, digest, remove_parts

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("sample_a", "sample_b", "kind", "share", "verdict")
OVERLAPPING = 0.02  # of the smaller section, and `arrangement.AGREE` spots at least
SAME = 0.5  # from here on a section's spots are in the other rather than not

Kind = TypeVar("Kind", ExpressionPrint, ImagePrint)


@dataclass(frozen=True)
class Fingerprint:
    """A sample's two fingerprints; without an image that of its patches is empty."""

    id: str
    expression: ExpressionPrint
    image: ImagePrint


def of(sample: Sample) -> Fingerprint:
    """Read a sample's files and take its fingerprints; patches are read 256 at a time.

    Raises
    ------
    SealError
        A file is missing or damaged, see `seal.data.sample_files`.
    """
    data = read_counts(sample)
    positions = data.obs[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=float)
    expression = expression_prints.of(data.X, data.var_names, positions)
    if not sample.has_image:
        return Fingerprint(sample.id, expression, image_prints.of([], positions[:0], 1.0))
    barcodes = [name for name in patch_barcodes(sample) if name in data.obs_names]
    chunks = read_patches(sample, barcodes, image_prints.SIDE, FIELD / image_prints.SIDE)
    rows = data.obs_names.get_indexer(barcodes)
    return Fingerprint(sample.id, expression, image_prints.of(chunks, positions[rows], arrangement.pitch(positions)))


def overlaps(fingerprints: Sequence[Fingerprint]) -> "pd.DataFrame":
    """Compare all samples with each other.

    Returns
    -------
    DataFrame with sample_a, sample_b, kind ("expression", "image"), share (of the smaller section's spots) and verdict
    ("same section", "overlapping"); a row for each pair and kind where something is shared, all others left out.
    """
    import pandas as pd
    from tqdm import tqdm

    ordered = sorted(fingerprints, key=lambda one: one.id)
    expression, image = [one.expression for one in ordered], [one.image for one in ordered]
    screened = tqdm(expression_prints.candidates(expression), desc="expression", total=len(ordered), unit="sample")
    pairs = [("expression", i, j) for found in screened for i, j in found]
    pairs += [("image", i, j) for i, j in image_prints.candidates(image)]
    rows = []
    for kind, i, j in tqdm(pairs, desc="pairs that may overlap", unit="pair"):
        share = _share(expression[i], expression[j]) if kind == "expression" else _share(image[i], image[j])
        if share >= OVERLAPPING:
            verdict = "same section" if share >= SAME else "overlapping"
            rows.append((ordered[i].id, ordered[j].id, kind, share, verdict))
    return pd.DataFrame(sorted(rows), columns=list(COLUMNS))


def _share(a: Kind, b: Kind) -> float:
    same = expression_prints.shared(a, b) if isinstance(a, ExpressionPrint) else image_prints.shared(a, b)
    return same / min(len(a.places), len(b.places)) if same >= arrangement.AGREE else 0.0


def audit_files(samples: Sequence[Sample], folder: Path, workers: int = 2) -> "pd.DataFrame":
    """Take the fingerprints that are not in `folder` yet, and compare all samples.

    Killed, the same call goes on where it stopped. A fingerprint is taken anew when its sample's files (by size and
    time) or the code that takes it change.

    Parameters
    ----------
    folder
        Where fingerprints are kept, ID.npz.
    workers
        Processes that read samples.

    Returns
    -------
    See `overlaps`.

    Raises
    ------
    SealError
        A sample's files are missing or damaged; the fingerprints of those before it are kept.
    """
    from tqdm import tqdm

    if workers < 1:
        raise SealError(f"{workers} workers", expected="1 or more", do="give --workers, for example, 2")
    folder = Path(folder)
    remove_parts(folder)
    code = dependencies.code_digest(["seal.data.maple.expression_prints", "seal.data.maple.image_prints"])
    keys = {sample.id: _key(sample, code) for sample in samples}
    found = {sample.id: _load(folder / f"{sample.id}.npz", sample.id, keys[sample.id]) for sample in samples}
    waiting = [sample for sample in samples if found[sample.id] is None]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:  # a fork beside threads can hang
        jobs = [pool.submit(_take, sample, folder / f"{sample.id}.npz", keys[sample.id]) for sample in waiting]
        try:
            for job in tqdm(as_completed(jobs), desc="fingerprints", total=len(jobs), unit="sample"):
                one = job.result()
                found[one.id] = one
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return overlaps(list(found.values()))


def _take(sample: Sample, path: Path, key: str) -> Fingerprint:
    one = of(sample)
    parts = {"expression": one.expression, "image": one.image}
    arrays = {f"{kind}_{name}": array for kind, part in parts.items() for name, array in asdict(part).items()}
    with atomic(path) as temporary:
        np.savez_compressed(temporary, key=np.array(key), **arrays)
    return one


def _load(path: Path, name: str, key: str) -> Fingerprint | None:
    """The fingerprint on disk; None where there is none, or one of other files, or a damaged one."""
    try:
        with np.load(path) as file:
            if str(file["key"]) != key:
                return None
            parts = [
                kind(**{field.name: file[f"{prefix}_{field.name}"] for field in fields(kind)})
                for prefix, kind in (("expression", ExpressionPrint), ("image", ImagePrint))
            ]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        return None
    return Fingerprint(name, *parts)


def _key(sample: Sample, code: str) -> str:
    """What a fingerprint depends on; a file is known by its size and time, for together they are a terabyte."""
    files = [sample.st_path, sample.patches_path if sample.patches_path.is_file() else sample.wsi_path]
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files if path and path.is_file()]
    return digest([stats, sample.um_per_px, sample.normalised, code])
