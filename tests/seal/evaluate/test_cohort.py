"""A user's own cohort from slides and a table to a report: what is kept, made anew, left out by name, refused."""

import csv
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import tifffile
from skimage import data as pictures

from seal import embed
from seal.__main__ import main
from seal.data.patho_bench import read_tasks
from seal.embed import Model
from seal.errors import SealError
from seal.evaluate import cohort, slide_level, slide_scores
from seal.files import sha256
from seal.models import encoders
from seal.slides.patches import PatchSettings

SLIDES = 20
BASE, OTHER = "dinov2s_derived", "dinov2_s"
SCALE = "10x_112px_0px_overlap"


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tiny_registry):
    monkeypatch.setattr(slide_level, "AT_ONCE", 1)  # starting processes takes longer than this cohort
    monkeypatch.setattr(cohort, "RESAMPLES", 200)
    monkeypatch.setattr(cohort, "SEEDS", (0,))
    return tiny_registry


def draw_slide(path, number):
    """Real tissue of half a millimetre a side at 1 um/px; slides of odd numbers are half as bright."""
    pixels = np.full((560, 600, 3), 244, dtype=np.uint8)
    pixels[24:536, 24:536] = np.rot90(pictures.immunohistochemistry(), number) // (1 + number % 2)
    about = {"resolution": (1e4, 1e4), "resolutionunit": "CENTIMETER", "metadata": None}
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), compression="deflate", **about)


