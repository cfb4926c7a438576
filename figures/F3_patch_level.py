"""F3 A: correlation of predicted with measured expression, overall and by organ.

Methods stand in the order of the results and look as their kind says; none is known here by name.
"""

from typing import TYPE_CHECKING

from figures.style import BLACK, DOUBLE, GREY, KINDS, Look, method_looks, new_figure, panel_title, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGEST = 100.0  # pt^2, the circle of the encoder with the most parameters
SMALL = 24.0  # pt^2, the mark of every other method
CROWDED = 6  # organs; of more, the names are slanted


@style()
def patch_level_figure(
    patch_level: "pd.DataFrame", patch_level_summary: "pd.DataFrame", encoders: "pd.DataFrame"
) -> "Figure":
    """Draw F3 A: every method's mean Pearson correlation, its difference to the frozen encoder, and by organ.

    Parameters
    ----------
    patch_level
        Scores of single donors and seeds, drawn as ticks.
    patch_level_summary
        Means and 95 % intervals; a method's difference is paired with the frozen encoder of the same name.
    encoders
        Labels and parameters; a circle's area is the number of its encoder's parameters.
    """
    table = _named(patch_level_summary, encoders)
    scores = _named(patch_level, encoders).merge(table[["encoder", "method"]].drop_duplicates())
    looks = method_looks(table)
    truth, table = table[table["kind"] == "truth"], table[table["kind"] != "truth"]
    scores = scores[scores["kind"] != "truth"]
    overall, organs = table[table["organ"] == "all"], table[table["organ"] != "all"]
    heights = [18 + 6.0 * len(overall), 62]
    figure = new_figure(DOUBLE, sum(heights) + 6)
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    left, right = upper.subplots(1, 2, width_ratios=[1.75, 1], sharey=True)
    _draw_means(left, overall, scores, looks)
    _draw_truth(left, truth[truth["organ"] == "all"], looks)
    _draw_differences(right, overall, looks)
    _draw_organs(lower.subplots(), organs, truth[truth["organ"] != "all"], scores, looks)
    lower.supxlabel(_key(overall, truth), x=0.005, ha="left", fontsize=6, color=GREY)
    figure.draw_without_rendering()
    return figure


def _named(table: "pd.DataFrame", encoders: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of the correlation with their encoder's label and parameters, and the name of their line, `row`."""
    known = encoders[["name", "label", "parameters", "trainable"]].rename(
        columns={"name": "encoder", "label": "encoder_label"}
    )
    table = table[table["metric"] == "pcc"].merge(known, on="encoder", how="left")
    several = len(table["encoder"].unique()) > 1
    return table.assign(row=table["encoder_label"] + ": " + table["label"] if several else table["label"])


def _draw_ticks(axes: "Axes", rows: "pd.DataFrame", scores: "pd.DataFrame", looks: dict[str, Look], **where) -> None:
    """Scores of single donors and seeds, a tick each."""
    import seaborn as sns

    palette = [looks[method].colour for method in rows["method"]]
    hues = {"hue": "row", "hue_order": list(rows["row"]), "palette": palette, "legend": False}
    sns.stripplot(scores, **where, **hues, jitter=False, size=5, linewidth=0.5, alpha=0.35, zorder=1, ax=axes)


def _draw_means(axes: "Axes", table: "pd.DataFrame", scores: "pd.DataFrame", looks: dict[str, Look]) -> None:
    _draw_ticks(axes, table, scores, looks, x="value", y="row", order=list(table["row"]), marker="|")
    largest = table["parameters"].max()
    for y, row in enumerate(table.itertuples()):
        look = looks[row.method]
        area = LARGEST * row.parameters / largest if look.kind in ("encoder", "adapted") else SMALL
        axes.scatter([row.mean], [y], s=area, marker=look.marker, fc=look.colour, ec="white", lw=0.6, zorder=3)
        axes.plot([row.low, row.high], [y, y], color=BLACK, lw=0.9, zorder=4)  # seen even inside the circle
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set(xlabel="mean PCC over the test genes", ylabel="")
    axes.grid(axis="x")
    axes.axvline(0, color=BLACK, lw=0.6)
    first = table.iloc[0]
    numbers = f"donors {first['donors']}, seeds {table['seeds'].max()}"
    panel_title(axes, "A", f"Unseen tissue: {first['tested']} ({numbers})")


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


def _draw_differences(axes: "Axes", table: "pd.DataFrame", looks: dict[str, Look]) -> None:
    for y, row in enumerate(table.itertuples()):
        look = looks[row.method]
        if look.kind == "encoder":
            continue
        axes.plot([row.difference_low, row.difference_high], [y, y], color=look.colour, lw=1.4)
        axes.plot(row.difference, y, look.marker, ms=3, color=look.colour)
        text = f"{row.difference:+.3f}".replace("-", "\N{MINUS SIGN}")
        behind = {"fc": "white", "ec": "none", "pad": 0.4}
        place = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
        axes.annotate(text, (row.difference, y), fontsize=6, color=look.colour, bbox=behind, **place)
    axes.axvline(0, color=KINDS["encoder"][0], lw=0.8, ls="--", zorder=0)
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel("paired difference in PCC, 95 % interval")
    axes.locator_params(axis="x", nbins=5)
    axes.margins(x=0.12)
    panel_title(axes, "", "Method minus frozen encoder")


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
    sizes = "; ".join(f"{row.encoder_label} {row.parameters / 1e6:.0f} M" for row in encoders.itertuples())
    trained = "; ".join(f"{row.trainable / 1e6:.2g} M" for row in encoders.itertuples())
    lines = [
        f"Lines: 95 % bootstrap intervals over {table['resample'].iloc[0]}. Ticks: single donors and seeds. "
        "Grey: controls.",
        f"Circle area above: the encoder's parameters ({sizes}); SEAL trains {trained} to adapt it.",
    ]
    if len(truth):
        lines.append(
            "Dashed: oracle, from the true cells and visible programmes, without a picture; dotted: ceiling, from all "
            "but the drawing of counts."
        )
    return "\n".join(lines)
