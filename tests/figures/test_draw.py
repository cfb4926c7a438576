"""The register, what can be drawn, and the stamps of what is."""

import dataclasses
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from figures import draw, sources
from figures.__main__ import main
from figures.draw import DRAWN, MISSING, REGISTER, STALE
from figures.trace import trace
from seal import paths, profiles, results
from seal.errors import SealError
from seal.files import sha256
from tests.figures.made_up import (
    METHODS,
    ablation_table,
    curve_table,
    map_table,
    patch_tables,
    scaling_table,
    section_table,
)

DEMO, HER2ST, MAPLE = (profiles.get(name) for name in ("demo", "her2st", "maple"))


def samples(simulated=True) -> pd.DataFrame:
    """Made-up samples."""
    row = {"organ": "Breast", "disease_state": "Cancer", "technology": "ST", "spots": 10, "pairs": 10}
    frame = pd.DataFrame([{"id": i, "donor": i, **row} for i in ("s1", "s2")])
    return frame.assign(dataset="made up", licence="none", simulated=simulated, fold=frame["donor"])


def write_e5(profile=DEMO) -> Path:
    """The results of E5; the path of the curves."""
    results.write_result(profile, "ablations", ablation_table(), {})
    results.write_result(profile, "patch_level_summary", patch_tables()[1], {})
    return results.write_result(profile, "training_curves", curve_table(), {})


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SEAL_HOME", str(tmp_path))
    monkeypatch.setattr(sources, "REFERENCE", tmp_path / "no reference")
    return tmp_path


def states(profile) -> dict[str, str]:
    return {s.id: s.state for s in draw.status(profile)}


def why(profile, id) -> str:
    return next(s.why for s in draw.status(profile) if s.id == id)


def test_the_register_is_whole():
    assert list(REGISTER) == ["F1", "F2", "F3", "F4", *(f"E{i}" for i in range(1, 6)), *(f"T{i}" for i in range(1, 55))]
    assert sum(a.kind == "figure" for a in REGISTER.values()) == 9
    assert {a.id for a in REGISTER.values() if a.caption_source == "paper"} == {"F1", "F2", "F3", "E1", "E2"}


@pytest.mark.parametrize("artefact", REGISTER.values(), ids=REGISTER)
def test_every_entry_can_be_drawn_or_says_what_it_lacks(artefact):
    assert artefact.title
    assert artefact.caption
    assert set(artefact.profiles) <= set(profiles.PROFILES)
    assert re.fullmatch(r"0\d_\w+", artefact.notebook)
    if artefact.draw:
        taken = inspect.signature(artefact.function()).parameters
        assert {*artefact.results, *artefact.extras, artefact.instead} - {""} <= set(taken)
        options = {option.partition("=")[0] for option in artefact.options}
        assert options <= set(taken) <= {*artefact.results, *artefact.extras, artefact.instead, *options}
    else:
        assert artefact.lacks
        assert not artefact.drawn


CELLS = {
    "id": "F1",
    "title": "x",
    "caption": "A, a. | B, b. | Both.",
    "caption_source": "paper",
    "notebook": "01_dataset",
}
CELLS |= {"results": "samples", "instead": "", "optional": "", "profiles": "demo", "panels": "AB", "drawn": "A"}
CELLS |= {"draw": "F1_overview:overview_figure", "options": "", "lacks": ""}


def register(path: Path, *rows: dict[str, str]) -> Path:
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"caption_source": "hearsay"}, "caption_source"),
        ({"caption": "A, a. B, b."}, "caption"),
        ({"results": "sampels"}, "results"),
        ({"optional": "sampels"}, "results"),
        ({"instead": "sampels"}, "results"),
        ({"profiles": "demo dmeo"}, "profiles"),
        ({"drawn": "C"}, "drawn"),
        ({"results": ""}, "draw"),
        ({"draw": "", "results": ""}, "lacks"),
        ({"colour": "red"}, "its columns"),
    ],
)
def test_a_wrong_row_of_the_register_is_named(tmp_path, change, column):
    assert draw.read_register(register(tmp_path / "right.csv", CELLS))["F1"].results == ("samples",)
    with pytest.raises(SealError, match=rf"row F1 is wrong in {column}"):
        draw.read_register(register(tmp_path / "wrong.csv", CELLS | change))


