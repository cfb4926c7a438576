"""The two stages as runs on disk: trained once, read afterwards, never half-written.

A run's folder holds, when it is whole, run.json (settings and the key of all its inputs, written last), the
weights as safetensors and log.json. Stage 2 adds the adapter in PEFT's format.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from seal import paths, profiles
from seal.data import neighbours
from seal.data import pairs as stored_pairs
from seal.data import panel as panels
from seal.data.grid import STEPS
from seal.data.pairs import Fold, Pairs
from seal.errors import SealError, require_known
from seal.files import Made, atomic, digest, find_partial, progress, read_json, say_done
from seal.models import baselines
from seal.models.baselines import BASELINES
from seal.models.baselines.base import Baseline, Parts, Surroundings
from seal.models.encoder_registry import find_spec
from seal.models.omics import OMICS_ENCODERS, SealOmics, gene_statistics, in_gene_units
from seal.models.vision import SealVision
from seal.models.weights import differences
from seal.profiles import OmicsSettings, Profile, Shown, difference, fitted, keyed
from seal.train import parallel, tokens
from seal.train.batches import TokenSource
from seal.train.loop import Schedule, finish, fit
from seal.train.steps import Expression, OmicsTask, PlacedExpression, TwoViewTask, VisionTask

VERSION = 1  # counted up when the same inputs and settings give other weights
METHODS = ("seal", "seal_shuffled")
# controls that are SEAL under other settings: the ablations have them by these names too
CHANGED = {
    "no_info": {"vision__info_weight": 0.0},
    "info_alone": {"vision__rec_vision_weight": 0.0, "vision__rec_omics_weight": 0.0},
}
# Of a profile, what each stage depends on.
OMICS = (*stored_pairs.SETTINGS, "encoder", *(f"omics__{f.name}" for f in fields(OmicsSettings) if f.name != "head"))
VISION = (*tokens.SETTINGS, *OMICS, "omics", "vision")


@dataclass(frozen=True)
class Run(Shown):
    """One training: the pairs under its settings, the fold that it learns from, its seed and method.

    The method "omics" is stage 1 alone; "seal_shuffled" is the control in which every patch gets the expression of
    another spot; the others are `BASELINES`. `variant` names what was changed, if anything was: in the name of the
    run's embeddings, instead of the method.
    """

    pairs: Pairs
    fold: Fold
    seed: Any  # a whole number; becomes a plain one
    method: str = "seal"
    variant: str = ""

    def __post_init__(self) -> None:
        require_known("method", self.method, ("omics", *METHODS, *BASELINES))
        object.__setattr__(self, "seed", fitted("seed", self.seed, int))

    def __str__(self) -> str:
        what = f"run of {self.method}, fold {self.fold.name}, seed {self.seed}"
        state = "finished" if self.record.is_file() else "not there yet"
        return f"{what}\nprofile {self.pairs.profile.name}: {self.pairs.profile.label}\n{state}"

    @property
    def folder(self) -> Path:
        """Where it lies, apart from runs of other settings."""
        settings = (*VISION, "baselines") if self.method in BASELINES else VISION
        other = [
            difference(self.pairs.profile, OMICS if self.method == "omics" else settings),
            "" if self.pairs.genes is None else f"genes={self.pairs.genes}",
            "" if self.fold.share == 1 else f"share={self.fold.share:g}",
        ]
        home = paths.runs(self.pairs.profile.name, ",".join(word for word in other if word))
        return home / self.fold.name / f"seed{self.seed}" / self.method

    @property
    def record(self) -> Path:
        """Its run.json."""
        return self.folder / "run.json"

    @property
    def stage_1(self) -> "Run":
        """The run whose SEAL-omics it starts from."""
        return replace(self, method="omics")

    @property
    def learns_omics(self) -> bool:
        """Whether it trains SEAL-omics too."""
        return self.method not in BASELINES or BASELINES[self.method].learns_omics

    def read_log(self) -> list[dict[str, Any]]:
        """Read the log of a finished run: one dict a step."""
        return read_json(self.folder / "log.json")

    def is_trained(self, source: TokenSource) -> bool:
        """Say whether both stages, or its own alone, are there and current."""
        if self.learns_omics and not _omics_made_from(self.stage_1, source.encoder.dim).is_current(self.stage_1.record):
            return False
        return _vision_made_from(self, source).is_current(self.record)

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
        return read_json(self.record)["key"]


def require_trainable(profile: Profile, method: str, seeds: Sequence[int]) -> None:
    """Assert, before anything is computed, that there are this method and encoder, these seeds and so many blocks."""
    require_known("method", method, (*METHODS, *BASELINES))
    for seed in seeds:
        fitted("seed", seed, int)
    fitted("vision.blocks", profile.vision.blocks, int, most=find_spec(profile.encoder).geometry.depth)


def _seed(seed: int, *words: str) -> int:
    """One integer from a seed and words, so that stages and methods draw independent numbers."""
    return int(digest([seed, *words])[:8], 16)


def load_weights(path: Path, like: Mapping[str, Tensor], owner: str) -> dict[str, Tensor]:
    """Read a safetensors file that holds the tensors of `like`, key for key and shape for shape.

    Raises
    ------
    SealError
        It is missing, truncated or not safetensors; or names the keys that are missing, unexpected or of another shape.
    """
    try:
        state = load_file(path)
    except Exception as error:
        raise SealError(
            f"{path} cannot be read ({error})",
            expected="a whole safetensors file",
            do="train again: delete the run's folder and run the notebook",
        ) from error
    if problem := differences(state, {name: tuple(value.shape) for name, value in like.items()}):
        raise SealError(
            f"{path} does not fit {owner}: {problem}",
            expected=f"exactly the {len(like)} tensors of this model",
            do="load the file into the model it was saved from (same encoder, panel and sizes)",
        )
    return state


def train_omics(run: Run, dim: int) -> SealOmics:
    """Stage 1 of a run, read if it is there: on the fold's training spots, those without a patch among them.

    Of many processes the first trains and the others wait: it takes seconds, or minutes on a whole atlas.
    The projection head is drawn, never trained, so runs that differ in it share one stage 1.

    Parameters
    ----------
    dim
        Latent size d: the vision encoder's embedding size.

    Returns
    -------
    SealOmics in evaluation mode, on the CPU.
    """
    run, pairs, fold = run.stage_1, run.pairs, run.fold
    made, x = _omics_made_from(run, dim), Expression(pairs.context(fold), fold.omics)
    with parallel.one_maker(made, run.record) as current:
        first = parallel.is_main() and not current
        with parallel.own_random_state(_seed(run.seed, "omics")):
            kind = OMICS_ENCODERS[pairs.profile.omics.encoder]
            model = kind(x.matrix.shape[1], dim, pairs.profile.omics, *_statistics(x, not first))
        head, model.projection_head = model.projection_head, torch.nn.Identity()
        if first:
            _train(run, made, OmicsTask(model.to(parallel.device()), x))
        parallel.state().wait_for_everyone()
        if not made.is_current(run.record):  # the first process has just written it
            raise parallel.explain_other_disk(f"{run.folder} does not show what the first process has just written")
        if not first:
            _load(run, model)
    model.projection_head = head
    return model.cpu().eval()


def train_vision(run: Run, source: TokenSource) -> SealVision | Baseline:
    """Both stages of a run, read if they are there: stage 2 on the fold's training pairs, from the trunk's tokens.

    Called in many processes at once (torchrun, accelerate, or `python -m seal train`), it shares the work among
    them. Called alone, as from a notebook, on a machine of several GPUs, it starts a process for each.

    Returns
    -------
    SealVision, or the baseline that the run is of, in evaluation mode, with its adapters, on this process's device.
    """
    require_known("method", run.method, (*METHODS, *BASELINES))
    source = source.of(run.pairs)
    omics = train_omics(run, source.encoder.dim) if run.learns_omics else None
    made, x = _vision_made_from(run, source), _expression(run)
    whole = run.pairs.genes is None and run.fold.share == 1  # what a command line can say
    if whole and (processes := parallel.gpus_to_share()) and not made.is_current(run.record):
        parallel.start_training(run.pairs.profile, [run.fold.name], [run.seed], run.method, processes)
    with parallel.one_maker(made, run.record) as current:
        with parallel.own_random_state(_seed(run.seed, "vision")):
            model = _make_model(run, source, omics, _statistics(x, current))
        model.to(parallel.device())
        if current:
            _load(run, model)
        else:
            _train(run, made, _make_task(run, source, model, x))
        parallel.state().wait_for_everyone()
    return model.eval()


def read_vision(run: Run, source: TokenSource) -> SealVision | Baseline:
    """Read a run's model as `train_vision` does, but never train it.

    Raises
    ------
    SealError
        It is not trained yet, or on other inputs.
    """
    run.key(source)
    statistics, omics = _statistics(_expression(run), True), None
    if run.learns_omics:
        omics = SealOmics(len(statistics[0]), source.encoder.dim, run.pairs.profile.omics, *statistics)
    with parallel.own_random_state():
        model = _make_model(run, source, omics, statistics).to(parallel.device())
    _load(run, model)
    return model.eval()


def _make_model(
    run: Run, source: TokenSource, omics: SealOmics | None, statistics: tuple[Tensor, Tensor]
) -> SealVision | Baseline:
    profile, encoder = run.pairs.profile, source.encoder.fork(run.pairs.profile.vision.blocks)
    if run.method in METHODS:
        return SealVision(encoder, omics, profile.vision, *statistics)
    kind = BASELINES[run.method]
    tissue = _read_surroundings(run.pairs, source if kind.needs == "frozen" else None) if kind.needs else None
    return kind(Parts(encoder, profile.vision, profile.baselines, *statistics, tissue, omics))


def _read_surroundings(pairs: Pairs, source: TokenSource | None) -> Surroundings:
    read = (
        *(neighbours.places(pairs), neighbours.find_around(pairs, STEPS)),
        *(neighbours.find_around(pairs, neighbours.WINDOW), neighbours.find_sections(pairs)),
        *((source.frozen,) if source else ()),
    )
    return Surroundings(*(torch.from_numpy(np.array(values)).to(parallel.device()) for values in read))


def _expression(run: Run) -> Expression:
    """What a run of stage 2 learns from; for one without any expression no genes of the same spots."""
    if run.method == "no_expression":
        return Expression(np.empty((run.pairs.n_spots, 0), dtype=np.float32), run.fold.train)
    return Expression(run.pairs.context(run.fold), _partners(run))


def _make_task(run: Run, source: TokenSource, model: SealVision | Baseline, x: Expression) -> VisionTask | OmicsTask:
    compute, given = run.pairs.profile.compute, x if run.method in METHODS else PlacedExpression(x)
    if not getattr(model, "adapts", True):
        return OmicsTask(model, given)
    kind = TwoViewTask if run.method == "no_expression" else VisionTask
    if kind is TwoViewTask and not run.pairs.profile.vision.views:
        what = "the control without expression has no augmented view of a patch"
        raise SealError(what, expected="two views", do="set vision.views to 1 or more")
    return kind(model, source, run.fold.train, given, compute.precision, compute.gradcache)


def _train(run: Run, made: Made, task: OmicsTask | VisionTask) -> None:
    """Train in a folder of a hidden name, where a killed run goes on, and give it its name when it is whole."""
    folder, model, settings = run.folder, task.model, task.model.settings
    partial, made = find_partial(folder, made)
    vision = not isinstance(model, SealOmics)
    draw = _seed(run.seed, "vision loop" if vision else "omics loop")
    schedule = Schedule(settings.epochs, settings.batch, settings.lr, settings.weight_decay, draw)
    with in_gene_units(model.last_layers if vision else [model.decoder[-1]], model.gene_mean, model.gene_sd):
        log = fit(task, schedule, partial, made.key, f"{made.what} ({run.method}) {run.fold.name} seed {run.seed}")
    if parallel.is_main():
        _save(run, model, partial)
        record = made.stamp() | {"stage": run.method, "fold": run.fold.name, "seed": run.seed, **asdict(settings)}
        finish(partial, folder, log, record)


def _statistics(x: Expression, current: bool) -> tuple[Tensor, Tensor]:
    """Gene mean and sd; anything of their shape for a run that is read, whose own are in its files."""
    if current:
        return torch.zeros(x.matrix.shape[1]), torch.ones(x.matrix.shape[1])
    return gene_statistics(x)


def _omics_made_from(run: Run, dim: int) -> Made:
    """Everything that a run of stage 1 depends on: what is computed, not how fast."""
    parts = {
        "expression": run.pairs.digest_of(f"folds/{run.fold.name}/context.npy"),
        "panel": run.pairs.panel(run.fold).hash,
        "rows": digest(run.fold.omics.tolist()),
        "seed": run.seed,
        "dim": dim,
        "omics": keyed(replace(run.pairs.profile.omics, head="none")),
    }
    return Made("SEAL-omics", VERSION, parts)


def _vision_made_from(run: Run, source: TokenSource) -> Made:
    """Everything that a run of stage 2 depends on; its stage 1 must be there, if it has one."""
    pairs, fold = run.pairs, run.fold
    parts = {"stage 1": read_json(run.stage_1.record)["key"]} if run.learns_omics else {}
    parts |= {
        "tokens": source.of(pairs).key,
        "rows": digest(fold.train.tolist()),
        "method": run.method,
        "vision": keyed(pairs.profile.vision),
        "precision": pairs.profile.compute.precision,
    }
    if run.method in METHODS:
        return Made("SEAL-vision", VERSION, parts)
    kind = BASELINES[run.method]
    parts["own"] = {name: getattr(pairs.profile.baselines, name) for name in kind.uses}
    if not run.learns_omics and run.method != "no_expression":
        parts |= {"expression": pairs.digest_of(f"folds/{fold.name}/context.npy"), "panel": pairs.panel(fold).hash}
    if kind.needs:
        parts["places"] = pairs.key
    return Made("baseline", baselines.VERSION, parts)


def _partners(run: Run) -> np.ndarray:
    """The spot whose expression each training patch gets."""
    rows = run.fold.train
    if run.method != "seal_shuffled":
        return rows
    order = np.random.default_rng(_seed(run.seed, "shuffle")).permutation(len(rows))
    partners = np.empty_like(rows)
    partners[order] = rows[np.roll(order, 1)]  # one long cycle: no patch keeps its own spot
    return partners


def _save_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    with atomic(path) as temporary:
        save_file({name: value.detach().contiguous().cpu() for name, value in state.items()}, temporary)


def _own_state(model: SealVision | Baseline) -> dict[str, Tensor]:
    """What of a stage 2 lies neither in the adapter's files nor in SEAL-omics nor in the frozen encoder."""
    trained = {name for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name}
    names = trained | {"gene_mean", "gene_sd", "log_temperature"}
    return {n: value for n, value in model.state_dict().items() if n in names and not n.startswith("omics.")}


