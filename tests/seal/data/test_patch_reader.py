"""Patches read from disk: as numpy's own array has them, in any process, and nothing half-written taken for whole."""

import multiprocessing
import operator
import os
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch

from seal.data.patch_reader import PatchReader
from seal.errors import SealError

NUMBER, SIDE = 23, 7


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(0, 256, (NUMBER, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture
def reader(tmp_path, array):
    np.save(tmp_path / "patches.npy", array)
    return PatchReader(tmp_path / "patches.npy")


KEYS = [
    0,
    -1,
    np.int64(5),
    slice(None),
    slice(3, 9),
    slice(20, 99),
    slice(None, None, -4),
    slice(9, 3),
    [4, 4, 0, -2],
    [],
    np.array([], dtype=np.int64),
    np.array([[1, 2], [22, 0]]),
    np.arange(NUMBER)[::-1],
    np.arange(NUMBER) % 3 == 0,
    (2, 3),
    (2, slice(None), [0, 2]),
    (slice(1, 5), slice(1, None, 2), slice(1, None, 2)),
    (slice(1, 5), ..., 0),
    ([3, 1], slice(None), 0),
    ([3, 1], [0, 6], [1, 2], [2, 0]),
    (np.array([[5], [6]]), [0, 1, 2]),
    (np.arange(NUMBER) % 2 == 0, slice(2, 4)),
    (slice(0, 4), None, 2),
]


@pytest.mark.parametrize("key", KEYS, ids=[str(i) for i in range(len(KEYS))])
def test_equals_numpy(reader, array, key):
    found, wanted = reader[key], array[key]
    np.testing.assert_array_equal(found, wanted)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)


def test_is_like_an_array(reader, array):
    assert (len(reader), reader.shape, reader.dtype, reader.ndim) == (NUMBER, array.shape, array.dtype, 4)
    np.testing.assert_array_equal(np.asarray(reader), array)
    assert all((a == b).all() for a, b in zip(reader, array, strict=True))
    reader[0][:] = 0  # what was read is the reader's no more
    np.testing.assert_array_equal(reader[0], array[0])


@pytest.mark.parametrize(
    "key", [NUMBER, -NUMBER - 1, [0, NUMBER], True, ..., None, 1.0, [0.5], "a", np.ones(3, bool), (..., 0)], ids=str
)
def test_what_are_no_rows(reader, key):
    with pytest.raises(IndexError):
        reader[key]


def test_pickled_it_is_a_path(reader, array):
    reader[0]
    assert len(pickle.dumps(reader)) < 1000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader))[3], array[3])


class Set(torch.utils.data.Dataset):
    def __init__(self, reader):
        self.reader = reader

    def __len__(self):
        return 40

    def __getitem__(self, i):
        return self.reader[np.random.default_rng(i).integers(0, NUMBER, 8)]


def test_workers_of_a_loader_read_what_this_process_reads(reader):
    """Forked while the file is open here: a position shared between them would mix rows up."""
    whole = Set(reader)
    wanted = [whole[i] for i in range(len(whole))]
    loader = torch.utils.data.DataLoader(whole, batch_size=None, num_workers=2, multiprocessing_context="fork")
    for found, expected in zip(loader, wanted, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_spawned_processes(reader, array):
    reader[0]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(operator.getitem, reader, 5).result(), array[5])


def test_threads(reader, array):
    rows = [np.random.default_rng(i).integers(0, NUMBER, 16) for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for wanted, found in zip(rows, pool.map(lambda r: reader[r], rows), strict=True):
            np.testing.assert_array_equal(found, array[wanted])


@pytest.mark.parametrize("kept", [0, 5, 60, 127, 128, 1000, -1])
def test_a_truncated_file(reader, kept):
    content = reader.path.read_bytes()
    reader.path.write_bytes(content[:kept])
    with pytest.raises(SealError, match=r"patches\.npy cannot be read"):
        reader[0]


def test_a_file_that_is_truncated_while_it_is_open(reader):
    reader[0]
    os.truncate(reader.path, reader.path.stat().st_size - 1)
    reader[0]
    with pytest.raises(SealError, match="ends early"):
        reader[NUMBER - 1]


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2, 4, 4, 3)),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((2, 4, 5, 3), np.uint8),
        np.asfortranarray(np.ones((2, 4, 4, 3), np.uint8)),
    ],
)
def test_other_arrays_are_refused(tmp_path, values):
    np.save(tmp_path / "patches.npy", values)
    with pytest.raises(SealError, match="cannot be read"):
        len(PatchReader(tmp_path / "patches.npy"))


def test_a_missing_file(tmp_path):
    with pytest.raises(SealError, match="No such file"):
        len(PatchReader(tmp_path / "patches.npy"))


@pytest.mark.parametrize("answer", ["refuses", "none", "half"])
def test_a_file_system_that_cannot_tell_what_is_cached(reader, array, monkeypatch, answer):
    """What cannot be read without waiting is read with waiting: the same patches."""
    real, rows = os.preadv, np.array([3, 0, 1, 2, 3])

    def preadv(number, buffers, place, flags=0):
        if not flags:
            return real(number, buffers, place)
        if answer == "refuses":
            raise OSError(95, "Operation not supported")
        return 0 if answer == "none" else real(number, [buffers[0][: len(buffers[0]) // 2]], place)

    monkeypatch.setattr(os, "preadv", preadv)
    np.testing.assert_array_equal(reader[rows], array[rows])
