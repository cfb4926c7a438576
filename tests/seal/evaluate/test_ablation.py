"""Ablations: each changes what it says and nothing else, and none touches the full method or the test spots."""

import dataclasses
import shutil
from collections import Counter
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from seal import losses, profiles, results
from seal.data.assemble import assemble
from seal.data.pairs import Pairs
from seal.data.panel import Panel
from seal.errors import SealError
from seal.evaluate import ablation
from seal.evaluate.ablation import FULL, VARIANTS, Ablation
from seal.evaluate.embeddings import embed_runs
from seal.evaluate.methods import predict_by_probe
from seal.files import read_json
from seal.models import encoders
from seal.models.architecture import shrink
from seal.models.encoder_registry import find_spec
from seal.train import batches
from seal.train import runs as stages

OWN_STAGE_1 = {  # the others take the full method's
    *("no_flows", "masking", "mse", "third_panel", "half_pairs", "loss_pcc"),
    *("mlp_encoder", "mae_encoder", "transformer_encoder"),
}
ALIKE = {"loss_l1", "loss_huber", "loss_mmd", "loss_pls", "loss_negbin", "tenth_panel", "eighth_pairs"}  # to others
RUN = {name: variant for name, variant in VARIANTS.items() if name not in ALIKE | {"one_block"}}
CUT_ELSEWHERE = {"three_blocks", "all_blocks"}  # on tokens of their own


def values(changes, profile):
    return {key: value(profile) if callable(value) else value for key, value in changes.items()}


