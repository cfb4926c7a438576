"""One command for a session with a GPU: how fast stage 2 of the maple profile is there, and what holds it up.

UNI2-h's geometry with random weights, 224 px, N = 3, bfloat16, batch 384. JSON lines, each as soon as it is there:

    equal      stage 1 and stage 2 on the GPU against the CPU: losses of ten steps, float32 without TF32, and two
               processes against one (each on a GPU of its own where there are two)
    trunk      patches/s, TFLOP/s and share of the card's dense peak: autocast, against weights cast once
    tail       patches/s of forward, backward and optimiser: tokens in GPU memory, in host memory, on disk
    loader     patches/s that the augmenting processes give, and that one core gives
    streamed   an epoch from patches on disk, augmented and sent through the trunk each time, and the GPU's busy share
    cached     all views' tokens made and kept on disk, and an epoch from them; fewer pairs if disk or time is short
    projection hours, disk and memory of 720,000 pairs x 10 epochs from what was measured: not a measurement
    compiled   the trunk through torch.compile, against eager

`busy` is the time between CUDA events around trunk and step, over the wall time: gaps between kernels inside these
count as busy. `nvidia_smi_busy` is the driver's figure, sampled over the same time. Parts that do not fit
into --minutes are left out and say so; a part that fails says so, the others go on, and the exit status is 1.

    python benchmarks/gpu.py [--pairs 20000] [--workers 14] [--minutes 8.5] [--parts trunk tail ...] [--folder /tmp]
    python benchmarks/gpu.py --tiny      every part at tiny size, on a CPU too: to see that it runs

Needs torch, torchvision, timm, peft, h5py and safetensors at pyproject.toml's versions, nothing prepared, and a
--folder on a real disk with room for patches (150 KB a pair) and tokens (2.4 MB a pair with two views). Where a machine
cannot install and holds other versions, carry the wheels of timm and peft, which are pure Python: models/encoders.py
reads attributes of a block (attn.gate) that an older timm may lack.

    here:   pip download --no-deps --dest wheels timm==1.0.31 peft==0.21.2
    there:  pip install --no-index --no-deps --target site wheels/*.whl; PYTHONPATH=site:. python benchmarks/gpu.py

torch 2.11 and Python 3.12 should do but are untested; each line says which torch it was.
"""

import argparse
import copy
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import flops
import numpy as np
import same_losses
import torch
from common import Patches, alternate, relative, report, seconds
from maple import Resident, Setup
from torch import Tensor
from watch import Busy, filesystem, forget, watched

from seal.data.augment import augmented
from seal.models import encoders
from seal.train import batches, parallel
from seal.train.batches import StoredTokens, TokenSource
from seal.train.steps import VisionTask
from seal.train.tokens import TokenFile

ATLAS_PAIRS, ATLAS_EPOCHS = 720_000, 10


@torch.no_grad()
def trunk(setup: Setup) -> dict:
    """Autocast, as seal.train.batches does, against weights and images in bfloat16 from the start."""
    images, encoder, n = setup.images(setup.batch), setup.encoder, setup.blocks
    cast = copy.deepcopy(encoder).bfloat16()
    some = images[:8]
    exact = encoder.trunk(some, n)
    ways = {"autocast": auto(encoder.trunk, images, n), "cast_once": lambda: cast.trunk(images.bfloat16(), n)}
    gaps = {
        "autocast": relative(auto(encoder.trunk, some, n)(), exact),
        "cast_once": relative(cast.trunk(some.bfloat16(), n), exact),
    }
    peaks = {}
    for name, work in ways.items():
        with watched() as seen:
            work()
        peaks[name] = seen["gpu_peak_gb"]
    taken = alternate(ways, 2 if setup.tiny else 7)
    return {
        **{name: speed(setup, duration) for name, duration in taken.items()},
        "gflop_a_patch": flops.trunk(setup.geometry, setup.profile.image_size, n) / 1e9,
        "card_dense_peak_tflops": flops.dense_peak() or "unknown card",
        "relative_error_to_float32": gaps,
        "gpu_peak_gb": peaks,
        "ratio": taken["autocast"] / taken["cast_once"],
    }


