"""The slide level: every task predicted from every encoder's features by several models; tables: `slide_scores`."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import numpy as np
import torch

from seal.data.pairs import Pairs
from seal.data.slide_tasks import SlideTask
from seal.errors import SealError
from seal.evaluate import hest_bench
from seal.evaluate.methods import find_probed
from seal.evaluate.slide import SlideLabels, predict_linear
from seal.evaluate.survival import brier_losses, survival_curves, time_grid
from seal.files import digest, progress
from seal.models.mil import QUARTILES
from seal.profiles import Profile, SlideSettings
from seal.slides import trident
from seal.train import parallel
from seal.train.bags import Bags
from seal.train.mil import train_jobs
from seal.train.mil_jobs import MilSettings, Trained, make_jobs
from seal.train.runs import Run

FROZEN, SEAL, PERMUTED, COVARIATES, ORACLE = "frozen", "seal", "permuted", "covariates", "oracle"
RIVALS = ("pathomclip", "stnet")  # trained on expression, as SEAL is
ADAPTED = (FROZEN, SEAL, "seal_shuffled", "no_expression", *RIVALS)
AT_ONCE = 2  # processes, a thread each: small models gain little by a second thread


class Named(NamedTuple):
    """A method as results have it."""

    name: str
    label: str
    kind: str


OWN = {
    PERMUTED: Named(PERMUTED, "SEAL, labels permuted", "control"),
    COVARIATES: Named(COVARIATES, "slide covariates alone", "control"),
    ORACLE: Named(ORACLE, "oracle", "truth"),
}


@dataclass(frozen=True)
class SlideModel:
    """A model that predicts tasks from features, and of which methods and tasks."""

    name: str
    settings: MilSettings | None  # None: linear, see `predict_linear`
    methods: tuple[str, ...]
    seeds: tuple[int, ...]  # of MIL's weights, dropout and patches
    groups: tuple[str, ...] = ()  # of the tasks; (): all


@dataclass(frozen=True)
class Heldout:
    """A task's test rows, fold after fold: what is predicted, and of whom."""

    task: SlideTask
    cases: np.ndarray  # [n]
    fold: np.ndarray  # [n]
    labels: SlideLabels


class Guess(NamedTuple):
    """What a model says of a task's test rows."""

    prediction: np.ndarray  # as the task's metric takes them: [n] or, of classes, [n, K]
    losses: np.ndarray  # of survival: what each case adds to the integrated Brier score, [n]; NaN elsewhere


class Attended(NamedTuple):
    """What a model says of slides that it did not learn from, and where it looks."""

    predictions: Mapping[str, np.ndarray]  # slide -> a number, or probabilities [K]
    attention: Mapping[str, np.ndarray]  # slide -> [patches], which sum to 1


@dataclass
class SlideLevel:
    """Predictions of one encoder's cohort by all methods and models; made when they are asked for."""

    encoder: str
    tasks: Sequence[SlideTask]
    folders: Mapping[tuple[str, int], Path]  # (method, seed) -> its features, see `embed_cohort`
    models: Sequence[SlideModel]
    kept: Path  # finished trainings lie there
    known: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)  # further methods: slide -> features
    named: Mapping[str, Named] = field(default_factory=dict)  # methods that are not of ours
    base: str = FROZEN  # what every method is compared with
    memory_gb: float = 4.0  # of bags and runs, of all processes together

    def name(self, method: str) -> Named:
        """Name a method as results do."""
        own = {**OWN, **self.named}.get(method)
        return own or Named(*(getattr(find_probed(method), part) for part in Named._fields))

    def folder(self, method: str, seed: int) -> Path:
        """Where a method's features lie: those of the seed, or the only ones."""
        return self.folders.get((method, seed)) or next(path for (m, _), path in self.folders.items() if m == method)

    @cached_property
    def guesses(self) -> dict[tuple[str, str, str], list[Guess]]:
        """(task, method, model) -> what is said of its test rows, a guess a seed.

        The linear model, in which nothing is drawn, has the seeds of a method's features. A method that has one set of
        features has other weights, dropout and patches in each seed of MIL; the order of bags, which `MilSettings.seed`
        draws, is the same: what the seeds differ by is a little too small.
        """
        units = [(m, name, seed) for m in self.models for name in m.methods for seed in self._seeds(m, name)]
        found: dict[tuple[str, str, str], list[Guess]] = {}
        processes = min(AT_ONCE if parallel.device().type == "cpu" else 1, os.cpu_count() or 1, len(units))
        tasks = [[task for task in self.tasks if not m.groups or task.group in m.groups] for m, *_ in units]
        with progress("slide level", len(units), "training") as advance, _many(processes) as run:
            for (model, method, _), own, guesses in zip(units, tasks, run(self._predict, units, tasks), strict=True):
                for task, guess in zip(own, guesses, strict=True):
                    found.setdefault((task.name, method, model.name), []).append(guess)
                advance(note=f"{model.name} {method}")
        return found

    def _seeds(self, model: SlideModel, method: str) -> tuple[int, ...]:
        """Seeds that a model runs with on a method; none if that is not there."""
        if method in self.known:
            return (0,)
        own = tuple(seed for name, seed in self.folders if name == (SEAL if method == PERMUTED else method))
        return own if model.settings is None else own and model.seeds

    def _predict(self, unit: tuple[SlideModel, str, int], tasks: Sequence[SlideTask]) -> list[Guess]:
        (model, method, seed), slides = unit, slides_of(tasks)
        permuted = method == PERMUTED
        if method in self.known:
            pooled = {bag: np.mean([self.known[method][s] for s in own], axis=0) for bag, own in slides.items()}
            return [predict_task(task, pooled) for task in tasks]
        folder = self.folder(SEAL if permuted else method, seed)
        if model.settings is None:
            pooled = {name: pool(folder, own) for name, own in slides.items()}
            return [predict_task(task, pooled, seed if permuted else None) for task in tasks]
        jobs = [make_jobs(task, [seed]) for task in tasks]
        memory = self.memory_gb / (AT_ONCE if parallel.device().type == "cpu" else 1)
        bags, folder = Bags(folder, slides, memory), self.kept / model.name / method
        trained = iter(train_jobs(bags, [job for own in jobs for job in own], model.settings, folder))
        return [_join(task, [next(trained) for _ in own]) for task, own in zip(tasks, jobs, strict=True)]


