"""The report of a user's own cohort: one page of HTML that asks no other host for anything, cohort_report.html."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from seal.data.slide_tasks import SlideTask
from seal.evaluate.power import FOUND, NOT_FOUND
from seal.evaluate.slide_level import first_rows, labels_of
from seal.files import atomic

if TYPE_CHECKING:
    import pandas as pd

FEW_CASES, FEW_OF_CLASS, FEW_EVENTS = 50, 15, 25  # below these the report warns: our choice
METRICS = {
    "macro-ovr-auc": (
        "AUC (area under the ROC curve)",
        "how often a case of a class gets a higher score for it than a case of another class",
    ),
    "bacc": ("balanced accuracy", "the share of cases that are told correctly, mean of the classes"),
    "weighted_kappa": ("weighted kappa", "agreement with the true grade; large mistakes count more than small ones"),
    "pearson": ("Pearson correlation", "how well predicted and measured numbers lie on one line"),
    "cindex": ("C-index", "of two cases, how often the one that had the event first is told correctly"),
}
PREDICTORS = {"linear": "Linear model", "abmil": "ABMIL"}


@dataclass(frozen=True)
class Entered:
    """What went into a comparison, and how it was asked for."""

    command: str
    labels: str  # the table's file
    sha256: str  # of the table
    rows: int
    lost: Mapping[str, str]  # slide -> why it was left out
    refused: Mapping[str, str]  # column -> why it is no task
    unlisted: Sequence[str]  # pictures of which the table has no row
    models: Mapping[str, str]  # method -> label; the first is the base
    mil: str
    um_per_px: float
    size: int  # px
    site: bool  # whether the table has sites
    versions: Mapping[str, str]
    commit: str | None


def write_report(path: Path, entered: Entered, tasks: Sequence[SlideTask], summary: "pd.DataFrame") -> Path:
    """Write the report of what `seal.evaluate.slide_scores.summary` says of some tasks; its file."""
    shown = [_show_task(task, summary[summary["task"] == task.name]) for task in tasks]
    compared = [each for task in shown for model in task["models"] for each in model["differences"]]
    reasons = {why: [slide for slide, own in entered.lost.items() if own == why] for why in entered.lost.values()}
    strict = {"undefined": jinja2.StrictUndefined, "autoescape": True}
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, **strict).from_string(
        Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    )
    text = template.render(
        entered=entered,
        reasons=reasons,
        tasks=shown,
        verdicts=Counter(each["verdict"] for each in compared),
        slides=len({slide for task in tasks for slide in task.slides}),
        cases=len({case for task in tasks for case in task.cases}),
        models=list(entered.models.values()),
    )
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _show_task(task: SlideTask, rows: "pd.DataFrame") -> dict[str, Any]:
    chance, (name, meaning) = labels_of(task).chance, METRICS[task.metric]
    models = [_show_model(own, chance, model) for model, own in rows.groupby("model", sort=False)]
    return {
        **{"name": task.name, "question": _describe(task), "metric": name, "meaning": meaning},
        **{"chance": f"{chance:.3g}", "dropped": task.dropped, "models": models},
        **{"cases": len(set(task.bags)), "folds": len(task.folds)},
        **{"notes": [note[0].upper() + note[1:] for note in task.notes], "warnings": find_warnings(task, rows, chance)},
    }


def _describe(task: SlideTask) -> str:
    """What is predicted, and of how many cases."""
    own = first_rows(task, np.arange(len(task.cases)))
    if task.event is not None:
        days, event = task.days[own], task.event[own]
        return f"survival: {event.sum()} of {len(own)} cases had the event; median time {np.median(days):,.0f} days"
    if not task.classes:
        low, middle, high = np.quantile(task.labels[own], (0, 0.5, 1))
        return f"a number from {low:.3g} to {high:.3g}, median {middle:.3g}, of {len(own)} cases"
    counts = np.bincount(task.labels[own], minlength=len(task.classes))
    what = "grades, in this order" if task.kind == "grades" else "classes"
    return f"{what}: " + ", ".join(f"{name} ({n} cases)" for name, n in zip(task.classes, counts, strict=True))


def find_warnings(task: SlideTask, rows: "pd.DataFrame", chance: float) -> list[str]:
    """Say what makes a task's numbers hard to trust: few cases or events, a class of one site, scores like guessing."""
    own, found = first_rows(task, np.arange(len(task.cases))), []
    if len(own) < FEW_CASES:
        found.append(f"Only {len(own)} cases: intervals are wide, and only large differences can show.")
    labels = task.labels[own] if task.classes and task.event is None else np.zeros(0, dtype=int)
    for k, name in enumerate(task.classes if len(labels) else ()):
        if (number := int((labels == k).sum())) < FEW_OF_CLASS:
            found.append(f"Only {number} cases of {name}: one case more or less changes the score.")
        if task.site and len(sites := {task.site[own[i]] for i in np.flatnonzero(labels == k)}) == 1 < len(
            set(task.site)
        ):
            found.append(f"All cases of {name} are from one site, {sites.pop()}: a model can tell the site instead.")
    if task.event is not None and (events := int(task.event[own].sum())) < FEW_EVENTS:
        found.append(f"Only {events} events: a C-index is made of pairs with an event, so it is uncertain.")
    if not (rows["low"] > chance).any():
        found.append("No model's interval lies above guessing: these features may not tell this label at all.")
    if (rows["high"] < chance).any():
        found.append(
            "An interval lies below guessing. In a small cohort with nothing to find, models learn the opposite of "
            "what their test cases show: read such a score as nothing found."
        )
    return found


