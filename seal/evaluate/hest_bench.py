"""HEST-Bench: tasks embedded and probed, our numbers beside the published ones, what SEAL gains where they agree."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from seal import paths
from seal.data.hest_bench import AVERAGED, BenchTask
from seal.data.pairs import Pairs
from seal.data.samples import FIELD
from seal.embed import SAME_SCALE, is_current
from seal.errors import SealError
from seal.evaluate.embeddings import Embeddings, embed_images
from seal.evaluate.methods import find_probed
from seal.evaluate.metrics import cluster_means, interval, mean_pearson, pearson, two_sided
from seal.evaluate.probe import PROBES, ridge_probe, validation
from seal.evaluate.scoring import BOOTSTRAP_SEED
from seal.files import Made, contents, lock, progress
from seal.models import weights
from seal.profiles import difference
from seal.slides import trident
from seal.train import parallel, runs
from seal.train.batches import TokenSource
from seal.train.runs import Run
from seal.train.tokens import CHUNK

VERSION = 1  # counted up when the same patches, runs and settings give other embeddings
PUBLISHED = Path(__file__).with_name("hest_bench_published.csv")
OFFICIAL, BOOSTED = "hest_bench", "xgboost"  # the probe of the published numbers; HEST's other one
AVERAGE = "average"  # over the nine tasks
# How far the frozen encoder may be from its published row before a gain over it means nothing, of a task and of the
# average. Our choice: an exact PCA in place of HEST's randomised one moves a gene by up to .0097.
TOLERANCE, TOLERANCE_OF_AVERAGE = 0.02, 0.01
AT_ONCE = 2  # embeddings probed: XGBoost on a task's few patches takes one thread
FEWEST = 10  # patches of a correlation (our choice)
MISSES = "frozen number misses the published one by"
GAIN = ("difference", "difference_low", "difference_high", "difference_p")


def list_runs(pairs: Pairs) -> list[Run]:
    """List the runs that are compared: of the first fold SEAL's every seed; the first of controls and baselines.

    Those that adapt an encoder: a task's genes are not those that a baseline's own head gives.
    """
    fold, first = pairs.folds()[0], pairs.profile.evaluation.seeds[0]
    own = [run for run in runs.list_compared(pairs) if run.fold.name == fold.name and not run.variant]
    return [run for run in own if run.method == "seal" or (run.seed == first and run.method != "deepspot")]


def evaluate(tasks: Sequence[BenchTask], source: TokenSource, chosen: Sequence[Run]):
    """Embed tasks with the frozen encoder and trained runs, probe them, and score every fold.

    Probes: HEST's two, hest_bench and, for the main encoder frozen and after SEAL's first seed, xgboost;
    cross_validated, whose penalty is chosen on training donors (ours).
    Correlation: over a fold's test patches together ("pooled", HEST's), or the mean over its samples ("sample");
    either the mean over the genes that vary.

    Returns
    -------
    DataFrame with task, encoder, method, label, kind, probe, fold, seed, correlation, metric ("pcc"), value (empty
    where `note` says why), published (of the frozen encoder, official probe, pooled), simulated, note.

    Raises
    ------
    SealError
        A task is bad (`seal.data.hest_bench`), simulated and the profile not or the reverse, or of another field of
        view than the profile's patches; a run is not trained.
    """
    import pandas as pd

    pairs, profile, rows = source.pairs, source.pairs.profile, []
    for task in tasks:
        if task.simulated != profile.simulated:
            kind = "simulated" if task.simulated else "real"
            what = f"task {task.name} is {kind}, profile {profile.name} has {profile.label}"
            raise SealError(what, expected="what the results will say they are", do="take the profile's own tasks")
    if abs((field := profile.image_size * profile.um_per_px) / FIELD - 1) > SAME_SCALE:
        what = f"profile {profile.name} takes patches of {field:g} um"
        raise SealError(what, expected=f"{FIELD:g} um, HEST-Bench's", do="change image_size or um_per_px")
    embed_tasks(tasks, source, chosen)
    first = profile.evaluation.seeds[0]
    named = [("frozen", None, first), *((r.method, r.fold.name, r.seed) for r in chosen)]

    def score(task: BenchTask, fold: str, truth: Mapping, own: tuple[str, str | None, int]) -> list[dict]:
        name, trained_on, seed = own
        method = find_probed(name)
        about = {"method": method.name, "label": method.label, "kind": method.kind}
        about |= {"task": task.name, "encoder": profile.encoder, "fold": fold, "seed": seed, "metric": "pcc"}
        z = partial(_file, pairs, task, name=Embeddings(pairs).name(name, trained_on, seed))
        boosted = seed == first and name in ("frozen", "seal") and not pairs.further
        return [about | scored for scored in _score(task, fold, z, truth, pairs, boosted)]

    folds = sum(len(task.splits) for task in tasks)
    with progress("HEST-Bench", folds, "fold") as advance, ThreadPoolExecutor(AT_ONCE) as pool:
        for task in tasks:
            truth = {sample: task.expression(sample) for sample in task.files}
            for fold in task.splits:
                rows += chain.from_iterable(pool.map(partial(score, task, fold, truth), named))
                advance()
    published = {} if profile.simulated else read_published().get(profile.encoder, {})
    table = pd.DataFrame(rows).assign(simulated=profile.simulated)
    return table.assign(published=table["task"].map(published).astype(float))


def read_published() -> dict[str, dict[str, float]]:
    """Encoder -> task or "average" -> published correlation; the table names their source and day."""
    import pandas as pd

    table = pd.read_csv(PUBLISHED).set_index("encoder").drop(columns=["source", "date"])
    return table.to_dict("index")


def _file(pairs: Pairs, task: BenchTask, sample: str, name: str) -> Path:
    """Where a sample's embeddings lie."""
    profile = pairs.profile
    root = paths.embeddings(profile.name, difference(profile, runs.VISION)) / "hest_bench" / task.name
    scale = trident.scale_folder(profile.um_per_px, profile.image_size, 0)
    return trident.features_folder(root, scale, name) / f"{sample}.h5"


