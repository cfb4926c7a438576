"""A user's own cohort, `python -m seal slides`: slides and a table of labels in; features, tasks, results, report out.

OUT::

    embeddings/   one h5 a slide and model, in TRIDENT's layout
    tasks/        Patho-Bench's layout, a folder a task
    results/      slide_level, slide_level_summary, slide_level_groups: csv, and from what each was made, csv.json
    report.html   one page;  cohort.json: the command, what was left out and why;  kept/: finished trainings
"""

import datetime
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from seal import results
from seal.data.patho_bench import write_task
from seal.data.slide_cohorts import LabelTable, find_tasks, read_labels
from seal.data.slide_tasks import SlideTask
from seal.embed import embed_what_can_be, find_model, find_slides, join_errors, require_scale, require_writable
from seal.errors import SealError, require_known
from seal.evaluate import slide_scores
from seal.evaluate.cohort_report import Entered, write_report
from seal.evaluate.slide_level import Named, SlideLevel, SlideModel, mil_settings
from seal.files import Made, atomic, digest, lock, read_json, sha256, write_json
from seal.profiles import DEMO, SlideSettings
from seal.slides import trident
from seal.slides.patches import PatchSettings

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1  # counted up when the same features, tasks and settings give other results
GROUP = "cohort"  # of all tasks: Holm's correction is over them together
RESAMPLES = 2000  # of the cases; more where there are many tasks, see `_compare`
SEEDS = (0, 1, 2)  # of ABMIL
# Patho-Bench's recipe, the demo's, none.
MIL = {"full": mil_settings(SlideSettings()), "small": mil_settings(DEMO.slides), "none": None}
RECORD = "cohort.json"


@dataclass(frozen=True)
class CohortSettings:
    """Whose slides and labels, which models, and where everything goes."""

    slides: tuple[Path, ...]  # slides, or folders of slides
    labels: Path  # csv, or tsv
    models: tuple[str, ...]  # see `find_model`; the others are compared with the first
    out: Path
    case: str = "case_id"  # columns of the table
    slide: str = "slide_id"
    site: str = ""  # "": site, if there is one
    tasks: tuple[str, ...] = ()  # COLUMN or COLUMN=KIND; (): every column that can be a task
    folds_seed: int = 0
    patches: PatchSettings = field(default_factory=PatchSettings)
    slide_um_per_px: float | None = None  # of the slides, whatever their files say
    precision: str = "float32"
    mil: str = "full"  # of `MIL`
    command: str = ""  # as the report repeats it


class Compared(NamedTuple):
    """A model that is compared."""

    name: str  # of a method in results
    label: str
    given: str
    key: str
    root: Path  # of its embeddings
    features: Path


def compare_models(settings: CohortSettings) -> Path:
    """Embed a cohort with all models, predict its labels, and report which model's features tell more; the report.

    A slide without picture or that cannot be embedded, and a column that can be no task, are left out by name. What a
    killed run finished is kept; results of other labels, slides or settings are made anew.

    Raises
    ------
    SealError
        The table cannot be read, lacks a column or has a slide twice; none of its slides is there or can be embedded;
        no column can be a task; `out` holds something else; see also `seal.embed.embed`.
    """
    out, ask = settings.out, (settings.tasks, GROUP, settings.folds_seed)
    table = read_labels(settings.labels, settings.case, settings.slide, settings.site)
    require_known("--mil", settings.mil, MIL)
    models = _find_models(settings)
    if not (out / RECORD).is_file() and any((out / name).exists() for name in ("tasks", "results", "report.html")):
        what = f"{out} holds tasks, results or a report of something else"
        raise SealError(what, expected="a new folder, or one of an earlier run", do="choose another --out")
    pictures = _find_pictures(settings, table)
    here = {slide: pictures[slide] for slide in table.slides if slide in pictures}
    lost = {slide: "no picture of that name" for slide in table.slides if slide not in here}
    find_tasks(table.leave_out(lost), *ask)  # says what is wrong before hours of embedding
    require_writable(out)
    record = {"command": settings.command, "labels": settings.labels.name, "sha256": sha256(settings.labels)}
    with lock(out / RECORD, "compares models in"):
        write_json(out / RECORD, record)
        lost |= _embed(here, models, settings)
        tasks, refused = find_tasks(table.leave_out(lost), *ask)
        own = {"left out": lost, "no tasks": refused, "models": {model.given: model.key for model in models}}
        write_json(out / RECORD, record | own)
        _say(2, f"{len(tasks)} tasks of {settings.labels.name}: {', '.join(task.name for task in tasks)}")
        with atomic(out / "tasks") as folder:
            for task in tasks:
                write_task(folder / task.name, task)
        _say(3, f"a linear model{' and ABMIL' * bool(MIL[settings.mil])} on the features of {len(models)} models")
        summary = _compare(settings, models, tasks, record["sha256"])
        entered = Entered(
            **record | {"lost": lost, "refused": refused, "unlisted": sorted({*pictures} - {*here})},
            **{"rows": len(table.slides), "models": {model.name: model.label for model in models}, "mil": settings.mil},
            **{"um_per_px": settings.patches.um_per_px, "size": settings.patches.size, "site": "site" in table.shared},
            **{"versions": results.versions(), "commit": results.commit()["commit"]},
        )
        report = write_report(out / "report.html", entered, tasks, summary)
    _say(4, f"{report}, from the tables in {out / 'results'}")
    return report


