"""Tables of the slide level, T21 to T44: a row a task, frozen and with SEAL; T41 to T43 with rivals and controls."""

from typing import TYPE_CHECKING

from figures.slides import (
    GROUPS,
    METRICS,
    MODELS,
    choose_encoder,
    choose_rows,
    choose_scores,
    find_truth,
    label_encoders,
    name_task,
    say_whether_paper,
)
from figures.sources import LacksRows
from figures.T09_T20_patch import difference_text, mean_text

if TYPE_CHECKING:
    import pandas as pd

SMALL = 0.001  # a p below this is given as less than it


def by_task(
    slide_level_summary: "pd.DataFrame",
    slide_level_groups: "pd.DataFrame",
    encoders: "pd.DataFrame",
    number: str,
    group: str,
    model: str,
) -> "pd.DataFrame":
    """T21 to T40: a group's tasks by one model, one encoder frozen and with SEAL, and their mean.

    Parameters
    ----------
    number
        Of the encoder, "1" the main one.
    group, model
        As in the columns of that name.
    """
    import pandas as pd

    name = choose_encoder(slide_level_summary, number)
    own, means = (
        choose_rows(table, group=group, model=model, encoder=name)
        for table in (slide_level_summary, slide_level_groups)
    )
    label = label_encoders(encoders, [name])[name]
    table = _drop_empty(pd.DataFrame(_task_rows(own, means, group, model)))
    title = f"{GROUPS[group]}, {own['task'].nunique()} tasks: {label}, {MODELS[model]}{say_whether_paper(name)}"
    table.attrs |= {"title": title, "note": _note(own)}
    return table


def morphology(
    slide_level_summary: "pd.DataFrame", slide_level_groups: "pd.DataFrame", encoders: "pd.DataFrame"
) -> "pd.DataFrame":
    """T44: the tasks of morphology and IHC, ABMIL, encoder after encoder."""
    import pandas as pd

    group, model = "morphology", "abmil"
    own, means = (choose_rows(table, group=group, model=model) for table in (slide_level_summary, slide_level_groups))
    names = label_encoders(encoders, list(dict.fromkeys(own["encoder"])))
    rows = [
        {"encoder": label} | row
        for name, label in names.items()
        for row in _task_rows(choose_rows(own, encoder=name), choose_rows(means, encoder=name), group, model)
    ]
    table = _drop_empty(pd.DataFrame(rows))
    table.attrs["note"] = _note(own)
    return table


def baselines(
    slide_level_summary: "pd.DataFrame", slide_level_groups: "pd.DataFrame", encoders: "pd.DataFrame", group: str
) -> "pd.DataFrame":
    """T41 to T43: a group's tasks, ABMIL, the main encoder: every method's score, and what SEAL has beyond the others.

    Raises
    ------
    LacksRows
        The results hold no method beside the frozen encoder and SEAL.
    """
    import pandas as pd

    name = choose_encoder(slide_level_summary, "1")
    own, means = (
        choose_rows(table, group=group, model="abmil", encoder=name)
        for table in (slide_level_summary, slide_level_groups)
    )
    if set(own["kind"]) <= {"encoder", "adapted"}:
        what = "slide_level_summary.csv holds no baseline and no control"
        raise LacksRows(what, expected="methods beside SEAL", do="run notebook 05 again")
    labels = own.drop_duplicates("method").set_index("method")["label"]
    truth, rows = find_truth(own), []
    for task, about in truth.iterrows():
        rows.append(_name_row(task, about) | _beside(own[own["task"] == task], labels) | _size_cells(about, own))
    rows.append({"task": f"mean of {len(truth)} tasks"} | _beside(means, labels) | _mean_truth(truth))
    table = _drop_empty(pd.DataFrame(rows))
    label = label_encoders(encoders, [name])[name]
    title = f"{GROUPS[group]}: baselines and controls on {label}, ABMIL{say_whether_paper(name)}"
    table.attrs |= {"title": title, "note": _note(own)}
    return table


def _task_rows(own: "pd.DataFrame", means: "pd.DataFrame", group: str, model: str) -> list[dict[str, object]]:
    """Rows of one encoder's tasks, and of their mean."""
    if own.empty:
        what = f"slide_level_summary.csv holds no task of {group} by {MODELS[model]} of this encoder"
        raise LacksRows(what, expected="one at least", do="run notebook 05 again")
    truth = find_truth(own)
    rows = [
        _name_row(task, about) | _compared(own[own["task"] == task]) | _size_cells(about, own)
        for task, about in truth.iterrows()
    ]
    return [*rows, {"task": f"mean of {len(truth)} tasks"} | _compared(means) | _mean_truth(truth)]


