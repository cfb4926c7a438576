"""The register of figures and tables; which are drawn, which are stale, and drawing them with their stamp.

All are drawn from results/PROFILE/ alone and written to figures/PROFILE/, where manifest.json says of each
where it comes from.
"""

import csv
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

from figures.write import write_figure, write_table
from seal import paths, results
from seal.errors import SealError
from seal.files import digest, read_json, sha256, write_json
from seal.profiles import PROFILES, Profile

VERSION = 2  # of all drawing code: count it up where equal results shall give another figure or table
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
        Tables that are drawn too where they are there.
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
    def drawn_caption(self) -> str:
        """The caption of the panels that are drawn, of all if none is."""
        shown = self.drawn or self.panels
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
        "results": {*artefact.results, artefact.instead, *artefact.optional} - {""} <= results.RESULTS.keys(),
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


def _inputs(artefact: Artefact, profile: Profile) -> tuple[str, ...]:
    """The results it is drawn from: the preferred one if it is there, and the optional ones that are."""
    if artefact.instead and results.result_path(profile, artefact.instead).is_file():
        return (artefact.instead,)
    return artefact.results + tuple(o for o in artefact.optional if results.result_path(profile, o).is_file())


def _obstacle(artefact: Artefact, profile: Profile) -> str:
    """Why it cannot be drawn now; empty if it can."""
    if profile.name not in artefact.profiles:
        return f"profile {profile.name} cannot produce it, {' and '.join(artefact.profiles)} can: {artefact.lacks}"
    if not artefact.draw:
        return artefact.lacks
    lacking = [r for r in _inputs(artefact, profile) if not results.result_path(profile, r).is_file()]
    notebooks = ", ".join(sorted({results.RESULTS[name].notebook for name in lacking}))
    return f"{', '.join(f'{name}.csv' for name in lacking)} missing: run notebook {notebooks}" if lacking else ""


def status(profile: Profile) -> list[State]:
    """Say of every artefact whether it is drawn, stale or not there yet, and why, in the register's order."""
    entries = manifest(profile)
    return [_state(artefact, profile, entries.get(artefact.id)) for artefact in REGISTER.values()]


def _state(artefact: Artefact, profile: Profile, entry: dict[str, Any] | None) -> State:
    obstacle = _obstacle(artefact, profile)
    if entry is None:
        return State(artefact.id, MISSING, obstacle or f"its results are there: run notebook {DRAWING_NOTEBOOK}")
    if obstacle:
        return State(artefact.id, STALE, f"drawn earlier, but now {obstacle}")
    if reasons := _changes(artefact, profile, entry):
        return State(artefact.id, STALE, f"{', '.join(reasons)}: run notebook {DRAWING_NOTEBOOK}")
    part = artefact.panels != artefact.drawn
    return State(artefact.id, DRAWN, f"panels {artefact.drawn} of {artefact.panels}" if part else "")


def _changes(artefact: Artefact, profile: Profile, entry: dict[str, Any]) -> list[str]:
    """What differs from when it was drawn: its inputs, its files, its row of the register, the code's version."""
    present = {name: sha256(results.result_path(profile, name)) for name in _inputs(artefact, profile)}
    used = {name: source["sha256"] for name, source in entry["inputs"].items()}
    reasons = [f"{n}.csv has changed" for n in sorted(present.keys() | used.keys()) if present.get(n) != used.get(n)]
    folder = paths.figures(profile.name)
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
        reasons: dict[str, list[str]] = {}
        for state in states:
            if state.state == kind:
                reasons.setdefault(state.why, []).append(state.id)
        lines += ["", kind] if reasons else []
        lines += [f"  {ranges(ids)}{': ' if why else ''}{why}" for why, ids in reasons.items()]
    return "\n".join(lines) + "\n"


def ranges(ids: list[str]) -> str:
    """T1 T2 T3 T7 as "T1-T3, T7"."""
    parts = []
    for _, run in groupby(enumerate(ids), key=lambda pair: (pair[1][0], int(pair[1][1:]) - pair[0])):
        names = [name for _, name in run]
        parts.append(names[0] if len(names) == 1 else f"{names[0]}-{names[-1]}")
    return ", ".join(parts)


# --- drawing ----------------------------------------------------------------------------------------------


def draw(profile: Profile, ids: Iterable[str] | None = None) -> list[Path]:
    """Draw artefacts from the profile's results.

    Parameters
    ----------
    ids
        Which; by default all that can be drawn, and then files of those that no longer can are removed.

    Returns
    -------
    Files written.

    Raises
    ------
    SealError
        An id does not exist or cannot be drawn (the error says why), or a result is damaged.
    """
    if ids is not None:
        chosen = [_drawable(id, profile) for id in ids]
    else:
        chosen = [a for a in REGISTER.values() if not _obstacle(a, profile)]
        for id in manifest(profile).keys() - {a.id for a in chosen}:
            _forget(profile, id)
    base, written = results.stamp(profile, {}), []
    for artefact in chosen:
        names = _inputs(artefact, profile)
        frames = {name: results.read_result(profile, name) for name in names}
        stamp = base | {
            "artefact": artefact.id,
            "data": results.data_label(profile, names),
            "inputs": {name: _origin(profile, name) for name in names},
            "row": digest(asdict(artefact)),
            "version": VERSION,
        }
        drawn = artefact.function()(**frames, **dict(option.split("=") for option in artefact.options))
        write = write_figure if artefact.kind == "figure" else write_table
        title, files = write(drawn, artefact.id, artefact.title, artefact.drawn_caption, stamp)
        _record(profile, artefact, title, files, stamp)
        written += files
    return written


def _drawable(id: str, profile: Profile) -> Artefact:
    if id not in REGISTER:
        raise SealError(f"unknown artefact {id!r}", expected=ranges(list(REGISTER)), do="see `make status`")
    if obstacle := _obstacle(REGISTER[id], profile):
        what = f"{id} cannot be drawn in profile {profile.name}: {obstacle}"
        raise SealError(what, expected="results that it can be drawn from", do="see `make status`")
    return REGISTER[id]


def _origin(profile: Profile, name: str) -> dict[str, Any]:
    stamp = results.read_stamp(profile, name)
    return {"sha256": sha256(results.result_path(profile, name)), **{k: stamp.get(k) for k in ("time", "commit")}}


def _record(profile: Profile, artefact: Artefact, title: str, files: list[Path], stamp: dict[str, Any]) -> None:
    folder = paths.figures(profile.name)
    entry = {
        "title": title,
        "caption": artefact.drawn_caption,
        "caption_source": artefact.caption_source,
        "panels": artefact.drawn,
        "files": {path.relative_to(folder).as_posix(): sha256(path) for path in files},
        **stamp,
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