def embed_tasks(tasks: Sequence[BenchTask], source: TokenSource, chosen: Sequence[Run]) -> None:
    """Embed every sample with the frozen encoder and with runs, in one pass over the trunk; what is there stays."""
    pairs, profile, store = source.pairs, source.pairs.profile, Embeddings(source.pairs)
    own = {"encoder": profile.encoder, "weights": weights.fingerprint(profile.encoder)}
    own |= {"image_size": profile.image_size, "precision": profile.compute.precision}
    named = {store.name("frozen"): None} | {store.name(run.method, run.fold.name, run.seed): run for run in chosen}
    parts = {name: own | ({"run": run.key(source)} if run else {}) for name, run in named.items()}
    places, missing = [(task, sample) for task in tasks for sample in task.files], []
    for (task, sample), content in zip(places, contents(t.files[s][0] for t, s in places), strict=True):
        made = {name: Made("HEST-Bench's embeddings", VERSION, p | {"patches": content}) for name, p in parts.items()}
        if not all(is_current(_file(pairs, task, sample, name), each) for name, each in made.items()):
            missing.append((task, sample, made))
    models = {name: run and runs.train_vision(run, source) for name, run in named.items()} if missing else {}
    tails = {name: model.encoder if model else source.encoder for name, model in models.items()}
    with (
        lock(paths.embeddings(profile.name), "embeds in"),
        progress("tasks", len(missing), "sample", shown=bool(missing)) as advance,
    ):
        for task, sample, made in missing:
            found = embed_images(source, tails, task.images(sample, CHUNK[parallel.device().type]))
            for name, z in found.items():
                notes = {"made": json.dumps(made[name].stamp()), "simulated": task.simulated}
                file = _file(pairs, task, sample, name)
                trident.write_features(file, z, task.places(sample)[1], name, None, notes)
            advance()


def _score(
    task: BenchTask, fold: str, file: Callable[[str], Path], truth: Mapping, pairs: Pairs, boosted: bool
) -> Iterator[dict]:
    """Rows of one fold and one embedding: each probe, each correlation; XGBoost, which is slow, where it is asked."""
    sides, settings = task.splits[fold], pairs.profile.evaluation
    names = [np.repeat(side, [len(truth[s]) for s in side]) for side in sides]  # the sample of each patch
    z = [np.concatenate([trident.read_table(file(s), "features") for s in side]).astype(float) for side in sides]
    y = [np.concatenate([truth[s] for s in side]) for side in sides]
    donors = [np.array([task.donors.get(s, s) for s in side]) for side in names]
    across = np.concatenate([trident.read_table(file(s), "coords")[:, 0] for s in sides[0]])
    how = validation(donors[0], names[0], across, *[np.full(len(across), "")] * 2)
    probes = {name: PROBES[name] for name in (OFFICIAL, *([BOOSTED] if boosted else []))}
    probes |= {"cross_validated": lambda x, y, z: ridge_probe(x, y, how, z, settings.pca, settings.alphas)[0]}
    parts = {"pooled": [np.full(len(y[1]), True)], "sample": [names[1] == sample for sample in sides[1]]}
    shared = ", ".join(sorted(set(donors[0]) & set(donors[1])))
    for name, probe in probes.items():
        prediction = None if shared else probe(z[0], y[0], z[1])
        for correlation, each in parts.items():
            found = [(np.nan, f"donor {shared} is in training and test: not scored")]
            found = found if shared else [_correlate(prediction[rows], y[1][rows]) for rows in each]
            values = [value for value, _ in found if np.isfinite(value)]
            note = "; ".join(filter(None, dict.fromkeys(note for _, note in found)))
            value = np.mean(values) if values else np.nan
            yield {"probe": name, "correlation": correlation, "value": value, "note": note}


