"""The atlas's sections on disk: what is missing of them is simulated, several at a time."""

import csv
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from seal import paths
from seal.errors import SealError
from seal.files import Made, progress, remove_parts
from seal.profiles import Profile
from seal_atlas import tables
from seal_atlas.settings import AtlasSettings, folder_suffix, settings_of
from seal_atlas.tables import Donor
from seal_atlas.writing import sections

THREADS = 8  # at most: each holds one section, some 200 MB


def prepare(profile: Profile) -> Path:
    """Simulate what is missing of the profile's atlas.

    Other settings have a folder of their own. Where the tables have changed, what follows from them is made anew; the
    table of samples is written last, so that it never mixes two atlases.

    Returns
    -------
    The folder of the samples, in HEST-1k's layout.

    Raises
    ------
    SealError
        The settings do not exist, name an organ that the tables lack, or no spots or donors.
    """
    settings = settings_of(profile)
    return _prepare(paths.samples("atlas", folder_suffix(profile)), settings, list(_donors(settings)))


def prepare_unseen(profile: Profile) -> Path:
    """Simulate what no training may see: donors of held-out sites, and of organs outside the 14.

    Returns
    -------
    The folder of the samples, in HEST-1k's layout.
    """
    unseen = [donor for donor in tables.donors() if _unseen(donor)]
    return _prepare(paths.samples("atlas_unseen", folder_suffix(profile)), settings_of(profile), unseen)


def _unseen(donor: Donor) -> bool:
    return "unseen" in (tables.sites()[donor.site].role, tables.organs()[donor.organ].role)


def _donors(settings: AtlasSettings) -> Iterator[Donor]:
    """The atlas's donors, the first of each organ; `scale` times as many, the further ones numbered on."""
    known = sorted({donor.organ for donor in tables.donors() if not _unseen(donor)})
    unknown = sorted(set(settings.organs) - set(known))
    if unknown or not settings.organs or min(settings.spots_per_section, settings.donors_per_organ, settings.scale) < 1:
        raise SealError(
            f"the atlas cannot be simulated with {asdict(settings)} (unknown organs: {unknown})",
            expected=f"organs among {', '.join(known)}; one spot and one donor or more; scale 1 or more",
            do="change the profile's source_settings, or add the organ to the tables in seal_atlas/tables",
        )
    for copy in range(settings.scale):
        for organ in settings.organs:
            own = [donor for donor in tables.donors() if donor.organ == organ and not _unseen(donor)]
            for donor in own[: settings.donors_per_organ]:
                yield replace(donor, donor=f"{donor.donor}-{copy}") if copy else donor


def _prepare(root: Path, settings: AtlasSettings, donors: list[Donor]) -> Path:
    from seal.data.sample_files import is_made, list_samples

    made = {donor.donor: _made_from(donor, settings) for donor in donors}
    missing = [d for d in donors if not (_whole(root, d.donor) and is_made(root, d.donor, made[d.donor]))]
    if not missing and _listed(root) == set(made):
        return root
    (root / "metadata.csv").unlink(
        missing_ok=True
    )  # a run that is killed below must not leave a table that lacks its samples
    for folder in ("st", "wsis", "metadata"):
        remove_parts(root / folder)

    def write(donor: Donor) -> None:
        sections.write_section(root, donor, settings.spots_per_section, settings.seed, made[donor.donor])

    # The compiled parts let go of Python's lock, so threads share the work without copying anything.
    with (
        ThreadPoolExecutor(count_threads()) as pool,
        progress("simulated sections", len(missing), "section") as advance,
    ):
        for _ in pool.map(write, missing):
            advance()
    list_samples(root, list(made))
    return root


def _made_from(donor: Donor, settings: AtlasSettings) -> Made:
    own = {"spots": settings.spots_per_section, "seed": settings.seed, "tables": tables.tables_digest()}
    return Made("the atlas's sections", sections.VERSION, {"donor": asdict(donor)} | own)


def _whole(root: Path, name: str) -> bool:
    return (root / "st" / f"{name}.h5ad").is_file() and (root / "wsis" / f"{name}.tif").is_file()


def _listed(root: Path) -> set[str]:
    """Samples that the table lists; none where there is none."""
    table = root / "metadata.csv"
    if not table.is_file():
        return set()
    with table.open(newline="", encoding="utf-8") as file:
        return {row["id"] for row in csv.DictReader(file)}


def count_threads() -> int:
    """How many sections are simulated at a time: as many as this process may use cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, THREADS)