def times(folder):
    return {p.relative_to(folder): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def ran(small_home, small_profile, tiny_build, tmp_path_factory):
    """Every variant on the first fold, and what the tests ask of it, gathered while its home is there."""
    home = tmp_path_factory.mktemp("ablated")
    shutil.copytree(small_home, home, dirs_exist_ok=True)
    profile = profiles.changed(small_profile, omics__epochs=1, vision__epochs=1, evaluation__long_ablations=("all",))
    folds = Pairs.folds
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEAL_HOME", str(home))
        patch.setattr(encoders, "build", tiny_build)
        patch.setitem(profiles.PROFILES, "demo", profile)  # what variants are told apart from
        patch.setattr(Pairs, "folds", lambda pairs: folds(pairs)[:1])
        patch.setattr(ablation, "VARIANTS", RUN)
        patch.setattr(ablation, "find_spec", lambda name: shrink(find_spec(name)))
        pairs = assemble(profile)
        (fold,), source, folder = pairs.folds(), batches.build(pairs), home / "runs" / "demo"
        stages.train_vision(stages.Run(pairs, fold, 0), source)
        before, fit, trained = times(folder), stages.fit, []
        with pytest.MonkeyPatch.context() as counted:
            counted.setattr(stages, "fit", lambda task, *more: trained.append(type(task).__name__) or fit(task, *more))
            stages.train_runs(ablation.list_runs(pairs), source)
        after = times(folder)
        with pytest.MonkeyPatch.context() as never:
            never.setattr(stages, "train_vision", lambda *_: pytest.fail("trained again"))
            stages.train_runs(ablation.list_runs(pairs), source)
        runs = {run.variant or FULL: run for run in ablation.list_runs(pairs)}
        folders = {
            name: {stage: stages.Run(r.pairs, r.fold, r.seed, stage).folder for stage in ("omics", "seal")}
            for name, r in runs.items()
        }
        records = {name: read_json(both["seal"] / "run.json") for name, both in folders.items()}
        third = [read_json(folder / "panel.json")["genes"] for folder in folders["third_panel"].values()]
        models = {name: stages.train_vision(run, source) for name, run in runs.items()}
        embeddings = embed_runs(pairs, source, ablation.list_runs(pairs))
        written = times(home / "data" / "embeddings")
        embed_runs(pairs, source, ablation.list_runs(pairs))
        evaluated = Ablation(pairs, embeddings).run()
        twice = pairs.with_profile(profiles.changed(profile, evaluation__ablation_seeds=2))
        twice = [(run.variant, run.seed) for run in ablation.list_runs(twice)]
        quick = pairs.with_profile(profiles.changed(profile, evaluation__long_ablations=()))
        short = ablation.table(Ablation(quick, embeddings).run())
        shutil.rmtree(runs["masking"].folder.parent)
        stages.train_runs([runs["masking"]], source)
        return SimpleNamespace(
            **{"pairs": pairs, "fold": fold, "source": source, "runs": runs, "models": models, "third": third},
            **{"stage_1": {name: both["omics"].relative_to(folder) for name, both in folders.items()}},
            **{"records": records, "places": {both["seal"] for both in folders.values()}},
            **{
                "trained": Counter(trained),
                "before": before,
                "after": after,
                "again": stages.train_vision(runs["masking"], source),
            },
            **{"written": written, "rewritten": times(home / "data" / "embeddings")},
            **{
                "predictions": evaluated.predictions,
                "table": ablation.table(evaluated),
                "short": short,
                "twice": twice,
            },
            **{"shapes": ablation.shapes(evaluated), "curves": stages.tabulate_training(pairs)},
        )


@pytest.mark.parametrize("name", RUN)
def test_a_variant_changes_what_it_says_and_nothing_else(ran, name):
    variant, run = VARIANTS[name], ran.runs[name]
    full, own = dataclasses.asdict(ran.pairs.profile), dataclasses.asdict(run.pairs.profile)
    groups = [key for key, value in full.items() if isinstance(value, dict)]
    changed = {f"{g}__{k}": v for g in groups for k, v in own[g].items() if v != full[g][k]}
    # fewer pairs, but as many steps
    longer = {"omics__epochs": 2, "vision__epochs": 2} if variant.pairs == 0.5 else {}
    assert changed == {**longer, **values(variant.changes, run.pairs.profile)} | (
        {"vision__blocks": 4} if name == "all_blocks" else {}
    )
    assert {key for key in full if full[key] != own[key]} == {key.partition("__")[0] for key in changed}
    assert run.pairs.genes == (10 if variant.genes < 1 else None)
    assert run.fold.share == variant.pairs
    assert changed or variant.genes < 1 or variant.pairs < 1


def test_stage_1_is_trained_once_for_all_that_share_it(ran):
    assert ran.trained == {"OmicsTask": len(OWN_STAGE_1), "VisionTask": len(RUN)}


@pytest.mark.parametrize("name", RUN)
def test_a_variant_runs_apart_and_takes_stage_1_where_it_leaves_it_alone(ran, name):
    assert len(ran.places) == 1 + len(RUN)
    assert (ran.stage_1[name] / "run.json" in ran.before) == (name not in OWN_STAGE_1)
    record, full = ran.records[name], ran.records[FULL]
    changed = {key.removeprefix("vision__") for key in VARIANTS[name].changes if key.startswith("vision__")}
    changed |= {"epochs"} if VARIANTS[name].pairs < 1 else set()
    assert {key for key in full if full[key] != record[key]} == {"key", "from"} | changed


def test_the_full_methods_runs_are_left_as_they_were(ran):
    assert ran.before
    assert {path: ran.after[path] for path in ran.before} == ran.before
    assert len(ran.curves) > 0
    assert set(ran.curves["method"]) == {"seal"}


def test_variants_are_embedded_once(ran):
    assert {path.parent.name.removeprefix("features_dinov2s_derived").lstrip("_") for path in ran.written} == {
        "",
        f"seal_{ran.fold.name}_seed0",
        *(f"{name}_{ran.fold.name}_seed0" for name in RUN),
    }
    assert ran.rewritten == ran.written


def test_every_variant_predicts_something_else_of_the_same_spots(ran):
    predictions = {name: ran.predictions[name, ran.fold.name, 0] for name in ("full", "frozen", *RUN)}
    assert len(predictions) == len(ran.predictions) == 2 + len(RUN)
    assert {p.shape for p in predictions.values()} == {ran.pairs.measured(ran.fold)[ran.fold.test].shape}
    assert len({p.tobytes() for p in predictions.values()}) == 2 + len(RUN)


@pytest.mark.parametrize("name", ["half_pairs", "third_panel", "bottleneck"])
def test_the_probe_learns_from_all_training_spots(ran, name):
    embedding = batches.embed({name: ran.models[name].encoder}, ran.source)[name]
    expected = predict_by_probe(ran.pairs, ran.fold, embedding)
    np.testing.assert_allclose(ran.predictions[name, ran.fold.name, 0], expected, atol=1e-4)


def test_half_of_the_pairs_train(ran):
    part = ran.runs["half_pairs"].fold
    assert (len(part.train), len(part.omics)) == (len(ran.fold.train) // 2, len(ran.fold.omics) // 2) == (18, 18)
    assert (part.test == ran.fold.test).all()


def test_the_first_third_of_the_panel_trains(ran):
    genes = ran.pairs.panel(ran.fold).genes
    model = ran.models["third_panel"]
    assert (len(genes), len(model.gene_mean), model.decoder.decoder[-1].out_features) == (30, 10, 10)
    assert ran.third == [list(genes[:10])] * 2


def test_the_same_seed_gives_the_same_weights(ran):
    """The variant that draws most: masks, latents and dropout."""
    first, again = (model.state_dict() for model in (ran.models["masking"], ran.again))
    assert first.keys() == again.keys()
    assert all((value == again[name]).all() for name, value in first.items())


def test_the_table_compares_with_the_full_method(ran):
    table = ran.table
    assert set(table.columns) == {*results.RESULTS["ablations"].columns, "difference_p"}
    assert (table["seeds"] == 1).all()
    overall = table[table["organ"] == "all"]
    groups = {id: rows["method"].tolist() for id, rows in overall.groupby("table")}
    assert sorted(groups) == ["T51", "T52", "T53", "T54"]
    for id, methods in groups.items():
        assert methods == ["full", "frozen", *(name for name, v in RUN.items() if v.table == id)]
    full = overall[overall["method"] == "full"]
    assert full[["difference_low", "difference", "difference_high"]].eq(0).all(axis=None)
    np.testing.assert_allclose(overall["difference"], overall["mean"] - full["mean"].iloc[0], atol=1e-12)
    assert (overall["difference_low"] <= overall["difference_high"]).all()


def test_a_variant_that_did_not_run_says_so(ran):
    """A row of no seeds and no values; the others are as they are in the whole table."""
    long = {name for name, variant in RUN.items() if variant.long}
    left = ran.short[ran.short["seeds"] == 0]
    assert set(left["method"]) == long > CUT_ELSEWHERE
    assert left[["mean", "difference", "difference_low"]].isna().all(axis=None)
    assert left["table"].tolist() == [RUN[name].table for name in left["method"]]
    assert (left["tested"] == ran.table["tested"].iloc[0]).all()
    same = ran.table[~ran.table["method"].isin(long)].reset_index(drop=True)
    kept = ran.short[ran.short["seeds"] > 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, same, check_dtype=False)


def test_tokens_are_cut_where_a_variant_asks_for_them(ran):
    sources = {name: ran.source.of(run.pairs) for name, run in ran.runs.items()}
    assert {name for name, source in sources.items() if source is not ran.source} == CUT_ELSEWHERE
    assert len({id(source) for source in sources.values()}) == 3
    assert sources["three_blocks"].of(ran.runs["three_blocks"].pairs) is sources["three_blocks"]
    lora = {name: len(ran.models[name].peft.targeted_module_names) for name in ("full", *CUT_ELSEWHERE)}
    assert lora == {"full": 4, "three_blocks": 12, "all_blocks": 16}


def test_each_profile_has_the_variants_that_change_something():
    def chosen(name, **changes):
        return set(ablation.choose_variants(profiles.get(name, **{f"evaluation__{k}": v for k, v in changes.items()})))

    long = {name for name, variant in VARIANTS.items() if variant.long}
    assert chosen("demo") == chosen("her2st") == set(VARIANTS) - long
    assert chosen("demo", long_ablations=("all",)) == set(VARIANTS) - {"one_block"}
    assert chosen("maple") == set(VARIANTS) - {"three_blocks"}
    depth = VARIANTS["all_blocks"].changes["vision__blocks"]
    assert [depth(profiles.get(name)) for name in ("demo", "maple")] == [12, 24]


def test_every_gene_loss_and_omics_encoder_is_a_variant():
    tried = {change for variant in VARIANTS.values() for change in variant.changes.items() if variant.table == "T53"}
    for kind in dataclasses.fields(profiles.OmicsSettings):
        if kind.name in ("gene_loss", "encoder"):
            own = {kind.default, "standardized_mse"}  # the latter is mse under another scale
            assert {value for key, value in tried if key == f"omics__{kind.name}"} == set(get_args(kind.type)) - own
    contrasts = {v.changes.get("vision__contrast", "clip") for v in VARIANTS.values()}
    assert contrasts == set(losses.CONTRASTS)


def test_as_many_seeds_as_the_profile_says(ran):
    assert Counter(seed for _, seed in ran.twice) == {0: 1 + len(RUN), 1: 1 + len(RUN)}
    assert Counter(name for name, _ in ran.twice) == dict.fromkeys(["", *RUN], 2)
    profile = profiles.changed(ran.pairs.profile, evaluation__ablation_seeds=2)
    seeds = {method.name: method.seeds(profile.evaluation) for method in ablation.list_methods(profile)}
    assert seeds.pop("frozen") == (0,)
    assert set(seeds.values()) == {(0, 1)}


def test_shapes_of_every_variant(ran):
    assert set(ran.shapes.columns) == set(results.RESULTS["ablation_shapes"].columns)
    shapes = ran.shapes.set_index("method")
    assert list(shapes.index) == ["full", "frozen", *RUN]
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


def test_pairs_refuse_another_panel(small):
    pairs = assemble(small)
    fold = pairs.folds()[0]
    for wrong in (profiles.changed(small, panel__genes=20), dataclasses.replace(small, name="her2st")):
        with pytest.raises(SealError, match="does not fit the pairs"):
            pairs.with_profile(wrong)
    same = pairs.with_profile(profiles.changed(small, vision__rank=2))
    assert (same.key, same.genes) == (pairs.key, None)
    fewer = pairs.with_profile(small, genes=10)
    assert fewer.genes == 10
    assert fewer.context(fold).shape == (48, 10)
    np.testing.assert_array_equal(fewer.context(fold), pairs.context(fold)[:, :10])
    np.testing.assert_array_equal(fewer.measured(fold), pairs.measured(fold))


def test_the_first_genes_of_a_panel():
    panel = Panel(("A", "B", "C"), {"o": ("C", "A"), "p": ("B",)}, ("donor",))
    assert panel.first(None) == panel
    assert panel.first(2) == Panel(("A", "B"), {"o": ("A",), "p": ("B",)}, ("donor",))
    assert panel.first(2).test_columns.tolist() == [0, 1]
    assert panel.first(2).hash != panel.hash
