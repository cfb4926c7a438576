"""Places that the environment names mean the same for make, a shell and a notebook."""

import pytest

from seal import paths
from seal.data.sources import hest


@pytest.mark.parametrize("where", [".", "notebooks", "elsewhere"])
def test_a_relative_home_starts_at_the_projects_root_wherever_a_process_runs(monkeypatch, tmp_path, where):
    place = tmp_path if where == "elsewhere" else paths.PROJECT / where
    monkeypatch.chdir(place)
    monkeypatch.setenv("SEAL_HOME", "out/../big disk")
    assert paths.home() == paths.PROJECT / "big disk"
    assert paths.runs("demo") == paths.PROJECT / "big disk" / "runs" / "demo"
    monkeypatch.setenv("SEAL_HEST", "../hest")
    assert hest.home() == paths.PROJECT / "../hest"
    assert paths.given("SEAL_HEST") == hest.home()


def test_absolute_home_and_unset_places(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SEAL_HOME", "~/x")
    assert paths.home() == tmp_path / "x"
    monkeypatch.setenv("SEAL_HOME", str(tmp_path))
    assert paths.home() == tmp_path
    monkeypatch.setenv("SEAL_HOME", "")
    assert paths.home() == paths.PROJECT
    assert paths.given("SEAL_HEST") is None
