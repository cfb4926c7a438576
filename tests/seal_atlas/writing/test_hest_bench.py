"""The simulated tasks: HEST-Bench's layout, other patients than the pairs', and the mark that they are simulated."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest

import seal_atlas
from seal.data import hest_bench
from seal_atlas import tables
from seal_atlas.writing.hest_bench import ORGANS, RECORD


@pytest.fixture(scope="module")
def made(small_profile, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEAL_HOME", str(tmp_path_factory.mktemp("home")))
        yield hest_bench.find(small_profile), small_profile


def test_tasks_of_the_profiles_organs_in_the_benchmarks_layout(made):
    root, _ = made
    assert {path.name for path in root.iterdir()} == {"IDC", "CCRCC", "LYMPH_IDC", RECORD}
    assert set(ORGANS) == {*hest_bench.AVERAGED, *hest_bench.BESIDE}
    assert set(ORGANS.values()) <= set(tables.organs())
    for task in hest_bench.read_tasks(root):
        assert len(set(task.genes)) == 50
        assert len(task.files) == len(set(task.donors.values())) == 4
        assert [len(test) for _, test in task.splits.values()] == [2, 2]
        for sample in task.files:
            expression = task.expression(sample)
            assert expression.shape == (len(task.places(sample)[0]), 50)
            assert next(task.images(sample, 99)).shape[1:] == (224, 224, 3)
        assert set(pd.read_csv(root / task.name / "splits" / "test_0.csv")) == set(hest_bench.COLUMNS)


def test_all_say_that_they_are_simulated(made):
    root, _ = made
    assert json.loads((root / RECORD).read_text())["simulated"]
    for task in hest_bench.read_tasks(root):
        assert task.simulated
        assert pd.read_csv(root / task.name / "metadata.csv")["simulated"].all()
        for patches, counts in task.files.values():
            assert h5py.File(patches).attrs["simulated"]
            assert h5py.File(counts)["uns/simulated"][()]


def test_patients_are_no_donors_of_the_pairs(made):
    root, _ = made
    patients = {sample for task in hest_bench.read_tasks(root) for sample in task.files}
    assert not patients & {donor.donor for donor in tables.donors()}
    pictures = [next(task.images(s, 1))[0].tobytes() for task in hest_bench.read_tasks(root) for s in task.files]
    assert len(set(pictures)) == len(pictures)


def test_a_patch_shows_its_spot(made):
    """The darker a patch, the more cells; cells are what counts come from."""
    import anndata

    root, _ = made
    patches, counts = hest_bench.read_tasks(root)[0].files["SIM-BENCH-IDC-A"]
    with h5py.File(patches) as file:
        corners, barcodes = file["coords"][:], file["barcode"][:].ravel().astype(str)
        assert file["img"].attrs["pixel_size"] == 0.5
    data = anndata.read_h5ad(counts)[barcodes]
    np.testing.assert_allclose(corners + 112, data.obsm["spatial"], atol=0.5)
    assert (data.obs["in_tissue"] == 1).all()


def test_what_is_there_is_not_made_again(made, monkeypatch):
    root, profile = made
    monkeypatch.setenv("SEAL_HOME", str(root.parents[2]))
    record = root / RECORD
    before = record.stat().st_mtime_ns
    assert seal_atlas.prepare_bench(profile) == root
    assert record.stat().st_mtime_ns == before
    assert root in seal_atlas.folders()
