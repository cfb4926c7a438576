"""Counts and patches of a sample, as they were written, as HEST-1k has them, and damaged."""

import re
from dataclasses import replace

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.sparse import csr_matrix

from seal.data import grid, sample_files
from seal.data.samples import read_samples
from seal.errors import SealError
from tests.seal.data.conftest import ROW, counts, pictures, write_sample


def patches(sample, barcodes, size=224, um_per_px=0.5):
    return np.concatenate(list(sample_files.read_patches(sample, barcodes, size, um_per_px)))


# ---- counts ----


def test_counts_come_back_as_written(sample):
    data = sample_files.read_counts(sample)
    np.testing.assert_array_equal(data.X.toarray(), counts().X.toarray())
    assert data.obs_names.tolist() == [f"spot{i}" for i in range(6)]
    np.testing.assert_array_equal(data.obs["pxl_col_in_fullres"], 150 + 100 * np.arange(6))


def test_dense_counts_come_back_sparse(sample):
    data = counts()
    data.X = data.X.toarray()
    data.write_h5ad(sample.st_path)
    np.testing.assert_array_equal(sample_files.read_counts(sample).X.toarray(), counts().X.toarray())


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.95])
def test_truncated_h5ad(sample, kept):
    content = sample.st_path.read_bytes()
    sample.st_path.write_bytes(content[: int(len(content) * kept) if kept < 1 else kept])
    with pytest.raises(SealError, match=re.escape(f"{sample.st_path} cannot be read")):
        sample_files.read_counts(sample)


def test_corrupt_h5ad(sample):
    content = bytearray(sample.st_path.read_bytes())
    content[:4096] = b"\0" * 4096
    sample.st_path.write_bytes(content)
    with pytest.raises(SealError, match=re.escape(f"{sample.st_path} cannot be read")):
        sample_files.read_counts(sample)


def test_missing_h5ad(sample):
    sample.st_path.unlink()
    with pytest.raises(SealError, match=re.escape(str(sample.st_path))):
        sample_files.read_counts(sample)


def bad(data, kind):
    values = data.X.toarray()
    if kind == "nan":
        values[2, 1] = np.nan
    elif kind == "negative":
        values[2, 1] = -3
    elif kind == "fraction":
        values[2, 1] = 1.25
    elif kind == "no place":
        data.obs.loc["spot3", "array_row"] = np.nan
    elif kind == "twice":
        data.obs_names = ["spot0", "spot1", "spot1", "spot3", "spot4", "spot5"]
    elif kind == "between":
        data.obs["array_col"] = 2 * np.arange(6) + [0, 0, 0.5, 0, 0, 0]
    elif kind == "no column":
        del data.obs["array_col"]
    data.X = csr_matrix(values)
    return data[:0].copy() if kind == "no spots" else data


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("nan", "NaN"),
        ("negative", "-3"),
        ("fraction", "1.25"),
        ("no place", "spot3"),
        ("twice", "barcode spot1 occurs twice"),
        ("between", "spot spot2 lies between the places of the grid"),
        ("no column", "array_col"),
        ("no spots", "0 spots"),
    ],
)
def test_bad_counts(sample, kind, named):
    bad(counts(), kind).write_h5ad(sample.st_path)
    with pytest.raises(SealError, match=re.escape(str(sample.st_path))) as error:
        sample_files.read_counts(sample)
    assert named in error.value.what


