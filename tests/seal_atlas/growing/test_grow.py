import numpy as np
import pytest

from seal_atlas import tables
from seal_atlas.growing import grow, layout
from seal_atlas.growing.fields import nearest_label, read_field
from seal_atlas.growing.grow import Morphology, grow_tissue

ALL = [(organ, state) for organ in tables.organs() for state in tables.states_of(organ)]
SIZE = (420.0, 460.0)
KINDS = list(tables.cell_types())


def share(grown, *cells):
    return np.isin(grown.cells.kind, [KINDS.index(c) for c in cells]).mean()


@pytest.mark.parametrize(("organ", "state"), ALL)
def test_every_tissue_grows(organ, state):
    grown = grow_tissue([5, 1], organ, state, SIZE)
    cells = grown.cells
    assert len(cells.kind) > 100
    assert (cells.xy >= 0).all()
    assert (cells.xy < SIZE[::-1]).all()
    for values in (cells.length, cells.ratio, cells.angle, cells.chromatin):
        assert np.isfinite(values).all()
    assert (cells.length[cells.kind != KINDS.index("erythrocyte")] > 2).all()
    assert (cells.length < 45).all()
    assert ((grown.activity > 0) & (grown.activity < 1)).all()
    assert ("tumour" in {KINDS[k] for k in cells.kind}) == (state in ("Cancer", "Treated"))


@pytest.mark.parametrize("size", [(1.0, 1.0), (30.0, 200.0)])
@pytest.mark.parametrize(("organ", "state"), [("Bowel", "Healthy"), ("Kidney", "Cancer"), ("Lung", "Healthy")])
def test_the_smallest_sections_grow(organ, state, size):
    for seed in range(5):
        grown = grow_tissue([seed], organ, state, size)
        assert grown.inside(np.array([[0.0, 0.0]])).shape == (1,)


def test_the_same_seed_grows_the_same_and_another_does_not():
    first, again, other = (grow_tissue([n], "Breast", "Cancer", SIZE) for n in (1, 1, 2))
    np.testing.assert_array_equal(first.cells.xy, again.cells.xy)
    np.testing.assert_array_equal(first.activity, again.activity)
    assert len(first.cells.kind) != len(other.cells.kind)


def test_organs_hold_the_cells_they_are_made_of():
    own = {
        "Bladder": "urothelial", "Bowel": "enterocyte", "Brain": "neuron", "Breast": "mammary_luminal",
        "Cervix": "squamous", "Heart": "cardiomyocyte", "Kidney": "proximal_tubule", "Liver": "hepatocyte",
        "Lung": "pneumocyte", "Ovary": "ovarian_stroma", "Pancreas": "acinar", "Prostate": "prostate_luminal",
        "Skin": "keratinocyte", "Uterus": "endometrial",
    }  # fmt: skip
    for organ, cell in own.items():
        grown = grow_tissue([3], organ, "Healthy", (700.0, 700.0))
        assert share(grown, cell) > 0.02, organ
        others = {o: c for o, c in own.items() if c != cell}
        assert all(share(grown, c) == 0 for c in others.values()), organ


def test_compartments_follow_the_tables_depths_and_shares():
    grown = grow_tissue([4], "Skin", "Healthy", (900.0, 900.0))
    plan, names = grown.layout, [c.compartment for c in grown.architecture.compartments]
    depth = {n: plan.depth[(plan.compartment == i) & (plan.glass < 0)] for i, n in enumerate(names)}
    assert np.median(depth["horny layer"]) < np.median(depth["epidermis"]) < np.median(depth["dermis"])
    assert np.median(depth["dermis"]) < np.median(depth["subcutis"])
    shares = []
    for seed in range(8):
        plan = grow_tissue([seed], "Breast", "Healthy", (600.0, 600.0)).layout
        shares.append((plan.compartment == 0).mean())
    fat = tables.architecture("Breast", "Healthy").compartments[0]
    assert np.mean(shares) == pytest.approx(fat.share, abs=0.03)


def test_ring_nuclei_lie_where_the_table_says():
    grown = grow_tissue([6], "Prostate", "Healthy", (800.0, 800.0))
    glands = next(s for s in grown.architecture.structures if s.structure == "gland")
    for cell, at in (("prostate_luminal", glands.basal), ("prostate_basal", 2.5)):
        xy = grown.cells.xy[grown.cells.kind == KINDS.index(cell)]
        below = -read_field(grown.layout.distance, xy, layout.STEP)
        assert len(xy) > 100
        assert np.median(np.abs(below - at)) < 1.0


def test_single_cells_have_the_tables_density():
    row = next(
        d for d in tables.architecture("Brain", "Healthy").densities if (d.compartment, d.cell) == ("cortex", "neuron")
    )
    number, area = 0, 0.0
    for seed in range(6):
        grown = grow_tissue([seed], "Brain", "Healthy", (800.0, 800.0))
        cortex = [c.compartment for c in grown.architecture.compartments].index("cortex")
        where = nearest_label(grown.layout.compartment, grown.cells.xy, layout.STEP)
        number += ((grown.cells.kind == KINDS.index("neuron")) & (where == cortex)).sum()
        ground = (grown.layout.compartment == cortex) & (grown.layout.distance > 1.5) & (grown.layout.glass < -3)
        area += ground.sum() * layout.STEP**2 / 1e6
    assert number / area == pytest.approx(row.per_mm2, rel=0.12)


