"""Stage 1 and stage 2 on this machine's device, against the CPU; and stage 2 in two processes, against one.

A tiny UNI2-h of random weights, patches augmented and sent through the trunk at each step, ten steps a stage, float32
without TF32, dropout off, the noise of SEAL-omics drawn on the CPU wherever it is used. Every loss term of every
step must agree to 1e-3. Two processes take a GPU each where there are two, else, without any, the CPU; with one
GPU they are left out.

    python benchmarks/same_losses.py
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from common import make_patches, report

from seal import profiles
from seal.models import architecture
from seal.models.encoder_registry import UNI2_H
from seal.models.encoders import VisionEncoder
from seal.models.omics import SealOmics
from seal.models.vision import SealVision
from seal.profiles import OmicsSettings, VisionSettings
from seal.train import parallel
from seal.train.batches import RecomputedTokens
from seal.train.loop import Schedule, fit
from seal.train.steps import OmicsTask, VisionTask


def compare(folder: Path) -> dict:
    """Losses on this device against the CPU, and in two processes against one."""
    cpu, here = torch.device("cpu"), parallel.device()
    with mock.patch.object(parallel, "device", return_value=cpu):
        wanted = small_losses(folder)
    found = small_losses(folder)
    line = {
        "devices": [here.type, "cpu"],
        "steps": {stage: len(log) for stage, log in found.items()},
        "largest_relative_difference": {stage: furthest(found[stage], wanted[stage]) for stage in found},
        "tolerance": 1e-3,
    }
    processes = 2 if torch.cuda.device_count() > 1 or here.type == "cpu" else 1
    if processes == 2:
        line["two_processes_relative_difference"] = furthest(in_processes(2), found["vision"])
    else:
        line["two_processes_relative_difference"] = "skipped: one GPU"
    gaps = [*line["largest_relative_difference"].values(), line["two_processes_relative_difference"]]
    assert all(gap <= line["tolerance"] for gap in gaps if not isinstance(gap, str)), line
    return line


def small_losses(folder: Path) -> dict[str, list[dict]]:
    """Ten steps of each stage of a tiny model, the trunk among them; noise is drawn on the CPU, wherever it is used."""
    compute = profiles.ComputeSettings(tokens="recompute")
    vision = VisionSettings(batch=16, lora_dropout=0.0, decoder_dropout=0.0, decoder_hidden=32, views=1)
    profile = profiles.get("maple", image_size=56, compute=compute, vision=vision)
    n, genes, device = 160, 30, parallel.device()
    settings = OmicsSettings(hidden=(64, 32), dropout=0.0)
    pairs = make_patches(folder / f"small{os.getpid()}.npy", profile, n)
    x = torch.rand(n, genes, generator=torch.Generator().manual_seed(0))
    schedule = Schedule(1, 16, 1e-3, 0.2, 0)
    noise = lambda like: torch.randn(like.shape).to(like)  # noqa: E731
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with mock.patch.object(torch, "randn_like", noise):
            torch.manual_seed(0)
            encoder = VisionEncoder(UNI2_H, architecture.make_random(UNI2_H, 56, tiny=True)).eval()
            omics = SealOmics(genes, encoder.dim, settings, x.mean(dim=0), x.std(dim=0)).to(device)
            first = fit(OmicsTask(omics, x.to(device)), schedule, folder, "key", "stage 1")
            source = RecomputedTokens(pairs, "key")
            source.encoder = encoder.to(device)
            model = SealVision(encoder.fork(3), omics.cpu(), vision).to(device)
            task = VisionTask(model, source, np.arange(n), x.to(device), "float32")
            second = fit(task, schedule, folder, "key", "stage 2")
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32
        pairs.path.unlink()
    return {"omics": first, "vision": second}


def furthest(found: list[dict], wanted: list[dict]) -> float:
    """The largest relative difference of a loss term in two logs."""
    assert len(found) == len(wanted)
    terms = [name for name in wanted[0] if name not in ("epoch", "step", "lr")]
    return max(abs(a[t] - b[t]) / max(abs(b[t]), 1e-6) for a, b in zip(found, wanted, strict=True) for t in terms)


def in_processes(processes: int) -> list[dict]:
    """Stage 2's log from so many processes."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, "-m", *launcher, __file__, "--process"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"TQDM_DISABLE": "1"}
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Compare and print a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.process:
            report("losses on this device against the CPU", **compare(Path(folder)))
            return
        log = small_losses(Path(folder))["vision"]
        if parallel.is_main():
            print(json.dumps(log))


if __name__ == "__main__":
    main()
