"""Fixtures of all tests: a home of their own, and real data where it lies beside the project."""

import dataclasses
import shutil
from pathlib import Path

import jaxtyping
import pytest

# Shapes in annotations are checked at every call: before these modules are imported for the first time.
jaxtyping.install_import_hook(["seal.losses", "seal.models", "seal.train"], "beartype.beartype")

from seal import paths, profiles  # noqa: E402
from seal.data.assemble import assemble  # noqa: E402
from seal.evaluate.embeddings import embed_all  # noqa: E402
from seal.evaluate.methods import find_methods  # noqa: E402
from seal.evaluate.patch import Evaluation  # noqa: E402
from seal.models import encoders  # noqa: E402
from seal.train import batches, runs  # noqa: E402


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


SMALL = profiles.get(
    "demo",
    image_size=56,
    um_per_px=2.0,
    further_encoders=(),
    source_settings={"organs": ("Breast", "Kidney"), "donors_per_organ": 2, "spots_per_section": 12},
    panel=dataclasses.replace(profiles.DEMO.panel, genes=30, test_genes=8),
    omics=dataclasses.replace(profiles.DEMO.omics, hidden=(16, 8), batch=16, epochs=2),
    vision=dataclasses.replace(profiles.DEMO.vision, decoder_hidden=8, batch=16, epochs=2, views=1, lr=1e-2),
    baselines=profiles.BaselineSettings(
        projection=8,
        bleep_nearest=5,
        mclstexp_layers=1,
        mclstexp_heads=2,
        mclstexp_head_width=4,
        mclstexp_nearest=8,
        pathomclip_hidden=8,
        triplex_width=8,
        triplex_heads=2,
        deepspot_width=4,
        deepspot_ensemble=3,
    ),
    evaluation=profiles.EvaluationSettings(pca=8, seeds=(0, 1), bootstrap=50),
)


@pytest.fixture(scope="session")
def small_profile() -> profiles.Profile:
    """The profile of `small`, for fixtures that make a home of their own."""
    return SMALL


@pytest.fixture(scope="session")
def tiny_build():
    """Stand in for `encoders.build`: tiny, of random weights; "random" still differs from "pretrained"."""
    build = encoders.build

    def tiny(name, *, weights="pretrained", image_size=None, tiny=True, seed=0):
        return build(name, weights="random", image_size=image_size, tiny=tiny, seed=seed + (weights == "random"))

    return tiny


@pytest.fixture
def tiny_registry(monkeypatch, tiny_build) -> list[str]:
    """Encoders of the registry, tiny and of random weights; which were built, in turn."""
    built = []

    def build(name):
        built.append(name)
        return tiny_build(name, image_size=56)

    monkeypatch.setattr(encoders, "build", build)
    return built


@pytest.fixture(scope="session")
def small_home(tmp_path_factory, tiny_build) -> Path:
    """Take the small profile as far as its tokens, once for all tests."""
    home = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEAL_HOME", str(home))
        patch.setattr(encoders, "build", tiny_build)
        batches.build(assemble(SMALL))
    return home


@pytest.fixture
def small(monkeypatch, small_home, home, tiny_build):
    """A profile of 4 simulated donors, 12 spots each, with a tiny encoder of random weights; pairs and tokens made."""
    shutil.copytree(small_home, home, dirs_exist_ok=True)
    monkeypatch.setattr(encoders, "build", tiny_build)
    return SMALL


@pytest.fixture(scope="session")
def evaluated(small_home, tmp_path_factory, tiny_build):
    """Evaluate the small profile, once for all tests: the evaluation and its training curves."""
    home = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(small_home, home, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEAL_HOME", str(home))
        patch.setattr(encoders, "build", tiny_build)
        pairs = assemble(SMALL)
        source = batches.build(pairs)
        runs.train_runs(runs.list_compared(pairs), source)
        evaluation = Evaluation(pairs, embed_all(pairs, source), find_methods(pairs)).run()
        return evaluation, runs.tabulate_training(pairs)
