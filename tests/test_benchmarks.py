"""Benchmarks run and print what they promise; nothing is timed here."""

import importlib.util
import json
import os
import runpy
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from timm.layers import set_fused_attn, use_fused_attn
from torch.utils.flop_counter import FlopCounterMode

from seal import paths
from seal.models import architecture
from seal.models.baselines import BASELINES
from seal.models.encoder_registry import REGISTRY
from seal.models.encoders import VisionEncoder
from seal.results import RESULTS

FOLDER = paths.PROJECT / "benchmarks"


def load(name):
    """A benchmark's module, without its folder on the path."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name, *options):
    """A benchmark in a process of its own, on one core."""
    command = [sys.executable, str(FOLDER / f"{name}.py"), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def lines(name, *options):
    """What a benchmark prints: JSON, a line each, with the machine."""
    done = run(name, *options)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert all({"benchmark", "machine"} <= line.keys() for line in found)
    return found


@pytest.fixture
def explicit_attention():
    """Attention in plain matrix products, which the counter sees on any device."""
    before = use_fused_attn()
    set_fused_attn(enable=False)
    yield
    set_fused_attn(enable=bool(before))


@pytest.mark.parametrize("name", ["uni2_h", "virchow2", "dinov2_s"])  # SwiGLU with registers; plain MLP without
@pytest.mark.parametrize("blocks", [1, 3])
def test_operations_of_a_trunk_are_those_that_torch_counts(name, blocks, explicit_attention):
    spec, size = REGISTRY[name], 56
    with torch.device("meta"):
        encoder = VisionEncoder(spec, architecture.make_plain(spec, size))
    with FlopCounterMode(display=False) as counter:
        encoder.trunk(torch.empty(2, 3, size, size, device="meta"), blocks)
    assert counter.get_total_flops() == 2 * load("flops").trunk(spec.geometry, size, blocks)


def test_only_cards_in_the_table_have_a_peak():
    peak = load("flops").dense_peak
    assert peak("NVIDIA H100 80GB HBM3") == peak("NVIDIA H200") == 989.4
    assert peak("NVIDIA H100 PCIe") == 756
    assert peak("another card") is None


@pytest.mark.slow
def test_memory():
    """Tokens from disk and from memory train alike, and memory_gb decides between them."""
    (line,) = lines("memory", "--tiny")
    assert line["losses_equal"]
    assert line["disk"]["kind"] == line["small_disk"]["kind"] == "disk"
    assert line["memory"]["kind"] == "memory"
    assert {"over_ratio", "peak_ratio", "disk_within_limit", "disk_growth_gb", "file_gb"} <= line.keys()
    assert {"limit_gb", "before_gb", "over_gb", "peak_gb"} <= line["disk"].keys()


@pytest.mark.slow
def test_baselines():
    """Every baseline is trained by as many steps as SEAL."""
    (line,) = lines("baselines", "--tiny")
    assert set(line["ratio"]) == set(BASELINES)
    assert line["steps"] > 1
    assert min(line["ratio"].values()) > 0
    assert {"seal", "frozen", "all_folds", "all_folds_processor", "profile", "pairs"} <= line.keys()


@pytest.mark.slow
def test_atlas():
    """All cores give the bytes of one, and the switch makes so many times as many sections and slides."""
    (line,) = lines("atlas", "--tiny", "--scale", "2")
    assert line["same_bytes"]
    assert line["larger"]["files"] > 1.5 * line["all_cores"]["files"]
    assert {"ratio", "memory_ratio", "scale"} <= line.keys()


@pytest.mark.slow
def test_choices():
    """Every choice gives its alternative's results."""
    found = {line["choice"]: line for line in lines("choices", "--tiny")}
    assert found.keys() == {"optimiser", "attention", "compile", "dropout", "class_token", "tails"}
    for line in found.values():
        assert line["difference"] <= line["tolerance"]
        assert line["used"] in line["seconds"]
        assert line["ratio"] > 0
    assert {"compile_seconds", "pays_after_patches"} <= found["compile"].keys()


@pytest.mark.slow
def test_gpu_script_runs_every_part_on_a_cpu_too():
    found = {line["benchmark"].removeprefix("gpu: "): line for line in lines("gpu", "--tiny")}
    assert list(found) == ["equal", "trunk", "tail", "loader", "streamed", "cached", "projection", "compiled"]
    assert not any({"error", "skipped"} & line.keys() for line in found.values())
    assert max(found["equal"]["largest_relative_difference"].values()) <= 1e-3
    assert found["trunk"].keys() >= {"autocast", "cast_once", "card_dense_peak_tflops", "gflop_a_patch"}
    assert found["trunk"]["autocast"].keys() == {"patches_per_s", "tflops", "share_of_peak"}
    assert found["tail"]["patches_per_s"].keys() >= {"gpu_memory", "host_memory", "disk_first_time"}
    assert found["loader"].keys() >= {"one_core_patches_per_s", "all_workers_patches_per_s"}
    assert 0 < found["streamed"]["busy"] <= 1
    assert found["cached"]["bytes"] > found["cached"]["pairs"] * found["cached"]["views"] * 1000
    assert "projection, not a measurement" in found["projection"]["is"]
    assert found["projection"].keys() >= {"cached_hours", "streamed_hours", "disk_bytes", "gpu_peak_gb", "host_peak_gb"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_script_says_that_there_is_no_gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="no GPU here"):
        runpy.run_path(str(FOLDER / "gpu.py"), run_name="__main__")


