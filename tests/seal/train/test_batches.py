"""Tokens: kept on disk, held in memory or recomputed, they are the same numbers, and those of the whole encoder."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from seal import paths, profiles
from seal.data.assemble import assemble
from seal.data.augment import augmented
from seal.embed import embed_patches
from seal.errors import SealError
from seal.models import encoders
from seal.models.omics import SealOmics
from seal.models.vision import SealVision
from seal.train import batches, tokens


@pytest.fixture
def pairs(small):
    return assemble(small)


def changed(profile, **compute):
    """The same pairs with other compute settings."""
    return assemble(dataclasses.replace(profile, compute=dataclasses.replace(profile.compute, **compute)))


def test_tokens_equal_the_plain_way(pairs):
    source = batches.build(pairs)
    encoder = encoders.build(pairs.profile.encoder, image_size=56)
    plain = embed_patches(encoder, pairs.patches)
    np.testing.assert_allclose(batches.embed({"": encoder}, source)[""], plain, atol=1e-5)
    rows = np.array([3, 40])
    view = augmented(pairs.patches.read(rows), rows, 1, tokens.AUGMENTATION_SEED)
    with torch.no_grad():
        expected = encoder.trunk(encoder.preprocess(view), 1)
    torch.testing.assert_close(next(iter(source.stream([(np.array([1, 1]), rows)]))), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_where_tokens_are_kept_changes_nothing(small, dtype, precision):
    requests = [(np.array([0, 1, 1]), np.array([5, 0, 47])), (np.array([1]), np.array([12]))]
    found, keys = {}, set()
    for kind in ("disk", "memory", "recompute"):
        source = batches.build(changed(small, tokens=kind, token_dtype=dtype, precision=precision))
        found[kind] = list(source.stream(requests))
        keys.add(source.key)
    assert len(keys) == 1
    whole = torch.float32 if precision == "float32" else torch.bfloat16
    for kind in ("disk", "memory", "recompute"):
        for a, b in zip(found["disk"], found[kind], strict=True):
            assert a.dtype == b.dtype == whole
            if kind == "memory":
                assert torch.equal(a, b)
            else:  # another number of images at a time is another order of additions
                tolerance = 1e-5 if (dtype, precision) == ("float32", "float32") else 0.1
                torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def test_workers_augment_to_the_same_pixels(small, pairs):
    requests = [(np.array([0, 1]), np.array([5, 7])), (np.array([1]), np.array([12]))]
    alone = batches.build(changed(small, tokens="recompute"))
    helped = batches.build(changed(small, tokens="recompute", workers=2))
    for a, b in zip(alone.stream(requests), helped.stream(requests), strict=True):
        assert torch.equal(a, b)


def test_by_size(small, pairs):
    size = batches.gigabytes(pairs)
    file = batches.build(changed(small, tokens="disk")).file
    assert size * 1e9 == pytest.approx(file.rows[:].nbytes * 384 / 48)  # the tiny encoder is narrower than its spec
    for limits, kind in (((1.0, 1.0), "memory"), ((0.0, 1.0), "disk"), ((0.0, 0.0), "recompute")):
        assert batches.choose(changed(small, memory_gb=limits[0], disk_gb=limits[1])) == kind


def test_built_once_and_anew_when_views_change(pairs, small):
    path = batches.build(pairs).file.path
    stamp = path.stat().st_mtime_ns
    assert batches.build(pairs).file.path.stat().st_mtime_ns == stamp
    other = dataclasses.replace(small, vision=profiles.VisionSettings(views=0))
    source = batches.build(assemble(other))
    assert source.file.rows.shape[0] == 1


@pytest.fixture
def cut(small, monkeypatch):
    """The small profile with two further encoders: the same tiny one, read after one and two of its four blocks."""
    build, depth = encoders.build, {"dinov2s_derived_b6": 1, "dinov2s_derived_b9": 2}

    def build_cut(name, **settings):
        encoder = build("dinov2s_derived", **settings)
        encoder.model.blocks = encoder.model.blocks[: depth.get(name, 4)]
        return encoder

    monkeypatch.setattr(encoders, "build", build_cut)
    return assemble(profiles.changed(small, further_encoders=tuple(depth)))


def count_passes(monkeypatch) -> list[int]:
    """How many parts each pass over the patches asks for."""
    passes, several = [], batches.RecomputedTokens.stream_several
    counted = lambda self, requests, after: passes.append(len(requests)) or several(self, requests, after)  # noqa: E731
    monkeypatch.setattr(batches.RecomputedTokens, "stream_several", counted)
    return passes


def test_one_pass_makes_the_tokens_of_all_that_are_cut_from_the_same(cut, monkeypatch):
    own, *further = cut.by_encoder()
    assert [p.profile.encoder for p in further] == ["dinov2s_derived_b6", "dinov2s_derived_b9"]
    assert all(p.further and p.profile.evaluation.seeds == (0,) and not p.profile.further_encoders for p in further)
    shutil.rmtree(paths.tokens("demo", "").parent)
    passes = count_passes(monkeypatch)
    for pairs in (own, *further):
        source = batches.build(pairs)
        (kept,) = source.plain(np.arange(5))
        (alone,) = batches.RecomputedTokens(pairs, source.key).plain(np.arange(5))
        torch.testing.assert_close(kept, alone, atol=1e-5, rtol=1e-5)
        z = batches.embed({"": source.encoder}, source)[""]
        np.testing.assert_allclose(z, embed_patches(source.encoder, pairs.patches), atol=1e-5)
    assert len(passes) == 1 + 3 + 0  # one that writes, and one of each comparison


def test_only_what_is_lacking_is_made_as_deep_as_it_needs(cut, monkeypatch):
    deepest, trunks = [], encoders.VisionEncoder.trunks
    spied = lambda self, x, after: deepest.append(max(after)) or trunks(self, x, after)  # noqa: E731
    monkeypatch.setattr(encoders.VisionEncoder, "trunks", spied)
    batches.build(cut)  # its own tokens are there already
    assert set(deepest) == {1}
    deepest.clear()
    batches.build(cut)
    assert deepest == []


def test_tokens_that_overflow_are_named(small, monkeypatch):
    monkeypatch.setattr(encoders.VisionEncoder, "trunks", lambda self, x, after: [torch.full((len(x), 17, 48), 1e6)])
    with pytest.raises(SealError, match=r"token of .*does not fit float16"):
        batches.build(changed(small, token_dtype="float16"))


def test_several_tails_share_one_pass(pairs, monkeypatch):
    source = batches.build(pairs)
    tails = {"frozen": source.encoder}
    for i in range(2):
        omics = SealOmics(9, source.encoder.dim, profiles.OmicsSettings(hidden=(8,)), torch.zeros(9), torch.ones(9))
        model = SealVision(source.encoder.fork(1), omics, profiles.VisionSettings())
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.1 + i)
        tails[f"seal{i}"] = model.encoder
    alone = {name: batches.embed({name: encoder}, source)[name] for name, encoder in tails.items()}
    passes, plain = [], source.plain
    monkeypatch.setattr(source, "plain", lambda: passes.append(1) or plain())
    together = batches.embed(tails, source)
    assert len(passes) == 1
    for name, z in alone.items():
        np.testing.assert_array_equal(together[name], z)
    assert np.abs(together["seal0"] - together["frozen"]).max() > 0.01


def test_compiled_or_not_is_the_same(small):
    pytest.importorskip("torch._inductor")
    plain = batches.build(changed(small, tokens="recompute"))
    compiled = batches.RecomputedTokens(changed(small, tokens="recompute", compile=True), plain.key)
    request = (np.zeros(4, int), np.arange(4))
    called = []
    real = torch.compile
    with pytest.MonkeyPatch.context() as patch:
        # compiling takes half a minute; what is tested is that the setting is followed
        patch.setattr(torch, "compile", lambda f: called.append(f) or f)
        found, expected = (next(iter(source.stream([request]))) for source in (compiled, plain))
        torch.testing.assert_close(found, expected)
    assert len(called) == 1
    assert torch.compile is real
