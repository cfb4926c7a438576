"""F1: the gap, the pairs, the two stages, what comes after. All drawings are our own."""

from typing import TYPE_CHECKING

import numpy as np

from figures.style import (
    BLACK,
    BLUE,
    DOUBLE,
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    SKY,
    VERMILION,
    new_figure,
    panel_title,
    plain,
    style,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STATES = {
    "Cancer": VERMILION,
    "Tumor": ORANGE,
    "Diseased": BLUE,
    "Treated": SKY,
    "Healthy": GREEN,
}
IMAGE, OMICS, LOSS = "#DCEBF5", "#E3F2EC", "#FBE9DF"  # tints of blue, green and vermilion


@style()
def overview_figure(samples: "pd.DataFrame | None" = None, hest_metadata: "pd.DataFrame | None" = None) -> "Figure":
    """Draw F1 with panel B from the real HEST metadata, or, without them, from the profile's own samples.

    Parameters
    ----------
    samples
        The profile's samples; the column `pairs` is counted.
    hest_metadata
        Real samples of MAPLE's selection; the column `spots`, spots under tissue, is counted.
    """
    figure = new_figure(DOUBLE, 148)
    upper, lower = figure.subfigures(2, 1, height_ratios=[1, 1.08])
    gap, bars = upper.subplots(1, 2, width_ratios=[1, 1.25])
    stages, tasks = lower.subplots(1, 2, width_ratios=[2.1, 1])
    _draw_gap(gap)
    if hest_metadata is not None:
        _draw_bars(bars, hest_metadata, "spots", "spots under tissue", "real HEST-1k metadata")
    else:
        simulated = samples["simulated"].astype(bool).any()
        _draw_bars(bars, samples, "pairs", "pairs", f"{'simulated' if simulated else 'real'} samples")
    _draw_stages(stages)
    _draw_tasks(tasks)
    figure.draw_without_rendering()
    return figure


@style()
def pairs_figure(hest_metadata: "pd.DataFrame") -> "Figure":
    """Draw F1's panel B alone, from the real HEST metadata; see `overview_figure`."""
    figure = new_figure(DOUBLE * 0.6, 74)
    _draw_bars(figure.subplots(), hest_metadata, "spots", "spots under tissue", "real HEST-1k metadata")
    return figure


@style()
def stages_figure() -> "Figure":
    """Draw F1's panel C alone."""
    figure = new_figure(DOUBLE * 0.7, 76)
    _draw_stages(figure.subplots(), "")
    return figure


# --- boxes and arrows, in a unit square -------------------------------------------------------------------


def _canvas(axes: "Axes", letter: str, title: str) -> None:
    axes.set(xlim=(-0.005, 1.005), ylim=(0, 1))
    plain(axes)
    panel_title(axes, letter, title)


def _box(axes: "Axes", x: float, y: float, width: float, height: float, text: str, fill: str, **look) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner = "round,pad=0,rounding_size=0.012"
    edge = look.pop("edge", GREY)
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=corner, fc=fill, ec=edge, lw=0.7, ls=look.pop("ls", "-"))
    )
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", linespacing=1.25, **look)


def _arrow(axes: "Axes", start: tuple[float, float], end: tuple[float, float], **look) -> None:
    props = {"arrowstyle": "-|>", "color": BLACK, "lw": 0.8, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 6}
    axes.annotate("", end, start, arrowprops=props | look)


# --- panels -----------------------------------------------------------------------------------------------


def _draw_gap(axes: "Axes") -> None:
    _canvas(axes, "A", "The gap: molecular detail, spot by spot")
    rows = [
        ("image + image", "self-supervised\nvision encoders", "the form of a patch"),
        ("image + text", "captions, reports", "what is written of a slide"),
        ("image + bulk omics", "one profile a tumour", "what a whole tumour expresses"),
        ("image + spots: SEAL", "expression of the\nsame 55-100 µm", "what this patch expresses"),
    ]
    axes.text(0.20, 0.965, "learns from", ha="center", fontsize=6, color=GREY)
    axes.text(0.50, 0.965, "the encoder can pick up", fontsize=6, color=GREY)
    for i, (name, source, gain) in enumerate(rows):
        y, ours = 0.74 - 0.24 * i, i == 3
        fill, edge = (LOSS, VERMILION) if ours else ("#F4F4F4", LIGHT)
        _box(axes, 0.0, y, 0.40, 0.19, f"{name}\n{source}", fill, edge=edge, fontsize=6)
        _arrow(axes, (0.41, y + 0.095), (0.48, y + 0.095), color=VERMILION if ours else GREY)
        axes.text(0.50, y + 0.095, gain, va="center", weight="bold" if ours else "normal")


