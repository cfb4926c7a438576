"""Patch-level evaluation: expression of an unseen donor predicted from patch embeddings."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from seal import stages
from seal.data.pairs import Fold, Pairs
from seal.evaluate.metrics import interval, mean_pearson, pearson, resamples
from seal.evaluate.probe import alpha_groups, ridge_probe
from seal.models import baselines, encoders
from seal.tokens import TokenSource, embed, embed_patches, embed_tokens

BOOTSTRAP_SEED = 0

# name -> what it is; the order is that of figures and tables
METHODS = {
    "frozen": "the encoder as it comes",
    "seal": "the encoder after both SEAL stages",
    "seal_shuffled": "SEAL trained on pairs shuffled over the training spots",
    "random": "the same architecture with random weights",
    "colour": "mean and sd of the three colour channels",
    "mean": "the training spots' mean expression, whatever the patch",
}
_SEEDLESS = ("frozen", "colour", "mean")  # deterministic: one run stands for every seed


@dataclass
class Evaluation:
    """Predictions of one profile, gathered run by run; the tables are made from them.

    Attributes
    ----------
    predictions
        (method, fold, seed) -> predicted expression of the test genes, [test spots, test genes].
    """

    methods: ClassVar[tuple[str, ...]] = tuple(METHODS)
    reference: ClassVar[str] = "frozen"  # what every method is compared with

    pairs: Pairs
    source: TokenSource
    predictions: dict[tuple[str, str, int], np.ndarray] = field(default_factory=dict)
    _embeddings: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)

    def run(self) -> "Evaluation":
        """Embed, probe and predict for every method, fold and seed."""
        from tqdm import tqdm

        jobs = [
            (fold, method, seed)
            for fold in self.pairs.folds()
            for method in self.methods
            for seed in self._seeds(method)
        ]
        fold, embeddings = None, {}
        for fold_now, method, seed in tqdm(jobs, desc="methods x folds x seeds", unit="run"):
            if fold is not fold_now:
                fold, embeddings = fold_now, self._seal_embeddings(fold_now)
            measured = self.pairs.measured(fold)
            if method == "mean":
                prediction = np.repeat(measured[fold.train].mean(axis=0, keepdims=True), len(fold.test), axis=0)
            else:
                embedding = embeddings[method, seed] if method in stages.METHODS else self._fixed(method, seed)
                prediction = predict(self.pairs, fold, embedding)
            self.predictions[method, fold.name, seed] = prediction
        return self

    def _seeds(self, method: str) -> tuple[int, ...]:
        seeds = self.pairs.profile.evaluation.seeds
        return seeds[:1] if method in _SEEDLESS else seeds

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

    Ridge on the training spots' own expression, its penalty chosen among training donors; see `ridge_probe`.
    """
    settings, spots = pairs.profile.evaluation, pairs.frame().iloc[fold.train]
    groups = alpha_groups(*(spots[name].to_numpy() for name in ("donor", "sample", "array_col")))
    embedding = embedding.astype(np.float64)
    prediction, _ = ridge_probe(
        embedding[fold.train],
        pairs.measured(fold)[fold.train],
        groups,
        embedding[fold.test],
        settings.pca,
        settings.alphas,
    )
    return prediction


def scores(evaluation: Evaluation):
    """One row a method, fold and seed: mean Pearson correlation over genes, and mean squared error.

    Returns
    -------
    DataFrame with task, encoder, method, organ, fold, seed, metric ("pcc" | "mse"), value. The mse is in
    squared units of normalised log expression.
    """
    import pandas as pd

    rows = []
    for fold in evaluation.pairs.folds():
        truth = evaluation.pairs.measured(fold)[fold.test]
        for method in evaluation.methods:
            for seed, prediction in evaluation.runs(method, fold.name):
                values = {
                    "pcc": float(mean_pearson(prediction, truth)),
                    "mse": float(np.mean((prediction - truth) ** 2)),
                }
                rows += [
                    {**_labels(evaluation, method), "organ": fold.organ, "fold": fold.name, "seed": seed}
                    | {"metric": metric, "value": value}
                    for metric, value in values.items()
                ]
    return pd.DataFrame(rows)


def _labels(evaluation: Evaluation, method: str) -> dict[str, str]:
    profile = evaluation.pairs.profile
    return {"task": f"{profile.name} expression", "encoder": profile.encoder, "method": method}


def gene_scores(evaluation: Evaluation):
    """One row a gene, method, fold and seed: Pearson correlation over the test donor's spots."""
    import pandas as pd

    frames = []
    for fold in evaluation.pairs.folds():
        genes = evaluation.pairs.panel(fold).test_genes
        truth = evaluation.pairs.measured(fold)[fold.test]
        for method in evaluation.methods:
            for seed, prediction in evaluation.runs(method, fold.name):
                frame = pd.DataFrame({"gene": genes, "organ": fold.organ, "method": method, "fold": fold.name})
                frames.append(frame.assign(seed=seed, metric="pcc", value=pearson(prediction, truth)))
    return pd.concat(frames, ignore_index=True)


