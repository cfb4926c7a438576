"""Unknown names raise; the profiles differ in values only."""

import dataclasses

import pytest

from seal import profiles
from seal.errors import SealError


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
    second = profiles.changed(first, variant="longer", vision__epochs=1)
    assert second == profiles.get("demo", vision__rank=3, encoder="uni2_h", variant="longer", vision__epochs=1)
    assert (first.variant, first.vision.epochs) == ("", profiles.DEMO.vision.epochs)
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
