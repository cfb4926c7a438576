"""Patch-level evaluation: every control is there, and nothing of the test donor is used."""

import numpy as np
import pytest

from seal import embeddings
from seal.errors import SealError
from seal.evaluate import patch


@pytest.fixture
def evaluation(evaluated, small):
    return evaluated[0]


def test_every_method_predicts_every_fold_and_seed(evaluation):
    pairs = evaluation.pairs
    assert set(evaluation.methods) >= {"frozen", "seal", "seal_shuffled", "random", "colour", "mean"}
    runs = {
        (m, f): [s for (n, g, s) in evaluation.predictions if (n, g) == (m, f)] for m, f, _ in evaluation.predictions
    }
    assert len(runs) == len(evaluation.methods) * 4
    for (method, name), seeds in runs.items():
        assert seeds == ([0, 1] if method in ("seal", "seal_shuffled", "random") else [0])
        fold = pairs.fold(name)
        for _, prediction in evaluation.runs(method, name):
            assert prediction.shape == (len(fold.test), len(pairs.panel(fold).test_genes))


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
        assert (part["donor"] == fold.name).all()
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
    np.testing.assert_allclose(coords + 56 / pairs.sections[1].um_per_px, spots[["x", "y"]], atol=0.5)
    written[1].write_bytes(written[1].read_bytes()[:600])
    with pytest.raises(SealError, match=written[1].name):
        embeddings.read(written[1])
    with pytest.raises(SealError, match="3 embeddings for 48 pairs"):
        embeddings.write(pairs, "seal", features[:3])
