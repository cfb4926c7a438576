"""From a label table to slide-level tasks: the user's own, BCNB's, BRACS's, TCGA's.

Source: the tables of mahmoodlab/TANGLE (BCNB, BRACS) and mahmoodlab/SurvPath (TCGA).
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from seal.data.samples import IMAGES
from seal.data.slide_folds import split_task
from seal.data.slide_tasks import MISSING, SlideTask, clean_rows, read_columns, read_number
from seal.errors import SealError, require_known

METRIC_OF = {"classes": "bacc", "grades": "weighted_kappa", "numbers": "pearson", "survival": "cindex"}
TWO = "macro-ovr-auc"  # of two classes
QUARTERS = tuple(f"Quartile {q}, Event {e}" for e in (0, 1) for q in (1, 2, 3, 4))
FEW = 10  # labels that are all numbers, and of more values, are numbers and not classes: our choice
_SUFFIXES = (*IMAGES, ".czi", ".h5")
DAYS_A_MONTH = 30  # in SurvPath's tables: so all of their months are whole days


@dataclass(frozen=True)
class LabelColumn:
    """A task of a cohort's table: the column with its label, or the two with months and censorship (1: censored)."""

    name: str
    group: str
    column: str
    kind: str = "classes"
    classes: Mapping[str, str] | None = None  # class by text, in order; None: the texts themselves, sorted
    censored: str = ""


_SIGNS = {"0": "negative", "1": "positive"}
BCNB = (
    LabelColumn("er", "molecular", "er", classes=_SIGNS),
    LabelColumn("pr", "molecular", "pr", classes=_SIGNS),
    LabelColumn("her2", "molecular", "her2", classes=_SIGNS),  # clinical; the table's her2_binary is IHC 2+ or 3+
    LabelColumn("her2_ihc", "morphology", "HER2 Expression", "grades", {g: g for g in ("0", "1+", "2+", "3+")}),
    LabelColumn("subtype", "molecular", "Molecular subtype"),
    LabelColumn("aln", "response", "ALN_status", "grades", {g: g for g in ("N0", "N+(1-2)", "N+(>2)")}),
)
BRACS = (
    LabelColumn("slidelevel_fine", "morphology", "diagnosis_fine"),
    LabelColumn(
        "slidelevel_coarse", "morphology", "label_coarse", classes={"BT": "benign", "AT": "atypical", "MT": "malignant"}
    ),
)
TCGA = (
    LabelColumn("OncoTreeCode", "morphology", "oncotree_code"),
    LabelColumn("OS", "response", "survival_months", "survival", censored="censorship"),
    LabelColumn("DSS", "response", "survival_months_dss", "survival", censored="censorship_dss"),
    # progression-free interval, by a name that Patho-Bench takes for survival
    LabelColumn("PFS_PFI", "response", "survival_months_pfi", "survival", censored="censorship_pfi"),
)


def build_task(
    columns: Mapping[str, Sequence[str]],
    name: str,
    *,
    kind: str = "",
    classes: Mapping[str, str] | None = None,
    sample: str = "case",
    group: str = "",
    datasets: tuple[str, ...] = (),
    where: Path | str = "the label table",
    seed: int = 0,
) -> SlideTask:
    """Build a task with folds from a label table, such as `read_columns` of a user's own csv.

    Parameters
    ----------
    columns
        Texts of case, slide, label; event (0 or 1) and days instead of label for survival; site, if known. Others are
        not looked at. A slide may bear the suffix of its file.
    kind
        classes, grades, numbers or survival; "": survival if there are event and days, numbers if all labels are and
        there are more than `FEW` of them, else classes.
    classes
        Class by text, in order; rows of other texts are left out and counted. None: the texts, sorted.
    sample
        case; or slide, where the slides of a case have labels of their own.

    Raises
    ------
    SealError
        A column is missing; what `clean_rows` and `split_task` refuse.
    """
    kind = require_known("kind of task", kind or _guess_kind(columns), METRIC_OF)
    wanted = ("case", "slide", *(("event", "days") if kind == "survival" else ("label",)))
    if lacking := [key for key in wanted if key not in columns]:
        what = f"{where} has the columns {', '.join(columns)}, and lacks {', '.join(lacking)}"
        raise SealError(what, expected="case, slide, label (survival: event, days), and site", do="rename its columns")
    own = {key: list(columns[key]) for key in (*wanted, "site") if key in columns}
    own["slide"] = list(map(name_slide, own["slide"]))
    if "site" in own:  # a case of unknown site is a site of its own
        both = zip(own["case"], own["site"], strict=True)
        own["site"] = [f"of {case}" if site in MISSING else site for case, site in both]
    order, code = (), read_number
    if kind in ("classes", "grades"):
        own["label"] = [_tidy(text) for text in own["label"]]
        named = classes or {text: text for text in sorted({*own["label"]} - MISSING, key=_rank)}
        order = tuple(dict.fromkeys(named.values()))
        code = lambda text: order.index(named[text]) if text in named else None  # noqa: E731
    rows, _, dropped = clean_rows(where, own, sample, code)
    times = {key: np.array(rows[key]) for key in ("event", "days") if key in rows}
    task = SlideTask(
        name=name,
        group=group,
        kind=kind,
        metric=TWO if kind == "classes" and len(order) == 2 else METRIC_OF[kind],
        classes=QUARTERS if times else order,
        cases=tuple(rows["case"]),
        slides=tuple(rows["slide"]),
        labels=_label_survival(rows["case"], **times) if times else np.array(rows["label"]),
        folds={},
        site=tuple(rows["site"]) if "site" in rows else None,
        dropped=dropped,
        datasets=datasets,
        sample=sample,
        **times,
    )
    return split_task(task, seed)


