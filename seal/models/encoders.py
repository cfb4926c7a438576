"""Vision encoders behind one face: a frozen trunk, a tail that may be trained, one embedding an image."""

from collections.abc import Sequence

import numpy as np
import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from seal.errors import SealError
from seal.models import architecture
from seal.models import weights as weight_files
from seal.models.registry import REGISTRY, EncoderSpec, get

__all__ = ["REGISTRY", "EncoderSpec", "VisionEncoder", "build", "get"]


class VisionEncoder(nn.Module):
    """An encoder cut in two: z = tail(trunk(images, n), n), whatever n.

    While only the last n blocks have trainable weights, the trunk's tokens are a constant of the image: they
    are computed once and training touches the tail alone.

    Parameters
    ----------
    spec
        Which encoder.
    model
        The plain module, whose state-dict keys are the original's: timm's VisionTransformer, transformers'
        Dinov2Model, or `seal.models.conch.ConchVisual`. LoRA layers may be put into it in place.
    """

    def __init__(self, spec: EncoderSpec, model: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.model = model
        # Taken now: once LoRA is inside, each linear is a wrapper with more linears in it.
        names = {module: name for name, module in model.named_modules()}
        self._linears = [
            [names[module] for module in block.modules() if isinstance(module, nn.Linear)] for block in self._blocks
        ]
        if spec.family != "transformers":
            for block in self._blocks:  # _cls_timm assumes these
                assert type(block) is Block
                assert type(block.attn) is Attention
                assert block.attn.gate is None

    @property
    def _vit(self) -> nn.Module:
        return self.model.trunk if self.spec.family == "conch" else self.model

    @property
    def _blocks(self) -> Sequence[nn.Module]:
        return self._vit.encoder.layer if self.spec.family == "transformers" else self._vit.blocks

    @property
    def _norm(self) -> nn.LayerNorm:
        return self._vit.layernorm if self.spec.family == "transformers" else self._vit.norm

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return len(self._blocks)

    @property
    def dim(self) -> int:
        """Size d of the embedding."""
        if self.spec.pooling == "attention":
            return self.model.ln_contrast.normalized_shape[0]
        width = self._norm.normalized_shape[0]
        return 2 * width if self.spec.pooling == "cls_mean" else width

    @property
    def image_size(self) -> int:
        """Side of the images that the model was built for, px."""
        if self.spec.family == "transformers":
            return self.model.config.image_size
        return self._vit.patch_embed.img_size[0]

    def preprocess(self, images: np.ndarray | Tensor) -> Tensor:
        """Resize (bicubic, antialiased, to whole grey levels) if needed, then scale and normalise.

        x = (image / 255 - mean) / std,  mean and std of the encoder

        Parameters
        ----------
        images
            RGB, uint8 [B, H, H, 3].

        Returns
        -------
        float32 [B, 3, S, S], on the device of `images`.

        Raises
        ------
        SealError
            The images are not square uint8 RGB.
        """
        x = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
        if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] != x.shape[2] or x.shape[3] != 3:
            raise SealError(
                f"images are {x.dtype} {list(x.shape)}",
                expected="uint8 [B, H, H, 3]",
                do="give square RGB patches as they are stored in patches.npy",
            )
        x = x.permute(0, 3, 1, 2).float()
        if x.shape[-1] != self.image_size:
            size = (self.image_size, self.image_size)
            x = F.interpolate(x, size, mode="bicubic", antialias=True).round().clamp(0, 255)
        mean, std = (x.new_tensor(v).view(3, 1, 1) for v in (self.spec.mean, self.spec.std))
        return (x / 255 - mean) / std

    def trunk(self, images: Tensor, n: int) -> Tensor:
        """Compute the tokens that enter the last n blocks.

        Parameters
        ----------
        images
            Preprocessed, [B, 3, S, S].
        n
            How many blocks the tail has, 1 to depth.

        Returns
        -------
        [B, T, D]: class token, registers, patches.
        """
        self._check(n)
        vit = self._vit
        if self.spec.family == "transformers":
            tokens = vit.embeddings(images)
        else:
            tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
        for block in self._blocks[: self.depth - n]:
            tokens = block(tokens)
        return tokens

    def tail(self, tokens: Tensor, n: int) -> Tensor:
        """Pass tokens through the last n blocks, the last norm and the pooling.

        Where the embedding is the class token, the last block computes keys and values for all tokens and all
        else for that one: the same result for a fraction of the work.

        Parameters
        ----------
        tokens
            From `trunk` with the same n, [B, T, D].

        Returns
        -------
        z, [B, d].
        """
        self._check(n)
        *whole, last = self._blocks[self.depth - n :]
        for block in whole:
            tokens = block(tokens)
        if self.spec.pooling == "cls":
            cls_only = _cls_dinov2 if self.spec.family == "transformers" else _cls_timm
            return self._norm(cls_only(last, tokens))[:, 0]
        tokens = self._norm(last(tokens))
        if self.spec.pooling == "attention":
            return self.model.pool(tokens)
        return torch.cat([tokens[:, 0], tokens[:, self._vit.num_prefix_tokens :].mean(dim=1)], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Embed preprocessed images: [B, 3, S, S] -> z [B, d]."""
        return self.tail(self.trunk(images, 1), 1)

    def lora_targets(self, n: int) -> list[str]:
        """Names, inside `model`, of the attention and MLP linears of the last n blocks.

        Source: release.
        """
        self._check(n)
        return [name for names in self._linears[self.depth - n :] for name in names]

    def _check(self, n: int) -> None:
        if not 1 <= n <= self.depth:
            raise SealError(
                f"{n} blocks of {self.spec.label}",
                expected=f"1 to {self.depth}",
                do="change vision.blocks in the profile",
            )


def _cls_timm(block: Block, tokens: Tensor) -> Tensor:
    """Give the class token alone after a timm block: [B, T, D] -> [B, 1, D]."""
    attn, (batch, count, _) = block.attn, tokens.shape
    qkv = attn.qkv(block.norm1(tokens)).reshape(batch, count, 3, attn.num_heads, attn.head_dim)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    dropout = attn.attn_drop.p if block.training else 0.0
    x = F.scaled_dot_product_attention(attn.q_norm(q[:, :, :1]), attn.k_norm(k), v, dropout_p=dropout)
    x = attn.proj_drop(attn.proj(attn.norm(x.transpose(1, 2).flatten(2))))
    x = tokens[:, :1] + block.drop_path1(block.ls1(x))
    return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


def _cls_dinov2(layer: nn.Module, tokens: Tensor) -> Tensor:
    """Give the class token alone after a layer of transformers' Dinov2: [B, T, D] -> [B, 1, D]."""
    attn, normed = layer.attention, layer.norm1(tokens)
    heads = (attn.num_attention_heads, attn.head_dim)
    projected = (attn.q_proj(normed[:, :1]), attn.k_proj(normed), attn.v_proj(normed))
    q, k, v = (x.unflatten(2, heads).transpose(1, 2) for x in projected)
    dropout = attn.attention_dropout if layer.training else 0.0
    x = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=attn.scaling)
    x = tokens[:, :1] + layer.drop_path(layer.layer_scale1(attn.o_proj(x.transpose(1, 2).flatten(2))))
    return x + layer.drop_path(layer.layer_scale2(layer.mlp(layer.norm2(x))))


