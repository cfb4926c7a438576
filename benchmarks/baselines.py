"""The time that each baseline takes to train on a fold of the demo, against SEAL's own stage 2.

All have the same tokens, batches, steps and schedule, in a home of their own: nothing of yours is trained or deleted.
The ratio is of processor time, which a busy machine changes less than the clock; `all_folds` is what the profile's
folds would take together, by the clock. Neither stage 1, which SEAL and PathOmCLIP share, nor the frozen embeddings
(`frozen`, once a process) count. The pairs and tokens of the profile must be there (notebooks 01 and 03).

    python benchmarks/baselines.py [--profile demo] [--tiny]
"""

import argparse
import dataclasses
import os
import tempfile
import time
from pathlib import Path

from common import report

from seal import paths, profiles
from seal.data import pairs as stored
from seal.data.assemble import assemble
from seal.models import encoders
from seal.models.baselines import BASELINES
from seal.train import batches, runs


def measure(work) -> dict[str, float]:
    """Seconds of one call, by the clock and of processors."""
    clock, used = time.perf_counter(), time.process_time()
    work()
    return {"clock": time.perf_counter() - clock, "processor": time.process_time() - used}


def tiny() -> profiles.Profile:
    """Four donors of 12 spots and a tiny encoder of random weights."""
    build = encoders.build
    encoders.build = lambda name, **more: build(name, weights="random", image_size=more["image_size"], tiny=True)
    donors = {"organs": ("Breast", "Kidney"), "donors_per_organ": 2, "spots_per_section": 12}
    changes = {"source_settings": donors, "image_size": 56, "um_per_px": 2.0, "omics__hidden": (16, 8)}
    small = profiles.get("demo", **changes, panel__genes=30, panel__test_genes=8, vision__batch=16, vision__epochs=2)
    return dataclasses.replace(small, evaluation=profiles.EvaluationSettings())


def main() -> None:
    """Train each once on the first fold and print a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--tiny", action="store_true", help="four small donors, to see that it runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.tiny:
            os.environ["SEAL_HOME"] = folder
            pairs = assemble(tiny())
        else:
            Path(folder, "data").symlink_to(paths.home() / "data")
            os.environ["SEAL_HOME"] = folder
            pairs = stored.read(profiles.get(arguments.profile))
        source, fold = batches.build(pairs), pairs.folds()[0]
        runs.train_omics(runs.Run(pairs, fold, 0), source.encoder.dim)
        frozen = measure(lambda: source.frozen)
        taken = {}
        for name in ("seal", *BASELINES):
            run = runs.Run(pairs, fold, 0, name)
            taken[name] = measure(lambda run=run: runs.train_vision(run, source))
            steps = len(run.read_log())
            assert steps == len(runs.Run(pairs, fold, 0).read_log())
    seal, folds = taken.pop("seal"), len(pairs.folds())
    report(
        "baselines: training on a fold, against SEAL's stage 2",
        profile=pairs.profile.name,
        pairs=len(fold.train),
        steps=steps,
        seal=seal,
        frozen=frozen,
        ratio={name: each["processor"] / seal["processor"] for name, each in taken.items()},
        all_folds=folds * sum(each["clock"] for each in taken.values()),
        all_folds_processor=folds * sum(each["processor"] for each in taken.values()),
    )


if __name__ == "__main__":
    main()
