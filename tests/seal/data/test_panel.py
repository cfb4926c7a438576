"""The panel: selection against scanpy on stacked matrices, hash, and errors that name the first gene that differs."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy.sparse import csr_array, csr_matrix, vstack

from seal.data import panel as panels
from seal.data.expression import normalise, spot_context
from seal.data.genes import clean_genes
from seal.data.grid import neighbours
from seal.data.panel import Panel, require_genes
from seal.data.sources import her2st
from seal.errors import SealError
from seal.profiles import PanelSettings

PANEL = Panel(("ERBB2", "CD3D", "COL1A1"), {"Breast": ("COL1A1", "CD3D"), "Skin": ("ERBB2", "CD3D")}, ("A", "B"))


def test_round_trip_and_columns(tmp_path):
    assert panels.load(PANEL.save(tmp_path / "panel.json")) == PANEL
    assert PANEL.test_genes == ("COL1A1", "CD3D", "ERBB2")
    assert PANEL.test_columns.tolist() == [2, 1, 0]
    assert [PANEL.scored(organ).tolist() for organ in ("Breast", "Skin", "Lung")] == [[0, 1], [2, 1], [0, 1, 2]]


def test_an_edited_file_is_refused(tmp_path):
    path = PANEL.save(tmp_path / "panel.json")
    stored = json.loads(path.read_text())
    stored["genes"][0] = "ESR1"
    path.write_text(json.dumps(stored))
    with pytest.raises(SealError, match=r"panel\.json"):
        panels.load(path)
    del stored["test"]
    path.write_text(json.dumps(stored))
    with pytest.raises(SealError, match="'test' is missing"):
        panels.load(path)


@pytest.mark.parametrize("version", [None, 0, 2, "1"])
def test_a_file_of_another_format_is_refused(tmp_path, version):
    path = PANEL.save(tmp_path / "panel.json")
    stored = json.loads(path.read_text())
    assert stored.pop("version") == panels.FORMAT == 1
    path.write_text(json.dumps(stored if version is None else {**stored, "version": version}))
    with pytest.raises(SealError, match=r"panel\.json is no gene panel of format 1"):
        panels.load(path)
    path.write_text("[]")
    with pytest.raises(SealError, match=r"panel\.json is no gene panel"):
        panels.load(path)


def test_a_permutation_is_an_error_that_names_the_first_gene():
    with pytest.raises(SealError, match=r"run X differs at position 1: COL1A1.*another order"):
        require_genes(PANEL.genes, ("ERBB2", "COL1A1", "CD3D"), "run X")
    with pytest.raises(SealError, match=r"position 2: the end of the panel, 2 genes"):
        require_genes(PANEL.genes, ("ERBB2", "CD3D"), "run X")
    PANEL.require(PANEL, "itself")


def sums(counts, log, donors, listed=None):
    """Each donor's moments."""
    donors, listed = np.asarray(donors), np.ones(counts.shape[1], dtype=bool) if listed is None else listed
    return {d: panels.sum_spots(counts[donors == d], log[donors == d], listed) for d in dict.fromkeys(donors.tolist())}


def select(held, *arguments):
    return panels.select(held.__getitem__, held, *arguments)


def plain_dispersion(log, genes, number):
    """What scanpy says of the stacked matrix, in its precision."""
    data = anndata.AnnData(csr_matrix(log), var=pd.DataFrame(index=genes))
    return sc.pp.highly_variable_genes(data, flavor="seurat", n_top_genes=number, inplace=False)