def test_visium_hd_is_counted_through_and_put_in_its_place(root):
    """HEST-1k numbers the bins that are left; the row below a gap would lie beside other bins."""
    data, kept = counts(11), np.delete(np.arange(12), 5)  # three rows of four bins, one of them empty
    data.obs["array_row"], data.obs["array_col"] = np.divmod(np.arange(11), 4)
    data.obs["pxl_row_in_fullres"], data.obs["pxl_col_in_fullres"] = 90 + 467.5 * np.array(np.divmod(kept, 4))
    row = {"st_technology": "Visium HD", "pixel_size_um_estimated": 128 / 467.5}
    write_sample(root, ROW | row, data, pictures(11), 0.5)
    (sample,) = read_samples(root)
    assert sample.grid == "square"
    obs = sample_files.read_counts(sample).obs
    assert obs["array_row"].tolist() == (kept // 4).tolist()
    assert obs["array_col"].tolist() == (kept % 4).tolist()
    grid.require_places(obs, "square", sample.st_path)
    other = sample_files.read_counts(replace(sample, technology="Spatial Transcriptomics")).obs
    with pytest.raises(SealError, match="touch on the square grid or in the image"):
        grid.require_places(other, "square", sample.st_path)


@pytest.mark.parametrize("kind", [str, float])
def test_places_are_whole_numbers_however_they_are_written(sample, kind):
    data = counts()
    data.obs["array_col"] = data.obs["array_col"].astype(kind)
    data.write_h5ad(sample.st_path)
    obs = sample_files.read_counts(sample).obs
    assert obs["array_col"].dtype == obs["array_row"].dtype == np.int64
    assert obs["array_col"].tolist() == [0, 2, 4, 6, 8, 10]


def test_fractions_pass_where_the_table_says_normalised(sample):
    bad(counts(), "fraction").write_h5ad(sample.st_path)
    data = sample_files.read_counts(replace(sample, normalised=True))
    assert data.X.toarray()[2, 1] == 1.25
    bad(counts(), "nan").write_h5ad(sample.st_path)
    with pytest.raises(SealError, match="NaN"):
        sample_files.read_counts(replace(sample, normalised=True))


# ---- patches ----


def test_patches_come_in_the_order_asked_for(sample):
    names = ["spot4", "spot0", "spot5", "spot2"]
    np.testing.assert_array_equal(patches(sample, names), pictures()[[4, 0, 5, 2]])


def test_patches_come_in_chunks(root):
    write_sample(root, ROW, counts(600), pictures(600, side=8), 14.0)
    (sample,) = read_samples(root)
    order = np.random.default_rng(1).permutation(600)
    chunks = list(sample_files.read_patches(sample, [f"spot{i}" for i in order], 8, 14.0))
    assert [len(chunk) for chunk in chunks] == [*[64] * 9, 24]
    np.testing.assert_array_equal(np.concatenate(chunks), pictures(600, side=8)[order])


def test_patches_of_a_smaller_field_are_the_centre(sample):
    np.testing.assert_array_equal(patches(sample, ["spot1"], size=100)[0], pictures()[1][62:162, 62:162])


def test_patches_are_averaged_when_shrunk(sample):
    (small,) = patches(sample, ["spot3"], size=112, um_per_px=1.0)
    box = pictures()[3].reshape(112, 2, 112, 2, 3).mean(axis=(1, 3))
    assert small.shape == (112, 112, 3)
    # Of noise, Lanczos and the plain mean share 0.89; picking one pixel of four shares 0.5 with the mean.
    assert np.corrcoef(small.ravel(), box.ravel())[0, 1] > 0.8
    assert small.std() < 0.7 * pictures()[3].std()


def test_hests_own_files_lack_the_pixel_size(sample):
    with h5py.File(sample.patches_path, "a") as file:
        del file.attrs["um_per_px"]
    np.testing.assert_array_equal(patches(sample, ["spot2"]), pictures()[[2]])


def test_a_field_wider_than_the_patch(sample):
    with pytest.raises(SealError, match="a field of 224 um") as error:
        patches(sample, ["spot0"], size=224, um_per_px=1.0)
    assert str(sample.patches_path) in str(error.value)


def test_a_barcode_without_patch(sample):
    with pytest.raises(SealError, match=re.escape(f"{sample.patches_path} lacks 1 of 2 spots, first nowhere")):
        patches(sample, ["spot1", "nowhere"])


def test_patch_barcodes(sample):
    assert sorted(sample_files.patch_barcodes(sample)) == [f"spot{i}" for i in range(6)]


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.98])
def test_truncated_patches(sample, kept):
    content = sample.patches_path.read_bytes()
    sample.patches_path.write_bytes(content[: int(len(content) * kept) if kept < 1 else kept])
    for read in (lambda: patches(sample, ["spot5"]), lambda: sample_files.patch_barcodes(sample)):
        with pytest.raises(SealError, match=re.escape(f"{sample.patches_path} cannot be read")):
            read()


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("img", None, "lacks img"),
        ("barcode", None, "lacks barcode"),
        ("img", np.zeros((6, 8, 8), np.uint8), "(6, 8, 8)"),
        ("img", np.zeros((6, 8, 8, 3), np.float32), "float32"),
        ("img", np.zeros((5, 8, 8, 3), np.uint8), "5 patches and 6 barcodes"),
        ("barcode", np.array([[b"spot0"]] * 6), "a barcode occurs twice"),
    ],
)
def test_misshapen_patches(sample, name, value, named):
    with h5py.File(sample.patches_path, "a") as file:
        del file[name]
        if value is not None:
            file[name] = value
    with pytest.raises(SealError, match=re.escape(named)) as error:
        patches(sample, ["spot0"])
    assert str(sample.patches_path) in str(error.value)


