"""A function a figure: tidy tables in, a matplotlib Figure out. A figure's file bears its subject's name."""

from figures.E4_maps import expression_maps_figure, spot_maps
from figures.E5_ablations import ablations_figure
from figures.F1_overview import overview_figure, pairs_figure
from figures.F3_patch_level import patch_level_figure
from figures.for_notebooks import curve, patch_sheet, tissue_with_spots, umap_pair
from figures.style import mark, style
from figures.training import loss_curves
from figures.waterfall import waterfall_figure

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
    "spot_maps",
    "style",
    "tissue_with_spots",
    "umap_pair",
    "waterfall_figure",
]
