"""Stage 2, one epoch: trunk tokens kept and the class token's tail, against the whole model every step.

Both ways take the same batches and the same weights, without dropout; their losses must agree to 1e-4. The
tokens' own making is reported beside the ratio, since it is paid once for all epochs, folds and seeds.

    python benchmarks/tail.py [--images 96] [--size 224] [--batch 32]
"""

import argparse
import copy
import json
import os
import platform
import time

import torch

from seal.models import encoders
from seal.models.omics import SealOmics
from seal.models.vision import SealVision
from seal.profiles import OmicsSettings, VisionSettings

GENES = 300


def build(size: int) -> SealVision:
    """ViT-S/14 with random weights, LoRA on its last block, no dropout anywhere."""
    torch.manual_seed(0)
    encoder = encoders.build("dinov2_s", weights="random", image_size=size)
    omics = SealOmics(GENES, encoder.dim, OmicsSettings(dropout=0.0), torch.zeros(GENES), torch.ones(GENES))
    model = SealVision(encoder, omics, VisionSettings(lora_dropout=0.0, decoder_dropout=0.0)).train()
    model.omics.eval()  # its encoder draws z in training, which would blur the comparison
    return model


def epoch(model: SealVision, batches, embed) -> tuple[float, list[float]]:
    """Train one epoch; seconds and the losses."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    model.embed = embed
    losses, start = [], time.perf_counter()
    for inputs, x in batches:
        loss = model.losses(inputs, x)["total"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return time.perf_counter() - start, losses


def main() -> None:
    """Measure both ways and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    images = torch.randn(arguments.images, 3, arguments.size, arguments.size)
    x = torch.rand(arguments.images, GENES)
    cached = build(arguments.size)
    whole = copy.deepcopy(cached)
    start = time.perf_counter()
    with torch.no_grad():
        tokens = torch.cat([cached.encoder.trunk(part, 1) for part in images.split(32)])
    trunk_seconds = time.perf_counter() - start
    parts = x.split(arguments.batch)
    fast, fast_losses = epoch(
        cached, zip(tokens.split(arguments.batch), parts, strict=True), lambda z: cached.encoder.tail(z, 1)
    )
    plain, plain_losses = epoch(
        whole, zip(images.split(arguments.batch), parts, strict=True), lambda pixels: whole.encoder(pixels)
    )
    gap = max(abs(a - b) for a, b in zip(fast_losses, plain_losses, strict=True))
    assert gap < 1e-4, (fast_losses, plain_losses)
    line = {
        "benchmark": "stage 2 epoch, cached trunk against whole model every step",
        "geometry": f"ViT-S/14, {arguments.size} px, batch {arguments.batch}, fp32",
        "cached_img_per_s": round(arguments.images / fast, 1),
        "whole_img_per_s": round(arguments.images / plain, 1),
        "ratio": round(plain / fast, 1),
        "trunk_once_img_per_s": round(arguments.images / trunk_seconds, 1),
        "largest_loss_difference": gap,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}",
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
