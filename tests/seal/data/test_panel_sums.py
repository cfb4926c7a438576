"""Moments: the plain sums of dense matrices, whatever the parts; and files that are whole or refused."""

import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array

from seal.data import panel
from seal.data.expression import normalise

SPOTS, GENES = 40, 25
ALL = np.ones(GENES, dtype=bool)
SUMS = ("counts", "linear", "linear_squared", "log", "log_squared", "detected", "measured")


@pytest.fixture
def section():
    """Counts and log expression; a mixed spot also has genes that it did not count itself."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.lognormal(-1, 1.5, GENES), (SPOTS, GENES))
    counts[:, 0] += 1
    mixed = (counts + np.roll(counts, 1, axis=0)) / 2
    return csr_array(counts), normalise(csr_array(mixed), 1e4)


def plain(counts, smooth, listed):
    """The same sums, from dense matrices."""
    counts, log = counts.toarray().astype(float), smooth.toarray().astype(float)
    linear = np.expm1(log)
    measured = np.where(listed, len(log), 0)
    sums = counts, linear, linear**2, log, log**2, log > 0, np.broadcast_to(measured / len(log), log.shape)
    return dict(zip(SUMS, (values.sum(axis=0) for values in sums), strict=True))


def assert_equal(found, wanted):
    for name in SUMS:
        np.testing.assert_allclose(getattr(found, name), wanted[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("block", [7, 64, 1 << 18])
def test_a_section_gives_its_plain_sums(section, monkeypatch, block):
    monkeypatch.setattr(panel, "BLOCK", block)
    listed = np.arange(GENES) % 3 > 0
    found = panel.sum_spots(*section, listed)
    assert found.spots == SPOTS
    assert_equal(found, plain(*section, listed))
    assert {getattr(found, name).dtype for name in SUMS} == {np.dtype(float), np.dtype(np.int64)}
    assert found.detected.dtype == found.measured.dtype == np.int64


def test_parts_add_up_to_the_whole(section):
    counts, smooth = section
    pieces = [slice(0, 11), slice(11, 12), slice(12, SPOTS)]
    parts = [panel.sum_spots(counts[rows], smooth[rows], ALL) for rows in pieces]
    before = [part.log.copy() for part in parts]
    whole = panel.add_moments(iter(parts))
    assert whole.spots == SPOTS
    assert isinstance(whole.spots, int)
    assert_equal(whole, plain(*section, ALL))
    for part, log in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part.log, log)


def test_variances_are_those_of_the_spots(section):
    found, log = panel.sum_spots(*section, ALL), section[1].toarray().astype(float)
    np.testing.assert_allclose(found.log_variance, log.var(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.linear_variance, np.expm1(log).var(axis=0), rtol=1e-9)


def test_equal_values_do_not_vary():
    """The rounding of the sums is no variance, however many spots."""
    log = csr_array(np.full((997, 2), [0.3, 7.1], dtype=np.float32))
    found = panel.sum_spots(log, log, np.ones(2, dtype=bool))
    assert (found.log_squared / 997 != np.square(found.log / 997)).any()
    assert found.log_variance.tolist() == found.linear_variance.tolist() == [0, 0]


def test_small_differences_do_vary():
    values = np.full(10_000, 7.0, dtype=np.float32)
    values[:100] += np.float32(1e-3)
    log = csr_array(values[:, None])
    variance = panel.sum_spots(log, log, np.ones(1, dtype=bool)).log_variance
    np.testing.assert_allclose(variance, values.astype(float).var(), rtol=1e-4)


def test_sums_are_in_double_precision():
    counts = csr_array(np.array([[2**24], [1], [1]], dtype=np.float32))
    log = csr_array(np.ones((3, 1), dtype=np.float32))
    assert panel.sum_spots(counts, log, np.ones(1, dtype=bool)).counts.tolist() == [2**24 + 2]


def test_detected_is_above_zero_however_little():
    log = csr_array((np.array([0, 1e-3, 2], dtype=np.float32), ([0, 1, 1], [0, 0, 1])), shape=(2, 3))
    assert log.nnz == 3  # a zero that is stored
    assert panel.sum_spots(log, log, np.ones(3, dtype=bool)).detected.tolist() == [1, 1, 0]


def test_memory_does_not_grow_with_the_number_of_sections():
    genes = 20_000
    log = csr_array(np.eye(3, genes, dtype=np.float32))
    peaks = []
    for number in (4, 40):
        tracemalloc.start()
        whole = panel.add_moments(panel.sum_spots(log, log, np.ones(genes, dtype=bool)) for _ in range(number))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert whole.spots == 3 * number
    assert peaks[1] < 1.1 * peaks[0]


def test_round_trip(section, tmp_path):
    found = panel.sum_spots(*section, ALL)
    path = found.save(tmp_path / "deep" / "TENX1.npz")
    stored = panel.load_moments(path)
    assert stored.spots == SPOTS
    assert isinstance(stored.spots, int)
    for name in SUMS:
        np.testing.assert_array_equal(getattr(stored, name), getattr(found, name))
        assert getattr(stored, name).dtype == getattr(found, name).dtype


def test_a_killed_write_leaves_nothing(section, tmp_path, monkeypatch):
    def killed(path, **arrays):
        path.write_bytes(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", killed)
    with pytest.raises(KeyboardInterrupt):
        panel.sum_spots(*section, ALL).save(tmp_path / "sums" / "TENX1.npz")
    assert list((tmp_path / "sums").iterdir()) == []
