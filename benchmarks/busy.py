"""Stage 1, the tail and the probe, alone and beside two busy loops, with the brief spin that seal sets and without.

OpenMP's threads spin while they wait for one another. On cores that others use too, that takes away the time in which
the awaited would come. The runtime looks at its setting once, so each of the four ways runs in a process of its own;
they take turns, and their results must agree. `slowdown` is the time beside the loops over the time alone: the goal is
at most 3. `cost_alone` is the time with the setting over that without, both alone: at most 1.15.

    python benchmarks/busy.py [--set GOMP_SPINCOUNT=1000] [--turns 3] [--tiny]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch  # before seal, or the way without the setting would have it
from tqdm import tqdm

from seal import profiles
from seal.evaluate.probe import ridge_probe, validation
from seal.models import architecture
from seal.models.encoder_registry import REGISTRY
from seal.models.encoders import VisionEncoder
from seal.models.omics import SealOmics, gene_statistics
from seal.models.vision import SealVision
from seal.train.loop import Schedule, fit
from seal.train.steps import Expression, OmicsTask, VisionTask

SET = {"GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "1"}  # as seal/__init__.py and the Makefile have it
ASKED = (*SET, "OMP_WAIT_POLICY")
LOOPS, REPEATS = 2, 3
SPIN = "while True: pass"


class Held:
    """Random tokens in memory, as much of a token source as the tail's training needs."""

    def __init__(self, profile: profiles.Profile, n: int, shape: tuple[int, int]) -> None:
        self.pairs = SimpleNamespace(profile=profile)
        self.tokens = torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))

    def stream(self, requests) -> Iterator[torch.Tensor]:
        """Give each request's tokens."""
        yield from (self.tokens[torch.from_numpy(rows)] for _, rows in requests)


def make_works(tiny: bool) -> dict[str, Callable[[], float]]:
    """The demo's sizes; each work gives a number that all four ways must agree on."""
    profile = profiles.get("demo", vision__views=0, omics__epochs=3, vision__epochs=2)
    n, genes = (300, 30) if tiny else (2000, profile.panel.genes)
    rng = np.random.default_rng(0)
    x = Expression(rng.random((n, genes), dtype=np.float32), np.arange(n))
    spec, size = REGISTRY["dinov2_s"], profile.image_size
    encoder = VisionEncoder(spec, architecture.make_random(spec, size, tiny=tiny, seed=0)).eval()
    held = Held(profile, n // 4, encoder.token_shape)
    pairs = replace(x, rows=np.arange(n // 4))
    z, y = rng.standard_normal((n, encoder.dim)), rng.standard_normal((n, 50))
    donor, same = np.arange(n) % 4, np.full(n, "one")

    def omics() -> SealOmics:
        torch.manual_seed(0)
        return SealOmics(genes, encoder.dim, profile.omics, *gene_statistics(x))

    def trained(task: OmicsTask | VisionTask, settings) -> float:
        schedule = Schedule(settings.epochs, settings.batch, settings.lr, settings.weight_decay, seed=0)
        with tempfile.TemporaryDirectory() as folder:
            return fit(task, schedule, Path(folder), "benchmark", "busy")[-1]["total"]

    def stage_1() -> float:
        return trained(OmicsTask(omics(), x), profile.omics)

    def tail() -> float:
        model = SealVision(encoder.fork(1), omics(), profile.vision, *gene_statistics(pairs))
        return trained(VisionTask(model, held, pairs.rows, pairs, "float32"), profile.vision)

    def probe() -> float:
        how, settings = validation(donor, donor, donor, same, same), profile.evaluation
        return float(np.abs(ridge_probe(z, y, how, z, settings.pca, settings.alphas)[0]).mean())

    return {"stage_1": stage_1, "tail": tail, "probe": probe}


def child(tiny: bool) -> None:
    """Print each work's median seconds and its result."""
    found = {}
    for name, work in make_works(tiny).items():
        result, taken = work(), []
        for _ in range(1 if tiny else REPEATS):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
        found[name] = {"seconds": statistics.median(taken), "result": result}
    print(json.dumps(found))


@contextmanager
def busy_loops(number: int) -> Iterator[None]:
    """Keep so many cores busy meanwhile."""
    loops = [subprocess.Popen([sys.executable, "-S", "-c", SPIN]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def run(setting: dict[str, str], loops: int, tiny: bool) -> dict:
    """One way, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in ASKED} | setting
    command = [sys.executable, __file__, "--child", *["--tiny"] * tiny]
    with busy_loops(loops):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def compare(setting: dict[str, str], turns: int, tiny: bool) -> dict:
    """Take turns with the four ways; seconds and ratios of each work."""
    ways = {(on, loops): [] for on in ("with", "without") for loops in (0, LOOPS)}
    for on, loops in tqdm([*ways] * turns, desc="processes"):
        ways[on, loops].append(run(setting if on == "with" else {}, loops, tiny))
    line = {"setting": setting, "busy_loops": LOOPS, "turns": turns, "seconds": {}, "slowdown": {}, "cost_alone": {}}
    difference = 0.0
    for work in ways["with", 0][0]:
        t = {way: statistics.median(found[work]["seconds"] for found in all_turns) for way, all_turns in ways.items()}
        line["seconds"][work] = {on: {"alone": t[on, 0], "beside": t[on, LOOPS]} for on in ("with", "without")}
        line["slowdown"][work] = {on: t[on, LOOPS] / t[on, 0] for on in ("with", "without")}
        line["cost_alone"][work] = t["with", 0] / t["without", 0]
        results = [found[work]["result"] for all_turns in ways.values() for found in all_turns]
        difference = max(difference, (max(results) - min(results)) / abs(results[0]))
    assert difference < 1e-4, f"the ways disagree by {difference}"
    return line | {"largest_relative_difference": difference}


def main() -> None:
    """Compare the four ways and print a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", nargs="+", metavar="NAME=VALUE", help="another setting than the one that seal takes")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="small work, once, to see that it runs")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.tiny)
        return
    from common import report

    setting = dict(word.split("=", 1) for word in arguments.set) if arguments.set else SET
    turns = 1 if arguments.tiny else arguments.turns
    report("threads that wait, on a busy machine", **compare(setting, turns, arguments.tiny))


if __name__ == "__main__":
    main()
