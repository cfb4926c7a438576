"""A step in chunks and over processes is the step of the whole batch; training over ranks is training alone."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from seal.data.assemble import assemble
from seal.models.omics import SealOmics, gene_statistics
from seal.models.vision import SealVision
from seal.profiles import OmicsSettings, VisionSettings
from seal.train import batches, steps
from seal.train.loop import Batch


@pytest.fixture
def task(small):
    """A model with adapters that do something and every source of randomness on."""
    pairs = assemble(small)
    fold, source = pairs.folds()[0], batches.build(pairs)
    x = torch.from_numpy(np.array(pairs.context(fold)[fold.train]))

    def make(gradcache=False, dropout=0.3):
        torch.manual_seed(0)
        omics = SealOmics(x.shape[1], source.encoder.dim, OmicsSettings(hidden=(16, 8)), *gene_statistics(x))
        settings = VisionSettings(decoder_hidden=8, lora_dropout=dropout, learn_temperature=True)
        model = SealVision(source.encoder.fork(1), omics, settings).train()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.2)
        return steps.VisionTask(model, source, fold.train, x, "float32", gradcache)

    return make


def gradients(task, batch):
    task.model.zero_grad(set_to_none=True)
    (share,) = task.stream([batch])
    terms = task.backward(share)
    return terms, {n: p.grad.clone() for n, p in task.model.named_parameters() if p.grad is not None}


def same(a, b, tolerance=1e-5):
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], atol=tolerance, rtol=1e-4)


BATCH = Batch(torch.arange(30), seed=11)


@pytest.mark.parametrize("block", [1, 7, 16, 64])
def test_gradcache_gives_the_gradient_of_one_graph(task, block, monkeypatch):
    """Both passes of a block see the same dropout, and its gradient belongs to the embedding the loss has seen."""
    monkeypatch.setattr(steps, "BLOCK", block)
    plain, cut = gradients(task(), BATCH), gradients(task(gradcache=True), BATCH)
    same(plain[0], cut[0])
    same(plain[1], cut[1])
    assert any("lora_A" in name for name in plain[1])
    assert "log_temperature" in plain[1]


def test_blocks_put_together_equal_the_model_s_own_losses(task, monkeypatch):
    """The plain twin: embed and score in one graph. Without dropout, whatever the blocks; with it, in one block."""
    for mine, block in ((task(dropout=0.0), 7), (task(), 64)):
        monkeypatch.setattr(steps, "BLOCK", block)
        terms, found = gradients(mine, BATCH)
        (share,) = mine.stream([BATCH])
        mine.model.zero_grad(set_to_none=True)
        torch.manual_seed(share.seeds[0])
        z = mine.model.embed(share.tokens)
        torch.manual_seed(BATCH.seed)
        plain = mine.model.objective(z, mine.x[BATCH.rows])
        plain["total"].backward()
        same(terms, plain)
        same(found, {n: p.grad for n, p in mine.model.named_parameters() if p.grad is not None})
    without = gradients(task(dropout=0.0), BATCH)[1]
    assert any((found[n] - g).abs().max() > 1e-4 for n, g in without.items())


@pytest.mark.parametrize("n", [1, 16, 30, 33, 384])
@pytest.mark.parametrize("processes", [1, 2, 3, 8, 40])
def test_every_row_is_dealt_to_one_process_in_whole_blocks(n, processes):
    shares = steps.split_batch(n, processes)
    assert len(shares) == processes
    assert [i for share in shares for i in share] == list(range(n))
    assert all(share.start % steps.BLOCK == 0 for share in shares if len(share))
    full = [len(share) for share in shares]
    assert max(full) - min(full) <= 2 * steps.BLOCK


def test_views_follow_the_seed_and_leave_the_plain_patch_out(task):
    mine = task()
    asked = [mine._draw(Batch(BATCH.rows, seed)) for seed in (1, 1, 2)]
    assert all((views == 1).all() for views, _ in asked)  # one augmented view is kept
    assert (asked[0][1] == mine.rows[:30]).all()


RANK = """
import json, sys
from pathlib import Path
from seal import profiles
from seal.data.pairs import read
from seal.models import encoders
from seal.train import batches, runs, steps
import torch
torch.set_num_threads(1)

build = encoders.build
encoders.build = lambda name, image_size=None, **_: build(
    name, weights="random", image_size=image_size, tiny=True, seed=1
)
profile = eval(sys.argv[1], vars(profiles))
steps.BLOCK = 4  # batches of a dozen make several blocks
pairs = read(profile)
runs.train_vision(runs.Run(pairs, pairs.folds()[0], 0), batches.build(pairs))
"""


def launch(profile, ranks):
    """Train in so many processes, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TQDM_DISABLE": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, repr(profile)],
            env=os.environ | (world | {"RANK": str(i), "LOCAL_RANK": str(i)} if ranks > 1 else {}),
            stderr=subprocess.PIPE,
        )
        for i in range(ranks)
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["disk", "recompute"])
def test_two_ranks_with_half_the_batch_are_one_with_all_of_it(small, home, kind, monkeypatch):
    """Losses and weights to 1e-5, dropout and augmentation on, from making the tokens to the saved adapter."""
    import dataclasses
    import shutil

    from safetensors.torch import load_file

    found = {}
    profile = dataclasses.replace(
        small,
        vision=dataclasses.replace(small.vision, epochs=3, batch=12, lr=1e-3),
        compute=dataclasses.replace(small.compute, tokens=kind),
    )
    for ranks in (1, 2):
        copy = home.with_name(f"ranks{ranks}")
        shutil.copytree(home, copy, symlinks=True)
        shutil.rmtree(copy / "data" / "tokens")
        monkeypatch.setenv("SEAL_HOME", str(copy))
        launch(profile, ranks)
        (folder,) = (copy / "runs" / "demo").glob("**/seed0/seal")
        states = [load_file(p) for p in (folder / "adapter/adapter_model.safetensors", folder / "vision.safetensors")]
        found[ranks] = json.loads((folder / "log.json").read_text()), states[0] | states[1]
        assert not list(copy.rglob("*.part*"))
    (log, alone), (shared_log, shared) = found[1], found[2]
    assert len(log) == len(shared_log) == 9
    for a, b in zip(log, shared_log, strict=True):
        assert a == pytest.approx(b, abs=1e-5, rel=1e-5)
    same(alone, shared)
