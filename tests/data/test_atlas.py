import dataclasses

import h5py
import numpy as np
import pytest
from scipy.spatial import cKDTree

from seal import paths, profiles
from seal.data import atlas, atlas_expression, atlas_organs, atlas_stain, atlas_tissue
from seal.errors import SealError

SPOTS = 160
SEED = [2026, 7, 1]


@pytest.fixture(scope="module")
def breast():
    return atlas.simulate("Breast", "Cancer", SPOTS, SEED)


@pytest.fixture(scope="module")
def bowel():
    return atlas.simulate("Bowel", "Healthy", SPOTS, SEED)


def marker_sum(table, programme, number=8):
    """Share of a spot's counts in a programme's strongest genes that no other programme has."""
    lines = [line.split(",") for line in atlas_expression.GENES.read_text().splitlines()[1:]]
    names = [gene for gene, _, _ in lines]
    own = [(float(weight), gene) for gene, of, weight in lines if of == programme and names.count(gene) == 1]
    genes = [gene for _, gene in sorted(own, reverse=True)[:number]]
    counts = table.X.toarray()
    return counts[:, table.var_names.get_indexer(genes)].sum(axis=1) / counts.sum(axis=1)


# --- geometry


@pytest.mark.parametrize("spots", [1, 2, 49, 160, 500])
def test_grid_has_exactly_the_spots_asked_for(spots):
    row, col, xy = atlas.visium(spots)
    assert len(row) == len(col) == len(xy) == spots
    assert len(set(zip(row, col, strict=True))) == spots
    assert ((row + col) % 2 == 0).all()


def test_inner_spots_have_six_neighbours_at_100_um():
    row, col, xy = atlas.visium(SPOTS)
    width, height = np.ptp(xy, axis=0)
    assert 0.8 < width / height < 1.25
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    beside = (distance > 0) & (distance < 101)
    np.testing.assert_allclose(distance[beside], 100)
    inner = (row > 0) & (row < row.max() - 1) & (col > 1) & (col < col.max() - 1)
    assert inner.sum() > 80
    assert (beside[inner].sum(axis=1) == 6).all()
    step = np.abs(np.stack([row[:, None] - row, col[:, None] - col]))[:, beside]
    assert set(map(tuple, step.T.tolist())) == {(0, 2), (1, 1)}


# --- one section


def test_shapes_types_and_names(breast):
    table, patches = breast
    assert patches.shape == (SPOTS, 112, 112, 3)
    assert patches.dtype == np.uint8
    assert table.n_obs == SPOTS
    assert table.obs_names.is_unique
    assert table.var_names.is_unique
    assert 500 < table.n_vars < 1000
    assert np.issubdtype(table.X.dtype, np.integer)
    assert table.X.min() >= 0
    np.testing.assert_allclose(table.obsm["spatial"], table.obs[["pxl_col_in_fullres", "pxl_row_in_fullres"]])
    assert table.uns["simulated"]


def test_counts_look_like_visium(breast, bowel):
    for table, _ in (breast, bowel):
        total = table.X.toarray().sum(axis=1)
        assert 4000 < np.median(total) < 6000
        # her2st's sections, over the same genes and thinned to 5,000 counts, have 0.59 to 0.82 zeros
        assert 0.45 < (table.X.toarray() == 0).mean() < 0.85


def test_composition_rows_sum_to_one_where_there_are_cells(breast):
    table, _ = breast
    composition = table.obsm["composition"]
    assert composition.shape == (SPOTS, len(table.uns["cell_types"]))
    np.testing.assert_allclose(composition.sum(axis=1), table.obs["cells"] > 0)
    assert ((table.obsm["state"] >= 0) & (table.obsm["state"] <= 1)).all()


def test_spots_without_cells_still_have_ambient_counts():
    rest = atlas_expression.profiles_of("Breast", "Healthy")
    rna = np.ones((40, len(atlas_organs.CELL_TYPES)))
    rna[0] = 0
    counts = atlas_expression.express(np.random.default_rng(0), rna, np.zeros(40), np.zeros((40, 2)), rest)
    assert 0 < counts[0].sum() < counts[1:].sum(axis=1).min()


