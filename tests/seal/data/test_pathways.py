"""Pathway targets: gene sets, coverage, refusals, and ssGSEA from its definition where GSEApy is installed."""

import sys

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from seal.data.pathways import PathwayScores, cover_sets, read_gene_sets, score_pathways
from seal.errors import SealError

GSEAPY = "GSEApy is not installed: no set is scored"


def bulk(patients=12, genes=300, seed=0):
    """Made-up expression; patient i's first 20 genes are raised by i."""
    values = np.random.default_rng(seed).lognormal(size=(patients, genes))
    values[:, :20] *= np.exp(np.arange(patients))[:, None] ** 0.3
    index = [f"P{i}" for i in range(patients)]
    return pd.DataFrame(values, index=index, columns=[f"G{i}" for i in range(genes)])


SETS = {
    "RAISED": tuple(f"G{i}" for i in range(20)),
    "REST": tuple(f"G{i}" for i in range(100, 140)),
    "SMALL": ("G1", "G2", "ABSENT"),
}


def plain_ssgsea(expression, members):
    """The running sum, gene by gene from the highest on."""
    scores = []
    for _, row in expression.iterrows():
        rank = 10_000 * row.rank() / len(row)
        order = row.sort_values(ascending=False).index
        inside = order.isin(members)
        weight = rank[order].to_numpy() ** 0.25 * inside
        walk = np.cumsum(weight) / weight.sum() - np.cumsum(~inside) / (~inside).sum()
        scores.append(walk.sum())
    return np.array(scores)


def test_scores_are_those_of_the_definition():
    pytest.importorskip("gseapy", reason=GSEAPY)
    expression = bulk()
    found = score_pathways(expression, SETS)
    assert found.scores.columns.tolist() == ["patient", "pathway", "score"]
    assert len(found.scores) == 2 * len(expression)
    for name in ("RAISED", "REST"):
        cases, labels = found.labels(name)
        assert cases == tuple(expression.index)
        np.testing.assert_allclose(labels, plain_ssgsea(expression, SETS[name]), rtol=1e-9)
    assert np.corrcoef(np.arange(12), found.labels("RAISED")[1])[0, 1] > 0.9


def test_a_patients_score_does_not_depend_on_others():
    pytest.importorskip("gseapy", reason=GSEAPY)
    expression = bulk()
    all_of_them, some = score_pathways(expression, SETS), score_pathways(expression.iloc[[3, 1]], SETS)
    np.testing.assert_allclose(some.labels("REST")[1], all_of_them.labels("REST")[1][[3, 1]])
    assert some.labels("REST")[0] == ("P3", "P1")


def test_the_order_of_columns_does_not_matter_even_among_zeros():
    pytest.importorskip("gseapy", reason=GSEAPY)
    expression = bulk().mask(bulk() < 1, 0)
    turned = expression.iloc[:, ::-1].set_axis(range(12))  # numbers as names of patients
    found = score_pathways(turned, SETS).labels("REST")
    np.testing.assert_array_equal(found[1], score_pathways(expression, SETS).labels("REST")[1])
    assert found[0][:2] == ("0", "1")


def test_without_gseapy_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gseapy", None)
    with pytest.raises(SealError, match=r"ssGSEA: .*gseapy"):
        score_pathways(bulk(), SETS)


def test_a_set_of_too_few_genes_is_refused_by_name():
    coverage = cover_sets(SETS | {"ALL": tuple(f"G{i}" for i in range(300))}, [f"G{i}" for i in range(300)])
    assert coverage["measured"].tolist() == [20, 40, 2, 300]
    assert coverage["share"].tolist() == [1, 1, 2 / 3, 1]
    reasons = coverage["refused"].tolist()
    assert reasons[:3] == ["", "", "2 of 3 genes measured, 15 to 500 are needed"]
    assert "no other to compare them with" in reasons[3]
    scores = pd.DataFrame({"patient": ["P1"], "pathway": ["RAISED"], "score": [0.1]})
    with pytest.raises(SealError, match="SMALL has no scores: 2 of 3 genes measured"):
        PathwayScores(scores, coverage).labels("SMALL")
    with pytest.raises(SealError, match="unknown pathway 'RAISE'"):
        PathwayScores(scores, coverage).labels("RAISE")


