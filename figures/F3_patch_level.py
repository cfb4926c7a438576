"""F3 A: correlation of predicted with measured expression, overall and by organ."""

from typing import TYPE_CHECKING

import numpy as np

from figures.style import BLACK, CONTROLS, DOUBLE, GREY, LIGHT, METHODS, TRUTH, new_figure, panel_title, style
from figures.wording import tested

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGEST = 110.0  # pt^2, the circle of the encoder with the most parameters
BARS = 6  # organs; more are drawn as points
DOTS = 40  # single donors and seeds of a method; of more, the seeds are averaged
POINTS = {"frozen": "o", "seal": "o", "seal_shuffled": "s", "random": "^", "colour": "D"}


@style()
def patch_level_figure(
    patch_level: "pd.DataFrame", patch_level_summary: "pd.DataFrame", encoders: "pd.DataFrame"
) -> "Figure":
    """Draw F3 A: every method's mean Pearson correlation, its difference to the frozen encoder, and by organ.

    Parameters
    ----------
    patch_level
        Scores of single donors and seeds, drawn as small dots.
    patch_level_summary
        Means and 95 % intervals; a method's difference is paired with the frozen encoder of the same name.
    encoders
        Labels and parameters; a circle's area is the number of its encoder's parameters.
    """
    scores = patch_level[patch_level["metric"] == "pcc"]
    table = patch_level_summary[patch_level_summary["metric"] == "pcc"].merge(
        encoders[["name", "label", "parameters", "trainable"]], left_on="encoder", right_on="name", how="left"
    )
    overall, organs = _ordered(table[table["organ"] == "all"]), _ordered(table[table["organ"] != "all"])
    known = overall["method"].isin(list(TRUTH))
    overall, truth = overall[~known].reset_index(drop=True), overall[known].drop_duplicates("method")
    many = organs["organ"].nunique() > BARS
    heights = [18 + 6.0 * len(overall), 62 if many else 50]
    figure = new_figure(DOUBLE, sum(heights) + 6)
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    left, right = upper.subplots(1, 2, width_ratios=[1.75, 1], sharey=True)
    _draw_means(left, overall, scores)
    _draw_truth(left, truth)
    _draw_differences(right, overall)
    axes = lower.subplots()
    shown = organs[~organs["method"].isin(list(TRUTH))]
    (_draw_many_organs if many else _draw_organs)(axes, shown, scores)
    _draw_truth_of_organs(axes, organs)
    _finish_organs(axes, organs, many)
    lower.supxlabel(_key(overall, scores, truth, many), x=0.005, ha="left", fontsize=6, color=GREY)
    figure.draw_without_rendering()
    return figure


def _ordered(table: "pd.DataFrame") -> "pd.DataFrame":
    """Rows encoder by encoder, methods in the order of METHODS."""
    rank = table["method"].map({name: i for i, name in enumerate(METHODS)})
    return table.assign(rank=rank).sort_values(["encoder", "rank"]).reset_index(drop=True)


def _text(row, several: bool) -> str:
    name = METHODS[row.method][0]
    return f"{row.label}: {name}" if several else name


def _draw_means(axes: "Axes", table: "pd.DataFrame", scores: "pd.DataFrame") -> None:
    largest = table["parameters"].max()
    for y, row in enumerate(table.itertuples()):
        colour, control = METHODS[row.method][1], row.method in CONTROLS
        runs = _runs(scores, row.encoder, row.method)
        axes.plot(runs, y + _spread(len(runs)), ".", ms=2.8, color=LIGHT if control else colour, alpha=0.7, zorder=1)
        axes.plot([row.low, row.high], [y, y], color=BLACK, lw=0.9, zorder=4)  # seen even inside the circle
        area = 14.0 if row.method in ("colour", "mean") else LARGEST * row.parameters / largest
        look = {"fc": "white", "ec": colour, "hatch": "//////"} if control else {"fc": colour, "ec": "white"}
        axes.scatter([row.mean], [y], s=area, lw=0.6, zorder=3, **look)
    several = len(table["encoder"].unique()) > 1
    axes.set_yticks(range(len(table)), [_text(row, several) for row in table.itertuples()])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlabel("mean PCC over the test genes")
    axes.grid(axis="x")
    axes.axvline(0, color=BLACK, lw=0.6)
    panel_title(axes, "A", f"Unseen tissue: {tested(table.iloc[0], table['seeds'].max())}")


