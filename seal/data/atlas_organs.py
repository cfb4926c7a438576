"""The simulated atlas's organs, as tables: nuclei, bodies, architectures. Change a number, get another tissue."""

from dataclasses import dataclass

CELL_TYPES = ("epithelial", "fibroblast", "immune", "endothelial", "muscle", "fat")


@dataclass(frozen=True)
class Nucleus:
    """A cell type's nucleus: length (um), its relative sd, width / length, haematoxylin at its centre (OD)."""

    length: float
    spread: float
    ratio: float
    chromatin: float


# Source: textbook histology (a lymphocyte's nucleus is round, dark and about 7 um wide).
NUCLEI = {
    "epithelial": Nucleus(9.0, 0.12, 0.78, 0.60),
    "fibroblast": Nucleus(12.0, 0.20, 0.30, 0.75),
    "immune": Nucleus(6.8, 0.08, 0.93, 1.05),
    "endothelial": Nucleus(9.0, 0.20, 0.45, 0.80),
    "muscle": Nucleus(15.0, 0.20, 0.22, 0.70),
    "fat": Nucleus(8.0, 0.20, 0.35, 0.80),
}


@dataclass(frozen=True)
class Body:
    """A kind of round structure; lengths in um. Gland, tubule and vessel have a lumen, a nest is solid."""

    cell: str
    spacing: float  # between the sites of the lattice it stands on
    radius: float
    spread: float = 0.15  # relative sd of the radius
    share: float = 1.0  # of the sites that are taken
    wall: float = 0.0  # thickness of the cells around the lumen; 0: solid
    layers: int = 1  # rings of nuclei in the wall
    step: float = 7.5  # between nuclei
    basal: float = 5.5  # from the outline to the first ring of nuclei
    halo: float = 0.0  # empty space around it
    eosin: float = 0.25  # of the cytoplasm (OD)
    basophilia: float = 0.10  # haematoxylin of the cytoplasm (OD)
    goblet: float = 0.0  # share of cells with a drop of mucin
    clear: float = 0.0  # how far the cytoplasm is washed out, all but the cell borders


@dataclass(frozen=True)
class Architecture:
    """An organ's tissue: bodies in the order of placing; lengths in um; stroma cells per 1,000 um2."""

    bodies: tuple[Body, ...]
    warp: float  # how far outlines are bent
    collagen: float = 0.26  # eosin of the stroma (OD)
    fat: float = 0.0  # share of the area
    muscle: float = 0.0  # share of the area
    layered: float = 0.0  # 0: patches of fat and muscle; above: bands, muscle at the bottom
    fibroblast: float = 1.2
    immune: float = 0.8
    endothelial: float = 0.4


_VESSEL = Body("endothelial", 260, 15, 0.3, share=0.5, wall=6, step=8.5, basal=2.8, eosin=0.34)
_GLOMERULUS = Body("endothelial", 330, 60, 0.1, share=0.8, step=9, halo=9, eosin=0.22, basophilia=0.10)

# Source: textbook histology for sizes and arrangement; numbers of bodies, densities and shares: our choice.
ARCHITECTURES = {
    ("Breast", "Healthy"): Architecture(
        (_VESSEL, Body("epithelial", 75, 27, 0.25, 0.35, wall=16, layers=2, step=7.5, basophilia=0.16)),
        warp=7, collagen=0.30, fat=0.30, fibroblast=0.9, immune=0.4,
    ),
    ("Breast", "Cancer"): Architecture(
        (_VESSEL, Body("epithelial", 80, 34, 0.35, 0.70, step=10.5, basophilia=0.18)),
        warp=16, collagen=0.24, fat=0.08, fibroblast=1.6, immune=2.0, endothelial=0.6,
    ),
    ("Bowel", "Healthy"): Architecture(
        (_VESSEL, Body("epithelial", 84, 36, 0.08, wall=29, step=6.5, basal=6.5, eosin=0.18, goblet=0.5)),
        warp=6, collagen=0.15, muscle=0.22, layered=1.0, fibroblast=1.2, immune=5.0, endothelial=0.6,
    ),
    ("Bowel", "Cancer"): Architecture(
        (_VESSEL, Body("epithelial", 112, 48, 0.25, 0.80, 25, layers=3, step=8, basal=6.5, basophilia=0.20)),
        warp=14, collagen=0.20, muscle=0.15, layered=0.6, fibroblast=2.0, immune=2.0, endothelial=0.6,
    ),
    ("Kidney", "Healthy"): Architecture(
        (_GLOMERULUS, Body("epithelial", 50, 22.5, 0.10, wall=15, step=10.5, basal=6, eosin=0.36, basophilia=0.06)),
        warp=6, collagen=0.12, fibroblast=0.8, immune=0.3, endothelial=1.6,
    ),
    ("Kidney", "Cancer"): Architecture(
        (_VESSEL, Body("epithelial", 62, 30, 0.20, 0.95, step=13.0, eosin=0.20, basophilia=0.05, clear=0.8)),
        warp=9, collagen=0.18, fibroblast=0.8, immune=1.0, endothelial=3.0,
    ),
}  # fmt: skip
