"""Tables of ablations, T51 to T54: one part of the method changed at a time."""

from typing import TYPE_CHECKING

from figures.markdown import interval_text
from figures.T09_T20_patch import BRACKETS, difference_text, pcc_rows
from seal.errors import SealError

if TYPE_CHECKING:
    import pandas as pd

FULL = "full"  # the method that all variants are compared with


def ablated(ablations: "pd.DataFrame", table: str) -> "pd.DataFrame":
    """One row a variant, over all organs: its correlation, and how it stands against the full method.

    Parameters
    ----------
    table
        "T51" to "T54", as in the column `table`.
    """
    import pandas as pd

    summary = pcc_rows(ablations, "all")
    chosen = summary[summary["table"] == table]
    if chosen.empty:
        raise SealError(
            f"ablations.csv has no variant of table {table}", expected="at least one", do="run notebook 04 again"
        )
    rows = [
        {
            "variant": row["label"],
            "PCC": interval_text(row["mean"], row["low"], row["high"]),
            "against the full method, paired": "" if row["method"] == FULL else difference_text(row),
            "verdict": "" if row["method"] == FULL else _verdict(row),
            "folds": row["folds"],
            "donors": row["donors"],
            "seeds": row["seeds"],
        }
        for _, row in chosen.iterrows()
    ]
    frame, first = pd.DataFrame(rows), chosen.iloc[0]
    frame.attrs["note"] = (
        f"Our first rows: seeds {chosen['seeds'].max()}, {first['tested']}. {BRACKETS[first['resample']]} Where that "
        "of a difference includes zero, the variant is not told apart from the full method. What another seed would "
        "change is not in the intervals, and they are not corrected for the number of variants."
    )
    return frame


def _verdict(row) -> str:
    if row["difference_low"] > 0:
        return "better"
    return "worse" if row["difference_high"] < 0 else "not told apart"
