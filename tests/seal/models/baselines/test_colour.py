import numpy as np
import pytest

from seal.errors import SealError
from seal.models.baselines.colour import colour_statistics


def test_mean_and_sd_of_each_colour_by_hand():
    patches = np.zeros((2, 2, 2, 3), dtype=np.uint8)
    patches[0, :, :, 0] = 255  # all red
    patches[1, 0, :, 2] = 255  # half of it blue
    expected = [[1, 0, 0, 0, 0, 0], [0, 0, 0.5, 0, 0, 0.5]]
    np.testing.assert_allclose(colour_statistics(patches), expected, atol=1e-7)


def test_many_patches_are_read_in_pieces_from_a_memmap(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (600, 5, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "patches.npy", values)
    statistics = colour_statistics(np.load(tmp_path / "patches.npy", mmap_mode="r"))
    assert statistics.shape == (600, 6)
    assert statistics.dtype == np.float32
    pixels = values.reshape(600, 25, 3).astype(float) / 255
    np.testing.assert_allclose(statistics[:, :3], pixels.sum(1) / 25, atol=1e-6)
    np.testing.assert_allclose(statistics[:, 3:] ** 2, (pixels**2).sum(1) / 25 - (pixels.sum(1) / 25) ** 2, atol=1e-6)


@pytest.mark.parametrize(
    "patches", [np.zeros((2, 4, 4, 3)), np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4, 1), np.uint8)]
)
def test_anything_but_uint8_rgb_is_refused(patches):
    with pytest.raises(SealError, match="uint8"):
        colour_statistics(patches)
