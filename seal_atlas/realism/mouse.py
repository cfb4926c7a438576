"""Adult mouse brain, Visium: 49 real spots with H&E, the smallest real sample there is; the tests use it.

It lies in the source archive of squidpy 1.8.2 (BSD-3). Its counts were normalised and logged by its authors, and
positions on the array were left out: they are found again from the pixels.
"""

import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from seal import paths
from seal.data.sample_files import is_made, list_samples, write_files
from seal.errors import SealError
from seal.files import Made, atomic
from seal.models import package_index
from seal.profiles import Profile

if TYPE_CHECKING:
    from anndata import AnnData

ARCHIVE = package_index.IndexFile(
    project="squidpy",
    version="1.8.2",
    name="squidpy-1.8.2.tar.gz",
    sha256="6c79c95dea9f812c6aee39cab5740b034e8a90e74e84b0a9e9f0c6c5a6956a64",
    megabytes=6,
)
COUNTS, IMAGE = (f"squidpy-1.8.2/tests/_data/{name}" for name in ("test_data.h5ad", "test_img.jpg"))
VERSION = 1  # counted up when the same archive gives another sample
NAME = "SQUIDPY-MOUSE-BRAIN"
PITCH, SPOT = 100.0, 55.0  # um


def fetch_archive() -> Path:
    """Download squidpy's source archive from the package index, once (6 MB; pip takes up to a minute over it).

    Raises
    ------
    SealError
        The package index cannot be reached, or the archive is not the expected one.
    """
    return package_index.fetch_file(ARCHIVE)


def prepare(profile: Profile | None = None) -> Path:
    """Write the sample in HEST-1k's layout, its image in wsis/, unless it is there.

    Parameters
    ----------
    profile
        Not read: there is one sample, whatever the profile. Every source takes it.

    Returns
    -------
    The folder of the sample.

    Raises
    ------
    SealError
        See `fetch_archive`.
    """
    root = paths.samples("mouse")
    record, image = root / "metadata" / f"{NAME}.json", root / "wsis" / f"{NAME}.tif"
    whole = all(path.is_file() for path in (record, image, root / "st" / f"{NAME}.h5ad", root / "metadata.csv"))
    made = Made("the mouse's sample", VERSION, {"archive": ARCHIVE.sha256})
    if whole and is_made(root, NAME, made):
        return root
    counts, pixels = _read(fetch_archive())
    data, um_per_px = _on_grid(counts)
    _write_image(image, pixels)
    write_files(root, _row(data, um_per_px) | {"made": made.stamp()}, data, None, um_per_px)
    list_samples(root, [NAME])
    return root


def _read(archive: Path) -> "tuple[AnnData, np.ndarray]":
    """Read the two members that make the sample; nothing is unpacked."""
    from anndata.io import read_elem
    from PIL import Image

    try:
        with tarfile.open(archive) as tar:
            counts, image = (tar.extractfile(name).read() for name in (COUNTS, IMAGE))
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise SealError(
            f"{archive} cannot be read ({error})",
            expected=f"{COUNTS} and {IMAGE}",
            do="delete it and run the same command: it is downloaded again",
        ) from error
    with h5py.File(io.BytesIO(counts)) as file, Image.open(io.BytesIO(image)) as picture:
        return read_elem(file), np.asarray(picture.convert("RGB"))


def _on_grid(source: "AnnData") -> "tuple[AnnData, float]":
    """Find array positions and um a pixel from the spots' pixels.

    Neighbours are `pitch` pixels apart, in a row at the same y and columns two apart; rows follow each other at
    pitch * sqrt(3) / 2. Counted from the first row and column: where on the array they lay is not known.
    """
    import anndata
    import pandas as pd
    from scipy.sparse import csr_matrix

    xy = source.obsm["spatial"].astype(float)
    distance = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1))
    nearest = distance[distance > 0].min()
    pitch = distance[(distance > 0) & (distance < 1.2 * nearest)].mean()
    col, row = np.rint((xy - xy.min(axis=0)) / (pitch / 2, pitch * np.sqrt(3) / 2)).astype(int).T
    obs = pd.DataFrame(
        {
            "array_row": row,
            "array_col": col,
            "pxl_row_in_fullres": xy[:, 1],
            "pxl_col_in_fullres": xy[:, 0],
            "in_tissue": 1,
        },
        index=source.obs_names,
    )
    data = anndata.AnnData(csr_matrix(source.X), obs=obs, var=pd.DataFrame(index=source.var_names))
    data.obsm["spatial"] = xy
    return data, PITCH / pitch


def _write_image(path: Path, pixels: np.ndarray) -> None:
    """Write a tiled TIFF without loss, as HEST-1k's images are tiled."""
    import tifffile

    with atomic(path) as temporary:
        tifffile.imwrite(temporary, pixels, photometric="rgb", tile=(256, 256), compression="adobe_deflate")


def _row(data: "AnnData", um_per_px: float) -> dict:
    return {
        "id": NAME,
        "organ": "Brain",
        "disease_state": "Healthy",
        "oncotree_code": "",
        "species": "Mus musculus",
        "patient": NAME,
        "st_technology": "Visium",
        "spots_under_tissue": data.n_obs,
        "pixel_size_um_estimated": um_per_px,
        "inter_spot_dist": PITCH,
        "spot_diameter": SPOT,
        "dataset_title": "V1 Adult Mouse Brain (10x Genomics), part, from squidpy 1.8.2",
        "subseries": "",
        "license": "BSD-3-Clause",
        "simulated": False,
        "normalised": True,
        "grid": "visium",
    }
