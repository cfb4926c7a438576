"""The way from a figure back to its cause: every step, whether it is there and current, and the command."""

import pytest

from figures import draw, reference, sources
from figures.__main__ import main
from figures.trace import trace
from seal import paths, profiles, results
from seal.errors import SealError
from seal.files import write_json
from tests.figures.made_up import ablation_table, patch_tables

DEMO, HER2ST = profiles.get("demo"), profiles.get("her2st")
RUN = "A/seed0/seal"
RUNS = {RUN: "r" * 64, f"vision__rank=32/{RUN}": "r" * 64}


@pytest.fixture
def drawn(home, tmp_path, monkeypatch):
    """T51 drawn, with what its results came from: pairs, tokens, a run and one of changed settings."""
    monkeypatch.setattr(sources, "REFERENCE", tmp_path / "reference")
    write_json(paths.pairs("demo") / "pairs.json", {"key": "p" * 64})
    write_json(paths.tokens("demo") / "tokens.json", {"key": "t" * 64})
    for run, key in RUNS.items():
        write_json(paths.runs("demo") / run / "run.json", {"key": key})
    made = {"pairs": "p" * 64, "tokens": "t" * 64, "runs": {RUN: "r" * 64}}
    results.write_result(DEMO, "patch_level_summary", patch_tables()[1], made)
    results.write_result(DEMO, "ablations", ablation_table(), made | {"runs": RUNS})
    draw.draw(DEMO, ["T51"])
    return home / "figures" / "demo"


def line(text: str, start: str) -> str:
    """The line that begins so."""
    (found,) = [line.strip() for line in text.splitlines() if line.strip().startswith(start)]
    return found


def test_the_whole_way(drawn):
    text = trace(DEMO, "T51")
    assert text.startswith("T51  Ablation: loss terms  (simulated data, profile demo)\ndrawn\n")
    entry = draw.manifest(DEMO)["T51"]
    digest = entry["files"]["tables/T51.csv"][:10]
    assert line(text, "figures/demo/tables/T51.csv") == f"figures/demo/tables/T51.csv {digest}: there, as when drawn"
    assert line(text, "figures.T51").startswith("figures.T51_T54_ablations:ablated, figures/T51_T54_ablations.py")
    result = results.read_stamp(DEMO, "ablations")["sha256"][:10]
    assert line(text, f"results/demo/ablations.csv {result}").endswith(": there, as when this was drawn")
    assert line(text, "notebooks/").startswith("notebooks/04_patch_level.ipynb, which writes ablations.csv")
    assert line(text, "from pairs") == "from pairs pppppppppp, data/pairs/demo/: there, as when they were used"
    assert line(text, "from tokens").endswith("there, as when they were used")
    assert line(text, f"runs/demo/{RUN}") == f"runs/demo/{RUN} rrrrrrrrrr: there, as when this was drawn"
    assert line(text, "runs/demo/vision__rank=32").endswith("there, as when this was drawn")
    assert line(text, "seeds") == "seeds 0, 1, 2"
    assert line(text, "make") == "make build/demo/04_patch_level.ipynb PROFILE=demo"
    assert line(text, "python -m figures draw") == "python -m figures draw T51 --profile demo"


def test_the_manifest_names_function_results_and_runs(drawn):
    entry = draw.manifest(DEMO)["T51"]
    assert entry["function"] == "figures.T51_T54_ablations:ablated"
    table = entry["inputs"]["ablations"]
    assert table["sha256"] == results.read_stamp(DEMO, "ablations")["sha256"]
    assert (table["notebook"], table["made_from"]["tokens"]) == ("04_patch_level", "t" * 64)
    assert "runs" not in table["made_from"]
    assert entry["runs"] == RUNS


def test_the_runs_of_a_score_are_those_of_its_stamp(drawn):
    assert sources.Source(DEMO).runs("patch_level_summary") == {RUN: "r" * 64}
    assert sources.Source(DEMO).runs("panel") == {}
    assert "from runs" not in trace(DEMO, "T51")


def test_what_has_changed_since_is_said_to_be_stale(drawn):
    results.write_result(DEMO, "ablations", ablation_table(0.01), {"pairs": "p" * 64, "tokens": "t" * 64, "runs": RUNS})
    write_json(paths.pairs("demo") / "pairs.json", {"key": "q" * 64})
    write_json(paths.runs("demo") / RUN / "run.json", {"key": "s" * 64})
    (drawn / "tables/T51.md").unlink()
    text = trace(DEMO, "T51")
    assert line(text, "stale").startswith("stale: ablations.csv has changed, tables/T51.md is gone")
    now = results.read_stamp(DEMO, "ablations")["sha256"][:10]
    assert line(text, "results/demo/ablations.csv").endswith(f"stale: there is another now ({now})")
    assert line(text, "from pairs").endswith("stale: there is another now (qqqqqqqqqq)")
    assert line(text, f"runs/demo/{RUN}").endswith("stale: there is another now (ssssssssss)")
    assert line(text, "figures/demo/tables/T51.md").endswith("not there")


def test_a_result_that_is_not_as_its_notebook_wrote_it_is_named(drawn):
    path = results.result_path(DEMO, "ablations")
    path.write_text(path.read_text() + "\n")
    assert line(trace(DEMO, "T51"), "results/demo/ablations.csv").endswith("it is not as its notebook wrote it")


def test_where_nothing_was_run_the_way_goes_through_the_reference(drawn, monkeypatch, tmp_path):
    reference.save(DEMO)
    monkeypatch.setenv("SEAL_HOME", str(tmp_path / "empty"))
    text = trace(DEMO, "T51")
    assert text.splitlines()[1].startswith("not there yet: ablations.csv missing: run notebook 04_patch_level")
    assert "reference/demo/ablations.csv" in text
    assert "of results/demo/ablations.csv" in text
    assert line(text, "from pairs") == "from pairs pppppppppp, data/pairs/demo/: not there"
    assert line(text, f"runs/demo/{RUN}") == f"runs/demo/{RUN} rrrrrrrrrr: not there"
    assert "python -m figures draw T51 --profile demo --reference" in text
    draw.draw(DEMO, ["T51"], committed=True)
    assert trace(DEMO, "T51").splitlines()[1] == "drawn: from the reference"


def test_what_nobody_can_draw_says_why(drawn):
    text = trace(DEMO, "F4")
    assert text.splitlines()[1] == "not there yet: notebook 07_retrieval does not make its results yet"
    assert "profile her2st cannot produce it, demo and maple can" in trace(HER2ST, "T14")


@pytest.mark.parametrize(("id", "meant"), [("t51", "'T51'"), ("T99", "'T9'"), ("F9", "F1-F4"), ("x", "make status")])
def test_an_unknown_id_names_near_ones(drawn, id, meant, capsys):
    with pytest.raises(SealError, match=rf"unknown artefact '{id}'(?s:.)*{meant}"):
        trace(DEMO, id)
    assert main(["trace", id]) == 2
    assert meant in capsys.readouterr().err


def test_the_command_prints_it(drawn, capsys):
    assert main(["trace", "T51", "--profile", "demo"]) == 0
    assert capsys.readouterr().out == trace(DEMO, "T51")
