"""Slides of the cohort: tissue grown as a patient's alterations make it, scanned, with coordinates and the truth.

A slide is whole once truth/CASE.json is there: it is written last and holds the digest of all that it follows from.
Patches lie where TRIDENT puts them: a grid from the top left corner, columns first, those with tissue on half or more.
"""

from pathlib import Path
from typing import Any

import numpy as np

from seal.files import Made, write_json
from seal.slides import trident
from seal_atlas import tables
from seal_atlas.counting import transcripts
from seal_atlas.growing import grow
from seal_atlas.growing.grow import GrownTissue, Morphology
from seal_atlas.patients.people import Patient
from seal_atlas.showing import render, scanners, stains, tiff
from seal_atlas.writing import sections

VERSION = 1  # counted up when the same patient and tables give another slide
PATCH = 224  # px, 112 um at 0.5 um/px, as HEST-1k's
COORDS = trident.scale_folder(render.UM_PER_PX, PATCH, 0)
TISSUE_SHARE = 0.5
_GRID = 8  # points a side of a patch at which tissue is looked for


def slide_side(patches: int) -> float:
    """Side of a square slide (um) whose tissue holds about so many patches: it covers most of a grid of k x k."""
    columns = max(round(float(np.sqrt(patches / 0.92))), 1)
    return PATCH * render.UM_PER_PX * (columns + 0.35)


def slide_id(case: str, scanner: str | None = None) -> str:
    """Name of a case's slide; with the scanner where the slide is scanned by several."""
    return f"SIM-{case}" if scanner is None else f"SIM-{case}_{scanner}"


def slide_ids(patient: Patient, every_scanner: bool) -> dict[str, str]:
    """Slides of a patient and the scanner of each: its site's, or all of them."""
    if every_scanner:
        return {slide_id(patient.case, scanner): scanner for scanner in scanners.scanners()}
    return {slide_id(patient.case): tables.sites()[patient.site].scanner}


def slide_paths(root: Path, name: str) -> tuple[Path, Path]:
    """A slide's picture and its coordinates."""
    return root / "wsis" / f"{name}.tif", trident.coords_path(root, COORDS, name)


def write_slide(root: Path, patient: Patient, patches: int, seed: int, made: Made, every_scanner: bool = False) -> None:
    """Make a patient's slide, rendered once and scanned by its site's scanner or by all of them.

    Parameters
    ----------
    patches
        About how many the tissue is to hold.
    made
        All that the slide follows from.
    """
    (root / "truth" / f"{patient.case}.json").unlink(missing_ok=True)  # of an earlier picture
    own = sections.seed_by_name(seed, patient.case)
    side = slide_side(patches)
    grown = grow.grow_tissue(
        own, patient.organ, patient.state, (side, side), Morphology(**patient.morphology), True, patient.shifts
    )
    site = tables.sites()[patient.site]
    light = render.draw_light(grown, stains.stain_of_donor(site, np.random.default_rng([*own, 21])), site, own)
    coords = patch_coords(grown)
    slides = slide_ids(patient, every_scanner)
    for number, (name, scanner) in enumerate(slides.items()):
        image = scanners.scan_light(light, scanner, np.random.default_rng([*own, 22, number]))
        picture, table = slide_paths(root, name)
        tiff.write_tiff(picture, image, render.UM_PER_PX, scanners.find_scanner(scanner).quality)
        write_patch_coords(table, coords, name, image.shape[:2])
    record = {"case_id": patient.case, "slides": slides, "patches": len(coords)} | made.stamp()
    write_json(root / "truth" / f"{patient.case}.json", record | slide_truth(grown, patient, own))


