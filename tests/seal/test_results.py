"""Stamps, results that carry theirs, and digests of code."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from seal import paths, profiles, results
from seal.errors import SealError

DEMO, HER2ST = profiles.get("demo"), profiles.get("her2st")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SEAL_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A package seal of its own, so that sources can be changed."""
    files = {
        "seal/__init__.py": "",
        "seal/leaf.py": "x = 1\n",
        "seal/other.py": "y = 1\n",
        "seal/profiles.py": "import seal.other\n",
        "seal/results.py": "",
        "seal/look.mplstyle": "font.size: 6\n",
        "seal/sub/__init__.py": "",
        "seal/sub/deep.py": "from ..leaf import x\nSTYLE = 'look.mplstyle'\n",
        "seal/top.py": "import numpy\nfrom seal import profiles, provenance\ndef f():\n from seal.sub import deep\n",
        "seal/data/__init__.py": "",
        "seal/data/pairs.py": "import seal.leaf\n",
        "seal_atlas.py": "a = 1\n",
        "seal/data/her2st.py": "h = 1\n",
        "requirements.lock": "numpy==2\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(paths, "PROJECT", tmp_path)
    return tmp_path


def notebook(path, *cells):
    content = [{"cell_type": kind, "source": source, "outputs": []} for kind, source in cells]
    path.write_text(json.dumps({"cells": content}))
    return path


def test_imports_the_standard_library_alone():
    heavy = ["numpy", "torch", "pandas", "matplotlib", "scipy"]
    code = f"import sys, seal.results; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=paths.PROJECT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_module_files_follow_imports_of_every_kind(tree):
    names = {path.relative_to(tree).as_posix() for path in results.module_files("seal.top")}
    assert names == {
        "seal/__init__.py",
        "seal/top.py",
        "seal/profiles.py",
        "seal/other.py",
        "seal/results.py",
        "seal/sub/__init__.py",
        "seal/sub/deep.py",
        "seal/leaf.py",
        "seal/look.mplstyle",
    }


def test_an_unknown_module_is_named():
    with pytest.raises(SealError, match=r"seal\.nowhere"):
        results.module_files("seal.nowhere")


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("seal/leaf.py", True),
        ("seal/look.mplstyle", True),
        ("seal/sub/__init__.py", True),
        ("seal_atlas.py", False),
        ("seal/profiles.py", False),
        ("seal/results.py", False),
        ("seal/other.py", False),
    ],
)
def test_code_digest_changes_with_what_the_module_reaches(tree, file, counts):
    before = results.code_digest(["seal.top"])
    (tree / file).write_text((tree / file).read_text() + "# changed\n")
    assert (results.code_digest(["seal.top"]) != before) is counts


@pytest.mark.parametrize(
    ("file", "demo", "her2st"),
    [
        ("seal/leaf.py", True, True),
        ("seal_atlas.py", True, False),
        ("seal/data/her2st.py", False, True),
        ("seal/profiles.py", False, False),
        ("seal/top.py", False, False),
        ("requirements.lock", True, True),
    ],
)
def test_notebook_digest_changes_with_what_the_profile_reaches(tree, file, demo, her2st):
    path = notebook(
        tree / "n.ipynb", ("markdown", ["# n"]), ("code", "%matplotlib inline\nfrom seal.data import pairs")
    )
    before = [results.notebook_digest(path, name) for name in ("demo", "her2st")]
    assert before[0] != before[1]
    (tree / file).write_text((tree / file).read_text() + "# changed\n")
    after = [results.notebook_digest(path, name) for name in ("demo", "her2st")]
    assert [a != b for a, b in zip(after, before, strict=True)] == [demo, her2st]


def test_notebook_digest_ignores_outputs_but_not_text(tree):
    path = notebook(tree / "n.ipynb", ("markdown", "# n"), ("code", "import seal.leaf"))
    before = results.notebook_digest(path, "demo")
    content = json.loads(path.read_text())
    content["cells"][1]["outputs"] = [{"text": "1"}]
    path.write_text(json.dumps(content))
    assert results.notebook_digest(path, "demo") == before
    content["cells"][0]["source"] = "# m"
    path.write_text(json.dumps(content))
    assert results.notebook_digest(path, "demo") != before


def test_notebook_errors_name_the_cell_and_the_profile(tree):
    path = notebook(tree / "n.ipynb", ("code", "x = 1"), ("code", "x ="))
    with pytest.raises(SealError, match=r"n\.ipynb, cell 1"):
        results.notebook_digest(path, "demo")
    with pytest.raises(SealError, match="unknown profile 'dmeo'"):
        results.notebook_digest(path, "dmeo")


def panel(**columns):
    table = {"fold": ["A", "NA"], "rank": [1, 2], "gene": ["NAN", "None"], "test": [True, False], "organs": ["o", "p"]}
    return pd.DataFrame(table | columns)


def test_a_result_comes_back_as_it_went(home):
    path = results.write_result(DEMO, "panel", panel(), {"pairs": "abc"})
    assert path == home / "results" / "demo" / "panel.csv"
    pd.testing.assert_frame_equal(results.read_result(DEMO, "panel"), panel())
    stamp = json.loads((home / "results/demo/panel.csv.json").read_text())
    assert stamp["inputs"] == {"pairs": "abc"}
    assert (stamp["profile"], stamp["data"], stamp["rows"]) == ("demo", "simulated data", 2)
    assert stamp["seeds"] == [0, 1, 2]
    assert stamp["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert stamp["hardware"]["cores"] >= 1
    assert {"commit", "dirty", "time"} <= stamp.keys()


def test_bad_results_are_named(home):
    with pytest.raises(SealError, match=r"panel\.csv is missing(.|\n)*01_dataset with profile demo"):
        results.read_result(DEMO, "panel")
    with pytest.raises(SealError, match="unknown result 'pannel'"):
        results.read_result(DEMO, "pannel")
    with pytest.raises(SealError, match="'panel' lacks the columns rank, test"):
        results.write_result(DEMO, "panel", panel().drop(columns=["rank", "test"]), {})
    assert not (home / "results/demo/panel.csv").exists()


def test_a_result_that_differs_from_its_stamp_is_refused(home):
    path = results.write_result(DEMO, "panel", panel(), {})
    path.write_text(path.read_text().replace("None", "TP53"))
    with pytest.raises(SealError, match=r"panel\.csv differs from its stamp"):
        results.read_result(DEMO, "panel")


def test_data_label_says_simulated_as_soon_as_one_input_is():
    assert results.data_label(DEMO, ["encoders", "panel"]) == "simulated data"
    assert results.data_label(HER2ST, ["encoders", "panel"]) == "real data"
    assert results.data_label(DEMO, ["hest_metadata"]) == "real data"
    assert results.data_label(DEMO, ["encoders", "settings"]) == "no sample data"


def test_commit_is_none_outside_of_a_repository_of_its_own(tree):
    assert results.commit() == {"commit": None, "dirty": None}
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    assert results.commit() == {"commit": None, "dirty": True}


def test_no_git_at_all(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert results.commit() == {"commit": None, "dirty": None}
    assert results.hardware()["gpus"] == []
