"""Tables of patch-level results: T9, T19, T20 and the ablations, T51-T54; see `figures.T01_T08_data`."""

from typing import TYPE_CHECKING

from figures.wording import brackets, in_turn, left_out
from seal.errors import SealError

if TYPE_CHECKING:
    import pandas as pd

METHODS = {
    "frozen": "frozen encoder",
    "seal": "SEAL",
    "seal_shuffled": "SEAL, shuffled pairs (control)",
    "random": "random weights (control)",
    "colour": "colour statistics (control)",
    "mean": "mean predictor (control)",
    "oracle": "oracle (simulated truth)",
    "ceiling": "ceiling (simulated truth)",
}
WITHOUT_ENCODER = ("colour", "mean", "oracle", "ceiling")
PAPER_ENCODERS = ("conch", "h0_mini", "phikon_v2", "uni2_h", "virchow2")
TRUTH = (
    "Oracle: prediction from the true cell composition and the activity of visible programmes, without any picture; "
    "ceiling: from everything that is true but the drawing of counts."
)
EXTREMES = 10  # genes at either end of T20


def by_organ(patch_level_summary: "pd.DataFrame", encoders: "pd.DataFrame") -> "pd.DataFrame":
    """T9: Pearson correlation by organ of the encoder that ran, frozen and with SEAL, and of the truth if known."""
    import pandas as pd

    summary = _pcc(patch_level_summary)
    name = summary["encoder"].iloc[0]
    rows = []
    organs = [*sorted(set(summary["organ"]) - {"all"}), "all"]
    for organ in organs:
        chosen = summary[(summary["organ"] == organ) & (summary["encoder"] == name)].set_index("method")
        frozen, seal = chosen.loc["frozen"], chosen.loc["seal"]
        rows.append(
            {
                "organ": organ,
                "frozen, PCC": _mean(frozen),
                "SEAL, PCC": _mean(seal),
                "SEAL minus frozen, paired": _difference(seal),
                **_truth(chosen),
                "folds": seal["folds"],
                "donors": seal["donors"],
                "seeds": seal["seeds"],
            }
        )
    table = pd.DataFrame(rows)
    labels = dict(zip(encoders["name"], encoders["label"], strict=True))
    outside = "" if name in PAPER_ENCODERS else ", not one of the paper's five"
    table.attrs["title"] = f"Expression prediction by organ: {labels.get(name, name)}{outside}"
    first = summary.iloc[0]
    table.attrs["note"] = f"{in_turn(first).capitalize()}. {brackets(first)}{_said_of_truth(summary)}"
    return table


def _truth(chosen: "pd.DataFrame") -> dict[str, object]:
    """Columns of an organ's row that only simulated data have."""
    if "oracle" not in chosen.index:
        return {}
    oracle, ceiling, seal = (chosen.loc[name, "mean"] for name in ("oracle", "ceiling", "seal"))
    return {
        "oracle, PCC": round(oracle, 3),
        "ceiling, PCC": round(ceiling, 3),
        "SEAL, % of oracle": round(100 * seal / oracle, 1),
    }


def _said_of_truth(summary: "pd.DataFrame") -> str:
    return f" {TRUTH}" if (summary["method"] == "oracle").any() else ""


def controls(patch_level_summary: "pd.DataFrame", encoders: "pd.DataFrame") -> "pd.DataFrame":
    """T19: every method beside its controls, with intervals and paired differences to the frozen encoder."""
    import pandas as pd

    summary = _pcc(patch_level_summary)
    chosen = summary[summary["organ"] == "all"]
    rank = {method: i for i, method in enumerate(METHODS)}
    chosen = chosen.assign(rank=chosen["method"].map(rank)).sort_values(["encoder", "rank"])
    labels = dict(zip(encoders["name"], encoders["label"], strict=True))
    rows = [
        {
            "encoder": "" if row["method"] in WITHOUT_ENCODER else labels.get(row["encoder"], row["encoder"]),
            "method": METHODS[row["method"]],
            "PCC": _mean(row),
            "minus frozen, paired": "" if row["method"] == "frozen" else _difference(row),
            "folds": row["folds"],
            "donors": row["donors"],
            "seeds": row["seeds"],
            "split": left_out(row),
        }
        for _, row in chosen.iterrows()
    ]
    table = pd.DataFrame(rows)
    seeds = chosen.groupby("method")["seeds"].max()
    once = seeds.get("random") == 1 and seeds.max() > 1
    but = ", but for the random weights, which were drawn once" if once else ""
    table.attrs["note"] = (
        f"One seed: nothing in the method is random{but}. {brackets(chosen.iloc[0])}{_said_of_truth(chosen)}"
    )
    return table


