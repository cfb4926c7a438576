"""Counts and patches of a sample, as they were written, as HEST-1k has them, and damaged."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import anndata
import h5py
import numpy as np
import pandas as pd
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
    data.obsm["spatial"] = data.obs[grid.PIXELS].to_numpy()
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


# ---- what is written another way, contradicts itself or lies elsewhere ----


@pytest.mark.parametrize(
    "written",
    [
        [1, 0, 1, 1, 0, 1],
        ["1", "0", "1", "1", "0", "1"],
        ["True", "False", "True", "true", "FALSE ", "yes"],
        [1.0, 0.0, 1.0, 1.0, np.nan, 1.0],
        [True, False, True, True, False, True],
    ],
)
def test_tissue_is_a_truth_value_however_it_is_written(root, written):
    data = counts()
    data.obs["in_tissue"] = written
    write_sample(root, ROW, data, None, 0.5)
    obs = sample_files.read_counts(read_samples(root)[0]).obs
    assert obs["in_tissue"].dtype == bool
    assert obs["in_tissue"].tolist() == [True, False, True, True, False, True]


def test_a_truth_value_that_is_none_is_named(sample):
    data = counts()
    data.obs["in_tissue"] = [1, 0, 2, 1, 0, 1]
    data.write_h5ad(sample.st_path)
    with pytest.raises(SealError, match=re.escape(f"{sample.st_path}: in_tissue is '2'")):
        sample_files.read_counts(sample)


def test_no_position_in_words_is_none(sample):
    data = counts()
    data.obs["pxl_row_in_fullres"] = ["150", "150", "150", "NA", "150", "150"]
    data.write_h5ad(sample.st_path)
    with pytest.raises(SealError, match="spot spot3 has no position"):
        sample_files.read_counts(sample)


def test_rows_and_columns_that_are_swapped_in_one_place_are_named(sample):
    data = counts()
    data.obsm["spatial"] = data.obsm["spatial"][:, ::-1].copy()
    data.write_h5ad(sample.st_path)
    with pytest.raises(SealError, match=r"83% of the spots lie elsewhere in obsm\['spatial'\]"):
        sample_files.read_counts(sample)


def test_positions_in_obsm_alone_are_taken(sample):
    data = counts()
    data.obs = data.obs.drop(columns=grid.PIXELS)
    data.write_h5ad(sample.st_path)
    obs = sample_files.read_counts(sample).obs
    np.testing.assert_array_equal(obs[grid.PIXELS], counts().obsm["spatial"])


def empty(data):
    del data.X


def normalised(data):
    data.X = data.X * 0.3


def zeros(data):
    data.X = data.X * 0


@pytest.mark.parametrize(("spoil", "named"), [(empty, "X is empty"), (normalised, "normalised"), (zeros, "are 0")])
@pytest.mark.parametrize("place", ["layers['counts']", "raw"])
def test_counts_that_lie_elsewhere_are_pointed_to(sample, spoil, named, place):
    data = counts()
    if place == "raw":
        data.raw = data
    else:
        data.layers["scaled"], data.layers["counts"] = data.X * 0.1, data.X
    spoil(data)
    data.write_h5ad(sample.st_path)
    with pytest.raises(SealError, match=named) as error:
        sample_files.read_counts(sample)
    assert f"whole numbers lie in {place}" in error.value.what


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1234\n"
NOT_DAMAGED = {
    "git-lfs": lambda path: path.write_text(POINTER),
    "web page": lambda path: path.write_text("<!DOCTYPE html><html><body>Sign in</body></html>"),
    "gzip": lambda path: path.write_bytes(b"\x1f\x8b" + path.read_bytes()),
    "newer HDF5": lambda path: path.write_bytes(path.read_bytes()[:8] + b"\x09" + path.read_bytes()[9:]),
}


@pytest.mark.parametrize("kind", NOT_DAMAGED)
@pytest.mark.parametrize("part", ["st_path", "patches_path"])
def test_a_file_that_is_not_damaged_is_not_to_be_deleted(sample, kind, part):
    path = getattr(sample, part)
    NOT_DAMAGED[kind](path)
    with pytest.raises(SealError, match=kind) as error:
        sample_files.read_counts(sample) if part == "st_path" else patches(sample, ["spot0"])
    assert str(path) in error.value.what
    assert "delete" not in error.value.do


def test_a_file_of_a_newer_anndata_is_called_that(sample):
    with h5py.File(sample.st_path, "a") as file:
        file["X"].attrs["encoding-version"] = "9.9.9"
    with pytest.raises(SealError, match="newer anndata") as error:
        sample_files.read_counts(sample)
    assert "delete" not in error.value.do


def test_a_missing_plug_in_is_called_that(sample):
    with h5py.File(sample.patches_path, "a") as file:
        del file["img"]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((6, 8, 8, 3))
        properties.set_filter(32_015, h5py.h5z.FLAG_OPTIONAL, ())  # zstandard, which h5py lacks
        space = h5py.h5s.create_simple((6, 8, 8, 3))
        data = h5py.h5d.create(file.id, b"img", h5py.h5t.STD_U8LE, space, properties)
        data.write_direct_chunk((0, 0, 0, 0), bytes(6 * 8 * 8 * 3), 0)
        del file["coords"], file.attrs["um_per_px"]
    with pytest.raises(SealError, match="plug-in") as error:
        patches(sample, ["spot0"], size=8, um_per_px=14.0)
    assert "hdf5plugin" in error.value.do


def test_a_lock_held_elsewhere_is_called_that(sample):
    code = "import h5py, sys; file = h5py.File(sys.argv[1], 'a'); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, sample.patches_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        with pytest.raises(SealError, match="locked by another program") as error:
            patches(sample, ["spot0"])
        holder.communicate(b"\n")
    assert "delete" not in error.value.do


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


def restate(sample, **notes):
    """HEST's attributes with other values, none where all are None; ours are taken away."""
    with h5py.File(sample.patches_path, "a") as file:
        file.attrs.pop("um_per_px", None)
        for part in ("img", "coords"):
            for name in list(file[part].attrs):
                if not notes or notes.get(name, 0) is None:
                    del file[part].attrs[name]
            file[part].attrs.update({name: value for name, value in notes.items() if value is not None})


