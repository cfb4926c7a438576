"""Which samples MAPLE takes, MAPLE-Test, and the audit of the split."""

import json
import re

import pandas as pd
import pytest

from figures import T01_T08_data
from seal import profiles
from seal.data import fetch, maple
from seal.data.maple import rules, same_donor, testset
from seal.data.samples import read_samples
from seal.data.sources import hest
from seal.errors import SealError
from seal.files import sha256
from seal.profiles import SelectionSettings
from tests.seal.data.maple.conftest import table


@pytest.fixture(scope="module")
def selection(real):
    return maple.select(real)


def left(*rows):
    frame = table(*rows)
    return rules.apply(frame.merge(same_donor.infer(frame), on="id"))


# ---- the real table ----


def test_the_papers_rules_leave_what_its_description_leaves(selection):
    after = selection.waterfall.set_index("rule").loc["not in HEST-Bench"]
    assert (after["samples_left"], after["spots_left"]) == (363, 832_928)
    end = selection.waterfall.iloc[-1]
    assert (end["samples_left"], end["spots_left"]) == (336, 782_390)


def test_disease_states_after_the_papers_rules(real):
    frame = real[real["species"].eq("Homo sapiens") & real["st_technology"].isin(rules.TECHNOLOGIES)]
    frame = frame[frame["organ"].isin(rules.ORGANS) & ~frame["id"].isin(rules.bench_samples())]
    share = frame.groupby("disease_state")["spots_under_tissue"].sum() / frame["spots_under_tissue"].sum()
    assert share["Cancer"] + share["Tumor"] == pytest.approx(0.445, abs=5e-4)
    assert [round(float(share[s]), 3) for s in ("Diseased", "Healthy", "Treated")] == [0.185, 0.318, 0.052]


def test_the_waterfall_adds_up(selection):
    falls = selection.waterfall
    for kind in ("samples", "spots"):
        assert (falls[f"{kind}_left"].shift()[1:] - falls[f"{kind}_out"][1:] == falls[f"{kind}_left"][1:]).all()
    assert len(selection.samples) == falls["samples_left"].iloc[-1]
    assert selection.samples["spots"].sum() == falls["spots_left"].iloc[-1]
    assert falls["rule"].tolist() == ["HEST-1k", *(rule.name for rule in rules.RULES)]
    assert falls["reason"].str.len().gt(0).all()


def test_known_cases_are_out_for_their_reason(selection):
    out = {row.rule: set(row.out.split()) for row in selection.waterfall.itertuples()}
    # TENX128 = TENX155, whose study gave HEST-Bench its COAD; NCBI776 is of the article of NCBI783 and NCBI785
    assert out["no donor of HEST-Bench"] == {"NCBI776", "TENX128", *(f"TENX{i}" for i in range(152, 157))}
    assert out["whole transcriptome"] == {"TENX23", "TENX27", "TENX28", "TENX30", "TENX56"}
    assert {f"NCBI{i}" for i in range(534, 541)} < out["no culture"]
    assert {"MEND41", "MEND54"} < out["no culture"], "the same organoids under names that do not say so"
    assert out["each section once"] == {"NCBI599"}, "NCBI714 names its patient"


def test_the_split_of_the_real_table(selection):
    test = selection.samples[selection.samples["role"] == "test"]
    assert test["organ"].nunique() == 6
    assert 63_000 < test["spots"].sum() < 77_000
    per_organ = test.groupby("organ")["spots"].sum()
    assert per_organ.min() >= 0.8 * 70_000 / 6
    assert per_organ.max() <= 1.2 * 70_000 / 6
    shared = set(test["donor"]) & set(selection.samples.loc[selection.samples["role"] == "train", "donor"])
    assert not shared


def test_no_sample_or_donor_of_hest_bench_is_in(real, selection):
    inferred = same_donor.infer(real)
    of_bench = set(inferred.loc[inferred["id"].isin(rules.bench_samples()), "donor"])
    assert not set(selection.samples["donor"]) & of_bench
    assert not set(selection.samples["id"]) & rules.bench_samples()


def test_the_selection_has_a_hash(real, selection):
    assert maple.select(real.sample(frac=1, random_state=1)).hash == selection.hash
    assert maple.select(real, SelectionSettings(test_organs=5)).hash != selection.hash


