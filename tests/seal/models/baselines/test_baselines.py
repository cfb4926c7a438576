"""Every baseline: shapes, what it sees, what it depends on, and the parts that can be computed by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seal.models import encoders
from seal.models.baselines import BASELINES
from seal.models.baselines.base import Bank, Parts, Spots, Surroundings
from seal.models.omics import SealOmics
from seal.profiles import BaselineSettings, OmicsSettings, VisionSettings

GENES, SPOTS = 7, 12
OWN = BaselineSettings(
    **{"projection": 6, "bleep_nearest": 3, "mclstexp_nearest": 4, "pathomclip_hidden": 8, "triplex_width": 8},
    **{"triplex_heads": 2, "deepspot_width": 4, "deepspot_ensemble": 3},
)
PREDICTING = [name for name in BASELINES if name != "no_expression"]
OF_THE_BATCH = {"pathomclip", "mclstexp"}


@pytest.fixture(scope="module")
def tissue():
    """Two sections of 3 x 2 spots on a square grid; the last spot of the second has no neighbours."""
    places = torch.tensor([(r, c) for _ in range(2) for r in range(3) for c in range(2)])
    places[-1] = torch.tensor([9, 9])
    ring, window = torch.full((SPOTS, 4), -1), torch.full((SPOTS, 25), -1)
    ring[0, :2], ring[1, :2], ring[6, :1] = torch.tensor([1, 2]), torch.tensor([0, 3]), torch.tensor([8])
    window[:, 12] = torch.arange(SPOTS)
    window[0, 13] = 1
    sections = torch.tensor([(0, 6)] * 6 + [(6, 12)] * 6)
    frozen = torch.randn(SPOTS, 48, generator=torch.Generator().manual_seed(3))
    return Surroundings(places, ring, window, sections, frozen)


@pytest.fixture
def make(tissue):
    def build(name, **changes):
        torch.manual_seed(0)
        mean, sd = torch.linspace(0.5, 2, GENES), torch.linspace(0.2, 1, GENES)
        encoder = encoders.build("dinov2s_derived", weights="random", image_size=56, tiny=True)
        omics = SealOmics(GENES, encoder.dim, OmicsSettings(hidden=(8,)), mean, sd)
        settings = VisionSettings(decoder_hidden=8, decoder_relu=False)
        return BASELINES[name](Parts(encoder, settings, OWN, mean, sd, tissue, omics))

    return build


@pytest.fixture(scope="module")
def batch():
    draw = torch.Generator().manual_seed(1)
    return torch.randn(6, 48, generator=draw), Spots(torch.rand(6, GENES, generator=draw), torch.arange(6))


def bank(model, spots):
    keys = model.keys(spots) if model.looks_up else None
    return Bank(keys, torch.rand(6, 3, generator=torch.Generator().manual_seed(2)), [0, 4, 6])


def objective(model, z, spots):
    return model.losses(spots) if not model.adapts else model.objective(z, spots)


@pytest.mark.parametrize("name", BASELINES)
def test_losses_are_finite_named_and_reach_every_trained_weight(make, batch, name):
    model, (z, spots) = make(name).train(), batch
    z = z.clone().requires_grad_(True)
    terms = objective(model, z, spots)
    assert "total" in terms
    assert all(torch.isfinite(value) for value in terms.values())
    terms["total"].backward()
    if model.adapts:
        assert z.grad.abs().sum() > 0 or name == "stnet"  # whose weights start at zero
        assert all("lora" in n for n, p in model.encoder.named_parameters() if p.requires_grad)
    heads = [p for n, p in model.named_parameters() if p.requires_grad and "encoder.model" not in n]
    idle = {"decoder", "omics", "log_temperature"}
    missed = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None and "lora" not in n]
    assert [n for n in missed if not any(word in n for word in idle)] == []
    assert heads or name == "no_expression"


@pytest.mark.parametrize("name", PREDICTING)
def test_predictions_have_a_row_a_patch_and_a_column_a_test_gene(make, batch, name):
    model, (z, spots) = make(name).eval(), batch
    with torch.no_grad():
        found = model.predict(z[:5], torch.arange(5), bank(model, spots))
        again = model.predict(z[:5], torch.arange(5), bank(model, spots))
    assert found.shape == (5, 3)
    assert torch.equal(found, again)


@pytest.mark.parametrize("name", PREDICTING)
def test_only_those_with_attention_over_the_batch_depend_on_it(make, batch, name):
    """PathOmCLIP as released answers by the test batch; mclSTExp by that of the training spots it looks up."""
    model, (z, spots) = make(name).eval(), batch
    rows = torch.arange(6)
    with torch.no_grad():
        known = bank(model, spots)
        whole = model.predict(z, rows, known)
        if model.looks_up:
            alone = torch.cat([model.keys(Spots(spots.x[i : i + 1], rows[i : i + 1])) for i in range(6)])
            known = known._replace(keys=alone)
        single = torch.cat([model.predict(z[i : i + 1], rows[i : i + 1], known) for i in range(6)])
    assert (float((whole - single).abs().max()) > 1e-3) == (name in OF_THE_BATCH)


def test_st_net_starts_from_the_training_mean(make, batch):
    model, (z, spots) = make("stnet"), batch
    np.testing.assert_allclose(model.expression(z, spots.rows).detach(), model.gene_mean.expand(6, -1))
    expected = ((model.gene_mean - spots.x) ** 2).mean()
    np.testing.assert_allclose(model.objective(z, spots)["total"].detach(), expected, rtol=1e-6)


def test_bleeps_loss_by_hand(make, batch):
    model, (z, spots) = make("bleep").eval(), batch
    with torch.no_grad():
        image, spot = (v.double().numpy() for v in (model.image(z), model.spot(spots.x)))
        found = float(model.objective(z, spots)["total"])
    logits, both = spot @ image.T, (image @ image.T + spot @ spot.T) / 2
    targets = np.exp(both - both.max(1, keepdims=True))
    targets /= targets.sum(1, keepdims=True)
    log_softmax = lambda m: m - m.max(1, keepdims=True) - np.log(np.exp(m - m.max(1, keepdims=True)).sum(1))[:, None]  # noqa: E731
    rows, columns = -(targets * log_softmax(logits)).sum(1), -(targets.T * log_softmax(logits.T)).sum(1)
    np.testing.assert_allclose(found, ((rows + columns) / 2).mean(), rtol=1e-4)


def test_mclstexp_adds_the_place_to_the_expression(make, batch):
    model, (_, spots) = make("mclstexp").eval(), batch
    assert (model.row.num_embeddings, model.col.num_embeddings) == (10, 10)
    moved = Spots(spots.x, spots.rows + 1)
    assert not torch.allclose(model.keys(spots), model.keys(moved))
    elsewhere = Spots(spots.x, spots.rows + 6)  # the other section, the same places but for the last
    np.testing.assert_allclose(
        model.keys(Spots(spots.x[:5], spots.rows[:5])).detach(),
        model.keys(Spots(elsewhere.x[:5], elsewhere.rows[:5])).detach(),
        atol=1e-6,
    )


def test_the_deep_set_pools_as_it_says(make, tissue):
    model = make("deepspot").eval()
    rows = torch.tensor([0, 11])  # two neighbours, none
    z = tissue.frozen[rows]
    weight, bias = model.phi.weight.detach(), model.phi.bias.detach()

    def phi(f):
        three = [F.relu(F.linear(f, weight[i * 4 : i * 4 + 4], bias[i * 4 : i * 4 + 4])) for i in range(3)]
        return np.median(torch.stack(three).numpy(), axis=0)

    pooled = model.pool(z, rows).detach()
    np.testing.assert_allclose(pooled[0, :4], phi(z[0]), atol=1e-6)
    np.testing.assert_allclose(pooled[0, 4:], np.maximum(phi(tissue.frozen[1]), phi(tissue.frozen[2])), atol=1e-6)
    np.testing.assert_array_equal(pooled[1, 4:], 0)
    rho = np.mean([r(pooled.relu()).detach().numpy() for r in model.rho], axis=0)
    np.testing.assert_allclose(model.standardised(z, rows).detach(), rho, atol=1e-6)
    expected = model.gene_mean.numpy() + model.gene_sd.numpy() * rho
    np.testing.assert_allclose(model.expression(z, rows).detach(), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["pathomclip_spatial", "triplex", "deepspot"])
def test_neighbours_change_the_answer_and_other_sections_never(make, tissue, name):
    model = make(name).eval()
    rows = torch.tensor([0, 6])
    z = tissue.frozen[rows].clone()

    def predict(changed):
        before = tissue.frozen[changed].clone()
        tissue.frozen[changed] = 5.0
        with torch.no_grad():
            found = model.predict(z, rows, Bank(None, torch.zeros(0, 3), [0, 1, 2]))
        tissue.frozen[changed] = before
        return found

    with torch.no_grad():
        plain = model.predict(z, rows, Bank(None, torch.zeros(0, 3), [0, 1, 2]))
    near = predict(1)
    assert not torch.allclose(near[0], plain[0])
    np.testing.assert_allclose(near[1], plain[1], atol=1e-6)


@pytest.mark.parametrize("name", ["pathomclip_spatial", "triplex", "deepspot"])
def test_a_spot_without_neighbours_is_predicted(make, tissue, name):
    model, rows = make(name).eval(), torch.tensor([11])
    with torch.no_grad():
        assert torch.isfinite(model.predict(tissue.frozen[rows], rows, Bank(None, torch.zeros(0, 3), [0, 1, 2]))).all()


def test_triplex_draws_its_branches_to_the_fusion(make, batch):
    model, (z, spots) = make("triplex").eval(), batch
    with torch.no_grad():
        given, terms = model.branches(z, spots.rows), model.objective(z, spots)
    mse = lambda a, b: float(((a - b) ** 2).mean())  # noqa: E731
    for name in ("target", "neighbours", "section"):
        expected = 0.7 * mse(given[name], spots.x) + 0.3 * mse(given["fused"], given[name])
        np.testing.assert_allclose(float(terms[name]), expected, rtol=1e-5)
    total = terms.pop("total")
    np.testing.assert_allclose(float(total), sum(map(float, terms.values())), rtol=1e-5)


def test_without_expression_nothing_of_it_is_read(make, batch):
    model, (z, _) = make("no_expression"), batch
    nothing = Spots(torch.zeros(3, 0), torch.arange(3))
    found = float(model.objective(z, nothing)["total"])
    one, other = F.normalize(z[:3], dim=1), F.normalize(z[3:], dim=1)
    logits, own = one @ other.T / 0.05, torch.arange(3)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    np.testing.assert_allclose(found, float(expected), rtol=1e-5)
