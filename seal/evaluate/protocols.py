"""How much of a correlation is the protocol, or the probe: from the release's MAPLE-Test to donors left out."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from seal.data.folds import Fold, deal_units
from seal.data.pairs import Pairs
from seal.evaluate import scoring
from seal.evaluate.ablation import Ablation
from seal.evaluate.methods import Method
from seal.evaluate.metrics import pearson
from seal.evaluate.patch import Evaluation
from seal.evaluate.probe import BENCH_COMPONENTS, PROBES, bench_alpha, predict_xgboost
from seal.evaluate.ridge import ridge_sweep

COMPARED = ("frozen", "seal", "random", "colour")  # methods, as far as an evaluation has them
HELD_OUT = {
    "release": "spots at random; target: spot context",
    "own_counts": "spots at random; target: own counts",
    "sections": "sections",
    "donors": "the profile's folds",
    "ours": "the profile's folds; penalty chosen",
}
SPLITS = 5  # of spots, or groups of sections
GENES = 10  # of each organ in the release, the most variable first; all that are scored here beside them
FEWEST = 3  # spots that a correlation takes: of two it is always 1 or -1
PROBED, BINS = 5, 32  # where all probes are compared: genes of an organ, and XGBoost's cuts of a feature

Genes = dict[int, dict[str, np.ndarray]]  # how many of an organ -> organ -> columns of what is measured
# protocol, rows of the pairs [m], truth [m, test genes], genes of an organ -> prediction [m, test genes]
Split = tuple[str, np.ndarray, np.ndarray, dict[int, np.ndarray]]


def protocols(evaluation: Evaluation):
    """Score the same embeddings by five protocols, each a step from the one before; first seed.

    - release: five random 80/20 splits of the spots of all tested organs together; scaler, PCA 256, ridge without
      intercept, alpha = 100 / (256 x genes of all organs). The target is what SEAL learns, the spot context: a test
      spot's neighbours are trained on, and their counts are mixed into its own.
    - own_counts: the target is the spot's own counts, so neighbours share no counts.
    - sections: whole sections are left out, dealt into five folds, so no neighbour is trained on.
    - donors: the same recipe on the profile's folds; their training sets can be smaller.
    - ours: these folds, alpha chosen among training donors, as the evaluation predicted.

    The first three test every spot. An encoder trained on a fold has seen most of them, with their expression, in its
    own training, as in the release: such a gain says nothing of unseen donors.

    Returns
    -------
    DataFrame with task, encoder, method, label, kind, protocol, held_out (in words), organ ("all": mean over organs),
    organs (that could be scored), genes (of an organ), correlation ("pooled": over a split's spots of all organs, so
    what differs between organs counts; "per sample": within each of the organ's sections, then averaged), metric
    ("pcc"), value (mean over splits, then genes), sd (of a gene over splits, mean over genes; empty of one split),
    splits, reason (why a value is empty).

    Source: release (eval_utils.py); the steps our choice.
    """
    import pandas as pd

    keys, tables, profile = ["protocol", "organ", "genes", "correlation"], [], evaluation.pairs.profile
    genes = {fold.name: _choose_genes(evaluation.pairs, fold) for fold in evaluation.folds()}
    for method in (m for m in evaluation.methods if m.name in COMPARED):
        splits = [(f, split) for f in evaluation.folds() for split in _splits(evaluation, f, method, genes[f.name])]
        scored = ((i, _score(evaluation.pairs, *split, genes[split[0].name])) for i, split in enumerate(splits))
        rows = [row | {"split": i} for i, scores in scored for row in scores]
        found = pd.DataFrame(rows).explode(["gene", "r"]).astype({"r": float})
        by_gene = found.groupby([*keys, "gene"], sort=False)["r"].agg(["mean", "std", "count"])
        by_gene["std"] *= np.sqrt(1 - 1 / by_gene["count"].clip(lower=1))  # divided by n, as the release has it
        table = by_gene.groupby(keys, sort=False)[["mean", "std"]].mean()
        table["splits"] = found.groupby(keys)["split"].nunique()
        table["organs"] = table["mean"].notna().astype(int)
        whole = table.reset_index().assign(organ="all").groupby(keys, sort=False)
        whole = whole.agg({"mean": "mean", "std": "mean", "splits": "max", "organs": "sum"})
        labels = {"task": f"{profile.name} expression", "encoder": profile.encoder, "method": method.name}
        labels |= {"label": method.label, "kind": method.kind, "metric": "pcc"}
        tables.append(pd.concat([whole, table]).reset_index().assign(**labels))
    table = pd.concat(tables, ignore_index=True).rename(columns={"mean": "value", "std": "sd"})
    table["held_out"] = table["protocol"].map(HELD_OUT)
    table["reason"] = np.where(table["value"].isna(), f"no gene varies over {FEWEST} spots", "")
    columns = ["task", "encoder", "method", "label", "kind", "protocol", "held_out", "organ", "organs", "genes"]
    return table[[*columns, "correlation", "metric", "value", "sd", "splits", "reason"]]


def _splits(evaluation: Evaluation, fold: Fold, method: Method, genes: Genes) -> Iterator[Split]:
    """All splits of all protocols, with the embeddings and the test genes of one fold."""
    from sklearn.model_selection import train_test_split

    pairs, panel = evaluation.pairs, evaluation.pairs.panel(fold)
    seed, prediction = evaluation.runs(method.name, fold.name)[0]
    z = evaluation.embeddings.read(method.embedding, fold.name, seed).astype(np.float64)
    own = np.array(pairs.measured(fold)[: len(z)], dtype=np.float64)
    context = np.array(pairs.context(fold)[: len(z)][:, panel.test_columns], dtype=np.float64)
    organs, states, sections = (pairs.per_spot(name)[: len(z)] for name in ("organ", "disease_state", "sample"))
    everything, tested = np.arange(len(z)), np.flatnonzero(np.isin(organs, list(panel.test)))

    def sweep(rows: np.ndarray, y: np.ndarray, held: Sequence[np.ndarray]):
        """Each split's rows, and its predictions by number of genes."""
        kept = len(rows) - max(len(part) for part in held)
        alphas = {n: bench_alpha(kept, z.shape[1], len(set().union(*c.values()))) for n, c in genes.items()}
        left_out = [np.isin(rows, part) for part in held]
        found = ridge_sweep(z[rows], y[rows], left_out, BENCH_COMPONENTS, list(alphas.values()), intercept=False)
        for out, predictions in zip(left_out, found, strict=True):
            yield rows[out], {n: predictions[:, i] for i, n in enumerate(alphas)}

    at_random = [train_test_split(tested, train_size=0.8, random_state=f)[1] for f in range(SPLITS)]
    for rows, found in sweep(tested, np.hstack([context, own]), at_random):
        half = own.shape[1]
        yield "release", rows, context[rows], {n: p[:, :half] for n, p in found.items()}
        yield "own_counts", rows, own[rows], {n: p[:, half:] for n, p in found.items()}
    kinds = {sections[i]: (organs[i], states[i]) for i in tested}
    group_of = deal_units(kinds, min(SPLITS, len(kinds)))
    group = np.array([group_of[name] for name in sections[tested]])
    for rows, found in sweep(tested, own, [tested[group == g] for g in np.unique(group)]):
        yield "sections", rows, own[rows], found
    for rows, found in sweep(everything, own, [fold.test]):
        yield "donors", rows, own[rows], found
    yield "ours", fold.test, own[fold.test], dict.fromkeys(genes, prediction)


def _choose_genes(pairs: Pairs, fold: Fold) -> Genes:
    panel, scored = pairs.panel(fold), pairs.profile.panel.test_genes
    columns = {organ: panel.scored(organ) for organ in panel.test}
    return {n: {organ: c[:n] for organ, c in columns.items()} for n in sorted({min(GENES, scored), scored})}


def _score(pairs: Pairs, fold: Fold, split: Split, genes: Genes) -> Iterator[dict]:
    """Correlations of one split, for each number of genes, organ and way to correlate: r [genes], and the genes."""
    protocol, rows, truth, predictions = split
    organs, samples = (pairs.per_spot(name)[rows] for name in ("organ", "sample"))
    names = np.array(pairs.panel(fold).test_genes)
    for number, by_organ in genes.items():
        pooled = _correlate(predictions[number], truth)
        for organ, columns in by_organ.items():
            inside = [np.flatnonzero(samples == sample) for sample in np.unique(samples[organs == organ])]
            if not inside:
                continue
            cut = [np.ix_(rows, columns) for rows in inside]
            single = np.array([_correlate(predictions[number][part], truth[part]) for part in cut])
            scored = np.isfinite(single)
            mean = np.where(scored, single, 0.0).sum(axis=0) / np.where(scored.any(axis=0), scored.sum(axis=0), np.nan)
            for name, r in (("pooled", pooled[columns]), ("per sample", mean)):
                labels = {"protocol": protocol, "organ": organ, "genes": number, "correlation": name}
                yield labels | {"gene": names[columns], "r": r}


def _correlate(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return pearson(prediction, truth) if len(truth) >= FEWEST else np.full(truth.shape[1], np.nan)


def probes(evaluation: Evaluation):
    """Score the frozen encoder and SEAL by our ridge and by each of `PROBES`, to see whether their order depends on it.

    All predict the same: the spots' own counts (so HEST-Bench's recipe, but not its target), the five most variable
    test genes of each organ, on the folds that ablations run on; first seed. XGBoost tries 32 cuts of a feature instead
    of 256, three times as fast.

    Returns
    -------
    DataFrame with probe ("ridge": ours; or a name of `PROBES`) and the columns of `seal.evaluate.scoring.summary`.
    """
    import pandas as pd

    pairs, tables = evaluation.pairs, []
    methods = tuple(method for method in evaluation.methods if method.name in ("frozen", "seal"))
    for name, probe in {"ridge": None, **PROBES, "xgboost": partial(predict_xgboost, bins=BINS)}.items():
        part = Ablation(pairs, evaluation.embeddings, methods, evaluation.reference)
        for fold in pairs.trial_folds():
            panel, measured = pairs.panel(fold), pairs.measured(fold)
            columns = np.array(sorted(set().union(*(panel.scored(organ)[:PROBED] for organ in panel.test))))
            for method in methods:
                seed, ridge = evaluation.runs(method.name, fold.name)[0]
                found = np.full(ridge.shape, np.nan)  # what is not predicted is not scored
                if probe is None:
                    found[:, columns] = ridge[:, columns]
                else:
                    z = evaluation.embeddings.read(method.embedding, fold.name, seed)
                    found[:, columns] = probe(z[fold.train], measured[fold.train][:, columns], z[fold.test])
                part.predictions[method.name, fold.name, seed] = found
        tables.append(scoring.summary(part).assign(probe=name))
    return pd.concat(tables, ignore_index=True)
