"""A cohort's slides embedded by all that is compared, and what is wrong with a cohort, said."""

import dataclasses
import shutil

import h5py
import numpy as np
import pytest

import seal_atlas
from seal import profiles
from seal.data.assemble import assemble
from seal.data.patho_bench import write_task
from seal.data.slide_tasks import SlideTask
from seal.embed import embed_patches
from seal.errors import SealError
from seal.evaluate import hest_bench, slide_features
from seal.models import encoders
from seal.models.baselines.colour import colour_statistics
from seal.slides import trident
from seal.train import batches, runs
from seal_atlas.showing.tiff import write_tiff

SLIDES = ("S1", "S2", "S3", "S4")
SIDE = 224  # px at 0.5 um/px


def write_cohort(root, um_per_px=0.5):
    rng = np.random.default_rng(0)
    for number, name in enumerate(SLIDES, start=1):
        image = rng.integers(0, 256, (2 * SIDE, 2 * SIDE, 3), dtype=np.uint8)
        (root / "wsis").mkdir(parents=True, exist_ok=True)
        write_tiff(root / "wsis" / f"{name}.tif", image, um_per_px, 90)
        coords = np.array([[0, 0], [SIDE, 0], [0, SIDE], [SIDE, SIDE]])[:number]
        grid = trident.describe_grid(name, (2 * SIDE, 2 * SIDE), um_per_px, um_per_px, SIDE)
        trident.write_coords(trident.coords_path(root, "20x_224px_0px_overlap", name), coords, grid)
    rows = np.arange(4)
    task = SlideTask(
        **{"name": "TP53", "group": "molecular", "kind": "classes", "metric": "macro-ovr-auc"},
        **{"classes": ("wild-type", "mutated"), "cases": tuple("abcd"), "slides": SLIDES},
        **{"labels": np.array([0, 1, 0, 1]), "folds": {"fold_0": (rows[:2], rows[2:])}, "simulated": True},
    )
    write_task(root / "tasks" / "TP53", task)
    return root


@pytest.fixture
def cohort(evaluated, tmp_path, monkeypatch, tiny_build):
    """The small profile's token source, its trained runs, and the folder of four slides."""
    pairs = evaluated[0].pairs
    monkeypatch.setenv("SEAL_HOME", str(pairs.folder.parents[2]))
    monkeypatch.setattr(encoders, "build", tiny_build)
    root = write_cohort(tmp_path / "cohort")
    monkeypatch.setattr(seal_atlas, "prepare_slides", lambda profile: root, raising=False)
    yield batches.find(pairs), hest_bench.list_runs(pairs), root
    shutil.rmtree(slide_features.features_folder(batches.find(pairs), "x").parents[1], ignore_errors=True)


def test_every_encoder_embeds_every_slide_as_it_would_alone(cohort):
    source, chosen, _ = cohort
    profile = source.pairs.profile
    found = slide_features.find_cohort(profile)
    assert [task.name for task in found.tasks] == ["TP53"]
    (folders,) = slide_features.embed_cohort(found, (source, chosen))
    assert {method for method, _ in folders} == {
        *("frozen", "seal", "seal_shuffled", "no_expression", "random", "colour"),
        *("stnet", "bleep", "pathomclip", "pathomclip_spatial", "mclstexp", "triplex"),
    }
    assert [seed for method, seed in folders if method == "seal"] == [0, 1]
    patches = slide_features.open_patches(found.pictures["S3"], found.coords["S3"], profile)
    images = np.stack([patches[i] for i in range(3)])
    assert images.shape == (3, 56, 56, 3)
    alone = {("frozen", 0): source.encoder}
    alone |= {(run.method, run.seed): runs.train_vision(run, source).encoder for run in chosen}
    random = encoders.build(profile.encoder, weights="random", image_size=56, seed=0)
    expected = {key: embed_patches(encoder, images) for key, encoder in (alone | {("random", 0): random}).items()}
    expected["colour", 0] = colour_statistics(images)
    assert set(expected) == set(folders)
    for key, z in expected.items():
        path = folders[key] / "S3.h5"
        np.testing.assert_allclose(trident.read_table(path, "features"), z, atol=1e-5)
        np.testing.assert_array_equal(trident.read_table(path, "coords"), patches.coords)
        assert bool(trident.attributes_of(path)["simulated"])


