"""Tables of the slide level: scores, means and differences with a verdict a task, means of groups, survival by risk."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from seal.data.slide_tasks import SlideTask
from seal.evaluate.metrics import interval, resamples
from seal.evaluate.power import FOUND, bootstrap_scores, compare, judge, resample_cases, subtract, training_factor
from seal.evaluate.scoring import BOOTSTRAP_SEED
from seal.evaluate.slide import mean_known, score
from seal.evaluate.slide_level import ORACLE, RIVALS, SEAL, Heldout, SlideLevel, hold_out

if TYPE_CHECKING:
    import pandas as pd

# What a method is compared with besides the encoder as it comes.
BESIDE = {SEAL: ("seal_shuffled", "no_expression", *RIVALS), RIVALS[0]: RIVALS[1:]}
GROUPS = ("molecular", "pathway", "response", "morphology")
ALL, OF_ALL = "all", GROUPS[:3]  # the paper's 38 tasks
FURTHER = {"pearson": "spearman", "cindex": "ibs", "bacc": "macro-ovr-auc", "macro-ovr-auc": "bacc"}
OF_DIFFERENCE = {"low": "difference_low", "high": "difference_high", "p": "difference_p"}


def scores(level: SlideLevel) -> "pd.DataFrame":
    """One row a task, method, model, fold, seed and metric: the task's own (`main`), and a further one.

    Returns
    -------
    DataFrame with task, group, metric, main, encoder, method, label, kind, model, fold, seed (its place), cases (of the
    test), chance, value (NaN where the fold's test cases cannot tell).
    """
    import pandas as pd

    rows, held = [], {task.name: hold_out(task) for task in level.tasks}
    for (name, method, model), guesses in level.guesses.items():
        own = held[name]
        for fold in np.unique(own.fold):
            at = np.flatnonzero(own.fold == fold)
            about = _about(own.task, level, method, model) | {"fold": int(fold), "cases": len(at)}
            for seed, guess in enumerate(guesses):
                rows += [about | {"seed": seed} | scored for scored in _score(own, at, guess)]
    return pd.DataFrame(rows)


def _score(own: Heldout, at: np.ndarray, guess: Any) -> list[dict[str, Any]]:
    """Score a fold by the task's metric and the further one, if the task has one and it can be told."""
    labels, found = own.labels.take(at), []
    for metric in (own.task.metric, FURTHER.get(own.task.metric)):
        said = guess.losses[at] if metric == "ibs" else guess.prediction[at]
        if metric and not (metric == "ibs" and np.isnan(said).any()):
            mine = replace(labels, metric=metric)
            row = {"metric": metric, "main": metric == own.task.metric, "chance": mine.chance}
            found.append(row | {"value": score(mine, said)})
    return found


def summary(level: SlideLevel, bootstrap: int) -> "pd.DataFrame":
    """Means with 95 % intervals over cases, paired differences, and a verdict a task within its group.

    Every method but the truth is compared with the encoder as it comes (`SlideLevel.base`), some with others besides.

    Returns
    -------
    DataFrame with task, group, metric, strength, encoder, method, label, kind, model, against, mean, low, high, cases,
    folds, seeds, oracle (the truth's score, linear), resample, and the columns of `seal.evaluate.power.judge`, the
    difference's with its name before them; rows without `against` compare nothing.
    """
    import pandas as pd

    found, families = {}, {}
    for task, model, guesses in _guesses(level):
        own = hold_out(task)
        weights = resample_cases(own.cases, own.fold, bootstrap, BOOTSTRAP_SEED)
        drawn = bootstrap_scores(own.labels, own.fold, guesses, weights)
        factor, cases = training_factor(task.folds), len(np.unique(own.cases))
        for method, values in drawn.items():
            low, high = _interval(values)
            row = _about(task, level, method, model) | {"metric": task.metric, "strength": task.strength}
            row |= {"mean": values[0], "low": low, "high": high, "cases": cases, "folds": len(task.folds)}
            row |= {"seeds": len(guesses[method]), "resample": "cases", "chance": own.labels.chance}
            found[task.name, method, model] = row
            for against in _rivals(level, method, drawn):
                compared = compare(values, drawn[against], own.labels, cases, factor)
                families.setdefault((task.group, method, model, against), {})[task.name] = compared
    judged = []
    for (_, method, model, against), rows in families.items():
        table = (
            judge(rows, bootstrap)
            .rename(columns=OF_DIFFERENCE)
            .drop(columns="chance")
            .assign(against=level.name(against).name)
        )
        own = pd.DataFrame([found[name, method, model] for name in table["task"]])
        judged.append(own.merge(table, on="task"))
    compared = {(task, method, model) for (_, method, model, _), rows in families.items() for task in rows}
    alone = [row | {"against": ""} for key, row in found.items() if key not in compared]
    table = pd.concat([pd.DataFrame(alone), *judged], ignore_index=True)
    truth = {task: row["mean"] for (task, method, _), row in found.items() if method == ORACLE}
    return table.assign(oracle=table["task"].map(truth).astype(float))


def groups(level: SlideLevel, table: "pd.DataFrame", bootstrap: int) -> "pd.DataFrame":
    """Mean of each group's scores, and of the paper's 38 tasks together, with differences as in `summary`.

    A resample draws cases anew, the same for all tasks: tasks that share their patients are not independent.

    Parameters
    ----------
    table
        What `summary` gives: of each comparison, the tasks that it finds for or against.

    Returns
    -------
    DataFrame with group, encoder, method, label, kind, model, against, tasks, cases, mean, low, high, difference,
    difference_low, difference_high, error, difference_p, found, lost, undecided (tasks), seeds, resample.
    """
    import pandas as pd

    drawn, factors = _draw_jointly(level, bootstrap)
    cases, rows = len({case for task in level.tasks for case in task.bags}), []
    models = dict.fromkeys((model, method) for _, method, model in drawn)
    for group in dict.fromkeys((*GROUPS, *(task.group for task in level.tasks), ALL)):  # a user's own too
        names = [task.name for task in level.tasks if task.group in (OF_ALL if group == ALL else (group,))]
        for model, method in models:
            own = [drawn[key] for name in names if (key := (name, method, model)) in drawn]
            if not own or (group == ALL and len(own) < len(names)):
                continue
            values = mean_known(own)
            low, high = _interval(values)
            about = {"group": group, "encoder": level.encoder, **level.name(method)._asdict(), "model": model}
            about["method"] = about.pop("name")
            about |= {"tasks": len(own), "cases": cases, "mean": values[0], "low": low, "high": high}
            about |= {"seeds": len(level.guesses[names[0], method, model]), "resample": "cases"}
            present = {m for mod, m in models if mod == model}
            against = [m for m in _rivals(level, method, present) if (names[0], m, model) in drawn]
            for other in against:
                base = mean_known([drawn[name, other, model] for name in names if (name, other, model) in drawn])
                factor = np.mean([factors[name] for name in names])
                gain = {OF_DIFFERENCE.get(key, key): v for key, v in subtract(values, base, cases, factor).items()}
                rows.append(about | gain | {"against": level.name(other).name})
            rows += [] if against else [about | {"against": ""}]
    found = pd.DataFrame(rows)
    return found.assign(**_count_verdicts(found, table))


def _draw_jointly(level: SlideLevel, bootstrap: int) -> tuple[dict[tuple[str, str, str], np.ndarray], dict[str, float]]:
    """Scores in resamples that all tasks share, and how much wider a task's differences scatter."""
    every = sorted({bag for task in level.tasks for bag in task.bags})
    place = {bag: i for i, bag in enumerate(every)}
    weights = resamples(len(every), bootstrap, BOOTSTRAP_SEED)  # [bootstrap, cases]
    drawn, factors = {}, {}
    for task, model, guesses in _guesses(level):
        own, factors[task.name] = hold_out(task), training_factor(task.folds)
        mine = weights[:, [place[case] for case in own.cases]]
        for method, values in bootstrap_scores(own.labels, own.fold, guesses, mine).items():
            drawn[task.name, method, model] = values
    return drawn, factors


def _count_verdicts(found: "pd.DataFrame", table: "pd.DataFrame") -> dict[str, list]:
    """Tasks of each comparison that are found for a method, against it, and neither."""
    counts: dict[str, list] = {"found": [], "lost": [], "undecided": []}
    for row in found.itertuples():
        numbers = [0, 0, 0]
        if row.against:  # where nothing is compared, there is no verdict
            same = (table["method"] == row.method) & (table["model"] == row.model) & (table["against"] == row.against)
            own = table[same & table["group"].isin(OF_ALL if row.group == ALL else (row.group,))]
            told, better = own["verdict"] == FOUND, own["difference"] > 0
            numbers = [int(each.sum()) for each in (told & better, told & ~better, ~told)]
        for name, number in zip(counts, numbers, strict=True):
            counts[name].append(number)
    return counts


def survival_by_risk(level: SlideLevel) -> "pd.DataFrame":
    """Kaplan-Meier curves of held-out cases of high and of low predicted risk; first seed, frozen encoder and SEAL.

    High: above the median of the fold's test cases.

    Returns
    -------
    DataFrame with task, encoder, method, label, kind, model, risk ("high", "low"), days, survival, low, high (95 %
    interval, log-log), at_risk (followed at that day), p (log-rank test of the two).

    Raises
    ------
    SealError
        No scikit-survival.
    """
    import pandas as pd

    rows, held = [], {task.name: hold_out(task) for task in level.tasks if task.event is not None}
    for (name, method, model), guesses in level.guesses.items():
        if name in held and method in (level.base, SEAL):
            own, risk = held[name], guesses[0].prediction
            middle = {fold: np.median(risk[own.fold == fold]) for fold in np.unique(own.fold)}
            high = risk > np.array([middle[fold] for fold in own.fold])
            about = _about(own.task, level, method, model)
            rows += [about | row for row in _curves(own.labels.days, own.labels.event == 1, high)]
    return pd.DataFrame(rows)


def _curves(days: np.ndarray, event: np.ndarray, high: np.ndarray) -> list[dict[str, Any]]:
    from sksurv.compare import compare_survival
    from sksurv.nonparametric import kaplan_meier_estimator
    from sksurv.util import Surv

    p, rows = np.nan, []
    if high.any() and not high.all():
        p = float(compare_survival(Surv.from_arrays(event, days), high)[1])
    for risk, own in (("high", high), ("low", ~high)):
        if not own.any():
            continue
        times, alive, ends = kaplan_meier_estimator(event[own], days[own], conf_type="log-log")
        steps = zip([0.0, *times], [1.0, *alive], [1.0, *ends[0]], [1.0, *ends[1]], strict=True)
        for day, *values in steps:
            row = dict(zip(("survival", "low", "high"), values, strict=True))
            rows.append({"risk": risk, "days": day, **row, "at_risk": int((days[own] >= day).sum()), "p": p})
    return rows


def _guesses(level: SlideLevel):
    """Give each task and model with its methods' predictions, [seeds, n(, K)]."""
    models = dict.fromkeys(model for _, _, model in level.guesses)
    for task in level.tasks:
        for model in models:
            own = {m: g for (t, m, k), g in level.guesses.items() if (t, k) == (task.name, model)}
            if own:
                yield task, model, {m: np.stack([guess.prediction for guess in g]) for m, g in own.items()}


def _rivals(level: SlideLevel, method: str, present: Mapping[str, Any] | set[str]) -> Sequence[str]:
    if level.name(method).kind == "truth":
        return ()
    others = (level.base, *BESIDE.get(method, ()))
    return [name for name in others if name in present and name != method]


def _interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of a score [1 + B], NaN where most resamples cannot tell."""
    known = values[1:][np.isfinite(values[1:])]
    return interval(known) if 2 * len(known) >= len(values) - 1 else (np.nan, np.nan)


def _about(task: SlideTask, level: SlideLevel, method: str, model: str) -> dict[str, str]:
    own, about = level.name(method), {"task": task.name, "group": task.group, "encoder": level.encoder}
    return about | {"method": own.name, "label": own.label, "kind": own.kind, "model": model}
