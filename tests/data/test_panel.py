"""The panel: selection, hash, and errors that name the first gene that differs."""

import json

import numpy as np
import pytest
from scipy.sparse import csr_array

from seal.data import panel as panels
from seal.data.expression import normalise
from seal.data.panel import Panel, require_genes
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
    path.write_text(json.dumps({"genes": []}))
    with pytest.raises(SealError, match="'test' is missing"):
        panels.load(path)


def test_a_permutation_is_an_error_that_names_the_first_gene():
    with pytest.raises(SealError, match=r"run X differs at position 1: COL1A1.*another order"):
        require_genes(PANEL.genes, ("ERBB2", "COL1A1", "CD3D"), "run X")
    with pytest.raises(SealError, match=r"position 2: the end of the panel, 2 genes"):
        require_genes(PANEL.genes, ("ERBB2", "CD3D"), "run X")
    PANEL.require(PANEL, "itself")


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    rates = np.full((60, 40), 4.0)
    rates[:30, 5], rates[30:, 5] = 0.5, 60  # the one gene that truly varies
    table = rng.poisson(rates)
    table[:, 7] = 0
    table[0, 7] = 2  # below min_gene_counts
    return csr_array(table)


def test_select_finds_the_variable_gene_and_drops_the_rare_one(counts):
    genes = [f"G{i:02}" for i in range(40)]
    settings = PanelSettings(genes=10, test_genes=3)
    donors = ["B", "A"] * 30
    panel = panels.select(counts, normalise(counts, 1e4), genes, donors, {"o": ["A"]}, settings)
    assert len(panel.genes) == 10
    assert panel.test["o"][0] == "G05"
    assert len(panel.test["o"]) == len(panel.test_genes) == 3
    assert "G07" not in panel.genes
    assert panel.donors == ("A", "B")


def test_select_needs_genes(counts):
    empty = csr_array(np.zeros((5, 4)))
    with pytest.raises(SealError, match="0 genes"):
        panels.select(empty, empty, list("ABCD"), ["A"] * 5, {"o": ["A"]}, PanelSettings())


def test_test_genes_vary_within_the_scored_donors(counts):
    """A gene that differs between donors only, or varies in a donor that is not scored, is not asked for."""
    genes = [f"G{i:02}" for i in range(40)]
    settings = PanelSettings(genes=40, test_genes=40)
    donors = ["A"] * 30 + ["B"] * 30  # G05 differs between these two and hardly within
    within = panels.select(counts, normalise(counts, 1e4), genes, ["A", "B"] * 30, {"o": ["A"]}, settings)
    between = panels.select(counts, normalise(counts, 1e4), genes, donors, {"o": ["B"]}, settings)
    assert within.test_genes.index("G05") == 0
    assert between.test_genes.index("G05") > 5
    table = counts.toarray()
    table[:30, 9] = 0  # absent in A, there in B
    absent = panels.select(csr_array(table), normalise(csr_array(table), 1e4), genes, donors, {"o": ["A"]}, settings)
    assert "G09" in absent.genes
    assert "G09" not in absent.test_genes


def test_each_organ_is_scored_on_its_own_donors_genes(counts):
    """As if each organ were chosen alone; the union holds each gene once, organ by organ."""
    genes = [f"G{i:02}" for i in range(40)]
    table = counts.toarray()
    table[30:, 9] = np.random.default_rng(1).poisson(np.where(np.arange(30) % 2, 80, 1))  # varies in B alone
    both, log = csr_array(table), normalise(csr_array(table), 1e4)
    donors, settings = ["A"] * 30 + ["B"] * 30, PanelSettings(genes=40, test_genes=4)
    panel = panels.select(both, log, genes, donors, {"Lung": ["A"], "Skin": ["B"]}, settings)
    alone = [
        panels.select(both, log, genes, donors, {o: d}, settings).test[o] for o, d in (("Lung", "A"), ("Skin", "B"))
    ]
    assert list(panel.test) == ["Lung", "Skin"]
    assert tuple(panel.test.values()) == tuple(alone)
    assert panel.test["Skin"][0] == "G09"
    assert "G09" not in panel.test["Lung"]
    assert panel.test_genes == tuple(dict.fromkeys([*alone[0], *alone[1]]))
    assert [panel.test_genes[i] for i in panel.scored("Skin")] == list(alone[1])
