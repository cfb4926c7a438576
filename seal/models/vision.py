"""SEAL-vision: a frozen encoder with something small to train in its last blocks, and a gene decoder (stage 2)."""

import math
from typing import TYPE_CHECKING, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from seal import losses
from seal.models import architecture
from seal.models.dropout import Dropout
from seal.models.encoder_registry import REGISTRY
from seal.models.encoders import VisionEncoder
from seal.models.omics import SealOmics, make_projection_head, start_at_mean
from seal.profiles import Shown, VisionSettings
from seal.shapes import Float

if TYPE_CHECKING:
    import pandas

COLDEST = 0.01  # a learnt temperature does not fall below it (CLIP's bound)


class GeneDecoder(nn.Module):
    """z_v -> expression of the gene panel: Linear (, BatchNorm), ReLU, dropout, Linear (, ReLU).

    Source: release (without the norm, with the last ReLU). That it starts from the gene means, see
    `omics.start_at_mean`, is our choice.
    """

    def __init__(
        self,
        dim: int,
        mean: Float[Tensor, " genes"],
        sd: Float[Tensor, " genes"],
        settings: VisionSettings,
        norm: bool = False,
    ) -> None:
        super().__init__()
        hidden = settings.decoder_hidden
        last = nn.Linear(hidden, len(mean))
        start_at_mean(last, mean, sd)
        layers = [nn.Linear(dim, hidden), *([nn.BatchNorm1d(hidden)] if norm else []), nn.ReLU()]
        layers += [nn.Dropout(settings.decoder_dropout), last, *([nn.ReLU()] if settings.decoder_relu else [])]
        self.decoder = nn.Sequential(*layers)

    def forward(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch genes"]:
        """Predict normalised log expression."""
        return self.decoder(z)


class BottleneckAdapter(nn.Module):
    """A bottleneck on the embedding, A(z) = W_2 relu(W_1 z + b_1) + b_2.

    bottleneck: z' = z + A(z), with W_2 = b_2 = 0 at first;  bottleneck_twice: z' = A(A(z))

    Source: release (bottleneck_twice, of 256). Residual and zero start are our choice, so that this adapter too changes
    nothing before the first step.
    """

    def __init__(self, dim: int, hidden: int, kind: Literal["bottleneck", "bottleneck_twice"]) -> None:
        super().__init__()
        self.twice = kind == "bottleneck_twice"
        self.down, self.up = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        if not self.twice:
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Adapt an embedding."""
        adapted = self.up(self.down(z).relu())  # [B, d]
        return self.up(self.down(adapted).relu()) if self.twice else z + adapted  # [B, d]


def add_lora(encoder: VisionEncoder, settings: VisionSettings) -> PeftModel:
    """Put LoRA on the attention and MLP linears of the encoder's last blocks; all else is frozen.

    W' = W + (alpha / r) B A;  A random, B zero, so nothing changes before the first step.

    `encoder.model` itself is changed in place.

    Source: release (r 8, alpha 8, dropout 0.15).
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=encoder.lora_targets(settings.blocks, settings.lora_layers),
        bias="none",
    )
    peft = get_peft_model(encoder.model, config)
    if settings.lora_dropout > 0:
        for module in peft.modules():
            if isinstance(module, LoraLinear):
                module.lora_dropout["default"] = Dropout(settings.lora_dropout)
    return peft


def add_adapter(encoder: VisionEncoder, settings: VisionSettings) -> PeftModel | None:
    """Freeze an encoder but for what is trained of it; the PEFT model around `encoder.model` if that is LoRA."""
    encoder.requires_grad_(False)
    if settings.adapter == "lora":
        return add_lora(encoder, settings)
    if settings.adapter == "full":
        for parameter in encoder.tail_parameters(settings.blocks):
            parameter.requires_grad_(True)
    else:
        encoder.adapter = BottleneckAdapter(encoder.dim, settings.bottleneck, settings.adapter)
    return None


