"""Ablations: each changes what it says and nothing else, and none touches the full method or the test spots."""

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from seal import profiles, result_tables, results
from seal.data.assemble import assemble
from seal.data.pairs import Pairs
from seal.data.panel import Panel
from seal.errors import SealError
from seal.evaluate import ablation
from seal.evaluate.ablation import VARIANTS, Ablation
from seal.evaluate.patch import predict
from seal.files import read_json
from seal.models import encoders
from seal.train import runs as stages
from seal.train import tokens

OWN_STAGE_1 = {"heads", "no_flows", "masking", "mse", "third_panel", "half_pairs"}  # the others take the full method's
GROUPS = ("panel", "omics", "vision", "compute", "evaluation")


def times(folder):
    return {p.relative_to(folder): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def ran(small_home, small_profile, tiny_build, tmp_path_factory):
    """Every variant on the first fold, and what the tests ask of it, gathered while its home is there."""
    home = tmp_path_factory.mktemp("ablated")
    shutil.copytree(small_home, home, dirs_exist_ok=True)
    profile = profiles.changed(small_profile, omics__epochs=1, vision__epochs=1)
    folds, train, trained = Pairs.folds, stages.train_vision, {}

    def recorded(pairs, fold, seed, source):
        model = train(pairs, fold, seed, source)
        trained[pairs.profile.variant] = SimpleNamespace(pairs=pairs, fold=fold, model=model)
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEAL_HOME", str(home))
        patch.setattr(encoders, "build", tiny_build)
        patch.setitem(profiles.PROFILES, "demo", profile)  # what variants are told apart from
        patch.setattr(Pairs, "folds", lambda pairs: folds(pairs)[:1])
        pairs = assemble(profile)
        (fold,), source, runs = pairs.folds(), tokens.build(pairs), home / "runs" / "demo"
        train(pairs, fold, 0, source)
        before = times(runs)
        patch.setattr(stages, "train_vision", recorded)
        ran = Ablation(pairs, source).run()
        after, variants = times(runs), dict(trained)
        shutil.rmtree(runs / "ablation" / "masking")
        again = ran._train("masking", fold, 0)
        return SimpleNamespace(
            **{"pairs": pairs, "fold": fold, "source": source, "runs": runs, "trained": variants},
            **{"before": before, "after": after, "again": again, "predictions": ran.predictions},
            **{
                "table": ablation.table(ran),
                "shapes": ablation.shapes(ran),
                "curves": result_tables.training_curves(pairs),
            },
        )


def folder(ran, name):
    return ran.runs / "ablation" / name / ran.fold.name / "seed0"


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_changes_what_it_says_and_nothing_else(ran, name):
    variant, trained = VARIANTS[name], ran.trained[name]
    full, own = profiles.as_dict(ran.pairs.profile), profiles.as_dict(trained.pairs.profile)
    changed = {f"{g}__{k}": v for g in GROUPS for k, v in own[g].items() if v != full[g][k]}
    # fewer pairs, but as many steps
    longer = {"omics__epochs": 2, "vision__epochs": 2} if variant.pairs == 0.5 else {}
    assert changed == {**longer, **variant.changes}
    assert {key for key in full if key not in GROUPS and full[key] != own[key]} == {"variant"}
    assert trained.pairs.genes == (10 if variant.genes < 1 else None)
    assert trained.fold.share == variant.pairs
    assert changed or variant.genes < 1 or variant.pairs < 1


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_runs_apart_and_takes_stage_1_where_it_leaves_it_alone(ran, name):
    assert {p.name for p in folder(ran, name).iterdir()} == {"seal"} | ({"omics"} if name in OWN_STAGE_1 else set())
    run = read_json(folder(ran, name) / "seal" / "run.json")
    full = read_json(ran.runs / ran.fold.name / "seed0" / "seal" / "run.json")
    changed = {key.removeprefix("vision__") for key in VARIANTS[name].changes if key.startswith("vision__")}
    changed |= {"epochs"} if VARIANTS[name].pairs < 1 else set()
    assert {key for key in full if full[key] != run[key]} == {"key"} | changed


def test_the_full_methods_runs_are_left_as_they_were(ran):
    assert ran.before
    assert {path: ran.after[path] for path in ran.before} == ran.before
    assert {path.parts[0] for path in ran.after.keys() - ran.before.keys()} == {"ablation"}
    assert len(ran.curves) > 0
    assert set(ran.curves["method"]) == {"seal"}


def test_every_variant_predicts_something_else_of_the_same_spots(ran):
    predictions = {name: ran.predictions[name, ran.fold.name, 0] for name in Ablation.methods}
    assert len(predictions) == len(ran.predictions) == 16
    assert {p.shape for p in predictions.values()} == {ran.pairs.measured(ran.fold)[ran.fold.test].shape}
    assert len({p.tobytes() for p in predictions.values()}) == 16


@pytest.mark.parametrize("name", ["half_pairs", "third_panel", "bottleneck"])
def test_the_probe_learns_from_all_training_spots(ran, name):
    embedding = tokens.embed_tokens(ran.trained[name].model.encoder, ran.source)
    expected = predict(ran.pairs, ran.fold, embedding)
    np.testing.assert_allclose(ran.predictions[name, ran.fold.name, 0], expected, atol=1e-4)


def test_half_of_the_pairs_train(ran):
    part = ran.trained["half_pairs"].fold
    assert (len(part.train), len(part.omics)) == (len(ran.fold.train) // 2, len(ran.fold.omics) // 2) == (18, 18)
    assert (part.test == ran.fold.test).all()


def test_the_first_third_of_the_panel_trains(ran):
    genes = ran.pairs.panel(ran.fold).genes
    model = ran.trained["third_panel"].model
    assert (len(genes), len(model.gene_mean), model.decoder.decoder[-1].out_features) == (30, 10, 10)
    for stage in ("omics", "seal"):
        assert read_json(folder(ran, "third_panel") / stage / "panel.json")["genes"] == list(genes[:10])


def test_the_same_seed_gives_the_same_weights(ran):
    """The variant that draws most: masks, latents and dropout."""
    first, again = (model.state_dict() for model in (ran.trained["masking"].model, ran.again))
    assert first.keys() == again.keys()
    assert all((value == again[name]).all() for name, value in first.items())


def test_the_table_compares_with_the_full_method(ran):
    table = ran.table
    assert set(table.columns) == set(results.RESULTS["ablations"].columns)
    assert (table["seeds"] == 1).all()
    overall = table[table["organ"] == "all"]
    groups = {id: rows["method"].tolist() for id, rows in overall.groupby("table")}
    assert sorted(groups) == ["T51", "T52", "T53", "T54"]
    for id, methods in groups.items():
        assert methods == ["full", "frozen", *(name for name, v in VARIANTS.items() if v.table == id)]
    full = overall[overall["method"] == "full"]
    assert full[["difference_low", "difference", "difference_high"]].eq(0).all(axis=None)
    np.testing.assert_allclose(overall["difference"], overall["mean"] - full["mean"].iloc[0], atol=1e-12)
    assert (overall["difference_low"] <= overall["difference_high"]).all()


def test_shapes_of_every_variant(ran):
    assert set(ran.shapes.columns) == set(results.RESULTS["ablation_shapes"].columns)
    shapes = ran.shapes.set_index("method")
    assert list(shapes.index) == list(Ablation.methods)
    aligned = shapes.drop("frozen")
    for where, spots in (("train", 36), ("test", 12)):
        assert shapes[f"effective_rank_{where}"].between(1, spots).all()
        assert aligned[f"recall10_{where}"].between(0, 1).all()
        assert aligned[f"chance10_{where}"].eq(10 / spots).all()
    assert shapes.loc["frozen"].filter(regex="alignment|recall|chance").isna().all()


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_part_of_a_fold_never_touches_its_test_rows(ran, share):
    fold = ran.fold
    part = fold.part(share, seed=3)
    assert (part.train == fold.part(share, seed=3).train).all()
    assert set(part.train) <= set(fold.train)
    assert set(part.omics) <= set(fold.omics)
    assert len(part.train) == len(set(part.train)) == round(share * len(fold.train))
    assert (part.test == fold.test).all()
    assert not set(part.test) & (set(part.train) | set(part.omics))
    if share == 0.5:
        assert not np.array_equal(part.train, fold.part(share, seed=4).train)


def test_pairs_refuse_another_panel(ran):
    profile = ran.pairs.profile
    other = dataclasses.replace(profile, panel=dataclasses.replace(profile.panel, genes=20))
    for wrong in (other, dataclasses.replace(profile, name="her2st")):
        with pytest.raises(SealError, match="other panel or split settings"):
            ran.pairs.with_profile(wrong)
    same = ran.pairs.with_profile(profiles.changed(profile, vision__rank=2))
    assert (same.key, same.genes) == (ran.pairs.key, None)
    fewer = ran.pairs.with_profile(profile, genes=10)
    assert fewer.key != ran.pairs.key
    assert fewer.context(ran.fold).shape == (48, 10)
    np.testing.assert_array_equal(fewer.context(ran.fold), ran.pairs.context(ran.fold)[:, :10])
    np.testing.assert_array_equal(fewer.measured(ran.fold), ran.pairs.measured(ran.fold))


def test_the_first_genes_of_a_panel():
    panel = Panel(("A", "B", "C"), {"o": ("C", "A"), "p": ("B",)}, ("donor",))
    assert panel.first(None) == panel
    assert panel.first(2) == Panel(("A", "B"), {"o": ("A",), "p": ("B",)}, ("donor",))
    assert panel.first(2).test_columns.tolist() == [0, 1]
    assert panel.first(2).hash != panel.hash
