"""E4: predicted against measured expression on the tissue (A), and where models look on slides (B)."""

from base64 import b64decode
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from figures.E4_attention import attention_height, attention_panel
from figures.style import DOUBLE, GREY, Look, block_title, draw_scale, method_looks, new_figure, plain, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

SECTIONS = 2  # side by side: the first section of each of the first folds
GENES = 3
PAGE = 220.0  # mm, the maps of a long section are no higher together
TALL = 1.7  # height of the H&E, in rows of maps
KEY = """H&E: the spots' patches,
each at its place.

PCC: correlation with
what is {measured},
over this section's spots.

Colour: one scale a row,
for all its maps alike."""


@style()
def expression_maps_figure(
    maps: "pd.DataFrame",
    patch_level_summary: "pd.DataFrame",
    map_sections: "pd.DataFrame | None" = None,
    attention: "pd.DataFrame | None" = None,
    attention_slides: "pd.DataFrame | None" = None,
) -> "Figure":
    """Draw E4: A, H&E, measured and predicted expression maps of the first genes, first section of each of two folds.

    Parameters
    ----------
    maps
        Normalised log expression a spot and gene, measured and in a column a method; x, y in full-resolution px. The
        order of the table decides which genes and sections are drawn, so none is picked for its looks.
    patch_level_summary
        Labels of the methods and their order.
    map_sections
        Of each section that is drawn: um_per_px of x and y; whether it is simulated; its H&E as a JPEG in base64, of
        whose px one spans `span` px of x and y. Without it there is no H&E, and the scale bar is in px.
    attention, attention_slides
        Drawn as B where both are there, see `attention_panel`.
    """
    known = {} if map_sections is None else {row.sample: row for row in map_sections.itertuples()}
    methods = {name: look for name, look in method_looks(patch_level_summary).items() if name in maps}
    samples = maps.drop_duplicates("fold")["sample"].tolist()[:SECTIONS]
    genes = max(min(GENES, maps[maps["sample"] == s]["gene"].nunique()) for s in samples)
    below = 0.0 if attention is None or attention_slides is None else attention_height(attention_slides)
    width = DOUBLE if len(samples) > 1 or below else DOUBLE * 0.62
    one = (width / len(samples) - 22) / (1 + len(methods))  # mm, the width of one map
    shape = max(_shape(maps[maps["sample"] == s]) for s in samples)
    rows = genes + TALL * bool(known)
    height = 16 + (min(one * shape, 60, (PAGE - below) / rows - 9) + 9) * rows
    figure = new_figure(width, height + below)
    upper, *lower = figure.subfigures(2, 1, height_ratios=[height, below]) if below else [figure]
    blocks = np.atleast_1d(upper.subfigures(1, len(samples), wspace=0.03))
    for letter, block, sample in zip(("A  ", ""), blocks, samples, strict=False):
        _draw_section(block, letter, maps[maps["sample"] == sample], genes, methods, known)
    if lower:
        attention_panel(lower[0], attention, attention_slides)
    figure.draw_without_rendering()
    return figure


def _shape(section: "pd.DataFrame") -> float:
    """Height over width."""
    return float(np.ptp(section["y"]) / max(np.ptp(section["x"]), 1.0))


def _draw_section(
    block: "SubFigure",
    letter: str,
    section: "pd.DataFrame",
    rows: int,
    methods: dict[str, Look],
    known: dict[str, "NamedTuple"],
) -> None:
    first = section.iloc[0]
    own = first["sample"] in (first["fold"], first["donor"])  # a section that is left out alone, or all of its donor
    whose = "" if own else f"donor {first['donor']} "
    block_title(block, f"{letter}{first['sample']}, {whose}left out of training")
    genes, about = section["gene"].unique()[:rows], known.get(first["sample"])
    top, columns = 1 if known else 0, 1 + len(methods)  # top: rows of H&E
    grid = block.add_gridspec(top + rows, columns, height_ratios=[TALL] * top + [1.0] * rows)
    simulated = about is not None and about.simulated
    maps = [[block.add_subplot(grid[top + line, column]) for column in range(columns)] for line in range(len(genes))]
    for line, gene in zip(maps, genes, strict=True):
        _draw_gene(block, line, section[section["gene"] == gene], methods, simulated)
    if top:
        tissue, key = block.add_subplot(grid[0, : max(columns - 1, 1)]), block.add_subplot(grid[0, -1])
        _draw_tissue(tissue, maps[0][0], about)
        key.set_axis_off()
        text = KEY.format(measured="simulated" if simulated else "measured")
        key.text(0, 0.5, text, transform=key.transAxes, va="center", fontsize=6, color=GREY, linespacing=1.3)
    unit, per_px = ("µm", about.um_per_px) if about else ("px", 1.0)
    draw_scale(tissue if top else maps[0][0], section["x"], unit, per_px)


