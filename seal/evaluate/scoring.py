"""From predictions to tables: scores of single donors, means with intervals, and what they say in words."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from seal.data.pairs import Fold
from seal.evaluate.methods import Method
from seal.evaluate.metrics import cluster_means, interval, mean_pearson, pearson, resamples, two_sided
from seal.evaluate.patch import Evaluation, Part, parts
from seal.profiles import EvaluationSettings

BOOTSTRAP_SEED = 0
CONTROL = "seal_shuffled"  # what SEAL gains is owed to the pairs only as far as it exceeds this
# kind -> what its methods are compared with besides
BESIDE = {"adapted": CONTROL} | dict.fromkeys(("readout", "baseline", "probed"), "seal")
RIVAL = "no_expression"  # what SEAL gains is owed to expression only as far as it exceeds this
GAIN = ("difference", "difference_low", "difference_high")
OVER_CONTROL = ("control_difference", "control_low", "control_high")
PICTURE = 400  # px, the longer side of a section's H&E


def _labels(method: Method) -> dict[str, str]:
    return {"method": method.name, "label": method.label, "kind": method.kind}


def _columns(evaluation: Evaluation, method: Method) -> dict[str, str]:
    profile = evaluation.pairs.profile
    return {"task": f"{profile.name} expression", "encoder": profile.encoder, **_labels(method)}


def _score_inputs(evaluation: Evaluation) -> Iterator[tuple[Fold, Method, Part, dict[int, np.ndarray], np.ndarray]]:
    """Each part as each method predicts it, by seed, and its truth, [spots, genes]."""
    for fold in evaluation.folds():
        measured, of_fold = evaluation.pairs.measured(fold)[fold.test], parts(evaluation.pairs, fold)
        for method in evaluation.methods:
            for part in of_fold:
                predictions = {seed: part.take(found) for seed, found in evaluation.runs(method.name, fold.name)}
                yield fold, method, part, predictions, part.take(measured)


def scores(evaluation: Evaluation):
    """One row a method, fold, test donor and seed: mean Pearson correlation over genes, and mean squared error.

    Both are over the donor's spots and the test genes of its organ.

    Returns
    -------
    DataFrame with task, encoder, method, label, kind, organ, fold, donor, seed, metric ("pcc" | "mse"), value. The mse
    is in squared units of normalised log expression.
    """
    import pandas as pd

    rows = []
    for fold, method, part, predictions, truth in _score_inputs(evaluation):
        labels = _columns(evaluation, method) | {"organ": part.organ, "fold": fold.name, "donor": part.donor}
        for seed, prediction in predictions.items():
            values = {"pcc": float(mean_pearson(prediction, truth)), "mse": float(np.mean((prediction - truth) ** 2))}
            rows += [labels | {"seed": seed, "metric": metric, "value": value} for metric, value in values.items()]
    return pd.DataFrame(rows)


def gene_scores(evaluation: Evaluation):
    """One row a gene, method, fold, test donor and seed: Pearson correlation over the donor's spots.

    Returns
    -------
    DataFrame with gene, organ, encoder, method, label, kind, fold, donor, seed, metric ("pcc"), value.
    """
    import pandas as pd

    frames = []
    for fold, method, part, predictions, truth in _score_inputs(evaluation):
        genes = np.array(evaluation.pairs.panel(fold).test_genes)[part.columns]
        encoder = evaluation.pairs.profile.encoder
        frame = pd.DataFrame({"gene": genes, "organ": part.organ, "encoder": encoder, **_labels(method)})
        frame = frame.assign(fold=fold.name, donor=part.donor)
        for seed, prediction in predictions.items():
            frames.append(frame.assign(seed=seed, metric="pcc", value=pearson(prediction, truth)))
    return pd.concat(frames, ignore_index=True)


@dataclass
class _Means:
    """Correlations of all parts by method, averaged over seeds, and how they vary when spots are drawn anew."""

    bootstrap: int
    parts: list[Part]
    point: dict[str, list[float]] = field(default_factory=dict)  # method -> [parts]
    drawn: dict[str, list[np.ndarray]] = field(default_factory=dict)  # method -> [parts][bootstrap]; empty for donors

    def organs(self) -> dict[str, np.ndarray]:
        """Positions of the parts of "all", then of each organ."""
        organs = np.array([part.organ for part in self.parts])
        return {"all": np.arange(len(organs))} | {name: np.flatnonzero(organs == name) for name in sorted(set(organs))}

    def mean(self, method: str, chosen: np.ndarray) -> float:
        """Mean over the chosen parts."""
        return float(np.mean(np.array(self.point[method])[chosen]))

    def resampled(self, method: str, chosen: np.ndarray) -> np.ndarray:
        """The mean in each resample, [bootstrap]; the resamples are the same for every method."""
        if self.drawn:
            return np.mean(np.array(self.drawn[method])[chosen], axis=0)
        donors = np.array([self.parts[i].donor for i in chosen])
        return cluster_means(np.array(self.point[method])[chosen], donors, self.bootstrap, BOOTSTRAP_SEED)

    def row(self, method: str, chosen: np.ndarray, against: str) -> dict[str, float]:
        """Mean and paired difference to another method, each with its 95 % interval."""
        drawn, other = self.resampled(method, chosen), self.resampled(against, chosen)
        values = {"mean": self.mean(method, chosen)}
        values |= zip(("low", "high"), interval(drawn), strict=True)
        values["difference"] = values["mean"] - self.mean(against, chosen)
        values |= zip(("difference_low", "difference_high"), interval(drawn - other), strict=True)
        donors = None if self.drawn else len({self.parts[i].donor for i in chosen})
        return values | {"difference_p": two_sided(drawn - other, donors)}


def _means(evaluation: Evaluation) -> _Means:
    settings = evaluation.pairs.profile.evaluation
    means = _Means(settings.bootstrap, [part for fold in evaluation.folds() for part in parts(evaluation.pairs, fold)])
    for _, method, _, predictions, truth in _score_inputs(evaluation):
        runs = predictions.values()
        means.point.setdefault(method.name, []).append(float(np.mean([mean_pearson(p, truth) for p in runs])))
        if settings.resample == "spots":
            spots = resamples(len(truth), settings.bootstrap, BOOTSTRAP_SEED)
            drawn = np.mean([mean_pearson(p, truth, spots) for p in runs], axis=0)
            means.drawn.setdefault(method.name, []).append(drawn)
    return means


def summary(evaluation: Evaluation):
    """Mean correlation of each method with its interval, and its paired difference to the frozen encoder.

    Scores are averaged over seeds, then over test donors. What the bootstrap resamples, the same for every method,
    says `EvaluationSettings.resample`: "spots" within each test donor, an interval that speaks of these donors only
    and is too narrow even for them, since neighbouring spots are alike; or the "donors", for "all" those of all organs
    together, which needs many: with one there is no interval (NaN), with an organ's few it is rough and too narrow.

    Returns
    -------
    DataFrame with task, encoder, method, label, kind, organ, metric, mean, low, high, difference, difference_low,
    difference_high, difference_p (see `metrics.two_sided`), folds, donors, seeds, split, dealt (0: each left out in
    turn; K: dealt into K folds), resample, tested (what was left out of training, in words); for adapted encoders,
    baselines and the adapter without expression control, the method they are compared with besides, and
    control_difference, control_low, control_high, control_p.
    """
    import pandas as pd

    settings, means = evaluation.pairs.profile.evaluation, _means(evaluation)
    rows = []
    for organ, chosen in means.organs().items():
        folds, donors = ({getattr(means.parts[i], name) for i in chosen} for name in ("fold", "donor"))
        for method in evaluation.methods:
            rows.append(
                _columns(evaluation, method)
                | {"organ": organ, "metric": "pcc"}
                | means.row(method.name, chosen, evaluation.reference)
                | {"folds": len(folds), "donors": len(donors)}
                | {"seeds": len(evaluation.runs(method.name, means.parts[chosen[0]].fold)), "split": settings.split}
                | {"dealt": settings.folds, "resample": settings.resample, "tested": _tested(settings, len(folds))}
            )
            if (beside := "seal" if method.name == RIVAL else BESIDE.get(method.kind)) in means.point:
                own = means.row(method.name, chosen, beside)
                names = {"difference": "control_difference", "difference_low": "control_low"}
                names |= {"difference_high": "control_high", "difference_p": "control_p"}
                rows[-1] |= {"control": beside} | {new: own[old] for old, new in names.items()}
    return pd.DataFrame(rows)


def _tested(settings: EvaluationSettings, folds: int) -> str:
    if settings.split == "given":
        return "the test set's donors left out"
    if settings.folds == 0:
        return f"one {settings.split} left out"
    several = {"donor": "donors", "section": "sections", "study": "studies", "organ": "organs"}[settings.split]
    return f"{several} left out in {folds}{'' if folds == settings.folds else f' of {settings.folds}'} folds"


def verdicts(table) -> list[str]:
    """Say in words how each method compares with the frozen encoder, and SEAL with its shuffled control.

    A difference counts where the 95 % interval of the paired difference excludes zero; the first line says what the
    bootstrap resamples. What SEAL gains is owed to the pairs only as far as it exceeds what shuffled pairs gain.
    Where the truth is known, the last line says how much of the oracle's correlation is reached.

    Parameters
    ----------
    table
        What `summary` gives, of one encoder.
    """
    rows = table[table["organ"] == "all"].set_index("method")
    lines = [f"paired differences, 95 % intervals over {rows['resample'].iloc[0]}"]
    contrasts = [(name, "frozen", GAIN) for name in rows.index if name != "frozen"]
    for method, against, columns in [*contrasts, ("seal", CONTROL, OVER_CONTROL)]:
        difference, low, high = rows.loc[method, list(columns)]
        word = "better than" if low > 0 else "worse than" if high < 0 else "not told apart from"
        word = word if np.isfinite(low) else "no interval against"
        lines.append(f"{method}: {word} {against} ({difference:+.3f}, {low:+.3f} to {high:+.3f})")
    if {"oracle", "ceiling"} <= set(rows.index):
        mean = rows["mean"]
        seal, frozen = (f"{100 * mean[name] / mean['oracle']:.0f} %" for name in ("seal", "frozen"))
        truth = f"the oracle {mean['oracle']:.3f}, the ceiling {mean['ceiling']:.3f}"
        lines.append(f"SEAL reaches {seal} of the oracle's PCC, the frozen encoder {frozen}; {truth}")
    return lines


def maps(evaluation: Evaluation, genes: int = 3):
    """Give measured and predicted expression of an organ's first test genes on every test section, first seed.

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
        shown |= {method: dict(evaluation.runs(method, fold.name))[seed] for method in ("frozen", "seal")}
        for part in parts(pairs, fold):
            where = spots.iloc[part.rows][["donor", "sample", "barcode", "x", "y"]]
            for column in part.columns[:genes]:
                values = {name: matrix[part.rows, column] for name, matrix in shown.items()}
                frames.append(where.assign(fold=fold.name, gene=names[column], **values))
    columns = ["fold", "donor", "sample", "barcode", "x", "y", "gene", *shown]
    return pd.concat(frames, ignore_index=True)[columns]


