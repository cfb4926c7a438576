"""The slide level: every task predicted from every encoder's features by several models, and what a cohort can show."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from seal.data.slide_tasks import SlideTask
from seal.evaluate.methods import find_probed
from seal.evaluate.metrics import interval
from seal.evaluate.power import bootstrap_scores, compare, judge, resample_cases, training_factor
from seal.evaluate.scoring import BOOTSTRAP_SEED
from seal.evaluate.slide import SlideLabels, predict_linear, score
from seal.files import progress
from seal.slides import trident
from seal.train.bags import Bags
from seal.train.mil import train_jobs
from seal.train.mil_jobs import MilSettings, make_jobs

FROZEN, SEAL = "frozen", "seal"
BESIDE = ("seal_shuffled", "no_expression", "pathomclip", "stnet")  # what SEAL is compared with besides
OF_DIFFERENCE = {"low": "difference_low", "high": "difference_high", "p": "difference_p"}


@dataclass(frozen=True)
class Heldout:
    """A task's test rows, fold after fold: what is predicted, and of whom."""

    task: SlideTask
    cases: np.ndarray  # [n]
    fold: np.ndarray  # [n]
    labels: SlideLabels


@dataclass
class SlideLevel:
    """Predictions of one encoder's cohort by all methods and models; made by `run`."""

    encoder: str
    tasks: Sequence[SlideTask]
    folders: Mapping[tuple[str, int], Path]  # (method, seed) -> its features, see `embed_cohort`
    seeds: tuple[int, ...]
    # (task, method, model) -> predictions of the test rows, [seeds, n] or, of classes, [seeds, n, K]
    guesses: dict[tuple[str, str, str], np.ndarray] = field(default_factory=dict)

    def run(self, models: Mapping[str, MilSettings | None], kept: Path) -> "SlideLevel":
        """Predict every task; `models` by name, of the linear one None; finished trainings are kept in a folder.

        A method that has one set of features has other weights, dropout and patches in each seed; the order of bags,
        which `MilSettings.seed` draws, is the same: what the seeds differ by is a little too small.
        """
        methods = list(dict.fromkeys(method for method, _ in self.folders))
        with progress("slide level", len(models) * len(methods), "method") as advance:
            for model, settings in models.items():
                for method in methods:
                    for name, guess in self._predict(method, model, settings, kept / model / method):
                        self.guesses[name, method, model] = guess
                    advance(note=f"{model} {method}")
        return self

    def folder(self, method: str, seed: int) -> Path:
        """Where a method's features lie: those of the seed, or the only ones."""
        return self.folders.get((method, seed)) or next(path for (m, _), path in self.folders.items() if m == method)

    def _predict(
        self, method: str, model: str, settings: MilSettings | None, kept: Path
    ) -> Iterator[tuple[str, np.ndarray]]:
        by_seed = [self._predict_seed(self.folder(method, seed), seed, settings, kept) for seed in self.seeds]
        for i, task in enumerate(self.tasks):
            yield task.name, np.stack([found[i] for found in by_seed])

    def _predict_seed(self, folder: Path, seed: int, settings: MilSettings | None, kept: Path) -> list[np.ndarray]:
        slides = slides_of(self.tasks)
        if settings is None:
            pooled = {name: pool(folder, own) for name, own in slides.items()}
            return [np.concatenate(list(_linear(task, pooled))) for task in self.tasks]
        jobs = [make_jobs(task, [seed]) for task in self.tasks]
        trained = iter(train_jobs(Bags(folder, slides), [job for own in jobs for job in own], settings, kept))
        return [np.concatenate([next(trained).predictions for _ in own]) for own in jobs]


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
        own = _first_rows(task, test)
        rows += own
        folds += [number] * len(own)
    return Heldout(task, np.array(task.bags)[rows], np.array(folds), _labels(task).take(np.array(rows)))


def _labels(task: SlideTask) -> SlideLabels:
    survival = {} if task.event is None else {"event": task.event, "days": task.days}
    return SlideLabels(metric=task.metric, label=task.labels, classes=task.classes, **survival)


