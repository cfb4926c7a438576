"""The simulated atlas: sections of simulated tissue on a Visium grid, with simulated counts. Not real data.

It exists so that the whole way can be run, and tested against a known truth, without any download. A spot's
counts follow from the cells drawn in its 55 um (`atlas_tissue`, `atlas_stain`) through gene programmes
(`atlas_expression`), and from what no picture shows: hypoxia, interferon, the donor, the RNA content of a
cell, library size, ambient RNA. Organs (`atlas_organs`) and genes (`atlas_genes.csv`) are tables.

Truth is kept beside the counts: obsm["composition"] (columns: uns["cell_types"]; zero where a spot has no
cells) and obsm["state"] (columns: uns["states"]).
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from zlib import crc32

import numpy as np
from scipy.spatial import cKDTree

from seal import paths
from seal.data.atlas_expression import GENES, MODEL, STATES, express, profiles_of, programmes
from seal.data.atlas_organs import ARCHITECTURES, CELL_TYPES
from seal.data.atlas_stain import Stain, draw
from seal.data.atlas_tissue import UM_PER_PX, Cells, grow, lay_out, smooth
from seal.errors import SealError
from seal.files import digest, read_json, sha256
from seal.profiles import AtlasSettings, Profile

PITCH, SPOT, FIELD = 100.0, 55.0, 112.0  # um; Visium's spot distance and diameter, HEST-1k's patch
DISEASES = ("Cancer", "Healthy")


def visium(spots: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay `spots` of a Visium grid as a roughly square patch.

    Returns
    -------
    array_row, array_col (of the row's parity), both int [spots], and positions in um, (x, y), [spots, 2].
    """
    columns = max(1, round(np.sqrt(spots * np.sqrt(3) / 2)))
    row, k = np.divmod(np.arange(spots), columns)
    col = 2 * k + row % 2
    margin = FIELD / 2 + 4
    return row, col, margin + np.stack([col * PITCH / 2, row * PITCH * np.sqrt(3) / 2], axis=1)


