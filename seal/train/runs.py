"""The two stages as runs on disk: trained once, read afterwards, never half-written.

A run's folder holds, when it is whole, run.json (settings and the key of all its inputs, written last), the
weights as safetensors and log.json. Stage 2 adds the adapter in PEFT's format.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from seal import paths
from seal.data import pairs as stored_pairs
from seal.data import panel as panels
from seal.data.pairs import Fold, Pairs
from seal.errors import SealError
from seal.files import Made, atomic, digest, read_json
from seal.models.omics import SealOmics, gene_statistics, in_gene_units
from seal.models.vision import SealVision
from seal.models.weights import differences
from seal.profiles import difference
from seal.train import parallel, tokens
from seal.train.loop import Schedule, finish, fit
from seal.train.steps import Expression, OmicsTask, VisionTask
from seal.train.tokens import TokenSource

VERSION = 1  # counted up when the same inputs and settings give other weights
METHODS = ("seal", "seal_shuffled")
# Of a profile, what each stage depends on.
OMICS = (*stored_pairs.SETTINGS, "encoder", "omics")
VISION = (*tokens.SETTINGS, *OMICS, "vision")


def run_folder(pairs: Pairs, fold: Fold, seed: int, stage: str) -> Path:
    """Where a run lives, apart from runs of other settings; `stage` is "omics" or a method of stage 2."""
    other = [
        difference(pairs.profile, OMICS if stage == "omics" else VISION),
        "" if pairs.genes is None else f"genes={pairs.genes}",
        "" if fold.share == 1 else f"share={fold.share:g}",
    ]
    home = paths.runs(pairs.profile.name, ",".join(word for word in other if word))
    return home / fold.name / f"seed{seed}" / stage


def _seed(seed: int, *words: str) -> int:
    """One integer from a seed and words, so that stages and methods draw independent numbers."""
    return int(digest([seed, *words])[:8], 16)


def _partial(folder: Path, made: Made) -> Path:
    """Where a run lies until it is whole; what was left of a run on other inputs goes."""
    partial = folder.with_name(f".{folder.name}.{made.key[:12]}.part")
    for other in folder.parent.glob(f".{folder.name}.*.part"):
        if other != partial and parallel.is_main():
            shutil.rmtree(other, ignore_errors=True)
    return partial


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
    require_same(module.state_dict(), state, origin, type(module).__name__)
    module.load_state_dict(state)


def require_same(own: dict[str, Tensor], state: dict[str, Tensor], origin: Path, owner: str) -> None:
    """Assert that two state dicts have the same keys and shapes.

    Raises
    ------
    SealError
        Names the first keys that are missing, unexpected or of another shape.
    """
    if problem := differences(state, {name: tuple(value.shape) for name, value in own.items()}):
        raise SealError(
            f"{origin} does not fit {owner}: {problem}",
            expected=f"exactly the {len(own)} tensors of this model",
            do="load the file into the model it was saved from (same encoder, panel and sizes)",
        )


def train_omics(pairs: Pairs, fold: Fold, seed: int, dim: int) -> SealOmics:
    """Stage 1 on the fold's training spots, those without a patch among them.

    Of many processes the first trains and the others wait: it takes seconds, or minutes on a whole atlas.

    Parameters
    ----------
    dim
        Latent size d: the vision encoder's embedding size.

    Returns
    -------
    SealOmics in evaluation mode, on the CPU.
    """
    with parallel.main_first() as main:
        return _train_omics(pairs, fold, seed, dim, main)


def _train_omics(pairs: Pairs, fold: Fold, seed: int, dim: int, main: bool) -> SealOmics:
    folder = run_folder(pairs, fold, seed, "omics")
    settings = pairs.profile.omics
    made = _omics_made_from(pairs, fold, seed, dim)
    x = Expression(pairs.context(fold), fold.omics)
    current = made.is_current(folder / "run.json")
    with parallel.own_random_state(_seed(seed, "omics")):
        model = SealOmics(x.matrix.shape[1], dim, settings, *_statistics(x, current))
    if current:
        pairs.panel(fold).require(panels.load(folder / "panel.json"), str(folder))
        load_strictly(model, load_weights(folder / "omics.safetensors"), folder)
        return model.eval()
    if not main:  # the first process has been here before the others
        raise SealError(
            f"{folder} does not show what the first process has just written",
            expected="every process to see the same SEAL_HOME",
            do="put SEAL_HOME on a disk that all machines share, then run again",
        )
    partial = _partial(folder, made)
    model.to(parallel.device())
    schedule = Schedule(settings.epochs, settings.batch, settings.lr, settings.weight_decay, _seed(seed, "omics loop"))
    with in_gene_units([model.decoder[-1]], model.gene_mean, model.gene_sd):
        log = fit(OmicsTask(model, x), schedule, partial, made.key, f"SEAL-omics {fold.name} seed {seed}")
    _save_tensors(partial / "omics.safetensors", model.cpu().state_dict())
    pairs.panel(fold).save(partial / "panel.json")
    record = made.stamp() | {"stage": "omics", "fold": fold.name, "seed": seed, **asdict(settings)}
    finish(partial, folder, log, record)
    return model


def _statistics(x: Expression, current: bool) -> tuple[Tensor, Tensor]:
    """Gene mean and sd; anything of their shape for a run that is read, whose own are in its files."""
    if current:
        return torch.zeros(x.matrix.shape[1]), torch.ones(x.matrix.shape[1])
    return gene_statistics(x)


def _omics_made_from(pairs: Pairs, fold: Fold, seed: int, dim: int) -> Made:
    """Everything that a run of stage 1 depends on: what is computed, not how fast."""
    parts = {
        "expression": pairs.digest_of(f"folds/{fold.name}/context.npy"),
        "panel": pairs.panel(fold).hash,
        "rows": digest(fold.omics.tolist()),
        "seed": seed,
        "dim": dim,
        "omics": asdict(pairs.profile.omics),
    }
    return Made("SEAL-omics", VERSION, parts)


def _vision_made_from(pairs: Pairs, fold: Fold, seed: int, method: str, source: TokenSource) -> Made:
    """Everything that a run of stage 2 depends on; its stage 1 must be there."""
    parts = {
        "stage 1": read_json(run_folder(pairs, fold, seed, "omics") / "run.json")["key"],
        "tokens": source.key,
        "rows": digest(fold.train.tolist()),
        "method": method,
        "vision": asdict(pairs.profile.vision),
        "precision": pairs.profile.compute.precision,
    }
    return Made("SEAL-vision", VERSION, parts)


def train_vision(pairs: Pairs, fold: Fold, seed: int, source: TokenSource, method: str = "seal") -> SealVision:
    """Stage 2 on the fold's training pairs, from the trunk's tokens.

    Called in many processes at once (torchrun, accelerate, or `python -m seal train`), it shares the work among
    them. Called alone, as from a notebook, on a machine of several GPUs, it starts a process for each.

    Parameters
    ----------
    method
        "seal", or "seal_shuffled": the control in which every patch gets the expression of another spot.

    Returns
    -------
    SealVision in evaluation mode, with its adapters, on this process's device.
    """
    if method not in METHODS:
        raise SealError(f"unknown method {method!r}", expected=f"one of {METHODS}", do="choose one of them")
    settings, dim = pairs.profile.vision, source.encoder.dim
    folder = run_folder(pairs, fold, seed, method)
    omics = train_omics(pairs, fold, seed, dim)
    made = _vision_made_from(pairs, fold, seed, method, source)
    x, current = Expression(pairs.context(fold), _partners(fold, seed, method)), made.is_current(folder / "run.json")
    with parallel.own_random_state(_seed(seed, "vision")):
        model = SealVision(source.encoder.fork(settings.blocks), omics, settings, *_statistics(x, current))
    model.to(parallel.device())
    whole = pairs.genes is None and fold.share == 1  # what a command line can say
    if not current and whole and (processes := parallel.gpus_to_share()):
        parallel.start_training(pairs.profile, [fold.name], [seed], method, processes)
        current = made.is_current(folder / "run.json")
    parallel.state().wait_for_everyone()  # all have looked before the first can finish
    if current:
        pairs.panel(fold).require(panels.load(folder / "panel.json"), str(folder))
        _load_vision(model, folder)
        return model.eval()
    partial = _partial(folder, made)
    task = VisionTask(model, source, fold.train, x, pairs.profile.compute.precision, pairs.profile.compute.gradcache)
    schedule = Schedule(settings.epochs, settings.batch, settings.lr, settings.weight_decay, _seed(seed, "vision loop"))
    with in_gene_units(model.last_layers, model.gene_mean, model.gene_sd):
        log = fit(task, schedule, partial, made.key, f"SEAL-vision {method} {fold.name} seed {seed}")
    if parallel.is_main():
        _save_vision(model, partial, pairs, fold)
        record = made.stamp() | {"stage": method, "fold": fold.name, "seed": seed, **asdict(settings)}
        finish(partial, folder, log, record)
    parallel.state().wait_for_everyone()
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


def _own_state(model: SealVision) -> dict[str, Tensor]:
    """What of a SEAL-vision model lies neither in the adapter's files nor in SEAL-omics nor in the frozen encoder."""
    trained = {name for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name}
    state = model.state_dict()
    names = trained | {"gene_mean", "gene_sd", "log_temperature"}
    return {name: value for name, value in state.items() if name in names and not name.startswith("omics.")}


