"""What this machine can run, what each profile would download, and what the hub lets this account read."""

import importlib.util
import platform
import re
import shutil
import threading
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from figures.draw import REGISTER, ranges
from seal import downloads, paths, profiles, results
from seal.data import hest, hest_hub
from seal.downloads import Download
from seal.profiles import Profile

PATIENCE = 5.0  # s for all questions about access together
ENCODERS = ("CONCH", "H0-mini", "Phikon-v2", "UNI2-h", "Virchow2")  # the paper's
LISTING = 10.0  # s for HEST-1k's table and the sizes of MAPLE's files, some twenty requests in turn
BENCH = "MahmoodLab/hest-bench"
PACKAGE = "seal-companion"  # as pip knows it
READABLE, GATED, NO_TOKEN, BAD_TOKEN, OFFLINE = "reachable", "gated", "no token", "token refused", "offline"


def report() -> dict[str, Any]:
    """Look at the machine, the hub and the profiles; asks the network for 15 seconds at most, writes nothing.

    Returns
    -------
    machine (versions, GPUs, cores, memory, disks, packages that are missing or do not import), hub (client, token or
    not, and each repository's state), profiles (whether each can run, its download and what of it is on disk) and
    artefacts (figures and tables, and whose download they need). Sizes in GB; where `estimate` is true, by the rules of
    `seal.downloads`.
    """
    machine, hub = _machine(), _hub()
    states = {row["name"]: row["state"] for row in hub["repositories"]}
    rows = []
    for profile in profiles.PROFILES.values():
        download = _download(profile, online=states.get("HEST-1k") == READABLE)
        obstacles = _obstacles(profile, machine, states, download)
        waits = download.samples is None or (download.apart and download.samples_there != download.samples)
        can = "no" if obstacles else "after the download" if waits else "yes"
        rows.append({"name": profile.name, "label": profile.label, "can_run": can, "why_not": obstacles})
        rows[-1] |= {"needs": profile.needs, "download": download.as_dict()}
    return {"machine": machine, "hub": hub, "profiles": rows, "artefacts": _artefacts()}


# --- the machine ----------------------------------------------------------------------------------------------


def _machine() -> dict[str, Any]:
    hardware = results.hardware()
    places = {"SEAL_HOME": paths.home(), "SEAL_HEST": hest.home()}
    fault = _torch_fault()
    torch, cuda, gpus = (None, None, []) if fault else _torch()
    return {
        "python": platform.python_version(),
        "torch": torch,
        "cuda": cuda,
        "gpus": gpus,
        "cpu": hardware["cpu"],
        "cores": hardware["cores"],
        "memory_gb": hardware["memory_gb"],
        "disks": [{"name": n, "path": str(p), "free_gb": _free_gb(p)} for n, p in places.items()],
        "missing_packages": _missing_packages(),
        "broken_packages": [f"torch ({fault})"] if fault else [],
    }


def _torch_fault() -> str | None:
    """Why PyTorch does not import although it is installed."""
    if importlib.util.find_spec("torch") is None:
        return None
    try:
        import torch  # noqa: F401
    except Exception as error:  # a system library that is missing, a package that does not fit
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def _torch() -> tuple[str | None, str | None, list[dict[str, Any]]]:
    """PyTorch's version, CUDA's where it can be used, and the GPUs that it sees."""
    if importlib.util.find_spec("torch") is None:
        return None, None, []
    import torch

    seen = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    gpus = [torch.cuda.get_device_properties(i) for i in seen]
    rows = [{"name": gpu.name, "memory_gb": round(gpu.total_memory / 1e9, 1)} for gpu in gpus]
    return torch.__version__, torch.version.cuda if gpus else None, rows


