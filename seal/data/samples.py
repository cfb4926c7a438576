"""The metadata table of a tree in HEST-1k's layout and what a sample of it is; `sample_files` reads the rest."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seal.data.grid import POOLED
from seal.errors import SealError, explain_unreadable

if TYPE_CHECKING:
    import pandas as pd

FIELD = 112.0  # um, the side of HEST-1k's patches
COLUMNS = ("id", "organ", "disease_state", "species", "patient", "st_technology", "dataset_title", "license")
IMAGES = (".tif", ".tiff", ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".png", ".jpg", ".jpeg")  # HEST-1k's is .tif
COLUMN = {  # of the table, where a sample's field has another name
    "technology": "st_technology",
    "um_per_px": "pixel_size_um_estimated",
    "spot_distance": "inter_spot_dist",
    "licence": "license",
    "dataset": "dataset_title",
}
SQUARE = ("Spatial Transcriptomics", "Visium HD")  # technologies whose spots have four neighbours
NUMBERS = (
    *("pixel_size_um_estimated", "inter_spot_dist", "spot_diameter", "spots_under_tissue", "nb_genes"),
    *("fullres_px_width", "fullres_px_height"),
)
ROLES = ("train", "test")
FLAGS = {
    **dict.fromkeys(("1", "1.0", "true", "t", "yes", "y"), True),
    **dict.fromkeys(("0", "0.0", "false", "f", "no", "n", "", "na", "nan", "none", "<na>"), False),
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
    spot_distance: float  # um from a spot to the next, NaN where the table does not say
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


def _require(good: "pd.Series", values: "pd.Series", where: object, expected: str) -> None:
    if not good.all():
        what = f"{where}: {values.name} is {str(values[~good].iloc[0])!r}"
        raise SealError(what, expected=expected, do="correct the value")


def read_flags(values: "pd.Series", where: object) -> "pd.Series":
    """Truth values, as numbers or as words in any case; a missing one is false, and of another `where` is named."""
    words = values.astype(object).map(lambda value: str(value).strip().lower())
    _require(words.isin(list(FLAGS)), values, where, "true or false, 1 or 0")
    return words.map(FLAGS).astype(bool)


def read_numbers(values: "pd.Series") -> "pd.Series":
    """Numbers, with commas too ("17,943" are thousands, "0,5" a decimal); NaN for what is none."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(values):
        return values
    words = values.astype(object).map(lambda value: str(value).strip())
    words = words.str.replace(r"^-?[1-9]\d{0,2}(,\d{3})+(\.\d+)?$", lambda match: match[0].replace(",", ""), regex=True)
    return pd.to_numeric(words.str.replace(r"^(-?\d+),(\d+)$", r"\1.\2", regex=True), errors="coerce")


def read_names(values: "pd.Series") -> "pd.Series":
    """Names; of spellings that differ in case, blanks or a number's ".0" alone, the first. What is missing stays so."""
    first = {name.replace(" ", "").casefold(): name for name in SQUARE}

    def spell(value: object) -> str:
        word = re.sub(r"^(\d+)\.0+$", r"\1", " ".join(str(value).split()))
        return first.setdefault(word.replace(" ", "").casefold(), word)

    return values.astype(object).map(spell, na_action="ignore")


def _read_words(values: "pd.Series") -> "pd.Series":
    """Names of a vocabulary, which begin with a capital: "breast" and "BREAST " are Breast; none is Unknown."""
    words = values.astype(object).map(lambda value: str(value).strip(), na_action="ignore")
    words = words.map(lambda w: w.capitalize() if w.islower() or w.isupper() else w, na_action="ignore")
    return read_names(words).replace("", None).fillna("Unknown")


def say_separator(columns: Sequence[str]) -> str:
    """Say what separates the columns of a table that came as one; nothing if it came as several."""
    marks = {";": "semicolons", "\t": "tabs", ",": "commas"} if len(columns) == 1 else {}
    return next((f": its columns are separated by {word}" for mark, word in marks.items() if mark in columns[0]), "")


def read_table(root: Path) -> "pd.DataFrame":
    """Read the metadata table of a tree (or of one csv), the newest version where there are several.

    Returns
    -------
    DataFrame with HEST's columns and `grid`, `simulated`, `normalised`, `donor`, `role`. Where no patient is named,
    the whole study counts as one donor; of HEST-1k's own table, `seal.data.maple` infers more.

    Raises
    ------
    SealError
        The table is missing, cannot be read, lacks a column, names a sample twice or not at all, or holds a truth
        value or role that is none.
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
        why, do = explain_unreadable(path, error)
        raise SealError(f"{path} cannot be read ({why})", expected="a csv table in UTF-8", do=do) from error
    if missing := [column for column in COLUMNS if column not in frame]:
        raise SealError(
            f"{path} lacks the columns {', '.join(missing)}{say_separator(frame.columns)}",
            expected=f"{', '.join(COLUMNS)}, separated by commas",
            do="take HEST-1k's own metadata table, or write one with these columns",
        )
    frame["id"] = frame["id"].fillna("").str.strip()
    if twice := frame.loc[frame["id"].duplicated() | frame["id"].eq(""), "id"].tolist():
        what = f"{path} names {twice[0]} twice" if twice[0] else f"{path} has a row without an id"
        raise SealError(what, expected="unique ids", do="remove one of the rows, or name it")
    return _completed(frame, path)


def _completed(frame: "pd.DataFrame", path: Path) -> "pd.DataFrame":
    """Read each kind of cell, add what is ours, and donors where there are none: then a study counts as one donor."""
    for name in ("organ", "disease_state", "species", "st_technology"):
        frame[name] = _read_words(frame[name])
    for name in (name for name in NUMBERS if name in frame):  # what is no number is missing, and named where needed
        frame[name] = read_numbers(frame[name])
    frame["patient"] = read_names(frame["patient"])
    grid = frame["st_technology"].isin(SQUARE).map({True: "square", False: "visium"})  # HD's bins have four neighbours
    ours = {"grid": grid, "simulated": False, "normalised": False, "role": "train"}
    for name, value in ours.items():  # a table may hold them for some of its samples only
        frame[name] = frame[name].where(frame[name].notna(), value) if name in frame else value
    for name in ("simulated", "normalised"):
        frame[name] = read_flags(frame[name], path)
    for name in ("grid", "role"):
        frame[name] = frame[name].astype(str).str.strip().str.lower()
    _require(frame["role"].isin(ROLES), frame["role"], path, " or ".join(ROLES))
    study = "study: " + read_names(frame["dataset_title"].fillna(frame["id"]))
    named = frame["patient"].notna() & frame["patient"].ne("")  # HEST-1k writes blanks too
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
    values = {"root": root, "pixel_size_um_estimated": np.nan, "inter_spot_dist": np.nan, **row}
    if row["st_technology"] == "Visium HD":
        values["inter_spot_dist"] = POOLED  # the table has the distance before pooling
    return Sample(**{field.name: field.type(values[COLUMN.get(field.name, field.name)]) for field in fields(Sample)})
