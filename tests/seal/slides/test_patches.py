import re
import threading

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data as pictures

from seal.errors import SealError
from seal.paths import PROJECT
from seal.slides import patches as patching
from seal.slides.image import SlideImage
from seal.slides.patches import Patches, PatchSettings
from seal.slides.tissue import TissueSettings

WSI = PROJECT.parent / "shared" / "wsi"
CMU, TCGA = WSI / "CMU-1-Small-Region.svs", WSI / "TCGA-CR-7395-01A-01-TS1.svs"
GLASS = 244
# What reading a coarser level may change against resampling level 0, grey levels, mean over a patch: the scanner made
# it by another filter. Of levels that are means of 2 x 2 px (found: 3.2), and of a real scanner's (JPEG 2000; 7.4).
LEVEL_TOLERANCE, SCANNER_TOLERANCE = 4.0, 9.0


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Real tissue, 1,024 x 1,280 px, with glass below and to the right."""
    pixels = np.full((1030, 1283, 3), GLASS, dtype=np.uint8)  # odd: levels lose a row and a column
    pixels[:1024, :1024] = np.tile(pictures.immunohistochemistry(), (2, 2, 1))
    return pixels


def halved(pixels):
    height, width = (n // 2 * 2 for n in pixels.shape[:2])
    parts = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
    return np.rint(parts.mean(axis=(1, 3))).astype(np.uint8)


def write(path, pixels, um=0.25, levels=1, um_y=None, unit="CENTIMETER", tile=(256, 256)):
    resolution = None if um is None else (1e4 / um, 1e4 / (um_y or um))
    with tifffile.TiffWriter(path) as file:
        for number in range(levels):
            more = {} if resolution is None else {"resolution": resolution, "resolutionunit": unit}
            file.write(pixels, photometric="rgb", tile=tile, subfiletype=int(number > 0), metadata=None, **more)
            pixels = halved(pixels)
    return path


def plain(pixels, x, y, side, size):
    """The slow twin: level 0, held in memory, resampled by Pillow to the exact square."""
    box = (x, y, min(x + side, pixels.shape[1]), min(y + side, pixels.shape[0]))
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS, box=box))


# --- reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("um", [0.25, 0.3, 0.5, 0.499, 0.7])
@pytest.mark.parametrize("tile", [(256, 256), None])
def test_one_level_gives_what_level_0_gives(tmp_path, picture, um, tile):
    path = write(tmp_path / "slide.tif", picture, um, tile=tile)
    patches = patching.extract(path, PatchSettings(size=100)).patches
    assert patches.side == pytest.approx(100 * 0.5 / um)
    assert len(patches) > 5
    for i in range(0, len(patches), 7):
        x, y = patches.coords[i]
        assert np.abs(patches[i].astype(int) - plain(picture, x, y, patches.side, 100)).max() <= 1


@pytest.mark.parametrize(("um", "size"), [(0.5, 100), (0.501, 100), (1.0, 57), (0.9, 64), (2.0, 50)])
def test_a_coarser_level_gives_nearly_what_level_0_gives(tmp_path, picture, um, size):
    path = write(tmp_path / "slide.tif", picture, 0.25, levels=4)
    patches = patching.extract(path, PatchSettings(um_per_px=um, size=size)).patches
    image = SlideImage(path)
    assert image._level(um / 0.25) == {0.5: 1, 0.501: 1, 1.0: 2, 0.9: 1, 2.0: 3}[um]
    for i in range(len(patches)):
        x, y = patches.coords[i]
        expected = plain(picture, x, y, patches.side, size).astype(int)
        assert np.abs(patches[i] - expected).mean() < LEVEL_TOLERANCE
        shifted = plain(picture, x + 3 * um / 0.25, y, patches.side, size).astype(int)
        assert np.abs(patches[i] - shifted).mean() > 2 * LEVEL_TOLERANCE  # the tolerance tells three pixels


@pytest.mark.parametrize("tile", [(256, 256), None])
@pytest.mark.parametrize("block", [100, 700, 2048])
def test_an_overview_read_in_blocks_has_no_seams(tmp_path, picture, monkeypatch, tile, block):
    monkeypatch.setattr("seal.slides.image._BLOCK", block)
    found = SlideImage(write(tmp_path / "slide.tif", picture, tile=tile)).overview(7.3)
    assert found.shape == (141, 176, 3)
    expected = np.asarray(Image.fromarray(picture).resize((176, 141), Image.Resampling.LANCZOS))
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_levels_of_odd_sides_do_not_drift(tmp_path):
    """OpenSlide takes 2001 / 1000 for the scale of a level that was made by halving: a pixel off at the far end."""
    ramp = np.broadcast_to((4 * (np.arange(2001) % 60))[None, :, None], (301, 2001, 3)).astype(np.uint8)
    image = SlideImage(write(tmp_path / "slide.tif", ramp, levels=2))
    assert [scale for scale, *_ in image._levels] == [1.0, 2.0]
    for x in range(1810, 1813):
        far = image.area(x, 100, 44, 44, (22, 22)).astype(float)[11, :, 0]
        expected = 4 * (x % 60 + 2 * np.arange(22) + 0.5)
        # 0.4 px of level 0; OpenSlide rounds down where it interpolates
        np.testing.assert_allclose(far, expected, atol=1.6)


def test_batches_are_the_patches_in_order(tmp_path, picture):
    patches = patching.extract(write(tmp_path / "slide.tif", picture), PatchSettings(size=64)).patches
    expected = np.stack([patches[i] for i in range(len(patches))])
    assert len(patches) % 7
    for threads in (1, 4):
        batches = list(patches.batches(7, threads))
        assert [len(b) for b in batches[:-1]] == [7] * (len(patches) // 7)
        np.testing.assert_array_equal(np.concatenate(batches), expected)


def test_the_next_batch_is_read_while_one_is_in_use(tmp_path, picture):
    patches = patching.extract(write(tmp_path / "slide.tif", picture), PatchSettings(size=64)).patches
    read, enough, read_one = [], threading.Event(), patches.__getitem__

    class Watched(Patches):
        def __getitem__(self, index):
            read.append(index)
            if len(read) == 8:
                enough.set()
            return read_one(index)

    batches = Watched(patches.image, patches.coords, patches.side, patches.size).batches(4)
    next(batches)
    assert enough.wait(10)
    assert set(read) == set(range(8))  # and no more: memory does not grow with the slide
    batches.close()


def test_a_damaged_slide_is_named(tmp_path, picture):
    content = write(tmp_path / "slide.tif", picture).read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(content[: len(content) * 2 // 3])
    patches = Patches(SlideImage(path), np.array([[0, 0], [1000, 900]]), 100.0, 100)
    with pytest.raises(SealError, match=re.escape(str(path))):
        list(patches.batches(2))


# --- the grid ---------------------------------------------------------------------------------------------


def plain_grid(width, height, side, step):
    """The slow twin: one place after the other, in TRIDENT's order."""
    found = []
    for column in range(10_000):
        for row in range(10_000):
            x, y = column * step, row * step
            if x + side > width + 1e-6:
                return found
            if y + side > height + 1e-6:
                break
            found.append((round(x), round(y)))
    return found


