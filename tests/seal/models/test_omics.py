"""SEAL-omics: the release's key layout, the flows' Jacobian, determinism, and each of its options."""

import pytest
import torch
from jaxtyping import TypeCheckError

from seal import losses
from seal.errors import SealError
from seal.models.omics import (
    OMICS_ENCODERS,
    PlanarFlow,
    SealOmics,
    gene_statistics,
    in_gene_units,
    make_projection_head,
    start_at_mean,
)
from seal.profiles import OmicsSettings


def make(genes=20, dim=6, **changes):
    torch.manual_seed(0)
    settings = OmicsSettings(**{"hidden": (16, 8), **changes})
    return OMICS_ENCODERS[settings.encoder](genes, dim, settings, torch.zeros(genes), torch.ones(genes))


OTHERS = ("mlp", "mae", "transformer")


def test_state_dict_has_the_released_layout():
    torch.manual_seed(0)
    model = SealOmics(2000, 512, OmicsSettings(), torch.zeros(2000), torch.ones(2000))
    linear = ["weight", "bias"]
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    expected = {f"encoder.{i}.{k}" for i in (0, 4) for k in linear}
    expected |= {f"encoder.{i}.{k}" for i in (1, 5) for k in norm}
    expected |= {f"{n}.{k}" for n in ("fc_mu", "fc_logvar") for k in linear}
    expected |= {f"flows.{i}.{k}" for i in range(3) for k in "uwb"}
    expected |= {f"decoder.{i}.{k}" for i in (0, 2, 5) for k in linear}
    assert set(model.state_dict()) == expected | {"gene_mean", "gene_sd"}
    assert model.encoder[4].weight.shape == (512, 1024)
    assert model.decoder[5].weight.shape == (2000, 1024)


def test_flow_log_det_equals_autograd_jacobian():
    torch.manual_seed(3)
    flow = PlanarFlow(5).double()
    torch.nn.init.normal_(flow.u)
    torch.nn.init.normal_(flow.w)
    z = torch.randn(4, 5, dtype=torch.double)
    log_det = flow(z)[1].detach()
    for row, value in zip(z, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda x: flow(x[None])[0][0], row)
        assert float(value) == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]), abs=1e-6)


def test_flow_starts_near_the_identity():
    torch.manual_seed(0)
    flow, z = PlanarFlow(48), torch.randn(20, 48)
    moved, log_det = flow(z)
    assert 0 < float((moved - z).norm() / z.norm()) < 0.01
    assert float(log_det.abs().max()) < 0.01


def test_embeddings_are_deterministic_in_evaluation_and_drawn_in_training():
    model, x = make(), torch.rand(10, 20)
    assert not torch.equal(model.encode(x).z, model.encode(x).z)
    model.eval()
    assert torch.equal(model(x), model(x))
    latent = model.encode(x)
    assert torch.equal(latent.z0, latent.mu)
    assert not torch.equal(latent.z, latent.mu)  # the flows still act


def test_the_log_determinants_of_all_flows_are_summed():
    model, x = make(flows=3).double().eval(), torch.rand(1, 20, dtype=torch.double)
    for flow in model.flows:
        torch.nn.init.normal_(flow.u)
        torch.nn.init.normal_(flow.w)

    def flows(z):
        for flow in model.flows:
            z = flow(z[None])[0][0]
        return z

    latent = model.encode(x)
    jacobian = torch.autograd.functional.jacobian(flows, latent.z0[0].detach())
    expected = float(torch.linalg.slogdet(jacobian)[1])
    assert float(latent.log_det.detach()) == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(latent.z[0], flows(latent.z0[0]))


@pytest.mark.parametrize("mask", [0.0, 0.2, 0.75])
def test_masking_hides_that_share_of_genes_in_training_alone(mask):
    model, seen = make(mask=mask), []
    model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.encode(torch.ones(200, 20))
    assert float((seen[0] == 0).float().mean()) == pytest.approx(mask, abs=0.03)
    model.eval()
    model.encode(torch.ones(200, 20))
    assert (seen[1] == 1).all()