def _save_vision(model: SealVision, folder: Path, pairs: Pairs, fold: Fold) -> None:
    if model.peft is not None:
        with atomic(folder / "adapter") as temporary:
            model.peft.save_pretrained(temporary)
    _save_tensors(folder / "vision.safetensors", _own_state(model))
    _save_tensors(folder / "omics.safetensors", model.omics.state_dict())
    pairs.panel(fold).save(folder / "panel.json")


def _load_vision(model: SealVision, folder: Path) -> None:
    if model.peft is not None:
        _load_adapter(model, folder / "adapter" / "adapter_model.safetensors")
    state, own = load_weights(folder / "vision.safetensors"), _own_state(model)
    require_same(own, state, folder / "vision.safetensors", "SealVision")
    model.load_state_dict({**model.state_dict(), **state})  # the rest has just been read or is the frozen encoder
    load_strictly(model.omics, load_weights(folder / "omics.safetensors"), folder / "omics.safetensors")


def _load_adapter(model: SealVision, path: Path) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    state = load_weights(path)
    require_same(get_peft_model_state_dict(model.peft), state, path, "the adapter of this encoder")
    set_peft_model_state_dict(model.peft, state)


# ---- all runs of a profile ---------------------------------------------------------------------------------


class VisionRun(NamedTuple):
    """One training of stage 2: the pairs under its settings, the fold that it learns from, its seed and method.

    `variant` names what was changed, if anything was: in the name of its embeddings, instead of the method.
    """

    pairs: Pairs
    fold: Fold
    seed: int
    method: str = "seal"
    variant: str = ""

    @property
    def folder(self) -> Path:
        """See `run_folder`."""
        return run_folder(self.pairs, self.fold, self.seed, self.method)

    def is_trained(self, source: TokenSource) -> bool:
        """Say whether both stages are there and current."""
        stage_1 = _omics_made_from(self.pairs, self.fold, self.seed, source.encoder.dim)
        if not stage_1.is_current(run_folder(self.pairs, self.fold, self.seed, "omics") / "run.json"):
            return False
        stage_2 = _vision_made_from(self.pairs, self.fold, self.seed, self.method, source)
        return stage_2.is_current(self.folder / "run.json")

    def model(self, source: TokenSource) -> SealVision:
        """Read its model, or train it if it is not there; see `train_vision`."""
        return train_vision(self.pairs, self.fold, self.seed, source, self.method)

    def key(self, source: TokenSource) -> str:
        """Give the key of the trained run.

        Raises
        ------
        SealError
            It is not trained yet, or on other inputs.
        """
        if not self.is_trained(source):
            raise SealError(
                f"{self.folder} holds no run of these settings and inputs",
                expected="a trained model",
                do="train it first: seal.train.runs.train_runs, or notebook 04 from its beginning",
            )
        return read_json(self.folder / "run.json")["key"]


