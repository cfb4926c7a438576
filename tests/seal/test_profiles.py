"""Unknown names and values raise, in one place; the profiles differ in values only."""

import dataclasses
import json
from typing import get_args

import numpy as np
import pytest

from seal import losses, profiles
from seal.data import folds
from seal.errors import SealError
from seal.train import parallel, tokens


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("dmeo", {}, "'dmeo'"),
        ("demo", {"epochs": 3}, "'epochs'"),
        ("demo", {"vision__epoch": 3}, "'vision__epoch'"),
        ("demo", {"name__epochs": 3}, "'name__epochs'"),
    ],
)
def test_unknown_names_are_errors(name, changes, named):
    with pytest.raises(SealError, match=named):
        profiles.get(name, **changes)


def test_changes_reach_nested_settings_and_leave_the_profile_alone():
    changed = profiles.get("demo", vision__epochs=1, image_size=56)
    assert (changed.vision.epochs, changed.image_size) == (1, 56)
    assert profiles.DEMO.vision.epochs != 1


def test_a_changed_profile_keeps_its_other_changes():
    first = profiles.get("demo", vision__rank=3, encoder="uni2_h")
    second = profiles.changed(first, vision__epochs=1)
    assert second == profiles.get("demo", vision__rank=3, encoder="uni2_h", vision__epochs=1)
    assert first.vision.epochs == profiles.DEMO.vision.epochs
    assert profiles.changed(first) == first
    with pytest.raises(SealError, match="unknown setting 'vision__rnak' of profile 'demo'"):
        profiles.changed(first, vision__rnak=4)


def test_profiles_are_frozen_and_say_whether_they_are_simulated():
    with pytest.raises(dataclasses.FrozenInstanceError):
        profiles.DEMO.simulated = False
    assert [profiles.get(p).label for p in ("demo", "her2st")] == ["simulated data", "real data"]


def test_released_defaults():
    vision, omics = profiles.VisionSettings(), profiles.OmicsSettings()
    assert (vision.rank, vision.alpha, vision.lora_dropout, vision.temperature) == (8, 8, 0.15, 0.05)
    assert (vision.lr, vision.weight_decay, vision.batch, vision.epochs) == (1e-4, 0.2, 384, 10)
    assert (omics.hidden, omics.flows, omics.lr) == ((1024, 512), 3, 5e-4)


# --- names and values ---


@pytest.mark.parametrize(
    ("changes", "meant"),
    [
        ({"vision__rnak": 3}, "'vision__rank'"),
        ({"rank": 3}, "vision__rank?"),
        ({"epochs": 3}, "omics__epochs or vision__epochs or slides__epochs?"),
        ({"image_sice": 224}, "'image_size'"),
        ({"omics__gene_loss": "huper"}, "'huber'"),
        ({"evaluation__split": "donors"}, "'donor'"),
        ({"compute__precision": "float23"}, "'float32'"),
    ],
)
def test_what_was_meant_is_asked(changes, meant):
    with pytest.raises(SealError) as caught:
        profiles.get("demo", **changes)
    assert "did you mean " in caught.value.do
    assert meant in caught.value.do
    with pytest.raises(SealError, match="did you mean 'maple'"):
        profiles.get("mapel")


