"""The spots around a spot: true neighbours, of its own section alone."""

import numpy as np
import pytest

from seal.data import neighbours
from seal.data.assemble import assemble
from seal.data.grid import STEPS
from seal.data.grid import neighbours as adjacency


def test_true_neighbours_are_the_grids_and_of_one_section(small):
    pairs = assemble(small)
    at, ring, ends = neighbours.places(pairs), neighbours.find_around(pairs, STEPS), neighbours.find_sections(pairs)
    for section in pairs.sections:
        rows = slice(section.start, section.stop)
        found = np.zeros((section.stop - section.start,) * 2)
        for own, around in enumerate(ring[rows]):
            found[own, around[around >= 0] - section.start] = 1
        np.testing.assert_array_equal(found, adjacency(*at[rows].T, section.grid).toarray())
        assert (ends[rows] == (section.start, section.stop)).all()
    assert (ring >= 0).any()
    assert (ring < 0).any()


@pytest.mark.parametrize(("grid", "number"), [("square", 25), ("visium", 19)])
def test_a_window_holds_the_spot_and_two_steps_around(grid, number):
    steps = neighbours.WINDOW[grid]
    assert len(set(steps)) == number
    assert {(0, 0), *STEPS[grid]} < set(steps)
    assert {(-row, -col) for row, col in steps} == set(steps)
