"""The register of figures and tables; which are drawn, which are stale, and drawing them with their stamp.

All are drawn from results/PROFILE/ alone, or from the committed reference in its place, and written to
figures/PROFILE/, where manifest.json says of each where it comes from.
"""

import csv
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

from figures.sources import LacksRows, Source
from figures.write import write_figure, write_table
from seal import paths, results
from seal.errors import SealError, suggest
from seal.files import digest, read_json, sha256, write_json
from seal.profiles import PROFILES, Profile

VERSION = 3  # of all drawing code: count it up where equal results shall give another figure or table
DRAWN, STALE, MISSING = "drawn", "stale", "not there yet"
DRAWING_NOTEBOOK = "08_figures_and_tables"


# --- the register -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Artefact:
    """One figure or table of the paper: a row of register.csv, whose columns have these names.

    Attributes
    ----------
    caption
        "A, ... | B, ... | ...": a part a panel, and parts without a letter for all of them.
    caption_source
        "paper" if the paper's caption is public (ours follows it in our words), else "our choice".
    notebook
        The notebook that makes its results.
    results
        Names of the tidy tables it is drawn from; the drawing function takes them by these names.
    instead
        A table that replaces all of `results` where it is there.
    optional
        Tables that are drawn too where they are there; "table:B" if they are a panel of their own.
    profiles
        Profiles that can produce it.
    panels, drawn
        A figure's panels, and those that `draw` draws.
    draw
        "module:function" in `figures`; empty: not there yet, see `lacks`.
    options
        Further arguments of the function, as name=value.
    lacks
        What is missing: for the profiles that cannot produce it, or, without `draw`, for anyone.
    """

    id: str
    title: str
    caption: str
    caption_source: str
    notebook: str
    results: tuple[str, ...]
    instead: str
    optional: tuple[str, ...]
    profiles: tuple[str, ...]
    panels: str
    drawn: str
    draw: str
    options: tuple[str, ...]
    lacks: str

    @property
    def kind(self) -> str:
        """Either "figure" or "table"."""
        return "table" if self.id.startswith("T") else "figure"

    @property
    def extras(self) -> dict[str, str]:
        """Optional table -> the panel that shows it, empty if it only adds to others."""
        return {name: panel for name, _, panel in (word.partition(":") for word in self.optional)}

    def panels_from(self, names: Iterable[str]) -> str:
        """Give the panels that are drawn from these tables."""
        lacking = {panel for name, panel in self.extras.items() if panel and name not in names}
        return "".join(panel for panel in self.drawn if panel not in lacking)

    def caption_of(self, panels: str) -> str:
        """Give the caption of some panels, of all if there are none."""
        shown = panels or self.panels
        return " ".join(part for part in self.caption.split(" | ") if part[1:3] != ", " or part[0] in shown)

    def function(self) -> Callable[..., Any]:
        """The function that draws it."""
        module, _, name = self.draw.partition(":")
        return getattr(import_module(f"figures.{module}"), name)


def read_register(path: Path) -> dict[str, Artefact]:
    """Read and check a register, id -> artefact.

    Raises
    ------
    SealError
        A row is not what `Artefact` says.
    """
    register: dict[str, Artefact] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            fault = (
                "" if list(row) == [f.name for f in fields(Artefact)] and None not in row.values() else "its columns"
            )
            if not fault:
                words = {name: tuple(row[name].split()) for name in ("results", "optional", "profiles", "options")}
                artefact = Artefact(**row | words)
                fault = "its id, which is there already" if artefact.id in register else _fault(artefact)
                register[artefact.id] = artefact
            if fault:
                raise SealError(
                    f"{path}: row {row.get('id')} is wrong in {fault}",
                    expected="what the docstring of figures.draw.Artefact says",
                    do="correct the row",
                )
    return register


def _fault(artefact: Artefact) -> str:
    """What is wrong with an artefact; empty if nothing is."""
    faults = {
        "caption_source": artefact.caption_source in ("paper", "our choice"),
        "caption": artefact.panels == "".join(p[0] for p in artefact.caption.split(" | ") if p[1:3] == ", "),
        "results": {*artefact.results, artefact.instead, *artefact.extras} - {""} <= results.RESULTS.keys(),
        "profiles": set(artefact.profiles) <= PROFILES.keys(),
        "drawn": set(artefact.drawn) <= set(artefact.panels),
        "draw": bool(artefact.draw) == bool(artefact.results),
        "lacks": bool(artefact.draw or artefact.lacks),
    }
    return next((column for column, right in faults.items() if not right), "")


REGISTER = read_register(Path(__file__).with_name("register.csv"))


# --- what there is ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """An artefact in a profile: "drawn", "stale" or "not there yet", and why."""

    id: str
    state: str
    why: str


def manifest(profile: Profile) -> dict[str, Any]:
    """Entries of manifest.json by artefact; empty before the first drawing."""
    path = paths.figures(profile.name) / "manifest.json"
    return read_json(path)["artefacts"] if path.is_file() else {}


