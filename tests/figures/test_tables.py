"""Tables from small fixtures whose answers are known by hand."""

import pandas as pd
import pytest

from figures import T01_T08_data, T09_T20_patch, T14_T18_hest_bench, T51_T54_ablations
from figures.markdown import interval_text, table_text
from figures.sources import LacksRows
from seal.errors import SealError
from tests.figures.made_up import BENCHED, bench_table

# Fixtures: made-up numbers.
SAMPLES = pd.DataFrame(
    [
        ("s1", "Breast", "Cancer", "A", "ST", 10, 10),
        ("s2", "Breast", "Cancer", "A", "ST", 20, 0),
        ("s3", "Breast", "Healthy", "B", "Visium", 30, 30),
    ],
    columns=["id", "organ", "disease_state", "donor", "technology", "spots", "pairs"],
).assign(dataset="made up", licence="none", simulated=True, fold=["A", "A", "B"])
KINDS = {
    **{"frozen": ("frozen encoder", "encoder"), "seal": ("SEAL", "adapted"), "mean": ("mean predictor", "control")},
    **{"oracle": ("oracle (simulated truth)", "truth"), "ceiling": ("ceiling (simulated truth)", "truth")},
}


def named(table: pd.DataFrame) -> pd.DataFrame:
    """With each method's label and kind, as results have them."""
    labels, kinds = zip(*table["method"].map(KINDS), strict=True)
    return table.assign(label=labels, kind=kinds)


COLUMNS = ["method", "organ", "mean", "low", "high", "difference", "difference_low", "difference_high", "seeds"]
SUMMARY = pd.DataFrame(
    [
        ("frozen", "all", 0.4, 0.3, 0.5, 0.0, 0.0, 0.0, 1),
        ("seal", "all", 0.5, 0.4, 0.6, 0.1, 0.05, 0.15, 3),
        ("mean", "all", 0.0, 0.0, 0.0, -0.4, -0.5, -0.3, 1),
        ("frozen", "Breast", 0.4, 0.3, 0.5, 0.0, 0.0, 0.0, 1),
        ("seal", "Breast", 0.5, 0.4, 0.6, 0.1, 0.05, 0.15, 3),
    ],
    columns=COLUMNS,
).assign(task="t", encoder="own", metric="pcc", folds=2, donors=2, split="donor", dealt=0, resample="spots")
SUMMARY = named(SUMMARY.assign(tested="one donor left out"))
ENCODERS = pd.DataFrame(
    {
        "name": ["own", "uni2_h"],
        "label": ["Own-S", "UNI2-h"],
        "hub": [None, "x/y"],
        "geometry": "g",
        "dim": 384,
        "pooling": "CLS",
        "mean": "(0,)",
        "std": "(1,)",
        "precision": "float32",
        "gated": [False, True],
        "licence": "none",
        "parameters": [21_650_000, 681_000_000],
        "trainable": [73_728, 589_824],
        "adapter": "lora",
    }
)


def test_samples_by_technology_adds_up():
    table = T01_T08_data.samples_by_technology(SAMPLES)
    assert table.to_numpy().tolist() == [
        ["Breast", "ST", 2, 1, 30, 10],
        ["Breast", "Visium", 1, 1, 30, 30],
        ["total", "", 3, 2, 60, 40],
    ]


def test_disease_states_give_shares_of_pairs():
    table = T01_T08_data.disease_states(SAMPLES).set_index("disease state")
    assert table["share of pairs, %"].to_dict() == {"Cancer": 25.0, "Healthy": 75.0, "total": 100.0}


STATES = pd.DataFrame(
    {
        "id": [f"s{i}" for i in range(6)],
        "organ": ["Lung", "Lung", "Lung", "Skin", "Skin", "Skin"],
        "disease_state": ["Cancer", "Tumor", "Healthy", "Treated", "Diseased", "Healthy"],
        "donor": [f"d{i}" for i in range(6)],
        "technology": "Visium",
        "spots": [10, 20, 10, 5, 15, 40],
        "pairs": [10, 20, 10, 5, 15, 0],
    }
)


