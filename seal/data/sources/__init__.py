"""Sources: one file each, which writes samples in the HEST-1k layout."""

from seal.errors import SealError
from seal.profiles import Profile


def refuse_settings(profile: Profile) -> None:
    """Assert that a profile has no `source_settings`, for a source that reads none."""
    if profile.source_settings:
        raise SealError(
            f"the source {profile.source} has no setting {', '.join(map(repr, profile.source_settings))}",
            expected=f"no source_settings in profile {profile.name!r}",
            do="leave them out; seal/profiles.py lists the settings of every other step",
        )
