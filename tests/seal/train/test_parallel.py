"""Training over processes: the profile travels as a file; the command; what the caller reads afterwards."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from seal import profiles
from seal.data.assemble import assemble
from seal.errors import SealError
from seal.train import batches, parallel, runs


@pytest.fixture
def commands(monkeypatch):
    """The commands that would have been run; each ends with `status`."""
    ran = SimpleNamespace(commands=[], profiles=[], status=0)

    def run(command, **_):
        ran.commands.append(command)
        ran.profiles.append(profiles.from_json(Path(command[command.index("--profile-file") + 1]).read_text()))
        return subprocess.CompletedProcess(command, ran.status)

    monkeypatch.setattr(subprocess, "run", run)
    return ran


def test_the_command_names_run_processes_and_the_whole_profile(commands):
    profile = profiles.get("her2st", vision__rank=3, omics__hidden=(16, 8))
    parallel.start_training(profile, ["HER2ST-B", "HER2ST-C"], [2], "seal_shuffled", 4)
    (command,) = commands.commands
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert command[3:9] == ["--standalone", "--nproc-per-node=4", "-m", "seal", "train", "--profile-file"]
    what = ["--fold", "HER2ST-B", "--fold", "HER2ST-C", "--seed", "2", "--method", "seal_shuffled"]
    assert command[10:] == what
    assert commands.profiles == [profile]
    assert not Path(command[9]).exists(), "the file is nobody's afterwards"


def test_all_folds_and_seeds_are_not_named(commands):
    parallel.start_training(profiles.DEMO, (), (), "seal", 2)
    assert commands.commands[0][10:] == ["--method", "seal"]


def test_a_failed_process_is_an_error(commands):
    commands.status = 3
    with pytest.raises(SealError, match="training in 2 processes ended with status 3"):
        parallel.start_training(profiles.DEMO, ["A"], [0], "seal", 2)


@pytest.mark.parametrize(("gpus", "many", "shared"), [(0, False, 0), (1, False, 0), (4, False, 4), (4, True, 0)])
def test_gpus_are_shared_where_there_are_several_and_nobody_does_yet(monkeypatch, gpus, many, shared):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(parallel, "is_one_of_many", lambda: many)
    assert parallel.gpus_to_share() == shared


def test_several_gpus_train_and_the_caller_reads_what_they_left(small, monkeypatch):
    pairs = assemble(small)
    fold, source, launched = pairs.folds()[0], batches.build(pairs), []

    def in_other_processes(profile, folds, seeds, method, processes):
        launched.append((profile, folds, seeds, method, processes))
        with monkeypatch.context() as there:
            there.setattr(parallel, "gpus_to_share", lambda: 0)
            launched.append(runs.train_vision(runs.Run(pairs, pairs.fold(folds[0]), seeds[0], method), source))
        monkeypatch.setattr(runs, "fit", lambda *_: pytest.fail("trained here too"))

    monkeypatch.setattr(parallel, "gpus_to_share", lambda: 2)
    monkeypatch.setattr(parallel, "start_training", in_other_processes)
    read = runs.train_vision(runs.Run(pairs, fold, 0, "seal_shuffled"), source)
    what, trained = launched
    assert what == (small, [fold.name], [0], "seal_shuffled", 2)
    state = read.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in trained.state_dict().items())
    runs.train_vision(runs.Run(pairs, fold, 0, "seal_shuffled"), source)
    assert len(launched) == 2, "a run that is current is not launched again"


# --- what a scheduler announces ----------------------------------------------------------------------------------

STATE = """
import sys
from seal.errors import run_command
from seal.train import parallel
parallel.PATIENCE = 0.2
sys.exit(run_command(parallel.state))
"""


def start(**variables):
    clean = {k: v for k, v in os.environ.items() if k not in (*parallel.SIZES, "MASTER_ADDR", "RANK", "LOCAL_RANK")}
    clean |= {"OMP_NUM_THREADS": "1"}  # accelerate says so where it is unset
    clean |= {"CUDA_VISIBLE_DEVICES": ""}  # with a GPU, accelerate takes a process without LOCAL_RANK for alone
    return subprocess.Popen([sys.executable, "-c", STATE], env=clean | variables, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_SIZE", "4"), ("WORLD_SIZE", "two")])
def test_announced_processes_that_cannot_be_met_are_one_message(name, value):
    process = start(**{name: value})
    said = process.communicate(timeout=100)[1]
    assert process.returncode == 2, said
    assert f"error: {name}={value} announces processes" in said
    assert "unset what is named here" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("value", ["2", "two"])
def test_announced_processes_that_a_gpu_hides_are_one_message_too(monkeypatch, value):
    alone = object.__new__(parallel.PartialState)
    alone.num_processes = 1  # as accelerate says with a GPU and without LOCAL_RANK
    monkeypatch.setattr(parallel, "PartialState", lambda **_: alone)
    monkeypatch.setenv("WORLD_SIZE", value)
    with pytest.raises(SealError, match=f"WORLD_SIZE={value} announces processes, but LOCAL_RANK is unset"):
        parallel.state.__wrapped__()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert parallel.state.__wrapped__() is alone


def test_it_is_said_for_whom_a_process_waits_and_how_to_get_out():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = start(WORLD_SIZE="2", RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    try:
        said = process.stderr.readline() + process.stderr.readline()
        assert "waiting at 127.0.0.1 for the processes that WORLD_SIZE=2 announces" in said
        assert f"kill {process.pid}" in said
        assert process.poll() is None, "it still waits: they may come"
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_a_process_that_is_alone_says_nothing():
    for variables in ({}, {"WORLD_SIZE": "1"}):
        process = start(**variables)
        assert process.communicate(timeout=100)[1] == ""
        assert process.returncode == 0
