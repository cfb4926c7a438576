"""The authors' checkpoints: files of their layout with random weights, loaded strictly or refused."""

import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from seal.errors import SealError
from seal.models import architecture, encoders
from seal.models.encoder_registry import REGISTRY
from seal.models.encoders import VisionEncoder
from seal.models.omics import SealOmics
from seal.models.released import load_omics, load_vision
from seal.models.vision import GeneDecoder
from seal.profiles import OmicsSettings, VisionSettings

PAPER = ("conch", "h0_mini", "phikon_v2", "uni2_h", "virchow2")
WRAPPED = ("h0_mini", "phikon_v2", "virchow2")  # in a module of the release whose attribute is `model`
OLDER = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value", "o_proj": "output.dense"}


def adapted(name: str, blocks: int, rank: int = 8, size: int | None = None, tiny: bool = True) -> VisionEncoder:
    """An encoder whose last blocks carry adapters that do something."""
    spec = REGISTRY[name]
    model = architecture.make_random(spec, size or spec.image_size, tiny=tiny)
    encoder = VisionEncoder(spec, model).eval()
    torch.manual_seed(1)
    get_peft_model(model, LoraConfig(r=rank, lora_alpha=8, target_modules=encoder.lora_targets(blocks)))
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.1)
    return encoder


def vision_file(encoder: VisionEncoder, genes: int = 7, hidden: int = 5) -> dict[str, torch.Tensor]:
    """The state dict that the release would have written of an encoder and a gene decoder."""
    name = encoder.spec.name
    prefix = "encoder.base_model.model." + ("model." if name in WRAPPED else "")
    state = {}
    for key, value in encoder.model.state_dict().items():
        for new, old in OLDER.items() if name == "phikon_v2" else ():
            key = key.replace(f"attention.{new}", f"attention.{old}")
        state[prefix + key] = value
    decoder = GeneDecoder(encoder.dim, torch.zeros(genes), torch.ones(genes), VisionSettings(decoder_hidden=hidden))
    return state | {f"decoder.{key}": value for key, value in decoder.state_dict().items()}


def save(state: dict[str, torch.Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


def embed(encoder: VisionEncoder) -> torch.Tensor:
    size = encoder.image_size
    with torch.no_grad():
        return encoder(torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2)))


@pytest.mark.parametrize(("name", "blocks", "rank"), [
    ("conch", 1, 8), ("h0_mini", 1, 4), ("phikon_v2", 2, 8), ("uni2_h", 3, 8), ("virchow2", 2, 8),
])  # fmt: skip
def test_vision_embeds_as_the_model_that_the_file_was_made_from(tmp_path, name, blocks, rank):
    size = 2 * REGISTRY[name].geometry.patch
    original = adapted(name, blocks, rank, size)
    state = vision_file(original)
    loaded, decoder, head = load_vision(save(state, tmp_path / "v.pth"), name, image_size=size, tiny=True)
    torch.testing.assert_close(embed(loaded), embed(original), atol=1e-6, rtol=1e-6)
    bare = encoders.build(name, weights="random", image_size=size, tiny=True)
    assert (embed(loaded) - embed(bare)).abs().max() > 1e-3  # the adapters are at work
    assert not loaded.training
    trainable = {key for key, p in loaded.model.named_parameters() if p.requires_grad}
    assert trainable == {key for key in original.model.state_dict() if "lora_" in key}
    assert all(p.device.type == "cpu" for p in loaded.parameters())
    own = {f"decoder.{key}": value for key, value in decoder.state_dict().items()}
    assert own.keys() == {key for key in state if key.startswith("decoder.")}
    assert all(torch.equal(value, state[key]) for key, value in own.items())
    assert isinstance(decoder.decoder[-1], torch.nn.ReLU)
    assert isinstance(head, torch.nn.Identity)
    assert not decoder.training


