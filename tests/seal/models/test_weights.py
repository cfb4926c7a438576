import functools
import http.server
import threading
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from seal.errors import SealError
from seal.models import architecture, encoders, weights
from seal.models.encoder_registry import CONCH, DINOV2_S, PHIKON_V2, UNI2_H, VIRCHOW2


def tiny(spec, image_size: int, seed: int = 0):
    return architecture.make_random(spec, image_size, tiny=True, seed=seed).eval()


def save(model, path: Path, prefix: str = "") -> Path:
    save_file({prefix + key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return path


def test_a_local_file_is_loaded_whole_and_at_another_image_size(tmp_path, monkeypatch):
    monkeypatch.setenv("SEAL_WEIGHTS", str(tmp_path))
    trained = architecture.make_random(DINOV2_S, 518)
    save(trained, tmp_path / "dinov2_s.safetensors")
    encoder = encoders.build("dinov2_s", image_size=112)
    trained.set_input_size((112, 112))  # timm's own way to another size
    loaded = encoder.model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in trained.state_dict().items())
    assert all(parameter.device.type == "cpu" for parameter in encoder.parameters())
    x = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), trained.eval()(x), atol=1e-5, rtol=1e-5)


def test_a_pytorch_file_is_found_and_read_without_running_code(tmp_path, monkeypatch):
    monkeypatch.setenv("SEAL_WEIGHTS", str(tmp_path))
    torch.save({"state_dict": {"a": torch.ones(2, dtype=torch.float16)}}, tmp_path / "uni2_h.bin")
    assert weights.find_weights(UNI2_H) == tmp_path / "uni2_h.bin"
    state = weights.read_weights(tmp_path / "uni2_h.bin")
    assert list(state) == ["a"]
    assert state["a"].dtype == torch.float32
    torch.save({"a": Path("x")}, tmp_path / "code.pth")  # anything but tensors would need code to be run
    with pytest.raises(SealError, match=r"code\.pth"):
        weights.read_weights(tmp_path / "code.pth")


def test_a_weights_folder_that_is_none_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("SEAL_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(SealError, match="nowhere"):
        weights.find_weights(UNI2_H)


@pytest.mark.parametrize("keep", [0, 100, 5000])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_truncated_file_is_named(tmp_path, suffix, keep):
    path = tmp_path / f"virchow2{suffix}"
    model = tiny(VIRCHOW2, 56)
    save(model, path) if suffix == ".safetensors" else torch.save(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SealError, match=f"virchow2{suffix}"):
        weights.read_weights(path)


def test_weights_of_another_encoder_are_named_with_the_keys_that_differ(tmp_path):
    path = save(tiny(VIRCHOW2, 56), tmp_path / "mine.safetensors")
    with pytest.raises(SealError) as caught:
        weights.load_weights(tiny(DINOV2_S, 56), DINOV2_S, path)
    text = str(caught.value)
    assert "mine.safetensors does not fit DINOv2-S" in text
    assert "unexpected: reg_token" in text
    assert "other shape: pos_embed" in text
    assert "belong to another encoder" in text


def test_one_missing_key_is_enough(tmp_path):
    model = tiny(DINOV2_S, 56)
    state = {key: value for key, value in model.state_dict().items() if key != "blocks.2.ls1.gamma"}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(SealError) as caught:
        weights.load_weights(model, DINOV2_S, tmp_path / "w.safetensors")
    assert caught.value.what.endswith("does not fit DINOv2-S: missing: blocks.2.ls1.gamma")


def test_phikon_with_the_hubs_older_names_equals_transformers_own_loader(tmp_path):
    from transformers import Dinov2Model

    model = tiny(PHIKON_V2, 64)
    older = {}
    for key, value in model.state_dict().items():
        for new, old in (("q_proj", "attention.query"), ("k_proj", "attention.key"), ("v_proj", "attention.value"),
                         ("o_proj", "output.dense")):  # fmt: skip
            key = key.replace(f"attention.{new}", f"attention.{old}")
        older[key] = value.clone()
    assert "encoder.layer.0.attention.attention.query.weight" in older
    assert "encoder.layer.0.attention.output.dense.bias" in older
    model.config.save_pretrained(tmp_path)
    save_file(older, tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs = Dinov2Model.from_pretrained(tmp_path).eval()
    ours = tiny(PHIKON_V2, 64, seed=1)
    weights.load_weights(ours, PHIKON_V2, tmp_path / "model.safetensors")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x).last_hidden_state, theirs(x).last_hidden_state)


