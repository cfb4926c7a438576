"""The reference: a profile's results as they were last committed; how far another machine may be from it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures.sources import RECORDED, Source
from seal import results
from seal.errors import SealError
from seal.files import atomic, sha256, write_json
from seal.profiles import Profile

if TYPE_CHECKING:
    import pandas as pd

RESULT = "patch_level_summary"
# In mean PCC. CPUs differ in the last bits of a sum, training multiplies such differences: our choice.
TOLERANCE = 0.03
DIGITS = "%.6g"  # as results have: tables show three decimals, and rounding twice would show
PIXELS = {"maps": ["x", "y"]}  # places, in whole pixels
# Rows of HEST-1k's table (CC BY-NC-SA 4.0), expression of its samples, and slides of others: not ours to hand on.
WITHHELD = {"maple": ("samples", "maps", "map_sections", "attention", "attention_slides")}
LARGE = ("slide_level",)  # scores of single folds: nothing is drawn from them
_KEYS = ["encoder", "method", "organ", "metric"]


def _first_sections(maps: "pd.DataFrame") -> "pd.DataFrame":
    return maps[maps["sample"].isin(maps.drop_duplicates("fold")["sample"])]


def _by_epoch(curves: "pd.DataFrame") -> "pd.DataFrame":
    keys = [column for column in curves if column not in ("step", "value")]
    means = curves.groupby(keys, sort=False, dropna=False).agg(step=("step", "max"), value=("value", "mean"))
    return means.reset_index()[list(curves)]


def _two_methods(genes: "pd.DataFrame") -> "pd.DataFrame":
    rows = genes[genes["kind"].isin(["encoder", "adapted"]) & (genes["metric"] == "pcc")]
    keys = [column for column in rows if column not in ("seed", "value")]
    means = rows.groupby(keys, sort=False, dropna=False).agg(seed=("seed", "min"), value=("value", "mean"))
    return means.reset_index()[list(rows)]


def _first_by_abmil(curves: "pd.DataFrame") -> "pd.DataFrame":
    return curves[(curves["encoder"] == curves["encoder"].iloc[0]) & (curves["model"] == "abmil")]


def _counts(samples: "pd.DataFrame") -> "pd.DataFrame":
    counted = samples.groupby(["organ", "disease_state"]).agg(samples=("id", "size"), spots=("spots", "sum"))
    return counted.reset_index()


# What is kept of large tables, and of those that are not ours to hand on; what is drawn from them is the same.
THINNED: dict[str, tuple[Callable[["pd.DataFrame"], "pd.DataFrame"], str]] = {
    "maps": (_first_sections, "the first section of each fold, as E4 draws"),
    "training_curves": (_by_epoch, "means over the steps of an epoch, as E5 draws"),
    "patch_level_genes": (_two_methods, "the frozen encoder and SEAL, means over seeds, as T20 has"),
    "survival_curves": (_first_by_abmil, "the main encoder by ABMIL, as notebook 05 draws"),
    "hest_metadata": (_counts, "counts by organ and disease state, as F1 draws; no row of HEST-1k's table"),
}


def save(profile: Profile) -> Path:
    """Take the profile's present results as its reference; what was there before goes.

    Returns
    -------
    The folder: a csv a table, and manifest.json, which says where each comes from and what is kept of it.

    Raises
    ------
    SealError
        There is no result, or one of them is damaged.
    """
    source, withheld = Source(profile), WITHHELD.get(profile.name, ())
    names = [n for n in results.RESULTS if source.has(n) and n not in (*withheld, *LARGE, RECORDED)]
    if not names:
        raise SealError(
            f"{source.folder} holds no result", expected="its tidy tables", do=f"make figures PROFILE={profile.name}"
        )
    folder = Source(profile, committed=True).folder
    whole = {"profile": profile.name, "data": profile.label, **results.commit()}  # before a file here changes that
    with atomic(folder) as temporary:
        temporary.mkdir()
        tables = {name: _take(source, name, temporary / f"{name}.csv") for name in names}
        write_json(temporary / "manifest.json", whole | {"tables": tables})
    return folder


def _take(source: Source, name: str, file: Path) -> dict[str, Any]:
    """Write a table, thinned; its entry in the manifest."""
    frame, stamp, kept = source.read(name), source.stamp(name), "all rows"
    if name in THINNED:
        thin, kept = THINNED[name]
        frame = thin(frame)
    whole = {column: frame[column].round().astype(int) for column in PIXELS.get(name, ())}
    frame.assign(**whole).to_csv(file, index=False, float_format=DIGITS)
    of = {"result": {"sha256": stamp.get("sha256"), "rows": stamp.get("rows")}, "kept": kept}
    return stamp | of | {"sha256": sha256(file), "rows": len(frame)}


def verdict(profile: Profile) -> str:
    """Say whether the results agree with the reference, in words that hold on any machine if they do.

    Raises
    ------
    SealError
        The reference has other methods or organs than the results.
    """
    import pandas as pd

    path = Source(profile, committed=True).path(RESULT)
    if not path.is_file():
        return f"profile {profile.name} has no reference"
    new = results.read_result(profile, RESULT).set_index(_KEYS)["mean"]
    old = pd.read_csv(path).set_index(_KEYS)["mean"]
    if odd := sorted(set(new.index) ^ set(old.index)):
        raise SealError(
            f"{path} and the results differ in {odd[0]}",
            expected="the same methods and organs",
            do="if the change is meant, run make reference and say why in the commit",
        )
    gap = (new - old[new.index]).abs()
    if gap.max() <= TOLERANCE:
        return f"every mean PCC is within {TOLERANCE} of the reference"
    return f"{', '.join(gap.idxmax())} is {gap.max():.3f} from the reference, more than {TOLERANCE}"
