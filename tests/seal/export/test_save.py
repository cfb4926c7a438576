"""A saved model is what it was: for our own loader, timm, transformers and PEFT; damage and leaks are refused."""

import ast
import json
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import peft
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

import seal
from seal import profiles
from seal.data.panel import Panel
from seal.errors import SealError
from seal.export import card, hub, load, save
from seal.files import digest, sha256
from seal.models import architecture, conch, encoders
from seal.models.encoder_registry import REGISTRY
from seal.models.omics import SealOmics
from seal.models.vision import SealVision
from seal.profiles import OmicsSettings, VisionSettings

NAMES = ("conch", "h0_mini", "phikon_v2", "uni2_h", "virchow2", "dinov2_s")
TIMM = ("h0_mini", "uni2_h", "virchow2", "dinov2_s")
GENES = tuple(f"GENE{i}" for i in range(9))
PANEL = Panel(GENES, {"Breast": GENES[:3]}, ("donor1", "donor2"))
OMICS = OmicsSettings(hidden=(8, 8))
NEAR = {"atol": 1e-5, "rtol": 1e-5}
RESULTS = [{"method": "seal", "PCC": 0.1, "low": -0.02}, {"method": "null", "PCC": float("nan")}]


def build(name: str, adapter: str = "lora") -> SealVision:
    """A tiny model, three patches a side, in which everything that training moves has moved."""
    torch.manual_seed(0)
    encoder = encoders.build(name, weights="random", image_size=3 * REGISTRY[name].geometry.patch, tiny=True)
    omics = SealOmics(9, encoder.dim, OMICS, torch.rand(9), torch.ones(9))
    settings = VisionSettings(adapter=adapter, lora_layers="all", blocks=2, decoder_hidden=5, bottleneck=6)
    model = SealVision(encoder, omics, settings)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.data += 0.3 * torch.randn(parameter.shape)
    return model.eval()


def profile(model: SealVision, name: str = "demo", **changes) -> profiles.Profile:
    """The profile with which a model of `build` could have been trained."""
    own = {"encoder": model.encoder.spec.name, "image_size": model.encoder.image_size, "vision": model.settings}
    return profiles.get(name, **{**own, "omics": OMICS, "um_per_px": 1.5, **changes})


