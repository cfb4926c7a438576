"""What `python -m seal doctor` says, with a stand-in for the hub."""

import json
import shutil
import sys
import time
from dataclasses import replace
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import _headers

from seal import doctor, files, paths, profiles
from seal.data import fetch
from seal.data.pairs import folder_of
from seal.data.sources import hest
from seal.models.encoder_registry import UNI2_H
from tests import hub_server
from tests.seal.data.maple.conftest import table

DONORS = 8
IDS = [f"S{i}" for i in range(DONORS)]
SMALL = replace(profiles.MAPLE, selection=profiles.SelectionSettings(test_organs=1, test_spots=2000))


@pytest.fixture(autouse=True)
def small_maple(monkeypatch):
    """MAPLE out of a table of few donors; no hub, and nobody is logged in."""
    monkeypatch.setitem(profiles.PROFILES, "maple", SMALL)
    hub_server.send_client_to(monkeypatch, "http://127.0.0.1:9")
    log_in(monkeypatch, None)
    monkeypatch.delenv("SEAL_WEIGHTS", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nowhere")


def log_in(monkeypatch, token: str | None) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
    monkeypatch.setattr(_headers, "get_token", lambda: token)


@pytest.fixture
def tree(tmp_path):
    """The hub's data set: files of every sample, whose content does not matter here."""
    root = tmp_path / "hub"
    rows = table(*[{"patient": f"P{i}"} for i in range(DONORS)])
    root.mkdir()
    rows.to_csv(root / "HEST_v1_1_0.csv", index=False)
    for i, id in enumerate(rows["id"]):
        for kind, suffix, size in (("st", "h5ad", 100), ("patches", "h5", 3000), ("metadata", "json", 7)):
            (root / kind).mkdir(exist_ok=True)
            (root / kind / f"{id}.{suffix}").write_bytes(b"x" * (size + i))
    return root


@pytest.fixture
def faults():
    return hub_server.Faults()


@pytest.fixture
def hub(tree, faults):
    with hub_server.serve(tree, faults) as url:
        yield url


def find_profile(report, name: str) -> dict:
    return next(row for row in report["profiles"] if row["name"] == name)


# --- the hub --------------------------------------------------------------------------------------------------


def test_offline_is_said_and_demo_runs_all_the_same():
    report = doctor.report()
    repositories = report["hub"]["repositories"]
    assert set(repositories.values()) == {"the hub cannot be reached"}
    assert {"CONCH", "H0-mini", "Phikon-v2", "UNI2-h", "Virchow2", "HEST-1k", "HEST-Bench"} <= set(repositories)
    assert find_profile(report, "demo")["can_run"] == "yes"
    assert find_profile(report, "her2st")["can_run"] == "yes"
    assert "github.com" in find_profile(report, "her2st")["download"]["note"]
    maple = find_profile(report, "maple")
    assert maple["can_run"] == "no"
    assert {"HEST-1k: the hub cannot be reached", "UNI2-h: the hub cannot be reached"} <= set(maple["why_not"])
    assert "its table is not in" in maple["download"]["note"]
    assert not paths.samples("hest").exists()


def test_a_hub_that_does_not_answer_is_not_waited_for(hub, faults, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT", 0.3)
    faults.delay = 8.0
    began = time.monotonic()
    assert set(doctor.report()["hub"]["repositories"].values()) == {"the hub cannot be reached"}
    assert time.monotonic() - began < 6


def test_each_repository_is_told_apart(hub, faults, monkeypatch):
    log_in(monkeypatch, "hf_secret")
    faults.refused = {
        "MahmoodLab/conch": (403, "GatedRepo"),
        "MahmoodLab/hest-bench": (401, "GatedRepo"),
        "paige-ai/Virchow2": (404, "RepoNotFound"),
    }
    report = doctor.report()
    problems = report["hub"]["repositories"]
    assert problems["UNI2-h"] == ""
    assert "no valid token" in problems["HEST-Bench"]
    assert "answered 404" in problems["Virchow2"]
    said = "CONCH: the token's account has no access; ask for access at https://huggingface.co/MahmoodLab/conch"
    assert said in doctor.text(report)


def test_without_a_token_gated_ones_say_so(hub, faults):
    faults.refused = {"MahmoodLab/hest": (401, "GatedRepo")}
    report = doctor.report()
    assert report["hub"]["token"] is False
    problem = report["hub"]["repositories"]["HEST-1k"]
    assert "ask for access at https://huggingface.co/datasets/MahmoodLab/hest" in problem
    assert "`hf auth login`" in problem
    assert f"not now: HEST-1k: {problem}" in doctor.text(report)


def test_the_token_is_never_shown(hub, faults, monkeypatch):
    log_in(monkeypatch, "hf_secret")
    faults.refused = {"MahmoodLab/conch": (403, "GatedRepo")}
    report = doctor.report()
    assert report["hub"]["token"] is True
    assert "hf_secret" not in json.dumps(report) + doctor.text(report)


# --- downloads ------------------------------------------------------------------------------------------------


def test_with_the_hub_sizes_are_its_own_before_anything_is_fetched(hub, tree):
    download = find_profile(doctor.report(), "maple")["download"]
    assert download["complete"] is False
    assert f"0 of {DONORS} samples are there" in download["note"]
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) / 1e9
    assert download["gb"] == download["missing_gb"] == pytest.approx(size)
    assert not paths.samples("hest").exists()


def test_what_is_on_disk_is_counted(hub):
    root = hest.home()
    fetch.fetch(fetch.plan(["S0", "S3"], root))
    (root / "st" / "S5.h5ad").write_bytes(b"x" * 105)  # counts alone are half a sample
    (root / "patches" / "S3.h5").write_bytes(b"x" * 10)  # a file that lost its end is to be fetched
    download = find_profile(doctor.report(), "maple")["download"]
    there = sum(path.stat().st_size for path in root.glob("*/*")) + (root / "HEST_v1_1_0.csv").stat().st_size - 10
    assert download["note"].startswith(f"HEST-1k: 2 of {DONORS} samples are there, ")
    assert download["missing_gb"] == pytest.approx(download["gb"] - there / 1e9)


def test_a_damaged_record_is_named(hub, tree):
    root = hest.home()
    root.mkdir(parents=True)
    shutil.copy(tree / "HEST_v1_1_0.csv", root)
    (root / "fetch.json").write_text("{")
    assert "fetch.json is not valid JSON" in find_profile(doctor.report(), "maple")["download"]["note"]


def test_a_list_that_fails_is_named(hub, tree):
    root = hest.home()
    root.mkdir(parents=True)
    shutil.copy(tree / "HEST_v1_1_0.csv", root)
    (root / "fetch.json").write_text('{"revision": "%s"}' % ("0" * 40))  # a commit that the hub has not
    assert "answered 404" in find_profile(doctor.report(), "maple")["download"]["note"]


# --- what can run ---------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    properties = SimpleNamespace(name="A GPU", total_memory=80e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: properties)
    monkeypatch.setattr(torch.version, "cuda", "13.0")


def test_maple_runs_where_samples_weights_and_a_gpu_are(hub, gpu, monkeypatch, tmp_path):
    assert find_profile(doctor.report(), "maple")["can_run"] == "after the download"
    monkeypatch.setenv("SEAL_WEIGHTS", str(tmp_path))
    (tmp_path / f"{UNI2_H.name}.safetensors").touch()
    fetch.fetch(fetch.plan(IDS, hest.home()))
    assert find_profile(doctor.report(), "maple")["can_run"] == "yes"
    hub_server.send_client_to(monkeypatch, "http://127.0.0.1:9")  # then no hub is needed
    report = doctor.report()
    assert find_profile(report, "maple")["can_run"] == "yes"
    assert "A GPU (80 GB)" in doctor.text(report)


def test_without_a_gpu_maple_says_so(hub):
    assert find_profile(doctor.report(), "maple")["why_not"] == ["no GPU that PyTorch can use"]


def test_a_disk_too_small_is_said(hub, gpu, monkeypatch):
    monkeypatch.setattr(doctor, "_free_gb", lambda path: 0.0)
    assert any("to fetch and 0 GB free" in why for why in find_profile(doctor.report(), "maple")["why_not"])


def test_weights_behind_a_gate_are_said(hub, gpu, faults, monkeypatch):
    log_in(monkeypatch, "hf_secret")
    faults.refused = {"MahmoodLab/UNI2-h": (403, "GatedRepo")}
    (why,) = find_profile(doctor.report(), "maple")["why_not"]
    assert why.startswith("UNI2-h: the token's account has no access; ask for access at")


def uninstall(monkeypatch, package: str) -> None:
    installed = metadata.distributions
    monkeypatch.setattr(metadata, "distributions", lambda name: [] if name == package else installed(name=name))


def test_missing_packages_are_named(monkeypatch):
    uninstall(monkeypatch, "squidpy")
    report = doctor.report()
    assert report["machine"]["missing_packages"] == ["squidpy"]
    assert find_profile(report, "demo")["why_not"] == ["not installed: squidpy"]
    assert find_profile(report, "demo")["can_run"] == "no"


def test_a_torch_that_does_not_import_is_said(monkeypatch, tmp_path):
    (tmp_path / "torch").mkdir()
    fault = "libcudart.so.13: cannot open shared object file"
    (tmp_path / "torch" / "__init__.py").write_text(f"raise OSError('{fault}\\nand more')")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.syspath_prepend(str(tmp_path))
    report = doctor.report()
    assert (report["machine"]["torch"], report["machine"]["gpus"]) == (None, [])
    assert find_profile(report, "demo")["can_run"] == "no"
    assert find_profile(report, "demo")["why_not"] == [f"PyTorch does not import (OSError: {fault})"]
    assert "PyTorch none" in doctor.text(report)


def test_without_the_hubs_client_or_pandas_it_still_reports(monkeypatch, tree):
    root = hest.home()
    root.mkdir(parents=True)
    shutil.copy(tree / "HEST_v1_1_0.csv", root)
    for package in ("huggingface_hub", "pandas"):
        monkeypatch.setitem(sys.modules, package, None)
    uninstall(monkeypatch, "huggingface-hub")
    report = doctor.report()
    assert set(report["hub"]["repositories"].values()) == {"huggingface_hub is not installed"}
    assert find_profile(report, "maple")["why_not"] == ["not installed: huggingface-hub"]
    assert "pandas" in find_profile(report, "maple")["download"]["note"]


def test_what_a_profiles_pairs_left_out_is_shown():
    folder = folder_of(profiles.PROFILES["her2st"])
    files.write_json(
        folder / "dropped.json", [["S1", "spots", "no patch", 1000, 4000], ["S2", "spots", "no patch", 1, 9]]
    )
    report = doctor.report()
    (row,) = find_profile(report, "her2st")["dropped"]
    assert (row["lost"], row["of"], row["samples"]) == (1001, 4009, 2)
    said = "not in its pairs: 1,001 of 4,009 spots (no patch), in 2 samples, the first S1"
    assert said in doctor.text(report)


# --- the whole ------------------------------------------------------------------------------------------------


def test_it_is_about_a_screen_and_plain_json(hub):
    report = doctor.report()
    assert json.loads(json.dumps(report)) == report
    assert len(doctor.text(report).splitlines()) < 45