def test_alpha_scales_what_the_adapters_add(tmp_path):
    original = adapted("uni2_h", 1, size=28)
    path = save(vision_file(original), tmp_path / "v.pth")
    half, *_ = load_vision(path, "uni2_h", image_size=28, alpha=4, tiny=True)
    for key, parameter in original.model.named_parameters():
        if "lora_B" in key:
            parameter.data /= 2
    torch.testing.assert_close(embed(half), embed(original), atol=1e-6, rtol=1e-6)


def test_adapters_on_some_linears_alone_go_where_they_are(tmp_path):
    spec, size = REGISTRY["phikon_v2"], 32
    model = architecture.make_random(spec, size, tiny=True)
    original = VisionEncoder(spec, model).eval()
    targets = [f"encoder.layer.3.mlp.{linear}" for linear in ("fc1", "fc2")]
    get_peft_model(model, LoraConfig(r=8, lora_alpha=8, target_modules=targets, init_lora_weights=False))
    loaded, *_ = load_vision(save(vision_file(original), tmp_path / "v.pth"), spec.name, image_size=size, tiny=True)
    assert set(loaded.model.state_dict()) == set(model.state_dict())
    torch.testing.assert_close(embed(loaded), embed(original), atol=1e-6, rtol=1e-6)


def test_an_unwrapped_file_of_a_wrapped_encoder_is_accepted_too(tmp_path):
    original = adapted("virchow2", 1, size=28)
    state = {k.replace("base_model.model.model.", "base_model.model."): v for k, v in vision_file(original).items()}
    loaded, *_ = load_vision(save(state, tmp_path / "v.pth"), "virchow2", image_size=28, tiny=True)
    torch.testing.assert_close(embed(loaded), embed(original), atol=1e-6, rtol=1e-6)


def test_positions_of_another_image_size_are_resampled_as_timm_does(tmp_path):
    original = adapted("uni2_h", 1, size=56)
    path = save(vision_file(original), tmp_path / "v.pth")
    loaded, *_ = load_vision(path, "uni2_h", image_size=28, tiny=True)
    original.model.set_input_size((28, 28))
    torch.testing.assert_close(embed(loaded), embed(original), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("name", "blocks", "first", "released"), [
    ("conch", 1, 11, 98_304), ("uni2_h", 3, 21, 589_824), ("h0_mini", 1, 11, None), ("phikon_v2", 1, 23, None),
    ("virchow2", 1, 31, None),
])  # fmt: skip
def test_full_size_key_sets_are_consumed_whole(tmp_path, name, blocks, first, released):
    with torch.device("meta"):  # tensors without content, in the file too
        original = adapted(name, blocks, tiny=False)
        path = save(vision_file(original, genes=2000, hidden=512), tmp_path / "v.pth")
    loaded, decoder, head = load_vision(path, name)
    lora = {key: p for key, p in loaded.model.named_parameters() if "lora_" in key}
    assert {int(re.search(r"\.?(?:blocks|layer)\.(\d+)\.", key)[1]) for key in lora} == set(
        range(first, first + blocks)
    )
    assert len(lora) == blocks * 2 * (6 if name == "phikon_v2" else 4)
    assert released in (None, sum(p.numel() for p in lora.values()))
    assert loaded.image_size == 224
    assert not head.state_dict()
    assert decoder.decoder[3].weight.shape == (2000, 512)
    assert decoder.decoder[0].weight.shape == (512, REGISTRY[name].dim)


@pytest.mark.parametrize("name", PAPER)
def test_every_other_backbone_is_refused_and_the_right_one_named(tmp_path, name):
    path = save(vision_file(adapted(name, 1)), tmp_path / "theirs.pth")
    for other in PAPER:
        if other != name:
            with pytest.raises(SealError) as caught:
                load_vision(path, other, tiny=True)
            assert f"theirs.pth does not fit {REGISTRY[other].label}: " in caught.value.what
            assert f"it looks like {name!r}" in caught.value.do


