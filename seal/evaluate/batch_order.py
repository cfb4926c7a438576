"""Does a spot's prediction depend on who is predicted beside it? Each baseline in several orders, the answers compared.

The official prediction takes the spots in the order of their sections, in batches of the training's size. A method
whose attention runs over the batch gives another answer in another order: then its score is that of one order, and
nobody who has a single patch can use it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from seal.data.pairs import Fold
from seal.evaluate.ablation import choose_folds
from seal.evaluate.methods import Cut, Method
from seal.evaluate.metrics import mean_pearson
from seal.evaluate.patch import Evaluation, parts

ROUNDING = 1e-4  # of normalised log expression: larger than what the order of sums changes


def one_by_one(n: int, size: int) -> Sequence[Tensor]:
    """Cut spots into batches of one."""
    return torch.arange(n).split(1)


def shuffled(n: int, size: int) -> Sequence[Tensor]:
    """Cut spots into batches in an order that mixes sections, always the same."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(0)).split(size)


COMPARISONS: dict[str, Cut] = {"one spot at a time": one_by_one, "another order": shuffled}


def table(evaluation: Evaluation):
    """One row a baseline, fold of the ablations and comparison with the official prediction, first seed.

    Returns
    -------
    DataFrame with method, label, fold, comparison, largest (difference of a prediction, normalised log expression),
    share (of predictions that differ by more than rounding), differs, mean_pcc_a (official) and mean_pcc_b: mean
    Pearson correlation over genes, then donors.
    """
    import pandas as pd

    baselines, rows = [method for method in evaluation.methods if method.kind == "baseline"], []
    for fold in choose_folds(evaluation.pairs):
        for method in baselines:
            rows += _compare(evaluation, fold, method)
    return pd.DataFrame(rows)


def _compare(evaluation: Evaluation, fold: Fold, method: Method) -> list[dict]:
    pairs, rows = evaluation.pairs, []
    seed = pairs.profile.evaluation.seeds[0]
    official = evaluation.predictions[method.name, fold.name, seed]
    embedding = evaluation.embeddings.read(method.embedding, fold.name, seed)
    for comparison, cut in COMPARISONS.items():
        other = method.predict(pairs, fold, embedding, seed, cut=cut)
        gap = np.abs(other - official)
        row = {"method": method.name, "label": method.label, "fold": fold.name, "comparison": comparison}
        row |= {"largest": float(gap.max()), "share": float((gap > ROUNDING).mean())}
        row |= {"differs": bool(gap.max() > ROUNDING)}
        rows.append(row | {f"mean_pcc_{k}": _mean_pcc(evaluation, fold, p) for k, p in (("a", official), ("b", other))})
    return rows


def _mean_pcc(evaluation: Evaluation, fold: Fold, prediction: np.ndarray) -> float:
    measured = evaluation.pairs.measured(fold)[fold.test]
    each = [mean_pearson(p.take(prediction), p.take(measured)) for p in parts(evaluation.pairs, fold)]
    return float(np.nanmean(each))