def test_the_samples_of_a_tree_are_those_of_the_selection(shared, tmp_path, selection):
    (tmp_path / "HEST_v1_1_0.csv").write_bytes((shared / "hest" / "HEST_v1_1_0.csv").read_bytes())
    chosen = selection.samples.set_index("id")
    test = chosen.index[chosen["role"] == "test"][0]
    (tmp_path / "st").mkdir()
    for name in ("TENX95", "NCBI599", test, "MISC101"):  # HEST-Bench, a repetition, and two that stay
        (tmp_path / "st" / f"{name}.h5ad").touch()
    found = {sample.id: sample for sample in read_samples(tmp_path, hest.select_rows(profiles.MAPLE, tmp_path))}
    assert set(found) == {test, "MISC101"}
    assert (found[test].role, found["MISC101"].role) == ("test", "train")
    assert found[test].donor == chosen.loc[test, "donor"]


def test_overlaps_beside_the_table_are_heeded(shared, tmp_path):
    (tmp_path / "HEST_v1_1_0.csv").write_bytes((shared / "hest" / "HEST_v1_1_0.csv").read_bytes())
    found = pd.DataFrame({"sample_a": ["MISC101"], "sample_b": ["TENX95"], "verdict": ["same section"]})
    found.to_csv(tmp_path / maple.OVERLAPS, index=False)
    samples = maple.read_selection(tmp_path).samples
    assert not samples["id"].str.fullmatch("MISC1[0-4][0-9]").any(), "its whole study may be a donor of HEST-Bench"


def test_another_table_is_no_hest(tmp_path):
    table({}).to_csv(tmp_path / "metadata.csv", index=False)
    assert maple.read_selection(tmp_path) is None
    assert maple.read_selection(tmp_path / "nowhere") is None


# ---- rules, one by one ----


def test_each_rule_takes_out_its_own():
    kept, falls = left(
        {"species": "Mus musculus"},
        {"st_technology": "Xenium"},
        {"organ": "Spleen"},
        {"id": "TENX95", "organ": "Breast", "dataset_title": "Bench"},
        {"organ": "Breast", "dataset_title": "Bench"},
        {"nb_genes": 1186},
        {"subseries": "lung_Organoid_1", "dataset_title": "Grown"},
        {"dataset_title": "Tissue"},
    )
    assert falls["samples_out"].tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 0]
    assert kept["id"].tolist() == ["S7"]


def test_of_one_section_the_whole_transcriptome_stays():
    same = {"fullres_px_width": 5}
    kept, _ = left({**same, "nb_genes": 18000}, {**same, "nb_genes": 30000}, {**same, "nb_genes": 1000})
    assert kept["id"].tolist() == ["S1"]
    kept, _ = left({**same, "dataset_title": "A"}, {**same, "dataset_title": "B", "patient": "Patient 1"})
    assert kept["id"].tolist() == ["S1"]
    kept, _ = left({**same, "id": "A10"}, {**same, "id": "A9"})
    assert kept["id"].tolist() == ["A9"]


def test_hest_bench_is_spelled_out():
    tasks = rules.bench_tasks()
    assert len(tasks) == 10
    assert (len(tasks["PRAD"]), len(tasks["CCRCC"])) == (23, 24)
    assert tasks["HCC"] == ("NCBI642", "NCBI643")
    assert tasks["COAD"] == ("TENX111", "TENX147", "TENX148", "TENX149")
    assert len(rules.bench_samples()) == sum(map(len, tasks.values()))


def test_every_id_of_a_table_is_a_sample_of_hest_1k_where_it_should_be(real):
    rows = real.set_index("id")
    organ = dict.fromkeys(("COAD", "READ"), "Bowel") | dict.fromkeys(("PRAD",), "Prostate")
    organ |= {"IDC": "Breast", "PAAD": "Pancreas", "SKCM": "Skin", "CCRCC": "Kidney", "HCC": "Liver", "LUNG": "Lung"}
    organ |= {"LYMPH_IDC": "Lymph node"}
    for task, names in rules.bench_tasks().items():
        assert set(names) <= set(rows.index), task
        assert set(rows.loc[list(names), "organ"]) == {organ[task]}, task
    for pair in same_donor.known().itertuples():
        a, b = rows.loc[pair.sample], rows.loc[pair.other]
        assert (a["organ"], a["st_technology"]) == (b["organ"], b["st_technology"])
        assert (
            a["fullres_px_width"] == b["fullres_px_width"] or same_donor.patients(a) == same_donor.patients(b) != set()
        )


def test_a_patients_number_is_one_however_a_table_editor_wrote_it():
    found = [same_donor.patients({"patient": text}) for text in ("1", "1.0", " 1 ", "Patient 1", "patient1")]
    assert found == [{"1"}] * 5


# ---- MAPLE-Test ----


def donors_of(organ, *sizes):
    return [{"organ": organ, "donor": f"{organ} {i}", "spots": size} for i, size in enumerate(sizes)]


