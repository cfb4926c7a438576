"""Augmentation: deterministic a patch, whatever the chunk."""

import numpy as np
import torch

from seal.data.augment import augmented

PATCHES = np.random.default_rng(0).integers(0, 255, (6, 28, 28, 3), dtype=np.uint8)


def test_view_zero_is_the_patch():
    assert (augmented(PATCHES, np.arange(6), 0, 1).numpy() == PATCHES).all()


def test_a_patch_gets_the_same_view_in_any_chunk():
    together = augmented(PATCHES, np.arange(6), 1, 1)
    apart = torch.cat([augmented(PATCHES[[i]], np.array([i]), 1, 1) for i in range(6)])
    assert torch.equal(together, apart)
    assert together.dtype == torch.uint8


def test_views_seeds_and_rows_differ():
    first = augmented(PATCHES[:1], np.array([0]), 1, 1)
    assert not torch.equal(first, augmented(PATCHES[:1], np.array([0]), 2, 1))
    assert not torch.equal(first, augmented(PATCHES[:1], np.array([0]), 1, 2))
    assert not torch.equal(first, augmented(PATCHES[:1], np.array([1]), 1, 1))


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    augmented(PATCHES, np.arange(6), 1, 1)
    assert torch.equal(torch.rand(1), expected)