def build_cohort(
    path: Path, dataset: str, labels: Sequence[LabelColumn], sample: str = "case"
) -> tuple[list[SlideTask], dict[str, str]]:
    """Build a public cohort's tasks, for instance of `TCGA` from SurvPath's tcga_blca.csv.

    BRACS needs `sample` "slide": a patient's slides differ in label there.

    Returns
    -------
    The tasks; and why others were refused, by name.

    Raises
    ------
    SealError
        The table cannot be read, or lacks a column.
    """
    table, made, refused = read_columns(path), [], {}
    wanted = {"case_id", "slide_id"}.union(*({own.column, own.censored} - {""} for own in labels))
    if lacking := sorted(wanted - {*table}):
        what = f"{path} lacks the columns {', '.join(lacking)}"
        raise SealError(what, expected=f"the table of {dataset}", do="correct the path, or rename its columns")
    shared = {"case": table["case_id"], "slide": table["slide_id"]}
    shared |= {"site": table["site"]} if "site" in table else {}
    for task in labels:
        own = {"label": table[task.column]}
        if task.censored:
            own = {"event": [_change(text, lambda censored: 1 - censored) for text in table[task.censored]]}
            own["days"] = [_change(text, lambda months: round(months * DAYS_A_MONTH)) for text in table[task.column]]
        about = {"kind": task.kind, "classes": task.classes, "group": task.group, "sample": sample}
        try:
            made.append(build_task(shared | own, task.name, **about, datasets=(dataset,), where=path))
        except SealError as error:
            refused[task.name] = error.what
    return made, refused


@dataclass(frozen=True)
class LabelTable:
    """A user's table of labels, as text: a slide a row."""

    path: Path
    shared: Mapping[str, Sequence[str]]  # case, slide; site, where it is known
    labels: Mapping[str, Sequence[str]]  # all other columns

    @property
    def slides(self) -> Sequence[str]:
        """Name of each row's slide."""
        return self.shared["slide"]

    def leave_out(self, lost: Collection[str]) -> "LabelTable":
        """Give the rows of other slides."""
        kept = [i for i, slide in enumerate(self.slides) if slide not in lost]
        both = (self.shared, self.labels)
        return LabelTable(self.path, *({name: [own[i] for i in kept] for name, own in part.items()} for part in both))


def read_labels(path: Path, case: str = "case_id", slide: str = "slide_id", site: str = "") -> LabelTable:
    """Read a user's table, csv or tsv, by its columns of case, slide and site ("": site, if there is one).

    Raises
    ------
    SealError
        It cannot be read, lacks a column, or has a slide twice.
    """
    table = read_columns(path, "\t" if path.suffix.lower() in (".tsv", ".txt") else ",")
    own = {"case": case, "slide": slide} | ({"site": site or "site"} if site or "site" in table else {})
    if lacking := [column for column in own.values() if column not in table]:
        raise SealError(
            f"{path} has the columns {', '.join(table)}, and lacks {', '.join(lacking)}",
            expected="a column with the case (patient) of each slide, and one with the slide's name",
            do="name them: --case COLUMN --slide COLUMN --site COLUMN",
        )
    shared = {name: table[column] for name, column in own.items()}
    shared["slide"] = list(map(name_slide, shared["slide"]))
    if twice := [name for name, number in Counter(shared["slide"]).items() if number > 1]:
        what = f"{path}: {len(twice)} slides are there more than once, first {twice[0]}"
        raise SealError(what, expected="a row a slide", do="keep one row of each")
    return LabelTable(path, shared, {name: texts for name, texts in table.items() if name not in own.values()})


