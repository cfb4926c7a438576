"""Each loss against a plain loop or a closed form."""

import math

import numpy as np
import pytest
import torch

from seal import losses


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(7, 5, generator=generator), torch.rand(7, 5, generator=generator)


def test_info_nce_equals_a_plain_loop(batch):
    z_v, z_o = (b.double().numpy() for b in batch)
    tau, total = 0.05, 0.0
    cosine = [[float(v @ o / np.linalg.norm(v) / np.linalg.norm(o)) / tau for o in z_o] for v in z_v]
    for i in range(len(z_v)):
        row = [math.exp(cosine[i][j]) for j in range(len(z_o))]
        column = [math.exp(cosine[j][i]) for j in range(len(z_o))]
        total -= math.log(row[i] / sum(row)) + math.log(column[i] / sum(column))
    expected = total / (2 * len(z_v))
    assert float(losses.info_nce(*batch, 0.05)) == pytest.approx(expected, abs=1e-5)


def test_info_nce_of_orthogonal_pairs_and_of_one_point():
    eye = torch.eye(4)
    matched = -math.log(math.exp(20) / (math.exp(20) + 3))
    assert float(losses.info_nce(eye, eye, 0.05)) == pytest.approx(matched, abs=1e-6)
    same = torch.ones(6, 3)
    assert float(losses.info_nce(same, same, 0.05)) == pytest.approx(math.log(6), abs=1e-5)


def test_barlow_equals_corrcoef(batch):
    x_hat, x = batch
    r = np.array([np.corrcoef(x_hat[:, i], x[:, i])[0, 1] for i in range(x.shape[1])])
    assert float(losses.barlow(x_hat, x)) == pytest.approx(((1 - r) ** 2).sum(), rel=1e-3)


def test_barlow_diagonal_is_the_limit_of_the_full_matrix(batch):
    full = float(losses.barlow(*batch, lambd=1e-9))
    assert float(losses.barlow(*batch)) == pytest.approx(full, rel=1e-5)


def test_barlow_of_a_constant_gene_is_finite_with_finite_gradient():
    x_hat = torch.zeros(4, 2, requires_grad=True)
    loss = losses.barlow(x_hat, torch.ones(4, 2))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(x_hat.grad).all()


def test_gene_loss_is_the_stated_sum(batch):
    x_hat, x = batch
    mean, sd = x.mean(0), x.std(0)
    terms = losses.gene_loss(x_hat, x, mean, sd)
    mse = (((x_hat - x) / sd) ** 2).mean()
    assert float(terms["mse"]) == pytest.approx(float(mse), rel=1e-5)
    expected = 0.1 * (0.05 * float(terms["barlow"]) + 5 * float(terms["mse"]))
    assert float(terms["total"]) == pytest.approx(expected, rel=1e-6)


def test_kl_without_flows_matches_the_closed_form_on_average():
    generator = torch.Generator().manual_seed(1)
    mu, logvar = torch.tensor([[0.7, -0.3]]), torch.tensor([[0.2, -1.0]])
    noise = torch.randn(200_000, 2, generator=generator)
    z0 = mu + noise * torch.exp(0.5 * logvar)
    wide = [t.expand(len(z0), 2) for t in (mu, logvar)]
    estimate = losses.flow_kl(z0, z0, *wide, torch.zeros(len(z0)))
    closed = 0.5 * (logvar.exp() + mu**2 - 1 - logvar).sum()
    assert float(estimate) == pytest.approx(float(closed), abs=0.01)
