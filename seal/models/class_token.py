"""The last block for the class token alone, without making a key or a value.

Where an embedding is the class token, the last block owes an answer to one query an image. With
k_t = W_k n_t + b_k and v_t = W_v n_t + b_v (n_t: normalised tokens, a constant while the trunk is frozen),

    q . k_t        = (W_k' q) . n_t + const,      the constant is the same for all t and leaves the softmax alone
    sum_t p_t v_t  = W_v (sum_t p_t n_t) + b_v,   since the p_t sum to one

so queries and sums are projected, T times fewer than keys and values. A low-rank adapter adds B h_t with
h_t = s A drop(n_t), which is handled the same way in r dimensions. Same result, a fraction of the work; the
plain twin is the block itself.
"""

from typing import NamedTuple

import torch
from peft.tuners.lora import Linear as LoraLinear
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from seal.shapes import Float


class Projection(NamedTuple):
    """A linear layer over tokens: y_t = W n_t + b + B h_t."""

    weight: Float[Tensor, "out width"]  # W
    bias: Float[Tensor, " out"] | None
    up: Float[Tensor, "out rank"] | None  # B; None without an adapter
    low: Float[Tensor, "batch tokens rank"] | None  # h = s A drop(n)

    def rows(self, part: slice) -> "Projection":
        """The layer with some of its outputs only."""
        bias = None if self.bias is None else self.bias[part]
        return Projection(self.weight[part], bias, None if self.up is None else self.up[part], self.low)

    def first(self, n: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch out"]:
        """Apply it to the class token."""
        y = nn.functional.linear(n[:, 0], self.weight, self.bias)  # [B, out]
        return y if self.up is None else y + self.low[:, 0] @ self.up.T  # [B, out]


def split_linear(linear: nn.Module, n: Float[Tensor, "batch tokens width"]) -> Projection:
    """Take a linear layer apart, with what its adapter makes of the normalised tokens n.

    Parameters
    ----------
    linear
        nn.Linear, or the LoRA layer of PEFT around one; merged or disabled adapters are none.
    """
    if not isinstance(linear, LoraLinear):
        return Projection(linear.weight, linear.bias, None, None)
    base = linear.base_layer
    if linear.merged or linear.disable_adapters:
        return Projection(base.weight, base.bias, None, None)
    (name,) = linear.active_adapters
    low = linear.scaling[name] * linear.lora_A[name](linear.lora_dropout[name](n))  # [B, T, r]
    return Projection(base.weight, base.bias, linear.lora_B[name].weight, low)


def attend(
    n: Float[Tensor, "batch tokens width"],
    q: Float[Tensor, "batch out"],
    key: Projection,
    value: Projection,
    heads: int,
    scale: float,
) -> Float[Tensor, "batch out"]:
    """Attention of one query an image over its normalised tokens n, by the two identities above.

    Parameters
    ----------
    q
        The class token's query.
    heads, scale
        Number of heads H (out = H c, c the size of a head) and 1 / sqrt(c).

    Returns
    -------
    Heads side by side. The softmax is taken in float32.
    """
    q = (q * scale).unflatten(1, (heads, -1))  # [B, H, c]
    pulled = torch.einsum("bhc,hcd->bhd", q, key.weight.unflatten(0, (heads, -1)))  # W_k' q, [B, H, D]
    scores = pulled @ n.transpose(1, 2)  # [B, H, T]
    if key.bias is not None:  # moves no attention, but full fine-tuning wants its zero gradient
        scores = scores + (q * key.bias.unflatten(0, (heads, -1))).sum(dim=2, keepdim=True)
    if key.up is not None:
        scores = scores + torch.einsum("bhc,hcr->bhr", q, key.up.unflatten(0, (heads, -1))) @ key.low.transpose(1, 2)
    p = scores.float().softmax(dim=-1).to(n.dtype)  # [B, H, T]
    out = torch.einsum("bhd,hcd->bhc", p @ n, value.weight.unflatten(0, (heads, -1)))  # [B, H, c]
    if value.up is not None:
        out = out + torch.einsum("bhr,hcr->bhc", p @ value.low, value.up.unflatten(0, (heads, -1)))
    out = out.flatten(1)  # [B, H c]
    return out if value.bias is None else out + value.bias


def timm_block(block: Block, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch 1 width"]:
    """Give the class token alone after a timm block."""
    attn, n = block.attn, block.norm1(tokens)  # [B, T, D]
    qkv, size = split_linear(attn.qkv, n), attn.num_heads * attn.head_dim
    query, key, value = (qkv.rows(slice(i * size, (i + 1) * size)) for i in range(3))
    x = attend(n, query.first(n), key, value, attn.num_heads, attn.scale)  # [B, D]
    x = attn.proj_drop(attn.proj(attn.norm(x[:, None])))  # [B, 1, D]
    x = tokens[:, :1] + block.drop_path1(block.ls1(x))  # [B, 1, D]
    return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))  # [B, 1, D]


def dinov2_layer(layer: nn.Module, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch 1 width"]:
    """Give the class token alone after a layer of transformers' Dinov2."""
    attn, n = layer.attention, layer.norm1(tokens)  # [B, T, D]
    q, key, value = attn.q_proj(n[:, :1])[:, 0], split_linear(attn.k_proj, n), split_linear(attn.v_proj, n)
    x = attend(n, q, key, value, attn.num_attention_heads, attn.scaling)  # [B, D]
    x = tokens[:, :1] + layer.drop_path(layer.layer_scale1(attn.o_proj(x[:, None])))  # [B, 1, D]
    return x + layer.drop_path(layer.layer_scale2(layer.mlp(layer.norm2(x))))  # [B, 1, D]