def test_shares_of_spots_stand_beside_the_papers():
    table = T01_T08_data.disease_states(STATES).set_index("disease state")
    assert table["share of spots, %"].to_dict() == {
        **{"Cancer": 10.0, "Diseased": 15.0, "Healthy": 50.0, "Treated": 5.0, "Tumor": 20.0, "total": 100.0}
    }
    paper = table["in the paper, %"]
    assert paper.drop("Tumor").tolist() == [42.8, 19.4, 32.2, 5.6, 100.0]
    assert pd.isna(paper["Tumor"])
    assert "Cancer and Tumor" in table.attrs["note"]
    by_organ = T01_T08_data.samples_by_technology(STATES).set_index("organ")
    shares = {s: f"{s}, % of spots (paper {p})" for s, p in T01_T08_data.PAPER_STATES.items()}
    assert by_organ.loc["Lung", list(shares.values())].tolist() == [75.0, 0.0, 25.0, 0.0]
    assert by_organ.loc["total", list(shares.values())].tolist() == [30.0, 15.0, 50.0, 5.0]
    three = STATES[STATES["disease_state"] != "Treated"]
    assert not [
        c for f in (T01_T08_data.disease_states, T01_T08_data.samples_by_technology) for c in f(three) if "paper" in c
    ]


def test_folds_say_what_they_leave_out():
    table = T01_T08_data.held_out_folds(SAMPLES)
    assert table["left out"].tolist() == ["donor A", "donor B"]
    assert table["test sections"].tolist() == [1, 1]  # s2 has no pairs
    assert table["test donors"].tolist() == [1, 1]
    assert table["test pairs"].tolist() == [10, 30]
    assert table["training spots, stage 1"].tolist() == [30, 30]
    by_section = T01_T08_data.held_out_folds(SAMPLES.assign(fold=["s1", None, "s3"]))  # s2 is always trained on
    assert by_section["left out"].tolist() == ["section s1", "section s3"]
    assert by_section["training spots, stage 1"].tolist() == [50, 30]
    dealt = T01_T08_data.held_out_folds(STATES.assign(dataset="x", fold=["1of2", "2of2"] * 3))
    assert dealt["left out"].tolist() == ["fold 1of2", "fold 2of2"]
    assert dealt["organ"].tolist() == ["Lung, Skin"] * 2
    many = STATES.assign(dataset="x", organ=list("ABCDEF"), pairs=1, fold="study")
    assert T01_T08_data.held_out_folds(many)["organ"].tolist() == ["6 organs"]
    assert T01_T08_data.held_out_folds(many.assign(fold="x"))["left out"].tolist() == ["study x"]


def test_by_organ_names_the_encoder_that_ran():
    table = T09_T20_patch.by_organ(SUMMARY, ENCODERS, "1")
    assert table.attrs["title"].endswith("Own-S, not one of the paper's five")
    assert table["organ"].tolist() == ["Breast", "all"]
    assert table["frozen encoder, PCC"].iloc[0] == "0.400 [0.300, 0.500]"
    assert table["SEAL minus frozen encoder, paired"].iloc[0] == "+0.100 [+0.050, +0.150]"
    assert table["seeds"].tolist() == [3, 3]
    assert not [column for column in table if "truth" in column or "mean predictor" in column]
    assert table.attrs["note"].startswith(
        "Tested on: one donor left out. Brackets: 95 % bootstrap interval over the spots"
    )
    paper = T09_T20_patch.by_organ(SUMMARY.assign(encoder="uni2_h"), ENCODERS, "1")
    assert paper.attrs["title"].endswith(": UNI2-h")


def test_controls_stand_in_the_order_of_the_results_with_intervals():
    table = T09_T20_patch.controls(SUMMARY, ENCODERS)
    assert table["method"].tolist() == ["frozen encoder", "SEAL", "mean predictor"]
    assert table["kind"].tolist() == ["encoder", "adapted", "control"]
    assert table["PCC"].tolist()[1] == "0.500 [0.400, 0.600]"
    differences = table["minus the frozen encoder, paired"].tolist()
    assert differences == ["", "+0.100 [+0.050, +0.150]", "-0.400 [-0.500, -0.300]"]
    assert table["encoder of the run"].tolist() == ["Own-S"] * 3


