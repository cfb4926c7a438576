"""Training over processes: settings that travel as text, the command, and what the caller reads afterwards."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from seal import profiles
from seal.data.assemble import assemble
from seal.errors import SealError
from seal.train import launch, parallel, runs, tokens

CHANGES = [
    {},
    {"vision__rank": 3, "vision__lr": 1e-5, "vision__learn_temperature": True},
    {"omics__hidden": (16, 8), "evaluation__seeds": (7,), "source_settings__organs": ("Breast",)},
    {"encoder": "uni2_h", "image_size": 56, "compute__tokens": "disk"},
]


def test_settings_are_read_as_python_values_or_text():
    options = [
        "vision__rank=16",
        "vision__lr=1e-4",
        "encoder=uni2_h",
        "evaluation__seeds=(0, 1)",
        "a=b=c",
    ]
    assert launch.settings(options) == {
        "vision__rank": 16,
        "vision__lr": 1e-4,
        "encoder": "uni2_h",
        "evaluation__seeds": (0, 1),
        "a": "b=c",
    }
    assert launch.settings([]) == {}
    with pytest.raises(SealError, match="setting 'vision__rank' has no value"):
        launch.settings(["vision__rank"])


@pytest.mark.parametrize("changes", CHANGES, ids=lambda c: ", ".join(c) or "none")
def test_changes_of_a_profile_come_back_as_they_went(changes):
    profile = profiles.get("demo", **changes)
    options = launch._changes(profile)
    assert options[::2] == ["--set"] * len(changes)
    assert launch.settings(options[1::2]) == changes
    assert profiles.get("demo", **launch.settings(options[1::2])) == profile


@pytest.fixture
def commands(monkeypatch):
    """The commands that would have been run; each ends with `status`."""
    ran = SimpleNamespace(commands=[], status=0)

    def run(command, **_):
        ran.commands.append(command)
        return subprocess.CompletedProcess(command, ran.status)

    monkeypatch.setattr(subprocess, "run", run)
    return ran


def test_the_command_names_run_processes_and_settings(commands):
    profile = profiles.get("her2st", vision__rank=3)
    launch.train(profile, "HER2ST-B", 2, "seal_shuffled", 4)
    (command,) = commands.commands
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert command[3:7] == ["--standalone", "--nproc-per-node=4", "-m", "seal"]
    what = ["--profile", "her2st", "--fold", "HER2ST-B", "--seed", "2", "--method", "seal_shuffled"]
    assert command[7:] == ["train", *what, "--set", "vision__rank=3"]


def test_a_failed_process_is_an_error(commands):
    commands.status = 3
    with pytest.raises(SealError, match="training in 2 processes ended with status 3"):
        launch.train(profiles.DEMO, "A", 0, "seal", 2)


@pytest.mark.parametrize(("gpus", "many", "shared"), [(0, False, 0), (1, False, 0), (4, False, 4), (4, True, 0)])
def test_gpus_are_shared_where_there_are_several_and_nobody_does_yet(monkeypatch, gpus, many, shared):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(parallel, "is_one_of_many", lambda: many)
    assert launch.gpus_to_share() == shared


def test_several_gpus_train_and_the_caller_reads_what_they_left(small, monkeypatch):
    pairs = assemble(small)
    fold, source, launched = pairs.folds()[0], tokens.build(pairs), []

    def in_other_processes(profile, name, seed, method, processes):
        launched.append((profile, name, seed, method, processes))
        with monkeypatch.context() as there:
            there.setattr(launch, "gpus_to_share", lambda: 0)
            launched.append(runs.train_vision(pairs, pairs.fold(name), seed, source, method))
        monkeypatch.setattr(runs, "fit", lambda *_: pytest.fail("trained here too"))

    monkeypatch.setattr(launch, "gpus_to_share", lambda: 2)
    monkeypatch.setattr(launch, "train", in_other_processes)
    read = runs.train_vision(pairs, fold, 0, source, "seal_shuffled")
    what, trained = launched
    assert what == (small, fold.name, 0, "seal_shuffled", 2)
    state = read.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in trained.state_dict().items())
    runs.train_vision(pairs, fold, 0, source, "seal_shuffled")
    assert len(launched) == 2, "a run that is current is not launched again"
