import re

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data as pictures
from skimage.filters import threshold_otsu

from seal.errors import SealError
from seal.slides import tissue
from seal.slides.image import SlideImage
from seal.slides.tissue import Tissue, TissueSettings

GLASS, STAIN = (242, 240, 243), (200, 90, 150)
UM = 2.0  # um/px of the test's slides


def slide(folder, pixels, noise=2.0, seed=0):
    noisy = pixels + np.random.default_rng(seed).normal(0, noise, pixels.shape)
    path = folder / "slide.tif"
    tifffile.imwrite(path, np.clip(np.rint(noisy), 0, 255).astype(np.uint8), photometric="rgb", tile=(256, 256))
    return SlideImage(path)


def glass(height=800, width=1200):
    return np.full((height, width, 3), GLASS, dtype=float)


def test_a_stained_square_is_found_to_a_pixel_of_the_mask(tmp_path):
    pixels = glass()
    pixels[200:600, 320:960] = STAIN
    found = tissue.find_tissue(slide(tmp_path, pixels), UM)
    assert found.mask.shape == (200, 300)  # 8 um/px
    assert found.size == (1200, 800)
    expected = np.zeros((200, 300), dtype=bool)
    expected[50:150, 80:240] = True
    assert (found.mask == expected).mean() > 0.995
    assert found.mask.mean() == pytest.approx(400 * 640 / (800 * 1200), rel=0.02)


def test_real_tissue_on_glass(tmp_path):
    pixels = glass(1024, 1024)
    pixels[256:768, 256:768] = pictures.immunohistochemistry()
    found = tissue.find_tissue(slide(tmp_path, pixels, noise=1), 1.0, TissueSettings(speck_um2=500, hole_um2=2000))
    inside = found.mask[32:96, 32:96]
    assert inside.mean() > 0.5
    assert found.mask.sum() == inside.sum()


@pytest.mark.parametrize("colour", [GLASS, (255, 255, 255), (225, 214, 226), (0, 0, 0), (128, 128, 128)])
@pytest.mark.parametrize("noise", [0, 2, 8])
def test_a_blank_slide_has_no_tissue(tmp_path, colour, noise):
    image = slide(tmp_path, np.full((600, 600, 3), colour, dtype=float), noise)
    with pytest.raises(SealError, match="has no tissue") as error:
        tissue.find_tissue(image, UM)
    assert str(image.path) in str(error.value)


def test_otsu_alone_would_take_the_noise_for_tissue(tmp_path):
    """Why there is a guard: of a blank slide Otsu puts about half above its threshold."""
    saturation = tissue._saturation(slide(tmp_path, glass()).overview(1), 0.1)
    assert 0.2 < (saturation > tissue.otsu(saturation)).mean() < 0.8


def test_tinted_glass_with_a_gradient_is_not_tissue(tmp_path):
    pixels = glass()
    pixels[..., 1] -= np.linspace(0, 20, 1200)
    with pytest.raises(SealError, match="no more apart than noise"):
        tissue.find_tissue(slide(tmp_path, pixels), UM)


def test_a_slide_full_of_tissue_is_all_tissue(tmp_path):
    """Otsu would cut it into strongly and less strongly stained."""
    pixels = np.full((800, 800, 3), STAIN, dtype=float)
    pixels[:400] = (150, 60, 130)
    pixels[:, :300] = (225, 160, 200)
    found = tissue.find_tissue(slide(tmp_path, pixels), UM)
    assert found.mask.all()


def test_black_background_is_not_tissue(tmp_path):
    """As some scanners leave what they did not scan; its JPEG noise has any saturation."""
    pixels = glass()
    pixels[:, :400] = 4
    pixels[200:600, 600:1000] = STAIN
    found = tissue.find_tissue(slide(tmp_path, pixels, noise=6), UM)
    assert not found.mask[:, :98].any()
    assert found.mask[52:148, 152:248].all()


