"""E5 B: the named loss terms of both stages, epoch by epoch; one run's, step by step."""

from typing import TYPE_CHECKING

import numpy as np

from figures.style import DOUBLE, METHODS, block_title, new_figure, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

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


def draw_training_curves(figure: "SubFigure", training_curves: "pd.DataFrame", letter: str = "") -> None:
    """Draw one panel a stage and loss term; thin lines single runs, thick ones their mean.

    Parameters
    ----------
    training_curves
        Loss terms a step; averaged over an epoch's steps here.
    letter
        The figure's panel, said before the first title.
    """
    stages = present_stages(training_curves)
    terms = {s: _terms(training_curves[training_curves["stage"] == s]) for s in stages}
    columns = max(len(t) for t in terms.values())
    blocks = np.atleast_1d(figure.subfigures(len(stages), 1))
    for block, stage in zip(blocks, stages, strict=True):
        title = f"{letter}  {STAGES[stage]}" if letter and stage == stages[0] else STAGES[stage]
        block_title(block, title)
        panels = block.subplots(1, columns, squeeze=False)[0]
        curves = training_curves[training_curves["stage"] == stage]
        for axes, term in zip(panels, terms[stage], strict=False):
            _draw_term(axes, curves[curves["term"] == term], TERMS.get(term, term))
        for axes in panels[len(terms[stage]) :]:
            axes.set_axis_off()
        if len(curves["method"].unique()) > 1:
            block.legend(*panels[0].get_legend_handles_labels(), loc="upper right", ncols=2)


def present_stages(training_curves: "pd.DataFrame") -> list[str]:
    """The stages of which there are curves."""
    return [stage for stage in STAGES if (training_curves["stage"] == stage).any()]


def _terms(curves: "pd.DataFrame") -> list[str]:
    found = curves.dropna(subset="value")["term"].unique().tolist()
    return [t for t in TERMS if t in found] + sorted(set(found) - set(TERMS))


def _draw_term(axes: "Axes", curves: "pd.DataFrame", title: str) -> None:
    for method in [m for m in METHODS if (curves["method"] == m).any()]:
        label, colour = METHODS[method]
        chosen = curves[curves["method"] == method]
        runs = chosen.pivot_table("value", "epoch", ["fold", "seed"], aggfunc="mean")
        axes.plot(runs.index + 1, runs.to_numpy(), color=colour, lw=0.5, alpha=0.35)
        axes.plot(runs.index + 1, runs.mean(axis=1), color=colour, lw=1.6, label=label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.grid(axis="y")
    axes.set_title(title, weight="normal")


@style()
def loss_curves(log: "list[dict[str, float]]", terms: "list[str]") -> "Figure":
    """Draw the terms of one run's log side by side, step by step."""
    figure = new_figure(DOUBLE * 0.9, 48)
    for axes, term in zip(figure.subplots(1, len(terms), squeeze=False)[0], terms, strict=True):
        axes.plot([row["step"] for row in log], [row[term] for row in log], color=METHODS["seal"][1], lw=1.2)
        axes.set(xlabel="step", ylabel="loss")
        axes.grid(axis="y")
        axes.set_title(TERMS.get(term, term), weight="normal")
    figure.draw_without_rendering()
    return figure
