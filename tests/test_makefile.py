"""What make runs again and what it leaves alone, and how it makes the environment.

Both with stand-ins: a script in place of the notebooks' runner, and one in place of Python.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from seal import paths

NAMES = [
    *("00_overview", "01_dataset", "02_seal_omics", "03_seal_vision", "04_patch_level", "05_slide_level"),
    "08_figures_and_tables",
]
WITHOUT_SLIDES = [name for name in NAMES if name != "05_slide_level"]

RUNNER = """
import os, pathlib, sys, time
name = pathlib.Path(sys.argv[1]).stem
out, profile = pathlib.Path(sys.argv[2]), sys.argv[sys.argv.index("profile") + 1]
log = open("log", "a", buffering=1)
print("+", name, file=log)
time.sleep(0.05)
out.write_text("half")
if name == os.environ.get("FAIL"):
    sys.exit(1)
pathlib.Path("results", profile).mkdir(parents=True, exist_ok=True)
if name.startswith("08"):
    pathlib.Path("figures", profile).mkdir(parents=True, exist_ok=True)
    pathlib.Path("figures", profile, "manifest.json").touch()
print("-", name, file=log)
"""

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
FORMAT = {"metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5}

PYTHON = """#!/bin/sh
echo "$*" >> log
case "$*" in
  *version_info*) exit ${OLD:-0} ;;
  "-c import venv"*) exit ${NO_VENV:-0} ;;
  "-m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
  "-m pip install "*uv==*) exit ${NO_UV:-0} ;;
  "-m uv "*) exit $((${NO_UV:-0} + ${OFFLINE:-0})) ;;
  "-m pip install "*) exit ${OFFLINE:-0} ;;
