"""F3 A: correlation of predicted with measured expression, overall and by organ."""

from typing import TYPE_CHECKING

import numpy as np

from seal.plots.style import BLACK, CONTROLS, DOUBLE, GREY, LIGHT, METHODS, new_figure, panel_title, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGEST = 110.0  # pt^2, the circle of the encoder with the most parameters


@style()
def patch_level_figure(
    patch_level: "pd.DataFrame", patch_level_summary: "pd.DataFrame", encoders: "pd.DataFrame"
) -> "Figure":
    """Draw F3 A: every method's mean Pearson correlation, its difference to the frozen encoder, and by organ.

    Parameters
    ----------
    patch_level
        Scores of single folds and seeds, drawn as small dots.
    patch_level_summary
        Means and 95 % intervals; a method's difference is paired with the frozen encoder of the same name.
    encoders
        Labels and parameters; a circle's area is the number of its encoder's parameters.
    """
    scores = patch_level[patch_level["metric"] == "pcc"]
    table = patch_level_summary[patch_level_summary["metric"] == "pcc"].merge(
        encoders[["name", "label", "parameters", "trainable"]], left_on="encoder", right_on="name", how="left"
    )
    overall = _ordered(table[table["organ"] == "all"])
    heights = [18 + 6.0 * len(overall), 50]
    figure = new_figure(DOUBLE, sum(heights) + 6)
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    left, right = upper.subplots(1, 2, width_ratios=[1.75, 1], sharey=True)
    _draw_means(left, overall, scores)
    _draw_differences(right, overall)
    _draw_organs(lower.subplots(), table[table["organ"] != "all"], scores)
    lower.supxlabel(_key(overall), x=0.005, ha="left", fontsize=6, color=GREY)
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
    panel_title(axes, "A", f"Unseen tissue: {_split(table)}")


def _spread(n: int) -> np.ndarray:
    """Offsets that keep n dots of one row apart, in rows, below the row's own line."""
    return np.zeros(1) + 0.28 if n == 1 else np.linspace(0.18, 0.36, n)


def _runs(scores: "pd.DataFrame", encoder: str, method: str) -> np.ndarray:
    chosen = scores[(scores["encoder"] == encoder) & (scores["method"] == method)]
    return chosen.groupby(["fold", "seed"], sort=True)["value"].mean().to_numpy()


def _split(table: "pd.DataFrame") -> str:
    row = table.iloc[0]
    # The largest number: methods without any randomness are run once and stand for every seed.
    return f"one {row['split']} left out ({row['folds']} folds, {table['seeds'].max()} seeds)"


def _key(table: "pd.DataFrame") -> str:
    encoders = table.drop_duplicates("encoder")
    sizes = "; ".join(f"{row.label} {row.parameters / 1e6:.0f} M" for row in encoders.itertuples())
    trained = "; ".join(f"{row.trainable / 1e6:.2g} M" for row in encoders.itertuples())
    return (
        "Lines: 95 % bootstrap intervals over spots. Small dots: single folds and seeds. Hatched, grey: controls.\n"
        f"Circle area above: the encoder's parameters ({sizes}); SEAL trains {trained} to adapt it."
    )


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


def _draw_organs(axes: "Axes", table: "pd.DataFrame", scores: "pd.DataFrame") -> None:
    rows = _ordered(table)
    organs = sorted(rows["organ"].unique())
    series = list(rows[["encoder", "method"]].drop_duplicates().itertuples(index=False))
    width = 0.8 / len(series)
    several = len(rows["encoder"].unique()) > 1
    for i, (encoder, method) in enumerate(series):
        chosen = rows[(rows["encoder"] == encoder) & (rows["method"] == method)]
        x = np.array([organs.index(o) for o in chosen["organ"]]) + (i - (len(series) - 1) / 2) * width
        colour, control = METHODS[method][1], method in CONTROLS
        look = {"fc": "white", "ec": GREY, "hatch": _hatch(method)} if control else {"fc": colour, "ec": colour}
        mean, low, high = chosen[["mean", "low", "high"]].to_numpy().T
        axes.bar(x, mean, width * 0.86, label=_text(chosen.iloc[0], several), lw=0.6, **look)
        axes.errorbar(x, mean, [mean - low, high - mean], fmt="none", ecolor=BLACK, elinewidth=0.8)
        for organ, centre in zip(chosen["organ"], x, strict=True):
            runs = _runs(scores[scores["organ"] == organ], encoder, method)
            spots = centre + np.linspace(-0.25, 0.25, len(runs)) * width if len(runs) > 1 else [centre]
            axes.plot(spots, runs, ".", ms=3.2, color=BLACK, alpha=0.6, mec="white", mew=0.2)
    folds = rows.drop_duplicates("organ").set_index("organ")["folds"]
    axes.set_xticks(range(len(organs)), [f"{o} ({folds[o]} fold{'' if folds[o] == 1 else 's'})" for o in organs])
    axes.set_xlim(-0.6, len(organs) - 0.4)
    axes.axhline(0, color=BLACK, lw=0.6)
    axes.set_ylabel("mean PCC")
    axes.grid(axis="y")
    axes.legend(ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    panel_title(axes, "", "By organ")


def _hatch(method: str) -> str:
    return {"seal_shuffled": "//////", "random": "......", "colour": "xxxxxx", "mean": ""}[method]
