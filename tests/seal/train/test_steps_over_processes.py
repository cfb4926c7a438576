"""Gradients over processes, without starting any: the processes run in turn; what they would exchange is known.

Gradients and not weights are compared: AdamW hides a common factor.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from seal import profiles
from seal.models import encoders
from seal.models.omics import SealOmics
from seal.models.vision import SealVision
from seal.profiles import OmicsSettings, VisionSettings
from seal.train import batches, parallel, steps
from seal.train.loop import Batch

PAIRS, GENES = 30, 9
BATCH = Batch(torch.randperm(PAIRS, generator=torch.Generator().manual_seed(5)), seed=11)


class Known(batches.TokenSource):
    """Tokens of a plain and an augmented view that are nothing but random numbers."""

    def __init__(self, pairs, shape):
        self.pairs, self.key = pairs, "key"
        self.tokens = torch.randn(2, PAIRS, *shape, generator=torch.Generator().manual_seed(1))

    def stream(self, requests):
        return (self.tokens[torch.from_numpy(views), torch.from_numpy(rows)] for views, rows in requests)


def make(gradcache=False):
    """A task with adapters that do something and every source of randomness on."""
    torch.manual_seed(0)
    vision = VisionSettings(views=1, decoder_hidden=8, lora_dropout=0.3, decoder_dropout=0.3, learn_temperature=True)
    pairs = SimpleNamespace(profile=profiles.get("demo", vision=vision))
    encoder = encoders.build("dinov2_s", weights="random", image_size=28, tiny=True)
    omics = OmicsSettings(hidden=(16, 8), dropout=0.3)
    model = SealVision(encoder, SealOmics(GENES, 48, omics, torch.zeros(GENES), torch.ones(GENES)), vision).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.2)
    x = torch.rand(PAIRS, GENES)
    source = Known(pairs, encoder.token_shape)
    return steps.VisionTask(model, source, np.arange(PAIRS)[::-1].copy(), x, "float32", gradcache)


def gradients(task):
    (share,) = task.stream([BATCH])
    terms = task.backward(share)
    found = {n: p.grad.clone() for n, p in task.model.named_parameters() if p.grad is not None}
    return {name: float(value.detach()) for name, value in terms.items()}, found


@pytest.fixture
def in_process(monkeypatch):
    """Let the step believe that it is in one of several processes, and know what the others embed."""

    def be(index, processes, z):
        state = SimpleNamespace(process_index=index, num_processes=processes, device=torch.device("cpu"))
        monkeypatch.setattr(parallel, "state", lambda: state)
        shares = steps.split_batch(len(z), processes)

        def gather(rows, counts):
            assert counts == [len(share) for share in shares]
            torch.testing.assert_close(rows, z[shares[index].start : shares[index].stop], atol=1e-5, rtol=1e-5)
            return z.clone()

        monkeypatch.setattr(parallel, "gather_rows", gather)

    monkeypatch.setattr(steps, "BLOCK", 7)
    return be


@pytest.mark.parametrize("processes", [2, 3, 8])  # the last are more than there are blocks
@pytest.mark.parametrize("gradcache", [False, True])
def test_the_gradients_of_all_processes_add_up_to_those_of_one(in_process, processes, gradcache, monkeypatch):
    embedded, sums = [], []
    monkeypatch.setattr(parallel, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(parallel, "gather_rows", lambda rows, counts: embedded.append(rows.clone()) or rows)
    alone = make()
    terms, expected = gradients(alone)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flat: sums.append(flat.clone()))
    for index in range(processes):
        in_process(index, processes, embedded[0])
        assert gradients(make(gradcache))[0] == pytest.approx(terms, abs=1e-5)
    own = {id(p) for p in alone.model.encoder.parameters()}
    names = {name: id(p) in own for name, p in alone.model.named_parameters() if name in expected}
    encoder, rest = ([name for name, inside in names.items() if inside is where] for where in (True, False))
    assert any("lora_A" in name for name in encoder)
    assert {name.split(".")[0] for name in rest} == {"omics", "decoder", "log_temperature"}
    for part, flats in ((encoder, sums[::2]), (rest, sums[1::2])):
        assert len(flats) == processes
        wanted = torch.cat([expected[name].reshape(-1) for name in part])
        torch.testing.assert_close(sum(flats), wanted, atol=1e-5, rtol=1e-4)


def test_a_sum_of_gradients_takes_its_share_and_leaves_frozen_weights_alone(monkeypatch):
    monkeypatch.setattr(parallel, "is_one_of_many", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flat: flat.mul_(10))
    a, b, frozen = (torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(3))
    a.grad, frozen.requires_grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), False
    parallel.sum_gradients([a, frozen, b], share=0.5)
    assert a.grad.tolist() == [[5.0, 10.0], [15.0, 20.0]]
    assert b.grad.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert frozen.grad is None


def test_a_step_learns_from_augmented_views_of_the_batch_s_own_pairs(monkeypatch):
    monkeypatch.setattr(steps, "BLOCK", 7)
    task = make()
    (share,) = task.stream([BATCH])
    rows = torch.from_numpy(task.rows.copy())[BATCH.rows]
    torch.testing.assert_close(share.tokens, task.source.tokens[1, rows])
    assert share.seeds == [steps.make_seed(BATCH.seed, block) for block in range(5)]
