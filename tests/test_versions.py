"""Every writer's VERSION is counted up when its code changes what it writes.

versions.json holds for each writer its VERSION and a digest of the code that shapes its output: the syntax trees of a
short list of modules, without docstrings, comments, imports and types. Where the digest differs, decide: if the same
inputs and settings now give something else, count VERSION up; in either case `python -m tests.test_versions` writes
the pins anew. Users keep what they have until a VERSION is counted up.
"""

import ast
import importlib
import json
from pathlib import Path

import pytest

from seal.files import digest
from seal.paths import PROJECT

PINS = Path(__file__).with_name("versions.json")
ENCODER = ("seal.models.encoders", "seal.models.architecture", "seal.models.class_token", "seal.models.conch")
GROWN = ("seal_atlas.growing.fields", "seal_atlas.growing.layout", "seal_atlas.growing.grow")
SHOWN = ("seal_atlas.showing.stains", "seal_atlas.showing.render", "seal_atlas.showing.scanners")
COUNTED = ("seal_atlas.counting.transcripts",)
WRITERS = {
    "seal.data.sources.her2st": ("seal.data.sources.her2st", "seal.data.sample_files"),
    "seal.data.assemble": (
        *("seal.data.assemble", "seal.data.assemble_sample", "seal.data.sample_files", "seal.data.expression"),
        *("seal.data.genes", "seal.data.grid", "seal.data.panel", "seal.data.folds", "seal.data.store"),
    ),
    "seal.train.tokens": ("seal.train.tokens", "seal.train.batches", "seal.data.augment", *ENCODER),
    "seal.train.runs": (
        *("seal.train.runs", "seal.train.loop", "seal.train.steps", "seal.losses"),
        *("seal.models.omics", "seal.models.vision", "seal.models.dropout", *ENCODER),
    ),
    "seal.models.baselines": (
        *(f"seal.models.baselines.{name}" for name in ("base", "regression", "retrieval", "rules", "pathomclip")),
        *("seal.models.baselines.triplex", "seal.models.baselines.deepspot", "seal.data.neighbours"),
    ),
    "seal.train.mil": (
        *("seal.train.mil", "seal.train.mil_jobs", "seal.train.mil_stack", "seal.train.bags", "seal.models.mil"),
    ),
    "seal.embed": (
        *("seal.embed", "seal.slides.pixels", "seal.slides.image", "seal.slides.tissue", "seal.slides.patches"),
        *ENCODER,
    ),
    "seal.evaluate.embeddings": (
        *("seal.evaluate.embeddings", "seal.train.batches", "seal.embed", "seal.models.baselines.colour", *ENCODER),
    ),
    "seal.evaluate.hest_bench": ("seal.evaluate.hest_bench", "seal.data.hest_bench", "seal.train.batches", *ENCODER),
    "seal.evaluate.slide_features": (
        *("seal.evaluate.slide_features", "seal.evaluate.embeddings", "seal.slides.image", "seal.slides.patches"),
        *("seal.train.batches", "seal.embed", "seal.models.baselines.colour", *ENCODER),
    ),
    "seal.evaluate.cohort": (
        *(f"seal.evaluate.{name}" for name in ("cohort", "slide_level", "slide_scores", "slide", "power", "survival")),
        "seal.evaluate.metrics",
    ),
    "seal_atlas.realism.mouse": ("seal_atlas.realism.mouse",),
    "seal_atlas.writing.sections": ("seal_atlas.writing.sections", *GROWN, *SHOWN, *COUNTED),
    "seal_atlas.writing.hest_bench": ("seal_atlas.writing.hest_bench", "seal_atlas.writing.sections"),
    "seal_atlas.writing.slides": ("seal_atlas.writing.slides", *GROWN, *SHOWN, *COUNTED),
    "seal_atlas.writing.cohorts": (
        *("seal_atlas.writing.cohorts", "seal_atlas.writing.task_folders", "seal_atlas.patients.tasks"),
        *("seal.data.slide_folds", "seal.data.slide_tasks", "seal.data.patho_bench"),
    ),
    "tools.hest_audit.compare": (
        *("tools.hest_audit.compare", "tools.hest_audit.expression", "tools.hest_audit.pictures"),
    ),
}


def bare(source: str) -> str:
    """Code without docstrings, comments, imports, types and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name in {"annotation", "returns"} & set(node._fields):
            setattr(node, name, None if not isinstance(node, ast.AnnAssign) else ast.Constant(None))
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        node.body = [child for child in node.body if not isinstance(child, ast.Import | ast.ImportFrom)]
    return ast.dump(tree)


def source_of(module: str) -> str:
    return (PROJECT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


def pin(writer: str) -> dict[str, int | str]:
    code = digest([bare(source_of(module)) for module in WRITERS[writer]])
    return {"version": importlib.import_module(writer).VERSION, "code": code}


@pytest.mark.parametrize("writer", WRITERS)
def test_changed_code_is_looked_at(writer):
    pinned, now = json.loads(PINS.read_text(encoding="utf-8"))[writer], pin(writer)
    assert now == pinned, (
        f"the code behind {writer} has changed: count its VERSION up if the same inputs and settings now give "
        "something else, then refresh the pins: python -m tests.test_versions"
    )


def test_words_and_layout_are_no_change():
    code = 'import a\n\n\ndef f(x: int) -> int:\n    """Say."""\n    return x + 1  # why\n'
    other = 'from b import c\ndef f(x):\n    """Say it."""\n\n    # because\n    return (x +\n            1)\n'
    assert bare(code) == bare(other) != bare(code.replace("+ 1", "+ 2"))


def test_every_writer_is_pinned():
    """Whoever makes a `Made` stands in the list."""
    makers = set()
    for package in ("seal", "seal_atlas", "tools"):
        for path in (PROJECT / package).rglob("*.py"):
            calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
            if any(isinstance(call.func, ast.Name) and call.func.id == "Made" for call in calls):
                makers.add(".".join(path.relative_to(PROJECT).with_suffix("").parts))
    owners = {"seal_atlas.writing.atlas": "seal_atlas.writing.sections"}
    assert {owners.get(maker, maker) for maker in makers} <= set(WRITERS)


if __name__ == "__main__":
    PINS.write_text(json.dumps({writer: pin(writer) for writer in WRITERS}, indent=1) + "\n", encoding="utf-8")
