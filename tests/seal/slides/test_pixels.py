"""What is no 8-bit RGB: read right, or one error that says what it is."""

import re

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data as pictures

from seal.errors import SealError
from seal.slides.image import SlideImage

RGB = np.ascontiguousarray(pictures.immunohistochemistry()[:96, :112])
LUMA = np.asarray(Image.fromarray(RGB).convert("L"))
ALPHA = np.zeros(LUMA.shape, dtype=np.uint8)
ALPHA[:, :56], ALPHA[30:60, :56] = 255, 128
PLANES = np.moveaxis(RGB, -1, 0)
PALETTE = Image.fromarray(RGB).quantize(64)
COLOURMAP = np.zeros((3, 256), dtype=np.uint16)
COLOURMAP[:, :64] = np.array(PALETTE.getpalette()[:192]).reshape(64, 3).T * 257


def thrice(grey):
    return np.repeat(grey[..., None], 3, axis=2)


def over_white(pixels):
    """The plain twin: share of the colour and share of white."""
    share = ALPHA[..., None] / 255
    return np.rint(share * pixels + (1 - share) * 255)


def to_bits(pixels, bits):
    return np.rint(pixels.astype(float) / 255 * (2**bits - 1)).astype(np.uint16)


def read(path):
    image = SlideImage(path)
    return image.region(image.width / 2, image.height / 2, 64, 64)


def middle(pixels):
    y, x = pixels.shape[0] // 2, pixels.shape[1] // 2
    return np.asarray(pixels, dtype=float)[y - 32 : y + 32, x - 32 : x + 32]


