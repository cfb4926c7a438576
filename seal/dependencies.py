"""What a module or a notebook depends on within this package, and digests of it.

Nothing is imported to find out: sources are read as syntax trees, with the standard library alone, so that
make can ask without waiting for torch.
"""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from seal import paths, profiles
from seal.errors import SealError
from seal.files import digest, read_json, sha256

# Settings enter every key by value, and provenance only describes: neither is a reason to train again.
NOT_IN_KEYS = ("seal.profiles", "seal.results")


def _source(name: str) -> Path | None:
    """The file of a module of this package, by its dotted name."""
    base = paths.PROJECT.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _named(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names that a syntax tree imports, wherever in it; some may be attributes rather than modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _modules(tree: ast.AST, package: str = "") -> set[str]:
    """Modules of this package that a syntax tree imports, with the packages around them."""
    found = set()
    for name in _named(tree, package):
        parts = name.split(".")
        if parts[0] in ("seal", "seal_atlas", "figures", "tools"):
            prefixes = {".".join(parts[: i + 1]) for i in range(len(parts))}
            found |= {prefix for prefix in prefixes if _source(prefix)}
    return found


def _data_files(tree: ast.AST) -> set[Path]:
    """Files of the package that are no modules (a style sheet, a table) and that the source names."""
    strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    root = paths.PROJECT / "seal"
    named = {s.rpartition("/")[2] for s in strings if "." in s and not s.endswith(".py")}
    return {path for path in root.rglob("*") if path.name in named and path.is_file()} if named else set()


def _closure(names: Iterable[str], without: Iterable[str] = ()) -> list[Path]:
    """Files of modules and of everything in this package that they import, directly or not."""
    files, done, waiting = set(), set(without), list(names)
    while waiting:
        name = waiting.pop()
        if name in done:
            continue
        done.add(name)
        path = _source(name)
        if path is None:
            raise SealError(
                f"there is no module {name}",
                expected="a module of the package seal, as a dotted name",
                do="correct the name, or the import that names it",
            )
        needed, data = _needs(name, path, path.stat().st_mtime_ns)
        files |= {path, *data}
        waiting += needed
    return sorted(files)


@cache
def _needs(name: str, path: Path, version: int) -> tuple[frozenset[str], frozenset[Path]]:
    """Modules and data files that a module names; kept, because every notebook asks about the same modules."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return frozenset(_modules(tree, package) | _modules(ast.parse(f"import {name}"))), frozenset(_data_files(tree))


def module_files(name: str) -> list[Path]:
    """Files that a module depends on: its own, and those of everything in this package that it imports.

    Parameters
    ----------
    name
        Dotted, e.g. "seal.train.runs". Nothing is imported; imports inside functions count, and so do data files
        of the package that the source names.

    Returns
    -------
    Sorted paths.

    Raises
    ------
    SealError
        There is no such module.
    """
    return _closure([name])


def code_digest(modules: Iterable[str]) -> str:
    """SHA-256 of the sources of modules and of everything in this package that they import.

    Leaves out `seal.profiles` (settings belong in a key by value) and `seal.results` (it only describes).
    """
    return _files_digest(_closure(modules, NOT_IN_KEYS))


def _files_digest(files: Iterable[Path]) -> str:
    return digest([(path.relative_to(paths.PROJECT).as_posix(), sha256(path)) for path in files])


def lock_digest() -> str | None:
    """SHA-256 of the lock of the environment, None where there is none."""
    lock = paths.PROJECT / "requirements.lock"
    return sha256(lock) if lock.is_file() else None


def notebook_digest(path: Path, profile: str) -> str:
    """SHA-256 of all that a notebook's results depend on, but for its input files.

    These are its cells (not their outputs), the modules it imports, the profile's values in place of
    `seal.profiles`, the profile's data source if it reaches the pairs, and the lock of the environment.

    Raises
    ------
    SealError
        The notebook cannot be read, a cell is not Python, or the profile does not exist.
    """
    values = profiles.get(profile)
    cells = _cells(Path(path))
    names = set()
    for number, (kind, source) in enumerate(cells):
        if kind == "code":
            names |= _modules(_parsed(source, Path(path), number))
    if _source("seal.data.pairs") in _closure(names, ["seal.profiles"]):
        names.add(values.source)  # assembled by name, which no import statement shows
    return digest(
        {
            "cells": cells,
            "code": _files_digest(_closure(names, ["seal.profiles"])),
            "profile": profiles.as_dict(values),
            "lock": lock_digest(),
        }
    )


def _cells(path: Path) -> list[tuple[str, str]]:
    notebook = read_json(path)
    try:
        return [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    except (KeyError, TypeError) as error:
        raise SealError(
            f"{path} is not a notebook ({error})",
            expected="Jupyter's format, version 4",
            do="restore the file",
        ) from error


def _parsed(source: str, path: Path, number: int) -> ast.AST:
    plain = "\n".join("pass" if line.startswith(("%", "!")) else line for line in source.split("\n"))
    try:
        return ast.parse(plain)
    except SyntaxError as error:
        raise SealError(
            f"{path}, cell {number}: {error.msg}, line {error.lineno}",
            expected="Python (lines that begin with % or ! are passed over)",
            do="correct the cell",
        ) from error