def genes_best_and_worst(patch_level_genes: "pd.DataFrame") -> "pd.DataFrame":
    """T20: the genes that SEAL predicts best and worst, beside the frozen encoder; means over seeds, then donors."""
    import pandas as pd

    scores = patch_level_genes[patch_level_genes["metric"] == "pcc"].dropna(subset="value")
    scores = scores[scores["method"].isin(["frozen", "seal"])]
    runs = scores.groupby(["gene", "method", "fold", "donor", "organ"])["value"].mean()
    means = runs.groupby(["gene", "method"]).mean().reset_index().pivot_table("value", "gene", "method")
    table = pd.DataFrame(
        {
            "frozen, PCC": means["frozen"],
            "SEAL, PCC": means["seal"],
            "SEAL minus frozen": means["seal"] - means["frozen"],
            "donors": scores[scores["method"] == "seal"].groupby("gene")["donor"].nunique(),
        }
    )
    table = table.sort_values("SEAL, PCC", ascending=False).rename_axis("gene").reset_index().round(3)
    table.insert(0, "rank", range(1, len(table) + 1))
    shown = table if len(table) <= 2 * EXTREMES else pd.concat([table.head(EXTREMES), table.tail(EXTREMES)])
    shown = shown.reset_index(drop=True)
    shown.attrs["note"] = (
        f"{len(table)} genes could be scored; the {EXTREMES} at either end are shown. Seeds: "
        f"{scores[scores['method'] == 'seal']['seed'].nunique()}. A gene counts in the donors whose "
        "organ's test genes include it."
    )
    return shown


def ablated_losses(ablations: "pd.DataFrame") -> "pd.DataFrame":
    """T51: the method without each of its loss terms, and with the contrast taken elsewhere."""
    return _ablated(ablations, "T51")


def ablated_adapters(ablations: "pd.DataFrame") -> "pd.DataFrame":
    """T52: what of the image encoder is trained."""
    return _ablated(ablations, "T52")


def ablated_omics(ablations: "pd.DataFrame") -> "pd.DataFrame":
    """T53: the omics encoder and the gene loss."""
    return _ablated(ablations, "T53")


def ablated_data(ablations: "pd.DataFrame") -> "pd.DataFrame":
    """T54: fewer genes, fewer pairs."""
    return _ablated(ablations, "T54")


def _ablated(ablations: "pd.DataFrame", table: str) -> "pd.DataFrame":
    """One row a variant, over all organs: its correlation, and how it stands against the full method."""
    import pandas as pd

    summary = _pcc(ablations)
    chosen = summary[(summary["table"] == table) & (summary["organ"] == "all")]
    if chosen.empty:
        raise SealError(
            f"ablations.csv has no variant of table {table}",
            expected="at least one",
            do="run notebook 04 again",
        )
    rows = [
        {
            "variant": row["label"],
            "PCC": _mean(row),
            "against the full method, paired": "" if row["method"] == "full" else _difference(row),
            "verdict": "" if row["method"] == "full" else _verdict(row),
            "folds": row["folds"],
            "donors": row["donors"],
            "seeds": row["seeds"],
        }
        for _, row in chosen.iterrows()
    ]
    frame = pd.DataFrame(rows)
    seeds, first = chosen["seeds"].max(), chosen.iloc[0]
    frame.attrs["note"] = (
        f"Our first rows: {'one seed' if seeds == 1 else f'{seeds} seeds'}, {in_turn(first)}. {brackets(first)} "
        "Where that of a difference includes zero, the variant is not told apart from the full method. What another "
        "seed would change is not in the intervals, and they are not corrected for the number of variants."
    )
    return frame


def _verdict(row) -> str:
    if row["difference_low"] > 0:
        return "better"
    return "worse" if row["difference_high"] < 0 else "not told apart"


def _pcc(summary: "pd.DataFrame") -> "pd.DataFrame":
    return summary[summary["metric"] == "pcc"]


def _mean(row) -> str:
    if row["low"] != row["low"]:  # one donor cannot be resampled
        return f"{row['mean']:.3f}"
    return f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _difference(row) -> str:
    if row["difference_low"] != row["difference_low"]:
        return f"{row['difference']:+.3f}"
    return f"{row['difference']:+.3f} [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
