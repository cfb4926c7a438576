"""Patch-level evaluation: every control is there, and nothing of the test donor is used."""

import numpy as np
import pytest

from seal import profiles
from seal.evaluate import scoring
from seal.evaluate.methods import METHODS, Method, find_baselines, predict_by_probe
from seal.evaluate.patch import Baselines, Evaluation
from seal.models import encoders
from seal.profiles import EvaluationSettings


@pytest.fixture
def evaluation(evaluated, monkeypatch, tiny_build):
    evaluation = evaluated[0]
    monkeypatch.setenv("SEAL_HOME", str(evaluation.pairs.folder.parents[2]))
    monkeypatch.setattr(encoders, "build", tiny_build)
    return evaluation


def test_every_method_predicts_every_fold_and_seed(evaluation):
    pairs = evaluation.pairs
    assert {m.kind for m in evaluation.methods} == {"encoder", "adapted", "control", "truth"}
    assert {m for m in evaluation.methods if m.kind != "truth"} | set(find_baselines()) == set(METHODS)
    runs = {
        (m, f): [s for (n, g, s) in evaluation.predictions if (n, g) == (m, f)] for m, f, _ in evaluation.predictions
    }
    assert len(runs) == len(evaluation.methods) * 4
    for (method, name), seeds in runs.items():
        assert seeds == ([0, 1] if method in ("seal", "seal_shuffled", "no_expression", "random") else [0]), method
        fold = pairs.fold(name)
        for _, prediction in evaluation.runs(method, name):
            assert prediction.shape == (len(fold.test), len(pairs.panel(fold).test_genes))


def test_baselines_are_predicted_on_the_trial_folds_beside_seal(evaluation):
    pairs = evaluation.pairs
    one = pairs.with_profile(profiles.changed(pairs.profile, evaluation__ablation_folds=1))
    methods = tuple(m for m in find_baselines() if m.name in ("frozen", "seal", "decoder", "stnet", "stnet_probed"))
    beside = Baselines(one, evaluation.embeddings, methods).run()
    assert [fold.name for fold in beside.folds()] == [pairs.folds()[0].name]
    table = scoring.summary(beside).query("organ == 'all'").set_index("method")
    assert list(table["kind"]) == ["encoder", "adapted", "readout", "baseline", "probed"]
    assert table["control"].fillna("").tolist() == ["", "", "seal", "seal", "seal"]
    whole = scoring.scores(evaluation).query("metric == 'pcc' and method == 'frozen'")
    own = whole.loc[whole["fold"] == pairs.folds()[0].name, "value"].mean()
    assert table.loc["frozen", "mean"] == pytest.approx(own)


def test_a_methods_seeds():
    settings = EvaluationSettings(seeds=(3, 5, 8), random_encoders=2)
    for seeded, seeds in (("none", (3,)), ("first", (3,)), ("all", (3, 5, 8)), ("random_encoders", (3, 5))):
        assert Method("m", "M", "baseline", seeded, predict_by_probe).seeds(settings) == seeds


def test_a_method_is_given_its_embedding_and_no_other(evaluation):
    """A baseline is one line: what it gets is what is stored for this fold and seed."""
    given, seeds = {}, []

    def recorded(pairs, fold, embedding, seed):
        given.setdefault(fold.name, []).append(embedding)
        seeds.append(seed)
        return np.zeros((len(fold.test), len(pairs.panel(fold).test_genes)))

    methods = (
        Method("baseline", "B", "baseline", "all", recorded, "seal"),
        Method("none", "N", "control", "none", recorded),
    )
    late = Evaluation(evaluation.pairs, evaluation.embeddings, methods)
    assert not given, "nothing is predicted before it is asked for"
    for _ in range(2):
        assert [seed for seed, _ in late.runs("baseline", evaluation.pairs.folds()[0].name)] == [0, 1]
    for fold in evaluation.pairs.folds():
        first, second, nothing = given[fold.name]
        assert nothing is None
        for seed, found in enumerate((first, second)):
            np.testing.assert_array_equal(found, evaluation.embeddings.read("seal", fold.name, seed))
    assert seeds == [0, 1, 0] * len(evaluation.pairs.folds())


def test_the_test_donors_expression_is_never_used(evaluation, monkeypatch):
    """Predictions for a donor stay the same, to the bit, when its measured expression is replaced by noise."""
    pairs = evaluation.pairs
    fold = pairs.folds()[0]
    measured = np.array(pairs.measured(fold))
    embedding = evaluation.embeddings.read("frozen")
    before = {m.name: m.predict(pairs, fold, embedding, 0) for m in METHODS}
    assert (before["frozen"] == evaluation.predictions["frozen", fold.name, 0]).all()
    measured[fold.test] = np.random.default_rng(0).random((len(fold.test), measured.shape[1]))
    monkeypatch.setattr(type(pairs), "measured", lambda *_: measured)
    for method in METHODS:
        assert (method.predict(pairs, fold, embedding, 0) == before[method.name]).all()


def test_maps_hold_the_first_test_genes_of_each_fold(evaluation):
    maps = scoring.maps(evaluation, genes=2)
    pairs = evaluation.pairs
    for fold in pairs.folds():
        part = maps[maps["fold"] == fold.name]
        assert (part["donor"] == fold.name).all()
        assert part["gene"].unique().tolist() == list(pairs.panel(fold).test_genes[:2])
        gene = part[part["gene"] == part["gene"].iloc[0]]
        np.testing.assert_array_equal(gene["seal"], evaluation.predictions["seal", fold.name, 0][:, 0])
        np.testing.assert_array_equal(gene["measured"], pairs.measured(fold)[fold.test, 0])