class SealVision(Shown, nn.Module):
    """Stage 2: what is trained of the encoder, gene decoder and SEAL-omics, on the trunk's tokens.

    Parameters
    ----------
    encoder
        The pretrained encoder, without adapters; they are added here.
    omics
        SEAL-omics from stage 1; it goes on learning at the same rate (release: "lr 1e-4 both").
    mean, sd
        Gene mean and sd over the training pairs, by which both reconstructions are standardised; those of
        stage 1 by default, which may have seen more spots than there are pairs.

    Attributes
    ----------
    peft
        The PEFT model around `encoder.model` if the adapter is LoRA, else None.
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        omics: SealOmics,
        settings: VisionSettings,
        mean: Float[Tensor, " genes"] | None = None,
        sd: Float[Tensor, " genes"] | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.peft = add_adapter(encoder, settings)
        self.encoder = encoder
        self.omics = omics
        self.register_buffer("gene_mean", (omics.gene_mean if mean is None else mean).clone())
        self.register_buffer("gene_sd", (omics.gene_sd if sd is None else sd).clone())
        self.decoder = GeneDecoder(encoder.dim, self.gene_mean, self.gene_sd, settings)
        self.projection_head = make_projection_head(settings.head, encoder.dim)
        start = torch.tensor(math.log(settings.temperature))
        self.log_temperature = nn.Parameter(start, requires_grad=settings.learn_temperature)

    def __str__(self) -> str:
        settings = f"adapter {self.settings.adapter}, last {self.settings.blocks} block(s) of the encoder"
        return f"SEAL-vision: {settings}, {len(self.gene_mean)} genes\n{self.encoder}"

    @property
    def last_layers(self) -> list[nn.Linear]:
        """The layers that give expression: of the gene decoder and of SEAL-omics."""
        return [self.decoder.decoder[3], self.omics.decoder[-1]]

    @property
    def temperature(self) -> Float[Tensor, ""]:
        """The temperature tau of the contrastive loss, fixed or learnt."""
        return self.log_temperature.exp()

    def embed(self, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch dim"]:
        """Give z_v of the trunk's tokens."""
        return self.encoder.tail(tokens, self.settings.blocks)

    def objective(
        self, z_v: Float[Tensor, "batch dim"], x: Float[Tensor, "batch genes"]
    ) -> dict[str, Float[Tensor, ""]]:
        """L = w_1 L_INFO(h_v(z_v), h_o(z_o)) + w_2 L_REC,omics + w_3 L_REC,vision.

        x is the normalised log expression of the spots of z_v, h_v and h_o are the projection heads, the identity by
        default; in the place of L_INFO stands the contrast of the settings, see `losses.CONTRASTS`. Every term needs
        the whole batch: the contrastive one for its negatives, the gene loss for correlations over spots.

        Returns
        -------
        info (nats if clip or soft_clip), rec_omics, rec_vision, and total = L.

        Source: release (weights 1).
        """
        s, z_o = self.settings, self.omics.encode(x).z  # [B, d]
        contrast = losses.CONTRASTS[s.contrast]
        if s.learn_temperature:  # the number itself is bounded: a bound on its exponential would stop its gradient
            self.log_temperature.data.clamp_(min=math.log(COLDEST))
        terms = {
            "info": contrast(self.projection_head(z_v), self.omics.projection_head(z_o), self.temperature),
            "rec_omics": self.reconstruction(self.omics.decode(z_o), x)["total"],
            "rec_vision": self.reconstruction(self.decoder(z_v), x)["total"],
        }
        total = (
            s.info_weight * terms["info"]
            + s.rec_omics_weight * terms["rec_omics"]
            + s.rec_vision_weight * terms["rec_vision"]
        )
        return {**terms, "total": total}

    def reconstruction(
        self, x_hat: Float[Tensor, "batch genes"], x: Float[Tensor, "batch genes"]
    ) -> dict[str, Float[Tensor, ""]]:
        """L_REC of a prediction of the panel; see `losses.gene_loss`."""
        return losses.gene_loss(self.omics.settings.gene_loss, x_hat, x, self.gene_mean, self.gene_sd)


def tabulate_encoders(settings: VisionSettings, used: str) -> "pandas.DataFrame":
    """One row an encoder of the registry, with all its parameters and those that the settings' adapter would train.

    Both are counted on the true geometry on torch's meta device: nothing is downloaded or allocated.

    Parameters
    ----------
    used
        Name of the encoder that the profile runs.

    Returns
    -------
    DataFrame with name, label, hub, dim, pooling, precision, gated, licence, geometry, mean, std, parameters,
    trainable, adapter, used.
    """
    import pandas as pd

    with torch.device("meta"):
        encoders = [VisionEncoder(spec, architecture.make_plain(spec, spec.image_size)) for spec in REGISTRY.values()]
        parameters = [sum(p.numel() for p in encoder.model.parameters()) for encoder in encoders]
        for encoder in encoders:
            add_adapter(encoder, settings)
    fields = ["name", "label", "hub", "dim", "pooling", "precision", "gated", "licence", "geometry", "mean", "std"]
    table = pd.DataFrame([[getattr(spec, field) for field in fields] for spec in REGISTRY.values()], columns=fields)
    return table.astype({"geometry": str, "mean": str, "std": str}).assign(
        parameters=parameters,
        trainable=[sum(p.numel() for p in encoder.parameters() if p.requires_grad) for encoder in encoders],
        adapter=settings.adapter,
        used=table["name"] == used,
    )