esac
"""


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


class Project:
    """A copy of the project with tiny notebooks; `make` gives what ran."""

    PYTHONS = (f"PY={sys.executable}", f"PYTHON={sys.executable} -S")

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        for name in ("Makefile", "requirements.lock"):
            shutil.copy(paths.PROJECT / name, root / name)
        shutil.copytree(paths.PROJECT / "seal", root / "seal", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("notebooks", "seal_atlas/tables", "figures"):
            (root / name).mkdir(parents=True)
        for name in NAMES:
            title = {
                "cell_type": "markdown",
                "id": "t",
                "metadata": {},
                "source": [f"# {name[:2]} · On {name[3:]}\n", "."],
            }
            code = {"cell_type": "code", "id": "c", "metadata": {}, "outputs": [], "source": ["1 + 1"]}
            notebook = {"cells": [title, code | {"execution_count": None}], **FORMAT}
            text = json.dumps(notebook, indent=1, ensure_ascii=False)
            (root / "notebooks" / f"{name}.ipynb").write_text(text, encoding="utf-8")
        (root / "runner.py").write_text(RUNNER)
        (root / "draw").write_text('echo "= $*" >> log\n')
        (root / "python").write_text(PYTHON)
        (root / "python").chmod(0o755)

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        (self.root / "log").write_text("")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "SEAL_"))}
        return subprocess.run(
            ["make", *arguments], cwd=self.root, env={**clean, **environment}, capture_output=True, text=True
        )

    def log(self) -> list[str]:
        return (self.root / "log").read_text().splitlines()

    def figures(self, *arguments: str, **environment: str) -> list[str]:
        """Names of the notebooks that `make figures` started, in order."""
        runner = f"{sys.executable} -S runner.py"
        self.done = self.make("figures", *self.PYTHONS, f"RUN={runner}", "DRAW=sh draw", *arguments, **environment)
        return [line[2:] for line in self.log() if line.startswith("+")]


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "a project")  # make and blanks do not go together by themselves


@pytest.fixture
def built(project) -> Project:
    assert project.figures() == NAMES, project.done.stderr
    assert project.done.returncode == 0
    return project


# --- what runs again ----------------------------------------------------------------------------------------


def test_nothing_changed_nothing_runs(built):
    assert built.figures() == []
    assert built.done.returncode == 0


def test_a_notebook_takes_its_dependants_along(built):
    edit(built.root / "notebooks" / "03_seal_vision.ipynb", "1 + 1", "1 + 2")
    assert built.figures() == NAMES[3:]
    assert built.figures() == []


@pytest.mark.parametrize("module", ["seal/losses.py", "seal_atlas/tables/organs.csv", "figures/style.py"])
def test_a_changed_package_runs_all_notebooks_again(built, module):
    (built.root / module).write_text("x = 2\n")
    assert built.figures() == NAMES
    assert built.figures() == []


def test_what_the_figures_are_held_against_is_no_source(built):
    (built.root / "figures" / "demo" / "tables").mkdir()
    (built.root / "figures" / "demo" / "tables" / "T1.csv").write_text("x")
    assert built.figures() == []


@pytest.mark.slow
def test_another_copy_of_her2st_concerns_that_profile_alone(built):
    assert built.figures("PROFILE=her2st") == WITHOUT_SLIDES
    assert built.figures("PROFILE=her2st", "SEAL_HER2ST=../x") == WITHOUT_SLIDES
    assert built.figures("PROFILE=her2st", SEAL_HER2ST="../x") == []


def test_the_slide_level_runs_where_there_are_slides_with_labels(project):
    assert project.figures("PROFILE=her2st") == WITHOUT_SLIDES
    assert project.figures("PROFILE=her2st", "SEAL_SLIDES=../own") == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("deleted", ["figures/demo", "results"])
def test_deleted_results_or_figures_are_made_again(built, deleted):
    shutil.rmtree(built.root / deleted)
    assert built.figures() == NAMES


def test_a_failed_notebook_leaves_no_target_and_stops_what_depends_on_it(built):
    edit(built.root / "notebooks" / "02_seal_omics.ipynb", "1 + 1", "1 + 2")
    assert built.figures(FAIL="02_seal_omics") == ["02_seal_omics"]
    assert built.done.returncode == 2
    build = built.root / "build" / "demo"
    assert not (build / "02_seal_omics.ipynb").exists()
    assert (build / "02_seal_omics.failed.ipynb").read_text() == "half"
    assert "02_seal_omics.failed.ipynb" in built.done.stderr
    assert built.figures() == NAMES[2:]
    assert not (build / "02_seal_omics.failed.ipynb").exists()


def test_in_parallel_each_waits_for_what_it_needs(project):
    assert set(project.figures("-j4")) == set(NAMES)
    log = project.log()
    for before, after in (("01", "02"), ("02", "03"), ("03", "04"), ("00", "08"), ("04", "05"), ("05", "08")):
        name = {n[:2]: n for n in NAMES}
        assert log.index(f"- {name[before]}") < log.index(f"+ {name[after]}")
    assert log.index("+ 01_dataset") < log.index("- 00_overview") or log.index("+ 00_overview") < log.index(
        "- 01_dataset"
    ), "00 and 01 need not wait for each other"


def test_a_dry_run_tells_the_truth(built):
    assert "papermill" not in built.make("-n", "figures", *built.PYTHONS).stdout
    edit(built.root / "notebooks" / "04_patch_level.ipynb", "1 + 1", "1 + 2")
    told = built.make("-n", "figures", *built.PYTHONS).stdout
    assert "papermill notebooks/04_patch_level.ipynb" in told
    assert "papermill notebooks/08_figures_and_tables.ipynb" in told
    assert "papermill notebooks/03_seal_vision.ipynb" not in told


def test_an_unknown_profile_is_one_message(project):
    assert project.figures("PROFILE=dmeo") == []
    assert project.done.returncode == 2
    assert "unknown profile 'dmeo'" in project.done.stderr
    assert "Traceback" not in project.done.stderr
    assert not (project.root / "build").exists()


def test_places_hold_in_the_notebooks_folder_too(project):
    show = ["--eval", 'show: ; @cd notebooks && echo "$$SEAL_HER2ST|$$SEAL_HOME"', "show"]
    told = project.make(*show, "SEAL_HER2ST=../her2st", SEAL_HOME="big disk").stdout.strip()
    assert told == f"{project.root}/../her2st|{project.root}/big disk"
    assert project.make(*show, "SEAL_HER2ST=/data/x", SEAL_HOME="~/y").stdout.strip() == "/data/x|~/y"


def shown(project, *names: str, **environment: str) -> list[str]:
    """Environment variables that a process started by make has."""
    line = "|".join(f"$${name}" for name in names)
    return project.make("--eval", f'show: ; @echo "{line}"', "show", **environment).stdout.strip().split("|")


def test_another_clones_environment_and_path_run_this_clones_code(project, tmp_path):
    """PY= an environment whose `seal` is another's; a `seal` on the user's PYTHONPATH; a kernel in notebooks/."""
    (tmp_path / "other" / "seal").mkdir(parents=True)
    (tmp_path / "other" / "seal" / "__init__.py").write_text("raise SystemExit('another clone')\n")
    code = "import seal, other; print(seal.__file__)"
    (tmp_path / "other" / "other.py").touch()
    show = ["--eval", f"show: ; @cd notebooks && $(PY) -c '{code}'", "show", f"PY={sys.executable}"]
    done = project.make(*show, PYTHONPATH=str(tmp_path / "other"))
    assert done.stdout.strip() == str(project.root / "seal" / "__init__.py"), done.stderr
    assert shown(project, "PYTHONPATH", PYTHONPATH="") == [str(project.root)]


def test_pip_installs_into_the_environment_whatever_the_user_set(project):
    found = shown(project, "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", PIP_USER="1", PIP_TARGET="/x")
    assert found == ["0", "", "", ""]


def test_threads_spin_briefly_in_all_that_make_starts_unless_the_user_says(project, monkeypatch):
    names = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    for name in (*names, "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    assert shown(project, *names, OMP_WAIT_POLICY="passive") == ["", ""]
    assert shown(project, *names, GOMP_SPINCOUNT="7", KMP_BLOCKTIME="0") == ["7", "0"]
    assert shown(project, *names) == ["3000", "1"]


# --- what is said meanwhile ---------------------------------------------------------------------------------


def test_says_what_runs_of_how_many_how_long_it_took_and_where_all_lies(built):
    said = built.done.stdout.splitlines()
    started = [line for line in said if line.startswith("notebook ")]
    assert [line.split(";")[0] for line in started] == [
        f"notebook {i} of 7: {name} (On {name[3:]})" for i, name in enumerate(NAMES, start=1)
    ]
    for name in NAMES:
        assert any(line.startswith(f"  {name} took ") for line in said)
    end = "\n".join(said[-3:])
    for place in ("figures/demo/", "results/demo/", "build/demo/", "make lab", "make trace ID=F3"):
        assert place in end


def left(built, *arguments: str) -> list[str]:
    """What each notebook's line says of the time that is left, with all notebooks run again."""
    (built.root / "seal" / "losses.py").touch()
    built.figures(*arguments)
    lines = built.done.stdout.splitlines()
    return [line.split(" so far, ")[1] for line in lines if line.startswith("notebook ")]


