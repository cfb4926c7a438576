"""What a baseline is built from, learns from and predicts from."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from seal.models.encoders import VisionEncoder
from seal.models.omics import SealOmics
from seal.models.vision import add_adapter
from seal.profiles import BaselineSettings, VisionSettings
from seal.shapes import Float, Int

Embedding = Float[Tensor, "batch dim"]
Rows = Int[Tensor, " batch"]  # of the pairs
Terms = dict[str, Float[Tensor, ""]]


class Spots(NamedTuple):
    """Spots of a batch: spot context, and their rows among the pairs."""

    x: Float[Tensor, "batch genes"]
    rows: Rows


@dataclass(frozen=True)
class Surroundings:
    """Where every spot with a patch stands and what lies around it, as rows of the pairs (`seal.data.neighbours`)."""

    places: Int[Tensor, "pairs 2"]  # array_row, array_col
    ring: Int[Tensor, "pairs ring"]  # true neighbours; -1: no spot there
    window: Int[Tensor, "pairs window"]  # itself and those up to two steps away; -1: no spot there
    sections: Int[Tensor, "pairs 2"]  # first row of its section, and the one behind the last
    frozen: Float[Tensor, "pairs dim"] | None = None  # embeddings by the encoder as it came

    def gather(
        self, around: Int[Tensor, "batch around"]
    ) -> tuple[Float[Tensor, "batch around dim"], Float[Tensor, "batch around"]]:
        """Frozen embeddings of the spots around, and 1 where a spot is; what stands elsewhere means nothing."""
        return self.frozen[around.clamp_min(0)], (around >= 0).float()


class Bank(NamedTuple):
    """What is known of the training spots when a test spot is predicted."""

    keys: Float[Tensor, "train shared"] | None  # of models that look spots up, see `keys`
    values: Float[Tensor, "train test_genes"]  # the spots' own expression
    columns: list[int]  # of the test genes in the panel


@dataclass(frozen=True)
class Parts:
    """What baselines are built from; `tissue` and `omics` for those that name them."""

    encoder: VisionEncoder
    vision: VisionSettings
    own: BaselineSettings
    mean: Float[Tensor, " genes"]  # over the training spots
    sd: Float[Tensor, " genes"]
    tissue: Surroundings | None = None
    omics: SealOmics | None = None


class Baseline(nn.Module):
    """The encoder with SEAL's adapter in its last blocks; subclasses add what stands on the embedding z.

    They give `objective(z, spots)`, named loss terms with `total`, and `expression(z, rows)` of the panel, or a
    `predict` of their own and `keys(spots)`, which it looks up.
    """

    adapts, learns_omics, looks_up = True, False, False
    needs: str = ""  # of the tissue: "places", or "frozen", its embeddings too
    uses: tuple[str, ...] = ()  # settings of the room that its weights depend on

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.settings, self.own, self.tissue = parts.vision, parts.own, parts.tissue
        self.peft = add_adapter(parts.encoder, parts.vision) if self.adapts else None
        if self.adapts:
            self.encoder = parts.encoder
        self.register_buffer("gene_mean", parts.mean.clone())
        self.register_buffer("gene_sd", parts.sd.clone())

    @property
    def last_layers(self) -> list[nn.Linear]:
        """The layers that give expression; none by default."""
        return []

    def embed(self, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch dim"]:
        """Give z of the trunk's tokens."""
        return self.encoder.tail(tokens, self.settings.blocks)

    def predict(self, z: Embedding, rows: Rows, bank: Bank) -> Float[Tensor, "batch test_genes"]:
        """Predict the test genes; `rows` are those of the patches of z."""
        return self.expression(z, rows)[:, bank.columns]


def largest_divisor(number: int, most: int) -> int:
    """Give the largest number up to `most` that divides `number`: how many heads an attention can have."""
    return next(heads for heads in range(min(most, number), 0, -1) if number % heads == 0)
