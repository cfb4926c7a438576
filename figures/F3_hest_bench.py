"""F3 B: HEST-Bench by task, and what SEAL changes. The panel alone: figure F3 puts it beside its others."""

from typing import TYPE_CHECKING

import numpy as np

from figures.style import BLACK, GREY, Look, block_title, method_looks

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

OFFICIAL = "hest_bench"  # the probe of the published numbers
AVERAGE = "average"


def hest_bench_panel(subfigure: "SubFigure", hest_bench_summary: "pd.DataFrame", encoder: str | None = None) -> None:
    """Draw F3 B into a part of a figure: means by task, and paired differences to the frozen encoder.

    Official probe, correlation pooled over a fold's test patches. Black bars: the frozen encoder's published numbers.

    Parameters
    ----------
    hest_bench_summary
        Means and 95 % intervals; a difference that is missing is not drawn, and its reason stands under the panel.
    encoder
        Which; the first of the table by default.
    """
    table = hest_bench_summary
    table = table[(table["probe"] == OFFICIAL) & (table["correlation"] == "pooled") & (table["kind"] != "probed")]
    table = table[table["encoder"] == (encoder or table["encoder"].iloc[0])]
    tasks, looks = list(dict.fromkeys(table["task"])), method_looks(table)
    upper, lower = subfigure.subplots(1, 2)
    for i, (method, look) in enumerate(looks.items()):
        rows = table[table["method"] == method].set_index("task").reindex(tasks)
        x = np.arange(len(tasks)) + 0.6 * ((i + 0.5) / len(looks) - 0.5)
        _draw_points(upper, x, rows[["mean", "low", "high"]].to_numpy(), look)
        if look.kind == "encoder":
            published = rows["published"].to_numpy(dtype=float)
            upper.hlines(published, x - 0.15, x + 0.15, color=BLACK, lw=1.2, zorder=4)
        else:
            _draw_points(lower, x, rows[["difference", "difference_low", "difference_high"]].to_numpy(), look)
    upper.set(ylabel="mean PCC", xlim=(-0.6, len(tasks) - 0.4))
    lower.set(ylabel="minus frozen", xlim=(-0.6, len(tasks) - 0.4))
    place = {"loc": "lower right", "bbox_to_anchor": (1.02, 1.02), "ncols": len(looks), "columnspacing": 1.0}
    lower.legend(*upper.get_legend_handles_labels(), **place).set_in_layout(False)  # beside the title
    folds = table.drop_duplicates("task").set_index("task")["folds"]
    labels = [f"{task} ({folds[task]})" for task in tasks]
    for axes in (upper, lower):
        axes.set_xticks(range(len(tasks)), labels, rotation=30, ha="right", rotation_mode="anchor")
        axes.axhline(0, color=BLACK, lw=0.6)
        axes.axvline(tasks.index(AVERAGE) - 0.5, color=GREY, lw=0.6, ls=":")
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="y")
        axes.locator_params(axis="y", nbins=5)
    simulated = bool(table["simulated"].any())
    block_title(subfigure, f"B  HEST-Bench{', simulated tasks in its layout' if simulated else ''} (folds)")
    subfigure.supxlabel(_key(table), x=0.005, ha="left", fontsize=6, color=GREY)


def _draw_points(axes: "Axes", x: np.ndarray, values: np.ndarray, look: Look) -> None:
    """Means [n, (mean, low, high)] with their intervals, where there is one."""
    axes.vlines(x, values[:, 1], values[:, 2], color=look.colour, lw=0.9, zorder=2)
    axes.plot(x, values[:, 0], look.marker, ms=3.2, color=look.colour, ls="none", label=look.label, zorder=3)


def _key(table: "pd.DataFrame") -> str:
    words = [
        "Lines: 95 % bootstrap intervals, of a task over its folds (of the average over tasks); HCC is outside it."
    ]
    adapted = table[(table["kind"] == "adapted") & table["difference"].isna()]
    notes = adapted.groupby("note", sort=False)["task"].agg(", ".join)
    words += [f"{tasks}: {note}" for note, tasks in notes.items()]
    said = dict.fromkeys(note for note in table.loc[table["task"] == AVERAGE, "note"].dropna() if note not in notes)
    return "\n".join([*words, *said])
