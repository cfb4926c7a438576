"""What only notebooks show: tissue, patches, embeddings, curves, a waterfall; what is drawn, with its caption."""

import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from figures import draw
from figures.E4_maps import draw_spots
from figures.E5_ablations import TERMS
from figures.style import (
    BLACK,
    BLUE,
    DOUBLE,
    GREY,
    LIGHT,
    SERIES,
    SINGLE,
    SKY,
    VERMILION,
    draw_scale,
    new_figure,
    panel_title,
    plain,
    style,
)
from seal import paths

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import Code
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from seal.profiles import Profile

OTHERS = "others"
MARKERS = ("o", "^", "s")
WHOLE, HEAD = 8, 5  # rows: tables up to so many are shown whole, of longer ones the first
LABELLED = 16  # groups whose names stand among their points; of more, they would hide them


@style()
def tissue_with_spots(
    image: np.ndarray | None,
    spots: "pd.DataFrame",
    value: str,
    title: str = "",
    downsample: float = 1.0,
    um_per_px: float | None = None,
) -> "Figure":
    """Draw a section's spots, coloured by a column, beside its tissue.

    Parameters
    ----------
    image
        uint8 [H, W, 3], the whole section, cut here to the spots' extent; None where there is none.
    spots
        Columns x, y (full-resolution px) and `value`, numbers or names.
    downsample
        Full-resolution px a px of `image`.
    um_per_px
        Of the full-resolution image; without it the scale bar is in px.
    """
    figure = new_figure(DOUBLE * 0.8 if image is not None else SINGLE, 62)
    panels = figure.subplots(1, 1 if image is None else 2, squeeze=False)[0]
    axes = panels[-1]
    if spots[value].dtype.kind in "biuf":
        figure.colorbar(draw_spots(axes, spots["x"], spots["y"], spots[value]), ax=axes, shrink=0.7, label=value)
    else:
        _draw_names(axes, spots, value)
    draw_scale(axes, spots["x"], "µm" if um_per_px else "px", um_per_px or 1.0)
    panel_title(axes, "", title or value)
    if image is not None:
        limits = axes.get_xlim(), axes.get_ylim()
        height, width = np.array(image.shape[:2]) * downsample
        panels[0].imshow(image, extent=(0, width, height, 0), interpolation="antialiased")
        panels[0].set(xlim=limits[0], ylim=limits[1])
        plain(panels[0])
        panel_title(panels[0], "", "H&E")
    figure.draw_without_rendering()
    return figure


def _draw_names(axes: "Axes", spots: "pd.DataFrame", value: str) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.lines import Line2D

    names = sorted(spots[value].dropna().unique())
    colours = [SERIES[i % len(SERIES)] for i in range(len(names))]
    codes = spots[value].map({name: i for i, name in enumerate(names)})
    draw_spots(axes, spots["x"], spots["y"], codes, (-0.5, len(names) - 0.5), ListedColormap(colours))
    handles = [Line2D([], [], ls="", marker="o", color=c, label=n) for n, c in zip(names, colours, strict=True)]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))


@style()
def spot_maps(spots: "pd.DataFrame", values: "list[str]", label: str) -> "Figure":
    """Draw several columns of one section's spots side by side, on one colour scale.

    Parameters
    ----------
    spots
        Columns x, y (full-resolution px) and `values`.
    label
        What the values are, with their unit.
    """
    figure = new_figure(DOUBLE * 0.8, 60)
    limits = spots[values].min().min(), spots[values].max().max()
    panels = figure.subplots(1, len(values), squeeze=False)[0]
    for axes, value in zip(panels, values, strict=True):
        drawn = draw_spots(axes, spots["x"], spots["y"], spots[value], limits)
        panel_title(axes, "", value)
    figure.colorbar(drawn, ax=list(panels), shrink=0.7, label=label)
    figure.draw_without_rendering()
    return figure


