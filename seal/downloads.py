"""What each profile downloads, in samples and GB, and what of it is on disk, before anything is fetched.

Sizes come from the hub where it lists them, else from HEST-1k's metadata table by rule, and then they are estimates.
"""

import importlib.util
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seal import paths
from seal.data import fetch_plan, hest, hest_hub
from seal.errors import SealError
from seal.profiles import Profile

if TYPE_CHECKING:
    import pandas as pd

    from seal.models.registry import EncoderSpec

PATCH = 224 * 224 * 3  # bytes; HEST-1k keeps patches as they are
COUNT = 0.8  # bytes a gene and spot: a tenth of the counts is not 0, and each of those takes 8 bytes in CSR
PIXEL = 1.0  # bytes a pixel of the full image: all of HEST-1k v1.1.0 then comes to the terabyte its users report


@dataclass(frozen=True)
class Download:
    """A profile's download.

    Attributes
    ----------
    what
        Where it comes from.
    samples, samples_there
        How many; None where that is not known before the download.
    gb, gb_there
        Of all that the profile needs; None where nobody says.
    slides_gb
        Of whole slides, which are fetched only if asked for.
    estimate
        Whether sizes follow from the table by rule.
    apart
        Whether it is a step of its own, `python -m seal fetch`; else notebooks fetch it by the way.
    note
        What else there is to know.
    """

    what: str
    samples: int | None
    samples_there: int
    gb: float | None
    gb_there: float
    slides_gb: float | None = None
    estimate: bool = False
    apart: bool = False
    note: str = ""

    @property
    def missing_gb(self) -> float | None:
        """What is still to be fetched, None where that is not known."""
        return None if self.gb is None else max(self.gb - self.gb_there, 0.0)

    def as_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return {**asdict(self), "missing_gb": self.missing_gb}


def of(profile: Profile, online: bool) -> Download:
    """Work out a profile's download.

    Parameters
    ----------
    online
        Whether the hub can be asked for sizes.
    """
    return {"seal_atlas": _atlas, "seal.data.her2st": _her2st}.get(profile.source, lambda p: _hest(p, online))(profile)


def _wheel() -> tuple[float, float]:
    """GB of the encoder's wheel, and what of it is there."""
    from seal.models.dinov2s import WHEEL

    size = WHEEL.megabytes / 1e3
    there = (paths.downloads() / "dinov2s_derived.safetensors").is_file() or (paths.downloads() / WHEEL.name).is_file()
    return size, size if there else 0.0


def _atlas(profile: Profile) -> Download:
    atlas = importlib.import_module(profile.source).settings_of(profile)
    sections = len(atlas.organs) * atlas.donors_per_organ * atlas.scale
    made = len(list((paths.samples("atlas") / "st").glob("*.h5ad")))
    return Download("package index", sections, min(made, sections), *_wheel(), note="samples are made on the spot")


def _her2st(profile: Profile) -> Download:
    from seal.data import her2st

    folder = Path(os.environ.get("SEAL_HER2ST") or paths.downloads() / "her2st").expanduser()
    try:
        sections = len(her2st.local_sections(folder))
    except SealError:
        note = f"one archive from {her2st.ARCHIVE.split('/archive')[0]}, open; its size is not known beforehand"
        return Download("package index and github.com", None, 0, None, _wheel()[1], note=note)
    return Download("package index", sections, sections, *_wheel(), note=f"sections in {folder}")


# --- HEST-1k --------------------------------------------------------------------------------------------------


def _hest(profile: Profile, online: bool) -> Download:
    """MAPLE's samples."""
    root = hest.home()
    try:
        for package in ("pandas", "h5py"):
            if importlib.util.find_spec(package) is None:
                raise SealError(f"{package} is not installed", expected="requirements.lock", do="install it")
        selected, record = _selected(root, profile, online), fetch_plan.read_record(root)["files"]
    except SealError as error:
        return _unknown(error.what)
    if selected is None:
        return _unknown(f"HEST-1k's table is not in {root}, and the hub was not asked")
    ids = selected["id"].tolist()
    there = [id for id in ids if all(_is_whole(root, path, record) for path in _files(id))]
    held = sum((root / path).stat().st_size for id in there for path in _files(id)) / 1e9
    try:
        sizes, estimate, note = (_listed(ids, root), False, "") if online else (estimated(selected), True, "")
    except SealError as error:
        sizes, estimate, note = estimated(selected), True, error.what
    return Download(
        "HEST-1k", len(ids), len(there), sizes["st"] + sizes["patches"], held, sizes["wsis"], estimate, True, note
    )


