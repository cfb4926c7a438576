"""Baselines as runs on disk: trained once, resumed, read strictly, and blind to what is left out."""

import dataclasses
import shutil
from itertools import permutations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from seal import paths, profiles
from seal.data.assemble import assemble
from seal.data.pairs import Pairs
from seal.errors import SealError
from seal.evaluate import ablation
from seal.evaluate.embeddings import embed_all, embed_runs
from seal.evaluate.methods import METHODS, predict_trained
from seal.models.baselines import BASELINES
from seal.train import batches, loop, runs, steps
from seal.train.loop import Batch


@pytest.fixture
def way(small):
    pairs = assemble(small)
    return pairs, pairs.folds()[0], batches.build(pairs)


def predictions(pairs, fold, source):
    """Train every baseline on a fold and predict it."""
    chosen = [runs.Run(pairs, fold, 0, name) for name in ("seal", *BASELINES)]
    runs.train_runs(chosen, source)
    store = embed_runs(pairs, source, [run for run in chosen if run.method != "deepspot"])
    methods = {m.name: m for m in METHODS if m.kind == "baseline" or m.name in ("decoder", "no_expression")}
    read = {name: store.read(method.embedding, fold.name, 0) for name, method in methods.items()}
    return {name: method.predict(pairs, fold, read[name], 0) for name, method in methods.items()}


def test_what_is_left_out_is_never_seen(way, monkeypatch):
    """Test sections' expression replaced by NaN: the same weights, the same predictions, to the bit."""
    pairs, fold, source = way
    before = predictions(pairs, fold, source)
    assert all(np.isfinite(found).all() for found in before.values())
    shutil.rmtree(paths.runs("demo").parent)
    shutil.rmtree(paths.embeddings("demo").parent)
    for name in ("context", "measured"):
        read = getattr(Pairs, name)

        def blind(self, of, read=read):
            values = np.array(read(self, of))
            values[of.test] = np.nan
            return values

        monkeypatch.setattr(Pairs, name, blind)
    monkeypatch.setattr(Pairs, "counts", lambda *_: pytest.fail("raw counts were read"))
    after = predictions(pairs, fold, source)
    for name, found in before.items():
        np.testing.assert_array_equal(found, after[name], err_msg=name)


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_trained_once_and_read_to_the_bit(way, monkeypatch, name):
    pairs, fold, source = way
    run = runs.Run(pairs, fold, 0, name)
    with pytest.raises(SealError, match="holds no run"):
        runs.read_vision(run, source)
    trained = runs.train_vision(run, source)
    has_omics = run.stage_1.record.is_file()
    assert has_omics == (name in ("pathomclip", "pathomclip_spatial")), "no stage 1 for those that do without"
    monkeypatch.setattr(runs, "fit", lambda *_: pytest.fail("trained again"))
    for read in (runs.train_vision(run, source), runs.read_vision(run, batches.find(pairs))):
        assert trained.state_dict().keys() == read.state_dict().keys()
        assert all(torch.equal(v, read.state_dict()[k]) for k, v in trained.state_dict().items())
    whole = run.folder / "vision.safetensors"
    state = load_file(whole)
    runs._save_tensors(whole, {**state, "more": torch.zeros(1)})
    with pytest.raises(SealError, match=f"does not fit {BASELINES[name].__name__}: .*more"):
        runs.read_vision(run, source)


@pytest.mark.parametrize("name", ["triplex", "deepspot", "no_expression"])
def test_a_baseline_that_is_stopped_resumes_to_the_same_bits(way, monkeypatch, name):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    pairs, fold, source = way
    run = runs.Run(pairs, fold, 0, name)
    whole = runs.train_vision(run, source).state_dict()
    shutil.rmtree(run.folder)
    step, taken = loop._step, []

    def dying(*args):
        if len(taken) == 3:
            raise KeyboardInterrupt
        taken.append(1)
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", dying)
        with pytest.raises(KeyboardInterrupt):
            runs.train_vision(run, source)
    assert not run.record.is_file()
    again = runs.train_vision(run, source).state_dict()
    assert len(run.read_log()) == run.read_log()[-1]["step"] + 1 > 3
    assert all(torch.equal(value, again[key]) for key, value in whole.items())