@pytest.mark.parametrize(("form", "scale"), [("drawn", 1), ("closed", 0.1)])
def test_kl_term_is_added_only_when_on(form, scale):
    x = torch.rand(10, 20)
    assert set(make().losses(x)) == {"barlow", "mse", "total"}
    torch.manual_seed(5)
    terms = {name: value.detach() for name, value in make(kl=0.1, kl_form=form).losses(x).items()}
    rec = 0.1 * (0.05 * terms["barlow"] + 5 * terms["mse"])
    assert float(terms["total"]) == pytest.approx(float(rec + scale * 0.1 * terms["kl"]), rel=1e-5)


def test_hidden_genes_have_a_term_of_their_own_in_training():
    """Their squared error alone, ten times, added to a gene loss that is not scaled yet."""
    model, x, seen = make(mask=0.4, gene_loss="pls"), torch.rand(10, 20) + 1, []
    model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    decode = model.decode
    model.decode = lambda z: seen.append(decode(z)) or seen[-1]
    terms = model.losses(x)
    hidden = seen[0] == 0
    expected = ((seen[1] - x)[hidden] ** 2).mean()
    torch.testing.assert_close(terms["masked"], expected)
    torch.testing.assert_close(terms["total"], terms["pls"] + 10 * expected)
    assert "masked" not in make(mask=0.4, mask_weight=0.0).losses(x)
    assert "masked" not in make(mask=0.4).eval().losses(x)


def test_kl_term_without_flows_equals_the_closed_form_within_sampling_error():
    model = make(flows=0, kl=1.0, kl_form="drawn")
    model.encoder.eval()  # batch norm at rest, so that all rows have one posterior; z0 is still drawn
    torch.nn.init.normal_(model.fc_mu.bias)
    torch.nn.init.normal_(model.fc_logvar.bias)
    x = torch.rand(1, 20).expand(20_000, 20)
    with torch.no_grad():
        latent = model.encode(x[:1])
        variance = latent.logvar.exp()
        closed = float(0.5 * (latent.mu**2 + variance - 1 - latent.logvar).sum())
        assert closed > 1
        assert float(model.losses(x)["kl"]) == pytest.approx(closed, abs=0.1)


@pytest.mark.parametrize("name", losses.GENE_LOSSES)
def test_the_gene_loss_of_the_settings_is_the_one_that_is_taken(name):
    mean, sd = torch.rand(20), torch.rand(20) + 0.5
    model = SealOmics(20, 6, OmicsSettings(hidden=(16, 8), gene_loss=name), mean, sd)
    x_hat, x = torch.rand(10, 20), torch.rand(10, 20)
    expected = losses.gene_loss(name, x_hat, x, mean, sd)
    terms = model.reconstruction(x_hat, x)
    assert set(terms) == set(expected)
    assert all(torch.equal(terms[key], expected[key]) for key in expected)
    model.losses(x)["total"].backward()
    assert model.encoder[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("head", "keys"), [
    ("none", set()),
    ("linear", {"weight", "bias"}),
    ("mlp", {"0.weight", "0.bias", "2.weight", "2.bias"}),
])  # fmt: skip
def test_the_head_projects_and_leaves_the_embedding_alone(head, keys):
    plain, model, x = make().eval(), make(head=head).eval(), torch.rand(5, 20)
    added = set(model.state_dict()) - set(plain.state_dict())
    assert added == {f"projection_head.{key}" for key in keys}
    assert torch.equal(model(x), plain(x))
    z = model(x)
    assert torch.equal(model.projection_head(z), z) == (head == "none")


