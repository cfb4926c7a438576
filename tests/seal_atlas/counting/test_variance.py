import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from seal_atlas.counting import variance


def section(rng, spots=4000, genes=30, seen=0.5, unseen=0.5, depth=1e5):
    """Counts whose log share has a visible and a hidden normal part of known sd."""
    visible, hidden = (sd * rng.standard_normal((spots, genes)) for sd in (seen, unseen))
    shares = []
    for logs in (visible, visible + hidden):
        share = np.exp(logs)
        shares.append(share / share.sum(axis=1, keepdims=True))
    counts = rng.poisson(depth * shares[1])
    data = anndata.AnnData(csr_matrix(counts), var=pd.DataFrame(index=[f"G{i}" for i in range(genes)]))
    data.layers["oracle"], data.layers["ceiling"] = (s.astype(np.float32) for s in shares)
    return data


@pytest.mark.parametrize(("seen", "unseen"), [(0.5, 0.5), (0.6, 0.2), (0.1, 0.5)])
def test_known_parts_are_recovered(seen, unseen):
    found = variance.split_variance([section(np.random.default_rng(n), seen=seen, unseen=unseen) for n in range(2)])
    np.testing.assert_allclose(found[["visible", "hidden", "counting"]].sum(axis=1), 1)
    expected = seen**2 / (seen**2 + unseen**2)
    assert found["visible"].mean() == pytest.approx(expected, abs=0.03)
    assert found["hidden"].mean() == pytest.approx(1 - expected, abs=0.03)
    assert found["counting"].mean() < 0.02


def test_few_counts_leave_much_to_counting():
    found = variance.split_variance([section(np.random.default_rng(0), seen=0.4, unseen=0.0, depth=60)])
    assert found["counting"].mean() > 0.4
    assert (found["hidden"] < 0.02).all()


def test_sections_weigh_by_their_variance():
    still, moving = (section(np.random.default_rng(1), seen=s, unseen=0.5) for s in (0.02, 0.5))
    together = variance.split_variance([still, moving])["visible"].mean()
    alone = variance.split_variance([moving])["visible"].mean()
    assert together == pytest.approx(alone * 2 / 3, abs=0.04)  # twice the variance there, three parts in all


def test_a_gene_that_never_varies_has_no_parts():
    data = section(np.random.default_rng(2), spots=50)
    counts = data.X.toarray()
    counts[:, 3] = 0
    data.X = csr_matrix(counts)
    found = variance.split_variance([data])
    assert found.loc[3, ["visible", "hidden", "counting"]].isna().all()
    assert found.drop(3)["visible"].notna().all()


def test_the_summary_names_its_genes():
    found = variance.split_variance([section(np.random.default_rng(3), spots=200)])
    table = variance.summarise_variance(found, ["G0", "G1", "not there"])
    assert list(table.index) == ["all 30 genes", "2 chosen genes"]
    assert table.loc["2 chosen genes", "visible"] == pytest.approx(found["visible"][:2].mean(), abs=1e-3)


def test_the_variance_is_that_of_the_log_scale_pooled_by_spots():
    rng = np.random.default_rng(4)
    tables = [section(rng, spots=n, genes=5, seen=sd) for n, sd in ((300, 0.2), (900, 0.8))]
    logs = []
    for table in tables:
        counts = table.X.toarray().astype(float)
        logs.append(np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)))
    expected = (300 * logs[0].var(axis=0) + 900 * logs[1].var(axis=0)) / 1200
    np.testing.assert_allclose(variance.split_variance(tables)["variance"], expected)


def test_correlations_are_means_over_the_sections_where_a_gene_varies():
    rng = np.random.default_rng(5)
    tables = [section(rng, spots=400, genes=6) for _ in range(2)]
    counts = tables[1].X.toarray()
    counts[:, 2] = 0
    tables[1].X = csr_matrix(counts)
    found = variance.split_variance(tables)
    for name in ("oracle", "ceiling"):
        right = []
        for table in tables:
            x = table.X.toarray().astype(float)
            y = np.log1p(1e4 * x / x.sum(axis=1, keepdims=True))
            o = np.log1p(1e4 * table.layers[name].astype(float))
            right.append([np.corrcoef(o[:, g], y[:, g])[0, 1] if y[:, g].std() else np.nan for g in range(6)])
        np.testing.assert_allclose(found[f"{name}_pcc"], np.nanmean(right, axis=0), rtol=1e-4)


def test_an_oracle_that_beats_the_ceiling_leaves_nothing_hidden():
    table = section(np.random.default_rng(6), spots=500)
    table.layers["oracle"], table.layers["ceiling"] = table.layers["ceiling"], table.layers["oracle"]
    found = variance.split_variance([table])
    assert (found["hidden"] == 0).all()
    np.testing.assert_allclose(found["visible"] + found["counting"], 1)