def _save(run: Run, model: SealOmics | SealVision | Baseline, folder: Path) -> None:
    if not isinstance(model, SealOmics):
        if model.peft is not None:
            with atomic(folder / "adapter") as temporary:
                model.peft.save_pretrained(temporary)
        _save_tensors(folder / "vision.safetensors", _own_state(model))
        model = getattr(model, "omics", None)
    if model is not None:
        _save_tensors(folder / "omics.safetensors", model.state_dict())
    run.pairs.panel(run.fold).save(folder / "panel.json")


def _load(run: Run, model: SealOmics | SealVision | Baseline) -> None:
    folder = run.folder
    run.pairs.panel(run.fold).require(panels.load(folder / "panel.json"), str(folder))
    if not isinstance(model, SealOmics):
        if model.peft is not None:
            from peft import get_peft_model_state_dict, set_peft_model_state_dict

            path, like = folder / "adapter" / "adapter_model.safetensors", get_peft_model_state_dict(model.peft)
            set_peft_model_state_dict(model.peft, load_weights(path, like, "the adapter of this encoder"))
        state = load_weights(folder / "vision.safetensors", _own_state(model), type(model).__name__)
        model.load_state_dict({**model.state_dict(), **state})  # the rest has just been read or is the frozen encoder
        model = getattr(model, "omics", None)
    if model is not None:
        owner = f"the omics encoder {model.settings.encoder!r}"
        model.load_state_dict(load_weights(folder / "omics.safetensors", model.state_dict(), owner))


