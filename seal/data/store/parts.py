"""A sample's part of what lies in one file for all: patches, counts, rows of the table, and its moments."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seal.data import moments, sample_files
from seal.data.expression import neighbours, normalise, spot_context
from seal.data.hest import Sample
from seal.data.pairs import Section
from seal.data.store.blocks import Rows, allocate, file_block, full_disk, mark
from seal.data.store.plan import Build, Table, read_table
from seal.errors import SealError
from seal.files import read_json

COUNTS = {"data": np.float32, "indices": np.int32, "indptr": np.int64}  # of a sparse matrix in CSR, counts/NAME.npy
BLOCK = 1 << 22  # stored counts written and hashed at a time


@dataclass(frozen=True)
class Share:
    """A sample, its rows, and where its stored counts begin."""

    build: Build
    sample: Sample
    section: Section
    first_count: int
    counts: int


def allocate_all(build: Build, n_pairs: int, n_spots: int, nnz: int) -> None:
    """Make room for patches and counts."""
    size = build.profile.image_size
    allocate(build.folder / "patches.npy", np.uint8, (n_pairs, size, size, 3))
    lengths = {"data": nnz, "indices": nnz, "indptr": n_spots + 1}
    for name, dtype in COUNTS.items():
        allocate(build.folder / "counts" / f"{name}.npy", dtype, (lengths[name],))


def write(share: Share) -> None:
    """Read a sample and put all of its part in place, then say so."""
    build, sample, section = share.build, share.sample, share.section
    table = read_table(build, sample)
    if len(table.obs) != section.stop - section.start or table.counts.nnz != share.counts:
        raise SealError(
            f"sample {sample.id} changed while pairs were assembled",
            expected=f"{section.stop - section.start} spots and {share.counts} stored counts, as planned",
            do="leave the samples alone meanwhile, then run again",
        )
    genes = read_json(build.folder / "genes.json")
    counts = _over(table, genes)
    blocks = _write_counts(share, counts)
    path = build.folder / "moments" / f"{sample.id}.npz"
    _moments(share, table, counts, np.isin(genes, table.genes)).save(path)
    blocks[f"moments/{path.name}"] = file_block(path, sample.id)
    _write_spots(build.place(sample.id), section, table)
    barcodes = table.obs.index.tolist()
    del table, counts
    if sample.has_image:
        blocks["patches.npy"] = _write_patches(share, barcodes)
    mark(build.done("parts", sample.id), blocks)


def _over(table: Table, genes: list[str]):
    """A table's counts over the genes of all samples, CSR with sorted columns; a gene it lacks counts zero."""
    from scipy.sparse import csr_array

    where = {gene: column for column, gene in enumerate(genes)}
    columns = np.array([where[gene] for gene in table.genes], dtype=np.int32)
    counts = table.counts
    found = csr_array((counts.data, columns[counts.indices], counts.indptr), shape=(counts.shape[0], len(genes)))
    found.sort_indices()
    return found


def _write_counts(share: Share, counts) -> dict[str, list[dict]]:
    place = {name: share.build.folder / "counts" / f"{name}.npy" for name in COUNTS}
    blocks = {}
    for name in ("data", "indices"):
        with Rows(place[name], share.sample.id, share.first_count) as rows:
            for start in range(0, counts.nnz, BLOCK):
                rows.write(getattr(counts, name)[start : start + BLOCK])
        blocks[f"counts/{name}.npy"] = rows.blocks
    with Rows(place["indptr"], share.sample.id, share.section.start) as rows:  # its last is the next sample's first
        rows.write(share.first_count + counts.indptr.astype(np.int64))
    return blocks | {"counts/indptr.npy": rows.blocks}


def _moments(share: Share, table: Table, counts, listed: np.ndarray) -> moments.Moments:
    grid = table.obs["array_row"].to_numpy(), table.obs["array_col"].to_numpy()
    return moments.of(counts, context(counts, grid, share.section.grid, share.build.profile.panel), listed)


def context(counts, grid: tuple[np.ndarray, np.ndarray], kind: str, settings):
    """One section's spot context, normalised, log."""
    mixed = spot_context(counts, neighbours(*grid, kind), settings.own_weight)
    return normalise(mixed, settings.target_sum)


def spots_schema():
    """Columns of spots.parquet."""
    import pyarrow as pa

    kinds = {"string": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    columns = {
        "string": ("sample", "donor", "organ", "barcode"),
        "int": ("array_row", "array_col"),
        "float": ("x", "y"),
    }
    fields = [(name, kinds[kind]) for kind, names in columns.items() for name in names]
    return pa.schema([*fields, ("label", kinds["string"]), ("has_image", kinds["bool"]), ("row", kinds["int"])])


def _write_spots(path: Path, section: Section, table: Table) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = {"pxl_col_in_fullres": "x", "pxl_row_in_fullres": "y"}
    frame = table.obs.rename(columns=names).reindex(columns=["array_row", "array_col", "x", "y", "label"])
    frame["label"] = frame["label"].astype("object").where(frame["label"].notna(), None)
    frame = frame.assign(
        barcode=table.obs.index.to_numpy(),
        row=np.arange(section.start, section.stop),
        **{name: getattr(section, name) for name in ("sample", "donor", "organ", "has_image")},
    )
    try:
        found = pa.Table.from_pandas(frame, schema=spots_schema(), preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SealError(
            f"sample {section.sample}: its spots' table cannot be stored ({error})",
            expected="whole numbers in array_row and array_col, numbers in pixel positions, text as label",
            do="take the sample from its source again, or leave it out of the metadata table",
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with full_disk(path):
        pq.write_table(found.replace_schema_metadata(None), path)


def _write_patches(share: Share, barcodes: list[str]) -> list[dict]:
    profile = share.build.profile
    with Rows(share.build.folder / "patches.npy", share.sample.id, share.section.start) as rows:
        for chunk in sample_files.read_patches(share.sample, barcodes, profile.image_size, profile.um_per_px):
            rows.write(chunk)
    return rows.blocks
