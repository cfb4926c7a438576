"""Tables of HEST-Bench, T14 to T16: a probe each, a row an encoder, task and correlation; T18: baselines."""

from typing import TYPE_CHECKING

from figures.F3_hest_bench import AVERAGE, OFFICIAL
from figures.sources import LacksRows
from figures.T09_T20_patch import difference_text, mean_text
from seal.errors import SealError

if TYPE_CHECKING:
    import pandas as pd

CORRELATIONS = {"pooled": "pooled over a fold", "sample": "by sample"}
PROBES = {
    "hest_bench": "HEST-Bench’s: scaler, PCA of 256, ridge of alpha 100 / (components x genes), no intercept.",
    "cross_validated": "The same up to the ridge: with an intercept, its alpha chosen by leaving training donors out.",
    "xgboost": "XGBoost with HEST-Bench's settings; first seed.",
}


def by_task(hest_bench_summary: "pd.DataFrame", encoders: "pd.DataFrame", probe: str) -> "pd.DataFrame":
    """T14 to T16: Pearson correlation by task under one probe, frozen beside the published number, and with SEAL.

    Raises
    ------
    SealError
        The results hold nothing of this probe.
    """
    import pandas as pd

    table = hest_bench_summary[(hest_bench_summary["probe"] == probe) & (hest_bench_summary["kind"] != "probed")]
    if table.empty:
        what, do = f"hest_bench_summary.csv holds no probe {probe}", "run notebook 04_patch_level again"
        raise SealError(what, expected=", ".join(PROBES), do=do)
    labels, rows = dict(zip(encoders["name"], encoders["label"], strict=True)), []
    for (encoder, correlation, task), part in table.groupby(["encoder", "correlation", "task"], sort=False):
        names = {"encoder": labels.get(encoder, encoder), "task": task, "correlation": CORRELATIONS[correlation]}
        rows.append(names | _cells(part) | {"folds": part["folds"].max(), "note": _note(part)})
    made = pd.DataFrame(rows)
    made.attrs["note"] = (
        f"{'Simulated tasks in HEST-Bench’s layout. ' if table['simulated'].any() else ''}{PROBES[probe]} Pearson "
        "correlation, mean over the genes that vary, folds and seeds. Brackets: 95 % bootstrap interval over a task's "
        "folds, of the average over its tasks; few folds make it rough. HCC is outside the average."
    )
    return made


def baselines(hest_bench_summary: "pd.DataFrame", encoders: "pd.DataFrame") -> "pd.DataFrame":
    """T18: the average and every task, by encoder that was trained on the main one; official probe, pooled.

    Raises
    ------
    LacksRows
        The results hold no baseline.
    """
    import pandas as pd

    table = hest_bench_summary
    table = table[(table["probe"] == OFFICIAL) & (table["correlation"] == "pooled")]
    table = table[table["encoder"] == table["encoder"].iloc[0]]
    if "probed" not in set(table["kind"]):
        what, do = "hest_bench_summary.csv holds no baseline", "run notebook 04_patch_level again"
        raise LacksRows(what, expected="encoders that baselines adapted", do=do)
    label, rows = dict(zip(encoders["name"], encoders["label"], strict=True)), []
    for method, part in table.groupby("label", sort=False):
        average, tasks = part[part["task"] == AVERAGE].iloc[0], part[part["task"] != AVERAGE].set_index("task")["mean"]
        gain = difference_text(average) if average["difference"] == average["difference"] else ""
        own = {"method": method, "kind": average["kind"], "seeds": average["seeds"], "average, PCC": mean_text(average)}
        rows.append(own | {"minus frozen": "" if average["kind"] == "encoder" else gain} | tasks.round(3).to_dict())
    made = pd.DataFrame(rows)
    name = table["encoder"].iloc[0]
    made.attrs["note"] = (
        f"{'Simulated tasks in HEST-Bench’s layout. ' if table['simulated'].any() else ''}{PROBES[OFFICIAL]} All adapt "
        f"{label.get(name, name)} on the pairs of the first fold. A baseline's own head gives the panel's genes, not "
        "the tasks', so its encoder is probed. Brackets: 95 % bootstrap interval over tasks. HCC is outside it."
    )
    return made


def _cells(part: "pd.DataFrame") -> dict[str, object]:
    """Means, the published number beside the encoder's, and paired differences."""
    cells: dict[str, object] = {}
    for _, row in part.iterrows():
        cells[f"{row['label']}, PCC"] = "" if row["mean"] != row["mean"] else mean_text(row)
        if row["kind"] == "encoder":
            cells["published"] = row["published"]
        else:
            text = "" if row["difference"] != row["difference"] else difference_text(row)
            cells[f"{row['label']}, minus frozen"] = text
    return cells


def _note(part: "pd.DataFrame") -> str:
    return "; ".join(dict.fromkeys(part["note"].dropna()))
