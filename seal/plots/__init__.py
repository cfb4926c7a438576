"""A function a figure: tidy tables in, a matplotlib Figure out. A figure's file bears its subject's name."""

from seal.plots.ablations import ablations_figure
from seal.plots.maps import expression_maps_figure, spot_maps
from seal.plots.overview import overview_figure, pairs_figure
from seal.plots.patch_level import patch_level_figure
from seal.plots.pictures import curve, patch_sheet, tissue_with_spots, umap_pair
from seal.plots.realism import realism_figure
from seal.plots.style import mark, style
from seal.plots.training import loss_curves
from seal.plots.waterfall import waterfall_figure

__all__ = [
    "ablations_figure",
    "curve",
    "expression_maps_figure",
    "loss_curves",
    "mark",
    "overview_figure",
    "pairs_figure",
    "patch_level_figure",
    "patch_sheet",
    "realism_figure",
    "spot_maps",
    "style",
    "tissue_with_spots",
    "umap_pair",
    "waterfall_figure",
]
