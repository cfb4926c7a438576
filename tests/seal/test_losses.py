"""Each loss against a plain loop or a closed form."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

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


def test_barlow_is_the_diagonal_of_the_full_matrix(batch):
    z1, z2 = ((v - v.mean(0)) / torch.sqrt(v.var(0, correction=0) + losses.EPSILON) for v in batch)
    off = (z1.T @ z2 / len(z1) - torch.eye(z1.shape[1])) ** 2
    assert float(losses.barlow(*batch)) == pytest.approx(float(off.diagonal().sum()), rel=1e-5)


def test_barlow_of_a_constant_gene_is_finite_with_finite_gradient():
    x_hat = torch.zeros(4, 2, requires_grad=True)
    loss = losses.barlow(x_hat, torch.ones(4, 2))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(x_hat.grad).all()


def test_the_default_gene_loss_is_the_stated_sum(batch):
    x_hat, x = batch
    mean, sd = x.mean(0), x.std(0)
    terms = losses.gene_loss("barlow_mse", x_hat, x, mean, sd)
    assert set(terms) == {"barlow", "mse", "total"}
    mse = (((x_hat - x) / sd) ** 2).mean()
    assert float(terms["mse"]) == pytest.approx(float(mse), rel=1e-5)
    expected = 0.1 * (0.05 * float(losses.barlow(x_hat, x)) + 5 * float(mse))
    assert float(terms["total"]) == pytest.approx(expected, rel=1e-5)


def pairs_of(x_hat, x):
    return zip(x_hat.ravel(), x.ravel(), strict=True)


def plain_l1(x_hat, x):
    return np.mean([abs(p - q) for p, q in pairs_of(x_hat, x)])


def plain_huber(x_hat, x):
    errors = [abs(p - q) for p, q in pairs_of(x_hat, x)]
    assert min(errors) < 1 < max(errors)  # both branches are taken
    return np.mean([e**2 / 2 if e <= 1 else e - 0.5 for e in errors])


def plain_pcc(x_hat, x):
    return 1 - np.mean([np.corrcoef(p, q)[0, 1] for p, q in zip(x_hat, x, strict=True)])


def plain_pls(x_hat, x):
    genes = x.shape[1]
    c = [[np.cov(x_hat[:, i], x[:, j])[0, 1] for j in range(genes)] for i in range(genes)]
    return -1e-4 * math.sqrt(sum(value**2 for row in c for value in row))


def plain_mmd(x_hat, x):
    def mean(left, right):
        squares = [((p - q) ** 2).sum() for p in left.T for q in right.T]
        return np.mean([sum(math.exp(-0.5 * square / s) for s in (10, 15, 20, 50)) for square in squares])

    return mean(x_hat, x_hat) + mean(x, x) - 2 * mean(x_hat, x)


def plain_negbin(x_hat, x):
    from scipy.stats import nbinom

    mu, k = np.expm1(x_hat), np.rint(np.expm1(x))
    return -nbinom.logpmf(k, 0.1, 0.1 / (0.1 + mu)).mean()


# The scales are the release's.
RAW = {"pcc": (plain_pcc, 5), "pls": (plain_pls, 1), "mmd": (plain_mmd, 1), "l1": (plain_l1, 10),
       "huber": (plain_huber, 10), "negbin": (plain_negbin, 10)}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_losses_of_raw_values_equal_their_plain_twins(batch, name):
    x_hat, x = 3 * batch[0], torch.log1p((9 * batch[1]).round())  # whole counts, errors above and below 1
    terms = losses.gene_loss(name, x_hat, x, torch.linspace(0, 1, 5), torch.linspace(0.2, 2, 5))
    assert set(terms) == {name, "total"}
    plain, scale = RAW[name]
    expected = plain(*(v.double().numpy() for v in (x_hat, x)))
    assert float(terms[name]) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert float(terms["total"]) == pytest.approx(scale * expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("name", "scale"), [("mse", 1), ("standardized_mse", 10)])
def test_mse_is_of_standardised_values(batch, name, scale):
    x_hat, x = batch
    mean, sd = torch.linspace(0, 1, 5), torch.linspace(0.2, 2, 5)
    terms = losses.gene_loss(name, x_hat, x, mean, sd)
    z_hat, z = (((v - mean) / sd).double().numpy() for v in (x_hat, x))
    expected = np.mean([(p - q) ** 2 for p, q in pairs_of(z_hat, z)])
    assert float(terms["mse"]) == pytest.approx(expected, rel=1e-5)
    assert float(terms["total"]) == pytest.approx(scale * expected, rel=1e-5)


def test_all_gene_losses_have_a_twin_here():
    assert set(losses.GENE_LOSSES) == {"barlow_mse", "mse", "standardized_mse", *RAW}


def hard_batches():
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(6, 4, generator=generator)
    x[:, 0], x[:, 1] = 0.0, 2.0  # nowhere measured; constant
    yield "flat genes", torch.rand(6, 4, generator=generator), x
    yield "two spots", torch.rand(2, 4, generator=generator), x[:2]
    yield "flat prediction", torch.full((6, 4), 0.5), x
    yield "flat everything", torch.zeros(6, 4), torch.zeros(6, 4)
    yield "wild prediction", torch.linspace(-50, 200, 24).view(6, 4), x


@pytest.mark.parametrize("name", losses.GENE_LOSSES)
def test_every_gene_loss_is_finite_with_finite_gradients(name):
    for case, x_hat, x in hard_batches():
        x_hat = x_hat.requires_grad_()
        terms = losses.gene_loss(name, x_hat, x, torch.full((4,), 0.3), torch.full((4,), 0.5))
        terms["total"].backward()
        assert all(torch.isfinite(value) for value in terms.values()), case
        assert torch.isfinite(x_hat.grad).all(), case
        assert x_hat.grad.abs().sum() > 0 or case in ("flat prediction", "flat everything"), case


@pytest.mark.parametrize("name", losses.GENE_LOSSES)
def test_a_few_steps_on_any_gene_loss_come_nearer_to_the_measurement(batch, name):
    torch.manual_seed(0)
    x_hat, x = torch.nn.Parameter(batch[0].clone()), batch[1]
    start = losses.gene_loss(name, x_hat, x, x.mean(0), x.std(0))["total"].item()
    best = losses.gene_loss(name, x, x, x.mean(0), x.std(0))["total"].item()
    optimiser = torch.optim.Adam([x_hat], lr=0.02)
    for _ in range(200):
        optimiser.zero_grad()
        loss = losses.gene_loss(name, x_hat, x, x.mean(0), x.std(0))["total"]
        loss.backward()
        optimiser.step()
    assert loss.item() < start - 0.5 * (start - best)
    assert loss.item() >= best - 1e-6 or name == "pls"  # which has no lower bound


@pytest.mark.parametrize(("name", "low", "high"), [("pcc", 0, 2), ("mmd", 0, 8)])
def test_bounded_losses_stay_in_their_bounds(batch, name, low, high):
    x = batch[1]
    for x_hat in (x, -x, 1e3 * x, batch[0]):
        value = float(losses.gene_loss(name, x_hat, x, x.mean(0), x.std(0))[name])
        assert low - 1e-5 <= value <= high + 1e-5
    perfect = float(losses.gene_loss(name, x, x, x.mean(0), x.std(0))[name])
    assert perfect == pytest.approx(low, abs=1e-4)


def test_pls_has_no_lower_bound(batch):
    """As the release defines it, so nobody takes its minimum for a good prediction."""
    x = batch[1]
    once, thrice = (float(losses.pls(factor * x, x)) for factor in (1, 3))
    assert thrice == pytest.approx(3 * once, rel=1e-5)
    assert once < 0


@pytest.mark.parametrize("name", losses.GENE_LOSSES)
def test_bfloat16_predictions_are_compared_in_float32(batch, name):
    x_hat, x = batch[0].bfloat16(), batch[1]
    expected = losses.gene_loss(name, x_hat.float(), x, x.mean(0), x.std(0))["total"]
    with torch.autocast("cpu", torch.bfloat16):
        value = losses.gene_loss(name, x_hat, x, x.mean(0), x.std(0))["total"]
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)


def test_contrast_and_kl_ignore_autocast_and_keep_float64(batch):
    z_v, z_o = (b.bfloat16() for b in batch)
    expected = losses.info_nce(z_v.float(), z_o.float(), 0.05)
    zero = torch.zeros(7)
    kl = losses.flow_kl(*(b.float() for b in (z_v, z_v, z_o, z_o)), zero, "drawn")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(losses.info_nce(z_v, z_o, temperature=0.05), expected)
        assert torch.equal(losses.flow_kl(z_v, z_v, z_o, z_o, zero, "drawn"), kl)
    assert losses.info_nce(batch[0].double(), batch[1].double(), 0.05).dtype == torch.float64


def test_a_learnt_temperature_gets_the_gradient_of_finite_differences(batch):
    tau = torch.tensor(0.3, dtype=torch.double, requires_grad=True)
    z_v, z_o = (b.double() for b in batch)
    value = losses.info_nce(z_v, z_o, tau)
    value.backward()
    assert float(value.detach()) == pytest.approx(float(losses.info_nce(z_v, z_o, 0.3)), abs=1e-12)
    slope = (losses.info_nce(z_v, z_o, 0.3 + 1e-6) - losses.info_nce(z_v, z_o, 0.3 - 1e-6)) / 2e-6
    assert abs(slope) > 1e-3
    assert float(tau.grad) == pytest.approx(float(slope), rel=1e-5)


def test_shapes_are_enforced_in_tests(batch):
    with pytest.raises(TypeError, match=r"(?s)batch.*genes"):
        losses.pcc(batch[0], batch[1][:3])
    with pytest.raises(TypeError, match="sd"):
        losses.standardised_mse(*batch, torch.zeros(5), torch.ones(4))


def test_kl_is_its_formula_where_flows_have_moved_the_draw():
    from scipy.stats import norm

    z, z0, mu, logvar = (torch.randn(6, 3, generator=torch.Generator().manual_seed(i)) for i in range(4))
    log_det = torch.linspace(-1, 2, 6)
    q = norm.logpdf(z0, mu, (0.5 * logvar).exp()).sum(axis=1)
    expected = np.mean(q - log_det.numpy() - norm.logpdf(z).sum(axis=1))
    assert float(losses.flow_kl(z, z0, mu, logvar, log_det, "drawn")) == pytest.approx(expected, rel=1e-5)


def test_kl_without_flows_matches_the_closed_form_on_average():
    generator = torch.Generator().manual_seed(1)
    mu, logvar = torch.tensor([[0.7, -0.3]]), torch.tensor([[0.2, -1.0]])
    noise = torch.randn(200_000, 2, generator=generator)
    z0 = mu + noise * torch.exp(0.5 * logvar)
    wide = [t.expand(len(z0), 2) for t in (mu, logvar)]
    estimate = losses.flow_kl(z0, z0, *wide, torch.zeros(len(z0)), "drawn")
    closed = 0.5 * (logvar.exp() + mu**2 - 1 - logvar).sum()
    assert float(estimate) == pytest.approx(float(closed), abs=0.01)
    by_dimension = losses.flow_kl(z0, z0, *wide, torch.zeros(len(z0)), "closed")
    assert float(by_dimension) == pytest.approx(float(closed) / 2, rel=1e-5)


# --- contrasts ---


def embeddings(n=8, d=5, seed=0):
    torch.manual_seed(seed)
    return torch.randn(n, d), torch.randn(n, d)


def test_soft_clip_by_hand():
    """Two pairs at right angles: S = 1 / tau on the diagonal, and both similarities are the identity."""
    z, tau = torch.eye(2), 0.5
    weight = math.exp(1 / tau) / (math.exp(1 / tau) + 1)
    expected = -(weight * math.log(weight) + (1 - weight) * math.log(1 - weight))
    assert float(losses.soft_clip(3 * z, 2 * z, tau)) == pytest.approx(expected, rel=1e-5)


def test_soft_clip_is_bleep_s_loss():
    """Written out from its formula, at its temperature 1: rows are spots, targets are transposed with the logits."""
    z_v, z_o = (F.normalize(z, dim=1) for z in embeddings())
    logits = z_o @ z_v.T
    target = F.softmax((z_v @ z_v.T + z_o @ z_o.T) / 2, dim=-1)
    spots = (-target * F.log_softmax(logits, dim=-1)).sum(1)
    images = (-target.T * F.log_softmax(logits.T, dim=-1)).sum(1)
    torch.testing.assert_close(losses.soft_clip(z_v, z_o, 1.0), ((spots + images) / 2).mean())


def test_soft_clip_is_clip_where_nothing_is_alike():
    z = torch.eye(6)
    assert float(losses.soft_clip(z, z, 0.05)) == pytest.approx(float(losses.info_nce(z, z, 0.05)), abs=1e-6)
    twins = torch.eye(3).repeat(2, 1)  # each spot has a twin: a hard negative for clip alone
    assert float(losses.soft_clip(twins, twins, 0.05)) == pytest.approx(math.log(2), abs=1e-4)


def test_barlow_twins_by_hand():
    """z_o = z_v with its two uncorrelated dimensions exchanged: c is the exchange."""
    z_v = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert float(losses.barlow_twins(z_v, z_v)) == pytest.approx(0, abs=1e-6)
    exchanged = float(losses.barlow_twins(z_v, 3 * z_v.flip(1) + 2))
    assert exchanged == pytest.approx(0.005 * (2 + 0.005 * 2), rel=1e-4)


def test_cca_equals_the_correlations_from_symmetric_roots():
    z_v, z_o = (z.double() for z in embeddings(40))
    s_v, s_o = ((z - z.mean(0)) / z.var(0, correction=0).add(1e-6).sqrt() for z in (z_v, z_o))

    def inverse_root(z):
        values, vectors = torch.linalg.eigh(z.T @ z / len(z) + torch.eye(5))
        return vectors @ torch.diag(values**-0.5) @ vectors.T

    values = torch.linalg.svdvals(inverse_root(s_v) @ (s_v.T @ s_o / 40) @ inverse_root(s_o))
    torch.testing.assert_close(losses.cca(z_v, z_o), 5 * (1 - values.mean()))


def test_cca_does_not_see_a_rotation_and_sees_what_is_shared():
    z, other = embeddings(200)
    z = torch.linalg.qr(z - z.mean(0)).Q * 200**0.5  # uncorrelated, of variance 1
    turned = z @ torch.linalg.qr(torch.randn(5, 5)).Q
    assert float(losses.cca(z, turned)) == pytest.approx(float(losses.cca(z, z)), abs=1e-3)
    assert float(losses.cca(z, z)) == pytest.approx(5 * (1 - 1 / 2), abs=1e-3)  # 1 / (1 + 1): the identity
    assert float(losses.cca(z, z)) < float(losses.cca(z, other)) - 1


@pytest.mark.parametrize("name", losses.CONTRASTS)
def test_contrasts_are_computed_in_float32_and_have_gradients(name):
    z_v, z_o = embeddings(6, 9)  # fewer spots than dimensions
    z_v.requires_grad_(True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = losses.CONTRASTS[name](z_v, z_o, 0.1)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, losses.CONTRASTS[name](z_v, z_o, 0.1), rtol=0, atol=0)
    half = losses.CONTRASTS[name](z_v.bfloat16(), z_o.bfloat16(), 0.1)
    torch.testing.assert_close(half, value, rtol=0.05, atol=0.02)
    value.backward()
    assert torch.isfinite(z_v.grad).all()
    assert z_v.grad.abs().sum() > 0


@pytest.mark.parametrize("name", losses.CONTRASTS)
def test_contrasts_prefer_the_right_partners(name):
    z, _ = embeddings(32, 6)
    noisy = z + 0.3 * torch.randn(32, 6)
    assert float(losses.CONTRASTS[name](z, noisy, 0.1)) < float(losses.CONTRASTS[name](z, noisy.roll(1, 0), 0.1))