def plain(counts, log, genes, donors, scored, settings):
    """The same panel from stacked matrices: scanpy, and the variance of dense columns."""
    names = np.asarray(genes)[counts.toarray().sum(axis=0) >= settings.min_gene_counts]
    values = log[:, np.isin(genes, names)]
    ranked = plain_dispersion(values, names, min(settings.genes, len(names))).assign(gene=names)
    ranked = ranked[ranked["highly_variable"]].sort_values(["dispersions_norm", "gene"], ascending=[False, True])
    panel = ranked["gene"].tolist()[: settings.genes]
    dense = pd.DataFrame(values.toarray().astype(float), columns=names)[panel]
    test = {}
    for organ, own in scored.items():
        rows = np.isin(donors, own)
        variance = dense[rows].groupby(np.asarray(donors)[rows]).var(ddof=0).mean()
        variance = variance[((dense[rows] > 0).mean() >= 0.1) & (variance > 0)]
        order = sorted(variance.index, key=lambda gene: (-variance[gene], gene))
        test[organ] = tuple(order[: settings.test_genes])
    return Panel(tuple(panel), test, tuple(sorted(set(donors))))


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    rates = np.full((60, 40), 4.0)
    rates[:30, 5], rates[30:, 5] = 0.5, 60  # the one gene that truly varies
    table = rng.poisson(rates)
    table[:, 7] = 0
    table[0, 7] = 2  # below min_gene_counts
    return csr_array(table)


GENES = [f"G{i:02}" for i in range(40)]
NEAR = 1e-5  # genes whose normalised dispersions are closer than this may change places in single precision


def choose(counts, donors, scored, **settings):
    return select(sums(counts, normalise(counts, 1e4), donors), GENES, scored, PanelSettings(**settings))


@pytest.mark.filterwarnings("ignore:`n_top_genes` > number")
@pytest.mark.parametrize("number", [1, 50, 299, 2000])
@pytest.mark.parametrize("seed", range(4))
def test_select_equals_scanpy_and_dense_variances(seed, number):
    """Ties (equal columns), genes nobody detects, genes alone in their bin, more genes asked for than there are."""
    rng = np.random.default_rng(seed)
    table = rng.poisson(rng.lognormal(-1, 2, 300) * rng.lognormal(0, 0.5, (90, 300)))
    table[:, 100:110], table[:, 150:160], table[:, 120:130] = table[:, 200:210], table[:, 200:210], 0
    counts, genes = csr_array(table), [f"G{i}" for i in rng.permutation(300)]
    log = normalise(counts, 1e4).astype(np.float64)
    donors = rng.choice(["D2", "D1", "D10", "D3"], 90).tolist()
    scored = {"Lung": ["D1", "D10"], "Skin": ["D3", "D2", "D3"], "Liver": ["D2"]}
    settings = PanelSettings(genes=number, test_genes=20, min_gene_counts=3 * (seed % 2))
    found = select(sums(counts, log, donors), genes, scored, settings)
    assert found == plain(counts, log, genes, donors, scored, settings)
    assert 0 < len(found.genes) <= number


def test_dispersion_equals_scanpy_to_the_rounding_of_its_precision():
    """In double precision 1e-10. Single precision, in which scanpy also squares, loses some of the variance."""
    rng = np.random.default_rng(1)
    counts = csr_array(rng.poisson(rng.lognormal(-1, 2, 2000) * rng.lognormal(0, 0.5, (200, 2000))))
    log = normalise(counts, 1e4)
    whole = panels.sum_spots(counts, log, np.ones(2000, dtype=bool))
    found = panels.normalised_dispersion(whole.linear / 200, whole.linear_variance)
    for dtype, tolerance in ((np.float32, NEAR), (np.float64, 1e-10)):
        wanted = plain_dispersion(log.astype(dtype), [str(i) for i in range(2000)], 500)["dispersions_norm"].to_numpy()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)  # NaN where scanpy has NaN
    assert np.isnan(found).any()


def test_a_gene_alone_in_its_bin_has_dispersion_1():
    mean = np.r_[np.linspace(1, 2, 30), 1000.0]
    found = panels.normalised_dispersion(mean, np.linspace(3, 4, 31))
    assert found[-1] == 1
    assert np.abs(found[:-1] - 1).min() > 0