def list_runs(
    pairs: Pairs,
    methods: Sequence[str] = METHODS,
    folds: Sequence[Fold] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[VisionRun]:
    """List the runs of these methods, folds and seeds; by default all of the profile's."""
    folds, seeds = folds or pairs.folds(), seeds or pairs.profile.evaluation.seeds
    return [VisionRun(pairs, fold, seed, method) for fold in folds for method in methods for seed in seeds]


def train_all(
    pairs: Pairs,
    source: TokenSource,
    methods: Sequence[str] = METHODS,
    folds: Sequence[Fold] | None = None,
    seeds: Sequence[int] | None = None,
) -> None:
    """Train what of `list_runs` is not trained yet; what was cut off goes on from where it stopped."""
    train_runs(list_runs(pairs, methods, folds, seeds), source)


def train_runs(runs: Sequence[VisionRun], source: TokenSource) -> None:
    """Train those of some runs that are not trained yet."""
    from tqdm import tqdm

    for run in tqdm(runs, desc="training", unit="run"):
        if not run.is_trained(source):
            run.model(source)


def tabulate_training(pairs: Pairs):
    """Give the loss terms of every finished run: stage, method, fold, seed, epoch, step, term, value."""
    import pandas as pd

    frames = []
    for fold in pairs.folds():
        for seed in pairs.profile.evaluation.seeds:
            for name in ("omics", *METHODS):
                folder = run_folder(pairs, fold, seed, name)
                if not (folder / "run.json").is_file():
                    continue
                log = pd.DataFrame(read_log(folder)).drop(columns="lr")
                long = log.melt(["epoch", "step"], var_name="term")
                stage, method = ("omics", "seal") if name == "omics" else ("vision", name)
                frames.append(long.assign(stage=stage, method=method, fold=fold.name, seed=seed))
    columns = ["stage", "method", "fold", "seed", "epoch", "step", "term", "value"]
    return pd.concat(frames, ignore_index=True)[columns]
