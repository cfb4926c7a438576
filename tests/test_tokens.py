"""Tokens: trunk and tail equal the whole encoder, views are kept, stale stores are made anew."""

import dataclasses

import numpy as np
import pytest
import torch

from seal import profiles, tokens
from seal.data.assemble import assemble
from seal.data.augment import augmented
from seal.errors import SealError
from seal.models import encoders


@pytest.fixture
def pairs(small):
    return assemble(small)


def test_tokens_equal_the_plain_way(pairs):
    store = tokens.build(pairs)
    encoder = encoders.build(pairs.profile.encoder, image_size=56)
    assert store.views == 1
    fast = tokens.embed_tokens(encoder, store, 1)
    plain = tokens.embed_patches(encoder, pairs.patches, "plain")
    np.testing.assert_allclose(fast, plain, atol=1e-5)
    rows = np.array([3, 40])
    view = augmented(pairs.patches[rows], rows, 1, tokens.AUGMENTATION_SEED)
    with torch.no_grad():
        expected = encoder.trunk(encoder.preprocess(view), 1)
    torch.testing.assert_close(store.batch(np.array([1, 1]), rows), expected, atol=1e-5, rtol=1e-5)


def test_built_once_and_anew_when_views_change(pairs, small):
    store = tokens.build(pairs)
    stamp = (store.folder / "tokens.npy").stat().st_mtime_ns
    assert (tokens.build(pairs).folder / "tokens.npy").stat().st_mtime_ns == stamp
    changed = dataclasses.replace(small, vision=profiles.VisionSettings(views=0))
    assert tokens.build(assemble(changed)).views == 0


def test_half_precision_is_within_its_rounding(pairs, small):
    store = tokens.build(pairs)
    whole = store.batch(np.zeros(48, int), np.arange(48))
    half = dataclasses.replace(small, vision=profiles.VisionSettings(views=1, token_dtype="float16"))
    store = tokens.build(assemble(half))
    assert store.array.dtype == np.float16
    torch.testing.assert_close(store.batch(np.zeros(48, int), np.arange(48)), whole, rtol=1e-3, atol=1e-3)


def test_unknown_dtype(small):
    wrong = dataclasses.replace(small, vision=profiles.VisionSettings(token_dtype="int8"))
    with pytest.raises(SealError, match="'int8'"):
        tokens.build(assemble(wrong))
