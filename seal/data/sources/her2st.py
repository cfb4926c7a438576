"""HER2-positive breast cancer, Spatial Transcriptomics: 36 sections of 8 patients (Andersson et al. 2021).

Read from the data set's own repository, or from a copy of its `data` folder that SEAL_HER2ST names, and
written in the HEST-1k layout. Sections of a copy that lack their image become expression-only samples.
"""

import csv
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seal import paths
from seal.data.sample_files import check_counts, is_made, list_samples, write_files
from seal.data.samples import FIELD
from seal.data.sources import refuse_settings
from seal.errors import SealError
from seal.files import Made, atomic, contents, progress, sha256
from seal.profiles import Profile
from seal.slides.image import SlideImage

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

VERSION = 1  # counted up when the same files give other samples
COMMIT = "85df7411b987a7dec3feff9718b869a7a82091ec"
ARCHIVE = f"https://github.com/almaan/her2st/archive/{COMMIT}.zip"
PITCH = 200.0  # um between neighbouring spots (ST arrays)
SPOT = 100.0  # um
FOLDERS = {"counts": "ST-cnts", "spots": "ST-spotfiles", "image": "ST-imgs", "labels": "ST-pat"}
SPOT_COLUMNS = ("x", "y", "new_x", "new_y", "pixel_x", "pixel_y", "selected")


@dataclass(frozen=True)
class SectionFiles:
    """One section's files; `image` and `labels` may be absent."""

    name: str
    counts: Path
    spots: Path
    image: Path | None
    labels: Path | None

    @property
    def sample(self) -> str:
        """The sample's id."""
        return f"HER2ST-{self.name}"

    @property
    def donor(self) -> str:
        """The patient: the section's letter."""
        return f"HER2ST-{self.name[0]}"


def known_hashes() -> dict[str, str]:
    """SHA-256 of the files we have seen, by path below `data`; not all of the data set."""
    with Path(__file__).with_name("her2st_files.csv").open(newline="") as file:
        return {row["path"]: row["sha256"] for row in csv.DictReader(file)}


def local_sections(folder: Path) -> list[SectionFiles]:
    """Sections of a copy that have counts and spots.

    Raises
    ------
    SealError
        The folder has none.
    """
    found = []
    for counts in sorted((folder / FOLDERS["counts"]).glob("[!.]*.tsv.gz")):
        name = counts.name.removesuffix(".tsv.gz")
        spots = folder / FOLDERS["spots"] / f"{name}_selection.tsv"
        image = min((folder / FOLDERS["image"] / name[0] / name).glob("[!.]*.jpg"), default=None)
        labels = next(iter((folder / FOLDERS["labels"]).rglob(f"{name}_labeled_coordinates.tsv")), None)
        if spots.is_file():
            found.append(SectionFiles(name, counts, spots, image, labels))
    if not found:
        raise SealError(
            f"{folder} holds no section of her2st",
            expected="ST-cnts/A1.tsv.gz, ST-spotfiles/A1_selection.tsv, ST-imgs/A/A1/*.jpg, ...",
            do="let SEAL_HER2ST name the `data` folder of a copy of github.com/almaan/her2st, or unset it",
        )
    return found


