"""The house: which packages and rooms may import which, no circles, few names at the top, none for two things."""

import ast
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from seal.paths import PROJECT

PACKAGES = ("seal", "seal_atlas", "figures", "tools")
# A room may import itself and what stands before it. The ground is all that no room above is needed for.
ROOMS = ("ground", "slides", "models", "data", "train", "export", "embed", "evaluate", "top")
GROUND = ("errors", "paths", "profiles", "files", "losses", "shapes", "results")
TOP = ("doctor", "__main__", "__init__")
OF_BENCHMARKS = (  # counted apart, with what lies in them
    *("seal.models.baselines", "seal.data.hest_bench", "seal.evaluate.hest_bench", "seal.evaluate.slide"),
    *("seal.evaluate.robustness", "seal.evaluate.probe", "seal.evaluate.ridge", "seal.evaluate.protocols"),
    *("seal.evaluate.batch_order", "seal.evaluate.reliability", "seal.evaluate.ledger"),
    *("seal.evaluate.survival", "seal.evaluate.power", "seal.data.pathways", "seal.data.patho_bench"),
    *(
        "seal.evaluate.slide_features",
        "seal.evaluate.slide_level",
        "seal.evaluate.slide_scores",
        "seal.evaluate.attention",
        "seal.evaluate.cohort",
        "seal.evaluate.cohort_report",
        "seal.models.mil",
        "seal.train.mil",
        "seal.train.mil_jobs",
        "seal.train.mil_stack",
        "seal.train.bags",
        "seal.data.slide_tasks",
        "seal.data.slide_cohorts",
        "seal.data.slide_folds",
    ),
)
OF_FIGURES = ("seal.results", "seal.profiles", "seal.paths", "seal.files", "seal.errors")


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, of every module of the project's packages."""
    found = {}
    for package in PACKAGES:
        for path in sorted((PROJECT / package).rglob("*.py")):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imported(name: str, *, typing: bool = True) -> set[str]:
    """Modules of the project that a module imports, wherever in it; without what only type checkers see, if asked."""
    found, waiting = set(), [tree(name)]
    while waiting:
        node = waiting.pop()
        if typing_only(node) and not typing:
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [n if n in modules() else node.module for n in names]
        else:
            continue
        found |= {n for n in names if n in modules()}
    return found - {name}


def room(name: str) -> str:
    part = [*name.split("."), "__init__"][1]
    if part in GROUND:
        return "ground"
    return "top" if part in TOP else part


def test_packages_import_in_one_direction():
    allowed = {"seal": (), "seal_atlas": ("seal",), "figures": OF_FIGURES, "tools": ("seal",)}
    wrong = [
        f"{name} imports {other}"
        for name in modules()
        for other in imported(name)
        if (package := name.split(".")[0]) != other.split(".")[0]
        and not any(other == a or other.startswith(f"{a}.") for a in allowed[package])
    ]
    assert wrong == []


def test_rooms_import_in_one_direction():
    assert {room(name) for name in modules() if name.startswith("seal.")} <= set(ROOMS)
    wrong = [
        f"{name} imports {other}"
        for name in modules()
        for other in imported(name)
        if name.startswith("seal.") and other.startswith("seal.") and ROOMS.index(room(other)) > ROOMS.index(room(name))
    ]
    assert wrong == []


def test_no_circle_of_files():
    graph = {name: imported(name, typing=False) - {name.split(".")[0]} for name in modules()}
    for name in graph:  # a package's __init__ stands for what it offers, not for the modules in it
        graph[name] = {other for other in graph[name] if not name.startswith(f"{other}.")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_few_names_at_the_top():
    top = {
        path.stem for path in (PROJECT / "seal").iterdir() if path.suffix in ("", ".py") and path.name[0] not in "._"
    }
    assert len(top) <= 15, sorted(top)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_class_name_twice_in_a_package(package):
    names = Counter(
        node.name
        for name in modules()
        if name.split(".")[0] == package
        for node in tree(name).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize(
    ("package", "lines"), [("seal", 18_420), ("figures", 3_800), ("seal_atlas", 5_400), ("tools", 650)]
)
def test_packages_stay_small(package, lines):
    """12,500 were thought of for seal; baselines, probes, HEST-Bench and the slide level took more."""
    assert sum(count_lines(package).values()) <= lines


def test_seal_stays_small_before_its_benchmarks():
    """11,000, and what real files, peers, a first day, several encoders, other forms, kept results and slides take."""
    counts = count_lines("seal")
    apart = [name for name in counts if any(name == part or name.startswith(f"{part}.") for part in OF_BENCHMARKS)]
    assert sum(counts.values()) - sum(counts[name] for name in apart) <= 11_000 + 1_570


def count_lines(package: str) -> dict[str, int]:
    own = [name for name in modules() if name.split(".")[0] == package]
    return {name: len(modules()[name].read_text(encoding="utf-8").splitlines()) for name in own}
