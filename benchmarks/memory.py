"""Stage 2 with tokens read from disk, against tokens held in memory: peak memory of one epoch.

The same rows, masks and steps; the losses must be equal, bit for bit. Each way runs in a process of its own; its
`over_gb` is the highest that the process's memory ever was (VmHWM) less what it was before the epoch, with model and
libraries loaded. Which way is taken follows from ComputeSettings.memory_gb, as in a real run: `limit_gb` sends a
larger file to disk. A smaller file is read from disk too, to show that the peak does not grow with the file.

    python benchmarks/memory.py [--gb 3] [--small 1] [--limit 0.5] [--tiny]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

GENES, BATCH = 300, 64


def peak_gb() -> float:
    """The highest that this process's memory ever was, 10^9 bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss would count the process that started this one too
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def profile(size: int, limit: float):
    """DINOv2-S geometry with tokens of plain patches, in memory up to `limit`."""
    from seal import profiles

    compute = profiles.ComputeSettings(memory_gb=limit)
    vision = profiles.VisionSettings(views=0, batch=BATCH, epochs=1)
    return profiles.get("demo", encoder="dinov2_s", image_size=size, compute=compute, vision=vision)


def write(folder: Path, gigabytes: float, size: int) -> int:
    """A tokens.npy of about so many 10^9 bytes, written through; how many patches it holds."""
    import numpy as np

    from seal.models.encoder_registry import find_spec

    geometry = find_spec("dinov2_s").geometry
    shape = (1 + (size // geometry.patch) ** 2, geometry.width)
    n = int(gigabytes * 1e9 / (4 * shape[0] * shape[1]))
    draw = np.random.default_rng(0)
    folder.mkdir()
    with (folder / "tokens.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (1, n, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, n, 128):
            draw.standard_normal((min(128, n - start), *shape), dtype=np.float32).tofile(file)
        file.flush()
        os.fsync(file.fileno())
    return n


def epoch(folder: Path, n: int, size: int, limit: float) -> dict:
    """One epoch over all rows, in this process."""
    import numpy as np
    import torch

    from seal.models import architecture
    from seal.models.encoder_registry import REGISTRY
    from seal.models.encoders import VisionEncoder
    from seal.models.omics import SealOmics
    from seal.models.vision import SealVision
    from seal.profiles import OmicsSettings
    from seal.train import batches, tokens
    from seal.train.loop import Schedule, fit
    from seal.train.steps import VisionTask

    sys.path.insert(0, str(Path(__file__).parent))
    from common import Patches

    pairs = Patches(folder / "none.npy", profile(size, limit), n)
    settings = pairs.profile.vision
    torch.manual_seed(0)
    encoder = VisionEncoder(REGISTRY["dinov2_s"], architecture.make_random(REGISTRY["dinov2_s"], size))
    omics = SealOmics(GENES, encoder.dim, OmicsSettings(), torch.zeros(GENES), torch.ones(GENES))
    model = SealVision(encoder, omics, settings)
    x = torch.rand(n, GENES)
    before, start = peak_gb(), time.perf_counter()
    kind = batches.choose(pairs)
    source = batches.StoredTokens(pairs, "key", tokens.TokenFile(folder, "float32"), held=kind == "memory")
    task = VisionTask(model, source, np.arange(n), x, "float32")
    log = fit(task, Schedule(1, BATCH, 1e-4, 0.2, 0), folder, "key", kind)
    return {
        "kind": kind,
        "limit_gb": limit,
        "before_gb": before,
        "over_gb": peak_gb() - before,
        "peak_gb": peak_gb(),
        "patches_per_s": n / (time.perf_counter() - start),
        "losses": [entry["total"] for entry in log],
    }


def apart(folder: Path, n: int, size: int, limit: float) -> dict:
    """The same in a process of its own."""
    what = ["--epoch", str(folder), "--patches", str(n), "--size", str(size), "--limit", str(limit)]
    done = subprocess.run([sys.executable, __file__, *what], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Measure and print a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=3.0, help="size of the larger file, 10^9 bytes")
    parser.add_argument("--small", type=float, default=1.0, help="size of the smaller one")
    parser.add_argument("--limit", type=float, default=0.5, help="ComputeSettings.memory_gb; below both sizes")
    parser.add_argument("--size", type=int, default=224, help="px a patch side")
    parser.add_argument("--tiny", action="store_true", help="some megabytes, to see that it runs")
    parser.add_argument("--epoch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--patches", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.epoch:
        print(json.dumps(epoch(arguments.epoch, arguments.patches, arguments.size, arguments.limit)))
        return
    gb, small, limit, size = arguments.gb, arguments.small, arguments.limit, arguments.size
    if arguments.tiny:
        gb, small, limit, size = 0.012, 0.006, 0.003, 56
    if not limit < small < gb:
        parser.error("needs --limit < --small < --gb")
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "tokens"
        n = write(folder, gb, size)
        n_small = write(Path(home) / "small", small, size)
        wanted = [(folder, n, size, limit), (folder, n, size, gb + 1), (Path(home) / "small", n_small, size, limit)]
        with ThreadPoolExecutor(max_workers=len(wanted) if arguments.tiny else 1) as pool:
            disk, memory, disk_small = pool.map(lambda way: apart(*way), wanted)
    assert (disk["kind"], memory["kind"], disk_small["kind"]) == ("disk", "memory", "disk")
    assert disk.pop("losses") == memory.pop("losses"), "the two ways do not train alike"
    del disk_small["losses"]

    from common import report

    report(
        "stage 2: tokens from disk against tokens in memory, peak memory of an epoch",
        geometry=f"ViT-S/14, {size} px, N 1, batch {BATCH}, float32",
        file_gb=gb,
        patches=n,
        disk=disk,
        memory=memory,
        small_file_gb=small,
        small_disk=disk_small,
        over_ratio=memory["over_gb"] / disk["over_gb"],
        peak_ratio=memory["peak_gb"] / disk["peak_gb"],
        disk_within_limit=disk["over_gb"] <= limit,
        disk_growth_gb=disk["over_gb"] - disk_small["over_gb"],
        losses_equal=True,
    )


if __name__ == "__main__":
    main()
