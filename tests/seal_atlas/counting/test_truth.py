"""Oracle and ceiling as methods of evaluation: what they predict, and where there are none."""

import importlib

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

import seal_atlas
from seal.data.assemble import assemble
from seal.data.genes import clean_genes
from seal.data.samples import read_samples
from seal.errors import SealError
from seal_atlas.counting import truth


def rewrite(root, sample, change):
    """Change a section's table where it lies."""
    path = root / "st" / f"{sample}.h5ad"
    change(anndata.read_h5ad(path)).write_h5ad(path)


def without_gene(gene):
    """A table that lacks a gene and has a control probe, as some real ones do; the probe's share is large."""

    def change(data):
        probe = anndata.AnnData(data.X[:, :1] * 0, obs=data.obs, var=pd.DataFrame(index=["BLANK-1"]))
        probe.layers = dict.fromkeys(truth.LAYERS, np.full((data.n_obs, 1), 0.5, np.float32))
        kept = data[:, [g for g in data.var_names if g != gene]]
        changed = anndata.concat([kept, probe], axis="var", merge="first")
        changed.obsm = data.obsm
        return changed

    return change


def require_plain(pairs, root):
    """Assert that both methods give what a plain way gives, section by section and gene by gene."""
    frame = pairs.frame()
    for fold in pairs.folds():
        genes, spots = pairs.panel(fold).test_genes, frame.iloc[fold.test]
        for method in truth.methods(pairs):
            predicted = method.predict(pairs, fold, None)
            assert (predicted.dtype, predicted.shape) == (np.float32, (len(fold.test), len(genes)))
            for section in spots["sample"].unique():
                rows = np.flatnonzero(spots["sample"] == section)
                data = anndata.read_h5ad(root / "st" / f"{section}.h5ad")[spots["barcode"].iloc[rows].tolist()]
                cleaned, summed = clean_genes(data.var_names)
                share = np.asarray(data.layers[method.name], dtype=float) @ summed
                share = share / share.sum(axis=1, keepdims=True)  # without control probes
                columns = [share[:, cleaned.index(g)] if g in cleaned else np.zeros(len(rows)) for g in genes]
                np.testing.assert_allclose(predicted[rows], np.log1p(1e4 * np.stack(columns, 1)), rtol=1e-5)


def test_the_source_offers_the_truth_of_every_fold(small):
    pairs = assemble(small)
    methods = importlib.import_module(small.source).methods(pairs)
    assert [(m.name, m.label, m.kind, m.seeded) for m in methods] == [
        ("oracle", "oracle (simulated truth)", "truth", "none"),
        ("ceiling", "ceiling (simulated truth)", "truth", "none"),
    ]
    require_plain(pairs, seal_atlas.prepare(small))


def test_control_probes_do_not_count_and_a_gene_that_a_section_lacks_is_0(small):
    pairs, root = assemble(small), seal_atlas.prepare(small)
    fold = pairs.folds()[0]
    sample = pairs.frame()["sample"].iloc[fold.test[0]]
    gene = pairs.panel(fold).test_genes[0]
    rewrite(root, sample, without_gene(gene))
    pairs = assemble(small)
    fold = pairs.folds()[0]
    assert pairs.panel(fold).test_genes[0] == gene, "chosen on the training donors, which have it"
    require_plain(pairs, root)
    rows = pairs.frame()["sample"].iloc[fold.test] == sample
    for method in truth.methods(pairs):
        assert (method.predict(pairs, fold, None)[rows, 0] == 0).all()


def test_part_of_a_section_has_the_values_of_the_whole(small):
    pairs = assemble(small)
    fold = pairs.folds()[0]
    whole = truth.expected_expression("ceiling", pairs, fold)
    some = type(fold)(fold.name, fold.train, fold.test[3:8][::-1], fold.omics)
    np.testing.assert_array_equal(truth.expected_expression("ceiling", pairs, some), whole[3:8][::-1])


def test_the_ceiling_is_what_counts_scatter_about(small):
    root = seal_atlas.prepare(small)

    def counted_deeply(data):
        rng = np.random.default_rng(0)
        share = np.asarray(data.layers["ceiling"], dtype=float)
        data.X = csr_matrix(rng.multinomial(300_000, share / share.sum(axis=1, keepdims=True)).astype(np.float32))
        return data

    for sample in read_samples(root):
        rewrite(root, sample.id, counted_deeply)
    pairs = assemble(small)
    for fold in pairs.folds():
        oracle, ceiling = (method.predict(pairs, fold, None) for method in truth.methods(pairs))
        gap = pairs.measured(fold)[fold.test] - ceiling
        assert abs(gap.mean()) < 0.05
        assert gap.std() < 0.1 < (pairs.measured(fold)[fold.test] - oracle).std()


def test_without_the_whole_truth_nobody_is_offered_it(small):
    root = seal_atlas.prepare(small)

    def without_ceiling(data):
        del data.layers["ceiling"]
        return data

    rewrite(root, "SIM-KIDNEY-02", without_ceiling)
    assert truth.methods(assemble(small)) == ()


def test_real_samples_have_no_truth_whatever_their_layers(small):
    table = seal_atlas.prepare(small) / "metadata.csv"
    frame = pd.read_csv(table)
    frame.assign(simulated=[False] + [True] * (len(frame) - 1)).to_csv(table, index=False)
    assert sum(sample.simulated for sample in read_samples(table.parent)) == len(frame) - 1
    assert truth.methods(assemble(small)) == ()


def test_a_layer_that_holds_no_shares_is_named(small):
    root = seal_atlas.prepare(small)

    def broken(data):
        data.layers["ceiling"][3] = 0
        return data

    rewrite(root, "SIM-KIDNEY-01", broken)
    pairs = assemble(small)
    oracle, ceiling = truth.methods(pairs)
    fold = pairs.fold("SIM-KIDNEY-01")
    oracle.predict(pairs, fold, None)
    with pytest.raises(SealError, match=r"SIM-KIDNEY-01\.h5ad: layer 'ceiling'"):
        ceiling.predict(pairs, fold, None)