def write_table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def label_rows():
    return [
        {
            **{"case_id": f"P{i}", "slide_id": f"S{i}.tif", "bright": ("yes", "no")[i % 2]},
            **{"coin": "ab"[i // 2 % 2], "OS_event": int(i % 3 > 0), "OS_days": 90 + 40 * i, "note": f"note {i}"},
        }
        for i in range(SLIDES)
    ]


@pytest.fixture(scope="module")
def wsis(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort") / "wsis"
    folder.mkdir()
    for i in range(SLIDES):
        draw_slide(folder / f"S{i}.tif", i)
    return folder


@pytest.fixture
def settings(wsis, tmp_path):
    write_table(tmp_path / "labels.csv", label_rows())
    return cohort.CohortSettings(
        **{"slides": (wsis,), "labels": tmp_path / "labels.csv", "models": (BASE, OTHER), "out": tmp_path / "out"},
        **{"tasks": ("bright", "coin"), "patches": PatchSettings(size=112, um_per_px=1.0), "mil": "none"},
    )


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".h5", ".csv")}


def read_summary(out):
    return pd.read_csv(out / "results" / "slide_level_summary.csv", keep_default_na=False, na_values=[""])


class Page(HTMLParser):
    """Text of a page, and the tags in it."""

    def __init__(self, path):
        super().__init__()
        self.text, self.tags, self.links = "", set(), []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_from_slides_and_a_table_to_a_report(settings, wsis, capfd):
    given = [str(wsis), "--labels", str(settings.labels), "--out", str(settings.out), "--model", BASE, OTHER]
    assert main(["slides", *given, "--um-per-px", "1", "--size", "112", "--mil", "small"]) == 0
    said = capfd.readouterr()
    assert said.out.strip() == str(settings.out / "report.html")
    assert said.err.startswith(f"step 1 of 4: 20 slides by {BASE}, model 1 of 2\n")
    for name in (BASE, OTHER):
        assert len(list((settings.out / "embeddings" / SCALE / f"features_{name}").glob("*.h5"))) == SLIDES
    tasks = {task.name: task for task in read_tasks(settings.out / "tasks")}
    assert {name: task.kind for name, task in tasks.items()} == {
        "bright": "classes",
        "coin": "classes",
        "OS": "survival",
    }
    table = read_summary(settings.out).set_index(["task", "model", "method"]).sort_index()
    assert len(table) == 3 * 2 * 2
    assert (table.loc["bright", "mean"] > 0.95).all()  # it is plain to see
    assert table.loc[("coin", "linear", OTHER), "against"] == BASE
    for name in ("slide_level", "slide_level_summary", "slide_level_groups"):
        path = settings.out / "results" / f"{name}.csv"
        made = json.loads(path.with_suffix(".csv.json").read_text())
        assert (made["sha256"], made["from"]["labels"]) == (sha256(path), sha256(settings.labels))
        assert made["from"][f"models.{OTHER}"] == embed.find_model(OTHER).key
        assert {"commit", "versions", "time"} <= {*made}
    groups = pd.read_csv(settings.out / "results" / "slide_level_groups.csv", keep_default_na=False)
    assert set(groups["group"]) == {"cohort"}
    page = Page(settings.out / "report.html")
    assert f"--model {BASE} {OTHER} --um-per-px 1" in page.text
    assert "column note is no task" in page.text
    assert "mean of a case's features" in page.text


def test_a_killed_run_goes_on_after_the_first_models_embeddings(settings, monkeypatch, tiny):
    build = encoders.build

    def killed(name):
        if name == OTHER:
            raise KeyboardInterrupt
        return build(name)

    with monkeypatch.context() as patch:
        patch.setattr(encoders, "build", killed)
        with pytest.raises(KeyboardInterrupt):
            cohort.compare_models(settings)
    before = stamps(settings.out)
    assert len([path for path in before if path.parent.name == f"features_{BASE}"]) == SLIDES
    report = cohort.compare_models(settings)
    after = stamps(settings.out)
    assert {path: after[path] for path in before if "features" in str(path)} == {
        path: time for path, time in before.items() if "features" in str(path)
    }
    assert tiny == [BASE, OTHER]
    assert report.is_file()


def test_what_is_there_is_read_and_other_labels_are_computed_anew(settings, monkeypatch, capfd):
    cohort.compare_models(settings)
    before = stamps(settings.out / "results")
    assert len(before) == 3
    with monkeypatch.context() as patch:
        patch.setattr(slide_scores, "summary", lambda *_: pytest.fail("computed again"))
        cohort.compare_models(settings)
    assert stamps(settings.out / "results") == before
    embedded = stamps(settings.out / "embeddings")
    rows = [row | {"coin": row["bright"]} for row in label_rows()]
    write_table(settings.labels, rows)
    capfd.readouterr()
    cohort.compare_models(replace(settings, tasks=("coin",)))
    assert "made anew, for these have changed: labels" in capfd.readouterr().err
    assert [task.name for task in read_tasks(settings.out / "tasks")] == ["coin"]
    assert set(read_summary(settings.out)["task"]) == {"coin"}
    assert (read_summary(settings.out)["mean"] > 0.95).all()  # of the new labels
    assert stamps(settings.out / "embeddings") == embedded
    (settings.out / "results" / "slide_level.csv").write_text("cut off")
    cohort.compare_models(replace(settings, tasks=("coin",)))
    assert len(pd.read_csv(settings.out / "results" / "slide_level.csv")) > 10


def test_a_slide_that_cannot_be_used_is_left_out_by_name(settings, wsis, tmp_path):
    folder = tmp_path / "wsis"
    folder.mkdir()
    for i in range(SLIDES):
        if i != 3:
            (folder / f"S{i}.tif").symlink_to(wsis / f"S{i}.tif")
    (folder / "S4.tif").unlink()
    tifffile.imwrite(folder / "S4.tif", np.full((560, 600, 3), 244, np.uint8), resolution=(1e4, 1e4), resolutionunit=3)
    (folder / "S6.tif").unlink()
    (folder / "S6.tif").symlink_to(tmp_path / "unmounted" / "S6.tif")
    (folder / "Z.tif").symlink_to(wsis / "S0.tif")
    write_table(
        settings.labels, [row | {"coin": "NA" if i == 5 else row["coin"]} for i, row in enumerate(label_rows())]
    )
    report = cohort.compare_models(replace(settings, slides=(folder,)))
    kept = json.loads((settings.out / "cohort.json").read_text())
    assert set(kept["left out"]) == {"S3", "S4", "S6"}
    tasks = {task.name: task for task in read_tasks(settings.out / "tasks")}
    assert {name: len(task.slides) for name, task in tasks.items()} == {"bright": 17, "coin": 16}
    text = Page(report).text
    assert "1 slide left out: no picture of that name (S3)" in text
    assert "S4.tif has no tissue" in text
    assert "1 picture not used, for the table does not name them (Z)" in text
    assert "Left out: 1 row with no label" in text
    assert not list(settings.out.rglob("Z.h5"))


def test_saved_models_of_one_encoder_are_told_apart(settings, monkeypatch):
    def find(given):
        return Model("own_seal", f"{given}123456", lambda: encoders.build(BASE if given == "a" else OTHER), 112, 1.0)

    monkeypatch.setattr(cohort, "find_model", find)
    monkeypatch.setattr(embed, "find_model", find)
    cohort.compare_models(replace(settings, models=("a", "b")))
    table = read_summary(settings.out)
    assert set(table["method"]) == {"own_seal_a12345", "own_seal_b12345"}
    assert set(table["label"]) == {"a", "b"}
    with pytest.raises(SealError, match="um/px"):
        cohort.compare_models(replace(settings, patches=PatchSettings(size=112, um_per_px=0.5)))


def test_one_model_is_scored_and_compared_with_none(settings):
    report = cohort.compare_models(replace(settings, models=(BASE,), tasks=("bright",)))
    assert read_summary(settings.out)["against"].isna().all()
    assert "comparisons" not in Page(report).text


def test_nothing_that_is_not_ours_is_replaced(settings):
    (settings.out / "tasks").mkdir(parents=True)
    (settings.out / "tasks" / "mine.txt").write_text("mine")
    with pytest.raises(SealError, match="something else"):
        cohort.compare_models(settings)
    assert (settings.out / "tasks" / "mine.txt").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: None, "cannot read"),
        (lambda rows: [{"patient": 1} | row for row in rows if row.pop("case_id")], r"lacks case_id(.|\n)*--case"),
        (
            lambda rows: [row | {"slide_id": f"x{row['slide_id']}"} for row in rows],
            r"names xS0, xS1, xS2, the pic.* S0",
        ),
        (lambda rows: [*rows, rows[3]], r"1 slides are there more than once, first S3"),
        (lambda rows: [row | {"bright": "yes", "coin": f"c{i}"} for i, row in enumerate(rows)], "no column .* can be"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_before_anything_is_embedded(settings, tiny, change, message):
    rows = change(label_rows())
    settings.labels.unlink()
    if rows:
        write_table(settings.labels, rows)
    with pytest.raises(SealError, match=message):
        cohort.compare_models(settings)
    assert not tiny
    assert not settings.out.exists()


def test_no_slide_that_can_be_embedded_is_one_error(settings, tmp_path):
    folder = tmp_path / "white"
    folder.mkdir()
    for i in range(SLIDES):
        (folder / f"S{i}.tif").write_text("no slide")
    with pytest.raises(SealError, match="20 of 20 slides were not embedded"):
        cohort.compare_models(replace(settings, slides=(folder,)))
