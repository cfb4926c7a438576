"""Stamps, and results that carry theirs."""

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


def test_imports_the_standard_library_alone():
    heavy = ["numpy", "torch", "pandas", "matplotlib", "scipy"]
    code = f"import sys, seal.results; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=paths.PROJECT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


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


def test_a_result_of_other_settings_is_refused(home):
    """Both lie under the profile's name; a figure says that it is of the profile's settings."""
    results.write_result(profiles.changed(DEMO, vision__rank=16), "panel", panel(), {})
    with pytest.raises(SealError, match=r"panel\.csv was made with other settings than demo's(.|\n)*run notebook"):
        results.read_result(DEMO, "panel")


def test_words_and_workers_make_no_result_another(home):
    results.write_result(profiles.changed(DEMO, needs="a minute", compute__workers=3), "panel", panel(), {})
    pd.testing.assert_frame_equal(results.read_result(DEMO, "panel"), panel())


def test_data_label_says_simulated_as_soon_as_one_input_is():
    assert results.data_label(DEMO, ["encoders", "panel"]) == "simulated data"
    assert results.data_label(HER2ST, ["encoders", "panel"]) == "real data"
    assert results.data_label(DEMO, ["hest_metadata"]) == "real data"
    assert results.data_label(DEMO, ["encoders", "settings"]) == "no sample data"


def test_commit_is_none_outside_of_a_repository_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PROJECT", tmp_path)
    assert results.commit() == {"commit": None, "dirty": None}
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert results.commit() == {"commit": None, "dirty": False}
    (tmp_path / "x").touch()
    assert results.commit() == {"commit": None, "dirty": True}


def test_no_git_at_all(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert results.commit() == {"commit": None, "dirty": None}


def test_a_notebook_that_was_run_is_no_change_a_changed_cell_is(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PROJECT", tmp_path)

    def git(*words):
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True)

    def notebook(source, outputs=(), kind="code"):
        cell = {"cell_type": kind, "id": "a", "metadata": {}, "source": source, "outputs": list(outputs)}
        return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})

    path = tmp_path / "notebooks" / "a b.ipynb"
    path.parent.mkdir()
    path.write_text(notebook(["x = 1\n", "x"]))
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    assert results.commit()["dirty"] is False
    path.write_text(notebook("x = 1\nx", [{"output_type": "stream", "name": "stdout", "text": "1"}]))
    assert results.commit()["dirty"] is False, "only its output is another"
    git("add", ".")
    assert results.commit()["dirty"] is False, "staged or not"
    for other in (notebook("x = 2\nx"), notebook("x = 1\nx", kind="markdown"), "[]", "{"):
        path.write_text(other)
        assert results.commit()["dirty"] is True
    path.unlink()
    assert results.commit()["dirty"] is True
    git("checkout", "HEAD", ".")
    assert results.commit()["dirty"] is False
    (path.parent / "new.ipynb").write_text(notebook("x"))
    assert results.commit()["dirty"] is True


def test_a_result_written_again_from_the_same_keeps_its_file_and_its_stamp(home):
    table = panel(rank=[0.1 + 0.2, 1e-17])
    path = results.write_result(DEMO, "panel", table, {"pairs": ("abc",)})
    stamp = path.with_suffix(".csv.json")
    stamp.write_text(stamp.read_text().replace('"time": "2', '"time": "1'))  # long ago
    assert [line.split(",")[1] for line in path.read_text().splitlines()] == ["rank", "0.3", "0"]
    before = [(file.read_bytes(), file.stat().st_mtime_ns) for file in (path, stamp)]
    results.write_result(DEMO, "panel", panel(rank=[0.3, 0.0]), {"pairs": ("abc",)})  # summed in another order
    assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in (path, stamp)] == before
    results.write_result(DEMO, "panel", table, {"pairs": "other"})
    assert path.read_bytes() == before[0][0]
    assert stamp.read_bytes() != before[1][0], "what it was made from is said anew"
    results.write_result(DEMO, "panel", panel(rank=[0.300001, 0.0]), {"pairs": "other"})
    assert results.read_result(DEMO, "panel")["rank"].tolist() == [0.300001, 0]


def test_a_damaged_result_is_written_anew(home):
    path = results.write_result(DEMO, "panel", panel(), {})
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    results.write_result(DEMO, "panel", panel(), {})
    assert path.read_bytes() == whole


def test_six_digits_of_any_size(home):
    values = [123456789.0, -1.23456789e-7, 0.123456789, 12345.6789]
    path = results.write_result(DEMO, "panel", pd.concat([panel(), panel()]).assign(rank=values), {})
    assert [line.split(",")[1] for line in path.read_text().splitlines()[1:]] == [
        *("1.23457e+08", "-1.23457e-07", "0.123457", "12345.7")
    ]


# --- results that are kept ----------------------------------------------------------------------------------


@pytest.fixture
def kept(home):
    """Gives the panel by `keep_result`, and says how often it was computed."""
    calls = []

    def keep(inputs, profile=DEMO):
        return results.keep_result(profile, inputs, "panel", lambda: calls.append(1) or panel()), len(calls)

    return keep


def test_a_result_is_computed_once_from_the_same(kept, home):
    made = {"pairs": "abc", "runs": {"A/seed0/seal": "r"}}
    first, calls = kept(made)
    pd.testing.assert_frame_equal(first, panel())
    assert calls == 1
    stamp = json.loads((home / "results/demo/panel.csv.json").read_text())
    assert len(stamp["inputs"].pop("code")) == 64
    assert stamp["inputs"] == made
    again, calls = kept(made)
    pd.testing.assert_frame_equal(again, first)
    assert calls == 1


@pytest.mark.parametrize("change", ["inputs", "settings", "code", "packages", "file", "gone"])
def test_a_result_of_something_else_is_computed_anew(kept, home, monkeypatch, change):
    kept({"runs": {"A/seed0/seal": "r"}})
    inputs, profile, path = {"runs": {"A/seed0/seal": "r"}}, DEMO, home / "results/demo/panel.csv"
    if change == "inputs":
        inputs = {"runs": {"A/seed0/seal": "s"}}
    elif change == "settings":
        profile = profiles.changed(DEMO, evaluation__bootstrap=7)
    elif change == "code":
        monkeypatch.setattr(results, "_code", lambda source: "another")
    elif change == "packages":
        monkeypatch.setattr(results, "versions", lambda: {"numpy": "1"})
    elif change == "file":
        path.write_bytes(path.read_bytes()[:20])
    else:
        path.unlink()
    found, calls = kept(inputs, profile)
    pd.testing.assert_frame_equal(found, panel())
    assert calls == 2


def test_the_code_is_that_of_the_package_and_of_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PROJECT", tmp_path)

    def code(source):
        results._code.cache_clear()
        return results._code(source)

    def write(name, text="x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return code("seal_atlas")

    seen = [write("seal/a.py"), write("seal_atlas/b.py"), write("seal/evaluate/published.csv")]
    seen += [write("seal/a.py", "y"), write("seal/b.py", "y")]
    assert len(set(seen)) == 5
    for other in ("figures/c.py", "seal/README.md", "seal/__pycache__/a.pyc"):
        assert write(other) == seen[-1]
    assert code("seal") != seen[-1]
    results._code.cache_clear()