def _show_model(rows: "pd.DataFrame", chance: float, model: str) -> dict[str, Any]:
    """Bars of each method's score on one axis, and its differences from the base."""
    own = rows.drop_duplicates("method")
    ends = [chance, *(v for column in ("mean", "low", "high") for v in own[column] if math.isfinite(v))]
    low, high = math.floor(10 * min(ends)) / 10, math.ceil(10 * max(ends)) / 10
    place = lambda value: round(100 * (value - low) / (high - low or 1), 2)  # noqa: E731
    bars = [
        {
            **{
                "label": row.label,
                "text": f"{_number(row.mean)} {_interval(row.low, row.high)}",
                "dot": place(row.mean),
            },
            "line": (place(row.low), place(row.high) - place(row.low)) if math.isfinite(row.low) else None,
        }
        for row in own.itertuples()
    ]
    axis = {"low": _number(low, 1), "high": _number(high, 1), "chance": place(chance)}
    names = dict(zip(own["method"], own["label"], strict=True))
    differences = [_show_difference(row, names) for row in rows[rows["against"].notna()].itertuples()]
    return {
        "name": PREDICTORS[model],
        "seeds": int(own["seeds"].max()),
        "bars": bars,
        "differences": differences,
        **axis,
    }


def _show_difference(row: Any, names: Mapping[str, str]) -> dict[str, str]:
    other, worth, tone = names[row.against], _number(row.matters), ""
    words = f"Cannot be decided with {row.cases} cases: even a difference of {worth} could have been missed."
    if row.verdict == FOUND:
        tone = "better" if row.difference > 0 else "worse"
        words = f"{row.label} is {tone} than {other}."
    elif row.verdict == NOT_FOUND:
        words = f"No difference found; one of {worth} or more would probably have been."
    paired = _interval(row.difference_low, row.difference_high, sign=True)
    return {
        **{"what": f"{row.label} minus {other}", "verdict": row.verdict, "words": words, "tone": tone},
        **{"difference": f"{_number(row.difference, sign=True)} {paired}"},
        **{"p": _number(row.p_holm), "smallest": _number(row.smallest)},
    }


def _interval(low: float, high: float, sign: bool = False) -> str:
    return f"[{_number(low, sign=sign)}, {_number(high, sign=sign)}]" if math.isfinite(low) else "(no interval)"


def _number(value: float, digits: int = 3, sign: bool = False) -> str:
    if not math.isfinite(value):
        return "not known"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")
