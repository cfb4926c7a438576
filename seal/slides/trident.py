"""TRIDENT's files of patches and their embeddings.

One folder a scale, inside it one file a slide::

    {mag}x_{px}px_{overlap}px_overlap/patches/SLIDE_patches.h5        coords, with the attributes of `Grid`
    {mag}x_{px}px_{overlap}px_overlap/contours/SLIDE.jpg              the slide in small, its tissue outlined
    {mag}x_{px}px_{overlap}px_overlap/features_{encoder}/SLIDE.h5     features, and coords as above

Magnification is 10 at 1 um/px.

Source: mahmoodlab/TRIDENT, trident/IO.py (coords_to_h5, save_h5) and wsi_objects/WSI.py (0408667).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from seal.errors import SealError
from seal.files import atomic


@dataclass(frozen=True)
class Grid:
    """Attributes of `coords`, in TRIDENT's names and order."""

    patch_size: int  # px at target_magnification
    patch_size_level0: int  # px
    level0_magnification: float
    target_magnification: float
    overlap: int  # px at target_magnification
    name: str  # of the slide
    savetodir: str
    level0_width: int  # px
    level0_height: int


def magnification(um_per_px: float) -> float:
    """Magnification as TRIDENT counts it, 10 / um_per_px; an int where it is whole."""
    value = 10 / um_per_px
    return round(value) if abs(value - round(value)) < 1e-9 else value


def scale_folder(um_per_px: float, size: int, overlap: int) -> str:
    """Name of the folder of patches of `size` px that overlap by `overlap` px."""
    return f"{magnification(um_per_px):g}x_{size}px_{overlap}px_overlap"


def describe_grid(
    name: str, level0: tuple[int, int], slide_um_per_px: float, um_per_px: float, size: int, overlap: int = 0
) -> Grid:
    """Describe a slide's patches.

    The magnification of level 0 is written as it is, not rounded to 20 or 40 as TRIDENT does: from it TRIDENT takes
    the side of a patch at level 0, which then is that of our patches.

    Parameters
    ----------
    level0, slide_um_per_px
        Width and height of level 0, px, and its um/px.
    um_per_px, size, overlap
        Of the patches; size and overlap in px at um_per_px.
    """
    return Grid(
        patch_size=size,
        patch_size_level0=round(size * um_per_px / slide_um_per_px),
        level0_magnification=magnification(slide_um_per_px),
        target_magnification=magnification(um_per_px),
        overlap=overlap,
        name=name,
        savetodir=scale_folder(um_per_px, size, overlap),
        level0_width=level0[0],
        level0_height=level0[1],
    )


def coords_path(root: Path, scale: str, slide: str) -> Path:
    """File of a slide's coordinates."""
    return Path(root) / scale / "patches" / f"{slide}_patches.h5"


def write_contour(root: Path, scale: str, slide: str, picture: np.ndarray) -> None:
    """Write a slide's picture with its tissue outlined, uint8 [h, w, 3]."""
    from PIL import Image

    with atomic(Path(root) / scale / "contours" / f"{slide}.jpg") as temporary:
        Image.fromarray(picture).save(temporary, quality=85)


def features_folder(root: Path, scale: str, encoder: str) -> Path:
    """Folder of an encoder's embeddings, one file a slide, SLIDE.h5."""
    return Path(root) / scale / f"features_{encoder}"


def write_coords(path: Path, coords: np.ndarray, described: Grid) -> None:
    """Write patch coordinates, int64 [n, 2], (x, y) of the upper left corners in level-0 px."""
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        _put_coords(file, coords, described)


def write_features(
    path: Path,
    features: np.ndarray,
    coords: np.ndarray,
    encoder: str,
    described: Grid | None = None,
    attributes: Mapping[str, Any] | None = None,
    tables: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write the embeddings of a slide's or a section's patches.

    Parameters
    ----------
    features, coords
        Floating, [n, d], stored as float32; and as in `write_coords`.
    described
        Attributes of the coordinates; None where patches lie on no grid.
    attributes, tables
        More attributes of the features; more data sets, by name.

    Raises
    ------
    SealError
        Embeddings and coordinates do not belong together, or an embedding is not finite.
    """
    features, coords = _checked(path, features, coords)
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        file["features"] = features
        names = {"name": described.name, "savetodir": described.savetodir} if described else {}
        file["features"].attrs.update({**names, "encoder": encoder, **(attributes or {})})
        if described:
            _put_coords(file, coords, described)
        else:
            file["coords"] = coords
        for name, table in (tables or {}).items():
            file[name] = table


def _put_coords(file: h5py.File, coords: np.ndarray, described: Grid) -> None:
    data = file.create_dataset("coords", data=coords, chunks=(1, 2), maxshape=(None, 2))
    for name, value in asdict(described).items():
        data.attrs[name] = value


def read_table(path: Path, name: str) -> np.ndarray:
    """Read one data set as it is stored.

    Raises
    ------
    SealError
        The file is missing or truncated, or lacks it.
    """
    with _open(path, name) as data:
        return data[()]


def attributes_of(path: Path, name: str = "features") -> dict[str, Any]:
    """Attributes of a file's features, or of another data set, without reading these.

    Raises
    ------
    SealError
        The file is missing, truncated or lacks it.
    """
    with _open(path, name) as data:
        return dict(data.attrs)


@contextmanager
def _open(path: Path, name: str) -> Iterator[h5py.Dataset]:
    """Open a data set of a file; what h5py cannot read is said in words."""
    try:
        with h5py.File(path, "r") as file:
            if name not in file:
                raise _bad(path, f"it has no `{name}`, but {', '.join(file) or 'nothing'}")
            yield file[name]
    except OSError as error:
        raise _bad(path, f"it cannot be read ({error})") from error


def _checked(path: Path, features: np.ndarray, coords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings in float32 and coordinates in int64, or what is wrong with them."""
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
        hint = "; one vector is a slide's embedding, not its patches'" if features.ndim == 1 else ""
        raise _bad(path, f"`features` are {features.dtype} {list(features.shape)}{hint}")
    if coords.ndim != 2 or coords.shape[1] != 2 or coords.dtype.kind not in "iuf" or (coords != np.rint(coords)).any():
        raise _bad(path, f"`coords` are {coords.dtype} {list(coords.shape)}, not whole pixels (x, y)")
    if len(features) != len(coords):
        raise _bad(path, f"it has {len(features)} embeddings for {len(coords)} coordinates")
    features = features.astype(np.float32)
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        first = int(np.flatnonzero(~finite)[0])
        raise _bad(path, f"{int((~finite).sum())} of its {len(features)} embeddings are not finite, first row {first}")
    return features, coords.astype(np.int64)


def _bad(path: Path, why: str) -> SealError:
    return SealError(
        f"{path}: {why}",
        expected="an h5 with `coords` [n, 2] in level-0 px and, of embeddings, `features` [n, d], all finite",
        do="correct the path; or if no other program holds the file, move it away and embed the slide again",
    )
