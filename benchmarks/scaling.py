"""Does SEAL's gain grow with the number of pairs? A recorded study on the simulated atlas, grown.

Donors of one fold are left out. On 1/16, 1/8, ... 1 of the other donors' pairs (drawn at random) SEAL, its shuffled
control, the adapter without expression and ST-Net are trained for the demo's epochs, with every seed; the probe sees
the same pairs, and so does that of the frozen encoder. Gains are paired with the frozen encoder at the same number of
pairs. The fit is a straight line through the gains over the logarithm of the number of pairs; all intervals draw the
left-out donors anew. Pairs of one section are alike, so a share of the pairs is not a share of the donors; the
simulator's parameters are the demo's.

Everything lies in SEAL_HOME, and a run that was stopped goes on.

    SEAL_HOME=... python benchmarks/scaling.py [--scale 10] [--record] [--tiny]
"""

import argparse
import shutil
from functools import partial

import numpy as np
import pandas as pd

from figures.sources import RECORDED, REFERENCE
from seal import profiles, results
from seal.data.assemble import assemble
from seal.data.pairs import Fold, Pairs
from seal.evaluate import scoring
from seal.evaluate.embeddings import embed_runs
from seal.evaluate.methods import METHODS, Method, predict_by_probe, predict_trained
from seal.evaluate.metrics import interval, resamples
from seal.evaluate.patch import Baselines
from seal.files import digest
from seal.profiles import Profile
from seal.train import batches, runs
from seal.train.runs import Run

PARTS = (16, 8, 4, 2, 1)  # a share is one over this
TRAINED = ("seal", "seal_shuffled", "no_expression", "stnet")
PAPER = 720_000  # pairs
TINY = {"scale": 1, "organs": ("Breast", "Kidney"), "donors_per_organ": 4, "spots_per_section": 40}


def grown(scale: int, tiny: bool) -> Profile:
    """The demo with so many times as many donors, in bfloat16."""
    settings = TINY if tiny else {"scale": scale, "spots_per_section": 90}
    short = {"omics__epochs": 1, "vision__epochs": 1, "evaluation__seeds": (0, 1)} if tiny else {}
    computed = {"compute__precision": "bfloat16", "compute__token_dtype": "bfloat16"}
    folds = {"evaluation__folds": 2 if tiny else 5, "evaluation__ablation_folds": 1}
    return profiles.get("demo", source_settings=settings, further_encoders=(), **computed, **folds, **short)


def part(fold: Fold, number: int, seed: int) -> Fold:
    """One over `number` of the fold's training pairs."""
    return fold if number == 1 else fold.part(1 / number, seed)


def list_runs(pairs: Pairs) -> list[Run]:
    """List a run a method, share and seed."""
    (fold,), seeds = pairs.trial_folds(), pairs.profile.evaluation.seeds
    return [
        Run(pairs, part(fold, number, seed), seed, name, variant=f"{name}_{number}")
        for number in PARTS
        for seed in seeds
        for name in TRAINED
    ]


def list_methods() -> tuple[Method, ...]:
    """List the frozen encoder and what is trained, on each share."""
    known, found = {method.name: method for method in METHODS}, []
    for number in PARTS:
        for name in ("frozen", *TRAINED):
            rule = partial(predict_trained, name) if name == "stnet" else predict_by_probe

            def predict(pairs: Pairs, fold: Fold, z: np.ndarray, seed: int, rule=rule, number=number) -> np.ndarray:
                return rule(pairs, part(fold, number, seed), z, seed)

            embedding = name if name == "frozen" else f"{name}_{number}"
            own = known[name]
            found.append(Method(f"{name}_{number}", own.label, own.kind, "all", predict, embedding))
    return tuple(found)


def tabulate(scores: pd.DataFrame, pairs: int, bootstrap: int) -> pd.DataFrame:
    """Means, gains and the line through them, each with its interval over donors.

    Returns
    -------
    DataFrame with method, label, kind, quantity ("pcc"; "gain" over the frozen encoder; "slope" of the gain for each
    doubling of the pairs; "gain" at the paper's number of pairs, by the line, has `fitted`), pairs, donors, seeds,
    value, low, high, fitted.
    """
    pcc = scores[scores["metric"] == "pcc"]
    labels = pcc.drop_duplicates("method").set_index("method")[["label", "kind"]]
    means = pcc.pivot_table("value", "donor", "method", aggfunc="mean", sort=False)  # over seeds
    weights = resamples(len(means), bootstrap, scoring.BOOTSTRAP_SEED)  # [bootstrap, donors]
    weights = weights / weights.sum(axis=1, keepdims=True)
    numbers, rows = np.array([round(pairs / number) for number in PARTS]), []
    about = {"donors": len(means), "seeds": pcc["seed"].nunique(), "resample": "donors"}

    def add(name: str, quantity: str, size: int, point: float, drawn: np.ndarray, fitted: bool = False) -> None:
        low, high = interval(drawn)
        own = {"method": name, **labels.loc[f"{name}_1"], "quantity": quantity, "pairs": size, **about}
        rows.append(own | {"value": point, "low": low, "high": high, "fitted": fitted})

    steps = np.vander(np.log2(numbers), 2)  # [shares, (log2 pairs, 1)]
    for name in ("frozen", *TRAINED):
        own = means[[f"{name}_{number}" for number in PARTS]].to_numpy()  # [donors, shares]
        frozen = means[[f"frozen_{number}" for number in PARTS]].to_numpy()
        for quantity, values in {"pcc": own, "gain": own - frozen}.items():
            drawn = weights @ values  # [bootstrap, shares]
            for i, size in enumerate(numbers):
                add(name, quantity, size, values[:, i].mean(), drawn[:, i])
        if name != "frozen":
            line = np.linalg.lstsq(steps, np.vstack([values.mean(axis=0), drawn]).T, rcond=None)[
                0
            ]  # [2, 1 + bootstrap]
            at_paper = line[0] * np.log2(PAPER) + line[1]
            add(name, "slope", 0, line[0, 0], line[0, 1:], fitted=True)
            add(name, "gain", PAPER, at_paper[0], at_paper[1:], fitted=True)
    return pd.DataFrame(rows)


def main() -> None:
    """Run what has not run yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=10, help="times the demo's donors; 10 give 50,400 pairs")
    parser.add_argument("--record", action="store_true", help="take the table as the reference that figure E5 shows")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    profile = grown(arguments.scale, arguments.tiny)
    pairs = assemble(profile)
    source, chosen = batches.build(pairs), list_runs(pairs)
    runs.train_runs(chosen, source)
    evaluation = Baselines(pairs, embed_runs(pairs, source, chosen), list_methods())
    trained_on = len(pairs.trial_folds()[0].train)
    table = tabulate(scoring.scores(evaluation), trained_on, profile.evaluation.bootstrap)
    made_from = {"grown pairs": pairs.key, "grown tokens": source.key, "grown runs": digest(runs.keys_of(chosen))}
    path = results.write_result(profile, RECORDED, table, made_from)
    print(table.round(4).to_string(index=False))
    if arguments.record:
        for file in (path, path.with_suffix(".csv.json")):
            shutil.copy(file, REFERENCE / file.name)


if __name__ == "__main__":
    main()
