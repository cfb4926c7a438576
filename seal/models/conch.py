"""CONCH's image tower: a ViT whose tokens are pooled by attention. Keys as in the released checkpoint."""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from seal.models.encoder_registry import Geometry
from seal.shapes import Float


class AttentionPool(nn.Module):
    """Learned queries attend to all tokens: softmax(ln_q(q) W_q (ln_k(x) W_k)' / sqrt(d_head)) ln_k(x) W_v W_o.

    Source: CONCH, after CoCa (Yu et al. 2022).
    """

    def __init__(self, width_in: int, width_out: int, heads: int, queries: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(queries, width_out))
        # The release keeps tokens in the first axis; batch_first changes the layout, not the weights.
        self.attn = nn.MultiheadAttention(width_out, heads, kdim=width_in, vdim=width_in, batch_first=True)
        self.ln_q = nn.LayerNorm(width_out)
        self.ln_k = nn.LayerNorm(width_in)

    def forward(self, tokens: Float[Tensor, "batch tokens width_in"]) -> Float[Tensor, "batch queries width_out"]:
        """Pool tokens."""
        query = self.ln_q(self.query).expand(len(tokens), -1, -1)  # [B, queries, width_out]
        keys = self.ln_k(tokens)  # [B, T, width_in]
        return self.attn(query, keys, keys, need_weights=False)[0]  # [B, queries, width_out]


class ConchVisual(nn.Module):
    """CONCH's image tower.

    z = ln(pool(trunk(image)))

    The embedding is taken before the projection of contrastive training, as the release and HEST-Bench do.
    That projection and the captioning pool play no part in z; they are carried along so that the released
    weights load without a key left over and are saved complete.

    Source: mahmoodlab/CONCH.
    """

    def __init__(self, trunk: VisionTransformer, geometry: Geometry) -> None:
        super().__init__()
        width, out = geometry.width, geometry.pool_width
        self.trunk = trunk
        self.attn_pool_contrast = AttentionPool(width, out, geometry.pool_heads, queries=1)
        self.ln_contrast = nn.LayerNorm(out)
        self.proj_contrast = nn.Parameter(torch.randn(out, out) * width**-0.5)
        self.attn_pool_caption = AttentionPool(width, width, geometry.pool_heads, geometry.caption_queries)
        self.ln_caption = nn.LayerNorm(width)

    def pool(self, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch dim"]:
        """Embed the trunk's normalised tokens."""
        return self.ln_contrast(self.attn_pool_contrast(tokens)[:, 0])  # [B, d]

    def forward(self, images: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch dim"]:
        """Embed normalised images."""
        return self.pool(self.trunk.forward_features(images))