def test_encoders_that_are_cut_from_the_same_share_a_pass(cohort, monkeypatch, tiny_build):
    """The tiny encoder of four blocks, and the same read after two of them."""
    source, chosen, _ = cohort

    def build_cut(name, **settings):
        encoder = tiny_build("dinov2s_derived", **settings)
        encoder.model.blocks = encoder.model.blocks[: 2 if name.endswith("b6") else 4]
        return encoder

    monkeypatch.setattr(encoders, "build", build_cut)
    further = assemble(profiles.changed(source.pairs.profile, further_encoders=("dinov2s_derived_b6",))).by_encoder()[1]
    cut, passes, trunks = batches.RecomputedTokens(further, "cut"), [], encoders.VisionEncoder.trunks
    spied = lambda self, x, after: passes.append(after) or trunks(self, x, after)  # noqa: E731
    monkeypatch.setattr(encoders.VisionEncoder, "trunks", spied)
    found = slide_features.find_cohort(source.pairs.profile)
    shutil.rmtree(slide_features.features_folder(source, "x").parents[1], ignore_errors=True)
    main, other = slide_features.embed_cohort(found, (source, chosen[:1]), (cut, []))
    assert set(passes) == {(3, 1), (3,)}  # of both, and of random weights
    assert len(passes) == 2 * len(SLIDES)
    patches = slide_features.open_patches(found.pictures["S3"], found.coords["S3"], source.pairs.profile)
    images = np.stack([patches[i] for i in range(3)])
    assert set(other) == {("frozen", 0)}
    for folders, encoder in ((main, source.encoder), (other, cut.encoder)):
        z = trident.read_table(folders["frozen", 0] / "S3.h5", "features")
        np.testing.assert_allclose(z, embed_patches(encoder, images), atol=1e-5)
    shutil.rmtree(slide_features.features_folder(cut, "x").parents[1], ignore_errors=True)


def test_what_is_embedded_stays_and_what_has_changed_is_embedded_anew(cohort, monkeypatch):
    source, chosen, root = cohort
    seal = [run for run in chosen if run.method == "seal"]

    def times():
        (folders,) = slide_features.embed_cohort(slide_features.find_cohort(source.pairs.profile), (source, seal))
        return {path.name: path.stat().st_mtime_ns for path in folders["seal", 0].iterdir()}

    before = times()
    assert times() == before
    image = np.full((2 * SIDE, 2 * SIDE, 3), 200, dtype=np.uint8)
    write_tiff(root / "wsis" / "S2.tif", image, 0.5, 90)
    after = times()
    assert [name for name in before if after[name] != before[name]] == ["S2.h5"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("picture", r"1 of 4 slides have no picture in wsis/, first S2"),
        ("coords", r"1 of 4 slides have no file of coordinates in \*/patches/, first S2"),
        ("real", "task TP53 is real, profile demo has simulated data"),
        ("empty", r"S2_patches\.h5 holds no patch"),
        ("side", r"S2_patches\.h5 has patches of 56 um(.|\n)*112 um, as the pairs have"),
    ],
)
def test_a_bad_cohort_is_named(cohort, fault, words):
    source, chosen, root = cohort
    picture, coords = root / "wsis" / "S2.tif", root / "20x_224px_0px_overlap" / "patches" / "S2_patches.h5"
    if fault == "picture":
        picture.unlink()
    elif fault == "coords":
        coords.unlink()
    elif fault == "real":
        config = root / "tasks" / "TP53" / "config.yaml"
        config.write_text(config.read_text().replace("simulated: true", "simulated: false"))
    elif fault == "empty":
        with h5py.File(coords, "r+") as file:
            file["coords"].resize(0, axis=0)
    else:
        with h5py.File(coords, "r+") as file:
            file["coords"].attrs["patch_size_level0"] = 112
    with pytest.raises(SealError, match=words):
        slide_features.embed_cohort(slide_features.find_cohort(source.pairs.profile), (source, chosen[:1]))


