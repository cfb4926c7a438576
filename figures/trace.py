"""The way from a figure or table back to its cause: files, function, results, notebooks, runs, settings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from figures import draw, sources
from figures.draw import MISSING, Artefact
from figures.sources import Source
from seal import paths, results
from seal.files import read_json, sha256
from seal.profiles import Profile

# What a result is made from, by the name that its stamp gives the key: the record that holds the key of today.
RECORDS = {"pairs": "pairs.json", "tokens": "tokens.json"}
SHORT = 10  # digits of a hash


def trace(profile: Profile, id: str) -> str:
    """Say, step by step, where a figure or table comes from, what of it is there and current, and how to make it again.

    Raises
    ------
    SealError
        The id is not in the register.
    """
    artefact, entry = draw.find(id), draw.manifest(profile).get(id)
    state, source = draw.state_of(artefact, profile, entry), draw.source_of(artefact, profile, entry)
    title = entry["title"] if entry else artefact.title
    able = not draw.obstacle(artefact, source)
    label = results.data_label(profile, draw.inputs_of(artefact, source)) if artefact.draw else profile.label
    parts = [
        f"{id}  {title}  ({label}, profile {profile.name})",
        f"{state.state}{': ' if state.why else ''}{state.why}",
    ]
    if not artefact.draw or profile.name not in artefact.profiles:
        return "\n".join(parts) + "\n"
    if state.state == MISSING and able and source.committed:
        parts.append("committed results are there: what follows is their way")
    steps = [
        (artefact.kind, _files(profile, entry)),
        ("drawn by", [f"figures.{artefact.draw}, figures/{artefact.draw.partition(':')[0]}.py{_by(entry)}"]),
        (f"from {'the committed reference' if source.committed else 'results'}", _tables(artefact, source, entry)),
        ("made by", _makers(artefact, source)),
        ("with the runs", _runs(artefact, source, entry)),
        ("and settings", _settings(source, artefact)),
        ("again", _commands(artefact, source)),
    ]
    for number, (head, lines) in enumerate(steps, 1):
        parts += ["", f"{number} {head}", *(f"  {line}" for line in lines)]
    return "\n".join(parts) + "\n"


def _files(profile: Profile, entry: dict[str, Any] | None) -> Iterator[str]:
    if entry is None:
        yield "not drawn yet"
        return
    folder = paths.figures(profile.name)
    for name, digest in entry["files"].items():
        yield f"{_place(folder / name)} {digest[:SHORT]}: {_compare(digest, _digest(folder / name), 'drawn')}"


def _by(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    return f", version {entry['version']}, {_when(entry)}"


def _tables(artefact: Artefact, source: Source, entry: dict[str, Any] | None) -> Iterator[str]:
    for name in draw.inputs_of(artefact, source):
        path, stamp = source.path(name), source.stamp(name)
        now, drawn = _digest(path) if source.has(name) else None, entry["inputs"].get(name) if entry else None
        then = (drawn or stamp).get("sha256") or now or ""
        verdict = _compare(then, now, "this was drawn" if drawn else "it was written")
        if now and stamp.get("sha256") not in (None, now):
            verdict = "differs from its stamp: it is not as its notebook wrote it"
        of = ""
        if source.committed and stamp:
            of = f", of results/{source.profile.name}/{name}.csv {stamp['result']['sha256'][:SHORT]}; {stamp['kept']}"
        made = f", made {_when(stamp)}" if stamp else ""
        yield f"{' '.join(filter(None, (_place(path), then[:SHORT])))}{of}{made}: {verdict}"


def _makers(artefact: Artefact, source: Source) -> Iterator[str]:
    """Each notebook with what its results were made from, and whether that is what lies on the disk."""
    for notebook, names in _notebooks(artefact, source).items():
        maker = notebook if notebook.endswith(".py") else f"notebooks/{notebook}.ipynb"
        yield f"{maker}, which writes {', '.join(f'{name}.csv' for name in names)}"
        made = {key: value for name in names for key, value in source.stamp(name).get("inputs", {}).items()}
        made.pop("runs", None)  # named below
        for name, value in made.items():
            yield f"  from {_input(source.profile, name, value)}"
        if not made and any(source.has(name) for name in names):
            yield "  from the profile's settings alone"


def _notebooks(artefact: Artefact, source: Source) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in draw.inputs_of(artefact, source):
        found.setdefault(results.RESULTS[name].notebook, []).append(name)
    return dict(sorted(found.items()))


def _input(profile: Profile, name: str, value: Any) -> str:
    if name not in RECORDS:
        text = str(value)
        return f"{name}: {text if len(text) <= 80 else text[:80] + '...'}"
    folder = paths.pairs(profile.name) if name == "pairs" else paths.tokens(profile.name)
    record = folder / RECORDS[name]
    now = read_json(record)["key"] if record.is_file() else None
    return f"{name} {value[:SHORT]}, {_place(folder)}/: {_compare(value, now, 'they were used')}"


def _runs(artefact: Artefact, source: Source, entry: dict[str, Any] | None) -> Iterator[str]:
    runs = {run: key for name in draw.inputs_of(artefact, source) for run, key in source.runs(name).items()}
    runs = entry.get("runs", runs) if entry else runs
    for run, key in runs.items():
        now, place = sources.run_key(source.profile, run), f"runs/{source.profile.name}/{run}"
        yield f"{place} {key[:SHORT]}: {_compare(key, now, 'this was drawn')}"
    if not runs:
        yield "none: nothing here was trained"


def _settings(source: Source, artefact: Artefact) -> Iterator[str]:
    tables = (table for table in draw.inputs_of(artefact, source) if table != sources.RECORDED)
    name, stamps = source.profile.name, [source.stamp(table) for table in tables]
    changed = sorted({stamp["changed"] for stamp in stamps if stamp.get("changed")})
    with_changes = f", changed in {'; '.join(changed)}" if changed else ""
    yield f"profile {name} of seal/profiles.py{with_changes}: python -m seal profiles {name}; tables T6 and T7"
    for seeds in sorted({str(stamp["seeds"]) for stamp in stamps if stamp.get("seeds")}):
        yield f"seeds {seeds.strip('[]')}"
    yield "each run's own settings stand in its run.json"


def _commands(artefact: Artefact, source: Source) -> Iterator[str]:
    name = source.profile.name
    makers = _notebooks(artefact, source)
    yield f"make {' '.join(f'build/{name}/{maker}.ipynb' for maker in makers if maker[-3:] != '.py')} PROFILE={name}"
    yield from (f"python {maker} --record     # hours" for maker in makers if maker.endswith(".py"))
    yield f"python -m figures draw {artefact.id} --profile {name}"
    if not draw.obstacle(artefact, Source(source.profile, committed=True)):
        yield f"python -m figures draw {artefact.id} --profile {name} --reference     # without any run"


def _compare(then: str, now: str | None, when: str) -> str:
    if now is None:
        return "not there"
    return f"there, as when {when}" if now == then else f"stale: there is another now ({now[:SHORT]})"


def _digest(path: Path) -> str | None:
    return sha256(path) if path.is_file() else None


def _when(stamp: dict[str, Any]) -> str:
    changes = " with changes" if stamp.get("dirty") else ""
    return f"{stamp['time'][:16].replace('T', ' ')} at commit {(stamp.get('commit') or 'none')[:SHORT]}{changes}"


def _place(path: Path) -> str:
    """A path as a reader has it: from SEAL_HOME or the project's root on."""
    base = next((base for base in (paths.home(), paths.PROJECT) if path.is_relative_to(base)), path.anchor)
    return path.relative_to(base).as_posix()
