"""Two processes on one SEAL_HOME at once: none dies, each thing is made once, the same as one process alone makes."""

import json
import subprocess
import sys

import pytest

# One interpreter loads everything once; its forked children are the processes. Each pauses within what it
# makes, so that what is not kept apart would meet.
SCRIPT = """
import hashlib, json, os, shutil, sys, time, traceback
from pathlib import Path

import torch
from seal import profiles
from seal.data.assemble import assemble
from seal.models import encoders
from seal.train import batches, loop, runs, tokens

profile, home = eval(sys.argv[1], vars(profiles)), Path(sys.argv[2])
build = encoders.build
encoders.build = lambda name, image_size=None, weights="random", **_: build(
    name, weights="random", image_size=image_size, tiny=True, seed=1
)
loop.CHECKPOINT_SECONDS, tokens.PERSIST_SECONDS, tokens.CHUNK["cpu"] = 0, -1, 16


def slowly(work):
    def wait_first(*arguments):
        time.sleep(0.1)
        return work(*arguments)
    return wait_first


def child(folder, report):
    torch.set_num_threads(1)
    os.environ["SEAL_HOME"] = str(folder)
    made, fit, write = [], runs.fit, tokens._fill
    runs.fit = lambda task, schedule, partial, *more: made.append(partial.name) or fit(task, schedule, partial, *more)
    tokens._fill = lambda *arguments: made.append("tokens") or write(*arguments)
    loop._save, tokens._persist, runs.finish = slowly(loop._save), slowly(tokens._persist), slowly(runs.finish)
    sys.stderr = open(report.with_suffix(".err"), "w")
    pairs = assemble(profile)
    source = batches.build(pairs)
    runs.train_runs(runs.list_runs(pairs, folds=pairs.folds()[:1], seeds=[0]), source)
    report.write_text(json.dumps(made))


def start(folder, report):
    number = os.fork()
    if number == 0:
        code = 1
        try:
            child(folder, report)
            code = 0
        except BaseException:
            report.with_suffix(".died").write_text(traceback.format_exc())
        finally:
            sys.stderr.flush()
            os._exit(code)
    return number


def run(name, number):
    folder = home.with_name(name)
    shutil.copytree(home, folder, symlinks=True)
    for made in (folder / "data" / "tokens", folder / "data" / "pairs"):
        shutil.rmtree(made)
    reports = [folder.with_name(f"{name}-{i}.json") for i in range(number)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in [start(folder, r) for r in reports]]
    died = [d.read_text() for r in reports if (d := r.with_suffix(".died")).exists()]
    files = [p for p in sorted(folder.rglob("*")) if p.suffix in (".safetensors", ".npy") or p.name == "log.json"]
    return {
        "codes": codes,
        "died": died,
        "made": [sorted(json.loads(r.read_text())) if r.exists() else None for r in reports],
        "said": [r.with_suffix(".err").read_text() for r in reports],
        "left": [str(p) for p in folder.rglob("*.part*")],
        "bytes": {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
    }


print(json.dumps({"one": run("one", 1), "two": run("two", 2)}))
"""


@pytest.mark.slow
def test_two_processes_make_each_thing_once_and_the_same(small, home):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, repr(small), str(home)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    one, two = found["one"], found["two"]
    assert one["died"] == two["died"] == []
    assert one["codes"] + two["codes"] == [0, 0, 0]
    assert sorted(name for made in two["made"] for name in made) == one["made"][0], "each is made by one of them"
    assert two["bytes"] == one["bytes"]
    assert len(one["bytes"]) > 8
    assert two["left"] == []
    assert "another process" in "".join(two["said"]), "it is said what is waited for"
    assert "free some space" not in "".join(two["said"])
