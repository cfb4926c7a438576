"""Pairs: rows that belong together, donors on one side only, whole or absent, made anew when an input changes."""

import dataclasses
import shutil

import numpy as np
import pytest
from scipy.sparse import csr_array

import seal_atlas
from seal import profiles
from seal.data import assemble as assembly
from seal.data import sample_files
from seal.data.assemble import assemble
from seal.data.expression import normalise, spot_context
from seal.data.genes import clean_genes
from seal.data.grid import neighbours
from seal.data.pairs import folder_of, read
from seal.data.samples import read_samples
from seal.errors import SealError


@pytest.fixture
def pairs(small):
    return assemble(small)


def test_rows_belong_together(pairs, small):
    """Patch, counts, barcode and position of a row all come from the same spot of the sample's own files."""
    frame = pairs.frame()
    assert (pairs.n_pairs, pairs.n_spots, len(frame)) == (48, 48, 48)
    sample = next(s for s in read_samples(seal_atlas.prepare(small)) if s.id == pairs.sections[2].sample)
    data = sample_files.read_counts(sample)
    row = pairs.sections[2].start + 5
    spot = data[frame["barcode"][row]]
    counts = pairs.counts(pairs.sections[2])
    assert counts[[5]].sum() == spot.X.sum()
    gene = spot.var_names[spot.X.toarray().argmax()]
    assert counts[5, pairs.genes_counted.index(gene)] == spot.X.max()
    assert frame["x"][row] == spot.obs["pxl_col_in_fullres"].item()
    patch = next(sample_files.read_patches(sample, [frame["barcode"][row]], small.image_size, small.um_per_px))
    assert (pairs.patches.read([row])[0] == patch[0]).all()


def test_context_and_measured_equal_a_plain_recomputation(pairs, small):
    fold = pairs.folds()[1]
    panel = pairs.panel(fold)
    section = pairs.sections[0]
    sample = next(s for s in read_samples(seal_atlas.prepare(small)) if s.id == section.sample)
    data = sample_files.read_counts(sample)
    genes, summed = clean_genes(data.var_names)
    columns = np.array([genes.index(g) for g in panel.genes])
    counts = csr_array(data.X @ summed)
    adjacency = neighbours(data.obs["array_row"].to_numpy(), data.obs["array_col"].to_numpy(), "visium")
    context = normalise(spot_context(counts, adjacency, 0.5), 1e4).toarray()[:, columns]
    np.testing.assert_allclose(pairs.context(fold)[section.start : section.stop], context, rtol=1e-5)
    own = normalise(counts, 1e4).toarray()[:, columns[panel.test_columns]]
    np.testing.assert_allclose(pairs.measured(fold)[section.start : section.stop], own, rtol=1e-5)


def test_no_donor_on_both_sides(pairs):
    donors = pairs.per_spot("donor")
    folds = pairs.folds()
    assert [fold.name for fold in folds] == sorted(set(donors))
    for fold in folds:
        assert set(donors[fold.test]) == {fold.name}
        assert fold.name not in set(donors[fold.train]) | set(donors[fold.omics])
        assert fold.name not in pairs.panel(fold).donors
        assert sorted([*fold.train, *fold.test]) == list(range(pairs.n_pairs))


def test_a_panel_chosen_on_the_test_donor_is_refused(pairs):
    first, second = pairs.folds()[:2]
    target = pairs.folder / "folds" / first.name / "panel.json"
    target.write_text((pairs.folder / "folds" / second.name / "panel.json").read_text())
    with pytest.raises(SealError, match=first.name):
        pairs.panel(first)


def test_assembled_once_and_anew_when_a_setting_changes(pairs, small):
    stamp = (pairs.folder / "pairs.json").stat().st_mtime_ns
    assert (assemble(small).folder / "pairs.json").stat().st_mtime_ns == stamp
    changed = assemble(dataclasses.replace(small, panel=profiles.PanelSettings(genes=20)))
    assert changed.key != pairs.key
    assert changed.context(changed.folds()[0]).shape[1] == 20
    dealt = assemble(profiles.changed(small, evaluation__folds=2))
    assert dealt.key != pairs.key
    assert [fold.name for fold in dealt.folds()] == sorted(p.name for p in (dealt.folder / "folds").iterdir())


def test_a_failed_assembly_is_not_taken_for_whole(small, monkeypatch):
    shutil.rmtree(folder_of(small))
    with monkeypatch.context() as patch:
        patch.setattr(assembly, "_write_record", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            assemble(small)
    assert not folder_of(small).exists()
    with pytest.raises(SealError, match="holds no assembled pairs"):
        read(small)


def test_a_section_without_counts_is_named(small):
    import anndata

    root = seal_atlas.prepare(small)
    path = root / "st" / "SIM-BREAST-01.h5ad"
    data = anndata.read_h5ad(path)
    data.X = data.X * 0
    data.write_h5ad(path)
    with pytest.raises(SealError, match="SIM-BREAST-01 has no spot"):
        assemble(small)


def test_tissue_lays_patches_where_they_were_cut(pairs):
    image, span = pairs.tissue(pairs.sections[0])
    assert span == 4.0 / pairs.sections[0].um_per_px  # full-resolution px a pixel of 4 um
    spots = pairs.frame().iloc[:12]
    x, y = (spots[["x", "y"]].to_numpy()[0] / span).round().astype(int)
    small = pairs.patches[:1][0][1::2, 1::2]
    assert (image[y - 14 : y - 10, x - 14 : x - 10] == small[:4, :4]).all()
