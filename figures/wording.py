"""Words that tables and figures share: what was left out of training, and what an interval speaks of."""

from typing import Any

_SEVERAL = {"donor": "donors", "section": "sections", "study": "studies", "organ": "organs"}


def left_out(row: Any) -> str:
    """What a summary's row was tested on: "one donor left out", or "donors left out in 4 folds"; may be cut short.

    Parameters
    ----------
    row
        With the summary's columns split, dealt and folds.
    """
    split, dealt, folds = row["split"], row["dealt"], row["folds"]
    if split == "given":
        return "the test set's donors left out"
    if dealt == 0:
        return f"one {split} left out"
    return f"{_SEVERAL[split]} left out in {dealt if folds == dealt else f'{folds} of {dealt}'} folds"


def in_turn(row: Any) -> str:
    """`left_out` for notes: "one donor left out at a time", or "donors left out in 4 folds"."""
    return left_out(row) + (" at a time" if row["dealt"] == 0 and row["split"] != "given" else "")


def tested(row: Any, seeds: int) -> str:
    """`left_out` with its numbers, for titles: "one donor left out (6 folds, 3 seeds)"."""
    what = "donor" if row["dealt"] or row["split"] == "given" else "fold"
    number = row[f"{what}s"]
    words = f"{number} {what}{'' if number == 1 else 's'}, {'one seed' if seeds == 1 else f'{seeds} seeds'}"
    return f"{left_out(row)} ({words})"


def brackets(row: Any) -> str:
    """What the 95 % intervals of a summary's row hold, and what they do not."""
    if row["resample"] == "donors":
        return (
            "Brackets: 95 % bootstrap interval over donors; the few donors of a single organ make its interval rough "
            "and too narrow."
        )
    return "Brackets: 95 % bootstrap interval over the spots of these donors; other donors may differ more."
