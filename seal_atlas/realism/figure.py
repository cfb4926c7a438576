"""The simulated atlas beside real sections: a small panel a statistic, with the range of the real ones."""

from typing import TYPE_CHECKING

import numpy as np

from seal_atlas.realism.pairings import PAIRED
from seal_atlas.realism.statistic import STATISTICS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9"  # Okabe and Ito's colours
GREY, LIGHT = "#7F7F7F", "#C9C9C9"
FIGURE_SIZE = (183.0, 158.0)  # mm, width and height, for which sizes of text and rows are set
# Of the statistics with a number a section, those that are drawn; the table holds all.
UPPER = ("counts_common", "depth_spread", "dispersion_common", "zeros_common", "above_noise", "moran", "moran_200")
LOWER = ("od_red", "od_sd", "saturation", "tissue", "sharpness", "stain_angle")
NUCLEI = ("nuclear_density", "nuclear_area", "eccentricity", "nuclear_od")
LOG = ("counts_common",)
# Simulated sections are circles, blue where real ones show their organ; real ones have shapes of their own.
LOOKS = {
    "like": ("simulated, an organ that the real ones show", BLUE, "o"),
    "other": ("simulated, other organs", SKY, "o"),
    "her2st": ("real: her2st", VERMILION, "s"),
    "mouse brain": ("real: mouse brain", GREEN, "D"),
    "real": ("real: others", ORANGE, "^"),
}


def draw_realism(figure: "Figure", realism: "pd.DataFrame") -> None:
    """Draw sections' statistics, simulated beside real, and how well patches are told apart.

    Parameters
    ----------
    figure
        Empty, of `FIGURE_SIZE`; its style is the caller's.
    realism
        From `seal_atlas.realism`: `section_statistics` and `apart_statistics`. The grey band is the range of the real
        sections; whatever is lacking stays empty.
    """
    sections = _labelled(realism[realism["statistic"].map(lambda name: STATISTICS[name].kind) != "apart"])
    rows = figure.subfigures(4, 1, height_ratios=[1, 1.3, 1, 1.08])
    for row, names, title in ((rows[0], UPPER, "A  Expression"), (rows[2], LOWER, "C  Pictures")):
        row.suptitle(title, fontsize=7, weight="bold", x=0.01, ha="left")
        for axes, name in zip(row.subplots(1, len(names)), names, strict=True):
            draw_strip(axes, sections, name)
    spectrum, variance, stains = rows[1].subplots(1, 3, width_ratios=[1, 1, 1])
    _draw_spectrum(spectrum, sections)
    _draw_variance(variance, sections)
    _draw_stains(stains, sections)
    *strips, apart = rows[3].subplots(1, len(NUCLEI) + 1, width_ratios=[1] * len(NUCLEI) + [2.3])
    for axes, name in zip(strips, NUCLEI, strict=True):
        draw_strip(axes, sections, name)
    _draw_apart(apart, realism)
    _legend(figure, sections)


def _labelled(sections: "pd.DataFrame") -> "pd.DataFrame":
    """Add `look`, a key of `LOOKS`."""
    simulated = sections["simulated"].astype(bool)
    real = set(sections.loc[~simulated, "organ"])
    source = sections["source"].where(sections["source"].isin(LOOKS), "real")
    like = sections["organ"].isin(real) if real else simulated
    return sections.assign(look=source.mask(simulated & like, "like").mask(simulated & ~like, "other"))


def draw_strip(axes: "Axes", sections: "pd.DataFrame", name: str) -> None:
    """Draw one statistic: a point a section, simulated on the left, real on the right, the real range behind."""
    rows = sections[sections["statistic"] == name].sort_values("value")
    real = rows.loc[~rows["simulated"].astype(bool), "value"]
    if len(real):
        axes.axhspan(real.min(), real.max(), color=LIGHT, alpha=0.45, lw=0, zorder=0)
    for look, (_, colour, marker) in LOOKS.items():
        values = rows.loc[rows["look"] == look, "value"].to_numpy()
        place = {"like": 0.0, "other": -0.28}.get(look, 1.0 if look == "her2st" else 1.3)
        x = place + 0.2 * (np.modf(np.arange(len(values)) * 0.618)[0] - 0.5)  # spread, the same each time
        axes.plot(x, values, marker, color=colour, ms=2.2, mew=0, alpha=0.8)
    axes.set(xticks=[0, 1], xticklabels=["sim.", "real"], xlim=(-0.6, 1.6))
    if name in LOG:
        _log(axes, (1.0, 3.0))
    axes.margins(y=0.1)
    words = STATISTICS[name].label.split(" ")
    lines = [""]
    for word in words:
        lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if len(lines[-1] + word) < 13 else [*lines, word]
    axes.set_title("\n".join(lines), fontsize=6, weight="normal", loc="center", pad=3)


