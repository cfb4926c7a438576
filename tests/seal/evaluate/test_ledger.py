"""The ledger: a verdict follows from every comparison of a claim's family, and from nothing else."""

import numpy as np
import pandas as pd
import pytest

from seal import profiles, results
from seal.evaluate import ledger

DEMO = profiles.get("demo")
COLUMNS = [*results.RESULTS["patch_level_summary"].columns, *ledger.DIFFERENCE[-1:], "control", *ledger.CONTROL]


def summary(*rows: dict) -> pd.DataFrame:
    """A summary with these rows; what a row does not say is that of SEAL over all organs."""
    plain = {
        "encoder": "e",
        "method": "seal",
        "kind": "adapted",
        "organ": "all",
        "metric": "pcc",
        "resample": "donors",
        "seeds": 3,
    }
    return pd.DataFrame([plain | row for row in rows]).reindex(columns=COLUMNS)


def difference(value: float, p: float, **more) -> dict:
    return more | {"difference": value, "difference_low": value - 1, "difference_high": value + 1, "difference_p": p}


def verdicts(home, *rows) -> pd.DataFrame:
    results.write_result(DEMO, "patch_level_summary", summary(*rows), {})
    return ledger.tabulate(DEMO).set_index("claim")


def test_one_row_a_claim_with_a_reason_where_nothing_is_measured(home):
    table = ledger.tabulate(DEMO)
    assert list(table["claim"]) == [claim.id for claim in ledger.CLAIMS]
    assert table["claim"].is_unique
    assert set(table["verdict"]) == {ledger.ABSENT}
    assert (table["reason"] != "").all()
    assert set(table["data"]) == {"simulated data"}
    assert set(results.RESULTS["ledger"].columns) == set(table.columns)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([(0.1, 0.01), (0.2, 0.02)], ledger.SUPPORTED),
        ([(0.1, 0.03), (0.2, 0.04)], ledger.UNDECIDED),  # each alone would do; both together do not
        ([(0.1, 0.001), (0.2, 0.3)], ledger.UNDECIDED),
        ([(0.1, 0.001), (-0.2, 0.3)], ledger.UNDECIDED),
        ([(0.1, 0.001), (-0.2, 0.002)], ledger.CONTRADICTED),
        ([(0.1, np.nan)], ledger.UNDECIDED),
    ],
)
def test_verdict_of_a_family(home, found, verdict):
    rows = [difference(value, p, encoder=f"e{i}") for i, (value, p) in enumerate(found)]
    row = verdicts(home, *rows).loc["P1"]
    assert row["verdict"] == verdict
    assert (row["comparisons"], row["value"]) == (len(found), found[0][0])
    assert row["least"] == min(value for value, _ in found)


def test_a_family_has_the_fewest_seeds_of_its_comparisons(home):
    rows = [difference(0.1, 0.001), difference(0.1, 0.001, encoder="other", seeds=1)]
    assert verdicts(home, *rows).loc["P1", "seeds"] == 1
    assert verdicts(home, rows[0]).loc["P1", "seeds"] == 3


def test_sign_of_a_claim(home):
    """The adapter without expression is compared with SEAL: the claim is that it lies below."""
    below = {"method": "no_expression", "kind": "control", "control": "seal"}
    below |= {"control_difference": -0.1, "control_p": 0.001}
    assert verdicts(home, below).loc["P4c", "verdict"] == ledger.SUPPORTED
    assert verdicts(home, below | {"control_difference": 0.1}).loc["P4c", "verdict"] == ledger.CONTRADICTED


def test_organs_are_those_of_the_first_encoder_and_all_is_no_organ(home):
    rows = [difference(0.1, 0.001, organ=organ) for organ in ("all", "Lung", "Skin")]
    rows.append(difference(-0.1, 0.001, organ="Skin", encoder="other"))
    row = verdicts(home, *rows).loc["P3"]
    assert (row["comparisons"], row["verdict"]) == (2, ledger.SUPPORTED)


def test_results_of_before_say_that_they_lack_the_comparison(home):
    old = summary(difference(0.1, 0.001)).drop(columns=["difference_p"])
    results.write_result(DEMO, "patch_level_summary", old, {})
    row = ledger.tabulate(DEMO).set_index("claim").loc["P1"]
    assert row["verdict"] == ledger.ABSENT
    assert "no such comparison" in row["reason"]
