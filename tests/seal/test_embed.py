import os
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from skimage import data as pictures

from seal import embed, profiles
from seal.data.panel import Panel
from seal.errors import SealError
from seal.export import save
from seal.files import HOST
from seal.models import encoders
from seal.models.omics import SealOmics
from seal.models.vision import SealVision
from seal.profiles import OmicsSettings, VisionSettings
from seal.slides import patches as patching
from seal.slides import trident
from seal.slides.patches import PatchSettings
from seal.slides.tissue import TissueSettings

SETTINGS = PatchSettings(size=56, tissue=TissueSettings(speck_um2=500))
SCALE = "20x_56px_0px_overlap"
NAME = "dinov2s_derived"


@pytest.fixture
def tiny(tiny_registry):
    return tiny_registry


def read_features(path):
    with h5py.File(path) as file:
        return SimpleNamespace(
            features=file["features"][()], coords=file["coords"][()], grid=dict(file["coords"].attrs)
        )


def write(path, um=0.5, tissue=True):
    pixels = np.full((300, 420, 3), 244, dtype=np.uint8)
    if tissue:
        pixels[:280, :300] = np.rot90(pictures.immunohistochemistry(), len(path.stem))[:280, :300]
    more = {} if um is None else {"resolution": (1e4 / um, 1e4 / um), "resolutionunit": "CENTIMETER"}
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(128, 128), compression="deflate", metadata=None, **more)
    return path


@pytest.fixture
def slides(tmp_path, tiny):
    folder = tmp_path / "wsis"
    for name in ("A", "BB"):
        write(folder / f"{name}.tif")
    (folder / "notes.txt").write_text("no slide")
    (folder / ".A.1234.part.tif").write_bytes(b"half")
    return folder


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.h5")}


def test_embeddings_are_those_of_the_encoder_patch_by_patch(slides, tmp_path, tiny_build):
    written = embed.embed([slides], NAME, tmp_path / "out", SETTINGS)
    assert written == [tmp_path / "out" / SCALE / f"features_{NAME}" / f"{name}.h5" for name in ("A", "BB")]
    encoder = tiny_build(NAME, image_size=56)
    for path in written:
        found = read_features(path)
        patches = patching.extract(slides / f"{path.stem}.tif", SETTINGS).patches
        with torch.no_grad():
            expected = [encoder(encoder.preprocess(patches[i][None]))[0].numpy() for i in range(len(patches))]
        assert len(patches) > 5
        np.testing.assert_allclose(found.features, expected, atol=1e-5)
        assert found.features.std(axis=0).max() > 1e-3
        np.testing.assert_array_equal(found.coords, patches.coords)
        assert trident.attributes_of(path)["encoder"] == NAME
        with h5py.File(tmp_path / "out" / SCALE / "patches" / f"{path.stem}_patches.h5") as file:
            np.testing.assert_array_equal(file["coords"], patches.coords)
            attributes = dict(file["coords"].attrs)
        assert attributes == found.grid
        assert (attributes["level0_width"], attributes["level0_height"], attributes["name"]) == (420, 300, path.stem)
        assert (attributes["level0_magnification"], attributes["target_magnification"]) == (20, 20)


def test_batches_do_not_matter(slides, tmp_path, monkeypatch):
    (whole,) = embed.embed([slides / "A.tif"], NAME, tmp_path / "a", SETTINGS)
    monkeypatch.setattr(embed, "CHUNK", {"cpu": 4, "cuda": 4})
    (parts,) = embed.embed([slides / "A.tif"], NAME, tmp_path / "b", SETTINGS)
    a, b = (read_features(path).features for path in (whole, parts))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_what_is_there_is_not_made_again(slides, tmp_path, tiny):
    out = tmp_path / "out"
    embed.embed([slides / "A.tif"], NAME, out, SETTINGS)
    before = stamps(out)
    embed.embed([slides], NAME, out, SETTINGS)
    after = stamps(out)
    assert len(after) == 4
    assert {path: after[path] for path in before} == before
    assert len(tiny) == 2
    embed.embed([slides], NAME, out, SETTINGS)
    assert stamps(out) == after
    assert len(tiny) == 2  # not even the encoder is loaded


