"""What figures and tables of the slide level share: names of groups, metrics and models, and choosing rows."""

from typing import TYPE_CHECKING

from figures.sources import LacksRows

if TYPE_CHECKING:
    import pandas as pd

GROUPS = {"molecular": "Molecular status", "pathway": "Pathway activity", "response": "Markers and response"}
GROUPS |= {"all": "All three groups", "morphology": "Morphology and IHC"}
METRICS = {"macro-ovr-auc": "AUC", "bacc": "balanced accuracy", "weighted_kappa": "weighted kappa"}
METRICS |= {"pearson": "Pearson r", "cindex": "C-index"}
MODELS = {"abmil": "ABMIL", "mean": "mean MIL", "linear": "linear probe"}
NULL = "none"  # the strength of a simulated task without a signal
DIFFERENCE = ["difference", "difference_low", "difference_high"]


def choose_rows(table: "pd.DataFrame", **values: str) -> "pd.DataFrame":
    """Rows whose columns have these values, in their order."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def require_rows(table: "pd.DataFrame", what: str) -> "pd.DataFrame":
    """Give the table back, or raise LacksRows, in these words, if it is empty."""
    if table.empty:
        do = "run notebook 05_slide_level again"
        raise LacksRows(f"the slide level's results lack {what}", expected="its rows", do=do)
    return table


def choose_scores(table: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of what methods score, each once: the frozen encoder's, and of others those beside it."""
    return table[(table["kind"] == "encoder") | (table["against"] == "frozen")]


def choose_pair(table: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of `choose_scores` of encoders frozen and adapted."""
    return choose_scores(table[table["kind"].isin(["encoder", "adapted"])])


def label_encoders(encoders: "pd.DataFrame", table: "pd.DataFrame") -> dict[str, str]:
    """Encoder -> its label, or its name where nobody labels it, in the order of a table's rows."""
    labels = dict(zip(encoders["name"], encoders["label"], strict=True))
    return {name: labels.get(name, name) for name in dict.fromkeys(table["encoder"])}


def find_truth(summary: "pd.DataFrame") -> "pd.DataFrame":
    """By task, in the order of the results: group, metric, strength, cases, chance and oracle, NaN where unknown."""
    return summary.groupby("task", sort=False)[["group", "metric", "strength", "cases", "chance", "oracle"]].first()


def name_task(task: str, strength: object = None) -> str:
    """A task as figures have it; a null task is called so."""
    return f"{task.replace('_', ' ')}{' (null)' if strength == NULL else ''}"


def break_label(label: str, longest: int = 26) -> str:
    """A label in two lines if it is longer, broken at its comma."""
    return label if len(label) <= longest else label.replace(", ", ",\n", 1)


def p_text(p: float) -> str:
    """A p-value with three decimals; nothing where there is none."""
    return "" if p != p else "< 0.001" if p < 0.001 else f"{p:.3f}"
