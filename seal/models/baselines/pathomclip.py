"""PathOmCLIP twice: one transformer layer over the batch, as the release wraps it, or over true spatial neighbours."""

import torch
from torch import Tensor, nn

from seal.models.baselines.base import Bank, Embedding, Parts, Rows, Spots, Terms, largest_divisor
from seal.models.vision import SealVision


class PathOmClip(SealVision):
    """SEAL with one transformer layer between embedding and losses: z' = layer(z), attention over the batch.

    A patch's prediction depends on its batch-mates: the official one takes test spots in the order of their sections,
    in batches of the training's size; `seal.evaluate.batch_order` says what another order gives.

    Source: mahmoodlab/SEAL 2137d8d, PathomClipWrapper (batch_first left off, so that [B, d] is one sequence);
    PathOmCLIP (Lee et al. 2024) has no public repository. Departures: a feed-forward of 256, not 2,048; as many heads,
    8 at most, as divide d; SEAL-omics starts from stage 1, as SEAL's does here.
    """

    adapts, learns_omics, looks_up, needs = True, True, False, ""
    uses = ("pathomclip_heads", "pathomclip_hidden", "pathomclip_dropout")

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts.encoder, parts.omics, parts.vision, parts.mean, parts.sd)
        own, dim, self.tissue = parts.own, parts.encoder.dim, parts.tissue
        heads = largest_divisor(dim, own.pathomclip_heads)
        self.local = nn.TransformerEncoderLayer(
            dim, heads, own.pathomclip_hidden, own.pathomclip_dropout, batch_first=self.needs == "frozen"
        )

    def mix(self, z: Embedding, rows: Rows) -> Embedding:
        """Z' of a batch; `rows` are its spots."""
        return self.local(z)

    def objective(self, z_v: Embedding, x: Spots) -> Terms:
        """SEAL's losses of z'."""
        return super().objective(self.mix(z_v, x.rows), x.x)

    def predict(self, z: Embedding, rows: Rows, bank: Bank) -> Tensor:
        """Predict the test genes by the gene decoder, [batch, test genes]."""
        return self.decoder(self.mix(z, rows))[:, bank.columns]


class PathOmClipSpatial(PathOmClip):
    """The same with attention over the spot and its true neighbours on the grid, whose embeddings are frozen.

    z'_i = layer([z_i, f_j for j around i])_i

    Source: as the paper has it ("local transformer"); a spot's answer depends on its own section alone.
    """

    needs = "frozen"

    def mix(self, z: Embedding, rows: Rows) -> Embedding:
        """Z' of a batch; `rows` are its spots."""
        around, present = self.tissue.gather(self.tissue.ring[rows])  # [B, k, d], [B, k]
        absent = torch.cat([torch.zeros_like(present[:, :1]), present == 0], dim=1).bool()  # [B, 1 + k]
        return self.local(torch.cat([z[:, None], around], dim=1), src_key_padding_mask=absent)[:, 0]
