"""Source: HEST-1k, gated on the Hugging Face hub, as `python -m seal fetch` brings it; MAPLE selects from it."""

import os
from pathlib import Path

from seal import paths
from seal.data import maple
from seal.data.samples import Sample
from seal.errors import SealError
from seal.profiles import Profile


def home() -> Path:
    """The folder of HEST-1k itself: SEAL_HEST, or data/samples/hest."""
    return Path(os.environ.get("SEAL_HEST") or paths.samples("hest")).expanduser()


def prepare(profile: Profile) -> Path:
    """Give the HEST-1k tree of the maple profile.

    Raises
    ------
    SealError
        There is none; HEST-1k is gated, so it must be asked for first.
    """
    root = home()
    if not (root / "st").is_dir():
        raise SealError(
            f"profile {profile.name}: {root} holds no HEST-1k samples",
            expected="HEST_v*.csv, st/ and patches/ of the data set MahmoodLab/hest",
            do="ask for access at https://huggingface.co/datasets/MahmoodLab/hest, see what it takes with `python -m "
            "seal doctor`, then run `python -m seal fetch`; or set SEAL_HEST to a copy",
        )
    return root


def select_samples(profile: Profile, root: Path) -> list[Sample]:
    """MAPLE's samples of a prepared tree; see `seal.data.maple.select_samples`."""
    return maple.select_samples(root, profile.selection)