def test_what_was_killed_half_way_is_made_whole(slides, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embed, "embed_patches", killed)
        with pytest.raises(KeyboardInterrupt):
            embed.embed([slides], NAME, out, SETTINGS)
    folder = out / SCALE / f"features_{NAME}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".A.0123abcd.part.h5").write_bytes(b"half")
    assert len(embed.embed([slides], NAME, out, SETTINGS)) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["A.h5", "BB.h5"]


def test_two_at_once_do_each_other_no_harm(slides, tmp_path, monkeypatch):
    out = tmp_path / "out"
    folder = out / SCALE / f"features_{NAME}"
    folder.mkdir(parents=True)
    fresh = folder / f".A.{HOST}-{os.getpid()}-0123abcd.part.h5"  # a process that lives is writing it
    fresh.write_bytes(b"half")
    both, load = threading.Barrier(2), encoders.build

    def load_together(name):
        both.wait(60)  # both found nothing there
        return load(name)

    monkeypatch.setattr(encoders, "build", load_together)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(embed.embed, [slides], NAME, out, SETTINGS) for _ in range(2)]
    assert runs[0].result() == runs[1].result() == [folder / "A.h5", folder / "BB.h5"]
    assert sorted(path.name for path in folder.iterdir()) == [fresh.name, "A.h5", "BB.h5"]
    assert all(np.isfinite(read_features(path).features).all() for path in runs[0].result())


def test_pixels_beside_the_slides_own_file_count(slides, tmp_path):
    """MIRAX keeps them in a folder of the slide's name."""
    slide, beside, out = slides / "A.mrxs", slides / "A" / "Data0000.dat", tmp_path / "out"
    (slides / "A.tif").rename(slide)
    beside.parent.mkdir()
    found = []
    for content in (b"one", b"two", b"two"):
        beside.write_bytes(content)
        (path,) = embed.embed([slide], NAME, out, SETTINGS)
        found.append(path.stat().st_mtime_ns)
    assert found[0] != found[1] == found[2]


@pytest.mark.parametrize("what", ["tissue", "precision", "slide"])
def test_what_follows_from_something_else_is_made_again(slides, tmp_path, what):
    out = tmp_path / "out"
    embed.embed([slides], NAME, out, SETTINGS)
    before, settings, precision = stamps(out), SETTINGS, "float32"
    if what == "tissue":
        settings = PatchSettings(size=56, tissue_share=0.9, tissue=SETTINGS.tissue)
    elif what == "precision":
        precision = "bfloat16"
    else:
        tifffile.imwrite(slides / "A.tif", pictures.immunohistochemistry(), photometric="rgb", tile=(128, 128))
    kept = 2 if what == "slide" else 0
    written = embed.embed([slides], NAME, out, settings, 0.5, precision)
    assert sum(stamps(out)[path] == time for path, time in before.items()) == kept
    assert len(read_features(written[0]).features) > 3


def test_a_slide_mended_in_place_is_embedded_anew(slides, tmp_path):
    """Only a tag changes, so the file is as large as before, and so may be its time but for a moment."""
    slide, out = slides / "A.tif", tmp_path / "out"
    (path,) = embed.embed([slide], NAME, out, SETTINGS)
    fine = read_features(path)
    size = slide.stat().st_size
    write(slide, um=0.8)
    assert slide.stat().st_size == size
    embed.embed([slide], NAME, out, SETTINGS)
    coarse = read_features(path)
    assert (fine.grid["patch_size_level0"], coarse.grid["patch_size_level0"]) == (56, 35)
    assert len(coarse.features) > len(fine.features)


def test_a_stated_um_per_px_wins_over_a_wrong_tag(slides, tmp_path, capfd):
    write(slides / "A.tif", um=1.27 / 2)
    out = tmp_path / "out"
    (path,) = embed.embed([slides / "A.tif"], NAME, out, SETTINGS)
    assert read_features(path).grid["patch_size_level0"] == 44
    for _ in range(2):
        embed.embed([slides / "A.tif"], NAME, out, SETTINGS, 0.5)
        assert read_features(path).grid["patch_size_level0"] == 56
    assert capfd.readouterr().err.count("A.tif says 0.635 x 0.635 um/px; 0.5 is taken, as stated") == 1
    embed.embed([slides / "A.tif"], NAME, out, SETTINGS)  # its own again
    assert read_features(path).grid["patch_size_level0"] == 44
    before = stamps(out)
    embed.embed([slides / "BB.tif"], NAME, out, SETTINGS, 0.5)
    agreed = stamps(out)
    embed.embed([slides / "BB.tif"], NAME, out, SETTINGS)  # the file says the same
    assert stamps(out) == agreed
    assert len(agreed) == len(before) + 2


