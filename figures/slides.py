"""What figures and tables of the slide level share: names of groups, metrics and models, and choosing rows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from figures.sources import LacksRows
from figures.T01_T08_data import PAPER_ENCODERS

if TYPE_CHECKING:
    import pandas as pd

GROUPS = {"molecular": "Molecular status", "pathway": "Pathway activity", "response": "Markers and response"}
GROUPS |= {"all": "All three groups", "morphology": "Morphology and IHC"}
METRICS = {"macro-ovr-auc": "AUC", "bacc": "balanced accuracy", "weighted_kappa": "weighted kappa"}
METRICS |= {"pearson": "Pearson r", "cindex": "C-index"}
MODELS = {"abmil": "ABMIL", "mean": "mean MIL", "linear": "linear probe"}
NULL = "none"  # the strength of a simulated task without a signal
STNET, PATHOMCLIP = "stnet", "pathomclip"  # how the methods that the paper's figure 2 and E1 name begin
DIFFERENCE = ["difference", "difference_low", "difference_high"]


@dataclass(frozen=True)
class Compared:
    """A method and the one it is compared with, of an encoder."""

    encoder: str
    method: str
    against: str
    label: str


def choose_rows(table: "pd.DataFrame", **values: str) -> "pd.DataFrame":
    """Rows whose columns have these values, in their order."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def choose_scores(table: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of what methods score: the frozen encoder's, and of others those beside it."""
    return table[(table["kind"] == "encoder") | (table["against"] == "frozen")]


def choose_encoder(summary: "pd.DataFrame", number: str) -> str:
    """The encoder of a number, "1" the main one.

    Raises
    ------
    LacksRows
        The results hold fewer encoders.
    """
    names = list(dict.fromkeys(summary["encoder"]))
    if len(names) < int(number):
        what = f"slide_level_summary.csv holds {len(names)} encoder(s) here"
        raise LacksRows(what, expected=number, do="run notebook 05 with more encoders")
    return names[int(number) - 1]


def label_encoders(encoders: "pd.DataFrame", names: list[str]) -> dict[str, str]:
    """Encoder -> its label, or its name where nobody labels it."""
    labels = dict(zip(encoders["name"], encoders["label"], strict=True))
    return {name: labels.get(name, name) for name in names}


def say_whether_paper(name: str) -> str:
    """What a title says of an encoder that the paper has not."""
    return "" if name in PAPER_ENCODERS else ", not one of the paper's five"


def find_truth(summary: "pd.DataFrame") -> "pd.DataFrame":
    """By task, in the order of the results: group, metric, strength, cases, chance and oracle, NaN where unknown."""
    return summary.groupby("task", sort=False)[["group", "metric", "strength", "cases", "chance", "oracle"]].first()


def name_task(task: str, strength: object) -> str:
    """A task as figures have it; a null task is called so."""
    return f"{task.replace('_', ' ')}{' (null)' if strength == NULL else ''}"
