"""What this machine can run, what each profile would download, and what the hub lets this account read."""

import os
import platform
import re
import shutil
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from seal import paths, profiles
from seal.data import fetch, maple
from seal.data.samples import find_hest_table
from seal.data.sources import hest
from seal.errors import SealError
from seal.files import explain_hub_error
from seal.models import encoder_registry
from seal.profiles import Profile

BENCH = "MahmoodLab/hest-bench"
DOWNLOAD = {"source": "{}", "samples": "{} samples", "gb": "{:.3g} GB", "missing_gb": "{:.3g} GB of it to fetch",
            "note": "{}"}  # fmt: skip
PATIENCE = 10.0  # s that the hub has for its first answer


def report() -> dict[str, Any]:
    """Look at the machine, the hub and the profiles; fetches nothing that stays.

    Returns
    -------
    machine (versions, GPUs, cores, memory, disks, packages that are missing), hub (whether there is a token, what keeps
    this account from each repository) and profiles (whether each can run, why not, its download). Sizes in GB.
    """
    machine, hub = _look_at_machine(), _ask_hub()
    rows = []
    for profile in profiles.PROFILES.values():
        download = _plan_download(profile, hub["repositories"]["HEST-1k"])
        obstacles = _find_obstacles(profile, machine, hub["repositories"], download)
        can = "no" if obstacles else "yes" if download.complete else "after the download"
        row = {"name": profile.name, "label": profile.label, "needs": profile.needs, "can_run": can}
        rows.append({**row, "why_not": obstacles, "download": asdict(download)})
    return {"machine": machine, "hub": hub, "profiles": rows}


def _look_at_machine() -> dict[str, Any]:
    places = {"SEAL_HOME": paths.home(), "SEAL_HEST": hest.home()}
    return {
        "python": platform.python_version(),
        **_look_at_torch(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "disks": [{"name": name, "path": str(path), "free_gb": _free_gb(path)} for name, path in places.items()],
        "missing_packages": [name for name in _list_packages() if not _is_installed(name)],
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


def _list_packages() -> list[str]:
    """What pyproject.toml asks for; nothing without the source tree, since pip saw to it then."""
    path = paths.PROJECT / "pyproject.toml"
    if not path.is_file():
        return []
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["notebooks"]]
    return [re.split(r"[^\w.-]", line)[0] for line in lines]


def _is_installed(package: str) -> bool:
    return next(metadata.distributions(name=package), None) is not None


def _ask_hub() -> dict[str, Any]:
    """Whether there is a token, and what keeps this account from each repository, empty if nothing does."""
    known = {spec.label: ("model", spec.hub) for spec in encoder_registry.REGISTRY.values() if spec.hub}
    known |= {"HEST-1k": ("dataset", fetch.REPOSITORY), "HEST-Bench": ("dataset", BENCH)}
    try:
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        return {"token": False, "repositories": dict.fromkeys(known, "huggingface_hub is not installed")}
    token = get_token() is not None
    try:  # once with a limit: the questions of access have none
        HfApi().dataset_info(fetch.REPOSITORY, timeout=PATIENCE)
    except HfHubHTTPError:
        pass  # it answers
    except Exception:  # whatever it is, the hub was not reached
        return {"token": token, "repositories": dict.fromkeys(known, "the hub cannot be reached")}
    problems = {}
    for name, (kind, repository) in known.items():
        try:
            HfApi().auth_check(repository, repo_type=kind)
            problems[name] = ""
        except Exception as error:  # the client's and its HTTP library's
            page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repository}"
            explained = explain_hub_error(error, name, expected="access", address=page)
            problems[name] = f"{explained.what.removeprefix(f'{name}: ')}; {explained.do}"
    return {"token": token, "repositories": problems}


@dataclass(frozen=True)
class Download:
    """A profile's download: from where, whether all of it is there, its samples, GB in all and GB that are missing."""

    source: str
    complete: bool
    note: str
    samples: int | None = None
    gb: float | None = None
    missing_gb: float | None = None


def _plan_download(profile: Profile, problem: str) -> Download:
    """What a profile downloads; `problem` is what keeps this account from HEST-1k."""
    if profile.source == "seal.data.sources.hest":
        try:
            return _plan_hest(profile, problem)
        except (SealError, ImportError) as error:  # ImportError: pandas
            return Download("HEST-1k", False, getattr(error, "what", str(error)))
    if profile.source == "seal_atlas":
        return Download("the package index", True, "samples are made on the spot", gb=0.1)
    copy = Path(os.environ.get("SEAL_HER2ST") or paths.downloads() / "her2st").expanduser()
    note = f"sections in {copy}" if copy.is_dir() else "and one archive whose size is not known beforehand"
    return Download("the package index and github.com", copy.is_dir(), note, gb=0.1)


def _plan_hest(profile: Profile, problem: str) -> Download:
    """MAPLE's samples by HEST-1k's table, here or on the hub; sizes by the hub, where this account may read it."""
    root = hest.home()
    if table := find_hest_table(root):
        ids = maple.read_selection(table, profile.selection).samples["id"].tolist()
    elif problem:
        return Download("HEST-1k", False, f"its table is not in {root}, and the hub cannot be asked for it")
    else:
        with tempfile.TemporaryDirectory() as folder:
            ids = fetch.maple_ids(Path(folder), profile.selection)
    there = sum((root / f"st/{id}.h5ad").is_file() and (root / f"patches/{id}.h5").is_file() for id in ids)
    note = f"{there} samples are there"
    if problem:
        return Download("HEST-1k", there == len(ids), note, len(ids))
    plan = fetch.plan(ids, root)
    missing = plan.gb(plan.absent())
    return Download("HEST-1k", missing == 0, note, len(ids), plan.gb(plan.paths), missing)


def _find_obstacles(profile: Profile, machine: Mapping, problems: Mapping[str, str], download: Download) -> list[str]:
    """What stands in the way of a profile, but for its download."""
    lacking = ", ".join(machine["missing_packages"])
    found = [f"not installed: {lacking}"] if lacking else []
    found += [f"PyTorch does not import ({machine['torch_fault']})"] if machine["torch_fault"] else []
    if profile.source != "seal.data.sources.hest":
        return found
    found += [] if machine["gpus"] else ["no GPU that PyTorch can use"]
    spec = encoder_registry.get(profile.encoder)
    for name, there in ((spec.label, _has_weights(spec)), ("HEST-1k", download.complete)):
        found += [f"{name}: {problems[name]}"] if problems.get(name) and not there else []
    free = machine["disks"][1]["free_gb"]
    if (download.missing_gb or 0.0) > free:
        found.append(f"{download.missing_gb:.0f} GB to fetch and {free:.0f} GB free")
    return found


def _has_weights(spec: encoder_registry.EncoderSpec) -> bool:
    """Whether an encoder's weights are on this machine: in SEAL_WEIGHTS or in the hub's cache."""
    folder = os.environ.get("SEAL_WEIGHTS")
    if folder and any(Path(folder).glob(f"{spec.name}.*")):
        return True
    if not _is_installed("huggingface_hub"):
        return False
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(spec.hub, file), str) for file in spec.files)


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
        known = {name: value for name, value in row["download"].items() if value is not None}
        download = ", ".join(form.format(known[name]) for name, form in DOWNLOAD.items() if name in known)
        lines += [f"  download: {download}", f"  needs: {row['needs']}"]
    return "\n".join([*lines, "", "figures and tables of a profile: make status PROFILE=demo", ""])
