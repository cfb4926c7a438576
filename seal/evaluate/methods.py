"""The one list of methods: what predicts a spot's expression from its patch, what it is called, and what it is for.

A new baseline is a class in `seal.models.baselines` and one line in `METHODS`. Tables and figures read a method's
label and kind from the columns of the results, and its place from the order of their rows: the order of this list.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from seal.data.pairs import Fold, Pairs
from seal.evaluate.probe import ridge_probe, validation
from seal.profiles import EvaluationSettings

# encoder: as it comes; adapted: after SEAL; control: what something simpler does; baseline: another published method;
# truth: what lies behind simulated counts
Kind = Literal["encoder", "adapted", "control", "baseline", "truth"]
# none: nothing in it is random, one run stands for every seed; first: the first seed alone, where more take too long;
# random_encoders, ablation_seeds: the first so many of the seeds
Seeded = Literal["none", "first", "all", "random_encoders", "ablation_seeds"]


# Predicts the test genes of all test organs, [test spots, test genes], normalised log expression, from pairs, a fold
# and the embeddings of all pairs, [pairs, d], by the encoder of this fold and seed (None if the method names none).
# Of `pairs.measured(fold)` only the rows of `fold.train` may be looked at.
Predict = Callable[[Pairs, Fold, np.ndarray | None], np.ndarray]


@dataclass(frozen=True)
class Method:
    """One way to predict expression."""

    name: str  # in the column `method` of the results, and of the method's embeddings
    label: str  # in figures and tables
    kind: Kind
    seeded: Seeded
    predict: Predict
    embedding: str | None = None  # those that it predicts from, see `Embeddings`; None: it predicts directly

    def seeds(self, settings: EvaluationSettings) -> tuple[int, ...]:
        """Choose the seeds that it runs with."""
        number = {"none": 1, "first": 1, "all": len(settings.seeds), "random_encoders": settings.random_encoders}
        return settings.seeds[: number.get(self.seeded, settings.ablation_seeds)]


def predict_by_probe(pairs: Pairs, fold: Fold, embedding: np.ndarray) -> np.ndarray:
    """Predict by ridge on the training spots' own expression.

    Its penalty is chosen among training donors, each judged by its own organ's test genes; see `ridge_probe`.
    """
    settings, panel, spots = pairs.profile.evaluation, pairs.panel(fold), pairs.frame().iloc[fold.train]
    donors, sections, position, organs = (spots[n].to_numpy() for n in ("donor", "sample", "array_col", "organ"))
    states = pairs.per_spot("disease_state")[fold.train]
    genes = {organ: panel.scored(organ) for organ in set(organs)}
    embedding = embedding.astype(np.float64)
    prediction, _ = ridge_probe(
        embedding[fold.train],
        pairs.measured(fold)[fold.train],
        validation(donors, sections, position, organs, states, genes),
        embedding[fold.test],
        settings.pca,
        settings.alphas,
    )
    return prediction


def predict_mean(pairs: Pairs, fold: Fold, embedding: np.ndarray | None = None) -> np.ndarray:
    """Predict the training spots' mean expression, whatever the patch."""
    mean = pairs.measured(fold)[fold.train].mean(axis=0, keepdims=True)  # [1, test genes]
    return np.repeat(mean, len(fold.test), axis=0)


def _probed(name: str, label: str, kind: Kind, seeded: Seeded) -> Method:
    return Method(name, label, kind, seeded, predict_by_probe, embedding=name)


METHODS = (
    _probed("frozen", "frozen encoder", "encoder", "none"),
    _probed("seal", "SEAL", "adapted", "all"),
    _probed("seal_shuffled", "SEAL, shuffled pairs", "control", "all"),
    _probed("random", "random weights", "control", "random_encoders"),
    _probed("colour", "colour statistics", "control", "none"),
    Method("mean", "mean predictor", "control", "none", predict_mean),
)


EVERY_ENCODER = ("frozen", "seal", "seal_shuffled")  # what further encoders are compared by


def find_methods(pairs: Pairs) -> tuple[Method, ...]:
    """`METHODS`, and what the pairs' source knows beyond them: a simulator knows the truth behind its counts.

    Of a further encoder those of `EVERY_ENCODER` alone.

    A source's module may offer ``methods(pairs) -> tuple[Method, ...]``, of kind "truth".
    """
    if pairs.further:
        return tuple(method for method in METHODS if method.name in EVERY_ENCODER)
    offered = getattr(importlib.import_module(pairs.profile.source), "methods", None)
    return METHODS if offered is None else (*METHODS, *offered(pairs))
