"""One number about a section, and what each number is called."""

from dataclasses import dataclass
from typing import NamedTuple

NAN = float("nan")


@dataclass(frozen=True)
class Statistic:
    """A number about a section; `low` and `high` are the quartiles of what it is the median of, where it is one."""

    name: str  # a key of `STATISTICS`
    value: float
    low: float = NAN
    high: float = NAN
    x: float = NAN  # where on a curve


class StatisticName(NamedTuple):
    """How a statistic is written, its unit, and its kind.

    Kinds: told (depends on which genes were counted or on the grid, so that it is not compared), expression, picture,
    curve (x is the place on it), apart (of two sets of patches).
    """

    label: str
    unit: str
    kind: str


STATISTICS = {
    "counts": StatisticName("counts a spot", "counts", "told"),
    "genes": StatisticName("genes detected a spot", "genes", "told"),
    "zeros": StatisticName("zeros among all genes", "share", "told"),
    "counts_common": StatisticName("counts a spot, common genes", "counts", "expression"),
    "depth_spread": StatisticName("sd of ln(counts) over spots", "", "expression"),
    "dispersion": StatisticName("dispersion, depth taken out", "", "expression"),
    "moran": StatisticName("Moran's I, next spots", "", "told"),
    "zeros_common": StatisticName("zeros at common depth", "share", "expression"),
    "dispersion_common": StatisticName("dispersion at common depth", "", "expression"),
    "first_component": StatisticName("variance in component 1", "share", "expression"),
    "above_noise": StatisticName("variance above the noise edge", "share", "expression"),
    "components": StatisticName("components above the noise edge", "number", "expression"),
    "moran_200": StatisticName("Moran's I at 200 µm, common depth", "", "expression"),
    "glass_red": StatisticName("glass, red", "of 255", "picture"),
    "glass_green": StatisticName("glass, green", "of 255", "picture"),
    "glass_blue": StatisticName("glass, blue", "of 255", "picture"),
    "od_red": StatisticName("optical density, red", "", "picture"),
    "od_green": StatisticName("optical density, green", "", "picture"),
    "od_blue": StatisticName("optical density, blue", "", "picture"),
    "od_sd": StatisticName("optical density, sd of pixels", "", "picture"),
    "haematoxylin_red": StatisticName("haematoxylin vector, red", "", "picture"),
    "haematoxylin_green": StatisticName("haematoxylin vector, green", "", "picture"),
    "haematoxylin_blue": StatisticName("haematoxylin vector, blue", "", "picture"),
    "eosin_red": StatisticName("eosin vector, red", "", "picture"),
    "eosin_green": StatisticName("eosin vector, green", "", "picture"),
    "eosin_blue": StatisticName("eosin vector, blue", "", "picture"),
    "stain_angle": StatisticName("angle between the stains", "degrees", "picture"),
    "saturation": StatisticName("saturation", "share", "picture"),
    "tissue": StatisticName("tissue in a patch", "share", "picture"),
    "sharpness": StatisticName("slope of the power spectrum", "", "picture"),
    "nuclear_density": StatisticName("nuclei a mm² of tissue", "per mm²", "picture"),
    "nuclear_area": StatisticName("area of a nucleus", "µm²", "picture"),
    "eccentricity": StatisticName("eccentricity of a nucleus", "", "picture"),
    "nuclear_od": StatisticName("darkness of a nucleus", "red OD", "picture"),
    "variance": StatisticName("variance by mean count", "counts²", "curve"),
    "spectrum": StatisticName("variance by component", "share", "curve"),
    "auc_encoder": StatisticName("AUC, frozen encoder", "", "apart"),
    "auc_colour": StatisticName("AUC, colour alone", "", "apart"),
    "accuracy_encoder": StatisticName("balanced accuracy, frozen encoder", "share", "apart"),
    "accuracy_colour": StatisticName("balanced accuracy, colour alone", "share", "apart"),
    "distance_encoder": StatisticName("energy distance, frozen encoder", "", "apart"),
    "distance_colour": StatisticName("energy distance, colour alone", "", "apart"),
}
