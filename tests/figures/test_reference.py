"""The reference: what is kept of results, agreement within the tolerance, drawing from it where nothing was run."""

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageChops

from figures import draw, reference, sources
from figures.__main__ import main
from figures.sources import Source
from seal import profiles, results
from seal.errors import SealError
from tests.figures.made_up import ablation_table, curve_table, map_table, patch_tables

DEMO, HER2ST, MAPLE = (profiles.get(name) for name in ("demo", "her2st", "maple"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where references are written, in place of the committed ones."""
    monkeypatch.setattr(sources, "REFERENCE", tmp_path / "reference")
    return tmp_path / "reference"


def write(means, profile=DEMO):
    rows = [
        {"task": "t", "encoder": "e", "method": m, "organ": "all", "metric": "pcc", "mean": v, "low": v, "high": v}
        | {"difference": 0.0, "difference_low": 0.0, "difference_high": 0.0, "folds": 2, "donors": 2, "seeds": 1}
        | {"split": "donor", "dealt": 0, "resample": "spots", "label": m, "kind": "control", "tested": "donors"}
        for m, v in means.items()
    ]
    results.write_result(profile, reference.RESULT, pd.DataFrame(rows), inputs={})


def write_all(profile=DEMO) -> None:
    """Results that draw F3, E4, E5, T5, T9, T19 and T51 to T54."""
    trained = {"pairs": "p" * 64, "tokens": "t" * 64}
    scores, summary, encoders = patch_tables()
    tables = {"patch_level": scores, "patch_level_summary": summary, "maps": map_table()}
    tables |= {"training_curves": curve_table(), "ablations": ablation_table()}
    for name, table in tables.items():
        results.write_result(profile, name, table, trained)
    missing = set(results.RESULTS["encoders"].columns) - set(encoders)
    results.write_result(profile, "encoders", encoders.assign(**dict.fromkeys(missing, "lora")), {})


@pytest.fixture
def saved(place):
    write({"frozen": 0.4, "seal": 0.41})
    return reference.save(DEMO)


# --- the verdict --------------------------------------------------------------------------------------------


def test_verdicts(saved):
    write({"frozen": 0.4, "seal": 0.43})
    assert reference.verdict(DEMO) == "every mean PCC is within 0.03 of the reference"
    write({"frozen": 0.4, "seal": 0.35})
    assert reference.verdict(DEMO) == "e, seal, all, pcc is 0.060 from the reference, more than 0.03"
    (saved / f"{reference.RESULT}.csv").unlink()
    assert reference.verdict(DEMO) == "profile demo has no reference"


def test_other_methods_are_refused(saved):
    write({"frozen": 0.4})
    with pytest.raises(SealError, match="seal"):
        reference.verdict(DEMO)


# --- what is kept -------------------------------------------------------------------------------------------


def test_a_table_comes_back_as_it_is_with_its_stamp(place):
    write_all()
    reference.save(DEMO)
    run, committed = Source(DEMO), Source(DEMO, committed=True)
    for name in ("patch_level", "patch_level_summary", "ablations", "encoders"):
        assert committed.path(name).read_bytes() == run.path(name).read_bytes()
        assert committed.stamp(name)["result"]["sha256"] == run.stamp(name)["sha256"]
    stamp = committed.stamp("patch_level")
    assert (stamp["data"], stamp["inputs"]["pairs"], stamp["kept"]) == ("simulated data", "p" * 64, "all rows")
    assert committed.manifest["profile"] == "demo"
    assert {"commit", "dirty", "data"} <= committed.manifest.keys()


def test_large_tables_keep_what_is_drawn(place):
    write_all()
    genes = [{"gene": "G", "organ": "o", "label": k, "fold": "1", "donor": "d", "seed": 0, "value": 0.5} for k in "ab"]
    kinds = pd.DataFrame(genes * 2).assign(kind=["encoder", "adapted", "control", "truth"], metric="pcc", method="m")
    kinds = kinds.assign(encoder="own")
    results.write_result(DEMO, "patch_level_genes", kinds, {})
    results.write_result(DEMO, "maps", map_table(["B4", "C2"]).assign(x=lambda t: t["x"] + 0.4, fold="B"), {})
    reference.save(DEMO)
    committed = Source(DEMO, committed=True)
    maps = committed.read("maps")
    assert set(maps["sample"]) == {"B4"}
    assert maps["x"].dtype.kind == "i"
    assert set(committed.read("patch_level_genes")["kind"]) == {"encoder", "adapted"}
    steps = curve_table().assign(value=lambda t: t["value"] + 1)
    results.write_result(DEMO, "training_curves", pd.concat([curve_table(), steps.assign(step=steps["step"] + 9)]), {})
    reference.save(DEMO)
    means = Source(DEMO, committed=True).read("training_curves")
    assert len(means) == len(curve_table())
    assert means["value"].to_numpy() == pytest.approx(curve_table()["value"].to_numpy() + 0.5, rel=1e-5)
    assert means["step"].min() == 9


def test_rows_of_hest_are_counted_and_not_handed_on(place):
    row = {"organ": "Bowel", "disease_state": "Cancer", "technology": "Visium", "study": "s", "donor": "d"}
    frame = pd.DataFrame([row | {"id": i, "spots": 10} for i in "ab"]).assign(role="train", pairs=10, dataset="x")
    results.write_result(MAPLE, "hest_metadata", frame, {"table": "HEST_v1.csv"})
    results.write_result(MAPLE, "samples", frame.assign(licence="x", simulated=False, fold="test"), {})
    folder = reference.save(MAPLE)
    assert sorted(path.name for path in folder.iterdir()) == ["hest_metadata.csv", "manifest.json"]
    assert pd.read_csv(folder / "hest_metadata.csv").to_dict("records") == [
        {"organ": "Bowel", "disease_state": "Cancer", "samples": 2, "spots": 20}
    ]
    draw.draw(MAPLE, ["F1"], committed=True)
    entry = draw.manifest(MAPLE)["F1"]
    assert (entry["data"], entry["source"], list(entry["inputs"])) == ("real data", "reference", ["hest_metadata"])


def test_without_results_there_is_nothing_to_take(place):
    with pytest.raises(SealError, match="holds no result"):
        reference.save(DEMO)
    assert not place.exists()


# --- drawing from it ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_drawn_from_the_reference_in_an_empty_home_is_what_was_drawn_from_results(place, monkeypatch, tmp_path):
    write_all()
    reference.save(DEMO)
    drawn = {path.name: path for path in draw.draw(DEMO)}
    monkeypatch.setenv("SEAL_HOME", str(tmp_path / "empty"))
    again = {path.name: path for path in draw.draw(DEMO, committed=True)}
    assert drawn.keys() == again.keys() > {"F3.png", "E4.png", "E5.png", "T19.csv"}
    for name, path in again.items():
        if path.suffix == ".csv":
            assert path.read_text() == drawn[name].read_text(), name
        elif path.suffix == ".png":
            with Image.open(path) as one, Image.open(drawn[name]) as other:
                apart = ImageChops.difference(one.convert("L"), other.convert("L"))
            assert sum(apart.histogram()[64:]) < 0.001 * apart.size[0] * apart.size[1], name
    entry = draw.manifest(DEMO)["F3"]
    assert (entry["source"], entry["data"]) == ("reference", "simulated data")
    assert entry["reference"] == {key: Source(DEMO, committed=True).manifest[key] for key in ("commit", "dirty")}
    assert not (tmp_path / "empty" / "results").exists()


def test_what_the_reference_lacks_is_said(place, capsys):
    write({"frozen": 0.4, "seal": 0.41})
    assert main(["reference"]) == 0
    said = capsys.readouterr().out
    assert "T9-T11, T19: encoders.csv not in the reference: run notebook 00_overview" in said
    assert main(["draw", "--reference"]) == 0
    assert "E4: maps.csv not in the reference: run notebook 04_patch_level" in capsys.readouterr().out
    with pytest.raises(SealError, match=r"F3 cannot be drawn in profile demo: patch_level\.csv, encoders\.csv not in"):
        draw.draw(DEMO, ["F3"], committed=True)


def test_without_a_run_the_status_names_the_reference(place, monkeypatch, tmp_path):
    write_all()
    reference.save(DEMO)
    monkeypatch.setenv("SEAL_HOME", str(tmp_path / "empty"))
    last = draw.status_text(DEMO).splitlines()[-1]
    assert last.startswith("F3, E4-E5, T5, T9-T11, T19, T51-T54 can be drawn from committed results")
    assert last.endswith("python -m figures draw --profile demo --reference")


def test_what_was_drawn_from_the_reference_is_stale_once_results_are_there(place, monkeypatch, tmp_path):
    write_all()
    reference.save(DEMO)
    monkeypatch.setenv("SEAL_HOME", str(tmp_path / "empty"))
    draw.draw(DEMO, ["T51"], committed=True)
    state = next(state for state in draw.status(DEMO) if state.id == "T51")
    assert (state.state, state.why) == (draw.DRAWN, "from the reference")
    write_all()
    state = next(state for state in draw.status(DEMO) if state.id == "T51")
    assert state.state == draw.STALE
    assert "results are there now" in state.why


def test_drawing_from_the_reference_leaves_what_was_drawn_from_results(place):
    write({"frozen": 0.4, "seal": 0.41})
    reference.save(DEMO)
    write_all()
    draw.draw(DEMO, ["T51"])
    draw.draw(DEMO, committed=True)
    assert draw.manifest(DEMO)["T51"]["source"] == "results"


def test_a_changed_reference_is_not_drawn_from(place):
    write_all()
    path = reference.save(DEMO) / "ablations.csv"
    path.write_text(path.read_text().replace("0.3", "0.4"))
    with pytest.raises(SealError, match=r"ablations\.csv is missing or differs from what manifest\.json"):
        draw.draw(DEMO, ["T51"], committed=True)


# --- as committed -------------------------------------------------------------------------------------------


def test_the_committed_reference_holds_every_method():
    frame = Source(DEMO, committed=True).read(reference.RESULT)
    assert {"frozen", "seal", "seal_shuffled", "random", "colour", "mean"} <= set(frame["method"])
    assert (frame.loc[frame["method"] == "mean", "mean"] == 0).all()


def test_the_committed_references_are_whole_and_small():
    for folder in filter(Path.is_dir, sources.REFERENCE.iterdir()):
        source = Source(profiles.get(folder.name), committed=True)
        tables = source.manifest.get("tables", {})
        assert all(len(source.read(name)) == entry["rows"] for name, entry in tables.items())
        assert {entry["profile"] for entry in tables.values()} <= {folder.name}
        assert sum(path.stat().st_size for path in folder.iterdir()) < 4e6
        text = json.dumps(source.manifest)
        assert not any(word in text for word in ("/home/", "/root/", "/Users/"))
    assert draw.lacking_text(Source(DEMO, committed=True)) == ""
    assert "realism" in Source(DEMO, committed=True).manifest["tables"]
