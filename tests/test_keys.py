"""Nothing that took long is made again because a file was touched, or its folder copied or moved: every writer.

What is made again where inputs or settings change stands in the tests of each writer.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import seal_atlas
from seal import embed
from seal.data import assemble
from seal.data.samples import read_samples
from seal.data.sources import her2st
from seal.evaluate import embeddings
from seal.models import encoders
from seal.profiles import get
from seal.slides import patches
from seal.slides.patches import PatchSettings
from seal.train import batches, runs, tokens
from seal_atlas.writing import cohorts, sections, slides
from tests.seal.data.sources.test_her2st import counts, spots, write
from tools.hest_audit import compare

SLIDES = {"patients": 2, "patches_per_slide": 4, "scanned_slides": 1, "scanned_patches": 4, "organs": ("Breast",)}


@pytest.fixture(scope="module")
def everything(small_home, tiny_build, tmp_path_factory, small_profile):
    """A home in which every writer has written."""
    home = tmp_path_factory.mktemp("everything") / "home"
    shutil.copytree(small_home, home)
    copy = write(tmp_path_factory.mktemp("her2st"), spots(), counts(spots()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEAL_HOME", str(home))
        patch.setenv("SEAL_HER2ST", str(copy))
        patch.setattr(encoders, "build", tiny_build)
        make_everything(home, small_profile)
    return home, copy


def make_everything(home: Path, profile) -> None:
    """Ask every writer for what it writes."""
    her2st.prepare(get("her2st"))
    atlas = seal_atlas.prepare(profile)
    whole_slides = seal_atlas.prepare_slides(
        get("demo", **{f"source_settings__{name}": v for name, v in SLIDES.items()})
    )
    compare.audit_files(read_samples(atlas)[:2], home / "prints", workers=1)
    pairs = assemble.assemble(profile)
    source = batches.build(pairs)
    fold = pairs.folds()[0]
    chosen = runs.list_runs(pairs, methods=["seal"], folds=[fold], seeds=[0])
    runs.train_runs(chosen, source)
    embeddings.embed_runs(pairs, source, chosen)
    slide = next((whole_slides / "wsis").glob("*.tif"))
    settings = PatchSettings(size=56, um_per_px=2.0)
    embed.embed([slide], profile.encoder, home / "data" / "slides_embedded", settings)


def forbid(monkeypatch) -> None:
    """Whatever a writer does when it makes something fails."""
    work = [
        (her2st, "read_section"),
        (sections, "simulate_section"),
        (slides, "write_slide"),
        (cohorts, "_write_truth"),
        (compare, "_take"),
        (assemble, "_build"),
        (tokens, "_fill"),
        (runs, "fit"),
        (embeddings.Embeddings, "write"),
        (patches, "extract"),
    ]
    for place, name in work:
        assert hasattr(place, name), name
        monkeypatch.setattr(place, name, lambda *_, name=name, **__: pytest.fail(f"{name} was called again"))


def touch(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.touch()
            yield path


@pytest.mark.slow
@pytest.mark.parametrize("what", ["as it is", "touched", "copied", "moved"])
def test_nothing_is_made_again(everything, what, tmp_path, monkeypatch, tiny_build, small_profile, capfd):
    home, copy = everything
    if what == "touched":
        assert len([*touch(home / "data"), *touch(home / "runs"), *touch(copy)]) > 30
    elif what == "copied":
        copied = tmp_path / "copied"
        shutil.copytree(home, copied, copy_function=shutil.copy)  # with times of its own
        copy, home = Path(shutil.copytree(copy, tmp_path / "her2st", copy_function=shutil.copy)), copied
    elif what == "moved":
        home = Path(shutil.copytree(home, tmp_path / "here" / "home")).rename(tmp_path / "moved")
    monkeypatch.setenv("SEAL_HOME", str(home))
    monkeypatch.setenv("SEAL_HER2ST", str(copy))
    monkeypatch.setattr(encoders, "build", tiny_build)
    forbid(monkeypatch)
    make_everything(home, small_profile)
    assert "made anew" not in capfd.readouterr().err


@pytest.mark.slow
def test_each_of_them_would_have_been_noticed(everything, monkeypatch, tiny_build, small_profile, tmp_path):
    """The fixture's writers do call what `forbid` forbids: in an empty home the first of them fails."""
    monkeypatch.setenv("SEAL_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("SEAL_HER2ST", str(everything[1]))
    monkeypatch.setattr(encoders, "build", tiny_build)
    forbid(monkeypatch)
    with pytest.raises(pytest.fail.Exception, match="read_section was called again"):
        make_everything(tmp_path / "empty", small_profile)