def test_a_new_method_needs_no_change_here():
    new = SUMMARY[SUMMARY["method"] == "seal"].assign(method="st_net", label="ST-Net", kind="baseline")
    table = T09_T20_patch.controls(pd.concat([SUMMARY, new]), ENCODERS)
    assert table["method"].tolist()[-1] == "ST-Net"
    second = SUMMARY[SUMMARY["method"] == "seal"].assign(method="release", label="SEAL, released")
    columns = T09_T20_patch.by_organ(pd.concat([SUMMARY, second]), ENCODERS, "1").columns
    assert {"SEAL, released, PCC", "SEAL, released minus frozen encoder, paired"} <= set(columns)


def test_a_table_an_encoder_and_a_word_where_there_is_none():
    both = pd.concat([SUMMARY, SUMMARY.assign(encoder="uni2_h")])
    assert T09_T20_patch.by_organ(both, ENCODERS, "2").attrs["title"].endswith(": UNI2-h")
    with pytest.raises(LacksRows, match=r"holds 1 encoder\(s\)"):
        T09_T20_patch.by_organ(SUMMARY, ENCODERS, "2")


def test_baselines_stand_beside_the_encoder_and_seal_by_either_prediction():
    seal = SUMMARY[SUMMARY["method"] == "seal"]
    own = {"control": "seal", "control_difference": -0.02, "control_low": -0.03, "control_high": 0.01}
    new = [seal.assign(method=kind, label=f"ST-Net {kind}", kind=kind, **own) for kind in ("baseline", "probed")]
    shown = SUMMARY[SUMMARY["kind"] != "control"]
    table = T09_T20_patch.baselines_table(pd.concat([shown, *new]), ENCODERS)
    assert table["method"].tolist() == ["frozen encoder", "SEAL", "ST-Net baseline", "ST-Net probed"]
    assert table["predicted by"].tolist() == ["our probe", "our probe", "its own", "our probe"]
    assert table["minus SEAL, paired"].tolist() == ["", "", *["-0.020 [-0.030, +0.010]"] * 2]
    assert table.attrs["note"].startswith("All on Own-S, with one gene panel")


TRUTH = pd.DataFrame(
    [(m, o, v, v, v, 0.2, 0.1, 0.3, 1) for o in ("all", "Breast") for m, v in (("oracle", 0.625), ("ceiling", 0.8))],
    columns=COLUMNS,
)
SIMULATED = pd.concat([SUMMARY, named(TRUTH)], ignore_index=True).assign(
    **{"task": "t", "encoder": "own", "metric": "pcc", "folds": 4, "donors": 56, "split": "donor"},
    **{"dealt": 4, "resample": "donors", "tested": "donors left out in 4 folds"},
)


def test_truth_stands_beside_what_is_predicted():
    table = T09_T20_patch.by_organ(SIMULATED, ENCODERS, "1")
    columns = ["oracle (simulated truth), PCC", "ceiling (simulated truth), PCC"]
    columns += ["SEAL, % of oracle (simulated truth)"]
    assert table[columns].to_numpy().tolist() == [[0.625, 0.8, 80.0]] * 2
    assert table["donors"].tolist() == [56, 56]
    note = table.attrs["note"]
    assert note.startswith("Tested on: donors left out in 4 folds. Brackets: 95 % bootstrap interval over donors;")
    assert "without any picture" in note
    rows = T09_T20_patch.controls(SIMULATED, ENCODERS)
    assert rows["method"].tolist()[-2:] == ["oracle (simulated truth)", "ceiling (simulated truth)"]
    assert "donors left out in 4 folds" in rows.attrs["note"]
    assert "without any picture" in rows.attrs["note"]


def test_without_an_interval_the_mean_stands_alone():
    nothing = SUMMARY.assign(**dict.fromkeys(("low", "high", "difference_low", "difference_high"), float("nan")))
    table = T09_T20_patch.by_organ(nothing, ENCODERS, "1")
    assert table.iloc[0][["SEAL, PCC", "SEAL minus frozen encoder, paired"]].tolist() == ["0.500", "+0.100"]


def test_a_number_with_its_interval():
    assert interval_text(0.1, -0.05, 0.2) == "0.100 [-0.050, 0.200]"
    assert interval_text(0.1, -0.05, 0.2, "+") == "+0.100 [-0.050, +0.200]"


def test_encoders_in_millions():
    table = T01_T08_data.encoder_list(ENCODERS)
    assert table["parameters, M"].tolist() == [21.6, 681.0]
    assert table["trained by LoRA, M"].tolist() == [0.074, 0.59]
    assert table["in the paper"].tolist() == ["no", "yes"]
    assert table["gated"].tolist() == ["no", "yes"]
    titles = {a: T01_T08_data.encoder_list(ENCODERS.assign(adapter=a)).columns[-1] for a in ("full", "bottleneck")}
    assert titles == {"full": "trained of the encoder, M", "bottleneck": "trained in a bottleneck, M"}


