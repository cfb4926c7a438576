"""F2: slide-level tasks by group, every encoder frozen and with SEAL (A), and SEAL beside its rivals and controls (B).

A column a group of tasks; the last one counts what can be said task by task.
"""

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from figures.F3_patch_level import Contrast, draw_interval, find_reach
from figures.slides import (
    DIFFERENCE,
    GROUPS,
    METRICS,
    MODELS,
    Compared,
    choose_rows,
    choose_scores,
    find_truth,
    label_encoders,
)
from figures.style import BLACK, DOUBLE, GREEN, GREY, LIGHT, ORANGE, Look, block_title, method_looks, new_figure, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

MODEL = "abmil"
COLUMNS = ("molecular", "pathway", "response", "all")
ROW = 4.6  # mm, two lines of a label
LONG = 26  # characters of a label; a longer one is broken at its comma
DASHED, DOTTED = (0, (4, 1.5)), (0, (1, 1.2))
# What is counted of the tasks -> its colour: the rest would have shown a difference that matters, and did not.
VERDICTS = {"found": GREEN, "lost": ORANGE, "rest": LIGHT, "undecided": "white"}
WORDS = {"found": "better", "lost": "worse", "rest": "no difference that matters", "undecided": "undecidable"}


@style()
def slide_level_figure(
    slide_level_summary: "pd.DataFrame", slide_level_groups: "pd.DataFrame", encoders: "pd.DataFrame"
) -> "Figure":
    """Draw F2: A, encoders frozen and with SEAL, and what SEAL changes; B, methods against the frozen main encoder.

    Parameters
    ----------
    slide_level_summary
        Scores of single tasks, drawn as ticks and faint lines; their chance and, where simulated, the oracle's score.
    slide_level_groups
        Means of groups and paired differences with 95 % intervals, and verdicts counted. The first encoder is the
        main one: controls and rivals are its.
    encoders
        Labels.
    """
    tasks = choose_rows(slide_level_summary, model=MODEL)
    groups = choose_rows(slide_level_groups, model=MODEL)
    looks, names = method_looks(tasks), label_encoders(encoders, list(dict.fromkeys(groups["encoder"])))
    columns = [group for group in COLUMNS if group in set(groups["group"])]
    lines = {"scores": _score_lines(groups, names), "gains": _gain_lines(groups, names)}
    lines["rivals"] = _rival_lines(groups, names)
    key = _key(tasks, groups)
    heights = {name: 15 + ROW * len(own) for name, own in lines.items()}
    heights["rivals"] += 3 * (1 + key.count("\n"))
    figure = new_figure(DOUBLE, sum(heights.values()) + 6)
    parts = dict(zip(heights, figure.subfigures(3, 1, height_ratios=list(heights.values())), strict=True))
    block_title(parts["scores"], f"A  Encoders frozen and with SEAL, slides pooled by {MODELS[MODEL]}")
    block_title(parts["gains"], "What SEAL changes: paired differences")
    block_title(parts["rivals"], f"B  Methods beside {next(iter(names.values()))} as it comes: paired differences")
    _draw_scores(parts["scores"], lines["scores"], columns, tasks, groups, looks)
    for name in ("gains", "rivals"):
        _draw_differences(parts[name], lines[name], columns, groups, looks)
    parts["rivals"].supxlabel(key, x=0.005, ha="left", fontsize=6, color=GREY)
    figure.draw_without_rendering()
    return figure


def _score_lines(groups: "pd.DataFrame", names: dict[str, str]) -> list[str | Compared]:
    """Rows of scores: of each encoder its name, itself and its adapted form."""
    lines: list[str | Compared] = []
    for encoder, name in names.items():
        own = choose_scores(choose_rows(groups, encoder=encoder))
        own = own[own["kind"].isin(["encoder", "adapted"])].drop_duplicates("method")
        lines += [name, *(Compared(encoder, row.method, "frozen", row.label) for row in own.itertuples())]
    return lines