def _spread(n: int) -> np.ndarray:
    """Offsets that keep n dots of one row apart, in rows, below the row's own line."""
    return np.zeros(1) + 0.28 if n == 1 else np.linspace(0.18, 0.36, n)


def _runs(scores: "pd.DataFrame", encoder: str, method: str) -> np.ndarray:
    chosen = scores[(scores["encoder"] == encoder) & (scores["method"] == method)]
    return chosen.groupby(_single(scores), sort=True)["value"].mean().to_numpy()


def _single(scores: "pd.DataFrame") -> list[str]:
    """What one small dot stands for."""
    most = scores.groupby(["encoder", "method"]).size().max()
    return ["fold", "donor", "seed"] if most <= DOTS else ["fold", "donor"]


def _key(table: "pd.DataFrame", scores: "pd.DataFrame", truth: "pd.DataFrame", many: bool) -> str:
    encoders = table.drop_duplicates("encoder")
    sizes = "; ".join(f"{row.label} {row.parameters / 1e6:.0f} M" for row in encoders.itertuples())
    trained = "; ".join(f"{row.trainable / 1e6:.2g} M" for row in encoders.itertuples())
    each = "folds" if (table["folds"] == table["donors"]).all() else "donors"
    dots = f"single {each} and seeds" if "seed" in _single(scores) else f"single {each}, seeds averaged"
    controls = "Hollow, grey" if many else "Hatched, grey"
    lines = [
        f"Lines: 95 % bootstrap intervals over {table['resample'].iloc[0]}. Small dots: {dots}. {controls}: controls.",
        f"Circle area above: the encoder's parameters ({sizes}); SEAL trains {trained} to adapt it.",
    ]
    if len(truth):
        lines.append(
            "Dashed: oracle, from the true cells and visible programmes, without a picture; dotted: ceiling, from all "
            "but the drawing of counts."
        )
    return "\n".join(lines)


def _draw_truth(axes: "Axes", truth: "pd.DataFrame") -> None:
    """Oracle and ceiling as lines across all methods, named beside the last row, whose mark lies at 0."""
    sides = {"oracle": (-2, "right"), "ceiling": (2, "left")}
    last = axes.get_ylim()[0] - 0.4
    for row in truth.itertuples():
        axes.axvline(row.mean, color=BLACK, lw=0.9, ls=TRUTH[row.method], zorder=0)
        offset, side = sides[row.method]
        look = {"textcoords": "offset points", "ha": side, "va": "center", "fontsize": 6}
        axes.annotate(row.method, (row.mean, last), (offset, 0), **look)
    if len(truth):
        axes.set_xlim(right=axes.get_xlim()[0] + 1.1 * (truth["mean"].max() - axes.get_xlim()[0]))


