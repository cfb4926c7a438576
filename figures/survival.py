"""Survival by predicted risk, for notebooks: Kaplan-Meier curves with the numbers at risk under them."""

from typing import TYPE_CHECKING

import numpy as np

from figures.slides import choose_rows, p_text
from figures.style import DOUBLE, GREY, ORANGE, SKY, new_figure, panel_title, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RISKS = {"high": (ORANGE, "-"), "low": (SKY, (0, (4, 1.2)))}  # not the colours of methods


@style()
def survival_figure(survival_curves: "pd.DataFrame", model: str = "abmil") -> "Figure":
    """Draw the curves of one model, a row a task, the main encoder frozen beside its adapted form.

    Parameters
    ----------
    survival_curves
        Steps of each curve with 95 % bands, cases still followed at each step, and p of the log-rank test.
    model
        As in the column of that name.
    """
    table = choose_rows(survival_curves, model=model, encoder=survival_curves["encoder"].iloc[0])
    table = table[table["kind"].isin(["encoder", "adapted"])]
    tasks, methods = (list(dict.fromkeys(table[name])) for name in ("task", "method"))
    figure = new_figure(DOUBLE, 6 + 64 * len(tasks))
    figure.get_layout_engine().set(hspace=0.06)
    panels = figure.subplots(len(tasks), len(methods), sharex="row", sharey=True, squeeze=False)
    for line, task in zip(panels, tasks, strict=True):
        for axes, method in zip(line, methods, strict=True):
            _draw_curves(axes, choose_rows(table, task=task, method=method), axes is line[0])
    figure.draw_without_rendering()
    return figure


def _draw_curves(axes: "Axes", curves: "pd.DataFrame", is_first: bool) -> None:
    ticks = np.linspace(0, curves["days"].max(), 5).round(-2 if curves["days"].max() > 1000 else 0)
    below = {"textcoords": "offset points", "annotation_clip": False, "va": "top", "fontsize": 6}
    axes.annotate("cases at risk", (0, 0), (-8, -26), xycoords="axes fraction", ha="right", color=GREY, **below)
    for i, (risk, (colour, line)) in enumerate(RISKS.items()):
        rows = choose_rows(curves, risk=risk).sort_values("days", kind="stable")
        axes.step(rows["days"], rows["survival"], where="post", color=colour, ls=line, lw=1.4, label=f"{risk} risk")
        axes.fill_between(rows["days"], rows["low"], rows["high"], step="post", color=colour, alpha=0.2, lw=0)
        y = -34 - 8 * i  # points below the axis
        axes.annotate(f"{risk} risk", (0, 0), (-8, y), xycoords="axes fraction", ha="right", **below)
        for tick in ticks:
            later = rows.loc[rows["days"] >= tick, "at_risk"]  # those followed until a later step, or none
            number = f"{later.iloc[0] if len(later) else 0:.0f}"
            axes.annotate(number, (tick, 0), (0, y), xycoords=("data", "axes fraction"), ha="center", **below)
    axes.set_xticks(ticks)
    axes.set(ylim=(0, 1.02), xlabel="days", ylabel="share without the event" if is_first else "")
    axes.grid(axis="y")
    first = curves.iloc[0]
    panel_title(axes, "", f"{first['task']}, {first['label']}: log-rank p {p_text(first['p'])}")
    axes.legend(loc="lower left")
