"""Square regions out of full-resolution images, whatever their format."""

from pathlib import Path

import numpy as np

from seal.errors import SealError


class SlideImage:
    """An image from which square regions are cut.

    Parameters
    ----------
    path
        A slide that OpenSlide reads, or any image that Pillow reads (then it is held in memory).

    Raises
    ------
    SealError
        The file is missing, truncated or of no known format.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise SealError(f"{path} is missing", expected="a full-resolution image", do="fetch the sample again")
        self._slide, self._array = _open_slide(self.path), None
        if self._slide is None:
            self._array = _read_image(self.path)
            self.height, self.width = self._array.shape[:2]
        else:
            self.width, self.height = self._slide.dimensions

    def region(self, x: float, y: float, side: float, size: int) -> np.ndarray:
        """Cut the square of `side` full-resolution px around (x, y) and resample it to `size` px.

        What lies outside the image is white. Lanczos resampling, antialiased.

        Returns
        -------
        uint8 [size, size, 3].

        Raises
        ------
        SealError
            The centre lies outside the image, or the image is damaged there.
        """
        from PIL import Image

        if not (0 <= x < self.width and 0 <= y < self.height):
            raise SealError(
                f"{self.path}: spot centre ({x:.0f}, {y:.0f}) lies outside the image",
                expected=f"0 <= x < {self.width} and 0 <= y < {self.height} px",
                do="check that spots and image belong together and have the same resolution",
            )
        left, top = round(x - side / 2), round(y - side / 2)
        whole = max(1, round(side))
        pixels = Image.fromarray(self._read(left, top, whole))
        if whole != size:
            pixels = pixels.resize((size, size), Image.Resampling.LANCZOS)
        return np.asarray(pixels)

    def _read(self, left: int, top: int, side: int) -> np.ndarray:
        out = np.full((side, side, 3), 255, dtype=np.uint8)
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + side, self.width), min(top + side, self.height)
        if self._array is not None:
            inside = self._array[y0:y1, x0:x1]
        else:
            import openslide

            try:
                rgba = np.asarray(self._slide.read_region((x0, y0), 0, (x1 - x0, y1 - y0)))
            except openslide.OpenSlideError as error:
                raise _damaged(self.path, error) from error
            alpha = rgba[..., 3:] / 255  # OpenSlide leaves what was never scanned transparent
            inside = np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
        out[y0 - top : y1 - top, x0 - left : x1 - left] = inside
        return out


def _open_slide(path: Path):
    """The file as an OpenSlide, or None where OpenSlide does not know the format."""
    import openslide

    try:
        return openslide.OpenSlide(str(path))
    except openslide.OpenSlideUnsupportedFormatError:
        return None
    except openslide.OpenSlideError as error:
        raise _damaged(path, error) from error


def _read_image(path: Path) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # a section's image is larger than Pillow takes for an attack
    try:
        with Image.open(path) as image:
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        if path.suffix.lower() not in (".tif", ".tiff"):
            raise _damaged(path, error) from error
    return _read_tiff(path)


def _read_tiff(path: Path) -> np.ndarray:
    """Read with tifffile, which knows compressions that Pillow does not."""
    import tifffile

    try:
        pixels = tifffile.imread(path, key=0)
    except Exception as error:
        raise _damaged(path, error) from error
    if pixels.ndim != 3 or pixels.shape[2] < 3 or pixels.dtype != np.uint8:
        raise _damaged(path, f"{pixels.dtype} {pixels.shape}")
    return pixels[..., :3]


def _damaged(path: Path, error: object) -> SealError:
    return SealError(
        f"{path} cannot be read as an image ({error})",
        expected="a whole RGB image or slide, 8 bits a channel",
        do="the file is truncated or corrupt: delete it and fetch it again",
    )
