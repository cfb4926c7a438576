"""HEST-1k's metadata table and what a sample of its layout is (data/README.md); `sample_files` reads the rest."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seal import paths
from seal.errors import SealError
from seal.profiles import Profile, SelectionSettings

if TYPE_CHECKING:
    import pandas as pd

    from seal.data import maple

OVERLAPS = "overlaps.csv"  # beside HEST-1k's table: sections found twice in the files (python -m tools.hest_audit)
FIELD = 112.0  # um, the side of HEST-1k's patches
COLUMNS = ("id", "organ", "disease_state", "species", "patient", "st_technology", "dataset_title", "license")
ORGANS = (
    *("Bladder", "Bowel", "Brain", "Breast", "Cervix", "Heart", "Kidney"),
    *("Liver", "Lung", "Ovary", "Pancreas", "Prostate", "Skin", "Uterus"),
)


@dataclass(frozen=True)
class Sample:
    """One sample of a HEST-1k tree."""

    id: str
    root: Path
    organ: str
    disease_state: str
    donor: str
    role: str  # train or test, where a test set is given; else train
    technology: str
    species: str
    um_per_px: float  # of the full-resolution image
    grid: str
    simulated: bool
    normalised: bool  # the counts were normalised by whoever published them
    licence: str
    dataset: str

    @property
    def st_path(self) -> Path:
        """Counts."""
        return self.root / "st" / f"{self.id}.h5ad"

    @property
    def patches_path(self) -> Path:
        """Patches, if they were cut already."""
        return self.root / "patches" / f"{self.id}.h5"

    @property
    def wsi_path(self) -> Path | None:
        """The full-resolution image, None where there is none."""
        path = self.root / "wsis" / f"{self.id}.tif"
        return path if path.is_file() else None

    @property
    def has_image(self) -> bool:
        """Whether there are patches or an image to cut them from."""
        return self.patches_path.is_file() or self.wsi_path is not None


def home() -> Path:
    """The folder of HEST-1k itself: SEAL_HEST, or data/samples/hest."""
    return Path(os.environ.get("SEAL_HEST") or paths.samples("hest")).expanduser()


def prepare(profile: Profile) -> Path:
    """Give the HEST-1k tree of the maple profile.

    Raises
    ------
    SealError
        There is none; HEST-1k is gated, so it must be asked for first.
    """
    root = home()
    if not (root / "st").is_dir():
        raise SealError(
            f"profile {profile.name}: {root} holds no HEST-1k samples",
            expected="HEST_v*.csv, st/ and patches/ of the data set MahmoodLab/hest",
            do="ask for access at https://huggingface.co/datasets/MahmoodLab/hest, see what it takes with `python -m "
            "seal doctor`, then run `python -m seal fetch`; or set SEAL_HEST to a copy",
        )
    return root


def _table_path(root: Path) -> Path:
    if root.is_file():
        return root
    found = root / "metadata.csv" if (root / "metadata.csv").is_file() else own_table(root)
    if found is None:
        raise SealError(
            f"{root} holds no metadata table",
            expected="metadata.csv, or HEST_v*.csv as HEST-1k names it",
            do="put the table there; it says what each sample is",
        )
    return found


def table(root: Path) -> "pd.DataFrame":
    """Read the metadata table of a tree (or of one csv), the newest version where there are several.

    Returns
    -------
    DataFrame with HEST's columns and `grid`, `simulated`, `normalised`, `donor`, `role`. Where no patient is named,
    the whole study counts as one donor; HEST-1k's own table is worked out further, see `maple_selection`.

    Raises
    ------
    SealError
        The table is missing, cannot be read, lacks a column or names a sample twice.
    """
    import pandas as pd

    path = _table_path(Path(root))
    try:
        frame = pd.read_csv(path, encoding="utf-8-sig", dtype={"id": str, "patient": str, "subseries": str})
    except (ValueError, OSError) as error:
        raise SealError(f"{path} cannot be read ({error})", expected="a csv table", do="fetch it again") from error
    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        raise SealError(
            f"{path} lacks the columns {', '.join(missing)}",
            expected=", ".join(COLUMNS),
            do="take HEST-1k's own metadata table, or write one with these columns",
        )
    twice = frame.loc[frame["id"].duplicated(), "id"].tolist()
    if twice:
        raise SealError(f"{path} names {twice[0]} twice", expected="unique ids", do="remove one of the rows")
    return _completed(frame)


def _completed(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Add what is ours, and donors where the table has none: then a whole study counts as one donor."""
    import pandas as pd

    square = frame["st_technology"].isin(["Spatial Transcriptomics", "Visium HD"])  # HD's bins have four neighbours
    study = "study: " + frame["dataset_title"].fillna(frame["id"]).astype(str)
    ours = {
        "grid": square.map({True: "square", False: "visium"}),
        "simulated": False,
        "normalised": False,
        "role": "train",
    }
    for name, value in ours.items():  # a table may hold them for some of its samples only
        frame[name] = frame[name].where(frame[name].notna(), value) if name in frame else value
    if "pixel_size_um_estimated" in frame:  # what is no number is missing, and named where it is needed
        frame["pixel_size_um_estimated"] = pd.to_numeric(frame["pixel_size_um_estimated"], errors="coerce")
    named = frame["patient"].notna() & frame["patient"].astype(str).str.strip().ne("")  # HEST-1k writes blanks too
    return frame.assign(donor=frame["patient"].where(named, study).astype(str))


