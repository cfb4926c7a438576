"""Vision encoders behind one face: a frozen trunk, a tail that may be trained, one embedding an image."""

import copy
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seal.errors import SealError
from seal.models import architecture, class_token
from seal.models import weights as weight_files
from seal.models.encoder_registry import EncoderSpec, find_spec
from seal.profiles import Shown
from seal.shapes import Float


class VisionEncoder(Shown, nn.Module):
    """An encoder cut in two: z = tail(trunk(images, n), n), whatever n, the number of blocks in the tail.

    While only the last n blocks have trainable weights, the trunk's tokens are a constant of the image: they
    are computed once and training touches the tail alone.

    Parameters
    ----------
    model
        The plain module, whose state-dict keys are the original's: timm's VisionTransformer, transformers'
        Dinov2Model, or `seal.models.conch.ConchVisual`. LoRA layers may be put into it in place.

    Attributes
    ----------
    adapter
        A module applied to the embedding, z -> z; None unless the bottleneck adapter was put there.
    """

    def __init__(self, spec: EncoderSpec, model: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.model = model
        self.adapter: nn.Module | None = None
        # Taken now: once LoRA is inside, each linear is a wrapper with more linears in it.
        names = {module: name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        self._linears = [[names[module] for module in block.modules() if module in names] for block in self._blocks]

    def __str__(self) -> str:
        total, trained = (sum(p.numel() for p in self.parameters() if p.requires_grad >= t) for t in (False, True))
        image = f"{self.spec.label}: image of {self.image_size} px -> {self.dim} numbers"
        return f"{image}\n{self.spec.geometry}\n{total:,} weights" + f", {trained:,} of them train" * (trained < total)

    @property
    def _vit(self) -> nn.Module:
        return self.model.trunk if self.spec.family == "conch" else self.model

    @property
    def _blocks(self) -> nn.ModuleList | nn.Sequential:
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
    def token_shape(self) -> tuple[int, int]:
        """Tokens an image and their width, (T, D): class token, registers and patches."""
        positions = (self.image_size // self.spec.geometry.patch) ** 2
        return 1 + self.spec.geometry.registers + positions, self._norm.normalized_shape[0]

    @property
    def image_size(self) -> int:
        """Side of the images that the model was built for, px."""
        if self.spec.family == "transformers":
            return self.model.config.image_size
        return self._vit.patch_embed.img_size[0]

    def preprocess(self, images: np.ndarray | Tensor) -> Float[Tensor, "batch 3 side side"]:
        """Turn uint8 images [B, H, H, 3] into this model's input, see `preprocess`."""
        return preprocess(images, self.spec, self.image_size)

    def trunk(self, images: Float[Tensor, "batch 3 side side"], blocks: int) -> Float[Tensor, "batch tokens width"]:
        """Compute the tokens that enter the last blocks: class token, registers, patches."""
        self._check(blocks)
        return self.trunks(images, (self.depth - blocks,))[0]

    def trunks(
        self, images: Float[Tensor, "batch 3 side side"], after: Sequence[int]
    ) -> list[Float[Tensor, "batch tokens width"]]:
        """Compute the tokens after so many blocks, for several such numbers in one pass."""
        vit = self._vit
        if self.spec.family == "transformers":
            tokens = vit.embeddings(images)  # [B, T, D]
        else:
            tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))  # [B, T, D]
        found = {0: tokens}
        for number, block in enumerate(self._blocks[: max(after)], start=1):
            found[number] = tokens = block(tokens)  # [B, T, D]
            found = {n: kept for n, kept in found.items() if n in after or n == number}
        return [found[number] for number in after]

    def tail(self, tokens: Float[Tensor, "batch tokens width"], blocks: int) -> Float[Tensor, "batch dim"]:
        """Pass a trunk's tokens through the last blocks, the last norm and the pooling.

        Where the embedding is the class token, the last block does its work for that one alone, see
        `seal.models.class_token`: the same result for a fraction of the work.
        """
        self._check(blocks)
        *whole, last = self._blocks[self.depth - blocks :]
        for block in whole:
            tokens = block(tokens)  # [B, T, D]
        if self.spec.pooling == "cls":
            short = class_token.dinov2_layer if self.spec.family == "transformers" else class_token.timm_block
            z = self._norm(short(last, tokens))[:, 0]  # [B, D]
        elif self.spec.pooling == "attention":
            z = self.model.pool(self._norm(last(tokens)))  # [B, d]
        else:
            tokens = self._norm(last(tokens))  # [B, T, D]
            mean = tokens[:, self._vit.num_prefix_tokens :].mean(dim=1)  # [B, D]
            z = torch.cat([tokens[:, 0], mean], dim=1)  # [B, 2 D]
        return z if self.adapter is None else self.adapter(z)

    def forward(self, images: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch dim"]:
        """Embed preprocessed images."""
        return self.tail(self.trunk(images, 1), 1)

    def lora_targets(self, blocks: int, layers: Literal["named", "all", "attention", "mlp"] = "all") -> list[str]:
        """Names, inside `model`, of the attention and MLP linears of the last blocks.

        named: those whose name has attn or mlp in it, which those of Phikon-v2's attention have not.

        Raises
        ------
        SealError
            Another number of blocks than 1 to depth.

        Source: release (named).
        """
        self._check(blocks)
        names = [name for of_block in self._linears[self.depth - blocks :] for name in of_block]
        if layers == "named":
            return [name for name in names if "attn" in name or "mlp" in name]
        return [name for name in names if layers == "all" or (".mlp." in name) == (layers == "mlp")]

    def tail_parameters(self, blocks: int) -> list[nn.Parameter]:
        """Weights of the last blocks, of the last norm and of the pooling: what full fine-tuning trains (release)."""
        self._check(blocks)
        modules = [*self._blocks[self.depth - blocks :], self._norm]
        if self.spec.pooling == "attention":
            modules += [self.model.attn_pool_contrast, self.model.ln_contrast]
        return [parameter for module in modules for parameter in module.parameters()]

    def fork(self, blocks: int) -> "VisionEncoder":
        """Copy the encoder so that its last blocks can be trained apart; the trunk's weights are shared."""
        own = {id(parameter) for parameter in self.tail_parameters(blocks)}
        shared = {id(p): p for p in self.model.parameters() if id(p) not in own}
        return copy.deepcopy(self, shared)

    def _check(self, blocks: int) -> None:
        if not 1 <= blocks <= self.depth:
            raise SealError(
                f"{blocks} blocks of {self.spec.label}",
                expected=f"1 to {self.depth}",
                do="change vision.blocks in the profile",
            )


def preprocess(images: np.ndarray | Tensor, spec: EncoderSpec, size: int) -> Float[Tensor, "batch 3 side side"]:
    """Resize (bicubic, antialiased, to whole grey levels) if needed, then scale and normalise.

    x = (image / 255 - mean) / std,  mean and std of the encoder

    Parameters
    ----------
    images
        RGB, uint8 [B, H, H, 3].
    size
        S, px.

    Returns
    -------
    float32, on the device of `images`.

    Raises
    ------
    SealError
        The images are not square uint8 RGB.
    """
    x = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))  # [B, H, H, 3]
    if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] != x.shape[2] or x.shape[3] != 3:
        raise SealError(
            f"images are {x.dtype} {list(x.shape)}",
            expected="uint8 [B, H, H, 3]",
            do="give square RGB patches as they are stored in patches.npy",
        )
    x = x.permute(0, 3, 1, 2).float()  # [B, 3, H, H]
    if x.shape[-1] != size:
        x = F.interpolate(x, (size, size), mode="bicubic", antialias=True).round().clamp(0, 255)  # [B, 3, S, S]
    mean, std = (x.new_tensor(v).view(3, 1, 1) for v in (spec.mean, spec.std))  # [3, 1, 1]
    return (x / 255 - mean) / std  # [B, 3, S, S]


