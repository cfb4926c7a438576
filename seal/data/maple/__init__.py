"""MAPLE, the paper's training and test sets, rebuilt from HEST-1k's metadata table by rule.

Which samples the paper took is not public. `rules` selects, `same_donor` infers who gave them, `testset` leaves whole
donors out and proves that nobody is on both sides. All of them read the table alone; `tools.hest_audit` looks into the
files for sections that the table does not tell apart.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seal.data.maple import rules, same_donor, testset
from seal.data.samples import find_hest_table, read_table
from seal.files import digest
from seal.profiles import SelectionSettings

if TYPE_CHECKING:
    import pandas as pd

OVERLAPS = "overlaps.csv"  # beside HEST-1k's table: sections that `tools.hest_audit` found twice in the files


@dataclass(frozen=True)
class Selection:
    """MAPLE's samples.

    Attributes
    ----------
    samples
        id, organ, disease_state, technology, spots (under tissue), study, donor, section, basis, license, dataset_title
        and role ("train" or "test"), by id.
    waterfall
        What each rule took out, see `seal.data.maple.rules.apply`.
    """

    samples: "pd.DataFrame"
    waterfall: "pd.DataFrame"

    @property
    def hash(self) -> str:
        """SHA-256 of the samples with their donors and roles."""
        return digest(self.samples[["id", "donor", "role"]].to_dict("records"))


def select(
    frame: "pd.DataFrame",
    settings: SelectionSettings | None = None,
    overlaps: "pd.DataFrame | None" = None,
) -> Selection:
    """Select MAPLE-Train and MAPLE-Test.

    Parameters
    ----------
    frame
        HEST-1k's metadata table, whole: any version that has its columns.
    settings
        The paper's six organs and 70,000 spots where None.
    overlaps
        What `tools.hest_audit.compare` found in the files, if it has run.

    Raises
    ------
    SealError
        The table lacks a column, no rule leaves a sample, or a donor would be on both sides.

    Source: the paper's public description (species, technologies, organs, HEST-Bench left out); the rest our choice.
    """
    inferred = same_donor.infer(frame, overlaps)
    left, waterfall = rules.apply(frame.drop(columns="donor", errors="ignore").merge(inferred, on="id"))
    samples = left.rename(columns={"st_technology": "technology", "spots_under_tissue": "spots"})
    tested = testset.choose(samples, settings or SelectionSettings())
    samples = samples.assign(role=samples["donor"].isin(tested).map({True: "test", False: "train"}))
    kept = ["id", "organ", "disease_state", "technology", "spots", "study", "donor", "section", "basis", "role"]
    samples = samples[[*kept, "license", "dataset_title"]].sort_values("id", ignore_index=True)
    testset.require_apart(samples)
    return Selection(samples, waterfall)


def read_selection(root: Path, settings: SelectionSettings | None = None) -> Selection | None:
    """Select MAPLE from the table of a tree (or a csv), and overlaps.csv beside it; None if it is not HEST-1k's own."""
    import pandas as pd

    path = find_hest_table(root)
    if path is None:
        return None
    found = path.with_name(OVERLAPS)
    return select(read_table(path), settings, pd.read_csv(found, dtype=str) if found.is_file() else None)


def as_samples(samples: "pd.DataFrame") -> "pd.DataFrame":
    """`Selection.samples` in the form of `seal.data.pairs.tabulate_samples`, before any file is there.

    Spots are those under tissue by HEST-1k's table, each of which should give a pair.
    """
    return samples.rename(columns={"dataset_title": "dataset", "license": "licence"}).assign(
        pairs=samples["spots"],
        simulated=False,
        fold=samples["role"].where(samples["role"] == "test", None),
        counted="metadata",
    )