def test_own_settings_are_part_of_the_key_where_weights_depend_on_them(way):
    pairs, fold, source = way
    run = runs.Run(pairs, fold, 0, "bleep")
    runs.train_vision(run, source)
    own = dataclasses.replace(pairs.profile.baselines, bleep_temperature=2.0, deepspot_width=5)
    other = runs.Run(pairs.with_profile(dataclasses.replace(pairs.profile, baselines=own)), fold, 0, "bleep")
    assert other.folder != run.folder
    key = lambda r: runs._vision_made_from(r, source).key  # noqa: E731
    assert key(other) != key(run)
    wider = dataclasses.replace(pairs.profile.baselines, deepspot_width=5, bleep_nearest=4)
    third = runs.Run(pairs.with_profile(dataclasses.replace(pairs.profile, baselines=wider)), fold, 0, "bleep")
    assert key(third) == key(run)
    seal = [runs.Run(r.pairs, fold, 0) for r in (run, third)]
    assert seal[0].folder == seal[1].folder, "SEAL's own runs do not depend on baselines"


@pytest.mark.parametrize(("views", "allowed"), [(1, {0, 1}), (3, {1, 2, 3})])
def test_the_control_without_expression_sees_two_different_views(way, views, allowed):
    pairs, fold, _ = way
    pairs = pairs.with_profile(profiles.changed(pairs.profile, vision__views=views))
    task = steps.TwoViewTask.__new__(steps.TwoViewTask)
    for name, value in {"source": type("S", (), {"pairs": pairs}), "rows": fold.train}.items():
        object.__setattr__(task, name, value)
    seen, rows = task._draw(Batch(torch.arange(30), seed=4))
    assert set(zip(seen[:30].tolist(), seen[30:].tolist(), strict=True)) == set(permutations(allowed, 2))
    assert (rows[:30] == fold.train[:30]).all()
    assert (rows[30:] == fold.train[:30]).all()


def test_without_augmented_views_there_is_no_such_control(way):
    pairs, fold, source = way
    pairs = pairs.with_profile(profiles.changed(pairs.profile, vision__views=0))
    with pytest.raises(SealError, match="two views"):
        runs.train_vision(runs.Run(pairs, fold, 0, "no_expression"), source)


def test_controls_that_are_ablations_share_their_runs(way):
    pairs, _, _ = way
    compared = {(r.variant, r.fold.name): r.folder for r in runs.list_compared(pairs) if r.variant}
    variants = {(r.variant, r.fold.name): r.folder for r in ablation.list_runs(pairs)}
    assert {name for name, _ in compared} == {"no_info", "info_alone"}
    assert len(compared) == 2 * len(pairs.folds())
    assert all(variants[key] == folder for key, folder in compared.items() if key in variants)
    assert set(compared) & set(variants)


def test_everything_compared_is_trained_first(way):
    pairs, _, source = way
    runs.train_runs(runs.list_runs(pairs), source)
    with pytest.raises(SealError, match="holds no run"):
        embed_all(pairs, source)


def test_too_few_training_spots_are_named(way):
    pairs, fold, source = way
    few = dataclasses.replace(pairs.profile.baselines, bleep_nearest=len(fold.train) + 1)
    pairs = pairs.with_profile(dataclasses.replace(pairs.profile, baselines=few))
    run = runs.Run(pairs, fold, 0, "bleep")
    runs.train_runs([run], source)
    store = embed_runs(pairs, source, [run])
    with pytest.raises(SealError, match=f"{len(fold.train)} training spots"):
        predict_trained("bleep", pairs, fold, store.read("bleep", fold.name, 0), 0)