# ---- all runs of a profile ---------------------------------------------------------------------------------


def list_runs(
    pairs: Pairs,
    methods: Sequence[str] = METHODS,
    folds: Sequence[Fold] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Run]:
    """List the runs of these methods, folds and seeds; by default all of the profile's."""
    folds, seeds = folds or pairs.folds(), seeds or pairs.profile.evaluation.seeds
    return [Run(pairs, fold, seed, method) for fold in folds for method in methods for seed in seeds]


def list_compared(pairs: Pairs) -> list[Run]:
    """List all that the evaluation compares: SEAL and controls, baselines on the trial folds with the first seed.

    Of a further encoder SEAL and its shuffled control alone.
    """
    if pairs.further:
        return list_runs(pairs)
    changed, first = [], pairs.profile.evaluation.seeds[:1]
    for name, changes in CHANGED.items():
        other = pairs.with_profile(profiles.changed(pairs.profile, **changes))
        changed += [replace(run, variant=name) for run in list_runs(other, ["seal"], seeds=first)]
    baselines = tuple(name for name in BASELINES if name != "no_expression")
    rivals = list_runs(pairs, baselines, pairs.trial_folds(), first)
    return [*list_runs(pairs), *list_runs(pairs, ["no_expression"]), *rivals, *changed]


