"""Two that put patches and spots into one space and look up the training spots next to a patch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seal.models.baselines import rules
from seal.models.baselines.base import Bank, Baseline, Embedding, Parts, Rows, Spots, Terms
from seal.shapes import Float


class ProjectionHead(nn.Module):
    """p = LayerNorm(dropout(W_2 gelu(W_1 x)) + W_1 x), biases left out. Source: BLEEP; mclSTExp has the same."""

    def __init__(self, size: int, shared: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.projection, self.fc = nn.Linear(size, shared), nn.Linear(shared, shared)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(shared)

    def forward(self, x: Float[Tensor, "batch size"]) -> Float[Tensor, "batch shared"]:
        """Project."""
        projected = self.projection(x)  # [B, s]
        return self.norm(self.dropout(self.fc(F.gelu(projected))) + projected)


class Bleep(Baseline):
    """Projection heads on z and on the expression, a contrast with soft targets; mean of the 50 nearest spots.

    L = 1/2 mean_i [CE(S_i, P_i) + CE(S'_i, P'_i)],  S = s i' / T,  P the `soft_targets`

    Source: bowang-lab/BLEEP (Xie et al. 2023), no L2 norm in training and targets with a gradient, as there.
    Departures: the profile's encoder and adapter where it tunes a ResNet-50; SEAL's schedule where it stops at the best
    epoch of a random 20 % of the spots; no Harmony, which sees test sections there.
    """

    looks_up = True
    uses = ("projection", "bleep_dropout", "bleep_temperature")

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        shared, dropout = parts.own.projection, parts.own.bleep_dropout
        self.image = ProjectionHead(self.encoder.dim, shared, dropout)
        self.spot = ProjectionHead(len(parts.mean), shared, dropout)

    def objective(self, z: Embedding, spots: Spots) -> Terms:
        """L: soft, and total = soft."""
        image, spot, t = self.image(z), self.spot(spots.x), self.own.bleep_temperature  # [B, s]
        logits, targets = spot @ image.T / t, rules.soft_targets(image, spot, t)  # [B, B]
        soft = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets.T)) / 2
        return {"soft": soft, "total": soft}

    def keys(self, spots: Spots) -> Float[Tensor, "batch shared"]:
        """Spots in the space that they share with patches."""
        return self.spot(spots.x)

    def predict(self, z: Embedding, rows: Rows, bank: Bank) -> Tensor:
        """Predict the test genes, [batch, test genes]."""
        return rules.average_nearest(self.image(z), bank.keys, bank.values, self.own.bleep_nearest)


class SequenceBlock(nn.Module):
    """Pre-norm attention and feed-forward, GELU, on a batch as one sequence, [B, size]. Source: mclSTExp, model.py."""

    def __init__(self, size: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv = nn.LayerNorm(size), nn.Linear(size, 3 * heads * width, bias=False)
        self.out = nn.Linear(heads * width, size)
        self.feed = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, size), nn.GELU(), nn.Linear(size, size))

    def forward(self, x: Float[Tensor, "batch size"]) -> Float[Tensor, "batch size"]:
        """Let each spot look at all of its batch."""
        q, k, v = self.qkv(self.norm(x)).view(len(x), 3, self.heads, -1).permute(1, 2, 0, 3)  # [heads, B, width]
        seen = F.scaled_dot_product_attention(q, k, v)  # [heads, B, width]
        x = x + self.out(seen.transpose(0, 1).flatten(1))  # [B, size]
        return x + self.feed(x)


class MclStExp(Baseline):
    """Expression and learned places through attention over the batch, contrasted with the image; 200 nearest spots.

    s = head(attention(x + e_row + e_col)),  L = 1/2 [CE(s i' / 1, I) + CE(i s' / 1, I)]

    A spot's key depends on its batch-mates: the official prediction embeds the training spots in the order of their
    sections, in batches of the training's size; `seal.evaluate.batch_order` says what another order gives.

    Source: ZhicengShi/mclSTExp (Min et al. 2024). Departures: the profile's encoder and adapter where it tunes a
    DenseNet-121; SEAL's schedule where it has 90 epochs of Adam at 1e-4; as many places as the grids have, not 65,536.
    """

    looks_up, needs = True, "places"
    uses = ("projection", "mclstexp_layers", "mclstexp_heads", "mclstexp_head_width")

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        own, genes, places = parts.own, len(parts.mean), parts.tissue.places
        self.first = places.amin(dim=0)
        self.row, self.col = (nn.Embedding(int(n), genes) for n in (places.amax(dim=0) - self.first + 1))
        blocks = (SequenceBlock(genes, own.mclstexp_heads, own.mclstexp_head_width) for _ in range(own.mclstexp_layers))
        self.attention = nn.Sequential(*blocks)
        self.image, self.spot = (ProjectionHead(size, own.projection) for size in (self.encoder.dim, genes))

    def objective(self, z: Embedding, spots: Spots) -> Terms:
        """L: clip, and total = clip."""
        logits = self.keys(spots) @ self.image(z).T  # [B, B]
        own = torch.arange(len(z), device=z.device)
        clip = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        return {"clip": clip, "total": clip}

    def keys(self, spots: Spots) -> Float[Tensor, "batch shared"]:
        """Spots, as their batch makes them, in the space that they share with patches."""
        row, col = (self.tissue.places[spots.rows] - self.first).unbind(dim=1)  # [B] each
        return self.spot(self.attention(spots.x + self.row(row) + self.col(col)))

    def predict(self, z: Embedding, rows: Rows, bank: Bank) -> Tensor:
        """Predict the test genes, [batch, test genes]."""
        return rules.weigh_nearest(self.image(z), bank.keys, bank.values, self.own.mclstexp_nearest)