@pytest.fixture(scope="module")
def real(shared):
    """Four real sections of two patients: stacked counts and smoothed log expression, genes, donors, listed genes."""
    folder = shared / "her2st"
    if not folder.is_dir():
        pytest.skip(f"no real sections in {folder}")
    sections = [s for s in her2st.local_sections(folder) if s.name in ("B1", "B2", "C1", "C2")]
    tables = [her2st.read_section(section)[0] for section in sections]
    cleaned = [clean_genes(table.var_names) for table in tables]
    genes = sorted({gene for names, _ in cleaned for gene in names})
    counts, logs, donors, listed = [], [], [], []
    for section, table, (names, summed) in zip(sections, tables, cleaned, strict=True):
        dense = pd.DataFrame((table.X @ summed).toarray(), columns=names).reindex(columns=genes, fill_value=0)
        counts.append(csr_array(dense.to_numpy()))
        adjacency = neighbours(table.obs["array_row"].to_numpy(), table.obs["array_col"].to_numpy(), "square")
        logs.append(normalise(spot_context(counts[-1], adjacency, 0.5), 1e4))
        donors += [section.donor] * table.n_obs
        listed.append(np.isin(genes, names))
    return vstack(counts, format="csr"), vstack(logs, format="csr"), genes, donors, listed


@pytest.mark.parametrize("number", [500, 2000])
def test_select_equals_scanpy_on_real_sections(real, number):
    counts, log, genes, donors, _ = real
    scored, settings = {"Breast": ["HER2ST-B", "HER2ST-C"]}, PanelSettings(genes=number)
    found = select(sums(counts, log, donors), genes, scored, settings)
    assert len(found.genes) == number
    assert found == plain(counts, log.astype(np.float64), genes, donors, scored, settings)
    # in the expression's own single precision: the same but for near-ties
    enough = counts.sum(axis=0) >= settings.min_gene_counts
    ranked = plain_dispersion(log[:, enough], np.asarray(genes)[enough], number)["dispersions_norm"]
    assert (ranked[list(found.genes)].diff()[1:] <= NEAR).all()
    assert ranked.drop(list(found.genes)).max() <= ranked[found.genes[-1]] + NEAR


def test_select_reads_one_donor_at_a_time_and_their_order_does_not_matter(counts, tmp_path):
    donors, log = ["A", "C", "B"] * 20, normalise(counts, 1e4)
    held = sums(counts, log, donors)
    for donor, part in held.items():
        part.save(tmp_path / f"{donor}.npz")
    settings, scored = PanelSettings(genes=20, test_genes=5), {"o": ["B", "C"]}
    stored = panels.select(
        lambda donor: panels.load_moments(tmp_path / f"{donor}.npz"), ["C", "A", "B"], GENES, scored, settings
    )
    assert stored == select(held, GENES, scored, settings)


def test_select_finds_the_variable_gene_and_drops_the_rare_one(counts):
    panel = choose(counts, ["B", "A"] * 30, {"o": ["A"]}, genes=10, test_genes=3)
    assert len(panel.genes) == 10
    assert panel.test["o"][0] == "G05"
    assert len(panel.test["o"]) == len(panel.test_genes) == 3
    assert "G07" not in panel.genes
    assert panel.donors == ("A", "B")


def test_select_needs_genes(counts):
    empty = csr_array(np.zeros((5, 4)))
    with pytest.raises(SealError, match="0 genes have 3 counts"):
        select(sums(empty, empty, ["A"] * 5), list("ABCD"), {"o": ["A"]}, PanelSettings())
    same = csr_array(np.full((5, 4), 3.0))
    with pytest.raises(SealError, match="none of 4 genes varies"):
        select(sums(same, normalise(same, 1e4), ["A"] * 5), list("ABCD"), {"o": ["A"]}, PanelSettings())


def test_genes_that_too_few_spots_measured_are_left_out(counts):
    """The share counts spots, not sections, and reaching it is enough."""
    log, donors = normalise(counts, 1e4), np.repeat(["A", "B"], [6, 54])
    listed = {"A": np.ones(40, dtype=bool), "B": np.arange(40) != 5}
    listed["A"][9] = False
    parts = {d: panels.sum_spots(counts[donors == d], log[donors == d], listed[d]) for d in "AB"}

    def chosen(coverage):
        settings = PanelSettings(genes=40, test_genes=40, coverage=coverage)
        panel = select(parts, GENES, {"o": ["A"]}, settings)
        assert set(panel.test_genes) <= set(panel.genes)
        return set(GENES) - set(panel.genes)

    assert chosen(0.0) == chosen(0.1) == {"G07"}
    assert chosen(0.11) == chosen(0.9) == {"G07", "G05"}
    assert chosen(0.91) == chosen(1.0) == {"G07", "G05", "G09"}
    parts["B"] = panels.sum_spots(counts[donors == "B"], log[donors == "B"], np.zeros(40, dtype=bool))
    with pytest.raises(SealError, match=r"0 genes .* listed for 100% of them"):
        chosen(1.0)


