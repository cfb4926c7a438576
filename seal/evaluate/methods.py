"""The one list of methods: what predicts a spot's expression from its patch, what it is called, and what it is for.

A new baseline is a class in `seal.models.baselines`, a line there and a line in `METHODS`. Tables and figures read a
method's label and kind from the columns of the results, and its place from the order of their rows: that of this list.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from seal.data.pairs import Fold, Pairs
from seal.errors import SealError
from seal.evaluate.embeddings import Embeddings
from seal.evaluate.probe import ridge_probe, validation
from seal.models.baselines import rules
from seal.models.baselines.base import Bank
from seal.profiles import EvaluationSettings
from seal.train import batches, parallel, runs
from seal.train.runs import Run
from seal.train.steps import Expression, PlacedExpression

# encoder: as it comes; adapted: after SEAL; control: what something simpler does; readout: SEAL's own prediction,
# without our probe; baseline: another published method, by its own prediction; probed: its encoder under our probe;
# truth: what lies behind simulated counts
Kind = Literal["encoder", "adapted", "control", "readout", "baseline", "probed", "truth"]
# none: nothing in it is random, one run stands for every seed; first: the first seed alone, where more take too long;
# random_encoders, ablation_seeds: the first so many of the seeds
Seeded = Literal["none", "first", "all", "random_encoders", "ablation_seeds"]


# Predicts the test genes of all test organs, [test spots, test genes], normalised log expression, from pairs, a fold,
# the embeddings of all pairs, [pairs, d], by the encoder of this fold and seed (None if the method names none), and the
# seed. Of `pairs.measured(fold)` only the rows of `fold.train` may be looked at.
Predict = Callable[[Pairs, Fold, np.ndarray | None, int], np.ndarray]
# Cuts n spots into batches of at most so many: their positions.
Cut = Callable[[int, int], Sequence[Tensor]]


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


def predict_by_probe(pairs: Pairs, fold: Fold, embedding: np.ndarray, seed: int = 0) -> np.ndarray:
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


def predict_mean(pairs: Pairs, fold: Fold, embedding: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Predict the training spots' mean expression, whatever the patch."""
    mean = pairs.measured(fold)[fold.train].mean(axis=0, keepdims=True)  # [1, test genes]
    return np.repeat(mean, len(fold.test), axis=0)


def in_order(n: int, size: int) -> Sequence[Tensor]:
    """Cut spots into batches in the order of their sections: the official one."""
    return torch.arange(n).split(size)


def predict_trained(
    name: str, pairs: Pairs, fold: Fold, embedding: np.ndarray, seed: int, cut: Cut = in_order
) -> np.ndarray:
    """Predict by a run's own model, without a probe: a baseline's, or SEAL's gene decoder.

    Parameters
    ----------
    name
        The run's method.
    cut
        How spots are cut into batches, training spots that are looked up and test spots alike; batches are of the
        training's size. Where attention runs over the batch, the answer depends on it.

    Raises
    ------
    SealError
        The run is not trained, too few training spots, or a prediction is not finite.
    """
    source, run = batches.find(pairs), Run(pairs, fold, seed, name)
    source.frozen = Embeddings(pairs).read("frozen")
    model, size, device = runs.read_vision(run, source), pairs.profile.vision.batch, parallel.device()
    values = torch.from_numpy(np.array(pairs.measured(fold)[fold.train])).to(device)
    z, rows = (torch.from_numpy(np.array(v)).to(device) for v in (embedding[fold.test], fold.test))
    columns = pairs.panel(fold).test_columns
    with torch.no_grad():
        if name == "seal":
            return model.decoder(z)[:, columns].cpu().numpy()
        keys = None
        if model.looks_up:
            x, parts = PlacedExpression(Expression(pairs.context(fold), fold.train)), cut(len(fold.train), size)
            keys = torch.cat([model.keys(x[part]) for part in parts])[torch.cat(parts).argsort()]  # [train, s]
        bank, parts = Bank(keys, values, columns), cut(len(z), size)
        found = torch.cat([model.predict(z[part], rows[part], bank) for part in parts])[torch.cat(parts).argsort()]
    return _require_finite(name, found)