def _free_gb(path: Path) -> float:
    """Free space where a folder is, or would be."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return round(shutil.disk_usage(there).free / 1e9, 1)


def _missing_packages() -> list[str]:
    """Packages that this one asks for, for training and for the notebooks, and that are not installed."""
    return [name for name in (re.split(r"[^\w.-]", line)[0] for line in _wanted()) if not _is_installed(name)]


def _wanted() -> list[str]:
    """What pyproject.toml asks for; without the source tree, what the installed package does."""
    path = paths.PROJECT / "pyproject.toml"
    if path.is_file():
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        return [*project["dependencies"], *project["optional-dependencies"]["notebooks"]]
    try:
        lines = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:  # a bare copy of the code: nothing says what it asks for
        return []
    return [line for line in lines if "extra ==" not in line or re.search(r"extra == .notebooks.", line)]


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


# --- the hub --------------------------------------------------------------------------------------------------


def _hub() -> dict[str, Any]:
    """Whether there is a client and a token, and what each repository says."""
    from seal.models.registry import REGISTRY

    repositories = [(s.label, "model", s.hub) for s in REGISTRY.values() if s.label in ENCODERS and s.hub]
    repositories += [("HEST-1k", "dataset", hest_hub.REPOSITORY), ("HEST-Bench", "dataset", BENCH)]
    if importlib.util.find_spec("huggingface_hub") is None:
        client, token, states = None, None, {}
    else:
        import huggingface_hub

        client, token = huggingface_hub.__version__, huggingface_hub.get_token() is not None
        jobs = {name: lambda k=kind, r=repo: _state(k, r, token) for name, kind, repo in repositories}
        states = together(jobs, PATIENCE)
    rows = []
    for name, kind, repository in repositories:
        address = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repository}"
        rows.append({"name": name, "repository": repository, "address": address})
        rows[-1]["state"] = states.get(name, OFFLINE if client else "not asked")
    return {"client": client, "token": token, "repositories": rows}


def _state(kind: str, repository: str, token: bool) -> str:
    """Ask the hub whether this account may read a repository."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session

    url = f"{constants.ENDPOINT}/api/{kind}s/{repository}/auth-check"
    try:
        status = get_session().get(url, headers=build_hf_headers(), timeout=PATIENCE).status_code
    except Exception:  # whatever it is, the hub was not reached
        return OFFLINE
    known = {200: READABLE, 401: BAD_TOKEN if token else NO_TOKEN, 403: GATED}
    return known.get(status, f"answered {status}")


def together(jobs: Mapping[str, Callable[[], Any]], patience: float) -> dict[str, Any]:
    """Do jobs at once; give the answers of those that are done within `patience` seconds, and wait for no other."""
    answers: dict[str, Any] = {}

    def answer(name: str) -> None:
        answers[name] = jobs[name]()

    threads = [threading.Thread(target=answer, args=(name,), daemon=True) for name in jobs]
    for thread in threads:
        thread.start()
    end = time.monotonic() + patience
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0.0))
    return dict(answers)


# --- profiles, figures and tables -----------------------------------------------------------------------------


def _download(profile: Profile, online: bool) -> Download:
    """A profile's download; where the hub falls silent, as without it."""
    if profile.source != "seal.data.hest" or not online:
        return downloads.of(profile, online=False)
    listed = together({profile.name: lambda: downloads.of(profile, online=True)}, LISTING)
    silent = f"the hub did not list HEST-1k's files within {LISTING:g} s"
    return listed.get(profile.name) or replace(downloads.of(profile, online=False), note=silent)


def _obstacles(profile: Profile, machine: dict, states: dict[str, str], download: Download) -> list[str]:
    """What stands in the way of a profile, but for its download."""
    lacking = machine["missing_packages"]
    found = [f"not installed: {', '.join(lacking)}"] if lacking else []
    found += [f"does not import: {broken}" for broken in machine["broken_packages"]]
    if profile.source != "seal.data.hest":
        return found
    if not machine["gpus"]:
        found.append("no GPU that PyTorch can use")
    encoder = downloads.encoder(profile)
    if not downloads.has_weights(profile) and states.get(encoder.label) != READABLE:
        found.append(f"{encoder.label}: {_with_remedy(states.get(encoder.label, OFFLINE), encoder.access)}")
    if download.samples_there != download.samples and states["HEST-1k"] != READABLE:
        found.append(f"HEST-1k: {_with_remedy(states['HEST-1k'], hest_hub.ADDRESS)}")
    free = machine["disks"][1]["free_gb"]
    if download.missing_gb is not None and download.missing_gb > free:
        found.append(f"{download.missing_gb:.0f} GB to fetch and {free:.0f} GB free")
    return found


