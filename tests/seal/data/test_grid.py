"""Grid positions held against the image: read off a lattice, or found to contradict each other."""

import numpy as np
import pandas as pd
import pytest

from seal.data import grid
from seal.errors import SealError

UM = grid.POOLED / 467.4  # um a pixel where HEST-1k's bins are 467.4 px apart


def section(row, col, turn=0.0, pitch=467.4, start=(812.3, 45.0), hexagonal=False):
    """Spots at a square (or Visium's) grid's places, turned by degrees."""
    steps = np.stack([col * 0.5, row * np.sqrt(3) / 2] if hexagonal else [col, row], axis=1) * pitch
    angle = np.deg2rad(turn)
    places = steps @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + start
    frame = pd.DataFrame(places, columns=grid.PIXELS, index=[f"bin{i}" for i in range(len(row))])
    return frame.assign(array_row=row, array_col=col)


@pytest.fixture
def bins():
    """Two thirds of 30 x 40 bins; the first row and column have some."""
    row, col = np.divmod(np.sort(np.random.default_rng(0).permutation(1200)[:800]), 40)
    return section(row, col)


def visium(turn=0.0):
    row, k = np.divmod(np.arange(600), 20)
    return section(row, 2 * k + row % 2, turn, hexagonal=True)


def same(found, frame):
    pd.testing.assert_frame_equal(found, frame[grid.PLACES].astype(np.int64))


def test_a_lattice_gives_rows_and_columns(bins):
    counted = bins.assign(array_row=np.arange(800) // 40, array_col=np.arange(800) % 40)
    same(grid.lattice(counted, UM), bins)
    same(grid.lattice(counted, np.nan), bins)
    assert grid.astray(bins, "square") == 0
    assert grid.astray(counted, "square") > 0.3


def test_places_may_lie_a_little_beside_it(bins):
    moved = bins.copy()
    moved[grid.PIXELS] += np.random.default_rng(1).uniform(-20, 20, (800, 2))
    same(grid.lattice(moved, UM), bins)
    assert grid.astray(moved, "square") == 0


def test_bins_that_do_not_touch_are_no_neighbours():
    """Every fifth bin: their distance alone would make neighbours of them."""
    row, col = np.divmod(np.arange(12), 4)
    sparse = section(5 * row, 5 * col)
    same(grid.lattice(sparse, UM), sparse)
    same(grid.lattice(sparse, np.nan), section(row, col))


def test_smaller_bins_have_their_own_pitch(bins):
    same(grid.lattice(bins, UM / 16), bins)


@pytest.mark.parametrize("turn", [3.0, 30.0])
def test_a_turned_lattice_is_left_alone(bins, turn):
    turned = section(bins["array_row"].to_numpy(), bins["array_col"].to_numpy(), turn)
    assert grid.lattice(turned, UM) is None
    assert grid.astray(turned, "square") == 0


def test_no_lattice(bins):
    scattered = bins.copy()
    scattered[grid.PIXELS] = np.random.default_rng(2).uniform(0, 1e4, (800, 2))
    assert grid.lattice(scattered, UM) is None
    assert grid.lattice(bins.iloc[:1], UM) is None
    assert grid.lattice(pd.concat([bins, bins]), UM) is None
    assert grid.lattice(pd.concat([bins, bins.iloc[:1] + 1]), UM) is None, "two bins at one place"


@pytest.mark.parametrize("turn", [0.0, 17.0, 90.0])
def test_visium_agrees_whichever_way_it_lies(turn):
    spots = visium(turn)
    row = spots["array_row"]
    assert grid.astray(spots, "visium") == 0
    assert grid.astray(spots.assign(array_row=29 - row), "visium") < 1e-9, "mirrored"
    assert grid.astray(spots.assign(array_row=7 * row % 30), "visium") > 0.3
    swapped = spots.assign(array_row=spots["array_col"], array_col=row)
    assert grid.astray(swapped, "visium") > 0.25


def test_the_wrong_kind_of_grid(bins):
    assert grid.astray(bins, "visium") > 0.3
    assert grid.astray(visium(), "square") > 0.2


def test_places_on_the_grid_that_are_none_in_the_image(tmp_path):
    spots = visium()
    grid.require_places(spots, "visium", tmp_path)
    with pytest.raises(SealError, match="touch on the square grid or in the image") as error:
        grid.require_places(spots, "square", tmp_path)
    assert str(tmp_path) in str(error.value)
    spots.iloc[5, spots.columns.get_indexer(grid.PLACES)] = spots[grid.PLACES].iloc[9].to_numpy()
    with pytest.raises(SealError, match="spot bin9 has the array_row and array_col of another"):
        grid.require_places(spots, "visium", tmp_path)


@pytest.mark.parametrize(
    ("um_per_px", "distance", "named"),
    [
        (100 / 467.4, 100.0, None),
        (110 / 467.4, 100.0, None),
        (50 / 467.4, 100.0, "50 um apart"),  # the scale wrong by two, or positions in a smaller picture's pixels
        (200 / 467.4, 100.0, "200 um apart"),
        (np.nan, 100.0, None),
        (50 / 467.4, np.nan, None),
    ],
)
def test_the_pitch_is_held_against_the_stated_distance(tmp_path, um_per_px, distance, named):
    if named is None:
        grid.require_places(visium(17.0), "visium", tmp_path, um_per_px, distance)
        return
    with pytest.raises(SealError, match=named) as error:
        grid.require_places(visium(17.0), "visium", tmp_path, um_per_px, distance)
    assert "inter_spot_dist says 100" in error.value.what
    assert str(tmp_path) in error.value.what


@pytest.mark.parametrize("kind", ["visium", "square"])
def test_no_neighbours_no_contradiction(kind):
    assert grid.astray(section(np.array([0, 9]), np.array([0, 9])), kind) == 0
    assert grid.astray(section(np.array([4]), np.array([4])), kind) == 0


def test_two_spots_at_one_pixel(bins):
    bins.iloc[5, bins.columns.get_indexer(grid.PIXELS)] = bins[grid.PIXELS].iloc[6].to_numpy()
    assert 0 < grid.astray(bins, "square") < grid.ASTRAY


def test_real_sections(shared):
    from seal.data.sources import her2st

    read = [her2st.read_section(section) for section in her2st.local_sections(shared / "her2st")]
    assert max(grid.astray(data.obs, "square") for data, _ in read) < 0.02
    for data, um_per_px in read:
        grid.require_places(data.obs, "square", shared, um_per_px, her2st.PITCH)
