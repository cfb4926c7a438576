"""Tables from small fixtures whose answers are known by hand."""

import pandas as pd
import pytest

from figures import T01_T08_data, wording
from figures.wording import brackets
from seal.errors import SealError

# Fixtures: made-up numbers.
SAMPLES = pd.DataFrame(
    [
        ("s1", "Breast", "Cancer", "A", "ST", 10, 10),
        ("s2", "Breast", "Cancer", "A", "ST", 20, 0),
        ("s3", "Breast", "Healthy", "B", "Visium", 30, 30),
    ],
    columns=["id", "organ", "disease_state", "donor", "technology", "spots", "pairs"],
).assign(dataset="made up", licence="none", simulated=True, fold=["A", "A", "B"])
COLUMNS = ["method", "organ", "mean", "low", "high", "difference", "difference_low", "difference_high", "seeds"]
SUMMARY = pd.DataFrame(
    [
        ("seal", "all", 0.5, 0.4, 0.6, 0.1, 0.05, 0.15, 3),
        ("mean", "all", 0.0, 0.0, 0.0, -0.4, -0.5, -0.3, 1),
        ("frozen", "all", 0.4, 0.3, 0.5, 0.0, 0.0, 0.0, 1),
        ("frozen", "Breast", 0.4, 0.3, 0.5, 0.0, 0.0, 0.0, 1),
        ("seal", "Breast", 0.5, 0.4, 0.6, 0.1, 0.05, 0.15, 3),
    ],
    columns=COLUMNS,
).assign(task="t", encoder="own", metric="pcc", folds=2, donors=2, split="donor", dealt=0, resample="spots")
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
    table = T01_T08_data.by_organ(SUMMARY, ENCODERS)
    assert table.attrs["title"].endswith("Own-S, not one of the paper's five")
    assert table["organ"].tolist() == ["Breast", "all"]
    assert table["SEAL minus frozen, paired"].iloc[0] == "+0.100 [+0.050, +0.150]"
    assert table["seeds"].tolist() == [3, 3]
    assert not [column for column in table if "oracle" in column]
    assert table.attrs["note"].startswith(
        "One donor left out at a time. Brackets: 95 % bootstrap interval over the spots"
    )
    paper = T01_T08_data.by_organ(SUMMARY.assign(encoder="uni2_h"), ENCODERS)
    assert paper.attrs["title"].endswith(": UNI2-h")


def test_controls_stand_in_order_with_intervals():
    table = T01_T08_data.controls(SUMMARY, ENCODERS)
    assert table["method"].tolist() == ["frozen encoder", "SEAL", "mean predictor (control)"]
    assert table["PCC"].tolist()[1] == "0.500 [0.400, 0.600]"
    assert table["minus frozen, paired"].tolist() == ["", "+0.100 [+0.050, +0.150]", "-0.400 [-0.500, -0.300]"]
    assert table["encoder"].tolist() == ["Own-S", "Own-S", ""]


TRUTH = pd.DataFrame(
    [(m, o, v, v, v, 0.2, 0.1, 0.3, 1) for o in ("all", "Breast") for m, v in (("ceiling", 0.8), ("oracle", 0.625))],
    columns=COLUMNS,
)
SIMULATED = pd.concat([SUMMARY, TRUTH], ignore_index=True).assign(
    **{"task": "t", "encoder": "own", "metric": "pcc", "folds": 4, "donors": 56, "split": "donor"},
    **{"dealt": 4, "resample": "donors"},
)


def test_truth_stands_beside_what_is_predicted():
    table = T01_T08_data.by_organ(SIMULATED, ENCODERS)
    assert table[["oracle, PCC", "ceiling, PCC", "SEAL, % of oracle"]].to_numpy().tolist() == [[0.625, 0.8, 80.0]] * 2
    assert table["donors"].tolist() == [56, 56]
    note = table.attrs["note"]
    assert note.startswith("Donors left out in 4 folds. Brackets: 95 % bootstrap interval over donors;")
    assert "without any picture" in note
    rows = T01_T08_data.controls(SIMULATED, ENCODERS)
    assert rows["method"].tolist()[-2:] == ["oracle (simulated truth)", "ceiling (simulated truth)"]
    assert rows["encoder"].tolist()[-3:] == ["", "", ""]
    assert set(rows["split"]) == {"donors left out in 4 folds"}
    assert "without any picture" in rows.attrs["note"]


