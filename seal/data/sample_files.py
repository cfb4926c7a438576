"""A sample's counts and patches, read and written in HEST-1k's layout (data/README.md)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from seal.data import grid, store
from seal.data.samples import FIELD, Sample, read_flags, read_numbers
from seal.errors import SealError, explain_unreadable
from seal.files import Made, atomic, read_json, write_json

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

OVERVIEW = 1000  # px, the longer side of the picture in an h5ad, as HEST-1k has it
SAME = 2.0  # px between two statements of one position
AGREE = 0.03  # of a number stated twice; sides are rounded to whole px
NEAR = 0.1  # of um a pixel in the patches' file and in the table
CHUNK = 64  # patches read at a time: their memory is used again and stays in the processor's cache
OBS = (*grid.PLACES, *grid.PIXELS)


def read_counts(sample: Sample) -> "AnnData":
    """Read a sample's counts, checked.

    Returns
    -------
    AnnData with X as CSR, barcodes as obs_names, gene symbols as var_names, `in_tissue`, if it is there, bool. Pixel
    positions that obs lacks are those of obsm["spatial"] (x, y). The grid positions of Visium HD are those that the
    pixel positions give (`seal.data.grid`).

    Raises
    ------
    SealError
        Missing, truncated or corrupt file; no spots; duplicate barcodes; missing positions, or two that contradict each
        other; NaN, negative or fractional counts (fractions are let through where the table says `normalised`).
    """
    import anndata
    from scipy.sparse import csr_matrix

    path = sample.st_path
    try:
        data = anndata.read_h5ad(path)
        if data.X is not None:
            data.X = csr_matrix(data.X)
    except Exception as error:
        why, do = explain_unreadable(path, error)
        raise SealError(f"{path} cannot be read ({why})", expected="a whole h5ad file", do=do) from error
    spatial = np.asarray(data.obsm.get("spatial", np.empty((data.n_obs, 0))))
    if spatial.shape[1] >= 2 and not set(grid.PIXELS) & set(data.obs):
        data.obs[grid.PIXELS] = spatial[:, :2]
    for column in set(OBS) & set(data.obs):
        data.obs[column] = read_numbers(data.obs[column])
    check_counts(data, path, sample.normalised)
    if "in_tissue" in data.obs:
        data.obs["in_tissue"] = read_flags(data.obs["in_tissue"], path)
    data.obs[grid.PLACES] = data.obs[grid.PLACES].astype(np.int64)
    if sample.technology == "Visium HD" and (places := grid.lattice(data.obs, sample.um_per_px)) is not None:
        data.obs[grid.PLACES] = places
    return data


def check_counts(data: "AnnData", path: Path, normalised: bool = False) -> None:
    """Assert that counts (CSR), read from `path`, are fit for use; see `read_counts` for what is not."""
    if problem := _problem(data, normalised):
        raise SealError(
            f"{path}: {problem}",
            expected="spots with unique barcodes, grid and pixel positions, and raw counts (whole numbers >= 0)",
            do="take the sample from its source again, or leave it out of the metadata table",
        )


def _problem(data: "AnnData", normalised: bool) -> str | None:
    if data.n_obs == 0 or data.n_vars == 0:
        return f"{data.n_obs} spots and {data.n_vars} genes"
    if data.X is None:
        return f"X is empty{_elsewhere(data)}"
    if not data.obs_names.is_unique:
        return f"barcode {data.obs_names[data.obs_names.duplicated()][0]} occurs twice"
    if missing := [column for column in OBS if column not in data.obs]:
        return f"obs lacks {', '.join(missing)}"
    positions = data.obs[list(OBS)].to_numpy(dtype=float)
    if not np.isfinite(positions).all():
        return f"spot {data.obs_names[~np.isfinite(positions).all(axis=1)][0]} has no position"
    between = (positions[:, :2] != np.rint(positions[:, :2])).any(axis=1)
    if between.any():
        return f"spot {data.obs_names[between][0]} lies between the places of the grid"
    spatial = np.asarray(data.obsm.get("spatial", positions[:, 2:]))[:, :2]
    if share := (~(np.abs(spatial - positions[:, 2:]) <= SAME)).any(axis=1).mean():
        names = ", ".join(grid.PIXELS)
        return f"{share:.0%} of the spots lie elsewhere in obsm['spatial'], HEST-1k's (x, y), than in obs ({names})"
    values = data.X.data
    if not np.isfinite(values).all():
        return "counts hold NaN or infinity"
    if (values < 0).any():
        return f"counts hold {values.min()}{_elsewhere(data)}"
    if not normalised and (values != np.rint(values)).any():
        fraction = values[values != np.rint(values)][0]
        return f"counts hold {fraction}, so they were normalised already{_elsewhere(data)}"
    if not values.any() and (there := _elsewhere(data)):
        return f"all counts are 0{there}"
    return None


def _elsewhere(data: "AnnData") -> str:
    """Where whole numbers lie beside X, in words."""
    there = {f"layers[{name!r}]": matrix for name, matrix in data.layers.items()}
    there |= {} if data.raw is None else {"raw": data.raw.X}
    for name, matrix in there.items():
        values = getattr(matrix, "data", matrix) if hasattr(matrix, "indptr") else np.asarray(matrix)
        if np.any(values) and np.isfinite(values).all() and (values >= 0).all() and (values == np.rint(values)).all():
            return f"; whole numbers lie in {name}: make them X"
    return ""


@contextmanager
def open_patches(path: Path) -> Iterator[tuple[h5py.File, list[str]]]:
    """A file of patches, checked, and the barcodes of its rows."""
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise _bad_patches(path, error) from error
    with file:
        if lacking := [name for name in ("img", "barcode") if name not in file]:
            raise _bad_patches(path, f"lacks {', '.join(lacking)}")
        img = file["img"]
        if img.dtype != np.uint8 or img.ndim != 4 or img.shape[1:] != (img.shape[1], img.shape[1], 3):
            raise _bad_patches(path, f"img is {img.dtype} {img.shape}")
        names = [b.decode() if isinstance(b, bytes) else str(b) for b in file["barcode"][:].ravel()]
        if len(img) != len(names):
            raise _bad_patches(path, f"{len(img)} patches and {len(names)} barcodes")
        if len(set(names)) != len(names):
            raise _bad_patches(path, "a barcode occurs twice")
        yield file, names


def _bad_patches(path: Path, problem: str | Exception) -> SealError:
    why, do = problem, "fetch or make the sample again, or correct the file"
    if isinstance(problem, Exception):
        why, do = explain_unreadable(path, problem)
    expected = "a whole h5 file with img, uint8 [n, S, S, 3], and barcode [n, 1]; its numbers agree with each other"
    return SealError(f"{path} cannot be read ({why})", expected=expected, do=do)


def _scale(file: h5py.File, sample: Sample) -> float:
    """Um a pixel of a file's patches: as it says itself, in our words or HEST's, else that of a field of 112 um."""
    path, side, said = sample.patches_path, file["img"].shape[1], {}
    notes = {**(file["coords"].attrs if "coords" in file else {}), **file["img"].attrs}
    notes = {name: float(value) for name, value in notes.items() if np.ndim(value) == 0 and not isinstance(value, str)}
    if "um_per_px" in file.attrs:
        said["um_per_px"] = float(file.attrs["um_per_px"])
    if {"pixel_size", "downsample"} <= set(notes):
        said["pixel_size x downsample"] = notes["pixel_size"] * notes["downsample"]
    if {"pixel_size", "patch_size_src"} <= set(notes):
        said["pixel_size x patch_size_src"] = notes["pixel_size"] * notes["patch_size_src"] / side
    if (target := notes.get("patch_size_target", side)) != side:
        raise _bad_patches(path, f"img is {side} px wide, its patch_size_target is {target:g}")
    values = np.array([*said.values()])
    if not (np.isfinite(values) & (values > 0)).all() or (len(said) and np.ptp(values) > AGREE * values.min()):
        raise _bad_patches(path, f"its um a pixel is {' and '.join(f'{v:.4g} ({name})' for name, v in said.items())}")
    own = notes.get("pixel_size", np.nan)
    if abs(own - sample.um_per_px) > NEAR * sample.um_per_px:
        raise _bad_patches(path, f"its slide has {own:.4g} um a pixel, in the metadata table {sample.um_per_px:.4g}")
    return float(values[0]) if said else FIELD / side


def patch_barcodes(sample: Sample, obs: "pd.DataFrame | None" = None) -> list[str]:
    """Barcodes of the spots that have a patch; with an image only, all those in tissue.

    Where `obs`, of `read_counts`, is at hand, it is asserted that the patches were cut about the spots' positions.
    """
    if sample.patches_path.is_file():
        with open_patches(sample.patches_path) as (file, names):
            if obs is not None and "coords" in file:
                _require_cut_there(file, names, sample, obs)
            return names
    obs = read_counts(sample).obs if obs is None else obs
    inside = obs["in_tissue"].to_numpy() if "in_tissue" in obs else np.ones(len(obs), dtype=bool)
    return obs.index[inside].tolist()


def _require_cut_there(file: h5py.File, names: Sequence[str], sample: Sample, obs: "pd.DataFrame") -> None:
    """Assert that coords are the patches' upper left corners (HEST's) or centres (ours, once)."""
    side = _scale(file, sample) * file["img"].shape[1] / sample.um_per_px
    known = [i for i, name in enumerate(names) if name in obs.index]
    if not (side > 0 and known):
        return
    centres = obs.loc[[names[i] for i in known], grid.PIXELS].to_numpy(dtype=float)
    coords = file["coords"][:].reshape(len(names), -1)[known, :2]
    off = min((np.abs(coords + shift - centres).max(axis=1) > grid.OFF * side).mean() for shift in (side / 2, 0))
    if off > grid.ASTRAY:
        raise _bad_patches(sample.patches_path, f"{off:.0%} of its coords are not where {sample.st_path} has the spots")


def read_patches(sample: Sample, barcodes: Sequence[str], size: int, um_per_px: float) -> Iterator[np.ndarray]:
    """Read patches in the order of `barcodes`, `size` px a side at `um_per_px`.

    From patches/, cut about the centre to the wanted field and resampled; without them cut from the image.

    Returns
    -------
    Chunks of up to 64, uint8 [n, size, size, 3].

    Raises
    ------
    SealError
        A barcode without patch or spot, a field larger than the stored patch, a damaged file, a spot outside
        the image.
    """
    field = size * um_per_px
    if sample.patches_path.is_file():
        with open_patches(sample.patches_path) as (file, names):
            yield from _stored(file, sample, _find_rows(names, barcodes, sample.patches_path), size, field)
    else:
        yield from _cropped(sample, barcodes, size, field)


def _stored(file: h5py.File, sample: Sample, rows: np.ndarray, size: int, field: float) -> Iterator[np.ndarray]:
    stored = file["img"].shape[1]
    side = round(field / _scale(file, sample))
    if side > stored:
        raise SealError(
            f"{sample.patches_path}: a field of {field:g} um is {side} px there, its patches have {stored}",
            expected="patches at least as wide as the field of view",
            do="use a smaller image_size or um_per_px, or cut from wsis/ (move the patches file away)",
        )
    start = (stored - side) // 2
    for i in range(0, len(rows), CHUNK):
        try:
            pixels = _read_rows(file["img"], rows[i : i + CHUNK])
        except OSError as error:
            raise _bad_patches(sample.patches_path, error) from error
        yield _resized(pixels[:, start : start + side, start : start + side], size)


def _read_rows(images: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Some rows in any order; those that follow each other at once, which h5py does a thousand times as fast."""
    pixels = np.empty((len(rows), *images.shape[1:]), dtype=np.uint8)
    for first, last in store.find_runs(rows):
        images.read_direct(pixels, np.s_[rows[first] : rows[last - 1] + 1], np.s_[first:last])
    return pixels


