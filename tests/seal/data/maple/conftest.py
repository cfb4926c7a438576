"""HEST-1k's real table, and small ones made of rows of its kind."""

import pandas as pd
import pytest

from seal.data.samples import read_table

DEFAULT = {
    "organ": "Skin",
    "disease_state": "Cancer",
    "species": "Homo sapiens",
    "patient": None,
    "st_technology": "Visium",
    "spots_under_tissue": 1000,
    "dataset_title": "A study of skin",
    "study_link": None,
    "subseries": None,
    "nb_genes": 18000,
    "fullres_px_width": 9000,
    "fullres_px_height": 9000,
    "license": "CC BY 4.0",
}


def table(*rows):
    """Rows of HEST-1k's table; what is not given is plain, and no two images have the same size."""
    return pd.DataFrame([{**DEFAULT, "id": f"S{i}", "fullres_px_width": 9000 + i, **row} for i, row in enumerate(rows)])


@pytest.fixture(scope="session")
def real(shared):
    return read_table(shared / "hest" / "HEST_v1_1_0.csv")
