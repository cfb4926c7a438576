"""Tables from small fixtures whose answers are known by hand."""

import pandas as pd
import pytest

from seal import tables
from seal.errors import SealError
from seal.patch_tables import INTERVAL

# Fixtures: made-up numbers.
SAMPLES = pd.DataFrame(
    [
        ("s1", "Breast", "Cancer", "A", "ST", 10, 10),
        ("s2", "Breast", "Cancer", "A", "ST", 20, 0),
        ("s3", "Breast", "Healthy", "B", "Visium", 30, 30),
    ],
    columns=["id", "organ", "disease_state", "donor", "technology", "spots", "pairs"],
).assign(dataset="made up", licence="none", simulated=True)
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
).assign(task="t", encoder="own", metric="pcc", folds=2, split="donor")
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
    table = tables.samples_by_technology(SAMPLES)
    assert table.to_numpy().tolist() == [
        ["Breast", "ST", 2, 1, 30, 10],
        ["Breast", "Visium", 1, 1, 30, 30],
        ["total", "", 3, 2, 60, 40],
    ]


def test_disease_states_give_shares_of_pairs():
    table = tables.disease_states(SAMPLES).set_index("disease state")
    assert table["share of pairs, %"].to_dict() == {"Cancer": 25.0, "Healthy": 75.0, "total": 100.0}


def test_folds_by_donor_and_by_section():
    table = tables.held_out_folds(SAMPLES, pd.DataFrame({"fold": ["B", "A", "s3"]}))
    assert table["left out"].tolist() == ["donor A", "donor B", "section s3"]
    assert table["test sections"].tolist() == [1, 1, 1]  # s2 has no pairs
    assert table["test pairs"].tolist() == [10, 30, 30]
    assert table["training spots, stage 1"].tolist() == [30, 30, 30]
    with pytest.raises(SealError, match="fold 'Z'"):
        tables.held_out_folds(SAMPLES, pd.DataFrame({"fold": ["Z"]}))


def test_by_organ_names_the_encoder_that_ran():
    table = tables.by_organ(SUMMARY, ENCODERS)
    assert table.attrs["title"].endswith("Own-S, not one of the paper's five")
    assert table["organ"].tolist() == ["Breast", "all"]
    assert table["SEAL minus frozen, paired"].iloc[0] == "+0.100 [+0.050, +0.150]"
    assert table["seeds"].tolist() == [3, 3]
    paper = tables.by_organ(SUMMARY.assign(encoder="uni2_h"), ENCODERS)
    assert paper.attrs["title"].endswith(": UNI2-h")


def test_controls_stand_in_order_with_intervals():
    table = tables.controls(SUMMARY, ENCODERS)
    assert table["method"].tolist() == ["frozen encoder", "SEAL", "mean predictor (control)"]
    assert table["PCC"].tolist()[1] == "0.500 [0.400, 0.600]"
    assert table["minus frozen, paired"].tolist() == ["", "+0.100 [+0.050, +0.150]", "-0.400 [-0.500, -0.300]"]
    assert table["encoder"].tolist() == ["Own-S", "Own-S", ""]


def test_encoders_in_millions():
    table = tables.encoder_list(ENCODERS)
    assert table["parameters, M"].tolist() == [21.6, 681.0]
    assert table["trained by LoRA, M"].tolist() == [0.074, 0.59]
    assert table["in the paper"].tolist() == ["no", "yes"]
    assert table["gated"].tolist() == ["no", "yes"]
    titles = {a: tables.encoder_list(ENCODERS.assign(adapter=a)).columns[-1] for a in ("full", "bottleneck")}
    assert titles == {"full": "trained of the encoder, M", "bottleneck": "trained in a bottleneck, M"}


