"""MIL models against their definitions, written out plainly, on random weights."""

import math

import pytest
import torch
from torch.nn import functional as F

from seal.errors import SealError
from seal.models import mil

WIDTH, PATCHES = 6, 9


def make(name, runs=3, outputs=4, **sizes):
    model = mil.make_mil(name, runs, WIDTH, outputs, sizes.get("hidden"), sizes.get("attention"))
    for run in range(runs):
        model.start(run, seed=run)
    return model


def weights(model, run):
    """A run's weights [outputs, inputs] and biases by layer; the score's, which ours lacks, is any number."""
    layers = {n: m for n, m in model.named_children() if isinstance(m, mil.StackedLinear)}
    return {n: (m.weight[run].T, torch.tensor([0.7]) if m.bias is None else m.bias[run, 0]) for n, m in layers.items()}


def trident(w, x):
    """TRIDENT's ABMILSlideEncoder with one head, and Patho-Bench's linear classifier on it."""
    h = F.gelu(F.linear(x, *w["before"]))
    a = torch.tanh(F.linear(h, *w["attend"]))
    if "gate" in w:
        a = a * torch.sigmoid(F.linear(h, *w["gate"]))
    a = torch.softmax(F.linear(a, *w["score"])[:, 0], dim=0)
    return F.linear(F.gelu(F.linear((a[:, None] * h).sum(0), *w["after"])), *w["head"]), a


def mil_lab(w, x):
    """MIL-Lab's ABMIL: one layer with ReLU, gated attention, a linear classifier on the weighted sum."""
    h = F.relu(F.linear(x, *w["before"]))
    a = torch.tanh(F.linear(h, *w["attend"])) * torch.sigmoid(F.linear(h, *w["gate"]))
    a = torch.softmax(F.linear(a, *w["score"])[:, 0], dim=0)
    return F.linear(a @ h, *w["head"]), a


def mean(w, x):
    return F.linear(F.gelu(F.linear(x.mean(0), *w["after"])), *w["head"]), torch.full((len(x),), 1 / len(x))


FORMS = {"abmil": trident, "abmil_gated": trident, "mil_lab": mil_lab, "mean": mean}