@pytest.mark.parametrize(
    ("changed", "measure", "factor"),
    [
        ({"immune": 2.0}, lambda g: share(g, "t_cell", "macrophage", "plasma_cell"), 1.5),
        ({"nuclear_size": 1.2}, lambda g: g.cells.length[g.cells.kind == KINDS.index("tumour")].mean(), 1.15),
        ({"nuclear_dark": 1.2}, lambda g: g.cells.chromatin[g.cells.kind == KINDS.index("tumour")].mean(), 1.15),
        ({"pleomorphism": 2.0}, lambda g: np.log(g.cells.length[g.cells.kind == KINDS.index("tumour")]).std(), 1.5),
        ({"fibrosis": 1.6}, lambda g: share(g, "fibroblast"), 1.15),
        ({"necrosis": 3.0}, lambda g: (g.layout.compartment == 0).mean(), 2.0),
        ({"mucin": 3.0}, lambda g: g.cells.goblet.sum(), 2.0),
    ],
)
def test_morphology_changes_what_it_says(changed, measure, factor):
    plain = np.mean([measure(grow_tissue([n], "Bowel", "Cancer", (600.0, 600.0))) for n in range(4)])
    by = Morphology(**changed)
    other = np.mean([measure(grow_tissue([n], "Bowel", "Cancer", (600.0, 600.0), by)) for n in range(4)])
    assert other > factor * plain


def test_glands_that_do_not_form_have_no_lumen():
    whole = grow_tissue([1], "Lung", "Cancer", SIZE)
    solid = grow_tissue([1], "Lung", "Cancer", SIZE, Morphology(gland=0.2))
    assert solid.layout.hollow.sum() < 0.4 * whole.layout.hollow.sum()


def test_shifts_move_one_programme_and_seen_ones_show_in_nuclei():
    plain = grow_tissue([2], "Breast", "Cancer", SIZE)
    moved = grow_tissue([2], "Breast", "Cancer", SIZE, shifts={"proliferation": 3.0})
    rows = list(tables.programmes())
    change = (moved.activity - plain.activity).mean(axis=(1, 2))
    assert change[rows.index("proliferation")] > 0.2
    assert np.delete(change, rows.index("proliferation")) == pytest.approx(0)
    tumour = KINDS.index("tumour")
    np.testing.assert_array_equal(plain.cells.xy, moved.cells.xy)
    mine = plain.cells.kind == tumour
    assert moved.cells.length[mine].mean() > 1.02 * plain.cells.length[mine].mean()


def test_what_is_invisible_changes_nothing_but_its_activity():
    unseen = next(name for name, p in tables.programmes().items() if not p.seen)
    plain = grow_tissue([2], "Breast", "Cancer", SIZE)
    moved = grow_tissue([2], "Breast", "Cancer", SIZE, shifts={unseen: 3.0})
    for name in ("xy", "kind", "length", "ratio", "angle", "chromatin", "goblet"):
        np.testing.assert_array_equal(getattr(plain.cells, name), getattr(moved.cells, name))
    assert not np.array_equal(plain.activity, moved.activity)


def test_composition_counts_each_cell_once():
    grown = grow_tissue([7], "Liver", "Healthy", SIZE)
    centres = np.array([[100.0, 100.0], [250.0, 100.0], [250.0, 300.0]])
    found = grown.composition(centres, 27.5)
    for row, centre in zip(found, centres, strict=True):
        near = np.linalg.norm(grown.cells.xy - centre, axis=1) <= 27.5
        np.testing.assert_array_equal(row, np.bincount(grown.cells.kind[near], minlength=len(KINDS)))


def test_an_outlined_section_ends_within_its_picture():
    grown = grow_tissue([8], "Breast", "Cancer", (600.0, 600.0), outlined=True)
    corners = np.array([[2.0, 2.0], [598.0, 2.0], [2.0, 598.0], [598.0, 598.0]])
    assert not grown.inside(corners).any()
    assert grown.inside(np.array([[300.0, 300.0]])).all()
    assert grown.inside(grown.cells.xy).mean() > 0.97


def test_programmes_have_the_level_of_their_state():
    programme = tables.programmes()["hypoxia"]
    for state in ("Healthy", "Cancer"):
        level = np.mean(
            [
                grow_tissue([n], "Kidney", state, (60.0, 60.0)).activity_at(np.array([[30.0, 30.0]]))[
                    0, list(tables.programmes()).index("hypoxia")
                ]
                for n in range(200)
            ]
        )
        assert level == pytest.approx(programme.level(state), abs=0.08)
    assert programme.scale_um / 4 >= grow.FIELD_STEP