@pytest.mark.parametrize("key", [
    "encoder.base_model.model.trunk.blocks.3.attn.qkv.lora_A.default.weight",
    "encoder.base_model.model.trunk.blocks.3.attn.qkv.lora_B.default.weight",
    "encoder.base_model.model.trunk.blocks.3.attn.qkv.base_layer.bias",
    "encoder.base_model.model.trunk.blocks.0.mlp.fc1.weight",
    "encoder.base_model.model.ln_contrast.weight",
    "encoder.base_model.model.trunk.pos_embed",
    "decoder.decoder.0.bias",
    "decoder.decoder.3.weight",
])  # fmt: skip
def test_a_vision_key_that_is_missing_left_over_or_of_another_shape_is_named(tmp_path, key):
    whole = vision_file(adapted("conch", 1, size=32))
    less = {name: value for name, value in whole.items() if name != key}
    for state, problem in (
        (less, "(missing|unexpected)"),  # without its A, a linear is not adapted: B and base layer are left over
        (less | {f"{key}s": whole[key]}, "unexpected"),
        (less | {key: torch.cat([whole[key]] * 2)}, "other shape"),
    ):
        with pytest.raises(SealError, match=problem) as caught:
            load_vision(save(state, tmp_path / "v.pth"), "conch", image_size=32, tiny=True)
        assert re.sub(r"\.(lora_.*|base_layer.*|weight|bias)$", "", key) in caught.value.what


@pytest.mark.parametrize("key", ["organ_emb.weight", "projection_head.2.weight", "encoder.cls_token", "fc_mu.weight"])
def test_keys_outside_encoder_and_decoder_are_refused(tmp_path, key):
    state = vision_file(adapted("uni2_h", 1, size=28)) | {key: torch.ones(1)}
    with pytest.raises(SealError, match=f"unexpected: {key}"):
        load_vision(save(state, tmp_path / "v.pth"), "uni2_h", image_size=28, tiny=True)


def test_an_encoder_without_adapters_is_refused(tmp_path):
    bare = encoders.build("uni2_h", weights="random", image_size=28, tiny=True)
    with pytest.raises(SealError, match="has no adapters"):
        load_vision(save(vision_file(bare), tmp_path / "v.pth"), "uni2_h", image_size=28, tiny=True)


def omics(genes: int = 20, hidden: tuple[int, ...] = (16, 8), flows: int = 3) -> SealOmics:
    """SEAL-omics that has seen a batch, so that its running statistics are not those of the start."""
    torch.manual_seed(0)
    settings = OmicsSettings(hidden=hidden, flows=flows)
    model = SealOmics(genes, 6, settings, torch.zeros(genes), torch.ones(genes))
    model(torch.rand(30, genes) * 3)
    return model.eval()


def omics_file(model: SealOmics) -> dict[str, torch.Tensor]:
    return {key: value for key, value in model.state_dict().items() if not key.startswith("gene_")}


@pytest.mark.parametrize(("hidden", "flows"), [((16, 8), 3), ((8,), 0), ((16, 8, 4), 1)])
def test_omics_embeds_and_decodes_as_the_model_that_the_file_was_made_from(tmp_path, hidden, flows):
    original, x = omics(hidden=hidden, flows=flows), torch.rand(5, 20)
    loaded = load_omics(save(omics_file(original), tmp_path / "o.pth"))
    assert torch.equal(loaded(x), original(x))
    assert torch.equal(loaded.decode(loaded(x)), original.decode(original(x)))
    assert (loaded.settings.hidden, loaded.settings.flows) == (hidden, flows)
    assert loaded.encoder[1].num_batches_tracked.dtype == torch.int64
    assert torch.equal(loaded.gene_mean, torch.zeros(20))
    assert torch.equal(loaded.gene_sd, torch.ones(20))