def find_tasks(
    table: LabelTable, asked: Sequence[str] = (), group: str = "", seed: int = 0
) -> tuple[list[SlideTask], dict[str, str]]:
    """Make tasks with folds of some columns, or of all that can be one; and why others cannot, by column.

    Two columns NAME_event (1: it happened) and NAME_days are one task, survival NAME.

    Parameters
    ----------
    asked
        COLUMN, or COLUMN=KIND; see `build_task`.

    Raises
    ------
    SealError
        No such column or kind, or no column can be a task.
    """
    labels, made, refused = table.labels, {}, {}
    pairs = {own for name in labels if (own := name.removesuffix("_days")) != name and f"{own}_event" in labels}
    part_of = {f"{own}{end}": own for own in pairs for end in ("", "_event", "_days")}
    wanted = [_read_asked(text, {*labels, *pairs}) for text in asked]
    for name, kind in wanted or dict.fromkeys((part_of.get(name, name), "") for name in labels):
        survival = kind == "survival" or (not kind and name in pairs)
        columns = {"event": f"{name}_event", "days": f"{name}_days"} if survival else {"label": name}
        own = {key: labels[require_known("column", column, labels)] for key, column in columns.items()}
        safe = re.sub(r"[^\w+%() .-]", "-", name).strip(". ") or "label"  # it names a folder
        if safe in made or "fold_" in safe:
            refused[name] = "its name is another task's" if safe in made else "it names a fold, as Patho-Bench has it"
        elif survival and find_spec("sksurv") is None:
            refused[name] = "survival needs scikit-survival: pip install scikit-survival"
        else:
            about = {"group": group, "datasets": (table.path.stem,), "where": table.path.name, "seed": seed}
            try:
                made[safe] = build_task({**table.shared, **own}, safe, kind=kind, **about)
            except SealError as error:
                refused[name] = f"{error.what}; expected: {error.expected}"
    if not made:
        what = f"no column of {table.path} can be a task: " + "; ".join(f"{k} ({why})" for k, why in refused.items())
        raise SealError(what, expected="labels of 10 cases or more, 5 of each class", do="add cases, or merge classes")
    return list(made.values()), refused


def _read_asked(text: str, known: Collection[str]) -> tuple[str, str]:
    column, separator, kind = text.rpartition("=")
    if text in known or not separator:
        return require_known("column", text, known), ""
    return column, require_known("kind of task", kind, METRIC_OF)


def _change(text: str, how: Callable[[float], float]) -> str:
    """Change a number; what is none, `clean_rows` leaves out or refuses."""
    return str(how(_rank(text)[1])) if _rank(text)[0] == 0 else text


def _guess_kind(columns: Mapping[str, Sequence[str]]) -> str:
    known = {*columns.get("label", ())} - MISSING
    if {"event", "days"} <= {*columns}:
        return "survival"
    return "numbers" if len(known) > FEW and all(_rank(text)[0] == 0 for text in known) else "classes"


def _tidy(text: str) -> str:
    """One text a number: 1, 1.0 and 1.00 are one class."""
    return f"{_rank(text)[1]:g}" if _rank(text)[0] == 0 else text


def _rank(text: str) -> tuple[int, float, str]:
    try:
        return 0, read_number(text), text
    except ValueError:
        return 1, 0.0, text


def name_slide(text: str) -> str:
    """Name of a slide that a table may give with its file's suffix."""
    return text[: len(text) - len(next(filter(text.lower().endswith, _SUFFIXES), ""))]


def _label_survival(cases: Sequence[str], event: np.ndarray, days: np.ndarray) -> np.ndarray:
    """Quarter of the cases' days, plus 4 with an event: the order of `QUARTERS`."""
    ends = np.quantile(days[np.unique(cases, return_index=True)[1]], (0.25, 0.5, 0.75))
    return np.searchsorted(ends, days, side="right") + 4 * event
