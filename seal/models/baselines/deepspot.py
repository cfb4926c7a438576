"""DeepSpot: a deep set over a spot and its neighbours, on frozen embeddings."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seal.models.baselines.base import Baseline, Embedding, Parts, Rows, Spots, Terms
from seal.shapes import Float


class DeepSpot(Baseline):
    """phi: median of ten (Linear, dropout, ReLU); the spot's beside the neighbours' maximum; rho: mean of ten linears.

    y = mean + sd rho([phi(f_i), max over j around i of phi(f_j)]),  L the standardised squared error

    A spot without neighbours has 0, the least that phi gives, in their place.

    Source: ratschlab/DeepSpot (Nonchev et al. 2025), its spot context "spot_neighbors". Departures: no sub-spots; true
    neighbours on the grid; width 128, not 512; SEAL's schedule where it has AdamW at 1e-4.
    """

    adapts, needs = False, "frozen"
    uses = ("deepspot_width", "deepspot_ensemble", "deepspot_dropout")

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        own, dim = parts.own, parts.encoder.dim
        self.phi = nn.Linear(dim, own.deepspot_ensemble * own.deepspot_width)  # all of the ensemble in one product
        size, genes = 2 * own.deepspot_width, len(parts.mean)
        self.rho = nn.ModuleList(nn.Linear(size, genes) for _ in range(own.deepspot_ensemble))

    def describe(self, f: Float[Tensor, "... dim"]) -> Float[Tensor, "... width"]:
        """Phi of frozen embeddings."""
        each = F.dropout(self.phi(f), self.own.deepspot_dropout, self.training).relu()  # [..., e w]
        return each.unflatten(-1, (self.own.deepspot_ensemble, -1)).median(dim=-2).values

    def pool(self, z: Embedding, rows: Rows) -> Float[Tensor, "batch two_widths"]:
        """The spot's phi beside the maximum of its neighbours'."""
        around, present = self.tissue.gather(self.tissue.ring[rows])  # [B, k, d], [B, k]
        highest = (self.describe(around) * present[:, :, None]).amax(dim=1)  # [B, w]; phi is never below 0
        return torch.cat([self.describe(z), highest], dim=1)

    def standardised(self, z: Embedding, rows: Rows) -> Float[Tensor, "batch genes"]:
        """Predict in sd of each gene from its mean."""
        pooled, p = self.pool(z, rows), self.own.deepspot_dropout  # [B, 2 w]
        heads = [F.dropout(rho(F.dropout(pooled, p, self.training).relu()), 0.1, self.training) for rho in self.rho]
        return torch.stack(heads).mean(dim=0)

    def losses(self, spots: Spots) -> Terms:
        """L: mse, and total = mse."""
        y = self.standardised(self.tissue.frozen[spots.rows], spots.rows)  # [B, G]
        mse = F.mse_loss(y, (spots.x - self.gene_mean) / self.gene_sd)
        return {"mse": mse, "total": mse}

    def expression(self, z: Embedding, rows: Rows) -> Float[Tensor, "batch genes"]:
        """Predict the panel from frozen embeddings."""
        return self.gene_mean + self.gene_sd * self.standardised(z, rows)