@pytest.mark.parametrize(
    ("setting", "wrong", "expected"),
    [
        ("omics__gene_loss", "rmse", "one of barlow_mse, mse, standardized_mse, pcc, pls, mmd, l1, huber, negbin"),
        ("omics__head", "deep", "one of none, linear, mlp"),
        ("vision__head", None, "one of none, linear, mlp"),
        ("vision__adapter", "adapters", "one of lora, full, bottleneck, bottleneck_twice"),
        ("vision__lora_layers", "qkv", "one of named, all, attention, mlp"),
        ("compute__assembly", "magic", "one of threads, processes"),
        ("compute__tokens", "cloud", "one of auto, memory, disk, recompute"),
        ("compute__token_dtype", "int8", "one of float32, float16, bfloat16"),
        ("compute__precision", "float64", "one of float32, bfloat16"),
        ("evaluation__split", "slide", "one of donor, section, study, organ, given"),
        ("evaluation__resample", "patients", "one of spots, donors"),
        ("omics__mask", 1.0, "at least 0, below 1"),
        ("omics__mask", -0.1, "at least 0, below 1"),
        ("omics__dropout", 1.0, "at least 0, below 1"),
        ("omics__dropout", "0.1", "a number"),
        ("omics__kl", -1e-3, "at least 0"),
        ("omics__kl", float("nan"), "at least 0"),
        ("omics__kl", float("inf"), "at least 0"),
        ("omics__flows", -1, "at least 0"),
        ("omics__flows", 1.5, "a whole number"),
        ("omics__hidden", (), "a tuple of one value or more"),
        ("omics__hidden", 256, "a tuple of one value or more"),
        ("omics__hidden", (256, 0), "at least 1"),
        ("omics__batch", 1, "at least 2"),
        ("omics__epochs", -1, "at least 0"),
        ("vision__epochs", 0, "at least 1"),
        ("omics__mask_weight", -1.0, "at least 0"),
        ("omics__kl_form", "analytic", "one of closed, drawn"),
        ("panel__rare_genes", "kept", "one of dropped, counted"),
        ("panel__variable_genes", "all", "one of own, context"),
        ("panel__neighbourhood", "hexagon", "one of radius, grid"),
        ("omics__lr", 0.0, "above 0"),
        ("vision__lora_dropout", 1, "below 1"),
        ("vision__decoder_dropout", -0.5, "at least 0"),
        ("vision__rank", 0, "at least 1"),
        ("vision__rank", 8.0, "a whole number"),
        ("vision__alpha", 0, "at least 1"),
        ("vision__blocks", True, "a whole number"),
        ("vision__views", -1, "at least 0"),
        ("vision__temperature", 0.0, "above 0"),
        ("vision__info_weight", -1.0, "at least 0"),
        ("vision__weight_decay", -0.2, "at least 0"),
        ("vision__learn_temperature", 1, "True or False"),
        ("panel__coverage", 1.1, "at most 1"),
        ("panel__own_weight", 2, "at most 1"),
        ("evaluation__folds", 1, "not 1"),
        ("evaluation__folds", -2, "at least 0"),
        ("evaluation__seeds", ("0",), "a whole number"),
        ("evaluation__alphas", (0.0,), "above 0"),
        ("panel__genes", "9", "a whole number"),
        ("image_size", 0, "at least 1"),
        ("um_per_px", 0.0, "above 0"),
        ("simulated", "yes", "True or False"),
        ("vision", {"rank": 8}, "VisionSettings"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(setting, wrong, expected):
    group, _, leaf = setting.rpartition("__")
    target = getattr(profiles.DEMO, group) if group else profiles.DEMO
    for make in (
        lambda: profiles.get("demo", **{setting: wrong}),
        lambda: dataclasses.replace(target, **{leaf: wrong}),
    ):
        with pytest.raises(SealError) as caught:
            make()
        assert caught.value.what == f"{group or 'profile'}.{leaf} is {wrong!r}"
        assert expected in caught.value.expected


def test_settings_are_checked_when_they_are_made():
    with pytest.raises(SealError, match=r"vision\.rank is 0"):
        profiles.VisionSettings(rank=0)


def test_equal_values_are_the_same_value():
    """Or settings that are equal would have two digests."""
    made = profiles.get(
        "demo",
        panel__genes=np.int64(9),
        evaluation__seeds=[np.int64(1), 2],
        omics__lr=np.float32(0.5),
        um_per_px=1,
        vision__learn_temperature=np.bool_(True),
    )
    plain = profiles.get(
        "demo",
        panel__genes=9,
        evaluation__seeds=(1, 2),
        omics__lr=0.5,
        um_per_px=1.0,
        vision__learn_temperature=True,
    )
    assert made == plain
    assert profiles.to_json(made) == profiles.to_json(plain)


def test_the_words_of_settings_are_those_that_the_code_knows():
    def words(settings, name):
        return set(get_args({f.name: f.type for f in dataclasses.fields(settings)}[name]))

    assert words(profiles.OmicsSettings, "gene_loss") == set(losses.GENE_LOSSES)
    assert words(profiles.EvaluationSettings, "split") == {*folds.UNITS, folds.GIVEN}
    assert words(profiles.ComputeSettings, "token_dtype") == set(tokens.DTYPES)
    assert words(profiles.ComputeSettings, "precision") == set(parallel.PRECISIONS)


def test_keys_leave_out_what_was_done_before_a_setting_was_there():
    """Or the demo's pairs and runs would be made anew; what is done now, where it differs, stands in them."""
    later = {"rare_genes", "variable_genes", "neighbourhood", "mask_weight", "kl_form", "encoder", "contrast"}
    for group in ("panel", "omics", "vision"):
        plain = dataclasses.asdict(getattr(profiles.DEMO, group))
        assert profiles.keyed(getattr(profiles.DEMO, group)) == {k: v for k, v in plain.items() if k not in later}
    assert later & {*profiles.keyed(profiles.MAPLE.panel), *profiles.keyed(profiles.MAPLE.omics)} == (
        later - {"neighbourhood", "encoder", "contrast"}
    )
    other = profiles.changed(profiles.DEMO, omics__mask_weight=10.0).omics
    assert profiles.keyed(other) != profiles.keyed(profiles.DEMO.omics)


# --- as a file ---

CHANGES = [
    {},
    {"vision__rank": 3, "vision__lr": 1e-5, "vision__learn_temperature": True},
    {"omics__hidden": (16, 8), "evaluation__seeds": (7,), "source_settings__organs": ("Breast",)},
    {"encoder": "uni2_h", "image_size": 56, "compute__tokens": "disk"},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda c: ", ".join(c) or "none")
@pytest.mark.parametrize("name", profiles.PROFILES)
def test_a_profile_comes_back_as_it_went(name, changes):
    profile = profiles.get(name, **changes)
    assert profiles.from_json(profiles.to_json(profile)) == profile


def test_a_profile_of_other_fields_is_refused():
    values = json.loads(profiles.to_json(profiles.DEMO))
    vision = values["vision"]
    for changed, named in (
        ({**values, "colour": "red"}, r"profile: unknown fields \['colour'\], missing fields \[\]"),
        ({**values, "vision": {**vision, "rnak": 3}}, r"vision: unknown fields \['rnak'\]"),
        ({k: v for k, v in values.items() if k != "vision"}, r"missing fields \['vision'\]"),
        ({**values, "vision": 3}, r"vision: unknown fields \[\], missing fields \['adapter', "),
        ({**values, "vision": {**vision, "rank": 0}}, r"vision\.rank is 0"),
        ([], "profile: unknown fields"),
    ):
        with pytest.raises(SealError, match=named):
            profiles.from_json(json.dumps(changed))
    with pytest.raises(SealError, match="the profile is not JSON"):
        profiles.from_json("{")
