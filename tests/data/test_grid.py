"""Grid positions held against the image: read off a lattice, or found to contradict each other."""

import numpy as np
import pandas as pd
import pytest

from seal.data import grid


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


def test_a_lattice_gives_rows_and_columns(bins):
    counted = bins.assign(array_row=np.arange(800) // 40, array_col=np.arange(800) % 40)
    found = grid.lattice(counted)
    pd.testing.assert_frame_equal(found, bins[["array_row", "array_col"]].astype(np.int64))
    assert grid.astray(bins, "square") == 0
    assert grid.astray(counted, "square") > 0.2


def test_places_may_lie_a_little_beside_it(bins):
    moved = bins.copy()
    moved[grid.PIXELS] += np.random.default_rng(1).uniform(-20, 20, (800, 2))
    found = grid.lattice(moved)
    pd.testing.assert_frame_equal(found, bins[["array_row", "array_col"]].astype(np.int64))


@pytest.mark.parametrize("turn", [3.0, 30.0])
def test_a_turned_lattice_is_left_alone(bins, turn):
    turned = section(bins["array_row"].to_numpy(), bins["array_col"].to_numpy(), turn)
    assert grid.lattice(turned) is None
    assert grid.astray(turned, "square") < 1e-9


def test_no_lattice(bins):
    scattered = bins.copy()
    scattered[grid.PIXELS] = np.random.default_rng(2).uniform(0, 1e4, (800, 2))
    assert grid.lattice(scattered) is None
    assert grid.lattice(bins.iloc[:1]) is None
    assert grid.lattice(pd.concat([bins, bins])) is None


@pytest.mark.parametrize("turn", [0.0, 17.0, 90.0])
def test_visium_agrees_whichever_way_it_lies(turn):
    row, k = np.divmod(np.arange(600), 20)
    spots = section(row, 2 * k + row % 2, turn, hexagonal=True)
    assert grid.astray(spots, "visium") == 0
    assert grid.astray(spots.assign(array_row=7 * row % 30), "visium") > 0.3
    swapped = spots.assign(array_row=spots["array_col"], array_col=spots["array_row"])
    assert grid.astray(swapped, "visium") > 0.25


def test_no_neighbours_no_contradiction():
    assert grid.astray(section(np.array([0, 9]), np.array([0, 9])), "square") == 0
