"""E5: what each part of the method is worth (A), and its training curves (B)."""

from typing import TYPE_CHECKING

from figures.style import BLACK, DOUBLE, GREY, METHODS, block_title, new_figure, style
from figures.training import draw_training_curves, present_stages
from figures.wording import tested

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUPS = {
    "T51": "Losses (T51)",
    "T52": "What is trained of the encoder (T52)",
    "T53": "Omics encoder and gene loss (T53)",
    "T54": "Panel and pairs (T54)",
}
ROW = 4.3  # mm


@style()
def ablations_figure(training_curves: "pd.DataFrame", ablations: "pd.DataFrame") -> "Figure":
    """Draw E5: A, each variant's paired difference to the full method; B, loss terms by epoch.

    Parameters
    ----------
    training_curves
        Loss terms a step, see `figures.training`.
    ablations
        Means, differences to the full method and their 95 % intervals, one row a table, variant and organ.
    """
    chosen = ablations[(ablations["metric"] == "pcc") & (ablations["organ"] == "all")]
    lines = _lines(chosen)
    heights = [16 + ROW * len(lines), 42 * len(present_stages(training_curves))]
    figure = new_figure(DOUBLE, sum(heights) + 10)
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    block_title(upper, f"A  One part of the method changed at a time: {tested(chosen.iloc[0], chosen['seeds'].max())}")
    _draw_forest(upper.subplots(), lines)
    draw_training_curves(lower, training_curves, "B")
    figure.draw_without_rendering()
    return figure


def _lines(chosen: "pd.DataFrame") -> list:
    """What stands in the panel from top to bottom: the frozen encoder, then groups, a title (text) before its rows."""
    lines = [chosen[chosen["method"] == "frozen"].iloc[0]]
    for table in sorted(chosen["table"].unique()):
        variants = chosen[(chosen["table"] == table) & ~chosen["method"].isin(["full", "frozen"])]
        lines += [GROUPS[table], *(row for _, row in variants.iterrows())]
    return lines


def _draw_forest(axes: "Axes", lines: list) -> None:
    for y, row in enumerate(lines):
        if isinstance(row, str):
            axes.text(-0.005, y, row, transform=axes.get_yaxis_transform(), ha="right", va="center", weight="bold")
        else:
            _draw_row(axes, y, row)
    rows = [(y, row["label"]) for y, row in enumerate(lines) if not isinstance(row, str)]
    axes.set_yticks([y for y, _ in rows], [label for _, label in rows])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.axvline(0, color=METHODS["seal"][1], lw=0.8, ls="--", zorder=0)
    axes.grid(axis="x")
    axes.margins(x=0.06)
    over = next(row["resample"] for row in lines if not isinstance(row, str))
    axes.set_xlabel(
        f"difference in PCC to the full method, paired, 95 % interval over {over}; open: the interval includes zero"
    )


def _draw_row(axes: "Axes", y: int, row) -> None:
    colour = METHODS["frozen"][1] if row["method"] == "frozen" else BLACK
    low, high = row["difference_low"], row["difference_high"]
    axes.plot([low, high], [y, y], color=colour, lw=1.2, solid_capstyle="butt")  # no longer than the interval
    axes.plot(row["difference"], y, "o", ms=3.6, mfc="white" if low <= 0 <= high else colour, mec=colour)
    numbers = f"{row['difference']:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "\N{MINUS SIGN}")
    where = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 6}
    axes.text(1.01, y, numbers, color=GREY if low <= 0 <= high else BLACK, **where)