@pytest.mark.parametrize("cell", ["epithelial", "fibroblast", "immune", "endothelial"])
def test_markers_follow_their_cells(breast, cell):
    table, _ = breast
    fraction = table.obsm["composition"][:, list(table.uns["cell_types"]).index(cell)]
    right = np.corrcoef(fraction, marker_sum(table, cell))[0, 1]
    assert right > 0.4
    assert right > np.corrcoef(np.roll(fraction, SPOTS // 2), marker_sum(table, cell))[0, 1] + 0.2


def test_hidden_state_drives_its_genes_alone():
    rest = atlas_expression.profiles_of("Kidney", "Cancer")
    rng = np.random.default_rng(0)
    rna = np.tile(rng.uniform(0.5, 2, len(atlas_organs.CELL_TYPES)), (400, 1))
    hidden = rng.uniform(size=(400, 2))
    counts = atlas_expression.express(rng, rna, np.zeros(400), hidden, rest)
    genes = np.array(atlas_expression.programmes()[0])
    share = counts / counts.sum(axis=1, keepdims=True)
    interferon = share[:, np.isin(genes, ["IFI6", "ISG15", "IFI27", "IFIT1", "MX1"])].sum(axis=1)
    assert np.corrcoef(interferon, hidden[:, 1])[0, 1] > 0.6
    assert abs(np.corrcoef(interferon, hidden[:, 0])[0, 1]) < 0.3


def test_counts_are_negative_binomial():
    rest = atlas_expression.profiles_of("Bowel", "Cancer")
    still = dataclasses.replace(atlas_expression.MODEL, library_sd=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atlas_expression, "MODEL", still)
        rna = np.ones((4000, len(atlas_organs.CELL_TYPES)))
        counts = atlas_expression.express(np.random.default_rng(1), rna, np.zeros(4000), np.zeros((4000, 2)), rest)
    mean, variance = counts.mean(axis=0), counts.var(axis=0)
    high = mean > 20
    assert high.sum() > 30
    dispersion = (variance[high] - mean[high]) / mean[high] ** 2
    np.testing.assert_allclose(np.median(dispersion), still.dispersion, rtol=0.1)
    np.testing.assert_allclose(counts.sum(axis=1).mean(), still.median_counts, rtol=0.02)


# --- pictures


def test_overlap_of_neighbouring_patches_is_the_same_picture(bowel):
    table, patches = bowel
    row, col = table.obs["array_row"].to_numpy(), table.obs["array_col"].to_numpy()
    overlapping = 0
    for i in range(SPOTS):
        for j in np.flatnonzero((row == row[i]) & (col == col[i] + 2)):
            np.testing.assert_array_equal(patches[i][:, 100:], patches[j][:, :12])
            overlapping += patches[i][:, 100:].std() > 1
    assert overlapping > 50


def test_colours_are_those_of_haematoxylin_and_eosin(breast, bowel):
    for _, patches in (breast, bowel):
        red, green, blue = patches.reshape(-1, 3).mean(axis=0)
        assert green < min(red, blue)
        density = -np.log10((patches.reshape(-1, 3) + 1.0) / 256).mean(axis=0)
        # real sections (her2st, an Aperio slide): 0.20-0.30, 0.29-0.35, 0.16-0.22
        assert (density > [0.08, 0.15, 0.08]).all()
        assert (density < [0.40, 0.60, 0.35]).all()
        assert density[2] < 0.7 * density[1]  # pink, not brown; real ones: 0.56 to 0.61


def test_a_patch_shows_the_cells_of_its_own_spot(breast, bowel):
    y, x = np.mgrid[:112, :112] - 55.5
    disc = np.hypot(x, y) < 27.5
    for table, patches in (breast, bowel):
        dark = (patches[:, disc, 0] < 110).mean(axis=1)
        assert np.corrcoef(dark, table.obs["cells"])[0, 1] > 0.7


def test_nuclei_are_drawn_where_the_cells_are():
    """Each cell type is visible: at cells' positions the picture is darker in red than around."""
    rng = np.random.default_rng(3)
    tissue = atlas_organs.ARCHITECTURES["Kidney", "Cancer"]
    layout = atlas_tissue.lay_out(rng, (400, 300), tissue)
    cells = atlas_tissue.grow(rng, layout, tissue, 0.3)
    stain = atlas_stain.Stain(1.0, 1.0, 0.5, 0.6)
    canvas = atlas_stain.draw(rng, layout, cells, tissue, stain)
    assert canvas.shape == (400, 300, 3)
    x, y = cells.xy.astype(int).T
    away = cKDTree(cells.xy).query(np.argwhere(np.ones((400, 300)))[:, ::-1])[0].reshape(400, 300) > 8
    for kind in np.unique(cells.kind):
        assert canvas[y[cells.kind == kind], x[cells.kind == kind], 0].mean() < canvas[away][:, 0].mean() - 60


def test_cycling_nuclei_are_larger_and_darker():
    rng = np.random.default_rng(4)
    tissue = atlas_organs.ARCHITECTURES["Breast", "Cancer"]
    cells = atlas_tissue.grow(rng, atlas_tissue.lay_out(rng, (600, 600), tissue), tissue, 0.4)
    tumour = cells.kind == 0
    assert (cells.cycling[~tumour] == 0).all()
    for seen in (cells.length, cells.chromatin):
        assert 0.1 < np.corrcoef(cells.cycling[tumour], seen[tumour])[0, 1] < 0.9


@pytest.mark.parametrize("architecture", atlas_organs.ARCHITECTURES)
def test_the_smallest_section(architecture):
    for seed in range(8):  # bodies, cells and mucin that reach over the border, or none at all
        table, patches = atlas.simulate(*architecture, 1, [seed])
        assert patches.shape == (1, 112, 112, 3)
        assert table.X.sum() > 0


# --- seeds


def test_same_seed_same_section_and_donors_differ():
    first, again, other = (atlas.simulate("Kidney", "Healthy", 20, [5, n]) for n in (1, 1, 2))
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0].X != again[0].X).nnz == 0
    np.testing.assert_array_equal(first[0].obsm["composition"], again[0].obsm["composition"])
    assert (first[1] != other[1]).mean() > 0.5
    assert (first[0].X != other[0].X).nnz > 0