@contextmanager
def _many(processes: int) -> Iterator[Callable]:
    """Give `map`, or what maps alike in so many processes of a thread each."""
    if processes < 2:
        yield map
        return
    context = get_context("spawn")  # a fork of a process that computes hangs
    with ProcessPoolExecutor(processes, context, _start_worker) as workers:
        try:
            yield workers.map
        except BaseException:
            workers.shutdown(cancel_futures=True)
            raise


def _start_worker() -> None:
    """Compute with one thread, and end with the process that asked: one that is killed tells nobody."""
    os.environ.update(
        OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1"
    )  # of what is loaded from now on
    torch.set_num_threads(1)
    with suppress(ImportError):  # comes with scikit-learn; numpy's threads, which torch does not rule
        from threadpoolctl import threadpool_limits

        threadpool_limits(1)
    Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()


def find_models(profile: Profile, further: bool) -> tuple[SlideModel, ...]:
    """Choose what predicts slides: ABMIL, mean MIL on molecular tasks (the paper has no other tables of it), linear.

    Of a further encoder, frozen and after SEAL alone.
    """
    own, few = mil_settings(profile.slides), (FROZEN, SEAL)
    seeds = profile.evaluation.seeds[: profile.slides.seeds]
    everything = (*ADAPTED, "random", "colour", COVARIATES, PERMUTED, ORACLE)
    return (
        SlideModel("abmil", own, few if further else ADAPTED, seeds),
        SlideModel("mean", replace(own, model="mean"), few, seeds, ("molecular",)),
        SlideModel("linear", None, few if further else everything, seeds),
    )


def list_runs(pairs: Pairs) -> list[Run]:
    """List the runs whose encoders are compared, of the first fold: see `find_models`."""
    first = pairs.profile.evaluation.seeds[0]
    own = [run for run in hest_bench.list_runs(pairs) if run.method in ADAPTED]
    return [run for run in own if run.method == SEAL and run.seed == first] if pairs.further else own


def mil_settings(slides: SlideSettings) -> MilSettings:
    """Settings of ABMIL."""
    sizes = {"hidden": slides.hidden or None, "attention": slides.attention}
    own = {name: getattr(slides, name) for name in ("epochs", "lr", "weight_decay", "bag")}
    return MilSettings(model="abmil", **sizes, **own)


def slides_of(tasks: Sequence[SlideTask]) -> dict[str, list[str]]:
    """Slides of each bag, over all tasks."""
    found: dict[str, dict[str, None]] = {}
    for task in tasks:
        for bag, slide in zip(task.bags, task.slides, strict=True):
            found.setdefault(bag, {})[slide] = None
    return {bag: list(own) for bag, own in found.items()}


def pool(folder: Path, slides: Sequence[str]) -> np.ndarray:
    """Mean of a bag's features: of each slide, then over its slides, as Patho-Bench does; [d]."""
    parts = [trident.read_table(folder / f"{slide}.h5", "features").mean(axis=0) for slide in slides]
    return np.mean(parts, axis=0, dtype=np.float64)