@pytest.mark.parametrize(
    ("um", "settings"),
    [
        (0.5, PatchSettings(size=50)),
        (0.25, PatchSettings(size=50)),
        (0.25, PatchSettings(size=50, overlap=10)),
        (0.5, PatchSettings(size=50, overlap=49)),
        (0.4, PatchSettings(size=33, overlap=4)),
        (0.9, PatchSettings(size=40)),
    ],
)
def test_the_grid_is_the_plain_one(tmp_path, um, settings):
    image = SlideImage(write(tmp_path / "slide.tif", np.zeros((200, 300, 3), dtype=np.uint8)))
    scale = settings.um_per_px / um
    expected = plain_grid(300, 200, settings.size * scale, (settings.size - settings.overlap) * scale)
    assert [tuple(c) for c in patching.lay_grid(image, um, settings)] == expected


def test_patches_that_meet_leave_no_gap_and_errors_do_not_grow(tmp_path):
    image = SlideImage(write(tmp_path / "slide.tif", np.zeros((300, 5000, 3), dtype=np.uint8)))
    x = np.unique(patching.lay_grid(image, 0.499, PatchSettings(size=224))[:, 0])
    np.testing.assert_allclose(x, np.arange(len(x)) * 224 * 0.5 / 0.499, atol=0.5)


def test_patches_lie_on_tissue_and_in_the_image(tmp_path, picture):
    path = write(tmp_path / "slide.tif", picture)
    settings = PatchSettings(size=64, tissue=TissueSettings(speck_um2=500))
    patches, tissue, um = patching.extract(path, settings)
    assert um == pytest.approx(0.25)
    shares = tissue.share_of(patches.coords, patches.side)
    assert (shares >= 0.5).all()
    assert len(patches) == (tissue.share_of(patching.lay_grid(SlideImage(path), um, settings), 128) >= 0.5).sum()
    assert (patches.coords[:, 0] < 1024).all()
    assert (patches.coords >= 0).all()
    assert (patches.coords + patches.side <= (1283.5, 1030.5)).all()
    fewer = patching.extract(path, PatchSettings(size=64, tissue_share=0.99, tissue=settings.tissue)).patches
    assert 0 < len(fewer) < len(patches)