def train_runs(runs: Sequence[Run], source: TokenSource) -> None:
    """Train those of some runs that are not trained yet; what was cut off goes on from where it stopped."""
    began, missing = time.monotonic(), [run for run in runs if not run.is_trained(source)]
    with progress("training", len(missing), "run", shown=bool(missing)) as advance:
        for run in missing:
            train_vision(run, source)
            advance()
    where, found = paths.runs(source.pairs.profile.name), len(runs) - len(missing)
    say_done(f"{len(runs)} runs", where, began, found, len(missing), "trained")


def keys_of(runs: Iterable[Run]) -> dict[str, str]:
    """Give the key of each trained run and of the stage 1 that it starts from, by its folder in runs/PROFILE/."""
    stages = [stage for run in runs for stage in ((run.stage_1, run) if run.learns_omics else (run,))]
    names = [stage.folder.relative_to(paths.runs(stage.pairs.profile.name)).as_posix() for stage in stages]
    return {name: read_json(stage.record)["key"] for name, stage in zip(names, stages, strict=True)}


def tabulate_training(pairs: Pairs):
    """Give the loss terms of every finished run: stage, method, fold, seed, epoch, step, term, value."""
    import pandas as pd

    seeds, frames = pairs.profile.evaluation.seeds, []
    for run in (Run(pairs, f, s, method) for f in pairs.folds() for s in seeds for method in ("omics", *METHODS)):
        if run.record.is_file() and (steps := run.read_log()):
            log = pd.DataFrame(steps).drop(columns="lr").melt(["epoch", "step"], var_name="term")
            stage, method = ("omics", "seal") if run.method == "omics" else ("vision", run.method)
            frames.append(log.assign(stage=stage, method=method, fold=run.fold.name, seed=run.seed))
    columns = ["stage", "method", "fold", "seed", "epoch", "step", "term", "value"]
    return pd.concat(frames, ignore_index=True)[columns]