def inputs_of(artefact: Artefact, source: Source) -> tuple[str, ...]:
    """The tables it is drawn from: the preferred one if it is there, and the optional ones that are."""
    if artefact.instead and source.has(artefact.instead):
        return (artefact.instead,)
    return artefact.results + tuple(name for name in artefact.extras if source.has(name))


def obstacle(artefact: Artefact, source: Source) -> str:
    """Why it cannot be drawn now; empty if it can."""
    name = source.profile.name
    if name not in artefact.profiles:
        return f"profile {name} cannot produce it, {' and '.join(artefact.profiles)} can: {artefact.lacks}"
    if not artefact.draw:
        return artefact.lacks
    lacking = [table for table in inputs_of(artefact, source) if not source.has(table)]
    notebooks = ", ".join(sorted({results.RESULTS[table].notebook for table in lacking}))
    missing = "not in the reference" if source.committed else "missing"
    return f"{', '.join(f'{table}.csv' for table in lacking)} {missing}: run notebook {notebooks}" if lacking else ""


def source_of(artefact: Artefact, profile: Profile, entry: dict[str, Any] | None) -> Source:
    """What an artefact was drawn from, as its entry says; without an entry, what it can be drawn from."""
    run, committed = Source(profile), Source(profile, committed=True)
    if entry:
        return committed if entry.get("source") == committed.word else run
    return committed if obstacle(artefact, run) and not obstacle(artefact, committed) else run


def status(profile: Profile) -> list[State]:
    """Say of every artefact whether it is drawn, stale or not there yet, and why, in the register's order."""
    entries = manifest(profile)
    return [state_of(artefact, profile, entries.get(artefact.id)) for artefact in REGISTER.values()]


def state_of(artefact: Artefact, profile: Profile, entry: dict[str, Any] | None) -> State:
    """Say of one artefact, with its entry in the manifest, whether it is drawn, stale or not there yet, and why."""
    run = Source(profile)
    if entry is None:
        why = obstacle(artefact, run) or f"its results are there: run notebook {DRAWING_NOTEBOOK}"
        return State(artefact.id, MISSING, why)
    source = source_of(artefact, profile, entry)
    if why := obstacle(artefact, source):
        return State(artefact.id, STALE, f"drawn earlier, but now {why}")
    reasons = _changes(artefact, source, entry)
    if source.committed and not obstacle(artefact, run):
        reasons.append("drawn from the reference, but results are there now")
    if reasons:
        again = "draw it with --reference" if obstacle(artefact, run) else f"run notebook {DRAWING_NOTEBOOK}"
        return State(artefact.id, STALE, f"{', '.join(reasons)}: {again}")
    shown = entry["panels"]
    notes = [f"panels {shown} of {artefact.panels}"] if artefact.panels != shown else []
    return State(artefact.id, DRAWN, ", ".join([*notes, "from the reference"] if source.committed else notes))


def _changes(artefact: Artefact, source: Source, entry: dict[str, Any]) -> list[str]:
    """What differs from when it was drawn: its inputs, its files, its row of the register, the code's version."""
    present = {name: sha256(source.path(name)) for name in inputs_of(artefact, source)}
    used = {name: table["sha256"] for name, table in entry["inputs"].items()}
    reasons = [f"{n}.csv has changed" for n in sorted(present.keys() | used.keys()) if present.get(n) != used.get(n)]
    folder = paths.figures(source.profile.name)
    reasons += [f"{name} is gone" for name in entry["files"] if not (folder / name).is_file()]
    if entry.get("row") != digest(asdict(artefact)):
        reasons.append("its row of register.csv has changed")
    if entry.get("version") != VERSION:
        reasons.append("the drawing code has changed")
    return reasons


def status_text(profile: Profile) -> str:
    """Give `status` as a few lines of text, artefacts of one state and reason together."""
    states = status(profile)
    counts = ", ".join(f"{sum(s.state == kind for s in states)} {kind}" for kind in (DRAWN, STALE, MISSING))
    lines = [f"profile {profile.name} ({profile.label}): {counts}, of {len(states)}"]
    for kind in (DRAWN, STALE, MISSING):
        chosen = [state for state in states if state.state == kind]
        lines += ["", kind, *_grouped(chosen)] if chosen else []
    committed = Source(profile, committed=True)
    if ids := [s.id for s in states if s.state == MISSING and not obstacle(REGISTER[s.id], committed)]:
        command = f"python -m figures draw --profile {profile.name} --reference"
        lines += ["", f"{ranges(ids)} can be drawn from committed results, without a run: {command}"]
    return "\n".join(lines) + "\n"


def lacking_text(source: Source) -> str:
    """What a profile can draw, but not from this source, with the reasons; empty if there is nothing."""
    able = [a for a in REGISTER.values() if a.draw and source.profile.name in a.profiles]
    lines = _grouped([State(a.id, MISSING, why) for a in able if (why := obstacle(a, source))])
    return "\n".join([f"the {source.word} is not enough for", *lines]) + "\n" if lines else ""