def _gain_lines(groups: "pd.DataFrame", names: dict[str, str]) -> list[str | Compared]:
    """Rows of the adapted encoders' differences: to each frozen one, then the main one's to its controls."""
    adapted = groups[groups["kind"] == "adapted"].drop_duplicates(["encoder", "method", "against"])
    lines: list[str | Compared] = ["minus frozen"]
    lines += [
        Compared(row.encoder, row.method, row.against, names[row.encoder])
        for row in choose_rows(adapted, against="frozen").itertuples()
    ]
    labels = groups[groups["kind"] == "control"].drop_duplicates("method").set_index("method")["label"]
    own = adapted[(adapted["encoder"] == next(iter(names))) & adapted["against"].isin(labels.index)]
    lines += [f"{'first encoder ' if len(names) > 1 else ''}minus controls"] if len(own) else []
    return lines + [Compared(row.encoder, row.method, row.against, labels[row.against]) for row in own.itertuples()]


def _rival_lines(groups: "pd.DataFrame", names: dict[str, str]) -> list[str | Compared]:
    """Rows of every method of the main encoder, minus it frozen."""
    own = choose_rows(groups, encoder=next(iter(names)), against="frozen").drop_duplicates("method")
    return ["minus frozen", *(Compared(row.encoder, row.method, row.against, row.label) for row in own.itertuples())]


def _draw_scores(
    figure: "SubFigure",
    lines: list[str | Compared],
    columns: list[str],
    tasks: "pd.DataFrame",
    groups: "pd.DataFrame",
    looks: dict[str, Look],
) -> None:
    """Means with intervals, single tasks as ticks joined from an encoder to its adapted form; chance and oracle."""
    panels = figure.subplots(1, len(columns) + 1)
    scores, truth = choose_scores(tasks), find_truth(tasks)
    for axes, group in zip(panels, columns, strict=False):
        chosen = truth if group == "all" else truth[truth["group"] == group]
        chosen = chosen[chosen["group"].isin(COLUMNS)]
        means = choose_scores(groups[groups["group"] == group])
        _draw_tasks(axes, lines, scores[scores["task"].isin(chosen.index)], looks)
        for y, line in enumerate(lines):
            if isinstance(line, Compared):
                row = choose_rows(means, encoder=line.encoder, method=line.method).iloc[0]
                look = looks[line.method]
                axes.plot(row["mean"], y, look.marker, ms=4.5, mfc=look.colour, mec="white", mew=0.5, zorder=4)
                axes.plot([row["low"], row["high"]], [y, y], color=BLACK, lw=0.9, zorder=5)
        axes.axvline(chosen["chance"].mean(), color=GREY, lw=0.9, ls=DASHED, zorder=0)
        if chosen["oracle"].notna().all():  # a mean over fewer tasks would be of others
            axes.axvline(chosen["oracle"].mean(), color=BLACK, lw=0.9, ls=DOTTED, zorder=0)
        axes.set_title(f"{GROUPS[group]}\n{len(chosen)} tasks", loc="center", weight="normal")
        _finish(axes, lines, axes is panels[0])
        axes.set_xlabel("mean score")
    _draw_key(panels[-1], looks, truth["oracle"].notna().any())


def _draw_tasks(axes: "Axes", lines: list, scores: "pd.DataFrame", looks: dict[str, Look]) -> None:
    by_encoder: dict[str, list[tuple[int, str]]] = {}
    for y, line in enumerate(lines):
        if isinstance(line, Compared):
            by_encoder.setdefault(line.encoder, []).append((y, line.method))
    for encoder, rows in by_encoder.items():
        own = choose_rows(scores, encoder=encoder)
        values = np.stack(
            [own[own["method"] == m].set_index("task")["mean"].reindex(own["task"].unique()) for _, m in rows]
        )
        axes.plot(values, [y for y, _ in rows], color=LIGHT, lw=0.4, zorder=1)
        for (y, method), at in zip(rows, values, strict=True):
            axes.plot(at, np.full(len(at), y), "|", ms=4, mew=0.5, color=looks[method].colour, alpha=0.5, zorder=2)


