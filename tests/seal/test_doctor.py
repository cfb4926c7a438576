"""What `python -m seal doctor` says (`doctor` and `downloads`), with a stand-in for the hub."""

import importlib.util
import json
import shutil
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import _headers

from figures.draw import REGISTER
from seal import doctor, downloads, paths, profiles, results
from seal.data import fetch, hest, hest_hub
from seal.models.registry import UNI2_H
from tests import hub_server
from tests.seal.data.maple.conftest import table

DONORS = 8
SMALL = replace(profiles.MAPLE, selection=profiles.SelectionSettings(test_organs=1, test_spots=2000))


@pytest.fixture(autouse=True)
def small_maple(monkeypatch):
    """MAPLE out of a table of few donors; the hub is asked for a moment at most, and nobody is logged in."""
    monkeypatch.setitem(profiles.PROFILES, "maple", SMALL)
    monkeypatch.setattr(doctor, "PATIENCE", 2.0)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr(_headers, "get_token", lambda: None)
    monkeypatch.delenv("SEAL_WEIGHTS", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nowhere")


@pytest.fixture
def tree(tmp_path):
    """The hub's data set: files of every sample, whose content does not matter here."""
    root = tmp_path / "hub"
    rows = table(*[{"patient": f"P{i}"} for i in range(DONORS)])
    root.mkdir()
    rows.to_csv(root / "HEST_v1_1_0.csv", index=False)
    for i, id in enumerate(rows["id"]):
        for kind, suffix, size in (("st", "h5ad", 100), ("patches", "h5", 3000), ("metadata", "json", 7),
                                   ("wsis", "tif", 20000)):  # fmt: skip
            (root / kind).mkdir(exist_ok=True)
            (root / kind / f"{id}.{suffix}").write_bytes(b"x" * (size + i))
    return root


@pytest.fixture
def faults():
    return hub_server.Faults()


@pytest.fixture
def hub(tree, faults, monkeypatch):
    with hub_server.serve(tree, faults) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        yield url


@pytest.fixture
def logged_in(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    monkeypatch.setattr(_headers, "get_token", lambda: "hf_secret")


def of(report, name: str) -> dict:
    return next(row for row in report["profiles"] if row["name"] == name)


def states(report) -> dict[str, str]:
    return {row["name"]: row["state"] for row in report["hub"]["repositories"]}


def without(monkeypatch, *packages: str) -> None:
    """As if packages were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in packages else find(name, *a))


# --- the hub --------------------------------------------------------------------------------------------------


def test_offline_is_said_and_demo_runs_all_the_same(home):
    report = doctor.report()
    assert set(states(report).values()) == {"offline"}
    assert set(states(report)) == {"CONCH", "H0-mini", "Phikon-v2", "UNI2-h", "Virchow2", "HEST-1k", "HEST-Bench"}
    assert of(report, "demo")["can_run"] == "yes"
    assert of(report, "her2st")["can_run"] == "after the download"
    maple = of(report, "maple")
    assert maple["can_run"] == "no"
    assert {"HEST-1k: offline", "UNI2-h: offline"} <= set(maple["why_not"])
    assert maple["download"]["samples"] is None
    assert "HEST-1k's table is not in" in maple["download"]["note"]
    assert not paths.samples("hest").exists()


def test_a_hub_that_does_not_answer_is_not_waited_for(hub, faults, monkeypatch):
    monkeypatch.setattr(doctor, "PATIENCE", 0.3)
    faults.delay = 20.0
    began = time.monotonic()
    assert set(states(doctor.report()).values()) == {"offline"}
    assert time.monotonic() - began < 6


def test_jobs_that_take_too_long_are_left_behind():
    jobs = {"quick": lambda: "a", "slow": lambda: time.sleep(5) or "b"}
    assert doctor.together(jobs, 0.2) == {"quick": "a"}


@pytest.mark.parametrize("answer", ["_json", "_file"])
@pytest.mark.parametrize("with_table", [True, False])
def test_a_hub_that_falls_silent_after_the_access_check_is_left_behind(hub, tree, monkeypatch, answer, with_table):
    root = hest.home()
    if with_table:
        root.mkdir(parents=True)
        shutil.copy(tree / "HEST_v1_1_0.csv", root)
    monkeypatch.setattr(doctor, "LISTING", 0.3)
    monkeypatch.setattr(hest_hub, "TIMEOUT", 8.0)
    monkeypatch.setattr(hest_hub, "WAITS", ())  # its one request ends with this test's hub
    monkeypatch.setattr(hub_server._Handler, answer, lambda *args: time.sleep(8))
    before, began = set(threading.enumerate()), time.monotonic()
    report = doctor.report()
    assert time.monotonic() - began < 5
    assert all(thread.daemon for thread in set(threading.enumerate()) - before)  # none keeps the process from ending
    assert states(report)["HEST-1k"] == "reachable"
    download = of(report, "maple")["download"]
    if with_table and answer == "_file":  # the list came, and no file was needed
        assert (download["estimate"], download["note"]) == (False, "")
    else:
        assert download["estimate"] is with_table
        assert download["note"] == "the hub did not list HEST-1k's files within 0.3 s"
        assert download["note"] in doctor.text(report)


def test_each_repository_is_told_apart(hub, faults, logged_in):
    faults.refused = {
        "MahmoodLab/conch": (403, "GatedRepo"),
        "MahmoodLab/hest-bench": (401, "GatedRepo"),
        "paige-ai/Virchow2": (404, "RepoNotFound"),
    }
    report = doctor.report()
    expected = {"CONCH": "gated", "HEST-Bench": "token refused", "Virchow2": "answered 404", "UNI2-h": "reachable"}
    assert expected.items() <= states(report).items()
    assert "CONCH: gated: ask at https://huggingface.co/MahmoodLab/conch" in doctor.text(report)


def test_without_a_token_gated_ones_say_so(hub, faults):
    faults.refused = {"MahmoodLab/hest": (401, "GatedRepo")}
    report = doctor.report()
    assert report["hub"]["token"] is False
    assert states(report)["HEST-1k"] == "no token"
    assert "no token: ask at https://huggingface.co/datasets/MahmoodLab/hest" in doctor.text(report)


def test_the_token_is_never_shown(hub, logged_in):
    report = doctor.report()
    assert report["hub"]["token"] is True
    assert "hf_secret" not in json.dumps(report) + doctor.text(report)


# --- downloads ------------------------------------------------------------------------------------------------


def sizes(tree, *kinds: str) -> float:
    return sum(path.stat().st_size for kind in kinds for path in (tree / kind).iterdir()) / 1e9


def test_with_the_hub_sizes_are_its_own_before_anything_is_fetched(hub, tree, monkeypatch):
    download = of(doctor.report(), "maple")["download"]
    assert (download["samples"], download["samples_there"], download["estimate"]) == (DONORS, 0, False)
    assert download["gb"] == pytest.approx(sizes(tree, "st", "patches"))
    assert download["slides_gb"] == pytest.approx(sizes(tree, "wsis"))
    assert not paths.samples("hest").exists()


def test_what_is_on_disk_is_counted(hub, tree):
    root = hest.home()
    fetch.fetch(fetch.plan(["S0", "S3"], root))
    (root / "st" / "S5.h5ad").write_bytes(b"x" * 100)  # counts alone are half a sample
    download = of(doctor.report(), "maple")["download"]
    assert download["samples_there"] == 2
    assert download["gb_there"] == pytest.approx((2 * 3100 + 2 * 3) / 1e9)
    assert download["missing_gb"] == pytest.approx(download["gb"] - download["gb_there"])


def test_a_file_that_lost_its_end_is_not_counted(hub, tree, gpu, monkeypatch, tmp_path):
    monkeypatch.setenv("SEAL_WEIGHTS", str(tmp_path))
    (tmp_path / f"{UNI2_H.name}.safetensors").touch()
    root = hest.home()
    fetch.fetch(fetch.plan([f"S{i}" for i in range(DONORS)], root))
    cut = root / "patches" / "S0.h5"
    cut.write_bytes(cut.read_bytes()[:10])
    maple = of(doctor.report(), "maple")
    assert (maple["download"]["samples_there"], maple["can_run"]) == (DONORS - 1, "after the download")
    assert maple["download"]["missing_gb"] == pytest.approx((cut.stat().st_size - 10 + 100 + 3000) / 1e9)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_copy_without_a_record_counts_where_hdf5_finds_its_files_whole(tree, libver):
    root = hest.home()
    for folder in ("st", "patches"):
        (root / folder).mkdir(parents=True)
    shutil.copy(tree / "HEST_v1_1_0.csv", root)
    for path in [f for id in ("S0", "S1", "S2") for f in downloads._files(id)]:
        with h5py.File(root / path, "w", libver=libver) as file:
            file["img"] = np.arange(4000)
    assert of(doctor.report(), "maple")["download"]["samples_there"] == 3
    for id, keep in (("S0", -1), ("S1", 10), ("S2", 0)):
        cut = root / "patches" / f"{id}.h5"
        cut.write_bytes(cut.read_bytes()[:keep])
    assert of(doctor.report(), "maple")["download"]["samples_there"] == 0


def test_a_damaged_record_is_named(tree):
    root = hest.home()
    root.mkdir(parents=True)
    shutil.copy(tree / "HEST_v1_1_0.csv", root)
    (root / "fetch.json").write_text("{")
    assert "fetch.json is not valid JSON" in of(doctor.report(), "maple")["download"]["note"]


def test_a_table_that_came_damaged_is_not_read(hub, faults):
    faults.altered = {"HEST_v1_1_0.csv"}
    download = of(doctor.report(), "maple")["download"]
    assert (download["samples"], download["note"]) == (None, "HEST_v1_1_0.csv of HEST-1k came damaged")


def test_without_the_hub_sizes_follow_from_the_table(tree):
    root = hest.home()
    root.mkdir(parents=True)
    shutil.copy(tree / "HEST_v1_1_0.csv", root)
    report = doctor.report()
    download = of(report, "maple")["download"]
    assert download["estimate"] is True
    spots = 1000
    assert download["gb"] == pytest.approx(DONORS * spots * (150_528 + 0.8 * 18_000) / 1e9)
    assert download["slides_gb"] == pytest.approx(sum(9000 * (9000 + i) for i in range(DONORS)) / 1e9)
    assert "(estimate)" in doctor.text(report)


def test_all_of_hest_comes_to_a_terabyte_by_the_rules(shared):
    frame = pd.read_csv(shared / "hest" / "HEST_v1_1_0.csv", encoding="utf-8-sig")
    assert sum(downloads.estimated(frame).values()) == pytest.approx(1000, rel=0.1)


def test_a_list_that_fails_falls_back_to_the_estimate(hub, tree):
    root = hest.home()
    root.mkdir(parents=True)
    shutil.copy(tree / "HEST_v1_1_0.csv", root)
    (root / "fetch.json").write_text('{"revision": "%s", "files": {}}' % ("0" * 40))  # a commit the hub has not
    download = of(doctor.report(), "maple")["download"]
    assert download["estimate"] is True
    assert "answered 404" in download["note"]


def test_her2sts_copy_is_counted(shared, monkeypatch):
    monkeypatch.setenv("SEAL_HER2ST", str(shared / "her2st"))
    her2st = of(doctor.report(), "her2st")
    assert her2st["can_run"] == "yes"
    assert her2st["download"]["samples"] == len(list((shared / "her2st" / "ST-cnts").glob("*.tsv.gz")))


# --- what can run ---------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    properties = SimpleNamespace(name="A GPU", total_memory=80e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: properties)
    monkeypatch.setattr(torch.version, "cuda", "13.0")


def test_maple_runs_where_samples_weights_and_a_gpu_are(hub, tree, gpu, monkeypatch, tmp_path):
    assert of(doctor.report(), "maple")["can_run"] == "after the download"
    monkeypatch.setenv("SEAL_WEIGHTS", str(tmp_path))
    (tmp_path / f"{UNI2_H.name}.safetensors").touch()
    fetch.fetch(fetch.plan([f"S{i}" for i in range(DONORS)], hest.home()))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # then no hub is needed
    report = doctor.report()
    assert of(report, "maple")["can_run"] == "yes"
    assert "A GPU (80 GB)" in doctor.text(report)


def test_without_a_gpu_maple_says_so(hub):
    assert of(doctor.report(), "maple")["why_not"] == ["no GPU that PyTorch can use"]


def test_a_disk_too_small_is_said(hub, gpu, monkeypatch):
    monkeypatch.setattr(doctor, "_free_gb", lambda path: 0.0)
    assert any("to fetch and 0 GB free" in why for why in of(doctor.report(), "maple")["why_not"])


def test_weights_behind_a_gate_are_said(hub, gpu, faults, logged_in):
    faults.refused = {"MahmoodLab/UNI2-h": (403, "GatedRepo")}
    assert of(doctor.report(), "maple")["why_not"] == ["UNI2-h: gated: ask at https://huggingface.co/MahmoodLab/UNI2-h"]


def test_missing_packages_are_named(monkeypatch):
    installed = doctor._is_installed
    monkeypatch.setattr(doctor, "_is_installed", lambda name: name != "squidpy" and installed(name))
    report = doctor.report()
    assert report["machine"]["missing_packages"] == ["squidpy"]
    assert of(report, "demo")["why_not"] == ["not installed: squidpy"]
    assert of(report, "demo")["can_run"] == "no"


def test_a_torch_that_does_not_import_is_called_broken(monkeypatch, tmp_path):
    (tmp_path / "torch").mkdir()
    fault = "libcudart.so.13: cannot open shared object file"
    (tmp_path / "torch" / "__init__.py").write_text(f"raise OSError('{fault}\\nand more')")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.syspath_prepend(str(tmp_path))
    report = doctor.report()
    assert report["machine"]["broken_packages"] == [f"torch (OSError: {fault})"]
    assert (report["machine"]["torch"], report["machine"]["gpus"]) == (None, [])
    assert of(report, "demo")["can_run"] == "no"
    assert of(report, "demo")["why_not"] == [f"does not import: torch (OSError: {fault})"]
    assert "no PyTorch" in doctor.text(report)
    assert f"does not import: torch (OSError: {fault})" in doctor.text(report)


def test_without_the_source_tree_the_installed_package_says_what_it_needs(monkeypatch, tmp_path):
    own = doctor._wanted()
    monkeypatch.setattr(paths, "PROJECT", tmp_path)
    assert doctor._wanted() == []  # nor installed: nobody knows
    lines = ["torch==2.14.1", "absent-one[x]>=1", 'absent-two>=1; extra == "notebooks"', "other; extra == 'test'"]
    monkeypatch.setattr(doctor.metadata, "requires", {"seal-companion": lines}.get)
    assert doctor._missing_packages() == ["absent-one", "absent-two"]
    assert own[0].startswith("torch==")


def test_without_the_hubs_client_or_pandas_it_still_reports(monkeypatch):
    without(monkeypatch, "huggingface_hub", "pandas")
    report = doctor.report()
    assert report["hub"]["client"] is None
    assert set(states(report).values()) == {"not asked"}
    assert of(report, "maple")["download"]["note"] == "pandas is not installed"
    assert "huggingface_hub is not installed" in doctor.text(report)


# --- the whole ------------------------------------------------------------------------------------------------


def test_every_figure_and_table_is_there_once_with_its_profiles():
    groups = doctor.report()["artefacts"]
    assert sorted(id for group in groups for id in group["ids"]) == sorted(REGISTER)
    for group in groups:
        for id in group["ids"]:
            sources = {results.RESULTS[name].data for name in REGISTER[id].results}
            assert tuple(group["profiles"]) == (() if sources == {"none"} else REGISTER[id].profiles)
            assert bool(group["lacks"]) == (not REGISTER[id].draw)


def test_it_is_about_a_screen_and_plain_json():
    report = doctor.report()
    assert json.loads(json.dumps(report)) == report
    lines = doctor.text(report).splitlines()
    assert len(lines) < 45
    assert any(line.startswith("  T5-T7: none") for line in lines)