def _name_row(task: str, about: "pd.Series") -> dict[str, object]:
    return {"task": name_task(task, about["strength"]), "metric": METRICS.get(about["metric"], about["metric"])}


def _compared(rows: "pd.DataFrame") -> dict[str, object]:
    """The encoder's and SEAL's score, their difference and what can be said of it; of a task, or of a group's mean."""
    frozen = rows[rows["kind"] == "encoder"].iloc[0]
    adapted = choose_rows(rows, kind="adapted", against="frozen")
    cells = {frozen["label"]: mean_text(frozen)}
    for _, row in adapted.iterrows():
        cells |= {row["label"]: mean_text(row), f"{row['label']} minus frozen, paired": difference_text(row)}
        cells |= {
            "p, Holm": _p_text(row.get("p_holm", row["difference_p"])),
            "smallest that could show": row.get("smallest"),
        }
        cells |= {"verdict": row.get("verdict") or _count(row)}
    return cells


def _count(row: "pd.Series") -> str:
    """Verdicts of a group, counted."""
    rest = int(row["tasks"] - row["found"] - row["lost"] - row["undecided"])
    return f"found {row['found']:.0f}, lost {row['lost']:.0f}, not found {rest}, undecidable {row['undecided']:.0f}"


def _beside(rows: "pd.DataFrame", labels: "pd.Series") -> dict[str, object]:
    """Every method's score, then SEAL minus the others with Holm's p and the verdict, where it was compared."""
    scores, seal = choose_scores(rows).drop_duplicates("method"), rows[rows["kind"] == "adapted"]
    cells: dict[str, object] = {row["label"]: mean_text(row) for _, row in scores.iterrows()}
    for _, row in seal.iterrows():
        said = row.get("verdict") or _count(row)
        p = _p_text(row.get("p_holm", row["difference_p"]))
        cells[f"{row['label']} minus {labels.get(row['against'], row['against'])}"] = (
            f"{difference_text(row)}, p {p}, {said}"
        )
    return cells


def _p_text(p: float) -> str:
    return "" if p != p else f"< {SMALL}" if p < SMALL else f"{p:.3f}"


def _size_cells(about: "pd.Series", own: "pd.DataFrame") -> dict[str, object]:
    cells = {name: round(about[name], 3) for name in ("chance", "oracle")}
    return cells | {
        "strength": about["strength"],
        "cases": f"{about['cases']:.0f}",
        "seeds": f"{own['seeds'].max():.0f}",
    }


def _mean_truth(truth: "pd.DataFrame") -> dict[str, object]:
    """Means of chance, and of the oracle where each task has one: a mean over fewer would be of others."""
    return {name: round(truth[name].mean(skipna=False), 3) for name in ("chance", "oracle")}


def _drop_empty(table: "pd.DataFrame") -> "pd.DataFrame":
    """Without columns that are missing in every row: real tasks have no oracle and no strength."""
    return table.dropna(axis=1, how="all")


def _note(own: "pd.DataFrame") -> str:
    """What stands under each of these tables."""
    tasks, over = own["task"].nunique(), own["resample"].dropna().iloc[0]
    simulated = own["strength"].notna().any()
    words = (
        f"Brackets: 95 % bootstrap interval over {over}; of the mean, drawn anew for all tasks alike; those of a task's "
        "difference are widened for what other training cases would change. p: two-sided, after Holm's correction over "
        f"the {tasks} tasks of this group; the last row's is of one difference and not corrected. Smallest: the smallest "
        "true difference that this cohort would show with 80 % power after that correction. found: p is at most 0.05, "
        "and the sign says which is better (lost: found, against SEAL); not found: p is above, though a difference that "
        "matters, by default 5 % of the way from guessing to perfect, would have shown; undecidable at this n: even that "
        "could have been missed. A mean over tasks mixes their metrics."
    )
    told = (
        " Simulated: the oracle knows the truth behind the labels; a null task (strength none) holds no signal: what is "
        "found there is an error."
    )
    return words + (told if simulated else "")
