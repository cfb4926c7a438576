"""The way from HEST-1k to MAPLE: what each rule takes out."""

from typing import TYPE_CHECKING

from figures.style import BLACK, BLUE, DOUBLE, GREY, SKY, VERMILION, new_figure, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@style()
def waterfall_figure(waterfall: "pd.DataFrame", paper: int) -> "Figure":
    """Draw the spots that are left after each rule, and what it took out.

    Parameters
    ----------
    waterfall
        From `seal.data.maple.rules.apply`.
    paper
        Spots of the paper's training and test set together: a line.
    """
    figure = new_figure(DOUBLE, 10 + 6.5 * len(waterfall))
    axes = figure.subplots()
    left, out = waterfall["spots_left"] / 1000, waterfall["spots_out"] / 1000
    colours = [SKY if source == "our choice" else BLUE for source in waterfall["source"]]
    names = waterfall["rule"].where(waterfall["source"] != "our choice", waterfall["rule"] + " (ours)")
    axes.barh(names, left, color=colours, height=0.72)
    axes.barh(names, out, left=left, color="none", edgecolor=VERMILION, hatch="/////", linewidth=0.6, height=0.72)
    room = 0.01 * left.max()
    for i, row in enumerate(waterfall.itertuples()):
        text = f"{row.samples_left:,} samples, {row.spots_left:,} spots"
        if row.samples_out:
            text += f"   (−{row.samples_out:,}, −{row.spots_out:,})"
        axes.text((row.spots_left + row.spots_out) / 1000 + room, i, text, va="center", fontsize=6)
    axes.axvline(paper / 1000, color=BLACK, lw=0.8, ls="--")
    axes.text(paper / 1000, len(left) - 0.05, f" the paper, {paper:,}", fontsize=6, color=GREY, va="center")
    axes.set(xlabel="spots under tissue, thousands", xlim=(0, 1.5 * left.max()), ylim=(len(left) + 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
    axes.set_title("What each rule leaves (bars) and takes out (hatched)", loc="left")
    return figure
