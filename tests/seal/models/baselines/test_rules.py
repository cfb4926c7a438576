"""The prediction rules, each against a case computed by hand."""

import numpy as np
import pytest
import torch

from seal.errors import SealError
from seal.models.baselines import rules

KEYS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [-1.0, 0.0]])
VALUES = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0], [8.0, 80.0]])
QUERY = torch.tensor([[3.0, 0.0], [0.0, 0.5]])


def test_the_mean_of_the_nearest_by_cosine():
    """Cosines of the first query: 1, 0, 0.71, -1; of the second: 0, 1, 0.71, 0."""
    expected = [[(1 + 4) / 2, (10 + 40) / 2], [(2 + 4) / 2, (20 + 40) / 2]]
    np.testing.assert_allclose(rules.average_nearest(QUERY, KEYS, VALUES, 2), expected)


def test_the_nearest_weighted_by_their_squared_distance():
    """First query: |q - k| summed over axes is 2 of the first key, 1 + 2 of the third: weights 1/4 and 1/9."""
    found = rules.weigh_nearest(QUERY, KEYS, VALUES, 2)
    a, b = 1 / 4, 1 / 9
    np.testing.assert_allclose(found[0], [(a * 1 + b * 4) / (a + b), (a * 10 + b * 40) / (a + b)], rtol=1e-6)
    c, d = 1 / 0.5**2, 1 / 3.5**2
    np.testing.assert_allclose(found[1], [(c * 2 + d * 4) / (c + d), (c * 20 + d * 40) / (c + d)], rtol=1e-6)
    on_a_key = rules.weigh_nearest(KEYS[:1], KEYS, VALUES, 2)
    np.testing.assert_allclose(on_a_key[0], VALUES[0], rtol=1e-4)


def test_all_spots_weighted_by_cosine_over_the_row_sum():
    root = 2**-0.5
    total = 1 + root - 1
    expected = (1 * 1 + root * 4 - 1 * 8) / total
    found = rules.weigh_all(KEYS, VALUES)(QUERY)
    np.testing.assert_allclose(found[0], [expected, 10 * expected], rtol=1e-6)
    np.testing.assert_allclose(found[1, 0], (1 * 2 + root * 4) / (1 + root), rtol=1e-6)


def test_soft_targets_are_a_softmax_of_both_similarities():
    image, spot = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    both = np.array([[(1 + 1) / 2, 0.0], [0.0, (4 + 1) / 2]]) * 0.5  # times T, here 0.5
    expected = np.exp(both) / np.exp(both).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(rules.soft_targets(image, spot, 0.5), expected, rtol=1e-6)


@pytest.mark.parametrize("rule", [rules.average_nearest, rules.weigh_nearest])
@pytest.mark.parametrize("spots", [0, 4])
def test_fewer_training_spots_than_are_averaged_are_refused(rule, spots):
    with pytest.raises(SealError, match=rf"(?s){spots} training spots.*at least the 5"):
        rule(QUERY, KEYS[:spots], VALUES[:spots], 5)


def test_no_training_spots_and_similarities_that_cancel_are_refused():
    for keys in (KEYS[:0], KEYS[[0, 3]]):
        with pytest.raises(SealError, match="add up to zero"):
            rules.weigh_all(keys, VALUES[: len(keys)])(QUERY[:1])
