"""What the assembly does for one sample: count, place, and write each fold's columns.

Each step ends with a file that says it is done and holds the checksums of what was written, so that a killed assembly
does not do it again. All of it works in `folder`, the pairs that are being assembled; what it holds is in `jobs`.
"""

import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seal.data import grid, sample_files
from seal.data.expression import neighbourhood, normalise, spot_context, totals
from seal.data.folds import Section
from seal.data.genes import Aliases, clean_genes
from seal.data.panel import load as load_panel
from seal.data.panel import sum_spots
from seal.data.samples import Sample
from seal.data.store import Block, write_block
from seal.errors import SealError
from seal.files import atomic, read_json, write_json
from seal.profiles import Profile

if TYPE_CHECKING:
    from scipy.sparse import csr_array

PARTS = "parts"  # a folder that the finished pairs lack
SPOTS = 128  # whose context is held at a time: it stays in the processor's cache
INDEX = {  # columns of spots.parquet
    **dict.fromkeys(("sample", "donor", "organ", "barcode"), "string"),
    **dict.fromkeys(("array_row", "array_col"), "int64"),
    **dict.fromkeys(("x", "y"), "float64"),
    "label": "string",
    "has_image": "bool",
}


@dataclass(frozen=True)
class Job:
    """One sample's work; its section, which says where its rows are, is known once all samples are counted."""

    folder: Path
    sample: Sample
    profile: Profile
    section: Section | None = None
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
def _read_aliases(folder: Path) -> Aliases:
    """What genes are called officially, as this assembly put it aside at its beginning."""
    return Aliases(read_json(folder / PARTS / "aliases.json"))


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
    genes, positions = clean_genes(data.var_names, _read_aliases(job.folder))
    used, settings = np.zeros(data.n_vars), job.profile.panel
    used[positions] = 1
    if settings.rare_genes == "dropped":
        used[totals(data.X.T) < settings.min_gene_counts] = 0
    keep = data.X @ used >= settings.min_spot_counts
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
    counts.data *= used[positions[order]][counts.indices]
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
    sample = job.sample
    frame = obs.rename(columns=dict(zip(grid.PIXELS, ("x", "y"), strict=True)))
    frame = frame.assign(sample=sample.id, donor=sample.donor, organ=sample.organ, has_image=sample.has_image)
    frame = frame.assign(barcode=obs.index.to_numpy()).reindex(columns=list(INDEX))
    frame["label"] = frame["label"].astype("object").where(frame["label"].notna(), None)
    with atomic(job.part("parquet")) as temporary:
        frame.to_parquet(temporary, index=False)


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
        counts = csr_array((part["data"], indices, part["indptr"]), shape=(len(part["indptr"]) - 1, len(genes)))
    return counts, listed


# ---- place -----------------------------------------------------------------------------------------------------


def place(job: Job) -> None:
    """Write a sample's counts, patches and moments into the pairs."""
    if _is_done(job, "place"):
        return
    counts, listed = _counted(job, _read_genes(job))
    _sum_up(job, counts, listed)
    section = job.section
    blocks = [
        write_block(job.folder, "counts/data.npy", section.nnz, counts.data, section.sample),
        write_block(job.folder, "counts/indices.npy", section.nnz, counts.indices, section.sample),
        write_block(
            job.folder, "counts/indptr.npy", section.start + 1, counts.indptr[1:] + section.nnz, section.sample
        ),
    ]
    if section.has_image:
        block = Block(job.folder, "patches.npy", section.start, section.stop, section.sample)
        barcodes = _read_spots(job)["barcode"].tolist()
        for chunk in sample_files.read_patches(job.sample, barcodes, job.profile.image_size, job.profile.um_per_px):
            block.write(chunk)
        blocks.append(block.close())
    write_json(job.part("place.json"), blocks)


def _read_spots(job: Job):
    import pandas as pd

    return pd.read_parquet(job.part("parquet"))


def _sum_up(job: Job, counts: "csr_array", listed: np.ndarray) -> None:
    """Write the sums that panels are chosen from, and put each spot's totals aside; some spots at a time."""
    adjacency, mixed, moments = _adjacency(job), np.empty(counts.shape[0], dtype=np.float32), None
    for start in range(0, len(mixed), SPOTS):
        spots = slice(start, start + SPOTS)
        context = spot_context(counts, adjacency, job.profile.panel.own_weight, spots)
        mixed[spots] = totals(context)
        varies = counts[spots] if job.profile.panel.variable_genes == "own" else context
        part = sum_spots(counts[spots], normalise(varies, job.profile.panel.target_sum), listed)
        moments = moments + part if moments else part
    moments.save(job.folder / "moments" / f"{job.sample.id}.npz")
    with atomic(job.part("totals.npy")) as temporary:
        np.save(temporary, np.stack([totals(counts), mixed]))


def _adjacency(job: Job) -> "csr_array":
    from scipy.sparse import csr_array

    places = _read_spots(job)[grid.PLACES].to_numpy()
    if job.profile.panel.neighbourhood == "grid":
        return grid.neighbours(*places.T, job.sample.grid)
    if job.sample.technology in ("Visium", "Visium HD"):
        return neighbourhood(*places.T)
    return csr_array((len(places), len(places)), dtype=np.float32)


# ---- folds -----------------------------------------------------------------------------------------------------


def write_folds(job: Job) -> None:
    """Write a sample's rows of each fold's tables, context and measured, some spots at a time."""
    if _is_done(job, "folds"):
        return
    genes, columns = _read_genes(job), {}
    for fold in job.folds:
        panel = load_panel(job.folder / "folds" / fold / "panel.json")
        chosen = np.searchsorted(genes, panel.genes)
        columns |= {f"folds/{fold}/context.npy": chosen, f"folds/{fold}/measured.npy": chosen[panel.test_columns]}
    # Only the genes that a panel has; what the others add to a spot's total was kept.
    used = np.unique(np.concatenate(list(columns.values())))
    counts, adjacency, settings = _counted(job, genes)[0][:, used], _adjacency(job), job.profile.panel
    own_total, total = np.load(job.part("totals.npy"))
    section = job.section
    blocks = {name: Block(job.folder, name, section.start, section.stop, section.sample) for name in columns}
    for start in range(0, counts.shape[0], SPOTS):
        spots = slice(start, start + SPOTS)
        context = spot_context(counts, adjacency, settings.own_weight, spots)
        context = normalise(context, settings.target_sum, total[spots])
        own = normalise(counts[spots], settings.target_sum, own_total[spots])
        for name, chosen in columns.items():
            expression = context if name.endswith("context.npy") else own
            blocks[name].write(expression[:, np.searchsorted(used, chosen)].toarray())
    write_json(job.part("folds.json"), [block.close() for block in blocks.values()])
