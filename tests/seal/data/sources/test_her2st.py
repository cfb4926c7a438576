"""her2st: real sections where they are at hand, small made-up ones for everything that can be wrong."""

import gzip
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import pytest
from PIL import Image

from seal import paths, profiles
from seal.data.sample_files import read_counts, read_patches
from seal.data.samples import read_samples
from seal.data.sources import her2st
from seal.errors import SealError

HER2ST = profiles.get("her2st")
GENES = ["ERBB2", "CD3E", "KRT5"]


@pytest.fixture(scope="session")
def real(shared) -> Path:
    folder = shared / "her2st"
    if not folder.is_dir():
        pytest.skip(f"no real sections in {folder}")
    return folder


def spots(pitch: float = 290) -> pd.DataFrame:
    """A 4 x 4 grid whose rows of x lie `pitch` px apart, y a little wider."""
    x, y = (v.ravel() for v in np.meshgrid(np.arange(4) + 5, np.arange(4) + 9))
    table = pd.DataFrame({"x": x, "y": y, "new_x": x + 0.0123, "new_y": y - 0.0119})
    return table.assign(pixel_x=(x - 4.5) * pitch, pixel_y=(y - 8.5) * (pitch + 2), selected=1)


def counts(table: pd.DataFrame) -> pd.DataFrame:
    names = table["x"].astype(str) + "x" + table["y"].astype(str)
    values = np.random.default_rng(0).poisson(3, (len(table), len(GENES)))
    return pd.DataFrame(values, index=names, columns=GENES)


