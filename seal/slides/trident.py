"""TRIDENT's files of patches and their embeddings, written and read.

One folder a scale, inside it one file a slide::

    {mag}x_{px}px_{overlap}px_overlap/patches/SLIDE_patches.h5        coords, with the attributes of `Grid`
    {mag}x_{px}px_{overlap}px_overlap/features_{encoder}/SLIDE.h5     features, and coords as above

Magnification is 10 at 1 um/px. Files ending in .pt, which TRIDENT can write instead, are not read.

Source: mahmoodlab/TRIDENT, trident/IO.py (coords_to_h5, save_h5) and wsi_objects/WSI.py (0408667).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

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


class Features(NamedTuple):
    """Embeddings of one slide's patches."""

    features: np.ndarray  # float32 [n, d]
    coords: np.ndarray  # int64 [n, 2], (x, y) of the upper left corners, level-0 px
    encoder: str | None  # as the file says, else as its folder is called
    grid: dict[str, Any]  # attributes of coords, those that there are


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
    features, coords = _checked(path, features, coords, None)
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


def read_features(path: Path, dim: int | None = None) -> Features:
    """Read the embeddings of a slide's patches, by TRIDENT or by `write_features`.

    Half or double precision becomes float32; a leading axis of length 1, which some versions write, is dropped;
    attributes may be missing.

    Parameters
    ----------
    dim
        Size d of the encoder's embedding; None: any.

    Raises
    ------
    SealError
        The file is missing, truncated or lacks a table; numbers of embeddings and coordinates differ; an embedding is
        not finite; the embeddings are of another size.
    """
    with _opened(path) as file:
        features, coords = (_table(file, name, path) for name in ("features", "coords"))
        encoder = file["features"].attrs.get("encoder", "None")  # TRIDENT writes None as a word
        attributes = dict(file["coords"].attrs)
    encoder = encoder.decode() if isinstance(encoder, bytes) else str(encoder)
    if encoder == "None":
        folder = Path(path).absolute().parent.name
        encoder = folder.removeprefix("features_") if folder.startswith("features_") else None
    return Features(*_checked(path, features, coords, dim), encoder, attributes)


def read_table(path: Path, name: str) -> np.ndarray:
    """Read one data set as it is stored.

    Raises
    ------
    SealError
        The file is missing or truncated, or lacks it.
    """
    with _opened(path) as file:
        return _table(file, name, path)


def attributes_of(path: Path) -> dict[str, Any]:
    """Attributes of a file's features, without reading these.

    Raises
    ------
    SealError
        The file is missing, truncated or has no features.
    """
    with _opened(path) as file:
        return dict(_data(file, "features", path).attrs)


def _opened(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise _bad(path, f"it cannot be opened ({error})") from error


def _data(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    if name not in file:
        raise _bad(path, f"it has no `{name}`, but {', '.join(file) or 'nothing'}")
    return file[name]


def _table(file: h5py.File, name: str, path: Path) -> np.ndarray:
    data = _data(file, name, path)
    try:
        values = data[()]
    except OSError as error:
        raise _bad(path, f"its `{name}` cannot be read ({error})") from error
    return values[0] if values.ndim == 3 and len(values) == 1 else values


def _checked(path: Path, features: np.ndarray, coords: np.ndarray, dim: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings in float32 and coordinates in int64, or what is wrong with them."""
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
        hint = "; one vector is a slide's embedding, not its patches'" if features.ndim == 1 else ""
        raise _bad(path, f"`features` are {features.dtype} {list(features.shape)}{hint}")
    coords = _whole(path, coords)
    if len(features) != len(coords):
        raise _bad(path, f"it has {len(features)} embeddings for {len(coords)} coordinates")
    if dim is not None and features.shape[1] != dim:
        raise _bad(path, f"its embeddings have {features.shape[1]} numbers, the encoder's {dim}")
    features = features.astype(np.float32)
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        first = int(np.flatnonzero(~finite)[0])
        raise _bad(path, f"{int((~finite).sum())} of its {len(features)} embeddings are not finite, first row {first}")
    return features, coords


def _whole(path: Path, coords: np.ndarray) -> np.ndarray:
    if coords.ndim != 2 or coords.shape[1] != 2 or coords.dtype.kind not in "iuf" or (coords != np.rint(coords)).any():
        raise _bad(path, f"`coords` are {coords.dtype} {list(coords.shape)}, not whole pixels (x, y)")
    return coords.astype(np.int64)


def _bad(path: Path, why: str) -> SealError:
    return SealError(
        f"{path}: {why}",
        expected="an h5 with `coords` [n, 2] in level-0 px and, of embeddings, `features` [n, d], all finite",
        do="correct the path, or delete the file and embed the slide again",
    )
