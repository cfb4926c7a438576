"""Folds: the rule that deals them, no donor on both sides, names that are safe as folders."""

from collections import Counter

import numpy as np
import pytest

from seal.data.folds import Fold, Section, deal_units, left_out, make_folds
from seal.errors import SealError
from seal.profiles import EvaluationSettings

ORGANS = [f"O{i:02}" for i in range(14)]


def section(name, donor, start=0, has_image=True, organ="Breast", state="Cancer", dataset="d", role="train"):
    known = name, donor, organ, state, "Visium", "visium", 1.0, dataset, "l", role
    return Section(*known, has_image, start, start + 3, nnz=start)


def split(unit, folds=0):
    return EvaluationSettings(split=unit, folds=folds)


def atlas(seed=0):
    """14 organs x 4 donors, states drawn in about the paper's shares."""
    draw = np.random.default_rng(seed).choice(
        ["Cancer", "Diseased", "Healthy", "Treated"], 56, p=[0.43, 0.2, 0.32, 0.05]
    )
    return {f"{organ}-{i}": (organ, draw[4 * o + i]) for o, organ in enumerate(ORGANS) for i in range(4)}


def as_sections(units):
    return [section(f"s-{n}", n, 3 * i, organ=o, state=s) for i, (n, (o, s)) in enumerate(units.items())]


def test_expression_only_sections_serve_stage_one_alone():
    sections = (section("a1", "A", 0), section("b1", "B", 3), section("a2", "A", 6, False), section("c", "C", 9, False))
    fold_a, fold_b = make_folds(sections, split("donor"))
    assert (fold_a.name, fold_b.name) == ("A", "B")
    assert fold_a.omics.tolist() == [3, 4, 5, 9, 10, 11]
    assert fold_a.train.tolist() == [3, 4, 5]
    assert fold_b.omics.tolist() == [0, 1, 2, 6, 7, 8, 9, 10, 11]
    assert fold_b.test.tolist() == [3, 4, 5]
    by_section = make_folds(sections, split("section"))[0]
    assert by_section.omics.tolist() == list(range(3, 12))


@pytest.mark.parametrize("number", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("seed", range(4))
def test_each_organ_is_spread_evenly_and_states_are_balanced(number, seed):
    units = atlas(seed)
    fold_of = deal_units(units, number)
    assert fold_of == deal_units(dict(reversed(units.items())), number)  # the order they come in decides nothing
    held = [[units[name] for name, fold in fold_of.items() if fold == k] for k in range(number)]
    for organ in ORGANS:
        counts = [sum(o == organ for o, _ in fold) for fold in held]
        assert max(counts) - min(counts) <= 1
    states = Counter(state for _, state in units.values())
    for state in states:
        counts = [sum(s == state for _, s in fold) for fold in held]
        assert max(counts) - min(counts) <= 2
    sizes = [len(fold) for fold in held]
    assert max(sizes) - min(sizes) <= 2


def test_organs_are_dealt_in_order_of_name_and_the_rarest_state_first():
    assert deal_units({"a": ("Lung", "s"), "b": ("Brain", "s")}, 2) == {"b": 0, "a": 1}
    units = {"a": ("Lung", "common"), "b": ("Lung", "rare"), "c": ("Skin", "common")}
    assert deal_units(units, 3) == {"b": 0, "a": 1, "c": 2}


def test_a_part_of_a_fold_draws_from_pairs_and_from_lone_spots_by_the_same_share():
    fold = Fold("f", np.arange(0, 40), np.arange(90, 99), np.arange(0, 60))
    part = fold.part(0.25, seed=1)
    assert (part.name, part.share, part.test.tolist()) == ("f", 0.25, fold.test.tolist())
    assert len(part.train) == 10
    assert set(part.train) <= set(fold.train)
    assert set(part.train) == set(part.omics) & set(fold.train), "stage 1 has no pair that stage 2 has not"
    assert len(part.omics) == len(set(part.omics)) == 15
    assert (np.diff(part.train) > 0).all()
    assert (np.diff(part.omics) > 0).all()
    assert part.train.tolist() == fold.part(0.25, seed=1).train.tolist() != fold.part(0.25, seed=2).train.tolist()


def test_dealt_folds_are_numbered_and_hold_every_donor_once():
    sections = as_sections(atlas())
    folds = make_folds(sections, split("donor", 4))
    assert [fold.name for fold in folds] == ["1of4", "2of4", "3of4", "4of4"]
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(3 * 56))
    for fold in folds:
        assert len(fold.test) == 3 * 14  # one donor of each organ
        assert not set(fold.test) & set(fold.omics)
        assert sorted([*fold.test, *fold.train]) == list(range(3 * 56))
    assert [f.name for f in make_folds(sections, split("donor", 12))][:2] == ["01of12", "02of12"]