def slide_truth(grown: GrownTissue, patient: Patient, seed: list[int]) -> dict[str, Any]:
    """What is true of a slide.

    Returns
    -------
    composition (shares of cells), activity (mean over the slide's cells), morphology (the patient's factors), counts
    (bulk expression of the whole slide) and scores (`expression_scores`), as lists in the orders of the tables.
    """
    number = np.bincount(grown.cells.kind, minlength=len(tables.cell_types()))
    truth = sections.bulk_truth(grown, seed)
    levels = np.array([[programme.level(patient.state) for programme in tables.programmes().values()]])
    bulk = draw_bulk_counts(np.random.default_rng([*seed, 23]), truth, patient)
    usual = transcripts.expected_shares(transcripts.SpotTruth(truth.rna, levels), patient.organ)[0]
    sets = {name: transcripts.programme_shares()[name] > 0 for name in tables.programmes()}
    # Rounded, so that the last bit of a sum, which differs between CPUs, is not stored.
    return {
        "composition": (number / number.sum()).round(6).tolist(),
        "activity": truth.activity[0].round(6).tolist(),
        "morphology": [round(value, 6) for value in patient.morphology.values()],
        "scores": expression_scores(bulk, usual, sets).round(6).tolist(),
        "counts": bulk.tolist(),
    }


def draw_bulk_counts(rng: np.random.Generator, truth: transcripts.SpotTruth, patient: Patient) -> np.ndarray:
    """Draw a slide's bulk RNA sequencing.

    x ~ Poisson(N share e^(s z)), the shares with the effects of donor, site and capture, N and s from expression.csv
    (bulk_counts, bulk_sd).

    Parameters
    ----------
    truth
        Of the whole slide, one row.

    Returns
    -------
    int64 [genes].
    """
    section = transcripts.draw_section_effects(rng, patient.case, patient.site)
    share = transcripts.expected_shares(truth, patient.organ, effect=section.effect)[0].round(9)
    p = transcripts.expression_parameters()
    share = share * np.exp(p["bulk_sd"] * rng.standard_normal(len(share)))
    return rng.poisson(p["bulk_counts"] * share / share.sum())


def expression_scores(measured: np.ndarray, expected: np.ndarray, sets: dict[str, np.ndarray]) -> np.ndarray:
    """Score programmes in a slide's bulk expression, beyond what its cells account for.

    Score(x) is the mean of log1p(x per million) over the programme's genes, minus that over all other genes; a slide's
    is Score(measured) - Score(expected).

    Parameters
    ----------
    measured
        Counts, [genes].
    expected
        Shares of the same cells with every programme at its state's mean, without donor, site or noise, [genes].
    sets
        Which genes belong to each programme, bool [genes].

    Returns
    -------
    float64 [programmes], in the order of `sets`.

    Source: a module score after Tirosh et al. 2016 without its bins by expression; what is expected is subtracted so
    that organ and purity alone do not tell the score, and no slide's score depends on other slides (our choice).
    """
    logs = [np.log1p(x / max(x.sum(), 1e-12) * 1e6) for x in (np.asarray(measured, float), np.asarray(expected, float))]
    difference = logs[0] - logs[1]
    return np.array([difference[inside].mean() - difference[~inside].mean() for inside in sets.values()])


def patch_coords(grown: GrownTissue) -> np.ndarray:
    """Top left corners (x, y) of the patches that lie wholly in the picture with tissue on half of them or more.

    Returns
    -------
    int64 [patches, 2], px at 0.5 um/px, columns first.
    """
    height, width = (round(side / render.UM_PER_PX) for side in grown.size)
    columns, rows = np.arange(0, width - PATCH + 1, PATCH), np.arange(0, height - PATCH + 1, PATCH)
    corners = np.stack(np.meshgrid(columns, rows, indexing="ij"), axis=-1).reshape(-1, 2)
    at = (np.arange(_GRID) + 0.5) * PATCH / _GRID
    points = corners[:, None] + np.stack(np.meshgrid(at, at), axis=-1).reshape(1, -1, 2)
    inside = grown.inside(points.reshape(-1, 2) * render.UM_PER_PX).reshape(len(corners), -1)
    return corners[inside.mean(axis=1) >= TISSUE_SHARE].astype(np.int64)


def write_patch_coords(path: Path, coords: np.ndarray, name: str, shape: tuple[int, int]) -> None:
    """Write patch coordinates as TRIDENT does.

    Parameters
    ----------
    coords
        int64 [patches, 2], (x, y) of the top left corners.
    shape
        Height and width of level 0, px.
    """
    um = render.UM_PER_PX
    trident.write_coords(path, coords, trident.describe_grid(name, (shape[1], shape[0]), um, um, PATCH))
