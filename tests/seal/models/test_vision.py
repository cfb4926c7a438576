"""SEAL-vision: the release's decoder keys, adapters that start as nothing, the sum of three losses."""

import pytest
import torch
from peft.tuners.lora import Linear as LoraLinear

from seal import losses
from seal.models import encoders
from seal.models.omics import SealOmics
from seal.models.vision import BottleneckAdapter, GeneDecoder, SealVision
from seal.profiles import OmicsSettings, VisionSettings

WEIGHTS = {"info_weight": 2.0, "rec_omics_weight": 3.0, "rec_vision_weight": 0.5}


def build(name="uni2_h", omics_head="none", **settings):
    torch.manual_seed(0)
    encoder = encoders.build(name, weights="random", image_size=2 * encoders.find_spec(name).geometry.patch, tiny=True)
    stage_one = OmicsSettings(hidden=(8, 8), dropout=0.0, head=omics_head)
    omics = SealOmics(9, encoder.dim, stage_one, torch.zeros(9), torch.ones(9))
    return SealVision(encoder, omics, VisionSettings(blocks=2, decoder_hidden=5, **WEIGHTS, **settings))


@pytest.fixture
def model():
    return build()


def images(model):
    return torch.randn(6, 3, model.encoder.image_size, model.encoder.image_size)


def moved(model):
    """Names of the parameters that get a gradient."""
    model.train()
    with torch.no_grad():
        tokens = model.encoder.trunk(images(model), 2)
    model.objective(model.embed(tokens), torch.rand(6, 9))["total"].backward()
    return {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_decoder_has_the_released_keys():
    keys = {f"decoder.{i}.{k}" for i in (0, 3) for k in ("weight", "bias")}
    for relu in (False, True):
        decoder = GeneDecoder(
            4, torch.tensor([1.0, 2.0]), torch.ones(2), VisionSettings(decoder_hidden=3, decoder_relu=relu)
        )
        assert set(decoder.state_dict()) == keys
        assert torch.equal(decoder.decoder[3].bias, torch.tensor([1.0, 2.0]))
        assert isinstance(decoder.decoder[-1], torch.nn.ReLU) == relu


def test_adapters_change_nothing_at_the_start(model):
    base = encoders.build("uni2_h", weights="random", image_size=28, tiny=True)
    images = torch.randn(3, 3, 28, 28)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.encoder(images), base(images))


def test_the_total_is_the_weighted_sum_of_the_paper(model):
    model.eval()
    tokens, x = torch.randn(6, 4 + 9, 48), torch.rand(6, 9)
    terms = model.objective(model.embed(tokens), x)
    z_v, z_o = model.embed(tokens), model.omics(x)
    zero, one = torch.zeros(9), torch.ones(9)
    info = losses.info_nce(z_v, z_o, 0.05)
    rec_o = losses.gene_loss("barlow_mse", model.omics.decode(z_o), x, zero, one)["total"]
    rec_v = losses.gene_loss("barlow_mse", model.decoder(z_v), x, zero, one)["total"]
    assert float(terms["total"].detach()) == pytest.approx(
        float((2 * info + 3 * rec_o + 0.5 * rec_v).detach()), rel=1e-5
    )


ADAPTERS = ("lora", "full", "bottleneck")


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_each_adapter_changes_nothing_at_the_start(adapter):
    base = encoders.build("virchow2", weights="random", image_size=28, tiny=True)
    model = build("virchow2", adapter=adapter).eval()
    x = images(model)
    with torch.no_grad():
        assert torch.equal(model.encoder(x), base(x))


def test_lora_is_scaled_by_alpha_over_rank_and_drops_as_it_is_set():
    model = build(rank=4, alpha=12, lora_dropout=0.3)
    layers = [m for m in model.modules() if isinstance(m, LoraLinear)]
    assert layers
    for layer in layers:
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        b.data.normal_()
        x = torch.randn(5, layer.in_features)
        plain = torch.nn.functional.linear(x, layer.base_layer.weight, layer.base_layer.bias)
        torch.testing.assert_close(layer.eval()(x), plain + 3 * x @ a.T @ b.T, atol=1e-4, rtol=1e-4)
        dropped = layer.lora_dropout["default"].train()(torch.ones(200, 200))
        assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(("layers", "parts"), [("all", {"attn", "mlp"}), ("attention", {"attn"}), ("mlp", {"mlp"})])
def test_lora_stands_on_the_chosen_layers_alone(layers, parts):
    modules = build(lora_layers=layers).encoder.model.named_modules()
    names = [name.split(".") for name, module in modules if isinstance(module, LoraLinear)]
    assert {part for name in names for part in name if part in ("attn", "mlp")} == parts
    assert len({tuple(name) for name in names}) == 2 * 2 * len(parts), "two linears a part of two blocks"


def test_every_layer_that_gives_expression_is_a_last_layer(model):
    of_genes = {part for part in model.modules() if isinstance(part, torch.nn.Linear) and part.out_features == 9}
    assert set(model.last_layers) == of_genes
    assert len(of_genes) == 2