def _unknown(why: str) -> Download:
    return Download("HEST-1k", None, 0, None, 0.0, apart=True, note=why)


def _files(id: str) -> tuple[str, str]:
    return f"st/{id}.h5ad", f"patches/{id}.h5"


def _is_whole(root: Path, path: str, record: Mapping[str, Any]) -> bool:
    """Whether a file is there to its end; its content is not read."""
    import h5py

    if not (root / path).is_file():
        return False
    if path in record:
        return (root / path).stat().st_size == record[path]["size"]
    try:
        with h5py.File(root / path):  # HDF5 notes its file's length, and opens none that is shorter
            return True
    except OSError:
        return False


def _selected(root: Path, profile: Profile, online: bool) -> "pd.DataFrame | None":
    """Rows of HEST-1k's table that MAPLE takes; the hub's table where there is none here."""
    if any(root.glob("HEST_v*.csv")):
        return _rows(root, profile)
    if not online:
        return None
    with tempfile.TemporaryDirectory() as folder:
        _take_table(Path(folder))
        return _rows(Path(folder), profile)


def _take_table(folder: Path) -> None:
    """Fetch the hub's table in this thread alone: those of `fetch` would keep the process from ending."""
    at = hest_hub.commit()
    file = hest_hub.table(at)
    path = folder / file.path
    try:
        with hest_hub.stream(file, at, 0) as (_, pieces):
            path.write_bytes(b"".join(pieces))
    except Exception as error:  # the client's, its HTTP library's and the system's
        raise hest_hub.refused(error, f"fetch {file.path} of HEST-1k") from error
    if not fetch_plan.verified(path, file):
        raise SealError(
            f"{file.path} of HEST-1k came damaged", expected=file.checksum, do="try again, or another network"
        )


def _rows(root: Path, profile: Profile) -> "pd.DataFrame | None":
    selection, frame = hest.maple_selection(root, profile.selection), hest.table(root)
    return None if selection is None else frame[frame["id"].isin(selection.samples["id"])]


def estimated(rows: "pd.DataFrame") -> dict[str, float]:
    """GB of counts, patches and whole slides, by rule, from rows of HEST-1k's table.

    Source: our choice; patches are exact but for their barcodes and coordinates.
    """
    spots = rows["spots_under_tissue"]
    pixels = rows["fullres_px_width"] * rows["fullres_px_height"]
    return {
        "st": float((COUNT * spots * rows["nb_genes"]).sum()) / 1e9,
        "patches": float(PATCH * spots.sum()) / 1e9,
        "wsis": float(PIXEL * pixels.sum()) / 1e9,
    }


def _listed(ids: Iterable[str], root: Path) -> dict[str, float]:
    """GB of counts, patches and whole slides, as the hub lists them."""
    plan = fetch_plan.plan(list(ids), root, slides=True)
    sizes = dict.fromkeys(("st", "patches", "wsis"), 0.0)
    for planned in plan.files:
        kind = planned.file.path.partition("/")[0]
        if kind in sizes:
            sizes[kind] += planned.file.size / 1e9
    return sizes


# --- the encoder ----------------------------------------------------------------------------------------------


def encoder(profile: Profile) -> "EncoderSpec":
    """The profile's encoder."""
    from seal.models import registry

    return registry.get(profile.encoder)


def has_weights(profile: Profile) -> bool:
    """Whether its weights are on this machine: in SEAL_WEIGHTS or in the hub's cache."""
    spec = encoder(profile)
    folder = os.environ.get("SEAL_WEIGHTS")
    if folder and any(Path(folder).glob(f"{spec.name}.*")):
        return True
    if spec.hub is None or importlib.util.find_spec("huggingface_hub") is None:
        return spec.hub is None
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(spec.hub, file), str) for file in spec.files)
