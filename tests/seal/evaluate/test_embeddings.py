import h5py
import numpy as np
import pytest
import torch

from seal import profiles
from seal.data.assemble import assemble
from seal.embed import embed_patches
from seal.errors import SealError
from seal.evaluate import embeddings
from seal.models.baselines.colour import colour_statistics
from seal.slides import trident
from seal.train import batches, runs


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.h5")}


@pytest.fixture
def trained(small):
    """Pairs, tokens, and one trained run of the first fold."""
    pairs = assemble(small)
    source, run = batches.build(pairs), runs.Run(pairs, pairs.folds()[0], 0)
    runs.train_runs([run], source)
    return pairs, source, run


def test_pairs_are_embedded_as_trident_has_them(trained):
    pairs, source, run = trained
    store, fold = embeddings.embed_runs(pairs, source, [run]), run.fold.name
    name = f"dinov2s_derived_seal_{fold}_seed0"
    assert store.name("seal", fold, 0) == name
    assert {p.parent.name for _, p in store.files(name)} == {f"features_{name}"}
    assert {p.parent.parent.name for _, p in store.files(name)} == {"5x_56px_0px_overlap"}
    section, path = store.files(name)[1]
    spots = pairs.frame().iloc[12:24]
    coords = trident.read_table(path, "coords")
    np.testing.assert_allclose(coords + 56 / section.um_per_px, spots[["x", "y"]], atol=0.5)
    assert trident.attributes_of(path)["encoder"] == name
    assert h5py.File(path)["features"].dtype == np.float32
    assert trident.read_table(path, "barcodes").astype(str).tolist() == spots["barcode"].tolist()
    assert set(h5py.File(path)) == {"features", "coords", "barcodes", "omics"}


def test_what_is_read_is_what_the_models_say_to_the_bit(trained):
    pairs, source, run = trained
    store, model = embeddings.embed_runs(pairs, source, [run]), runs.train_vision(run, source)
    together = batches.embed({"frozen": source.encoder, "seal": model.encoder}, source)
    np.testing.assert_array_equal(store.read("seal", run.fold.name, 0), together["seal"])
    np.testing.assert_array_equal(store.read("frozen"), together["frozen"])
    with torch.no_grad():
        z_o = model.omics(torch.from_numpy(np.array(pairs.context(run.fold)[: pairs.n_pairs])))
    np.testing.assert_allclose(store.read("seal", run.fold.name, 0, "omics"), z_o, atol=1e-5)
    plain = embed_patches(source.encoder, pairs.patches)
    np.testing.assert_allclose(store.read("frozen"), plain, atol=1e-5)


def test_pairs_are_embedded_once_and_anew_when_the_run_is_another(trained, monkeypatch):
    pairs, source, run = trained
    store = embeddings.embed_runs(pairs, source, [run])
    root = store.files("")[0][1].parents[1]
    before = stamps(root)
    with monkeypatch.context() as patch:
        patch.setattr(batches, "embed_pieces", lambda *_: pytest.fail("embedded again"))
        embeddings.embed_runs(pairs, source, [run])
    assert stamps(root) == before
    old = store.read("seal", run.fold.name, 0)
    shorter = runs.Run(pairs.with_profile(profiles.changed(pairs.profile, vision__epochs=1)), run.fold, 0)
    runs.train_runs([shorter], source)
    embeddings.embed_runs(pairs, source, [shorter])  # under the same name
    changed = {path.parent.name for path, time in stamps(root).items() if before[path] != time}
    assert changed == {f"features_{store.name('seal', run.fold.name, 0)}"}
    assert not np.array_equal(store.read("seal", run.fold.name, 0), old)


def test_controls_are_embeddings_too_and_a_folds_runs_share_a_pass(small, tiny_build, monkeypatch):
    pairs = assemble(small)
    source = batches.build(pairs)
    runs.train_runs(runs.list_compared(pairs), source)
    passes, embed_pieces = [], batches.embed_pieces
    monkeypatch.setattr(batches, "embed_pieces", lambda tails, s: passes.append(len(tails)) or embed_pieces(tails, s))
    store = embeddings.embed_all(pairs, source)
    # SEAL, shuffled and the adapter without expression by two seeds, six baselines, two losses; once the frozen encoder
    assert passes == [15, 14, 14, 14]
    np.testing.assert_array_equal(store.read("colour"), colour_statistics(pairs.patches))
    for seed in (0, 1):
        encoder = tiny_build(small.encoder, weights="random", image_size=56, seed=seed)
        expected = embed_patches(encoder, pairs.patches)
        np.testing.assert_array_equal(store.read("random", seed=seed), expected)
    folders = {path.name for path in store.files("")[0][1].parents[1].iterdir()}
    assert len(folders) == 1 + 1 + 2 + 4 * 14


def test_a_run_that_is_not_trained_is_named(small):
    pairs = assemble(small)
    with pytest.raises(SealError, match=r"seal holds no run of these settings and inputs"):
        embeddings.embed_runs(pairs, batches.build(pairs), [runs.Run(pairs, pairs.folds()[0], 0)])


def test_embeddings_that_are_missing_or_mixed_are_named(trained):
    pairs, source, run = trained
    store, own = embeddings.embed_runs(pairs, source, [run]), ("seal", run.fold.name, 0)
    files = [path for _, path in store.files(store.name(*own))]
    frozen = [path for _, path in store.files(store.name("frozen"))]
    whole = files[1].read_bytes()
    files[1].write_bytes(frozen[1].read_bytes())
    with pytest.raises(SealError, match=rf"{files[1].name} is of another run"):
        store.read(*own)
    with h5py.File(files[0]) as first:
        made = first["features"].attrs["made"]
    trident.write_features(files[1], np.ones((3, 4)), np.ones((3, 2)), "x", attributes={"made": made})
    with pytest.raises(SealError, match=rf"{files[1].name} has 3 rows"):
        store.read(*own)
    files[1].write_bytes(whole[:600])
    with pytest.raises(SealError, match=files[1].name):
        store.read(*own)
    files[1].unlink()
    with pytest.raises(SealError, match=rf"{files[1].name} is missing"):
        store.read(*own)


@pytest.mark.parametrize("sizes", [(48,), (5, 7, 20, 16), (12, 12, 12, 12), (1,) * 48])
def test_pieces_are_cut_where_sections_end(small, sizes):
    pairs = assemble(small)
    rows = np.arange(48.0)[:, None]
    pieces = [{"a": piece, "b": -piece} for piece in np.split(rows, np.cumsum(sizes)[:-1])]
    found = list(embeddings._by_section(pairs, pieces))
    assert [section for section, _ in found] == list(pairs.sections)
    np.testing.assert_array_equal(np.stack([z["a"] for _, z in found]), rows.reshape(4, 12, 1))
    np.testing.assert_array_equal(np.stack([z["b"] for _, z in found]), -rows.reshape(4, 12, 1))
    with pytest.raises(SealError, match="3 embeddings for 48 pairs"):
        list(embeddings._by_section(pairs, [{"a": rows[:3]}]))
