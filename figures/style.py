"""What all figures share: style, sizes, colours by kind of method, the mark that says whose data it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seal.errors import SealError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

SINGLE, DOUBLE = 89.0, 183.0  # mm, widths of one and two columns
MM = 1 / 25.4  # inches
HEADER = 4.5  # mm kept free at the top for the mark

# Okabe and Ito's colours, told apart by readers of every colour vision.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, YELLOW, BLACK = "#E69F00", "#56B4E9", "#F0E442", "#000000"
GREY, LIGHT = "#7F7F7F", "#C9C9C9"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, YELLOW, BLACK)

# What kind a method is (the results' column `kind`) -> the colours of its methods, in their order in the results.
KINDS = {
    "encoder": (BLUE,),
    "adapted": (VERMILION,),
    "control": (GREY,),
    "readout": (VERMILION,),
    "baseline": (GREEN, PURPLE, ORANGE, SKY, YELLOW),
    "probed": (GREEN, PURPLE, ORANGE, SKY, YELLOW),
    "truth": (BLACK,),  # lines across all methods, never markers
}
MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")  # of all but the encoder and SEAL, which are circles
LINES = ((0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1.5, 1, 1.5)))


@dataclass(frozen=True)
class Look:
    """How a method is drawn wherever it appears."""

    label: str
    kind: str
    colour: str
    marker: str
    line: tuple[float, tuple[float, ...]]  # dashes, for the truth


def method_looks(table: "pd.DataFrame") -> dict[str, Look]:
    """Method -> look, in the order of the table's rows, which have the columns method, label and kind.

    Raises
    ------
    SealError
        A kind is none of `KINDS`.
    """
    looks: dict[str, Look] = {}
    seen = dict.fromkeys(KINDS, 0)
    for method, label, kind in table[["method", "label", "kind"]].drop_duplicates("method").itertuples(index=False):
        if kind not in KINDS:
            raise SealError(
                f"method {method!r} is of the kind {kind!r}",
                expected=f"one of {', '.join(KINDS)}",
                do="correct its kind in seal/evaluate/methods.py, or add the kind to KINDS in figures/style.py",
            )
        i, colours = seen[kind], KINDS[kind]
        seen[kind] += 1
        colour = colours[i % len(colours)]
        marker = "o" if kind in ("encoder", "adapted") and not i else MARKERS[i % len(MARKERS)]
        looks[method] = Look(label, kind, colour, marker, LINES[i % len(LINES)])
    return looks


@contextmanager
def style() -> Iterator[None]:
    """Draw in the project's style: ``with style(): ...`` or ``@style()`` over a function."""
    import matplotlib.style

    with matplotlib.style.context(Path(__file__).parent / "seal.mplstyle"):
        yield


def new_figure(width: float, height: float) -> "Figure":
    """Make an empty figure, mm, with the strip for the mark left free.

    It is closed for pyplot at once: a notebook shows it where it is the cell's value, once, and a loop over
    many figures keeps none alive.
    """
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(width * MM, height * MM), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - HEADER / height))
    plt.close(figure)
    return figure


def mark(figure: "Figure", text: str) -> "Figure":
    """Say at the top right of a figure whose data it shows; simulated data in bold vermilion."""
    simulated = text.startswith("simulated")
    look = {"color": VERMILION, "weight": "bold"} if simulated else {"color": GREY}
    figure.text(0.995, 0.995, text, ha="right", va="top", fontsize=6.5, **look)
    return figure


def panel_title(axes: "Axes", letter: str, title: str) -> None:
    """Set a panel's letter and title."""
    axes.set_title(f"{letter}  {title}" if letter else title, loc="left")


def block_title(figure: "Figure | SubFigure", title: str) -> None:
    """Set the title of a part of a figure, at its left edge."""
    figure.suptitle(title, fontsize=7, weight="bold", x=0.01, ha="left")


def plain(axes: "Axes") -> None:
    """Take an axes' frame and ticks away, for pictures and drawings."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_scale(axes: "Axes", x, unit: str, per_px: float = 1.0, length: float | None = None) -> None:
    """Draw a bar of a round length, about a quarter of the picture's width unless it is given, below it.

    Parameters
    ----------
    per_px
        Units a px: 1 for px, um_per_px for um.
    """
    import numpy as np

    if length is None:
        extent = float(np.ptp(np.asarray(x, dtype=float)))
        quarter = max(extent * per_px / 4, 1e-9)
        power = 10 ** np.floor(np.log10(quarter))
        length = max(step for step in (1, 2, 5) if step * power <= quarter) * power
    left = axes.get_xlim()[0]
    across = axes.get_xaxis_transform()
    axes.plot([left, left + length / per_px], [-0.03, -0.03], color=GREY, lw=1.5, transform=across, clip_on=False)
    axes.text(left, -0.06, f"{length:,.0f} {unit}", va="top", fontsize=6, color=GREY, transform=across, clip_on=False)
