"""Tables of ablations, T51 to T54: one part of the method changed at a time."""

from typing import TYPE_CHECKING

from figures.markdown import interval_text
from figures.T09_T20_patch import BRACKETS, difference_text, pcc_rows
from seal.errors import SealError

if TYPE_CHECKING:
    import pandas as pd

FULL = "full"  # the method that all variants are compared with
ENOUGH = 2  # seeds that a verdict rests on


def ablated(
    ablations: "pd.DataFrame | None" = None, ablations_long: "pd.DataFrame | None" = None, *, table: str
) -> "pd.DataFrame":
    """One row a variant, over all organs: its correlation, and how it stands against the full method.

    Parameters
    ----------
    ablations, ablations_long
        Those of notebook 04, or in their place those of `python -m seal ablate`, of all variants and more seeds. A
        variant of no seeds did not run; the note names it.
    table
        "T51" to "T54", as in the column `table`.
    """
    import pandas as pd

    summary = pcc_rows(ablations if ablations_long is None else ablations_long, "all")
    of_table = summary[summary["table"] == table]
    chosen, left = of_table[of_table["seeds"] > 0], of_table.loc[of_table["seeds"] == 0, "label"]
    if chosen.empty:
        raise SealError(
            f"ablations.csv has no variant of table {table}", expected="at least one", do="run notebook 04 again"
        )
    seeds = chosen["seeds"].max()
    rows = [
        {
            "variant": row["label"],
            "PCC": interval_text(row["mean"], row["low"], row["high"]),
            "against the full method, paired": "" if row["method"] == FULL else difference_text(row),
            "verdict": "" if row["method"] == FULL else _verdict(row, seeds),
            "folds": row["folds"],
            "donors": row["donors"],
            "seeds": row["seeds"],
        }
        for _, row in chosen.iterrows()
    ]
    frame, first = pd.DataFrame(rows), chosen.iloc[0]
    one = "What another seed would change is not in the intervals"
    unlike = "Scores are means over seeds" if seeds >= ENOUGH else one
    frame.attrs["note"] = (
        f"Our first rows: seeds {seeds}, {first['tested']}. {BRACKETS[first['resample']]} Where that "
        f"of a difference includes zero, the variant is not told apart from the full method. {unlike}, "
        "and they are not corrected for the number of variants."
    )
    if len(left):
        frame.attrs["note"] += f" Not run: {'; '.join(left)}. `python -m seal ablate` runs all, with more seeds."
    return frame


def _verdict(row: "pd.Series", seeds: int) -> str:
    if row["difference_low"] <= 0 <= row["difference_high"]:
        return "not told apart"
    word = "better" if row["difference_low"] > 0 else "worse"
    return word if seeds >= ENOUGH else f"{word}? One seed: a first look"