def test_without_an_interval_the_mean_stands_alone():
    nothing = SUMMARY.assign(**dict.fromkeys(("low", "high", "difference_low", "difference_high"), float("nan")))
    table = T01_T08_data.by_organ(nothing, ENCODERS)
    assert table.iloc[0][["SEAL, PCC", "SEAL minus frozen, paired"]].tolist() == ["0.500", "+0.100"]


def test_words_for_what_was_left_out():
    row = {"split": "study", "dealt": 5, "folds": 5, "donors": 20}
    assert wording.left_out(row) == wording.in_turn(row) == "studies left out in 5 folds"
    assert wording.tested(row | {"folds": 1, "donors": 4}, 1) == "studies left out in 1 of 5 folds (4 donors, one seed)"
    alone = {"split": "organ", "dealt": 0, "folds": 14, "donors": 56}
    assert wording.tested(alone, 3) == "one organ left out (14 folds, 3 seeds)"
    assert wording.in_turn(alone) == "one organ left out at a time"


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
    genes = genes.assign(metric="pcc", organ="o", fold="1of2")
    table = T01_T08_data.genes_best_and_worst(genes)
    assert table.to_numpy().tolist() == [[1, "g", 0.2, 0.4, 0.2, 2]]


def test_only_both_ends_of_many_genes_are_shown():
    rows = [(f"g{i}", m, "A", 0, i / 100) for i in range(50) for m in ("frozen", "seal")]
    genes = pd.DataFrame(rows, columns=["gene", "method", "donor", "seed", "value"])
    genes = genes.assign(metric="pcc", organ="o", fold="A")
    assert T01_T08_data.genes_best_and_worst(genes)["rank"].tolist() == [*range(1, 11), *range(41, 51)]


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
).assign(label=lambda t: t["method"] + "!", task="t", encoder="own", metric="pcc", folds=6, donors=6, seeds=1)
ABLATIONS = ABLATIONS.assign(split="donor", dealt=0, resample="spots")


def test_ablations_say_where_a_difference_is_none():
    table = T01_T08_data.ablated_losses(ABLATIONS)
    assert table.to_numpy().tolist() == [
        ["full!", "0.500 [0.400, 0.600]", "", "", 6, 6, 1],
        ["frozen!", "0.400 [0.300, 0.500]", "-0.100 [-0.150, -0.050]", "worse", 6, 6, 1],
        ["heads!", "0.510 [0.410, 0.610]", "+0.010 [-0.010, +0.030]", "not told apart", 6, 6, 1],
    ]
    assert table.columns[2] == "against the full method, paired"
    note = table.attrs["note"]
    assert note.startswith("Our first rows: one seed, one donor left out at a time.")
    assert brackets(ABLATIONS.iloc[0]) in note
    few = T01_T08_data.ablated_losses(ABLATIONS.assign(dealt=4, folds=1, donors=14)).attrs["note"]
    assert few.startswith("Our first rows: one seed, donors left out in 1 of 4 folds.")
    assert "another seed" in note
    more = T01_T08_data.ablated_losses(ABLATIONS.assign(seeds=3)).attrs["note"]
    assert more.startswith("Our first rows: 3 seeds,")


def test_each_table_of_ablations_holds_its_own():
    assert T01_T08_data.ablated_data(ABLATIONS)["verdict"].tolist() == ["", "better"]
    moved = {"T52": T01_T08_data.ablated_adapters, "T53": T01_T08_data.ablated_omics}
    for id, draw in moved.items():
        assert len(draw(ABLATIONS.replace({"T54": id}))) == 2
        with pytest.raises(SealError, match=f"no variant of table {id}"):
            draw(ABLATIONS)


def test_markdown():
    table = pd.DataFrame({"a|b": ["x|y", None], "n": [1200, 3], "v": [0.5, float("nan")], "w": [1.25, 1000.0]})
    assert T01_T08_data.markdown(table.rename(columns={"a|b": "a"})).splitlines() == [
        "| a | n | v | w |",
        "| --- | ---: | ---: | ---: |",
        "| x\\|y | 1,200 | 0.5 | 1.25 |",
        "|  | 3 |  | 1,000.00 |",
    ]