def build(
    name: str, *, weights: str = "pretrained", image_size: int | None = None, tiny: bool = False, seed: int = 0
) -> VisionEncoder:
    """Build an encoder, in evaluation mode.

    Parameters
    ----------
    name
        A name in `REGISTRY`.
    weights
        "pretrained", see `seal.models.weights.find`; or "random": the control that keeps the architecture and
        loses what was learnt, see `seal.models.architecture.random`.
    image_size
        Side of the images, px; the encoder's own by default.
    tiny
        Same geometry, but 4 blocks of width 48; random weights only; for tests.
    seed
        Of the random weights. The global random state is left as it was.

    Raises
    ------
    SealError
        Unknown encoder or kind of weights, an image size that the patches do not tile, weights that cannot be
        had or that belong to another encoder.
    """
    spec = get(name)
    size = spec.image_size if image_size is None else image_size
    if size < spec.geometry.patch or size % spec.geometry.patch:
        raise SealError(
            f"image size {size} for {spec.label}",
            expected=f"a multiple of its patch size, {spec.geometry.patch} px",
            do="change image_size in the profile",
        )
    if weights == "random":
        model = architecture.random(spec, size, tiny=tiny, seed=seed)
    elif weights == "pretrained" and not tiny:
        with torch.device("meta"):  # no start values to compute: all are loaded
            model = architecture.plain(spec, size)
        weight_files.load(model, spec, weight_files.find(spec))
    else:
        raise SealError(
            f"weights {weights!r}" + (" of a tiny encoder" if tiny else ""),
            expected='"pretrained" or "random"; tiny encoders have random weights only',
            do='write weights="random", or leave tiny out',
        )
    return VisionEncoder(spec, model).eval()
