"""Which baselines answer otherwise when other spots are predicted beside a spot."""

import numpy as np
import pytest
import torch

from seal import results
from seal.evaluate import batch_order
from seal.evaluate.methods import in_order
from seal.evaluate.patch import Baselines
from seal.models import encoders


@pytest.fixture
def table(evaluated, monkeypatch, tiny_build):
    evaluation = evaluated[0]
    monkeypatch.setenv("SEAL_HOME", str(evaluation.pairs.folder.parents[2]))
    monkeypatch.setattr(encoders, "build", tiny_build)
    beside = Baselines(evaluation.pairs, evaluation.embeddings).run()
    return beside, batch_order.table(beside)


def test_the_order_matters_where_attention_runs_over_the_batch(table):
    evaluation, frame = table
    differs = frame.groupby("method")["differs"].any()  # in one batch of all spots their order alone changes nothing
    assert set(differs[differs].index) == {"pathomclip", "mclstexp"}
    assert set(frame["method"]) == {m.name for m in evaluation.methods if m.kind == "baseline"}
    assert set(frame["comparison"]) == {"one spot at a time", "another order"}
    same = frame[~frame["differs"]]
    assert (same["share"] <= batch_order.TIES).all()
    np.testing.assert_allclose(same["mean_pcc_a"], same["mean_pcc_b"], atol=1e-3)
    path = results.write_result(evaluation.pairs.profile, "batch_order", frame, {})
    assert path.is_file()


def test_cuts_hold_every_spot_once():
    alone, mixed = batch_order.COMPARISONS.values()
    for cut in (in_order, alone, mixed):
        assert torch.cat(cut(10, 4)).sort().values.tolist() == list(range(10))
    assert [len(part) for part in in_order(10, 4)] == [4, 4, 2]
    assert [len(part) for part in alone(10, 4)] == [1] * 10
    assert not torch.equal(torch.cat(mixed(10, 4)), torch.arange(10))
