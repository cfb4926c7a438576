"""Tables of the slide level, T21 to T44: a row a task, frozen and with SEAL; T41 to T43 with rivals and controls."""

from typing import TYPE_CHECKING

from figures import slides
from figures.slides import choose_rows, choose_scores, p_text
from figures.T01_T08_data import PAPER_ENCODERS
from figures.T09_T20_patch import difference_text, mean_text

if TYPE_CHECKING:
    import pandas as pd


def by_task(
    slide_level_summary: "pd.DataFrame",
    slide_level_groups: "pd.DataFrame",
    encoders: "pd.DataFrame",
    group: str,
    number: str,
    model: str,
    others: str,
) -> "pd.DataFrame":
    """T21 to T44: a group's tasks by one model, frozen and with SEAL, with what can be said of each, and their mean.

    Parameters
    ----------
    group, model
        As in the columns of that name.
    number
        Of the encoder, "1" the main one; or "all".
    others
        "yes": every method's score, and SEAL minus each that it is compared with; or "no".

    Raises
    ------
    LacksRows
        The results hold fewer encoders, not this model, or no other method.
    """
    import pandas as pd

    names, beside = slides.label_encoders(encoders, slide_level_summary), others == "yes"
    chosen = list(names) if number == "all" else list(names)[int(number) - 1 : int(number)]
    own, means = (
        choose_rows(table[table["encoder"].isin(chosen)], group=group, model=model)
        for table in (slide_level_summary, slide_level_groups)
    )
    slides.require_rows(own, f"{group} tasks by {slides.MODELS[model]} of encoder {number}")
    slides.require_rows(own[~own["kind"].isin(["encoder", "adapted"])] if beside else own, "methods beside SEAL")
    rows = [
        {"encoder": names[name]} | row
        for name in dict.fromkeys(own["encoder"])
        for row in _task_rows(choose_rows(own, encoder=name), choose_rows(means, encoder=name), beside)
    ]
    table = pd.DataFrame(rows).dropna(axis=1, how="all")  # real tasks have no oracle and no strength
    if number != "all":
        table = table.drop(columns="encoder")
        outside = "" if chosen[0] in PAPER_ENCODERS else ", not one of the paper's five"
        what = f"{slides.GROUPS[group]}, {own['task'].nunique()} tasks{', SEAL and other methods' * beside}"
        table.attrs["title"] = f"{what}: {names[chosen[0]]}, {slides.MODELS[model]}{outside}"
    table.attrs["note"] = _note(own)
    return table


def _task_rows(own: "pd.DataFrame", means: "pd.DataFrame", others: bool) -> list[dict[str, object]]:
    """Rows of one encoder's tasks, and of their mean."""
    truth, rows = slides.find_truth(own), []
    for task, about in truth.iterrows():
        metric = slides.METRICS.get(about["metric"], about["metric"])
        size = {"cases": f"{about['cases']:.0f}", "seeds": f"{own['seeds'].max():.0f}"}
        known = {name: round(about[name], 3) for name in ("chance", "oracle")} | {"strength": about["strength"]}
        cells = _cells(choose_rows(own, task=task), others)
        rows.append({"task": slides.name_task(task, about["strength"]), "metric": metric} | cells | known | size)
    # A mean oracle over fewer tasks would be of others.
    known = {name: round(truth[name].mean(skipna=False), 3) for name in ("chance", "oracle")}
    return [*rows, {"task": f"mean of {len(truth)} tasks", "metric": ""} | _cells(means, others) | known]


def _cells(rows: "pd.DataFrame", others: bool) -> dict[str, object]:
    """Scores, and SEAL's differences with what can be said of them: of one task, or of a group's mean."""
    scores = choose_scores(rows) if others else slides.choose_pair(rows)
    labels = rows.drop_duplicates("method").set_index("method")["label"]
    cells: dict[str, object] = {row["label"]: mean_text(row) for _, row in scores.iterrows()}
    for _, row in choose_rows(rows, kind="adapted").iterrows():
        minus = f"{row['label']} minus {labels.get(row['against'], row['against'])}, paired"
        p, verdict = p_text(row.get("p_holm", row["difference_p"])), row.get("verdict") or _count(row)
        if others:
            cells[minus] = f"{difference_text(row)}, p {p}, {verdict}"
        elif row["against"] == "frozen":
            smallest = round(row.get("smallest", float("nan")), 3)
            cells |= {minus: difference_text(row), "p, Holm": p, "smallest that could show": smallest}
            cells["verdict"] = verdict
    return cells


def _count(row: "pd.Series") -> str:
    """Verdicts of a group, counted."""
    rest = row["tasks"] - row["found"] - row["lost"] - row["undecided"]
    counts = {"found": row["found"], "lost": row["lost"], "not found": rest, "undecidable": row["undecided"]}
    return ", ".join(f"{words} {number:.0f}" for words, number in counts.items())


def _note(own: "pd.DataFrame") -> str:
    """What stands under each of these tables."""
    note = (
        f"Brackets: 95 % bootstrap interval over {own['resample'].iloc[0]}; of the mean, drawn anew for all tasks "
        "alike; those of differences are widened for what other training cases would change. p: two-sided, "
        f"after Holm's correction over the {own['task'].nunique()} tasks of this group; the last row's is of one "
        "difference and not corrected. Smallest: the smallest true difference that this cohort would show with 80 % "
        "power after that correction. found: p is at most 0.05, and the sign says which is better (lost: against "
        "SEAL); not found: p is above, though a difference that matters, by default 5 % of the way from guessing to "
        "perfect, would have shown; undecidable at this n: even that could have been missed. A mean over tasks mixes "
        "their metrics."
    )
    if own["strength"].notna().any():
        note += (
            " Simulated: the oracle knows the truth behind the labels; a null task (strength none) holds no signal: "
            "what is found there is an error."
        )
    return note
