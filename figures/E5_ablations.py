"""E5: what each part of the method is worth (A), its training curves (B), and the gain by number of pairs (C)."""

from typing import TYPE_CHECKING

import numpy as np

from figures.markdown import interval_text
from figures.style import BLACK, DOUBLE, GREY, KINDS, block_title, method_looks, new_figure, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

FULL = "full"  # the method that all variants are compared with
GROUPS = {
    "T51": "Losses (T51)",
    "T52": "What is trained of the encoder (T52)",
    "T53": "Omics encoder and gene loss (T53)",
    "T54": "Panel and pairs (T54)",
}
ROW = 4.3  # mm
DECIMALS = 4  # variants differ by thousandths: with three, an interval would end at "-0.000"
STAGES = {"omics": "Stage 1, SEAL-omics", "vision": "Stage 2, SEAL-vision"}
TERMS = {
    "total": "total",
    "info": "$L_{INFO}$, nats",
    "rec_omics": "$L_{REC,omics}$",
    "rec_vision": "$L_{REC,vision}$",
    "barlow": "Barlow term",
    "mse": "standardised MSE",
    "kl": "KL term, nats",
}


@style()
def ablations_figure(
    training_curves: "pd.DataFrame",
    ablations: "pd.DataFrame",
    patch_level_summary: "pd.DataFrame",
    scaling: "pd.DataFrame | None" = None,
) -> "Figure":
    """Draw E5: A, each variant's difference to the full method; B, loss terms; C, gains by number of pairs, if known.

    Parameters
    ----------
    training_curves
        Loss terms a step, averaged over an epoch's steps here.
    ablations
        Means, differences to the full method and their 95 % intervals, one row a table, variant and organ.
    patch_level_summary
        Label and kind of the methods that were trained.
    scaling
        Correlations and gains by number of training pairs, and the line through the gains.
    """
    chosen = ablations[(ablations["metric"] == "pcc") & (ablations["organ"] == "all") & (ablations["seeds"] > 0)]
    lines = _lines(chosen)
    stages = [stage for stage in STAGES if (training_curves["stage"] == stage).any()]
    heights = [16 + ROW * len(lines), 42 * len(stages), *([] if scaling is None else [62])]
    figure = new_figure(DOUBLE, sum(heights) + 10)
    upper, lower, *last = figure.subfigures(len(heights), 1, height_ratios=heights)
    first = chosen.iloc[0]
    numbers = f"folds {first['folds']}, donors {first['donors']}, seeds {chosen['seeds'].max()}"
    block_title(upper, f"A  One part of the method changed at a time: {first['tested']} ({numbers})")
    _draw_forest(upper.subplots(), lines)
    known = patch_level_summary[["method", "label", "kind"]].drop_duplicates("method")
    curves = training_curves.merge(known, on="method", how="left", validate="many_to_one")
    _draw_curves(lower, curves, stages, "B")
    if scaling is not None:
        _draw_scaling(last[0], scaling, "C")
    figure.draw_without_rendering()
    return figure


def _lines(chosen: "pd.DataFrame") -> list:
    """What stands in the panel from top to bottom: the frozen encoder, then groups, a title (text) before its rows."""
    lines = [row for _, row in chosen[chosen["kind"] == "encoder"].drop_duplicates("method").iterrows()]
    for table in sorted(chosen["table"].unique()):
        variants = chosen[(chosen["table"] == table) & (chosen["method"] != FULL) & (chosen["kind"] != "encoder")]
        lines += [GROUPS.get(table, table), *(row for _, row in variants.iterrows())]
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
    axes.axvline(0, color=KINDS["adapted"][0], lw=0.8, ls="--", zorder=0)
    axes.grid(axis="x")
    axes.margins(x=0.06)
    over = next(row["resample"] for row in lines if not isinstance(row, str))
    axes.set_xlabel(
        f"difference in PCC to the full method, paired, 95 % interval over {over}; open: the interval includes zero"
    )


def _draw_row(axes: "Axes", y: int, row: "pd.Series") -> None:
    colour = KINDS["encoder"][0] if row["kind"] == "encoder" else BLACK
    low, high = row["difference_low"], row["difference_high"]
    axes.plot([low, high], [y, y], color=colour, lw=1.2, solid_capstyle="butt")  # no longer than the interval
    axes.plot(row["difference"], y, "o", ms=3.6, mfc="white" if low <= 0 <= high else colour, mec=colour)
    numbers = interval_text(row["difference"], low, high, "+", DECIMALS).replace("-", "\N{MINUS SIGN}")
    where = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 6}
    axes.text(1.01, y, numbers, color=GREY if low <= 0 <= high else BLACK, **where)


