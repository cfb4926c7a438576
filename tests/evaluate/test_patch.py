"""Patch-level evaluation: every control is there, nothing of the test donor is used, the tables are consistent."""

import numpy as np
import pytest

from seal import embeddings
from seal.errors import SealError
from seal.evaluate import patch


@pytest.fixture
def evaluation(evaluated, small):
    return evaluated[0]


def test_the_whole_way_gives_consistent_tables(evaluation, evaluated):
    scores, genes, summary = patch.scores(evaluation), patch.gene_scores(evaluation), patch.summary(evaluation)
    pcc = scores[scores["metric"] == "pcc"]
    assert set(pcc["method"]) == set(patch.METHODS)
    assert pcc["fold"].nunique() == 4
    assert pcc[pcc["method"] == "seal"]["seed"].nunique() == 2
    assert (pcc[pcc["method"] == "mean"]["value"] == 0).all()
    by_gene = genes.groupby(["method", "fold", "seed"])["value"].mean()
    np.testing.assert_allclose(by_gene[pcc.set_index(["method", "fold", "seed"]).index], pcc["value"], atol=1e-9)
    overall = summary[summary["organ"] == "all"].set_index("method")
    means = pcc.groupby(["method", "fold"])["value"].mean().groupby("method").mean()
    np.testing.assert_allclose(overall["mean"][means.index], means, atol=1e-9)
    np.testing.assert_allclose(overall["difference"], overall["mean"] - overall.loc["frozen", "mean"], atol=1e-9)
    assert overall.loc["frozen", ["difference_low", "difference", "difference_high"]].eq(0).all()
    inside = (overall["low"] <= overall["mean"]) & (overall["mean"] <= overall["high"])
    assert inside.drop("mean").sum() >= 4
    lines = patch.verdicts(evaluation)
    assert len(lines) == 6
    assert f"({overall.loc['random', 'difference']:+.3f}," in lines[2]
    gain = overall.loc["seal", "mean"] - overall.loc["seal_shuffled", "mean"]
    assert lines[-1].startswith("seal: ")
    assert f"seal_shuffled ({gain:+.3f}," in lines[-1]
    curves = evaluated[1]
    assert curves.groupby(["stage", "method"])[["fold", "seed"]].nunique().eq([4, 2]).all(axis=None)


def test_the_test_donors_expression_is_never_used(evaluation, monkeypatch):
    """Predictions for a donor stay the same, to the bit, when its measured expression is replaced by noise."""
    pairs = evaluation.pairs
    fold = pairs.folds()[0]
    measured = np.array(pairs.measured(fold))
    embedding = evaluation._fixed("frozen", 0)
    before = patch.predict(pairs, fold, embedding)
    measured[fold.test] = np.random.default_rng(0).random((len(fold.test), measured.shape[1]))
    monkeypatch.setattr(type(pairs), "measured", lambda *_: measured)
    assert (patch.predict(pairs, fold, embedding) == before).all()


def test_maps_hold_the_first_test_genes_of_each_fold(evaluation):
    maps = patch.maps(evaluation, genes=2)
    pairs = evaluation.pairs
    for fold in pairs.folds():
        part = maps[maps["fold"] == fold.name]
        assert part["gene"].unique().tolist() == list(pairs.panel(fold).test_genes[:2])
        gene = part[part["gene"] == part["gene"].iloc[0]]
        np.testing.assert_array_equal(gene["seal"], evaluation.predictions["seal", fold.name, 0][:, 0])
        np.testing.assert_array_equal(gene["measured"], pairs.measured(fold)[fold.test, 0])


def test_embeddings_are_written_as_trident_has_them(evaluation):
    pairs = evaluation.pairs
    features = np.random.default_rng(0).random((pairs.n_pairs, 7), dtype=np.float32)
    written = embeddings.write(pairs, "seal", features)
    assert [p.parent.name for p in written] == ["features_dinov2s_derived_seal"] * 4
    assert written[0].parent.parent.name == "5x_56px_0px_overlap"
    read, coords = embeddings.read(written[1])
    assert (read == features[12:24]).all()
    spots = pairs.frame().iloc[12:24]
    np.testing.assert_allclose(coords + 56, spots[["x", "y"]], atol=0.5)
    written[1].write_bytes(written[1].read_bytes()[:600])
    with pytest.raises(SealError, match=written[1].name):
        embeddings.read(written[1])
    with pytest.raises(SealError, match="3 embeddings for 48 pairs"):
        embeddings.write(pairs, "seal", features[:3])
