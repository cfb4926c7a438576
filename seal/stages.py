"""The two stages as runs on disk: trained once, read afterwards, never half-written.

A run's folder holds, when it is whole, run.json (settings and the key of all its inputs, written last), the
weights as safetensors and log.json. Stage 2 adds the adapter in PEFT's format.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from seal import dependencies, paths
from seal.data import panel as panels
from seal.data.pairs import Fold, Pairs
from seal.errors import SealError
from seal.files import atomic, digest, read_json
from seal.models import encoders
from seal.models.omics import SealOmics, gene_statistics
from seal.models.vision import SealVision
from seal.tokens import TokenStore, device
from seal.train import Schedule, finish, fit

METHODS = ("seal", "seal_shuffled")


def run_folder(pairs: Pairs, fold: Fold, seed: int, stage: str) -> Path:
    """Where a run lives; `stage` is "omics" or a method of stage 2."""
    return paths.runs(pairs.profile.name) / fold.name / f"seed{seed}" / stage


def _seed(seed: int, *words: str) -> int:
    """One integer from a seed and words, so that stages and methods draw independent numbers."""
    return int(digest([seed, *words])[:8], 16)


def _is_current(folder: Path, key: str) -> bool:
    return (folder / "run.json").is_file() and read_json(folder / "run.json")["key"] == key


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The log of a finished run: one dict a step."""
    return read_json(folder / "log.json")


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises
    ------
    SealError
        It is missing, truncated or not safetensors.
    """
    try:
        return load_file(path)
    except Exception as error:
        raise SealError(
            f"{path} cannot be read ({error})",
            expected="a whole safetensors file",
            do="train again: delete the run's folder and run the notebook",
        ) from error


def load_strictly(module: torch.nn.Module, state: dict[str, Tensor], origin: Path) -> None:
    """Load a state dict key for key and shape for shape.

    Raises
    ------
    SealError
        Names the keys that are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}"
        for k in own.keys() & state.keys()
        if own[k].shape != state[k].shape
    ]
    if missing or unexpected or shapes:
        raise SealError(
            f"{origin} does not fit {type(module).__name__}: missing {missing[:3]}, "
            f"unexpected {unexpected[:3]}, other shapes {sorted(shapes)[:3]}",
            expected=f"exactly the {len(own)} tensors of this model",
            do="load the file into the model it was saved from (same encoder, panel and hidden sizes)",
        )
    module.load_state_dict(state)


def _omics_model(pairs: Pairs, fold: Fold, seed: int, dim: int) -> SealOmics:
    x = torch.from_numpy(np.asarray(pairs.context(fold)[fold.omics]))
    with torch.random.fork_rng():
        torch.manual_seed(_seed(seed, "omics"))
        return SealOmics(x.shape[1], dim, pairs.profile.omics, *gene_statistics(x))


def train_omics(pairs: Pairs, fold: Fold, seed: int, dim: int) -> SealOmics:
    """Stage 1 on the fold's training spots, those without a patch among them.

    Parameters
    ----------
    dim
        Latent size d: the vision encoder's embedding size.

    Returns
    -------
    SealOmics in evaluation mode, on the CPU.
    """
    folder = run_folder(pairs, fold, seed, "omics")
    settings = pairs.profile.omics
    key = _omics_key(pairs, fold, seed, dim)
    model = _omics_model(pairs, fold, seed, dim)
    if _is_current(folder, key):
        pairs.panel(fold).require(panels.load(folder / "panel.json"), str(folder))
        load_strictly(model, load_weights(folder / "omics.safetensors"), folder)
        return model.eval()
    model.to(device())
    x = torch.from_numpy(np.asarray(pairs.context(fold)[fold.omics])).to(device())
    schedule = Schedule(settings.epochs, settings.batch, settings.lr, settings.weight_decay, _seed(seed, "omics loop"))
    log = fit(
        model,
        lambda rows: model.losses(x[rows.to(x.device)]),
        len(x),
        schedule,
        folder,
        key,
        f"SEAL-omics {fold.name} seed {seed}",
    )
    _save_tensors(folder / "omics.safetensors", model.cpu().state_dict())
    pairs.panel(fold).save(folder / "panel.json")
    finish(folder, key, log, {"stage": "omics", "fold": fold.name, "seed": seed, **asdict(settings)})
    return model


def _omics_key(pairs: Pairs, fold: Fold, seed: int, dim: int) -> str:
    code = dependencies.code_digest(["seal.stages"])
    return digest([pairs.key, fold.name, seed, dim, asdict(pairs.profile.omics), pairs.panel(fold).hash, code])


