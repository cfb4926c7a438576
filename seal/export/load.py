"""Saved models read back: checked against their seal, rebuilt from what they say of themselves, loaded strictly."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from seal.data import panel as panels
from seal.data.panel import Panel
from seal.errors import SealError, explain_hub_error
from seal.export.card import may_share_derivatives
from seal.files import digest, read_json, sha256
from seal.models import architecture, weights
from seal.models.encoder_registry import REGISTRY, EncoderSpec, Geometry
from seal.models.encoders import VisionEncoder, preprocess
from seal.models.vision import BottleneckAdapter, GeneDecoder
from seal.profiles import VisionSettings

FORMAT = 1
RECORD = "seal.json"
MERGED = "model.safetensors"
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


class Loaded(NamedTuple):
    """What `load` gives."""

    model: VisionEncoder  # in evaluation mode, [B, 3, S, S] -> [B, d], pooled as its authors do; with `spec` and `dim`
    transform: Callable[[Any], Tensor]  # see `transform_image`; can be pickled for workers


def load(path_or_repo: str | Path) -> Loaded:
    """Load a saved model: ``model, transform = seal.load("folder")``.

    The files are checked against their SHA-256. No base weights are needed, except where the licence kept
    model.safetensors from being uploaded: there the adapter is merged into them.

    Parameters
    ----------
    path_or_repo
        A folder that `save` wrote, or the name of a repository on the hub, "user/name".

    Raises
    ------
    SealError
        No such folder or repository, not a SEAL model, of a newer version, or a file is missing or was changed.
    """
    folder = find_folder(path_or_repo)
    record = read_record(folder)
    spec, size, kind = _spec(record, folder), record["image_size"], record["adapter"]["kind"]
    model = plain(spec, size)
    if (folder / MERGED).is_file() or kind == "full":
        weights.load_weights(model, spec, folder / MERGED)
    else:
        weights.load_weights(model, spec, weights.find_weights(spec))
        if kind == "lora":
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, folder / "adapter").merge_and_unload()
    encoder = VisionEncoder(spec, model)
    if kind.startswith("bottleneck"):
        encoder.adapter = BottleneckAdapter(encoder.dim, record["adapter"]["bottleneck"], kind)
        encoder.adapter.load_state_dict(load_file(folder / "bottleneck.safetensors"))
    return Loaded(encoder.eval(), partial(transform_image, spec=spec, image_size=size))


def transform_image(image: Any, spec: EncoderSpec, image_size: int) -> Tensor:
    """Turn an image into a model's input: PIL, or uint8 [H, H, 3] -> float32 [3, S, S]; see `preprocess`."""
    array = np.asarray(image.convert("RGB") if hasattr(image, "convert") else image)
    return preprocess(array[None], spec, image_size)[0]


def load_decoder(path_or_repo: str | Path) -> tuple[GeneDecoder, Panel]:
    """Load a saved model's gene decoder, z [B, d] -> log expression [B, G], and the panel, whose gene i is output i.

    Raises
    ------
    SealError
        As `load`.
    """
    folder = find_folder(path_or_repo)
    record = read_record(folder)
    panel = panels.load(folder / "panel.json")
    settings = VisionSettings(**{f"decoder_{name}": value for name, value in record["decoder"].items()})
    any_start = torch.ones(len(panel.genes))
    decoder = GeneDecoder(record["embedding_size"], any_start, any_start, settings)
    decoder.load_state_dict(load_file(folder / "decoder.safetensors"))
    return decoder.eval(), panel


def plain(spec: EncoderSpec, image_size: int) -> nn.Module:
    """The plain module of an encoder, without memory for its weights."""
    with torch.device("meta"):
        return architecture.make_plain(spec, image_size)


def find_folder(path_or_repo: str | Path) -> Path:
    """Give a saved model's folder; a repository's is downloaded, or found in the hub's cache.

    Raises
    ------
    SealError
        No such folder; no network, no token, no access, no such repository, no space.
    """
    if Path(path_or_repo).is_dir():
        return Path(path_or_repo)
    if Path(path_or_repo).exists() or not isinstance(path_or_repo, str) or not _REPOSITORY.fullmatch(path_or_repo):
        raise SealError(
            f"{path_or_repo} is neither a folder nor a repository",
            expected='a folder that seal.export.save.save wrote, or a repository as "user/name"',
            do=f"correct it; the encoders that need neither are {', '.join(REGISTRY)}",
        )
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(path_or_repo))
    # Whatever the client raises means that there is no model; the first is kept as the cause.
    except Exception as error:
        raise explain_hub_error(
            error,
            f"there is no folder {path_or_repo}, and no such repository could be downloaded",
            expected="a folder that seal.export.save.save wrote, or a repository that your token can read",
            address=hub_page(path_or_repo),
        ) from error


def hub_page(repository: str) -> str:
    """Address of a repository on the hub."""
    return f"https://huggingface.co/{repository}"


def read_record(folder: Path) -> dict[str, Any]:
    """Read seal.json of a saved model and check every file against it.

    Raises
    ------
    SealError
        The folder is not a SEAL model, or of a newer version, or a file is missing or was changed.
    """
    record = read_json(folder / RECORD) if (folder / RECORD).is_file() else None
    if not isinstance(record, dict) or not isinstance(record.get("format"), int):
        raise SealError(
            f"{folder} is not a SEAL model: {RECORD} {'is missing' if record is None else 'says nothing of a format'}",
            expected="a folder that seal.export.save.save wrote",
            do="give that folder; a plain encoder is loaded with seal.models.encoders.build",
        )
    if record["format"] != FORMAT:
        raise SealError(
            f"{folder} has format {record['format']}",
            expected=f"format {FORMAT}, which this version of the package reads",
            do="update the package",
        )
    stored = record.pop("hash", None)
    if digest(record) != stored:
        raise SealError(
            f"{folder / RECORD} was changed after it was written",
            expected=f"the content whose hash is {str(stored)[:12]}",
            do="download or save the model again",
        )
    # The only file that may be missing: a licence without derivatives keeps it from being uploaded, and base weights
    # with the adapter make it anew. Weights that were trained themselves cannot be made anew.
    kept_back = not may_share_derivatives(record["licence"]) and record["adapter"]["kind"] != "full"
    for name, expected in record["files"].items():
        path = folder / name
        found = sha256(path) if path.is_file() else None
        if found == expected or (name == MERGED and found is None and kept_back):
            continue
        raise SealError(
            f"{path} {'is missing' if found is None else f'was changed or is not whole: its SHA-256 is {found[:12]}'}",
            expected=f"the file with SHA-256 {expected[:12]}",
            do="download or save the model again",
        )
    return record


def _spec(record: dict[str, Any], folder: Path) -> EncoderSpec:
    """The encoder as it was saved, whether or not this version's registry has it."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in record["encoder"].items()}
    try:
        return EncoderSpec(**{**values, "geometry": Geometry(**values["geometry"])})
    except TypeError as error:
        raise SealError(
            f"{folder / RECORD} describes an encoder in another way ({error})",
            expected="the fields of seal.models.encoder_registry.EncoderSpec",
            do="update the package",
        ) from error