def test_an_option_forgotten_once_costs_no_embeddings(slides, tmp_path):
    write(slides / "A.tif", um=None)
    embed.embed([slides / "A.tif"], NAME, tmp_path / "out", SETTINGS, 0.5)
    before = stamps(tmp_path / "out")
    with pytest.raises(SealError, match="does not say"):
        embed.embed([slides / "A.tif"], NAME, tmp_path / "out", SETTINGS)
    assert stamps(tmp_path / "out") == before


def test_a_contour_lies_beside_the_coordinates(slides, tmp_path):
    embed.embed([slides], NAME, tmp_path / "out", SETTINGS)
    folder = tmp_path / "out" / SCALE / "contours"
    assert sorted(path.name for path in folder.iterdir()) == ["A.jpg", "BB.jpg"]
    with Image.open(folder / "A.jpg") as image:
        red, green, blue = (np.asarray(image.convert("RGB"), dtype=int)[..., i] for i in range(3))
    assert ((green > 150) & (red < 110) & (blue < 110)).sum() > 20  # of green line on real tissue


def test_a_stated_um_per_px_is_for_slides_that_do_not_say_it(slides, tmp_path):
    write(slides / "C.tif", um=None)
    out = tmp_path / "out"
    with pytest.raises(SealError, match=r"1 of 3 slides were not embedded: .*C\.tif does not say") as error:
        embed.embed([slides], NAME, out, SETTINGS)
    assert "--slide-um-per-px" in str(error.value)
    before = stamps(out)
    assert len(before) == 4  # the other two are whole
    written = embed.embed([slides], NAME, out, SETTINGS, 0.5)
    assert {path: stamps(out)[path] for path in before} == before
    coarse = read_features(written[2])
    assert coarse.grid["patch_size_level0"] == 56
    embed.embed([slides], NAME, out, SETTINGS, 0.25)
    fine = read_features(written[2])
    assert fine.grid["patch_size_level0"] == 112
    assert len(fine.features) < len(coarse.features)


