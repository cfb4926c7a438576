"""Simulated sections: tissue under a Visium grid, its picture, its counts, and the truth behind both."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from seal.data.samples import FIELD
from seal.files import Made
from seal_atlas import tables
from seal_atlas.counting import transcripts
from seal_atlas.counting.transcripts import SimulatedCounts, SpotTruth
from seal_atlas.growing import grow
from seal_atlas.growing.grow import GrownTissue
from seal_atlas.showing import render, scanners, stains, tiff
from seal_atlas.tables import Donor

if TYPE_CHECKING:
    from anndata import AnnData

VERSION = 1  # counted up when the same donor and tables give another section
PITCH, SPOT = 100.0, 55.0  # um; Visium's spot distance and diameter
MARGIN = FIELD / 2 + 4  # um between the outermost spots and the edge of the picture


@dataclass(frozen=True)
class SimulatedSection:
    """One simulated section: counts with their truth, and the whole picture, uint8 [H, W, 3] at 0.5 um/px."""

    table: "AnnData"
    image: np.ndarray
    tissue: GrownTissue


def lay_visium_grid(spots: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay `spots` of a Visium grid as a roughly square patch.

    Returns
    -------
    array_row, array_col (of the row's parity), both int [spots], and positions in um, (x, y), [spots, 2].
    """
    columns = max(1, round(np.sqrt(spots * np.sqrt(3) / 2)))
    row, k = np.divmod(np.arange(spots), columns)
    col = 2 * k + row % 2
    return row, col, MARGIN + np.stack([col * PITCH / 2, row * PITCH * np.sqrt(3) / 2], axis=1)


def seed_by_name(seed: int, name: str) -> list[int]:
    """The seed of what belongs to a name, whatever else is simulated."""
    return [seed, crc32(name.encode())]


def spot_truth(grown: GrownTissue, xy: np.ndarray, seed: list[int]) -> SpotTruth:
    """What lies in spots of 55 um around points (um) at least a spot apart: RNA by cell type, activity."""
    return SpotTruth(rna=grown.composition(xy, SPOT / 2, _content(grown, seed)), activity=grown.activity_at(xy))


def bulk_truth(grown: GrownTissue, seed: list[int]) -> SpotTruth:
    """The same of the whole tissue, as if it were ground up: one row; activity is the mean over its cells."""
    rna = np.bincount(grown.cells.kind, weights=_content(grown, seed), minlength=len(tables.cell_types()))
    return SpotTruth(rna=rna[None], activity=grown.activity_at(grown.cells.xy).mean(axis=0, keepdims=True))


def _content(grown: GrownTissue, seed: list[int]) -> np.ndarray:
    """RNA content of every cell: its type's, lognormal among the cells of a type."""
    rng = np.random.default_rng([*seed, 20])
    spread = rng.standard_normal(len(grown.cells.kind))
    return transcripts.rna_content()[grown.cells.kind] * np.exp(
        transcripts.expression_parameters()["content_sd"] * spread
    )


def draw_picture(grown: GrownTissue, site: tables.Site, seed: list[int]) -> np.ndarray:
    """The section, stained at a site and scanned by its scanner, uint8 [H, W, 3] at 0.5 um/px."""
    stain = stains.stain_of_donor(site, np.random.default_rng([*seed, 21]))
    return scanners.scan_light(
        render.draw_light(grown, stain, site, seed), site.scanner, np.random.default_rng([*seed, 22])
    )


def simulate_section(donor: Donor, spots: int, seed: int) -> SimulatedSection:
    """Simulate a donor's section.

    Parameters
    ----------
    spots
        Of the Visium grid; those that lie on no tissue have in_tissue 0.

    Raises
    ------
    SealError
        The tables have no such tissue.
    """
    own = seed_by_name(seed, donor.donor)
    row, col, xy = lay_visium_grid(spots)
    width, height = xy.max(axis=0) + MARGIN
    grown = grow.grow_tissue(own, donor.organ, donor.state, (float(height), float(width)))
    truth = spot_truth(grown, xy, own)
    counts = transcripts.simulate_counts(
        np.random.default_rng([*own, 23]), truth, donor.organ, donor.state, donor.donor, donor.site
    )
    table = _table(counts, truth, grown, row, col, xy)
    return SimulatedSection(table, draw_picture(grown, tables.sites()[donor.site], own), grown)


def _table(counts: SimulatedCounts, truth: SpotTruth, grown: GrownTissue, row, col, xy) -> "AnnData":
    import anndata
    import pandas as pd
    from scipy.sparse import csr_matrix

    number = grown.composition(xy, SPOT / 2)
    total = number.sum(axis=1)
    names = list(tables.cell_types())
    at = xy / render.UM_PER_PX
    obs = pd.DataFrame(
        {
            "array_row": row,
            "array_col": col,
            "pxl_row_in_fullres": at[:, 1],
            "pxl_col_in_fullres": at[:, 0],
            "in_tissue": grown.inside(xy).astype(int),
            "cells": total.astype(int),
            "label": np.where(total > 0, np.array(names)[number.argmax(axis=1)], "no cells"),
        },
        index=[f"{r:03d}x{c:03d}" for r, c in zip(row, col, strict=True)],
    )
    data = anndata.AnnData(csr_matrix(counts.counts), obs=obs, var=pd.DataFrame(index=list(transcripts.gene_names())))
    data.layers["oracle"] = counts.oracle.astype(np.float32)
    data.layers["ceiling"] = counts.ceiling.astype(np.float32)
    data.obsm["spatial"] = at
    data.obsm["composition"] = number / np.maximum(total, 1)[:, None]
    data.obsm["activity"] = truth.activity
    data.uns |= {"cell_types": names, "programmes": list(tables.programmes()), "simulated": True}
    return data


def metadata_row(donor: Donor, section: SimulatedSection) -> dict[str, Any]:
    """The section's row of HEST-1k's metadata table."""
    return {
        "id": donor.donor,
        "organ": donor.organ,
        "disease_state": donor.state,
        "oncotree_code": "",
        "species": "Homo sapiens",
        "patient": donor.donor,
        "st_technology": "Visium",
        "spots_under_tissue": int(section.table.obs["in_tissue"].sum()),
        "pixel_size_um_estimated": render.UM_PER_PX,
        "inter_spot_dist": PITCH,
        "spot_diameter": SPOT,
        "dataset_title": f"Simulated atlas, site {donor.site}",
        "subseries": donor.site,
        "license": "CC0-1.0 (simulated)",
        "simulated": True,
        "grid": "visium",
    }


def write_section(root: Path, donor: Donor, spots: int, seed: int, made: Made) -> None:
    """Simulate a donor's section and write it in HEST-1k's layout; metadata/ID.json, last, says that it is whole."""
    from seal.data.sample_files import write_files

    section = simulate_section(donor, spots, seed)
    quality = scanners.find_scanner(tables.sites()[donor.site].scanner).quality
    tiff.write_tiff(root / "wsis" / f"{donor.donor}.tif", section.image, render.UM_PER_PX, quality)
    row = metadata_row(donor, section) | {"made": made.stamp()}
    write_files(root, row, section.table, None, render.UM_PER_PX)