def test_the_time_left_is_the_last_runs_or_the_tables_and_said_to_be(built):
    assert "min left, by times on two cores" in built.done.stdout
    (built.root / "build" / "demo" / ".seconds").write_text("".join(f"{name} 60\n" for name in ["04_x", *NAMES]))
    times = left(built)
    assert times[0] == "about 7 min left, by the last run here"
    assert times[-1] == "about 60 s left, by the last run here"
    last = (built.root / "build" / "demo" / ".seconds").read_text().splitlines()
    assert [line.split()[0] for line in last[-7:]] == NAMES, "each notes its own time"


def test_without_a_last_time_it_says_so(built):
    times = left(built, "PROFILE=her2st")
    assert times == ["how long is not known: it has not run here yet in this profile"] * 6
    (built.root / "build" / "her2st" / ".seconds").write_text("08_figures_and_tables 60\n")
    assert left(built, "PROFILE=her2st")[0] == "more than 60 s left, by times on two cores"


def test_what_needs_no_training_is_drawn_before_training(built):
    log = built.log()
    drawn = "= F1 T1 T2 T3 T4 T5 T6 T7 T8 --profile demo"
    assert log.index("- 01_dataset") < log.index(drawn) < log.index("+ 02_seal_omics")
    assert built.figures() == []
    assert built.log() == [], "and not again"


@pytest.mark.slow
def test_no_line_of_jupyters_and_all_of_an_error(project):
    target = "build/demo/00_overview.ipynb"
    done = project.make(target, *project.PYTHONS)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 2
    edit(project.root / "notebooks" / "00_overview.ipynb", "1 + 1", "1 / 0")
    done = project.make(target, *project.PYTHONS)
    assert done.returncode == 2
    assert "ZeroDivisionError" in done.stderr


