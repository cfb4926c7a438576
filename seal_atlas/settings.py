"""How large the simulated atlas is; what it looks like stands in `seal_atlas/tables`."""

from dataclasses import dataclass, fields
from pathlib import Path

from seal import paths, profiles
from seal.errors import SealError
from seal.profiles import Profile


@dataclass(frozen=True)
class AtlasSettings:
    """Numbers of donors, spots, patients and slides (our choice); a profile's `source_settings` change them."""

    organs: tuple[str, ...] = (
        *("Bladder", "Bowel", "Brain", "Breast", "Cervix", "Heart", "Kidney"),
        *("Liver", "Lung", "Ovary", "Pancreas", "Prostate", "Skin", "Uterus"),
    )
    donors_per_organ: int = 4  # the tables' first; they have four
    spots_per_section: int = 60
    patients: int = 200  # of the slide cohort
    patches_per_slide: int = 50
    scanned_slides: int = 100  # of the scanner cohort
    scanned_patches: int = 20
    scale: int = 1  # so many times as many donors, patients and scanned slides
    seed: int = 2026

    def __post_init__(self) -> None:
        object.__setattr__(self, "organs", tuple(self.organs))  # JSON knows lists alone


def settings_of(profile: Profile) -> AtlasSettings:
    """The profile's atlas: the defaults, changed by its `source_settings`.

    Raises
    ------
    SealError
        There is no such setting.
    """
    known = [field.name for field in fields(AtlasSettings)]
    unknown = sorted(set(profile.source_settings) - set(known))
    if unknown:
        raise SealError(
            f"the simulated atlas has no setting {unknown[0]!r} (profile {profile.name!r}, source_settings)",
            expected=f"one of {', '.join(known)}",
            do="correct the name; seal_atlas/settings.py says what each means",
        )
    return AtlasSettings(**profile.source_settings)


def folder_suffix(profile: Profile) -> str:
    """What tells the folders of this profile's atlas from those of other settings, "" for the default."""
    return profiles.difference(profile, ["source_settings"])


def folders() -> list[Path]:
    """All folders that the atlas made, of whatever settings: `python -m seal clean` deletes them."""
    homes = *(paths.samples(f"atlas{own}") for own in ("", "_unseen", "_bench")), paths.slides("atlas")
    return [path for home in homes for path in (home, *home.parent.glob(f"{home.name},*"))]
