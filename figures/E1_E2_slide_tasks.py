"""E1 and E2: slide-level tasks one by one; what SEAL changes (E1), and molecular tasks by encoder (E2)."""

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from figures.slides import (
    DIFFERENCE,
    GROUPS,
    METRICS,
    MODELS,
    NULL,
    PATHOMCLIP,
    STNET,
    choose_rows,
    choose_scores,
    find_truth,
    label_encoders,
    name_task,
)
from figures.sources import LacksRows
from figures.style import BLACK, DOUBLE, GREY, MARKERS, Look, block_title, method_looks, new_figure, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

LEAST = 0.05  # a base below this is too near zero for anything to be relative to it
REACH = 100.0  # %, how far the axis of relative changes goes
FOUND = "found"


@style()
def relative_figure(slide_level_summary: "pd.DataFrame", encoders: "pd.DataFrame") -> "Figure":
    """Draw E1: A, SEAL against each frozen encoder on morphology and IHC; B, SEAL and PathOmCLIP against ST-Net.

    Left, the change in percent of the other's score (difference / base, its interval divided by the same base), where
    that score is at least `LEAST`; right, the same paired differences as they are, of every task.
    """
    table = choose_rows(slide_level_summary, model="abmil")
    names, looks = label_encoders(encoders, list(dict.fromkeys(table["encoder"]))), method_looks(table)
    first = _morphology(table, names, looks)
    second = _against_stnet(choose_rows(table, encoder=next(iter(names))), looks)
    heights = [24 + (1.3 + 1.7 * len(first)) * len(first[0][2]), 24 + 3.1 * (len(second[0][2]) + 3)]
    figure = new_figure(DOUBLE, sum(heights))
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    block_title(upper, f"A  {GROUPS['morphology']}: SEAL against each encoder as it comes, {MODELS['abmil']}")
    stnet = table.loc[table["method"].str.startswith(STNET), "label"].iloc[0]
    block_title(lower, f"B  {GROUPS['all']}: against {stnet}, {MODELS['abmil']}, {next(iter(names.values()))}")
    _draw_changes(upper, first)
    _draw_changes(lower, second)
    figure.draw_without_rendering()
    return figure


# What is drawn of a method or an encoder: its label, look, and rows of differences by task.
Series = tuple[str, Look, "pd.DataFrame"]


def _morphology(table: "pd.DataFrame", names: dict[str, str], looks: dict[str, Look]) -> list[Series]:
    """Of each encoder its adapted form against it; encoders are told apart by their marks."""
    rows = choose_rows(table, group="morphology", against="frozen", kind="adapted")
    adapted = next(look for look in looks.values() if look.kind == "adapted")
    return [
        (name, Look(name, adapted.kind, adapted.colour, mark, adapted.line), choose_rows(rows, encoder=encoder))
        for (encoder, name), mark in zip(names.items(), ("o", *MARKERS), strict=False)
    ]


def _against_stnet(table: "pd.DataFrame", looks: dict[str, Look]) -> list[Series]:
    """SEAL and PathOmCLIP against ST-Net, tasks sorted by SEAL's difference within their group."""
    rows = table[table["against"].fillna("").str.startswith(STNET) & (table["group"] != "morphology")]
    shown = rows[(rows["kind"] == "adapted") | rows["method"].str.startswith(PATHOMCLIP)]
    if shown.empty:
        raise LacksRows("slide_level_summary.csv compares nothing with ST-Net", expected="SEAL", do="run notebook 05")
    best = shown[shown["kind"] == "adapted"].sort_values("difference", ascending=False)
    order = [task for group in GROUPS for task in choose_rows(best, group=group)["task"]]
    by_method = {
        method: own.set_index("task").loc[order].reset_index() for method, own in shown.groupby("method", sort=False)
    }
    return [(looks[method].label, looks[method], own) for method, own in by_method.items()]


def _draw_changes(figure: "SubFigure", series: list[Series]) -> None:
    """Relative changes beside differences, a row a task, methods or encoders side by side in it."""
    left, right = figure.subplots(1, 2)
    tasks = series[0][2].set_index("task")
    lines = _list_rows(tasks)
    for i, (label, look, rows) in enumerate(series):
        shift = 0.7 * ((i + 0.5) / len(series) - 0.5)
        for row in rows.itertuples():
            y = lines.index(row.task) + shift
            values = np.array([getattr(row, name) for name in DIFFERENCE])
            _draw_mark(right, y, values, look, np.inf)
            if row.base >= LEAST:
                _draw_mark(left, y, 100 * values / row.base, look, REACH)
        left.plot([], [], look.marker, ms=3.2, color=look.colour, label=label)
    every = np.stack([rows.set_index("task")["base"].reindex(tasks.index) for _, _, rows in series])  # [series, tasks]
    for task, bases in zip(tasks.index, every.T, strict=True):
        if (low := bases[bases < LEAST]).size:
            ends = " to ".join(dict.fromkeys(f"{end:.2f}" for end in (low.min(), low.max())))
            text = f"base {ends}".replace("-", "\N{MINUS SIGN}")
            left.text(3 - REACH, lines.index(task), text, va="center", fontsize=6, color=GREY)
    for axes in (left, right):
        _name_rows(axes, lines, tasks, axes is left)
        axes.axvline(0, color=BLACK, lw=0.8, ls="--", zorder=0)
        axes.grid(axis="x")
    left.set(xlim=(-REACH, REACH), xlabel="% of the other's score, the base")
    right.set(xlabel="each task in its own metric")
    left.set_title("Relative change", weight="normal", pad=14)
    right.set_title("Difference", weight="normal", pad=14)
    left.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=len(series), columnspacing=1.2).set_in_layout(
        False
    )


