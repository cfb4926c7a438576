"""One number about a section, and what each number is called."""

from dataclasses import dataclass
from typing import NamedTuple

NAN = float("nan")


@dataclass(frozen=True)
class Statistic:
    """A number about a section; `low` and `high` are the quartiles of what it is the median of, where it is one."""

    name: str  # a key of `NAMES`
    value: float
    low: float = NAN
    high: float = NAN
    x: float = NAN  # where on a curve


class Name(NamedTuple):
    """How a statistic is written, its unit, and its kind.

    Kinds: told (depends on which genes were counted or on the grid, so that it is not compared), expression, picture,
    curve (x is the place on it), apart (of two sets of patches).
    """

    label: str
    unit: str
    kind: str


NAMES = {
    "counts": Name("counts a spot", "counts", "told"),
    "genes": Name("genes detected a spot", "genes", "told"),
    "zeros": Name("zeros among all genes", "share", "told"),
    "counts_common": Name("counts a spot, common genes", "counts", "expression"),
    "depth_spread": Name("sd of ln(counts) over spots", "", "expression"),
    "dispersion": Name("dispersion, depth taken out", "", "expression"),
    "moran": Name("Moran's I, next spots", "", "told"),
    "zeros_common": Name("zeros at common depth", "share", "expression"),
    "dispersion_common": Name("dispersion at common depth", "", "expression"),
    "first_component": Name("variance in component 1", "share", "expression"),
    "above_noise": Name("variance above the noise edge", "share", "expression"),
    "components": Name("components above the noise edge", "number", "expression"),
    "moran_200": Name("Moran's I at 200 µm, common depth", "", "expression"),
    "glass_red": Name("glass, red", "of 255", "picture"),
    "glass_green": Name("glass, green", "of 255", "picture"),
    "glass_blue": Name("glass, blue", "of 255", "picture"),
    "od_red": Name("optical density, red", "", "picture"),
    "od_green": Name("optical density, green", "", "picture"),
    "od_blue": Name("optical density, blue", "", "picture"),
    "od_sd": Name("optical density, sd of pixels", "", "picture"),
    "haematoxylin_red": Name("haematoxylin vector, red", "", "picture"),
    "haematoxylin_green": Name("haematoxylin vector, green", "", "picture"),
    "haematoxylin_blue": Name("haematoxylin vector, blue", "", "picture"),
    "eosin_red": Name("eosin vector, red", "", "picture"),
    "eosin_green": Name("eosin vector, green", "", "picture"),
    "eosin_blue": Name("eosin vector, blue", "", "picture"),
    "stain_angle": Name("angle between the stains", "degrees", "picture"),
    "saturation": Name("saturation", "share", "picture"),
    "tissue": Name("tissue in a patch", "share", "picture"),
    "sharpness": Name("slope of the power spectrum", "", "picture"),
    "nuclear_density": Name("nuclei a mm² of tissue", "per mm²", "picture"),
    "nuclear_area": Name("area of a nucleus", "µm²", "picture"),
    "eccentricity": Name("eccentricity of a nucleus", "", "picture"),
    "nuclear_od": Name("darkness of a nucleus", "red OD", "picture"),
    "variance": Name("variance by mean count", "counts²", "curve"),
    "spectrum": Name("variance by component", "share", "curve"),
    "auc_encoder": Name("AUC, frozen encoder", "", "apart"),
    "auc_colour": Name("AUC, colour alone", "", "apart"),
    "accuracy_encoder": Name("balanced accuracy, frozen encoder", "share", "apart"),
    "accuracy_colour": Name("balanced accuracy, colour alone", "share", "apart"),
    "distance_encoder": Name("energy distance, frozen encoder", "", "apart"),
    "distance_colour": Name("energy distance, colour alone", "", "apart"),
}
