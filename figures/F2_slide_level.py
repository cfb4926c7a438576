"""F2: slide-level tasks by group, encoders frozen and with SEAL (A), and SEAL beside its rivals and controls (B)."""

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from figures import slides
from figures.F3_patch_level import Contrast, draw_interval, find_reach
from figures.slides import choose_pair, choose_rows
from figures.style import BLACK, DOUBLE, GREEN, GREY, LIGHT, LINES, ORANGE, block_title, method_looks, new_figure, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from figures.style import Look

MODEL = "abmil"
COLUMNS = ("molecular", "pathway", "response", "all")
ROW = 4.6  # mm, two lines of a label
# What is counted of the tasks -> its colour and words; "rest" would have shown a difference that matters.
VERDICTS = {"found": (GREEN, "better"), "lost": (ORANGE, "worse"), "rest": (LIGHT, "no difference that matters")}
VERDICTS |= {"undecided": ("white", "undecidable at this n")}
Lines = list["str | pd.Series"]  # from top to bottom: rows of the groups' table, and titles above a few of them


@style()
def slide_level_figure(
    slide_level_summary: "pd.DataFrame", slide_level_groups: "pd.DataFrame", encoders: "pd.DataFrame"
) -> "Figure":
    """Draw F2: A, encoders frozen and with SEAL, and what SEAL changes; B, methods minus the frozen main encoder.

    A column a group of tasks; the last one counts the verdicts on single tasks. Rivals and controls are of the first
    encoder, the main one.

    Parameters
    ----------
    slide_level_summary
        Single tasks, drawn as ticks and faint lines; their chance and, where simulated, the oracle's score.
    slide_level_groups
        Means of groups and paired differences with 95 % intervals, and verdicts counted.
    """
    tasks, groups = (choose_rows(table, model=MODEL) for table in (slide_level_summary, slide_level_groups))
    looks, names = method_looks(tasks), slides.label_encoders(encoders, groups)
    for group in COLUMNS:
        slides.require_rows(choose_rows(groups, group=group), f"the group {group}")
    blocks, key = _list_lines(choose_rows(groups, group=COLUMNS[-1]), names), _key(tasks, groups)
    heights = [16 + ROW * len(lines) for lines in blocks.values()]
    heights[0] = max(heights[0] + 4, 42)  # its titles have two lines, its key has nine
    heights[-1] += 3 * (1 + key.count("\n"))
    figure = new_figure(DOUBLE, sum(heights) + 6)
    parts = figure.subfigures(len(blocks), 1, height_ratios=heights)
    for part, (title, lines) in zip(parts, blocks.items(), strict=True):
        block_title(part, title)
        if part is parts[0]:
            _draw_scores(part, lines, tasks, groups, looks)
        else:
            _draw_differences(part, lines, groups, looks)
    parts[-1].supxlabel(key, x=0.005, ha="left", fontsize=6, color=GREY)
    figure.draw_without_rendering()
    return figure


def _list_lines(groups: "pd.DataFrame", names: dict[str, str]) -> dict[str, Lines]:
    """Title of a block -> its lines, of the rows of one group."""
    rows = lambda table: [row for _, row in table.iterrows()]  # noqa: E731
    main, pairs, adapted = next(iter(names)), choose_pair(groups), choose_rows(groups, kind="adapted")
    gains = choose_rows(adapted, against="frozen")
    controls = choose_rows(groups, kind="control").drop_duplicates("method").set_index("method")["label"]
    beyond = adapted[(adapted["encoder"] == main) & adapted["against"].isin(controls.index)]
    scores = [line for encoder, name in names.items() for line in (name, *rows(choose_rows(pairs, encoder=encoder)))]
    changes = ["SEAL minus frozen", *rows(gains.assign(label=gains["encoder"].map(names)))]
    changes += ["SEAL minus controls", *rows(beyond.assign(label=beyond["against"].map(controls)))]
    methods = ["minus frozen", *rows(choose_rows(groups, encoder=main, against="frozen"))]
    return {
        f"A  Encoders frozen and with SEAL, slides pooled by {slides.MODELS[MODEL]}": scores,
        "What SEAL changes: paired differences": changes if len(beyond) else changes[:-1],
        f"B  Methods beside {names[main]} as it comes: paired differences": methods,
    }


