"""`import seal` tells OpenMP's threads to spin briefly; what the user set wins."""

import json
import os
import re
import subprocess
import sys

import pytest

from seal.paths import PROJECT

NAMES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")
# What a process that the first one starts has, and what the runtime that torch brings says that it took.
CODE = f"""
import subprocess, sys
import seal
assert "torch" not in sys.modules, "too late: the runtime looks when torch is imported"
show = "import json, os; print(json.dumps({{k: v for k, v in os.environ.items() if k in {NAMES!r}}}))"
subprocess.run([sys.executable, "-S", "-c", show], check=True)
import torch
"""


def start(**variables: str) -> tuple[dict[str, str], str]:
    """The three variables in a child of a fresh process that imported seal; what torch's OpenMP runtime printed."""
    clean = {k: v for k, v in os.environ.items() if k not in NAMES} | {"OMP_DISPLAY_ENV": "VERBOSE", **variables}
    done = subprocess.run([sys.executable, "-c", CODE], env=clean, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_the_brief_spin_reaches_the_runtime_and_every_process_it_starts():
    found, runtime = start()
    assert found == {"GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "1"}
    spins = re.findall(r"(GOMP_SPINCOUNT|KMP_BLOCKTIME) *= *'(\w+)'", runtime)
    if not spins:
        pytest.skip("this torch's OpenMP runtime does not print its settings")
    assert all(found[name] == value for name, value in spins)


@pytest.mark.parametrize("own", [{"GOMP_SPINCOUNT": "7"}, {"KMP_BLOCKTIME": "200"}])
def test_the_users_value_wins(own):
    assert start(**own)[0] == {"GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "1"} | own


def test_the_users_policy_wins_too():
    assert start(OMP_WAIT_POLICY="passive")[0] == {"OMP_WAIT_POLICY": "passive"}


@pytest.mark.parametrize("path", sorted((PROJECT / "notebooks").rglob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_import_seal_before_torch(path):
    """A kernel that make did not start has the setting too."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines = [line for cell in cells if cell["cell_type"] == "code" for line in cell["source"]]
    imports = [words[1] for line in lines if (words := line.split())[:1] in (["import"], ["from"])]
    first = {name.partition(".")[0]: i for i, name in reversed(list(enumerate(imports)))}
    ours = min(first.get(name, 99) for name in ("seal", "seal_atlas", "figures"))
    for name in ("torch", "torchvision", "timm", "peft", "safetensors"):
        assert ours < first.get(name, 100), f"{name} is imported before seal"
