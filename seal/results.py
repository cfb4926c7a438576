"""Results: tidy tables, each with a stamp that says where it comes from."""

import datetime
import hashlib
import json
import platform
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seal import paths
from seal.errors import SealError, require_known
from seal.files import atomic, digest, read_json, sha256, write_json
from seal.profiles import Profile, difference

if TYPE_CHECKING:
    import pandas as pd

# What results follow from: no prose, and of what is computed how nothing but the precision.
SETTINGS = (
    "source_settings encoder further_encoders image_size um_per_px selection panel omics vision baselines evaluation "
    "slides compute__precision"
)
PACKAGES = "torch torchvision timm peft safetensors h5py numpy scipy pandas scikit-learn anndata scanpy matplotlib"
FROM = ("changed", "seeds", "inputs", "versions")  # of a stamp: what a kept result must have been made from
MEANS = (
    "task encoder method label kind organ metric mean low high difference difference_low difference_high "
    "folds donors seeds split dealt resample tested"
)


@dataclass(frozen=True)
class Result:
    """A tidy table: the notebook that writes it, the columns a reader relies on, and whose data it holds."""

    notebook: str
    columns: tuple[str, ...]
    data: str = "profile"  # "profile": simulated or real as the profile is; "real": always; "none": no data


def _result(notebook: str, columns: str, data: str = "profile") -> Result:
    return Result(notebook, tuple(columns.split()), data)


RESULTS = {
    "samples": _result(
        "01_dataset", "id organ disease_state donor technology spots pairs dataset licence simulated fold"
    ),
    "hest_metadata": _result("01_dataset", "id organ disease_state technology spots study donor role", "real"),
    "maple_waterfall": _result(
        "01_dataset", "rule reason source samples_out spots_out samples_left spots_left", "real"
    ),
    "slide_tasks": _result("A1_simulated_atlas", "task group type strength metric cases oracle low high chance gained"),
    "gene_truth": _result("A1_simulated_atlas", "gene visible hidden counting oracle_pcc ceiling_pcc"),
    "panel": _result("01_dataset", "fold rank gene test organs"),
    "realism": _result("A1_simulated_atlas", "statistic unit source simulated group organ x value low high"),
    "encoders": _result(
        "00_overview",
        "name label hub geometry dim pooling mean std precision gated licence parameters trainable adapter",
        "none",
    ),
    "settings": _result("00_overview", "stage setting symbol value source", "none"),
    "training_curves": _result("04_patch_level", "stage method fold seed epoch step term value"),
    "patch_level": _result("04_patch_level", "task encoder method label kind organ fold donor seed metric value"),
    "patch_level_summary": _result("04_patch_level", MEANS),
    "patch_level_genes": _result("04_patch_level", "gene organ encoder method label kind fold donor seed metric value"),
    "protocols": _result(
        "04_patch_level",
        "task encoder method label kind protocol held_out organ organs genes correlation metric value sd splits reason",
    ),
    "probes": _result("04_patch_level", f"probe {MEANS}"),
    "hest_bench": _result(
        "04_patch_level",
        "task encoder method label kind probe fold seed correlation metric value published simulated note",
    ),
    "hest_bench_summary": _result(
        "04_patch_level",
        "task encoder method label kind probe correlation metric mean low high difference difference_low "
        "difference_high published folds seeds tasks simulated note",
    ),
    "maps": _result("04_patch_level", "fold donor sample barcode x y gene measured frozen seal"),
    "map_sections": _result("04_patch_level", "sample um_per_px simulated span jpeg"),
    "baselines": _result("04_patch_level", MEANS),
    "batch_order": _result(
        "04_patch_level", "method label fold comparison largest share differs mean_pcc_a mean_pcc_b"
    ),
    "ablations": _result("04_patch_level", f"table {MEANS}"),
    "ledger": _result(
        "04_patch_level",
        "claim text said figure result comparisons supported contradicted value low high p least resample seeds "
        "verdict profile data reason",
    ),
    "ablations_long": _result("04_patch_level", f"table {MEANS}"),  # of `python -m seal ablate`
    "scaling": _result(
        "benchmarks/scaling.py", "method label kind quantity pairs donors seeds resample value low high fitted"
    ),
    "slide_level": _result(
        "05_slide_level", "task group metric main encoder method label kind model fold seed cases chance value"
    ),
    "slide_level_summary": _result(
        "05_slide_level",
        "task group metric strength encoder method label kind model mean low high cases folds seeds against base "
        "difference difference_low difference_high error difference_p chance p_holm smallest smallest_relative claimed "
        "matters verdict oracle resample",
    ),
    "slide_level_groups": _result(
        "05_slide_level",
        "group encoder method label kind model against tasks cases mean low high difference difference_low "
        "difference_high difference_p found lost undecided seeds resample",
    ),
    "survival_curves": _result(
        "05_slide_level", "task encoder method label kind model risk days survival low high at_risk p"
    ),
    "attention": _result("05_slide_level", "slide task encoder method label kind x y side attention simulated"),
    "attention_slides": _result("05_slide_level", "slide task truth guess um_per_px width height simulated jpeg"),
    "gene_reliability": _result("04_patch_level", "gene organ fold donor spots counts reliability ceiling"),
    "ablation_shapes": _result(
        "04_patch_level",
        "method label fold effective_rank_train uniformity_train alignment_train recall10_train chance10_train "
        "effective_rank_test uniformity_test alignment_test recall10_test chance10_test",
    ),
}