def test_a_bad_slide_does_not_stop_the_others(slides, tmp_path):
    write(slides / "AA.tif", tissue=False)
    content = (slides / "A.tif").read_bytes()
    (slides / "AB.tif").write_bytes(content[: len(content) // 2])
    with pytest.raises(SealError) as error:
        embed.embed([slides], NAME, tmp_path / "out", SETTINGS)
    assert "2 of 4 slides were not embedded" in str(error.value)
    assert re.search(r"AA\.tif has no tissue.*AB\.tif cannot be read", str(error.value))
    folder = tmp_path / "out" / SCALE / f"features_{NAME}"
    assert sorted(path.name for path in folder.iterdir()) == ["A.h5", "BB.h5"]
    with pytest.raises(SealError, match=r"^.*AA\.tif has no tissue"):
        embed.embed([slides / "AA.tif"], NAME, tmp_path / "out", SETTINGS)


def test_what_is_no_slide_is_listed_and_the_others_are_embedded(slides, tmp_path, tiny):
    (slides / "AC.svs").symlink_to(slides / "unmounted" / "AC.svs")
    (slides / "AD.tif").write_text("the scanner's notes")
    Image.fromarray(pictures.immunohistochemistry()).save(slides / "AE.tif", format="PNG")
    (slides / "AF.tif").mkdir()
    (slides / "AG.tif").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    tifffile.imwrite(slides / "AH.tif", np.zeros((4, 300, 300), np.uint16), photometric="minisblack")
    shutil.copy(slides / "A.tif", slides / "._A.tif")  # of macOS
    write(slides / "AI.tif", um=0.01)
    tifffile.imwrite(slides / "AJ.tif", np.full((40, 40, 3), 99, np.uint8), resolution=(2e4, 2e4), resolutionunit=3)
    out = tmp_path / "out"
    (out / SCALE / f"features_{NAME}").mkdir(parents=True)
    (out / SCALE / f"features_{NAME}" / "._A.h5").write_bytes(b"of macOS")
    for _ in range(2):
        with pytest.raises(SealError) as error:
            embed.embed([slides], NAME, out, SETTINGS)
        what, _, do = str(error.value).splitlines()
        assert what.startswith("8 of 10 slides were not embedded: ")
        for why in ("AC.svs, a link to", "AD.tif cannot be read", "AE.tif does not say", "AF.tif cannot be opened"):
            assert why in what
        assert "AG.tif is git-lfs's pointer" in what
        assert "AH.tif cannot be read as an image (4 channels" in what
        assert "AI.tif has 0.01 um/px" in what
        assert "AJ.tif is 40 x 40 px, smaller than one patch" in what
        assert "delete" not in do
        assert "git lfs pull" in do
        assert "--slide-um-per-px" in do
        assert {path.stem for path in stamps(out)} >= {"A", "BB"}
    written = embed.embed([slides / "AE.tif"], NAME, out, SETTINGS, 0.5)
    assert len(read_features(written[0]).features) > 5


def test_a_disk_that_is_not_mounted_costs_no_embeddings(slides, tmp_path):
    (path,) = embed.embed([slides / "A.tif"], NAME, tmp_path / "out", SETTINGS)
    (slides / "A.tif").unlink()
    (slides / "A.tif").symlink_to(tmp_path / "unmounted" / "A.tif")
    with pytest.raises(SealError, match="a link to"):
        embed.embed([slides], NAME, tmp_path / "out", SETTINGS)
    assert path.is_file()


@pytest.mark.parametrize("wrong", [0.0, -0.5, float("nan"), float("inf"), 500.0])
def test_an_impossible_stated_um_per_px_removes_nothing(slides, tmp_path, tiny, wrong):
    embed.embed([slides], NAME, tmp_path / "out", SETTINGS)
    before = stamps(tmp_path / "out")
    with pytest.raises(SealError, match=r"^--slide-um-per-px has .* as stated"):
        embed.embed([slides], NAME, tmp_path / "out", SETTINGS, wrong)
    assert stamps(tmp_path / "out") == before


@pytest.mark.parametrize("place", ["file/out", "/proc/none/out"])
def test_a_place_that_cannot_be_written_is_said_before_anything_is_computed(slides, tmp_path, tiny, place):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SealError, match=r"cannot be written \((.|\n)*--out"):
        embed.embed([slides], NAME, tmp_path / place, SETTINGS)
    assert not tiny


def test_a_slide_that_became_bad_leaves_no_old_embeddings(slides, tmp_path):
    (path,) = embed.embed([slides / "A.tif"], NAME, tmp_path / "out", SETTINGS)
    write(slides / "A.tif", tissue=False)
    with pytest.raises(SealError, match="no tissue"):
        embed.embed([slides / "A.tif"], NAME, tmp_path / "out", SETTINGS)
    assert not path.exists()


def test_encoders_are_not_mixed(slides, tmp_path, monkeypatch):
    out = tmp_path / "out"
    embed.embed([slides / "A.tif"], NAME, out, SETTINGS)
    embed.embed([slides / "A.tif"], "dinov2_s", out, SETTINGS)  # another folder
    before = stamps(out)
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / f"{NAME}.safetensors").write_bytes(b"other weights of the same name")
    monkeypatch.setenv("SEAL_WEIGHTS", str(weights))
    with pytest.raises(SealError, match=f"another model of the name {NAME}"):
        embed.embed([slides], NAME, out, SETTINGS)
    assert stamps(out) == before


def test_a_folder_of_tridents_features_is_left_alone(slides, tmp_path):
    path = tmp_path / "out" / SCALE / f"features_{NAME}" / "Z.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = np.ones((2, 5), np.float32), np.ones((2, 2), np.int64)
    with pytest.raises(SealError, match=r"Z\.h5 was made by another program"):
        embed.embed([slides], NAME, tmp_path / "out", SETTINGS)
    assert read_features(path).features.shape == (2, 5)


def test_a_nan_is_never_written(slides, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "embed_patches", lambda e, patches, p: np.full((len(patches), 4), np.nan))
    with pytest.raises(SealError, match="not finite"):
        embed.embed([slides], NAME, tmp_path / "out", SETTINGS)
    assert not list((tmp_path / "out").rglob("A.h5"))


