"""The slide cohorts of the simulated atlas on disk: 200 patients with labels, and slides scanned by five scanners.

One folder::

    wsis/SLIDE.tif                           pictures
    20x_224px_0px_overlap/patches/SLIDE_patches.h5   where their patches lie, as TRIDENT has it
    truth/CASE.json                          what is true of a slide; written last, so that a listed slide is whole
    patients.csv, slides.csv                 who and what
    covariates.csv                           what a hospital knows without the slide: organ, site
    truth.parquet                            the truth of all patients' slides, one row each
    tasks/TASK/config.yaml, k=all.tsv        labels and folds, as Patho-Bench has them; k=sites.tsv: unseen sites
    tasks.csv                                all tasks with their numbers of cases
    cohort.json                              written last

Slides are made one by one, a few at a time, so that memory does not grow with their number. Not real data.
"""

import csv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from seal import paths
from seal.errors import SealError
from seal.files import Made, atomic, progress, read_json, remove_parts, write_json
from seal.profiles import Profile
from seal_atlas import tables
from seal_atlas.counting import transcripts
from seal_atlas.patients.oracle import oracle_features
from seal_atlas.patients.people import Patient, alterations, draw_patients, morphology_factors, subtypes
from seal_atlas.patients.tasks import CohortTruth
from seal_atlas.settings import AtlasSettings, folder_suffix, settings_of
from seal_atlas.showing import render
from seal_atlas.writing import atlas, slides, task_folders

VERSION = 1  # counted up when the same slides give other tables, labels or folds
_ROWS = 500  # rows of truth.parquet written at a time


@dataclass(frozen=True)
class _Job:
    """One patient's slide, to be made unless it is there."""

    patient: Patient
    patches: int
    every_scanner: bool
    made: Made


def cohort_seed(settings: AtlasSettings) -> list[int]:
    """Seed of the cohort's patients, labels and folds."""
    return [settings.seed, 40]


def draw_cohorts(settings: AtlasSettings) -> tuple[list[Patient], list[Patient]]:
    """Patients of the cohort, and those whose slides every scanner scans.

    Raises
    ------
    SealError
        No patients, patches or slides are asked for, or none of the organs.
    """
    numbers = (settings.patients, settings.patches_per_slide, settings.scanned_slides, settings.scanned_patches)
    if min(*numbers, settings.scale) < 1:
        raise SealError(
            f"no slide cohort can be made with {asdict(settings)}",
            expected="one patient, patch, scanned slide or more; scale 1 or more",
            do="change the profile's source_settings",
        )
    return (
        draw_patients(settings.patients * settings.scale, cohort_seed(settings), "P", settings.organs),
        draw_patients(settings.scanned_slides * settings.scale, [settings.seed, 41], "S", settings.organs),
    )


def prepare_slides(profile: Profile) -> Path:
    """Make what is missing of the slide cohorts of the profile's atlas, see `make_cohorts`; their folder."""
    return make_cohorts(paths.slides("atlas", folder_suffix(profile)), settings_of(profile))


def make_cohorts(root: Path, settings: AtlasSettings) -> Path:
    """Make what is missing of the slide cohorts.

    A slide that is there and follows from the same settings and tables is not made again; slides that nobody asks for
    are removed.

    Returns
    -------
    The folder.

    Raises
    ------
    SealError
        No patients, patches or slides are asked for, or none of the organs.
    """
    root = Path(root)
    drawn, scanned = draw_cohorts(settings)
    jobs = _jobs(drawn, scanned, settings)
    made = Made("the atlas's cohorts", VERSION, {"slides": [job.made.key for job in jobs]})
    missing = [job for job in jobs if not _whole(root, job)]
    stamp, known = root / "cohort.json", root / "covariates.csv"
    if not known.is_file():  # it was none of the first files
        _write_covariates(drawn, known)
    if not missing and made.is_current(stamp):
        return root
    stamp.unlink(missing_ok=True)
    _clear(root, jobs)

    def make(job: _Job) -> None:
        slides.write_slide(root, job.patient, job.patches, settings.seed, job.made, job.every_scanner)

    if missing:
        threads = ThreadPoolExecutor(atlas.count_threads())
        with threads as pool, progress("simulated slides", len(missing), "slide") as advance:
            for _ in pool.map(make, missing):
                advance()
    _write_patients(drawn, root / "patients.csv")
    _write_covariates(drawn, known)
    _write_slides(root, jobs)
    truth = _write_truth(root, drawn)
    names = {p.case: slides.slide_id(p.case) for p in drawn}
    task_folders.write_tasks(root, drawn, truth, names, cohort_seed(settings))
    write_json(stamp, made.stamp() | {"simulated": True, "patients": len(drawn), "scanned": len(scanned)})
    return root


def _jobs(drawn: Sequence[Patient], scanned: Sequence[Patient], settings: AtlasSettings) -> list[_Job]:
    wanted = [(p, settings.patches_per_slide, False) for p in drawn]
    wanted += [(p, settings.scanned_patches, True) for p in scanned]
    return [_Job(p, n, every, _made_from(p, n, every, settings.seed)) for p, n, every in wanted]


def _made_from(patient: Patient, patches: int, every_scanner: bool, seed: int) -> Made:
    own = {"patches": patches, "every_scanner": every_scanner, "seed": seed, "tables": tables.tables_digest()}
    return Made("the atlas's slides", slides.VERSION, {"patient": asdict(patient)} | own)


