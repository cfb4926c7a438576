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
from seal.data.genes import Aliases, clean_genes, require_listed
from seal.data.panel import load as load_panel
from seal.data.panel import sum_spots
from seal.data.samples import Sample
from seal.data.store import Block, write_block
from seal.errors import SealError
from seal.files import atomic, read_json, write_json
from seal.profiles import Profile

if TYPE_CHECKING:
    from anndata import AnnData
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
        Few spots are left or none, or as `sample_files.read_counts` and `grid.require_places`.
    """
    from scipy.sparse import csr_array

    if _is_done(job, "count"):
        return read_json(job.part("count.json"))
    sample = job.sample
    data = sample_files.read_counts(sample)
    genes, summed = clean_genes(data.var_names, _read_aliases(job.folder))
    settings, order = job.profile.panel, np.argsort(np.array(genes, dtype=str))
    counts = csr_array(data.X, dtype=np.float32) @ summed[:, order]
    if settings.rare_genes == "dropped":
        counts.data *= (totals(counts.T) >= settings.min_gene_counts)[counts.indices]
    keep, dropped = _choose_spots(sample, data, totals(counts), settings.min_spot_counts)
    dropped.append(["genes", "control probe, or no name", data.n_vars - summed.nnz, data.n_vars])
    grid.require_places(data.obs[keep], sample.grid, sample.st_path, sample.um_per_px, sample.spot_distance)
    counts = counts[np.flatnonzero(keep)]
    counts.sum_duplicates()
    counts.eliminate_zeros()
    with atomic(job.part("counts.npz")) as temporary:
        np.savez(temporary, data=counts.data, indices=counts.indices.astype(np.int32), indptr=counts.indptr)
    _write_spots(job, data.obs[keep])
    found = {"spots": counts.shape[0], "nnz": int(counts.nnz), "genes": [genes[i] for i in order]}
    found["dropped"] = [[sample.id, what, reason, int(lost), of] for what, reason, lost, of in dropped if lost]
    write_json(job.part("count.json"), found)
    return found


def _choose_spots(sample: Sample, data: "AnnData", totals: np.ndarray, least: int) -> tuple[np.ndarray, list[list]]:
    """Which spots are used, bool [spots], and what is dropped (what, reason, lost, of); errors as `count`'s."""
    inside = np.asarray(data.obs.get("in_tissue", np.ones(data.n_obs))).astype(bool)
    named = sample_files.patch_barcodes(sample, data.obs) if sample.has_image else data.obs_names
    shown, counted = data.obs_names.isin(named), totals >= least
    used, met = inside & shown & counted, int(shown.sum())
    rows = [
        ["spots", "not in tissue", (~inside).sum(), data.n_obs],
        ["spots", "no patch", (inside & ~shown).sum(), data.n_obs],
        ["spots", f"fewer counts than {least}", (inside & shown & ~counted).sum(), data.n_obs],
        ["patches", "no spot has their barcode", len(named) - met, len(named)],
    ]
    # patches may be of some spots alone, and spots of some patches; of the fewer, most must meet
    if used.any() and 2 * met >= min(len(named), data.n_obs) and 2 * used.sum() >= (inside & shown).sum():
        return used, rows
    losses = "; ".join(f"{lost} of {of} {what}: {reason}" for what, reason, lost, of in rows if lost)
    raise SealError(
        f"sample {sample.id} has no spot with counts, tissue and patch, or loses most of them ({losses})",
        expected=f"most spots of {sample.st_path} with counts, and barcodes that are those of its patches",
        do=f"compare barcodes, such as {data.obs_names[0]!r} and of a patch {next(iter(named), None)!r}, or take the "
        "sample out of the metadata table",
    )


def _write_spots(job: Job, obs) -> None:
    """A sample's rows of spots.parquet."""
    sample = job.sample
    own = [column for column in (*grid.PLACES, *grid.PIXELS, "label") if column in obs]  # others may be called x or y
    frame = obs[own].rename(columns=dict(zip(grid.PIXELS, ("x", "y"), strict=True)))
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
    genes, columns, listed = _read_genes(job), {}, read_json(job.part("count.json"))["genes"]
    for fold in job.folds:
        panel = load_panel(job.folder / "folds" / fold / "panel.json")
        require_listed(listed, panel.genes, job.sample.id)
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