def test_donors_are_whole_and_leave_enough_to_train_on():
    samples = pd.DataFrame(
        [*donors_of("A", *[100] * 20), *donors_of("B", 100, 100, 1000, 1000), *donors_of("C", 900, 900)]
    )
    chosen = testset.choose(samples, SelectionSettings(test_organs=2, test_spots=400))
    spots = samples[samples["donor"].isin(chosen)].groupby("organ")["spots"].sum()
    assert spots.to_dict() == {"A": 200, "B": 200}, "C's donors are larger than its share"


def test_the_choice_knows_names_alone():
    samples = pd.DataFrame(donors_of("A", *[100] * 20))
    settings = SelectionSettings(test_organs=1, test_spots=300)
    chosen = testset.choose(samples, settings)
    assert testset.choose(samples.iloc[::-1], settings) == chosen
    renamed = samples.assign(donor=samples["donor"] + "x")
    assert testset.choose(renamed, settings) != [f"{name}x" for name in chosen]


def test_a_donor_of_two_organs_is_not_tested():
    rows = [*donors_of("A", *[100] * 9), *donors_of("B", *[100] * 9)]
    rows = [{**row, "donor": "both"} if row["donor"].endswith(("0", "1", "2", "3")) else row for row in rows]
    assert "both" not in testset.choose(pd.DataFrame(rows), SelectionSettings(test_organs=2, test_spots=400))


def test_no_organ_has_donors_enough():
    with pytest.raises(SealError, match="no organ has donors enough"):
        testset.choose(pd.DataFrame(donors_of("A", 100, 100)), SelectionSettings())


# ---- the audit ----


def split(**changes):
    frame = pd.DataFrame({"id": ["S1", "S2"], "donor": ["a", "b"], "section": ["S1", "S2"], "role": ["train", "test"]})
    return frame.assign(**changes)


@pytest.mark.parametrize("unit", ["donor", "section"])
def test_a_split_that_shares_a_donor_or_section_is_refused(unit):
    testset.require_apart(split())
    with pytest.raises(SealError, match=re.escape(f"{unit} 'x' is on both sides of the split (test: S2; train: S1)")):
        testset.require_apart(split(**{unit: "x"}))


def test_a_split_with_hest_bench_is_refused():
    with pytest.raises(SealError, match="TENX95 belongs to HEST-Bench"):
        testset.require_apart(split(id=["TENX95", "S2"]))


def test_beside_the_paper(selection):
    table = T01_T08_data.beside_paper(selection.samples).set_index("figure")
    assert table.loc[["spots, train", "spots, test"], "ours"].sum() == selection.samples["spots"].sum()
    assert (table.loc["organs", "ours"], table.loc["organs, test", "ours"]) == (14, 6)
    shares = table[table.index.str.endswith("% of spots")]
    assert shares["ours"].sum() == pytest.approx(100, abs=0.2)
    assert shares["paper"].sum() == pytest.approx(100)
    assert (table["difference"] == (table["ours"] - table["paper"]).astype(float).round(1)).all()


def test_where_a_selection_comes_from(shared, tmp_path, selection):
    csv = tmp_path / "HEST_v1_1_0.csv"
    csv.write_bytes((shared / "hest" / "HEST_v1_1_0.csv").read_bytes())
    known = {"table": csv.name, "sha256": sha256(csv), "selection": selection.hash}
    assert fetch.origin(tmp_path, selection) == {**known, "revision": None}
    (tmp_path / "fetch.json").write_text('{"revision": "abc", "files": {}}')
    assert fetch.origin(tmp_path, selection) == {**known, "revision": "abc"}


def test_samples_as_results_know_them(selection):
    samples = maple.as_samples(selection.samples)
    assert samples["fold"].eq("test").sum() == (selection.samples["role"] == "test").sum()
    assert samples["pairs"].sum() == selection.samples["spots"].sum()
    assert T01_T08_data.samples_by_technology(samples)["spots"].iloc[-1] == samples["spots"].sum()
    assert "nothing is assembled yet" in T01_T08_data.disease_states(samples).attrs["note"].lower()


def test_what_donors_rest_on(real, selection):
    evidence = T01_T08_data.donor_evidence(real, selection.samples).set_index("evidence")
    columns = evidence.index.str.startswith("column")
    for part in (evidence[columns], evidence[~columns]):
        assert part["samples"].sum() == len(selection.samples)
        assert part["spots"].sum() == selection.samples["spots"].sum()


def test_the_audit_names_what_was_joined(real):
    joined = T01_T08_data.joined_samples(same_donor.infer(real), same_donor.known()).set_index("samples")
    assert joined.loc["TENX128 TENX155", "reason"].startswith("HEST issue 126")
    assert joined.loc["TENX95 TENX97", "relation"] == "same donor"
    assert joined.loc["TENX27 TENX56", "relation"] == "same section"
    json.dumps(joined.to_dict())
