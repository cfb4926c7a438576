"""Both stages on disk: trained once, read back to the bit, strict about what is loaded, merged exactly."""

import dataclasses
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from seal import paths, profiles
from seal.data.assemble import assemble
from seal.errors import SealError
from seal.export import save as dropin
from seal.files import read_json
from seal.models import encoders
from seal.train import batches, loop, runs


@pytest.fixture
def way(small):
    pairs = assemble(small)
    return pairs, pairs.folds()[0], batches.build(pairs)


def embed(model, pairs):
    with torch.no_grad():
        return model.encoder(model.encoder.preprocess(pairs.patches[:6]))


def test_a_run_is_trained_once_and_read_back_to_the_bit(way, monkeypatch):
    pairs, fold, store = way
    trained = runs.train_vision(runs.Run(pairs, fold, 0), store)
    folder = runs.Run(pairs, fold, 0, "seal").folder
    assert {p.name for p in folder.iterdir()} == {
        *("adapter", "vision.safetensors", "omics.safetensors", "panel.json", "log.json", "run.json")
    }
    monkeypatch.setattr(runs, "fit", lambda *_: pytest.fail("trained again"))
    read = runs.train_vision(runs.Run(pairs, fold, 0), store)
    assert trained.state_dict().keys() == read.state_dict().keys()
    assert all(torch.equal(v, read.state_dict()[k]) for k, v in trained.state_dict().items())
    log = runs.Run(pairs, fold, 0).read_log()
    assert set(log[0]) == {"epoch", "step", "lr", "info", "rec_omics", "rec_vision", "total"}


def test_objects_show_themselves_in_a_few_lines_and_where_the_data_are_from(way):
    pretty = pytest.importorskip("IPython.lib.pretty").pretty
    pairs, fold, store = way
    run = runs.Run(pairs, fold, 0)
    assert pretty(run).endswith("\nnot there yet")
    model = runs.train_vision(run, store)
    for thing in (pairs.profile, pairs, fold, run, model.omics, model.encoder, model):
        assert pretty(thing) == str(thing)
        assert 2 <= len(str(thing).splitlines()) <= 4
        assert len(repr(thing)) > len(str(thing)), "repr is complete"
    assert all(pairs.profile.label in str(thing) for thing in (pairs.profile, pairs, run))
    assert str(run).endswith("\nfinished")
    trained = sum(p.numel() for p in model.encoder.parameters() if p.requires_grad)
    assert f"{trained:,} of them train" in str(model)
    assert f"{pairs.n_pairs:,} pairs" in str(pairs)


def test_without_warm_up_stage_two_starts_from_random_weights(way):
    """As the release's configuration has it: stage 1 is there, untrained, and has no curve."""
    pairs, fold, store = way
    pairs = pairs.with_profile(profiles.changed(pairs.profile, omics__epochs=0))
    run = runs.Run(pairs, fold, 0)
    runs.train_vision(run, store)
    assert run.stage_1.read_log() == []
    omics = runs.train_omics(run, store.encoder.dim)
    assert torch.equal(omics.encoder[1].running_mean, torch.zeros(16))
    assert set(runs.tabulate_training(pairs)["stage"]) == {"vision"}


def test_only_adapters_decoder_and_omics_train(way):
    pairs, fold, store = way
    model = runs.train_vision(runs.Run(pairs, fold, 0), store)
    base = encoders.build(pairs.profile.encoder, image_size=56).model.state_dict()
    merged = dropin.merged_state(model)
    changed = {name for name, value in merged.items() if not torch.equal(value, base[name])}
    assert changed == {f"{target}.weight" for target in encoders.build("dinov2_s", image_size=56).lora_targets(1)}


def test_stage_two_losses_equal_training_on_the_whole_encoder(way):
    """The fast way (tokens, tail) against the plain way (pixels, whole encoder): same losses, same gradients."""
    pairs, fold, store = way
    model = runs.train_vision(runs.Run(pairs, fold, 0), store).eval()
    rows = fold.train[:8]
    x = torch.from_numpy(np.array(pairs.context(fold)[rows]))

    def gradients(terms):
        model.zero_grad(set_to_none=True)
        terms["total"].backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    fast_terms = model.objective(model.embed(next(store.plain(rows))), x)
    fast = gradients(fast_terms)
    images = model.encoder.preprocess(pairs.patches.read(rows))
    plain_terms = model.objective(model.encoder(images), x)
    plain = gradients(plain_terms)
    for name, value in fast_terms.items():
        torch.testing.assert_close(value, plain_terms[name], atol=1e-5, rtol=1e-5)
    assert fast.keys() == plain.keys()
    assert sum("lora" in name for name in fast) == 8
    for name, value in fast.items():
        torch.testing.assert_close(value, plain[name], atol=1e-5, rtol=1e-3)