def auto(run: Callable, images: Tensor, n: int) -> Callable[[], Tensor]:
    """A pass through the trunk as seal.train.batches makes it."""

    def work() -> Tensor:
        with parallel.autocast("bfloat16"):
            return run(images, n)

    return work


def speed(setup: Setup, taken: float) -> dict:
    """What so many seconds a batch mean."""
    per_second = setup.batch / taken
    tflops = per_second * flops.trunk(setup.geometry, setup.profile.image_size, setup.blocks) / 1e12
    peak = flops.dense_peak()
    share = tflops / peak if peak else None
    return {"patches_per_s": per_second, "tflops": tflops, "share_of_peak": share}


@torch.no_grad()
def compiled(setup: Setup) -> dict:
    """torch.compile against eager, under autocast."""
    images, encoder, n = setup.images(setup.batch), setup.encoder, setup.blocks
    backend = "eager" if setup.tiny else "inductor"
    run = torch.compile(encoder.trunk, backend=backend)
    with mock.patch.dict(os.environ, {"TORCHINDUCTOR_CACHE_DIR": str(setup.folder / "inductor")}):
        first = seconds(auto(run, images, n))
        ways = {"eager": auto(encoder.trunk, images, n), "compiled": auto(run, images, n)}
        gap = relative(ways["compiled"](), ways["eager"]())
        taken = alternate(ways, 2 if setup.tiny else 7)
    saved = (taken["eager"] - taken["compiled"]) / setup.batch
    compiling = first - taken["compiled"]
    return {
        **{name: speed(setup, duration) for name, duration in taken.items()},
        "backend": backend,
        "ratio": taken["eager"] / taken["compiled"],
        "compile_seconds": compiling,
        "pays_after_patches": round(compiling / saved) if saved > 0 else None,
        "relative_difference": gap,
    }


def tail(setup: Setup) -> dict:
    """The same rows and masks from four places; the losses must agree."""
    n, epochs = (4 if setup.tiny else 6) * setup.batch, 1 if setup.tiny else 4
    vision = replace(setup.profile.vision, views=0)
    pairs = Patches(setup.folder / "none.npy", replace(setup.profile, vision=vision), n)
    shape = (1, n, *setup.encoder.token_shape)
    held = torch.empty(shape, dtype=torch.bfloat16, device=parallel.device()).normal_()
    folder = setup.folder / "some"
    folder.mkdir(exist_ok=True)
    np.save(folder / "tokens.npy", held.cpu().view(torch.uint16).numpy())
    file = TokenFile(folder, "bfloat16")
    sources = {
        "gpu_memory": Resident(pairs, held),
        "host_memory": StoredTokens(pairs, "key", file, held=True),
        "disk_cached_by_os": StoredTokens(pairs, "key", file, held=False),
    }
    setup.epoch(sources["gpu_memory"], n)
    rates, losses = {}, {}
    with watched() as seen:
        for name, source in sources.items():
            taken, losses[name] = setup.epoch(source, n, epochs)
            rates[name] = epochs * n / taken
        forget(file.path)
        taken, _ = setup.epoch(sources["disk_cached_by_os"], n)
        rates["disk_first_time"] = n / taken
    size = min(64, setup.batch)
    parts = [(np.zeros(size, int), np.arange(i, i + size)) for i in range(0, n, size)]
    reading = seconds(lambda: [file.read(*part) for part in parts])
    shutil.rmtree(folder)
    wanted = losses["gpu_memory"]
    gap = max(abs(a - b) / abs(b) for log in losses.values() for a, b in zip(log, wanted, strict=True))
    assert gap <= 2e-2, losses
    return {
        "genes": setup.genes,
        "patches_per_s": rates,
        "kb_a_patch": setup.patch_bytes / 1e3,
        "gb_per_s_that_the_rate_from_gpu_memory_needs": rates["gpu_memory"] * setup.patch_bytes / 1e9,
        "gb_per_s_of_one_reader": n * setup.patch_bytes / 1e9 / reading,  # from the system's page cache
        "largest_relative_loss_difference": gap,
        "tolerance": 2e-2,
        **seen,
    }


