"""Tables of patch-level results, T9 to T20; which method is what, their rows say (`label`, `kind`)."""

from typing import TYPE_CHECKING

from figures.markdown import interval_text
from figures.sources import LacksRows
from figures.T01_T08_data import PAPER_ENCODERS

if TYPE_CHECKING:
    import pandas as pd

# What an interval holds, by what the bootstrap resampled.
BRACKETS = {
    "donors": "Brackets: 95 % bootstrap interval over donors; the few donors of a single organ make its interval "
    "rough and too narrow.",
    "spots": "Brackets: 95 % bootstrap interval over the spots of these donors; other donors may differ more.",
}
TRUTH = (
    "Oracle: prediction from the true cell composition and the activity of visible programmes, without any picture; "
    "ceiling: from everything that is true but the drawing of counts."
)
EXTREMES = 10  # genes at either end of T20


def by_organ(patch_level_summary: "pd.DataFrame", encoders: "pd.DataFrame", number: str) -> "pd.DataFrame":
    """T9 to T13: Pearson correlation by organ of one encoder, frozen and adapted, and of the truth if known.

    Parameters
    ----------
    number
        Of the encoder, "1" the profile's own.
    """
    import pandas as pd

    summary = pcc_rows(patch_level_summary)
    names = list(dict.fromkeys(summary["encoder"]))
    if len(names) < int(number):
        raise LacksRows(
            f"patch_level_summary.csv holds {len(names)} encoder(s)", expected=f"{number}", do="run notebook 04 again"
        )
    name = names[int(number) - 1]
    summary = summary[summary["encoder"] == name]
    organs = [*sorted(set(summary["organ"]) - {"all"}), "all"]
    table = pd.DataFrame([_organ_row(organ, summary[summary["organ"] == organ]) for organ in organs])
    outside = "" if name in PAPER_ENCODERS else ", not one of the paper's five"
    table.attrs["title"] = f"Expression prediction by organ: {_labels(encoders).get(name, name)}{outside}"
    table.attrs["note"] = _note(summary)
    return table


def _organ_row(organ: str, rows: "pd.DataFrame") -> dict[str, object]:
    """Correlations of the encoder, frozen and adapted; of the truth, and how much of its first is reached."""
    encoder, adapted, truth = (
        [row for _, row in rows[rows["kind"] == kind].iterrows()] for kind in ("encoder", "adapted", "truth")
    )
    cells = {f"{row['label']}, PCC": mean_text(row) for row in (*encoder, *adapted)}
    cells |= {f"{row['label']} minus {encoder[0]['label']}, paired": difference_text(row) for row in adapted}
    cells |= {f"{row['label']}, PCC": round(row["mean"], 3) for row in truth}
    if truth:
        best = f"% of {truth[0]['label']}"
        cells |= {f"{row['label']}, {best}": round(100 * row["mean"] / truth[0]["mean"], 1) for row in adapted}
    return {"organ": organ, **cells, **{name: rows[name].max() for name in ("folds", "donors", "seeds")}}


def baselines_table(baselines: "pd.DataFrame", encoders: "pd.DataFrame") -> "pd.DataFrame":
    """T17: encoder, SEAL and every baseline, by its own prediction and its encoder under our probe."""
    import pandas as pd

    summary = pcc_rows(baselines, "all")
    how = {"readout": "its own", "baseline": "its own", "encoder": "our probe", "adapted": "our probe"}
    rows = [
        {
            "method": row["label"],
            "predicted by": how.get(row["kind"], "our probe"),
            "PCC": mean_text(row),
            "minus the frozen encoder, paired": "" if row["kind"] == "encoder" else difference_text(row),
            "minus SEAL, paired": "" if row["kind"] in ("encoder", "adapted") else difference_text(row, "control_"),
            **{name: row[name] for name in ("folds", "donors", "seeds")},
        }
        for _, row in summary.iterrows()
    ]
    table = pd.DataFrame(rows)
    label = _labels(encoders).get(summary["encoder"].iloc[0])
    table.attrs["note"] = (
        f"All on {label}, with one gene panel, one split and SEAL's training length. A head trained so briefly is not "
        f"a ridge probe whose penalty was chosen: compare like with like. {_note(summary)}"
    )
    return table