def test_shuffled_pairs_keep_no_partner_and_use_each_once(way):
    pairs, fold, _ = way
    partners = runs._partners(runs.Run(pairs, fold, 0, "seal_shuffled"))
    assert sorted(partners) == sorted(fold.train)
    assert not (partners == fold.train).any()
    assert not (partners == runs._partners(runs.Run(pairs, fold, 1, "seal_shuffled"))).all()
    assert (runs._partners(runs.Run(pairs, fold, 0)) == fold.train).all()


def test_other_settings_have_a_folder_of_their_own(way, small):
    pairs, fold, _ = way
    runs.train_omics(runs.Run(pairs, fold, 0), 8)
    folder = runs.Run(pairs, fold, 0, "omics").folder
    before = (folder / "run.json").read_text()
    longer = assemble(dataclasses.replace(small, omics=dataclasses.replace(small.omics, epochs=3)))
    runs.train_omics(runs.Run(longer, fold, 0), 8)
    other = runs.Run(longer, fold, 0, "omics").folder
    assert (folder / "run.json").read_text() == before
    assert other != folder
    assert read_json(other / "run.json")["epochs"] == 3


def test_changed_inputs_train_anew_and_the_old_run_stays_until_then(way, monkeypatch, capsys):
    pairs, fold, _ = way
    runs.train_omics(runs.Run(pairs, fold, 0), 8)
    folder = runs.Run(pairs, fold, 0, "omics").folder
    before = (folder / "omics.safetensors").read_bytes()
    fewer = dataclasses.replace(fold, omics=fold.omics[1:])
    finish = runs.finish

    def dying(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "finish", dying)
    with pytest.raises(KeyboardInterrupt):
        runs.train_omics(runs.Run(pairs, fewer, 0), 8)
    assert "made anew, for these have changed: rows" in capsys.readouterr().err
    assert (folder / "omics.safetensors").read_bytes() == before
    monkeypatch.setattr(runs, "finish", finish)
    runs.train_omics(runs.Run(pairs, fewer, 0), 8)
    assert (folder / "omics.safetensors").read_bytes() != before
    assert {path.name for path in folder.parent.iterdir()} == {"omics", ".omics.lock"}


def test_a_run_of_another_version_is_kept_or_made_anew_as_the_user_says(way, monkeypatch):
    pairs, fold, _ = way
    runs.train_omics(runs.Run(pairs, fold, 0), 8)
    monkeypatch.setattr(runs, "VERSION", runs.VERSION + 1)
    monkeypatch.setattr(runs, "fit", lambda *_: pytest.fail("trained again"))
    with pytest.raises(SealError, match=rf"SEAL-omics in .* made by version {runs.VERSION - 1}"):
        runs.train_omics(runs.Run(pairs, fold, 0), 8)
    monkeypatch.setenv("SEAL_OLD", "keep")
    runs.train_omics(runs.Run(pairs, fold, 0), 8)
    monkeypatch.setenv("SEAL_OLD", "anew")
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        runs.train_omics(runs.Run(pairs, fold, 0), 8)


def test_wrong_or_damaged_weights_are_named(way):
    pairs, fold, store = way
    runs.train_vision(runs.Run(pairs, fold, 0), store)
    folder = runs.Run(pairs, fold, 0, "seal").folder
    adapter = folder / "adapter" / "adapter_model.safetensors"
    whole = adapter.read_bytes()
    adapter.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SealError, match=r"adapter_model\.safetensors cannot be read"):
        runs.train_vision(runs.Run(pairs, fold, 0), store)
    adapter.write_bytes(whole)
    vision = folder / "vision.safetensors"
    vision.write_bytes((folder / "omics.safetensors").read_bytes())
    with pytest.raises(SealError, match=r"vision\.safetensors does not fit SealVision"):
        runs.train_vision(runs.Run(pairs, fold, 0), store)


def test_an_adapter_of_another_encoder_is_refused(way):
    pairs, fold, store = way
    runs.train_vision(runs.Run(pairs, fold, 0), store)
    adapter = runs.Run(pairs, fold, 0, "seal").folder / "adapter" / "adapter_model.safetensors"
    state = load_file(adapter)
    runs._save_tensors(adapter, {k.replace("blocks.3", "blocks.2"): v for k, v in state.items()})
    with pytest.raises(SealError, match="does not fit the adapter of this encoder"):
        runs.train_vision(runs.Run(pairs, fold, 0), store)


