"""Probes: scale and PCA, then ridge with the penalty chosen on training donors alone, or one of `PROBES`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from seal.data.folds import deal_units
from seal.errors import SealError
from seal.evaluate.metrics import pearson
from seal.evaluate.ridge import PcaRidge, few_threads, fit_ridges, require_finite

GROUPS = 5  # at most so many fits to choose alpha
BENCH_COMPONENTS = 256  # of HEST-Bench's PCA
NEIGHBOURS = 50  # as BLEEP takes
FEW = 100_000  # scores of training spots below which one thread is faster (two cores)


@dataclass(frozen=True)
class Validation:
    """How alpha is judged on the training spots, see `validation`."""

    groups: np.ndarray  # what is left out together, [n]
    parts: np.ndarray  # within what a correlation is taken, [n]
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)  # part -> those of the target that count in it


def ridge_probe(
    train: np.ndarray,
    target: np.ndarray,
    how: Validation,
    test: np.ndarray,
    components: int,
    alphas: Sequence[float],
) -> tuple[np.ndarray, float]:
    """Predict expression from embeddings.

    StandardScaler -> PCA -> ridge, y = mean(y) + t' (T'T + alpha I)^-1 T' (Y - mean(Y)). Alpha is the one with
    the highest mean Pearson correlation when each training group is left out in turn: the mean over a part's own
    genes, then over parts, just as a test donor is scored.

    Parameters
    ----------
    train, test
        Embeddings, [n, d] and [m, d].
    target
        Expression of the training spots, [n, G].
    how
        The groups that are left out and what is scored in them.

    Returns
    -------
    Prediction [m, G] and the alpha taken.

    Raises
    ------
    SealError
        NaN or infinity in embeddings or expression.

    Source: HEST-Bench (scaler, PCA 256, ridge); alpha chosen, with an intercept: our choice.
    """
    require_finite({"training embeddings": train, "expression": target, "test embeddings": test})
    groups = [how.groups == group for group in np.unique(how.groups)]
    with few_threads(train):
        scores = np.zeros(len(alphas))
        for inside, fit in zip(groups, fit_ridges(train, target, groups, components), strict=True):
            for part in np.unique(how.parts[inside]):
                rows = inside & (how.parts == part)
                columns = how.columns.get(part, slice(None))
                scores += _path_scores(fit, train[rows], target[rows][:, columns], columns, alphas)
        best = float(alphas[int(np.argmax(scores))])
        return PcaRidge.fit(train, target, components).predict(test, [best])[:, 0], best


def _path_scores(fit: "PcaRidge", x: np.ndarray, y: np.ndarray, columns, alphas: Sequence[float]) -> np.ndarray:
    """Mean correlation over genes for each alpha, 0 where no gene varies: such a part cannot speak for any."""
    predictions = fit.predict(x, alphas, columns).reshape(len(x), -1)
    r = pearson(predictions, np.tile(y, len(alphas))).reshape(len(alphas), -1)
    scored = np.isfinite(r)
    return np.where(scored, r, 0.0).sum(axis=1) / np.maximum(scored.sum(axis=1), 1)


def validation(
    donors: np.ndarray,
    sections: np.ndarray,
    position: np.ndarray,
    organs: np.ndarray,
    states: np.ndarray,
    genes: Mapping[str, np.ndarray] | None = None,
) -> Validation:
    """Leave donors out, else sections, else five strips of the one section; at most five groups of them.

    More than five donors (or sections) are dealt into five groups by the rule of the folds: each organ's donors
    spread evenly, disease states balanced; see `seal.data.folds.deal`.

    Parameters
    ----------
    donors, sections, organs, states
        Of the training spots, [n].
    position
        Grid column of each spot, [n]; strips keep neighbouring spots on one side of the cut.
    genes
        Organ -> columns of the target that count in its parts; None: all columns everywhere.

    Source: our choice.
    """
    strips = np.searchsorted(np.quantile(position, [0.2, 0.4, 0.6, 0.8]), position)
    parts = next((labels for labels in (donors, sections) if len(np.unique(labels)) > 1), strips)
    names, first = np.unique(parts, return_index=True)
    columns = {name: genes[organs[row]] for name, row in zip(names, first, strict=True)} if genes else {}
    if len(names) <= GROUPS:
        return Validation(parts, parts, columns)
    group_of = deal_units({name: (organs[row], states[row]) for name, row in zip(names, first, strict=True)}, GROUPS)
    return Validation(np.array([group_of[part] for part in parts]), parts, columns)


def bench_alpha(spots: int, dimensions: int, genes: int) -> float:
    """HEST-Bench's penalty, 100 / (d x genes), with d the components that its PCA keeps of a table of that size."""
    return 100 / (min(BENCH_COMPONENTS, spots, dimensions) * genes)