def _draw_key(axes: "Axes", looks: dict[str, Look], is_known: bool) -> None:
    """What the marks of the scores and the colours of the verdicts mean, in place of a column."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shown = [look for look in looks.values() if look.kind in ("encoder", "adapted")]
    marks = [Line2D([], [], ls="", marker=look.marker, color=look.colour, label=look.label) for look in shown]
    marks += [Line2D([], [], color=LIGHT, lw=0.8, label="a task")]
    marks += [Line2D([], [], color=GREY, ls=DASHED, label="chance")]
    marks += [Line2D([], [], color=BLACK, ls=DOTTED, label="oracle (simulated truth)")] if is_known else []
    marks += [Line2D([], [], ls="", label="Verdicts:")]
    marks += [Patch(fc=colour, ec=GREY, lw=0.5, label=WORDS[name]) for name, colour in VERDICTS.items()]
    axes.legend(handles=marks, loc="center left", bbox_to_anchor=(-0.1, 0.5), borderpad=0, labelspacing=0.25)
    axes.set_axis_off()


def _draw_differences(
    figure: "SubFigure", lines: list[str | Compared], columns: list[str], groups: "pd.DataFrame", looks: dict[str, Look]
) -> None:
    panels = figure.subplots(1, len(columns) + 1)
    rows = {y: line for y, line in enumerate(lines) if isinstance(line, Compared)}
    for axes, group in zip(panels, columns, strict=False):
        own = groups[groups["group"] == group]
        shown = {y: _contrast(own, line) for y, line in rows.items()}
        reach = find_reach(list(shown.values()), looks)
        for y, contrast in shown.items():
            draw_interval(axes, y, contrast, looks[contrast.method], reach)
        axes.axvline(0, color=BLACK, lw=0.8, ls="--", zorder=0)
        axes.set_title(GROUPS[group], loc="center", weight="normal")
        _finish(axes, lines, axes is panels[0])
        axes.set(xlim=(-reach, reach), xlabel="difference")
    _draw_verdicts(panels[-1], lines, rows, groups[groups["group"] == columns[-1]])


def _pick(groups: "pd.DataFrame", line: Compared) -> "pd.Series":
    return choose_rows(groups, encoder=line.encoder, method=line.method, against=line.against).iloc[0]


def _contrast(groups: "pd.DataFrame", line: Compared) -> Contrast:
    return Contrast(line.label, line.method, *_pick(groups, line)[DIFFERENCE])


def _draw_verdicts(axes: "Axes", lines: list, rows: dict[int, Compared], groups: "pd.DataFrame") -> None:
    """How many tasks are found better, worse, without a difference that matters, or cannot be decided."""
    for y, line in rows.items():
        row, left = _pick(groups, line), 0.0
        counts = {name: int(row[name]) for name in ("found", "lost", "undecided")}
        counts["rest"] = int(row["tasks"]) - sum(counts.values())
        for name, colour in VERDICTS.items():
            axes.barh(y, counts[name], 0.75, left, fc=colour, ec=GREY, lw=0.5)
            if counts[name]:
                axes.text(left + counts[name] / 2, y, str(counts[name]), ha="center", va="center", fontsize=6)
            left += counts[name]
    axes.set_title("Verdicts on single tasks", loc="center", weight="normal")
    _finish(axes, lines, False)
    axes.grid(visible=False)
    axes.set(xlim=(0, left), xlabel=f"of {left:.0f} tasks")


def _finish(axes: "Axes", lines: list[str | Compared], is_first: bool) -> None:
    """Rows from top to bottom, named in the first column; in bold what stands over a few of them."""
    names = [line if isinstance(line, str) else line.label for line in lines]
    names = [name if len(name) <= LONG else name.replace(", ", ",\n", 1) for name in names]
    axes.set_yticks(range(len(lines)), names if is_first else [""] * len(lines), fontsize=6, linespacing=0.9)
    for label, line in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_weight("bold" if isinstance(line, str) else "normal")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.locator_params(axis="x", nbins=4)


def _key(tasks: "pd.DataFrame", groups: "pd.DataFrame") -> str:
    metrics = ", ".join(METRICS.get(metric, metric) for metric in dict.fromkeys(tasks["metric"]))
    first = groups.iloc[0]
    return textwrap.fill(
        f"A mean is over a group's tasks, each in its own metric ({metrics}). Lines: 95 % bootstrap intervals over "
        f"{first['resample']}, drawn anew for all tasks alike; seeds {groups['seeds'].max()}. Verdicts: Holm's "
        "correction within a group of tasks. Arrowheads: beyond the axis. Grey: controls.",
        165,
    )
