"""What H&E patches look like in numbers: optical density, stains, nuclei, sharpness."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seal.errors import SealError
from seal_atlas.realism.statistic import Statistic

if TYPE_CHECKING:
    import pandas as pd

TISSUE_OD = 0.15  # mean of the three channels; below it a pixel is glass (Macenko et al. 2009: beta)
GLASS_PERCENTILE = 99.5  # of a channel's intensities: empty glass, wherever a section has gaps
DARKEST_GLASS = 140.0  # of 255; where the brightest pixels are darker, glass and tissue cannot be told apart
TAIL = 1.0  # percentile of the angles in the stain plane (Macenko et al. 2009: alpha)
BAND = 0.06, 0.45  # cycles a um, wavelengths from 17 to 2.2 um: no picture here is sampled too coarsely for them
PIXELS = 200_000  # at most so many tissue pixels decide a section's stains and threshold

# How nuclei are found, set on one half of an annotated field of ovarian cancer (histolytics 0.3.0). In the other
# half, 715 are found for 613, their median area is 50.5 um2 for 67.5, F1 at an overlap of one half is 0.56: large
# pale nuclei come out small or in pieces, crowded ones as clumps. Both sides are measured alike.
SMOOTH = 1.0  # um, sd of the Gaussian that takes the chromatin's grain away
SURROUND = 8.0  # um, sd of the Gaussian that says how dark a place is
FLOOR, CONTRAST = 0.7, 0.3  # in Otsu's thresholds: the least darkness, and by how much a nucleus exceeds its place
NECK = 1.0  # um, narrower bridges are cut
APART = 3.5  # um, the least distance of two nuclei's centres
SMALLEST = 12.0  # um2


@dataclass(frozen=True)
class StainVectors:
    """Unit vectors of optical density in (R, G, B) of haematoxylin and of eosin."""

    haematoxylin: np.ndarray
    eosin: np.ndarray

    @property
    def angle(self) -> float:
        """Degrees between the two: near 0 the stains cannot be told apart."""
        return float(np.degrees(np.arccos(np.clip(self.haematoxylin @ self.eosin, -1, 1))))


def glass_intensity(patches: np.ndarray) -> np.ndarray:
    """Intensity of empty glass in each channel, from a section's brightest pixels.

    Returns
    -------
    float64 [3], up to 255.
    """
    some = patches.reshape(-1, 3)[:: max(1, patches.size // 3 // PIXELS)]
    return np.percentile(some, GLASS_PERCENTILE, axis=0)


def optical_density(patches: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Optical density, -ln(I / I_0) with I_0 the glass, I at least 1, not below 0.

    Parameters
    ----------
    patches
        RGB, uint8 [..., 3].
    white
        I_0 of the three channels, from `glass_intensity`.

    Returns
    -------
    float32 of the same shape; natural logarithm, no unit.
    """
    tables = np.maximum(-np.log(np.maximum(np.arange(256), 1)[:, None] / white), 0).astype(np.float32)
    return np.stack([tables[patches[..., c], c] for c in range(3)], axis=-1)


def stain_vectors(density: np.ndarray) -> StainVectors:
    """Find the two stains of a section from its tissue pixels.

    Tissue pixels lie near a plane in optical density; the stains are the directions at the 1st and 99th percentile
    of the angle in it.

    Parameters
    ----------
    density
        Optical density of tissue pixels, [n, 3].

    Returns
    -------
    StainVectors; haematoxylin is the one that takes the larger part of red light.

    Source: Macenko et al. 2009.
    """
    plane = np.linalg.eigh(np.cov(density.T.astype(np.float64)))[1][:, :0:-1]  # the two largest, [3, 2]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)
    projected = density @ plane
    angles = np.arctan2(projected[:, 1], projected[:, 0])
    ends = np.percentile(angles, [TAIL, 100 - TAIL])
    vectors = np.abs(plane @ np.array([np.cos(ends), np.sin(ends)])).T
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    eosin, haematoxylin = vectors[np.argsort(vectors[:, 0])]
    return StainVectors(haematoxylin, eosin)


def label_nuclei(red: np.ndarray, threshold: float, um_per_px: float) -> np.ndarray:
    """Label nuclei: darker in red than `threshold` allows and than their surroundings; touching ones are parted.

    Red light is taken by haematoxylin and hardly by eosin or blood, so it needs no unmixing. Touching nuclei are
    parted by the watershed of the distance to their outline.

    Parameters
    ----------
    red
        Optical density of the red channel, [H, W].
    threshold
        Otsu's, of the section's tissue.

    Returns
    -------
    int32 [H, W], 0 = no nucleus.
    """
    from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter
    from skimage.feature import peak_local_max
    from skimage.morphology import disk, opening, remove_small_objects
    from skimage.segmentation import watershed

    place = gaussian_filter(red, SURROUND / um_per_px)
    mask = gaussian_filter(red, SMOOTH / um_per_px) > np.maximum(FLOOR * threshold, place + CONTRAST * threshold)
    mask = binary_fill_holes(opening(mask, disk(max(1, round(NECK / um_per_px)))))
    mask = remove_small_objects(mask, max_size=int(SMALLEST / um_per_px**2))
    distance = gaussian_filter(distance_transform_edt(mask), 0.5 / um_per_px)
    peaks = peak_local_max(distance, min_distance=max(1, round(APART / um_per_px)), labels=mask, exclude_border=False)
    seeds = np.zeros(mask.shape, dtype=np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, seeds, mask=mask)