def fetch() -> Path:
    """Download the data set (one archive of its repository) and unpack it once; the folder that stands for its `data`.

    Raises
    ------
    SealError
        No network, or a file whose SHA-256 is not the one we know.
    """
    import pooch

    folder = paths.downloads() / "her2st"
    if folder.is_dir():
        return folder
    name = f"her2st-{COMMIT}.zip"
    try:
        # No hash is known for the archive itself, which GitHub makes anew; its files are checked below.
        archive = pooch.retrieve(ARCHIVE, known_hash=None, fname=name, path=paths.downloads(), progressbar=True)
    except Exception as error:  # requests, urllib3 and pooch each have their own
        raise SealError(
            f"{ARCHIVE} could not be fetched ({type(error).__name__})",
            expected="a network that reaches github.com",
            do="get a copy by hand and let SEAL_HER2ST name its `data` folder (Zenodo 3957257 has it too, encrypted; "
            "the keys stand in the repository's README)",
        ) from error
    with atomic(folder) as temporary:
        _unpack(Path(archive), temporary)
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the parts of `data` that we read, and check the files that we know."""
    known = known_hashes()
    try:
        with zipfile.ZipFile(archive) as file:
            for member in file.infolist():
                parts = Path(member.filename).parts[2:]  # without her2st-COMMIT/data
                if member.is_dir() or not parts or parts[0] not in FOLDERS.values() or ".." in parts:
                    continue
                target = folder.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read(member))
                name = "/".join(parts)
                if name in known and sha256(target) != known[name]:
                    raise zipfile.BadZipFile(f"{name} has another SHA-256 than {known[name][:12]}...")
        if not folder.is_dir():
            raise zipfile.BadZipFile(f"nothing in it is of her2st: no data/ with {', '.join(FOLDERS.values())}")
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        archive.unlink()  # or the next run would find it again
        raise _bad(archive, f"{error}; deleted", "a whole zip archive, its files as we know them") from error


def read_section(section: SectionFiles) -> "tuple[AnnData, float]":
    """Join a section's counts with its spot file.

    Returns
    -------
    AnnData with the positions of the HEST-1k layout, and um a pixel of its image, from the spot pitch.

    Raises
    ------
    SealError
        A file is truncated, lacks columns, has duplicates or bad counts, or the two share less than half their spots.
    """
    import anndata
    import pandas as pd
    from scipy.sparse import csr_matrix

    spots, counts = _read_spots(section.spots), _read_table(section.counts, index=0)
    if counts.empty:
        raise _bad(section.counts, f"{len(counts)} spots and {counts.shape[1]} genes", "spots x genes, at least one")
    if not counts.index.is_unique:
        raise _bad(section.counts, f"spot {counts.index[counts.index.duplicated()][0]} twice", "unique spots")
    shared = [name for name in counts.index if name in spots.index]
    if 2 * len(shared) < max(len(counts), len(spots)):
        raise SealError(
            f"{section.counts} and {section.spots} share {len(shared)} spots of {len(counts)} and {len(spots)}",
            expected="the same section's spots in both, but for a few",
            do="check that the two files belong together",
        )
    spots = spots.loc[shared]
    try:
        data = anndata.AnnData(csr_matrix(counts.loc[shared].to_numpy(dtype=np.float32)))
    except ValueError as error:
        raise _bad(section.counts, f"{error}", "numbers alone") from error
    data.obs_names, data.var_names = shared, counts.columns.astype(str)
    data.obs["array_row"] = spots["y"].to_numpy(dtype=int)
    data.obs["array_col"] = spots["x"].to_numpy(dtype=int)
    data.obs["pxl_row_in_fullres"] = spots["pixel_y"].to_numpy()
    data.obs["pxl_col_in_fullres"] = spots["pixel_x"].to_numpy()
    data.obs["in_tissue"] = 1
    data.obsm["spatial"] = spots[["pixel_x", "pixel_y"]].to_numpy()
    check_counts(data, section.counts)
    if section.labels is not None:
        data.obs["label"] = pd.Categorical(_labels(section.labels, spots))
    return data, _um_per_px(spots, section)


def _read_table(path: Path, needed: Sequence[str] = (), index: int | None = None) -> "pd.DataFrame":
    import pandas as pd

    try:
        # low_memory reads in pieces, which a table of 16,000 columns pays for with twice the time
        table = pd.read_csv(path, sep="\t", low_memory=False, index_col=index)
    except Exception as error:  # gzip, zlib, parser and unicode errors, all of them a damaged file
        raise _bad(path, f"{type(error).__name__}: {error}", "a whole tab-separated table") from error
    if lacking := [column for column in needed if column not in table]:
        raise _bad(path, f"columns {', '.join(lacking)} are missing", f"columns {', '.join(needed)}")
    return table


def _read_spots(path: Path) -> "pd.DataFrame":
    spots = _numbers(_read_table(path, SPOT_COLUMNS), SPOT_COLUMNS, path)
    spots = spots[spots["selected"] == 1]
    names = spots["x"].astype(int).astype(str) + "x" + spots["y"].astype(int).astype(str)
    if not names.is_unique:
        raise _bad(path, f"spot {names[names.duplicated()].iloc[0]} twice", "unique spots")
    return spots.set_index(names)


def _numbers(table: "pd.DataFrame", columns: tuple[str, ...], path: Path) -> "pd.DataFrame":
    """Make columns numbers, each of them finite: a line that was cut short lacks some."""
    import pandas as pd

    values = table[list(columns)].apply(pd.to_numeric, errors="coerce")
    bad = np.argwhere(~np.isfinite(values.to_numpy(dtype=float)))
    if len(bad):
        row, column = bad[0]
        found = table[columns[column]].iloc[row]
        raise _bad(path, f"{columns[column]} is {found} in row {row + 1} of the table", "a number in every row")
    return table.assign(**values)


def _bad(path: Path, problem: str, expected: str) -> SealError:
    return SealError(f"{path}: {problem}", expected=expected, do="the file is damaged or of another kind: get it again")


def _labels(path: Path, spots: "pd.DataFrame") -> list[str | None]:
    """A pathologist's label of each spot, joined by new_x, new_y (three decimals), None where there is none."""
    table = _read_table(path, ("x", "y", "label")).dropna(subset=["x", "y"])
    table = _numbers(table, ("x", "y"), path)
    found = {(round(x, 3), round(y, 3)): label for x, y, label in table[["x", "y", "label"]].to_numpy()}
    labels = [found.get((round(x, 3), round(y, 3))) for x, y in spots[["new_x", "new_y"]].to_numpy()]
    return [label if isinstance(label, str) else None for label in labels]


