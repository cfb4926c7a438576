"""HEST-Bench's tasks, simulated in its own layout (`seal.data.hest_bench`): other patients than the pairs'. Not real.

A task's tissue is the nearest that the atlas grows; LYMPH_IDC, whose lymph nodes it has not, is another breast cancer.
Each patient has one section; two of them are left out in turn. The task's genes are the 50 whose log counts vary most
over all its sections, the test's among them, as HEST-Bench's do (our choice of the measure).
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from seal import paths
from seal.data.hest_bench import COLUMNS, GENES
from seal.files import Made, atomic, progress, write_json
from seal.profiles import Profile
from seal_atlas import tables
from seal_atlas.settings import AtlasSettings, folder_suffix, settings_of
from seal_atlas.showing import render
from seal_atlas.tables import Donor
from seal_atlas.writing import atlas, sections, slides

if TYPE_CHECKING:
    from anndata import AnnData

VERSION = 1  # counted up when the same settings and tables give other tasks
ORGANS = {
    **{"IDC": "Breast", "PRAD": "Prostate", "PAAD": "Pancreas", "SKCM": "Skin", "COAD": "Bowel", "READ": "Bowel"},
    **{"CCRCC": "Kidney", "HCC": "Liver", "LUNG": "Lung", "LYMPH_IDC": "Breast"},
}
SITES = "ABCD"  # of a task's patients
FOLDS = 2
NUMBER = 50  # of genes, HEST-Bench's
RECORD = "hest_bench.json"


def prepare_bench(profile: Profile) -> Path:
    """Simulate the tasks whose organ the profile's atlas has, unless they are there; the folder of all.

    A section has three fifths of the spots of the atlas's.
    """
    root, settings = paths.samples("atlas_bench", folder_suffix(profile)), settings_of(profile)
    chosen = [name for name, organ in ORGANS.items() if organ in settings.organs]
    spots = max(settings.spots_per_section * 3 // 5, 1)
    parts = {
        "tasks": {name: ORGANS[name] for name in chosen},
        "sites": SITES,
        "folds": FOLDS,
        "spots": spots,
        "seed": settings.seed,
    }
    made = Made(
        "the atlas's HEST-Bench", VERSION, parts | {"tables": tables.tables_digest(), "section": sections.VERSION}
    )
    if made.is_current(root / RECORD):
        return root
    with (
        atomic(root) as folder,
        ThreadPoolExecutor(atlas.count_threads()) as pool,
        progress("simulated tasks", len(chosen), "task") as advance,
    ):
        for _ in pool.map(lambda name: _write_task(folder / name, spots, settings), chosen):
            advance()
        write_json(folder / RECORD, made.stamp() | {"simulated": True})
    return root


def _write_task(folder: Path, spots: int, settings: AtlasSettings) -> None:
    """Simulate a task's patients and write it."""
    import pandas as pd

    for name in ("splits", "patches", "adata"):
        (folder / name).mkdir(parents=True)
    donors = [Donor(f"SIM-BENCH-{folder.name}-{site}", ORGANS[folder.name], "Cancer", site) for site in SITES]
    rows, listed, logs = [], [], []
    for donor in donors:
        section = sections.simulate_section(donor, spots, settings.seed)
        row = sections.metadata_row(donor, section)
        data = section.table[section.table.obs["in_tissue"] == 1].copy()
        _write_sample(folder, donor.donor, data, section.image)
        listed.append(row)
        rows.append((donor.donor, f"patches/{donor.donor}.h5", f"adata/{donor.donor}.h5ad"))
        logs.append(np.log1p(data.X.toarray()))
    pd.DataFrame(listed).to_csv(folder / "metadata.csv", index=False)
    varied = np.argsort(-np.concatenate(logs).var(axis=0), kind="stable")[:NUMBER]
    (folder / GENES).write_text(json.dumps({"genes": data.var_names[varied].tolist()}), encoding="utf-8")
    table = pd.DataFrame(rows, columns=COLUMNS)
    for fold in range(FOLDS):
        test = table.index % FOLDS == fold
        table[~test].to_csv(folder / "splits" / f"train_{fold}.csv", index=False)
        table[test].to_csv(folder / "splits" / f"test_{fold}.csv", index=False)


def _write_sample(folder: Path, name: str, data: "AnnData", image: np.ndarray) -> None:
    """Write a section's counts, and 224 px about each of its spots."""
    side = slides.PATCH
    corners = np.rint(data.obsm["spatial"] - side / 2).astype(np.int64)
    data.write_h5ad(folder / "adata" / f"{name}.h5ad")
    with h5py.File(folder / "patches" / f"{name}.h5", "w") as file:
        file["img"] = np.stack([image[y : y + side, x : x + side] for x, y in corners])
        file["coords"], file["barcode"] = corners, np.array(data.obs_names, dtype="S")[:, None]
        file.attrs["simulated"] = True
        notes = {"patch_size_src": side, "patch_size_target": side, "downsample": 1.0, "pixel_size": render.UM_PER_PX}
        for part in ("img", "coords"):  # as hestcore.wsi.WSIPatcher.to_h5 has them
            file[part].attrs.update(notes)