# --- um/px ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [(256, 256), None])  # OpenSlide reads the one, Pillow the other
@pytest.mark.parametrize(("unit", "per_unit"), [("CENTIMETER", 1e4), ("INCH", 2.54e4)])
def test_um_per_px_of_a_tiff(tmp_path, picture, tile, unit, per_unit):
    path = tmp_path / "slide.tif"
    resolution = (per_unit / 0.274, per_unit / 0.274)
    tifffile.imwrite(path, picture, photometric="rgb", tile=tile, resolution=resolution, resolutionunit=unit)
    assert patching.find_um_per_px(SlideImage(path)) == pytest.approx(0.274, rel=1e-5)


@pytest.mark.parametrize("tile", [(256, 256), None])
def test_what_is_stated_wins_and_a_disagreement_is_said_once(tmp_path, picture, tile, capsys):
    """Pixels a centimetre, written as pixels an inch: 1.27 um/px for 0.5."""
    path = write(tmp_path / "slide.tif", picture, um=0.5, unit="INCH", tile=tile)
    image = SlideImage(path)
    assert patching.find_um_per_px(image) == pytest.approx(1.27)
    assert patching.extract(path, PatchSettings(size=64), 0.5).um_per_px == 0.5
    assert capsys.readouterr().err == f"{path} says 1.27 x 1.27 um/px; 0.5 is taken, as stated\n"
    assert patching.find_um_per_px(image, 1.272) == 1.272
    assert capsys.readouterr().err == ""  # nearly the same


def write_ome(path, picture, x, y=None, unit="µm", tile=(256, 256)):
    metadata = {"axes": "YXS", "PhysicalSizeX": x, "PhysicalSizeXUnit": unit}
    metadata |= {"PhysicalSizeY": y or x, "PhysicalSizeYUnit": unit}
    # what many programs leave in the tags: a screen's resolution
    tags = {"resolution": (72, 72), "resolutionunit": "INCH"}
    tifffile.imwrite(path, picture, photometric="rgb", tile=tile, ome=True, metadata=metadata, **tags)
    return path


@pytest.mark.parametrize("tile", [(256, 256), None])
@pytest.mark.parametrize(("value", "unit"), [(0.274, "µm"), (274, "nm"), (2.74e-4, "mm"), (2.74e-5, "cm")])
def test_omes_physical_size_is_read_with_its_unit(tmp_path, picture, tile, value, unit):
    image = SlideImage(write_ome(tmp_path / "slide.tif", picture, value, unit=unit, tile=tile))
    assert patching.find_um_per_px(image) == pytest.approx(0.274)


def test_an_ome_size_in_no_unit_of_length_is_none(tmp_path, picture):
    image = SlideImage(write_ome(tmp_path / "slide.tif", picture, 0.5, unit="pixel"))
    with pytest.raises(SealError, match=r"352\.\d+ um/px, in its file"):  # of its tags
        patching.find_um_per_px(image)
    uneven = SlideImage(write_ome(tmp_path / "uneven.tif", picture, 0.5, y=0.25))
    with pytest.raises(SealError, match=r"pixels of 0\.5 x 0\.25 um"):
        patching.find_um_per_px(uneven)


def test_omes_size_is_that_of_the_image_of_the_same_sides(tmp_path, picture):
    path = tmp_path / "slide.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for pixels, um in ((picture, 0.5), (picture[:100, :100], 7.0)):
            size = {"PhysicalSizeX": um, "PhysicalSizeY": um}
            file.write(pixels, photometric="rgb", tile=(64, 64), metadata={"axes": "YXS", **size})
    assert SlideImage(path).um_per_px == (0.5, 0.5)


@pytest.mark.parametrize("tile", [(256, 256), None])
def test_no_um_per_px(tmp_path, picture, tile):
    image = SlideImage(write(tmp_path / "slide.tif", picture, um=None, tile=tile))
    with pytest.raises(SealError, match="does not say how large its pixels are") as error:
        patching.find_um_per_px(image)
    assert str(image.path) in str(error.value)
    assert "--slide-um-per-px" in str(error.value)
    assert patching.find_um_per_px(image, 0.3) == 0.3


