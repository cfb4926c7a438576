"""E1 and E2: slide-level tasks one by one; what SEAL changes (E1), and molecular tasks by encoder (E2)."""

import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from figures import slides
from figures.F3_patch_level import Contrast, draw_interval
from figures.slides import choose_pair, choose_rows
from figures.style import BLACK, DOUBLE, GREY, MARKERS, Look, block_title, method_looks, new_figure, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

LEAST = 0.05  # a base below this is too near zero for anything to be relative to it
REACH = 100.0  # %, how far the axis of relative changes goes
STNET, RIVALS = "stnet", ("seal", "pathomclip")  # how the methods of E1 B begin: a name, and how it was probed
AUC = "macro-ovr-auc"
Drawn = list[tuple[Look, "pd.DataFrame"]]  # of each method or encoder its look, and its differences by task


@style()
def relative_figure(slide_level_summary: "pd.DataFrame", encoders: "pd.DataFrame") -> "Figure":
    """Draw E1: A, SEAL against each frozen encoder on morphology and IHC; B, SEAL and PathOmCLIP against ST-Net.

    Left, the change in percent of the other's score (difference / base, the interval's ends divided by the same base)
    where that score is at least `LEAST`; right, the same paired differences as they are, of every task.
    """
    table = choose_rows(slide_level_summary, model="abmil")
    names, looks = slides.label_encoders(encoders, table), method_looks(table)
    pairs = choose_rows(choose_pair(table), group="morphology", kind="adapted")
    slides.require_rows(pairs, "tasks of morphology and IHC")
    first: Drawn = []  # the encoders' marks differ; their colour is SEAL's
    for (encoder, rows), mark in zip(pairs.groupby("encoder", sort=False), ("o", *MARKERS), strict=False):
        first.append((replace(looks[rows["method"].iloc[0]], label=names[encoder], marker=mark), rows))
    rows = table[table["against"].fillna("").str.startswith(STNET) & (table["group"] != "morphology")]
    by_method = slides.require_rows(rows, "a comparison with ST-Net").groupby("method", sort=False)
    second = [(looks[method], own) for method, own in by_method if method.startswith(RIVALS)]
    heights = [24 + (1.3 + 1.7 * len(first)) * len(first[0][1]), 24 + 3.1 * (len(second[0][1]) + 3)]
    figure = new_figure(DOUBLE, sum(heights))
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    block_title(upper, f"A  {slides.GROUPS['morphology']}: SEAL against each encoder as it comes, ABMIL")
    stnet = table.loc[table["method"].str.startswith(STNET), "label"].iloc[0]
    block_title(lower, f"B  {slides.GROUPS['all']}: against {stnet}, ABMIL, {next(iter(names.values()))}")
    _draw_changes(upper, first)
    _draw_changes(lower, second)
    figure.draw_without_rendering()
    return figure


def _draw_changes(figure: "SubFigure", drawn: Drawn) -> None:
    """Relative changes beside differences, a row a task; of several groups, sorted by the first difference in each."""
    left, right = figure.subplots(1, 2)
    tasks = drawn[0][1].set_index("task")
    groups = [tasks[tasks["group"] == group] for group in dict.fromkeys(tasks["group"])]
    if len(groups) > 1:
        groups = [own.sort_values("difference", ascending=False) for own in groups]
    lines = [name for own in groups for name in (slides.GROUPS[own["group"].iloc[0]], *own.index)][len(groups) == 1 :]
    for i, (look, rows) in enumerate(drawn):
        for row in rows.itertuples():
            y, values = lines.index(row.task), np.array([getattr(row, name) for name in slides.DIFFERENCE])
            y += 0.7 * ((i + 0.5) / len(drawn) - 0.5)
            draw_interval(right, y, Contrast(look.label, row.method, *values), look, np.inf)
            if row.base >= LEAST:
                draw_interval(left, y, Contrast(look.label, row.method, *100 * values / row.base), look, REACH)
        left.plot([], [], look.marker, ms=3.2, color=look.colour, label=look.label)
    every = np.stack([rows.set_index("task")["base"].reindex(tasks.index) for _, rows in drawn])  # [drawn, tasks]
    for task, bases in zip(tasks.index, every.T, strict=True):
        if (low := bases[bases < LEAST]).size:
            ends = " to ".join(dict.fromkeys(f"{end:.2f}" for end in (low.min(), low.max())))
            text = f"none, base {ends}".replace("-", "\N{MINUS SIGN}")
            y = lines.index(task) + (0.35 if low.size < bases.size else 0)  # below the lines of others
            left.text(3 - REACH, y, text, va="center", fontsize=6, color=GREY)
    for axes, title in ((left, "Relative change"), (right, "Difference")):
        _name_rows(axes, lines, tasks, axes is left)
        axes.axvline(0, color=BLACK, lw=0.8, ls="--", zorder=0)
        axes.set_title(title, weight="normal", pad=14)
    left.set(xlim=(-REACH, REACH), xlabel="% of the other's score, the base")
    right.set(xlabel="each task in its own metric")
    left.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=len(drawn), columnspacing=1.2).set_in_layout(False)