def _with_remedy(state: str, address: str) -> str:
    remedies = {
        GATED: f"gated: ask at {address}",
        NO_TOKEN: f"no token: ask at {address}, then `hf auth login`",
        BAD_TOKEN: "token refused: `hf auth login`",
    }
    return remedies.get(state, state)


def _artefacts() -> list[dict[str, Any]]:
    """Figures and tables, those together that the same profiles can produce and that lack the same."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for artefact in REGISTER.values():
        sources = {results.RESULTS[name].data for name in artefact.results}
        key = (artefact.profiles, sources == {"none"}, "" if artefact.draw else artefact.lacks)
        groups.setdefault(key, []).append(artefact.id)
    return [
        {"ids": ids, "profiles": [] if nothing else list(able), "lacks": lacks}
        for (able, nothing, lacks), ids in groups.items()
    ]


# --- as text --------------------------------------------------------------------------------------------------


def text(report: Mapping[str, Any]) -> str:
    """Give a report as about a screen of text."""
    lines = [*_machine_lines(report["machine"]), *_hub_lines(report["hub"])]
    for row in report["profiles"]:
        lines += ["", f"{row['name']} ({row['label']}): {row['can_run']}"]
        lines += [f"  not now: {why}" for why in row["why_not"]]
        lines += [f"  download: {_download_text(row['download'])}", f"  needs: {row['needs']}"]
    lines += ["", "figures and tables, and whose download they need"]
    for group in report["artefacts"]:
        whose = " or ".join(group["profiles"]) or "none"
        lines.append(
            f"  {ranges(group['ids'])}: {whose}{'; not there yet: ' if group['lacks'] else ''}{group['lacks']}"
        )
    return "\n".join(lines) + "\n"


def _machine_lines(machine: Mapping[str, Any]) -> list[str]:
    gpus = ", ".join(f"{gpu['name']} ({gpu['memory_gb']:g} GB)" for gpu in machine["gpus"])
    torch = f"PyTorch {machine['torch']}" if machine["torch"] else "no PyTorch"
    lines = [
        f"Python {machine['python']}, {torch}, {'CUDA ' + machine['cuda'] if machine['cuda'] else 'no CUDA'}",
        f"{machine['cores']} cores, {machine['memory_gb']} GB memory, GPU: {gpus or 'none that PyTorch can use'}",
        *(f"{disk['name']}: {disk['path']}, {disk['free_gb']:g} GB free" for disk in machine["disks"]),
    ]
    lines += [f"does not import: {broken}" for broken in machine["broken_packages"]]
    lacking = machine["missing_packages"]
    return [*lines, f"not installed: {', '.join(lacking)}"] if lacking else lines


def _hub_lines(hub: Mapping[str, Any]) -> list[str]:
    token = {None: "not asked", True: "there", False: "none (`hf auth login`, or HF_TOKEN)"}[hub["token"]]
    client = f"huggingface_hub {hub['client']}" if hub["client"] else "huggingface_hub is not installed"
    states: dict[str, list[str]] = {}
    for row in hub["repositories"]:
        said = row["state"] if row["state"] in (READABLE, OFFLINE) else _with_remedy(row["state"], row["address"])
        states.setdefault(said, []).append(row["name"])
    return ["", f"{client}, token: {token}", *(f"  {', '.join(names)}: {said}" for said, names in states.items())]


def _download_text(download: Mapping[str, Any]) -> str:
    about = "about " if download["estimate"] else ""
    size = "size not known" if download["gb"] is None else f"{about}{download['gb']:.3g} GB"
    many = "" if download["samples"] is None else f"{download['samples']} samples, "
    parts = [f"{download['what']}, {many}{size}{' (estimate)' if download['estimate'] else ''}"]
    parts.append(f"there: {download['samples_there']} samples, {download['gb_there']:.3g} GB")
    if download["slides_gb"] is not None:
        parts.append(f"whole slides, if asked for: {about}{download['slides_gb']:.3g} GB")
    return "; ".join([*parts, *([download["note"]] if download["note"] else [])])
