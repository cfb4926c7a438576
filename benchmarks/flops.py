"""How much arithmetic a trunk is, and how much a card can do."""

import torch

from seal.models.encoder_registry import Geometry

# Dense bfloat16 peak by the vendor's data sheets, TFLOP/s
PEAKS = {"NVIDIA H100 80GB HBM3": 989.4, "NVIDIA H200": 989.4, "NVIDIA H100 PCIe": 756.0}


def dense_peak(card: str | None = None) -> float | None:
    """The dense bfloat16 peak of a card (the first GPU here by default), TFLOP/s; None if the table lacks it."""
    if card is None and torch.cuda.is_available():
        card = torch.cuda.get_device_name(0)
    return PEAKS.get(card)


def trunk(geometry: Geometry, image_size: int, blocks: int) -> int:
    """Floating-point operations of one image's trunk, all blocks but the last `blocks`: matrix products alone.

    T = 1 + registers + (S / p)^2, D = width; a product of [a, b] and [b, c] counts 2 a b c
    patch embedding 2 (S / p)^2 3 p^2 D;  a block: qkv 6 T D^2, scores and sums 4 T^2 D, proj 2 T D^2,
    MLP 2 T D (fc1's outputs + fc2's inputs), the second half the first with SwiGLU
    """
    positions = (image_size // geometry.patch) ** 2
    t, d = 1 + geometry.registers + positions, geometry.width
    hidden = int(d * geometry.mlp_ratio)
    mlp = 2 * t * d * (hidden + (hidden // 2 if geometry.swiglu else hidden))
    block = 6 * t * d * d + 4 * t * t * d + 2 * t * d * d + mlp
    return 2 * positions * 3 * geometry.patch**2 * d + (geometry.depth - blocks) * block