def hold_out(task: SlideTask) -> Heldout:
    """List a task's test bags, fold after fold, each once, in the order of the jobs."""
    rows, folds = [], []
    for number, (_, test) in enumerate(task.folds.values()):
        own = first_rows(task, test)
        rows += own
        folds += [number] * len(own)
    return Heldout(task, np.array(task.bags)[rows], np.array(folds), labels_of(task).take(np.array(rows)))


def labels_of(task: SlideTask) -> SlideLabels:
    """A task's labels, a row each."""
    survival = {} if task.event is None else {"event": task.event, "days": task.days}
    return SlideLabels(metric=task.metric, label=task.labels, classes=task.classes, **survival)


def first_rows(task: SlideTask, rows: np.ndarray) -> list[int]:
    """The first row of each bag among some rows: its slides share a label."""
    return list({task.bags[row]: row for row in reversed(rows.tolist())}.values())


def _sides(task: SlideTask) -> Iterator[tuple[str, SlideLabels, SlideLabels, np.ndarray, np.ndarray]]:
    """Each fold, the labels of its two sides, and their rows, a bag each."""
    labels = labels_of(task)
    for fold, sides in task.folds.items():
        train, test = (np.array(first_rows(task, rows)) for rows in sides)
        yield fold, labels.take(train), labels.take(test), train, test


def predict_task(task: SlideTask, pooled: Mapping[str, np.ndarray], permuted: int | None = None) -> Guess:
    """Predict a task's test bags by the linear model; `permuted`: a seed by which training labels are dealt anew."""
    values, losses = [], []
    for fold, train, test, *rows in _sides(task):
        x, others = (np.stack([pooled[task.bags[row]] for row in own]) for own in rows)
        if permuted is not None:
            draw = np.random.default_rng(int(digest([permuted, task.name, fold])[:15], 16))
            train = train.take(draw.permutation(len(x)))
        both = predict_linear(train, x, np.vstack([others, x]))
        values.append(both[: len(others)])
        risks = both[len(others) :], both[: len(others)]  # of survival
        losses.append(_brier(train, test, lambda t, own=(train, *risks): _breslow(*own, t)))
    return Guess(np.concatenate(values), np.concatenate(losses))


def _breslow(train: SlideLabels, train_risk: np.ndarray, risk: np.ndarray, times: np.ndarray) -> np.ndarray:
    return survival_curves((train.days, train.event), train_risk, risk, times)


def _join(task: SlideTask, trained: Sequence[Trained]) -> Guess:
    """Join what the folds' MIL models say; survival between the ends of quarters is a straight line."""
    losses = []
    for (_, train, test, rows, _), own in zip(_sides(task), trained, strict=True):

        def read(times: np.ndarray, own=own, quarter=task.labels[rows] % QUARTILES, days=train.days) -> np.ndarray:
            ends = np.maximum.accumulate([days[quarter <= q].max(initial=1) for q in range(QUARTILES)])
            return np.array([np.interp(times, [0, *ends], [1, *curve]) for curve in own.curves])

        losses.append(_brier(train, test, read))
    return Guess(np.concatenate([own.predictions for own in trained]), np.concatenate(losses))


def _brier(train: SlideLabels, test: SlideLabels, curves: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Brier losses of a fold's test cases by their `curves` at some days, [n, T].

    NaN of what is no survival, and where training has too few events to say at which days.
    """
    unknown = np.full(len(test.label), np.nan)
    if train.event is None:
        return unknown
    known = train.days, train.event
    times = time_grid(known)
    if len(times) < 2 or times[-1] >= train.days.max():
        return unknown
    return brier_losses(known, (test.days, test.event), curves(times), times)


def attend(
    level: SlideLevel, method: str, task: SlideTask, settings: MilSettings, slides: Sequence[str] = ()
) -> Attended:
    """Where ABMIL looks: on slides of the first fold's test, or on others whose features lie beside theirs.

    One model is trained on the first fold's training cases with the first seed.

    Raises
    ------
    SealError
        A slide is none of the test's, and is trained on.
    """
    seed, first = next(s for m, s in level.folders if m == method), next(iter(task.folds))
    (job,) = make_jobs(replace(task, folds={first: task.folds[first]}), [seed])
    if taught := sorted({*slides} & {s for s, bag in zip(task.slides, task.bags, strict=True) if bag in job.train}):
        raise SealError(f"slide {taught[0]} is trained on", expected="slides of the test", do="choose others")
    bags = slides_of([task])
    wanted = list(slides) or [s for bag in job.test for s in bags[bag]]
    job, folder = replace(job, test=tuple(wanted)), level.folder(method, seed)
    own = Bags(folder, {name: bags[name] for name in job.train} | {slide: [slide] for slide in wanted})
    (trained,) = train_jobs(own, [job], settings, level.kept / "attention" / method, wanted)
    return Attended(dict(zip(wanted, trained.predictions, strict=True)), trained.attention)
