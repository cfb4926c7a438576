"""What this machine can run, what each profile would download, and what the hub lets this account read."""

import os
import platform
import re
import shutil
import tempfile
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from seal import paths, profiles
from seal.data import fetch, maple
from seal.data.pairs import folder_of, tabulate_dropped
from seal.data.samples import find_hest_table
from seal.data.sources import hest
from seal.errors import SealError, explain_hub_error
from seal.models.encoder_registry import REGISTRY, EncoderSpec
from seal.profiles import Profile

HEST, BENCH = "HEST-1k", "MahmoodLab/hest-bench"
SMALL = {  # source -> what it downloads
    "seal_atlas": "0.1 GB from the package index; samples are made on the spot",
    "seal.data.sources.her2st": "0.1 GB from the package index; an archive from github.com, or a copy (SEAL_HER2ST)",
}


def report() -> dict[str, Any]:
    """Look at the machine, the hub and the profiles; fetches nothing that stays.

    Returns
    -------
    machine (versions, GPUs, cores, memory, disks, packages that are missing), hub (whether there is a token, what keeps
    this account from each repository) and profiles (whether each can run, why not, its download, what its pairs left
    out). Sizes in GB.
    """
    machine, hub = _look_at_machine(), _ask_hub()
    rows = []
    for profile in profiles.PROFILES.values():
        download = _plan_download(profile, hub["repositories"][HEST])
        obstacles = _find_obstacles(profile, machine, hub["repositories"], download)
        can = "no" if obstacles else "yes" if download["complete"] else "after the download"
        row = {"name": profile.name, "label": profile.label, "needs": profile.needs, "can_run": can}
        folder = folder_of(profile)
        dropped = tabulate_dropped(folder).to_dict("records") if (folder / "dropped.json").is_file() else []
        rows.append({**row, "why_not": obstacles, "download": download, "dropped": dropped})
    return {"machine": machine, "hub": hub, "profiles": rows}


def _look_at_machine() -> dict[str, Any]:
    places = {"SEAL_HOME": paths.home(), "SEAL_HEST": hest.home()}
    return {
        "python": platform.python_version(),
        **_look_at_torch(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "disks": [{"name": name, "path": str(path), "free_gb": _free_gb(path)} for name, path in places.items()],
        "missing_packages": _list_missing_packages(),
    }


def _look_at_torch() -> dict[str, Any]:
    """PyTorch's version and fault, CUDA's version where it can be used, and the GPUs that it sees."""
    try:
        import torch
    except Exception as error:  # not installed, a system library that is missing, a package that does not fit
        fault = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"torch": None, "torch_fault": fault, "cuda": None, "gpus": []}
    seen = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    gpus = [torch.cuda.get_device_properties(i) for i in seen]
    rows = [{"name": gpu.name, "memory_gb": round(gpu.total_memory / 1e9, 1)} for gpu in gpus]
    return {"torch": torch.__version__, "torch_fault": "", "cuda": torch.version.cuda if gpus else None, "gpus": rows}


def _free_gb(path: Path) -> float:
    """Free space where a folder is, or would be."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return round(shutil.disk_usage(there).free / 1e9, 1)


def _list_missing_packages() -> list[str]:
    """What pyproject.toml asks for and is not installed; nothing without the source tree, since pip saw to it then."""
    path = paths.PROJECT / "pyproject.toml"
    if not path.is_file():
        return []
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["data"], *extras["notebooks"]]
    names = [re.split(r"[^\w.-]", line)[0] for line in lines]
    return [name for name in names if not any(metadata.distributions(name=name))]


def _ask_hub() -> dict[str, Any]:
    """Whether there is a token, and what keeps this account from each repository, empty if nothing does."""
    known = {spec.label: ("model", spec.hub, spec.access) for spec in REGISTRY.values() if spec.hub}
    known |= {HEST: ("dataset", fetch.REPOSITORY, fetch.ADDRESS)}
    known |= {"HEST-Bench": ("dataset", BENCH, f"https://huggingface.co/datasets/{BENCH}")}
    token = False
    try:
        from huggingface_hub import HfApi, get_token

        token = get_token() is not None
        HfApi().dataset_info(fetch.REPOSITORY, timeout=fetch.TIMEOUT)  # once with a limit: `auth_check` has none
    except Exception as error:  # the client's and its HTTP library's
        if getattr(error, "response", None) is None:
            missing = isinstance(error, ImportError)
            why = "huggingface_hub is not installed" if missing else "the hub cannot be reached"
            return {"token": token, "repositories": dict.fromkeys(known, why)}
    problems = dict.fromkeys(known, "")
    for name, (kind, repository, page) in known.items():
        try:
            HfApi().auth_check(repository, repo_type=kind)
        except Exception as error:
            explained = explain_hub_error(error, name, expected="access", address=page)
            problems[name] = f"{explained.what.removeprefix(f'{name}: ')}; {explained.do}"
    return {"token": token, "repositories": problems}


def _plan_download(profile: Profile, problem: str) -> dict[str, Any]:
    """Whether all of a profile's samples are there, and what is not; `problem` is what keeps us from HEST-1k."""
    if profile.source in SMALL:
        return {"complete": True, "note": SMALL[profile.source]}
    try:
        return _plan_hest(profile, problem)
    except (SealError, ImportError) as error:  # ImportError: pandas
        return {"complete": False, "note": f"{HEST}: {getattr(error, 'what', error)}"}


