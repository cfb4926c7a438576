"""Folds: what is left out of training together, and the rule by which units are dealt into folds."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from seal.errors import SealError
from seal.profiles import EvaluationSettings, Shown

# what can be left out -> the field of a section that names it
UNITS = {"donor": "donor", "section": "sample", "study": "dataset", "organ": "organ"}
GIVEN = "given"  # the split that leaves out the sections whose role is "test"


@dataclass(frozen=True)
class Section:
    """One tissue section's rows, `start` to `stop`, in every table of the pairs."""

    sample: str
    donor: str
    organ: str
    disease_state: str
    technology: str
    grid: str
    um_per_px: float  # of the full-resolution image
    dataset: str
    licence: str
    role: str  # train or test, where a test set is given
    has_image: bool
    start: int
    stop: int
    nnz: int  # stored counts before its first row


@dataclass(frozen=True)
class Fold(Shown):
    """One split. `train` and `test` are rows with a patch, `omics` all training rows with expression.

    `share` is the part of the training rows that is left, see `part`.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    omics: np.ndarray
    share: float = 1.0

    def __str__(self) -> str:
        learned = f"{len(self.train):,} pairs to train on, stage 1 on {len(self.omics):,} spots"
        return f"fold {self.name}\n{learned}\n{len(self.test):,} pairs left out, to test on"

    def part(self, share: float, seed: int) -> "Fold":
        """The fold with a random share of its training rows, the test rows untouched."""
        draw = np.random.default_rng(seed)
        alone = np.setdiff1d(self.omics, self.train)  # spots without a patch, which stage 1 has besides
        train, alone = (draw.choice(rows, round(share * len(rows)), replace=False) for rows in (self.train, alone))
        train = np.sort(train)
        return replace(self, train=train, omics=np.sort(np.concatenate([train, alone])), share=share)


def left_out(sections: Sequence[Section], settings: EvaluationSettings) -> dict[str, list[Section]]:
    """Which sections each fold leaves out of training, by the fold's name.

    With `settings.split` "given", one fold, named test, leaves out the sections whose role is "test". Otherwise, with
    `settings.folds` 0, each unit (donor, section, study or organ, as `settings.split` says) that has patches
    is left out in turn, in order of name; the fold bears its name. With K, the units are dealt into K folds, see
    `deal_units`, named 1ofK to KofK. Sections of a unit without any patches are trained on by stage 1 in every fold.

    Raises
    ------
    SealError
        Fewer units than folds, fewer than two units, no section of a given test set or none to train on, two units
        that give one folder name, or a donor that would be on both sides (it is named; with the split "section"
        donors may be).

    Source: our choice.
    """
    if settings.split == GIVEN:
        return _leave_out_test_set(sections)
    units: dict[str, list[Section]] = {}
    for section in sections:
        units.setdefault(getattr(section, UNITS[settings.split]), []).append(section)
    units = {name: units[name] for name in sorted(units) if any(s.has_image for s in units[name])}
    if len(units) < max(2, settings.folds):
        raise SealError(
            f"only {len(units)} of what the split {settings.split!r} leaves out has patches: {', '.join(units)}",
            expected=f"{max(2, settings.folds)} or more",
            do="add sections with an image, lower the filters, or set fewer EvaluationSettings.folds",
        )
    folds = _deal_into_folds(units, settings.folds) if settings.folds else _leave_out_in_turn(units)
    if settings.split != "section":
        for name, inside in folds.items():
            _require_apart(name, inside, sections)
    return folds


def _leave_out_in_turn(units: dict[str, list[Section]]) -> dict[str, list[Section]]:
    folds = {_folder_name(name): inside for name, inside in units.items()}
    if len(folds) < len(units):
        raise SealError(
            f"two of these give the same folder name: {', '.join(units)}",
            expected="names that differ in more than characters that a folder name cannot hold",
            do="rename one of them in the metadata table",
        )
    return folds


def _leave_out_test_set(sections: Sequence[Section]) -> dict[str, list[Section]]:
    test = [s for s in sections if s.role == "test"]
    for role, inside in (("test", test), ("train", [s for s in sections if s.role != "test"])):
        if not any(s.has_image for s in inside):
            raise SealError(
                f"no section with patches has the role {role!r}",
                expected="sections to train on and sections of the test set",
                do="fetch samples of both (python -m seal fetch), or leave donors out (EvaluationSettings.split)",
            )
    _require_apart("test", test, sections)
    return {"test": test}


def _folder_name(name: str) -> str:
    return re.sub(r'[\\/:*?"<>|\x00-\x1f]+', "-", name).strip(" .")[:100]


def _deal_into_folds(units: dict[str, list[Section]], number: int) -> dict[str, list[Section]]:
    fold_of = deal_units({name: _kind(inside) for name, inside in units.items()}, number)
    folds: list[list[Section]] = [[] for _ in range(number)]
    for name, inside in units.items():
        folds[fold_of[name]] += inside
    return {f"{i:0{len(str(number))}d}of{number}": inside for i, inside in enumerate(folds, start=1)}


def _kind(sections: Iterable[Section]) -> tuple[str, str]:
    """Organs and disease states of a unit's sections with patches; most units have one of each."""
    shown = [s for s in sections if s.has_image]
    return " and ".join(sorted({s.organ for s in shown})), " and ".join(sorted({s.disease_state for s in shown}))