def test_the_dpi_of_a_picture_is_not_believed(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png", dpi=(25_400, 25_400))  # would be 1 um/px
    with pytest.raises(SealError, match="does not say"):
        patching.find_um_per_px(SlideImage(tmp_path / "a.png"))


@pytest.mark.parametrize("tile", [(256, 256), None])
def test_a_screens_resolution_is_not_a_scanners(tmp_path, picture, tile):
    image = SlideImage(write(tmp_path / "slide.tif", picture, um=25_400 / 72, tile=tile))
    with pytest.raises(SealError, match=r"352\.\d+ um/px, in its file"):
        patching.find_um_per_px(image)
    assert patching.find_um_per_px(image, 0.5) == 0.5
    with pytest.raises(SealError, match="500 um/px, as stated"):
        patching.find_um_per_px(image, 500)


def test_pixels_that_are_not_square(tmp_path, picture):
    image = SlideImage(write(tmp_path / "slide.tif", picture, um=0.5, um_y=0.51))
    with pytest.raises(SealError, match=r"pixels of 0\.5 x 0\.51 um"):
        patching.find_um_per_px(image)
    nearly = SlideImage(write(tmp_path / "nearly.tif", picture, um=0.5, um_y=0.502))
    assert patching.find_um_per_px(nearly) == pytest.approx(0.501)


# --- what cannot be done ----------------------------------------------------------------------------------


NAN, INFINITY = float("nan"), float("inf")
WRONG_SETTINGS = [{"um_per_px": um} for um in (0, -0.5, NAN, INFINITY)]
WRONG_SETTINGS += [{"size": 0}, {"size": -1}, {"overlap": 224}, {"overlap": -1}]


@pytest.mark.parametrize("wrong", WRONG_SETTINGS)
def test_impossible_settings(wrong):
    with pytest.raises(SealError, match="--overlap"):
        PatchSettings(**wrong)


def test_slide_too_coarse_or_too_small(tmp_path, picture):
    coarse = write(tmp_path / "coarse.tif", picture, 1.1)
    with pytest.raises(SealError, match=r"1\.1 um/px: patches at 0\.5 would be invented"):
        patching.extract(coarse)
    small = write(tmp_path / "small.tif", picture[:400], 0.25)
    with pytest.raises(SealError, match="1283 x 400 px, smaller than one patch of 448 px"):
        patching.extract(small)


def test_tissue_smaller_than_a_patch(tmp_path):
    pixels = np.full((1000, 1000, 3), GLASS, dtype=np.uint8)
    pixels[300:500, 300:500] = (200, 90, 150)
    path = write(tmp_path / "slide.tif", pixels, 1.0)
    with pytest.raises(SealError, match="no patch of 400 px with tissue on 50% or more"):
        patching.extract(path, PatchSettings(um_per_px=1.0, size=400))


# --- real slides ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "stated", "share", "number"), [(CMU, None, 0.32, 41), (TCGA, 0.5, 0.63, 188)])
def test_real_slides(path, stated, share, number):
    if not path.is_file():
        pytest.skip(f"{path.name}, a real slide, is not there")
    patches, tissue, um = patching.extract(path, PatchSettings(), stated)
    assert um == pytest.approx(0.5, abs=0.002)
    assert tissue.mask.mean() == pytest.approx(share, abs=0.03)
    assert len(patches) == pytest.approx(number, abs=8)
    read = np.concatenate(list(patches.batches(16)))
    assert (read.std(axis=(1, 2, 3)) > 15).all()  # glass is flat
    assert read.mean() < 225


def test_a_real_slide_without_um_per_px_says_how_to_state_it():
    if not TCGA.is_file():
        pytest.skip(f"{TCGA.name}, a real slide, is not there")
    with pytest.raises(SealError, match="--slide-um-per-px"):
        patching.extract(TCGA)


def test_a_real_scanners_level_against_level_0():
    if not TCGA.is_file():
        pytest.skip(f"{TCGA.name}, a real slide, is not there")
    patches = patching.extract(TCGA, PatchSettings(), 0.25).patches
    image = SlideImage(TCGA)
    assert image._level(2.0) == 1
    for i in range(0, len(patches), 12):
        x, y = patches.coords[i].tolist()
        expected = image.region(x + 224, y + 224, 448, 224).astype(int)
        difference = np.abs(patches[i] - expected).mean()
        assert difference < SCANNER_TOLERANCE
        for shift in (-3, 3):  # level-0 px: the patch is where it should be
            beside = image.region(min(x + 224 + shift, image.width - 1), y + 224, 448, 224).astype(int)
            assert np.abs(patches[i] - beside).mean() > 1.3 * difference
