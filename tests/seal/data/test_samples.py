"""The table of a tree, and the samples that it lists."""

import json
import re

import pandas as pd
import pytest

from seal.data.samples import read_samples, read_table
from seal.errors import SealError
from tests.seal.data.conftest import ROW, counts, write_sample

# ---- the table ----


def test_real_table(shared):
    frame = read_table(shared / "hest" / "HEST_v1_1_0.csv")
    assert len(frame) == 1229
    assert frame["id"].is_unique
    assert frame.loc[frame["st_technology"].eq("Spatial Transcriptomics"), "grid"].eq("square").all()
    assert frame.loc[frame["st_technology"].eq("Visium"), "grid"].eq("visium").all()
    assert frame.loc[frame["st_technology"].eq("Visium HD"), "grid"].eq("square").all()
    assert (frame["grid"] == "square").sum() == 562
    assert not frame["simulated"].any()
    unnamed = frame["patient"].isna()
    assert unnamed.sum() == 835
    assert frame.loc[unnamed, "donor"].str.startswith("study: ").all()
    assert not frame["donor"].isna().any()


def write_table(root, frame):
    root.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(frame).to_csv(root / "metadata.csv", index=False)
    return root / "metadata.csv"


def test_no_table(root):
    root.mkdir()
    with pytest.raises(SealError, match=re.escape(f"{root} holds no metadata table")):
        read_table(root)


def test_table_without_columns(root):
    row = {k: v for k, v in ROW.items() if k not in ("organ", "patient")}
    path = write_table(root, [row])
    with pytest.raises(SealError, match=re.escape(f"{path} lacks the columns organ, patient")):
        read_table(root)


def test_table_with_an_id_twice(root):
    path = write_table(root, [ROW, {**ROW, "id": "S2"}, {**ROW, "organ": "Lung"}])
    with pytest.raises(SealError, match=re.escape(f"{path} names S1 twice")):
        read_table(root)


def test_empty_table(root):
    root.mkdir()
    (root / "metadata.csv").write_text("")
    with pytest.raises(SealError, match=re.escape(f"{root / 'metadata.csv'} cannot be read")):
        read_table(root)


def test_newest_table_of_several(root):
    write_table(root, [ROW]).rename(root / "HEST_v1_9_0.csv")
    write_table(root, [{**ROW, "id": "S9"}]).rename(root / "HEST_v1_10_0.csv")
    assert read_table(root)["id"].tolist() == ["S9"]


def test_unknown_donors_of_a_study_are_one(root):
    rows = [{**ROW, "id": f"S{i}", "patient": patient} for i, patient in enumerate(["", "   ", "P1"])]
    write_table(root, [*rows, {**ROW, "id": "S3", "patient": "", "dataset_title": "Another"}])
    donors = read_table(root).set_index("id")["donor"]
    assert donors["S0"] == donors["S1"]
    assert donors.nunique() == 3
    assert donors["S2"] == "P1"


# ---- samples ----


def test_samples_with_counts_alone_are_listed(root):
    for name in ("S2", "S1"):
        write_sample(root, {**ROW, "id": name}, counts(), None, 0.5)
    table = pd.read_csv(root / "metadata.csv", dtype=str)
    write_table(root, pd.concat([table, table.iloc[:1].assign(id="S0")]))
    assert [s.id for s in read_samples(root)] == ["S1", "S2"]


def test_no_sample_has_counts(root):
    write_table(root, [ROW])
    with pytest.raises(SealError, match=re.escape(f"{root}/st holds no sample")):
        read_samples(root)


def test_a_samples_facts(sample, root):
    assert (sample.id, sample.organ, sample.donor) == ("S1", "Skin", "007")
    assert (sample.technology, sample.grid, sample.um_per_px) == ("Visium", "visium", 0.5)
    assert (sample.simulated, sample.normalised, sample.has_image, sample.wsi_path) == (False, False, True, None)
    assert json.loads((root / "metadata" / "S1.json").read_text())["organ"] == "Skin"


def test_a_square_grid_follows_from_the_technology(root):
    row = {**ROW, "st_technology": "Spatial Transcriptomics"}
    write_sample(root, row, counts(), None, 0.5)
    assert read_samples(root)[0].grid == "square"
    assert not read_samples(root)[0].has_image


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_flags_of_one_sample_do_not_reach_the_other(root, order):
    rows = [{**ROW, "id": "A", "normalised": True, "simulated": True, "grid": "square"}, {**ROW, "id": "B"}]
    for i in order:
        write_sample(root, rows[i], counts(), None, 0.5)
    first, second = read_samples(root)
    assert (first.normalised, first.simulated, first.grid) == (True, True, "square")
    assert (second.normalised, second.simulated, second.grid) == (False, False, "visium")


def test_writing_again_replaces_the_row(sample, root):
    write_sample(root, {**ROW, "organ": "Lung"}, counts(), None, 0.5)
    (again,) = read_samples(root)
    assert again.organ == "Lung"
    assert again.donor == "007"
    assert not again.has_image
