import numpy as np
import pytest

from seal_atlas.growing import fields


@pytest.mark.parametrize("scale", [3.0, 12.0, 40.0])
def test_a_smooth_field_has_unit_variance_and_its_length(scale):
    rng = np.random.default_rng(1)
    drawn = np.stack([fields.smooth_field(rng, (160, 140), scale) for _ in range(60)])
    assert drawn.shape == (60, 160, 140)
    assert abs(drawn.mean()) < 0.1
    assert abs(drawn.std() - 1) < 0.1
    lag = round(scale)
    near = np.mean(drawn[:, :, 1:] * drawn[:, :, :-1])
    far = np.mean(drawn[:, :, 3 * lag :] * drawn[:, :, : -3 * lag])
    assert near > 0.75
    assert abs(far) < 0.15


def test_reading_a_plane_gives_the_plane():
    rows, cols = np.mgrid[:20, :30].astype(np.float32)
    xy = np.random.default_rng(0).uniform((0, 0), (28 * 2, 18 * 2), (200, 2))
    np.testing.assert_allclose(fields.read_field(3 * cols + rows, xy, 2.0), 3 * xy[:, 0] / 2 + xy[:, 1] / 2, rtol=1e-5)


def test_two_nearest_equal_a_plain_search():
    rng = np.random.default_rng(2)
    points, at = rng.uniform(0, 100, (300, 2)), rng.uniform(0, 100, (400, 2))
    near, far, which = fields.two_nearest(at, points, *fields.sort_into_squares(points, 9.0), 9.0)
    distance = np.linalg.norm(at[:, None] - points[None], axis=2)
    ordered = np.sort(distance, axis=1)
    np.testing.assert_allclose(near, ordered[:, 0])
    np.testing.assert_allclose(far, ordered[:, 1])
    np.testing.assert_array_equal(which, distance.argmin(axis=1))


def test_thinned_points_keep_their_distance_within_a_group_only():
    rng = np.random.default_rng(3)
    xy, group = rng.uniform(0, 60, (500, 2)), rng.integers(0, 2, 500)
    kept = fields.thin_points(xy, 5.0, group)
    for g in (0, 1):
        own = xy[kept & (group == g)]
        distance = np.linalg.norm(own[:, None] - own[None], axis=2) + 1e9 * np.eye(len(own))
        assert distance.min() >= 5.0
        dropped = xy[~kept & (group == g)]
        assert (np.linalg.norm(dropped[:, None] - own[None], axis=2).min(axis=1) < 5.0).all()


def test_no_points_are_no_error():
    none = np.empty((0, 2))
    assert fields.thin_points(none, 5.0, np.empty(0, int)).shape == (0,)
    near, _, which = fields.two_nearest(np.zeros((1, 2)), none, *fields.sort_into_squares(none, 9.0), 9.0)
    assert near[0] == 1e9
    assert which[0] == -1


def test_a_lattice_covers_its_rectangle():
    sites = fields.jittered_lattice(np.random.default_rng(0), (100, 200), 10, 0.1)
    assert len(sites) == pytest.approx(100 * 200 / (0.866 * 100), rel=0.1)
    assert (sites >= 0).all()
    assert (sites < (200, 100)).all()
