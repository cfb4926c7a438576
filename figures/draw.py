"""Figures and tables: what can be drawn in a profile, what is out of date, and drawing it with its stamp.

All are drawn from results/PROFILE/ alone and written to figures/PROFILE/, where manifest.json says of each
where it comes from.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from figures.register import REGISTER, Artefact
from seal import paths
from seal import results as provenance
from seal.errors import SealError
from seal.files import atomic, digest, read_json, sha256, write_json
from seal.profiles import Profile

__all__ = ["REGISTER", "Artefact", "State", "draw", "manifest", "status", "status_text"]

VERSION = 1  # counted up when the same results give other figures or tables
DRAWN, STALE, MISSING = "drawn", "stale", "not there yet"
DRAWING_NOTEBOOK = "08_figures_and_tables"


@dataclass(frozen=True)
class State:
    """An artefact in a profile: "drawn", "stale" or "not there yet", and why."""

    id: str
    state: str
    why: str


# --- what there is ----------------------------------------------------------------------------------------


def manifest(profile: Profile) -> dict[str, Any]:
    """Entries of manifest.json by artefact; empty before the first drawing."""
    path = paths.figures(profile.name) / "manifest.json"
    return read_json(path)["artefacts"] if path.is_file() else {}


def _inputs(artefact: Artefact, profile: Profile) -> tuple[str, ...]:
    """The results it is drawn from: the preferred one if it is there."""
    if artefact.instead and provenance.result_path(profile, artefact.instead).is_file():
        return (artefact.instead,)
    return artefact.results


def _code(artefact: Artefact) -> str:
    return digest([VERSION, asdict(artefact)])


def _obstacle(artefact: Artefact, profile: Profile) -> str:
    """Why it cannot be drawn now; empty if it can."""
    if profile.name not in artefact.profiles:
        return f"profile {profile.name} cannot produce it, {' and '.join(artefact.profiles)} can: {artefact.lacks}"
    if artefact.draw is None:
        return artefact.lacks
    lacking = [r for r in _inputs(artefact, profile) if not provenance.result_path(profile, r).is_file()]
    notebooks = sorted({provenance.RESULTS[name].notebook for name in lacking})
    if lacking:
        return f"{', '.join(f'{name}.csv' for name in lacking)} missing: run notebook {', '.join(notebooks)}"
    return ""


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
    present = {name: sha256(provenance.result_path(profile, name)) for name in _inputs(artefact, profile)}
    used = {name: source["sha256"] for name, source in entry["inputs"].items()}
    changed = sorted(name for name in present.keys() | used.keys() if present.get(name) != used.get(name))
    lost = [name for name in entry["files"] if not (paths.figures(profile.name) / name).is_file()]
    reasons = [f"{name}.csv has changed" for name in changed] + [f"{name} is gone" for name in lost]
    if entry["code"] != _code(artefact):
        reasons.append("the drawing code has changed")
    if reasons:
        return State(artefact.id, STALE, f"{', '.join(reasons)}: run notebook {DRAWING_NOTEBOOK}")
    part = artefact.panels != artefact.drawn
    return State(artefact.id, DRAWN, f"panels {artefact.drawn} of {artefact.panels}" if part else "")


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
    keyed = enumerate(ids)
    parts = []
    for _, run in groupby(keyed, key=lambda pair: (pair[1][0], int(pair[1][1:]) - pair[0])):
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
    chosen = [_drawable(id, profile) for id in ids] if ids is not None else []
    if ids is None:
        chosen = [a for a in REGISTER.values() if not _obstacle(a, profile)]
        for id in manifest(profile).keys() - {a.id for a in chosen}:
            _forget(profile, id)
    base = provenance.stamp(profile, {})
    written = []
    for artefact in chosen:
        names = _inputs(artefact, profile)
        frames = {name: provenance.read_result(profile, name) for name in names}
        stamp = base | {
            "artefact": artefact.id,
            "data": provenance.data_label(profile, names),
            "inputs": {name: _origin(profile, name) for name in names},
            "code": _code(artefact),
        }
        write = _write_figure if artefact.kind == "figure" else _write_table
        title, files = write(artefact, frames, stamp, paths.figures(profile.name))
        _record(profile, artefact, title, files, stamp)
        written += files
    return written


def _drawable(id: str, profile: Profile) -> Artefact:
    if id not in REGISTER:
        raise SealError(f"unknown artefact {id!r}", expected="F1-F4, E1-E5 or T1-T54", do="see `make status`")
    obstacle = _obstacle(REGISTER[id], profile)
    if obstacle:
        raise SealError(
            f"{id} cannot be drawn in profile {profile.name}: {obstacle}",
            expected="results that it can be drawn from",
            do="see `make status` for what can be drawn",
        )
    return REGISTER[id]


def _origin(profile: Profile, name: str) -> dict[str, Any]:
    stamp = provenance.read_stamp(profile, name)
    keys = ("time", "commit", "dirty")
    return {"sha256": sha256(provenance.result_path(profile, name)), **{k: stamp.get(k) for k in keys}}


def _text(stamp: dict[str, Any]) -> str:
    """The stamp as it goes into files: without the time, so that equal inputs give equal files."""
    return json.dumps({k: v for k, v in stamp.items() if k != "time"}, sort_keys=True)


def _short(stamp: dict[str, Any]) -> str:
    seeds = ", ".join(map(str, stamp["seeds"]))
    commit = (stamp["commit"] or "none")[:10] + (" with changes" if stamp["dirty"] else "")
    results = ", ".join(f"{name}.csv {source['sha256'][:10]}" for name, source in stamp["inputs"].items())
    return f"{stamp['data']}; profile {stamp['profile']}; seeds {seeds}; commit {commit}; from {results}"


def _write_figure(artefact: Artefact, frames: dict, stamp: dict, folder: Path) -> tuple[str, list[Path]]:
    import figures

    title = f"{artefact.id} {artefact.title}"
    figure = figures.mark(getattr(figures, artefact.draw)(**frames), f"{stamp['data']} ({stamp['profile']})")
    metadata = {
        "pdf": {"Title": title, "Subject": artefact.caption, "Keywords": _text(stamp), "CreationDate": None},
        "png": {"Title": title, "Description": artefact.caption, "Comment": _text(stamp)},
    }
    files = [folder / f"{artefact.id}.{kind}" for kind in metadata]
    with figures.style():
        for path, (kind, words) in zip(files, metadata.items(), strict=True):
            with atomic(path) as temporary:
                figure.savefig(temporary, format=kind, dpi=300, metadata=words)
    return artefact.title, files


def _write_table(artefact: Artefact, frames: dict, stamp: dict, folder: Path) -> tuple[str, list[Path]]:
    from figures import T01_T08_data

    table = getattr(T01_T08_data, artefact.draw)(**frames)
    title = table.attrs.get("title", artefact.title)
    files = [folder / "tables" / f"{artefact.id}.{kind}" for kind in ("csv", "md")]
    with atomic(files[0]) as temporary:
        # The csv has no room for a mark but a column.
        marked = table.assign(data=stamp["data"]) if stamp["data"] == "simulated data" else table
        marked.to_csv(temporary, index=False)
    parts = [
        f"**{stamp['data']}**, profile {stamp['profile']}",
        f"## {artefact.id} {title}",
        artefact.caption,
        T01_T08_data.markdown(table).rstrip("\n"),
        table.attrs.get("note", ""),
        f"<sub>{_short(stamp)}</sub>",
        f"<!-- {_text(stamp)} -->",
    ]
    with atomic(files[1]) as temporary:
        temporary.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return title, files


def _record(profile: Profile, artefact: Artefact, title: str, files: list[Path], stamp: dict[str, Any]) -> None:
    folder = paths.figures(profile.name)
    entry = {
        "title": title,
        "caption": artefact.caption,
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
