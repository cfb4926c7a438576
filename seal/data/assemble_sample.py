"""What the assembly does for one sample: count, place, and write each fold's columns.

Each step ends with a file that says it is done and holds the checksums of what was written, so that a killed assembly
does not do it again. All of it works in `folder`, the pairs that are being assembled; what it holds is in `jobs`.
"""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seal.data import grid, sample_files
from seal.data.expression import normalise, spot_context, totals
from seal.data.genes import Aliases, clean_genes
from seal.data.panel import Moments, add_moments, sum_spots
from seal.data.panel import load as load_panel
from seal.data.samples import Sample
from seal.data.store import Block, write_block
from seal.errors import SealError
from seal.files import atomic, read_json, write_json
from seal.profiles import PanelSettings

if TYPE_CHECKING:
    from scipy.sparse import csr_array

PARTS = "parts"  # a folder that the finished pairs lack
SPOTS = 128  # whose context is held at a time: it stays in the processor's cache
AliasFile = tuple[str, str]  # path and digest of a table of gene aliases
COLUMNS = ("array_row", "array_col", "x", "y", "label")  # of spots.parquet


@dataclass(frozen=True)
class Job:
    """One sample's work; rows and stored counts have their places once all samples are counted."""

    folder: Path
    sample: Sample
    panel: PanelSettings
    image_size: int
    um_per_px: float
    aliases: AliasFile | None = None
    start: int = 0
    stop: int = 0
    nnz: int = 0  # stored counts of the samples before
    folds: tuple[str, ...] = ()

    def part(self, suffix: str) -> Path:
        """A file that is put aside until all samples are written; STEP.json says that a step is done."""
        return self.folder / PARTS / f"{self.sample.id}.{suffix}"


def _is_done(job: Job, step: str) -> bool:
    if not (job.folder / PARTS).is_dir():
        raise SealError(
            f"the worker on {socket.gethostname()} does not see {job.folder}",
            expected="the same SEAL_HOME on a disk that all workers share",
            do="start the workers where that disk is mounted under the same name",
        )
    return job.part(f"{step}.json").is_file()


@lru_cache(maxsize=1)
def _alias_table(file: AliasFile | None) -> Aliases | None:
    """The table that the assembly began with; one that was edited meanwhile is read anew, or refused."""
    if file is None:
        return None
    table = Aliases.read(file[0])
    if table.digest != file[1]:
        raise SealError(
            f"{file[0]} is not the alias table that this assembly began with",
            expected="one table for all samples",
            do="leave it alone while pairs are assembled, then run the same command again",
        )
    return table


# ---- count -----------------------------------------------------------------------------------------------------


def count(job: Job) -> dict[str, Any]:
    """Read a sample's counts, keep the spots that are used, and put them aside; the numbers spots and nnz, and genes.

    Kept are spots with counts of these genes, under tissue and, of a sample with an image, with a patch; genes are
    cleaned, in order of their symbols.

    Raises
    ------
    SealError
        No spot is left, or as `sample_files.read_counts` and `grid.require_places`.
    """
    from scipy.sparse import csr_array

    if _is_done(job, "count"):
        return read_json(job.part("count.json"))
    sample = job.sample
    data = sample_files.read_counts(sample)
    genes, positions = clean_genes(data.var_names, _alias_table(job.aliases))
    used = np.zeros(data.n_vars)
    used[positions] = 1
    keep = data.X @ used >= job.panel.min_spot_counts
    if sample.has_image:
        keep &= data.obs_names.isin(sample_files.patch_barcodes(sample))
    if "in_tissue" in data.obs:
        keep &= data.obs["in_tissue"].to_numpy().astype(bool)
    if not keep.any():
        raise SealError(
            f"sample {sample.id} has no spot with counts, tissue and patch",
            expected="at least one",
            do=f"check {sample.st_path} and its patches, or take the sample out of the metadata table",
        )
    grid.require_places(data.obs[keep], sample.grid, sample.st_path)
    order = np.argsort(np.array(genes, dtype=str))
    counts = csr_array(data.X[np.flatnonzero(keep)][:, positions[order]], dtype=np.float32)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    with atomic(job.part("counts.npz")) as temporary:
        np.savez(temporary, data=counts.data, indices=counts.indices.astype(np.int32), indptr=counts.indptr)
    _write_spots(job, data.obs[keep])
    found = {"spots": counts.shape[0], "nnz": int(counts.nnz), "genes": [genes[i] for i in order]}
    write_json(job.part("count.json"), found)
    return found


def _write_spots(job: Job, obs) -> None:
    """A sample's rows of spots.parquet."""
    frame = obs.rename(columns=dict(zip(grid.PIXELS, ("x", "y"), strict=True))).reindex(columns=COLUMNS)
    frame["label"] = frame["label"].astype("object").where(frame["label"].notna(), None)
    sample = job.sample
    frame = frame.assign(sample=sample.id, donor=sample.donor, organ=sample.organ, has_image=sample.has_image)
    with atomic(job.part("parquet")) as temporary:
        frame.assign(barcode=obs.index.to_numpy()).to_parquet(temporary, index=False)