def map_sections(evaluation: Evaluation, maps):
    """Give the H&E of the sections that figure E4 shows, each fold's first in `maps`, for two folds.

    Returns
    -------
    DataFrame with sample, um_per_px (of x and y in `maps`), simulated, span (px of x and y that one px of the picture
    spans), jpeg (the patches laid out where they were cut, base64).
    """
    import pandas as pd

    pairs, rows = evaluation.pairs, []
    sections = {section.sample: section for section in pairs.sections}
    for sample in maps.drop_duplicates("fold")["sample"].tolist()[:2]:
        image, span = pairs.tissue(sections[sample])
        jpeg, width = encode_picture(image, PICTURE)
        row = {"sample": sample, "um_per_px": sections[sample].um_per_px, "simulated": pairs.profile.simulated}
        row |= {"span": span * image.shape[1] / width, "jpeg": jpeg}
        rows.append(row)
    return pd.DataFrame(rows)


def encode_picture(pixels: np.ndarray, longest: int) -> tuple[str, int]:
    """Give a picture, its longer side at most so many px, as a JPEG in base64, and its width."""
    from base64 import b64encode
    from io import BytesIO

    from PIL import Image

    picture, file = Image.fromarray(pixels), BytesIO()
    picture.thumbnail((longest, longest))
    picture.save(file, "JPEG", quality=85)
    return b64encode(file.getvalue()).decode(), picture.width
