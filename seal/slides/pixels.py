"""Images of any format, depth and colours: as a slide where OpenSlide gives them right, else as 8-bit RGB in memory."""

import re
import struct
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from seal.errors import SealError

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # its first bytes
_NEGATIVE, _GREY, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6  # photometric interpretations; negative: 0 is white
_PREMULTIPLIED, _STRAIGHT = 1, 2  # alpha, in a TIFF's tag of extra samples
_UM = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25_400.0}  # OME's units


def open_image(path: Path) -> tuple:
    """Give an OpenSlide and None, or None and pixels, uint8 [h, w, 3]; else raise SealError."""
    import openslide

    tiff, vendor = is_tiff(path), openslide.OpenSlide.detect_format(path)
    if tiff and not _is_plain(path, scanner=vendor not in (None, "generic-tiff")):
        return None, _read_tiff(path)
    try:
        if vendor:
            return openslide.OpenSlide(path), None
    except openslide.OpenSlideError as error:
        if vendor != "generic-tiff":  # one of a compression that the others may know
            raise unreadable(path, error) from error
    return None, _read_picture(path)


def is_tiff(path: Path) -> bool:
    """Say whether a file begins as a TIFF, whatever its name; SealError where it holds nothing that can be read."""
    try:
        with path.open("rb") as file:
            start = file.read(40)
    except OSError as error:
        link = f", a link to {path.readlink()}," if path.is_symlink() else ""
        why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be opened: {error.strerror}"
        raise SealError(f"{path}{link} {why}", expected="an image", do="correct the path or fetch it again") from error
    if start.startswith(b"version https://git-lfs"):
        raise SealError(f"{path} is git-lfs's pointer to a file", expected="the file", do="run `git lfs pull`")
    return start[:4] in _TIFF


def unreadable(path: Path, why: object) -> SealError:
    """Say that a file is not one of the images that can be read."""
    return SealError(
        f"{path} cannot be read as an image ({why})",
        expected="a whole image or slide in RGB or grey, 8 or 16 bits a channel",
        do="fetch it again if it is truncated, save it as RGB if of other colours, leave it out if it is no image",
    )


def over_white(pixels: np.ndarray, premultiplied: bool = False) -> np.ndarray:
    """Lay colours, whose last channel is alpha, over white: uint8 [h, w, colours + 1] -> uint8 [h, w, colours]."""
    alpha = pixels[..., -1:] / 255
    colours = pixels[..., :-1] * (1 if premultiplied else alpha)
    return np.rint(np.minimum(colours + 255 * (1 - alpha), 255)).astype(np.uint8)