RGB_TAG, GREY_TAG = {"photometric": "rgb"}, {"photometric": "minisblack"}
RED_GREEN_BLUE = {"axes": "CYX", "Channel": {"Name": ["Red", "Green", "Blue"]}}
PREMULTIPLIED = np.dstack([np.rint(RGB * (ALPHA[..., None] / 255)).astype(np.uint8), ALPHA])
TIFFS = {
    "planes": (PLANES, RGB, {**RGB_TAG, "planarconfig": "separate"}),
    "planes of 16 bits": (to_bits(PLANES, 16), RGB, {**RGB_TAG, "planarconfig": "separate"}),
    "planes in OME": (PLANES, RGB, {**RGB_TAG, "planarconfig": "separate", "ome": True, "metadata": {"axes": "CYX"}}),
    "pages in OME": (PLANES, RGB, {**GREY_TAG, "ome": True, "metadata": RED_GREEN_BLUE}),
    "16 bits": (to_bits(RGB, 16), RGB, RGB_TAG),
    "16 bits, PNG inside": (to_bits(RGB, 16), RGB, {**RGB_TAG, "compression": "png"}),
    "12 bits in 16": (to_bits(RGB, 12), RGB, RGB_TAG),
    "10 bits in 16": (to_bits(RGB, 10), RGB, RGB_TAG),
    "14 bits in 16": (to_bits(RGB, 14), RGB, {**RGB_TAG, "compression": "deflate", "predictor": True}),
    "dim, 12 bits stated": (
        *(to_bits(RGB // 8, 12), RGB // 8),
        {**RGB_TAG, "ome": True, "metadata": {"axes": "YXS", "SignificantBits": 12}},
    ),
    "grey": (LUMA, thrice(LUMA), GREY_TAG),
    "grey of 16 bits": (to_bits(LUMA, 16), thrice(LUMA), GREY_TAG),
    "grey, 12 bits in 16": (to_bits(LUMA, 12), thrice(LUMA), GREY_TAG),
    "negative grey of 16 bits": (65535 - to_bits(LUMA, 16), thrice(LUMA), {"photometric": "miniswhite"}),
    "negative grey": (255 - LUMA, thrice(LUMA), {"photometric": "miniswhite"}),
    "black and white": (LUMA > 128, thrice((LUMA <= 128) * 255), {"photometric": "miniswhite"}),
    "palette": (np.asarray(PALETTE), np.asarray(PALETTE.convert("RGB")), {"colormap": COLOURMAP}),
    "CMYK": (
        *(np.asarray(Image.fromarray(RGB).convert("CMYK")), RGB),
        {"photometric": "separated", "extrasamples": ()},
    ),
    "YCbCr": (np.asarray(Image.fromarray(RGB).convert("YCbCr")), RGB, {"photometric": "ycbcr"}),
    "alpha": (np.dstack([RGB, ALPHA]), over_white(RGB), {**RGB_TAG, "extrasamples": ["unassalpha"]}),
    "alpha, multiplied": (PREMULTIPLIED, over_white(RGB), {**RGB_TAG, "extrasamples": ["assocalpha"]}),
    "alpha of 16 bits": (
        *(to_bits(np.dstack([RGB, ALPHA]), 16), over_white(RGB)),
        {**RGB_TAG, "extrasamples": ["unassalpha"]},
    ),
    "grey and alpha": (
        *(np.dstack([LUMA, ALPHA]), over_white(thrice(LUMA))),
        {**GREY_TAG, "planarconfig": "contig", "extrasamples": ["unassalpha"]},
    ),
    "a fourth that is no alpha": (np.dstack([RGB, ALPHA]), RGB, {**RGB_TAG, "extrasamples": ["unspecified"]}),
}
CHANNELS = np.stack([LUMA, LUMA // 2, LUMA // 3, LUMA // 4])
NO_COLOURS = {
    "float": ((RGB / 255).astype(np.float32), RGB_TAG, "float32 values"),
    "grey float": ((LUMA / 255).astype(np.float32), GREY_TAG, "float32 values"),
    "signed": (LUMA.astype(np.int16), GREY_TAG, "int16 values"),
    "32 bits": (LUMA.astype(np.uint32), GREY_TAG, "uint32 values"),
    "CIELAB": (RGB, {"photometric": "cielab"}, "colours in CIELAB"),
    "pages of stains": (CHANNELS, GREY_TAG, "4 channels or pages of uint8"),
    "stains in OME": (CHANNELS, {**GREY_TAG, "ome": True, "metadata": {"axes": "CYX"}}, "4 channels or pages"),
    "three stains": (PLANES, {**GREY_TAG, "ome": True, "metadata": {"axes": "CYX"}}, "3 channels or pages"),
    "stains of 16 bits": (to_bits(CHANNELS, 12), GREY_TAG, "4 channels or pages of uint16"),
    "two channels": (np.dstack([LUMA, LUMA]), {**GREY_TAG, "planarconfig": "contig"}, "2 channels"),
    "five channels": (np.dstack([LUMA] * 5), {**GREY_TAG, "planarconfig": "contig"}, "5 channels"),
    "focal planes": (np.stack([RGB] * 3), RGB_TAG, "9 channels or pages"),
}


@pytest.mark.parametrize("tile", [(64, 64), None])
@pytest.mark.parametrize("kind", TIFFS)
def test_a_tiff_is_right(tmp_path, kind, tile):
    pixels, expected, options = TIFFS[kind]
    tifffile.imwrite(tmp_path / "image.tif", pixels, tile=tile, **options)
    tolerance = 4 if kind == "YCbCr" else 1
    np.testing.assert_allclose(read(tmp_path / "image.tif"), middle(expected), atol=tolerance)


@pytest.mark.parametrize("tile", [(64, 64), None])
@pytest.mark.parametrize("kind", NO_COLOURS)
def test_what_is_no_colour_is_one_error(tmp_path, kind, tile):
    pixels, options, why = NO_COLOURS[kind]
    tifffile.imwrite(tmp_path / "image.tif", pixels, tile=tile, **options)
    with pytest.raises(SealError, match=re.escape(f"image.tif cannot be read as an image ({why}")) as error:
        SlideImage(tmp_path / "image.tif")
    assert "delete" not in str(error.value)


def test_a_depth_that_is_guessed_is_said(tmp_path, capsys):
    tifffile.imwrite(tmp_path / "a.tif", to_bits(RGB, 12), photometric="rgb")
    read(tmp_path / "a.tif")
    assert "a.tif has 16 bits a channel, all below 4096: taken as 12 bits\n" in capsys.readouterr().err
    tifffile.imwrite(tmp_path / "b.tif", to_bits(RGB, 16), photometric="rgb")
    read(tmp_path / "b.tif")
    assert capsys.readouterr().err == ""


TRANSPARENT = Image.fromarray(np.dstack([RGB, ALPHA]))
PICTURES = {
    "alpha.png": (TRANSPARENT, over_white(RGB)),
    "alpha.webp": (TRANSPARENT, over_white(RGB)),
    "alpha.tif": (TRANSPARENT, over_white(RGB)),
    "grey_alpha.png": (Image.fromarray(np.dstack([LUMA, ALPHA])), over_white(thrice(LUMA))),
    "palette.png": (PALETTE, np.asarray(PALETTE.convert("RGB"))),
    "grey16.png": (Image.fromarray(to_bits(LUMA, 16)), thrice(LUMA)),
    "grey12.png": (Image.fromarray(to_bits(LUMA, 12)), thrice(LUMA)),
    "bilevel.png": (Image.fromarray(LUMA > 128), thrice((LUMA > 128) * 255)),
    "cmyk.tif": (Image.fromarray(RGB).convert("CMYK"), RGB),
    "named_tif.tif": (Image.fromarray(RGB), RGB),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_right(tmp_path, name):
    image, expected = PICTURES[name]
    options = {"lossless": True} if name.endswith("webp") else {}
    image.save(tmp_path / name, format="PNG" if name == "named_tif.tif" else None, **options)
    np.testing.assert_allclose(read(tmp_path / name), middle(expected), atol=1)


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_png_of_16_bits_a_colour(tmp_path, bits, alpha):
    pixels = to_bits(np.dstack([RGB, ALPHA]) if alpha else RGB, bits)
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(pixels))
    expected = over_white(RGB) if alpha else RGB
    np.testing.assert_allclose(read(tmp_path / "deep.png"), middle(expected), atol=1)


def test_a_jpeg_in_cmyk(tmp_path):
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "print.jpg", quality=98)
    assert np.abs(read(tmp_path / "print.jpg") - middle(RGB)).mean() < 2


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("text.svs", b"This is a note about the slide.\n", "cannot be read as an image"),
        ("page.tif", b"<!DOCTYPE html><title>Not found</title>", "cannot be read as an image"),
        ("empty.tif", b"", "cannot be read as an image"),
        ("pointer.tif", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git-lfs's pointer"),
        ("._A.tif", b"\0\5\26\7\0\2\0\0Mac OS X        ", "cannot be read as an image"),
    ],
)
def test_another_kind_of_file_is_never_to_be_deleted(tmp_path, name, content, why):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SealError, match=why) as error:
        SlideImage(tmp_path / name)
    assert name in str(error.value)
    assert "delete" not in str(error.value)


def test_a_dangling_link_says_where_it_points(tmp_path):
    (tmp_path / "a.svs").symlink_to(tmp_path / "unmounted" / "a.svs")
    with pytest.raises(SealError, match=r"a\.svs, a link to .*unmounted/a\.svs, is missing"):
        SlideImage(tmp_path / "a.svs")
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(SealError, match=r"folder\.tif cannot be opened: Is a directory"):
        SlideImage(tmp_path / "folder.tif")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([k for k in TIFFS if k not in ("YCbCr", "16 bits, PNG inside")]),
    tile=st.sampled_from([(32, 32), (64, 64), None]),  # OpenSlide refuses grey tiles of 16 px
    compression=st.sampled_from([None, "deflate", "lzw", "zstd"]),
    order=st.sampled_from("<>"),
    kept=st.none() | st.floats(0.01, 0.99),
)
def test_whatever_the_layout_it_is_right_or_one_error(tmp_path, kind, tile, compression, order, kept):
    pixels, expected, options = TIFFS[kind]
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, pixels, tile=tile, byteorder=order, **{"compression": compression, **options})
    if kept is None:
        np.testing.assert_allclose(read(path), middle(expected), atol=1)
        return
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    try:
        found = read(path)
    except SealError:
        return
    np.testing.assert_allclose(found, middle(expected), atol=1)  # what was cut off was not needed


@pytest.mark.parametrize("kind", ["planes in OME", "pages in OME", "dim, 12 bits stated"])
def test_a_file_whose_description_is_cut_off_is_truncated(tmp_path, kind):
    """Its first page is there, and would pass for grey, for brighter, or for a slide of another um/px."""
    pixels, _, options = TIFFS[kind]
    tifffile.imwrite(tmp_path / "whole.tif", pixels, compression="deflate", **options)
    with tifffile.TiffFile(tmp_path / "whole.tif") as file:
        page, description = file.pages[0], file.pages[0].tags[270]
        cut = description.valueoffset + description.count // 2
        assert max(page.dataoffsets) + page.databytecounts[-1] <= (tmp_path / "whole.tif").stat().st_size
    content = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[:cut])
    with pytest.raises(SealError, match=r"cut\.tif cannot be read as an image"):
        read(tmp_path / "cut.tif")
