"""SEAL-vision: the release's decoder keys, adapters that start as nothing, the sum of three losses."""

import pytest
import torch

from seal import losses
from seal.models import encoders
from seal.models.omics import SealOmics
from seal.models.vision import GeneDecoder, SealVision
from seal.profiles import OmicsSettings, VisionSettings


@pytest.fixture
def model():
    torch.manual_seed(0)
    encoder = encoders.build("uni2_h", weights="random", image_size=28, tiny=True)
    omics = SealOmics(9, encoder.dim, OmicsSettings(hidden=(8, 8), dropout=0.0), torch.zeros(9), torch.ones(9))
    settings = VisionSettings(blocks=2, decoder_hidden=5, info_weight=2.0, rec_omics_weight=3.0, rec_vision_weight=0.5)
    return SealVision(encoder, omics, settings)


def test_decoder_has_the_released_keys():
    keys = {f"decoder.{i}.{k}" for i in (0, 3) for k in ("weight", "bias")}
    assert set(GeneDecoder(4, 3, 2, 0.1).state_dict()) == keys


def test_adapters_change_nothing_at_the_start(model):
    base = encoders.build("uni2_h", weights="random", image_size=28, tiny=True)
    images = torch.randn(3, 3, 28, 28)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.encoder(images), base(images))


def test_the_total_is_the_weighted_sum_of_the_paper(model):
    model.eval()
    tokens, x = torch.randn(6, 4 + 9, 48), torch.rand(6, 9)
    terms = model.losses(tokens, x)
    z_v, z_o = model.embed(tokens), model.omics(x)
    zero, one = torch.zeros(9), torch.ones(9)
    info = losses.info_nce(z_v, z_o, 0.05)
    rec_o = losses.gene_loss(model.omics.decode(z_o), x, zero, one)["total"]
    rec_v = losses.gene_loss(model.decoder(z_v), x, zero, one)["total"]
    assert float(terms["total"].detach()) == pytest.approx(
        float((2 * info + 3 * rec_o + 0.5 * rec_v).detach()), rel=1e-5
    )


def test_gradients_reach_adapters_decoder_and_omics_and_nothing_else(model):
    model.train()
    model.losses(torch.randn(6, 13, 48), torch.rand(6, 9))["total"].backward()
    trained = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any("lora_B" in n for n in trained)
    assert any(n.startswith("decoder.") for n in trained)
    assert any(n.startswith("omics.encoder") for n in trained)
    assert not any("encoder.model" in n and "lora" not in n for n in trained)
