"""The table, the samples and their files (`hest` and `sample_files`)."""

import json
import re
from dataclasses import replace

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from scipy.sparse import csr_matrix

from seal import paths, profiles
from seal.data import grid, hest, sample_files
from seal.errors import SealError

ROW = {
    "id": "S1",
    "organ": "Skin",
    "disease_state": "Healthy",
    "oncotree_code": "",
    "species": "Homo sapiens",
    "patient": "007",
    "st_technology": "Visium",
    "spots_under_tissue": 6,
    "pixel_size_um_estimated": 0.5,
    "dataset_title": "A study",
    "license": "CC0",
}


def counts(spots=6, genes=5, seed=0):
    """Spots in a row, 100 px apart, their counts known."""
    random = np.random.default_rng(seed)
    data = anndata.AnnData(csr_matrix(random.poisson(2.0, size=(spots, genes)).astype(np.float32)))
    data.obs_names = [f"spot{i}" for i in range(spots)]
    data.var_names = [f"G{i}" for i in range(genes)]
    data.obs["array_row"], data.obs["array_col"] = 0, 2 * np.arange(spots)
    data.obs["pxl_row_in_fullres"], data.obs["pxl_col_in_fullres"] = 150.0, 150.0 + 100 * np.arange(spots)
    data.obs["in_tissue"] = 1
    data.obsm["spatial"] = data.obs[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()
    return data


def pictures(spots=6, side=224, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(spots, side, side, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "tree"


@pytest.fixture
def sample(root):
    sample_files.write_sample(root, ROW, counts(), pictures(), 0.5)
    return hest.samples(root)[0]


def patches(sample, barcodes, size=224, um_per_px=0.5):
    return np.concatenate(list(sample_files.read_patches(sample, barcodes, size, um_per_px)))


# ---- the table ----


def test_real_table(shared):
    frame = hest.table(shared / "hest" / "HEST_v1_1_0.csv")
    assert len(frame) == 1229
    assert frame["id"].is_unique
    assert frame.loc[frame["st_technology"].eq("Spatial Transcriptomics"), "grid"].eq("square").all()
    assert frame.loc[frame["st_technology"].eq("Visium"), "grid"].eq("visium").all()
    assert frame.loc[frame["st_technology"].eq("Visium HD"), "grid"].eq("square").all()
    assert (frame["grid"] == "square").sum() == 562
    assert not frame["simulated"].any()
    unnamed = frame["patient"].isna()
    assert unnamed.sum() == 835
    assert frame.loc[unnamed, "donor"].str.startswith("study: ").all()
    assert not frame["donor"].isna().any()


def write_table(root, frame):
    root.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(frame).to_csv(root / "metadata.csv", index=False)
    return root / "metadata.csv"


def test_no_table(root):
    root.mkdir()
    with pytest.raises(SealError, match=re.escape(f"{root} holds no metadata table")):
        hest.table(root)


def test_table_without_columns(root):
    row = {k: v for k, v in ROW.items() if k not in ("organ", "patient")}
    path = write_table(root, [row])
    with pytest.raises(SealError, match=re.escape(f"{path} lacks the columns organ, patient")):
        hest.table(root)


def test_table_with_an_id_twice(root):
    path = write_table(root, [ROW, {**ROW, "id": "S2"}, {**ROW, "organ": "Lung"}])
    with pytest.raises(SealError, match=re.escape(f"{path} names S1 twice")):
        hest.table(root)


def test_empty_table(root):
    root.mkdir()
    (root / "metadata.csv").write_text("")
    with pytest.raises(SealError, match=re.escape(f"{root / 'metadata.csv'} cannot be read")):
        hest.table(root)


def test_newest_table_of_several(root):
    write_table(root, [ROW]).rename(root / "HEST_v1_9_0.csv")
    write_table(root, [{**ROW, "id": "S9"}]).rename(root / "HEST_v1_10_0.csv")
    assert hest.table(root)["id"].tolist() == ["S9"]


def test_unknown_donors_of_a_study_are_one(root):
    rows = [{**ROW, "id": f"S{i}", "patient": patient} for i, patient in enumerate(["", "   ", "P1"])]
    write_table(root, [*rows, {**ROW, "id": "S3", "patient": "", "dataset_title": "Another"}])
    donors = hest.table(root).set_index("id")["donor"]
    assert donors["S0"] == donors["S1"]
    assert donors.nunique() == 3
    assert donors["S2"] == "P1"


# ---- samples ----


def test_samples_with_counts_alone_are_listed(root):
    for name in ("S2", "S1"):
        sample_files.write_sample(root, {**ROW, "id": name}, counts(), None, 0.5)
    table = pd.read_csv(root / "metadata.csv", dtype=str)
    write_table(root, pd.concat([table, table.iloc[:1].assign(id="S0")]))
    assert [s.id for s in hest.samples(root)] == ["S1", "S2"]


def test_no_sample_has_counts(root):
    write_table(root, [ROW])
    with pytest.raises(SealError, match=re.escape(f"{root}/st holds no sample")):
        hest.samples(root)


def test_a_samples_facts(sample, root):
    assert (sample.id, sample.organ, sample.donor) == ("S1", "Skin", "007")
    assert (sample.technology, sample.grid, sample.um_per_px) == ("Visium", "visium", 0.5)
    assert (sample.simulated, sample.normalised, sample.has_image, sample.wsi_path) == (False, False, True, None)
    assert json.loads((root / "metadata" / "S1.json").read_text())["organ"] == "Skin"


def test_a_square_grid_follows_from_the_technology(root):
    row = {**ROW, "st_technology": "Spatial Transcriptomics"}
    sample_files.write_sample(root, row, counts(), None, 0.5)
    assert hest.samples(root)[0].grid == "square"
    assert not hest.samples(root)[0].has_image


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_flags_of_one_sample_do_not_reach_the_other(root, order):
    rows = [{**ROW, "id": "A", "normalised": True, "simulated": True, "grid": "square"}, {**ROW, "id": "B"}]
    for i in order:
        sample_files.write_sample(root, rows[i], counts(), None, 0.5)
    first, second = hest.samples(root)
    assert (first.normalised, first.simulated, first.grid) == (True, True, "square")
    assert (second.normalised, second.simulated, second.grid) == (False, False, "visium")


def test_writing_again_replaces_the_row(sample, root):
    sample_files.write_sample(root, {**ROW, "organ": "Lung"}, counts(), None, 0.5)
    (again,) = hest.samples(root)
    assert again.organ == "Lung"
    assert again.donor == "007"
    assert not again.has_image


def test_prepare_says_how_to_get_hest(monkeypatch, tmp_path):
    monkeypatch.setenv("SEAL_HEST", str(tmp_path / "hest"))
    with pytest.raises(SealError, match="holds no HEST-1k samples") as error:
        hest.prepare(profiles.get("maple"))
    assert "huggingface.co/datasets/MahmoodLab/hest" in error.value.do
    assert "python -m seal fetch" in error.value.do
    (tmp_path / "hest" / "st").mkdir(parents=True)
    assert hest.prepare(profiles.get("maple")) == tmp_path / "hest"


def test_hest_lies_with_the_other_samples_by_default():
    assert hest.home() == paths.samples("hest")


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
    sample_files.write_sample(root, ROW | row, data, pictures(11), 0.5)
    (sample,) = hest.samples(root)
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
    sample_files.write_sample(root, ROW, counts(600), pictures(600, side=8), 14.0)
    (sample,) = hest.samples(root)
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
    sample_files.write_sample(root, {**ROW, "pixel_size_um_estimated": 1.12}, counts(), None, 0.5)
    return hest.samples(root)[0], pixels


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
        sample_files.write_sample(root, ROW, Unwritable(), None, 0.5)
    assert [p for p in root.rglob("*") if p.is_file()] == []
