"""Fixtures of all tests: a home of their own, and real data where it lies beside the project."""

from pathlib import Path

import pytest

from seal import paths


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path) -> Path:
    """Give each test an empty SEAL_HOME that shares the project's big downloads alone."""
    downloads = paths.PROJECT / "data" / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    (home / "data" / "downloads").symlink_to(downloads, target_is_directory=True)
    monkeypatch.setenv("SEAL_HOME", str(home))
    for name in ("SEAL_HER2ST", "SEAL_HEST"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real sections, slides and HEST-1k's metadata table."""
    folder = paths.PROJECT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}")
    return folder