def test_phikon_at_another_size_equals_transformers_own_interpolation(tmp_path):
    model = tiny(PHIKON_V2, 64)
    smaller = tiny(PHIKON_V2, 32, seed=1)
    weights.load_weights(smaller, PHIKON_V2, save(model, tmp_path / "w.safetensors"))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(smaller(x).last_hidden_state, model(x).last_hidden_state)


def test_conch_takes_the_image_tower_and_still_misses_what_is_missing(tmp_path):
    model = tiny(CONCH, 64)
    state = {f"visual.{key}": value for key, value in model.state_dict().items()}
    text = {"text.cls_emb": torch.zeros(3), "logit_scale": torch.zeros(())}
    save_file({**state, **text}, tmp_path / "w.safetensors")
    ours = tiny(CONCH, 64, seed=1)
    weights.load_weights(ours, CONCH, tmp_path / "w.safetensors")
    assert all(torch.equal(ours.state_dict()[key], value) for key, value in model.state_dict().items())
    del state["visual.ln_contrast.bias"]
    save_file({**state, **text}, tmp_path / "w.safetensors")
    with pytest.raises(SealError, match=r"missing: ln_contrast\.bias"):
        weights.load_weights(ours, CONCH, tmp_path / "w.safetensors")


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers whatever it is asked with one status, as the hub would."""

    status, code = 404, ""

    def do_HEAD(self) -> None:
        self.send_response(self.status)
        self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's real client, sent to a server of our own."""
    monkeypatch.delenv("SEAL_WEIGHTS", raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    download = functools.partial(
        huggingface_hub.hf_hub_download,
        endpoint=f"http://127.0.0.1:{server.server_port}",
        cache_dir=tmp_path,
        token="hf_secret",
    )
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "what", "do"),
    [
        (401, "GatedRepo", "no valid token", "hf auth login"),
        (401, "", "no valid token", "HF_TOKEN"),
        (403, "GatedRepo", "no access", "ask for access at https://huggingface.co/MahmoodLab/UNI2-h"),
        (404, "RepoNotFound", "answered 404", "SEAL_WEIGHTS"),
        (404, "EntryNotFound", "has none of pytorch_model.bin, model.safetensors", "uni2_h.safetensors"),
    ],
)
def test_what_the_hub_refuses_is_explained_without_the_token(hub, monkeypatch, status, code, what, do):
    monkeypatch.setattr(Hub, "status", status)
    monkeypatch.setattr(Hub, "code", code)
    with pytest.raises(SealError) as caught:
        encoders.build("uni2_h")
    assert "UNI2-h" in caught.value.what
    assert what in caught.value.what
    assert do in caught.value.do
    assert "hf_secret" not in f"{caught.value} {caught.value.__cause__}"


def test_offline_is_explained(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SealError, match="cannot be reached") as caught:
        encoders.build("phikon_v2")
    assert "phikon_v2.safetensors" in caught.value.do
    assert "open" in caught.value.expected


def test_a_full_disk_is_explained(monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.delenv("SEAL_WEIGHTS", raising=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(SealError, match="disk is full") as caught:
        weights.find_weights(UNI2_H)
    assert "HF_HOME" in caught.value.do


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_a_pointer_of_git_lfs_is_not_called_damaged(tmp_path, name):
    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(SealError, match="not damaged, but a pointer of git-lfs") as caught:
        weights.read_weights(path)
    assert "git lfs pull" in caught.value.do
    assert "delete" not in caught.value.do
