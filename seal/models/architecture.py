"""From an encoder's geometry to a module, plain or with random weights."""

from dataclasses import replace
from typing import Any

import torch
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from seal.errors import SealError
from seal.models.conch import ConchVisual
from seal.models.encoder_registry import EncoderSpec


def make_plain(spec: EncoderSpec, image_size: int, *, tiny: bool = False) -> nn.Module:
    """Make the plain module of an encoder, with the start values of its library.

    Raises
    ------
    SealError
        The transformers library is too old for it.
    """
    spec = shrink(spec) if tiny else spec
    g = spec.geometry
    if spec.family == "transformers":
        from transformers import Dinov2Config, Dinov2Model, __version__

        if tuple(map(int, __version__.split(".")[:2])) < (5, 18):
            raise SealError(
                f"transformers {__version__} names the layers of {spec.label} otherwise",
                expected="transformers 5.18 or newer",
                do="pip install 'transformers>=5.18'; a model that seal.export saved opens in AutoModel of either",
            )
        return Dinov2Model(
            Dinov2Config(
                hidden_size=g.width,
                num_hidden_layers=g.depth,
                num_attention_heads=g.heads,
                mlp_ratio=int(g.mlp_ratio),
                image_size=image_size,
                patch_size=g.patch,
                layerscale_value=g.layer_scale,
            )
        )
    swiglu = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU} if g.swiglu else {}
    vit = VisionTransformer(**timm_arguments(spec, image_size), num_classes=0, **swiglu)
    return ConchVisual(vit, g) if spec.family == "conch" else vit


def shrink(spec: EncoderSpec) -> EncoderSpec:
    """Make an encoder tiny, for tests."""
    return replace(spec, geometry=spec.geometry.tiny())


def timm_arguments(spec: EncoderSpec, image_size: int) -> dict[str, Any]:
    """Give what timm's VisionTransformer takes for an encoder, but for the layers of SwiGLU and no classes."""
    g = spec.geometry
    return {
        "img_size": image_size,
        "patch_size": g.patch,
        "embed_dim": g.width,
        "depth": g.depth,
        "num_heads": g.heads,
        "mlp_ratio": g.mlp_ratio,
        "init_values": g.layer_scale,
        "reg_tokens": g.registers,
        "no_embed_class": not g.prefix_positions,
        "global_pool": "token" if spec.pooling == "cls" else "",  # "": tokens, which VisionEncoder pools
    }


def make_random(spec: EncoderSpec, image_size: int, *, tiny: bool = False, seed: int = 0) -> nn.Module:
    """Make the plain module with random weights; the global random state is left as it was.

    Layer scales are set to 1 (our choice): at their usual start value, 1e-5, a network that was never trained
    hardly looks at its image.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_plain(spec, image_size, tiny=tiny)
    for name, parameter in model.named_parameters():
        if name.endswith((".ls1.gamma", ".ls2.gamma")):
            nn.init.ones_(parameter)
    return model
