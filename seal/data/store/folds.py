"""What belongs to a fold: its panel, chosen on the training donors, and the panel's columns of every section."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seal.data import moments, simulated_truth
from seal.data import panel as panels
from seal.data.expression import normalise
from seal.data.folds import Fold
from seal.data.hest import Sample
from seal.data.moments import Moments
from seal.data.pairs import TRUTH, Section, read_counts
from seal.data.panel import Panel
from seal.data.store.blocks import Rows, allocate, mark
from seal.data.store.parts import context
from seal.data.store.plan import Build, read_table
from seal.files import read_json


class _ByDonor(Mapping[str, Moments]):
    """Each donor's sums over its sections; read when asked for, none kept."""

    def __init__(self, folder: Path, sections: Sequence[Section]) -> None:
        self.folder = folder
        self.samples: dict[str, list[str]] = {}
        for section in sections:
            self.samples.setdefault(section.donor, []).append(section.sample)

    def __getitem__(self, donor: str) -> Moments:
        return moments.total(moments.load(self.folder / f"{sample}.npz") for sample in self.samples[donor])

    def __iter__(self) -> Iterator[str]:
        return iter(self.samples)

    def __len__(self) -> int:
        return len(self.samples)


def choose_panel(build: Build, fold: Fold, sections: Sequence[Section]) -> Panel:
    """Choose a fold's panel on the donors of its training sections, unless that was done."""
    path = build.folder / "folds" / fold.name / "panel.json"
    if path.is_file():
        return panels.load(path)
    starts = np.array([section.start for section in sections])
    training = [sections[i] for i in np.flatnonzero(np.isin(starts, fold.omics))]
    tested = {sections[i].organ for i in np.flatnonzero(np.isin(starts, fold.test))}
    genes = read_json(build.folder / "genes.json")
    by_donor = _ByDonor(build.folder / "moments", training)
    panel = panels.select(by_donor, genes, scored(training, tested), build.profile.panel)
    panel.save(path)
    return panel


def scored(training: Sequence[Section], tested: set[str]) -> dict[str, list[str]]:
    """The training donors that choose each test organ's genes: all of them for an organ that no other donor has."""
    donors = sorted({section.donor for section in training})
    own = {organ: sorted({s.donor for s in training if s.organ == organ}) for organ in sorted(tested)}
    return {organ: names or donors for organ, names in own.items()}


def allocate_fold(build: Build, fold: Fold, panel: Panel, n_spots: int, n_pairs: int, truth: bool) -> None:
    """Make room for a fold's arrays."""
    folder, tested = build.folder / "folds" / fold.name, len(panel.test_genes)
    allocate(folder / "context.npy", np.float32, (n_spots, len(panel.genes)))
    allocate(folder / "measured.npy", np.float32, (n_spots, tested))
    for name in TRUTH if truth else ():
        allocate(folder / f"{name}.npy", np.float32, (n_pairs, tested))


@dataclass(frozen=True)
class Columns:
    """A section, and the folds that want columns of it."""

    build: Build
    sample: Sample
    section: Section
    folds: tuple[str, ...]
    truth: bool


def write(job: Columns) -> None:
    """Put one section's rows of all folds' arrays in place, then say so."""
    import pyarrow.parquet as pq

    build, section, settings = job.build, job.section, job.build.profile.panel
    counts = read_counts(build.folder, section)
    place = pq.read_table(build.place(section.sample), columns=["array_row", "array_col"])
    grid = tuple(column.to_numpy() for column in place.columns)
    smooth, own = context(counts, grid, section.grid, settings), normalise(counts, settings.target_sum)
    table = read_table(build, job.sample) if job.truth and section.has_image else None
    genes = read_json(build.folder / "genes.json")
    where = {gene: column for column, gene in enumerate(genes)}
    blocks: dict[str, list[dict]] = {}
    for name in job.folds:
        panel = panels.load(build.folder / "folds" / name / "panel.json")
        columns = np.array([where[gene] for gene in panel.genes])
        arrays = {"context": smooth[:, columns].toarray(), "measured": own[:, columns[panel.test_columns]].toarray()}
        for layer, shares in table.truth.items() if table else ():
            arrays[layer] = simulated_truth.log_expression(shares, table.genes, panel.test_genes, settings.target_sum)
        for array, values in arrays.items():
            with Rows(build.folder / "folds" / name / f"{array}.npy", section.sample, section.start) as rows:
                rows.write(values)
            blocks[f"folds/{name}/{array}.npy"] = rows.blocks
    mark(build.done("folds", section.sample), blocks)
