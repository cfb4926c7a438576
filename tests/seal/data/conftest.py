"""A sample of known counts and patches, and the tree that it lies in."""

import anndata
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from seal.data import sample_files
from seal.data.samples import read_samples

ROW = {
    "id": "S1",
    "organ": "Skin",
    "disease_state": "Healthy",
    "oncotree_code": "",
    "species": "Homo sapiens",
    "patient": "007",
    "st_technology": "Visium",
    "spots_under_tissue": 6,
    "pixel_size_um_estimated": 0.5,
    "dataset_title": "A study",
    "license": "CC0",
}


def counts(spots=6, genes=5, seed=0):
    """Spots in a row, 100 px apart, their counts known."""
    random = np.random.default_rng(seed)
    data = anndata.AnnData(csr_matrix(random.poisson(2.0, size=(spots, genes)).astype(np.float32)))
    data.obs_names = [f"spot{i}" for i in range(spots)]
    data.var_names = [f"G{i}" for i in range(genes)]
    data.obs["array_row"], data.obs["array_col"] = 0, 2 * np.arange(spots)
    data.obs["pxl_row_in_fullres"], data.obs["pxl_col_in_fullres"] = 150.0, 150.0 + 100 * np.arange(spots)
    data.obs["in_tissue"] = 1
    data.obsm["spatial"] = data.obs[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
    return data


def pictures(spots=6, side=224, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(spots, side, side, 3), dtype=np.uint8)


def write_sample(root, row, data, patches, um_per_px):
    """A sample's files and its row of the table."""
    sample_files.write_files(root, row, data, patches, um_per_px)
    sample_files.list_samples(root)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "tree"


@pytest.fixture
def sample(root):
    write_sample(root, ROW, counts(), pictures(), 0.5)
    return read_samples(root)[0]