def test_settings_of_one_stage():
    rows = [("omics", "lr", "", "5e-4", "release"), ("vision", "rank", "r", "8", "release")]
    settings = pd.DataFrame(rows, columns=["stage", "setting", "symbol", "value", "source"])
    assert T01_T08_data.omics_settings(settings)["setting"].tolist() == ["lr"]
    assert "barlow_std_mse" in T01_T08_data.omics_settings(settings).attrs["note"]  # the release's name of our default
    assert T01_T08_data.vision_settings(settings)["value"].tolist() == ["8"]
    with pytest.raises(SealError, match="'vision'"):
        T01_T08_data.vision_settings(settings[settings["stage"] == "omics"])


def test_panel_counts_folds():
    panel = pd.DataFrame(
        {"fold": list("AABB"), "rank": [1, 2, 1, 2], "gene": list("xyyz"), "test": [True, True, True, False]}
        | {"organs": ["Lung", "Lung", "Lung", ""]}
    )
    table = T01_T08_data.gene_panel(panel)
    assert table.to_numpy().tolist() == [["y", 2, 1, 2], ["x", 1, 1, 1]]
    assert "2 folds" in table.attrs["note"]
    more = T01_T08_data.gene_panel(panel.assign(organs=["Lung", "Lung, Skin", "Bowel", ""]))
    assert more["organs"].tolist() == ["Bowel, Lung, Skin", "Lung"]


def test_genes_are_averaged_over_seeds_then_donors():
    rows = [("g", "seal", "A", s, v) for s, v in enumerate((0.1, 0.3))] + [("g", "seal", "B", 0, 0.6)]
    rows += [("g", "frozen", "A", 0, 0.2), ("g", "frozen", "B", 0, 0.2), ("flat", "seal", "A", 0, float("nan"))]
    genes = pd.DataFrame(rows, columns=["gene", "method", "donor", "seed", "value"])
    genes = named(genes.assign(metric="pcc", organ="o", fold="1of2", encoder="own"))
    table = T09_T20_patch.genes_best_and_worst(genes)
    assert table.to_numpy().tolist() == [[1, "g", 0.2, 0.4, 0.2, 2]]


def test_only_both_ends_of_many_genes_are_shown():
    rows = [(f"g{i}", m, "A", 0, i / 100) for i in range(50) for m in ("frozen", "seal")]
    genes = pd.DataFrame(rows, columns=["gene", "method", "donor", "seed", "value"])
    genes = named(genes.assign(metric="pcc", organ="o", fold="A", encoder="own"))
    assert T09_T20_patch.genes_best_and_worst(genes)["rank"].tolist() == [*range(1, 11), *range(41, 51)]


def test_genes_stand_beside_what_counting_allows():
    rows = [(g, m, "A", 0, v) for g, v in (("G1", 0.1), ("G2", 0.3)) for m in ("frozen", "seal")]
    genes = pd.DataFrame(rows, columns=["gene", "method", "donor", "seed", "value"])
    genes = named(genes.assign(metric="pcc", organ="o", fold="A", encoder="own"))
    counted = pd.DataFrame({"gene": ["G1", "G1", "G2"], "ceiling": [0.2, 0.4, 0.5]})
    table = T09_T20_patch.genes_best_and_worst(genes, counted)
    assert table.set_index("gene")["ceiling by counting"].to_dict() == {"G2": 0.5, "G1": 0.3}
    assert "from halves of its counts" in table.attrs["note"]
    plain = T09_T20_patch.genes_best_and_worst(genes)
    assert "ceiling by counting" not in plain
    assert "halves" not in plain.attrs["note"]


