"""Patch-level evaluation: expression of an unseen donor predicted from patch embeddings."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from seal.data.pairs import Fold, Pairs
from seal.evaluate.probe import ridge_probe, validation
from seal.models import baselines, encoders
from seal.train import runs as stages
from seal.train.tokens import TokenSource, embed, embed_patches, embed_tokens
from seal_atlas.counting.truth import TRUTH

# name -> what it is; the order is that of figures and tables
METHODS = {
    "frozen": "the encoder as it comes",
    "seal": "the encoder after both SEAL stages",
    "seal_shuffled": "SEAL trained on pairs shuffled over the training spots",
    "random": "the same architecture with random weights",
    "colour": "mean and sd of the three colour channels",
    "mean": "the training spots' mean expression, whatever the patch",
    "oracle": "true cell composition and the activity of visible programmes, without any picture",
    "ceiling": "everything true but the drawing of counts",
}
_SEEDLESS = ("frozen", "colour", "mean", *TRUTH)  # deterministic: one run stands for every seed


@dataclass(frozen=True)
class Part:
    """What one score speaks of: a test donor's spots in a fold, and the test genes of their organ."""

    fold: str
    donor: str
    organ: str
    rows: np.ndarray  # positions among the fold's test spots
    columns: np.ndarray  # positions among the fold's test genes

    def of(self, values: np.ndarray) -> np.ndarray:
        """The part's spots and genes of a matrix [test spots, test genes]."""
        return values[np.ix_(self.rows, self.columns)]


def parts(pairs: Pairs, fold: Fold) -> list[Part]:
    """The fold's test donors, in order of name; a donor of several organs is one part for each."""
    panel = pairs.panel(fold)
    donors, organs = (pairs.per_spot(name)[fold.test] for name in ("donor", "organ"))
    return [
        Part(fold.name, donor, organ, np.flatnonzero((donors == donor) & (organs == organ)), panel.scored(organ))
        for donor, organ in sorted(set(zip(donors.tolist(), organs.tolist(), strict=True)))
    ]


@dataclass
class Evaluation:
    """Predictions of one profile, gathered run by run; `seal.evaluate.scoring` makes the tables from them.

    Attributes
    ----------
    predictions
        (method, fold, seed) -> predicted expression of the test genes of all organs, [test spots, test genes].
    """

    reference: ClassVar[str] = "frozen"  # what every method is compared with

    pairs: Pairs
    source: TokenSource
    predictions: dict[tuple[str, str, int], np.ndarray] = field(default_factory=dict)
    _embeddings: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)

    @property
    def methods(self) -> tuple[str, ...]:
        """What can be asked of these pairs: oracle and ceiling need the truth behind simulated counts."""
        return tuple(method for method in METHODS if self.pairs.truth or method not in TRUTH)

    def folds(self) -> tuple[Fold, ...]:
        """The folds that are evaluated."""
        return self.pairs.folds()

    def run(self) -> "Evaluation":
        """Embed, probe and predict for every method, fold and seed."""
        from tqdm import tqdm

        jobs = [
            (fold, method, seed) for fold in self.folds() for method in self.methods for seed in self._seeds(method)
        ]
        fold, embeddings = None, {}
        for fold_now, method, seed in tqdm(jobs, desc="methods x folds x seeds", unit="run"):
            if fold is not fold_now:
                fold, embeddings = fold_now, self._seal_embeddings(fold_now)
            if method == "mean":
                measured = self.pairs.measured(fold)
                prediction = np.repeat(measured[fold.train].mean(axis=0, keepdims=True), len(fold.test), axis=0)
            elif method in TRUTH:
                prediction = np.array(self.pairs.expected(fold, method)[fold.test])
            else:
                embedding = embeddings[method, seed] if method in stages.METHODS else self._fixed(method, seed)
                prediction = predict(self.pairs, fold, embedding)
            self.predictions[method, fold.name, seed] = prediction
        return self

    def _seeds(self, method: str) -> tuple[int, ...]:
        settings = self.pairs.profile.evaluation
        if method in _SEEDLESS:
            return settings.seeds[:1]
        return settings.seeds[: settings.random_encoders] if method == "random" else settings.seeds

    def _seal_embeddings(self, fold: Fold) -> dict[tuple[str, int], np.ndarray]:
        """Embeddings by every tail that the fold trains, in one pass over the trunk's tokens."""
        runs = [(method, seed) for method in stages.METHODS for seed in self._seeds(method)]
        models = {run: stages.train_vision(self.pairs, fold, run[1], self.source, run[0]) for run in runs}
        tails = {str(run): model.encoder for run, model in models.items()}
        frozen = ("frozen", self._seeds("frozen")[0])
        if frozen not in self._embeddings:
            tails["frozen"] = self.source.encoder
        found = embed(tails, self.source)
        if "frozen" in found:
            self._embeddings[frozen] = found["frozen"]
        return {run: found[str(run)] for run in runs}

    def _fixed(self, method: str, seed: int) -> np.ndarray:
        """Embeddings that do not depend on the fold, computed once."""
        pairs, profile = self.pairs, self.pairs.profile
        if (method, seed) not in self._embeddings:
            if method == "colour":
                embedding = baselines.colour_statistics(pairs.patches)
            elif method == "random":
                encoder = encoders.build(profile.encoder, weights="random", image_size=profile.image_size, seed=seed)
                embedding = embed_patches(
                    encoder, pairs.patches, f"random encoder, seed {seed}", profile.compute.precision
                )
            else:
                embedding = embed_tokens(self.source.encoder, self.source)
            self._embeddings[method, seed] = embedding
        return self._embeddings[method, seed]

    def runs(self, method: str, fold: str) -> list[tuple[int, np.ndarray]]:
        """Seeds and predictions of one method on one fold."""
        return [(s, p) for (m, f, s), p in self.predictions.items() if (m, f) == (method, fold)]


def predict(pairs: Pairs, fold: Fold, embedding: np.ndarray) -> np.ndarray:
    """Expression of the fold's test spots from embeddings of all pairs, [pairs, d] -> [test spots, test genes].

    Ridge on the training spots' own expression, its penalty chosen among training donors, each judged by its own
    organ's test genes; see `ridge_probe`.
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


def maps(evaluation: Evaluation, genes: int = 3):
    """Measured and predicted expression of an organ's first test genes on every test section, first seed.

    The genes are the most variable of the training donors: chosen before the test donor is looked at.

    Returns
    -------
    DataFrame with fold, donor, sample, barcode, x, y (full-resolution px), gene, measured, frozen, seal.
    """
    import pandas as pd

    pairs = evaluation.pairs
    seed = pairs.profile.evaluation.seeds[0]
    frames = []
    for fold in evaluation.folds():
        spots, names = pairs.frame().iloc[fold.test], pairs.panel(fold).test_genes
        shown = {"measured": pairs.measured(fold)[fold.test]}
        shown |= {method: evaluation.predictions[method, fold.name, seed] for method in ("frozen", "seal")}
        for part in parts(pairs, fold):
            where = spots.iloc[part.rows][["donor", "sample", "barcode", "x", "y"]]
            for column in part.columns[:genes]:
                values = {name: matrix[part.rows, column] for name, matrix in shown.items()}
                frames.append(where.assign(fold=fold.name, gene=names[column], **values))
    columns = ["fold", "donor", "sample", "barcode", "x", "y", "gene", *shown]
    return pd.concat(frames, ignore_index=True)[columns]
