"""Pairs of patch and spot, assembled once and read by everything that trains or evaluates.

One folder a profile::

    patches.npy          uint8 [pairs, size, size, 3], memory-mapped
    counts.npz           raw counts, sparse [spots, genes]; the first `pairs` rows belong to the patches
    genes.json           the columns of counts.npz
    spots.parquet        one row a spot: sample, barcode, donor, organ, position, label
    pairs.json           sections, folds and the key of all inputs; written last
    folds/NAME/panel.json        the panel, chosen on the fold's training donors
    folds/NAME/context.npy       float32 [spots, panel]: spot context, normalised, log: what SEAL learns
    folds/NAME/measured.npy      float32 [spots, test genes]: a spot's own counts, normalised, log: the truth

Training needs numpy alone to read these.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from seal import paths
from seal.data import panel as panels
from seal.data.panel import Panel
from seal.errors import SealError
from seal.files import digest, read_json
from seal.profiles import Profile, as_dict


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
    has_image: bool
    start: int
    stop: int


@dataclass(frozen=True)
class Fold:
    """One split. `train` and `test` are rows with a patch, `omics` all training rows with expression.

    `share` is the part of the training rows that is left, see `part`.
    """

    name: str
    organ: str
    train: np.ndarray
    test: np.ndarray
    omics: np.ndarray
    share: float = 1.0

    def part(self, share: float, seed: int) -> "Fold":
        """The fold with a random share of its training rows, the test rows untouched."""
        draw = np.random.default_rng(seed)

        def some(rows: np.ndarray) -> np.ndarray:
            return draw.choice(rows, round(share * len(rows)), replace=False)

        train = np.sort(some(self.train))
        alone = some(np.setdiff1d(self.omics, self.train))  # spots without a patch, which stage 1 has besides
        return replace(self, train=train, omics=np.sort(np.concatenate([train, alone])), share=share)


@dataclass(frozen=True)
class Pairs:
    """The pairs of one profile, read from their folder; `genes`, if set, is how many genes of a panel are used."""

    folder: Path
    profile: Profile
    key: str
    n_pairs: int
    n_spots: int
    sections: tuple[Section, ...]
    genes: int | None = None

    def with_profile(self, profile: Profile, genes: int | None = None) -> "Pairs":
        """The same pairs under other training settings, with the first `genes` genes of each panel.

        Raises
        ------
        SealError
            The profile's own pairs would be others.
        """
        if as_dict(profile)["panel"] != as_dict(self.profile)["panel"] or profile.name != self.profile.name:
            raise SealError(
                f"profile {profile.name} with other panel settings does not fit the pairs in {self.folder}",
                expected="the profile that assembled them, with other training settings",
                do="assemble its own pairs: seal.data.assemble.assemble(profile)",
            )
        key = self.key if genes is None else digest([self.key, "genes", genes])
        return replace(self, profile=profile, genes=genes, key=key)

    @cached_property
    def patches(self) -> np.ndarray:
        """Patches, uint8 [pairs, size, size, 3], memory-mapped."""
        return np.load(self.folder / "patches.npy", mmap_mode="r")

    def per_spot(self, field: str) -> np.ndarray:
        """A section's field ("donor", "organ", "sample", ...) repeated over its spots, [spots]."""
        lengths = [section.stop - section.start for section in self.sections]
        return np.repeat([getattr(section, field) for section in self.sections], lengths)

    def frame(self):
        """spots.parquet as a pandas DataFrame, one row a spot, in row order; x and y in full-resolution px."""
        import pandas as pd

        return pd.read_parquet(self.folder / "spots.parquet")

    def tissue(self, section: Section, um_per_px: float = 4.0) -> tuple[np.ndarray, float]:
        """Lay a section's patches out where they were cut, white between them.

        Returns
        -------
        Image, uint8 [H, W, 3], and how many full-resolution pixels one of its pixels spans.
        """
        step = max(1, round(um_per_px / self.profile.um_per_px))
        small = self.patches[section.start : section.stop, step // 2 :: step, step // 2 :: step]
        span = step * self.profile.um_per_px / section.um_per_px
        xy = self.frame().iloc[section.start : section.stop][["x", "y"]].to_numpy() / span
        side = small.shape[1]
        corner = np.maximum(np.rint(xy - side / 2).astype(int), 0)
        width, height = corner.max(axis=0) + side
        image = np.full((height, width, 3), 255, dtype=np.uint8)
        for (x, y), patch in zip(corner, small, strict=True):
            image[y : y + side, x : x + side] = patch
        return image, span

    def counts(self):
        """Raw counts, scipy CSR [spots, genes]; the genes stand in genes.json."""
        from scipy.sparse import load_npz

        return load_npz(self.folder / "counts.npz")

    def folds(self) -> tuple[Fold, ...]:
        """Leave-one-out folds over the donors (or sections, where the profile says so) with patches."""
        return make_folds(self.sections, self.profile.evaluation.split)

    def fold(self, name: str) -> Fold:
        """Look a fold up by name."""
        folds = {fold.name: fold for fold in self.folds()}
        if name not in folds:
            raise SealError(
                f"unknown fold {name!r}",
                expected=f"one of {', '.join(folds)}",
                do="name the donor that is left out",
            )
        return folds[name]

    def panel(self, fold: Fold) -> Panel:
        """The fold's gene panel; its donors are asserted to be training donors."""
        panel = panels.load(self.folder / "folds" / fold.name / "panel.json").first(self.genes)
        if self.profile.evaluation.split == "donor":
            leaked = set(panel.donors) & set(self.per_spot("donor")[fold.test])
            if leaked:
                raise SealError(
                    f"the panel of fold {fold.name} was chosen on its test donor {', '.join(sorted(leaked))}",
                    expected="a panel chosen on training donors only",
                    do=f"delete {self.folder} and assemble the pairs again",
                )
        return panel

    def context(self, fold: Fold) -> np.ndarray:
        """Expression as SEAL learns it, float32 [spots, panel genes], memory-mapped."""
        return np.load(self.folder / "folds" / fold.name / "context.npy", mmap_mode="r")[:, : self.genes]

    def measured(self, fold: Fold) -> np.ndarray:
        """The truth of patch-level evaluation, float32 [spots, test genes], memory-mapped."""
        return np.load(self.folder / "folds" / fold.name / "measured.npy", mmap_mode="r")


def make_folds(sections: tuple[Section, ...], split: str) -> tuple[Fold, ...]:
    """Leave one donor ("donor") or one section ("section") with patches out in turn, in order of name.

    Raises
    ------
    SealError
        Another split, or fewer than two donors (sections) have patches.
    """
    unit = {"donor": "donor", "section": "sample"}.get(split)
    if unit is None:
        raise SealError(
            f"unknown split {split!r}",
            expected="'donor' or 'section'",
            do="set EvaluationSettings.split",
        )
    held_out = sorted({getattr(s, unit) for s in sections if s.has_image})
    if len(held_out) < 2:
        raise SealError(
            f"only one {split} has patches: {held_out}",
            expected=f"two {split}s or more, so that one can be left out",
            do="add sections with an image, or lower the filters",
        )
    folds = []
    for name in held_out:
        inside = [s for s in sections if getattr(s, unit) == name]
        outside = [s for s in sections if getattr(s, unit) != name]
        folds.append(
            Fold(
                name=name,
                organ=inside[0].organ,
                train=_rows(s for s in outside if s.has_image),
                test=_rows(s for s in inside if s.has_image),
                omics=_rows(outside),
            )
        )
    return tuple(folds)


def _rows(sections: Iterable[Section]) -> np.ndarray:
    ranges = [np.arange(s.start, s.stop) for s in sections]
    return np.concatenate(ranges) if ranges else np.empty(0, dtype=np.int64)


def read(profile: Profile) -> Pairs:
    """Read a profile's assembled pairs.

    Raises
    ------
    SealError
        They are not assembled yet.
    """
    folder = paths.pairs(profile.name)
    if not (folder / "pairs.json").is_file():
        raise SealError(
            f"{folder} holds no assembled pairs",
            expected="pairs.json, written last by the assembly",
            do="run notebook 01",
        )
    stored = read_json(folder / "pairs.json")
    sections = tuple(Section(**section) for section in stored["sections"])
    return Pairs(folder, profile, stored["key"], stored["n_pairs"], stored["n_spots"], sections)
