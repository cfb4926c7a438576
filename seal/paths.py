"""Where everything lives: all of it under the project's root, or under SEAL_HOME."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """The folder that holds data/, runs/, results/ and figures/: SEAL_HOME, or the project's root."""
    return Path(os.environ.get("SEAL_HOME") or PROJECT).expanduser().resolve()


def downloads() -> Path:
    """Files fetched from the package index and from data repositories."""
    return home() / "data" / "downloads"


def samples(source: str) -> Path:
    """A source's sample folders, in the HEST-1k layout."""
    return home() / "data" / "samples" / source


def slides(source: str) -> Path:
    """A source's whole slides without expression, with labels in Patho-Bench's layout."""
    return home() / "data" / "slides" / source


def pairs(profile: str) -> Path:
    """A profile's patches, counts and gene panels."""
    return home() / "data" / "pairs" / profile


def tokens(profile: str) -> Path:
    """Outputs of frozen trunks."""
    return home() / "data" / "tokens" / profile


def embeddings(profile: str) -> Path:
    """Patch embeddings, one h5 a sample, in TRIDENT's layout."""
    return home() / "data" / "embeddings" / profile


def runs(profile: str) -> Path:
    """Trained models with their logs and checkpoints."""
    return home() / "runs" / profile


def results(profile: str) -> Path:
    """Tidy tables, from which alone figures are drawn."""
    return home() / "results" / profile


def figures(profile: str) -> Path:
    """Figures; tables lie in its subfolder tables/."""
    return home() / "figures" / profile