def _resized(patches: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    if patches.shape[1] == size:
        return patches
    lanczos = Image.Resampling.LANCZOS
    return np.stack([np.asarray(Image.fromarray(p).resize((size, size), lanczos)) for p in patches])


def require_um_per_px(sample: Sample) -> None:
    """Assert that the scale of a sample's full-resolution image is known: above 0."""
    if not np.isfinite(sample.um_per_px) or sample.um_per_px <= 0:
        raise SealError(
            f"sample {sample.id}: pixel_size_um_estimated is {sample.um_per_px}",
            expected="um a pixel of the full-resolution image, above 0",
            do="fill the column in the metadata table",
        )


def _cropped(sample: Sample, barcodes: Sequence[str], size: int, field: float) -> Iterator[np.ndarray]:
    from seal.slides.image import SlideImage

    if sample.wsi_path is None:
        raise SealError(
            f"sample {sample.id} has neither {sample.patches_path} nor wsis/{sample.id}.tif",
            expected="one of them",
            do="fetch it, or use the sample for its expression alone",
        )
    require_um_per_px(sample)
    obs = read_counts(sample).obs
    rows = _find_rows(obs.index, barcodes, sample.st_path)
    centres = obs[grid.PIXELS].to_numpy(dtype=float)[rows]
    image = SlideImage(sample.wsi_path)
    side = field / sample.um_per_px
    for i in range(0, len(rows), CHUNK):
        yield np.stack([image.region(x, y, side, size) for x, y in centres[i : i + CHUNK]])


def _find_rows(names: Sequence[str], barcodes: Sequence[str], path: Path) -> np.ndarray:
    """The rows of some barcodes in a file whose rows have these names."""
    import pandas as pd

    rows = pd.Index(names).get_indexer(barcodes)
    if (lacking := rows < 0).any():
        raise SealError(
            f"{path} lacks {lacking.sum()} of {len(barcodes)} spots, first {barcodes[lacking.argmax()]}",
            expected="every barcode that is asked for",
            do="counts and patches are of different versions: fetch or make the sample again",
        )
    return rows


def write_files(
    root: Path, row: Mapping[str, Any], data: "AnnData", patches: np.ndarray | None, um_per_px: float
) -> None:
    """Write one sample's files, metadata/ID.json last, so that a sample that has one is whole; `list_samples` lists it.

    Parameters
    ----------
    row
        Metadata under HEST's column names; `made`, a stamp of `files.Made`, never goes into the table.
    patches
        uint8 [spots, S, S, 3] in the order of `data`, None for expression alone or with an image in wsis/.
    um_per_px
        Of the patches.
    """
    name, root = row["id"], Path(root)
    (root / "tissue_seg").mkdir(parents=True, exist_ok=True)  # hest's load_hest fails without the folder
    if (image := root / "wsis" / f"{name}.tif").is_file():
        data.uns["spatial"] = {"ST": _overview(image, row)}
    with atomic(root / "st" / f"{name}.h5ad") as temporary:
        data.write_h5ad(temporary)
    path = root / "patches" / f"{name}.h5"
    if patches is None:
        path.unlink(missing_ok=True)
    else:
        with atomic(path) as temporary, h5py.File(temporary, "w") as file:
            own = row["pixel_size_um_estimated"]
            side = patches.shape[1] * um_per_px / own  # of a patch, in px of the full-resolution image
            file["img"] = patches
            file["coords"] = np.rint(data.obsm["spatial"] - side / 2).astype(np.int64)
            file["barcode"] = np.array(data.obs_names, dtype="S")[:, None]
            file.attrs["um_per_px"] = um_per_px
            notes = {"patch_size_src": round(side), "patch_size_target": patches.shape[1]}
            for part in ("img", "coords"):  # as hestcore.wsi.WSIPatcher.to_h5 has them
                file[part].attrs.update(notes | {"downsample": um_per_px / own, "pixel_size": own})
    write_json(root / "metadata" / f"{name}.json", dict(row))


def _overview(path: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """A small picture of the image and its scale, where hest's tools and scanpy look for them."""
    from seal.slides.image import SlideImage

    image = SlideImage(path)
    scale = max(image.width, image.height) / OVERVIEW
    scales = {"tissue_downscaled_fullres_scalef": 1 / scale}
    if "spot_diameter" in row:
        scales["spot_diameter_fullres"] = row["spot_diameter"] / row["pixel_size_um_estimated"]
    return {"images": {"downscaled_fullres": image.overview(scale)}, "scalefactors": scales}


def is_made(root: Path, name: str, made: Made) -> bool:
    """Say whether a sample's metadata/ID.json is there, and made from the same; see `files.Made.matches`."""
    record = Path(root) / "metadata" / f"{name}.json"
    return record.is_file() and made.matches(read_json(record).get("made", {}), record)


def list_samples(root: Path, names: Iterable[str] | None = None) -> None:
    """Make metadata.csv list these samples (all that are there if None), out of their metadata/ID.json."""
    import pandas as pd

    names = [path.stem for path in (root / "metadata").glob("[!.]*.json")] if names is None else names
    rows = [read_json(root / "metadata" / f"{name}.json") for name in sorted(names)]
    text = pd.DataFrame(rows).drop(columns="made", errors="ignore").to_csv(index=False)
    table = root / "metadata.csv"
    if not table.is_file() or table.read_text(encoding="utf-8") != text:
        with atomic(table) as temporary:
            temporary.write_text(text, encoding="utf-8")