def test_a_caption_speaks_of_the_drawn_panels_alone(tmp_path):
    def caption(**change):
        artefact = draw.read_register(register(tmp_path / "r.csv", CELLS | change))["F1"]
        return artefact.caption_of(artefact.panels_from(()))

    assert caption() == "A, a. Both."
    assert caption(drawn="AB") == "A, a. B, b. Both."
    assert caption(panels="", drawn="", caption="A table, of all.") == "A table, of all."
    figure = REGISTER["F3"]
    assert figure.panels_from(["patch_level", "baselines"]) == "AC"
    assert not re.search(r"HEST-Bench|\|", figure.caption_of("AC"))
    assert "HEST-Bench" in figure.caption_of(figure.panels_from(["hest_bench_summary"]))


def test_a_register_has_an_id_once_and_whole_rows(tmp_path):
    with pytest.raises(SealError, match="its id, which is there already"):
        draw.read_register(register(tmp_path / "twice.csv", CELLS, CELLS))
    path = register(tmp_path / "short.csv", CELLS)
    path.write_text(path.read_text() + "F2,only a title\n")
    with pytest.raises(SealError, match="row F2 is wrong in its columns"):
        draw.read_register(path)


def test_titles_are_distinct():
    titles = [a.title for a in REGISTER.values()]
    assert len(set(titles)) == len(titles)


def test_captions_are_not_the_papers_sentences():
    paper = paths.PROJECT.parent / "shared" / "paper.txt"
    if not paper.is_file():
        pytest.skip("the paper's public text is not here")
    words = re.findall(r"[a-z]+", paper.read_text().lower())
    runs = {tuple(words[i : i + 12]) for i in range(len(words) - 11)}
    for artefact in REGISTER.values():
        own = re.findall(r"[a-z]+", artefact.caption.lower())
        assert not runs & {tuple(own[i : i + 12]) for i in range(len(own) - 11)}, artefact.id


def test_nothing_there_yet_says_which_notebook_and_why(home):
    assert set(states(DEMO).values()) == {MISSING}
    assert why(DEMO, "E5") == (
        "training_curves.csv, ablations.csv, patch_level_summary.csv missing: run notebook 04_patch_level"
    )
    assert "profile her2st cannot produce it, demo and maple can" in why(HER2ST, "T14")
    assert "05_slide_level" in why(DEMO, "F2")
    text = draw.status_text(DEMO)
    assert "profile demo (simulated data): 0 drawn, 0 stale, 63 not there yet, of 63" in text
    assert "T12-T13: profile demo cannot produce it, maple can" in text


def test_draw_writes_stamped_files_and_only_what_can_be_drawn(home):
    results.write_result(DEMO, "samples", samples(), {})
    for name, table in zip(("patch_level", "patch_level_summary", "encoders"), patch_tables(), strict=True):
        missing = set(results.RESULTS[name].columns) - set(table)
        results.write_result(DEMO, name, table.assign(**dict.fromkeys(missing, "lora")), {})
    results.write_result(DEMO, "maps", map_table(["B4"], ["ERBB2"]), {})
    files = draw.draw(DEMO)
    folder = home / "figures" / "demo"
    expected = {f"{id}.{kind}" for id in ("F1", "F3", "E4") for kind in ("pdf", "png")}
    expected |= {f"tables/{id}.{kind}" for id in ("T1", "T2", "T3", "T4", "T5", "T9", "T19") for kind in ("csv", "md")}
    assert {path.relative_to(folder).as_posix() for path in files} == expected
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert present == expected | {"manifest.json"}
    assert {id for id, state in states(DEMO).items() if state == DRAWN} == {
        *("F1", "F3", "E4", "T1", "T2", "T3", "T4", "T5", "T9", "T19")
    }
    assert why(DEMO, "F3") == "panels A of ABC"
    assert [row[0] for row in pd.read_csv(folder / "tables/T19.csv")[["method"]].to_numpy()] == [
        label for label, *_ in METHODS.values()
    ]


def test_ablations_draw_e5_and_four_tables(home):
    write_e5()
    draw.draw(DEMO, ["E5", "T51", "T52", "T53", "T54"])
    drawn = {id for id, state in states(DEMO).items() if state == DRAWN}
    assert drawn == {"E5", "T51", "T52", "T53", "T54"}
    assert why(DEMO, "E5") == "panels AB of ABC"
    text = (home / "figures/demo/tables/T54.md").read_text()
    assert "## T54 Ablation: panel size and number of pairs" in text
    assert "Our first rows: seeds 1" in text


