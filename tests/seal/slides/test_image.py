import re

import numpy as np
import pytest
import tifffile
from PIL import Image

from seal.errors import SealError
from seal.paths import PROJECT
from seal.slides.image import SlideImage

WSI = PROJECT.parent / "shared" / "wsi"


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(300, 400, 3), dtype=np.uint8)


def written(folder, pixels, kind):
    path = folder / f"image.{'png' if kind == 'png' else 'tif'}"
    if kind == "png":
        Image.fromarray(pixels).save(path)
    else:
        tile = (128, 128) if kind == "tiled" else None
        compression = "png" if kind == "png in tiff" else "deflate"
        tifffile.imwrite(path, pixels, photometric="rgb", tile=tile, compression=compression)
    return path


def read_all(path, step):
    image = SlideImage(path)
    for x in range(0, image.width, step):
        for y in range(0, image.height, step):
            image.region(x, y, 64, 64)


# Each goes another way: Pillow, OpenSlide, Pillow's TIFF, tifffile (Pillow cannot decompress PNG inside TIFF)
@pytest.mark.parametrize("kind", ["png", "tiled", "stripes", "png in tiff"])
def test_a_region_is_the_slice_of_the_array(tmp_path, pixels, kind):
    image = SlideImage(written(tmp_path, pixels, kind))
    assert (image.width, image.height) == (400, 300)
    np.testing.assert_array_equal(image.region(150, 100, 64, 64), pixels[68:132, 118:182])


def test_tiled_tiff_is_not_held_in_memory(tmp_path, pixels):
    assert SlideImage(written(tmp_path, pixels, "tiled"))._array is None


@pytest.mark.parametrize("kind", ["png", "tiled"])
def test_what_lies_outside_is_white(tmp_path, pixels, kind):
    image = SlideImage(written(tmp_path, pixels, kind))
    region = image.region(0, 0, 64, 64)
    assert (region[:32] == 255).all()
    assert (region[:, :32] == 255).all()
    np.testing.assert_array_equal(region[32:, 32:], pixels[:32, :32])
    np.testing.assert_array_equal(image.region(399, 299, 64, 64)[:33, :33], pixels[267:, 367:])


def test_resampling_is_antialiased(tmp_path):
    board = np.indices((256, 256)).sum(axis=0) % 2 * 255  # picking pixels would leave black and white
    path = tmp_path / "board.png"
    Image.fromarray(np.repeat(board[..., None], 3, axis=2).astype(np.uint8)).save(path)
    region = SlideImage(path).region(128, 128, 128, 32)
    assert region.shape == (32, 32, 3)
    assert np.abs(region[2:-2, 2:-2].astype(int) - 127.5).max() < 8


def test_a_larger_field_shows_more_of_the_same_place(tmp_path):
    ramp = np.broadcast_to(np.arange(400)[None, :, None] * 255 / 399, (400, 400, 3))
    path = tmp_path / "ramp.png"
    Image.fromarray(np.rint(ramp).astype(np.uint8)).save(path)
    image = SlideImage(path)
    for side in (50, 100, 301):
        region = image.region(200, 200, side, 20).astype(float)
        expected = 200 + (np.arange(20) + 0.5 - 10) * side / 20
        np.testing.assert_allclose(region[10, :, 0], (expected - 0.5) * 255 / 399, atol=1.5)


@pytest.mark.parametrize(("x", "y"), [(-1, 10), (400, 10), (10, 300), (float("nan"), 10)])
def test_centre_outside_the_image(tmp_path, pixels, x, y):
    path = written(tmp_path, pixels, "png")
    with pytest.raises(SealError, match="outside the image") as error:
        SlideImage(path).region(x, y, 64, 64)
    assert str(path) in str(error.value)
    assert f"({x:.0f}, {y:.0f})" in str(error.value)
    assert "x < 400 and 0 <= y < 300" in str(error.value)


def test_missing_image(tmp_path):
    with pytest.raises(SealError, match=r"gone\.tif is missing"):
        SlideImage(tmp_path / "gone.tif")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("kept", [0.001, 0.5, 0.95])
def test_truncated_image(tmp_path, pixels, suffix, kept):
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    Image.fromarray(pixels).save(whole)
    content = whole.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(SealError, match=re.escape(f"{path} cannot be read as an image")):
        SlideImage(path)


def test_truncated_tiled_tiff_is_an_error_where_its_pixels_are_gone(tmp_path, pixels):
    content = written(tmp_path, pixels, "tiled").read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(SealError, match=re.escape(str(path))):
        read_all(path, 50)


@pytest.fixture(params=["CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs"])
def real(request):
    path = WSI / request.param
    if not path.is_file():
        pytest.skip(f"{path.name}, a real slide, is not there")
    return path


def test_real_slide_against_tifffile(real):
    try:
        expected = tifffile.imread(real, key=0)
    except Exception as error:
        pytest.skip(f"tifffile cannot decode it: {error}")
    image = SlideImage(real)
    assert (image.height, image.width) == expected.shape[:2]
    y, x = expected.shape[0] // 2, expected.shape[1] // 2
    region = image.region(x, y, 224, 224).astype(int)
    difference = np.abs(region - expected[y - 112 : y + 112, x - 112 : x + 112])
    assert region.std() > 10  # tissue, not background
    assert difference.mean() < 2  # two decoders of the same JPEG differ by rounding only


def test_truncated_real_slide(real, tmp_path):
    path = tmp_path / real.name
    path.write_bytes(real.read_bytes()[: real.stat().st_size // 2])
    with pytest.raises(SealError, match=re.escape(str(path))):
        read_all(path, 500)
