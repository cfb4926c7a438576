"""E4 B: where a model looks on a slide. The panel alone: figure E4 puts it below its maps."""

import textwrap
from base64 import b64decode
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from figures.slides import choose_rows, name_task
from figures.style import DOUBLE, block_title, draw_scale, method_looks, new_figure, plain, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure, SubFigure

SIDE_BY_SIDE = 2  # slides
SQUARE = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
LINE = 47.0  # mm, of a line of slides
UNKNOWN = "real slide, no label; model trained on simulated slides"


@style()
def attention_figure(attention: "pd.DataFrame", attention_slides: "pd.DataFrame") -> "Figure":
    """Draw the panel alone, for a notebook; see `attention_panel`."""
    figure = new_figure(DOUBLE, attention_height(attention_slides) + 5)
    attention_panel(figure.subfigures(1, 1), attention, attention_slides)
    figure.draw_without_rendering()
    return figure


def attention_height(attention_slides: "pd.DataFrame") -> float:
    """Height of the panel, mm."""
    return LINE * -(-len(attention_slides) // SIDE_BY_SIDE) + 5


def attention_panel(figure: "SubFigure", attention: "pd.DataFrame", attention_slides: "pd.DataFrame") -> None:
    """Draw E4 B into a part of a figure: of each slide its picture, then the attention of the models on its patches.

    Attention is relative: a patch's share times the number of patches, so that 1 is what even attention would give.

    Parameters
    ----------
    attention
        A row a patch and method: place and side in px of level 0, attention that sums to 1.
    attention_slides
        A row a slide: size, um_per_px, its picture as a JPEG in base64, truth and guess, whether it is simulated.
    """
    blocks = figure.subfigures(-(-len(attention_slides) // SIDE_BY_SIDE), SIDE_BY_SIDE, squeeze=False).ravel()
    for i, (block, slide) in enumerate(zip(blocks, attention_slides.itertuples(), strict=False)):
        is_known = isinstance(slide.guess, str) and bool(slide.guess)
        words = f"{'B  ' if not i else ''}{slide.slide}, {name_task(slide.task)}"
        words += f": truth {slide.truth}, guess {slide.guess}" if is_known else ""
        whose = "simulated" if slide.simulated else "real slide" if is_known else UNKNOWN
        block_title(block, f"{textwrap.fill(words, 52)}\n{whose}")
        main = attention["encoder"].iloc[0]
        _draw_slide(block, slide, choose_rows(attention, slide=slide.slide, task=slide.task, encoder=main))


def _draw_slide(block: "SubFigure", slide: NamedTuple, patches: "pd.DataFrame") -> None:
    """A slide's picture, with a scale bar below it, and a map of its patches a method, on one colour scale."""
    from matplotlib.collections import PolyCollection
    from PIL import Image

    image = np.asarray(Image.open(BytesIO(b64decode(slide.jpeg))).convert("RGB"))
    labels = {method: look.label for method, look in method_looks(patches).items()}
    panels = block.subplots(1, 1 + len(labels))
    relative = patches["attention"] * patches.groupby("method")["attention"].transform("size")
    limits = 0.0, max(float(relative.quantile(0.98)), 1.0)
    for axes, method in zip(panels, (None, *labels), strict=True):
        axes.imshow(image, extent=(0, slide.width, slide.height, 0), alpha=0.35 if method else 1.0)
        if method:
            own = patches[patches["method"] == method]
            places = own[["x", "y"]].to_numpy()[:, None] + SQUARE * own["side"].to_numpy()[:, None, None]  # [n, 4, 2]
            drawn = PolyCollection(places, array=relative[own.index].to_numpy(), cmap="viridis", clim=limits, lw=0)
            axes.add_collection(drawn)
        axes.set(xlim=(0, slide.width), ylim=(slide.height, 0), aspect="equal")
        axes.set_title(labels.get(method, "H&E"), fontsize=6.5, weight="normal", loc="center", pad=2)
        plain(axes)
    bar = block.colorbar(drawn, ax=list(panels), shrink=0.75, aspect=18, pad=0.01)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=6, length=2)
    bar.set_label("attention, 1: even", fontsize=6)
    is_wide = slide.width * slide.um_per_px > 2_000
    draw_scale(panels[0], (), *(("mm", slide.um_per_px / 1000, 1) if is_wide else ("µm", slide.um_per_px, 500)))
