"""SEAL-vision: a frozen encoder whose last blocks carry low-rank adapters, and a gene decoder (stage 2)."""

from torch import Tensor, nn

from seal import losses
from seal.models.encoders import VisionEncoder
from seal.models.omics import SealOmics
from seal.profiles import VisionSettings


class GeneDecoder(nn.Module):
    """z_v -> expression of the gene panel: Linear, ReLU, dropout, Linear.

    Shapes: [B, d] -> [B, G]. Source: release; without its optional last ReLU (our choice: a rectified
    output has no gradient where it is off).
    """

    def __init__(self, dim: int, hidden: int, genes: int, dropout: float) -> None:
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, genes))

    def forward(self, z: Tensor) -> Tensor:
        """Predict normalised log expression."""
        return self.decoder(z)


def add_adapters(encoder: VisionEncoder, settings: VisionSettings):
    """Freeze the encoder and put LoRA on the attention and MLP linears of its last blocks.

    W' = W + (alpha / r) B A;  A random, B zero, so nothing changes before the first step.

    Returns
    -------
    peft.PeftModel. `encoder.model` itself is changed in place.

    Source: release (r 8, alpha 8, dropout 0.15).
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=encoder.lora_targets(settings.blocks),
        bias="none",
    )
    return get_peft_model(encoder.model, config)


class SealVision(nn.Module):
    """Stage 2: adapters, gene decoder and SEAL-omics, trained together on the trunk's tokens.

    Parameters
    ----------
    encoder
        The pretrained encoder, without adapters; they are added here.
    omics
        SEAL-omics from stage 1; it goes on learning at the same rate (release: "lr 1e-4 both").

    Attributes
    ----------
    peft
        The PEFT model around `encoder.model`.
    """

    def __init__(self, encoder: VisionEncoder, omics: SealOmics, settings: VisionSettings) -> None:
        super().__init__()
        self.settings = settings
        self.peft = add_adapters(encoder, settings)
        self.encoder = encoder
        self.omics = omics
        genes = len(omics.gene_mean)
        self.decoder = GeneDecoder(encoder.dim, settings.decoder_hidden, genes, settings.decoder_dropout)

    def embed(self, tokens: Tensor) -> Tensor:
        """z_v of trunk tokens: [B, T, D] -> [B, d]."""
        return self.encoder.tail(tokens, self.settings.blocks)

    def losses(self, tokens: Tensor, x: Tensor) -> dict[str, Tensor]:
        """L = w_1 L_INFO + w_2 L_REC,omics + w_3 L_REC,vision.

        Parameters
        ----------
        tokens
            Trunk tokens of the patches, [B, T, D].
        x
            Normalised log expression of the same spots, [B, G].

        Source: release (weights 1).
        """
        s = self.settings
        z_v, z_o = self.embed(tokens), self.omics.encode(x).z
        terms = {
            "info": losses.info_nce(z_v, z_o, s.temperature),
            "rec_omics": self.omics.reconstruction(self.omics.decode(z_o), x)["total"],
            "rec_vision": self.omics.reconstruction(self.decoder(z_v), x)["total"],
        }
        total = (
            s.info_weight * terms["info"]
            + s.rec_omics_weight * terms["rec_omics"]
            + s.rec_vision_weight * terms["rec_vision"]
        )
        return {**terms, "total": total}
