"""Dropout that does not wait for random numbers on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seal.shapes import Float

_BITS = 16


class Dropout(nn.Dropout):
    """Dropout whose mask on a CPU comes from 16 random bits an element.

    y = x m / (1 - p'),  m = 0 with probability p' = round(2^16 p) / 2^16

    torch draws a number of its own for each element there, which takes longer than everything else that the
    tail of an encoder does. p' differs from p by less than 1e-5, and the scale is that of p'. Elsewhere this is
    `torch.nn.Dropout` itself.

    Source: our choice.
    """

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Drop elements in training; give x as it is in evaluation."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        dropped = round(self.p * 2**_BITS)
        # random_ without bounds would leave the sign bit at zero
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        noise = words.view(torch.int16)[: x.numel()].view(x.shape)  # the shape of x
        return (x * (noise >= dropped - 2 ** (_BITS - 1))).mul_(2**_BITS / (2**_BITS - dropped))