def own_table(root: Path) -> Path | None:
    """HEST-1k's own table in a tree (or the csv itself), the newest; None where there is none, or metadata.csv."""
    root = Path(root)
    if root.is_file():
        return root if root.name.startswith("HEST_v") else None
    return None if (root / "metadata.csv").is_file() else max(root.glob("HEST_v*.csv"), key=_version, default=None)


def _version(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.stem)]


def maple_selection(root: Path, settings: SelectionSettings | None = None) -> "maple.Selection | None":
    """MAPLE's samples by rule, if the table of a tree (or the csv) is HEST-1k's own; see `seal.data.maple.select`.

    What `python -m tools.hest_audit` found in the files, overlaps.csv beside the table, is taken into account.

    Returns
    -------
    None where there is no table, or another one.
    """
    import pandas as pd

    from seal.data import maple

    path = own_table(root)
    if path is None:
        return None
    found = path.with_name(OVERLAPS)
    return maple.select(table(path), settings, pd.read_csv(found, dtype=str) if found.is_file() else None)


def samples(root: Path, settings: SelectionSettings | None = None) -> list[Sample]:
    """The samples of a tree whose counts are there, sorted by id; of HEST-1k those that MAPLE takes.

    Raises
    ------
    SealError
        The table is bad (see `table`), or no sample's counts are there.
    """
    frame, selection = table(root), maple_selection(root, settings)
    if selection is not None:
        chosen = selection.samples.set_index("id")
        frame = frame[frame["id"].isin(chosen.index)]
        frame = frame.assign(**{name: frame["id"].map(chosen[name]) for name in ("donor", "role")})
    found = _present(frame, Path(root))
    if not found:
        raise SealError(f"{root}/st holds no sample of its table", expected="st/ID.h5ad", do="fetch the samples")
    return found


def present(root: Path) -> list[Sample]:
    """All samples of a tree whose counts are there, sorted by id, whether MAPLE takes them or not."""
    return _present(table(root), Path(root))


def _present(frame: "pd.DataFrame", root: Path) -> list[Sample]:
    samples = [_sample(row, root) for row in frame.sort_values("id").to_dict("records")]
    return [sample for sample in samples if sample.st_path.is_file()]


def _sample(row: dict, root: Path) -> Sample:
    return Sample(
        id=row["id"],
        root=root,
        organ=str(row["organ"]),
        disease_state=str(row["disease_state"]),
        donor=row["donor"],
        role=str(row["role"]),
        technology=str(row["st_technology"]),
        species=str(row["species"]),
        um_per_px=float(row.get("pixel_size_um_estimated", np.nan)),
        grid=row["grid"],
        simulated=bool(row["simulated"]),
        normalised=bool(row["normalised"]),
        licence=str(row["license"]),
        dataset=str(row["dataset_title"]),
    )