def _draw_scores(
    figure: "SubFigure", lines: Lines, tasks: "pd.DataFrame", groups: "pd.DataFrame", looks: dict[str, "Look"]
) -> None:
    """Means with intervals, single tasks as ticks joined from an encoder to its adapted form; chance and oracle."""
    from matplotlib.patches import Patch

    panels = figure.subplots(1, len(COLUMNS) + 1)
    scores, truth = choose_pair(tasks), slides.find_truth(tasks)
    for axes, group in zip(panels, COLUMNS, strict=False):
        chosen = truth[truth["group"].isin(COLUMNS if group == "all" else [group])]
        means, single = choose_pair(choose_rows(groups, group=group)), scores[scores["task"].isin(chosen.index)]
        drawn: dict[str, list] = {}
        for y, line in ((y, line) for y, line in enumerate(lines) if not isinstance(line, str)):
            own = {"encoder": line["encoder"], "method": line["method"]}
            row, look = choose_rows(means, **own).iloc[0], looks[line["method"]]
            values = choose_rows(single, **own).set_index("task")["mean"].reindex(chosen.index)
            drawn.setdefault(line["encoder"], []).append((y, values))
            axes.plot(values, [y] * len(values), "|", ms=4, mew=0.5, color=look.colour, alpha=0.5, zorder=2)
            axes.plot(row["mean"], y, look.marker, ms=5, color=look.colour, mec="white", label=look.label, zorder=4)
            axes.plot([row["low"], row["high"]], [y, y], color=BLACK, lw=0.9, zorder=5)
        for own in drawn.values():
            y, values = zip(*own, strict=True)
            axes.plot(np.stack(values), y, color=LIGHT, lw=0.4, label="a task", zorder=1)
        axes.axvline(chosen["chance"].mean(), color=GREY, lw=0.9, ls=LINES[0], label="chance", zorder=0)
        if chosen["oracle"].notna().all():  # a mean over fewer would be of other tasks
            look = {"color": BLACK, "lw": 0.9, "ls": LINES[1], "label": "oracle (simulated truth)"}
            axes.axvline(chosen["oracle"].mean(), **look, zorder=0)
        _finish(axes, lines, f"{slides.GROUPS[group]}\n{len(chosen)} tasks", axes is panels[0])
        axes.set_xlabel("mean score")
    known = {label: mark for axes in panels for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    known |= {"Verdicts:": Patch(alpha=0)} | {words: Patch(fc=fc, ec=GREY, lw=0.5) for fc, words in VERDICTS.values()}
    place = {"loc": "center left", "bbox_to_anchor": (-0.1, 0.5), "borderpad": 0, "labelspacing": 0.25}
    panels[-1].legend(known.values(), known.keys(), **place)
    panels[-1].set_axis_off()


def _draw_differences(figure: "SubFigure", lines: Lines, groups: "pd.DataFrame", looks: dict[str, "Look"]) -> None:
    panels = figure.subplots(1, len(COLUMNS) + 1)
    rows = {y: line for y, line in enumerate(lines) if not isinstance(line, str)}
    for axes, group in zip(panels, COLUMNS, strict=False):
        own, shown = choose_rows(groups, group=group), {}
        for y, line in rows.items():
            row = choose_rows(own, **{name: line[name] for name in ("encoder", "method", "against")}).iloc[0]
            shown[y] = Contrast(row["label"], row["method"], *row[slides.DIFFERENCE])
        reach = find_reach(list(shown.values()), looks)
        for y, contrast in shown.items():
            draw_interval(axes, y, contrast, looks[contrast.method], reach)
        axes.axvline(0, color=BLACK, lw=0.8, ls="--", zorder=0)
        _finish(axes, lines, slides.GROUPS[group], axes is panels[0])
        axes.set(xlim=(-reach, reach), xlabel="difference")
    for y, line in rows.items():
        left, counts = 0, {name: int(line[name]) for name in ("found", "lost", "undecided")}
        counts["rest"] = int(line["tasks"]) - sum(counts.values())
        for name, (colour, _) in VERDICTS.items():
            panels[-1].barh(y, counts[name], 0.75, left, fc=colour, ec=GREY, lw=0.5)
            if counts[name]:
                where = left + counts[name] / 2
                panels[-1].text(where, y, str(counts[name]), ha="center", va="center", fontsize=6)
            left += counts[name]
    _finish(panels[-1], lines, "Verdicts by task", False)
    panels[-1].set(xlim=(0, left), xlabel=f"of {left} tasks")


def _finish(axes: "Axes", lines: Lines, title: str, is_first: bool) -> None:
    """Title, and rows from top to bottom, named in the first column; in bold what stands over a few of them."""
    names = [slides.break_label(line if isinstance(line, str) else line["label"]) for line in lines]
    axes.set_yticks(range(len(lines)), names if is_first else [""] * len(lines), fontsize=6, linespacing=0.9)
    for label, line in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_weight("bold" if isinstance(line, str) else "normal")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.locator_params(axis="x", nbins=4)
    axes.set_title(title, loc="center", weight="normal")


def _key(tasks: "pd.DataFrame", groups: "pd.DataFrame") -> str:
    metrics = ", ".join(slides.METRICS.get(metric, metric) for metric in dict.fromkeys(tasks["metric"]))
    return textwrap.fill(
        f"A mean is over a group's tasks, each in its own metric ({metrics}). Lines: 95 % bootstrap intervals over "
        f"{groups['resample'].iloc[0]}, drawn anew for all tasks alike, those of differences widened for other "
        f"training cases; seeds {groups['seeds'].max()}. Verdicts: after Holm's correction within a group of tasks. "
        "Arrowheads: beyond the axis. Grey: controls, of the first encoder.",
        165,
    )