def test_a_stage_two_run_that_is_stopped_resumes_to_the_same_bits(way, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    pairs, fold, store = way
    whole = runs.train_vision(runs.Run(pairs, fold, 1), store)
    folder = runs.Run(pairs, fold, 1, "seal").folder
    (folder / "run.json").unlink()
    save, saved = loop._save, []

    def dying(*args):
        save(*args)
        saved.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_save", dying)
    with pytest.raises(KeyboardInterrupt):
        runs.train_vision(runs.Run(pairs, fold, 1), store)
    monkeypatch.setattr(loop, "_save", save)
    resumed = runs.train_vision(runs.Run(pairs, fold, 1), store)
    assert len(saved) == 1
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())


@pytest.mark.parametrize("stage", ["omics", "seal"])
def test_a_model_with_its_genes_in_another_order_is_refused(way, stage):
    """The file is whole and its hash is right; only the order is another."""
    pairs, fold, store = way
    runs.train_vision(runs.Run(pairs, fold, 0), store)
    panel = pairs.panel(fold)
    swapped = (panel.genes[1], panel.genes[0], *panel.genes[2:])
    folder = runs.Run(pairs, fold, 0, stage).folder
    dataclasses.replace(panel, genes=swapped).save(folder / "panel.json")
    with pytest.raises(SealError, match=f"{stage} differs at position 0: {panel.genes[1]}.*another order"):
        runs.train_vision(runs.Run(pairs, fold, 0), store)


def test_unknown_method(way):
    with pytest.raises(SealError, match="'seals'"):
        runs.train_vision(runs.Run(*way[:2], 0, "seals"), way[2])