def _whole(root: Path, job: _Job) -> bool:
    record = root / "truth" / f"{job.patient.case}.json"
    if not job.made.is_current(record):
        return False
    names = slides.slide_ids(job.patient, job.every_scanner)
    return all(path.is_file() for name in names for path in slides.slide_paths(root, name))


def _clear(root: Path, jobs: Sequence[_Job]) -> None:
    """Remove what a killed process left behind, and slides that nobody asks for."""
    for folder in (root, root / "wsis", root / "truth", root / slides.COORDS / "patches"):
        remove_parts(folder)
    wanted = {job.patient.case for job in jobs}
    names = {name for job in jobs for name in slides.slide_ids(job.patient, job.every_scanner)}
    for path in (root / "truth").glob("*.json"):
        if path.stem not in wanted:
            path.unlink()
    for path in (root / "wsis").glob("*.tif"):
        if path.stem not in names:
            for old in slides.slide_paths(root, path.stem):
                old.unlink(missing_ok=True)


def _write_patients(drawn: Sequence[Patient], path: Path) -> None:
    """A row a patient, a column an alteration (empty: it cannot occur)."""
    head = ["case_id", "organ", "disease_state", "subtype", "diagnosis", "site", "site_role", "simulated"]
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*head, *alterations()])
        for p in drawn:
            role = tables.sites()[p.site].role
            row = [p.case, p.organ, p.state, p.subtype, subtypes()[p.subtype].diagnosis, p.site, role, True]
            values = [p.alterations.get(name, "") for name in alterations()]
            table.writerow([*row, *(f"{v:.4f}" if isinstance(v, float) else v for v in values)])


def _write_covariates(drawn: Sequence[Patient], path: Path) -> None:
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("case_id", "organ", "site"), *((p.case, p.organ, p.site) for p in drawn)])


def _write_slides(root: Path, jobs: Sequence[_Job]) -> None:
    head = ["slide_id", "case_id", "cohort", "organ", "disease_state", "subtype", "site", "site_role", "scanner"]
    with atomic(root / "slides.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*head, "patches", "um_per_px", "simulated"])
        for job in jobs:
            p, cohort = job.patient, "scanners" if job.every_scanner else "patients"
            patches = read_json(root / "truth" / f"{p.case}.json")["patches"]
            role = tables.sites()[p.site].role
            for name, scanner in slides.slide_ids(p, job.every_scanner).items():
                row = [name, p.case, cohort, p.organ, p.state, p.subtype, p.site, role, scanner]
                table.writerow([*row, patches, render.UM_PER_PX, True])


def _records(root: Path, drawn: Sequence[Patient]) -> Iterator[dict[str, Any]]:
    for p in drawn:
        record = read_json(root / "truth" / f"{p.case}.json")
        yield {"case_id": p.case, "slide_id": slides.slide_id(p.case), "organ": p.organ, "disease_state": p.state} | {
            name: record[name] for name in ("patches", "composition", "activity", "morphology", "scores", "counts")
        }


def _write_truth(root: Path, drawn: Sequence[Patient]) -> CohortTruth:
    """Write truth.parquet, a part at a time, and keep what the labels need of it."""
    import pyarrow as pa
    from pyarrow import parquet

    names = {
        "cell_types": ",".join(tables.cell_types()),
        "programmes": ",".join(tables.programmes()),
        "factors": ",".join(morphology_factors()),
        "genes": ",".join(transcripts.gene_names()),
        "simulated": "True",
    }
    text, numbers = (
        ("case_id", "slide_id", "organ", "disease_state"),
        ("composition", "activity", "morphology", "scores"),
    )
    fields = [pa.field(n, pa.string()) for n in text] + [pa.field("patches", pa.int32())]
    fields += [pa.field(n, pa.list_(pa.float64())) for n in numbers] + [pa.field("counts", pa.list_(pa.int64()))]
    schema = pa.schema(fields, metadata=names)
    kept: dict[str, list[list[float]]] = {name: [] for name in numbers}
    records = _records(root, drawn)
    with atomic(root / "truth.parquet") as temporary, parquet.ParquetWriter(temporary, schema) as file:
        while part := list(islice(records, _ROWS)):
            file.write_table(pa.Table.from_pylist(part, schema=schema))
            for name in numbers:
                kept[name] += [record[name] for record in part]
    return CohortTruth(tuple(p.case for p in drawn), *(np.array(kept[name]) for name in numbers))


def read_cohort_truth(root: Path) -> CohortTruth:
    """Read the truth of the patients' slides.

    Raises
    ------
    SealError
        The cohort has not been made.
    """
    from pyarrow import parquet

    path = Path(root) / "truth.parquet"
    if not path.is_file():
        raise SealError(f"{path} is missing", expected="the atlas's slide cohort", do="make the slide cohort first")
    columns = ("composition", "activity", "morphology", "scores")
    table = parquet.read_table(path, columns=["case_id", *columns])
    return CohortTruth(tuple(table["case_id"].to_pylist()), *(np.array(table[c].to_pylist()) for c in columns))


def slide_truth(profile: Profile) -> dict[str, np.ndarray]:
    """Slide -> what a perfect reader of it knows, standardised over the cohort of the profile's atlas."""
    truth = read_cohort_truth(prepare_slides(profile))
    features = oracle_features(truth)
    features = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-9)
    return {slides.slide_id(case): row for case, row in zip(truth.cases, features, strict=True)}
