"""Files are written as TRIDENT writes them: here its `save_h5` and `coords_to_h5`, line by line what they do."""

import re
from dataclasses import fields

import h5py
import numpy as np
import pytest

from seal.errors import SealError
from seal.slides import trident
from seal.slides.trident import Grid

COORDS = np.array([[0, 448], [448, 0], [448, 448], [896, 1344]], dtype=np.int64)
GRID = trident.describe_grid("S1", (5000, 4000), 0.25, 0.5, 224)
ATTRIBUTES = [
    "patch_size",
    "patch_size_level0",
    "level0_magnification",
    "target_magnification",
    "overlap",
    "name",
    "savetodir",
    "level0_width",
    "level0_height",
]


def features(n=4, dim=6, dtype=np.float32):
    return np.random.default_rng(0).standard_normal((n, dim)).astype(dtype)


def theirs(path, tables, attributes):
    """What TRIDENT's save_h5 does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in tables.items():
            data = file.create_dataset(
                name,
                shape=values.shape,
                maxshape=(None, *values.shape[1:]),
                chunks=(1, *values.shape[1:]),
                dtype=values.dtype,
            )
            data[:] = values
            for key, value in attributes.get(name, {}).items():
                data.attrs[key] = "None" if value is None else value
    return path


# --- what we write ----------------------------------------------------------------------------------------


def test_grid_names_what_trident_names():
    assert [f.name for f in fields(Grid)] == ATTRIBUTES
    assert (GRID.patch_size, GRID.patch_size_level0, GRID.level0_magnification) == (224, 448, 40)
    assert (GRID.target_magnification, GRID.overlap, GRID.savetodir) == (20, 0, "20x_224px_0px_overlap")
    assert (GRID.name, GRID.level0_width, GRID.level0_height) == ("S1", 5000, 4000)
    assert isinstance(GRID.level0_magnification, int)


@pytest.mark.parametrize("um", [0.23, 0.2522, 0.499, 0.65])
@pytest.mark.parametrize("size", [224, 256, 512])
def test_trident_finds_the_side_of_a_patch_from_the_magnifications(um, size):
    """Its WSIPatcher: downsample = (10 / target) / (10 / level0), side = round(size x downsample)."""
    grid = trident.describe_grid("S1", (5000, 4000), um, 0.5, size)
    downsample = (10 / grid.target_magnification) / (10 / grid.level0_magnification)
    assert round(size * downsample) == grid.patch_size_level0 == round(size * 0.5 / um)


@pytest.mark.parametrize(
    ("um", "overlap", "name"),
    [(0.5, 0, "20x_224px_0px_overlap"), (1.0, 16, "10x_224px_16px_overlap"), (0.75, 0, "13.3333x_224px_0px_overlap")],
)
def test_folder_of_a_scale(um, overlap, name):
    assert trident.scale_folder(um, 224, overlap) == name


def test_places(tmp_path):
    assert trident.coords_path(tmp_path, "20x", "S1") == tmp_path / "20x" / "patches" / "S1_patches.h5"
    assert trident.features_folder(tmp_path, "20x", "uni") == tmp_path / "20x" / "features_uni"


def test_coords_are_written_as_trident_writes_them(tmp_path):
    attributes = {name: getattr(GRID, name) for name in ATTRIBUTES}
    expected = theirs(tmp_path / "a" / "S1_patches.h5", {"coords": COORDS}, {"coords": attributes})
    trident.write_coords(tmp_path / "b" / "S1_patches.h5", COORDS, GRID)
    for path in (expected, tmp_path / "b" / "S1_patches.h5"):
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["coords"], COORDS)
            assert dict(file["coords"].attrs) == attributes
    with h5py.File(expected) as old, h5py.File(tmp_path / "b" / "S1_patches.h5") as new:
        assert list(old) == list(new)
        assert [old["coords"].chunks, old["coords"].maxshape] == [new["coords"].chunks, new["coords"].maxshape]
        assert {k: np.asarray(v).dtype for k, v in old["coords"].attrs.items()} == {
            k: np.asarray(v).dtype for k, v in new["coords"].attrs.items()
        }


def test_features_come_back(tmp_path):
    path = tmp_path / "features_x" / "S1.h5"
    barcodes = np.array([b"A", b"B", b"C", b"D"])
    trident.write_features(path, features(dtype=np.float64), COORDS, "x", GRID, {"model": "k"}, {"barcodes": barcodes})
    found = trident.read_table(path, "features")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, features(dtype=np.float64).astype(np.float32))
    np.testing.assert_array_equal(trident.read_table(path, "coords"), COORDS)
    assert trident.attributes_of(path) == {
        "name": "S1",
        "savetodir": GRID.savetodir,
        "encoder": "x",
        "model": "k",
    }
    with h5py.File(path) as file:
        assert (file["barcodes"][:] == barcodes).all()
        assert set(file["coords"].attrs) == set(ATTRIBUTES)


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(SealError, match="3 embeddings for 4 coordinates"):
        trident.write_features(tmp_path / "a" / "S1.h5", features(3), COORDS, "x")
    spoilt = features()
    spoilt[1, 2] = np.inf
    with pytest.raises(SealError, match="1 of its 4 embeddings are not finite, first row 1"):
        trident.write_features(tmp_path / "a" / "S1.h5", spoilt, COORDS, "x")
    assert not list(tmp_path.rglob("*S1*"))


# --- what is refused --------------------------------------------------------------------------------------

NAN = features()
NAN[[1, 3], 0] = np.nan


@pytest.mark.parametrize(
    ("values", "coords", "message"),
    [
        (features(3), COORDS, "3 embeddings for 4 coordinates"),
        (NAN, COORDS, "2 of its 4 embeddings are not finite, first row 1"),
        (features()[0], COORDS, "one vector is a slide's embedding"),
        (np.ones((4, 6), np.int64), COORDS, r"`features` are int64 \[4, 6\]"),
        (np.ones((2, 4, 6), np.float32), COORDS, r"float32 \[2, 4, 6\]"),
        (features(), COORDS + 0.5, "not whole pixels"),
        (features(), COORDS[:, :1], r"`coords` are int64 \[4, 1\]"),
    ],
)
def test_bad_features_are_not_written(tmp_path, values, coords, message):
    path = tmp_path / "S1.h5"
    with pytest.raises(SealError, match=message) as error:
        trident.write_features(path, values, coords, "x")
    assert str(path) in str(error.value)
    assert not list(tmp_path.glob("*S1*"))


def test_a_table_that_is_not_there_is_named(tmp_path):
    path = theirs(tmp_path / "S1.h5", {"coords": COORDS}, {})
    with pytest.raises(SealError, match="no `features`, but coords"):
        trident.attributes_of(path)
    with pytest.raises(SealError, match="no `barcodes`, but coords"):
        trident.read_table(path, "barcodes")


@pytest.mark.parametrize("read", [lambda path: trident.read_table(path, "features"), trident.attributes_of])
def test_missing_and_truncated_files(tmp_path, read):
    with pytest.raises(SealError, match=r"gone\.h5"):
        read(tmp_path / "gone.h5")
    path = theirs(tmp_path / "S1.h5", {"features": features(), "coords": COORDS}, {})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(SealError, match=re.escape(str(path))):
        read(path)
    path.write_bytes(b"no h5 at all")
    with pytest.raises(SealError, match=re.escape(str(path))):
        read(path)
