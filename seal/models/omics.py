"""SEAL-omics: an autoencoder of one spot's expression (stage 1), by default variational with planar flows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from seal import losses
from seal.profiles import OmicsSettings, Shown
from seal.shapes import Float, RowReader

# Of the other omics encoders (release).
MLP_DROPOUT, MAE_MASK, LAYERS = 0.25, 0.2, 4


class Latent(NamedTuple):
    """What the encoder gives: z after the flows, and what the KL term needs (None: there is no posterior)."""

    z: Float[Tensor, "batch dim"]
    z0: Float[Tensor, "batch dim"] | None = None  # before the flows
    mu: Float[Tensor, "batch dim"] | None = None
    logvar: Float[Tensor, "batch dim"] | None = None
    log_det: Float[Tensor, " batch"] | None = None
    masked: Float[Tensor, "batch genes"] | None = None  # 1 where a gene was hidden; None: none were


class PlanarFlow(nn.Module):
    """Planar normalising flow.

    z' = z + u tanh(w.z + b),  log|det J| = log|1 + (1 - tanh^2(w.z + b)) u.w|

    Source: release (three of them); Rezende and Mohamed 2015, equations 10 to 12.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.randn(dim) * 0.01)
        self.w = nn.Parameter(torch.randn(dim) * 0.01)
        self.b = nn.Parameter(torch.zeros(1))

    def forward(self, z: Float[Tensor, "batch dim"]) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Give z' and log|det J|."""
        h = torch.tanh(z @ self.w + self.b)  # [B]
        log_det = torch.log(torch.abs(1 + (1 - h**2) * (self.u @ self.w)) + 1e-8)  # [B]
        return z + h.unsqueeze(1) * self.u, log_det  # [B, d], [B]


def start_at_mean(linear: nn.Linear, mean: Float[Tensor, " genes"], sd: Float[Tensor, " genes"]) -> None:
    """Let a decoder's last layer start from the mean expression, its weights in units of each gene's sd.

    b_i = mean_i,  W_i <- sd_i W_i, so that (x_hat_i - mean_i) / sd_i starts with the same spread for every gene

    Without this a rarely expressed gene starts many of its sd away from its mean, and the standardised error of
    such genes drowns all else. Mean and sd are over the training spots, log1p of counts per 10,000.

    Source: our choice.
    """
    with torch.no_grad():
        linear.bias.copy_(mean)
        linear.weight.mul_(sd.unsqueeze(1))  # [G, h]


class _Affine(nn.Module):
    """A tensor in units of sd from a mean, row by row; the way back for `parametrize`."""

    def __init__(self, mean: Tensor, sd: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone(), persistent=False)
        self.register_buffer("sd", sd.clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.mean + self.sd * x

    def right_inverse(self, y: Tensor) -> Tensor:
        return (y - self.mean) / self.sd


@contextmanager
def in_gene_units(
    layers: Sequence[nn.Linear], mean: Float[Tensor, " genes"], sd: Float[Tensor, " genes"]
) -> Iterator[None]:
    """Train last layers of decoders in units of each gene's sd; afterwards they are plain layers again.

    W_i = sd_i W'_i,  b_i = mean_i + sd_i b'_i;  W', b' are trained

    Adam moves every weight by about the learning rate, whatever the gene's scale: a step that is small for a gene
    of sd 1 is many sd for a rare one. In these units it is the same for all, as the loss is.

    Mean and sd are those by which the loss is standardised.

    Source: our choice; functions and state-dict keys are those of plain linear layers.
    """
    column = sd.unsqueeze(1)  # [G, 1]
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", _Affine(torch.zeros_like(column), column))
        parametrize.register_parametrization(layer, "bias", _Affine(mean, sd))
    try:
        yield
    finally:
        for layer in layers:
            for name in ("weight", "bias"):
                parametrize.remove_parametrizations(layer, name)


def make_projection_head(kind: Literal["none", "linear", "mlp"], dim: int) -> nn.Module:
    """Make what stands between an embedding and the contrastive loss, and nowhere else: [B, d] -> [B, d].

    none: p = z;  linear: p = W z + b;  mlp: p = W_2 max(W_1 z + b_1, 0) + b_2

    Source: release (none by default; linear, which it also calls mlp); our mlp is our choice.
    """
    if kind == "none":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(dim, dim)
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))


