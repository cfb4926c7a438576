"""Two on the embedding alone: ST-Net, and the control that never sees expression."""

import torch.nn.functional as F
from torch import Tensor, nn

from seal import losses
from seal.models.baselines.base import Baseline, Embedding, Parts, Rows, Spots, Terms
from seal.shapes import Float


class StNet(Baseline):
    """Linear head on z, squared error; its weights start at zero, its bias at the training mean.

    L = 1/(B G) sum_bg (W z_b + b - x_b)_g^2

    Source: bryanhe/ST-Net (He et al. 2020). Departures: the profile's encoder and adapter where it tunes a DenseNet-121
    with SGD; the mean over spots, not their sum; one view where it averages eight symmetries; a fixed schedule where it
    chooses the number of epochs by an inner cross-validation.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.head = nn.Linear(self.encoder.dim, len(parts.mean))
        nn.init.zeros_(self.head.weight)
        self.head.bias.data.copy_(parts.mean)

    @property
    def last_layers(self) -> list[nn.Linear]:
        """The head."""
        return [self.head]

    def objective(self, z: Embedding, spots: Spots) -> Terms:
        """L: mse, and total = mse."""
        mse = F.mse_loss(self.expression(z, spots.rows), spots.x)
        return {"mse": mse, "total": mse}

    def expression(self, z: Embedding, rows: Rows) -> Float[Tensor, "batch genes"]:
        """Predict the panel."""
        return self.head(z)


class NoExpression(Baseline):
    """SEAL's adapter trained without any expression: two views of a patch are each other's positive.

    L = L_INFO(z_1, z_2), SEAL's temperature. Source: our control; SPECTRA and others gain from such training.
    """

    def objective(self, z: Float[Tensor, "views dim"], spots: Spots) -> Terms:
        """L of all first views, then all second ones; `spots`, without a gene, are not read."""
        one, other = z.chunk(2)  # [B, d] each
        info = losses.info_nce(one, other, self.settings.temperature)
        return {"info": info, "total": info}