def _require_apart(fold: str, inside: Sequence[Section], sections: Sequence[Section]) -> None:
    if shared := {s.donor for s in inside} & {s.donor for s in set(sections) - set(inside)}:
        raise SealError(
            f"fold {fold} would test on donor {sorted(shared)[0]} and train on other sections of that donor",
            expected="all sections of a donor on one side",
            do="leave donors out (EvaluationSettings.split), or correct the donor in the metadata table",
        )


def deal_units(units: Mapping[str, tuple[str, str]], number: int) -> dict[str, int]:
    """Deal units (name -> organ, disease state) into folds: name -> fold, 0 to `number` - 1.

    The rule looks at nothing but organ, disease state and name.

    Organs come in order of name; within an organ the state that is rarest over all units comes first, then the name
    decides. Each unit goes to the fold with the fewest units of its organ; among those, of its state; among those,
    of all; among those, to the first. So no two folds differ by more than one in their units of an organ. Then two
    units of an organ change places wherever that evens out the states: wherever it lowers the sum over folds and
    states of the squared number of units, until nothing does.

    Source: our choice.
    """
    common = Counter(state for _, state in units.values())
    order = sorted(units, key=lambda name: (units[name][0], common[units[name][1]], units[name][1], name))
    held: list[Counter[tuple[str, str]]] = [Counter() for _ in range(number)]
    fold_of = {}
    for name in order:
        organ, state = units[name]
        keys = [("organ", organ), ("state", state), ("all", "")]
        best = min(range(number), key=lambda fold: [held[fold][key] for key in keys])
        held[best].update(keys)
        fold_of[name] = best
    states = [Counter({state: n for (kind, state), n in counts.items() if kind == "state"}) for counts in held]
    while any(_exchange(a, b, units, fold_of, states) for a, b in combinations(order, 2)):
        pass
    return fold_of


def _exchange(a: str, b: str, units: Mapping[str, tuple[str, str]], fold_of: dict, states: list[Counter]) -> bool:
    """Let two units of an organ change folds if that evens out the states; say whether they did."""
    (organ, one), (other_organ, other) = units[a], units[b]
    here, there = states[fold_of[a]], states[fold_of[b]]
    # twice this is by how much the sum of squares changes
    if organ != other_organ or one == other or here[other] + there[one] + 2 >= here[one] + there[other]:
        return False
    here.update({one: -1, other: 1})
    there.update({one: 1, other: -1})
    fold_of[a], fold_of[b] = fold_of[b], fold_of[a]
    return True


def make_folds(sections: Sequence[Section], settings: EvaluationSettings) -> tuple[Fold, ...]:
    """The folds as rows; see `left_out`, whose errors it raises."""
    folds = []
    for name, inside in left_out(sections, settings).items():
        outside = [section for section in sections if section not in inside]
        train = _rows(section for section in outside if section.has_image)
        test = _rows(section for section in sections if section in inside and section.has_image)
        folds.append(Fold(name, train, test, omics=_rows(outside)))
    return tuple(folds)


def _rows(sections: Iterable[Section]) -> np.ndarray:
    ranges = (np.arange(section.start, section.stop) for section in sections)
    return np.concatenate([np.empty(0, dtype=np.int64), *ranges])
