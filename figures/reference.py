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
_DIFFERENCES = ["difference", "difference_low", "difference_high"]
_KEYS = ["method", "organ", "metric"]


def path(profile: Profile) -> Path:
    """The committed reference of a profile."""
    return paths.PROJECT / "figures" / "reference" / profile.name / f"{RESULT}.csv"


def save(profile: Profile) -> Path:
    """Take the profile's present results as the reference, rounded to four decimals."""
    columns = [*_KEYS, "mean", "difference"]
    beside = results.read_result(profile, BESIDE)
    beside = beside.loc[beside["organ"] == "all", ["table", "label", "mean", "low", "high", *_DIFFERENCES]]
    with atomic(path(profile).with_name(f"{BESIDE}.csv")) as temporary:
        beside.round(4).to_csv(temporary, index=False)
    with atomic(path(profile)) as temporary:
        results.read_result(profile, RESULT)[columns].round(4).to_csv(temporary, index=False)
    return path(profile)


def gaps(profile: Profile):
    """Absolute difference of mean PCC to the reference, a pandas Series by method, organ and metric.

    Raises
    ------
    SealError
        The reference has other methods or organs than the results.
    """
    import pandas as pd

    new = results.read_result(profile, RESULT).set_index(_KEYS)["mean"]
    old = pd.read_csv(path(profile)).set_index(_KEYS)["mean"]
    if set(new.index) != set(old.index):
        odd = sorted(set(new.index) ^ set(old.index))[0]
        raise SealError(
            f"{path(profile)} and the results differ in {odd}",
            expected="the same methods and organs",
            do="if the change is meant, run make reference and say why in the commit",
        )
    return (new - old[new.index]).abs()


def verdict(profile: Profile) -> str:
    """Say whether the results agree with the reference, in words that hold on any machine if they do."""
    if not path(profile).is_file():
        return f"profile {profile.name} has no reference"
    gap = gaps(profile)
    if gap.max() <= TOLERANCE:
        return f"every mean PCC is within {TOLERANCE} of the reference"
    return f"{', '.join(gap.idxmax())} is {gap.max():.3f} from the reference, more than {TOLERANCE}"