def _plan_hest(profile: Profile, problem: str) -> dict[str, Any]:
    """MAPLE's samples by HEST-1k's table, here or on the hub; sizes by the hub, where this account may read it."""
    root = hest.home()
    if table := find_hest_table(root):
        ids = maple.read_selection(table, profile.selection).samples["id"].tolist()
    elif problem:
        return {"complete": False, "note": f"{HEST}: its table is not in {root}, and the hub cannot be asked for it"}
    else:
        with tempfile.TemporaryDirectory() as folder:
            ids = fetch.maple_ids(Path(folder), profile.selection)
    there = sum((root / f"st/{id}.h5ad").is_file() and (root / f"patches/{id}.h5").is_file() for id in ids)
    note = f"{HEST}: {there} of {len(ids)} samples are there"
    if problem:
        return {"complete": there == len(ids), "note": note}
    plan = fetch.plan(ids, root)
    size, missing = plan.gb(plan.paths), plan.gb(plan.absent())
    note += f", {missing:.3g} of {size:.3g} GB to fetch"
    return {"complete": missing == 0, "note": note, "gb": size, "missing_gb": missing}


def _find_obstacles(profile: Profile, machine: Mapping, problems: Mapping[str, str], download: Mapping) -> list[str]:
    """What stands in the way of a profile, but for its download."""
    lacking = ", ".join(machine["missing_packages"])
    found = [f"not installed: {lacking}"] if lacking else []
    found += [f"PyTorch does not import ({machine['torch_fault']})"] if machine["torch_fault"] else []
    if found or profile.source in SMALL:
        return found
    found += [] if machine["gpus"] else ["no GPU that PyTorch can use"]
    spec = REGISTRY[profile.encoder]
    for name, there in ((spec.label, _has_weights(spec)), (HEST, download["complete"])):
        found += [f"{name}: {problems[name]}"] if problems.get(name) and not there else []
    missing, free = download.get("missing_gb", 0.0), machine["disks"][1]["free_gb"]
    return [*found, f"{missing:.0f} GB to fetch and {free:.0f} GB free"] if missing > free else found


def _has_weights(spec: EncoderSpec) -> bool:
    """Whether an encoder's weights are on this machine: in SEAL_WEIGHTS or in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    from seal.models import weights

    cached = (try_to_load_from_cache(spec.hub, file) for file in spec.files)
    return weights.find_own(spec.name) is not None or any(isinstance(path, str) for path in cached)


def text(report: Mapping[str, Any]) -> str:
    """Give a report as about a screen of text."""
    machine, hub = report["machine"], report["hub"]
    gpus = ", ".join(f"{gpu['name']} ({gpu['memory_gb']:g} GB)" for gpu in machine["gpus"])
    lines = [
        f"Python {machine['python']}, PyTorch {machine['torch'] or 'none'}, CUDA {machine['cuda'] or 'none'}",
        f"{machine['cores']} cores, {machine['memory_gb']} GB memory, GPU: {gpus or 'none that PyTorch can use'}",
        *(f"{disk['name']}: {disk['path']}, {disk['free_gb']:g} GB free" for disk in machine["disks"]),
        "",
        f"Hugging Face hub, token: {'there' if hub['token'] else 'none (`hf auth login`, or HF_TOKEN)'}",
    ]
    for problem in dict.fromkeys(hub["repositories"].values()):
        names = [name for name, its in hub["repositories"].items() if its == problem]
        lines.append(f"  {', '.join(names)}: {problem or 'open to this account'}")
    for row in report["profiles"]:
        lines += ["", f"{row['name']} ({row['label']}): {row['can_run']}"]
        lines += [f"  not now: {why}" for why in row["why_not"]]
        lines += [f"  download: {row['download']['note']}", f"  needs: {row['needs']}"]
        said = "  not in its pairs: {lost:,} of {of:,} {what} ({reason}), in {samples} samples, the first {first}"
        lines += [said.format(**lost) for lost in row["dropped"]]
    return "\n".join([*lines, "", "figures and tables of a profile: make status PROFILE=demo", ""])
