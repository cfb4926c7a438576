"""Reliability by thinning: against the truth of simulated Poisson counts, and over the spots of the scores."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from seal.data.assemble import assemble
from seal.evaluate import reliability
from seal.evaluate.metrics import pearson
from seal.evaluate.patch import parts


def counted(mean, sd, spots=4000, seed=0):
    """Poisson counts of genes whose log rate varies by sd around a mean, a steady rest, and the true shares."""
    rng = np.random.default_rng(seed)
    rate = np.array(mean) * np.exp(rng.normal(size=(spots, len(mean))) * sd - np.square(sd) / 2)
    rate = np.column_stack([rate, np.full(spots, 2000.0)])
    return csr_array(rng.poisson(rate).astype(np.float32)), rate / rate.sum(axis=1, keepdims=True)


def test_the_ceiling_is_what_the_true_rates_reach():
    """Genes from rare to frequent: the best prediction there is, the expected log expression, is known here."""
    means = [0.3, 1.0, 3.0, 10.0, 30.0]
    counts, shares = counted(means, np.full(5, 0.6))
    found = np.sqrt(reliability.reliability(counts, np.arange(5), 1e4))
    measured = np.log1p(1e4 * counts.toarray() / counts.sum(axis=1)[:, None])
    truth = pearson(np.log1p(1e4 * shares), measured)[:5]
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found, truth, atol=0.08)
    np.testing.assert_allclose(found[3:], truth[3:], atol=0.04)


def test_a_gene_that_only_counting_moves_has_no_reliability():
    counts, _ = counted([5.0, 5.0], np.array([0.0, 0.8]))
    steady, varied = reliability.reliability(counts, np.arange(2), 1e4)
    assert 0 <= steady < 0.06
    assert varied > 0.5


def test_a_gene_without_counts_has_none():
    counts, _ = counted([5.0], np.array([0.5]), spots=50)
    empty = csr_array(np.column_stack([counts.toarray(), np.zeros((50, 1), np.float32)]))
    found = reliability.reliability(empty, np.array([0, 2]), 1e4)
    assert np.isfinite(found[0])
    assert np.isnan(found[1])


def test_thinning_is_seeded_and_keeps_the_counts():
    counts, _ = counted([5.0], np.array([0.5]), spots=50)
    before = counts.toarray()
    first, again = (reliability.reliability(counts, np.array([0]), 1e4) for _ in range(2))
    assert first == again
    assert (counts.toarray() == before).all()


@pytest.mark.parametrize("target", [1e4, 1e3])
def test_halves_are_normalised_as_the_target_is(target, monkeypatch):
    seen, counts = [], counted([5.0], np.array([0.5]), spots=50)[0]
    monkeypatch.setattr(reliability, "pearson", lambda x, y: seen.append((x, y)) or pearson(x, y))
    reliability.reliability(counts, np.array([0]), target)
    assert len(seen) == reliability.DRAWS
    back = [np.expm1(half)[:, 0] / target for half in seen[0]]  # shares of a spot's half
    assert all((share < 0.05).all() for share in back)
    assert np.mean(back[0]) == pytest.approx(np.mean(counts.toarray()[:, 0] / counts.sum(axis=1)), rel=0.2)


def test_one_row_a_test_donor_and_gene_over_the_spots_of_its_scores(small):
    pairs = assemble(small)
    table = reliability.table(pairs)
    expected = [(f.name, p.donor, p.organ, len(p.rows), len(p.columns)) for f in pairs.folds() for p in parts(pairs, f)]
    rows = table.groupby(["fold", "donor", "organ"]).agg(spots=("spots", "first"), genes=("gene", "size")).reset_index()
    assert sorted(map(tuple, rows.to_numpy().tolist())) == sorted(expected)
    np.testing.assert_allclose(table["ceiling"] ** 2, table["reliability"], atol=1e-12)
    fold = pairs.folds()[0]
    part, names = parts(pairs, fold)[0], pairs.panel(fold).test_genes
    measured = part.take(pairs.measured(fold)[fold.test])
    own = table[(table["fold"] == fold.name) & (table["donor"] == part.donor) & (table["organ"] == part.organ)]
    assert own["gene"].tolist() == [names[i] for i in part.columns]
    assert ((own["counts"] > 0).to_numpy() == (measured > 0).any(axis=0)).all()
