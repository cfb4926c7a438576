"""A classifier with whole groups held out: what marks a section does not tell classes apart, a difference does."""

import numpy as np
import pytest

from seal.errors import SealError
from seal.evaluate import robustness


def groups_of(number: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Second class and groups of twice `number` groups."""
    second = np.repeat([False, True], number * each)
    return second, np.repeat([f"s{i:02d}" for i in range(2 * number)], each)


def test_no_group_is_on_both_sides_and_each_fold_has_both_classes():
    second, groups = groups_of(3, 7)
    fold = robustness.deal_groups(second, groups)
    assert fold.max() == 2
    assert all(len(set(fold[groups == name])) == 1 for name in groups)
    assert all(set(second[fold == k]) == {False, True} for k in range(3))
    with pytest.raises(SealError, match="s00 holds both classes"):
        robustness.deal_groups(np.arange(42) % 2 == 0, groups)
    with pytest.raises(SealError, match="1 and 3 groups"):
        robustness.deal_groups(second[14:], groups[14:])


def test_what_marks_a_section_does_not_tell_classes_apart():
    # Each section has a colour of its own, so a split within sections would give an AUC near 1.
    rng = np.random.default_rng(1)
    second, groups = groups_of(20, 10)
    own = {name: rng.normal(size=30) * 3 for name in np.unique(groups)}
    features = np.array([own[name] for name in groups]) + rng.normal(size=(len(groups), 30))
    found = robustness.measure_separability(features, second, groups)
    assert 0.3 < found.auc < 0.7
    assert found.auc_interval[0] < 0.5 < found.auc_interval[1]
    within = robustness.measure_separability(
        features, second, np.char.add(groups, np.tile(list("ab"), len(groups) // 2))
    )
    assert within.auc > 0.9


def test_different_classes_are_told_apart():
    rng = np.random.default_rng(0)
    second, groups = groups_of(6, 10)
    features = rng.normal(size=(len(groups), 5)) + 3 * second[:, None]
    found = robustness.measure_separability(features, second, groups)
    assert found.auc > 0.99
    assert found.accuracy > 0.97
    assert found.auc_interval[0] > 0.97
    few = (groups < "s03") | (groups > "s08")
    assert np.isnan(robustness.measure_separability(features[few], second[few], groups[few]).auc_interval[0])


def test_energy_distance_grows_from_nothing_to_one():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4))
    distances = [robustness.energy_distance(x, rng.normal(size=(300, 4)) + shift) for shift in (0, 1, 5, 50)]
    assert abs(distances[0]) < 0.01
    assert distances == sorted(distances)
    assert distances[-1] > 0.9
