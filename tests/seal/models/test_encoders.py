import numpy as np
import pytest
import timm
import torch
from peft import LoraConfig, get_peft_model
from timm.layers import SwiGLUPacked
from torch import nn

from seal import profiles, results
from seal.errors import SealError
from seal.models import architecture
from seal.models.encoder_registry import REGISTRY
from seal.models.encoders import VisionEncoder, build
from seal.models.vision import tabulate_encoders

ONE_OF_EACH_KIND = ("dinov2_s", "phikon_v2", "uni2_h", "virchow2", "h0_mini", "conch")


def tiny(name: str) -> VisionEncoder:
    """A tiny encoder, four patches a side, with noise on all weights: norms and biases would else hide."""
    encoder = build(name, weights="random", tiny=True, image_size=4 * REGISTRY[name].geometry.patch)
    generator = torch.Generator().manual_seed(1)
    for parameter in encoder.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return encoder


def images(encoder: VisionEncoder, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, encoder.image_size, encoder.image_size, generator=torch.Generator().manual_seed(2))


def with_lora(encoder: VisionEncoder, n: int, dropout: float = 0.0):
    config = LoraConfig(r=4, lora_alpha=4, lora_dropout=dropout, target_modules=encoder.lora_targets(n))
    return get_peft_model(encoder.model, config)


def reference(encoder: VisionEncoder, x: torch.Tensor) -> torch.Tensor:
    """The embedding from the plain module's own forward, pooled as its authors write it."""
    if encoder.spec.family == "transformers":
        return encoder.model(x).last_hidden_state[:, 0]
    if encoder.spec.pooling == "cls_mean":
        tokens = encoder.model(x)
        patches = tokens[:, -16:]
        assert tokens.shape[1] == 1 + 4 + 16  # both such encoders have four registers
        return torch.cat([tokens[:, 0], patches.mean(1)], dim=-1)
    return encoder.model(x)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
