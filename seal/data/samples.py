"""The metadata table of a tree in HEST-1k's layout and what a sample of it is; `sample_files` reads the rest."""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seal.errors import SealError

if TYPE_CHECKING:
    import pandas as pd

FIELD = 112.0  # um, the side of HEST-1k's patches
COLUMNS = ("id", "organ", "disease_state", "species", "patient", "st_technology", "dataset_title", "license")
IMAGES = (".tif", ".tiff", ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".png", ".jpg", ".jpeg")  # HEST-1k's is .tif
COLUMN = {  # of the table, where a sample's field has another name
    "technology": "st_technology",
    "um_per_px": "pixel_size_um_estimated",
    "licence": "license",
    "dataset": "dataset_title",
}


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
        paths = (self.root / "wsis" / f"{self.id}{suffix}" for suffix in IMAGES)
        return next((path for path in paths if path.is_file()), None)

    @property
    def has_image(self) -> bool:
        """Whether there are patches or an image to cut them from."""
        return self.patches_path.is_file() or self.wsi_path is not None


def read_table(root: Path) -> "pd.DataFrame":
    """Read the metadata table of a tree (or of one csv), the newest version where there are several.

    Returns
    -------
    DataFrame with HEST's columns and `grid`, `simulated`, `normalised`, `donor`, `role`. Where no patient is named,
    the whole study counts as one donor; of HEST-1k's own table, `seal.data.maple` infers more.

    Raises
    ------
    SealError
        The table is missing, cannot be read, lacks a column or names a sample twice.
    """
    import pandas as pd

    root = Path(root)
    path = next((path for path in (root, root / "metadata.csv") if path.is_file()), None) or find_hest_table(root)
    if path is None:
        raise SealError(
            f"{root} holds no metadata table",
            expected="metadata.csv, or HEST_v*.csv as HEST-1k names it",
            do="put the table there; it says what each sample is",
        )
    try:
        frame = pd.read_csv(path, encoding="utf-8-sig", dtype={"id": str, "patient": str, "subseries": str})
    except (ValueError, OSError) as error:
        raise SealError(f"{path} cannot be read ({error})", expected="a csv table", do="fetch it again") from error
    if missing := [column for column in COLUMNS if column not in frame]:
        raise SealError(
            f"{path} lacks the columns {', '.join(missing)}",
            expected=", ".join(COLUMNS),
            do="take HEST-1k's own metadata table, or write one with these columns",
        )
    if twice := frame.loc[frame["id"].duplicated(), "id"].tolist():
        raise SealError(f"{path} names {twice[0]} twice", expected="unique ids", do="remove one of the rows")
    return _completed(frame)


def _completed(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Add what is ours, and donors where the table has none: then a whole study counts as one donor."""
    import pandas as pd

    square = frame["st_technology"].isin(["Spatial Transcriptomics", "Visium HD"])  # HD's bins have four neighbours
    study = "study: " + frame["dataset_title"].fillna(frame["id"]).astype(str)
    grid = square.map({True: "square", False: "visium"})
    ours = {"grid": grid, "simulated": False, "normalised": False, "role": "train"}
    for name, value in ours.items():  # a table may hold them for some of its samples only
        frame[name] = frame[name].where(frame[name].notna(), value) if name in frame else value
    if "pixel_size_um_estimated" in frame:  # what is no number is missing, and named where it is needed
        frame["pixel_size_um_estimated"] = pd.to_numeric(frame["pixel_size_um_estimated"], errors="coerce")
    named = frame["patient"].notna() & frame["patient"].astype(str).str.strip().ne("")  # HEST-1k writes blanks too
    return frame.assign(donor=frame["patient"].where(named, study).astype(str))


def find_hest_table(root: Path) -> Path | None:
    """HEST-1k's own table in a tree (or the csv itself), the newest; None where there is none, or metadata.csv."""
    root = Path(root)
    if root.is_file():
        return root if root.name.startswith("HEST_v") else None
    tables = [] if (root / "metadata.csv").is_file() else root.glob("HEST_v*.csv")
    return max(tables, key=lambda path: [int(number) for number in re.findall(r"\d+", path.stem)], default=None)


def read_samples(root: Path, frame: "pd.DataFrame | None" = None) -> list[Sample]:
    """The samples of a tree whose counts are there, of these rows of its table or (None) of all, sorted by id.

    Raises
    ------
    SealError
        The table is bad (see `read_table`), or no sample's counts are there.
    """
    frame = read_table(root) if frame is None else frame
    samples = [_sample(row, Path(root)) for row in frame.sort_values("id").to_dict("records")]
    present = [sample for sample in samples if sample.st_path.is_file()]
    if not present:
        raise SealError(f"{root}/st holds no sample of its table", expected="st/ID.h5ad", do="fetch the samples")
    return present


def _sample(row: dict, root: Path) -> Sample:
    values = {"root": root, "pixel_size_um_estimated": np.nan, **row}
    return Sample(**{field.name: field.type(values[COLUMN.get(field.name, field.name)]) for field in fields(Sample)})