def _draw_curves(figure: "SubFigure", curves: "pd.DataFrame", stages: list[str], letter: str) -> None:
    """One panel a stage and loss term; thin lines single runs, thick ones their mean."""
    terms = {s: _terms(curves[curves["stage"] == s]) for s in stages}
    columns = max(len(t) for t in terms.values())
    blocks = np.atleast_1d(figure.subfigures(len(stages), 1))
    for block, stage in zip(blocks, stages, strict=True):
        block_title(block, f"{letter}  {STAGES[stage]}" if stage == stages[0] else STAGES[stage])
        panels = block.subplots(1, columns, squeeze=False)[0]
        chosen = curves[curves["stage"] == stage]
        for axes, term in zip(panels, terms[stage], strict=False):
            _draw_term(axes, chosen[chosen["term"] == term], TERMS.get(term, term))
        for axes in panels[len(terms[stage]) :]:
            axes.set_axis_off()
        if len(chosen["method"].unique()) > 1:
            block.legend(*panels[0].get_legend_handles_labels(), loc="upper right", ncols=2)


def _terms(curves: "pd.DataFrame") -> list[str]:
    found = curves.dropna(subset="value")["term"].unique().tolist()
    return [t for t in TERMS if t in found] + sorted(set(found) - set(TERMS))


def _draw_term(axes: "Axes", curves: "pd.DataFrame", title: str) -> None:
    for method, look in method_looks(curves).items():
        runs = curves[curves["method"] == method].pivot_table("value", "epoch", ["fold", "seed"], aggfunc="mean")
        axes.plot(runs.index + 1, runs.to_numpy(), color=look.colour, lw=0.5, alpha=0.35)
        axes.plot(runs.index + 1, runs.mean(axis=1), color=look.colour, lw=1.6, label=look.label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.grid(axis="y")
    axes.set_title(title, weight="normal")


def _draw_scaling(figure: "SubFigure", scaling: "pd.DataFrame", letter: str) -> None:
    """Correlations, then gains with the line drawn on to the paper's number of pairs."""
    first = scaling.iloc[0]
    numbers = f"{first['donors']} donors left out, seeds {first['seeds']}"
    block_title(figure, f"{letter}  The same with more pairs, simulated, {first['resample']} resampled ({numbers})")
    left, right = figure.subplots(1, 2)
    for method, look in method_looks(scaling).items():
        own = scaling[(scaling["method"] == method) & ~scaling["fitted"]]
        line = scaling[(scaling["method"] == method) & (scaling["quantity"] == "gain") & scaling["fitted"]]
        for axes, quantity in ((left, "pcc"), (right, "gain")):
            rows = own[own["quantity"] == quantity].sort_values("pairs")
            if quantity == "gain" and (line.empty or look.kind == "baseline"):
                continue  # the encoder itself; a baseline's own head lies far below
            axes.fill_between(rows["pairs"], rows["low"], rows["high"], color=look.colour, alpha=0.15, lw=0)
            axes.plot(rows["pairs"], rows["value"], look.marker, ls="-", ms=3, color=look.colour, label=look.label)
            if quantity == "gain":
                end = line.iloc[0]
                slope = scaling[(scaling["method"] == method) & (scaling["quantity"] == "slope")].iloc[0]
                x = np.array([rows["pairs"].min(), end["pairs"]])
                y = end["value"] + slope["value"] * np.log2(x / end["pairs"])
                axes.plot(x, y, color=look.colour, lw=0.8, ls="--")
                bar = [[end["value"] - end["low"]], [end["high"] - end["value"]]]
                axes.errorbar(end["pairs"], end["value"], bar, color=look.colour, lw=0.8, capsize=2)
    left.set_ylabel("PCC")
    right.set_ylabel("PCC, minus frozen")
    right.axhline(0, color=BLACK, lw=0.8, zorder=0)
    for axes in (left, right):
        axes.set_xscale("log")
        shown = scaling[scaling["quantity"] == ("gain" if axes is right else "pcc")]
        ticks = sorted(shown["pairs"].unique())
        axes.set_xticks(ticks, [f"{n:,}" for n in ticks], rotation=30, ha="right", rotation_mode="anchor")
        axes.set_xticks([], minor=True)
        axes.set_xlabel("training pairs")
        axes.grid(axis="y")
    left.legend(loc="upper left", bbox_to_anchor=(0, -0.5), ncols=3)
