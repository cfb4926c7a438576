"""Other people's tools, stood in for by modules of the same signatures that call an encoder as they do."""

import sys
import types
from dataclasses import dataclass

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from seal import profiles
from seal.data.panel import Panel
from seal.errors import SealError
from seal.export import interop, save
from seal.models import encoders
from seal.models.encoder_registry import REGISTRY
from seal.models.omics import SealOmics
from seal.models.vision import SealVision
from seal.profiles import OmicsSettings, VisionSettings

NAMES = ("conch", "h0_mini", "phikon_v2", "uni2_h", "virchow2", "dinov2_s")
PATCHES = np.random.default_rng(0).integers(0, 256, (5, 50, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=NAMES)
def stored(request, tmp_path_factory):
    """A saved model, and what its encoder makes of the patches."""
    torch.manual_seed(0)
    name = request.param
    encoder = encoders.build(name, weights="random", image_size=2 * REGISTRY[name].geometry.patch, tiny=True)
    settings = {"omics": OmicsSettings(hidden=(8, 8)), "vision": VisionSettings(decoder_hidden=5)}
    profile = profiles.get("demo", encoder=name, image_size=encoder.image_size, **settings)
    omics = SealOmics(4, encoder.dim, profile.omics, torch.zeros(4), torch.ones(4))
    model = SealVision(encoder, omics, profile.vision).eval()
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.data += 0.3 * torch.randn(parameter.shape)
    folder = tmp_path_factory.mktemp(name) / "model"
    save.save(model, folder, profile=profile, panel=Panel(tuple("ABCD"), {"o": ("A",)}, ("d",)))
    with torch.no_grad():
        return folder, encoder(encoder.preprocess(PATCHES)).numpy()


@pytest.fixture
def trident(monkeypatch):
    """TRIDENT's encoder class: it keeps what it is given and its forward calls the model."""

    class CustomInferenceEncoder(nn.Module):
        def __init__(self, enc_name, model, transforms, precision):
            super().__init__()
            self.enc_name, self.model, self.eval_transforms, self.precision = enc_name, model, transforms, precision

        def forward(self, x):
            return self.model(x)

    load = types.ModuleType("trident.patch_encoder_models.load")
    load.CustomInferenceEncoder = CustomInferenceEncoder
    for name in ("trident", "trident.patch_encoder_models"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, load.__name__, load)
    return CustomInferenceEncoder


@dataclass
class Slide(Dataset):
    """Tiles of a slide as PIL images, one a call, as TRIDENT reads them."""

    transform: object

    def __len__(self):
        return len(PATCHES)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(PATCHES[index])), (index, index)


def extract(encoder, precision, device="cpu", **workers) -> np.ndarray:
    """TRIDENT's loop over a slide."""
    encoder.to(device).eval()
    loader = DataLoader(Slide(encoder.eval_transforms), batch_size=3, **workers)
    features = []
    for images, _ in loader:
        with (
            torch.inference_mode(),
            torch.autocast(device_type=device, dtype=precision, enabled=precision != torch.float32),
        ):
            features.append(encoder(images.to(device)).cpu().numpy())
    return np.concatenate(features)


def chunks(path, transform, size):
    """HEST's dataset: a chunk of patches at a time from an h5 file, each through PIL and the transform."""
    with h5py.File(path) as file:
        for start in range(0, len(file["barcode"]), size):
            images = [transform(Image.fromarray(image)) for image in file["img"][start : start + size]]
            yield torch.stack(images)[None]


def embed_tiles(path, encoder, enc_transf, precision) -> np.ndarray:
    """HEST-Bench's loop over a sample; its autocast is CUDA's, here the CPU's so that it has an effect."""
    embeddings = []
    for batch in chunks(path, enc_transf, 2):
        with torch.inference_mode(), torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
            embeddings.append(encoder.eval()(batch.squeeze(0).float()).cpu().numpy())
    return np.concatenate(embeddings)


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "TENX95.h5"
    with h5py.File(path, "w") as file:
        file["img"], file["barcode"] = PATCHES, np.array([[b"AAAC-1"]] * len(PATCHES))
    return path


def near(got: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=tolerance * np.abs(wanted).max(), rtol=0)


def test_trident_embeds_a_slide_as_the_encoder_does(stored, trident):
    folder, z = stored
    encoder = interop.trident_encoder(folder)
    assert isinstance(encoder, trident)
    spec = encoder.model.encoder.spec
    assert encoder.enc_name == f"{spec.name}_seal"
    assert encoder.precision == getattr(torch, spec.precision)
    assert encoder.embedding_dim == z.shape[1]
    near(extract(encoder, torch.float32), z, 1e-5)


def test_trident_can_store_what_autocast_gives(stored, trident):
    """Numpy has no bfloat16, in which UNI2-h is computed."""
    folder, z = stored
    encoder = interop.trident_encoder(folder)
    near(extract(encoder, encoder.precision), z, 0.05)
    near(extract(encoder, torch.bfloat16), z, 0.05)


@pytest.mark.parametrize("stored", ["h0_mini"], indirect=True)
def test_trident_reads_tiles_in_other_processes(stored, trident):
    folder, z = stored
    encoder = interop.trident_encoder(folder)
    near(extract(encoder, torch.float32, num_workers=1, multiprocessing_context="spawn"), z, 1e-5)


def test_hest_bench_takes_the_arguments_and_embeds_as_the_encoder_does(stored, sample):
    folder, z = stored
    got = {}

    def benchmark(encoder, enc_transf, precision, cli_args=None, **kwargs):
        settings = {"encoders": ["resnet50"], "datasets": ["*"]} | kwargs  # its configuration's own, replaced
        got.update(z=embed_tiles(sample, encoder, enc_transf, precision), new=settings)

    def benchmark_encoder(encoder, enc_transf, precision, config_path):
        got.update(exact=embed_tiles(sample, encoder, enc_transf, torch.float32), old=config_path)

    arguments = interop.hest_bench_arguments(folder)
    benchmark(**arguments, datasets=["IDC"])
    assert arguments.pop("encoders") == []
    benchmark_encoder(**arguments, config_path="bench_config.yaml")
    assert (got["new"], got["old"]) == ({"encoders": [], "datasets": ["IDC"]}, "bench_config.yaml")
    near(got["exact"], z, 1e-5)
    near(got["z"], z, 0.05)


def test_without_trident_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "trident", None)
    with pytest.raises(SealError, match="pip install git"):
        interop.trident_encoder("folder")