class SealOmics(Shown, nn.Module):
    """SEAL-omics: x (spot expression) -> z_o (omics embedding) -> x_hat.

    Parameters
    ----------
    genes
        Panel size G.
    dim
        Latent size d, the vision encoder's embedding size.
    mean, sd
        Gene mean and sd over the training spots; part of the state, so that they travel with the model.
        The decoder starts at the mean, see `start_at_mean`, and is trained in units of sd, see `in_gene_units`.

    The state-dict keys encoder.*, fc_mu.*, fc_logvar.*, flows.*, decoder.* are those of the released
    checkpoints (whose hidden sizes are 1024 and 512); gene_mean and gene_sd are ours. Keys of projection_head.*
    exist only with a head.

    Source: release.
    """

    def __init__(
        self,
        genes: int,
        dim: int,
        settings: OmicsSettings,
        mean: Float[Tensor, " genes"],
        sd: Float[Tensor, " genes"],
        decoder_norm: bool = False,
    ) -> None:
        super().__init__()
        self.settings = settings
        self._add_layers(genes, dim, decoder_norm)
        start_at_mean(self.decoder[-1], mean, sd)
        self.projection_head = make_projection_head(settings.head, dim)
        self.register_buffer("gene_mean", mean.clone())
        self.register_buffer("gene_sd", sd.clone())

    def _add_layers(self, genes: int, dim: int, decoder_norm: bool) -> None:
        layers, size, settings = [], genes, self.settings
        for hidden in settings.hidden:
            layers += [nn.Linear(size, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(settings.dropout)]
            size = hidden
        self.encoder = nn.Sequential(*layers)
        self.fc_mu = nn.Linear(size, dim)
        self.fc_logvar = nn.Linear(size, dim)
        self.flows = nn.ModuleList(PlanarFlow(dim) for _ in range(settings.flows))
        layers, size = [], dim
        for hidden in reversed(settings.hidden):
            layers += [nn.Linear(size, hidden), nn.ReLU(), *([nn.BatchNorm1d(hidden)] if decoder_norm else [])]
            size = hidden
        self.decoder = nn.Sequential(*layers, nn.Dropout(settings.dropout), nn.Linear(size, genes))

    def __str__(self) -> str:
        way = f"{len(self.gene_mean)} genes -> {self.decoder[0].in_features} numbers, z_o -> the same genes"
        kind = self.settings.encoder
        return f"SEAL-omics: {way}\nhidden layers {self.settings.hidden}, " + (
            f"{len(self.flows)} planar flows" if kind == "vae" else f"omics encoder {kind}"
        )

    def encode(self, x: Float[Tensor, "batch genes"]) -> Latent:
        """Embed normalised log expression, genes in panel order.

        In training z0 is drawn from N(mu, exp(logvar)) and `settings.mask` of the genes are set to zero; in
        evaluation z0 = mu, so an embedding is the same every time (the release samples there too). Other encoders than
        the vae draw nothing; mae sets a fifth of the genes to zero where `settings.mask` is 0.
        """
        masked, share = None, self.settings.mask or (MAE_MASK if self.settings.encoder == "mae" else 0)
        if self.training and share > 0:
            masked = (torch.rand_like(x) < share).to(x.dtype)  # [B, G]
            x = x * (1 - masked)  # [B, G]
        return self._embed(x)._replace(masked=masked)

    def _embed(self, x: Float[Tensor, "batch genes"]) -> Latent:
        hidden = self.encoder(x)  # [B, h]
        mu, logvar = self.fc_mu(hidden), self.fc_logvar(hidden)  # [B, d]
        z0 = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar) if self.training else mu  # [B, d]
        z, log_det = z0, torch.zeros_like(z0[:, 0])  # [B, d], [B]
        for flow in self.flows:
            z, step = flow(z)  # [B, d], [B]
            log_det = log_det + step
        return Latent(z, z0, mu, logvar, log_det)

    def decode(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch genes"]:
        """Reconstruct normalised log expression from z."""
        return self.decoder(z)

    def forward(self, x: Float[Tensor, "batch genes"]) -> Float[Tensor, "batch dim"]:
        """Give z_o, in evaluation the same every time."""
        return self.encode(x).z

    def reconstruction(
        self, x_hat: Float[Tensor, "batch genes"], x: Float[Tensor, "batch genes"]
    ) -> dict[str, Float[Tensor, ""]]:
        """L_REC of a prediction of this panel; see `losses.gene_loss`."""
        return losses.gene_loss(self.settings.gene_loss, x_hat, x, self.gene_mean, self.gene_sd)

    def losses(self, x: Float[Tensor, "batch genes"]) -> dict[str, Float[Tensor, ""]]:
        """Terms of stage 1: L_REC,omics and, if they are on, those of hidden genes and KL; `total` is minimised.

        L_REC,omics + s (w L_masked + beta L_KL),  L_masked the mean squared error of the genes that were hidden, s the
        gene loss's scale (1 for a KL that is drawn): the release adds both to the gene loss before it is scaled.
        """
        s, latent = self.settings, self.encode(x)
        x_hat, scale = self.decode(latent.z), losses.GENE_LOSSES[s.gene_loss]  # [B, G]
        terms = self.reconstruction(x_hat, x)
        total = terms["total"]
        if latent.masked is not None and s.mask_weight > 0:
            terms["masked"] = (latent.masked * (x_hat - x).square()).sum() / latent.masked.sum().clamp_min(1)  # []
            total = total + scale * s.mask_weight * terms["masked"]
        if s.kl > 0:
            terms["kl"] = losses.flow_kl(*latent[:-1], s.kl_form)
            total = total + (scale if s.kl_form == "closed" else 1) * s.kl * terms["kl"]
        return {**terms, "total": total}


class MlpOmics(SealOmics):
    """SEAL-omics without a posterior; mae is the same with genes hidden, and `dropout` is not this one's but 0.25.

    encoder: (Linear, BatchNorm, GELU, dropout) for each hidden size, Linear;  decoder: Linear, GELU, dropout, Linear

    Source: release (whose mae has no term of its own for hidden genes: `mask_weight` 0).
    """

    def _add_layers(self, genes: int, dim: int, decoder_norm: bool) -> None:
        layers, size = [], genes
        for hidden in self.settings.hidden:
            layers += [nn.Linear(size, hidden), nn.BatchNorm1d(hidden), nn.GELU(), nn.Dropout(MLP_DROPOUT)]
            size = hidden
        self.encoder = nn.Sequential(*layers, nn.Linear(size, dim))
        self.decoder = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Dropout(MLP_DROPOUT), nn.Linear(dim, genes))

    def _embed(self, x: Float[Tensor, "batch genes"]) -> Latent:
        return Latent(self.encoder(x))