def test_the_decoder_starts_at_the_gene_means_with_its_random_weights():
    mean = torch.linspace(0, 3, 20)
    torch.manual_seed(0)
    model = SealOmics(20, 6, OmicsSettings(hidden=(16, 8)), mean, torch.ones(20))
    last = model.decoder[-1]
    assert torch.equal(last.bias, mean)
    assert torch.equal(last.weight, make().decoder[-1].weight)
    linear = torch.nn.Linear(3, 4)
    before = linear.weight.clone()
    start_at_mean(linear, torch.arange(4.0), torch.tensor([1.0, 2.0, 0.5, 1.0]))
    assert torch.equal(linear(torch.zeros(2, 3)), torch.arange(4.0).expand(2, 4))
    assert torch.equal(linear.weight, before * torch.tensor([[1.0], [2.0], [0.5], [1.0]]))
    assert linear.bias.requires_grad


def test_in_gene_units_a_step_is_as_large_for_a_rare_gene_as_for_any():
    """One step of Adam on a standardised loss: equal for genes that differ in scale alone; plain keys afterwards."""
    torch.manual_seed(0)
    sd = torch.tensor([0.01, 1.0, 100.0])
    linear, h = torch.nn.Linear(5, 3), torch.randn(8, 5)
    with torch.no_grad():
        linear.weight.copy_(linear.weight[:1].repeat(3, 1) * sd[:, None])
        linear.bias.copy_(3 * sd)
    before = {name: p.detach().clone() for name, p in linear.named_parameters()}
    target = torch.randn(8, 1)
    with in_gene_units([linear], 2 * sd, sd):
        optimiser = torch.optim.Adam(linear.parameters(), lr=0.1)
        torch.testing.assert_close(linear.weight, before["weight"])
        torch.testing.assert_close(linear.bias, before["bias"])
        ((linear(h) / sd - target) ** 2).mean().backward()
        optimiser.step()
    assert set(linear.state_dict()) == {"weight", "bias"}
    assert isinstance(linear.weight, torch.nn.Parameter)
    moved = (linear.weight.detach() - before["weight"]) / sd[:, None]
    assert moved.abs().max() > 0.05
    torch.testing.assert_close(moved, moved[:1].repeat(3, 1), rtol=1e-3, atol=1e-4)


def test_gene_statistics_give_a_constant_gene_sd_one():
    mean, sd = gene_statistics(torch.tensor([[1.0, 3.0], [1.0, 5.0]]))
    assert mean.tolist() == [1.0, 4.0]
    assert sd.tolist() == [1.0, 1.0]
    assert gene_statistics(torch.tensor([[0.0], [4.0]]))[1].tolist() == [2.0]


def test_no_head_has_no_parameters_and_changes_nothing():
    head, z = make_projection_head("none", 5), torch.randn(3, 5)
    assert not head.state_dict()
    assert head(z) is z


def test_linear_and_mlp_heads_equal_their_formula():
    z = torch.randn(3, 5)
    linear, mlp = make_projection_head("linear", 5), make_projection_head("mlp", 5)
    torch.testing.assert_close(linear(z), z @ linear.weight.T + linear.bias)
    first, last = mlp[0], mlp[2]
    hidden = (z @ first.weight.T + first.bias).clamp_min(0)
    torch.testing.assert_close(mlp(z), hidden @ last.weight.T + last.bias)
    assert mlp(z).shape == z.shape


def test_another_shape_than_the_annotation_s_is_refused():
    """In tests only, see conftest: a spot without its batch, and spots of two batches."""
    model = make()
    with pytest.raises(TypeCheckError, match="batch genes"):
        model.encode(torch.rand(20))
    with pytest.raises(TypeCheckError, match="batch genes"):
        model.reconstruction(torch.rand(3, 20), torch.rand(4, 20))


# --- the other encoders ---


