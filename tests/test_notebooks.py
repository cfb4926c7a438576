"""Notebooks as they are committed.

That they run from top to bottom in the demo profile is `make test`'s part: it hands them to nbval.
"""

import re
from pathlib import Path

import nbformat
import papermill
import pytest

from seal.errors import SealError
from seal.paths import PROJECT
from tools.notebook_outputs import copy_outputs

FOUND = sorted((PROJECT / "notebooks").glob("*.ipynb"))
SECRET = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|gh[opsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|AKIA[0-9A-Z]{16})\b")
LOCAL = re.compile(r"(?<![\w./:<])(/(home|Users|root|tmp|work|mnt|private|workspace|opt)/|[A-Z]:\\\\?Users)")

FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`", re.DOTALL)
ITALIC = re.compile(r"(?<![*\w])\*([A-Za-z][^*\n]*)\*(?!\*)")
# What takes more than ten seconds in some profile, and what a cell should leave to the next.
LONG = re.compile(
    r"\b(assemble|batches\.build|train_runs|train_vision|train_omics|embed_all|umap2d|prepare_slides"
    r"|section_statistics|embed_patches)\(|\.run\(\)"
)
DRAWING = re.compile(r"\bmark\(|_figure\(|\.style\b|\bdisplay\(")
MOST_BYTES = 1_500_000


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(outputs) -> str:
    """All that outputs show as text; pictures are base64 and left out."""
    shown = []
    for output in outputs:
        shown.append(output.get("text", ""))
        shown += [str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
    return "\n".join(shown)


# --- as committed -------------------------------------------------------------------------------------------


def test_there_are_notebooks():
    names = [path.stem for path in FOUND]
    for number in ("00", "01", "02", "03", "04", "08"):
        assert any(name.startswith(f"{number}_") for name in names), f"notebook {number} is missing"


@pytest.fixture(params=FOUND, ids=lambda path: path.stem)
def committed(request):
    notebook = nbformat.read(request.param, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    return notebook


def test_opens_with_a_title_and_a_question(committed):
    assert committed.cells[0].cell_type == "markdown"
    assert committed.cells[0].source.startswith("# ")
    assert "?" in committed.cells[0].source


def test_explained_words_stand_in_the_glossary(committed):
    """Italics are for a word where a notebook explains it."""
    overview = nbformat.read(PROJECT / "notebooks" / "00_overview.ipynb", as_version=nbformat.NO_CONVERT)
    rows = [line for cell in overview.cells for line in cell.source.split("\n") if cell.id.startswith("00-03")]
    terms = [term.strip().lower() for row in rows if row.startswith("| ") for term in row.split("|")[1].split(",")]
    prose = "\n".join(FORMULA.sub("", cell.source) for cell in committed.cells if cell.cell_type == "markdown")
    words = {word.strip().lower() for word in ITALIC.findall(prose)}
    assert [w for w in words if not any(t.startswith((w, w.removesuffix("s"))) for t in terms if t)] == []


def test_every_parameter_is_read(committed):
    (cell,) = [c for c in committed.cells if "parameters" in c.metadata.get("tags", [])]
    values = {}
    exec(cell.source, values)
    del values["__builtins__"]
    assert values.items() <= {"profile": "demo", "seed": 0}.items()
    assert values["profile"] == "demo"  # make hands it to each, and Papermill would pass over one that is not there
    read = "\n".join(c.source for c in code(committed) if c is not cell)
    assert [name for name in values if not re.search(rf"\b{name}\b", read)] == []


def test_code_cells_are_short(committed):
    long = {c.source.split("\n")[0]: len(c.source.split("\n")) for c in code(committed)}
    assert max(long.values()) <= 20, long


def test_is_small_enough_to_read_in_a_browser(committed):
    assert len(nbformat.writes(committed)) < MOST_BYTES


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_links_lead_to_files(path):
    for source in (path, path.parent / "solutions" / path.name):
        notebook = nbformat.read(source, as_version=nbformat.NO_CONVERT)
        prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        for target in re.findall(r"\]\(([^)#]+)\)", FORMULA.sub("", prose)):
            assert target.startswith("https://") or (source.parent / target).is_file(), target


def test_every_call_that_takes_long_stands_alone_and_says_how_long(committed):
    said = ""
    for cell in committed.cells:
        if cell.cell_type == "markdown":
            said += cell.source
            continue
        if LONG.search(cell.source):
            assert re.search(r"second|minute|hour", said), cell.source
            assert not DRAWING.search(cell.source), cell.source
        said = ""


def test_kernel_is_any_python3(committed):
    assert committed.metadata.kernelspec.name == "python3"


def test_outputs_are_there_and_in_order(committed):
    assert any(cell.outputs for cell in code(committed)), "no outputs: make notebooks"
    counts = [cell.execution_count for cell in code(committed)]
    assert counts == list(range(1, len(counts) + 1)), "not run from top to bottom: make notebooks"
    assert not [o for cell in code(committed) for o in cell.outputs if o.output_type == "error"]


def test_nothing_local_or_secret_is_shown(committed):
    for cell in committed.cells:
        text = cell.source + "\n" + texts(cell.get("outputs", []))
        assert not SECRET.search(text)
        assert not LOCAL.search(text), LOCAL.search(text)
        assert "papermill" not in cell.metadata
    assert "papermill" not in committed.metadata


def test_local_paths_and_secrets_would_be_found():
    assert LOCAL.search("saved to /home/ada/seal/x.csv")
    assert LOCAL.search("PosixPath('/tmp/x')")
    assert not LOCAL.search("see https://github.com/home/x, results/demo/x.csv and notebooks/home/x")
    assert SECRET.search("hf_" + "a" * 34)


# --- their outputs --------------------------------------------------------------------------------------------


def write(path: Path, *sources: str) -> Path:
    """A notebook with a parameters cell and these code cells."""
    cells = [nbformat.v4.new_code_cell('profile = "demo"', metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def run(notebook: Path, out: Path) -> None:
    papermill.execute_notebook(notebook, out, {"profile": "her2st"}, kernel_name="python3", progress_bar=False)


@pytest.mark.slow
def test_outputs_go_into_the_source_and_nothing_else_does(tmp_path):
    notebook = write(tmp_path / "a.ipynb", "print(profile)", "profile + '!'")
    before = nbformat.read(notebook, 4)
    run(notebook, tmp_path / "build.ipynb")
    copy_outputs(tmp_path / "build.ipynb", notebook)
    after = nbformat.read(notebook, 4)
    assert [c.source for c in after.cells] == [c.source for c in before.cells]
    assert [c.metadata for c in after.cells] == [c.metadata for c in before.cells]
    assert after.metadata == before.metadata
    assert [c.execution_count for c in after.cells] == [1, 2, 3]
    assert texts(after.cells[1].outputs) == "her2st\n"
    assert after.cells[2].outputs[0].execution_count == 3


@pytest.mark.slow
def test_outputs_of_another_version_are_refused(tmp_path):
    notebook = write(tmp_path / "a.ipynb", "print(1)")
    run(notebook, tmp_path / "build.ipynb")
    changed = nbformat.read(notebook, 4)
    changed.cells[1].source = "print(2)"
    nbformat.write(changed, notebook)
    text = notebook.read_text()
    with pytest.raises(SealError, match=r"build\.ipynb"):
        copy_outputs(tmp_path / "build.ipynb", notebook)
    assert notebook.read_text() == text
