"""Rows of npy files: as numpy's own array has them, in any process, and nothing half-written taken for whole."""

import hashlib
import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch

from seal.data import store
from seal.data.store import RowFile
from seal.errors import SealError

NUMBER, SIDE = 23, 7
ROW = (SIDE, SIDE, 3)


@pytest.fixture
def array():
    return np.random.default_rng(0).integers(0, 256, (NUMBER, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture
def reader(tmp_path, array):
    np.save(tmp_path / "patches.npy", array)
    return RowFile(tmp_path / "patches.npy", np.uint8, ROW)


ROWS = [[0], [22], [4, 4, 0, 21], [], np.array([], dtype=np.int64), np.arange(NUMBER)[::-1], np.arange(NUMBER)]
SLICES = [
    slice(None),
    slice(3, 9),
    slice(20, 99),
    slice(-4, None),
    slice(9, 3),
    slice(0, 0),
    slice(1, 20, 2),
    slice(None, None, -1),
]


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_rows_equal_numpys(reader, array, rows):
    found, wanted = reader.read(rows), array[np.asarray(rows, dtype=int)]
    np.testing.assert_array_equal(found, wanted)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    found[:] = 0  # what was read is the reader's no more
    np.testing.assert_array_equal(reader.read(rows), wanted)


@pytest.mark.parametrize("rows", SLICES, ids=str)
def test_slices_equal_numpys(reader, array, rows):
    np.testing.assert_array_equal(reader[rows], array[rows])
    assert (len(reader), reader.shape, reader.dtype) == (NUMBER, array.shape, array.dtype)


@pytest.mark.parametrize("rows", [[NUMBER], [0, -1]], ids=str)
def test_what_are_no_rows(reader, rows):
    with pytest.raises(IndexError, match="there is no row"):
        reader.read(rows)


def test_two_axes_may_number_the_rows(tmp_path):
    array = np.arange(48, dtype="<f4").reshape(3, 4, 2, 2)
    np.save(tmp_path / "a.npy", array)
    rows = RowFile(tmp_path / "a.npy", "<f4", (2, 2))
    assert len(rows) == 12
    np.testing.assert_array_equal(rows.read([11, 4, 5]), array.reshape(12, 2, 2)[[11, 4, 5]])
    rows.write(6, -array[0, :2])
    rows.sync()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy")[1, 2:], -array[0, :2])


def test_pickled_it_is_a_path(reader, array):
    reader.read([0])
    assert len(pickle.dumps(reader)) < 1000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader)).read([3])[0], array[3])


class Set(torch.utils.data.Dataset):
    def __init__(self, reader):
        self.reader = reader

    def __len__(self):
        return 40

    def __getitem__(self, i):
        return self.reader.read(np.random.default_rng(i).integers(0, NUMBER, 8))


def test_workers_of_a_loader_read_what_this_process_reads(reader):
    """Forked while the file is open here: a position shared between them would mix rows up."""
    whole = Set(reader)
    wanted = [whole[i] for i in range(len(whole))]
    loader = torch.utils.data.DataLoader(whole, batch_size=None, num_workers=2, multiprocessing_context="fork")
    for found, expected in zip(loader, wanted, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_spawned_processes(reader, array):
    reader.read([0])
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        np.testing.assert_array_equal(pool.submit(reader.read, [5]).result()[0], array[5])


def test_threads(reader, array):
    rows = [np.random.default_rng(i).integers(0, NUMBER, 16) for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for wanted, found in zip(rows, pool.map(reader.read, rows), strict=True):
            np.testing.assert_array_equal(found, array[wanted])


@pytest.mark.parametrize("kept", [0, 5, 60, 127, 128, 1000, -1])
def test_a_truncated_file(reader, kept):
    content = reader.path.read_bytes()
    reader.path.write_bytes(content[:kept])
    with pytest.raises(SealError, match=r"patches\.npy cannot be read"):
        reader.read([0])


def test_a_file_that_is_truncated_while_it_is_open(reader):
    reader.read([0])
    os.truncate(reader.path, reader.path.stat().st_size - 1)
    reader.read([0])
    with pytest.raises(SealError, match="ends early"):
        reader.read([NUMBER - 1])


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
        len(RowFile(tmp_path / "patches.npy", np.uint8, (4, 4, 3)))


def test_a_missing_file(tmp_path):
    with pytest.raises(SealError, match="No such file"):
        len(RowFile(tmp_path / "patches.npy", np.uint8, (4, 4, 3)))


@pytest.mark.parametrize("how", ["lacks it", "refuses", "reads half"])
def test_a_system_that_takes_no_advice_or_reads_in_pieces(reader, array, monkeypatch, how):
    real, rows = os.preadv, np.array([3, 0, 1, 2, 3])
    if how == "lacks it":
        monkeypatch.delattr(os, "posix_fadvise")
    elif how == "refuses":
        monkeypatch.setattr(os, "posix_fadvise", _refusing)
    else:
        monkeypatch.setattr(os, "preadv", lambda file, buffers, place: real(file, [buffers[0][:50]], place))
    np.testing.assert_array_equal(reader.read(rows), array[rows])


def _refusing(*_):
    raise OSError(22, "Invalid argument")


# ---- written ----


def test_rows_are_written_once_and_whole(tmp_path):
    store.create(tmp_path / "a.npy", "<f4", (5, 2))
    block = store.Block(tmp_path, "a.npy", 1, 3, "S1")
    block.write(np.ones((1, 2)))
    with pytest.raises(SealError, match="S1: 1 of 2 rows"):
        block.close()
    with pytest.raises(SealError, match="after row 2"):
        block.write(np.ones((2, 2)))
    with pytest.raises(SealError, match="after row 2"):
        block.write(np.ones((1, 3)))
    block.write(np.full((1, 2), 2))
    found = block.close()
    assert (found["file"], found["sample"], found["rows"]) == ("a.npy", "S1", [1, 3])
    assert found["sha256"] == hashlib.sha256(np.array([[1, 1], [2, 2]], dtype="<f4").tobytes()).hexdigest()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy")[:, 0], [0, 1, 2, 0, 0])


def test_an_empty_array_is_an_array(tmp_path):
    store.create(tmp_path / "a.npy", "u1", (0, 4, 4, 3))
    assert np.load(tmp_path / "a.npy").shape == (0, 4, 4, 3)
    assert store.read_layout(tmp_path / "a.npy")[2] == (0, 4, 4, 3)
