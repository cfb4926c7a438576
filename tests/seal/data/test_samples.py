"""The table of a tree, and the samples that it lists."""

import json
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seal.data.samples import read_names, read_numbers, read_samples, read_table
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


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs")])
def test_a_table_with_another_separator_is_called_that(root, separator, word):
    root.mkdir()
    pd.DataFrame([ROW]).to_csv(root / "metadata.csv", sep=separator, index=False)
    with pytest.raises(SealError, match=f"separated by {word}"):
        read_table(root)


def test_an_id_is_its_own_without_blanks_and_must_be_there(root):
    write_table(root, [{**ROW, "id": " S1 "}])
    assert read_table(root)["id"].tolist() == ["S1"]
    path = write_table(root, [ROW, {**ROW, "id": "S1 "}])
    with pytest.raises(SealError, match=re.escape(f"{path} names S1 twice")):
        read_table(root)
    path = write_table(root, [ROW, {**ROW, "id": " "}])
    with pytest.raises(SealError, match=re.escape(f"{path} has a row without an id")):
        read_table(root)


@pytest.mark.parametrize(
    "spellings", [["P1", "P1 ", "p1", "P 1"], ["1", "1.0", " 1", "1.00"], ["Patient 1", "patient1"]]
)
def test_a_patient_is_one_however_it_is_written(root, spellings):
    write_table(root, [{**ROW, "id": f"S{i}", "patient": name} for i, name in enumerate(spellings)])
    assert set(read_table(root)["donor"]) == {spellings[0]}
    write_table(root, [{**ROW, "id": f"S{i}", "patient": name} for i, name in enumerate([*spellings, "10", "01"])])
    assert read_table(root)["donor"].nunique() == 3


def test_a_study_is_one_however_it_is_written(root):
    titles = ["A study", "A study ", "a  Study", "Another"]
    write_table(root, [{**ROW, "id": f"S{i}", "patient": "", "dataset_title": t} for i, t in enumerate(titles)])
    assert read_table(root)["donor"].tolist() == ["study: A study"] * 3 + ["study: Another"]


def test_organs_and_technologies_are_one_however_they_are_written(root):
    organs, kinds = (
        ["breast", "BREAST ", "Breast", "Lung/Brain"],
        ["visium hd", "Visium  HD", "VISIUM", "spatial transcriptomics"],
    )
    rows = [
        {**ROW, "id": f"S{i}", "organ": o, "st_technology": t}
        for i, (o, t) in enumerate(zip(organs, kinds, strict=True))
    ]
    write_table(root, rows)
    frame = read_table(root)
    assert frame["organ"].tolist() == ["Breast", "Breast", "Breast", "Lung/Brain"]
    assert frame["st_technology"].tolist() == ["Visium HD", "Visium HD", "Visium", "Spatial Transcriptomics"]
    assert frame["grid"].tolist() == ["square", "square", "visium", "square"]


@pytest.mark.parametrize("missing", ["", " ", "nan"])
def test_an_organ_that_is_not_stated_is_unknown(root, missing):
    write_table(root, [{**ROW, "organ": missing, "disease_state": missing}])
    assert read_table(root)[["organ", "disease_state"]].to_numpy().tolist() == [["Unknown", "Unknown"]]


@pytest.mark.parametrize("name", ["simulated", "normalised"])
def test_flags_are_truth_values_however_they_are_written(root, name):
    written = ["False", "no", "0", "", "true", "1"]
    path = write_table(root, [{**ROW, "id": f"S{i}", name: value} for i, value in enumerate(written)])
    assert read_table(root)[name].tolist() == [False] * 4 + [True] * 2
    write_table(root, [{**ROW, name: "perhaps"}])
    with pytest.raises(SealError, match=re.escape(f"{path}: {name} is 'perhaps'")):
        read_table(root)


def test_a_role_is_train_or_test(root):
    path = write_table(root, [{**ROW, "role": " Test"}, {**ROW, "id": "S2", "role": None}])
    assert read_table(root)["role"].tolist() == ["test", "train"]
    write_table(root, [{**ROW, "role": "tset"}])
    with pytest.raises(SealError, match=re.escape(f"{path}: role is 'tset'")):
        read_table(root)


def test_numbers_are_read_however_they_are_written(root):
    rows = [
        {"nb_genes": "17,943", "pixel_size_um_estimated": "0,5"},
        {"nb_genes": "NA", "pixel_size_um_estimated": "?"},
    ]
    write_table(root, [{**ROW, **row, "id": f"S{i}"} for i, row in enumerate(rows)])
    frame = read_table(root)
    assert frame["nb_genes"].iloc[0] == 17943
    assert frame["pixel_size_um_estimated"].iloc[0] == 0.5
    assert frame[["nb_genes", "pixel_size_um_estimated"]].iloc[1].isna().all()


@given(st.floats(-1e12, 1e12, allow_nan=False), st.sampled_from(["{}", " {} ", "{:e}"]))
def test_a_number_is_itself_in_any_form(value, form):
    assert read_numbers(pd.Series([form.format(value), "x"]))[0] == pytest.approx(float(form.format(value)), rel=1e-12)


@given(st.integers(-(10**12), 10**12))
def test_thousands_may_be_apart(value):
    assert read_numbers(pd.Series([f"{value:,}", "x"]))[0] == value


@given(st.lists(st.one_of(st.none(), st.text(), st.integers(), st.floats())))
def test_names_that_are_read_are_read_as_themselves(values):
    once = read_names(pd.Series(values, dtype=object))
    pd.testing.assert_series_equal(read_names(once), once)
    assert once.isna().tolist() == pd.Series(values, dtype=object).isna().tolist()


def test_the_pooled_distance_stands_for_visium_hd(root):
    rows = [{"st_technology": "Visium HD", "inter_spot_dist": 2}, {"inter_spot_dist": "100"}, {}]
    for i, row in enumerate(rows):
        write_sample(root, {**ROW, **row, "id": f"S{i}"}, counts(), None, 0.5)
    assert [s.spot_distance for s in read_samples(root)][:2] == [128.0, 100.0]
    assert pd.isna(read_samples(root)[2].spot_distance)


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