def test_e5_shows_the_recorded_study_in_the_demo_alone(home):
    """It lies beside the references, not among the results, whoever draws."""
    for profile in (DEMO, HER2ST):
        write_e5(profile)
    path = results.write_result(
        profiles.changed(DEMO, vision__epochs=3), "scaling", scaling_table(), {"grown pairs": "x"}
    )
    for file in (path, path.with_suffix(".csv.json")):
        (sources.REFERENCE / file.name).parent.mkdir(exist_ok=True)
        file.rename(sources.REFERENCE / file.name)
    draw.draw(DEMO, ["E5"])
    assert why(DEMO, "E5") == ""
    entry = draw.manifest(DEMO)["E5"]
    assert entry["panels"] == "ABC"
    assert entry["inputs"]["scaling"]["made_from"] == {"grown pairs": "x"}
    draw.draw(HER2ST, ["E5"])
    assert draw.manifest(HER2ST)["E5"]["panels"] == "AB"
    text = trace(DEMO, "E5")
    assert "benchmarks/scaling.py, which writes scaling.csv" in text
    assert "python benchmarks/scaling.py --record" in text
    assert "changed in" not in text
    recorded = sources.REFERENCE / "scaling.csv"
    recorded.write_text(recorded.read_text() + "\n")
    with pytest.raises(SealError, match=r"scaling\.csv is missing or differs"):
        draw.draw(DEMO, ["E5"])


def test_an_optional_result_is_drawn_where_it_is_there(home):
    results.write_result(DEMO, "patch_level_summary", patch_tables()[1], {})
    results.write_result(DEMO, "maps", map_table(["B4"], ["ERBB2"]), {})
    draw.draw(DEMO, ["E4"])
    assert set(draw.manifest(DEMO)["E4"]["inputs"]) == {"maps", "patch_level_summary"}
    first = draw.manifest(DEMO)["E4"]["files"]
    assert "attention" not in draw.manifest(DEMO)["E4"]["caption"]
    results.write_result(DEMO, "map_sections", section_table(["B4"]), {})
    assert why(DEMO, "E4").startswith("map_sections.csv has changed")
    draw.draw(DEMO, ["E4"])
    assert "map_sections" in draw.manifest(DEMO)["E4"]["inputs"]
    assert draw.manifest(DEMO)["E4"]["files"] != first


def test_stamps_agree_in_manifest_png_pdf_and_markdown(home):
    path = write_e5()
    results.write_result(DEMO, "samples", samples(), {})
    draw.draw(DEMO, ["E5", "T1"])
    entry = draw.manifest(DEMO)["E5"]
    needed = {"profile", "data", "seeds", "commit", "dirty", "inputs", "versions", "row", "version", "time"}
    assert needed <= entry.keys()
    assert entry["inputs"]["training_curves"]["sha256"] == sha256(path)
    assert {name: sha256(home / "figures/demo" / name) for name in entry["files"]} == entry["files"]
    with Image.open(home / "figures/demo/E5.png") as image:
        stamp = json.loads(image.text["Comment"])
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    assert {n: t["sha256"] for n, t in stamp["inputs"].items()} == {n: t["sha256"] for n, t in entry["inputs"].items()}
    assert (stamp["profile"], stamp["data"]) == ("demo", "simulated data")
    pdf = (home / "figures/demo/E5.pdf").read_bytes()
    assert b"/Keywords" in pdf
    assert entry["inputs"]["training_curves"]["sha256"].encode() in pdf
    text = (home / "figures/demo/tables/T1.md").read_text()
    assert json.loads(text.partition("<!-- ")[2].partition(" -->")[0])["artefact"] == "T1"


def test_simulated_data_is_marked_and_real_data_is_not(home):
    for profile in (DEMO, HER2ST):
        results.write_result(profile, "samples", samples(profile.simulated), {})
        draw.draw(profile, ["T1"])
    first = [(home / f"figures/{n}/tables/T1.md").read_text().splitlines()[0] for n in ("demo", "her2st")]
    assert first == ["**simulated data**, profile demo", "**real data**, profile her2st"]
    tables_csv = [pd.read_csv(home / f"figures/{n}/tables/T1.csv") for n in ("demo", "her2st")]
    assert set(tables_csv[0]["data"]) == {"simulated data"}
    assert "data" not in tables_csv[1]


@pytest.mark.slow
def test_real_metadata_replace_simulated_samples(home):
    results.write_result(DEMO, "samples", samples(), {})
    draw.draw(DEMO, ["F1"])
    assert draw.manifest(DEMO)["F1"]["data"] == "simulated data"
    selected = samples(simulated=False).assign(study="s", role="train")
    results.write_result(DEMO, "hest_metadata", selected, {})
    assert states(DEMO)["F1"] == STALE
    draw.draw(DEMO, ["F1"])
    entry = draw.manifest(DEMO)["F1"]
    assert (entry["data"], list(entry["inputs"])) == ("real data", ["hest_metadata"])