def test_settings_of_one_stage():
    rows = [("omics", "lr", "", "5e-4", "release"), ("vision", "rank", "r", "8", "release")]
    settings = pd.DataFrame(rows, columns=["stage", "setting", "symbol", "value", "source"])
    assert tables.omics_settings(settings)["setting"].tolist() == ["lr"]
    assert tables.vision_settings(settings)["value"].tolist() == ["8"]
    with pytest.raises(SealError, match="'vision'"):
        tables.vision_settings(settings[settings["stage"] == "omics"])


def test_panel_counts_folds():
    panel = pd.DataFrame(
        {"fold": list("AABB"), "rank": [1, 2, 1, 2], "gene": list("xyyz"), "test": [True, True, True, False]}
    )
    table = tables.gene_panel(panel)
    assert table.to_numpy().tolist() == [["y", 2, 1, 2], ["x", 1, 1, 1]]
    assert "2 folds" in table.attrs["note"]


def test_genes_are_averaged_over_seeds_then_folds():
    rows = [("g", "seal", "A", s, v) for s, v in enumerate((0.1, 0.3))] + [("g", "seal", "B", 0, 0.6)]
    rows += [("g", "frozen", "A", 0, 0.2), ("g", "frozen", "B", 0, 0.2), ("flat", "seal", "A", 0, float("nan"))]
    genes = pd.DataFrame(rows, columns=["gene", "method", "fold", "seed", "value"]).assign(metric="pcc", organ="o")
    table = tables.genes_best_and_worst(genes)
    assert table.to_numpy().tolist() == [[1, "g", 0.2, 0.4, 0.2, 2]]


def test_only_both_ends_of_many_genes_are_shown():
    rows = [(f"g{i}", m, "A", 0, i / 100) for i in range(50) for m in ("frozen", "seal")]
    genes = pd.DataFrame(rows, columns=["gene", "method", "fold", "seed", "value"]).assign(metric="pcc", organ="o")
    assert tables.genes_best_and_worst(genes)["rank"].tolist() == [*range(1, 11), *range(41, 51)]


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
).assign(label=lambda t: t["method"] + "!", task="t", encoder="own", metric="pcc", folds=6, seeds=1, split="donor")


def test_ablations_say_where_a_difference_is_none():
    table = tables.ablated_losses(ABLATIONS)
    assert table.to_numpy().tolist() == [
        ["full!", "0.500 [0.400, 0.600]", "", "", 6, 1],
        ["frozen!", "0.400 [0.300, 0.500]", "-0.100 [-0.150, -0.050]", "worse", 6, 1],
        ["heads!", "0.510 [0.410, 0.610]", "+0.010 [-0.010, +0.030]", "not told apart", 6, 1],
    ]
    assert table.columns[2] == "against the full method, paired"
    note = table.attrs["note"]
    assert note.startswith("Our first rows: one seed, one donor left out at a time.")
    assert INTERVAL in note
    assert "another seed" in note
    more = tables.ablated_losses(ABLATIONS.assign(seeds=3)).attrs["note"]
    assert more.startswith("Our first rows: 3 seeds,")


def test_each_table_of_ablations_holds_its_own():
    assert tables.ablated_data(ABLATIONS)["verdict"].tolist() == ["", "better"]
    moved = {"T52": tables.ablated_adapters, "T53": tables.ablated_omics}
    for id, draw in moved.items():
        assert len(draw(ABLATIONS.replace({"T54": id}))) == 2
        with pytest.raises(SealError, match=f"no variant of table {id}"):
            draw(ABLATIONS)


def test_markdown():
    table = pd.DataFrame({"a|b": ["x|y", None], "n": [1200, 3], "v": [0.5, float("nan")], "w": [1.25, 1000.0]})
    assert tables.markdown(table.rename(columns={"a|b": "a"})).splitlines() == [
        "| a | n | v | w |",
        "| --- | ---: | ---: | ---: |",
        "| x\\|y | 1,200 | 0.5 | 1.25 |",
        "|  | 3 |  | 1,000.00 |",
    ]