def loader(setup: Setup) -> dict:
    """Augmentation alone: a core, and all workers with their batches brought to this process."""
    rows = np.arange(setup.pairs)
    some = rows[: 8 if setup.tiny else 128]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    augmented(setup.patches.patches.read(some[:4]), some[:4], 1, 42)
    alone = len(some) / seconds(lambda: augmented(setup.patches.patches.read(some), some, 1, 42))
    torch.set_num_threads(threads)
    size = max(1, setup.batch // 8)  # small, so that no worker is idle for long at the end
    requests = [(np.ones(len(part), int), part) for part in np.array_split(rows, len(rows) // size)]
    with mock.patch.object(batches.RecomputedTokens, "trunks", lambda _, images, after: [images[:, 0, 0, 0]]):
        start, counts, first = time.perf_counter(), [], None
        for batch in setup.recomputed().stream(requests):
            first = first or time.perf_counter()
            counts.append(len(batch))
        rate = sum(counts[1:]) / (time.perf_counter() - first)
    return {
        "workers": setup.workers,
        "patches": setup.pairs,
        "one_core_patches_per_s": alone,
        "all_workers_patches_per_s": rate,
        "first_batch_after_s": first - start,
    }


def streamed(setup: Setup) -> dict:
    """An epoch of stage 2 over the store with augmented views made anew."""
    forget(setup.patches.path)
    busy, n = Busy(), setup.pairs
    with (
        mock.patch.object(batches.RecomputedTokens, "trunks", busy.wrap(batches.RecomputedTokens.trunks)),
        mock.patch.object(VisionTask, "backward", busy.wrap(VisionTask.backward)),
        watched() as seen,
    ):
        start = time.perf_counter()
        taken, _ = setup.epoch(setup.recomputed(), n)
    return {
        "patches": n,
        "workers": setup.workers,
        "patches_per_s": n / taken,
        "first_batch_within_s": busy.first - start,
        "busy": busy.seconds() / taken,
        **seen,
    }


def cached(setup: Setup, found: dict[str, dict]) -> dict:
    """All views through the trunk once, as batches.build does it, and an epoch from disk, read for the first time.

    As many pairs as there is room for on the disk, and as fit into 0.4 of the time that is left.
    """
    views = 1 + setup.profile.vision.views
    room = int(0.9 * shutil.disk_usage(setup.folder).free / (views * setup.patch_bytes))
    rate = found["streamed"]["patches_per_s"] if "streamed" in found and not setup.tiny else float("inf")
    in_time = int(min(setup.pairs, 0.4 * setup.remaining() * rate / views))
    n = min(setup.pairs, room, in_time)
    profile = replace(setup.profile, compute=replace(setup.profile.compute, tokens="disk"))
    pairs = replace(setup.patches, profile=profile, n_pairs=n)
    made: list[TokenSource] = []
    with (
        mock.patch.dict(os.environ, {"SEAL_HOME": str(setup.folder / "home")}),
        mock.patch.object(encoders, "build", return_value=setup.encoder),
        watched() as seen_making,
    ):
        building = seconds(lambda: made.append(batches.build(pairs)))
    (source,), busy = made, Busy()
    forget(source.file.path)
    with mock.patch.object(VisionTask, "backward", busy.wrap(VisionTask.backward)), watched() as seen:
        taken, _ = setup.epoch(source, n)
    size = source.file.path.stat().st_size
    shutil.rmtree(setup.folder / "home")
    return {
        "pairs": n,
        "pairs_asked": setup.pairs,
        "views": views,
        "file_system": filesystem(setup.folder),
        "bytes": size,
        "making": {"patches_per_s": n * views / building, "write_gb_per_s": size / 1e9 / building, **seen_making},
        "epoch": {
            "patches_per_s": n / taken,
            "read_gb_per_s": n * setup.patch_bytes / 1e9 / taken,
            "busy": busy.seconds() / taken,
            **seen,
        },
    }


def project(pairs: int, epochs: int, views: int, made: float, epoch: float, streaming: float) -> dict[str, float]:
    """Hours of a run from patches a second: of making tokens, of an epoch from them, of an epoch without them."""
    return {
        "cached_hours": (views * pairs / made + epochs * pairs / epoch) / 3600,
        "streamed_hours": epochs * pairs / streaming / 3600,
    }


def projection(setup: Setup, found: dict[str, dict]) -> dict:
    """The whole atlas, if every rate stays as it was measured."""
    kept, anew = found["cached"], found["streamed"]
    making, epoch = kept["making"], kept["epoch"]
    rates = making["patches_per_s"], epoch["patches_per_s"], anew["patches_per_s"]
    peaks = {
        what: {"cached": max(making[what], epoch[what]), "streamed": anew[what]}
        for what in ("gpu_peak_gb", "host_peak_gb", "workers_peak_gb", "mapped_peak_gb")
    }
    patch_store = ATLAS_PAIRS * 3 * setup.profile.image_size**2
    return {
        "is": "a projection, not a measurement: the rates of the lines above, on one GPU, kept up over the whole run",
        "pairs": ATLAS_PAIRS,
        "epochs": ATLAS_EPOCHS,
        "measured_pairs": {"cached": kept["pairs"], "streamed": anew["patches"]},
        **project(ATLAS_PAIRS, ATLAS_EPOCHS, kept["views"], *rates),
        "disk_bytes": {
            "cached": patch_store + ATLAS_PAIRS * kept["views"] * setup.patch_bytes,
            "streamed": patch_store,
        },
        **peaks,
        "note": "host memory by then holds expression too: pairs x genes x 4 bytes, "
        f"{ATLAS_PAIRS * setup.genes * 4 / 1e9:.1f} GB",
    }


# part -> what measures it, from what was found before, and the seconds that it may take; in order of importance
PARTS: dict[str, tuple[Callable[[Setup, dict], dict], int]] = {
    "equal": (lambda setup, _: same_losses.compare(setup.folder), 40),
    "trunk": (lambda setup, _: trunk(setup), 40),
    "tail": (lambda setup, _: tail(setup), 50),
    "loader": (lambda setup, _: loader(setup), 30),
    "streamed": (lambda setup, _: streamed(setup), 60),
    "cached": (cached, 90),
    "projection": (projection, 0),
    "compiled": (lambda setup, _: compiled(setup), 120),
}


def run(setup: Setup, parts: Sequence[str]) -> bool:
    """All parts, a line each; whether none failed."""
    found: dict[str, dict] = {}
    fine = True
    for part, (measure, expected) in PARTS.items():
        if part not in parts:
            continue
        name, start = f"gpu: {part}", time.perf_counter()
        if not setup.tiny and setup.remaining() < expected:
            report(name, skipped=f"{setup.remaining():.0f} s left of --minutes, it may take {expected}")
        elif part == "projection" and not {"cached", "streamed"} <= found.keys():
            report(name, skipped="needs the parts cached and streamed")
        else:
            try:
                found[part] = measure(setup, found)
            except Exception as error:  # the machine is lent by the minute: other parts are still worth their time
                traceback.print_exc()
                report(name, error=f"{type(error).__name__}: {error}"[:500])
                fine = False
            else:
                report(name, geometry=setup.words, **found[part], took_s=time.perf_counter() - start)
    return fine


def main() -> None:
    """Measure, part by part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20_000, help="pairs that are measured")
    parser.add_argument("--workers", type=int, default=14, help="processes that augment")
    parser.add_argument("--minutes", type=float, default=8.5, help="parts that would end later are left out")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--folder", type=Path, help="for patches and tokens; the system's temporary folder by default")
    parser.add_argument("--tiny", action="store_true", help="4 blocks of width 48, to see that it runs")
    arguments = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32 where results are compared
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="seal-gpu-") as folder:
        if not torch.cuda.is_available() and not arguments.tiny:
            sys.exit("no GPU here: run this where torch.cuda.is_available(), or with --tiny to see that it runs")
        deadline = time.monotonic() + 60 * arguments.minutes
        setup = Setup(Path(folder), arguments.pairs, arguments.workers, 384, 2000, deadline, tiny=False)
        if arguments.tiny:
            setup = replace(setup, pairs=48, workers=1, batch=8, genes=40, tiny=True)
        fine = run(setup, arguments.parts)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
