"""F3: correlation of predicted with measured expression, of encoders, by organ, and of the baselines.

Methods stand in the order of the results and look as their kind says; none is known here by name.
"""

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from figures.F3_hest_bench import hest_bench_panel
from figures.markdown import interval_text
from figures.style import BLACK, DOUBLE, GREY, Look, method_looks, new_figure, panel_title, style
from seal.errors import SealError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

LARGEST = 100.0  # pt^2, the circle of the encoder with the most parameters
SMALL = 30.0  # pt^2, every other mark, and all of them where there is one encoder
CROWDED = 6  # organs; of more, the names are slanted
ZOOM = 1.6  # of the widest interval of an adapted encoder's differences: how far their axis reaches on both sides


@dataclass(frozen=True)
class Contrast:
    """A paired difference of two methods, with its interval."""

    label: str
    method: str
    difference: float
    low: float
    high: float


@style()
def patch_level_figure(
    patch_level: "pd.DataFrame",
    patch_level_summary: "pd.DataFrame",
    encoders: "pd.DataFrame",
    hest_bench_summary: "pd.DataFrame | None" = None,
    baselines: "pd.DataFrame | None" = None,
) -> "Figure":
    """Draw F3: A, encoders with their controls, and by organ; B, HEST-Bench; C, the baselines beside SEAL.

    Parameters
    ----------
    patch_level
        Scores of single donors and seeds, drawn as ticks.
    patch_level_summary
        Means and 95 % intervals; a method's difference is paired with the frozen encoder of the same name. Where there
        are columns control, control_difference, control_low and control_high, an adapted encoder's difference to the
        method `control` is drawn too, and a baseline's in its place. The first encoder is the main one: the organs and
        the baselines are its.
    encoders
        Labels and parameters; of several encoders, a circle's area is the number of parameters.
    hest_bench_summary
        Drawn as B where it is there, see `hest_bench_panel`.
    baselines
        Drawn as C where it is there: as `patch_level_summary`, on folds of its own; a difference is to SEAL.
    """
    table = _named(patch_level_summary, encoders)
    scores = _named(patch_level, encoders).merge(table[["encoder", "method"]].drop_duplicates())
    looks = method_looks(table)
    is_main, is_truth = table["encoder"] == table["encoder"].iloc[0], table["kind"] == "truth"
    truth, overall = table[is_truth], table[(table["organ"] == "all") & ~is_truth]
    organs = table[is_main & ~is_truth & (table["organ"] != "all") & table["method"].isin(_compared(table))]
    lines, key = _contrasts(overall), _key(overall, truth)
    rivals = None if baselines is None else _choose_rivals(_named(baselines, encoders))
    heights = {"methods": 17 + max(4.0 * len(_grouped(overall)), 3.3 * len(lines))}
    heights |= {"organs": 40.0} if len(organs["organ"].unique()) > 1 else {}  # one organ is what A shows already
    heights |= {} if hest_bench_summary is None else {"bench": 46.0}
    heights |= {} if rivals is None else {"rivals": 14 + 3.5 * len(rivals)}
    last = "rivals" if "rivals" in heights else "organs" if "organs" in heights else "methods"  # that the key speaks of
    heights[last] += 3 * (1 + key.count("\n"))
    figure = new_figure(DOUBLE, sum(heights.values()) + 6)
    blocks = np.atleast_1d(figure.subfigures(len(heights), 1, height_ratios=list(heights.values())))
    parts = dict(zip(heights, blocks, strict=True))
    left, right = parts["methods"].subplots(1, 2, width_ratios=[1.35, 1])
    _draw_means(left, overall, scores, looks)
    panel_title(left, "A", f"Unseen tissue: {overall['tested'].iloc[0]}")
    _draw_truth(left, truth[truth["organ"] == "all"], looks)
    _draw_contrasts(right, lines, looks)
    panel_title(right, "", "Differences, with 95 % intervals")
    if "organs" in parts:
        of_main = scores[scores["encoder"] == table["encoder"].iloc[0]]
        short = [rows.assign(row=rows["label"]) for rows in (organs, truth[truth["organ"] != "all"], of_main)]
        _draw_organs(parts["organs"].subplots(), *short, looks)
    if "bench" in parts:
        hest_bench_panel(parts["bench"], hest_bench_summary)
    if "rivals" in parts:
        _draw_baselines(parts["rivals"], rivals)
    parts[last].supxlabel(key, x=0.005, ha="left", fontsize=6, color=GREY)
    figure.draw_without_rendering()
    return figure