@torch.no_grad()
def test_cut_anywhere_it_equals_the_whole_model(name):
    encoder = tiny(name)
    x = images(encoder)
    expected = reference(encoder, x)
    assert expected.shape == (2, encoder.dim)
    assert (expected[0] - expected[1]).abs().max() > 0.05  # else the comparison would prove nothing
    torch.testing.assert_close(encoder(x), expected, atol=1e-5, rtol=1e-5)
    for n in range(1, encoder.depth + 1):
        torch.testing.assert_close(encoder.tail(encoder.trunk(x, n), n), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_lora_changes_nothing_at_first_acts_in_the_tail_and_merges(name):
    encoder = tiny(name)
    x = images(encoder)
    with torch.no_grad():
        before = encoder(x)
        keys = set(encoder.model.state_dict())
        tokens = encoder.trunk(x, 2)
        peft = with_lora(encoder, 2)
        # MultiheadAttention in CONCH's pool takes another kernel once its weights are frozen: not exactly 0.
        torch.testing.assert_close(encoder(x), before, atol=5e-6 if name == "conch" else 0, rtol=0)
        for key, parameter in peft.named_parameters():
            if "lora_B" in key:
                parameter.data.normal_(std=0.3)
        adapted = encoder.tail(tokens, 2)
        torch.testing.assert_close(encoder.trunk(x, 2), tokens, atol=0, rtol=0)
        assert (adapted - before).abs().max() > 0.05
        torch.testing.assert_close(adapted, reference(encoder, x), atol=1e-5, rtol=1e-5)
        merged = peft.merge_and_unload()
        assert merged is encoder.model
        assert set(merged.state_dict()) == keys
        torch.testing.assert_close(encoder(x), adapted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_every_adapter_of_the_tail_gets_a_gradient_and_nothing_else_does(name):
    encoder = tiny(name)
    peft = with_lora(encoder, 1, dropout=0.15).train()
    with torch.no_grad():
        tokens = encoder.trunk(images(encoder), 1)
    encoder.tail(tokens, 1).square().sum().backward()
    moved = {key for key, p in peft.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved == {key for key, _ in peft.named_parameters() if "lora_B" in key}  # A's is zero while B is
    last = encoder.depth - 1
    assert len(moved) == (6 if name == "phikon_v2" else 4)
    assert all(f"blocks.{last}." in key or f"layer.{last}." in key for key in moved)


@pytest.mark.parametrize("name", ["dinov2_s", "phikon_v2"])
def test_gradients_of_the_short_last_block_equal_those_of_the_whole_block(name):
    encoder = tiny(name)
    tokens = encoder.trunk(images(encoder), 1).detach()
    last = encoder._blocks[-1]
    short = torch.autograd.grad(encoder.tail(tokens, 1).square().sum(), list(last.parameters()))
    whole = torch.autograd.grad(encoder._norm(last(tokens))[:, 0].square().sum(), list(last.parameters()))
    for a, b in zip(short, whole, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "blocks", "released"), [("conch", 1, 98_304), ("uni2_h", 3, 589_824)])
def test_full_size_adapters_have_as_many_weights_as_the_released_ones(name, blocks, released):
    with torch.device("meta"):
        encoder = VisionEncoder(REGISTRY[name], architecture.make_plain(REGISTRY[name], REGISTRY[name].image_size))
        config = LoraConfig(r=8, lora_alpha=8, lora_dropout=0.15, target_modules=encoder.lora_targets(blocks))
        peft = get_peft_model(encoder.model, config)
    assert sum(p.numel() for p in peft.parameters() if p.requires_grad) == released
    assert len(encoder.lora_targets(blocks)) == 4 * blocks


SWIGLU = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "num_classes": 0, "init_values": 1e-5, "img_size": 224}
PUBLISHED = {  # what each model card passes to timm.create_model
    "uni2_h": ("vit_giant_patch14_224", {**SWIGLU, "patch_size": 14, "depth": 24, "num_heads": 24, "embed_dim": 1536,
                                         "mlp_ratio": 2.66667 * 2, "no_embed_class": True, "reg_tokens": 8}),
    "virchow2": ("vit_huge_patch14_224", {**SWIGLU, "mlp_ratio": 5.3375, "reg_tokens": 4, "global_pool": ""}),
    "h0_mini": ("vit_base_patch14_reg4_dinov2", {**SWIGLU, "mlp_ratio": 5.33334, "global_pool": ""}),
    "dinov2_s": ("vit_small_patch14_dinov2", {"num_classes": 0, "img_size": 224}),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_geometry_is_the_published_one(name):
    spec = REGISTRY[name]
    architecture_name, kwargs = PUBLISHED[name]
    with torch.device("meta"):
        theirs = timm.create_model(architecture_name, **kwargs)
        ours = architecture.make_plain(spec, spec.image_size)
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (theirs, ours)]
    assert shapes[0] == shapes[1]
    assert [block.attn.num_heads for block in ours.blocks] == [block.attn.num_heads for block in theirs.blocks]
    assert type(ours.blocks[0].mlp.act) is type(theirs.blocks[0].mlp.act)
    assert getattr(ours.blocks[0].mlp, "gate_last", None) == getattr(theirs.blocks[0].mlp, "gate_last", None)
    assert (ours.norm.eps, ours.global_pool) == (theirs.norm.eps, theirs.global_pool)
    assert VisionEncoder(spec, ours).dim == spec.dim


MILLIONS = {"conch": 90, "h0_mini": 86, "phikon_v2": 303, "uni2_h": 681, "virchow2": 631, "dinov2_s": 22}


@pytest.mark.parametrize("name", MILLIONS)
def test_as_many_parameters_as_published(name):
    with torch.device("meta"):
        model = architecture.make_plain(REGISTRY[name], REGISTRY[name].image_size)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == MILLIONS[name]


def test_embedding_sizes_are_those_of_the_facts():
    sizes = {name: spec.dim for name, spec in REGISTRY.items() if not spec.whole}
    assert sizes == {"conch": 512, "h0_mini": 1536, "phikon_v2": 1024, "uni2_h": 1536, "virchow2": 2560,
                     "dinov2_s": 384, "dinov2s_derived": 384}  # fmt: skip
    assert REGISTRY["dinov2s_derived"].label == "DINOv2-S-derived"
    assert [name for name, spec in REGISTRY.items() if spec.gated] == ["conch", "h0_mini", "uni2_h", "virchow2"]


def test_what_is_cut_is_the_whole_encoder_read_after_some_blocks():
    whole = build("dinov2s_derived", image_size=56)
    for blocks in (6, 9):
        cut = build(f"dinov2s_derived_b{blocks}", image_size=56)
        assert (cut.depth, cut.dim) == (blocks, 384)
        with torch.no_grad():
            expected = whole._norm(whole.trunks(images(whole), (blocks,))[0])[:, 0]
            torch.testing.assert_close(cut(images(cut)), expected, atol=1e-5, rtol=1e-5)
        assert cut.spec.label == f"DINOv2-S-derived, {blocks} of 12 blocks"


def test_several_trunks_in_one_pass_are_those_of_one_pass_each():
    encoder = tiny("dinov2_s")
    with torch.no_grad():
        together = encoder.trunks(images(encoder), (3, 0, 2))
        for blocks, tokens in zip((1, 4, 2), together, strict=True):
            torch.testing.assert_close(tokens, encoder.trunk(images(encoder), blocks), atol=0, rtol=0)


@pytest.mark.parametrize("name", REGISTRY)
def test_tiny_keeps_all_but_width_and_depth(name):
    full, small = REGISTRY[name].geometry, REGISTRY[name].geometry.tiny()
    for field in ("patch", "mlp_ratio", "swiglu", "registers", "layer_scale", "prefix_positions"):
        assert getattr(small, field) == getattr(full, field)
    assert bool(small.pool_width) == bool(full.pool_width)


def test_preprocessing_equals_pillow_and_torchvision():
    from PIL import Image
    from torchvision import transforms

    encoder = build("h0_mini", weights="random", tiny=True, image_size=112)
    patches = np.random.default_rng(0).integers(0, 256, (2, 300, 300, 3), dtype=np.uint8)
    patches[1] = np.linspace(0, 255, 300, dtype=np.uint8)[:, None, None]
    theirs = transforms.Compose([
        transforms.Resize(112, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.ToTensor(),
        transforms.Normalize((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)),
    ])  # fmt: skip
    expected = torch.stack([theirs(Image.fromarray(patch)) for patch in patches])
    ours = encoder.preprocess(patches)
    assert ours.dtype == torch.float32
    # In grey levels. Pillow rounds between its two passes, we round once; bilinear would be 4 levels off.
    difference = (ours - expected).abs() * 255 * torch.tensor(encoder.spec.std).view(3, 1, 1)
    assert difference.max() < 2.01
    assert difference.mean() < 0.2


def test_preprocessing_leaves_pixels_alone_at_the_right_size():
    encoder = build("dinov2_s", weights="random", tiny=True, image_size=28)
    patches = torch.randint(0, 256, (2, 28, 28, 3), dtype=torch.uint8)
    x = encoder.preprocess(patches) * torch.tensor(encoder.spec.std).view(3, 1, 1)
    x = (x + torch.tensor(encoder.spec.mean).view(3, 1, 1)) * 255
    torch.testing.assert_close(x.permute(0, 2, 3, 1), patches.float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("shape", [(2, 28, 14, 3), (2, 3, 28, 28), (28, 28, 3)])
def test_images_of_another_shape_are_refused(shape):
    encoder = build("dinov2_s", weights="random", tiny=True, image_size=28)
    with pytest.raises(SealError, match=r"images are torch\.uint8"):
        encoder.preprocess(np.zeros(shape, np.uint8))
    with pytest.raises(SealError, match="float"):
        encoder.preprocess(np.zeros((2, 28, 28, 3), np.float32))


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    states = [build("virchow2", weights="random", tiny=True, seed=seed).model.state_dict() for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), expected)  # the global random state was left alone
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["pos_embed"], states[2]["pos_embed"])


@pytest.mark.parametrize("name", REGISTRY)
@torch.no_grad()
def test_a_random_encoder_looks_at_its_image(name):
    encoder = build(name, weights="random", tiny=True, image_size=2 * REGISTRY[name].geometry.patch)
    assert not encoder.training
    z = encoder(images(encoder, 4))
    assert (z.std(dim=0) / z.std()).mean() > 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "uni"}, "unknown encoder 'uni'"),
        ({"name": "dinov2_s", "weights": "random", "image_size": 100}, "image size 100 for DINOv2-S"),
        ({"name": "dinov2_s", "weights": "random", "image_size": 0}, "image size 0"),
        ({"name": "dinov2_s", "weights": "imagenet"}, "weights 'imagenet'"),
        ({"name": "dinov2_s", "tiny": True}, "tiny"),
    ],
)
def test_what_cannot_be_built_is_named(arguments, message):
    with pytest.raises(SealError, match=message):
        build(**arguments)