def _bootstrap(evaluation: Evaluation) -> tuple[dict, dict]:
    """Mean correlation by (method, fold), averaged over seeds: as it is, and [resamples] of it."""
    pairs = evaluation.pairs
    point, boot = {}, {}
    for fold in pairs.folds():
        truth = pairs.measured(fold)[fold.test]
        weights = resamples(len(truth), pairs.profile.evaluation.bootstrap, BOOTSTRAP_SEED)
        for method in evaluation.methods:
            runs = [prediction for _, prediction in evaluation.runs(method, fold.name)]
            point[method, fold.name] = float(np.mean([mean_pearson(p, truth) for p in runs]))
            boot[method, fold.name] = np.mean([mean_pearson(p, truth, weights) for p in runs], axis=0)
    return point, boot


def summary(evaluation: Evaluation):
    """Mean correlation of each method with its interval, and its paired difference to the frozen encoder.

    The bootstrap resamples spots within each test donor, the same ones for every method and seed; scores are
    then averaged over seeds, donors and (for "all") organs. It does not resample donors: with so few, the
    interval speaks of these donors only, and neighbouring spots are not independent, so it is too narrow.

    Returns
    -------
    DataFrame with task, encoder, method, organ, metric, mean, low, high, difference, difference_low,
    difference_high, folds, seeds, split.
    """
    import pandas as pd

    settings = evaluation.pairs.profile.evaluation
    folds = evaluation.pairs.folds()
    point, boot = _bootstrap(evaluation)
    rows = []
    for organ in ["all", *sorted({fold.organ for fold in folds})]:
        names = [fold.name for fold in folds if organ in ("all", fold.organ)]
        for method in evaluation.methods:
            seeds = len(evaluation.runs(method, names[0]))
            rows.append(
                _labels(evaluation, method)
                | {"organ": organ, "metric": "pcc"}
                | _interval_row(point, boot, method, names, evaluation.reference)
                | {"folds": len(names), "seeds": seeds, "split": settings.split}
            )
    return pd.DataFrame(rows)


def _interval_row(point: dict, boot: dict, method: str, folds: list[str], against: str) -> dict[str, float]:
    mean = float(np.mean([point[method, f] for f in folds]))
    drawn = np.mean([boot[method, f] for f in folds], axis=0)
    difference = drawn - np.mean([boot[against, f] for f in folds], axis=0)
    low, high = interval(drawn)
    difference_low, difference_high = interval(difference)
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "difference": mean - float(np.mean([point[against, f] for f in folds])),
        "difference_low": difference_low,
        "difference_high": difference_high,
    }


def verdicts(evaluation: Evaluation) -> list[str]:
    """Say in words how each method compares with the frozen encoder, and SEAL with its shuffled control.

    A difference counts where the 95 % interval of the paired difference excludes zero. What SEAL gains is owed
    to the pairs only as far as it exceeds what shuffled pairs gain.
    """
    point, boot = _bootstrap(evaluation)
    folds = [fold.name for fold in evaluation.pairs.folds()]
    reference = evaluation.reference
    contrasts = [(method, reference) for method in METHODS if method != reference] + [("seal", "seal_shuffled")]
    lines = []
    for method, against in contrasts:
        row = _interval_row(point, boot, method, folds, against)
        low, high = row["difference_low"], row["difference_high"]
        word = "better than" if low > 0 else "worse than" if high < 0 else "not told apart from"
        lines.append(f"{method}: {word} {against} ({row['difference']:+.3f}, {low:+.3f} to {high:+.3f})")
    return lines


def maps(evaluation: Evaluation, genes: int = 3):
    """Measured and predicted expression of the first test genes on every test section, first seed.

    The genes are the most variable of the training donors: chosen before the test donor is looked at.

    Returns
    -------
    DataFrame with fold, sample, barcode, x, y (full-resolution px), gene, measured, frozen, seal.
    """
    import pandas as pd

    pairs = evaluation.pairs
    seed = pairs.profile.evaluation.seeds[0]
    frames = []
    for fold in pairs.folds():
        spots = pairs.frame().iloc[fold.test]
        truth = pairs.measured(fold)[fold.test]
        for column, gene in enumerate(pairs.panel(fold).test_genes[:genes]):
            frames.append(
                pd.DataFrame(
                    {
                        "fold": fold.name,
                        "sample": spots["sample"].to_numpy(),
                        "barcode": spots["barcode"].to_numpy(),
                        "x": spots["x"].to_numpy(),
                        "y": spots["y"].to_numpy(),
                        "gene": gene,
                        "measured": truth[:, column],
                        **{m: evaluation.predictions[m, fold.name, seed][:, column] for m in ("frozen", "seal")},
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)