def _list_rows(tasks: "pd.DataFrame") -> list[str]:
    """Names of the tasks from top to bottom; of several groups, each one's name above its tasks."""
    groups = list(dict.fromkeys(tasks["group"]))
    lines = [[GROUPS[group], *tasks.index[tasks["group"] == group]] for group in groups]
    return [name for own in lines for name in (own if len(groups) > 1 else own[1:])]


def _name_rows(axes: "Axes", lines: list[str], tasks: "pd.DataFrame", is_first: bool) -> None:
    """Name each row with its metric, in the first of the panels."""
    known = {
        row.Index: f"{name_task(row.Index, row.strength)}, {METRICS.get(row.metric, row.metric)}"
        for row in tasks.itertuples()
    }
    axes.set_yticks(range(len(lines)), [known.get(line, line) if is_first else "" for line in lines])
    for label, line in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_weight("normal" if line in known else "bold")
    axes.tick_params(axis="y", length=0, labelsize=6)
    axes.set_ylim(len(lines) - 0.3, -0.7)


def _draw_mark(axes: "Axes", y: float, values: np.ndarray, look: Look, reach: float) -> None:
    """A value with its interval; an arrowhead at the edge where the value itself lies beyond."""
    middle, *ends = values
    axes.plot(np.clip(ends, -reach, reach), [y, y], color=look.colour, lw=0.9, solid_capstyle="butt")
    marker = look.marker if abs(middle) <= reach else "<" if middle < 0 else ">"
    axes.plot(np.clip(middle, -reach, reach), y, marker, ms=3.2, color=look.colour, clip_on=False)


@style()
def molecular_figure(slide_level_summary: "pd.DataFrame", encoders: "pd.DataFrame") -> "Figure":
    """Draw E2: the molecular tasks, a column an encoder, frozen and with SEAL; A, ABMIL; B, mean MIL."""
    table = choose_rows(slide_level_summary, group="molecular")
    table = table[table["kind"].isin(["encoder", "adapted"])]
    parts = {
        letter: choose_rows(choose_scores(table), model=model) for letter, model in (("A", "abmil"), ("B", "mean"))
    }
    parts = {letter: rows for letter, rows in parts.items() if len(rows)}
    tasks = find_truth(table).sort_values("metric", key=lambda m: m != "macro-ovr-auc", kind="stable")
    names, looks = label_encoders(encoders, list(dict.fromkeys(table["encoder"]))), method_looks(table)
    key = _key(table, tasks)
    figure = new_figure(DOUBLE, len(parts) * (14 + 3.6 * (len(tasks) + 2)) + 14)
    blocks = np.atleast_1d(figure.subfigures(len(parts), 1))
    for block, (letter, rows) in zip(blocks, parts.items(), strict=True):
        own = {encoder: name for encoder, name in names.items() if encoder in set(rows["encoder"])}
        model = MODELS[rows["model"].iloc[0]]
        block_title(block, f"{letter}  {model[0].upper()}{model[1:]}")
        _draw_encoders(block, rows, tasks, own, looks)
    blocks[0].legend(*blocks[0].axes[0].get_legend_handles_labels(), loc="upper right", ncols=4)
    blocks[-1].supxlabel(key, x=0.005, ha="left", fontsize=6, color=GREY)
    figure.draw_without_rendering()
    return figure


def _key(table: "pd.DataFrame", tasks: "pd.DataFrame") -> str:
    words = (
        "Above the gap AUC, below it balanced accuracy. Lines: 95 % bootstrap intervals over "
        f"{table['resample'].iloc[0]}. SEAL is filled where its paired difference to the frozen encoder is found after "
        "Holm's correction, open where it is not."
    )
    null = " Null: simulated without any signal; what differs there is noise." if NULL in set(tasks["strength"]) else ""
    return textwrap.fill(words + null, 165)


def _draw_encoders(
    figure: "SubFigure", rows: "pd.DataFrame", tasks: "pd.DataFrame", names: dict[str, str], looks: dict[str, Look]
) -> None:
    """A panel an encoder, a row a task; chance and oracle as bars across a row."""
    panels = figure.subplots(1, len(names), sharex=True, squeeze=False)[0]
    y = dict(zip(tasks.index, np.arange(len(tasks)) + (tasks["metric"] != "macro-ovr-auc"), strict=True))
    at = np.array(list(y.values()))
    for axes, (encoder, name) in zip(panels, names.items(), strict=True):
        for column, colour, words in (("chance", GREY, "chance"), ("oracle", BLACK, "oracle (simulated truth)")):
            if tasks[column].notna().any():
                axes.vlines(tasks[column], at - 0.42, at + 0.42, color=colour, lw=1.0, zorder=1, label=words)
        for row in choose_rows(rows, encoder=encoder).itertuples():
            look, is_first = looks[row.method], row.kind == "encoder"
            place = y[row.task] + (-0.18 if is_first else 0.18)
            axes.plot([row.low, row.high], [place, place], color=look.colour, lw=0.9, zorder=2)
            face = look.colour if is_first or row.verdict == FOUND else "white"
            axes.plot(row.mean, place, look.marker, ms=3.4, mfc=face, mec=look.colour, mew=0.8, zorder=3)
        for look in (look for look in looks.values() if look.kind in ("encoder", "adapted")):
            axes.plot([], [], look.marker, ms=3.4, color=look.colour, label=look.label)
        axes.set_title(name.replace(", ", ",\n", 1), loc="center", weight="normal")
        labels = [f"{name_task(task, row.strength)}" for task, row in tasks.iterrows()]
        axes.set_yticks(at, labels if axes is panels[0] else [""] * len(labels))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(at.max() + 0.7, -0.7)
        axes.grid(axis="x")
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel("score")