def _draw_differences(axes: "Axes", table: "pd.DataFrame") -> None:
    for y, row in enumerate(table.itertuples()):
        if row.method == "frozen":
            continue
        colour = METHODS[row.method][1]
        axes.plot([row.difference_low, row.difference_high], [y, y], color=colour, lw=1.4)
        face = "white" if row.method in CONTROLS else colour
        axes.plot(row.difference, y, "o", ms=3, mfc=face, mec=colour)
        axes.annotate(
            f"{row.difference:+.3f}".replace("-", "\N{MINUS SIGN}"),
            (row.difference, y),
            (0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=6,
            color=colour,
            bbox={"fc": "white", "ec": "none", "pad": 0.4},
        )
    axes.axvline(0, color=METHODS["frozen"][1], lw=0.8, ls="--", zorder=0)
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel("paired difference in PCC, 95 % interval")
    axes.margins(x=0.12)
    panel_title(axes, "", "Method minus frozen encoder")


def _draw_organs(axes: "Axes", rows: "pd.DataFrame", scores: "pd.DataFrame") -> None:
    """Bars, with small dots for what they are means of."""
    organs = sorted(rows["organ"].unique())
    several = len(rows["encoder"].unique()) > 1
    width, series = _series(rows)
    for encoder, method, shift in series:
        chosen = rows[(rows["encoder"] == encoder) & (rows["method"] == method)]
        x = np.array([organs.index(o) for o in chosen["organ"]]) + shift
        colour, control = METHODS[method][1], method in CONTROLS
        look = {"fc": "white", "ec": GREY, "hatch": _hatch(method)} if control else {"fc": colour, "ec": colour}
        mean, low, high = chosen[["mean", "low", "high"]].to_numpy().T
        axes.bar(x, mean, width * 0.86, label=_text(chosen.iloc[0], several), lw=0.6, **look)
        axes.errorbar(x, mean, [mean - low, high - mean], fmt="none", ecolor=BLACK, elinewidth=0.8)
        for organ, centre in zip(chosen["organ"], x, strict=True):
            runs = _runs(scores[scores["organ"] == organ], encoder, method)
            spots = centre + np.linspace(-0.25, 0.25, len(runs)) * width if len(runs) > 1 else [centre]
            axes.plot(spots, runs, ".", ms=3.2, color=BLACK, alpha=0.6, mec="white", mew=0.2)


def _draw_many_organs(axes: "Axes", rows: "pd.DataFrame", scores: "pd.DataFrame") -> None:
    """Points with their intervals; without the mean predictor, which is 0 everywhere, and without single donors."""
    rows = rows[rows["method"].isin(list(POINTS))]
    organs = sorted(rows["organ"].unique())
    several = len(rows["encoder"].unique()) > 1
    for encoder, method, shift in _series(rows)[1]:
        chosen = rows[(rows["encoder"] == encoder) & (rows["method"] == method)]
        x = np.array([organs.index(o) for o in chosen["organ"]]) + shift
        colour, control = METHODS[method][1], method in CONTROLS
        mean, low, high = chosen[["mean", "low", "high"]].to_numpy().T
        look = {"mfc": "white", "ms": 2.4, "mew": 0.6} if control else {"mfc": colour, "ms": 3.4, "mew": 0.4}
        axes.errorbar(
            x,
            mean,
            [mean - low, high - mean],
            fmt=POINTS[method],
            color=colour,
            elinewidth=0.7,
            label=_text(chosen.iloc[0], several),
            **look,
        )
    axes.set_xticks(np.arange(len(organs) - 1) + 0.5, minor=True)
    axes.grid(axis="x", which="minor")
    axes.tick_params(axis="x", which="both", length=0)


def _series(rows: "pd.DataFrame") -> tuple[float, list[tuple[str, str, float]]]:
    """The width of one series, and each encoder's method with its place about the organ's tick."""
    series = list(rows[["encoder", "method"]].drop_duplicates().itertuples(index=False))
    width = 0.8 / len(series)
    return width, [(encoder, method, (i - (len(series) - 1) / 2) * width) for i, (encoder, method) in enumerate(series)]


def _draw_truth_of_organs(axes: "Axes", rows: "pd.DataFrame") -> None:
    organs = sorted(rows["organ"].unique())
    for method, line in TRUTH.items():
        chosen = rows[rows["method"] == method].drop_duplicates("organ")
        x = np.array([organs.index(o) for o in chosen["organ"]])
        if len(chosen):
            label = METHODS[method][0]
            axes.hlines(chosen["mean"], x - 0.45, x + 0.45, color=BLACK, lw=0.9, ls=[line], label=label, zorder=1)


def _finish_organs(axes: "Axes", rows: "pd.DataFrame", many: bool) -> None:
    organs = rows.drop_duplicates("organ").set_index("organ").sort_index()
    what = "donor" if organs["dealt"].iloc[0] else "fold"
    numbers = organs[f"{what}s"]
    if many:
        labels = [f"{organ} ({numbers[organ]})" for organ in organs.index]
        axes.set_xticks(range(len(organs)), labels, rotation=30, ha="right", rotation_mode="anchor")
        axes.legend(ncols=7, loc="upper center", bbox_to_anchor=(0.48, -0.3), columnspacing=1.0, handletextpad=0.4)
    else:
        labels = [f"{organ} ({n} {what}{'' if n == 1 else 's'})" for organ, n in numbers.items()]
        axes.set_xticks(range(len(organs)), labels)
        axes.legend(ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_xlim(-0.6, len(organs) - 0.4)
    axes.axhline(0, color=BLACK, lw=0.6)
    axes.locator_params(axis="y", nbins=5)  # a fixed number: ticks that follow the height can move the layout for ever
    axes.set_ylabel("mean PCC")
    axes.grid(axis="y")
    panel_title(axes, "", f"By organ (test {what}s)" if many else "By organ")


def _hatch(method: str) -> str:
    return {"seal_shuffled": "//////", "random": "......", "colour": "xxxxxx", "mean": ""}[method]
