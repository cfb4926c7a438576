"""The ledger: one row a claim of the paper's abstract and captions, with what our own results say of it.

A claim is a family of comparisons, each a paired difference that the results hold with its interval and its p-value.
These are adjusted together (Holm), so that many encoders or baselines do not make a chance finding. The verdict is
supported where every comparison differs in the claimed direction, contradicted where one differs in the other, and
else undecided at this size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from seal import results
from seal.errors import SealError
from seal.evaluate.metrics import holm
from seal.profiles import Profile

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05
DIFFERENCE = ("difference", "difference_low", "difference_high", "difference_p")
CONTROL = ("control_difference", "control_low", "control_high", "control_p")
SUPPORTED, CONTRADICTED, UNDECIDED, ABSENT = "supported", "contradicted", "undecided at this size", "not measured yet"


@dataclass(frozen=True)
class Claim:
    """What is claimed, in our words, and which rows of which result speak of it.

    Attributes
    ----------
    said
        Where the paper says it; "control": it does not, but its claim needs it.
    result
        Name of the tidy table; empty: no notebook measures it yet.
    choose
        The rows of its family, one a comparison.
    columns
        The difference, its interval and its p-value.
    sign
        +1: the difference is claimed to be above zero, -1: below.
    """

    id: str
    text: str
    said: str
    figure: str
    result: str = ""
    choose: Callable[["pd.DataFrame"], "pd.DataFrame"] | None = None
    columns: tuple[str, str, str, str] = DIFFERENCE
    sign: int = 1


def _overall(method: str) -> Callable[["pd.DataFrame"], "pd.DataFrame"]:
    return lambda rows: rows[(rows["organ"] == "all") & (rows["metric"] == "pcc") & (rows["method"] == method)]


def _baselines(kind: str) -> Callable[["pd.DataFrame"], "pd.DataFrame"]:
    return lambda rows: rows[(rows["organ"] == "all") & (rows["metric"] == "pcc") & (rows["kind"] == kind)]


def _bench(rows: "pd.DataFrame") -> "pd.DataFrame":
    official = (rows["probe"] == "hest_bench") & (rows["correlation"] == "pooled") & (rows["task"] == "average")
    return rows[official & (rows["method"] == "seal")].assign(organ="all", resample="tasks")


def _by_organ(rows: "pd.DataFrame") -> "pd.DataFrame":
    rows = rows[(rows["organ"] != "all") & (rows["metric"] == "pcc") & (rows["method"] == "seal")]
    return rows[rows["encoder"] == rows["encoder"].iloc[0]] if len(rows) else rows


def _slides(group: str, *against: str) -> Callable[["pd.DataFrame"], "pd.DataFrame"]:
    """SEAL's rows of a group of slide-level tasks by ABMIL, as the paper has them."""

    def choose(rows: "pd.DataFrame") -> "pd.DataFrame":
        rows = rows[(rows["group"] == group) & (rows["method"] == "seal") & (rows["model"] == "abmil")]
        return rows[rows["against"].isin(against or ("frozen",))].assign(organ=lambda own: own["against"])

    return choose


