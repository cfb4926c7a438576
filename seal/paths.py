"""Where everything lives: all of it in one folder, `home()`, which SEAL_HOME names; never in site-packages."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
CLONE = (PROJECT / "requirements.lock").is_file()  # else what lies above the package is the user's site-packages
START = PROJECT if CLONE else Path.cwd()  # where relative places start; a later chdir moves nothing


def home() -> Path:
    """The folder that holds data/, runs/, results/ and figures/: SEAL_HOME.

    Without it the project's root, or of an installed package seal_home/ in the folder where Python was started.
    """
    return (given("SEAL_HOME") or (START if CLONE else START / "seal_home")).resolve()


def given(variable: str) -> Path | None:
    """Read a place that a variable of the environment names, None if it does not.

    In a clone a relative one starts at the project's root, wherever the process runs: a shell, a notebook and make
    mean the same.
    """
    text = os.environ.get(variable)
    return START / Path(text).expanduser() if text else None


def downloads() -> Path:
    """Files fetched from the package index and from data repositories."""
    return home() / "data" / "downloads"


def samples(source: str, other: str = "") -> Path:
    """A source's sample folders, in the HEST-1k layout; those of other settings lie beside them."""
    return home() / "data" / "samples" / _named(source, other)


def slides(source: str, other: str = "") -> Path:
    """A source's whole slides without expression, with labels in Patho-Bench's layout."""
    return home() / "data" / "slides" / _named(source, other)


def _named(name: str, other: str) -> str:
    return f"{name},{other}" if other else name


def pairs(profile: str, other: str = "") -> Path:
    """A profile's patches, counts and gene panels; those of other settings (`profiles.difference`) lie beside them."""
    return home() / "data" / "pairs" / _named(profile, other)


def tokens(profile: str, other: str = "main") -> Path:
    """Outputs of frozen trunks; those of other settings (`profiles.difference`) lie beside the profile's own."""
    return home() / "data" / "tokens" / profile / (other or "main")


def embeddings(profile: str, other: str = "") -> Path:
    """Patch embeddings, one h5 a sample, in TRIDENT's layout; those of other settings have a folder of their own."""
    return home() / "data" / "embeddings" / profile / other


def runs(profile: str, other: str = "") -> Path:
    """Trained models with their logs and checkpoints; those of other settings have a folder of their own in it."""
    return home() / "runs" / profile / other


def results(profile: str) -> Path:
    """Tidy tables, from which alone figures are drawn."""
    return home() / "results" / profile


def figures(profile: str) -> Path:
    """Figures; tables lie in its subfolder tables/."""
    return home() / "figures" / profile