def vision_key(pairs: Pairs, fold: Fold, seed: int, method: str, store: TokenStore, dim: int) -> str:
    """Digest of everything a stage-2 run depends on."""
    settings = asdict(pairs.profile.vision)
    return digest([_omics_key(pairs, fold, seed, dim), store.key, method, settings])


def train_vision(pairs: Pairs, fold: Fold, seed: int, store: TokenStore, method: str = "seal") -> SealVision:
    """Stage 2 on the fold's training pairs, from the trunk's tokens.

    Parameters
    ----------
    method
        "seal", or "seal_shuffled": the control in which every patch gets the expression of another spot.

    Returns
    -------
    SealVision in evaluation mode, on the CPU, with its adapters.
    """
    if method not in METHODS:
        raise SealError(f"unknown method {method!r}", expected=f"one of {METHODS}", do="choose one of them")
    profile, settings = pairs.profile, pairs.profile.vision
    encoder = encoders.build(profile.encoder, image_size=profile.image_size)
    folder = run_folder(pairs, fold, seed, method)
    key = vision_key(pairs, fold, seed, method, store, encoder.dim)
    omics = train_omics(pairs, fold, seed, encoder.dim)
    with torch.random.fork_rng():
        torch.manual_seed(_seed(seed, "vision"))
        model = SealVision(encoder, omics, settings)
    if _is_current(folder, key):
        pairs.panel(fold).require(panels.load(folder / "panel.json"), str(folder))
        _load_vision(model, folder)
        return model.eval()
    model.to(device())
    x = torch.from_numpy(np.asarray(pairs.context(fold)[_partners(fold, seed, method)])).to(device())
    schedule = Schedule(settings.epochs, settings.batch, settings.lr, settings.weight_decay, _seed(seed, "vision loop"))

    def loss(rows: Tensor) -> dict[str, Tensor]:
        # Training sees augmented views only, one drawn anew each time; without any, the plain patch.
        views = torch.randint(1, store.views + 1, (len(rows),)) if store.views else torch.zeros_like(rows)
        tokens = store.batch(views.numpy(), fold.train[rows.numpy()])
        return model.losses(tokens.to(x.device), x[rows.to(x.device)])

    log = fit(model, loss, len(x), schedule, folder, key, f"SEAL-vision {method} {fold.name} seed {seed}")
    _save_vision(model.cpu(), folder, pairs, fold)
    finish(folder, key, log, {"stage": method, "fold": fold.name, "seed": seed, **asdict(settings)})
    return model


def _partners(fold: Fold, seed: int, method: str) -> np.ndarray:
    """The spot whose expression each training patch gets."""
    if method == "seal":
        return fold.train
    order = np.random.default_rng(_seed(seed, "shuffle")).permutation(len(fold.train))
    partners = np.empty_like(fold.train)
    partners[order] = fold.train[np.roll(order, 1)]  # one long cycle: no patch keeps its own spot
    return partners


def _save_tensors(path: Path, state: dict[str, Tensor]) -> None:
    with atomic(path) as temporary:
        save_file({name: value.detach().contiguous().cpu() for name, value in state.items()}, temporary)


def _save_vision(model: SealVision, folder: Path, pairs: Pairs, fold: Fold) -> None:
    with atomic(folder / "adapter") as temporary:
        model.peft.save_pretrained(temporary)
    _save_tensors(folder / "decoder.safetensors", model.decoder.state_dict())
    _save_tensors(folder / "omics.safetensors", model.omics.state_dict())
    pairs.panel(fold).save(folder / "panel.json")


def _load_vision(model: SealVision, folder: Path) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    path = folder / "adapter" / "adapter_model.safetensors"
    state = load_weights(path)
    expected = get_peft_model_state_dict(model.peft)
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in expected.items()}:
        odd = sorted(state.keys() ^ expected.keys())[:3]
        raise SealError(
            f"{path} does not fit the encoder (first keys that differ: {odd or 'shapes'})",
            expected=f"the {len(expected)} adapter tensors of this encoder",
            do="load the adapter into the encoder it was trained on",
        )
    set_peft_model_state_dict(model.peft, state)
    load_strictly(model.decoder, load_weights(folder / "decoder.safetensors"), folder / "decoder.safetensors")
    load_strictly(model.omics, load_weights(folder / "omics.safetensors"), folder / "omics.safetensors")


def merged_state(model: SealVision) -> dict[str, Tensor]:
    """Weights of the encoder with the adapter merged in, under the original model's own keys."""
    import copy

    return copy.deepcopy(model.peft).merge_and_unload().state_dict()


def export(model: SealVision, path: Path) -> Path:
    """Write the merged encoder as safetensors; the plain timm (or transformers) model loads it strictly."""
    _save_tensors(path, merged_state(model))
    return path