def controls(patch_level_summary: "pd.DataFrame", encoders: "pd.DataFrame") -> "pd.DataFrame":
    """T19: every method beside its controls, with intervals and paired differences to the frozen encoder."""
    import pandas as pd

    summary = pcc_rows(patch_level_summary, "all")
    labels = _labels(encoders)
    rows = [
        {
            "encoder of the run": labels.get(row["encoder"], row["encoder"]),
            "method": row["label"],
            "kind": row["kind"],
            "PCC": mean_text(row),
            "minus the frozen encoder, paired": "" if row["kind"] == "encoder" else difference_text(row),
            "folds": row["folds"],
            "donors": row["donors"],
            "seeds": row["seeds"],
        }
        for _, row in summary.iterrows()
    ]
    table = pd.DataFrame(rows)
    table.attrs["note"] = f"One seed: nothing in the method is random, or it was drawn once. {_note(summary)}"
    return table


def genes_best_and_worst(
    patch_level_genes: "pd.DataFrame", gene_reliability: "pd.DataFrame | None" = None
) -> "pd.DataFrame":
    """T20: the genes that SEAL predicts best and worst, beside the frozen encoder; means over seeds, then donors.

    `gene_reliability`, where it is there, adds the correlation that counting allows, mean over the same donors.
    """
    import pandas as pd

    scores = patch_level_genes[patch_level_genes["metric"] == "pcc"].dropna(subset="value")
    scores = scores[scores["encoder"] == scores["encoder"].iloc[0]]
    frozen, seal = (scores[scores["kind"] == kind] for kind in ("encoder", "adapted"))
    frozen, seal = (part[part["method"] == part["method"].iloc[0]] for part in (frozen, seal))
    name, reference = seal["label"].iloc[0], frozen["label"].iloc[0]
    table = pd.DataFrame({f"{reference}, PCC": _gene_means(frozen), f"{name}, PCC": _gene_means(seal)})
    table[f"{name} minus {reference}"] = table[f"{name}, PCC"] - table[f"{reference}, PCC"]
    if gene_reliability is not None:
        table["ceiling by counting"] = gene_reliability.groupby("gene")["ceiling"].mean()
    table["donors"] = seal.groupby("gene")["donor"].nunique()
    table = table.sort_values(f"{name}, PCC", ascending=False).rename_axis("gene").reset_index().round(3)
    table.insert(0, "rank", range(1, len(table) + 1))
    shown = table if len(table) <= 2 * EXTREMES else pd.concat([table.head(EXTREMES), table.tail(EXTREMES)])
    shown = shown.reset_index(drop=True)
    shown.attrs["note"] = (
        f"{len(table)} genes could be scored; the {EXTREMES} at either end are shown. Seeds: {seal['seed'].nunique()}. "
        "A gene counts in the donors whose organ's test genes include it."
    )
    if gene_reliability is not None:
        shown.attrs["note"] += (
            " Ceiling by counting: the root of the reliability of what was measured, from halves of its counts. No "
            "prediction correlates better, but for chance."
        )
    return shown


def _gene_means(scores: "pd.DataFrame") -> "pd.Series":
    """Mean over seeds, then over donors, by gene."""
    donors = scores.groupby(["gene", "fold", "donor", "organ"])["value"].mean()
    return donors.groupby("gene").mean()


def _labels(encoders: "pd.DataFrame") -> dict[str, str]:
    return dict(zip(encoders["name"], encoders["label"], strict=True))


def _note(summary: "pd.DataFrame") -> str:
    first = summary.iloc[0]
    said_of_truth = f" {TRUTH}" if (summary["kind"] == "truth").any() else ""
    return f"Tested on: {first['tested']}. {BRACKETS[first['resample']]}{said_of_truth}"


def pcc_rows(summary: "pd.DataFrame", organ: str | None = None) -> "pd.DataFrame":
    """Rows of the Pearson correlation, of all organs or of one ("all": over all of them)."""
    rows = summary[summary["metric"] == "pcc"]
    return rows if organ is None else rows[rows["organ"] == organ]


def mean_text(row: "pd.Series") -> str:
    """A mean with its interval."""
    return interval_text(row["mean"], row["low"], row["high"])


def difference_text(row: "pd.Series", of: str = "") -> str:
    """A paired difference with its interval; `of` "control_": the one to the method in the column control."""
    ends = of or "difference_"
    return interval_text(row[f"{of}difference"], row[f"{ends}low"], row[f"{ends}high"], "+")