def test_coverage_comes_before_the_bins(real):
    """Dispersion is standardised among the genes that may enter, as if there were no others."""
    counts, log, genes, donors, listed = real
    everywhere = np.logical_and.reduce(listed)
    assert not everywhere.all()
    lengths = [donors.count("HER2ST-B"), donors.count("HER2ST-C")]
    parts = dict(zip(("HER2ST-B", "HER2ST-C"), np.split(np.arange(sum(lengths)), lengths[:1]), strict=True))
    by_donor = {
        donor: panels.sum_spots(counts[rows], log[rows], listed[2 * i] & listed[2 * i + 1])
        for i, (donor, rows) in enumerate(parts.items())
    }
    settings = PanelSettings(genes=300, coverage=1.0)
    found = select(by_donor, genes, {"Breast": ["HER2ST-B"]}, settings)
    own = np.asarray(genes)[everywhere].tolist()
    wanted = plain(counts[:, everywhere], log[:, everywhere], own, donors, {"Breast": ["HER2ST-B"]}, settings)
    assert found == wanted


def test_test_genes_vary_within_the_scored_donors(counts):
    """A gene that differs between donors only, or varies in a donor that is not scored, is not asked for."""
    donors = ["A"] * 30 + ["B"] * 30  # G05 differs between these two and hardly within
    within = choose(counts, ["A", "B"] * 30, {"o": ["A"]}, genes=40, test_genes=40)
    between = choose(counts, donors, {"o": ["B"]}, genes=40, test_genes=40)
    assert within.test_genes.index("G05") == 0
    assert between.test_genes.index("G05") > 5
    table = counts.toarray()
    table[:30, 9] = 0  # absent in A, there in B
    absent = choose(csr_array(table), donors, {"o": ["A"]}, genes=40, test_genes=40)
    assert "G09" in absent.genes
    assert "G09" not in absent.test_genes


def test_equal_variances_are_ordered_by_symbol(counts):
    """Even where the panel has the two genes the other way round."""
    table = counts.toarray()
    table[:30, 4] = table[:30, 9] = np.random.default_rng(1).poisson(np.where(np.arange(30) % 2, 80, 1))
    table[30:, 9], table[30:, 4] = 10, 30
    panel = choose(csr_array(table), ["A"] * 30 + ["B"] * 30, {"o": ["A"]}, genes=40, test_genes=2)
    assert panel.genes.index("G09") < panel.genes.index("G04")
    assert panel.test["o"] == ("G04", "G09")


def test_each_organ_is_scored_on_its_own_donors_genes(counts):
    """As if each organ were chosen alone; the union holds each gene once, organ by organ."""
    table = counts.toarray()
    table[30:, 9] = np.random.default_rng(1).poisson(np.where(np.arange(30) % 2, 80, 1))  # varies in B alone
    both, donors = csr_array(table), ["A"] * 30 + ["B"] * 30
    panel = choose(both, donors, {"Lung": ["A"], "Skin": ["B"]}, genes=40, test_genes=4)
    alone = [choose(both, donors, {o: d}, genes=40, test_genes=4).test[o] for o, d in (("Lung", "A"), ("Skin", "B"))]
    assert list(panel.test) == ["Lung", "Skin"]
    assert tuple(panel.test.values()) == tuple(alone)
    assert panel.test["Skin"][0] == "G09"
    assert "G09" not in panel.test["Lung"]
    assert panel.test_genes == tuple(dict.fromkeys([*alone[0], *alone[1]]))
    assert [panel.test_genes[i] for i in panel.scored("Skin")] == list(alone[1])