def _name_rows(axes: "Axes", lines: list[str], tasks: "pd.DataFrame", is_first: bool, metric: bool = True) -> None:
    """Name each row, in the first of the panels; in bold what is no task."""
    names = {task: slides.name_task(task, row["strength"]) for task, row in tasks.iterrows()}
    if metric:
        names = {task: f"{name}, {slides.METRICS[tasks['metric'][task]]}" for task, name in names.items()}
    axes.set_yticks(range(len(lines)), [names.get(line, line) if is_first else "" for line in lines], fontsize=6)
    for label, line in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_weight("normal" if line in names else "bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(lines) - 0.3, -0.7)
    axes.grid(axis="x")


@style()
def molecular_figure(slide_level_summary: "pd.DataFrame", encoders: "pd.DataFrame") -> "Figure":
    """Draw E2: the molecular tasks, a column an encoder, frozen and with SEAL; A, ABMIL; B, mean MIL."""
    table = slides.require_rows(choose_pair(choose_rows(slide_level_summary, group="molecular")), "molecular tasks")
    tasks = slides.find_truth(table).sort_values("metric", key=lambda metric: metric != AUC, kind="stable")
    parts = {"A  ABMIL": choose_rows(table, model="abmil"), "B  Mean MIL": choose_rows(table, model="mean")}
    parts = {title: rows for title, rows in parts.items() if len(rows)}
    key = (
        f"Lines: 95 % bootstrap intervals over {table['resample'].iloc[0]}. SEAL is filled where its difference to "
        "the frozen encoder is found after Holm's correction, open where it is not."
    )
    if slides.NULL in set(tasks["strength"]):
        key += " Null: simulated without any signal; what differs there is noise."
    figure = new_figure(DOUBLE, len(parts) * (14 + 3.6 * (len(tasks) + 2)) + 14)
    blocks = np.atleast_1d(figure.subfigures(len(parts), 1))
    for block, (title, rows) in zip(blocks, parts.items(), strict=True):
        block_title(block, title)
        _draw_encoders(block, rows, tasks, slides.label_encoders(encoders, rows))
    blocks[0].legend(*blocks[0].axes[0].get_legend_handles_labels(), loc="upper right", ncols=4)
    blocks[-1].supxlabel(textwrap.fill(key, 165), x=0.005, ha="left", fontsize=6, color=GREY)
    figure.draw_without_rendering()
    return figure


def _draw_encoders(figure: "SubFigure", rows: "pd.DataFrame", tasks: "pd.DataFrame", names: dict[str, str]) -> None:
    """A panel an encoder, a row a task; chance and oracle as bars across a row."""
    panels, looks = figure.subplots(1, len(names), sharex=True, squeeze=False)[0], method_looks(rows)
    aucs = tasks.index[tasks["metric"] == AUC]
    lines = ["AUC", *aucs, "Balanced accuracy", *tasks.index.difference(aucs, sort=False)]
    y = np.array([lines.index(task) for task in tasks.index])
    for axes, (encoder, name) in zip(panels, names.items(), strict=True):
        for column, colour, words in (("chance", GREY, "chance"), ("oracle", BLACK, "oracle (simulated truth)")):
            if tasks[column].notna().any():
                axes.vlines(tasks[column], y - 0.42, y + 0.42, color=colour, lw=1.0, zorder=1, label=words)
        for row in choose_rows(rows, encoder=encoder).itertuples():
            look, is_first = looks[row.method], row.kind == "encoder"
            place = lines.index(row.task) + (-0.18 if is_first else 0.18)
            axes.plot([row.low, row.high], [place, place], color=look.colour, lw=0.9, zorder=2)
            face = look.colour if is_first or row.verdict == "found" else "white"
            axes.plot(row.mean, place, look.marker, ms=3.4, mfc=face, mec=look.colour, mew=0.8, zorder=3)
        for look in looks.values():
            axes.plot([], [], look.marker, ms=3.4, color=look.colour, label=look.label)
        axes.set_title(slides.break_label(name, 20), loc="center", weight="normal")
        _name_rows(axes, lines, tasks, axes is panels[0], metric=False)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel("score")