def _is_plain(path: Path, scanner: bool) -> bool:
    """Say whether OpenSlide and Pillow give a TIFF's colours right: 8 bits, one plane, only alpha beside, all tags."""
    import tifffile

    samples = {_NEGATIVE: 1, _GREY: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            alpha = page.photometric == _RGB and page.extrasamples in ((_PREMULTIPLIED,), (_STRAIGHT,))
            plain = page.dtype == np.uint8 and page.samplesperpixel == samples.get(page.photometric, 0) + alpha
            whole = scanner or (file.series[0].size == page.size and not _count_lost_tags(file))
            return plain and page.planarconfig == 1 and whole
    except Exception:  # damaged: OpenSlide or Pillow will say how
        return True


def _count_lost_tags(file) -> int:
    """Count the first page's tags that lie beyond a truncated file's end: tifffile goes on without them."""
    file.filehandle.seek(file.pages[0].offset)
    (number,) = struct.unpack(file.tiff.tagnoformat, file.filehandle.read(file.tiff.tagnosize))
    return number - len(file.pages[0].tags)


def _read_picture(path: Path) -> np.ndarray:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # a section's image is larger than Pillow takes for an attack
    try:
        with Image.open(path) as image:
            if image.format == "PNG" and str(image.tile[0].args).endswith("16B"):  # Pillow drops the lower 8 bits
                from imagecodecs import png_decode

                pixels = np.atleast_3d(png_decode(path.read_bytes()))  # [h, w, 1 to 4]
                return _to_rgb(path, pixels, 16, 0 if pixels.shape[2] % 2 else _STRAIGHT)
            if image.mode[0] in "IF" or image.mode == "LAB":
                raise ValueError(f"pixels of Pillow's mode {image.mode}")
            if image.has_transparency_data:
                return over_white(np.asarray(image.convert("RGBA")))
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except Exception as error:  # of a damaged file any
        if not is_tiff(path):
            raise unreadable(path, error) from error
    return _read_tiff(path)


def _read_tiff(path: Path) -> np.ndarray:
    """Read with tifffile, which knows depths, planes and compressions that the others do not."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page, series, ome = file.pages[0], file.series[0], file.ome_metadata or ""
            names = [name.lower() for name in re.findall(r'<Channel [^>]*\bName="([^"]*)"', ome)]
            jpeg = page.photometric == _YCBCR and page.compression == tifffile.COMPRESSION.JPEG  # decoded to RGB
            rgb = jpeg or page.photometric == _RGB or names in (["red", "green", "blue"], ["r", "g", "b"])
            extras, planes = page.extrasamples, series.size // (page.imagelength * page.imagewidth)
            allowed = [(), (_PREMULTIPLIED,), (_STRAIGHT,), *([(0,)] if rgb else [])]  # 0: no alpha, left out
            if _count_lost_tags(file):
                raise ValueError("it is truncated")
            if page.dtype not in (bool, np.uint8, np.uint16):
                raise ValueError(f"{page.dtype} values")
            if not rgb and page.photometric not in (_NEGATIVE, _GREY):
                raise ValueError(f"colours in {page.photometric.name}")
            if extras not in allowed or planes != (3 if rgb else 1) + len(extras) or series.ndim > 3:
                raise ValueError(f"{planes} channels or pages of {page.dtype} that it does not call red, green, blue")
            pixels = np.moveaxis(series.asarray(), [series.axes.index(axis) for axis in "YX"], [0, 1])
    except Exception as error:  # of a damaged file any
        raise unreadable(path, error) from error
    pixels = pixels.reshape(*pixels.shape[:2], planes)[..., : planes if any(extras) else 3]
    bits = min(page.bitspersample, *map(int, re.findall(r'SignificantBits="(\d+)"', ome)), 16)
    return _to_rgb(path, pixels, bits, sum(extras), page.photometric == _NEGATIVE)


def _to_rgb(path: Path, pixels: np.ndarray, bits: int, alpha: int = 0, negative: bool = False) -> np.ndarray:
    """Scale to 8 bits, repeat grey, lay alpha over white: uint [h, w, colours + alpha] -> uint8 [h, w, 3]."""
    used = next(b for b in (1, 8, 10, 12, 14, 16) if pixels.max() < 2**b)
    if bits == 16 and used < bits:  # cameras give 10 to 14 bits, and few files say so
        print(f"{path} has 16 bits a channel, all below {2**used}: taken as {used} bits", file=sys.stderr)
        bits = used
    top = 2 ** max(bits, used) - 1
    scaled = np.rint(np.arange(top + 1) * (255 / top)).astype(np.uint8)[np.minimum(pixels, top)]
    if negative:
        scaled[..., 0] = 255 - scaled[..., 0]
    if alpha:
        scaled = over_white(scaled, alpha == _PREMULTIPLIED)
    return np.repeat(scaled, 3 // scaled.shape[2], axis=2)


def tiff_um_per_px(path: Path, size: tuple[int, int]) -> tuple[float, float] | None:
    """Read a pixel's width and height, um, from OME's metadata of the image of this size, else from a TIFF's tags.

    Of other images None: their resolution is made up.
    """
    import tifffile

    if not is_tiff(path):
        return None
    with tifffile.TiffFile(path) as file:
        if found := _ome_um_per_px(file.ome_metadata, size):
            return found
        tags = file.pages[0].tags
        unit = {2: 25_400.0, 3: 10_000.0}.get(tags["ResolutionUnit"].value if "ResolutionUnit" in tags else 2)
        if unit is None or "XResolution" not in tags or "YResolution" not in tags:
            return None
        (x, per_x), (y, per_y) = tags["XResolution"].value, tags["YResolution"].value
    return (unit * per_x / x, unit * per_y / y) if x and y and per_x and per_y else None


def _ome_um_per_px(ome: str | None, size: tuple[int, int]) -> tuple[float, float] | None:
    from xml.etree import ElementTree

    with suppress(ElementTree.ParseError, KeyError, ValueError):  # half of it, or a unit that is no length
        for own in (pixels.attrib for pixels in ElementTree.fromstring(ome or "<OME/>").iterfind(".//{*}Pixels")):
            if (int(own["SizeX"]), int(own["SizeY"])) == size:
                units = (_UM[own.get(f"PhysicalSize{axis}Unit", "um")] for axis in "XY")
                return tuple(float(own[f"PhysicalSize{axis}"]) * unit for axis, unit in zip("XY", units, strict=True))
    return None