def _um_per_px(spots: "pd.DataFrame", section: SectionFiles) -> float:
    """Um a pixel: the pitch over the median pixel distance of spots next to each other in a row of the grid."""
    beside = spots.merge(spots.assign(x=spots["x"] + 1), on=["x", "y"])
    distances = np.hypot(beside["pixel_x_x"] - beside["pixel_x_y"], beside["pixel_y_x"] - beside["pixel_y_y"])
    if distances.empty:
        raise _bad(section.spots, "no two spots lie next to each other", "spots on a grid")
    return PITCH / float(np.median(distances))


def _row(section: SectionFiles, data: "AnnData", um_per_px: float) -> dict[str, Any]:
    return {
        "id": section.sample,
        "organ": "Breast",
        "disease_state": "Cancer",
        "oncotree_code": "IDC",
        "species": "Homo sapiens",
        "patient": section.donor,
        "st_technology": "Spatial Transcriptomics",
        "spots_under_tissue": data.n_obs,
        "pixel_size_um_estimated": um_per_px,
        "inter_spot_dist": PITCH,
        "spot_diameter": SPOT,
        "dataset_title": "her2st (Andersson et al. 2021)",
        "subseries": section.name,
        "license": "CC BY 4.0",
        "simulated": False,
        "grid": "square",
    }


def convert(section: SectionFiles, root: Path) -> None:
    """Write one section as a sample, unless it is there, made from the same files."""
    files = {n: getattr(section, n) for n in ("counts", "spots", "image", "labels") if getattr(section, n) is not None}
    made = Made("her2st's samples", VERSION, dict(zip(files, contents(files.values()), strict=True)))
    written = {"st": "h5ad", "patches": "h5"} if "image" in files else {"st": "h5ad"}
    whole = all((root / kind / f"{section.sample}.{suffix}").is_file() for kind, suffix in written.items())
    if whole and is_made(root, section.sample, made):
        return
    data, um_per_px = read_section(section)
    patches = None
    if section.image is not None:
        image, side = SlideImage(section.image), round(FIELD / um_per_px)
        patches = np.stack([image.region(x, y, side, side) for x, y in data.obsm["spatial"]])  # [spots, side, side, 3]
    write_files(root, _row(section, data, um_per_px) | {"made": made.stamp()}, data, patches, um_per_px)


def prepare(profile: Profile) -> Path:
    """Write every section there is as a sample; the folder of the samples.

    Raises
    ------
    SealError
        No copy and no network, a damaged file, or `source_settings`: there are none.
    """
    refuse_settings(profile)
    local = paths.given("SEAL_HER2ST")
    sections = local_sections(local or fetch())
    root = paths.samples("her2st")
    with progress("her2st sections", len(sections), "section") as advance:
        for section in sections:
            convert(section, root)
            advance(note=section.sample)
    # samples of an earlier, larger copy are not listed, so that results follow from this copy alone
    list_samples(root, [section.sample for section in sections])
    return root