class TransformerOmics(SealOmics):
    """SEAL-omics whose encoder is a transformer over the genes of a spot; time grows with the square of their number.

    z = W mean_g T(w x_g + b),  T four layers of attention over the genes;  decoder: Linear, ReLU, Linear

    A gene is its value alone: nothing says which gene it is, so z is the same whichever gene has which value. Widths
    follow the first hidden size: a gene's is a sixteenth of it, in heads of 8 (1024: 64, 8 heads).

    Source: release, where attention weights have a dropout too (without it they need not be kept).
    """

    def _add_layers(self, genes: int, dim: int, decoder_norm: bool) -> None:
        hidden = self.settings.hidden[0]
        heads = max(1, hidden // 128)
        self.gene_embedding, self.to_latent = nn.Linear(1, 8 * heads), nn.Linear(8 * heads, dim)
        layer = nn.TransformerEncoderLayer(8 * heads, heads, 32 * heads, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        for layer in self.encoder.layers:
            layer.self_attn.dropout = 0.0
        self.decoder = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, genes))

    def _embed(self, x: Float[Tensor, "batch genes"]) -> Latent:
        tokens = self.encoder(self.gene_embedding(x.unsqueeze(-1)))  # [B, G, w]
        return Latent(self.to_latent(tokens.mean(dim=1)))


# Of omics.encoder in seal.profiles.
OMICS_ENCODERS = {"vae": SealOmics, "mlp": MlpOmics, "mae": MlpOmics, "transformer": TransformerOmics}


def gene_statistics(x: RowReader) -> tuple[Float[Tensor, " genes"], Float[Tensor, " genes"]]:
    """Gene mean and sd over training spots, on the CPU; a constant gene gets sd 1.

    Two passes in float64 over parts of x, [n, G], so that memory does not grow with the number of spots.
    """
    parts = torch.arange(len(x)).split(65_536)
    mean = sum(x[part].double().sum(dim=0) for part in parts) / len(x)  # [G]
    sd = (sum((x[part].double() - mean).square().sum(dim=0) for part in parts) / len(x)).sqrt()  # [G]
    return mean.float().cpu(), torch.where(sd > 1e-6, sd, torch.ones_like(sd)).float().cpu()
