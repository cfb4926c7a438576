"""Tissue on a whole slide: Otsu's threshold on the saturation of a low-resolution picture.

Glass has little colour, stained tissue has much. What this cannot tell apart: coloured pen and ink are taken for tissue
and raise the threshold; black pen, folds and black background are not (too dark to have a colour); fat, mucin and faint
stains may be missed; a tint of the glass that varies more than the tissue's colour ends in an error.
"""

from dataclasses import dataclass

import numpy as np

from seal.errors import SealError
from seal.slides.image import SlideImage

_BINS = 256


@dataclass(frozen=True)
class TissueSettings:
    """How tissue is told from glass. All values are our choice, tried on real slides of three scanners."""

    um_per_px: float = 8.0  # of the low-resolution picture; a coarser slide is taken as it is
    darkest: float = 0.1  # below this value (largest of R, G, B; white is 1) a pixel has no colour: black background
    least_contrast: float = 0.1  # between the mean saturations of glass and tissue; less is noise or a tint
    glass_below: float = 0.2  # mean saturation of the paler class; above, there is no glass: all is tissue
    speck_um2: float = 12_500.0  # tissue smaller than this is dropped: about one patch of 112 um
    hole_um2: float = 12_500.0  # glass smaller than this inside tissue is filled


@dataclass(frozen=True)
class Tissue:
    """Where the tissue of one slide is."""

    mask: np.ndarray  # bool [h, w], over the whole slide
    size: tuple[int, int]  # width and height of level 0, px
    picture: np.ndarray  # uint8 [h, w, 3], what the mask was found on

    def draw_contour(self, side: int = 1000) -> np.ndarray:
        """Draw the tissue's border in green on a picture of the slide of at most `side` px, uint8 [h', w', 3]."""
        from PIL import Image
        from scipy.ndimage import binary_erosion

        small = Image.fromarray(self.picture), Image.fromarray(self.mask)
        for image in small:
            image.thumbnail((side, side))
        picture, mask = map(np.array, small)
        picture[mask & ~binary_erosion(mask, iterations=2)] = (0, 255, 0)
        return picture

    def share_of(self, corners: np.ndarray, side: float) -> np.ndarray:
        """Share of tissue in squares, exact in area.

        Parameters
        ----------
        corners
            Upper left corners (x, y), level-0 px, [n, 2].
        side
            Of the squares, level-0 px.

        Returns
        -------
        float64 [n].
        """
        total = np.zeros(np.add(self.mask.shape, 1))  # [h + 1, w + 1]
        total[1:, 1:] = self.mask.cumsum(axis=0).cumsum(axis=1)
        scale = np.divide(self.size, self.mask.shape[::-1])  # level-0 px a pixel of the mask, [2]
        low = np.asarray(corners, dtype=float) / scale  # [n, 2]
        high = low + side / scale
        area = _until(total, high[:, 0], high[:, 1]) + _until(total, low[:, 0], low[:, 1])
        area -= _until(total, low[:, 0], high[:, 1]) + _until(total, high[:, 0], low[:, 1])
        return area / np.prod(side / scale)


def _until(total: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tissue between the origin and (x, y): the summed mask is bilinear inside each of its pixels."""
    from scipy.ndimage import map_coordinates

    return map_coordinates(total, [y, x], order=1, mode="nearest")


def find_tissue(image: SlideImage, um_per_px: float, settings: TissueSettings = TissueSettings()) -> Tissue:
    """Find the tissue of a slide.

    Parameters
    ----------
    um_per_px
        Of the slide's full resolution.

    Raises
    ------
    SealError
        There is no tissue: a blank slide, or nothing on it as large as a speck.
    """
    picture = image.overview(max(settings.um_per_px / um_per_px, 1.0))  # [h, w, 3]
    saturation = _saturation(picture, settings.darkest)  # [h, w]
    threshold = _threshold(saturation, image, settings)
    pixel = image.width * image.height * um_per_px**2 / saturation.size  # um2
    mask = _without_small(saturation > threshold, settings.speck_um2 / pixel)
    mask = ~_without_small(~mask, settings.hole_um2 / pixel)
    if not mask.any():
        raise _no_tissue(image, f"nothing coloured on it is larger than {settings.speck_um2:g} um2")
    return Tissue(mask, (image.width, image.height), picture)


def _saturation(pixels: np.ndarray, darkest: float) -> np.ndarray:
    """S = (max - min) / max of R, G, B; 0 where max is below `darkest`. uint8 [h, w, 3] -> float64 [h, w] in [0, 1]."""
    high = pixels.max(axis=2).astype(float)
    return np.where(high >= 255 * darkest, (high - pixels.min(axis=2)) / np.maximum(high, 1), 0.0)


def _threshold(saturation: np.ndarray, image: SlideImage, settings: TissueSettings) -> float:
    """Otsu's threshold where there are two classes, and what is to be done where there are not."""
    threshold = otsu(saturation)
    above = saturation > threshold
    glass, tissue = (float(saturation[side].mean()) if side.any() else 0.0 for side in (~above, above))
    # Otsu cuts every picture in two: one without glass is cut through the tissue, a blank one through its noise.
    if glass >= settings.glass_below:
        return 0.0
    if tissue - glass < settings.least_contrast:
        raise _no_tissue(
            image, f"mean saturations of its two classes are {glass:.3f} and {tissue:.3f}, no more apart than noise"
        )
    return threshold


def otsu(values: np.ndarray) -> float:
    """Threshold t that parts values in [0, 1], of any shape, into the two classes furthest apart.

    t = argmax w0 w1 (m0 - m1)^2,  w and m weight and mean of the values up to t and above

    Values are taken in 256 equal bins; t is the upper edge of the last bin of the lower class. Source: Otsu 1979.
    """
    counts, edges = np.histogram(values, bins=_BINS, range=(0, 1))
    weight = np.cumsum(counts) / counts.sum()
    moment = np.cumsum(counts * (edges[:-1] + edges[1:]) / 2) / counts.sum()
    inner = weight * (1 - weight)
    between = (moment[-1] * weight - moment) ** 2 / np.where(inner > 0, inner, np.inf)
    best = between >= between.max() * (1 - 1e-12)  # empty bins between the classes are equally good: take their middle
    return float(edges[1:][best].mean())


def _without_small(mask: np.ndarray, least: float) -> np.ndarray:
    """Drop connected parts (by sides) of fewer pixels than `least`."""
    from scipy.ndimage import label

    parts, _ = label(mask)
    keep = np.bincount(parts.ravel()) >= least
    keep[0] = False
    return keep[parts]


def _no_tissue(image: SlideImage, why: str) -> SealError:
    return SealError(
        f"{image.path} has no tissue: {why}",
        expected="a slide of stained tissue on pale glass",
        do="look at the slide; leave it out if it is blank",
    )
