"""The leakage audit of a split: that no donor and no section is on both sides, and HEST-Bench on neither."""

from typing import TYPE_CHECKING

from seal.data.maple import bench
from seal.errors import SealError

if TYPE_CHECKING:
    import pandas as pd


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
    benchmark = sorted(bench.samples() & set(samples["id"]))
    if benchmark:
        raise SealError(
            f"{benchmark[0]} belongs to HEST-Bench",
            expected="samples outside HEST-Bench",
            do="leave it out: the benchmark is tested on",
        )
