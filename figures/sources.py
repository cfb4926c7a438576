"""Where figures and tables are drawn from: the results of a run, or those that are committed as the reference."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seal import paths, results
from seal.errors import SealError
from seal.files import read_json, sha256
from seal.profiles import Profile

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = Path(__file__).with_name("reference")
RECORDED, RECORDED_FOR = "scaling", "demo"  # a study run once, committed, and shown by this profile's figures


class LacksRows(SealError):
    """A result is there, but not the rows that an artefact shows: of a second encoder, of a baseline."""


@dataclass(frozen=True)
class Source:
    """A profile's tidy tables: results/PROFILE/ as its notebooks wrote them, or figures/reference/PROFILE/."""

    profile: Profile
    committed: bool = False

    @property
    def word(self) -> str:
        """Either "reference" or "results", as the manifest has it."""
        return "reference" if self.committed else "results"

    @property
    def folder(self) -> Path:
        """Where the tables lie."""
        return REFERENCE / self.profile.name if self.committed else paths.results(self.profile.name)

    def path(self, name: str) -> Path:
        """A table's file."""
        if name == RECORDED:
            return REFERENCE / f"{name}.csv"
        return self.folder / f"{name}.csv"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What is said of the reference: profile, commit, its tables with their stamps; empty if there is none."""
        path = self.folder / "manifest.json"
        return read_json(path) if self.committed and path.is_file() else {}

    def stamp(self, name: str) -> dict[str, Any]:
        """Where a table comes from; empty if nobody says."""
        if name == RECORDED:
            return read_json(self.path(name).with_suffix(".csv.json")) if self.path(name).is_file() else {}
        if self.committed:
            return self.manifest.get("tables", {}).get(name, {})
        return results.read_stamp(self.profile, name)

    def has(self, name: str) -> bool:
        """Whether a table is there; in the reference, only one that its manifest tells of."""
        if name == RECORDED and self.profile.name != RECORDED_FOR:
            return False
        return self.path(name).is_file() and (not self.committed or bool(self.stamp(name)))

    def read(self, name: str) -> "pd.DataFrame":
        """Read a table.

        Raises
        ------
        SealError
            It is missing, or not as it was written.
        """
        import pandas as pd

        if not self.committed and name != RECORDED:
            return results.read_result(self.profile, name)
        path = self.path(name)
        if not self.has(name) or sha256(path) != self.stamp(name)["sha256"]:
            raise SealError(
                f"{path} is missing or differs from what manifest.json beside it says",
                expected="the file as `python -m figures reference` wrote it",
                do="git checkout it, or take the results of a run as the reference again",
            )
        return pd.read_csv(path, keep_default_na=False, na_values=[""])  # as read_result: "NA" can be a name

    def runs(self, name: str) -> dict[str, str]:
        """The runs behind a table, as its stamp has them: folder in runs/PROFILE/ -> key."""
        return self.stamp(name).get("inputs", {}).get("runs", {})


def run_key(profile: Profile, run: str) -> str | None:
    """The key of a run on this disk, None if it is not there."""
    path = paths.runs(profile.name) / run / "run.json"
    return read_json(path)["key"] if path.is_file() else None