def test_no_set_with_genes_enough_is_an_error():
    with pytest.raises(SealError, match="none of 1 gene sets can be scored, not even SMALL: 2 of 3 genes measured"):
        score_pathways(bulk(), {"SMALL": SETS["SMALL"]})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda x: x.where(np.tile(x.index.to_numpy()[:, None] != "P3", 300)),
            "300 of 3600 values of the matrix are NaN or infinite, first G0 of P3",
        ),
        (lambda x: pd.concat([x, x.iloc[:1]]), "1 patients stand in the matrix more than once, first P0"),
        (lambda x: pd.concat([x, x[["G7"]]], axis=1), "1 genes stand in the matrix more than once, first G7"),
        (lambda x: x.assign(name="a"), "the matrix holds text"),
        (lambda x: x.iloc[:0], "0 of 0 values of the matrix"),
    ],
)
def test_bad_matrices_are_refused(spoil, message):
    with pytest.raises(SealError, match=message):
        score_pathways(spoil(bulk()), SETS)


def test_gene_sets_are_read_from_both_forms(tmp_path):
    gmt, table = tmp_path / "a.gmt", tmp_path / "a.csv"
    gmt.write_text("ONE\thttp://x\tA\tB\tA\nTWO\tna\tC\n")
    table.write_text("ONE,TWO\nA,C\nB,\n")
    assert read_gene_sets(gmt) == read_gene_sets(table) == {"ONE": ("A", "B"), "TWO": ("C",)}
    gmt.write_text("ONE\tna\tA\nONE\tna\tB\n")
    with pytest.raises(SealError, match="holds 2 gene sets of 1 names"):
        read_gene_sets(gmt)
    with pytest.raises(SealError, match="cannot be read"):
        read_gene_sets(tmp_path / "absent.gmt")


def test_both_files_of_the_hallmarks_hold_fifty_sets(shared):
    gmt = read_gene_sets(shared / "genesets" / "h.all.v7.0.symbols.gmt")
    table = read_gene_sets(shared / "genesets" / "hallmarks_signatures.csv")
    assert len(gmt) == len(table) == 50
    assert set(gmt) == set(table)
    assert {min(len(g) for g in sets.values()) for sets in (gmt,)} == {32}


@pytest.fixture
def pam50(shared):
    path = shared / "labels" / "hist2RNA" / "data" / "gene_expression" / "pam50_gene_expression.csv"
    return pd.read_csv(path, index_col="PATIENT_ID")


def test_fifty_genes_are_too_few_for_every_hallmark(shared, pam50):
    sets = read_gene_sets(shared / "genesets" / "h.all.v7.0.symbols.gmt")
    coverage = cover_sets(sets, pam50.columns).set_index("pathway")
    assert len(coverage) == 50
    assert (coverage["refused"] != "").all()
    assert coverage["measured"].nlargest(2).to_dict() == {"HALLMARK_G2M_CHECKPOINT": 13, "HALLMARK_E2F_TARGETS": 12}
    with pytest.raises(SealError, match=r"none of 50 gene sets .* not even HALLMARK_G2M_CHECKPOINT: 13 of 200 genes"):
        score_pathways(pam50, sets)


def test_proliferation_of_1093_patients_follows_a_gene_outside_the_set(shared, pam50):
    """Real expression: both cell cycle hallmarks in one set, which are enough together, against MKI67."""
    pytest.importorskip("gseapy", reason=GSEAPY)
    sets = read_gene_sets(shared / "genesets" / "h.all.v7.0.symbols.gmt")
    cycle = {*sets["HALLMARK_G2M_CHECKPOINT"], *sets["HALLMARK_E2F_TARGETS"]} - {"MKI67"}
    found = score_pathways(pam50, {"CELL CYCLE": tuple(cycle)})
    patients, labels = found.labels("CELL CYCLE")
    assert patients == tuple(pam50.index)
    assert spearmanr(labels, pam50["MKI67"]).statistic > 0.6
    whole = (pam50.nunique(axis=1) == 50).to_numpy()  # tied genes stand in any order
    np.testing.assert_allclose(labels[whole], plain_ssgsea(pam50[whole], tuple(cycle)), rtol=1e-9)
    np.testing.assert_allclose(score_pathways(pam50.iloc[:1], {"A": tuple(cycle)}).labels("A")[1], labels[:1])