@pytest.mark.parametrize("name", FORMS)
def test_forward_is_the_definition_run_by_run(name):
    model, bag = make(name), torch.randn(PATCHES, WIDTH)
    outputs, attention = model(bag)
    assert outputs.shape == (3, 4)
    for run in range(3):
        wanted, seen = FORMS[name](weights(model, run), bag)
        torch.testing.assert_close(outputs[run], wanted, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(attention[run], seen, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(3))
    torch.testing.assert_close(model(bag.flip(0))[0], outputs, atol=1e-6, rtol=1e-5)  # a bag has no order


@pytest.mark.parametrize("name", FORMS)
def test_a_bag_for_each_run(name):
    model, bags = make(name), torch.randn(3, PATCHES, WIDTH)
    outputs = model(bags)[0]
    for run in range(3):
        torch.testing.assert_close(outputs[run], FORMS[name](weights(model, run), bags[run])[0], atol=1e-6, rtol=1e-5)


def test_sizes_are_the_sources():
    sizes = {name: tuple(w.shape) for name, (w, _) in weights(make("abmil"), 0).items()}
    attention = {"attend": (512, WIDTH), "score": (1, 512)}
    assert sizes == {"before": (WIDTH, WIDTH), "after": (WIDTH, WIDTH), "head": (4, WIDTH), **attention}
    sizes = {name: tuple(w.shape) for name, (w, _) in weights(make("mil_lab"), 0).items()}
    attention = {"attend": (384, 512), "gate": (384, 512), "score": (1, 384)}
    assert sizes == {"before": (512, WIDTH), "head": (4, 512), **attention}
    assert weights(make("abmil", hidden=5, attention=7), 0)["attend"][0].shape == (7, 5)
    with pytest.raises(SealError, match="abml"):
        make("abml")


def test_weights_start_as_linear_layers_do_and_from_the_seed_alone():
    model, other = make("abmil", outputs=4), mil.make_mil("abmil", 1, WIDTH, 2, None, None)
    other.start(0, seed=2)
    for name, (w, b) in weights(model, 2).items():
        bound = w.shape[1] ** -0.5
        assert w.abs().max() <= bound
        assert float(w.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.5)
        assert b.abs().max() <= bound or name == "score"
        if name != "head":  # fewer outputs change no other layer
            assert torch.equal(w, weights(other, 0)[name][0])
    model.start(0, seed=0, outputs=2)
    assert not weights(model, 0)["head"][0][2:].any()
    assert not any(b.any() for name, (_, b) in weights(make("mil_lab"), 0).items() if name != "score")


# ---- what runs draw -------------------------------------------------------------------------------------------


def splitmix(z):
    z &= 2**64 - 1
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


def test_mix_is_splitmix():
    values = [0, 1, -1, 2**62, -(2**63)]
    assert [v % 2**64 for v in mil.mix(torch.tensor(values)).tolist()] == [splitmix(v) for v in values]


def draws(seeds=(5, 6, 7), steps=(0, 0, 0), bag=0):
    return mil.Draws(torch.tensor(seeds), torch.tensor(steps), bag)


def test_a_run_draws_the_same_whoever_stands_beside_it():
    x = torch.ones(3, 50, 40)
    together, alone = draws(), draws(seeds=(6,), steps=(0,))
    for p in (0.1, 0.25):
        assert torch.equal(together.drop(x, p)[1:2], alone.drop(x[:1], p))
    assert torch.equal(draws().sample(30, 10)[1:2], draws(seeds=(6,), steps=(0,)).sample(30, 10))


def test_dropout_drops_its_share_and_keeps_the_mean():
    x = torch.ones(3, 500, 401)
    for p in (0.1, 0.25):
        y = draws().drop(x, p)
        assert float((y == 0).float().mean()) == pytest.approx(p, abs=0.002)
        torch.testing.assert_close(y[y > 0].unique(), torch.tensor([1 / (1 - p)]), atol=1e-4, rtol=0)
    assert draws().drop(x, 0.0) is x


def test_runs_steps_bags_and_layers_draw_independently():
    x, first = torch.ones(3, 100, 100), draws()
    masks = [
        first.drop(x, 0.5)[0],
        first.drop(x, 0.5)[0],
        draws().drop(x, 0.5)[1],
        draws(steps=(1, 1, 1)).drop(x, 0.5)[0],
    ]
    masks += [draws(bag=1).drop(x, 0.5)[0]]
    table = torch.stack([m.flatten() - 1 for m in masks])
    assert (torch.corrcoef(table) - torch.eye(5)).abs().max() < 0.05


def test_sample_takes_no_patch_twice_and_every_patch_alike():
    counts = torch.zeros(20)
    for step in range(400):
        for row in draws(steps=(step,) * 3).sample(20, 5):
            assert len(set(row.tolist())) == 5
            counts[row] += 1
    assert (counts / counts.sum() - 1 / 20).abs().max() < 0.01


# ---- losses ---------------------------------------------------------------------------------------------------


def test_class_loss_weighs_where_torch_does_not():
    outputs, label, weight = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0]), torch.rand(3)
    found = mil.class_loss(outputs, label, weight[label])
    torch.testing.assert_close(found, F.cross_entropy(outputs, label, weight=weight, reduction="none"))
    one = F.cross_entropy(outputs[0], label[0], weight=weight)  # Patho-Bench's loss of a batch of one
    torch.testing.assert_close(one, F.cross_entropy(outputs[0], label[0]))
    padded = torch.cat([outputs, torch.full((5, 2), -torch.inf)], dim=1)
    torch.testing.assert_close(mil.class_loss(padded, label, weight[label]), found)
    assert mil.balance([0, 0, 0, 1]) == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])


def test_survival_loss_is_the_likelihood():
    outputs = torch.randn(4, mil.QUARTILES)
    quartile, event = torch.tensor([0, 3, 2, 0]), torch.tensor([True, True, False, False])
    wanted = []
    for row, q, died in zip(outputs.tolist(), quartile.tolist(), event.tolist(), strict=True):
        h = [1 / (1 + math.exp(-v)) for v in row]
        survived = [math.prod(1 - v for v in h[:i]) for i in range(5)]
        wanted.append(-math.log(survived[q] * h[q]) if died else -math.log(survived[q + 1]))
    torch.testing.assert_close(mil.survival_loss(outputs, quartile, event), torch.tensor(wanted))
    torch.testing.assert_close(mil.survival_curve(outputs)[0, 1], (1 - outputs[0, :2].sigmoid()).prod())
    far = mil.survival_loss(torch.full((1, 4), 100.0), torch.tensor([3]), torch.tensor([False]))
    assert float(far) == pytest.approx(-math.log(mil.EPS))


def test_cox_loss_is_the_partial_likelihood():
    risk = torch.randn(2, 5, requires_grad=True)
    days = torch.tensor([[5.0, 3, 3, 9, 1]]).repeat(2, 1)
    event = torch.tensor([[True, True, True, False, True]]).repeat(2, 1)
    member = torch.tensor([[True, True, True, True, False], [False, False, False, True, True]])
    r = risk[0].tolist()
    total = lambda i: math.log(sum(math.exp(r[j]) for j in range(4) if days[0, j] >= days[0, i]))  # noqa: E731
    wanted = sum(total(i) - r[i] for i in range(3)) / 3
    found = mil.cox_loss(risk, days, event, member)
    assert found[0].item() == pytest.approx(wanted, abs=1e-6)
    found.sum().backward()
    assert risk.grad.isfinite().all()
    assert float(risk.grad[0, 4]) == 0
