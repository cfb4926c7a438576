"""HEST-Bench's layout by hand: tiny tasks of noise whose brightness tells the first genes."""

import json
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

GENES = tuple(f"GENE{i}" for i in range(6))


def write_task(
    folder: Path, samples: dict[str, int], tests: list[list[str]], simulated: bool = True, seed: int = 0
) -> Path:
    """Write a task: samples with so many patches, and the test samples of each fold."""
    for name in ("splits", "patches", "adata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for name, patches in samples.items():
        write_sample(folder, name, random, patches, simulated)
    rows = [(name, f"patches/{name}.h5", f"adata/{name}.h5ad") for name in samples]
    table = pd.DataFrame(rows, columns=["sample_id", "patches_path", "expr_path"])
    for fold, test in enumerate(tests):
        inside = table["sample_id"].isin(test)
        table[~inside].to_csv(folder / "splits" / f"train_{fold}.csv", index=False)
        table[inside].to_csv(folder / "splits" / f"test_{fold}.csv", index=False)
    (folder / "var_50genes.json").write_text(json.dumps({"genes": list(GENES)}))
    return folder


def write_sample(folder: Path, name: str, random: np.random.Generator, patches: int, simulated: bool) -> None:
    """Write one sample: counts hold one spot more than there are patches, in another order, as HEST's do."""
    light = random.uniform(40, 200, patches)
    images = np.clip(light[:, None, None, None] + random.normal(0, 20, (patches, 224, 224, 3)), 0, 255)
    means = np.tile(random.uniform(1, 5, len(GENES)), (patches, 1))
    means[:, :3] += light[:, None] / 10
    counts = random.poisson(np.vstack([means, means[:1]])).astype(np.float32)
    barcodes = [f"{name}-{i}" for i in range(patches)]
    data = anndata.AnnData(csr_matrix(counts), var=pd.DataFrame(index=[*GENES]))
    data.obs_names = [*barcodes, "no patch"]
    data = data[::-1, ::-1].copy()
    if simulated:
        data.uns["simulated"] = True
    data.write_h5ad(folder / "adata" / f"{name}.h5ad")
    with h5py.File(folder / "patches" / f"{name}.h5", "w") as file:
        file["img"] = images.astype(np.uint8)
        file["coords"] = random.integers(0, 9000, (patches, 2))
        file["barcode"] = np.array(barcodes, dtype="S")[:, None]
        if simulated:
            file.attrs["simulated"] = True
