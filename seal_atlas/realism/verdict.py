"""Where the simulation falls short of real sections, in plain sentences computed from the numbers."""

from typing import TYPE_CHECKING

import numpy as np

from seal_atlas.realism.pairings import PAIRED, POOLED
from seal_atlas.realism.statistic import STATISTICS

if TYPE_CHECKING:
    import pandas as pd

EVEN = 0.25  # simulated sections whose spread is below this part of the real one's are called too alike
SEVERAL = 8  # sections of each kind that a statement on spread needs
RANGE = 3  # real sections that make a range
SLIGHT = 0.02  # of the range's end; less than that outside is not worth a sentence


def shortfalls(realism: "pd.DataFrame") -> list[str]:
    """Say which statistics of the simulated sections lie outside the range of the real ones, and by how much.

    The median of simulated sections is held against the smallest and the largest real section; sections of the
    organs that the real ones show, where there are any. Then, whether they vary too little from one to the next, and
    whether a classifier tells simulated patches from real ones better than two real patients.

    Parameters
    ----------
    realism
        From `section_statistics` and `apart_statistics`.

    Returns
    -------
    One sentence a shortfall, in the order of `STATISTICS`.
    """
    kinds = realism["statistic"].map(lambda name: STATISTICS[name].kind)
    sections = realism[kinds.isin(["expression", "picture"])]
    number_real = sections.loc[~sections["simulated"].astype(bool), "group"].nunique()
    if number_real < RANGE:
        return [f"Real sections at hand: {number_real}, too few for a range. Let SEAL_HER2ST name a copy of her2st."]
    found = []
    for name in STATISTICS:
        simulated, real, organs = values_of_like_organs(sections[sections["statistic"] == name])
        if len(simulated) and len(real) >= RANGE:
            found += _of_statistic(name, simulated, real, organs)
    return found + [line for feature in ("encoder", "colour") for line in _of_classifier(realism, feature)]


def values_of_like_organs(one: "pd.DataFrame") -> tuple[np.ndarray, np.ndarray, str]:
    """Values of simulated and of real sections of like organs, and which organs these are.

    Parameters
    ----------
    one
        Rows of one statistic. Where no simulated section is of an organ that real ones show, all of them are taken.
    """
    simulated = one["simulated"].to_numpy(dtype=bool)
    real = one[~simulated]
    like = simulated & one["organ"].isin(real["organ"]).to_numpy()
    chosen = one[like] if like.any() else one[simulated]
    organs = ", ".join(sorted(set(chosen["organ"]))) if like.any() else "all organs"
    return chosen["value"].dropna().to_numpy(), real["value"].dropna().to_numpy(), organs


def _of_statistic(name: str, simulated: np.ndarray, real: np.ndarray, organs: str) -> list[str]:
    label, unit, _ = STATISTICS[name]
    shown = f" {unit}" if unit in ("degrees", "µm²") else ""
    median, low, high = float(np.median(simulated)), float(real.min()), float(real.max())
    what = (
        f"{label[0].upper()}{label[1:]}: the median simulated section ({organs}; {len(simulated)}) has "
        f"{format_number(median)}{shown}, real ones ({len(real)}) lie between {format_number(low)} and "
        f"{format_number(high)}"
    )
    end = low if median < low else high
    if not low <= median <= high and abs(median - end) > SLIGHT * abs(end):
        by = f"{abs(median - end):.2g}" if abs(median - end) < 100 else format_number(abs(median - end))
        ratio = f", a factor of {max(median / end, end / median):.2f}" if low > 0 and median > 0 else ""
        return [f"{what}: {by} too {'low' if median < low else 'high'}{ratio}."]
    spread = [np.subtract(*np.quantile(values, [0.75, 0.25])) for values in (simulated, real)]
    if min(len(simulated), len(real)) >= SEVERAL and spread[0] < EVEN * spread[1]:
        return [f"{what}; but the simulated ones are too alike, with {spread[0] / spread[1]:.0%} of the real spread."]
    return []


def format_number(value: float) -> str:
    """A number with about three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _of_classifier(realism: "pd.DataFrame", feature: str) -> list[str]:
    auc = realism[realism["statistic"] == f"auc_{feature}"]
    means = auc.groupby("source")["value"].mean()
    by = {"encoder": "by the frozen encoder", "colour": "by colour alone"}[feature]
    ours, real = means.get(PAIRED[0]), means.get(PAIRED[1])
    if ours is not None and real is not None:
        if ours <= real:
            return []
        return [
            f"Patches of a simulated and a real section are told apart {by} with an AUC of {ours:.2f}, those of "
            f"two real patients with {real:.2f}."
        ]
    pooled = means.get(POOLED[1])
    return [] if pooled is None else [f"Simulated and real patches are told apart {by} with an AUC of {pooled:.2f}."]
