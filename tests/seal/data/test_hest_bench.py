"""HEST-Bench's layout, read; and what is wrong with a folder, said."""

import json
import shutil

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from seal import paths, profiles
from seal.data import hest_bench
from seal.errors import SealError
from tests.bench_folder import GENES, write_task

SAMPLES = {"A": 12, "B": 11, "C": 10}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("bench") / "SKCM", SAMPLES, [["A"], ["B", "C"]], simulated=False)


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "tasks" / "SKCM")


def read(folder):
    return hest_bench.read_tasks(folder.parent)[0]


def read_all(folder):
    task = read(folder)
    return {sample: task.expression(sample) for sample in task.files}


def test_a_task_is_read_as_the_benchmark_means_it(folder):
    task = read(folder)
    assert (task.name, task.genes, task.simulated, dict(task.donors)) == ("SKCM", GENES, False, {})
    assert task.splits == {"0": (("B", "C"), ("A",)), "1": (("A",), ("B", "C"))}
    barcodes, coords = task.places("A")
    pieces = list(task.images("A", 5))
    assert [len(piece) for piece in pieces] == [5, 5, 2]
    with h5py.File(folder / "patches" / "A.h5") as file:
        np.testing.assert_array_equal(np.concatenate(pieces), file["img"][:])
        np.testing.assert_array_equal(coords, file["coords"][:])
    # HEST's own join: counts by barcode and gene, then log1p
    plain = anndata.read_h5ad(folder / "adata" / "A.h5ad")[barcodes][:, list(GENES)]
    np.testing.assert_array_equal(task.expression("A"), np.log1p(plain.X.toarray().astype(np.float64)))


def test_ten_tasks_of_which_nine_make_the_average(folder):
    assert hest_bench.AVERAGED == ("IDC", "PRAD", "PAAD", "SKCM", "COAD", "READ", "CCRCC", "LUNG", "LYMPH_IDC")
    for name in ("HCC", "IDC", "fm_v1"):
        shutil.copytree(folder, folder.parent / name)
    assert [task.name for task in hest_bench.read_tasks(folder.parent)] == ["IDC", "SKCM", "HCC"]


def test_donors_count_within_their_study(folder):
    row = {"organ": "Skin", "disease_state": "Cancer", "species": "Homo sapiens", "st_technology": "Visium"}
    rows = [{"id": s, "patient": p, "dataset_title": d, "license": ""} for s, p, d in DONORS]
    pd.DataFrame(rows).assign(**row).to_csv(folder.parent / "HEST_v1_1_0.csv", index=False)
    assert read(folder).donors == {"A": "one, Patient 1", "B": "two, Patient 1"}


def test_the_digest_of_tasks_follows_all_they_hold(folder):
    def digest():
        return hest_bench.digest_of(hest_bench.read_tasks(folder.parent))

    seen = [digest()]
    assert digest() == seen[0]
    with h5py.File(folder / "patches" / "B.h5", "r+") as file:
        file["img"][0] = 255 - file["img"][0]
    seen.append(digest())
    (folder / hest_bench.GENES).write_text(json.dumps({"genes": GENES[:-1]}))
    seen.append(digest())
    for side in hest_bench.SIDES:
        (folder / "splits" / f"{side}_1.csv").unlink()
    assert len({*seen, digest()}) == 4


DONORS = [("A", "Patient 1", "one"), ("B", "Patient 1", "two"), ("C", None, "two")]


def test_the_place_of_the_tasks(monkeypatch, tmp_path):
    assert hest_bench.find(profiles.MAPLE) is None
    (paths.home() / "data").mkdir(exist_ok=True)
    monkeypatch.setenv("SEAL_HEST_BENCH", str(tmp_path))
    assert hest_bench.find(profiles.MAPLE) == tmp_path


def drop_gene(folder):
    path = folder / "adata" / "B.h5ad"
    anndata.read_h5ad(path)[:, [*GENES[1:]]].copy().write_h5ad(path)


def drop_spot(folder):
    path = folder / "adata" / "B.h5ad"
    anndata.read_h5ad(path)[["B-0", "B-2"]].copy().write_h5ad(path)


def spoil_counts(folder):
    path = folder / "adata" / "B.h5ad"
    data = anndata.read_h5ad(path)
    data.X = -data.X
    data.write_h5ad(path)


def truncate(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def share_sample(folder):
    table = pd.concat([pd.read_csv(folder / "splits" / f"{side}_0.csv") for side in ("train", "test")])
    table.to_csv(folder / "splits" / "train_0.csv", index=False)


BAD = {
    "no split": (lambda f: shutil.rmtree(f / "splits"), r"SKCM/splits holds training of folds \[\] and tests of \[\]"),
    "half a split": (lambda f: (f / "splits" / "test_1.csv").unlink(), r"folds \['0', '1'\] and tests of \['0'\]"),
    "no columns": (
        lambda f: (f / "splits" / "test_1.csv").write_text("sample\nB\n"),
        r"test_1.csv has 1 rows and the columns sample",
    ),
    "a file is not there": (lambda f: (f / "patches" / "C.h5").unlink(), r"patches/C.h5 is missing"),
    "a shared sample": (share_sample, "SKCM, fold 0: sample A is in training and test"),
    "no genes": (lambda f: (f / "var_50genes.json").write_text(json.dumps([])), "var_50genes.json names no genes"),
    "no list of genes": (lambda f: (f / "var_50genes.json").unlink(), "var_50genes.json is missing"),
    "a gene is missing": (drop_gene, r"B.h5ad and the genes of var_50genes.json: 1 of 6 .* first GENE0 \(0 times\)"),
    "barcodes are missing": (drop_spot, r"B.h5ad and the barcodes of its patches: 9 of 11 .* first B-1"),
    "no counts": (spoil_counts, "B.h5ad holds NaN, infinity or numbers below 0"),
    "patches are cut off": (lambda f: truncate(f, "patches/B.h5"), "B.h5 cannot be read"),
    "counts are cut off": (lambda f: truncate(f, "adata/B.h5ad"), "B.h5ad cannot be read"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_folder_is_named(folder, kind):
    spoil, said = BAD[kind]
    spoil(folder)
    with pytest.raises(SealError, match=said):
        read_all(folder)


def test_a_folder_without_tasks_says_how_to_get_them(tmp_path):
    with pytest.raises(SealError, match="holds no task of HEST-Bench") as error:
        hest_bench.read_tasks(tmp_path)
    assert f"hf download MahmoodLab/hest-bench --repo-type dataset --exclude 'fm_v1/*' --local-dir {tmp_path}" in str(
        error.value
    )