def _read_genes(job: Job) -> np.ndarray:
    """The union of all samples' genes, in order."""
    return np.array(read_json(job.folder / "genes.json"), dtype=str)


def _counted(job: Job, genes: np.ndarray) -> "tuple[csr_array, np.ndarray]":
    """A sample's counts over all genes, CSR [spots, genes], and whether it lists the gene, bool [genes]."""
    from scipy.sparse import csr_array

    columns = np.searchsorted(genes, read_json(job.part("count.json"))["genes"])
    listed = np.zeros(len(genes), dtype=bool)
    listed[columns] = True
    with np.load(job.part("counts.npz")) as part:
        indices = columns[part["indices"]].astype(np.int32)
        counts = csr_array((part["data"], indices, part["indptr"]), shape=(job.stop - job.start, len(genes)))
    return counts, listed


# ---- place -----------------------------------------------------------------------------------------------------


def place(job: Job) -> None:
    """Write a sample's counts, patches and moments into the pairs."""
    if _is_done(job, "place"):
        return
    counts, listed = _counted(job, _read_genes(job))
    _sum_up(job, counts, listed)
    blocks = [
        write_block(job.folder, "counts/data.npy", job.nnz, counts.data, job.sample.id),
        write_block(job.folder, "counts/indices.npy", job.nnz, counts.indices, job.sample.id),
        write_block(job.folder, "counts/indptr.npy", job.start + 1, counts.indptr[1:] + job.nnz, job.sample.id),
    ]
    if job.sample.has_image:
        block = Block(job.folder, "patches.npy", job.start, job.stop, job.sample.id)
        barcodes = _read_spots(job)["barcode"].tolist()
        for chunk in sample_files.read_patches(job.sample, barcodes, job.image_size, job.um_per_px):
            block.write(chunk)
        blocks.append(block.close())
    write_json(job.part("place.json"), blocks)


def _read_spots(job: Job):
    import pandas as pd

    return pd.read_parquet(job.part("parquet"))


def _sum_up(job: Job, counts: "csr_array", listed: np.ndarray) -> None:
    """Write the sums that panels are chosen from, and put each spot's totals aside; some spots at a time."""
    adjacency, own, mixed = _adjacency(job), totals(counts), np.empty(counts.shape[0], dtype=np.float32)

    def parts() -> Iterator[Moments]:
        for start in range(0, len(mixed), SPOTS):
            spots = slice(start, start + SPOTS)
            context = spot_context(counts, adjacency, job.panel.own_weight, spots)
            mixed[spots] = totals(context)
            yield sum_spots(counts[spots], normalise(context, job.panel.target_sum), listed)

    add_moments(parts()).save(job.folder / "moments" / f"{job.sample.id}.npz")
    with atomic(job.part("totals.npz")) as temporary:
        np.savez(temporary, own=own, context=mixed)


def _adjacency(job: Job) -> "csr_array":
    spots = _read_spots(job)
    return grid.neighbours(spots["array_row"].to_numpy(), spots["array_col"].to_numpy(), job.sample.grid)


# ---- folds -----------------------------------------------------------------------------------------------------


def write_folds(job: Job) -> None:
    """Write a sample's rows of each fold's tables: context and measured."""
    if _is_done(job, "folds"):
        return
    genes, columns = _read_genes(job), {}
    for fold in job.folds:
        panel = load_panel(job.folder / "folds" / fold / "panel.json")
        chosen = np.searchsorted(genes, panel.genes)
        columns |= {f"folds/{fold}/context.npy": chosen, f"folds/{fold}/measured.npy": chosen[panel.test_columns]}
    # Only the genes that a panel has; what the others add to a spot's total was kept.
    used = np.unique(np.concatenate(list(columns.values())))
    counts = _counted(job, genes)[0][:, used]
    columns = {name: np.searchsorted(used, chosen) for name, chosen in columns.items()}
    write_json(job.part("folds.json"), _write_expression(job, counts, columns))


def _write_expression(job: Job, counts: "csr_array", columns: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Write these columns of each file, of context or of a spot's own expression, some spots at a time."""
    adjacency, target = _adjacency(job), job.panel.target_sum
    blocks = {name: Block(job.folder, name, job.start, job.stop, job.sample.id) for name in columns}
    with np.load(job.part("totals.npz")) as stored:
        total = dict(stored)
    for start in range(0, counts.shape[0], SPOTS):
        spots = slice(start, start + SPOTS)
        context = spot_context(counts, adjacency, job.panel.own_weight, spots)
        context = normalise(context, target, total["context"][spots])
        own = normalise(counts[spots], target, total["own"][spots])
        for name, chosen in columns.items():
            expression = context if name.endswith("context.npy") else own
            blocks[name].write(expression[:, chosen].toarray())
    return [block.close() for block in blocks.values()]
