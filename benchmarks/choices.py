"""What is used, or left out, because it was measured: each choice against its alternative, the same work both ways.

    optimiser   fused AdamW, against torch's default, on what stage 2 trains
    attention   scaled_dot_product_attention, against explicit softmax, in the trunk
    compile     the trunk through torch.compile, against eager; and after how many patches compiling has paid
    dropout     masks from 16 random bits (seal.models.dropout), against torch.nn.Dropout; on a CPU
    class_token the last block for the class token alone (seal.models.class_token), against the whole block
    tails       several tails embedded in one pass over the trunk, against one pass a tail

The two ways take turns; `seconds` are medians over the turns, `ratio` is the alternative's over the choice's, so
above 1 speaks for the choice. Results are compared first: `difference` is |a - b| / |b|, and must be at most
`tolerance`. Two dropouts draw other masks: there the difference is the one in the share that is dropped, and what
is kept must be scaled alike. Float32 throughout. Runs on the GPU if there is one, the dropout's line apart.

    python benchmarks/choices.py [--only compile ...] [--batch 32] [--size 224] [--repeats 5] [--tiny]
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from common import alternate, make_patches, relative, report, seconds
from torch import Tensor, nn

from seal import profiles
from seal.models import architecture
from seal.models.dropout import Dropout
from seal.models.encoder_registry import REGISTRY
from seal.models.encoders import VisionEncoder
from seal.models.omics import SealOmics
from seal.models.vision import SealVision, add_lora
from seal.profiles import OmicsSettings, VisionSettings
from seal.train import batches, parallel

GENES, BLOCKS = 300, 1


@dataclass(frozen=True)
class Sizes:
    """How much work."""

    batch: int
    size: int  # px
    repeats: int
    tiny: bool

    @property
    def label(self) -> str:
        """The geometry in words."""
        return f"{'tiny' if self.tiny else 'ViT-S/14'}, {self.size} px, batch {self.batch}, float32"

    def encoder(self) -> VisionEncoder:
        """Random weights, always the same."""
        spec = REGISTRY["dinov2_s"]
        model = architecture.make_random(spec, self.size, tiny=self.tiny)
        return VisionEncoder(spec, model).eval().to(parallel.device())

    def images(self) -> Tensor:
        """Preprocessed images, always the same."""
        draw = torch.Generator().manual_seed(0)
        return torch.randn(self.batch, 3, self.size, self.size, generator=draw).to(parallel.device())

    def tokens(self, encoder: VisionEncoder) -> Tensor:
        """Trunk tokens, always the same."""
        draw = torch.Generator().manual_seed(1)
        return torch.randn(self.batch, *encoder.token_shape, generator=draw).to(parallel.device())


def measured(
    choice: str, work: str, chosen: str, ways: dict[str, Callable[[], Any]], sizes: Sizes, gap: float, tolerance: float
) -> dict:
    """Time two ways whose results are equal to `tolerance`; `chosen` names the one that is used."""
    assert gap <= tolerance, f"{choice}: the two ways differ by {gap:.2g}, more than {tolerance}"
    taken = alternate(ways, sizes.repeats)
    (other,) = taken.keys() - {chosen}
    return {
        "choice": choice,
        "work": work,
        "geometry": sizes.label,
        "used": chosen,
        "seconds": taken,
        "ratio": taken[other] / taken[chosen],
        "difference": gap,
        "tolerance": tolerance,
        "repeats": sizes.repeats,
    }


def optimiser(sizes: Sizes) -> dict:
    """Ten steps on the same gradients."""
    torch.manual_seed(0)
    encoder = sizes.encoder()
    omics = SealOmics(GENES, encoder.dim, OmicsSettings(), torch.zeros(GENES), torch.ones(GENES))
    model = SealVision(encoder, omics, VisionSettings(blocks=BLOCKS))
    start = [p.detach() for p in model.to(parallel.device()).parameters() if p.requires_grad]
    ways, trained = {}, {}
    for name, options in (("fused", {"fused": True}), ("default", {})):
        trained[name] = [nn.Parameter(p.clone()) for p in start]
        adamw = torch.optim.AdamW(trained[name], lr=1e-4, weight_decay=0.2, **options)
        draw = torch.Generator(parallel.device()).manual_seed(0)
        for p in trained[name]:
            p.grad = torch.randn(p.shape, generator=draw, device=p.device)
        ways[name] = lambda adamw=adamw: [adamw.step() for _ in range(10)]
        ways[name]()
    fused, default = (
        torch.cat([(p - q).flatten() for p, q in zip(trained[name], start, strict=True)]) for name in trained
    )
    gap = relative(fused, default)
    count = sum(p.numel() for p in start)
    work = f"ten steps of AdamW on {len(start)} tensors, {count:,} numbers; how far they move is compared"
    return measured("optimiser", work, "fused", ways, sizes, gap, 1e-4)


@torch.no_grad()
def attention(sizes: Sizes) -> dict:
    """One pass through the trunk."""
    from timm.layers import set_fused_attn, use_fused_attn

    images, before, trunks = sizes.images(), use_fused_attn(), {}
    try:
        for name, fused in (("sdpa", True), ("softmax", False)):
            set_fused_attn(enable=fused)
            trunks[name] = sizes.encoder()
            assert trunks[name].model.blocks[0].attn.fused_attn == fused
    finally:
        set_fused_attn(enable=bool(before))
    ways = {name: lambda e=encoder: e.trunk(images, BLOCKS) for name, encoder in trunks.items()}
    gap = relative(ways["sdpa"](), ways["softmax"]())
    return measured("attention", "forward of the trunk", "sdpa", ways, sizes, gap, 1e-5)


@torch.no_grad()
def compiled(sizes: Sizes) -> dict:
    """One pass through the trunk, after the first."""
    if parallel.device().type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        return {"choice": "compile", "skipped": "no C++ compiler on this machine"}
    encoder, images = sizes.encoder(), sizes.images()
    backend = "eager" if sizes.tiny else "inductor"  # only that the graph is captured, where it is only to run
    run = torch.compile(encoder.trunk, backend=backend)
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, {"TORCHINDUCTOR_CACHE_DIR": cache}):
        try:
            first = seconds(lambda: run(images, BLOCKS))
        except torch._dynamo.exc.TorchDynamoException as error:
            return {"choice": "compile", "skipped": f"torch.compile fails: {str(error).splitlines()[0]}"}
        ways = {"eager": lambda: encoder.trunk(images, BLOCKS), "compiled": lambda: run(images, BLOCKS)}
        gap = relative(ways["compiled"](), ways["eager"]())
        line = measured("compile", "forward of the trunk", "eager", ways, sizes, gap, 1e-4)
    saved = (line["seconds"]["eager"] - line["seconds"]["compiled"]) / sizes.batch
    compiling = first - line["seconds"]["compiled"]
    return line | {
        "backend": backend,
        "compile_seconds": compiling,
        "saved_seconds_a_patch": saved,
        "pays_after_patches": round(compiling / saved) if saved > 0 else None,
    }


def dropout(sizes: Sizes) -> dict:
    """Forward and backward over the tokens of a batch, as in front of each adapter."""
    p, shape = 0.15, (sizes.batch, *sizes.encoder().token_shape)
    x = torch.ones(shape, requires_grad=True)
    torch.manual_seed(0)
    layers = {"16 bits": Dropout(p), "torch": nn.Dropout(p)}
    shares = {}
    for name, layer in layers.items():
        y = layer(x)
        y.backward(torch.ones_like(y))
        assert torch.equal(x.grad, y.detach())  # the gradient passes where the token did, scaled alike
        torch.testing.assert_close(y.max().item(), 1 / (1 - p), rtol=2e-5, atol=0)
        shares[name], x.grad = float((y == 0).double().mean()), None
    sd = (2 * p * (1 - p) / x.numel()) ** 0.5
    inputs = torch.randn(shape, requires_grad=True)
    ways = {name: lambda f=layer: f(inputs).sum().backward() for name, layer in layers.items()}
    gap = abs(shares["16 bits"] - shares["torch"])
    work = "dropout of a batch's tokens, forward and backward, on a CPU; share dropped compared, to 5 sd of chance"
    return measured("dropout", work, "16 bits", ways, sizes, gap, 5 * sd)


def class_token(sizes: Sizes) -> dict:
    """Forward and backward of the tail with LoRA, without its dropout."""
    torch.manual_seed(0)
    encoder = sizes.encoder()
    add_lora(encoder, VisionSettings(blocks=BLOCKS, lora_dropout=0.0))
    encoder.to(parallel.device())
    trained = [p for p in encoder.parameters() if p.requires_grad]
    for p in trained:  # B starts at zero, where half the gradients vanish
        nn.init.normal_(p, std=0.02)
    tokens_in = sizes.tokens(encoder)
    weight = torch.randn(sizes.batch, encoder.dim, generator=torch.Generator().manual_seed(2)).to(tokens_in.device)

    def work(embed: Callable[[Tensor], Tensor]) -> list[Tensor]:
        z = embed(tokens_in)
        return [z, *torch.autograd.grad((z * weight).sum(), trained)]

    whole = lambda t: encoder._norm(encoder._blocks[-1](t))[:, 0]  # noqa: E731
    ways = {"class token": lambda: work(lambda t: encoder.tail(t, BLOCKS)), "whole block": lambda: work(whole)}
    pairs = zip(ways["class token"](), ways["whole block"](), strict=True)
    gap = max(relative(a, b) for a, b in pairs)
    what = "last block with LoRA, forward and backward from tokens; embedding and each gradient compared"
    return measured("class_token", what, "class token", ways, sizes, gap, 1e-4)


def tails(sizes: Sizes) -> dict:
    """Embed the same patches with three tails of one encoder."""
    compute = profiles.ComputeSettings(tokens="recompute")
    profile = profiles.get("demo", encoder="dinov2_s", image_size=sizes.size, compute=compute)
    encoder = sizes.encoder()
    several = {"frozen": encoder}
    for seed in (1, 2):
        torch.manual_seed(seed)
        several[str(seed)] = encoder.fork(BLOCKS)
        add_lora(several[str(seed)], VisionSettings(blocks=BLOCKS))
        for name, p in several[str(seed)].named_parameters():
            if "lora_" in name:
                nn.init.normal_(p, std=0.02)
    with tempfile.TemporaryDirectory() as folder:
        source = batches.RecomputedTokens(make_patches(Path(folder) / "p.npy", profile, sizes.batch), "key")
        source.encoder = encoder
        ways = {
            "one pass": lambda: batches.embed(several, source),
            "a pass a tail": lambda: {n: batches.embed({n: tail}, source)[n] for n, tail in several.items()},
        }
        one, each = ways["one pass"](), ways["a pass a tail"]()
        assert relative(torch.from_numpy(one["1"]), torch.from_numpy(one["2"])) > 1e-3  # three tails, not one
        gap = max(relative(*(torch.from_numpy(found[name]) for found in (one, each))) for name in several)
        work = "embed the same patches with three tails, trunk recomputed"
        return measured("tails", work, "one pass", ways, replace(sizes, repeats=min(3, sizes.repeats)), gap, 1e-6)


CHOICES = {
    "optimiser": optimiser,
    "attention": attention,
    "compile": compiled,
    "dropout": dropout,
    "class_token": class_token,
    "tails": tails,
}


def main() -> None:
    """Measure each choice and print a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CHOICES, default=list(CHOICES))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="px a patch side")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="4 blocks of width 48, to see that it runs")
    arguments = parser.parse_args()
    sizes = Sizes(arguments.batch, arguments.size, arguments.repeats, arguments.tiny)
    if arguments.tiny:
        sizes = Sizes(4, 28, 2, tiny=True)
    torch.backends.cudnn.allow_tf32 = False
    for name in arguments.only:
        report("choice", **CHOICES[name](sizes))


if __name__ == "__main__":
    main()