def test_trace_without_an_id_is_one_message(project):
    done = project.make("trace", *project.PYTHONS)
    assert done.returncode == 2
    assert "make trace ID=F3" in done.stderr
    told = project.make("-n", "trace", "draw", "ID=T19", "PROFILE=her2st", "PY=python").stdout
    assert "python -m figures trace T19 --profile her2st" in told
    assert "python -m figures draw --profile her2st --reference" in told


# --- the environment ----------------------------------------------------------------------------------------


@pytest.fixture
def environment(project):
    """Call make for the environment alone, with a Python that only takes notes."""

    def make(*arguments: str, **variables: str) -> list[str]:
        project.done = project.make(".venv/.stamp", "PYTHON=./python", *arguments, **variables)
        return project.log()

    make.project = project
    return make


def test_is_made_once(environment):
    commands = environment()
    assert environment.project.done.returncode == 0, environment.project.done.stderr
    assert any(c.startswith("-m uv pip install") and "-r requirements.lock" in c for c in commands)
    assert "--compile-bytecode" in " ".join(commands)
    assert environment() == []
    (environment.project.root / "requirements.lock").touch()
    assert environment() == [], "touched, not changed"


def test_is_made_anew_for_another_lock_folder_or_broken_python(environment, tmp_path):
    root = environment.project.root
    environment()
    (root / ".venv" / "old").touch()
    lock = root / "requirements.lock"
    lock.write_text(lock.read_text().replace("timm==1.0.31", "timm==1.0.32"))
    os.utime(lock, (1, 1))  # by content, not by date
    assert environment() != []
    assert not (root / ".venv" / "old").exists()
    (root / ".venv" / "bin" / "python").unlink()
    assert environment() != []
    environment.project.root = root.rename(tmp_path / "moved")
    assert environment() != []


def test_what_did_not_get_done_is_not_taken_for_whole(environment):
    environment(OFFLINE="1")
    done = environment.project.done
    assert done.returncode == 2
    assert "what to do: " in done.stderr
    assert not (environment.project.root / ".venv" / ".stamp").exists()
    assert any("requirements.lock" in c for c in environment())
    assert environment() == []


def test_pip_does_it_where_uv_is_not_to_be_had(environment):
    commands = environment(NO_UV="1")
    assert environment.project.done.returncode == 0
    assert any(c.startswith("-m pip install") and "-r requirements.lock" in c for c in commands)


@pytest.mark.parametrize(("lack", "named"), [("OLD", "Python 3.11"), ("NO_VENV", "python3-venv")])
def test_an_unfit_python_is_told_at_once(environment, lack, named):
    environment(**{lack: "1"})
    done = environment.project.done
    assert done.returncode == 2
    assert named in done.stderr
    assert "what to do: " in done.stderr
    assert not (environment.project.root / ".venv").exists()


def test_cpu_torch_comes_from_its_index_and_brings_no_cuda(environment):
    root = environment.project.root
    commands = environment("TORCH=cpu")
    first, second = (c for c in commands if c.startswith("-m uv pip install"))
    assert "--index-url https://download.pytorch.org/whl/cpu" in first
    assert "pytorch.org" not in second
    pair, rest = (root / ".venv" / "torch.txt").read_text(), (root / ".venv" / "rest.txt").read_text()
    assert [line.split("==")[0] for line in pair.splitlines()] == ["torch", "torchvision"]
    names = [line.split("==")[0] for line in rest.splitlines()]
    assert {"timm", "peft", "numpy"} <= set(names)
    assert not [n for n in names if n.startswith(("nvidia", "cuda", "triton")) or n in ("torch", "torchvision")]
    left_out = set((root / "requirements.lock").read_text().splitlines()) - set((pair + rest).splitlines())
    assert {line.split("==")[0].split("-")[0] for line in left_out} == {"cuda", "nvidia", "triton"}
    assert environment() == [], "kept without saying so again"
    assert any("-r requirements.lock" in c for c in environment("TORCH=cuda"))


def test_an_unknown_torch_is_an_error(environment):
    environment("TORCH=gpu")
    assert environment.project.done.returncode == 2
    assert "TORCH=gpu: expected cpu or cuda" in environment.project.done.stderr


def test_make_alone_explains_without_making_anything(project):
    done = project.make()
    assert done.returncode == 0
    for word in ("figures", "test", "check", "lab", "status", "clean", "TORCH=cpu", "her2st", "maple", "token"):
        assert word in done.stdout
    assert not (project.root / ".venv").exists()