def pictures(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def embed(model: SealVision, patches: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return model.encoder(model.encoder.preprocess(patches))


def pool(spec, tokens: torch.Tensor) -> torch.Tensor:
    """What the encoder's authors make of its normalised tokens."""
    if spec.pooling == "cls":
        return tokens[:, 0]
    return torch.cat([tokens[:, 0], tokens[:, 1 + spec.geometry.registers :].mean(dim=1)], dim=1)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Give a model and its folder by encoder and adapter, each made once."""
    home, made = tmp_path_factory.mktemp("saved"), {}

    def get(name: str, adapter: str = "lora") -> tuple[SealVision, Path]:
        if (name, adapter) not in made:
            model = build(name, adapter)
            facts = {"fold": "donor1", "seed": 0}
            folder = save.save(
                model, home / f"{name}-{adapter}", profile=profile(model), panel=PANEL, results=RESULTS, training=facts
            )
            made[name, adapter] = model, folder
        return made[name, adapter]

    return get


@pytest.fixture
def copy(models, tmp_path):
    """A folder that may be damaged."""
    return Path(shutil.copytree(models("dinov2_s")[1], tmp_path / "copy"))


@pytest.mark.parametrize("adapter", ["lora", "full", "bottleneck", "bottleneck_twice"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_loaded_embeds_as_what_was_saved(models, name, adapter):
    model, folder = models(name, adapter)
    base = encoders.build(name, weights="random", image_size=model.encoder.image_size, tiny=True)
    patches = pictures(model.encoder.image_size)
    loaded, transform = seal.load(folder)
    with torch.no_grad():
        z = loaded(torch.stack([transform(Image.fromarray(p)) for p in patches]))
        z_base = base(base.preprocess(patches))
    torch.testing.assert_close(z, embed(model, patches), atol=1e-5, rtol=1e-5)
    assert (z - z_base).abs().max() > 1e-2, "the adapter does nothing: the test would prove nothing"
    assert not loaded.training
    assert (loaded.dim, loaded.spec.name) == (model.encoder.dim, name)
    assert {p.name for p in folder.iterdir()} == {
        *("model.safetensors", "decoder.safetensors", "omics.safetensors", "panel.json", "seal.json", "README.md"),
        *(["adapter"] if adapter == "lora" else []),
        *(["bottleneck.safetensors"] if adapter.startswith("bottleneck") else []),
        *(["preprocessor_config.json"] if name == "phikon_v2" else []),
        "config.json",
    }


@pytest.mark.parametrize("name", NAMES)
def test_plain_peft_loads_the_adapter(models, name):
    model, folder = models(name)
    base = encoders.build(name, weights="random", image_size=model.encoder.image_size, tiny=True)
    torch.manual_seed(0)  # the base weights of `build`
    wrapped = peft.PeftModel.from_pretrained(base.model, folder / "adapter").eval()
    patches = pictures(model.encoder.image_size)
    x = base.preprocess(patches)
    with torch.no_grad():
        out = wrapped(x)
        if name == "phikon_v2":
            out = out.last_hidden_state[:, 0]
        elif base.spec.pooling == "cls_mean":
            out = pool(base.spec, out)
    torch.testing.assert_close(out, embed(model, patches), atol=1e-5, rtol=1e-5)
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == REGISTRY[name].hub
    assert config["task_type"] is None
    assert {p.name for p in (folder / "adapter").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize("name", NAMES)
def test_merged_weights_have_the_original_keys(models, name):
    _, folder = models(name)
    state = load_file(folder / "model.safetensors")
    tiny = architecture.make_plain(REGISTRY[name], 3 * REGISTRY[name].geometry.patch, tiny=True)
    if name == "phikon_v2":  # the hub's names, which are older than those of transformers 5
        assert "encoder.layer.0.attention.attention.query.weight" in state
        assert len(state) == len(tiny.state_dict())
    else:
        tiny.load_state_dict(state, strict=True)


@pytest.mark.parametrize("name", TIMM)
def test_timm_makes_the_same_model_from_the_folder(models, name):
    model, folder = models(name)
    patches = pictures(model.encoder.image_size)
    plain = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = timm.data.resolve_data_config(plain.pretrained_cfg, model=plain)
    transform = timm.data.create_transform(**config)
    x = torch.stack([transform(Image.fromarray(p)) for p in patches])
    torch.testing.assert_close(x, model.encoder.preprocess(patches), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(
            pool(model.encoder.spec, plain.forward_features(x)), embed(model, patches), atol=1e-5, rtol=1e-5
        )
        out = plain(x)
        z = out if model.encoder.spec.pooling == "cls" else pool(model.encoder.spec, out)
    torch.testing.assert_close(z, embed(model, patches), atol=1e-5, rtol=1e-5)
    arguments = json.loads((folder / "config.json").read_text())
    rebuilt = timm.create_model(f"local-dir:{folder}", pretrained=False)
    rebuilt.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    assert arguments["model_args"]["img_size"] == model.encoder.image_size


@pytest.mark.parametrize("name", [*TIMM, "dinov2s_derived"])
def test_timm_makes_the_full_size_of_the_registry(name):
    spec = REGISTRY[name]
    config = json.loads(json.dumps(save.timm_config(spec, spec.image_size)))
    with torch.device("meta"):
        ours = architecture.make_plain(spec, spec.image_size)
        theirs = timm.create_model(config["architecture"], **config["model_args"])
    assert {n: v.shape for n, v in theirs.state_dict().items()} == {n: v.shape for n, v in ours.state_dict().items()}
    block, other = theirs.blocks[0], ours.blocks[0]
    assert repr(block) == repr(other)  # layers, activation and their settings, not shapes only
    assert (theirs.num_prefix_tokens, theirs.no_embed_class) == (ours.num_prefix_tokens, ours.no_embed_class)
    assert block.attn.num_heads == other.attn.num_heads


@pytest.mark.parametrize("name", [*TIMM, "phikon_v2"])
def test_transformers_makes_the_same_model_from_the_folder(models, name):
    from transformers import AutoImageProcessor, AutoModel

    model, folder = models(name)
    patches = pictures(model.encoder.image_size)
    plain, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    x = AutoImageProcessor.from_pretrained(folder)([Image.fromarray(p) for p in patches], return_tensors="pt")
    torch.testing.assert_close(x["pixel_values"], model.encoder.preprocess(patches), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        out = plain.eval()(**x)
    torch.testing.assert_close(pool(model.encoder.spec, out.last_hidden_state), embed(model, patches), **NEAR)
    if name in TIMM:  # either our pooling or none
        assert (out.pooler_output is None) == (model.encoder.spec.pooling == "cls_mean")
        assert out.pooler_output is None or torch.equal(out.pooler_output, out.last_hidden_state[:, 0])


def test_phikon_s_processor_takes_the_whole_patch(models):
    from transformers import AutoImageProcessor

    _, folder = models("phikon_v2")
    grey = np.full((96, 96, 3), 255, dtype=np.uint8)
    grey[:8] = 0  # cropped away by a centre crop
    x = AutoImageProcessor.from_pretrained(folder)(Image.fromarray(grey), return_tensors="pt")["pixel_values"]
    assert x.shape[-2:] == (48, 48)
    assert x[0, 0, 0].max() < x[0, 0, -1].min()


def test_conch_s_config_describes_its_tower_in_its_authors_words(models):
    from timm.models.vision_transformer import VisionTransformer

    model, folder = models("conch")
    config = json.loads((folder / "config.json").read_text())
    vision, g = config["model_cfg"]["vision_cfg"], model.encoder.spec.geometry
    shape = {"img_size": vision["image_size"], "patch_size": vision["patch_size"], "embed_dim": vision["width"]}
    heads = vision["width"] // vision["head_width"]
    trunk = VisionTransformer(**shape, depth=vision["layers"], num_heads=heads, num_classes=0, global_pool="token")
    theirs = replace(
        g,
        width=vision["width"],
        pool_width=config["model_cfg"]["embed_dim"],
        pool_heads=vision["attn_pooler_heads"],
        caption_queries=vision["n_queries_caption"],
    )
    rebuilt = conch.ConchVisual(trunk, theirs).eval()
    rebuilt.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    patches = pictures(vision["image_size"])
    scale = [torch.tensor(config["preprocess_cfg"][name]).view(3, 1, 1) for name in ("mean", "std")]
    x = (torch.from_numpy(patches).permute(0, 3, 1, 2) / 255 - scale[0]) / scale[1]
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(x), embed(model, patches), **NEAR)


class Older(torch.nn.Module):
    """A layer of Dinov2 as transformers 4 names its parts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("attention.attention.query", "attention.attention.key", "attention.attention.value",
                     "attention.output.dense", "mlp.fc1", "mlp.fc2"):  # fmt: skip
            *path, last = name.split(".")
            inner = self
            for part in path:
                if not hasattr(inner, part):
                    inner.add_module(part, torch.nn.Module())
                inner = getattr(inner, part)
            size = (width, 4 * width) if last == "fc1" else (4 * width, width) if last == "fc2" else (width, width)
            inner.add_module(last, torch.nn.Linear(*size))


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_phikon_s_adapter_is_attached_whole_under_the_names_of_transformers_4(models):
    model, folder = models("phikon_v2")
    older = torch.nn.Module()
    older.encoder = torch.nn.Module()
    older.encoder.layer = torch.nn.ModuleList(Older(48) for _ in range(4))
    wrapped = peft.PeftModel.from_pretrained(older, folder / "adapter")
    own = {name: p for name, p in model.encoder.model.named_parameters() if ".lora_" in name}
    found = {name: p for name, p in wrapped.named_parameters() if ".lora_" in name}
    assert len(found) == len(own) == 2 * 6 * 2  # A and B, six linears, two blocks
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
    for name, value in found.items():
        name = name.removeprefix("base_model.model.").replace("attention.output.dense", "attention.o_proj")
        for old, new in names.items():
            name = name.replace(f"attention.attention.{old}", f"attention.{new}")
        assert torch.equal(value, own[name])


def test_transformers_4_is_refused_where_its_names_would_not_fit(models, monkeypatch):
    import transformers

    monkeypatch.setattr(transformers, "__version__", "4.57.3")
    with pytest.raises(SealError, match=r"transformers 4\.57\.3 names the layers of Phikon-v2 otherwise"):
        seal.load(models("phikon_v2")[1])
    seal.load(models("dinov2_s")[1])


@pytest.mark.parametrize("side", [42, 42 + 31, 20])
def test_the_transform_is_the_encoders_preprocessing(models, side):
    model, folder = models("h0_mini")
    transform = pickle.loads(pickle.dumps(seal.load(folder).transform))
    patches = pictures(side)
    wanted = model.encoder.preprocess(patches)
    for patch, x in zip(patches, wanted, strict=True):
        picture = Image.fromarray(patch)
        for image in (picture, picture.convert("RGBA"), patch):
            torch.testing.assert_close(transform(image), x, atol=0, rtol=0)
    with pytest.raises(SealError, match="uint8"):
        transform(patches[0] / 255)


def test_decoder_outputs_have_names(models):
    model, folder = models("uni2_h")
    decoder, panel = load.load_decoder(folder)
    z = torch.randn(3, model.encoder.dim)
    with torch.no_grad():
        assert torch.equal(decoder(z), model.decoder(z))
    assert panel == PANEL
    assert decoder(z).shape[1] == len(panel.genes)


def test_the_record_holds_what_a_reader_needs(models):
    model, folder = models("virchow2")
    record = json.loads((folder / "seal.json").read_text())
    assert (record["format"], record["encoder"]["name"], record["image_size"]) == (1, "virchow2", 42)
    assert (record["um_per_px"], record["pooling"], record["embedding_size"]) == (1.5, "cls_mean", model.encoder.dim)
    assert (record["panel"], record["omics_encoder"]) == ({"hash": PANEL.hash, "genes": 9}, "vae")
    assert (record["data"], record["profile"], record["licence"]) == ("simulated data", "demo", "CC-BY-NC-ND-4.0")
    assert set(record["versions"]) == {"torch", "timm", "peft", "transformers"}
    assert record["adapter"]["kind"] == "lora"
    assert record["files"] == {
        name: sha256(folder / name)
        for name in (
            *("adapter/adapter_config.json", "adapter/adapter_model.safetensors", "config.json", "panel.json"),
            *("decoder.safetensors", "model.safetensors", "omics.safetensors"),
        )
    }


def test_saving_twice_gives_the_same_files(models, tmp_path):
    model, folder = models("uni2_h")
    again = save.save(model, tmp_path / "again", profile=profile(model), panel=PANEL, results=RESULTS)
    assert (
        json.loads((again / "seal.json").read_text())["files"]
        == json.loads((folder / "seal.json").read_text())["files"]
    )


def test_an_encoder_that_the_registry_does_not_know_can_be_loaded(models, monkeypatch):
    _, folder = models("dinov2_s")
    monkeypatch.delitem(REGISTRY, "dinov2_s")
    assert seal.load(folder).model.spec.name == "dinov2_s"


# --- the folder is written whole or not at all ---


def test_an_earlier_model_is_replaced_and_nothing_else(models, copy):
    model, _ = models("dinov2_s", "bottleneck")
    save.save(model, copy, profile=profile(model), panel=PANEL)
    assert not (copy / "adapter").exists()
    seal.load(copy)
    (copy / "seal.json").unlink()
    with pytest.raises(SealError, match="not a SEAL model"):
        save.save(model, copy, profile=profile(model), panel=PANEL)
    assert (copy / "model.safetensors").is_file()


def test_a_failed_save_leaves_nothing(models, tmp_path, monkeypatch):
    model, _ = models("dinov2_s")
    monkeypatch.setattr(save, "sha256", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save.save(model, tmp_path / "new", profile=profile(model), panel=PANEL)
    assert not list(tmp_path.glob("*new*"))


@pytest.mark.parametrize("part", ["encoder", "omics", "decoder", "gene_sd"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named_and_nothing_is_written(tmp_path, part, value):
    model = build("dinov2_s")
    name, tensor = next((n, t) for n, t in reversed(model.state_dict().items()) if n.startswith(part))
    tensor.view(-1)[-1] = value
    with pytest.raises(SealError, match=r"not finite.*" + re.escape(name)):
        save.save(model, tmp_path / "new", profile=profile(model), panel=PANEL)
    assert not (tmp_path / "new").exists()


def test_another_profile_panel_or_spec_is_refused(models, tmp_path):
    model, _ = models("dinov2_s")
    with pytest.raises(SealError, match=r"number of genes is 8\n.*: 9, with"):
        save.save(model, tmp_path / "a", profile=profile(model), panel=Panel(GENES[:8], {}, ()))
    for change in ({"vision__rank": 4}, {"omics__epochs": 3}, {"encoder": "uni2_h"}, {"image_size": 56}):
        with pytest.raises(SealError, match=next(iter(change)).split("__")[0] + " is .*\n.*with which the model"):
            save.save(model, tmp_path / "a", profile=profile(model, **change), panel=PANEL)
    wrong = build("dinov2_s")
    wrong.encoder.spec = REGISTRY["uni2_h"]
    with pytest.raises(SealError, match="not the one that its spec describes"):
        save.save(wrong, tmp_path / "b", profile=profile(wrong), panel=PANEL)


# --- damage ---


@pytest.mark.parametrize(
    "file", ["model.safetensors", "decoder.safetensors", "panel.json", "adapter/adapter_model.safetensors"]
)
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_a_damaged_file_is_named(copy, file, damage):
    path = copy / file
    whole = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "changed":
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    expected = "is missing" if damage == "missing" else "was changed or is not whole"
    with pytest.raises(SealError, match=f"{Path(file).name} {expected}"):
        seal.load(copy)


def test_an_edited_panel_is_refused(copy):
    panel = json.loads((copy / "panel.json").read_text())
    panel["genes"][:2] = panel["genes"][1::-1]
    (copy / "panel.json").write_text(json.dumps({**panel, "hash": digest(panel["genes"])}))
    with pytest.raises(SealError, match=r"panel\.json was changed"):
        load.load_decoder(copy)


def test_an_edited_card_is_fine(copy):
    (copy / "README.md").write_text("mine")
    seal.load(copy)


def rewrite(folder: Path, **changes) -> None:
    record = json.loads((folder / "seal.json").read_text())
    record.pop("hash")
    record.update(changes)
    (folder / "seal.json").write_text(json.dumps({**record, "hash": digest(record)}))


def test_a_record_that_cannot_be_read_is_refused(copy, tmp_path):
    rewrite(copy, format=2)
    with pytest.raises(SealError, match=r"format 2\n.*format 1.*\n.*update"):
        seal.load(copy)
    rewrite(copy, format=1, encoder={"colour": "red", "geometry": {}})
    with pytest.raises(SealError, match="describes an encoder in another way"):
        seal.load(copy)
    text = (copy / "seal.json").read_text()
    (copy / "seal.json").write_text(text.replace('"um_per_px": 1.5', '"um_per_px": 0.5'))
    with pytest.raises(SealError, match=r"seal\.json was changed"):
        seal.load(copy)
    (copy / "seal.json").write_text(text[:100])
    with pytest.raises(SealError, match="not valid JSON"):
        seal.load(copy)
    (copy / "seal.json").write_text("{}")
    with pytest.raises(SealError, match="says nothing of a format"):
        seal.load(copy)
    with pytest.raises(SealError, match=r"seal\.json is missing"):
        seal.load(tmp_path)


@pytest.mark.parametrize(
    "place", ["no/such/folder", "nothing", Path("user/name"), "../x/y", "./x", "../x", ".hidden/x"]
)
def test_a_place_that_is_neither_folder_nor_repository(place):
    with pytest.raises(SealError, match="is neither a folder nor a repository"):
        seal.load(place)


def test_a_folder_that_does_not_exist_is_said_though_its_name_could_be_a_repository_s(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SealError, match="there is no folder runs/model, and no such repository"):
        seal.load("runs/model")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "model").write_text("a file")
    with pytest.raises(SealError, match="runs/model is neither a folder nor a repository"):
        seal.load("runs/model")


# --- the card ---


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---")[1])


@pytest.mark.parametrize("name", [*NAMES, "dinov2s_derived"])
def test_the_header_is_the_hubs(models, name):
    _, folder = models(name)
    header = front_matter((folder / "README.md").read_text())
    licences = {"phikon_v2": "other", "dinov2_s": "apache-2.0", "dinov2s_derived": "mit"}
    assert header["license"] == licences.get(name, "cc-by-nc-nd-4.0")
    assert ("license_name" in header) == ("license_link" in header) == (name == "phikon_v2")
    assert header["library_name"] == {"conch": "pytorch", "phikon_v2": "transformers"}.get(name, "timm")
    assert header.get("base_model") == REGISTRY[name].hub
    data = huggingface_hub.ModelCard.load(folder / "README.md").data
    assert "spatial-transcriptomics" in data.tags


def test_the_card_says_what_it_is(models, tmp_path):
    model, folder = models("uni2_h")
    text = (folder / "README.md").read_text()
    for part in ("**SIMULATED DATA.**", "**This is not the authors' model**", PANEL.hash, "GENE0, GENE1", "2602.14177"):
        assert part in text
    assert "| seal | 0.1 | -0.02 |" in text
    assert "| null | none | none |" in text, "a null result is a result"
    assert "| 2, SEAL-vision | rank | 8 | release |" in text
    assert "| 1, SEAL-omics | epochs |" in text
    assert "| fold | donor1 |" in text
    real = save.save(model, tmp_path / "real", profile=profile(model, "her2st"), panel=PANEL)
    text = (real / "README.md").read_text()
    assert "Not evaluated." in text
    assert "SIMULATED" not in text


def test_the_card_says_what_another_image_size_costs(models):
    model, folder = models("h0_mini")
    text = re.sub(r"\s+", " ", (folder / "README.md").read_text())
    tokens = model.encoder.token_shape[0]
    plain, larger = (
        timm.create_model(f"local-dir:{folder}", pretrained=True, img_size=side).eval() for side in (42, 84)
    )
    with torch.no_grad():
        x = model.encoder.preprocess(pictures(42))
        assert plain.forward_features(x).shape[1] == tokens
        twice = larger.forward_features(torch.nn.functional.interpolate(x, scale_factor=2)).shape[1]
        z = pool(model.encoder.spec, larger.forward_features(torch.nn.functional.interpolate(x, scale_factor=2)))
    assert (z - embed(model, pictures(42))).abs().max() > 1e-2
    assert "Another image size than 42 px, such as timm's `img_size`, is another model" in text
    assert f"is {twice} tokens a patch instead of {tokens}, so at least {twice / tokens:.1f} times the time" in text


def test_the_card_says_how_many_linears_and_which_versions(models):
    import transformers

    _, folder = models("phikon_v2")
    text = (folder / "README.md").read_text()
    assert "on 12 linears of the last 2 block(s)" in text
    assert f"made with transformers {transformers.__version__}; transformers 4 names" in text
    assert f"| version of transformers | {transformers.__version__} |" in text


def test_nothing_private_is_published(models, tmp_path):
    model, folder = models("dinov2_s")
    for path in (p for p in folder.rglob("*") if p.suffix in (".json", ".md")):
        text = path.read_text()
        assert str(Path.home()) not in text
        assert str(folder.parent) not in text
    for secret in ("/home/someone/run", "C:\\Users\\someone", "~/run", "hf_" + "a" * 30):
        with pytest.raises(SealError, match="local path or a token"):
            save.save(model, tmp_path / "new", profile=profile(model), panel=PANEL, training={"note": secret})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("adapter", ["lora", "full", "bottleneck", "bottleneck_twice"])
@pytest.mark.parametrize("name", NAMES)
def test_the_cards_code_does_what_it_says(models, name, adapter, monkeypatch):
    """What can be run here is run: all but the authors' package and base weights of the hub."""
    model, folder = models(name, adapter)
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2 + (adapter == "lora")
    for block in blocks:
        ast.parse(block)
    patch = pictures(model.encoder.image_size, 1)
    Image.fromarray(patch[0]).save(folder / "patch.png")
    monkeypatch.chdir(folder)
    for block in blocks[: 1 if name == "conch" else 2]:
        space: dict = {}
        exec(block, space)
        torch.testing.assert_close(space["z"], embed(model, patch), atol=1e-5, rtol=1e-5)
    (folder / "patch.png").unlink()


def test_the_cards_peft_code_builds_the_base(models, monkeypatch):
    """`timm.create_model` with the arguments of the card, the hub's model standing in."""
    _, folder = models("uni2_h")
    code = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[2]
    create, asked = timm.create_model, []

    def offline(name, pretrained, **arguments):
        asked.append((name, pretrained))
        return create("vit_base_patch16_224", **arguments)

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.chdir(folder)
    space: dict = {}
    exec(code, space)
    assert asked == [("hf-hub:MahmoodLab/UNI2-h", True)]
    plain = space["model"].merge_and_unload()
    assert {n: v.shape for n, v in plain.state_dict().items()} == {
        n: v.shape for n, v in load_file(folder / "model.safetensors").items()
    }


# --- the hub ---


class FakeApi:
    """What `push` asks of huggingface_hub.HfApi."""

    def __init__(self, *, private=True, error=None):
        self.private, self.error, self.uploaded = private, error, None

    def create_repo(self, repo_id, *, private, exist_ok):
        if self.error:
            raise self.error
        return f"https://huggingface.co/{repo_id}"

    def repo_info(self, repo_id):
        return type("Info", (), {"private": self.private})

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, commit_message):
        kept = huggingface_hub.utils.filter_repo_objects(
            [p.relative_to(folder_path).as_posix() for p in Path(folder_path).rglob("*") if p.is_file()],
            allow_patterns=allow_patterns,
        )
        self.uploaded = sorted(kept)


@pytest.fixture
def api(monkeypatch):
    api = FakeApi()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    return api


def test_push_uploads_all_files(models, api):
    _, folder = models("dinov2_s")
    assert hub.push(folder, "user/name") == "https://huggingface.co/user/name"
    assert api.uploaded == sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("adapter", ["lora", "bottleneck"])
def test_a_licence_without_derivatives_keeps_merged_weights_back(models, api, adapter, tmp_path, monkeypatch):
    model, folder = models("uni2_h", adapter)
    hub.push(folder, "user/name")
    assert "model.safetensors" not in api.uploaded
    assert {"README.md", "decoder.safetensors", "panel.json", "seal.json"} <= set(api.uploaded)

    there = tmp_path / "there"
    for name in api.uploaded:
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, there / name)
    base = encoders.build("uni2_h", weights="random", image_size=42, tiny=True)
    (tmp_path / "weights").mkdir()
    save_file(base.model.state_dict(), tmp_path / "weights" / "uni2_h.safetensors")
    monkeypatch.setenv("SEAL_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repository: str(there))
    loaded, _ = seal.load("user/name")
    assert loaded.model.state_dict().keys() == base.model.state_dict().keys()
    patches = pictures(42)
    with torch.no_grad():
        z = loaded(loaded.preprocess(patches))
    torch.testing.assert_close(z, embed(model, patches), atol=1e-5, rtol=1e-5)
    (there / "decoder.safetensors").unlink()
    with pytest.raises(SealError, match=r"decoder\.safetensors is missing"):
        seal.load("user/name")


def test_weights_that_may_not_be_shared_are_not(models, api):
    with pytest.raises(SealError, match="forbids sharing changed weights"):
        hub.push(models("h0_mini", "full")[1], "user/name")
    assert api.uploaded is None


def test_nothing_goes_to_a_public_repository_unasked(models, api):
    api.private = False
    with pytest.raises(SealError, match="is public"):
        hub.push(models("dinov2_s")[1], "user/name")
    assert api.uploaded is None
    hub.push(models("dinov2_s")[1], "user/name", private=False)
    assert api.uploaded


def test_a_damaged_folder_is_not_uploaded(copy, api):
    (copy / "decoder.safetensors").unlink()
    with pytest.raises(SealError, match=r"decoder\.safetensors is missing"):
        hub.push(copy, "user/name")
    assert api.uploaded is None


def answered(status: int) -> Exception:
    error = RuntimeError(f"{status} for token hf_secret")
    error.response = type("Response", (), {"status_code": status})
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (huggingface_hub.errors.LocalTokenNotFoundError("none"), "no valid token"),
        (huggingface_hub.errors.HFValidationError("bad"), "no such name"),
        (answered(401), "no valid token"),
        (answered(403), "no access"),
        (answered(404), "answered 404"),
        (ConnectionError("hf_secret"), "cannot be reached"),
        (OSError(28, "No space left on device"), "disk is full"),
    ],
)
def test_the_hubs_errors_are_explained(models, api, monkeypatch, error, message):
    api.error = error
    with pytest.raises(SealError, match=message) as caught:
        hub.push(models("dinov2_s")[1], "user/name")
    assert "hf_secret" not in str(caught.value)

    def download(_):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(SealError, match=message):
        load.find_folder("user/name")


@pytest.mark.parametrize(
    ("licence", "may"),
    [("CC-BY-NC-ND-4.0", False), ("CC-BY-ND-4.0", False), ("CC-BY-NC-4.0", True), ("MIT", True), ("Apache-2.0", True)],
)
def test_which_licences_let_changed_weights_be_shared(licence, may):
    assert card.may_share_derivatives(licence) is may


def test_import_seal_stays_light():
    code = "import sys, seal; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        seal.lode
    assert seal.load is load.load


def test_what_was_put_beside_a_model_is_not_uploaded(copy, api):
    """The card tells users to try a patch; a patient's patch must not leave with the model."""
    (copy / "patch.png").write_bytes(b"a patient's tissue")
    hub.push(copy, "user/name")
    assert "patch.png" not in api.uploaded
    assert "seal.json" in api.uploaded


def test_weights_that_were_trained_themselves_are_missed_whatever_the_licence(models, tmp_path):
    """Base weights in their place would pass the frozen encoder off as SEAL."""
    folder = Path(shutil.copytree(models("conch", "full")[1], tmp_path / "copy"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(SealError, match=r"model\.safetensors is missing"):
        seal.load(folder)