def _draw_bars(axes: "Axes", table: "pd.DataFrame", count: str, unit: str, origin: str) -> None:
    unpaired = int((table[count] == 0).sum())  # samples without a picture serve stage 1 alone
    table = table[table[count] > 0]
    one = len(set(table["organ"])) == 1 and "donor" in table  # a single bar would say nothing
    totals = table.pivot_table(count, "donor" if one else "organ", "disease_state", aggfunc="sum", fill_value=0)
    totals = totals.loc[totals.sum(axis=1).sort_values().index]
    known = [s for s in STATES if s in totals]
    states = known + sorted(set(totals.columns) - set(known))
    thousands = 1000 if totals.to_numpy().sum() > 20_000 else 1
    left = np.zeros(len(totals))
    everything = totals.to_numpy().sum()
    for state in states:
        values = totals[state].to_numpy() / thousands
        label = f"{state}, {totals[state].sum() / everything:.1%}"
        axes.barh(totals.index, values, left=left, color=STATES.get(state, LIGHT), ec="white", label=label, height=0.74)
        left += values
    axes.set_xlabel(f"{unit}, thousands" if thousands > 1 else unit)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    # Few organs keep slim bars at the top; where many fill the height, the shortest leave the corner free, unless
    # they are nearly as long as the longest: then the legend stands beside them.
    if len(totals) >= 7 and left[:5].max() > 0.6 * left.max():
        axes.set_xlim(0, 1.5 * left.max())
    axes.set_ylim(len(totals) - 0.5 - max(len(totals), 7), len(totals) - 0.4)
    number = table["samples"].sum() if "samples" in table else len(table)  # the reference has counts alone
    title = f"{number:,} samples, {everything:,} {unit}" + f"\n{unpaired:,} more without a picture" * (unpaired > 0)
    axes.legend(loc="lower right", title=title, title_fontsize=6)
    rows = f"{table['organ'].iloc[0]}: pairs by donor" if one else "Pairs by organ"
    panel_title(axes, "B", f"{rows} and disease state ({origin})")


def _draw_stages(axes: "Axes", letter: str = "C") -> None:
    _canvas(axes, letter, "The two stages")
    axes.axhline(0.53, color=LIGHT, lw=0.8, ls=":")
    axes.text(0, 0.95, "Stage 1, SEAL-omics", weight="bold", color=GREEN, va="center")
    y = 0.70
    _box(axes, 0.00, y, 0.15, 0.16, "spots\n$x$: expression\nof the panel", OMICS)
    _box(axes, 0.23, y, 0.19, 0.16, "SEAL-omics\nencoder, planar\nflows", OMICS, edge=GREEN)
    _box(axes, 0.52, y, 0.08, 0.16, "$z_o$", OMICS)
    _box(axes, 0.68, y, 0.14, 0.16, "gene\ndecoder", OMICS, edge=GREEN)
    _box(axes, 0.90, y, 0.10, 0.16, r"$\hat{x}$", OMICS)
    for a, b in ((0.15, 0.23), (0.42, 0.52), (0.60, 0.68), (0.82, 0.90)):
        _arrow(axes, (a, y + 0.08), (b, y + 0.08))
    _loss(axes, 0.95, y, 0.60, "$L_{REC,omics}$")
    axes.text(0, 0.49, "Stage 2, SEAL-vision", weight="bold", color=BLUE, va="center")
    y = 0.17
    _box(axes, 0.00, y, 0.12, 0.16, "patch of\nthe same\nspot", IMAGE)
    _box(axes, 0.18, y, 0.13, 0.16, "frozen\ntrunk", "#F0F0F0", ls="--")
    _box(axes, 0.33, y, 0.13, 0.16, "last blocks\n+ LoRA", IMAGE, edge=BLUE)
    _box(axes, 0.52, y, 0.08, 0.16, "$z_v$", IMAGE)
    _box(axes, 0.68, y, 0.14, 0.16, "gene\ndecoder", IMAGE, edge=BLUE)
    _box(axes, 0.90, y, 0.10, 0.16, r"$\hat{x}$", IMAGE)
    for a, b in ((0.12, 0.18), (0.31, 0.33), (0.46, 0.52), (0.60, 0.68), (0.82, 0.90)):
        _arrow(axes, (a, y + 0.08), (b, y + 0.08))
    _loss(axes, 0.95, y, 0.07, "$L_{REC,vision}$")
    _arrow(axes, (0.56, y + 0.165), (0.56, 0.695), arrowstyle="<|-|>", color=VERMILION, lw=1.2)
    axes.text(0.58, 0.42, "$L_{INFO}$\nsame spot together,\nothers apart", color=VERMILION, va="center", fontsize=6.5)
    axes.text(
        0.0, 0.0, "dashed: frozen; coloured edge: trained; stage 2 goes on training SEAL-omics", color=GREY, fontsize=6
    )


def _loss(axes: "Axes", x: float, top: float, y: float, text: str) -> None:
    _arrow(axes, (x, top), (x, y + 0.03), color=VERMILION)
    axes.text(x, y, text, color=VERMILION, ha="center", va="center", fontsize=7)


def _draw_tasks(axes: "Axes") -> None:
    _canvas(axes, "D", "Downstream")
    _box(axes, 0.02, 0.40, 0.27, 0.24, "SEAL\nencoder\n$z_v$", IMAGE, edge=BLUE)
    tasks = [
        ("expression of\nan unseen patch", "linear probe, PCC"),
        ("molecular status\nof a slide", "38 slide-level tasks"),
        ("scanners, sites,\nunseen organs", "robustness"),
        ("gene to image,\nimage to gene", "retrieval, recall"),
    ]
    for i, (name, measure) in enumerate(tasks):
        y = 0.77 - 0.245 * i
        _box(axes, 0.47, y, 0.53, 0.185, f"{name}\n", "#F4F4F4", edge=LIGHT)
        axes.text(0.735, y + 0.035, measure, ha="center", va="center", fontsize=6, color=GREY)
        _arrow(axes, (0.29, 0.52), (0.465, y + 0.0925), color=GREY)