def _find_models(settings: CohortSettings) -> list[Compared]:
    """Find the models, by a name each: saved models of one encoder have embeddings in folders of their own."""
    found, models = {given: find_model(given) for given in settings.models}, []
    scale = trident.scale_folder(settings.patches.um_per_px, settings.patches.size, settings.patches.overlap)
    names, labels = Counter(model.name for model in found.values()), Counter(Path(given).name for given in found)
    for given, model in found.items():
        require_scale(model, settings.patches)
        own = "" if names[model.name] == 1 else f"_{model.key[:6]}"
        root = settings.out / f"embeddings{own}"
        label = Path(given).name if labels[Path(given).name] == 1 else given
        features = trident.features_folder(root, scale, model.name)
        models.append(Compared(f"{model.name}{own}", label, given, model.key, root, features))
    return models


def _find_pictures(settings: CohortSettings, table: LabelTable) -> dict[str, Path]:
    pictures = {path.stem: path for path in find_slides(settings.slides)}
    if not {*pictures} & {*table.slides}:
        first = [", ".join(list(names)[:3]) for names in (table.slides, pictures)]
        raise SealError(
            f"no slide of {settings.labels} is among the pictures: it names {first[0]}, the pictures are {first[1]}",
            expected="in the table the names of the pictures' files, with or without their suffix",
            do="correct the names, or take another column: --slide COLUMN",
        )
    return pictures


def _embed(pictures: Mapping[str, Path], models: Sequence[Compared], settings: CohortSettings) -> dict[str, str]:
    """Embed slides with each model, in turn; why those cannot be that cannot."""
    failed: dict[Path, SealError] = {}
    how = settings.patches, settings.slide_um_per_px, settings.precision
    for i, model in enumerate(models, 1):
        left = [path for path in pictures.values() if path not in failed]
        _say(1, f"{len(left)} slides by {model.label}, model {i} of {len(models)}")
        failed |= embed_what_can_be(left, model.given, model.root, *how)[1]
        if len(failed) == len(pictures):
            raise join_errors(failed, len(pictures))
    return {slide: failed[path].what for slide, path in pictures.items() if path in failed}


def _compare(
    settings: CohortSettings, models: Sequence[Compared], tasks: Sequence[SlideTask], labels: str
) -> "pd.DataFrame":
    """Write the tables of results, all or none, unless they are there from the same; the summary."""
    import pandas as pd

    mil, folder = MIL[settings.mil], settings.out / "results"
    slides = sorted({slide for task in tasks for slide in task.slides})
    seen = {m.name: [_stamp(m.features / f"{slide}.h5") for slide in slides] for m in models}
    drawn = max(RESAMPLES, 40 * len(tasks))  # `judge` needs so many
    parts = {"labels": labels, "tasks": [sha256(path) for path in sorted((settings.out / "tasks").rglob("*.*"))]}
    parts |= {"models": {m.name: m.key for m in models}, "shown": [m.label for m in models]}
    parts |= {"embeddings": digest(seen), "resamples": drawn, "mil": asdict(mil) if mil else "none", "seeds": SEEDS}
    made = Made("results", VERSION, parts)
    if not _are_current(folder, made):
        names, heads = tuple(m.name for m in models), (("linear", None, (0,)), ("abmil", mil, SEEDS))
        level = SlideLevel(
            encoder="",  # `method` names each
            tasks=tasks,
            folders={(model.name, 0): model.features for model in models},
            models=[SlideModel(name, own, names, seeds) for name, own, seeds in heads[: 1 + bool(mil)]],
            kept=settings.out / "kept",
            named={m.name: Named(m.name, m.label, "encoder" if m.given == m.name else "adapted") for m in models},
            base=names[0],
        )
        summary = slide_scores.summary(level, drawn)
        tables = {"": slide_scores.scores(level), "_summary": summary}
        tables["_groups"] = slide_scores.groups(level, summary, drawn)
        with atomic(folder) as whole:
            whole.mkdir()
            for name, table in tables.items():
                path = whole / f"slide_level{name}.csv"
                table.drop(columns="encoder").round(12).to_csv(path, index=False, float_format="%.6g")
                about = {"sha256": sha256(path), "rows": len(table), **results.commit(), **made.stamp()}
                about |= {"versions": results.versions(), "time": datetime.datetime.now(datetime.UTC).isoformat()}
                write_json(path.with_suffix(".csv.json"), about)
    return pd.read_csv(folder / "slide_level_summary.csv", keep_default_na=False, na_values=[""])


def _stamp(path: Path) -> list[str]:
    """What a slide's embeddings were made from."""
    attributes = trident.attributes_of(path)
    return [json.loads(attributes["made"])["key"], str(attributes["um_per_px"])]


def _are_current(folder: Path, made: Made) -> bool:
    """Say whether all tables are there, as they were written and made from the same."""
    tables = [folder / f"slide_level{name}.csv" for name in ("", "_summary", "_groups")]
    beside = [path.with_suffix(".csv.json") for path in tables]
    if not all(path.is_file() for path in (*tables, *beside)) or not made.is_current(beside[0]):
        return False
    return all(read_json(of)["sha256"] == sha256(path) for path, of in zip(tables, beside, strict=True))


def _say(step: int, what: str) -> None:
    print(f"step {step} of 4: {what}", file=sys.stderr)