@pytest.mark.slow
def test_busy():
    """All four ways compute the same, and the setting is the one that `import seal` makes."""
    (line,) = lines("busy", "--tiny")
    assert line["largest_relative_difference"] < 1e-4
    for name in ("stage_1", "tail", "probe"):
        assert line["slowdown"][name].keys() == line["seconds"][name].keys() == {"with", "without"}
        assert line["cost_alone"][name] > 0
    text = (paths.PROJECT / "seal" / "__init__.py").read_text(encoding="utf-8")
    assert all(f'os.environ.setdefault("{name}", "{value}")' in text for name, value in line["setting"].items())


@pytest.mark.slow
def test_panel():
    """Streamed sums and scanpy on the stacked matrix choose the same panel."""
    (line,) = lines("panel", "--tiny")
    assert line["same_panel"]
    assert line["within_limit"]
    assert line["whole_stream"]["spots"] > line["streamed"]["spots"] == line["stacked"]["spots"]
    assert {"ratio", "memory_ratio", "memory_growth_gb"} <= line.keys()


@pytest.mark.slow
def test_data():
    """All ways read the same patches; both ways of assembling and both numbers of samples run."""
    reads, building, memory = lines("data", "--small")
    assert reads["same_patches"]
    assert set(reads["warm"]["ratio"]) == set(reads["cold"]["ratio"])
    for genes in ("patches", "whole"):
        for moment in ("after_pause", "at_once"):
            assert set(building[genes]["ratio"][moment]) == {"threads", "processes"}
    assert len(memory["peak_gb_by_samples"]) == 2


@pytest.mark.slow
def test_probe():
    """The sweep and scikit-learn's loop predict the same."""
    (line,) = lines("probe", "--tiny")
    assert line["largest_difference"] < 1e-6
    assert line["seconds"].keys() == {"ours", "thrifty", "plain"}
    assert line["folds"] == 4
    assert {"ratio", "ratio_thrifty"} <= line.keys()


def test_scaling_finds_a_line_by_hand():
    """Three donors whose gain grows by 0.01, 0.02 and 0.03 with each doubling: the line goes through their mean."""
    scaling, rows = load("scaling"), []
    for i, donor in enumerate("abc"):
        for number in scaling.PARTS:
            for name in ("frozen", *scaling.TRAINED):
                gain = 0.01 * (i + 1) * np.log2(1600 / number) if name == "seal" else 0.0
                for seed in (0, 1):
                    own = {"method": f"{name}_{number}", "label": name, "kind": "control", "donor": donor, "seed": seed}
                    rows.append(own | {"metric": "pcc", "value": 0.1 * i + gain + (seed - 0.5) * 0.02})
    table = scaling.tabulate(pd.DataFrame(rows), 1600, 500)
    assert set(RESULTS["scaling"].columns) == set(table.columns)
    seal = table[table["method"] == "seal"].set_index(["quantity", "fitted", "pairs"])
    assert seal.loc[("gain", False, 400), "value"] == pytest.approx(0.02 * np.log2(400))
    slope = seal.loc[("slope", True, 0)]
    assert slope["value"] == pytest.approx(0.02)
    assert (slope["low"], slope["high"]) == pytest.approx((0.01, 0.03))
    assert seal.loc[("gain", True, 720_000), "value"] == pytest.approx(0.02 * np.log2(720_000))
    assert seal["seeds"].unique().tolist() == [2]
    assert seal["donors"].unique().tolist() == [3]
    assert table.loc[(table["method"] == "seal_shuffled") & (table["quantity"] != "pcc"), "value"].abs().max() < 1e-12


@pytest.mark.slow
def test_scaling_runs(tmp_path, monkeypatch):
    """At a size that says nothing: it trains, embeds, scores and writes; nothing is taken as the reference unasked."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "downloads").symlink_to(paths.PROJECT / "data" / "downloads", target_is_directory=True)
    monkeypatch.setenv("SEAL_HOME", str(tmp_path))
    before = sorted((paths.PROJECT / "figures" / "reference").iterdir())
    done = run("scaling", "--tiny")
    assert done.returncode == 0, done.stderr[-3000:]
    table = pd.read_csv(tmp_path / "results" / "demo" / "scaling.csv")
    assert table["value"].notna().all()
    assert sorted((paths.PROJECT / "figures" / "reference").iterdir()) == before


@pytest.mark.slow
def test_mil():
    """Trained together they end where the plain loop ends, and bags are streamed when memory does not hold them."""
    jobs, streamed = lines("mil", "--tiny")
    assert jobs["largest_difference"] < 1e-5
    assert jobs["jobs"] == 5 * jobs["tasks"]
    assert {"ratio", "processor_ratio", "tera_flop", "bag_steps"} <= jobs.keys()
    assert streamed["held"] < streamed["slides"]
    assert {"peak_gb", "over_gb", "memory_gb", "seconds_a_run_and_bag"} <= streamed.keys()
