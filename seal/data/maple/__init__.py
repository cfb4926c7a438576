"""MAPLE, the paper's training and test sets, rebuilt from HEST-1k's metadata table by rule.

Which samples the paper took is not public. `rules` selects, `donors` infers who gave them, `testset` leaves whole
donors out, `audit` proves that nobody is on both sides, and `report` sets the outcome beside the paper. All of them
read the table alone; `fingerprints` looks into the files for sections that the table does not tell apart.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seal.data.maple import audit, donors, rules, testset
from seal.files import digest
from seal.profiles import SelectionSettings

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {"st_technology": "technology", "spots_under_tissue": "spots"}


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
    inferred = donors.infer(frame, overlaps)
    left, waterfall = rules.apply(frame.drop(columns="donor", errors="ignore").merge(inferred, on="id"))
    samples = left.rename(columns=COLUMNS)
    tested = set(testset.choose(samples, settings or SelectionSettings()))
    samples = samples.assign(role=samples["donor"].isin(tested).map({True: "test", False: "train"}))
    kept = ["id", "organ", "disease_state", "technology", "spots", "study", "donor", "section", "basis", "role"]
    samples = samples[[*kept, "license", "dataset_title"]].sort_values("id").reset_index(drop=True)
    audit.require_apart(samples)
    return Selection(samples, waterfall)