def write(folder: Path, spot_table: pd.DataFrame, count_table: pd.DataFrame, name: str = "Z1") -> Path:
    for part in ("ST-cnts", "ST-spotfiles", f"ST-imgs/{name[0]}/{name}", "ST-pat"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    count_table.to_csv(folder / "ST-cnts" / f"{name}.tsv.gz", sep="\t")
    spot_table.to_csv(folder / "ST-spotfiles" / f"{name}_selection.tsv", sep="\t", index=False)
    pixels = np.random.default_rng(1).integers(0, 256, (1300, 1200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / f"ST-imgs/{name[0]}/{name}/he.jpg")
    return folder


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """A copy of the data set with one made-up section, which SEAL_HER2ST names."""
    folder = write(tmp_path / "copy", spots(), counts(spots()))
    monkeypatch.setenv("SEAL_HER2ST", str(folder))
    return folder


def only(folder: Path) -> her2st.SectionFiles:
    (section,) = her2st.local_sections(folder)
    return section


def test_a_made_up_section_arrives_as_a_sample(copy):
    (sample,) = read_samples(her2st.prepare(HER2ST))
    assert (sample.id, sample.donor, sample.grid, sample.simulated) == ("HER2ST-Z1", "HER2ST-Z", "square", False)
    assert sample.um_per_px == pytest.approx(200 / 290)
    data, table = read_counts(sample), spots()
    np.testing.assert_array_equal(data.X.toarray(), counts(table).to_numpy())
    assert data.obs["array_col"].tolist() == table["x"].tolist()
    assert data.obs["array_row"].tolist() == table["y"].tolist()
    np.testing.assert_array_equal(data.obsm["spatial"], table[["pixel_x", "pixel_y"]])
    side = round(112 * 290 / 200)
    (patches,) = read_patches(sample, ["5x9", "7x11"], side, 112 / side)
    image = np.asarray(Image.open(copy / "ST-imgs/Z/Z1/he.jpg"))
    for patch, (x, y) in zip(patches, [(145, 146), (725, 730)], strict=True):
        left, top = x - side // 2, y - side // 2
        np.testing.assert_array_equal(patch, image[top : top + side, left : left + side])


def test_rows_are_joined_by_name_and_only_shared_spots_stay(tmp_path):
    table = spots()
    shuffled = counts(table).sample(frac=1, random_state=3)
    extra = pd.DataFrame([[1, 2, 3]], index=["40x40"], columns=GENES)
    data, _ = her2st.read_section(only(write(tmp_path, table.iloc[:-1], pd.concat([shuffled, extra]))))
    assert set(data.obs_names) == set(counts(table).index[:-1])
    np.testing.assert_array_equal(data.X.toarray(), counts(table).loc[data.obs_names].to_numpy())
    assert [f"{c}x{r}" for c, r in data.obs[["array_col", "array_row"]].to_numpy()] == data.obs_names.tolist()


def test_spots_outside_tissue_are_left_out(tmp_path):
    table = spots().assign(selected=[0, 0] + [1] * 14)
    data, _ = her2st.read_section(only(write(tmp_path, table, counts(table))))
    assert data.n_obs == 14


def test_labels_are_joined_to_three_decimals(copy):
    table = spots().iloc[[2, 0]]
    labels = pd.DataFrame({"x": table["new_x"] + 1e-4, "y": table["new_y"] + 1e-4, "label": ["immune", "cancer"]})
    labels.loc[99] = [np.nan, np.nan, "lost"]
    labels.to_csv(copy / "ST-pat" / "Z1_labeled_coordinates.tsv", sep="\t")
    (sample,) = read_samples(her2st.prepare(HER2ST))
    found = read_counts(sample).obs["label"]
    assert found.dropna().to_dict() == {"7x9": "immune", "5x9": "cancer"}


def test_labels_that_match_no_spot_are_no_error(copy):
    labels = pd.DataFrame({"x": [1000.0], "y": [1000.0], "label": ["cancer"]})
    labels.to_csv(copy / "ST-pat" / "Z1_labeled_coordinates.tsv", sep="\t")
    (sample,) = read_samples(her2st.prepare(HER2ST))
    assert read_counts(sample).obs["label"].isna().all()


def test_converting_twice_writes_nothing_and_a_changed_file_is_converted_again(copy):
    root = her2st.prepare(HER2ST)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    her2st.prepare(HER2ST)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    write(copy, spots(), counts(spots()) + 1)
    (sample,) = read_samples(her2st.prepare(HER2ST))
    np.testing.assert_array_equal(read_counts(sample).X.toarray(), counts(spots()).to_numpy() + 1)


def test_sections_that_the_copy_no_longer_has_leave_the_table(copy):
    write(copy, spots(), counts(spots()), "Y2")
    assert [s.id for s in read_samples(her2st.prepare(HER2ST))] == ["HER2ST-Y2", "HER2ST-Z1"]
    (copy / "ST-cnts" / "Y2.tsv.gz").unlink()
    assert [s.id for s in read_samples(her2st.prepare(HER2ST))] == ["HER2ST-Z1"]


def test_without_its_image_a_section_has_expression_only(copy):
    (copy / "ST-imgs/Z/Z1/he.jpg").unlink()
    (sample,) = read_samples(her2st.prepare(HER2ST))
    assert not sample.has_image
    assert read_counts(sample).n_obs == 16


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["ST-cnts/Z1.tsv.gz", "ST-imgs/Z/Z1/he.jpg"])
def test_a_truncated_file_is_named_and_leaves_no_sample(copy, name):
    halve(copy / name)
    with pytest.raises(SealError) as caught:
        her2st.prepare(HER2ST)
    assert str(copy / name) in caught.value.what
    assert [path for path in paths.samples("her2st").rglob("*") if path.is_file()] == []


def changed(table: pd.DataFrame, value: float) -> pd.DataFrame:
    return table.astype(float).where(lambda t: ~((t.index == "6x9")[:, None] & (t.columns == "CD3E")), value)


BAD = {
    "counts and spots disagree": (spots(), counts(spots()).rename(lambda n: f"9{n}"), "share 0 spots of 16 and 16"),
    "less than half is shared": (spots().iloc[:7], counts(spots()), "share 7 spots of 16 and 7"),
    "spot twice in counts": (spots(), counts(spots()).rename({"6x9": "5x9"}), "spot 5x9 twice"),
    "spot twice in spots": (spots().replace({"x": {6: 5}}), counts(spots()), "spot 5x9 twice"),
    "no spots": (spots(), counts(spots()).iloc[:0], "0 spots and 3 genes"),
    "no genes": (spots(), counts(spots())[[]], "16 spots and 0 genes"),
    "column missing": (spots().drop(columns=["pixel_x", "selected"]), counts(spots()), "pixel_x, selected"),
    "nothing selected": (spots().assign(selected=0), counts(spots()), "share 0 spots"),
    "no neighbours": (spots().iloc[[0, 2, 8, 10]], counts(spots().iloc[[0, 2, 8, 10]]), "next to each other"),
    "NaN": (spots(), changed(counts(spots()), np.nan), "NaN"),
    "negative": (spots(), changed(counts(spots()), -2), "-2.0"),
    "fraction": (spots(), changed(counts(spots()), 0.25), "0.25"),
    "outside the image": (spots(400), counts(spots(400)), "(1400, 201)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_named(copy, case):
    spot_table, count_table, message = BAD[case]
    write(copy, spot_table, count_table)
    with pytest.raises(SealError) as caught:
        her2st.prepare(HER2ST)
    assert message in caught.value.what
    assert str(copy) in caught.value.what
    assert [path for path in paths.samples("her2st").rglob("*") if path.is_file()] == []


def test_text_among_the_counts_is_named(copy):
    path = copy / "ST-cnts" / "Z1.tsv.gz"
    text = gzip.decompress(path.read_bytes()).decode().splitlines()
    path.write_bytes(gzip.compress("\n".join([*text[:-1], "8x12\tone\t2\t3"]).encode()))
    with pytest.raises(SealError, match=r"Z1\.tsv\.gz"):
        her2st.prepare(HER2ST)


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_wrong_folder_is_named(tmp_path, monkeypatch, name):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("SEAL_HER2ST", str(tmp_path / name))
    with pytest.raises(SealError, match=name) as caught:
        her2st.prepare(HER2ST)
    assert "her2st" in caught.value.expected + caught.value.do


@pytest.fixture
def archive(copy, tmp_path, monkeypatch) -> Path:
    """The made-up copy as the repository's archive, in a home that shares no downloads."""
    monkeypatch.delenv("SEAL_HER2ST")
    monkeypatch.setenv("SEAL_HOME", str(tmp_path / "own"))
    path = tmp_path / "her2st.zip"
    with zipfile.ZipFile(path, "w") as file:
        for member in copy.rglob("*"):
            file.write(member, f"her2st-{her2st.COMMIT}/data/{member.relative_to(copy)}")
        file.writestr(f"her2st-{her2st.COMMIT}/README.md", "not wanted")
        file.writestr(f"her2st-{her2st.COMMIT}/data/ST-cnts/../../../slipped.txt", "out of the folder")
        file.writestr(f"/{tmp_path}/data/ST-cnts/slipped.txt", "out of the folder")
    monkeypatch.setattr(pooch, "retrieve", lambda *args, **kwargs: str(path))
    return path


def test_the_archive_is_unpacked_and_nothing_slips_out(archive, copy, tmp_path):
    before = {path for path in tmp_path.rglob("*") if "own" not in path.parts}
    (sample,) = read_samples(her2st.prepare(HER2ST))
    assert read_counts(sample).n_obs == 16
    assert sample.has_image
    assert {path for path in tmp_path.rglob("*") if "own" not in path.parts} == before
    unpacked = paths.downloads() / "her2st"
    files = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert files == {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    archive.unlink()
    assert her2st.fetch() == unpacked


def test_a_file_with_another_hash_is_named_and_nothing_is_kept(archive, monkeypatch):
    monkeypatch.setattr(her2st, "known_hashes", lambda: {"ST-cnts/Z1.tsv.gz": 64 * "0"})
    with pytest.raises(SealError, match=r"ST-cnts/Z1\.tsv\.gz has another SHA-256"):
        her2st.fetch()
    assert not archive.exists()
    assert list(paths.downloads().iterdir()) == []


def test_a_truncated_archive_is_named_and_deleted(archive):
    halve(archive)
    with pytest.raises(SealError, match=r"her2st\.zip"):
        her2st.fetch()
    assert not archive.exists()
    assert not (paths.downloads() / "her2st").exists()


def test_an_archive_of_something_else_is_named(archive):
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("other/data/notes.txt", "nothing of ours")
    with pytest.raises(SealError, match="nothing in it is of her2st"):
        her2st.fetch()


def test_without_network_the_error_says_how_to_go_on(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("unreachable")

    monkeypatch.setenv("SEAL_HOME", str(tmp_path))
    monkeypatch.setattr(pooch, "retrieve", refuse)
    with pytest.raises(SealError, match=r"github\.com") as caught:
        her2st.fetch()
    assert "SEAL_HER2ST" in caught.value.do


def test_real_files_are_those_we_know(real):
    known = her2st.known_hashes()
    files = [path for path in real.rglob("*") if path.is_file()]
    assert len(files) == len(known)
    for path in files[::7]:
        assert known[str(path.relative_to(real))] == pooch.file_hash(path)


@pytest.mark.slow
def test_real_section_b4(real, tmp_path, monkeypatch):
    for name in ("ST-cnts/B4.tsv.gz", "ST-spotfiles/B4_selection.tsv", "ST-imgs/B/B4/BT10737_D2_HE.jpg"):
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(real / name, tmp_path / "copy" / name)
    monkeypatch.setenv("SEAL_HER2ST", str(tmp_path / "copy"))
    root = her2st.prepare(HER2ST)
    (sample,) = read_samples(root)
    data = read_counts(sample)
    assert sample.um_per_px == pytest.approx(0.69, abs=0.01)
    assert np.median(data.X.toarray().sum(axis=1)) == pytest.approx(648, abs=5)
    table = pd.read_csv(real / "ST-spotfiles/B4_selection.tsv", sep="\t")
    names = {f"{x}x{y}": xy for x, y, *xy in table[["x", "y", "pixel_x", "pixel_y"]].itertuples(index=False)}
    assert set(data.obs_names) <= set(names)
    np.testing.assert_allclose(data.obsm["spatial"], [names[name] for name in data.obs_names])
    image = np.asarray(Image.open(real / "ST-imgs/B/B4/BT10737_D2_HE.jpg"))
    side = round(112 / sample.um_per_px)
    (patches,) = read_patches(sample, data.obs_names[:3].tolist(), side, 112 / side)
    for patch, (x, y) in zip(patches, data.obsm["spatial"], strict=False):
        left, top = round(x - side / 2), round(y - side / 2)
        np.testing.assert_array_equal(patch, image[top : top + side, left : left + side])
    row = json.loads((root / "metadata" / "HER2ST-B4.json").read_text())
    assert (row["license"], row["simulated"], row["patient"]) == ("CC BY 4.0", False, "HER2ST-B")


def test_real_labels_of_b1(real):
    (section,) = [s for s in her2st.local_sections(real) if s.name == "B1"]
    data, um_per_px = her2st.read_section(section)
    assert um_per_px == pytest.approx(0.69, abs=0.02)
    labels = data.obs["label"].dropna()
    table = pd.read_csv(real / "ST-pat" / "B1_labeled_coordinates.tsv", sep="\t")
    assert len(labels) >= 0.95 * data.n_obs
    assert set(labels) <= set(table["label"].dropna())
    lost = table["label"].value_counts() - labels.value_counts()
    assert lost.abs().sum() <= 5


def test_real_sections_are_32_of_8_patients(real):
    sections = her2st.local_sections(real)
    assert len(sections) == 32
    assert len({section.donor for section in sections}) == 8
    assert [s.name for s in sections if s.image] == ["B4", "C2", "C3", "C4"]
    assert len([s for s in sections if s.labels]) == 7


@pytest.mark.parametrize("value", [np.nan, "9a"])
@pytest.mark.parametrize("column", ["x", "pixel_x", "new_y", "selected"])
def test_a_spot_without_a_readable_position_is_named(copy, column, value):
    table = spots().astype({column: object})
    table.loc[4, column] = value
    write(copy, table, counts(spots()))
    with pytest.raises(SealError, match=rf"Z1_selection\.tsv: {column} is .* in row 5") as caught:
        her2st.prepare(HER2ST)
    assert str(value) in caught.value.what
    assert [path for path in paths.samples("her2st").rglob("*") if path.is_file()] == []


def test_a_spot_file_cut_within_a_line_is_named(copy):
    path = copy / "ST-spotfiles" / "Z1_selection.tsv"
    text = path.read_text()
    path.write_text(text[: text.rindex("\t")])
    with pytest.raises(SealError, match=r"Z1_selection\.tsv: selected is nan in row 16"):
        her2st.prepare(HER2ST)


def test_labels_at_unreadable_positions_are_named(copy):
    labels = pd.DataFrame({"x": ["left"], "y": [1.0], "label": ["cancer"]})
    labels.to_csv(copy / "ST-pat" / "Z1_labeled_coordinates.tsv", sep="\t")
    with pytest.raises(SealError, match=r"Z1_labeled_coordinates\.tsv: x is left"):
        her2st.prepare(HER2ST)


def test_positions_on_the_grid_are_whole_numbers(copy):
    (sample,) = read_samples(her2st.prepare(HER2ST))
    assert [read_counts(sample).obs[name].dtype.kind for name in ("array_row", "array_col")] == ["i", "i"]


@pytest.mark.parametrize("name", ["patches/HER2ST-Z1.h5", "st/HER2ST-Z1.h5ad"])
def test_a_deleted_file_is_made_again(copy, name):
    root = her2st.prepare(HER2ST)
    (root / name).unlink()
    (sample,) = read_samples(her2st.prepare(HER2ST))
    assert sample.has_image
    assert read_counts(sample).n_obs == 16