def test_a_profile_without_slides_says_so(monkeypatch, small_profile, tmp_path):
    own = dataclasses.replace(small_profile, source="seal.data.sources.her2st", simulated=False)
    monkeypatch.delenv("SEAL_SLIDES", raising=False)
    with pytest.raises(SealError, match="has no slides with labels"):
        slide_features.find_cohort(own)
    monkeypatch.setenv("SEAL_SLIDES", str(write_cohort(tmp_path / "own")))
    with pytest.raises(SealError, match="task TP53 is simulated"):
        slide_features.find_cohort(own)


COVARIATES = "case_id,age,organ\na,40,Lung\nb,60,Lung\nc,,Skin\nd,50,\ne,10,Bone\n"


def test_covariates_are_numbers(cohort):
    source, _, root = cohort
    assert slide_features.find_cohort(source.pairs.profile).covariates == {}
    (root / "covariates.csv").write_text(COVARIATES)
    known = slide_features.find_cohort(source.pairs.profile).covariates
    assert list(known) == list(SLIDES)
    sd = np.std([40, 60, 50, 10])
    np.testing.assert_allclose(known["S1"], [(40 - 40) / sd, 0, 0, 1, 0])  # "", Bone, Lung, Skin
    np.testing.assert_allclose(known["S2"], [20 / sd, 0, 0, 1, 0])
    np.testing.assert_allclose(known["S3"], [0, 0, 0, 0, 1])
    np.testing.assert_allclose(known["S4"], [10 / sd, 1, 0, 0, 0])
    (root / "covariates.csv").write_text(COVARIATES.replace("c,,", "c,NA,"))
    np.testing.assert_array_equal(slide_features.find_cohort(source.pairs.profile).covariates["S3"], known["S3"])
    (root / "covariates.csv").write_text(COVARIATES + "a,41,Lung\n")
    with pytest.raises(SealError, match="has a case twice"):
        slide_features.find_cohort(source.pairs.profile)
    (root / "covariates.csv").write_text(COVARIATES.replace("b,60,Lung\n", ""))
    with pytest.raises(SealError, match=r"covariates\.csv lacks 1 cases of the tasks, first b"):
        slide_features.find_cohort(source.pairs.profile)


def test_a_cohorts_digest_follows_all_that_is_learnt_from(cohort):
    source, _, root = cohort
    digest = lambda: slide_features.digest_of(slide_features.find_cohort(source.pairs.profile))  # noqa: E731
    first = digest()
    assert digest() == first
    (root / "covariates.csv").write_text(COVARIATES)
    second = digest()
    table = root / "tasks" / "TP53" / "k=all.tsv"
    table.write_text(table.read_text().replace("a\tS1\t0", "a\tS1\t1").replace("b\tS2\t1", "b\tS2\t0"))
    assert len({first, second, digest()}) == 3


def test_real_slides_lie_beside_the_cohort(cohort, monkeypatch, tmp_path, capsys):
    source, chosen, _ = cohort
    profile = source.pairs.profile
    monkeypatch.delenv("SEAL_WSI", raising=False)
    assert slide_features.find_real(profile) is None
    image = np.full((4 * SIDE, 4 * SIDE, 3), 245, dtype=np.uint8)
    image[SIDE : 3 * SIDE, SIDE : 3 * SIDE] = (150, 60, 140)
    (tmp_path / "wsi").mkdir()
    write_tiff(tmp_path / "wsi" / "own.tif", image, 0.5, 90)
    monkeypatch.setenv("SEAL_WSI", str(tmp_path / "wsi"))
    real = slide_features.find_real(profile)
    assert capsys.readouterr().out == ""
    assert (real.tasks, real.simulated, list(real.pictures)) == ((), False, ["own"])
    (folders,) = slide_features.embed_cohort(real, (source, chosen[:1]))
    path = folders["frozen", 0] / "own.h5"
    assert len(trident.read_table(path, "features")) == len(trident.read_table(real.coords["own"], "coords")) >= 4
    assert not trident.attributes_of(path)["simulated"]
    assert [folders] == slide_features.embed_cohort(slide_features.find_cohort(profile), (source, chosen[:1]))
