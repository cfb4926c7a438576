"""Runs side by side: the same weights, what fails is said once, and small work stays in one process."""

import os

import pytest
from safetensors.torch import load_file

from seal import profiles
from seal.data.assemble import assemble
from seal.errors import SealError
from seal.train import batches, parallel, pool, runs


def weights(run):
    return load_file(run.folder / "adapter" / "adapter_model.safetensors")


def test_small_work_and_other_processes_stay_in_this_one(small, monkeypatch):
    chosen = runs.list_runs(assemble(small))
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert pool.count_processes(chosen) == 1
    monkeypatch.setattr(pool, "LEAST", 1)
    assert pool.count_processes(chosen) == 3
    assert pool.count_processes(chosen[:2]) == 2
    assert pool.count_processes([]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(parallel, "is_one_of_many", lambda: True)
        assert pool.count_processes(chosen) == 1
    streamed = assemble(profiles.changed(small, compute__tokens="recompute"))
    assert pool.count_processes(runs.list_runs(streamed)) == 1


def test_what_is_trained_is_left_alone(small):
    pairs = assemble(small)
    source, run = batches.build(pairs), runs.list_runs(pairs)[0]
    pool.train_runs([run], source)
    before = run.record.stat().st_mtime_ns
    pool.train_runs([run], source)
    assert run.record.stat().st_mtime_ns == before


def test_a_process_that_dies_is_one_error_that_shows_what_it_said(small, monkeypatch, capfd, tmp_path):
    """The processes cannot know this test's tiny encoder: they find tokens of another one, and say so."""
    (tmp_path / pool.RUNS).write_bytes(b"no pickle")
    done = []
    with pytest.raises(SealError, match="a process that trained runs failed"):
        pool._spread(tmp_path, 3, 2, lambda: done.append(1))
    assert done == []
    assert "UnpicklingError" in capfd.readouterr().err


@pytest.mark.slow
def test_side_by_side_and_one_by_one_give_the_same_weights(home, small_profile, monkeypatch):
    pairs = assemble(small_profile)
    source, chosen = batches.build(pairs), runs.list_runs(pairs, folds=pairs.folds()[:1])
    pool.train_runs(chosen[:2], source)
    expected = [weights(run) for run in chosen[:2]]
    for run in chosen[:2]:
        for part in (run, run.stage_1):
            (part.record).unlink(missing_ok=True)
    monkeypatch.setattr(pool, "LEAST", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(runs, "train_vision", lambda *_: pytest.fail("trained here"))
    pool.train_runs(chosen[:2], source)
    for before, run in zip(expected, chosen[:2], strict=True):
        after = weights(run)
        assert before.keys() == after.keys()
        assert max((before[name] - after[name]).abs().max() for name in before) < 1e-5
