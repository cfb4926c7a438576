import dataclasses

import numpy as np
import pytest

import seal_atlas
from seal import paths, profiles
from seal.data import sample_files
from seal.data.samples import read_samples
from seal.errors import SealError
from seal.files import sha256
from seal_atlas import tables
from seal_atlas.counting import transcripts
from seal_atlas.settings import AtlasSettings
from seal_atlas.writing import sections

SPOTS = 24
BREAST = tables.Donor("SIM-TEST-01", "Breast", "Cancer", "A")


@pytest.fixture(scope="module")
def breast():
    return sections.simulate_section(BREAST, SPOTS, 7)


# --- geometry


@pytest.mark.parametrize("spots", [1, 2, 49, 90, 500])
def test_grid_has_exactly_the_spots_asked_for(spots):
    row, col, xy = sections.lay_visium_grid(spots)
    assert len(row) == len(col) == len(xy) == spots
    assert len(set(zip(row, col, strict=True))) == spots
    assert ((row + col) % 2 == 0).all()


def test_inner_spots_have_six_neighbours_at_100_um():
    row, col, xy = sections.lay_visium_grid(160)
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    beside = (distance > 0) & (distance < 101)
    np.testing.assert_allclose(distance[beside], 100)
    inner = (row > 0) & (row < row.max() - 1) & (col > 1) & (col < col.max() - 1)
    assert inner.sum() > 80
    assert (beside[inner].sum(axis=1) == 6).all()


# --- one section


def test_shapes_types_and_names(breast):
    table = breast.table
    assert breast.image.dtype == np.uint8
    assert table.n_obs == SPOTS
    assert table.obs_names.is_unique
    assert table.var_names.is_unique
    assert np.issubdtype(table.X.dtype, np.integer)
    assert table.X.min() >= 0
    np.testing.assert_allclose(table.obsm["spatial"], table.obs[["pxl_col_in_fullres", "pxl_row_in_fullres"]])
    height, width = breast.image.shape[:2]
    assert (table.obsm["spatial"] + 112 < (width, height)).all()  # every patch lies within the picture
    assert (table.obsm["spatial"] > 112).all()
    assert table.uns["simulated"]


def test_truth_has_its_columns_and_sums(breast):
    table = breast.table
    assert table.obsm["composition"].shape == (SPOTS, len(table.uns["cell_types"]))
    np.testing.assert_allclose(table.obsm["composition"].sum(axis=1), table.obs["cells"] > 0)
    assert table.obsm["activity"].shape == (SPOTS, len(table.uns["programmes"]))
    for name in ("oracle", "ceiling"):
        np.testing.assert_allclose(table.layers[name].sum(axis=1), 1, rtol=1e-4)


def test_composition_is_that_of_the_drawn_cells(breast):
    centres = breast.table.obsm["spatial"] * 0.5
    cells = breast.tissue.cells
    for row, centre, total in zip(breast.table.obsm["composition"], centres, breast.table.obs["cells"], strict=True):
        near = np.linalg.norm(cells.xy - centre, axis=1) <= 27.5
        np.testing.assert_allclose(row * total, np.bincount(cells.kind[near], minlength=len(row)), atol=1e-9)


def test_a_patch_shows_the_cells_of_its_own_spot():
    section = sections.simulate_section(tables.Donor("SIM-TEST-02", "Brain", "Cancer", "A"), 60, 3)
    y, x = np.mgrid[:112, :112] - 55.5
    disc = np.hypot(x, y) < 55
    dark = []
    for col, row in np.rint(section.table.obsm["spatial"]).astype(int):
        dark.append((section.image[row - 56 : row + 56, col - 56 : col + 56, 0][disc] < 130).mean())
    cells = section.table.obs["cells"].to_numpy()
    assert np.corrcoef(dark, cells)[0, 1] > 0.8
    assert np.corrcoef(dark, np.roll(cells, 30))[0, 1] < 0.5


def test_spots_off_the_tissue_are_marked():
    section = sections.simulate_section(tables.Donor("SIM-TEST-03", "Bladder", "Healthy", "B"), 40, 1)
    inside = section.tissue.inside(section.table.obsm["spatial"] * 0.5)
    np.testing.assert_array_equal(section.table.obs["in_tissue"], inside)