def test_the_released_size_is_read_from_the_keys_of_the_facts(tmp_path):
    shapes = {"encoder.0": (1024, 2000), "encoder.4": (512, 1024), "fc_mu": (1536, 512), "fc_logvar": (1536, 512),
              "decoder.0": (512, 1536), "decoder.2": (1024, 512), "decoder.5": (2000, 1024)}  # fmt: skip
    state = {}
    for name, shape in shapes.items():
        state |= {f"{name}.weight": torch.zeros(shape), f"{name}.bias": torch.zeros(shape[0])}
    for name, size in (("encoder.1", 1024), ("encoder.5", 512)):
        state |= {f"{name}.{key}": torch.ones(size) for key in ("weight", "bias", "running_mean", "running_var")}
        state[f"{name}.num_batches_tracked"] = torch.tensor(9)
    for i in range(3):
        state |= {f"flows.{i}.u": torch.ones(1536), f"flows.{i}.w": torch.ones(1536), f"flows.{i}.b": torch.ones(1)}
    assert load_omics(save(state, tmp_path / "o.pth"))(torch.rand(2, 2000)).shape == (2, 1536)


@pytest.mark.parametrize(
    "key", ["encoder.4.weight", "encoder.1.running_var", "fc_mu.bias", "flows.1.w", "decoder.5.bias"]
)
def test_an_omics_key_that_is_missing_left_over_or_of_another_shape_is_named(tmp_path, key):
    whole = omics_file(omics())
    less = {name: value for name, value in whole.items() if name != key}
    for state, problem in (
        (less, "(missing|unexpected)"),
        (whole | {f"{key}s": whole[key]}, "unexpected"),
        (whole | {key: torch.cat([whole[key]] * 2)}, "other shape"),
    ):
        with pytest.raises(SealError, match=rf"(?s){problem}.*{key.rpartition('.')[0]}"):
            load_omics(save(state, tmp_path / "o.pth"))


def test_a_file_of_the_other_kind_is_recognised(tmp_path):
    of_vision = save(vision_file(adapted("uni2_h", 1, size=28)), tmp_path / "v.pth")
    of_omics = save(omics_file(omics()), tmp_path / "o.pth")
    plain = save(architecture.make_random(REGISTRY["uni2_h"], 28, tiny=True).state_dict(), tmp_path / "plain.pth")
    with pytest.raises(SealError, match=r"(?s)v\.pth is no SEAL-omics file.*looks like a SEAL-vision file"):
        load_omics(of_vision)
    with pytest.raises(SealError, match=r"(?s)o\.pth is no SEAL-vision file.*looks like a SEAL-omics file"):
        load_vision(of_omics, "uni2_h", tiny=True)
    with pytest.raises(SealError, match=r"(?s)is no SEAL-omics file.*keys as cls_token"):
        load_omics(plain)
    with pytest.raises(SealError, match=r"(?s)is no SEAL-vision file.*keys as cls_token"):
        load_vision(plain, "uni2_h", tiny=True)


class Pickled:
    """Would write a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "ran")


def loaders():
    return (load_omics, lambda path: load_vision(path, "uni2_h", image_size=28, tiny=True))


@pytest.mark.parametrize("which", [0, 1])
def test_truncated_files_missing_files_and_code_are_refused(tmp_path, which):
    load, path = loaders()[which], tmp_path / "seal.pth"
    save((omics_file(omics()), vision_file(adapted("uni2_h", 1, size=28)))[which], path)
    whole = path.read_bytes()
    for keep in (0, 1, 100, 5000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(SealError, match=r"(?s)seal\.pth cannot be read.*download it again from https://hugg"):
            load(path)
    torch.save({"fc_mu.weight": torch.ones(2, 2), "x": Pickled(tmp_path / "ran")}, path)
    with pytest.raises(SealError, match="cannot be read"):
        load(path)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(SealError, match="cannot be read"):
        load(tmp_path / "nowhere.pth")
