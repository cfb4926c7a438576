"""MAPLE-Test: whole donors of six organs, chosen by rule before anything is trained; nobody is on both sides.

Which organs and samples the paper tests on is not public; it says six organs and about 70,000 spots. Our rule:

1. In an organ, donors are looked at in the order of a hash of their name, which knows nothing of their tissue. A
   donor is taken unless the organ's test spots would exceed its share (a sixth of 70,000) by more than a fifth, until
   the share is reached. A donor whose sections lie in several organs is never taken: it would be a scrap in each.
2. An organ qualifies if that gives two donors and four fifths of its share at least, and leaves two donors and two
   thirds of its spots to training. Of those that qualify, the six with most donors; ties by name.
"""

import hashlib
from typing import TYPE_CHECKING

from seal.data.maple.rules import bench_samples
from seal.errors import SealError
from seal.profiles import SelectionSettings

if TYPE_CHECKING:
    import pandas as pd

MOST, LEAST = 1.2, 0.8  # of the share
TRAINED_ON = 2 / 3  # of an organ's spots, at least


def choose(samples: "pd.DataFrame", settings: SelectionSettings) -> list[str]:
    """Choose MAPLE-Test's donors from organ, donor and spots of the samples that the rules leave.

    Raises
    ------
    SealError
        No organ has donors enough.

    Source: our choice; the number of organs and spots are the paper's.
    """
    share = settings.test_spots / settings.test_organs
    chosen = {organ: _of_organ(samples, organ, share) for organ in sorted(set(samples["organ"]))}
    donors = samples.groupby("organ")["donor"].nunique()
    able = sorted((organ for organ in chosen if chosen[organ]), key=lambda organ: (-donors[organ], organ))
    if not able:
        raise SealError(
            "no organ has donors enough to leave some of them out",
            expected=f"two test donors with about {share:,.0f} spots, and twice as many spots left to train on",
            do="take HEST-1k's own table, whole",
        )
    return sorted(donor for organ in able[: settings.test_organs] for donor in chosen[organ])


def _of_organ(samples: "pd.DataFrame", organ: str, share: float) -> list[str]:
    """An organ's test donors; none if it does not qualify."""
    places = samples.groupby("donor")["organ"].nunique()
    spots = samples[samples["organ"] == organ].groupby("donor")["spots"].sum()
    chosen, reached = [], 0
    for donor in sorted(spots.index, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        if places[donor] == 1 and reached < share and reached + spots[donor] <= MOST * share:
            chosen.append(donor)
            reached += int(spots[donor])
    enough = len(chosen) >= 2 and reached >= LEAST * share
    left = len(spots) - len(chosen) >= 2 and spots.sum() - reached >= TRAINED_ON * spots.sum()
    return chosen if enough and left else []


def require_apart(samples: "pd.DataFrame") -> None:
    """Assert that training and test (`role`) share no donor and no section, and that HEST-Bench's `id` is in neither.

    Raises
    ------
    SealError
        Names the first donor, section or sample that is where it must not be.
    """
    for unit in ("donor", "section"):
        roles = samples.groupby(unit)["role"].nunique()
        shared = roles.index[roles > 1]
        if len(shared):
            both = samples.loc[samples[unit] == shared[0]]
            sides = "; ".join(f"{role}: {', '.join(part['id'])}" for role, part in both.groupby("role"))
            raise SealError(
                f"{unit} {shared[0]!r} is on both sides of the split ({sides})",
                expected=f"each {unit} in training or in the test set",
                do="move its samples to one side, or leave them out",
            )
    benchmark = sorted(bench_samples() & set(samples["id"]))
    if benchmark:
        raise SealError(
            f"{benchmark[0]} belongs to HEST-Bench",
            expected="samples outside HEST-Bench",
            do="leave it out: the benchmark is tested on",
        )