@style()
def patch_sheet(patches: np.ndarray, titles: Sequence[str], columns: int = 8, side: float = DOUBLE / 8) -> "Figure":
    """Draw patches side by side, `side` mm each.

    Parameters
    ----------
    patches
        uint8 [n, S, S, 3].
    titles
        One a patch.
    """
    columns = min(columns, len(patches))
    rows = -(-len(patches) // columns)
    figure = new_figure(max(side * columns, 40), (side + 4) * rows + 6)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, patch, title in zip(panels, patches, titles, strict=False):
        axes.imshow(patch)
        axes.set_title(title, fontsize=6, weight="normal", loc="center", pad=2)
    for axes in panels:
        plain(axes)
    figure.draw_without_rendering()
    return figure


@style()
def umap_pair(embeddings: Mapping[str, np.ndarray], groups: Sequence[str], name: str) -> "Figure":
    """Draw two-dimensional embeddings of the same spots side by side.

    Parameters
    ----------
    embeddings
        title -> [n, 2].
    groups
        What colours the n points, names; eight colours, then other markers; beyond 24, the rarer ones are grey.
    name
        What the groups are, for the legend.
    """
    figure = new_figure(DOUBLE * 0.9, 66)
    panels = figure.subplots(1, len(embeddings), squeeze=False)[0]
    groups = _commonest(np.asarray(groups, dtype=str))
    order = np.random.default_rng(0).permutation(len(groups))  # so that no group covers the others
    names = np.unique(groups)
    colours = np.array([LIGHT if name == OTHERS else SERIES[i % len(SERIES)] for i, name in enumerate(names)])
    shapes = [MARKERS[i // len(SERIES)] for i in range(len(names))]
    for axes, (title, xy) in zip(panels, embeddings.items(), strict=True):
        for shape in dict.fromkeys(shapes):
            own = order[np.isin(groups[order], names[[s == shape for s in shapes]])]
            axes.scatter(*xy[own].T, s=4, c=colours[np.searchsorted(names, groups[own])], marker=shape, lw=0, alpha=0.8)
        axes.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
        panel_title(axes, "", title)
    for label, colour, shape in zip(names, colours, shapes, strict=True):
        panels[-1].scatter([], [], s=14, color=colour, marker=shape, label=label)
    look = {"title_fontsize": 6.5, "ncols": 1 + len(names) // 16}
    panels[-1].legend(title=name, loc="center left", bbox_to_anchor=(1, 0.5), **look)
    figure.draw_without_rendering()
    if len(names) <= LABELLED:
        for axes, xy in zip(panels, embeddings.values(), strict=True):
            _label_groups(axes, xy, groups, names)
    return figure


def _label_groups(axes: "Axes", xy: np.ndarray, groups: np.ndarray, names: np.ndarray) -> None:
    """Write each group's name where its points are densest; names that would overlap move apart, up and down."""
    from matplotlib.patheffects import withStroke

    size = np.ptp(xy, axis=0) / 20
    centres = np.array([_densest(xy[groups == name], size) for name in names])
    halo = [withStroke(linewidth=1.5, foreground="white")]
    look = {"ha": "center", "va": "center", "fontsize": 6, "path_effects": halo, "zorder": 5}
    texts = [axes.text(*centre, name, **look) for centre, name in zip(centres, names, strict=True)]
    boxes = np.array([t.get_window_extent().padded(1).get_points().ravel() for t in texts])  # [names, x0 y0 x1 y1], px
    boxes[:, [1, 3]] += 0.7 * (boxes[:, [3]] - boxes[:, [1]])  # above the points, not on them
    edges = axes.get_window_extent().get_points()
    for box in boxes:  # inside the panel
        box[::2] += max(0, edges[0, 0] - box[0]) - max(0, box[2] - edges[1, 0])
    order = np.argsort(boxes[:, 1])
    for i, later in enumerate(order):  # from the lowest up, each above all that it would cover
        for earlier in sorted(order[:i], key=lambda k: boxes[k, 1]):
            apart = boxes[later, 0] >= boxes[earlier, 2] or boxes[later, 2] <= boxes[earlier, 0]
            if not apart and boxes[earlier, 1] < boxes[later, 3] and boxes[later, 1] < boxes[earlier, 3]:
                boxes[later, [1, 3]] += boxes[earlier, 3] - boxes[later, 1]
    boxes[:, [1, 3]] -= max(0, boxes[:, 3].max() - edges[1, 1])
    for text, box in zip(texts, boxes, strict=True):
        text.set_position(axes.transData.inverted().transform([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]))


def _densest(xy: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Mean of the points in the fullest cell of a grid whose cells have this size."""
    _, which, counts = np.unique(np.floor(xy / np.maximum(size, 1e-9)), axis=0, return_inverse=True, return_counts=True)
    return xy[which.ravel() == counts.argmax()].mean(axis=0)


def _commonest(groups: np.ndarray) -> np.ndarray:
    """Names of the groups; of more than the colours can tell apart, the rarer ones are renamed to "others"."""
    names, counts = np.unique(groups, return_counts=True)
    most = len(SERIES) * len(MARKERS) - 1
    if len(names) <= most:
        return groups
    kept = names[np.argsort(-counts, kind="stable")[:most]]
    return np.where(np.isin(groups, kept), groups, OTHERS)


@style()
def curve(frame: "pd.DataFrame", x: str, y: str, by: str, xlabel: str, ylabel: str) -> "Figure":
    """Draw one line a value of column `by`: mean of `y` at each `x`."""
    figure = new_figure(SINGLE, 58)
    axes = figure.subplots()
    for name, part in frame.groupby(by, sort=False):
        means = part.groupby(x)[y].mean()
        axes.plot(means.index, means, label=str(name))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(axis="y")
    axes.legend(title=by, title_fontsize=6.5)
    figure.draw_without_rendering()
    return figure


@style()
def loss_curves(log: "list[dict[str, float]]", terms: "list[str]") -> "Figure":
    """Draw the terms of one run's log side by side, step by step."""
    figure = new_figure(DOUBLE * 0.9, 48)
    for axes, term in zip(figure.subplots(1, len(terms), squeeze=False)[0], terms, strict=True):
        axes.plot([row["step"] for row in log], [row[term] for row in log], color=VERMILION, lw=1.2)
        axes.set(xlabel="step", ylabel="loss")
        axes.grid(axis="y")
        axes.set_title(TERMS.get(term, term), weight="normal")
    figure.draw_without_rendering()
    return figure


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


def show_source(thing: Callable[..., Any]) -> "Code":
    """The source of a function or method, for a notebook to show the code that it teaches."""
    from IPython.display import Code

    return Code(textwrap.dedent(inspect.getsource(thing)), language="python")


def show_drawn(profile: "Profile", kind: str) -> None:
    """Show each figure, or the first rows of each table, that is drawn: in order, with number, caption and whose data.

    Parameters
    ----------
    kind
        "figure" or "table".
    """
    from IPython.display import Markdown, display
    from PIL import Image

    folder = paths.figures(profile.name)
    for id, entry in draw.manifest(profile).items():
        if draw.REGISTER[id].kind == kind == "table":
            display(Markdown(table_head(folder / "tables" / f"{id}.md", f"figures/{profile.name}/tables/{id}.csv")))
        elif draw.REGISTER[id].kind == kind:
            display(Markdown(f"#### {id} {entry['title']} ({entry['data']})\n\n{entry['caption']}"))
            display(Image.open(folder / f"{id}.png").reduce(2).quantize(128))  # a small copy, for the notebook


def table_head(path: Path, csv: str) -> str:
    """Cut a table's Markdown, as `figures.write` has it, to its first rows, and say where the others are.

    Parameters
    ----------
    csv
        Where the whole table lies, as a reader is told.
    """
    data, _, title, _, *lines = path.read_text(encoding="utf-8").splitlines()
    rows = [i for i, line in enumerate(lines) if line.startswith("| ")][2:]  # without the names and the rule
    if len(rows) > WHOLE:
        lines[rows[HEAD] : rows[-1] + 1] = ["", f"*{len(rows) - HEAD} more rows: {csv}*"]
    kept = [line for line in lines if not line.startswith(("<sub>", "<!--"))]  # the stamp is in the manifest too
    return "\n".join([f"##{title} ({data.split('**')[1]})", "", *kept])
