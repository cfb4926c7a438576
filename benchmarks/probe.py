"""HEST-Bench's sweep of the ridge penalty: one pass and one small decomposition a fold, against scikit-learn's loop.

Ten tasks, every patient left out in turn, 50 genes, 20 penalties, embeddings 1,536 wide, PCA 256; random data in the
tasks' real sizes. The plain loop fits StandardScaler, PCA(svd_solver="full") and Ridge for each fold and penalty; its
scaler and PCA are timed once a fold and counted for each penalty. The thrifty loop fits them once a fold. Predictions
must agree to 1e-6. `ratio` is against the plain loop (goal: at least 10), `ratio_thrifty` against the other.

    python benchmarks/probe.py [--tasks SKCM READ] [--share 0.25] [--tiny]
"""

import argparse
import time

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from seal.evaluate.ridge import ridge_sweep

CCRCC_EARLY = (4510, 4755, 3829, 4975, 4860, 4948, 4915, 3585, 3206, 4940, 4562, 4359)  # patients 1 to 12
CCRCC_LATE = (1451, 1439, 1983, 1696, 1949, 2374, 1678, 1186, 1349, 2007, 2580, 1084)  # 13 to 24
# Spots under tissue of each patient, from HEST_v1_1_0.csv (a missing patient is one of its own): the official folds,
# which leave patients out too, are gated.
SPOTS = {
    "IDC": (11845, 25080, 3869, 4180),
    "PRAD": (36819, 25891),
    "PAAD": (3090, 2190, 4513),
    "SKCM": (3886, 1830),
    "COAD": (6643, 12385),
    "READ": (3819, 4588),
    "CCRCC": (*CCRCC_EARLY, *CCRCC_LATE),
    "LUNG": (3115, 4390),
    "LYMPH_IDC": (4992, 4988, 4992, 4992),
    "HCC": (1987, 2261),
}
GENES, COMPONENTS = 50, 256
ALPHAS = np.geomspace(1e-3, 1e6, 20)


def draw_task(spots: tuple[int, ...], width: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random embeddings whose directions differ in size, expression that follows them, and each spot's patient."""
    rng, n = np.random.default_rng(seed), sum(spots)
    z = rng.standard_normal((n, width)) @ (rng.standard_normal((width, width)) * np.geomspace(1, 0.1, width)[:, None])
    y = z @ rng.standard_normal((width, GENES)) / width + rng.standard_normal((n, GENES))
    return z, y, np.repeat(np.arange(len(spots)), spots)


def time_task(spots: tuple[int, ...], width: int, seed: int) -> dict[str, float]:
    """Seconds of the three ways, summed over folds, and the largest difference of a prediction."""
    z, y, patient = draw_task(spots, width, seed)
    taken, difference = {"ours": 0.0, "reduce": 0.0, "ridge": 0.0}, 0.0
    start = time.perf_counter()
    folds = [patient == i for i in range(len(spots))]
    ours = list(ridge_sweep(z, y, folds, COMPONENTS, ALPHAS))
    taken["ours"] = time.perf_counter() - start
    for out, found in zip(tqdm(folds, desc="scikit-learn's folds", leave=False), ours, strict=True):
        start = time.perf_counter()
        reduce = make_pipeline(StandardScaler(), PCA(min(COMPONENTS, *z[~out].shape), svd_solver="full"))
        train, test = reduce.fit_transform(z[~out]), reduce.transform(z[out])
        taken["reduce"] += (middle := time.perf_counter()) - start
        plain = [Ridge(alpha=alpha).fit(train, y[~out]).predict(test) for alpha in ALPHAS]
        taken["ridge"] += time.perf_counter() - middle
        difference = max(difference, float(np.abs(found - np.stack(plain, axis=1)).max()))
    thrifty = taken["reduce"] + taken["ridge"]
    plain = len(ALPHAS) * taken["reduce"] + taken["ridge"]
    return {"ours": taken["ours"], "thrifty": thrifty, "plain": plain, "difference": difference}


def main() -> None:
    """Time all tasks and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=SPOTS, default=list(SPOTS))
    parser.add_argument("--share", type=float, default=1.0, help="of each patient's spots")
    parser.add_argument("--tiny", action="store_true", help="two tasks of some hundred spots, to see that it runs")
    arguments = parser.parse_args()
    tasks, share, width = arguments.tasks, arguments.share, 1536
    if arguments.tiny:
        tasks, share, width = ["SKCM", "READ"], 0.05, 40

    from common import report

    sizes = {task: tuple(max(2, round(share * n)) for n in SPOTS[task]) for task in tasks}
    found = {
        task: time_task(spots, width, seed) for seed, (task, spots) in enumerate(tqdm(sizes.items(), desc="tasks"))
    }
    difference = max(task.pop("difference") for task in found.values())
    assert difference < 1e-6, f"predictions differ by {difference}"
    seconds = {way: sum(task[way] for task in found.values()) for way in ("ours", "thrifty", "plain")}
    report(
        "probe: a sweep from one decomposition a fold against scikit-learn's loop",
        tasks=tasks,
        share_of_spots=share,
        folds=sum(map(len, sizes.values())),
        width=width,
        genes=GENES,
        alphas=len(ALPHAS),
        seconds=seconds,
        seconds_by_task=found,
        ratio=seconds["plain"] / seconds["ours"],
        ratio_thrifty=seconds["thrifty"] / seconds["ours"],
        largest_difference=difference,
    )


if __name__ == "__main__":
    main()