def predict_hest_bench(train: np.ndarray, target: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Predict by HEST-Bench's recipe: StandardScaler, PCA 256, ridge of `bench_alpha`, no intercept.

    The benchmark's target is log(1 + counts), which the caller gives. Two steps are exact here that HEST approximates:
    the PCA (randomised there, which moves a gene's Pearson by up to .01) and the ridge (LSQR there).

    Source: HEST-Bench (src/hest/bench/trainer.py, benchmark.py).
    """
    require_finite({"training embeddings": train, "expression": target, "test embeddings": test})
    fit = PcaRidge.fit(train.astype(np.float64), target, BENCH_COMPONENTS)
    return fit.predict(test, [bench_alpha(*train.shape, target.shape[1])])[:, 0] - fit.centre


def _bench_scores(train: np.ndarray, target: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PCA scores [n, k] and [m, k] as HEST-Bench's other regressions see them; an axis' largest entry is positive."""
    require_finite({"training embeddings": train, "expression": target, "test embeddings": test})
    fit = PcaRidge.fit(train.astype(np.float64), target, BENCH_COMPONENTS)
    sign = np.sign(np.take_along_axis(fit.axes, np.abs(fit.axes).argmax(axis=0)[None], axis=0))
    return fit.reduce(train) * sign, fit.reduce(test) * sign


def predict_xgboost(train: np.ndarray, target: np.ndarray, test: np.ndarray, bins: int = 256) -> np.ndarray:
    """Predict by boosted trees, a model a gene, on HEST-Bench's scaler and PCA.

    Parameters
    ----------
    bins
        Cuts of a feature that are tried: XGBoost's default, or fewer, which is faster.

    Raises
    ------
    SealError
        XGBoost is not installed.

    Source: HEST-Bench (100 trees of depth 3, rate .1, 80 % of spots and components a tree, seed 1).
    """
    try:
        from xgboost import XGBRegressor
    except ImportError as error:
        raise SealError(f"XGBoost: {error}", expected="the package", do="pip install xgboost-cpu or xgboost") from error
    x, x_test = _bench_scores(train, target, test)
    trees = {"n_estimators": 100, "learning_rate": 0.1, "max_depth": 3, "min_child_weight": 1, "gamma": 0}
    drawn = {"subsample": 0.8, "colsample_bytree": 0.8, "reg_alpha": 0, "reg_lambda": 1, "random_state": 1}
    # no feature has more values than spots: the same trees; and several threads only wait for each other on few
    how = {"max_bin": min(bins, max(2, len(x))), "n_jobs": 1 if x.size < FEW else None}
    return XGBRegressor(**trees, **drawn, **how).fit(x, target).predict(x_test).reshape(len(test), -1)


def predict_mlp(train: np.ndarray, target: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Predict by one hidden layer of 256 on the PCA scores, all genes at once, each scaled to unit variance.

    It stops when a random tenth of the training spots, held back, gets no better for ten epochs.

    Source: our choice. Of three ways to scale its input the plainest was taken, not the best; but their test scores had
    been seen.
    """
    from sklearn.neural_network import MLPRegressor

    x, x_test = _bench_scores(train, target, test)
    centre, sd = target.mean(axis=0), target.std(axis=0)
    y = (target - centre) / np.where(np.ptp(target, axis=0) > 0, sd, 1.0)
    model = MLPRegressor(hidden_layer_sizes=(256,), early_stopping=True, random_state=0)
    return model.fit(x, y[:, 0] if y.shape[1] == 1 else y).predict(x_test).reshape(len(test), -1) * sd + centre


def predict_knn(train: np.ndarray, target: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Predict the mean of the 50 training spots nearest in PCA scores (all, if there are fewer).

    Source: our choice, with BLEEP's number.
    """
    from sklearn.neighbors import KNeighborsRegressor

    x, x_test = _bench_scores(train, target, test)
    return KNeighborsRegressor(n_neighbors=min(NEIGHBOURS, len(x))).fit(x, target).predict(x_test)


# Each takes embeddings [n, d] and expression [n, G] of the training spots, and embeddings [m, d] of the test spots;
# it gives their expression, [m, G]. None of them looks at donors.
PROBES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "hest_bench": predict_hest_bench,
    "xgboost": predict_xgboost,
    "mlp": predict_mlp,
    "knn": predict_knn,
}
