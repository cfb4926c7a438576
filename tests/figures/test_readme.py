"""The README's table is what the committed reference says."""

import pytest

from figures import readme
from seal.errors import SealError


def test_the_readme_states_the_committed_results():
    text = readme.README.read_text(encoding="utf-8")
    assert f"{readme.BEGIN}\n{readme.both_tables()}\n{readme.END}" in text, "run python -m figures readme"


def test_the_table_has_its_rows_with_intervals_and_says_whose_data():
    head, _, *rows = readme.results_table().splitlines()
    assert "demo, simulated data" in head
    assert "her2st, real data" in head
    assert [row.split("|")[1].strip() for row in rows] == list(readme.ROWS)
    assert all("[" in row for row in rows)


def test_its_figures_are_there_and_small():
    text = readme.README.read_text(encoding="utf-8")
    for path in readme.PICTURES:
        assert f"(figures/reference/{path.name})" in text
        assert path.stat().st_size < 300_000


def test_its_figures_are_drawn_from_the_reference(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "PICTURES", [tmp_path / "F3.png"])
    assert [path.read_bytes()[:4] for path in readme.draw_pictures()] == [b"\x89PNG"]


def test_a_mark_that_is_missing_is_named_and_the_file_stays(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("no marks")
    with pytest.raises(SealError, match="lacks a mark"):
        readme.write(page)
    assert page.read_text() == "no marks"