# ---- patches cut from the full-resolution image ----


@pytest.fixture
def slide(root):
    """A sample with an image and no patches; what the image shows."""
    pixels = np.random.default_rng(7).integers(0, 256, size=(300, 800, 3), dtype=np.uint8)
    (root / "wsis").mkdir(parents=True)
    tifffile.imwrite(root / "wsis" / "S1.tif", pixels, photometric="rgb", tile=(128, 128), compression="deflate")
    write_sample(root, {**ROW, "pixel_size_um_estimated": 1.12}, counts(), None, 0.5)
    return read_samples(root)[0], pixels


def test_crops_are_slices(slide):
    sample, pixels = slide
    assert sample.has_image
    crops = patches(sample, ["spot5", "spot1"], size=100, um_per_px=1.12)
    np.testing.assert_array_equal(crops[0], pixels[100:200, 600:700])
    np.testing.assert_array_equal(crops[1], pixels[100:200, 200:300])


def test_crops_are_112_um_wide(slide):
    sample, pixels = slide
    (crop,) = patches(sample, ["spot2"], size=224, um_per_px=0.5)  # 100 px of this image
    box = Image.fromarray(pixels[100:200, 300:400]).resize((224, 224), Image.Resampling.BICUBIC)
    assert np.corrcoef(crop.ravel(), np.asarray(box).ravel())[0, 1] > 0.95


def test_only_spots_in_tissue_are_cut(slide):
    sample, _ = slide
    data = counts()
    data.obs["in_tissue"] = [1, 0, 1, 1, 0, 1]
    data.write_h5ad(sample.st_path)
    assert sample_files.patch_barcodes(sample) == ["spot0", "spot2", "spot3", "spot5"]


def test_spot_outside_the_image(slide):
    sample, _ = slide
    data = counts()
    data.obs["pxl_col_in_fullres"] += 4450.0
    data.write_h5ad(sample.st_path)
    with pytest.raises(SealError, match=r"\(5000, 150\) lies outside the image") as error:
        patches(sample, ["spot4", "spot0"])
    assert str(sample.wsi_path) in str(error.value)


def test_spot_that_the_counts_lack(slide):
    sample, _ = slide
    with pytest.raises(SealError, match=re.escape(f"{sample.st_path} lacks 1 of 1 spots, first nowhere")):
        patches(sample, ["nowhere"])


@pytest.mark.parametrize("size", [np.nan, 0.0])
def test_image_without_pixel_size(slide, size):
    sample, _ = slide
    with pytest.raises(SealError, match="sample S1: pixel_size_um_estimated"):
        patches(replace(sample, um_per_px=size), ["spot0"])


def test_neither_patches_nor_image(slide):
    sample, _ = slide
    sample.wsi_path.unlink()
    with pytest.raises(SealError, match="sample S1 has neither"):
        patches(sample, ["spot0"])


def test_a_failed_write_lists_nothing(root):
    class Unwritable:
        def write_h5ad(self, path):
            path.write_bytes(b"half")
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_sample(root, ROW, Unwritable(), None, 0.5)
    assert [p for p in root.rglob("*") if p.is_file()] == []
