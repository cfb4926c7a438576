"""Dropout from random bits: the same law as torch's, a function of the seed, nothing in evaluation."""

import pytest
import torch

from seal.models.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.15, 0.5])
def test_drops_as_many_as_it_should_and_keeps_the_mean(p):
    torch.manual_seed(0)
    x = torch.rand(400, 1001) + 0.5
    y = Dropout(p).train()(x)
    share = (y == 0).float().mean().item()
    assert share == pytest.approx(p, abs=4 * (p * (1 - p) / x.numel()) ** 0.5)
    torch.testing.assert_close(y[y != 0], (x / (1 - round(p * 2**16) / 2**16))[y != 0])
    assert y.mean().item() == pytest.approx(x.mean().item(), rel=5e-3)


def test_neighbours_are_independent():
    """Four masks share one random word; they must not know of each other."""
    torch.manual_seed(0)
    kept = (Dropout(0.5).train()(torch.ones(200_000)) != 0).float().view(-1, 4)
    correlation = torch.corrcoef(kept.T) - torch.eye(4)
    assert correlation.abs().max() < 0.02


def test_the_seed_alone_decides_and_evaluation_drops_nothing():
    layer, x = Dropout(0.3).train(), torch.rand(7, 9)
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    assert not torch.equal(layer(x), first)
    assert layer.eval()(x) is x
    assert Dropout(0.0).train()(x) is x


def test_gradients_pass_where_values_do():
    torch.manual_seed(0)
    x = torch.rand(50, 30, requires_grad=True)
    y = Dropout(0.4).train()(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (y / x).detach())