def _first_rows(task: SlideTask, rows: np.ndarray) -> list[int]:
    """The first row of each bag among some rows: its slides share a label."""
    return list({task.bags[row]: row for row in reversed(rows.tolist())}.values())


def _linear(task: SlideTask, pooled: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
    labels = _labels(task)
    for sides in task.folds.values():
        train, test = (np.array(_first_rows(task, rows)) for rows in sides)
        x, others = (np.stack([pooled[task.bags[row]] for row in rows]) for rows in (train, test))
        yield predict_linear(labels.take(train), x, others)


def scores(level: SlideLevel):
    """One row a task, method, model, fold and seed.

    Returns
    -------
    DataFrame with task, group, metric, encoder, method, label, kind, model, fold, seed, cases (of the test), chance,
    value (NaN where the fold's test cases cannot tell).
    """
    import pandas as pd

    rows, held = [], {task.name: hold_out(task) for task in level.tasks}
    for (name, method, model), guesses in level.guesses.items():
        own = held[name]
        for fold in np.unique(own.fold):
            at = np.flatnonzero(own.fold == fold)
            labels = own.labels.take(at)
            about = _about(own.task, level.encoder, method, model) | {"fold": int(fold), "cases": len(at)}
            for seed, guess in zip(level.seeds, guesses, strict=True):
                rows.append(about | {"seed": seed, "chance": labels.chance, "value": score(labels, guess[at])})
    return pd.DataFrame(rows)


def summary(level: SlideLevel, bootstrap: int):
    """Means with 95 % intervals over cases, paired differences, and a verdict a task within its group.

    Every method is compared with the frozen encoder, and SEAL with its controls and rivals besides.

    Returns
    -------
    DataFrame with task, group, metric, strength, encoder, method, label, kind, model, against, mean, low, high, cases,
    folds, seeds, and the columns of `seal.evaluate.power.judge`, the difference's with its name before them; the frozen
    encoder's rows have no comparison.
    """
    import pandas as pd

    found, families, held = {}, {}, {task.name: hold_out(task) for task in level.tasks}
    models = list(dict.fromkeys(model for _, _, model in level.guesses))
    for own, model in ((own, model) for own in held.values() for model in models):
        task, guesses = own.task, {m: g for (t, m, k), g in level.guesses.items() if (t, k) == (own.task.name, model)}
        weights = resample_cases(own.cases, own.fold, bootstrap, BOOTSTRAP_SEED)
        drawn = bootstrap_scores(own.labels, own.fold, guesses, weights)
        factor, cases = training_factor(task.folds), len(np.unique(own.cases))
        for method, values in drawn.items():
            known = values[1:][np.isfinite(values[1:])]
            low, high = interval(known) if 2 * len(known) >= bootstrap else (np.nan, np.nan)
            row = _about(task, level.encoder, method, model) | {"strength": task.strength, "mean": values[0]}
            row |= {"low": low, "high": high, "cases": cases, "folds": len(task.folds), "seeds": len(level.seeds)}
            found[task.name, method, model] = row
            for against in _rivals(method, drawn):
                compared = compare(values, drawn[against], own.labels, cases, factor)
                families.setdefault((task.group, method, model, against), {})[task.name] = compared
    judged = []
    for (_, method, model, against), rows in families.items():
        table = judge(rows, bootstrap).rename(columns=OF_DIFFERENCE).assign(against=find_probed(against).name)
        own = pd.DataFrame([found[name, method, model] for name in table["task"]])
        judged.append(own.merge(table, on="task"))
    alone = [row | {"against": ""} for (_, method, _), row in found.items() if method == FROZEN]
    return pd.concat([pd.DataFrame(alone), *judged], ignore_index=True)


def _rivals(method: str, present: Mapping[str, np.ndarray]) -> list[str]:
    others = (FROZEN, *BESIDE) if method == SEAL else (FROZEN,)
    return [name for name in others if name in present and name != method]


def _about(task: SlideTask, encoder: str, method: str, model: str) -> dict[str, str]:
    own = find_probed(method)
    names = {"task": task.name, "group": task.group, "metric": task.metric, "encoder": encoder, "method": own.name}
    return names | {"label": own.label, "kind": own.kind, "model": model}
