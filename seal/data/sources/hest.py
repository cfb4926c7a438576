"""Source: HEST-1k, gated on the Hugging Face hub, as `python -m seal fetch` brings it; MAPLE selects from it."""

from pathlib import Path
from typing import TYPE_CHECKING

from seal import paths
from seal.data import maple
from seal.data.samples import read_table
from seal.data.sources import refuse_settings
from seal.errors import SealError
from seal.profiles import Profile

if TYPE_CHECKING:
    import pandas as pd


def home() -> Path:
    """The folder of HEST-1k itself: SEAL_HEST, or data/samples/hest."""
    return paths.given("SEAL_HEST") or paths.samples("hest")


def prepare(profile: Profile) -> Path:
    """Give the HEST-1k tree of the maple profile.

    Raises
    ------
    SealError
        There is none; HEST-1k is gated, so it must be asked for first. Or `source_settings`: there are none.
    """
    refuse_settings(profile)
    root = home()
    if not (root / "st").is_dir():
        raise SealError(
            f"profile {profile.name}: {root} holds no HEST-1k samples",
            expected="HEST_v*.csv, st/ and patches/ of the data set MahmoodLab/hest",
            do="ask for access at https://huggingface.co/datasets/MahmoodLab/hest, see what it takes with `python -m "
            "seal doctor`, then run `python -m seal fetch`; or set SEAL_HEST to a copy",
        )
    return root


def select_rows(profile: Profile, root: Path) -> "pd.DataFrame":
    """MAPLE's rows of a tree's table, with donor and role; all rows where the table is not HEST-1k's own."""
    table, selection = read_table(root), maple.read_selection(root, profile.selection)
    if selection is None:
        return table
    return table.drop(columns=["donor", "role"]).merge(selection.samples[["id", "donor", "role"]], on="id")
