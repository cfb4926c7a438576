import hashlib

import numpy as np
import pytest
from skimage import data as pictures
from skimage.color import deltaE_ciede2000, rgb2lab

from seal.errors import SealError
from seal_atlas import tables
from seal_atlas.showing import scanners

MODELS = ("S1", "S2", "S3", "S4", "S5")


def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def light():
    tissue = pictures.immunohistochemistry()[:300, :401].astype(np.uint32)
    return (tissue * 65535 // 255).astype(np.uint16)


@pytest.fixture(scope="module")
def scans(light):
    return {name: scanners.scan_light(light, name, rng()) for name in MODELS}


def test_five_models_that_name_no_product():
    assert tuple(scanners.scanners()) == MODELS
    assert {site.scanner for site in tables.sites().values()} <= set(MODELS)
    words = " ".join(model.description for model in scanners.scanners().values()).lower()
    assert not any(name in words for name in ("aperio", "hamamatsu", "leica", "philips", "3dhistech"))


@pytest.mark.parametrize("name", MODELS)
def test_picture_keeps_its_size_whatever_the_sensor(scans, light, name):
    assert scans[name].shape == light.shape
    assert scans[name].dtype == np.uint8


# A pattern that no random generator enters, so that the hash holds whatever numpy draws.
def pattern():
    y, x, c = np.meshgrid(np.arange(97), np.arange(131), np.arange(3), indexing="ij")
    return ((x * 7919 + y * 104729 + c * 1299709 + x * y * 31) % 65536).astype(np.uint16)


class Still:
    """A generator without noise."""

    def standard_normal(self, n):
        return np.zeros(n)

    def integers(self, low, high, size):
        return np.zeros(size, dtype=np.int64)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("S1", "ce7f7a82d7a2ce0c"),
        ("S2", "ccae5fdd3c403fd0"),
        ("S3", "2e09fc63cdd36009"),
        ("S4", "5b125a6d338002e6"),
        ("S5", "9036d65113980b38"),
    ],
)
def test_same_bytes_on_any_cpu(name, digest):
    picture = scanners.scan_light(pattern(), name, Still())
    assert hashlib.sha256(picture.tobytes()).hexdigest()[:16] == digest


def test_noise_is_the_only_thing_drawn(light):
    first, second = (scanners.scan_light(light, "S5", np.random.default_rng(seed)) for seed in (1, 2))
    np.testing.assert_array_equal(first, scanners.scan_light(light, "S5", np.random.default_rng(1)))
    difference = first.astype(float) - second
    assert 0.5 < difference.std() / np.sqrt(2) / scanners.find_scanner("S5").noise < 1.5
    assert abs(difference.mean()) < 0.2


@pytest.mark.parametrize("name", MODELS)
def test_empty_glass_has_the_white_of_the_table(name):
    glass = scanners.scan_light(np.full((80, 80, 3), 65535, np.uint16), name, rng())
    np.testing.assert_allclose(glass.mean(axis=(0, 1)), scanners.find_scanner(name).white, atol=0.6)


@pytest.mark.parametrize("name", MODELS)
def test_more_light_is_never_darker(name):
    grey = np.repeat(np.linspace(0, 65535, 64).astype(np.uint16), 24)[None, :, None].repeat(40, 0).repeat(3, 2)
    values = scanners.scan_light(grey, name, Still())[20].astype(int)[12::24]
    assert (np.diff(values, axis=0) >= 0).all()
    assert (values[-1] - values[0] > 180).all()


def test_differences_are_visible_yet_those_between_real_scanners(scans):
    labs = {name: rgb2lab(picture) for name, picture in scans.items()}
    pairs = [(a, b) for a in MODELS for b in MODELS if a < b]
    away = [deltaE_ciede2000(labs[a], labs[b]).mean() for a, b in pairs]
    assert min(away) > 1.5  # calibrated scanners of one model differ by about 1
    assert max(away) < 13  # uncalibrated ones by about 10


def test_sharpness_differs_as_the_table_says(light):
    edge = np.full((60, 60, 3), 20000, np.uint16)
    edge[:, 30:] = 50000
    steep = {}
    for name in MODELS:
        line = scanners.scan_light(edge, name, Still())[30, :, 1].astype(int)
        steep[name] = np.abs(np.diff(line)).max() / (line[-5] - line[4])
    assert steep["S3"] < steep["S5"] < steep["S1"] < steep["S4"]


def test_light_without_strides_of_its_own_is_taken(light):
    np.testing.assert_array_equal(
        scanners.scan_light(light[::2, ::2], "S1", rng()), scanners.scan_light(light[::2, ::2].copy(), "S1", rng())
    )


def test_unknown_scanner_is_named():
    with pytest.raises(SealError, match="unknown scanner 'S9'"):
        scanners.find_scanner("S9")


@pytest.mark.parametrize(("column", "value"), [("rr", "0.5"), ("quality", "0"), ("black", "250")])
def test_table_with_impossible_values_is_refused(tmp_path, monkeypatch, column, value):
    lines = (tables.FOLDER / "scanners.csv").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("scanner"))
    head, row = ([v.strip() for v in lines[start + k].split(",")] for k in (0, 1))
    row[head.index(column)] = value
    (tmp_path / "scanners.csv").write_text(",".join(head) + "\n" + ",".join(row) + "\n")
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    with pytest.raises(SealError, match="scanner S1 has values"):
        scanners.scanners.__wrapped__()