def predict_predex(pairs: Pairs, fold: Fold, embedding: np.ndarray, seed: int = 0, cut: Cut = in_order) -> np.ndarray:
    """Predict by OmiCLIP's rule on the profile's encoder, see `rules.weigh_all`; nothing is trained."""
    z, measured = torch.from_numpy(embedding[fold.test]), torch.from_numpy(np.array(pairs.measured(fold)[fold.train]))
    rule = rules.weigh_all(torch.from_numpy(embedding[fold.train]), measured)
    parts = cut(len(z), pairs.profile.vision.batch)
    found = torch.cat([rule(z[part]) for part in parts])
    return _require_finite("predex", found[torch.cat(parts).argsort()])


def _require_finite(name: str, prediction: Tensor) -> np.ndarray:
    if not torch.isfinite(prediction).all():
        raise SealError(f"{name} predicts NaN or infinity", expected="numbers", do="look at its log, and train it anew")
    return prediction.cpu().numpy()


def _probed(name: str, label: str, kind: Kind, seeded: Seeded, embedding: str | None = None) -> Method:
    return Method(name, label, kind, seeded, predict_by_probe, embedding or name)


def _baseline(name: str, label: str, embedding: str | None = None) -> Method:
    return Method(name, label, "baseline", "first", partial(predict_trained, name), embedding or name)


METHODS = (
    _probed("frozen", "frozen encoder", "encoder", "none"),
    _probed("seal", "SEAL", "adapted", "all"),
    _probed("seal_shuffled", "SEAL, shuffled pairs", "control", "all"),
    _probed("reconstruction", "SEAL, reconstruction only", "control", "first", "no_info"),
    _probed("contrast", "SEAL, contrast only", "control", "first", "info_alone"),
    _probed("no_expression", "adapter without expression", "control", "all"),
    _probed("random", "random weights", "control", "random_encoders"),
    _probed("colour", "colour statistics", "control", "none"),
    Method("mean", "mean predictor", "control", "none", predict_mean),
    Method("decoder", "SEAL's gene decoder", "readout", "first", partial(predict_trained, "seal"), "seal"),
    _baseline("stnet", "ST-Net"),
    _baseline("bleep", "BLEEP"),
    _baseline("pathomclip", "PathOmCLIP, over the batch"),
    _baseline("pathomclip_spatial", "PathOmCLIP, over neighbours"),
    _baseline("mclstexp", "mclSTExp"),
    _baseline("triplex", "TRIPLEX"),
    _baseline("deepspot", "DeepSpot", "frozen"),
    Method("predex", "PredEx, profile's encoder", "baseline", "none", predict_predex, "frozen"),
    _probed("stnet_probed", "ST-Net's encoder", "probed", "first", "stnet"),
    _probed("bleep_probed", "BLEEP's encoder", "probed", "first", "bleep"),
    _probed("pathomclip_probed", "PathOmCLIP's encoder, over the batch", "probed", "first", "pathomclip"),
    _probed("pathomclip_spatial_probed", "PathOmCLIP's, over neighbours", "probed", "first", "pathomclip_spatial"),
    _probed("mclstexp_probed", "mclSTExp's encoder", "probed", "first", "mclstexp"),
    _probed("triplex_probed", "TRIPLEX's encoder", "probed", "first", "triplex"),
)
BESIDE_BASELINES = ("encoder", "adapted", "readout", "baseline", "probed")  # kinds of the table of baselines
EVERY_ENCODER = ("frozen", "seal", "seal_shuffled")  # what further encoders are compared by


def find_baselines() -> tuple[Method, ...]:
    """The baselines, by their own prediction and by our probe, beside the encoder, SEAL and its decoder."""
    return tuple(method for method in METHODS if method.kind in BESIDE_BASELINES)


def find_probed(embedding: str) -> Method:
    """The method that is these embeddings under a probe of ours."""
    return next(m for m in METHODS if m.embedding == embedding and m.kind not in ("readout", "baseline"))


def find_methods(pairs: Pairs) -> tuple[Method, ...]:
    """Encoder, SEAL and controls, and what the pairs' source knows beyond them: a simulator knows the truth.

    Of a further encoder those of `EVERY_ENCODER` alone.

    A source's module may offer ``methods(pairs) -> tuple[Method, ...]``, of kind "truth".
    """
    if pairs.further:
        return tuple(method for method in METHODS if method.name in EVERY_ENCODER)
    own = tuple(method for method in METHODS if method.kind in ("encoder", "adapted", "control"))
    offered = getattr(importlib.import_module(pairs.profile.source), "methods", None)
    return own if offered is None else (*own, *offered(pairs))
