"""A trained model as others can use it: a folder for timm, transformers, PEFT and the hub (`load` reads it back).

The folder holds adapter/ (PEFT; LoRA only), model.safetensors (the merged encoder under the original keys) with
config.json (for transformers preprocessor_config.json too), bottleneck.safetensors (that adapter only),
decoder.safetensors, omics.safetensors, panel.json, README.md, and seal.json, written last, which describes and seals
the rest.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, isfinite, nn

from seal.data.panel import Panel
from seal.errors import SealError
from seal.export import card
from seal.export.load import FORMAT, MERGED, RECORD, plain
from seal.files import atomic, digest, read_json, sha256, write_json
from seal.models import weights
from seal.models.architecture import timm_arguments
from seal.models.encoder_registry import EncoderSpec
from seal.models.vision import SealVision
from seal.profiles import Profile


def save(
    model: SealVision,
    folder: Path,
    *,
    profile: Profile,
    panel: Panel,
    results: Sequence[Mapping[str, Any]] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Write a trained model for others, whole or not at all; its folder.

    Parameters
    ----------
    folder
        New, empty, or an earlier model, which is replaced.
    profile
        With which it was trained.
    panel
        The genes of the decoder's outputs, in order.
    results
        Rows of an evaluation for the model card, as they are; None: not evaluated.
    training
        Facts for the card that the profile does not hold, such as fold, seed or number of pairs.

    Raises
    ------
    SealError
        Profile or panel are not the model's, the encoder is not what its spec says, a weight is not finite, the folder
        holds something else, a local path would be published, or the disk is full.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / RECORD).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise SealError(
            f"{folder} holds something that is not a SEAL model",
            expected="a new or empty folder, or an earlier model",
            do="choose another folder; this one would have been replaced",
        )
    spec, state = model.encoder.spec, merged_state(model)
    _require_profile(model, profile, panel)
    _require_described(spec, state, model.encoder.image_size)
    _require_finite({**model.state_dict(), **state})
    record = _record(model, spec, profile, panel, training)
    text = card.write(spec, record, profile, panel, results)
    with atomic(folder) as temporary:
        temporary.mkdir()
        _write_encoder(model, spec, state, temporary)
        _save(temporary / "decoder.safetensors", model.decoder.state_dict())
        _save(temporary / "omics.safetensors", model.omics.state_dict())
        panel.save(temporary / "panel.json")
        # Not sealed: a card is there to be edited, on the hub too.
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        record["files"] = {path.relative_to(temporary).as_posix(): sha256(path) for path in files}
        (temporary / "README.md").write_text(text, encoding="utf-8")
        write_json(temporary / RECORD, {**record, "hash": digest(record)})
    return folder


def merged_state(model: SealVision) -> dict[str, Tensor]:
    """Weights of the encoder with LoRA merged in, under the original model's own keys; float32, on the CPU.

    W' = W + (alpha / r) B A; for the other adapters the weights as they are.
    """
    from peft.tuners.lora import LoraLayer

    module = model.encoder.model
    state = {
        name.replace(".base_layer.", "."): value.detach().float().cpu()
        for name, value in module.state_dict().items()
        if ".lora_" not in name
    }
    for name, layer in module.named_modules():
        if isinstance(layer, LoraLayer):
            for adapter in layer.active_adapters:
                delta = layer.get_delta_weight(adapter).detach().float().cpu()
                state[f"{name}.weight"] = state[f"{name}.weight"] + delta
    return state


def _require_profile(model: SealVision, profile: Profile, panel: Panel) -> None:
    """Assert that profile and panel, which the card will show, are those of the model."""
    for what, shown, own in (
        ("encoder", profile.encoder, model.encoder.spec.name),
        ("image_size", profile.image_size, model.encoder.image_size),
        ("vision", profile.vision, model.settings),
        ("omics", profile.omics, model.omics.settings),
        ("panel: number of genes", len(panel.genes), len(model.omics.gene_mean)),
    ):
        if shown != own:
            raise SealError(
                f"{what} is {shown}",
                expected=f"{own}, with which the model was trained",
                do="give the profile, and pairs.panel(fold), of the run that trained it",
            )


def _require_described(spec: EncoderSpec, state: dict[str, Tensor], image_size: int) -> None:
    """Assert that the encoder can be built again from its spec."""
    shapes = {name: tuple(value.shape) for name, value in plain(spec, image_size).state_dict().items()}
    if problem := weights.differences(state, shapes):
        raise SealError(
            f"the encoder is not the one that its spec describes: {problem}",
            expected=f"the tensors of {spec.label}: {spec.geometry}",
            do="correct the EncoderSpec of this encoder in seal/models/encoder_registry.py",
        )


def _require_finite(state: Mapping[str, Tensor]) -> None:
    """Assert that no weight is NaN or infinite: every embedding would be."""
    if bad := [name for name, value in state.items() if not isfinite(value).all()]:
        raise SealError(
            f"{len(bad)} tensors of the model are not finite: {', '.join(bad[:3])}",
            expected="finite weights",
            do="train it again: look where the loss in log.json rises, and lower the learning rate",
        )


def _record(
    model: SealVision, spec: EncoderSpec, profile: Profile, panel: Panel, training: Mapping[str, Any] | None
) -> dict[str, Any]:
    s = model.settings
    record = {
        "format": FORMAT,
        "encoder": asdict(spec),
        "image_size": model.encoder.image_size,
        "um_per_px": profile.um_per_px,
        "pooling": spec.pooling,
        "embedding_size": model.encoder.dim,
        "adapter": {
            "kind": s.adapter,
            **{name: getattr(s, name) for name in ("blocks", "rank", "alpha", "lora_dropout", "bottleneck")},
            "linears": len(model.peft.targeted_module_names) if model.peft else 0,
        },
        "decoder": {name: getattr(s, f"decoder_{name}") for name in ("hidden", "dropout", "relu")},
        "omics_encoder": model.omics.settings.encoder,  # whose tensors omics.safetensors holds
        "panel": {"hash": panel.hash, "genes": len(panel.genes)},
        "data": profile.label,
        "profile": profile.name,
        "licence": spec.licence,
        "versions": _versions(),
        "training": dict(training or {}),
    }
    return json.loads(json.dumps(record, default=str))  # as it will be read back: lists instead of tuples


def _versions() -> dict[str, str]:
    found = {}
    for package in ("torch", "timm", "peft", "transformers"):
        with suppress(metadata.PackageNotFoundError):  # transformers comes with PEFT today; we do not ask for it
            found[package] = metadata.version(package)
    return found


def _save(path: Path, state: Mapping[str, Tensor]) -> None:
    # The format is noted because transformers refuses a file without it.
    save_file({n: v.detach().cpu().contiguous() for n, v in state.items()}, path, metadata={"format": "pt"})


def _write_encoder(model: SealVision, spec: EncoderSpec, state: dict[str, Tensor], folder: Path) -> None:
    """Write the merged weights with the configuration of the library they are for, and the adapter."""
    size = model.encoder.image_size
    if spec.family == "transformers":
        from transformers import BitImageProcessor

        merged = plain(spec, size)
        merged.load_state_dict(state, strict=True, assign=True)
        merged.save_pretrained(folder)  # with the names that files on the hub have, old and new versions read them
        square = {"height": size, "width": size}  # the whole patch: its field of view is part of the model
        BitImageProcessor(
            size=square, do_center_crop=False, image_mean=list(spec.mean), image_std=list(spec.std)
        ).save_pretrained(folder)
    else:
        _save(folder / MERGED, state)
    if spec.family != "transformers":
        write_json(folder / "config.json", (timm_config if spec.family == "timm" else _conch_config)(spec, size))
    if model.encoder.adapter is not None:
        _save(folder / "bottleneck.safetensors", model.encoder.adapter.state_dict())
    if model.peft is not None:
        _write_adapter(model.peft, spec, folder / "adapter")


def _write_adapter(peft: nn.Module, spec: EncoderSpec, folder: Path) -> None:
    peft.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty card; ours is one level up
    path, tensors = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    config = read_json(path)
    config["base_model_name_or_path"] = spec.hub or spec.access
    targets, state = set(config["target_modules"]), load_file(tensors)
    if spec.family == "transformers":
        # Under both names: PEFT attaches what it finds and says nothing of the rest, in either version of transformers.
        older = {new: old for old, new in weights.OLDER.items()}
        targets |= {weights.rename(name, older) for name in targets}
        _save(tensors, state | {weights.rename(name, older): value.clone() for name, value in state.items()})
    config["target_modules"] = sorted(targets)  # a set: its order changes from run to run
    write_json(path, config)


def timm_config(spec: EncoderSpec, image_size: int) -> dict[str, Any]:
    """Describe an encoder in timm's format of the hub, for `timm.create_model("local-dir:...")` and for AutoModel.

    JSON cannot name the SwiGLU layer, so such encoders start from an architecture of timm that has it; the
    arguments replace all of its sizes.
    """
    arguments = timm_arguments(spec, image_size)
    return {
        "architecture": "vit_giant_patch14_reg4_dinov2" if spec.geometry.swiglu else "vit_small_patch14_dinov2",
        "num_classes": 0,
        "num_features": spec.geometry.width,
        "global_pool": arguments["global_pool"],
        "do_pooling": spec.pooling == "cls",  # of AutoModel, which has no other pooling of ours
        "model_args": arguments,
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, image_size, image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,  # the whole patch: its field of view is part of the model
            "crop_mode": "center",
            "mean": list(spec.mean),
            "std": list(spec.std),
            "num_classes": 0,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "license": spec.licence.lower(),
        },
    }


def _conch_config(spec: EncoderSpec, image_size: int) -> dict[str, Any]:
    """Describe CONCH's image tower in the words of the authors' package, whose configuration has these names."""
    g = spec.geometry
    return {
        "model_cfg": {
            "embed_dim": g.pool_width,
            "embed_dim_caption": g.width,
            "vision_cfg": {
                "image_size": image_size,
                "patch_size": g.patch,
                "width": g.width,
                "layers": g.depth,
                "head_width": g.width // g.heads,
                "attentional_pool_contrast": True,
                "attentional_pool_caption": True,
                "attn_pooler_heads": g.pool_heads,
                "n_queries_contrast": 1,
                "n_queries_caption": g.caption_queries,
                "output_tokens": True,
            },
        },
        "preprocess_cfg": {
            "size": image_size,
            "interpolation": "bicubic",
            "mean": list(spec.mean),
            "std": list(spec.std),
        },
    }