@pytest.mark.parametrize("n", [0, 5, -1])
def test_a_tail_longer_than_the_model_or_empty_is_refused(n):
    encoder = build("dinov2_s", weights="random", tiny=True, image_size=28)
    for call in (lambda: encoder.lora_targets(n), lambda: encoder.trunk(images(encoder), n)):
        with pytest.raises(SealError, match=f"{n} blocks of DINOv2-S"):
            call()


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": "lora"},
        {"adapter": "lora", "lora_layers": "mlp"},
        {"adapter": "full"},
        {"adapter": "bottleneck"},
        {"adapter": "bottleneck_twice"},
    ],
)
def test_the_table_counts_what_the_adapter_trains(changes):
    settings = profiles.VisionSettings(blocks=2, rank=4, bottleneck=16, **changes)
    table = tabulate_encoders(settings, "conch").set_index("name", drop=False)
    assert set(results.RESULTS["encoders"].columns) <= set(table.columns)
    assert set(table["adapter"]) == {settings.adapter}
    assert list(table.index[table["used"]]) == ["conch"]
    for name in ("dinov2_s", "conch"):
        spec = REGISTRY[name]
        with torch.device("meta"):
            plain = VisionEncoder(spec, architecture.make_plain(spec, spec.image_size))
        linears = [plain.model.get_submodule(target) for target in plain.lora_targets(2, settings.lora_layers)]
        expected = {
            "lora": sum(4 * (linear.in_features + linear.out_features) for linear in linears),
            "full": sum(p.numel() for p in plain.tail_parameters(2)),
            **dict.fromkeys(("bottleneck", "bottleneck_twice"), 2 * plain.dim * 16 + 16 + plain.dim),
        }
        assert table.loc[name, "trainable"] == expected[settings.adapter] > 0
        assert table.loc[name, "parameters"] == sum(p.numel() for p in plain.model.parameters())
