"""Studies and donors inferred from the table."""

import pandas as pd
import pytest

from seal.data import maple
from seal.data.maple import same_donor
from seal.errors import SealError
from tests.seal.data.maple.conftest import table


def together(frame, overlaps=None, of="donor"):
    """The sets of samples that are one donor (study, section)."""
    inferred = same_donor.infer(frame, overlaps)
    return {frozenset(names) for _, names in inferred.groupby(of)["id"]}


def test_named_patients_of_a_study_are_donors():
    frame = table(
        {"patient": "Patient 1"}, {"patient": "patient1"}, {"patient": "Patient 10"}, {"patient": "Patient A"}
    )
    assert together(frame) == {frozenset({"S0", "S1"}), frozenset({"S2"}), frozenset({"S3"})}


def test_patients_are_numbered_anew_in_each_study():
    frame = table({"patient": "Patient 1"}, {"patient": "Patient 1", "dataset_title": "Another study"})
    assert len(together(frame)) == 2


@pytest.mark.parametrize("missing", [None, "    ", float("nan")])
def test_one_sample_without_patient_makes_the_study_one_donor(missing):
    frame = table({"patient": "Patient 1"}, {"patient": "Patient 2"}, {"patient": missing})
    assert together(frame) == {frozenset({"S0", "S1", "S2"})}


def test_patients_named_in_subseries():
    frame = table(
        {"subseries": "Patient 22, 19 lesional psoriasis, rep 1"},
        {"subseries": "Patient 19 non lesional, rep 2"},
        {"subseries": "Patient 22 lesional"},
        {"subseries": "patient_1_H1_2"},
    )
    assert together(frame) == {frozenset({"S0", "S1", "S2"}), frozenset({"S3"})}


def test_a_study_is_its_title_or_its_article():
    link = "https://www.nature.com/articles/x"
    frame = table(
        {"dataset_title": "High resolution [Xenium]", "study_link": link},
        {"dataset_title": "Quite another name", "study_link": f"{link}/?a=1#data"},
        {"dataset_title": "quite another name"},
        {"dataset_title": "Unrelated", "study_link": "None (internal)"},
        {"dataset_title": "Also unrelated", "study_link": "None (internal)"},
    )
    assert together(frame, of="study") == {frozenset({"S0", "S1", "S2"}), frozenset({"S3"}), frozenset({"S4"})}


def test_titles_that_begin_alike_are_a_study_within_an_organ():
    frame = table(
        {"dataset_title": "Human Breast Cancer (Block A Section 1)", "organ": "Breast"},
        {"dataset_title": "Human Breast Cancer: Targeted, Immunology Panel", "organ": "Breast"},
        {"dataset_title": "Visium HD Library, Human Pancreas", "organ": "Pancreas"},
        {"dataset_title": "Visium HD Library, Human Colon", "organ": "Bowel"},
    )
    assert together(frame) == {frozenset({"S0", "S1"}), frozenset({"S2"}), frozenset({"S3"})}


def test_a_donors_code_joins_studies():
    frame = table(
        {"patient": "Patient 1", "subseries": "IU-F59"},
        {"patient": "Patient 2", "subseries": "IU-M61"},
        {"dataset_title": "Papilla", "subseries": "F59 - F63"},
        {"dataset_title": "Other organ", "subseries": "F59", "organ": "Lung"},
    )
    assert together(frame) == {frozenset({"S0", "S2"}), frozenset({"S1"}), frozenset({"S3"})}


def test_a_code_within_a_study_says_less_than_its_patients():
    frame = table({"patient": "Patient 1", "subseries": "rep [P16357_1]"}, {"patient": "2", "subseries": "P16357_2"})
    assert len(together(frame)) == 2


@pytest.mark.parametrize(
    ("subseries", "found"),
    [
        ("KRP446 (M) - KRP462 (F)", {"KRP446", "KRP462"}),
        ("20-0034", {"20-0034"}),
        ("V19D02-085_D1", set()),
        ("GSM7659430", set()),
        ("WSA_LngSP8759310", set()),
        ("non lesional, rep 1", set()),
    ],
)
def test_codes(subseries, found):
    assert same_donor.codes(subseries) == found


def test_the_same_image_and_spots_are_one_section():
    same = {"fullres_px_width": 5, "spots_under_tissue": 77}
    frame = table(
        same,
        {**same, "dataset_title": "Again"},
        {"fullres_px_width": 5, "spots_under_tissue": 78, "dataset_title": "No"},
    )
    assert together(frame, of="section") == {frozenset({"S0", "S1"}), frozenset({"S2"})}
    assert together(frame) == {frozenset({"S0", "S1"}), frozenset({"S2"})}


def test_what_fingerprints_find_joins():
    frame = table({"dataset_title": "A"}, {"dataset_title": "B"}, {"dataset_title": "C"})
    found = pd.DataFrame(
        {"sample_a": ["S0", "S1"], "sample_b": ["S1", "S2"], "verdict": ["same section", "overlapping"]}
    )
    assert together(frame, found) == {frozenset({"S0", "S1", "S2"})}
    assert together(frame, found, "section") == {frozenset({"S0", "S1"}), frozenset({"S2"})}


def test_groups_do_not_hang_on_the_order_of_rows(real):
    shuffled = real.sample(frac=1, random_state=3)
    one, other = (same_donor.infer(frame).set_index("id").sort_index() for frame in (real, shuffled))
    pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize("name", ["subseries", "nb_genes"])
def test_a_table_without_the_columns(name):
    with pytest.raises(SealError, match=f"lacks {name}"):
        same_donor.infer(table({}).drop(columns=name))


def test_names_are_in_natural_order():
    assert sorted(["TENX10", "TENX9", "INT3"], key=same_donor.in_order) == ["INT3", "TENX9", "TENX10"]


# ---- the real table ----


def test_known_relations_of_the_real_table(real):
    inferred = same_donor.infer(real).set_index("id")
    for row in same_donor.known().itertuples():
        assert inferred.loc[row.sample, "donor"] == inferred.loc[row.other, "donor"], row
        assert (inferred.loc[row.sample, "section"] == inferred.loc[row.other, "section"]) == (
            row.relation == "same section"
        )
    # the kidney papilla study names no patient, so all of it is one donor with whoever it shares one
    assert inferred.loc["NCBI563", "donor"] == inferred.loc["NCBI714", "donor"] == inferred.loc["NCBI562", "donor"]
    assert inferred.loc["NCBI776", "donor"] == inferred.loc["NCBI783", "donor"], "one article"
    assert inferred.loc["MEND41", "section"] == inferred.loc["NCBI535", "section"], "published twice"


def test_hest_writes_blanks_for_missing_patients(real):
    blank = real["patient"].notna() & real["patient"].map(same_donor.text).eq("")
    assert blank.sum() > 100
    inferred = same_donor.infer(real)
    assert not inferred.loc[blank, "basis"].str.startswith("patient").any()
    assert maple.select(real).samples["donor"].notna().all()