CLAIMS = (
    Claim("P1", "SEAL predicts expression of unseen tissue better than its own encoder, whichever that is",
          "abstract; figure 3 A", "F3", "patch_level_summary", _overall("seal")),
    Claim("P2", "what SEAL gains there is owed to the right pairs of patch and spot",
          "control", "F3", "patch_level_summary", _overall("seal"), CONTROL),
    Claim("P3", "SEAL predicts better than its encoder in every organ", "figure 3 A", "F3",
          "patch_level_summary", _by_organ),
    Claim("P4", "SEAL predicts better than methods made to predict expression do by their own heads",
          "abstract; figure 3 C", "F3", "baselines", _baselines("baseline"), CONTROL, sign=-1),
    Claim("P4b", "SEAL's encoder predicts better than theirs under the same probe",
          "control", "T17", "baselines", _baselines("probed"), CONTROL, sign=-1),
    Claim("P4c", "SEAL predicts better than the same adapter trained without any expression",
          "control", "F3", "patch_level_summary", _overall("no_expression"), CONTROL, sign=-1),
    Claim("P5", "contrast alone predicts worse than contrast and reconstruction together", "figure 1 C", "E5",
          "ablations", _overall("info_alone"), sign=-1),
    Claim("P6", "reconstruction alone predicts worse than contrast and reconstruction together", "figure 1 C", "E5",
          "ablations", _overall("no_info"), sign=-1),
    Claim("P7", "SEAL raises the score of HEST-Bench by its official probe", "figure 3 B", "F3",
          "hest_bench_summary", _bench),
    Claim("S1", "SEAL predicts molecular status from slides better than its encoder", "abstract; figure 2 A", "F2",
          "slide_level_groups", _slides("molecular")),
    Claim("S2", "SEAL predicts pathway activity from slides better than its encoder", "abstract; figure 2 A", "F2",
          "slide_level_groups", _slides("pathway")),
    Claim("S3", "SEAL predicts markers and treatment response better than its encoder", "abstract; figure 2 A", "F2",
          "slide_level_groups", _slides("response")),
    Claim("S4", "SEAL beats other expression-trained encoders on slides", "figure 2 B", "F2",
          "slide_level_groups", _slides("all", "pathomclip_probed", "stnet_probed")),
    Claim("S5", "what SEAL gains on slides is owed to the right pairs of patch and spot", "control", "F2",
          "slide_level_groups", _slides("all", "seal_shuffled")),
    Claim("S6", "SEAL predicts morphology and IHC from slides better than its encoder", "extended figure 1 A", "E1",
          "slide_level_groups", _slides("morphology")),
    Claim("R1", "SEAL tells scanners apart less than its encoder does", "figure 2 C and D", "E3"),
    Claim("R2", "SEAL holds on organs and technologies that training never saw", "abstract", "E3"),
    Claim("X1", "a gene's expression finds the images of its spots", "abstract", "F4"),
)  # fmt: skip


def tabulate(profile: Profile) -> "pd.DataFrame":
    """Hold every claim against the profile's results.

    Returns
    -------
    DataFrame with claim, text, said, figure, result, comparisons, supported, contradicted (numbers of comparisons),
    value, low, high (the family's first comparison: the profile's main encoder), p (its own, adjusted), least (the
    family's least favourable difference), resample (what intervals speak of), seeds (the fewest of any comparison:
    where that is 1, what another seed would change is in no interval), verdict, profile, data, reason. A claim that no
    result speaks of has the verdict "not measured yet" and a reason.

    Source: our choice.
    """
    import pandas as pd

    return pd.DataFrame([_row(claim, profile) for claim in CLAIMS])


def _row(claim: Claim, profile: Profile) -> dict[str, Any]:
    row = {"claim": claim.id, "text": claim.text, "said": claim.said, "figure": claim.figure, "result": claim.result}
    row |= dict.fromkeys(("comparisons", "supported", "contradicted", "seeds"), 0)
    row |= dict.fromkeys(("value", "low", "high", "p", "least"), np.nan) | {"resample": ""}
    row |= {"verdict": ABSENT, "profile": profile.name, "data": profile.label, "reason": ""}
    if not claim.result:
        return row | {"reason": "its notebook is not there yet"}
    try:
        rows = claim.choose(results.read_result(profile, claim.result))
    except SealError as error:
        return row | {"reason": error.what}
    if rows.empty or claim.columns[-1] not in rows:
        return row | {"reason": f"{claim.result}.csv holds no such comparison"}
    rows = rows.drop_duplicates(["encoder", "method", "organ"])
    judged = _judge(rows[list(claim.columns)].to_numpy(dtype=float), claim.sign)
    return row | judged | {"resample": rows["resample"].iloc[0], "seeds": int(rows["seeds"].min())}


def _judge(found: np.ndarray, sign: int) -> dict[str, Any]:
    """Judge a family of comparisons, [comparisons, (difference, low, high, p)]."""
    p = holm(found[:, 3])
    sure = p < LEVEL  # False for NaN: without an interval nothing is decided
    towards, against = sure & (sign * found[:, 0] > 0), sure & (sign * found[:, 0] < 0)
    verdict = CONTRADICTED if against.any() else SUPPORTED if towards.all() else UNDECIDED
    return {
        "comparisons": len(found),
        "supported": int(towards.sum()),
        "contradicted": int(against.sum()),
        **dict(zip(("value", "low", "high"), found[0, :3].tolist(), strict=True)),
        "p": float(p[0]),
        "least": float(found[np.argmin(sign * found[:, 0]), 0]),
        "verdict": verdict,
    }