def test_the_bottleneck_is_its_formula():
    torch.manual_seed(1)
    adapter, z = BottleneckAdapter(5, 7, "bottleneck"), torch.randn(4, 5)
    torch.nn.init.normal_(adapter.up.weight)
    torch.nn.init.normal_(adapter.up.bias)
    hidden = (z @ adapter.down.weight.T + adapter.down.bias).clamp_min(0)
    assert (hidden == 0).any()
    torch.testing.assert_close(adapter(z), z + hidden @ adapter.up.weight.T + adapter.up.bias)


@pytest.mark.parametrize("name", ["conch", "phikon_v2", "uni2_h", "virchow2"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_gradients_reach_what_is_trained_and_nothing_else(name, adapter):
    model = build(name, adapter=adapter)
    trained = moved(model)
    assert any(n.startswith("decoder.") for n in trained)
    assert any(n.startswith("omics.encoder") for n in trained)
    inside = {n for n in trained if n.startswith(("encoder.", "peft."))}
    if adapter == "lora":
        assert inside
        assert all("lora_B" in n for n in inside)  # A's gradient is zero while B is
    elif adapter == "bottleneck":
        assert inside == {"encoder.adapter.up.weight", "encoder.adapter.up.bias"}
    else:
        tail = {id(p) for p in model.encoder.tail_parameters(2)}
        expected = {n for n, p in model.named_parameters() if id(p) in tail}
        # what a key's bias adds to all scores alike moves no attention
        assert {n for n in expected ^ inside if not n.endswith("k_proj.bias")} == set()


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_forks_share_the_trunk_and_train_apart(adapter):
    base = encoders.build("dinov2_s", weights="random", image_size=28, tiny=True)
    x = torch.randn(6, 3, 28, 28)
    with torch.no_grad():
        before = base(x)
    omics = SealOmics(9, base.dim, OmicsSettings(hidden=(8,)), torch.zeros(9), torch.ones(9))
    model = SealVision(base.fork(2), omics, VisionSettings(blocks=2, decoder_hidden=5, adapter=adapter))
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model.objective(model.embed(base.trunk(x, 2).detach()), torch.rand(6, 9))["total"].backward()
    optimiser.step()
    with torch.no_grad():
        assert torch.equal(base(x), before)
        assert not torch.allclose(model.eval().encoder(x), before, atol=1e-4)
    shared = {id(p) for p in base.parameters()} & {id(p) for p in model.parameters()}
    assert len(shared) >= len(list(base.parameters())) - len(base.tail_parameters(2))


def test_a_temperature_is_fixed_or_learnt_and_bounded():
    fixed, learnt = build(), build(learn_temperature=True)
    assert float(fixed.temperature.detach()) == pytest.approx(0.05)
    assert "log_temperature" in moved(learnt)
    assert "log_temperature" not in moved(fixed)
    learnt.log_temperature.data.fill_(-20.0)
    assert "log_temperature" in moved(learnt)  # it can come back from its bound
    assert float(learnt.temperature.detach()) == pytest.approx(0.01)


def test_heads_stand_between_embedding_and_contrast_alone():
    model = build(head="linear", omics_head="linear").eval()
    tokens, x = torch.randn(6, 4 + 9, 48), torch.rand(6, 9)
    terms = model.objective(model.embed(tokens), x)
    z_v, z_o = model.embed(tokens), model.omics(x)
    expected = losses.info_nce(model.projection_head(z_v), model.omics.projection_head(z_o), 0.05)
    torch.testing.assert_close(terms["info"], expected)
    assert not torch.allclose(expected, losses.info_nce(z_v, z_o, 0.05))
    plain = model.reconstruction(model.decoder(z_v), x)["total"]
    torch.testing.assert_close(terms["rec_vision"], plain)


def test_the_pairs_own_statistics_standardise_both_reconstructions():
    torch.manual_seed(0)
    encoder = encoders.build("uni2_h", weights="random", image_size=28, tiny=True)
    omics = SealOmics(9, encoder.dim, OmicsSettings(hidden=(8,)), torch.zeros(9), torch.ones(9))
    mean, sd = torch.rand(9), torch.rand(9) + 0.5
    model = SealVision(encoder, omics, VisionSettings(decoder_hidden=5), mean, sd)
    x, x_hat = torch.rand(6, 9), torch.rand(6, 9)
    expected = losses.gene_loss("barlow_mse", x_hat, x, mean, sd)
    torch.testing.assert_close(model.reconstruction(x_hat, x), expected)
    assert torch.equal(model.decoder.decoder[3].bias, mean)


@pytest.mark.parametrize("name", losses.CONTRASTS)
def test_the_contrast_of_the_settings_is_the_one_that_is_taken(name):
    encoder = encoders.build("dinov2_s", weights="random", image_size=28, tiny=True)
    omics = SealOmics(9, encoder.dim, OmicsSettings(hidden=(8,)), torch.zeros(9), torch.ones(9))
    model = SealVision(encoder, omics, VisionSettings(decoder_hidden=8, contrast=name)).eval()
    z, x = torch.randn(6, encoder.dim), torch.rand(6, 9)
    expected = losses.CONTRASTS[name](z, model.omics(x), 0.05)
    torch.testing.assert_close(model.objective(z, x)["info"], expected)
