"""pyproject.toml, requirements.lock and environment.yml say the same, and this environment is theirs.

What is imported is declared, and what is declared is imported or stands here with its reason.
"""

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from seal.paths import PROJECT

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = [Requirement(line) for line in (PROJECT / "requirements.lock").read_text(encoding="utf-8").splitlines()]
CONDA = yaml.safe_load((PROJECT / "environment.yml").read_text(encoding="utf-8"))
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = {"linux": "x86_64", "darwin": "arm64"}
DECLARED = [
    Requirement(text)
    for group in (PYPROJECT["dependencies"], *PYPROJECT["optional-dependencies"].values())
    for text in group
]
FOLDERS = ("seal", "seal_atlas", "figures", "tools", "notebooks", "benchmarks", "tests")
OWN = {*FOLDERS, *(path.stem for path in (PROJECT / "benchmarks").glob("*.py"))}  # benchmarks import each other
ABROAD = {"trident": "seal.export.interop is for those who have it"}
# Declared, though no file imports it.
REASONS = {
    "beartype": "tests/conftest.py names it to jaxtyping",
    "ipykernel": "the notebooks' kernel",
    "ipywidgets": "progress bars in notebooks",
    "jupyterlab": "make lab",
    "nbval": "make test compares the notebooks' outputs",
    "openslide-bin": "the library behind openslide-python",
    "pytest-xdist": "make test runs two tests at once",
    "ruff": "make lint",
}


def sources(folder: str) -> Iterator[str]:
    """Python code of a folder: of its modules, and of its notebooks' cells."""
    for path in sorted((PROJECT / folder).rglob("*.py")):
        yield path.read_text(encoding="utf-8")
    for path in sorted((PROJECT / folder).rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            lines = [line for c in cells if c["cell_type"] == "code" for line in [*c["source"], "\n"]]
            yield "".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


@cache
def imported(folder: str) -> set[str]:
    """Top names of what a folder imports from elsewhere."""
    names = set()
    for node in (node for text in sources(folder) for node in ast.walk(ast.parse(text))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - OWN - ABROAD.keys()


def test_every_import_is_declared():
    tests_alone = {canonicalize_name(Requirement(text).name) for text in PYPROJECT["optional-dependencies"]["test"]}
    declared, packages = {canonicalize_name(wanted.name) for wanted in DECLARED}, metadata.packages_distributions()
    lacking = []
    for folder in FOLDERS:
        allowed = declared if folder == "tests" else declared - tests_alone
        for name in sorted(imported(folder)):
            if not allowed & {canonicalize_name(package) for package in packages.get(name, ())}:
                lacking.append(f"{folder} imports {name}")
    assert lacking == []


def test_what_is_declared_is_imported_or_has_a_reason():
    packages = metadata.packages_distributions()
    used = {canonicalize_name(p) for folder in FOLDERS for name in imported(folder) for p in packages.get(name, ())}
    here = [wanted for wanted in DECLARED if wanted.marker is None or wanted.marker.evaluate()]
    assert {canonicalize_name(wanted.name) for wanted in here} - used - set(REASONS) == set()


def describe(python: str, platform: str) -> dict[str, str]:
    """What markers ask of a platform."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": platform,
        "platform_machine": PLATFORMS[platform],
        "os_name": "posix",
        "implementation_name": "cpython",
    }


def versions(python: str, platform: str) -> dict[str, str]:
    """Versions that the lock gives on a platform."""
    found = {}
    for line in LOCK:
        if line.marker is None or line.marker.evaluate(describe(python, platform)):
            assert canonicalize_name(line.name) not in found, f"two pins of {line.name}"
            found[canonicalize_name(line.name)] = next(iter(line.specifier)).version
    return found


def test_lock_holds_exact_pins_only():
    for line in LOCK:
        assert [s.operator for s in line.specifier] == ["=="], str(line)
        assert "*" not in str(line.specifier)
        assert line.url is None, str(line)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_lock_satisfies_pyproject(python, platform):
    pinned = versions(python, platform)
    there = describe(python, platform)
    for wanted in (line for line in DECLARED if line.marker is None or line.marker.evaluate(there)):
        name = canonicalize_name(wanted.name)
        assert name in pinned, f"{wanted} is not in the lock: make lock"
        assert wanted.specifier.contains(pinned[name]), f"{wanted}, but the lock has {pinned[name]}: make lock"


def test_installing_asks_for_ranges_and_reproducing_for_pins():
    """A package that pins can be installed beside no other; each range has a lower bound, which was tried."""
    for wanted in DECLARED:
        operators = {specifier.operator for specifier in wanted.specifier}
        assert ">=" in operators, str(wanted)
        assert operators <= {">=", "<", "!="}, str(wanted)


def test_lock_is_complete():
    """What the installed packages require is pinned too: the lock is installed without resolving anything."""
    pinned = {canonicalize_name(line.name) for line in LOCK}
    lacking = []
    for name in pinned:
        try:
            wanted = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for another platform or Python
            continue
        for requirement in map(Requirement, wanted):
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and canonicalize_name(requirement.name) not in pinned:
                lacking.append(f"{name} needs {requirement}")
    assert not lacking


def test_this_environment_is_the_locks():
    differing = []
    for line in LOCK:
        if line.marker is None or line.marker.evaluate():
            try:
                version = metadata.version(line.name)
            except metadata.PackageNotFoundError:
                continue  # CUDA's packages beside a CPU build of torch
            if not line.specifier.contains(version, prereleases=True):
                differing.append(f"{line} but {version}")
    assert not differing


def test_conda_takes_python_from_conda_and_every_package_from_the_lock():
    conda = [entry for entry in CONDA["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    python = next(entry.removeprefix("python=") for entry in conda if entry.startswith("python="))
    assert SpecifierSet(PYPROJECT["requires-python"]).contains(python)
    assert {re.split("[=<> ]", entry)[0] for entry in conda} == {"python", "pip", "make"}
    assert pip == ["-r requirements.lock", "-e ."]


def test_makefile_takes_the_same_lock_and_pythons():
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    low, high = (
        re.search(r"\((\d+), (\d+)\) <= sys.version_info\[:2\] < \(\d+, \d+\)", makefile).groups(),
        re.search(r"sys.version_info\[:2\] < \((\d+), (\d+)\)", makefile).groups(),
    )
    assert SpecifierSet(PYPROJECT["requires-python"]) == SpecifierSet(f">={'.'.join(low)},<{'.'.join(high)}")
    assert "requirements.lock" in makefile


def test_continuous_integration_runs_make_test():
    script = PROJECT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, "not executable"
    assert script.read_text(encoding="utf-8").rstrip().endswith("\nmake test")