def _grouped(states: list[State]) -> list[str]:
    """A line a reason, with the artefacts that it holds for."""
    reasons: dict[str, list[str]] = {}
    for state in states:
        reasons.setdefault(state.why, []).append(state.id)
    return [f"  {ranges(ids)}{': ' if why else ''}{why}" for why, ids in reasons.items()]


def ranges(ids: list[str]) -> str:
    """T1 T2 T3 T7 as "T1-T3, T7"."""
    parts = []
    for _, run in groupby(enumerate(ids), key=lambda pair: (pair[1][0], int(pair[1][1:]) - pair[0])):
        names = [name for _, name in run]
        parts.append(names[0] if len(names) == 1 else f"{names[0]}-{names[-1]}")
    return ", ".join(parts)


# --- drawing ----------------------------------------------------------------------------------------------


def draw(profile: Profile, ids: Iterable[str] | None = None, committed: bool = False) -> list[Path]:
    """Draw artefacts from the profile's results.

    Parameters
    ----------
    ids
        Which; by default all that can be drawn, and then files of those that no longer can are removed.
    committed
        Draw from the committed reference instead, for which nothing has to be run.

    Returns
    -------
    Files written.

    Raises
    ------
    SealError
        An id does not exist or cannot be drawn (the error says why), or a table is damaged.
    """
    source = Source(profile, committed)
    if ids is not None:
        chosen = [_drawable(id, source) for id in ids]
    else:
        chosen = [a for a in REGISTER.values() if not obstacle(a, source)]
        kept = {a.id for a in chosen}
        for id, entry in manifest(profile).items():
            if id not in kept and (not committed or entry.get("source") == source.word):
                _forget(profile, id)
    base, written = results.stamp(profile, {}), []
    for artefact in chosen:
        names = inputs_of(artefact, source)
        frames = {name: source.read(name) for name in names}
        stamp = base | {
            "artefact": artefact.id,
            "data": results.data_label(profile, names),
            "source": source.word,
            "inputs": {name: _origin(source, name) for name in names},
            "row": digest(asdict(artefact)),
            "version": VERSION,
        }
        if committed:
            stamp["reference"] = {key: source.manifest.get(key) for key in ("commit", "dirty")}
        try:
            drawn = artefact.function()(**frames, **dict(option.split("=") for option in artefact.options))
        except LacksRows:
            if ids is not None:
                raise
            continue
        write = write_figure if artefact.kind == "figure" else write_table
        caption = artefact.caption_of(artefact.panels_from(names))
        title, files = write(drawn, artefact.id, artefact.title, caption, stamp)
        _record(source, artefact, title, files, stamp)
        written += files
    return written


def find(id: str) -> Artefact:
    """Find an artefact of the register; the error names those that may have been meant."""
    if id not in REGISTER:
        like = ranges([other for other in REGISTER if other[0] == id[:1].upper()])
        do = suggest(id.upper(), REGISTER) or (f"choose one of {like}" if like else "see `make status`")
        raise SealError(f"unknown artefact {id!r}", expected=ranges(list(REGISTER)), do=do)
    return REGISTER[id]


def _drawable(id: str, source: Source) -> Artefact:
    if why := obstacle(find(id), source):
        what = f"{id} cannot be drawn in profile {source.profile.name}: {why}"
        raise SealError(what, expected=f"{source.word} that it can be drawn from", do="see `make status`")
    return REGISTER[id]


def _origin(source: Source, name: str) -> dict[str, Any]:
    """Of a table: its digest, and who made it from what; of a reference, the result that it was taken from too."""
    stamp = source.stamp(name)
    said = {key: stamp[key] for key in ("time", "commit", "dirty", "result", "kept") if key in stamp}
    made = {key: value for key, value in stamp.get("inputs", {}).items() if key != "runs"}  # they stand beside it
    own = {"notebook": results.RESULTS[name].notebook, "made_from": made}
    return {"sha256": sha256(source.path(name)), **said, **own}


def _record(source: Source, artefact: Artefact, title: str, files: list[Path], stamp: dict[str, Any]) -> None:
    profile, folder = source.profile, paths.figures(source.profile.name)
    entry = {
        "title": title,
        "caption": artefact.caption_of(artefact.panels_from(stamp["inputs"])),
        "caption_source": artefact.caption_source,
        "panels": artefact.panels_from(stamp["inputs"]),
        "function": f"figures.{artefact.draw}",
        "files": {path.relative_to(folder).as_posix(): sha256(path) for path in files},
        **stamp,
        "runs": {run: key for name in stamp["inputs"] for run, key in source.runs(name).items()},
    }
    _save(profile, manifest(profile) | {artefact.id: entry})


def _forget(profile: Profile, id: str) -> None:
    entries = manifest(profile)
    for name in entries.pop(id)["files"]:
        (paths.figures(profile.name) / name).unlink(missing_ok=True)
    _save(profile, entries)


def _save(profile: Profile, entries: dict[str, Any]) -> None:
    order = [id for id in REGISTER if id in entries]
    value = {"profile": profile.name, "data": profile.label, "artefacts": {id: entries[id] for id in order}}
    write_json(paths.figures(profile.name) / "manifest.json", value)