def test_the_bulk_of_a_section_holds_all_its_cells(breast):
    truth = sections.bulk_truth(breast.tissue, [1])
    assert truth.rna.shape == (1, len(tables.cell_types()))
    present = np.bincount(breast.tissue.cells.kind, minlength=len(tables.cell_types())) > 0
    np.testing.assert_array_equal(truth.rna[0] > 0, present & (transcripts.rna_content() > 0))
    assert ((truth.activity > 0) & (truth.activity < 1)).all()


def test_the_same_donor_is_the_same_section(breast):
    again = sections.simulate_section(BREAST, SPOTS, 7)
    np.testing.assert_array_equal(again.image, breast.image)
    assert (again.table.X != breast.table.X).nnz == 0
    other = sections.simulate_section(dataclasses.replace(BREAST, donor="SIM-TEST-09"), SPOTS, 7)
    assert (other.image != breast.image).mean() > 0.5


# --- sample folders


def small(**changes):
    settings = {"organs": ("Kidney",), "donors_per_organ": 2, "spots_per_section": 6} | changes
    return profiles.get("demo", source_settings=settings)


@pytest.fixture
def edited(monkeypatch):
    """Prepare the atlas of a profile that was edited where it stands: its folder stays the same."""

    def prepare(**changes):
        profile = small(**changes)
        monkeypatch.setitem(profiles.PROFILES, "demo", profile)
        return seal_atlas.prepare(profile)

    return prepare


def stamps(root):
    files = [p for d in ("st", "wsis") for p in (root / d).iterdir()]
    return {p.relative_to(root).as_posix(): p.stat().st_mtime_ns for p in files}


def test_prepare_writes_the_layout_and_then_nothing_more(edited):
    root = edited()
    assert root == paths.samples("atlas")
    found = read_samples(root)
    assert [sample.id for sample in found] == ["SIM-KIDNEY-01", "SIM-KIDNEY-02"]
    assert all(s.simulated and s.grid == "visium" and s.has_image and s.donor == s.id for s in found)
    assert [s.um_per_px for s in found] == [0.5, 0.5]
    before = stamps(root)
    edited()
    assert stamps(root) == before


def test_the_reader_crops_the_drawn_section():
    root = seal_atlas.prepare(small(donors_per_organ=1))
    sample = read_samples(root)[0]
    counts = sample_files.read_counts(sample)
    patches = np.concatenate(list(sample_files.read_patches(sample, counts.obs_names.tolist(), 224, 0.5)))
    assert patches.shape == (6, 224, 224, 3)
    drawn = sections.simulate_section(tables.donors()[24], 6, 2026)
    assert drawn.table.uns["simulated"]
    donor = next(d for d in tables.donors() if d.donor == sample.id)
    image = sections.simulate_section(donor, 6, 2026).image
    for patch, (x, y) in zip(patches, counts.obsm["spatial"], strict=True):
        left, top = round(x - 112), round(y - 112)
        own = image[top : top + 224, left : left + 224].astype(float)
        assert np.abs(patch - own).mean() < 8  # JPEG, no more
        assert np.corrcoef(patch.ravel(), own.ravel())[0, 1] > 0.97


def test_the_same_settings_give_the_same_bytes(monkeypatch, tmp_path):
    root = seal_atlas.prepare(small())
    first = {p.name: sha256(p) for d in ("st", "wsis") for p in (root / d).iterdir()}
    monkeypatch.setenv("SEAL_HOME", str(tmp_path / "elsewhere"))
    root = seal_atlas.prepare(small())
    assert {p.name: sha256(p) for d in ("st", "wsis") for p in (root / d).iterdir()} == first


def test_prepare_writes_only_what_is_missing():
    root = seal_atlas.prepare(small())
    before = stamps(root)
    (root / "wsis" / "SIM-KIDNEY-02.tif").unlink()
    seal_atlas.prepare(small())
    after = stamps(root)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {
        "st/SIM-KIDNEY-02.h5ad",
        "wsis/SIM-KIDNEY-02.tif",
    }


def test_a_killed_run_goes_on(monkeypatch, edited):
    whole = sections.write_section
    calls = []

    def killed(root, donor, *rest):
        calls.append(donor.donor)
        if donor.donor.endswith("02"):
            raise KeyboardInterrupt
        whole(root, donor, *rest)

    monkeypatch.setattr(sections, "write_section", killed)
    with pytest.raises(KeyboardInterrupt):
        edited()
    assert not (paths.samples("atlas") / "metadata.csv").exists()
    monkeypatch.setattr(sections, "write_section", whole)
    root = edited()
    assert [s.id for s in read_samples(root)] == ["SIM-KIDNEY-01", "SIM-KIDNEY-02"]