def _log(axes: "Axes", steps: tuple[float, ...]) -> None:
    """Make the y axis logarithmic, with plain numbers at these steps of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_spectrum(axes: "Axes", sections: "pd.DataFrame") -> None:
    from seal_atlas.realism.count_statistics import CORRELATED, SPOTS, noise_edge

    _draw_curves(axes, sections[sections["statistic"] == "spectrum"])
    edge = noise_edge(SPOTS, CORRELATED) / CORRELATED
    axes.axhline(edge, color=GREY, lw=0.8, ls="--")
    axes.text(20, edge * 1.04, "edge of noise", ha="right", va="bottom", fontsize=6, color=GREY)
    _log(axes, (1.0, 2.0, 5.0))
    axes.set(xlabel="component of the genes' correlations", ylabel="share of variance")
    axes.set_title("B  Gene-gene correlation", loc="left")


def _draw_variance(axes: "Axes", sections: "pd.DataFrame") -> None:
    _draw_curves(axes, sections[sections["statistic"] == "variance"])
    limits = np.array([0.1, 30])
    axes.plot(limits, limits, color=GREY, lw=0.8, ls="--")
    axes.text(28, 9, "Poisson", ha="right", va="top", fontsize=6, color=GREY)
    axes.set(xscale="log", yscale="log", xlabel="mean counts at common depth", ylabel="variance")
    axes.set_title("Mean and variance of genes", loc="left")


def _draw_curves(axes: "Axes", curves: "pd.DataFrame") -> None:
    for look, (_, colour, _) in LOOKS.items():
        for _, one in curves[curves["look"] == look].groupby("group"):
            axes.plot(one["x"], one["value"], color=colour, lw=0.5, alpha=0.45)


def _draw_stains(axes: "Axes", sections: "pd.DataFrame") -> None:
    """Red and blue parts of the two unit vectors of optical density; green is what is left."""
    wide = sections[sections["statistic"].str.startswith(("haematoxylin", "eosin"))]
    wide = wide.pivot_table(index=["look", "group"], columns="statistic", values="value").reset_index()
    for look, (_, colour, marker) in LOOKS.items():
        rows = wide[wide["look"] == look] if len(wide) else wide
        for stain, face in (("haematoxylin", colour), ("eosin", "white")):
            if len(rows):
                place = rows[f"{stain}_red"], rows[f"{stain}_blue"]
                axes.plot(*place, marker, mfc=face, mec=colour, mew=0.7, ms=3, alpha=0.8)
    axes.set(xlabel="red part of the stain's vector", ylabel="blue part")
    axes.text(
        0.98, 0.98, "filled: haematoxylin\nopen: eosin", transform=axes.transAxes, ha="right", va="top", fontsize=6
    )
    axes.set_title("Stains", loc="left")


def _draw_apart(axes: "Axes", realism: "pd.DataFrame") -> None:
    for shift, (feature, label, colour, marker) in enumerate(
        (("encoder", "frozen encoder", BLUE, "o"), ("colour", "colour alone", GREY, "D"))
    ):
        auc = realism[realism["statistic"] == f"auc_{feature}"]
        for y, kind in enumerate(PAIRED):
            values = auc.loc[auc["source"] == kind, "value"].to_numpy()
            at = np.full(len(values), y + 0.24 * shift - 0.12)
            axes.plot(values, at, marker, color=colour, ms=2.2, mew=0, alpha=0.5)
            if len(values):
                axes.plot(values.mean(), at[0], "|", color=colour, ms=9, mew=1.4)
        axes.plot([], [], marker, color=colour, ms=3, mew=0, label=label)
    axes.axvline(0.5, color=GREY, lw=0.8, ls="--", zorder=0)
    axes.set_yticks(range(len(PAIRED)), PAIRED)
    axes.set(ylim=(len(PAIRED) - 0.4, -0.6), xlim=(0.3, 1.03), xlabel="AUC; bar: mean")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=2, columnspacing=0.8, handletextpad=0.2)
    axes.text(-0.86, 1.1, "D  Told apart", transform=axes.transAxes, fontsize=7, weight="bold")


def _legend(figure: "Figure", sections: "pd.DataFrame") -> None:
    from matplotlib.lines import Line2D

    present = [look for look in LOOKS if (sections["look"] == look).any()]
    handles = [Line2D([], [], ls="", marker=LOOKS[k][2], color=LOOKS[k][1], ms=3.5, label=LOOKS[k][0]) for k in present]
    figure.legend(handles=handles, loc="upper left", ncols=len(handles), bbox_to_anchor=(0.0, 1.0), handletextpad=0.2)