def _by_spot(cells: Cells, spots: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Sum of cells' weights in each spot by cell type, [spots, cell types]."""
    distance, spot = cKDTree(spots).query(cells.xy)
    inside = distance <= SPOT / 2
    total = np.zeros((len(spots), len(CELL_TYPES)))
    np.add.at(total, (spot[inside], cells.kind[inside]), weight[inside])
    return total


def simulate(organ: str, disease: str, spots: int, seed: list[int]):
    """Simulate one section.

    Returns
    -------
    AnnData with counts and truth, and its patches, uint8 [spots, 112, 112, 3] at 1 um/px.
    """
    # One stream a part: what is drawn first must not change what is drawn next.
    streams = [np.random.default_rng([*seed, part]) for part in range(5)]
    row, col, xy = visium(spots)
    shape = tuple(int(v) for v in np.ceil(xy.max(axis=0) + FIELD / 2 + 4)[::-1])
    tissue = ARCHITECTURES[organ, disease]
    layout = lay_out(streams[0], shape, tissue)
    cells = grow(streams[1], layout, tissue, MODEL.cycling[DISEASES.index(disease)])
    strength = np.exp(streams[2].normal(0, 0.12, 2))
    stain = Stain(*strength, hue=streams[2].uniform(0.3, 0.8), blur=streams[2].uniform(0.5, 0.8))
    canvas = draw(streams[2], layout, cells, tissue, stain)
    corner = np.round(xy - FIELD / 2).astype(int)
    side = round(FIELD / UM_PER_PX)
    patches = np.stack([canvas[y : y + side, x : x + side] for x, y in corner])

    at = tuple(xy.astype(int).T[::-1])
    hidden = np.stack([1 / (1 + np.exp(-2 * smooth(streams[3], shape, 250)[at])) for _ in STATES[1:]], axis=1)
    number = _by_spot(cells, xy, np.ones(len(cells.kind)))
    content = np.array(MODEL.content)[cells.kind] * np.exp(streams[4].normal(0, MODEL.content_sd, len(cells.kind)))
    rna, cycling = (_by_spot(cells, xy, content * share) for share in (1, cells.cycling))
    counts = express(streams[4], rna, cycling.sum(axis=1), hidden, profiles_of(organ, disease))
    state = np.column_stack([cycling[:, 0] / np.maximum(rna[:, 0], 1e-9), hidden])
    return _table(counts, number, state, row, col, xy), patches


def _table(counts, number, state, row, col, xy):
    import anndata
    import pandas as pd
    from scipy.sparse import csr_matrix

    total = number.sum(axis=1)
    label = np.where(total > 0, np.array(CELL_TYPES)[number.argmax(axis=1)], "no cells")
    obs = pd.DataFrame(
        {
            "array_row": row,
            "array_col": col,
            "pxl_row_in_fullres": xy[:, 1] / UM_PER_PX,
            "pxl_col_in_fullres": xy[:, 0] / UM_PER_PX,
            "in_tissue": 1,
            "cells": total.astype(int),
            "label": label,
        },
        index=[f"{r:03d}x{c:03d}" for r, c in zip(row, col, strict=True)],
    )
    data = anndata.AnnData(csr_matrix(counts), obs=obs, var=pd.DataFrame(index=list(programmes()[0])))
    data.obsm["spatial"] = xy / UM_PER_PX
    data.obsm["composition"] = number / np.maximum(total, 1)[:, None]
    data.obsm["state"] = state
    data.uns |= {"cell_types": list(CELL_TYPES), "states": list(STATES), "simulated": True}
    return data


def _rows(settings: AtlasSettings) -> list[dict]:
    """One metadata row a section, HEST-1k's columns and the digest of all that the section follows from."""
    organs = sorted({organ for organ, _ in ARCHITECTURES})
    unknown = set(settings.organs) - set(organs)
    if unknown or not settings.organs or min(settings.spots_per_section, settings.donors_per_organ) < 1:
        raise SealError(
            f"the atlas cannot be simulated with {asdict(settings)} (unknown organs: {sorted(unknown)})",
            expected=f"organs among {', '.join(organs)}; one spot and one donor or more",
            do="change the profile's AtlasSettings, or add the organ to atlas_organs.py and atlas_genes.csv",
        )
    here = Path(__file__).parent
    code = [sha256(path) for path in (*sorted(here.glob("atlas*.py")), GENES)]
    rows = []
    for organ in settings.organs:
        for number in range(1, settings.donors_per_organ + 1):
            name = f"SIM-{organ.upper()}-{number:02d}"
            made_from = [organ, number, settings.spots_per_section, settings.seed, code]
            rows.append(
                {
                    "id": name,
                    "organ": organ,
                    "disease_state": DISEASES[(number - 1) % 2],
                    "oncotree_code": "",
                    "species": "Homo sapiens",
                    "patient": name,
                    "st_technology": "Visium",
                    "spots_under_tissue": settings.spots_per_section,
                    "pixel_size_um_estimated": UM_PER_PX,
                    "inter_spot_dist": PITCH,
                    "spot_diameter": SPOT,
                    "dataset_title": "Simulated atlas",
                    "subseries": "",
                    "license": "CC0-1.0 (simulated)",
                    "simulated": True,
                    "grid": "visium",
                    "settings_digest": digest(made_from),
                }
            )
    return rows


def _current(root: Path) -> dict[str, str]:
    """Digests of the samples that are whole and listed, by id."""
    from seal.data import hest

    if not (root / "metadata.csv").is_file():
        return {}
    found = {}
    for sample in hest.samples(root):
        row = root / "metadata" / f"{sample.id}.json"
        if sample.has_image:
            found[sample.id] = read_json(row).get("settings_digest", "") if row.is_file() else ""
    return found


def prepare(profile: Profile) -> Path:
    """Simulate what is missing of the profile's atlas.

    Sections that other settings (or another version of this module or its tables) made are removed first, all of
    them, so that the folder never mixes two atlases.

    Returns
    -------
    The folder of the samples, in HEST-1k's layout.

    Raises
    ------
    SealError
        The settings name an organ that has no architecture, or no spots or donors.
    """
    from tqdm import tqdm

    from seal.data.sample_files import write_sample

    root, settings = paths.samples("atlas"), profile.atlas
    rows = _rows(settings)
    wanted = {row["id"]: row["settings_digest"] for row in rows}
    done = _current(root)
    if any(wanted.get(name) != made_from for name, made_from in done.items()):
        shutil.rmtree(root)
        done = {}
    missing = [row for row in rows if row["id"] not in done]
    for row in tqdm(missing, desc="simulated sections", unit="section"):
        number = int(row["id"].rsplit("-", 1)[1])
        seed = [settings.seed, crc32(row["organ"].encode()), number]
        table, patches = simulate(row["organ"], row["disease_state"], settings.spots_per_section, seed)
        write_sample(root, row, table, patches, UM_PER_PX)
    return root