def test_a_killed_enlargement_is_not_taken_for_whole(monkeypatch, edited):
    from seal.data import sample_files

    root = edited()
    whole = sample_files.list_samples

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(sample_files, "list_samples", killed)
    with pytest.raises(KeyboardInterrupt):
        edited(donors_per_organ=3)
    monkeypatch.setattr(sample_files, "list_samples", whole)
    edited(donors_per_organ=3)
    assert [s.id for s in read_samples(root)] == [f"SIM-KIDNEY-{n:02d}" for n in (1, 2, 3)]


def test_more_donors_leave_the_first_alone(edited):
    root = edited()
    before = stamps(root)
    edited(donors_per_organ=3)
    assert before.items() <= stamps(root).items()
    assert len(stamps(root)) == 6


def test_scale_multiplies_the_donors_without_changing_the_first(edited):
    root = edited()
    before = stamps(root)
    edited(scale=2)
    assert before.items() <= stamps(root).items()
    assert [s.id for s in read_samples(root)] == [
        "SIM-KIDNEY-01",
        "SIM-KIDNEY-01-1",
        "SIM-KIDNEY-02",
        "SIM-KIDNEY-02-1",
    ]


@pytest.mark.parametrize("change", [{"seed": 1}, {"spots_per_section": 7}])
def test_changed_settings_rewrite_the_atlas(change, edited):
    root = edited()
    before = stamps(root)
    edited(**change)
    assert not before.items() & stamps(root).items()
    assert stamps(root).keys() == before.keys()


@pytest.mark.parametrize("change", [{"organs": ("Breast",)}, {"donors_per_organ": 1}])
def test_only_what_the_settings_ask_for_is_listed(change, edited):
    edited()
    root = edited(**change)
    organ = change.get("organs", ("Kidney",))[0].upper()
    donors = change.get("donors_per_organ", 2)
    assert [sample.id for sample in read_samples(root)] == [f"SIM-{organ}-{n:02d}" for n in range(1, donors + 1)]


def test_other_settings_have_a_folder_of_their_own():
    first = seal_atlas.prepare(small())
    before = stamps(first)
    other = seal_atlas.prepare(small(donors_per_organ=1))
    assert other != first
    assert stamps(first) == before
    assert set(seal_atlas.folders()) >= {first, other, paths.samples("atlas_unseen"), paths.slides("atlas")}


def test_an_unknown_setting_is_named():
    with pytest.raises(SealError, match="no setting 'spots'"):
        seal_atlas.prepare(small(spots=3))
    with pytest.raises(SealError, match="no setting 'scael'"):
        seal_atlas.prepare(profiles.get("demo", source_settings__scael=2))


def test_a_setting_is_changed_by_its_name():
    profile = profiles.get("demo", source_settings__scale=2, source_settings__organs=["Skin"])
    assert seal_atlas.settings_of(profile) == AtlasSettings(scale=2, organs=("Skin",))
    assert seal_atlas.settings_of(profiles.DEMO) == AtlasSettings()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"organs": ("Thyroid",)}, "Thyroid"),
        ({"organs": ("Toe",)}, "Toe"),
        ({"spots_per_section": 0}, "'spots_per_section': 0"),
        ({"scale": 0}, "'scale': 0"),
        ({"organs": ()}, "organs"),
    ],
)
def test_settings_that_cannot_be_simulated_are_named(change, named):
    with pytest.raises(SealError, match=named):
        seal_atlas.prepare(small(**change))
    assert not any(folder.exists() for folder in seal_atlas.folders())


def test_unseen_donors_are_of_unseen_sites_or_organs():
    root = seal_atlas.prepare_unseen(small())
    found = read_samples(root)
    assert {s.organ for s in found} >= {"Thyroid", "Spleen"}
    seen = {d.donor for d in tables.donors()} - {s.donor for s in found}
    assert len(seen) == 56
    assert all(s.organ in ("Thyroid", "Spleen") or s.dataset[-1] in "EF" for s in found)