# --- the gene table


@pytest.mark.parametrize(
    "line", ["ACTB,housekeeping", "ACTB,housekeeping,0", "ACTB,housekeeping,much", "EPCAM,epithelial,3"]
)
def test_a_bad_line_of_the_gene_table_is_named(tmp_path, line):
    table = tmp_path / "genes.csv"
    table.write_text(f"gene,programme,weight\nEPCAM,epithelial,10\n{line}\n")
    with pytest.raises(SealError, match=r"genes\.csv, line 3"):
        atlas_expression.programmes(table)


# --- sample folders


def small(**changes):
    settings = {"organs": ("Kidney",), "donors_per_organ": 2, "spots_per_section": 6} | changes
    return profiles.get("demo", atlas=profiles.AtlasSettings(**settings))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SEAL_HOME", str(tmp_path))
    return tmp_path


def stamps(root):
    return {
        p.relative_to(root).as_posix(): p.stat().st_mtime_ns for d in ("st", "patches") for p in (root / d).iterdir()
    }


def test_prepare_writes_the_layout_and_then_nothing_more(home):
    from seal.data import hest

    root = atlas.prepare(small())
    assert root == paths.samples("atlas")
    found = hest.samples(root)
    assert [sample.id for sample in found] == ["SIM-KIDNEY-01", "SIM-KIDNEY-02"]
    assert [sample.disease_state for sample in found] == ["Cancer", "Healthy"]
    assert [sample.donor for sample in found] == ["SIM-KIDNEY-01", "SIM-KIDNEY-02"]
    assert all(sample.simulated and sample.grid == "visium" and sample.has_image for sample in found)
    with h5py.File(root / "patches" / "SIM-KIDNEY-01.h5") as file:
        assert file["img"].shape == (6, 112, 112, 3)
        assert file.attrs["um_per_px"] == 1.0
    before = stamps(root)
    atlas.prepare(small())
    assert stamps(root) == before


def test_prepare_writes_only_what_is_missing(home):
    root = atlas.prepare(small())
    before = stamps(root)
    (root / "st" / "SIM-KIDNEY-02.h5ad").unlink()
    atlas.prepare(small())
    after = stamps(root)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {
        "st/SIM-KIDNEY-02.h5ad",
        "patches/SIM-KIDNEY-02.h5",
    }


def test_more_donors_leave_the_first_alone(home):
    root = atlas.prepare(small())
    before = stamps(root)
    atlas.prepare(small(donors_per_organ=3))
    assert before.items() <= stamps(root).items()
    assert len(stamps(root)) == 6


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"spots_per_section": 7}, {"organs": ("Breast",)}, {"donors_per_organ": 1}]
)
def test_changed_settings_rewrite_the_atlas(home, change):
    from seal.data import hest

    root = atlas.prepare(small())
    before = stamps(root)
    atlas.prepare(small(**change))
    after = stamps(root)
    assert not before.items() & after.items()
    organ = change.get("organs", ("Kidney",))[0].upper()
    donors = change.get("donors_per_organ", 2)
    assert [sample.id for sample in hest.samples(root)] == [f"SIM-{organ}-{n:02d}" for n in range(1, donors + 1)]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"organs": ("Liver",)}, "Liver"),
        ({"spots_per_section": 0}, "'spots_per_section': 0"),
        ({"organs": ()}, "organs"),
    ],
)
def test_settings_that_cannot_be_simulated_are_named(home, change, named):
    with pytest.raises(SealError, match=named):
        atlas.prepare(small(**change))
    assert not paths.samples("atlas").exists()