def build(
    name: str, *, weights: str = "pretrained", image_size: int | None = None, tiny: bool = False, seed: int = 0
) -> VisionEncoder:
    """Build an encoder, in evaluation mode.

    Parameters
    ----------
    weights
        "pretrained", see `seal.models.weights.find_weights`; or "random": the control that keeps the architecture and
        loses what was learnt, see `seal.models.architecture.make_random`.
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
    spec = find_spec(name)
    size = spec.image_size if image_size is None else image_size
    if size < spec.geometry.patch or size % spec.geometry.patch:
        raise SealError(
            f"image size {size} for {spec.label}",
            expected=f"a multiple of its patch size, {spec.geometry.patch} px",
            do="change image_size in the profile",
        )
    if weights == "random":
        model = architecture.make_random(spec, size, tiny=tiny, seed=seed)
    elif weights == "pretrained" and not tiny:
        with torch.device("meta"):  # no start values to compute: all are loaded
            model = architecture.make_plain(spec, size)
        weight_files.load_weights(model, spec, weight_files.find_weights(spec))
    else:
        raise SealError(
            f"weights {weights!r}" + (" of a tiny encoder" if tiny else ""),
            expected='"pretrained" or "random"; tiny encoders have random weights only',
            do='write weights="random", or leave tiny out',
        )
    return VisionEncoder(architecture.shrink(spec) if tiny else spec, model).eval()
