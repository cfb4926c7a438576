"""Reference values: what a profile gave when it was last committed, and how far another machine may be from it."""

from pathlib import Path

from seal import paths, results
from seal.errors import SealError
from seal.files import atomic
from seal.profiles import Profile

RESULT = "patch_level_summary"
BESIDE = "ablations"  # committed too, to be read; a single seed is too few to hold other machines to it
# In mean PCC. CPUs differ in the last bits of a sum, training multiplies such differences: our choice.
TOLERANCE = 0.03
_KEYS = ["method", "organ", "metric"]
_BESIDE = ["table", "label", "mean", "low", "high", "difference", "difference_low", "difference_high"]


def path(profile: Profile) -> Path:
    """The committed reference of a profile."""
    return paths.PROJECT / "figures" / "reference" / profile.name / f"{RESULT}.csv"


def save(profile: Profile) -> Path:
    """Take the profile's present results as the reference, rounded to four decimals."""
    summary, ablations = results.read_result(profile, RESULT), results.read_result(profile, BESIDE)
    tables = {
        path(profile): summary[[*_KEYS, "mean", "difference"]],
        path(profile).with_name(f"{BESIDE}.csv"): ablations.loc[ablations["organ"] == "all", _BESIDE],
    }
    for file, table in tables.items():
        with atomic(file) as temporary:
            table.round(4).to_csv(temporary, index=False)
    return path(profile)


def verdict(profile: Profile) -> str:
    """Say whether the results agree with the reference, in words that hold on any machine if they do.

    Raises
    ------
    SealError
        The reference has other methods or organs than the results.
    """
    import pandas as pd

    if not path(profile).is_file():
        return f"profile {profile.name} has no reference"
    new = results.read_result(profile, RESULT).set_index(_KEYS)["mean"]
    old = pd.read_csv(path(profile)).set_index(_KEYS)["mean"]
    if odd := sorted(set(new.index) ^ set(old.index)):
        raise SealError(
            f"{path(profile)} and the results differ in {odd[0]}",
            expected="the same methods and organs",
            do="if the change is meant, run make reference and say why in the commit",
        )
    gap = (new - old[new.index]).abs()
    if gap.max() <= TOLERANCE:
        return f"every mean PCC is within {TOLERANCE} of the reference"
    return f"{', '.join(gap.idxmax())} is {gap.max():.3f} from the reference, more than {TOLERANCE}"