@pytest.mark.parametrize("kind", OTHERS)
def test_another_encoder_has_the_same_face(kind):
    mean, sd = torch.linspace(0, 3, 20), torch.linspace(0.5, 2, 20)
    torch.manual_seed(0)
    model = OMICS_ENCODERS[kind](20, 6, OmicsSettings(hidden=(16, 8), encoder=kind, head="linear"), mean, sd)
    x = torch.rand(10, 20)
    assert str(model).endswith(f"hidden layers (16, 8), omics encoder {kind}")
    assert torch.equal(model.decoder[-1].bias, mean)
    with in_gene_units([model.decoder[-1]], model.gene_mean, model.gene_sd):
        terms = model.losses(x)
        terms["total"].backward()
    assert set(terms) == {"barlow", "mse", "total", *(["masked"] if kind == "mae" else [])}
    assert all(p.grad is not None for n, p in model.named_parameters() if n.split(".")[0] not in ("projection_head",))
    model.eval()
    latent = model.encode(x)
    assert torch.equal(model(x), latent.z)
    assert torch.equal(model(x), model(x))
    assert (latent.z0, latent.mu, latent.logvar, latent.log_det, latent.masked) == (None,) * 5
    assert (model.decode(latent.z).shape, model.projection_head(latent.z).shape) == ((10, 20), (10, 6))


def test_the_mlp_has_the_released_layers():
    model = OMICS_ENCODERS["mlp"](
        2000, 512, OmicsSettings(encoder="mlp", dropout=0.4), torch.zeros(2000), torch.ones(2000)
    )
    names = lambda layers: [type(layer).__name__ for layer in layers]  # noqa: E731
    assert names(model.encoder) == [*("Linear", "BatchNorm1d", "GELU", "Dropout") * 2, "Linear"]
    assert names(model.decoder) == ["Linear", "GELU", "Dropout", "Linear"]
    sizes = [tuple(layer.weight.shape) for layer in [*model.encoder, *model.decoder] if hasattr(layer, "in_features")]
    assert sizes == [(1024, 2000), (512, 1024), (512, 512), (512, 512), (2000, 512)]
    assert {layer.p for layer in [*model.encoder, *model.decoder] if hasattr(layer, "p")} == {0.25}


@pytest.mark.parametrize(("kind", "mask", "share"), [("mae", 0.0, 0.2), ("mae", 0.5, 0.5), ("mlp", 0.0, 0.0)])
def test_the_mae_hides_a_fifth_of_the_genes_in_training(kind, mask, share):
    model, seen = make(encoder=kind, mask=mask), []
    model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    latent = model.encode(torch.ones(200, 20))
    assert float((seen[0] == 0).float().mean()) == pytest.approx(share, abs=0.03)
    assert (latent.masked is None) == (share == 0)
    model.eval().encode(torch.ones(200, 20))
    assert (seen[1] == 1).all()


def test_hidden_genes_weigh_in_the_mae_as_the_settings_say():
    torch.manual_seed(1)
    model, x = make(encoder="mae"), torch.rand(50, 20) + 1
    terms = {name: float(value.detach()) for name, value in model.losses(x).items()}
    rec = 0.1 * (0.05 * terms["barlow"] + 5 * terms["mse"])
    assert terms["total"] == pytest.approx(rec + 0.1 * 10 * terms["masked"], rel=1e-5)
    assert "masked" not in make(encoder="mae", mask_weight=0.0).losses(x)


def test_the_transformer_has_the_released_sizes():
    model = make(encoder="transformer", hidden=(1024, 512))
    layer = model.encoder.layers[0]
    assert (len(model.encoder.layers), layer.self_attn.num_heads, layer.linear1.out_features) == (4, 8, 256)
    assert (model.gene_embedding.out_features, model.decoder[0].out_features, layer.dropout.p) == (64, 1024, 0.1)
    small = make(encoder="transformer", hidden=(256, 128))
    assert (small.gene_embedding.out_features, small.encoder.layers[0].self_attn.num_heads) == (16, 2)


def test_the_transformer_does_not_know_which_gene_has_which_value():
    model, x = make(encoder="transformer", hidden=(256,)).eval(), torch.rand(4, 20)
    torch.testing.assert_close(model(x[:, torch.randperm(20)]), model(x), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(model(x), model(x * 2), atol=1e-3)


@pytest.mark.parametrize("kind", OTHERS)
def test_only_the_autoencoder_has_a_posterior(kind):
    with pytest.raises(SealError, match=r"omics\.kl is 0\.1 with omics\.encoder"):
        OmicsSettings(encoder=kind, kl=0.1)