def _compared(table: "pd.DataFrame") -> set[str]:
    """The encoder, SEAL, and the controls that SEAL is compared with: more would not be told apart organ by organ."""
    chosen = table["kind"].isin(["encoder", "adapted"])
    if "control" not in table:
        return set(table.loc[chosen, "method"])
    return {*table.loc[chosen | table["control"].notna(), "method"], *table["control"].dropna()}


def _named(table: "pd.DataFrame", encoders: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of the correlation with their encoder's label and parameters, and the name of their line, `row`."""
    known = encoders[["name", "label", "parameters", "trainable"]].rename(
        columns={"name": "encoder", "label": "encoder_label"}
    )
    table = table[table["metric"] == "pcc"].merge(known, on="encoder", how="left")
    if unknown := sorted(set(table.loc[table["encoder_label"].isna(), "encoder"])):
        do = "run notebook 00 again"
        raise SealError(f"encoders.csv lacks {', '.join(unknown)}", expected="every encoder of the results", do=do)
    return table.assign(row=table["encoder_label"] + ": " + table["label"])


def _are_several(table: "pd.DataFrame") -> bool:
    return len(table["encoder"].unique()) > 1


def _grouped(table: "pd.DataFrame") -> list["str | pd.Series"]:
    """Rows of means from top to bottom; of several encoders a title, its label, before each one's."""
    lines: list[str | pd.Series] = []
    for label, rows in table.groupby("encoder_label", sort=False):
        lines += [label] if _are_several(table) else []
        lines += [row for _, row in rows.iterrows()]
    return lines


def _draw_ticks(axes: "Axes", rows: "pd.DataFrame", scores: "pd.DataFrame", looks: dict[str, Look], **where) -> None:
    """Scores of single donors and seeds, a tick each."""
    import seaborn as sns

    palette = [looks[method].colour for method in rows["method"]]
    hues = {"hue": "row", "hue_order": list(rows["row"]), "palette": palette, "legend": False}
    sns.stripplot(scores, **where, **hues, jitter=False, size=5, linewidth=0.5, alpha=0.35, zorder=1, ax=axes)


def _draw_means(axes: "Axes", table: "pd.DataFrame", scores: "pd.DataFrame | None", looks: dict[str, Look]) -> None:
    lines = _grouped(table)
    order = [line if isinstance(line, str) else line["row"] for line in lines]
    if scores is not None:
        _draw_ticks(axes, table, scores, looks, x="value", y="row", order=order, marker="|")
    largest = table["parameters"].max() if _are_several(table) else None  # one size says nothing
    for y, row in enumerate(lines):
        if isinstance(row, str):
            continue
        look = looks[row["method"]]
        area = LARGEST * row["parameters"] / largest if largest and look.kind in ("encoder", "adapted") else SMALL
        axes.scatter([row["mean"]], [y], s=area, marker=look.marker, fc=look.colour, ec="white", lw=0.6, zorder=3)
        axes.plot([row["low"], row["high"]], [y, y], color=BLACK, lw=0.9, zorder=4)  # seen even inside the circle
    axes.set_yticks(range(len(lines)), ["" if isinstance(line, str) else line["label"] for line in lines])
    for y, line in enumerate(lines):
        if isinstance(line, str):
            _write_title(axes, y, line)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    first = table.iloc[0]
    axes.set(xlabel=f"mean PCC over the test genes (donors {first['donors']}, seeds {table['seeds'].max()})", ylabel="")
    axes.grid(axis="x")
    axes.axvline(0, color=BLACK, lw=0.6)


def _write_title(axes: "Axes", y: int, words: str) -> None:
    """Write the title of a group of rows in a row of its own, from the left edge of the axes."""
    axes.text(0.02, y, words, transform=axes.get_yaxis_transform(), va="center", weight="bold", zorder=5).set_bbox(
        {"fc": "white", "ec": "none", "pad": 0.5}
    )


def _draw_truth(axes: "Axes", truth: "pd.DataFrame", looks: dict[str, Look]) -> None:
    """Lines across all methods, named beside the last row; the first to the left of its line, others to the right."""
    truth = truth.drop_duplicates("method")
    for i, row in enumerate(truth.itertuples()):
        axes.axvline(row.mean, color=BLACK, lw=0.9, ls=looks[row.method].line, zorder=0)
        place = {"ha": "left", "xytext": (2, 0)} if i else {"ha": "right", "xytext": (-2, 0)}
        where = (row.mean, axes.get_ylim()[0] - 0.4)
        axes.annotate(row.method, where, textcoords="offset points", va="center", fontsize=6, **place)
    if len(truth):
        axes.set_xlim(right=axes.get_xlim()[0] + 1.1 * (truth["mean"].max() - axes.get_xlim()[0]))


NAMES = ["difference", "difference_low", "difference_high"]
BESIDE = ["control_difference", "control_low", "control_high"]


def _contrasts(table: "pd.DataFrame") -> list[str | Contrast]:
    """What stands in the panel of differences from top to bottom: a title before each group of its rows."""
    lines: list[str | Contrast] = []
    several = _are_several(table)
    for label, rows in table.groupby("encoder_label", sort=False):
        encoder = rows["kind"] == "encoder"
        lines.append(f"{label}: minus frozen" if several else f"minus the {rows.loc[encoder, 'label'].iloc[0]}")
        lines += [Contrast(*values) for values in rows.loc[~encoder, ["label", "method", *NAMES]].to_numpy()]
    if "control" in table:
        for control, rows in table.dropna(subset="control").groupby("control", sort=False):
            lines.append(f"minus {table.loc[table['method'] == control, 'label'].iloc[0]}")
            main = table["encoder_label"].iloc[0]
            names = [label.removeprefix(f"{main}, ") for label in rows["encoder_label"]]
            rows = rows.assign(label=names if several and (rows["kind"] == "adapted").all() else rows["label"])
            lines += [Contrast(*values) for values in rows[["label", "method", *BESIDE]].to_numpy()]
    return lines


def _choose_rivals(table: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of panel C: the encoder, SEAL and its decoder, and the baselines by their own prediction."""
    return table[(table["organ"] == "all") & table["kind"].isin(["encoder", "adapted", "readout", "baseline"])]


def _draw_baselines(figure: "SubFigure", rivals: "pd.DataFrame") -> None:
    """C: methods made to predict expression beside the encoder and SEAL, and their differences to SEAL."""
    left, right = figure.subplots(1, 2, width_ratios=[1.35, 1])
    looks = method_looks(rivals)
    _draw_means(left, rivals, None, looks)
    panel_title(left, "C", f"Methods made to predict expression: {rivals['tested'].iloc[0]}")
    adapted = rivals.loc[rivals["kind"] == "adapted", "label"].iloc[0]
    others = rivals[~rivals["kind"].isin(["encoder", "adapted"])]
    lines = [f"minus {adapted}", *(Contrast(*row) for row in others[["label", "method", *BESIDE]].to_numpy())]
    _draw_contrasts(right, lines, looks)


def find_reach(lines: list[str | Contrast], looks: dict[str, Look]) -> float:
    """How far the axis goes to both sides: wide enough for what training gains, far below the distance of a control."""
    rows = [line for line in lines if isinstance(line, Contrast)]
    chosen = [row for row in rows if looks[row.method].kind in ("adapted", "readout", "baseline")] or rows
    return ZOOM * max(float(np.nanmax(np.abs([row.difference, row.low, row.high]))) for row in chosen) or 1.0


def _draw_contrasts(axes: "Axes", lines: list[str | Contrast], looks: dict[str, Look]) -> None:
    reach = find_reach(lines, looks)
    across = axes.get_yaxis_transform()
    for y, line in enumerate(lines):
        if isinstance(line, str):
            _write_title(axes, y, line)
            continue
        look = looks[line.method]
        draw_interval(axes, y, line, look, reach)
        text = interval_text(line.difference, line.low, line.high, "+").replace("-", "\N{MINUS SIGN}")
        axes.text(1.03, y, text, transform=across, va="center", fontsize=6)
    rows = [(y, line.label) for y, line in enumerate(lines) if isinstance(line, Contrast)]
    axes.set_yticks([y for y, _ in rows], [label for _, label in rows])
    axes.tick_params(axis="y", length=0)
    axes.axvline(0, color=BLACK, lw=0.8, ls="--", zorder=0)
    axes.grid(axis="x")
    axes.set(xlim=(-reach, reach), ylim=(len(lines) - 0.4, -0.6), xlabel="paired difference in mean PCC")
    axes.locator_params(axis="x", nbins=4)


def draw_interval(axes: "Axes", y: int, line: Contrast, look: Look, reach: float) -> None:
    """An interval and its mark; an arrowhead at the edge where it lies beyond."""
    axes.plot(np.clip([line.low, line.high], -reach, reach), [y, y], color=look.colour, lw=1.4, solid_capstyle="butt")
    if abs(line.difference) <= reach:
        axes.plot(line.difference, y, look.marker, ms=3.5, color=look.colour)
    for edge, beyond in (
        ("<", min(line.difference, line.low) < -reach),
        (">", max(line.difference, line.high) > reach),
    ):
        if beyond:
            axes.plot(-reach if edge == "<" else reach, y, edge, ms=3.5, color=look.colour, clip_on=False)


def _draw_organs(
    axes: "Axes", table: "pd.DataFrame", truth: "pd.DataFrame", scores: "pd.DataFrame", looks: dict[str, Look]
) -> None:
    """Means with their intervals, methods side by side; the truth as lines across an organ."""
    import seaborn as sns

    numbers = table.groupby("organ")["donors"].max()
    organs, rows = list(numbers.index), table.drop_duplicates("row")
    _draw_ticks(axes, rows, scores, looks, x="organ", y="value", order=organs, dodge=True, marker="_")
    # Our own intervals, not seaborn's: of the three values of an organ and row, the first is the mean.
    values = table.melt(["organ", "row"], ["mean", "low", "high"])
    own = {"estimator": lambda three: three.iloc[0], "errorbar": lambda three: (three.min(), three.max())}
    drawn = [looks[method] for method in rows["method"]]
    shape = {"palette": [look.colour for look in drawn], "markers": [look.marker for look in drawn], "ms": 3.2}
    shape |= {"linestyle": "none", "dodge": 0.8 - 0.8 / len(rows), "err_kws": {"lw": 0.9}, "zorder": 3}
    sns.pointplot(
        values, x="organ", y="value", hue="row", order=organs, hue_order=list(rows["row"]), **own, **shape, ax=axes
    )
    for row in truth.drop_duplicates(["method", "organ"]).itertuples():
        look, x = looks[row.method], organs.index(row.organ)
        label = look.label if x == 0 else None
        axes.hlines(row.mean, x - 0.45, x + 0.45, color=BLACK, lw=0.9, ls=[look.line], label=label, zorder=1)
    crowded = len(organs) > CROWDED
    slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(range(len(organs)), [f"{organ} ({numbers[organ]})" for organ in organs], **slant)
    axes.set_xticks([x + 0.5 for x in range(len(organs) - 1)], minor=True)
    axes.tick_params(axis="x", which="both", length=0)
    axes.grid(axis="x", which="minor")
    axes.grid(axis="y")
    axes.axhline(0, color=BLACK, lw=0.6)
    axes.locator_params(axis="y", nbins=5)  # a fixed number: ticks that follow the height can move the layout for ever
    axes.set(xlabel="", ylabel="mean PCC", xlim=(-0.6, len(organs) - 0.4))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    panel_title(axes, "", "By organ (test donors)")


def _key(table: "pd.DataFrame", truth: "pd.DataFrame") -> str:
    encoders = table.drop_duplicates("encoder")
    sizes = "; ".join(
        f"{row.encoder_label}, {row.parameters / 1e6:.0f} M parameters, SEAL trains {row.trainable / 1e6:.2g} M"
        for row in encoders.itertuples()
    )
    one = len(encoders) == 1
    words = textwrap.wrap(f"{'Encoder' if one else 'Encoders (circle area above: parameters)'}: {sizes}.", 165)
    words = [
        f"Lines: 95 % bootstrap intervals over {table['resample'].iloc[0]}. Ticks: single donors and seeds. "
        "Grey: controls. Arrowheads: beyond the axis.",
        *words,
    ]
    if len(truth):
        words.append(
            "Dashed: oracle, from the true cells and visible programmes, without a picture; dotted: ceiling, from all "
            "but the drawing of counts."
        )
    return "\n".join(words)
