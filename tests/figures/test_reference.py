"""The reference: agreement within the tolerance, a difference named, other methods refused."""

import pandas as pd
import pytest

from figures import reference
from seal import profiles, results
from seal.errors import SealError

DEMO = profiles.DEMO


def write(means):
    rows = [
        {"task": "t", "encoder": "e", "method": m, "organ": "all", "metric": "pcc", "mean": v, "low": v, "high": v}
        | {"difference": 0.0, "difference_low": 0.0, "difference_high": 0.0, "folds": 2, "donors": 2, "seeds": 1}
        | {"split": "donor", "dealt": 0, "resample": "spots", "label": m, "kind": "control", "tested": "donors"}
        for m, v in means.items()
    ]
    results.write_result(DEMO, reference.RESULT, pd.DataFrame(rows), inputs={})


def write_ablations():
    row = {"table": "T51", "label": "SEAL", "task": "t", "encoder": "e", "method": "full", "organ": "all"}
    row |= {"metric": "pcc", "folds": 2, "donors": 2, "seeds": 1, "split": "donor", "dealt": 0, "resample": "spots"}
    row |= {"kind": "adapted", "tested": "donors"}
    row |= dict.fromkeys(("mean", "low", "high", "difference", "difference_low", "difference_high"), 0.12345)
    results.write_result(DEMO, reference.BESIDE, pd.DataFrame([row, row | {"organ": "Breast"}]), inputs={})


@pytest.fixture
def saved(monkeypatch, tmp_path):
    monkeypatch.setattr(reference, "path", lambda profile: tmp_path / "reference.csv")
    write({"frozen": 0.4, "seal": 0.41})
    write_ablations()
    return reference.save(DEMO)


def test_ablations_over_all_organs_are_kept_beside(saved):
    kept = pd.read_csv(saved.with_name("ablations.csv"))
    assert len(kept) == 1
    assert kept["mean"].tolist() == pytest.approx([0.1234], abs=2e-4)


def test_verdicts(saved):
    write({"frozen": 0.4, "seal": 0.43})
    assert reference.verdict(DEMO) == "every mean PCC is within 0.03 of the reference"
    write({"frozen": 0.4, "seal": 0.35})
    assert reference.verdict(DEMO) == "seal, all, pcc is 0.060 from the reference, more than 0.03"
    saved.unlink()
    assert reference.verdict(DEMO) == "profile demo has no reference"


def test_other_methods_are_refused(saved):
    write({"frozen": 0.4})
    with pytest.raises(SealError, match="seal"):
        reference.verdict(DEMO)


def test_the_committed_reference_holds_every_method():
    frame = pd.read_csv(reference.path(DEMO))
    assert {"frozen", "seal", "seal_shuffled", "random", "colour", "mean"} <= set(frame["method"])
    assert (frame.loc[frame["method"] == "mean", "mean"] == 0).all()