def _run(*command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=paths.PROJECT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def commit() -> dict[str, Any]:
    """The commit of the project's own repository, and whether files differ from it; None without git."""
    top = _run("git", "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != paths.PROJECT:
        return {"commit": None, "dirty": None}
    changed = (_run("git", "status", "--porcelain=v2") or "").splitlines()
    return {"commit": _run("git", "rev-parse", "--verify", "--quiet", "HEAD"), "dirty": any(map(_differs, changed))}


def _differs(line: str) -> bool:
    """Whether a line of git's status is more than a notebook that has been run: its cells say what they said."""
    name = line.split(" ", 8)[-1]
    cells = lambda text: [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]  # noqa: E731
    with suppress(OSError, ValueError, LookupError, TypeError):  # it is new, gone, or no notebook
        new = (paths.PROJECT / name).read_text(encoding="utf-8")
        return cells(_run("git", "show", f"HEAD:{name}") or "") != cells(new)
    return True


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, those that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES.split():
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def stamp(profile: Profile, inputs: dict[str, Any]) -> dict[str, Any]:
    """Say where something comes from: profile, data, seeds, commit, inputs, versions, UTC time."""
    return {
        "profile": profile.name,
        "data": profile.label,
        "changed": difference(profile, SETTINGS.split()),  # from the profile of that name
        "seeds": list(profile.evaluation.seeds),
        **commit(),
        "inputs": inputs,
        "versions": versions(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def result_path(profile: Profile, name: str) -> Path:
    """Where a result lies: results/PROFILE/NAME.csv."""
    return paths.results(profile.name) / f"{name}.csv"


def _check_columns(frame: "pd.DataFrame", name: str, origin: str) -> None:
    entry = RESULTS[require_known("result", name, RESULTS)]
    if missing := [column for column in entry.columns if column not in frame.columns]:
        what, expected = f"{origin} lacks the columns {', '.join(missing)}", f"the columns {', '.join(entry.columns)}"
        raise SealError(what, expected=expected, do=f"run notebook {entry.notebook} again")


def write_result(profile: Profile, name: str, frame: "pd.DataFrame", inputs: dict[str, Any]) -> Path:
    """Write a tidy table of `RESULTS` as results/PROFILE/NAME.csv with its stamp, NAME.csv.json, beside it.

    Floats have 6 significant digits and at most 12 decimals: the order of a sum does not show. What is written already,
    from the same inputs, stays as it is, its time too.

    Parameters
    ----------
    inputs
        What the table was made from: names with digests or other plain values.

    Returns
    -------
    Path of the csv.

    Raises
    ------
    SealError
        An unknown name, or columns are missing.
    """
    path = result_path(profile, name)
    _check_columns(frame, name, f"the table {name!r}")
    text = frame.round(12).to_csv(index=False, float_format="%.6g").encode()
    entry = {"sha256": hashlib.sha256(text).hexdigest(), "rows": len(frame), **stamp(profile, inputs)}
    entry = json.loads(json.dumps({**entry, "data": data_label(profile, [name])}, default=str))
    old = read_stamp(profile, name) | {"time": entry["time"]}
    if path.is_file() and old == entry and sha256(path) == old["sha256"]:
        return path
    with atomic(path) as temporary:
        temporary.write_bytes(text)
    write_json(path.with_suffix(".csv.json"), entry)
    return path


def read_result(profile: Profile, name: str) -> "pd.DataFrame":
    """Read a tidy table.

    Raises
    ------
    SealError
        It is missing, of other settings, differs from its stamp, or lacks columns; the error names its notebook.
    """
    import pandas as pd

    path, entry = result_path(profile, name), RESULTS[require_known("result", name, RESULTS)]
    again = f"run notebook {entry.notebook} with profile {profile.name}"
    if not path.is_file():
        raise SealError(f"{path} is missing", expected=f"the result {name!r}", do=again)
    made = read_stamp(profile, name)
    if made.get("changed") not in (None, difference(profile, SETTINGS.split())):
        raise SealError(f"{path} was made with other settings than {profile.name}'s", expected="its result", do=again)
    if made.get("sha256") not in (None, sha256(path)):
        what = f"{path} differs from its stamp, {path.name}.json"
        raise SealError(what, expected="the file as its notebook wrote it", do=again)
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""])  # "NA" can be a gene's or a donor's name
    except ValueError as error:
        raise SealError(f"{path} is not a table ({error})", expected="a csv file with a header", do=again) from error
    _check_columns(frame, name, str(path))
    return frame


def keep_result(
    profile: Profile, inputs: dict[str, Any], name: str, compute: Callable[[], "pd.DataFrame"]
) -> "pd.DataFrame":
    """Give a table as it is written: read where this code made it from the same inputs, else computed and written.

    Parameters
    ----------
    inputs
        All that the table follows from beside the settings; the code is added.
    """
    path, inputs = result_path(profile, name), {**inputs, "code": _code(profile.source.partition(".")[0])}
    old, now = read_stamp(profile, name), json.loads(json.dumps(stamp(profile, inputs), default=str))
    if not path.is_file() or any(old.get(key) != now[key] for key in FROM) or sha256(path) != old["sha256"]:
        write_result(profile, name, compute(), inputs)
    return read_result(profile, name)


@cache
def _code(source: str) -> str:
    """Digest of the package's files, and of those of the package that a profile's data come from."""
    files = (file for name in {"seal", source} for file in (paths.PROJECT / name).rglob("*.[cp]*"))
    return digest({str(f.relative_to(paths.PROJECT)): sha256(f) for f in files if f.suffix in (".py", ".csv")})


def data_label(profile: Profile, names: Iterable[str]) -> str:
    """What must be said of something made from these results: simulated data, real data or no sample data."""
    kinds = {RESULTS[require_known("result", name, RESULTS)].data for name in names}
    if "profile" in kinds:
        return profile.label
    return "real data" if "real" in kinds else "no sample data"


def read_stamp(profile: Profile, name: str) -> dict[str, Any]:
    """The stamp of a result, empty if it has none."""
    path = result_path(profile, name).with_suffix(".csv.json")
    return read_json(path) if path.is_file() else {}