def test_specks_and_holes_go_by_their_area(tmp_path):
    pixels = glass()
    pixels[200:600, 200:600] = STAIN
    pixels[300:340, 300:340] = GLASS  # 80 um a side, 6,400 um2: filled
    pixels[400:480, 400:480] = GLASS  # 160 um a side, 25,600 um2: kept
    pixels[100:140, 900:940] = STAIN  # 6,400 um2: dropped
    pixels[400:480, 900:980] = STAIN  # 25,600 um2: kept
    image = slide(tmp_path, pixels)
    mask = tissue.find_tissue(image, UM).mask
    assert [bool(mask[y, x]) for y, x in ((80, 80), (110, 110), (30, 230), (110, 235))] == [True, False, False, True]
    everything = tissue.find_tissue(image, UM, TissueSettings(speck_um2=0, hole_um2=0)).mask
    assert [bool(everything[y, x]) for y, x in ((80, 80), (110, 110), (30, 230))] == [False, False, True]
    # 25,600 um2 at 1 um/px would be 6,400 um2: areas are in um, not in px
    mask = tissue.find_tissue(image, UM / 2, TissueSettings(um_per_px=4)).mask
    assert not mask[110, 235]
    assert mask[110, 110]


def test_only_specks_is_no_tissue(tmp_path):
    pixels = glass()
    pixels[100:140, 900:940] = STAIN
    with pytest.raises(SealError, match="nothing coloured on it is larger than 12500 um2"):
        tissue.find_tissue(slide(tmp_path, pixels), UM)


def test_a_slide_coarser_than_the_mask_is_taken_as_it_is(tmp_path):
    pixels = glass(60, 90)
    pixels[20:40, 30:60] = STAIN
    assert tissue.find_tissue(slide(tmp_path, pixels), 20.0).mask.shape == (60, 90)


def test_otsu_against_skimage():
    rng = np.random.default_rng(0)
    for low, high, share in ((0.05, 0.4, 0.3), (0.1, 0.5, 0.05), (0.3, 0.35, 0.5)):
        values = np.where(rng.random(20_000) < share, rng.normal(high, 0.05, 20_000), rng.normal(low, 0.03, 20_000))
        values = np.concatenate([np.clip(values, 0, 1), [0, 1]])  # with 0 and 1 its bins are ours
        ours, theirs = tissue.otsu(values), threshold_otsu(values)
        # one bin up to the edge whose middle it names, or empty bins, of which it takes the first
        assert theirs < ours
        assert ((values > theirs) & (values <= ours)).mean() < 0.03


def test_otsu_of_two_values_lies_between_them():
    assert tissue.otsu(np.array([0.1] * 5 + [0.9] * 3)) == pytest.approx(0.5, abs=0.01)
    assert np.isfinite(tissue.otsu(np.full(10, 0.3)))


def test_a_contour_lies_on_the_tissues_border():
    mask = np.zeros((600, 1500), dtype=bool)
    mask[100:400, 300:] = True
    drawn = Tissue(mask, (15_000, 6000), np.full((600, 1500, 3), 200, np.uint8)).draw_contour(500)
    assert drawn.shape == (200, 500, 3)
    green = (drawn == (0, 255, 0)).all(axis=2)
    expected = np.zeros((200, 500), dtype=bool)
    expected[33:133, 100:] = True
    expected[35:131, 102:498] = False  # closed where the tissue leaves the slide
    assert (green == expected).mean() > 0.99
    assert (drawn[~green] == 200).all()


def test_saturation_is_that_of_hsv():
    pixels = np.random.default_rng(0).integers(30, 256, (20, 30, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).convert("HSV"))[..., 1] / 255
    np.testing.assert_allclose(tissue._saturation(pixels, 0.1), expected, atol=1 / 255)


def test_share_of_squares_against_counting():
    rng = np.random.default_rng(0)
    mask = rng.random((12, 17)) < 0.5
    found = Tissue(mask, (170, 120), np.zeros((*mask.shape, 3), np.uint8))  # 10 px of level 0 a pixel
    fine = np.kron(mask, np.ones((10, 10)))
    corners = rng.integers(0, (130, 80), (50, 2))
    expected = [fine[y : y + 37, x : x + 37].mean() for x, y in corners]
    np.testing.assert_allclose(found.share_of(corners, 37), expected, atol=1e-9)


def test_share_of_a_square_that_leaves_the_slide_counts_the_outside_as_glass():
    found = Tissue(np.ones((4, 4), dtype=bool), (40, 40), np.zeros((4, 4, 3), np.uint8))
    np.testing.assert_allclose(found.share_of(np.array([[0, 0], [20, 0], [30, 30], [100, 0]]), 40), [1, 0.5, 1 / 16, 0])


def test_damaged_slide(tmp_path):
    image = slide(tmp_path, glass())
    content = image.path.read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(SealError, match=re.escape(str(path))):
        tissue.find_tissue(SlideImage(path), UM)
