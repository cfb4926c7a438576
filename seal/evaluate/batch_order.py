"""Does a spot's prediction depend on who is predicted beside it? Each baseline in several orders, the answers compared.

The official prediction takes the spots in the order of their sections, in batches of the training's size. A method
whose attention runs over the batch gives another answer in another order: then its score is that of one order, and
nobody who has a single patch can use it.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from seal.data.pairs import Fold, Pairs
from seal.evaluate.methods import Cut, Method
from seal.evaluate.metrics import mean_pearson
from seal.evaluate.patch import Evaluation, parts

SPOTS = 1024  # the first test spots of a fold, about so many: whole batches
ROUNDING = 1e-4  # of normalised log expression: larger than what the order of sums changes
TIES = 0.01  # of the predictions may differ by more: which spot is the fiftieth can hang on the order of sums


# how the spots are cut otherwise: each alone, or in an order that mixes sections, always the same
COMPARISONS: dict[str, Cut] = {
    "one spot at a time": lambda n, size: torch.arange(n).split(1),
    "another order": lambda n, size: torch.randperm(n, generator=torch.Generator().manual_seed(0)).split(size),
}


def table(evaluation: Evaluation):
    """One row a baseline, fold of the ablations and comparison with the official prediction, first seed, first spots.

    Returns
    -------
    DataFrame with method, label, fold, comparison, largest (difference of a prediction, normalised log expression),
    share (of predictions that differ by more than rounding), differs (in more than 1 %), mean_pcc_a (official) and
    mean_pcc_b: mean Pearson correlation over genes, then donors.
    """
    import pandas as pd

    baselines = [method for method in evaluation.methods if method.kind == "baseline"]
    jobs = [(fold, method) for fold in evaluation.folds() for method in baselines]
    return pd.DataFrame([row for fold, method in jobs for row in _compare(evaluation, fold, method)])


def _compare(evaluation: Evaluation, fold: Fold, method: Method) -> Iterator[dict[str, Any]]:
    pairs, seed = evaluation.pairs, evaluation.pairs.profile.evaluation.seeds[0]
    embedding = evaluation.embeddings.read(method.embedding, fold.name, seed)
    first = slice(max(1, SPOTS // pairs.profile.vision.batch) * pairs.profile.vision.batch)
    official = dict(evaluation.runs(method.name, fold.name))[seed][first]
    fold = replace(fold, test=fold.test[first])
    for comparison, cut in COMPARISONS.items():
        other = method.predict(pairs, fold, embedding, seed, cut=cut)
        gap = np.abs(other - official)
        yield {
            **{"method": method.name, "label": method.label, "fold": fold.name, "comparison": comparison},
            **{"largest": float(gap.max()), "share": float((gap > ROUNDING).mean())},
            **{"differs": bool((gap > ROUNDING).mean() > TIES), "mean_pcc_a": _mean_pcc(pairs, fold, official)},
            "mean_pcc_b": _mean_pcc(pairs, fold, other),
        }


def _mean_pcc(pairs: Pairs, fold: Fold, prediction: np.ndarray) -> float:
    measured = pairs.measured(fold)[fold.test]
    return float(np.nanmean([mean_pearson(p.take(prediction), p.take(measured)) for p in parts(pairs, fold)]))
