"""SIGKILL at several points of both stages, tokens kept and recomputed: the same command ends with the same bytes."""

import dataclasses
import json
import subprocess
import sys

import pytest

# One interpreter loads everything once; each training is a forked child of it, which a point of the way kills.
SCRIPT = """
import dataclasses, hashlib, json, os, shutil, signal, sys
from pathlib import Path

import torch
from seal import profiles
from seal.data.pairs import read
from seal.models import encoders
from seal.train import batches, loop, runs, tokens

profile, home, kind = eval(sys.argv[1], vars(profiles)), Path(sys.argv[2]), sys.argv[3]
build = encoders.build
encoders.build = lambda name, image_size=None, **_: build(
    name, weights="random", image_size=image_size, tiny=True, seed=1
)
tokens.CHUNK["cpu"] = 16
loop.CHECKPOINT_SECONDS, tokens.PERSIST_SECONDS = 0, -1


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dies_at(point):
    stage, _, moment = point.partition(" ")
    save, torch_save, persist, finish = loop._save, torch.save, tokens._persist, runs.finish

    def after_checkpoint(path, key, model, optimiser, step, log):
        save(path, key, model, optimiser, step, log)
        if f".{stage}." in str(path) and moment == f"step {step}":
            die()

    def within_checkpoint(state, path):
        if stage in str(path) and moment == f"writing {state['step']}":
            Path(path).write_bytes(b"half a checkpoint")
            die()
        torch_save(state, path)

    def after_part(files, done, made):
        persist(files, done, made)
        if stage == "tokens" and moment == f"part {int(done[0].sum())}":
            die()

    def before_finish(partial, folder, log, record):
        if folder.name == stage and moment == "before finish":
            die()
        finish(partial, folder, log, record)

    loop._save, torch.save, tokens._persist, runs.finish = (
        after_checkpoint, within_checkpoint, after_part, before_finish
    )


def run(folder, point=None):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            os.environ["SEAL_HOME"] = str(folder)
            if point:
                dies_at(point)
            pairs = read(profile)
            runs.train_vision(runs.Run(pairs, pairs.folds()[0], 0), batches.build(pairs))
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def bytes_of(folder):
    # run.json and the adapter's configuration name things, tensors and log are what was computed
    files = [p for p in sorted((folder / "runs").rglob("*")) if p.suffix in (".safetensors",) or p.name == "log.json"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def copy(name):
    target = home.with_name(name)
    shutil.copytree(home, target, symlinks=True)
    shutil.rmtree(target / "data" / "tokens", ignore_errors=True)
    return target


whole = copy(f"{kind}-whole")
assert run(whole) == 0
report = {"whole": bytes_of(whole)}
for point in sys.argv[4:]:
    killed = copy(f"{kind}-" + point.replace(" ", "-"))
    codes = [run(killed, point), run(killed)]
    left = [str(p) for p in killed.rglob("*.part*")] + [str(p) for p in killed.rglob("checkpoint.pt")]
    report[point] = {"codes": codes, "left": left, "bytes": bytes_of(killed)}
print(json.dumps(report))
"""

POINTS = (
    *("omics step 1", "omics writing 3", "omics before finish"),
    *("seal step 1", "seal step 3", "seal writing 2", "seal before finish"),
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["disk", "recompute"])
def test_killed_anywhere_it_resumes_to_the_same_bytes(small, home, kind):
    profile = dataclasses.replace(small, compute=dataclasses.replace(small.compute, tokens=kind))
    points = [*POINTS, *(("tokens part 1", "tokens part 4") if kind == "disk" else ())]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, repr(profile), str(home), kind, *points],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    whole = report.pop("whole")
    assert len(whole) == 6  # two logs, stage 1, adapter, the rest of stage 2, stage 2's SEAL-omics
    for point, found in report.items():
        assert found["codes"] == [-9, 0], point
        assert found["left"] == [], point
        assert found["bytes"] == whole, point
