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
ABLATIONS = ("ablations", "ablations_long", "ablation_shapes")  # their runs have other settings than the profile's


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
        return self.folder / f"{name}.csv"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What is said of the reference: profile, commit, its tables with their stamps; empty if there is none."""
        path = self.folder / "manifest.json"
        return read_json(path) if self.committed and path.is_file() else {}

    def stamp(self, name: str) -> dict[str, Any]:
        """Where a table comes from; empty if nobody says."""
        if self.committed:
            return self.manifest.get("tables", {}).get(name, {})
        return results.read_stamp(self.profile, name)

    def has(self, name: str) -> bool:
        """Whether a table is there; in the reference, only one that its manifest tells of."""
        return self.path(name).is_file() and (not self.committed or bool(self.stamp(name)))

    def read(self, name: str) -> "pd.DataFrame":
        """Read a table.

        Raises
        ------
        SealError
            It is missing, or not as it was written.
        """
        import pandas as pd

        if not self.committed:
            return results.read_result(self.profile, name)
        path = self.path(name)
        if not self.has(name) or sha256(path) != self.stamp(name)["sha256"]:
            raise SealError(
                f"{path} is missing or differs from what manifest.json beside it says",
                expected="the file as `python -m figures reference` wrote it",
                do="git checkout it, or take the results of a run as the reference again",
            )
        return pd.read_csv(path, keep_default_na=False, na_values=[""])  # as read_result: "NA" can be a name

    def runs(self, name: str) -> dict[str, str | None]:
        """The runs behind a table: folder in runs/PROFILE/ -> key of its run.json, None where that is gone.

        A result of trained models says so by its inputs: they name the tokens. training_curves.csv, written with it,
        says which runs there were. Runs of changed settings, which only the ablations use, are those that lie there.
        """
        stamp = self.stamp(name)
        if "tokens" not in stamp.get("inputs", {}):
            return {}
        if self.committed:
            return stamp["runs"]
        folder = paths.runs(self.profile.name)
        names = self._trained
        if name in ABLATIONS:  # of the first seed and folds
            folds = list(dict.fromkeys(run.split("/")[0] for run in names))
            first = folds[: self.profile.evaluation.ablation_folds or None]
            own = [f"{fold}/seed{stamp['seeds'][0]}/{method}" for fold in first for method in ("omics", "seal")]
            changed = (path.parent.relative_to(folder).as_posix() for path in folder.glob("*=*/*/seed*/*/run.json"))
            names = [*own, *sorted(run for run in changed if run.partition("/")[2] in own)]
        return {run: run_key(self.profile, run) for run in names}

    @cached_property
    def _trained(self) -> list[str]:
        if not self.has("training_curves"):
            return []
        curves = self.read("training_curves")[["fold", "seed", "stage", "method"]].drop_duplicates()
        stages = curves["method"].where(curves["stage"] != "omics", "omics")
        return list(dict.fromkeys(curves["fold"].astype(str) + "/seed" + curves["seed"].astype(str) + "/" + stages))


def run_key(profile: Profile, run: str) -> str | None:
    """The key of a run on this disk, None if it is not there."""
    path = paths.runs(profile.name) / run / "run.json"
    return read_json(path)["key"] if path.is_file() else None
