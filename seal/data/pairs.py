"""Pairs of patch and spot, assembled once and read by everything that trains or evaluates.

One folder a profile::

    patches.npy          uint8 [pairs, size, size, 3]
    counts/              raw counts, sparse [spots, genes]: data, indices and indptr of one CSR matrix; the first
                         `pairs` rows belong to the patches
    genes.json           the columns of the counts: the union over all samples, a gene that a sample lacks counts 0
    spots.parquet        the index, one row a spot: sample, barcode, donor, organ, position, label
    moments/             sums over each sample's spots, from which any fold's panel is chosen (`seal.data.panel`)
    checksums.json       SHA-256 of everything, by sample (`python -m seal verify`)
    dropped.json         what was left out, a row a sample and reason: sample, what, reason, lost, of how many
    pairs.json           sections and the key of all inputs; written last
    folds/NAME/panel.json        the panel and each organ's test genes, chosen on the fold's training donors
    folds/NAME/context.npy       float32 [spots, panel]: spot context, normalised, log: what SEAL learns
    folds/NAME/measured.npy      float32 [spots, test genes]: a spot's own counts, normalised, log: what is predicted

Test genes are the union over the fold's test organs, in the panel's order of `Panel.test_genes`.

Training needs numpy alone to read these.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from seal import paths
from seal.data import panel as panels
from seal.data.folds import Fold, Section, left_out, make_folds
from seal.data.panel import Panel
from seal.data.store import RowFile
from seal.errors import SealError, require_known
from seal.files import digest, read_json
from seal.models.encoder_registry import find_spec
from seal.profiles import Profile, Shown, difference, for_encoder

# Of a profile, what its pairs depend on.
SETTINGS = (
    *("source", "source_settings", "selection", "image_size", "um_per_px", "panel"),
    *("evaluation__split", "evaluation__folds"),
)


@dataclass(frozen=True)
class Pairs(Shown):
    """The pairs of one profile, read from their folder; `genes`, if set, says how many genes of a panel are used."""

    folder: Path
    profile: Profile
    key: str
    n_pairs: int
    n_spots: int
    sections: tuple[Section, ...]
    genes: int | None = None
    further: bool = False  # under the profile of a further encoder, see `by_encoder`

    def __str__(self) -> str:
        donors, organs = ({getattr(section, field) for section in self.sections} for field in ("donor", "organ"))
        count = f"{self.n_pairs:,} pairs, {self.n_spots:,} spots with expression"
        numbers = {"section": len(self.sections), "donor": len(donors), "organ": len(organs)}
        where = ", ".join(f"{number} {what}{'s' * (number != 1)}" for what, number in numbers.items())
        return f"pairs of profile {self.profile.name}: {self.profile.label}\n{count}\n{where}"

    def with_profile(self, profile: Profile, genes: int | None = None) -> "Pairs":
        """The same pairs under other training settings, with the first `genes` genes of each panel.

        Raises
        ------
        SealError
            The profile's own pairs would be others.
        """
        if folder_of(profile) != self.folder:
            raise SealError(
                f"profile {profile.name} does not fit the pairs in {self.folder}",
                expected="the profile that assembled them, with other training settings",
                do="assemble its own pairs: seal.data.assemble.assemble(profile)",
            )
        return replace(self, profile=profile, genes=genes)

    def by_encoder(self) -> "tuple[Pairs, ...]":
        """The same pairs for the profile's encoder and for each further one, see `profiles.for_encoder`."""
        further = (find_spec(name) for name in self.profile.further_encoders)
        profiles = [for_encoder(self.profile, spec.name, spec.adapted_blocks) for spec in further]
        return (self, *(replace(self, profile=profile, further=True) for profile in profiles))

    @cached_property
    def patches(self) -> RowFile:
        """Patches, uint8 [pairs, size, size, 3], on disk; `read` gives those of some rows, a slice consecutive ones."""
        return RowFile(self.folder / "patches.npy", np.uint8, (self.profile.image_size, self.profile.image_size, 3))

    def digest_of(self, name: str) -> str:
        """Digest of what the assembly wrote into a file, "patches.npy" or "folds/NAME/context.npy"."""
        blocks = read_json(self.folder / "checksums.json")["parts"]
        return digest([(b["sample"], b["rows"], b["sha256"]) for b in blocks if b["file"] == name])

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
        small = self.patches[section.start : section.stop][:, step // 2 :: step, step // 2 :: step]
        span = step * self.profile.um_per_px / section.um_per_px
        xy = self.frame().iloc[section.start : section.stop][["x", "y"]].to_numpy() / span
        side = small.shape[1]
        corner = np.maximum(np.rint(xy - side / 2).astype(int), 0)
        width, height = corner.max(axis=0) + side
        image = np.full((height, width, 3), 255, dtype=np.uint8)
        for (x, y), patch in zip(corner, small, strict=True):
            image[y : y + side, x : x + side] = patch
        return image, span

    def counts(self, section: Section):
        """A section's raw counts, scipy CSR [spots of the section, genes]; the genes stand in genes.json."""
        from scipy.sparse import csr_array

        folder = self.folder / "counts"
        indptr = RowFile(folder / "indptr.npy", "<i8", ())[section.start : section.stop + 1]
        own = slice(indptr[0], indptr[-1])
        data, indices = RowFile(folder / "data.npy", "<f4", ())[own], RowFile(folder / "indices.npy", "<i4", ())[own]
        return csr_array((data, indices, indptr - indptr[0]), shape=(len(indptr) - 1, len(self.genes_counted)))

    @cached_property
    def genes_counted(self) -> list[str]:
        """The columns of `counts`."""
        return read_json(self.folder / "genes.json")

    def folds(self) -> tuple[Fold, ...]:
        """The folds over the donors with patches (or sections, studies, organs), see `seal.data.folds`."""
        return make_folds(self.sections, self.profile.evaluation)

    def trial_folds(self) -> tuple[Fold, ...]:
        """The first folds, as many as `EvaluationSettings.ablation_folds` says: of ablations and baselines."""
        return self.folds()[: self.profile.evaluation.ablation_folds or None]

    def fold(self, name: str) -> Fold:
        """Look a fold up by name."""
        folds = {fold.name: fold for fold in self.folds()}
        return folds[require_known("fold", name, folds)]

    def panel(self, fold: Fold) -> Panel:
        """The fold's gene panel; its donors are asserted to be training donors."""
        panel = panels.load(self.folder / "folds" / fold.name / "panel.json").first(self.genes)
        leaked = set(panel.donors) & set(self.per_spot("donor")[fold.test])
        if leaked and self.profile.evaluation.split != "section":
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
        """What patch-level evaluation predicts, float32 [spots, test genes], memory-mapped."""
        return np.load(self.folder / "folds" / fold.name / "measured.npy", mmap_mode="r")


def stored(folder: Path) -> dict:
    """The record of assembled pairs, pairs.json, checked against its own digest.

    Raises
    ------
    SealError
        It was altered.
    """
    record = read_json(folder / "pairs.json")
    if record.pop("digest", None) != digest(record):
        raise SealError(
            f"{folder / 'pairs.json'} was altered after it was written",
            expected="the record that the assembly wrote",
            do=f"delete {folder} and assemble the pairs again (notebook 01)",
        )
    return record


def folder_of(profile: Profile) -> Path:
    """Where a profile's pairs lie; those of other settings of the pairs have a folder of their own."""
    return paths.pairs(profile.name, difference(profile, SETTINGS))


def read(profile: Profile) -> Pairs:
    """Read a profile's assembled pairs.

    Raises
    ------
    SealError
        They are not assembled yet.
    """
    folder = folder_of(profile)
    if not (folder / "pairs.json").is_file():
        raise SealError(
            f"{folder} holds no assembled pairs",
            expected="pairs.json, written last by the assembly",
            do="run notebook 01",
        )
    record = stored(folder)
    sections = tuple(Section(**section) for section in record["sections"])
    return Pairs(folder, profile, record["key"], record["n_pairs"], record["n_spots"], sections)


def tabulate_samples(pairs: Pairs):
    """Give one row a section, with the fold that leaves it out (None: none does).

    Returns
    -------
    DataFrame with id, organ, disease_state, donor, technology, spots, pairs, dataset, licence, simulated, fold.
    """
    import pandas as pd

    out = left_out(pairs.sections, pairs.profile.evaluation)
    fold_of = {section.sample: name for name, inside in out.items() for section in inside}
    frame = pd.DataFrame([vars(section) for section in pairs.sections]).rename(columns={"sample": "id"})
    frame["spots"] = frame["stop"] - frame["start"]
    frame["pairs"] = frame["spots"] * frame["has_image"]
    frame["simulated"] = pairs.profile.simulated
    frame["fold"] = [fold_of.get(name) for name in frame["id"]]
    of_sample = ["id", "organ", "disease_state", "donor", "technology", "spots", "pairs"]
    return frame[[*of_sample, "dataset", "licence", "simulated", "fold"]]


def tabulate_dropped(folder: Path):
    """Give one row a reason for which an assembly left something out: what, reason, lost, of, samples, first."""
    import pandas as pd

    rows = pd.DataFrame(read_json(folder / "dropped.json"), columns=["sample", "what", "reason", "lost", "of"])
    sums = {"lost": ("lost", "sum"), "of": ("of", "sum"), "samples": ("sample", "size"), "first": ("sample", "first")}
    return rows.groupby(["what", "reason"], as_index=False).agg(**sums)


def tabulate_panel(pairs: Pairs):
    """Give one row a fold and gene, in panel order: fold, rank, gene, test, organs (those it is scored in)."""
    import pandas as pd

    rows = []
    for fold in pairs.folds():
        genes = pairs.panel(fold)
        organs = {gene: [o for o, scored in genes.test.items() if gene in scored] for gene in genes.test_genes}
        for rank, gene in enumerate(genes.genes, start=1):
            rows.append((fold.name, rank, gene, gene in organs, ", ".join(organs.get(gene, []))))
    return pd.DataFrame(rows, columns=["fold", "rank", "gene", "test", "organs"])