def measure_nuclei(red: np.ndarray, threshold: float, um_per_px: float) -> "pd.DataFrame":
    """Measure the nuclei of patches.

    Those that touch the upper or left edge are left out, so that each is counted in one of neighbouring patches;
    their size is known for those that touch no edge.

    Parameters
    ----------
    red
        Optical density of the red channel, [n, H, W].

    Returns
    -------
    DataFrame, a row a nucleus: area (um2), eccentricity (0 = circle), od (mean red), whole (touches no edge).
    """
    import pandas as pd
    from skimage.measure import regionprops_table

    frames = []
    for one in red:
        labels = label_nuclei(one, threshold, um_per_px)
        table = regionprops_table(labels, one, properties=("area", "eccentricity", "intensity_mean", "bbox"))
        frame = pd.DataFrame(table).rename(columns={"intensity_mean": "od"})
        frame["area"] *= um_per_px**2
        inside = (frame["bbox-0"] > 0) & (frame["bbox-1"] > 0)
        frame["whole"] = inside & (frame["bbox-2"] < one.shape[0]) & (frame["bbox-3"] < one.shape[1])
        frames.append(frame.loc[inside, ["area", "eccentricity", "od", "whole"]])
    return pd.concat(frames, ignore_index=True)


def spectrum_slope(density: np.ndarray, um_per_px: float) -> float:
    """Slope of log power against log spatial frequency, from 17 to 2.2 um; the steeper, the more blurred.

    Parameters
    ----------
    density
        Mean optical density of the channels, [n, S, S]; a Hann window is laid over each patch.

    Returns
    -------
    The slope, near -2 to -4 for tissue.
    """
    side = density.shape[1]
    window = np.hanning(side)[:, None] * np.hanning(side)[None]
    centred = (density - density.mean(axis=(1, 2), keepdims=True)) * window
    power = (np.abs(np.fft.fft2(centred)) ** 2).mean(axis=0)
    step = np.fft.fftfreq(side, um_per_px)
    radius = np.hypot(step[:, None], step[None])
    edges = np.geomspace(*BAND, 11)
    bins = np.digitize(radius, edges)
    means = np.array([power[bins == i].mean() for i in range(1, len(edges))])
    return float(np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(means), 1)[0])


def picture_statistics(patches: np.ndarray, um_per_px: float = 0.5) -> list[Statistic]:
    """Measure the patches of one section.

    Parameters
    ----------
    patches
        RGB, uint8 [n, S, S, 3].

    Returns
    -------
    Statistics of kind "picture"; none where less than 1 % of the pixels is tissue, and none that rest on optical
    density where the picture is too dark to know its glass.

    Raises
    ------
    SealError
        The patches are not uint8 RGB.
    """
    if patches.dtype != np.uint8 or patches.ndim != 4 or patches.shape[-1] != 3 or not len(patches):
        raise SealError(
            f"patches are {patches.dtype} {list(patches.shape)}",
            expected="uint8 [n, S, S, 3], at least one",
            do="give RGB patches of one section",
        )
    from skimage.filters import threshold_otsu

    white = glass_intensity(patches)
    density = optical_density(patches, white)
    mean = density.mean(axis=-1)
    inside = mean > TISSUE_OD
    if inside.mean() < 0.01:
        return []
    some = density[inside][:: max(1, int(inside.sum()) // PIXELS)]
    colours = patches[inside][:: max(1, int(inside.sum()) // PIXELS)].astype(np.float32)
    found = measure_nuclei(density[..., 0], float(threshold_otsu(some[:, 0])), um_per_px)
    whole = found[found["whole"]]
    one = {
        "saturation": (1 - colours.min(axis=1) / np.maximum(colours.max(axis=1), 1)).mean(),
        "tissue": inside.mean(),
        "sharpness": spectrum_slope(mean, um_per_px),
        "nuclear_density": len(found) / (inside.sum() * um_per_px**2 / 1e6),
    }
    many = {"nuclear_area": whole["area"], "eccentricity": whole["eccentricity"]}
    if white.min() >= DARKEST_GLASS:
        one |= _channels("glass", white) | _channels("od", some.mean(axis=0)) | _stains(stain_vectors(some))
        one["od_sd"] = some.mean(axis=1).std()
        many["nuclear_od"] = whole["od"]
    quartiles = {name: np.quantile(values, [0.5, 0.25, 0.75]) for name, values in many.items() if len(values)}
    return [Statistic(name, float(value)) for name, value in one.items()] + [
        Statistic(name, *map(float, values)) for name, values in quartiles.items()
    ]


def _stains(stains: StainVectors) -> dict[str, float]:
    vectors = _channels("haematoxylin", stains.haematoxylin) | _channels("eosin", stains.eosin)
    return {**vectors, "stain_angle": stains.angle}


def _channels(name: str, values: np.ndarray) -> dict[str, float]:
    return {f"{name}_{channel}": value for channel, value in zip(("red", "green", "blue"), values, strict=True)}