@pytest.mark.slow
def test_training_and_embedding_need_no_notebook_package(small):
    """A GPU node holds torch, timm, peft, h5py, safetensors and what they bring; nothing else may be imported."""
    code = f"""
import sys

BLOCKED = {{"pandas", "scipy", "sklearn", "scanpy", "squidpy", "anndata", "umap", "matplotlib", "seaborn", "pyarrow",
           "onnx", "openslide", "tifffile", "papermill", "nbformat", "IPython", "pooch", "jaxtyping", "beartype"}}

sys.modules.update(dict.fromkeys(BLOCKED))  # as if not installed
from seal import profiles
from seal.data.pairs import read
from seal.models import encoders
from seal.train import batches, runs

build = encoders.build
encoders.build = lambda name, image_size=None, **_: build(
    name, weights="random", image_size=image_size, tiny=True, seed=1
)
profile = eval({repr(small)!r}, vars(profiles))
pairs = read(profile)
store = batches.build(pairs)
model = runs.train_vision(runs.Run(pairs, pairs.folds()[0], 5), store)
print(batches.embed({{"seal": model.encoder}}, store)["seal"].shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[-2] == "(48, 48)"


# --- what a run says it is -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [np.int64(0), np.uint8(0), np.array(0)])
def test_numpys_seed_is_the_same_run_and_the_same_model(way, seed, monkeypatch):
    pairs, fold, _ = way
    plain = runs.train_omics(runs.Run(pairs, fold, 0), 8)
    run = runs.Run(pairs, fold, seed)
    assert type(run.seed) is int
    assert run.folder == runs.Run(pairs, fold, 0).folder
    with monkeypatch.context() as patch:
        patch.setattr(runs, "fit", lambda *_: pytest.fail("trained again"))
        runs.train_omics(run, 8)
    shutil.rmtree(run.stage_1.folder)
    again = runs.train_omics(run, 8)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("seed", ["0", 0.0, True, -1, None, np.float64(0)])
def test_what_is_no_seed_is_refused_before_anything_is_trained(way, seed):
    with pytest.raises(SealError, match="seed is") as caught:
        runs.Run(*way[:2], seed)
    assert caught.value.what == f"seed is {seed!r}"


def test_an_unknown_method_is_asked_for_before_anything_is_trained(way):
    with pytest.raises(SealError, match="unknown method 'sael'") as caught:
        runs.Run(*way[:2], 0, "sael")
    assert caught.value.do == "did you mean 'seal'?"
    with pytest.raises(SealError, match="unknown method 's'"):
        runs.list_runs(way[0], "seal")


def test_ranks_4_and_16_are_two_runs(way, small):
    """The second does not touch the first, and each is read back as what it is."""
    pairs, fold, source = way
    trained = {}
    for rank in (4, 16):
        own = pairs.with_profile(profiles.changed(small, vision__rank=rank))
        trained[rank] = runs.Run(own, fold, 0)
        runs.train_vision(trained[rank], source)
    assert len({run.folder for run in trained.values()}) == 2
    for rank, run in trained.items():
        assert read_json(run.record)["rank"] == rank
        assert read_json(run.record)["from"]["vision.rank"] == rank
        state = load_file(run.folder / "adapter" / "adapter_model.safetensors")
        assert {value.shape[0] for name, value in state.items() if "lora_A" in name} == {rank}
        assert run.is_trained(source)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_projection_head_shares_stage_1_and_is_drawn_as_if_it_had_been_there(way, head, capsys):
    """To the bit what training stage 1 with the head in place gives: it has no gradient there."""
    pairs, fold, _ = way
    plain, run = runs.Run(pairs, fold, 0), runs.Run(pairs.with_profile(changed(pairs, head)), fold, 0)
    first = runs.train_omics(plain, 8).state_dict()
    found = runs.train_omics(run, 8)
    assert run.stage_1.folder == plain.stage_1.folder
    assert [line.split(":")[1].split(" in ")[0] for line in capsys.readouterr().err.splitlines()] == [
        " made",
        f" loaded from {plain.stage_1.folder.relative_to(paths.home())}",
    ]
    x = runs.Expression(pairs.context(fold), fold.omics)
    with runs.parallel.own_random_state(runs._seed(0, "omics")):
        whole = runs.SealOmics(x.matrix.shape[1], 8, run.pairs.profile.omics, *runs.gene_statistics(x))
    drawn = {name: value for name, value in whole.state_dict().items() if name.startswith("projection_head")}
    assert len(drawn) == (2 if head == "linear" else 4)
    schedule = loop.Schedule(2, 16, run.pairs.profile.omics.lr, run.pairs.profile.omics.weight_decay, 0)
    schedule = dataclasses.replace(schedule, seed=runs._seed(0, "omics loop"))
    with runs.in_gene_units([whole.decoder[-1]], whole.gene_mean, whole.gene_sd):
        loop.fit(runs.OmicsTask(whole, x), schedule, run.folder / "apart", "key", "stage 1 with its head")
    state = found.state_dict()
    assert state.keys() == whole.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items())
    assert all(torch.equal(value, state[name]) for name, value in {**first, **drawn}.items())


def changed(pairs, head):
    return profiles.changed(pairs.profile, omics__head=head, vision__head=head)


def test_what_was_there_and_what_was_trained_is_one_line(way, capsys, monkeypatch):
    pairs, fold, source = way
    both = runs.list_runs(pairs, folds=[fold], seeds=[0])
    runs.train_runs(both[:1], source)
    runs.train_runs(both, source)
    runs.train_runs(both, source)
    lines = [re.sub(r"in \d+ s", "in N s", line) for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "1 runs: trained in N s",
        "2 runs: 1 loaded from runs/demo, 1 trained in N s",
        "2 runs: loaded from runs/demo",
    ]


@pytest.mark.parametrize("answer", ["keep", "anew", None])
def test_a_run_killed_before_its_code_changed_goes_on_or_asks(way, monkeypatch, answer):
    """Nothing of the hours that it took is removed unasked."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    pairs, fold, _ = way
    run, save = runs.Run(pairs, fold, 0).stage_1, loop._save

    def dying(*args):
        save(*args)
        if args[4] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_save", dying)
    with pytest.raises(KeyboardInterrupt):
        runs.train_omics(run, 8)
    monkeypatch.setattr(loop, "_save", save)
    begun, old = list(run.folder.parent.glob(".omics.*.part")), runs.VERSION
    assert [(path / "checkpoint.pt").is_file() for path in begun] == [True]
    monkeypatch.setattr(runs, "VERSION", old + 1)
    seen, plan = [], loop._plan
    monkeypatch.setattr(loop, "_plan", lambda *args: seen.append(args[2]) or plan(*args))
    if answer is None:
        with pytest.raises(SealError, match=f"made by version {old} of what makes them; it is at {old + 1} now"):
            runs.train_omics(run, 8)
        assert (begun[0] / "checkpoint.pt").is_file()
        return
    monkeypatch.setenv("SEAL_OLD", answer)
    runs.train_omics(run, 8)
    assert seen == [3 if answer == "keep" else 0]
    assert read_json(run.record)["version"] == (old if answer == "keep" else old + 1), "it says what made it"
    assert list(run.folder.parent.glob(".omics.*.part")) == []


def test_a_saved_omics_encoder_of_another_kind_is_refused(way):
    pairs, fold, store = way
    run = runs.Run(pairs.with_profile(profiles.changed(pairs.profile, omics__encoder="mlp")), fold, 0)
    vae, mlp = (runs.train_omics(r, store.encoder.dim) for r in (runs.Run(pairs, fold, 0), run))
    again = runs.train_omics(run, store.encoder.dim)
    assert type(mlp) is type(again) is not type(vae)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in mlp.state_dict().items())
    shutil.copy(runs.Run(pairs, fold, 0, "omics").folder / "omics.safetensors", run.stage_1.folder)
    with pytest.raises(SealError, match="does not fit the omics encoder 'mlp'"):
        runs.train_omics(run, store.encoder.dim)