ABLATIONS = pd.DataFrame(
    [
        ("T51", "full", "all", 0.5, 0.4, 0.6, 0.0, 0.0, 0.0),
        ("T51", "frozen", "all", 0.4, 0.3, 0.5, -0.1, -0.15, -0.05),
        ("T51", "heads", "all", 0.51, 0.41, 0.61, 0.01, -0.01, 0.03),
        ("T51", "heads", "Breast", 0.51, 0.41, 0.61, 0.01, -0.01, 0.03),
        ("T54", "full", "all", 0.5, 0.4, 0.6, 0.0, 0.0, 0.0),
        ("T54", "half_pairs", "all", 0.6, 0.5, 0.7, 0.1, 0.05, 0.15),
    ],
    columns=["table", *COLUMNS[:-1]],
).assign(
    label=lambda t: t["method"] + "!", kind="adapted", task="t", encoder="own", metric="pcc", folds=6, donors=6, seeds=1
)
ABLATIONS = ABLATIONS.assign(split="donor", dealt=0, resample="spots", tested="one donor left out")


def test_ablations_say_where_a_difference_is_none():
    table = T51_T54_ablations.ablated(ABLATIONS, table="T51")
    assert table.to_numpy().tolist() == [
        ["full!", "0.500 [0.400, 0.600]", "", "", 6, 6, 1],
        ["frozen!", "0.400 [0.300, 0.500]", "-0.100 [-0.150, -0.050]", "worse? One seed: a first look", 6, 6, 1],
        ["heads!", "0.510 [0.410, 0.610]", "+0.010 [-0.010, +0.030]", "not told apart", 6, 6, 1],
    ]
    assert table.columns[2] == "against the full method, paired"
    note = table.attrs["note"]
    assert note.startswith(
        "Our first rows: seeds 1, one donor left out. Brackets: 95 % bootstrap interval over the spots"
    )
    assert "another seed" in note
    few = ABLATIONS.assign(tested="donors left out in 1 of 4 folds", resample="donors", seeds=3)
    note = T51_T54_ablations.ablated(few, table="T51").attrs["note"]
    assert "another seed" not in note
    assert "Not run" not in note
    assert note.startswith("Our first rows: seeds 3, donors left out in 1 of 4 folds. Brackets: 95 % bootstrap")
    assert "interval over donors;" in note


def test_a_verdict_rests_on_two_seeds_of_the_full_method():
    """The frozen encoder has one row for every seed: nothing in it is random."""
    two = ABLATIONS.assign(seeds=ABLATIONS["method"].ne("frozen") + 1)
    assert T51_T54_ablations.ablated(two, table="T51")["verdict"].tolist() == ["", "worse", "not told apart"]
    assert T51_T54_ablations.ablated(two, table="T54")["verdict"].tolist() == ["", "better"]


def test_variants_that_did_not_run_stand_in_the_note_alone():
    left = {"table": "T51", "method": "slow", "label": "a slow one", "metric": "pcc", "organ": "all", "seeds": 0}
    short = pd.concat([ABLATIONS, pd.DataFrame([left])])
    table = T51_T54_ablations.ablated(short, table="T51")
    assert table["variant"].tolist() == ["full!", "frozen!", "heads!"]
    assert table.attrs["note"].endswith("Not run: a slow one. `python -m seal ablate` runs all, with more seeds.")
    assert "a slow one" not in T51_T54_ablations.ablated(short, table="T54").attrs["note"]
    long = ABLATIONS.assign(seeds=2)
    assert T51_T54_ablations.ablated(ablations_long=long, table="T51")["seeds"].tolist() == [2, 2, 2]


def test_each_table_of_ablations_holds_its_own():
    assert len(T51_T54_ablations.ablated(ABLATIONS, table="T54")) == 2
    for id in ("T52", "T53"):
        assert len(T51_T54_ablations.ablated(ABLATIONS.replace({"T54": id}), table=id)) == 2
        with pytest.raises(SealError, match=f"no variant of table {id}"):
            T51_T54_ablations.ablated(ABLATIONS, table=id)


def test_markdown():
    table = pd.DataFrame({"a|b": ["x|y", None], "n": [1200, 3], "v": [0.5, float("nan")], "w": [1.25, 1000.0]})
    assert table_text(table.rename(columns={"a|b": "a"})).splitlines() == [
        "| a | n | v | w |",
        "| --- | ---: | ---: | ---: |",
        "| x\\|y | 1,200 | 0.5 | 1.25 |",
        "|  | 3 |  | 1,000.00 |",
    ]


