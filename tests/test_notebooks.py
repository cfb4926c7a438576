"""Notebooks as they are committed, and running them.

That they run from top to bottom in the demo profile is `make test`'s part: it hands them to nbval.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from seal import notebooks
from seal.__main__ import main
from seal.errors import SealError
from seal.paths import PROJECT

FOUND = sorted((PROJECT / "notebooks").glob("*.ipynb"))
SECRET = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|gh[opsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|AKIA[0-9A-Z]{16})\b")
LOCAL = re.compile(r"(?<![\w./:<])(/(home|Users|root|tmp|work|mnt|private|workspace|opt)/|[A-Z]:\\\\?Users)")


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(outputs) -> str:
    """All that outputs show as text; pictures are base64 and left out."""
    shown = []
    for output in outputs:
        shown.append(output.get("text", ""))
        shown += [str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/png")]
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


def test_parameters_cell_sets_profile_and_seed(committed):
    (cell,) = [c for c in committed.cells if "parameters" in c.metadata.get("tags", [])]
    values = {}
    exec(cell.source, values)
    del values["__builtins__"]
    assert values == {"profile": "demo", "seed": 0}


def test_code_cells_are_short(committed):
    long = {c.source.split("\n")[0]: len(c.source.split("\n")) for c in code(committed)}
    assert max(long.values()) <= 20, long


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


# --- running ------------------------------------------------------------------------------------------------


def write(path: Path, *sources: str) -> Path:
    """A notebook with a parameters cell and these code cells."""
    cells = [nbformat.v4.new_code_cell('profile = "demo"\nseed = 0', metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def run(notebook: Path, out: Path, *more: str, **environment: str) -> subprocess.CompletedProcess:
    """`python -m seal run` as make calls it."""
    command = [sys.executable, "-m", "seal", "run", str(notebook), "--out", str(out), *more]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_runs_in_its_folder_with_this_python_whatever_else_is_registered(tmp_path):
    for root in ("cluster", "user"):
        kernel = tmp_path / root / "kernels" / "python3"
        kernel.mkdir(parents=True)
        spec = {"argv": ["false", "{connection_file}"], "display_name": "another", "language": "python"}
        (kernel / "kernel.json").write_text(json.dumps(spec))
    folder = tmp_path / "notebooks"
    folder.mkdir()
    source = "import os, sys, seal\nprint(sys.executable, sys.prefix, os.getcwd(), profile, seed, sep='|')"
    places = {"JUPYTER_PATH": str(tmp_path / "cluster"), "JUPYTER_DATA_DIR": str(tmp_path / "user")}
    out = tmp_path / "build" / "a.ipynb"
    done = run(write(folder / "a.ipynb", source), out, "--profile", "her2st", "-p", "seed=7", **places)
    assert done.returncode == 0, done.stderr
    printed = texts(code(nbformat.read(out, 4))[-1].outputs).strip().split("|")
    assert printed == [sys.executable, sys.prefix, str(folder), "her2st", "7"]
    assert re.search(r"a.*\d+ s, peak memory \d+\.\d", done.stdout.splitlines()[-1])
    (line,) = (out.parent / "costs.jsonl").read_text().splitlines()
    cost = json.loads(line)
    assert cost["notebook"] == "a"
    assert cost["seconds"] > 0
    assert sorted(path.name for path in out.parent.iterdir()) == ["a.ipynb", "costs.jsonl"]


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["-p", "sede=1"], "'sede'"),
        (["-p", "seed=one"], "seed=one"),
        (["--profile", "dmeo"], "'dmeo'"),
    ],
)
def test_unknown_parameters_values_and_profiles_are_errors(tmp_path, capsys, more, named):
    out = tmp_path / "out.ipynb"
    assert main(["run", str(write(tmp_path / "a.ipynb")), "--out", str(out), *more]) == 2
    message = capsys.readouterr().err
    assert named in message
    assert "expected: " in message
    assert not out.exists()


def test_missing_notebook_is_named(tmp_path, capsys):
    assert main(["run", str(tmp_path / "none.ipynb"), "--out", str(tmp_path / "out.ipynb")]) == 2
    assert "none.ipynb" in capsys.readouterr().err


@pytest.mark.slow
def test_our_own_error_in_a_cell_is_its_message_alone(tmp_path):
    source = "from seal import SealError\nraise SealError('B4.tsv is empty', expected='spots', do='get it again')"
    out = tmp_path / "build" / "a.ipynb"
    out.parent.mkdir()
    out.write_text("an older copy")
    done = run(write(tmp_path / "a.ipynb", source, "print('not reached')"), out)
    assert done.returncode == 2
    assert "B4.tsv is empty" in done.stderr
    assert "what to do: get it again" in done.stderr
    assert len(done.stderr.splitlines()) <= 5, done.stderr
    assert [path.name for path in out.parent.iterdir()] == ["a.failed.ipynb"]
    assert nbformat.read(out.with_suffix(".failed.ipynb"), 4).cells[-1].execution_count is None


@pytest.mark.slow
def test_any_other_error_shows_where_it_came_from(tmp_path):
    out = tmp_path / "a.ipynb.out.ipynb"
    done = run(write(tmp_path / "a.ipynb", "def f():\n    return 1 / 0\n\nf()"), out)
    assert done.returncode == 2
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "return 1 / 0" in done.stderr
    assert not out.exists()


@pytest.mark.slow
def test_a_kernel_killed_for_memory_is_explained(tmp_path):
    out = tmp_path / "out.ipynb"
    done = run(write(tmp_path / "a.ipynb", "import os\nos._exit(137)"), out)
    assert done.returncode == 2
    assert "memory" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_half_written(tmp_path):
    started, out = tmp_path / "started", tmp_path / "build" / "a.ipynb"
    source = f"import os, pathlib, time\npathlib.Path('{started}').write_text(str(os.getpid()))\ntime.sleep(60)"
    command = [sys.executable, "-m", "seal", "run", str(write(tmp_path / "a.ipynb", source)), "--out", str(out)]
    process = subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (started.is_file() and started.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("interrupted")
    assert list(out.parent.glob("*")) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


@pytest.mark.slow
def test_outputs_go_into_the_source_and_nothing_else_does(tmp_path):
    notebook = write(tmp_path / "a.ipynb", "print(seed)", "seed + 1")
    before = nbformat.read(notebook, 4)
    done = run(notebook, tmp_path / "build.ipynb", "-p", "seed=3")
    assert done.returncode == 0, done.stderr
    notebooks.copy_outputs(tmp_path / "build.ipynb", notebook)
    after = nbformat.read(notebook, 4)
    assert [c.source for c in after.cells] == [c.source for c in before.cells]
    assert [c.metadata for c in after.cells] == [c.metadata for c in before.cells]
    assert after.metadata == before.metadata
    assert [c.execution_count for c in after.cells] == [1, 2, 3]
    assert texts(after.cells[1].outputs) == "3\n"
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
        notebooks.copy_outputs(tmp_path / "build.ipynb", notebook)
    assert notebook.read_text() == text