def test_all_of_a_donors_sections_are_dealt_together():
    sections = [section(f"{d}{i}", d, 9 * n + 3 * i, has_image=i < 2) for n, d in enumerate("ABCDE") for i in range(3)]
    for inside in left_out(sections, split("donor", 2)).values():
        assert Counter(s.donor for s in inside) == {s.donor: 3 for s in inside}


def test_a_donor_that_would_be_on_both_sides_is_named():
    sections = [
        *(section("a", "A", 0, dataset="x"), section("b", "B", 3, dataset="y")),
        *(section("c", "C", 6, dataset="x"), section("b2", "B", 9, False, dataset="x")),
    ]
    with pytest.raises(SealError, match="test on donor B and train on other sections"):
        make_folds(sections, split("study"))
    assert [f.test.tolist() for f in make_folds(sections[:3], split("study"))] == [[0, 1, 2, 6, 7, 8], [3, 4, 5]]
    organs = [
        section("a", "A", 0, organ="Lung"),
        section("b", "B", 3, organ="Skin"),
        section("a2", "A", 6, organ="Skin"),
    ]
    with pytest.raises(SealError, match="donor A"):
        make_folds(organs, split("organ"))
    assert [f.name for f in make_folds(organs[:2], split("organ"))] == ["Lung", "Skin"]
    assert [f.name for f in make_folds(organs, split("section"))] == ["a", "a2", "b"]


def test_names_are_safe_as_folders():
    sections = [section("a", "A", 0, dataset="Atlas: lung / liver "), section("b", "B", 3, dataset="Skin")]
    assert [f.name for f in make_folds(sections, split("study"))] == ["Atlas- lung - liver", "Skin"]
    alike = [section("a", "x/1", 0), section("b", "x:1", 3)]
    with pytest.raises(SealError, match="x/1, x:1"):
        make_folds(alike, split("donor"))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (split("donor"), "only 1 of what the split 'donor'"),
        (split("section", 3), "only 2 of what the split 'section'"),
    ],
)
def test_what_cannot_be_split_is_an_error(settings, named):
    with pytest.raises(SealError, match=named):
        make_folds((section("a1", "A", 0), section("a2", "A", 3)), settings)


# ---- a given test set ----


def test_a_given_test_set_is_the_one_fold():
    sections = [
        section("s1", "a", 0, role="test"),
        section("s2", "b", 3),
        section("s3", "c", 6, role="test"),
        section("s4", "b", 9, has_image=False),
    ]
    (fold,) = make_folds(sections, split("given"))
    assert fold.name == "test"
    assert fold.test.tolist() == [0, 1, 2, 6, 7, 8]
    assert fold.train.tolist() == [3, 4, 5]
    assert fold.omics.tolist() == [3, 4, 5, 9, 10, 11]


def test_a_given_test_set_shares_no_donor():
    sections = [section("s1", "a", 0, role="test"), section("s2", "b", 3), section("s3", "a", 6)]
    with pytest.raises(SealError, match="fold test would test on donor a"):
        make_folds(sections, split("given"))


@pytest.mark.parametrize(("roles", "lacks"), [("train train", "test"), ("test test", "train")])
def test_a_given_test_set_has_two_sides(roles, lacks):
    sections = [section(f"s{i}", f"d{i}", 3 * i, role=role) for i, role in enumerate(roles.split())]
    with pytest.raises(SealError, match=f"no section with patches has the role '{lacks}'"):
        make_folds(sections, split("given"))
