"""The class token's short way through the last block, against the whole block: values, gradients, dropout."""

import dataclasses

import pytest
import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from seal.models import architecture
from seal.models.encoder_registry import REGISTRY
from seal.models.encoders import VisionEncoder
from seal.models.vision import add_lora
from seal.profiles import VisionSettings

CLS = ("dinov2_s", "phikon_v2", "uni2_h")
ALL = ("conch", "h0_mini", "phikon_v2", "uni2_h", "virchow2", "dinov2_s")


class Masked(nn.Module):
    """Dropout whose mask is fixed by position, so that one token and all tokens can be given the same one."""

    def __init__(self, width):
        super().__init__()
        self.mask = (torch.rand(3, 64, width) > 0.3).float() / 0.7

    def forward(self, x):
        return x * self.mask[: x.shape[0], : x.shape[1]].to(x.dtype)


def adapted(name, n=1, depth=4, width=48, mask=False):
    """An encoder with LoRA that does something, and images for it."""
    torch.manual_seed(0)
    spec = REGISTRY[name]
    geometry = dataclasses.replace(spec.geometry.tiny(), depth=depth, width=width)
    spec = dataclasses.replace(spec, geometry=geometry)
    size = 3 * geometry.patch
    encoder = VisionEncoder(spec, architecture.make_random(spec, size, seed=1)).eval()
    add_lora(encoder, VisionSettings(blocks=n, rank=4, lora_dropout=0.3 if mask else 0.0))
    for module in encoder.model.modules():
        if isinstance(module, LoraLinear):
            module.lora_B["default"].weight.data.normal_(std=0.1)
            if mask:
                module.lora_dropout["default"] = Masked(module.in_features)
    return encoder, torch.randn(3, 3, size, size)


def whole(encoder, tokens, n):
    """The plain twin: whole blocks, then the class token."""
    for block in encoder._blocks[encoder.depth - n :]:
        tokens = block(tokens)
    return encoder._norm(tokens)[:, 0]


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", CLS)
def test_values_and_gradients_equal_the_whole_block_s_dropout_included(name, n, mask):
    encoder, images = adapted(name, n, mask=mask)
    tokens = encoder.trunk(images, n).detach().requires_grad_(True)
    trained = [p for p in encoder.parameters() if p.requires_grad]
    short, plain = encoder.tail(tokens, n), whole(encoder, tokens, n)
    assert (short - encoder.tail(encoder.trunk(images.flip(0), n), n)).abs().max() > 0.1
    torch.testing.assert_close(short, plain, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(plain)
    for a, b in zip(
        torch.autograd.grad((short * weight).sum(), [tokens, *trained]),
        torch.autograd.grad((plain * weight).sum(), [tokens, *trained]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CLS)
def test_merged_and_disabled_adapters_count_as_what_they_are(name):
    encoder, images = adapted(name)
    layers = [m for m in encoder.model.modules() if isinstance(m, LoraLinear)]
    with torch.no_grad():
        tokens = encoder.trunk(images, 1)
        expected = encoder.tail(tokens, 1)
        for layer in layers:
            layer.merge()
        torch.testing.assert_close(encoder.tail(tokens, 1), expected, atol=1e-4, rtol=1e-4)
        for layer in layers:
            layer.unmerge()
            layer.enable_adapters(False)
        assert (encoder.tail(tokens, 1) - expected).abs().max() > 0.05
        torch.testing.assert_close(encoder.tail(tokens, 1), whole(encoder, tokens, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_at_full_depth_trunk_and_tail_equal_the_whole_model(name, n):
    """Every encoder with its true number of blocks, registers and pooling, only narrower."""
    encoder, images = adapted(name, n, depth=REGISTRY[name].geometry.depth)
    blocks = encoder._blocks
    tokens = encoder.trunk(images, len(blocks))
    for block in blocks:
        tokens = block(tokens)
    tokens = encoder._norm(tokens)
    expected = {
        "cls": lambda: tokens[:, 0],
        "attention": lambda: encoder.model.pool(tokens),
        "cls_mean": lambda: torch.cat([tokens[:, 0], tokens[:, -9:].mean(1)], dim=1),
    }[encoder.spec.pooling]()
    torch.testing.assert_close(encoder.tail(encoder.trunk(images, n), n), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_in_bfloat16_cut_or_whole_differ_by_no_more_than_bfloat16_does(name, n):
    """The short way may not be further from float32 than the plain way in bfloat16 is, give or take a half."""
    encoder, images = adapted(name, n, width=96)
    exact = encoder.tail(encoder.trunk(images, n), n)
    with torch.autocast("cpu", torch.bfloat16):
        tokens = encoder.trunk(images, n)
        cut = encoder.tail(tokens.bfloat16(), n).float()
        for block in encoder._blocks[encoder.depth - n :]:
            tokens = block(tokens)
        tokens = encoder._norm(tokens)
        if encoder.spec.pooling == "attention":
            plain = encoder.model.pool(tokens)
        elif encoder.spec.pooling == "cls":
            plain = tokens[:, 0]
        else:
            plain = torch.cat([tokens[:, 0], tokens[:, -9:].mean(1)], dim=1)
    rounding = (plain.float() - exact).pow(2).mean().sqrt()
    assert 0 < rounding < 0.05
    assert (cut - exact).pow(2).mean().sqrt() < 1.5 * rounding + 2**-8 * exact.pow(2).mean().sqrt()