# --- saved models -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A SEAL model of 28 px at 1 um/px, and another of the same encoder."""
    folders = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        encoder = encoders.build(NAME, weights="random", image_size=28, tiny=True)
        settings = {"omics": OmicsSettings(hidden=(8, 8)), "vision": VisionSettings(decoder_hidden=5)}
        profile = profiles.get("demo", encoder=NAME, image_size=28, um_per_px=1.0, **settings)
        omics = SealOmics(4, encoder.dim, profile.omics, torch.zeros(4), torch.ones(4))
        model = SealVision(encoder, omics, profile.vision).eval()
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.data += 0.3 * torch.randn(parameter.shape)
        folder = tmp_path_factory.mktemp("saved") / "model"
        save.save(model, folder, profile=profile, panel=Panel(tuple("ABCD"), {"o": ("A",)}, ("d",)))
        folders.append(folder)
    return folders


def test_a_saved_model_embeds_what_it_was_trained_on(slides, tmp_path, saved):
    from seal import load

    (path,) = embed.embed([slides / "A.tif"], saved[0], tmp_path / "out", SETTINGS)
    assert path == tmp_path / "out" / SCALE / f"features_{NAME}_seal" / "A.h5"
    model, transform = load(saved[0])
    patches = patching.extract(slides / "A.tif", SETTINGS).patches
    with torch.no_grad():  # 56 px at 0.5 um/px, seen as 28 px at 1
        expected = model(torch.stack([transform(patches[i]) for i in range(len(patches))])).numpy()
    np.testing.assert_allclose(read_features(path).features, expected, atol=1e-5)


@pytest.mark.parametrize("settings", [PatchSettings(size=64), PatchSettings(um_per_px=1.0, size=56)])
def test_a_saved_model_at_another_scale(slides, tmp_path, saved, settings):
    with pytest.raises(SealError, match="--um-per-px 1 --size 28"):
        embed.embed([slides], saved[0], tmp_path / "out", settings)


def test_two_saved_models_of_one_encoder_are_not_mixed(slides, tmp_path, saved):
    embed.embed([slides / "A.tif"], saved[0], tmp_path / "out", SETTINGS)
    with pytest.raises(SealError, match=f"another model of the name {NAME}_seal"):
        embed.embed([slides], saved[1], tmp_path / "out", SETTINGS)
    moved = shutil.copytree(saved[0], tmp_path / "moved")  # the same model elsewhere is the same model
    assert len(embed.embed([slides], moved, tmp_path / "out", SETTINGS)) == 2


# --- what cannot be done ----------------------------------------------------------------------------------


def test_no_such_model(slides, tmp_path):
    with pytest.raises(SealError, match=rf"unknown_one is neither a folder nor a repository(.|\n)*{NAME}"):
        embed.embed([slides], "unknown_one", tmp_path / "out")
    with pytest.raises(SealError, match="is not a SEAL model"):
        embed.embed([slides], slides, tmp_path / "out")


def test_an_unknown_precision_is_no_slides_fault(slides, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "contents", lambda paths: pytest.fail("slides were read first"))
    with pytest.raises(SealError, match=r"^unknown precision 'half'"):
        embed.embed([slides], NAME, tmp_path / "out", SETTINGS, precision="half")


def test_slides_of_a_folder(slides, tmp_path):
    assert [p.name for p in embed.find_slides([slides])] == ["A.tif", "BB.tif"]
    both = embed.find_slides([slides / "BB.tif", slides])
    assert [p.name for p in both] == ["BB.tif", "A.tif"]
    with pytest.raises(SealError, match=r"gone\.svs is missing"):
        embed.find_slides([slides / "gone.svs"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SealError, match="empty holds no slides"):
        embed.find_slides([tmp_path / "empty"])
    write(tmp_path / "other" / "A.svs")
    with pytest.raises(SealError, match="have one name"):
        embed.find_slides([slides, tmp_path / "other"])


def test_real_slides_from_end_to_end(shared, tmp_path, tiny):
    folder = shared / "wsi"
    if not folder.is_dir():
        pytest.skip(f"no real slides in {folder}")
    with pytest.raises(SealError, match=r"1 of 2 slides were not embedded.*TCGA-CR-7395"):
        embed.embed([folder], NAME, tmp_path / "out", PatchSettings())
    written = embed.embed([folder], NAME, tmp_path / "out", PatchSettings(), 0.5)
    sizes = [len(read_features(path).features) for path in written]
    assert sizes == pytest.approx([41, 188], abs=8)