def _correlate(prediction: np.ndarray, truth: np.ndarray) -> tuple[float, str]:
    """Mean correlation over the genes that vary, or why there is none."""
    if len(truth) < FEWEST:
        return np.nan, f"{len(truth)} test patches: too few for a correlation"
    flat = int(np.isnan(pearson(prediction, truth)).sum())
    return float(mean_pearson(prediction, truth)), f"{flat} genes do not vary in the test" if flat else ""


def summary(table, bootstrap: int):
    """Means by task and over the nine, 95 % intervals, and what a method gains over the frozen encoder.

    Seeds are averaged first. A task's interval resamples its folds (of one there is none), the average's its tasks.
    No gain is given where the frozen encoder misses its published row by more than the tolerance: then weights, images
    or protocol are not the benchmark's.

    Returns
    -------
    DataFrame with task (or "average"), encoder, method, label, kind, probe, correlation, metric, mean, low, high,
    difference, difference_low, difference_high, difference_p, published, folds, seeds, tasks, simulated, note.
    """
    import pandas as pd

    rows = []
    for (encoder, *_), part in table.groupby(["encoder", "probe", "correlation"], sort=False):
        wide = part.pivot_table("value", ["task", "fold"], "method", dropna=False, sort=False).dropna()
        for task, (published, why) in _compare(table[table["encoder"] == encoder], encoder).items():
            inside = part[part["task"].isin(AVERAGED if task == AVERAGE else [task])]
            values = wide[wide.index.get_level_values("task").isin(inside["task"])]
            values = values.groupby(level="task").mean() if task == AVERAGE else values
            for method, own in inside.groupby("method", sort=False):
                about = own.iloc[0][
                    ["encoder", "method", "label", "kind", "probe", "correlation", "metric", "simulated"]
                ]
                row = {"task": task, **about, **_means(values[method], values["frozen"], bootstrap)}
                row |= dict.fromkeys(GAIN, np.nan) if why.startswith(MISSES) and method != "frozen" else {}
                row |= {"folds": len(own[["task", "fold"]].drop_duplicates()), "seeds": own["seed"].nunique()}
                notes = "; ".join(filter(None, dict.fromkeys([*own["note"].dropna(), why])))
                rows.append(row | {"tasks": own["task"].nunique(), "published": published, "note": notes})
    return pd.DataFrame(rows)


def _means(values, frozen, bootstrap: int) -> dict[str, float]:
    """Mean and paired difference, with intervals over the rows."""
    means = {}
    for names, each in ((("mean", "low", "high"), values), (GAIN, values - frozen)):
        drawn = cluster_means(each.to_numpy(), np.arange(len(each)), bootstrap, BOOTSTRAP_SEED)
        means |= dict(zip(names, (each.mean(), *interval(drawn), two_sided(drawn, len(each))), strict=False))
    return means


def _compare(table, encoder: str) -> dict[str, tuple[float, str]]:
    """Task or "average" -> the published number, NaN if there is none to compare with, and what a comparison says."""
    frozen = table[(table["method"] == "frozen") & (table["probe"] == OFFICIAL) & (table["correlation"] == "pooled")]
    simulated, compared = bool(frozen["simulated"].any()), {}
    ours = frozen.groupby("task", sort=False)["value"].mean()
    whole = set(AVERAGED) <= set(ours.dropna().index)
    ours[AVERAGE] = ours[ours.index.isin(AVERAGED)].mean()
    published = {} if simulated else read_published().get(encoder, {})
    for task, value in ours.items():
        number, tolerance = published.get(task, np.nan), TOLERANCE_OF_AVERAGE if task == AVERAGE else TOLERANCE
        if simulated or not np.isfinite(number):
            why = "simulated: no published number" if simulated else "no published row to check against"
        elif task == AVERAGE and not whole:
            number, why = np.nan, "not all of the nine tasks: no published number of these"
        else:
            why = f"{MISSES} {value - number:+.4f}: no gain reported" if abs(value - number) > tolerance else ""
        compared[task] = number, why
    return compared