@pytest.mark.slow
def test_drawing_twice_gives_the_same_files(home):
    write_e5()
    draw.draw(DEMO, ["E5"])
    first = draw.manifest(DEMO)["E5"]["files"]
    draw.draw(DEMO, ["E5"])
    assert draw.manifest(DEMO)["E5"]["files"] == first


@pytest.mark.slow
def test_stale_when_an_input_a_file_the_row_or_the_version_changes(home, monkeypatch):
    results.write_result(DEMO, "samples", samples(), {})
    draw.draw(DEMO, ["T1", "T3"])
    assert states(DEMO)["T1"] == DRAWN
    (home / "figures/demo/tables/T3.md").unlink()
    assert why(DEMO, "T3").startswith("tables/T3.md is gone")
    with monkeypatch.context() as patch:
        patch.setattr(draw, "VERSION", draw.VERSION + 1)
        assert why(DEMO, "T1").startswith("the drawing code has changed")
    with monkeypatch.context() as patch:
        patch.setitem(REGISTER, "T1", dataclasses.replace(REGISTER["T1"], caption="another"))
        assert why(DEMO, "T1").startswith("its row of register.csv has changed")
    results.write_result(DEMO, "samples", samples().assign(spots=11), {})
    assert states(DEMO)["T1"] == STALE
    assert why(DEMO, "T1").startswith("samples.csv has changed")
    draw.draw(DEMO)
    assert states(DEMO)["T1"] == states(DEMO)["T3"] == DRAWN


def test_what_can_no_longer_be_drawn_is_removed(home):
    path = write_e5()
    draw.draw(DEMO)
    path.unlink()
    assert why(DEMO, "E5").startswith("drawn earlier, but now training_curves.csv missing")
    draw.draw(DEMO)
    assert states(DEMO)["E5"] == MISSING
    assert not (home / "figures/demo/E5.png").exists()


@pytest.mark.parametrize(
    ("id", "message"),
    [("F9", "unknown artefact 'F9'"), ("F2", "05_slide_level"), ("T1", "01_dataset"), ("T12", "profile demo cannot")],
)
def test_asking_for_what_cannot_be_drawn_is_an_error(home, id, message):
    with pytest.raises(SealError, match=message):
        draw.draw(DEMO, [id])
    assert not (home / "figures").exists()


def test_a_damaged_result_stops_the_drawing_and_leaves_no_file(home):
    path = write_e5()
    path.write_text("stage,term\n")
    with pytest.raises(SealError, match=r"training_curves\.csv"):
        draw.draw(DEMO)
    assert not (home / "figures").exists()


# --- the command line -------------------------------------------------------------------------------------


def test_status_loads_nothing_heavy():
    heavy = "numpy torch pandas matplotlib seaborn timm"
    code = f"import sys, figures.__main__ as m; m.main(['status']); print(set('{heavy}'.split()) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.PROJECT, check=True, capture_output=True, text=True)
    assert "not there yet" in done.stdout
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize("command", ["draw", "trace", "status", "reference"])
def test_each_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert "--profile" in capsys.readouterr().out


def test_the_command_line_draws_what_it_is_told(home, capsys):
    results.write_result(DEMO, "samples", samples(), {})
    assert main(["draw", "--profile", "demo", "T1", "T3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [Path(line).name for line in lines] == ["T1.csv", "T1.md", "T3.csv", "T3.md"]
    assert main(["draw"]) == 0
    picture, rest = capsys.readouterr().out.splitlines()
    assert Path(picture).name == "F1.png"
    assert rest == "4 tables in tables/ beside them, and each figure as PDF", "not a line for each of ten files"
    assert main(["status"]) == 0
    assert capsys.readouterr().out.startswith("profile demo (simulated data): 5 drawn, 0 stale, 58 not there yet")


def test_bad_input_is_one_message_and_exit_code_2(home, capsys):
    for arguments, what in ((["status", "--profile", "dmeo"], "'dmeo'"), (["draw", "F9"], "'F9'")):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert what in captured.err
        assert len(captured.err.splitlines()) == 3


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def interrupted(profile):
        raise KeyboardInterrupt

    monkeypatch.setattr(draw, "status_text", interrupted)
    assert main(["status"]) == 130
    assert "Traceback" not in capsys.readouterr().err
