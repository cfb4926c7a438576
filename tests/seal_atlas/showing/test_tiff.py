import numpy as np
import openslide
import pytest
import tifffile
from skimage import data as pictures

from seal.files import sha256
from seal.slides.image import SlideImage
from seal_atlas.showing import tiff


@pytest.fixture(scope="module")
def picture():
    tissue = pictures.immunohistochemistry()
    return np.tile(tissue, (2, 2, 1))[:777, :901]


@pytest.fixture
def path(tmp_path, picture):
    tiff.write_tiff(tmp_path / "a.tif", picture, 0.5, 85)
    return tmp_path / "a.tif"


def test_openslide_finds_levels_and_resolution(path):
    slide = openslide.OpenSlide(str(path))
    assert slide.level_dimensions == ((901, 777), (450, 388), (225, 194))
    assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
    assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.5)
    assert slide.properties["openslide.level[0].tile-width"] == "256"


def test_every_level_reads_alike_in_openslide_and_tifffile(path):
    slide = openslide.OpenSlide(str(path))
    with tifffile.TiffFile(path) as file:
        for level, size in enumerate(slide.level_dimensions):
            region = np.asarray(slide.read_region((0, 0), level, size))
            assert (region[..., 3] == 255).all()
            np.testing.assert_array_equal(region[..., :3], file.pages[level].asarray())


def test_picture_survives_up_to_compression(path, picture):
    back = tifffile.imread(path, key=0)
    assert np.abs(back.astype(int) - picture).mean() < 3
    half = picture[:776, :900].reshape(388, 2, 450, 2, 3).mean(axis=(1, 3))
    smaller = tifffile.imread(path, key=1)
    assert np.abs(smaller - half).mean() < 6  # chroma is kept at half the resolution
    assert abs((smaller - half).mean()) < 0.5


def test_our_reader_takes_it(path):
    assert SlideImage(path).region(300, 300, 224, 224).shape == (224, 224, 3)


def test_no_dark_border_comes_from_the_padding_of_the_last_tiles(tmp_path):
    tiff.write_tiff(tmp_path / "a.tif", np.full((300, 300, 3), 240, np.uint8), 0.5, 70)
    assert tifffile.imread(tmp_path / "a.tif", key=0).min() > 235


def test_same_picture_gives_same_bytes_and_another_quality_others(tmp_path, path, picture):
    tiff.write_tiff(tmp_path / "b.tif", picture, 0.5, 85)
    tiff.write_tiff(tmp_path / "c.tif", picture, 0.5, 50)
    assert sha256(tmp_path / "b.tif") == sha256(path)
    assert (tmp_path / "c.tif").stat().st_size < 0.8 * path.stat().st_size


def test_says_simulated_and_nothing_that_changes(path):
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        assert "SIMULATED" in tags["ImageDescription"].value
        assert not {"DateTime", "Software"} & {tag.name for tag in tags}


def test_small_picture_has_one_level_and_a_strip_ends(tmp_path):
    tiff.write_tiff(tmp_path / "small.tif", np.zeros((40, 60, 3), np.uint8), 0.5, 80)
    assert openslide.OpenSlide(str(tmp_path / "small.tif")).level_count == 1
    tiff.write_tiff(tmp_path / "strip.tif", np.zeros((1, 700, 3), np.uint8), 0.5, 80)
    assert tifffile.imread(tmp_path / "strip.tif", key=0).shape == (1, 700, 3)


def test_nothing_half_written_is_left(tmp_path, monkeypatch, picture):
    def broken(level, quality):
        yield b""
        raise RuntimeError("the encoder stopped")

    monkeypatch.setattr(tiff, "_tiles", broken)
    with pytest.raises(RuntimeError):
        tiff.write_tiff(tmp_path / "wsis" / "bad.tif", picture, 0.5, 80)
    assert list((tmp_path / "wsis").iterdir()) == []
