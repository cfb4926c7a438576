"""How close the simulated atlas comes to real sections: counts, pictures, and a classifier that tells them apart."""

from seal_atlas.realism.figure import FIGURE_SIZE, draw_realism
from seal_atlas.realism.measure import real_sections, section_statistics
from seal_atlas.realism.pairings import ComparedPatches, apart_statistics, draw_patches
from seal_atlas.realism.verdict import shortfalls

__all__ = [
    "FIGURE_SIZE",
    "ComparedPatches",
    "apart_statistics",
    "draw_patches",
    "draw_realism",
    "real_sections",
    "section_statistics",
    "shortfalls",
]
