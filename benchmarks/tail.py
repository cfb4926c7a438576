"""Stage 2: trunk tokens kept and the tail trained, against the whole model every step.

Both ways train the same model (LoRA with its dropout on the last N blocks, gene decoder, SEAL-omics, AdamW) on
the same batches, dropout 0.15. Dropout draws a mask for each token, the short tail for fewer of them, so losses
are compared in a run of the same steps without dropout: they must agree to 1e-4 in float32 and to 2 % in
bfloat16. `run` is the whole of ten epochs from pixels, the trunk's one pass among them, without augmentation in
either way; with K views the trunk passes K times.

    python benchmarks/tail.py [--images 96] [--size 224] [--batch 32] [--tiny]
"""

import argparse
import copy
import json
import os
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from seal.files import Made
from seal.models import architecture
from seal.models.encoder_registry import REGISTRY
from seal.models.encoders import VisionEncoder
from seal.models.omics import SealOmics
from seal.models.vision import SealVision
from seal.profiles import OmicsSettings, VisionSettings
from seal.train import parallel, tokens
from seal.train.steps import BLOCK

GENES, EPOCHS = 300, 10


def build(size: int, blocks: int, pooling: str, *, dropout: bool, tiny: bool) -> SealVision:
    """ViT-S/14 with random weights and LoRA on its last blocks; SEAL-omics draws nothing."""
    torch.manual_seed(0)
    spec = replace(REGISTRY["dinov2_s"], pooling=pooling)
    encoder = VisionEncoder(spec, architecture.make_random(spec, size, tiny=tiny))
    omics = SealOmics(GENES, encoder.dim, OmicsSettings(dropout=0.0), torch.zeros(GENES), torch.ones(GENES))
    settings = VisionSettings(blocks=blocks, decoder_dropout=0.0, **({} if dropout else {"lora_dropout": 0.0}))
    model = SealVision(encoder, omics, settings).train()
    model.omics.eval()
    return model


def whole(model: SealVision, images: Tensor) -> Tensor:
    """The plain way: the library's own forward, pooled."""
    found = model.encoder.model.forward_features(images)
    if model.encoder.spec.pooling == "cls":
        return found[:, 0]
    return torch.cat([found[:, 0], found[:, 1:].mean(dim=1)], dim=1)


def in_blocks(model: SealVision, x: Tensor) -> Tensor:
    """The fast way, as `seal.train.steps` does it: block by block."""
    return torch.cat([model.embed(block) for block in x.split(BLOCK)])


def train(model: SealVision, batches, embed, precision: str) -> tuple[float, list[float]]:
    """Train over batches; seconds and losses."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    losses, start = [], time.perf_counter()
    for inputs, x in batches:
        with parallel.autocast(precision):
            z = embed(inputs())
        loss = model.objective(z.float(), x)["total"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return time.perf_counter() - start, losses


def compare(images: Tensor, x: Tensor, batch: int, blocks: int, pooling: str, precision: str, tiny: bool) -> dict:
    """Measure one setting."""
    size, dtype = images.shape[1], "float32" if precision == "float32" else "bfloat16"
    parts, rows = x.split(batch), torch.arange(len(x)).split(batch)

    def pixels(model: SealVision, epochs: int):
        pieces = [images[r] for r in rows] * epochs
        return [(lambda p=p: model.encoder.preprocess(p), t) for p, t in zip(pieces, parts * epochs, strict=True)]

    def cached(file: tokens.TokenFile, epochs: int):
        zeros = [torch.zeros(len(r), dtype=torch.int64).numpy() for r in rows]
        return [
            (lambda v=v, r=r: file.read(v, r.numpy()), t)
            for v, r, t in zip(zeros * epochs, rows * epochs, parts * epochs, strict=True)
        ]

    def trunk(model: SealVision, folder: Path) -> tuple[float, tokens.TokenFile]:
        start = time.perf_counter()

        def stream(requests):
            for _, part in requests:
                with torch.no_grad(), parallel.autocast(precision):
                    yield [model.encoder.trunk(model.encoder.preprocess(images[part]), blocks)]

        wanted = [tokens.Wanted(folder, Made("tokens", 1, {}), lambda: model.encoder.token_shape)]
        tokens.write_tokens(wanted, (1, len(images)), dtype, lambda _: stream)
        return time.perf_counter() - start, tokens.TokenFile(folder, dtype)

    with tempfile.TemporaryDirectory() as folder:
        plain = build(size, blocks, pooling, dropout=False, tiny=tiny)
        fast = copy.deepcopy(plain)
        trunk(fast, Path(folder) / "warm")
        trunk_seconds, file = trunk(fast, Path(folder) / "tokens")
        both = (
            train(fast, cached(file, 1), lambda t: in_blocks(fast, t), precision)[1],
            train(plain, pixels(plain, 1), lambda p: whole(plain, p), precision)[1],
        )
        gap = max(abs(a - b) / abs(b) for a, b in zip(*both, strict=True))
        assert gap < (1e-4 if precision == "float32" else 2e-2), both
        plain = build(size, blocks, pooling, dropout=True, tiny=tiny)
        fast = copy.deepcopy(plain)
        train(fast, cached(file, 2), lambda t: in_blocks(fast, t), precision)
        tail_seconds = train(fast, cached(file, EPOCHS), lambda t: in_blocks(fast, t), precision)[0] / EPOCHS
        whole_seconds = train(plain, pixels(plain, 1), lambda p: whole(plain, p), precision)[0]
    n = len(images)
    return {
        "benchmark": "stage 2: kept tokens against the whole model every step",
        "geometry": f"ViT-S/14, {size} px, N {blocks}, {pooling}, batch {batch}, {precision}",
        "epoch_cached_img_per_s": round(n / tail_seconds, 1),
        "epoch_whole_img_per_s": round(n / whole_seconds, 1),
        "epoch_ratio": round(whole_seconds / tail_seconds, 1),
        "trunk_img_per_s": round(n / trunk_seconds, 1),
        "run_ratio_10_epochs_1_view": round(EPOCHS * whole_seconds / (trunk_seconds + EPOCHS * tail_seconds), 1),
        "run_ratio_10_epochs_2_views": round(EPOCHS * whole_seconds / (2 * trunk_seconds + EPOCHS * tail_seconds), 1),
        "largest_relative_loss_difference": float(f"{gap:.1e}"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, "
        f"torch {torch.__version__}",
    }


SETTINGS = (
    (1, "cls", "float32"),
    (1, "cls", "bfloat16"),
    (3, "cls", "float32"),
    (1, "cls_mean", "float32"),
    (3, "cls_mean", "float32"),
)


def main() -> None:
    """Measure each setting and print a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tiny", action="store_true", help="4 blocks of width 48, to see that it runs")
    arguments = parser.parse_args()
    torch.manual_seed(1)
    images = torch.randint(0, 256, (arguments.images, arguments.size, arguments.size, 3), dtype=torch.uint8)
    x = torch.rand(arguments.images, GENES)
    for setting in SETTINGS:
        print(json.dumps(compare(images, x, arguments.batch, *setting, arguments.tiny)), flush=True)


if __name__ == "__main__":
    main()
