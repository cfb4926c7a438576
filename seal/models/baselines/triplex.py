"""TRIPLEX: the spot, what lies around it and its section, each a branch, and their fusion."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seal.models.baselines.base import Baseline, Embedding, Parts, Rows, Spots, Terms, largest_divisor
from seal.models.omics import start_at_mean
from seal.shapes import Float

BRANCHES = ("target", "neighbours", "section")


class Triplex(Baseline):
    """Three branches give expression, and so does their fusion, which each branch is drawn to.

    L = MSE(y, x) + sum over branches of (1 - a) MSE(y_b, x) + a MSE(y, y_b),  a = 0.3

    Neighbours: the 5 x 5 around the spot, itself among them, as frozen embeddings with a learned place, through a
    transformer layer. Section: frozen embeddings of all its spots through one. Fusion: the section's token at the spot
    looks at the target's and at the neighbours', by the same layer.

    Source: NEXGEM/TRIPLEX (Chung et al. 2024). Departures: the adapted encoder's embedding is the one target token,
    where it tunes a ResNet-18 of 7 x 7 tokens; on Visium two rings are the 5 x 5; width 128, 4 heads and one layer a
    branch; no position generator (APEG); no 3 x 3 mean of targets and no clamp at 0; no stopping on the test fold.
    """

    needs, uses = "frozen", ("triplex_width", "triplex_heads", "triplex_dropout", "triplex_distillation")

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        own, dim, width = parts.own, self.encoder.dim, parts.own.triplex_width
        heads, dropout = largest_divisor(width, own.triplex_heads), own.triplex_dropout
        self.into = nn.ModuleDict({name: nn.Linear(dim, width) for name in BRANCHES})
        self.place = nn.Parameter(0.02 * torch.randn(parts.tissue.window.shape[1], width))
        layer = lambda: nn.TransformerEncoderLayer(  # noqa: E731
            width, heads, 2 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.around, self.whole = layer(), layer()
        self.norm = nn.ModuleDict({name: nn.LayerNorm(width) for name in ("neighbours", "section", "query", "fused")})
        self.look = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.feed = nn.Sequential(
            *(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout)),
            nn.Linear(2 * width, width),
        )
        self.head = nn.ModuleDict({name: nn.Linear(width, len(parts.mean)) for name in ("fused", *BRANCHES)})
        for head in self.head.values():
            start_at_mean(head, parts.mean, parts.sd)

    @property
    def last_layers(self) -> list[nn.Linear]:
        """The four heads."""
        return list(self.head.values())

    def branches(self, z: Embedding, rows: Rows) -> dict[str, Float[Tensor, "batch genes"]]:
        """Expression of the panel by the fusion and by each branch."""
        target = self.into["target"](z)[:, None]  # [B, 1, w]
        frozen, present = self.tissue.gather(self.tissue.window[rows])  # [B, k, d], [B, k]
        near = self.around(self.into["neighbours"](frozen) + self.place, src_key_padding_mask=present == 0)  # [B, k, w]
        near = self.norm["neighbours"](near)
        section = self.section(rows)  # [B, w]
        fused = self._fuse(section, target, None) + self._fuse(section, near, present == 0)  # [B, w]
        mean = (near * present[:, :, None]).sum(dim=1) / present.sum(dim=1, keepdim=True)  # [B, w]
        tokens = {"fused": self.norm["fused"](fused), "target": target[:, 0], "neighbours": mean, "section": section}
        return {name: self.head[name](token) for name, token in tokens.items()}

    def section(self, rows: Rows) -> Float[Tensor, "batch width"]:
        """Token of each spot in its section: all the section's spots look at each other."""
        ends, which = self.tissue.sections[rows].unique(dim=0, return_inverse=True)
        tokens = torch.zeros(len(rows), len(self.place[0]), device=rows.device)  # [B, w]
        for i, (first, behind) in enumerate(ends.tolist()):
            all_spots = self.whole(self.into["section"](self.tissue.frozen[first:behind])[None])[0]  # [spots, w]
            mine = (which == i).nonzero()[:, 0]
            tokens = tokens.index_copy(0, mine, self.norm["section"](all_spots)[rows[mine] - first])
        return tokens

    def _fuse(self, query: Tensor, tokens: Tensor, absent: Tensor | None) -> Tensor:
        query = query[:, None]  # [B, 1, w]
        keys = self.norm["query"](tokens)  # [B, k, w]
        seen, _ = self.look(self.norm["query"](query), keys, keys, key_padding_mask=absent, need_weights=False)
        query = query + seen
        return (query + self.feed(query))[:, 0]

    def objective(self, z: Embedding, spots: Spots) -> Terms:
        """L: mse, that of the fusion; target, neighbours and section, the branches' share; total."""
        given, a = self.branches(z, spots.rows), self.own.triplex_distillation
        fused = given.pop("fused")
        terms = {"mse": F.mse_loss(fused, spots.x)}
        for name, own in given.items():
            terms[name] = (1 - a) * F.mse_loss(own, spots.x) + a * F.mse_loss(fused, own)
        return {**terms, "total": sum(terms.values())}

    def expression(self, z: Embedding, rows: Rows) -> Float[Tensor, "batch genes"]:
        """Predict the panel by the fusion."""
        return self.branches(z, rows)["fused"]