SELECTED = pd.DataFrame(
    {"id": list("abcd"), "organ": ["Lung", "Lung", "Skin", "Skin"], "role": ["train", "train", "train", "test"]}
    | {"spots": [10, 20, 30, 40], "donor": ["d1", "d1", "d2", "d3"], "basis": ["patient", "patient", "title", "title"]}
    | {"disease_state": ["Cancer", "Tumor", "Healthy", "Treated"]}
)


def test_a_selection_beside_the_paper():
    table = T01_T08_data.beside_paper(SELECTED).set_index("figure")
    assert table.loc["spots, train"].tolist() == [60, 720_000, -719_940]
    assert table.loc["organs"].tolist() == [2, 14, -12]
    assert table.loc["organs, test"].tolist() == [1, 6, -5]
    assert table.loc["Cancer, % of spots"].tolist() == [30.0, 42.8, -12.8]


def test_what_donors_rest_on():
    metadata = pd.DataFrame({"id": list("abcd"), "patient": ["P1", "  ", None, float("nan")]})
    table = T01_T08_data.donor_evidence(metadata, SELECTED)
    assert table.to_numpy().tolist() == [
        ["column patient: named", 1, 10, 1],
        ["column patient: blank", 1, 20, 1],
        ["column patient: missing", 2, 70, 2],
        ["donor: patient", 2, 30, 1],
        ["donor: title", 2, 70, 2],
    ]


def test_samples_that_are_joined_say_why():
    inferred = pd.DataFrame({"id": list("abcd"), "section": ["s", "s", "t", "u"], "donor": ["d", "d", "e", "e"]})
    known = pd.DataFrame([("c", "d", "an issue"), ("c", "elsewhere", "-")], columns=["sample", "other", "reason"])
    assert T01_T08_data.joined_samples(inferred, known).to_numpy().tolist() == [
        ["a b", "same section", "same organ, image size and number of spots"],
        ["c d", "same donor", "an issue"],
    ]


def test_hest_bench_by_task_beside_the_published_numbers():
    table = T14_T18_hest_bench.by_task(bench_table(simulated=False), ENCODERS, "hest_bench")
    assert len(table) == 8  # four tasks, two correlations
    idc, prad = (table[table["task"] == task].iloc[0] for task in ("IDC", "PRAD"))
    assert (prad["encoder"], prad["correlation"], prad["published"]) == ("Own-S", "pooled over a fold", 0.36)
    assert prad["frozen encoder, PCC"] == "0.350 [0.330, 0.370]"
    assert prad["SEAL, minus frozen"] == "+0.030 [+0.020, +0.040]"
    assert idc["SEAL, minus frozen"] == ""
    assert idc["note"] == "frozen number misses the published one by -0.0500: no gain reported"
    assert table.attrs["note"].startswith("HEST-Bench’s: scaler, PCA of 256")
    for probe in ("hest_bench", "cross_validated", "xgboost"):
        made = T14_T18_hest_bench.by_task(bench_table(), ENCODERS, probe)
        assert made.attrs["note"].startswith("Simulated tasks in HEST-Bench’s layout.")
        assert made["published"].isna().all()
    more = bench_table(simulated=False, methods=(*BENCHED, "stnet_probed"))
    pd.testing.assert_frame_equal(T14_T18_hest_bench.by_task(more, ENCODERS, "hest_bench"), table)
    with pytest.raises(SealError, match="holds no probe xgboost"):
        T14_T18_hest_bench.by_task(bench_table().query("probe != 'xgboost'"), ENCODERS, "xgboost")


def test_baselines_on_hest_bench_are_encoders_under_its_probe():
    table = T14_T18_hest_bench.baselines(bench_table(methods=(*BENCHED, "stnet_probed")), ENCODERS)
    assert table["method"].tolist() == ["frozen encoder", "SEAL", "SEAL, shuffled pairs", "ST-Net's encoder"]
    assert table["average, PCC"].tolist()[:2] == ["0.450 [0.430, 0.470]", "0.480 [0.460, 0.500]"]
    assert table["minus frozen"].tolist()[:2] == ["", "+0.030 [+0.020, +0.040]"]
    assert table.columns[-3:].tolist() == ["IDC", "PRAD", "HCC"]
    assert "Simulated tasks" in table.attrs["note"]
    assert "All adapt Own-S on the pairs of the first fold" in table.attrs["note"]
    with pytest.raises(LacksRows, match="holds no baseline"):
        T14_T18_hest_bench.baselines(bench_table(), ENCODERS)