def _draw_tissue(axes: "Axes", below: "Axes", about: "NamedTuple | None") -> None:
    """The H&E with the extent of the maps below it, or that there is none."""
    axes.set(xlim=below.get_xlim(), ylim=below.get_ylim(), aspect="equal")
    plain(axes)
    if about:
        from PIL import Image

        image = np.asarray(Image.open(BytesIO(b64decode(about.jpeg))).convert("RGB"))
        height, width = np.array(image.shape[:2]) * about.span
        limits = axes.axis()
        axes.imshow(image, extent=(0, width, height, 0), interpolation="antialiased")
        axes.axis(limits)
    else:
        axes.text(0.5, 0.5, "the results hold\nno H&E", transform=axes.transAxes, ha="center", va="center", color=GREY)
    axes.set_title("H&E", fontsize=6.5, weight="normal", loc="center", pad=2)


def _draw_gene(
    block: "SubFigure", line: list["Axes"], spots: "pd.DataFrame", methods: dict[str, Look], simulated: bool
) -> None:
    """One gene: what was measured, then what each method predicts."""
    share = f"in {100 * np.mean(spots['measured'] > 0):.0f} % of spots"
    titles = {"measured": f"{'simulated' if simulated else 'measured'}\n{share}"}
    titles |= {name: _title(spots, name, look.label) for name, look in methods.items()}
    # One scale a row, that holds all of it: a prediction that shrinks towards the mean has to look pale, one that is
    # off as a whole has to keep its pattern, and a gene that this section lacks must not set the scale alone. A linear
    # probe may predict less than nothing, which is drawn as nothing.
    low, high = np.clip(np.quantile(spots[list(titles)], [0.02, 0.98], axis=0), 0, None)
    limits = low.min(), max(high.max(), low.min() + 1)
    for axes, (column, title) in zip(line, titles.items(), strict=True):
        points = draw_spots(axes, spots["x"], spots["y"], spots[column], limits)
        axes.set_title(title, fontsize=6.5, weight="normal", loc="center", pad=2)
    line[0].set_ylabel(spots["gene"].iloc[0], fontsize=7, style="italic", weight="bold")
    bar = block.colorbar(points, ax=line, shrink=0.75, aspect=18, pad=0.01)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=6, length=2)
    bar.set_label("log simulated counts" if simulated else "log expression", fontsize=6)


def _title(spots: "pd.DataFrame", column: str, label: str) -> str:
    """A method's label; its correlation below, unless measured or predicted values are all the same."""
    if len(set(spots[column])) < 2 or len(set(spots["measured"])) < 2:
        return f"{label}\nno PCC: all equal"
    pcc = np.corrcoef(spots["measured"], spots[column])[0, 1]
    return f"{label}\nPCC {pcc:.2f}".replace("-", "−")


def pitch(x: np.ndarray, y: np.ndarray) -> float:
    """Median distance of a spot to its nearest neighbour, in the coordinates' unit; 200 spots are looked at."""
    xy = np.column_stack([x, y]).astype(float)
    some = xy[np.linspace(0, len(xy) - 1, min(200, len(xy))).astype(int)]
    distance = np.linalg.norm(some[:, None] - xy[None], axis=2)
    distance[distance == 0] = np.inf
    nearest = distance.min(axis=1)
    return float(np.median(nearest[np.isfinite(nearest)])) if np.isfinite(nearest).any() else 1.0


def draw_spots(axes: "Axes", x, y, values, limits=None, cmap: str = "viridis", fill: float = 0.92):
    """Draw spots as circles of their true place and of `fill` times their pitch; y points down as in an image.

    Returns
    -------
    The collection, for a colour bar.
    """
    from matplotlib.collections import EllipseCollection

    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    size = pitch(x, y)
    diameters = np.full(len(x), size * fill)
    spots = EllipseCollection(
        diameters,
        diameters,
        np.zeros(len(x)),
        units="xy",
        offsets=np.column_stack([x, y]),
        offset_transform=axes.transData,
        cmap=cmap,
        linewidths=0,
    )
    spots.set_array(np.asarray(values, dtype=float))
    spots.set_clim(*(limits if limits is not None else (np.nanmin(values), np.nanmax(values))))
    axes.add_collection(spots)
    plain(axes)
    axes.set_aspect("equal")
    axes.set(xlim=(x.min() - size, x.max() + size), ylim=(y.max() + size, y.min() - size))
    return spots