def test_a_file_that_says_no_scale_is_112_um_wide(sample):
    restate(sample)
    np.testing.assert_array_equal(patches(sample, ["spot2"]), pictures()[[2]])


def test_the_scale_that_a_file_states_is_read(sample):
    """224 px at 0.25 um/px are 56 um: a field of 28 um is the inner half, one of 112 um is not there."""
    restate(sample, downsample=0.5, pixel_size=0.5, patch_size_src=112, patch_size_target=224)
    np.testing.assert_array_equal(patches(sample, ["spot2"], 112, 0.25), pictures()[[2], 56:168, 56:168])
    with pytest.raises(SealError, match="a field of 112 um is 448 px there"):
        patches(sample, ["spot2"])


@pytest.mark.parametrize(
    ("notes", "named"),
    [
        ({"patch_size_target": 256}, "patch_size_target is 256"),
        (
            {"patch_size_src": 448},
            "its um a pixel is 0.5 (pixel_size x downsample) and 1 (pixel_size x patch_size_src)",
        ),
        ({"pixel_size": 0.25, "downsample": 2.0, "patch_size_src": None}, "0.25 um a pixel, in the metadata table 0.5"),
        ({"pixel_size": np.nan}, "its um a pixel is nan"),
        ({"downsample": -1.0}, "its um a pixel is -0.5"),
    ],
)
def test_numbers_of_a_patches_file_that_contradict_each_other(sample, notes, named):
    restate(sample, **notes)
    with pytest.raises(SealError, match=re.escape(named)) as error:
        patches(sample, ["spot2"])
    assert str(sample.patches_path) in error.value.what


def test_our_scale_and_hests_agree_or_are_named(sample):
    with h5py.File(sample.patches_path, "a") as file:
        file.attrs["um_per_px"] = 0.25
    with pytest.raises(SealError, match=re.escape("0.25 (um_per_px) and 0.5 (pixel_size x downsample)")):
        patches(sample, ["spot2"])


def test_patches_are_written_with_hests_attributes_and_upper_left_corners(sample):
    with h5py.File(sample.patches_path) as file:
        np.testing.assert_array_equal(file["coords"], counts().obsm["spatial"] - 112)
        for part in ("img", "coords"):
            notes = {"patch_size_src": 224, "patch_size_target": 224, "downsample": 1.0, "pixel_size": 0.5}
            assert dict(file[part].attrs) == notes


@pytest.mark.parametrize("shift", [112, 0], ids=["centres, as ours were once", "corners"])
def test_coords_of_either_origin_belong_to_their_spots(sample, shift):
    with h5py.File(sample.patches_path, "a") as file:
        file["coords"][...] += shift
    assert len(sample_files.patch_barcodes(sample, sample_files.read_counts(sample).obs)) == 6


def test_patches_cut_elsewhere_than_the_spots_are_named(sample):
    with h5py.File(sample.patches_path, "a") as file:
        file["coords"][...] = file["coords"][:][:, ::-1]
    with pytest.raises(SealError, match=re.escape(f"are not where {sample.st_path} has the spots")) as error:
        sample_files.patch_barcodes(sample, sample_files.read_counts(sample).obs)
    assert str(sample.patches_path) in error.value.what


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
    data.obsm["spatial"] = data.obs[grid.PIXELS].to_numpy()
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


def test_a_tree_with_images_has_what_hests_load_hest_asks_for(slide, root):
    """mahmoodlab/HEST afd42c3, HESTData.py: _read_st, read_HESTData, _verify_format."""
    assert (root / "tissue_seg").is_dir()
    data = anndata.read_h5ad(root / "st" / "S1.h5ad")
    image = data.uns["spatial"]["ST"]["images"]["downscaled_fullres"]
    scales = data.uns["spatial"]["ST"]["scalefactors"]
    assert image.shape == (375, 1000, 3)
    assert scales == {"tissue_downscaled_fullres_scalef": 1.25}
    assert data.obsm["spatial"].shape == (6, 2)
    assert json.loads((root / "metadata" / "S1.json").read_text())["pixel_size_um_estimated"] == 1.12


def test_files_that_macos_adds_are_no_samples(sample, root):
    (root / "metadata" / "._S1.json").write_bytes(b"\0\5\x16\7")
    sample_files.list_samples(root)
    assert pd.read_csv(root / "metadata.csv")["id"].tolist() == ["S1"]


def test_a_failed_write_lists_nothing(root):
    class Unwritable:
        def write_h5ad(self, path):
            path.write_bytes(b"half")
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_sample(root, ROW, Unwritable(), None, 0.5)
    assert [p for p in root.rglob("*") if p.is_file()] == []
