import re
import shutil
import subprocess
import tarfile
from dataclasses import replace

import anndata
import numpy as np
import pytest
from PIL import Image

from seal import paths, profiles
from seal.data import sample_files
from seal.data.samples import read_samples
from seal.errors import SealError
from seal_atlas.realism import mouse

DEMO = profiles.get("demo")


@pytest.fixture(scope="session")
def archive():
    try:
        return mouse.fetch_archive()
    except SealError as error:
        pytest.skip(f"squidpy's source archive is not there and cannot be fetched: {error.what}")


@pytest.fixture(scope="session")
def published(archive, tmp_path_factory):
    """Table and image as published, read without the module."""
    folder = tmp_path_factory.mktemp("published")
    with tarfile.open(archive) as tar:
        for name in ("test_data.h5ad", "test_img.jpg"):
            (folder / name).write_bytes(tar.extractfile(f"squidpy-1.8.2/tests/_data/{name}").read())
    return anndata.read_h5ad(folder / "test_data.h5ad"), np.asarray(Image.open(folder / "test_img.jpg"))


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("SEAL_HOME", str(tmp_path / "own"))  # its downloads are no link to the project's
    return tmp_path / "own"


@pytest.fixture
def sample(archive, own_home):
    paths.downloads().mkdir(parents=True)
    shutil.copy(archive, paths.downloads())
    (sample,) = read_samples(mouse.prepare(DEMO))
    return sample


def test_expression_is_as_published(sample, published):
    table, _ = published
    data = sample_files.read_counts(sample)
    assert data.shape == (49, 1999)
    assert data.obs_names.tolist() == table.obs_names.tolist()
    assert data.var_names.tolist() == table.var_names.tolist()
    np.testing.assert_array_equal(data.X.toarray(), table.X.toarray())
    np.testing.assert_array_equal(data.obsm["spatial"], table.obsm["spatial"])
    assert (sample.species, sample.organ, sample.grid, sample.normalised) == ("Mus musculus", "Brain", "visium", True)


def test_normalised_expression_is_refused_as_counts(sample):
    with pytest.raises(SealError, match="normalised already") as error:
        sample_files.read_counts(replace(sample, normalised=False))
    assert str(sample.st_path) in str(error.value)


def test_array_positions_give_the_neighbours_that_pixels_give(sample, published):
    obs = sample_files.read_counts(sample).obs
    place = obs[["array_row", "array_col"]].to_numpy()
    assert len(np.unique(place, axis=0)) == 49
    assert (place.sum(axis=1) % 2 == 0).all()
    step = np.abs(place[:, None] - place[None])
    on_grid = (step == [0, 2]).all(axis=-1) | (step == [1, 1]).all(axis=-1)
    xy = published[0].obsm["spatial"].astype(float)
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    np.testing.assert_array_equal(on_grid, (distance > 0) & (distance < 180))  # 137 px, the next ring 238
    assert on_grid.sum(axis=1).max() == 6


def test_pixel_size_agrees_with_space_rangers_own(sample, published):
    (library,) = published[0].uns["spatial"].values()
    # Space Ranger's spot diameter stands for 65 um, not for the 55 um of the printed spot
    expected = 65 / library["scalefactors"]["spot_diameter_fullres"]
    assert sample.um_per_px == pytest.approx(expected, rel=0.005)


def test_crops_are_slices_of_the_image(sample, published):
    table, image = published
    side = 154  # px, 112 um
    names = table.obs_names[::-1].tolist()
    (crops,) = sample_files.read_patches(sample, names, side, sample.um_per_px)
    assert not sample.patches_path.exists()
    for crop, (x, y) in zip(crops, table.obsm["spatial"][::-1], strict=True):
        np.testing.assert_array_equal(crop, image[y - 77 : y + 77, x - 77 : x + 77])


def test_crops_at_half_a_micron_show_the_same_tissue(sample, published):
    table, image = published
    (crops,) = sample_files.read_patches(sample, table.obs_names.tolist(), 224, 0.5)
    assert crops.shape == (49, 224, 224, 3)
    x, y = table.obsm["spatial"][0]
    half = 56 / (65 / 89.44476)
    box = image[round(y - half) : round(y + half), round(x - half) : round(x + half)]
    bilinear = np.asarray(Image.fromarray(box).resize((224, 224), Image.Resampling.BILINEAR)).astype(float)
    assert np.corrcoef(crops[0].ravel(), bilinear.ravel())[0, 1] > 0.95
    assert np.corrcoef(crops[1].ravel(), bilinear.ravel())[0, 1] < 0.6


def test_prepare_writes_once(sample):
    files = [sample.st_path, sample.wsi_path, sample.root / "metadata.csv"]
    before = [path.stat().st_mtime_ns for path in files]
    mouse.prepare(DEMO)
    assert [path.stat().st_mtime_ns for path in files] == before


def test_prepare_completes_what_was_deleted(sample):
    sample.st_path.unlink()
    (again,) = read_samples(mouse.prepare(DEMO))
    assert sample_files.read_counts(again).n_obs == 49


def test_another_file_under_the_archives_name(own_home):
    path = paths.downloads() / "squidpy-1.8.2.tar.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"truncated")
    with pytest.raises(SealError, match=re.escape(f"{path} is not the expected file")) as error:
        mouse.prepare(DEMO)
    assert "6c79c95d" in str(error.value)
    assert not paths.samples("mouse").exists()


def test_no_package_index(own_home, monkeypatch):
    message = "WARNING: Retrying\nERROR: No matching distribution found for squidpy==1.8.2\n"
    failed = subprocess.CompletedProcess([], returncode=1, stdout="", stderr=message)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(SealError, match="ERROR: No matching distribution") as error:
        mouse.fetch_archive()
    assert str(paths.downloads()) in error.value.do
    assert not list(paths.downloads().iterdir())
