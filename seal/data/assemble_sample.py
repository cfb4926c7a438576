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
from seal.data.panel import Moments, Panel, add_moments, sum_spots
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


def _require_folder(job: Job) -> None:
    if not (job.folder / PARTS).is_dir():
        raise SealError(
            f"the worker on {socket.gethostname()} does not see {job.folder}",
            expected="the same SEAL_HOME on a disk that all workers share",
            do="start the workers where that disk is mounted under the same name",
        )


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
    """Read a sample's counts, keep the spots that are used, and put them aside.

    Kept are spots with counts of these genes, under tissue and, of a sample with an image, with a patch; genes are
    cleaned, in order of their symbols.

    Returns
    -------
    spots, nnz, genes.

    Raises
    ------
    SealError
        No spot is left, or as `sample_files.read_counts` and `grid.require_places`.
    """
    _require_folder(job)
    if job.part("count.json").is_file():
        return read_json(job.part("count.json"))
    from scipy.sparse import csr_array

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
    found = {
        "spots": counts.shape[0],
        "nnz": int(counts.nnz),
        "genes": [genes[i] for i in order],
    }
    write_json(job.part("count.json"), found)
    return found


def _write_spots(job: Job, obs) -> None:
    """A sample's rows of spots.parquet."""
    names = {"pxl_col_in_fullres": "x", "pxl_row_in_fullres": "y"}
    frame = obs.rename(columns=names).reindex(columns=COLUMNS)
    frame["label"] = frame["label"].astype("object").where(frame["label"].notna(), None)
    frame.insert(0, "barcode", obs.index.to_numpy())
    for name in ("organ", "donor", "id"):
        frame.insert(0, "sample" if name == "id" else name, getattr(job.sample, name))
    with atomic(job.part("parquet")) as temporary:
        frame.assign(has_image=job.sample.has_image).to_parquet(temporary, index=False)


def counted(job: Job, genes: list[str]) -> "tuple[csr_array, np.ndarray]":
    """A sample's counts over the union of all samples' genes.

    Returns
    -------
    CSR [spots, genes], and whether the sample lists the gene, bool [genes]; a gene it lacks counts zero.
    """
    from scipy.sparse import csr_array

    own = read_json(job.part("count.json"))["genes"]
    columns = np.searchsorted(np.array(genes, dtype=str), np.array(own, dtype=str))
    listed = np.zeros(len(genes), dtype=bool)
    listed[columns] = True
    with np.load(job.part("counts.npz")) as part:
        indices = columns[part["indices"]].astype(np.int32)
        counts = csr_array((part["data"], indices, part["indptr"]), shape=(job.stop - job.start, len(genes)))
    return counts, listed


# ---- place -----------------------------------------------------------------------------------------------------


def place(job: Job) -> None:
    """Write a sample's counts, patches and moments into the pairs."""
    _require_folder(job)
    if job.part("place.json").is_file():
        return
    genes = read_json(job.folder / "genes.json")
    counts, listed = counted(job, genes)
    blocks = [
        write_block(job.folder, "counts/data.npy", job.nnz, counts.data, job.sample.id),
        write_block(job.folder, "counts/indices.npy", job.nnz, counts.indices, job.sample.id),
        write_block(job.folder, "counts/indptr.npy", job.start + 1, counts.indptr[1:] + job.nnz, job.sample.id),
    ]
    _sum_up(job, counts, listed)
    if job.sample.has_image:
        blocks.append(_place_patches(job))
    write_json(job.part("place.json"), blocks)


def _place_patches(job: Job) -> dict[str, Any]:
    barcodes = _spots(job)["barcode"].tolist()
    block = Block(job.folder, "patches.npy", job.start, job.stop, job.sample.id)
    for chunk in sample_files.read_patches(job.sample, barcodes, job.image_size, job.um_per_px):
        block.write(chunk)
    return block.close()


def _spots(job: Job):
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
    spots = _spots(job)
    return grid.neighbours(spots["array_row"].to_numpy(), spots["array_col"].to_numpy(), job.sample.grid)


# ---- folds -----------------------------------------------------------------------------------------------------


def write_folds(job: Job) -> None:
    """Write a sample's rows of each fold's tables: context and measured."""
    _require_folder(job)
    if job.part("folds.json").is_file():
        return
    genes = read_json(job.folder / "genes.json")
    panels = {f"folds/{name}": load_panel(job.folder / "folds" / name / "panel.json") for name in job.folds}
    # Only the genes that a panel has; what the others add to a spot's total was kept.
    used = sorted({gene for panel in panels.values() for gene in panel.genes})
    where = {gene: column for column, gene in enumerate(used)}
    counts = counted(job, genes)[0][:, np.searchsorted(np.array(genes, dtype=str), np.array(used, dtype=str))]
    columns = {folder: np.array([where[gene] for gene in panel.genes]) for folder, panel in panels.items()}
    blocks = _write_expression(job, counts, columns, panels)
    write_json(job.part("folds.json"), blocks)


def _write_expression(
    job: Job, counts: "csr_array", columns: dict[str, np.ndarray], panels: dict[str, Panel]
) -> list[dict[str, Any]]:
    """Write context and measured of each fold, some spots at a time."""
    adjacency, target = _adjacency(job), job.panel.target_sum
    names = [f"{folder}/{table}.npy" for folder in panels for table in ("context", "measured")]
    blocks = {name: Block(job.folder, name, job.start, job.stop, job.sample.id) for name in names}
    with np.load(job.part("totals.npz")) as stored:
        total = {name: stored[name] for name in ("own", "context")}
    for start in range(0, counts.shape[0], SPOTS):
        spots = slice(start, start + SPOTS)
        context = spot_context(counts, adjacency, job.panel.own_weight, spots)
        smooth = normalise(context, target, total["context"][spots])
        own = normalise(counts[spots], target, total["own"][spots])
        for folder, chosen in columns.items():
            blocks[f"{folder}/context.npy"].write(smooth[:, chosen].toarray())
            blocks[f"{folder}/measured.npy"].write(own[:, chosen[panels[folder].test_columns]].toarray())
    return [block.close() for block in blocks.values()]


def fold_tables(panel: Panel, n_spots: int) -> dict[str, tuple[int, int]]:
    """Name -> shape of a fold's tables."""
    return {"context": (n_spots, len(panel.genes)), "measured": (n_spots, len(panel.test_genes))}
