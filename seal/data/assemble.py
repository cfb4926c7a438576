"""From samples in the HEST-1k layout to pairs (`seal.data.pairs`), whole or not at all, and verified byte by byte.

Work is done by sample (`seal.data.assemble_sample`), so memory does not grow with their number: first all are counted,
then each is written into its place, then each fold's panel is chosen from sums over spots, then each sample's columns
of the folds are written. A killed assembly goes on from there and ends in the same bytes.
"""

import functools
import glob
import importlib
import math
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np

from seal import files, paths
from seal.data import assemble_sample, cluster, store
from seal.data import panel as panels
from seal.data.assemble_sample import PARTS, Job
from seal.data.folds import Section, left_out
from seal.data.genes import Aliases
from seal.data.pairs import Pairs, folder_of, read, stored
from seal.data.samples import IMAGES, Sample, find_hest_table, read_samples, read_table
from seal.errors import SealError
from seal.files import Made, atomic, contents, digest, lock, read_json, require_room, sha256, swap, write_json
from seal.profiles import Profile, keyed

VERSION = 2  # counted up when the same samples and settings give other pairs
_Bytes = tuple[str, int, int, str, str]  # file, first byte, end, SHA-256 and, in words, whose they are
ROOM = 1.02  # of the bytes that are counted: small files besides


def assemble(profile: Profile) -> Pairs:
    """Make the profile's pairs from its source, or read them if they are there and current.

    An alias table that SEAL_ALIASES names settles what genes are called; `seal.data.cluster` says where it runs. Where
    another process assembles the same pairs, this one waits for it.

    Raises
    ------
    SealError
        Bad samples, no room on the disk, folds that cannot be made, or a scheduler that cannot be reached.
    """
    source = importlib.import_module(profile.source)
    with lock(paths.samples(profile.source), "prepares the samples of"):
        root = source.prepare(profile)
    frame = source.select_rows(profile, root) if hasattr(source, "select_rows") else read_table(root)
    lost, samples = _list_lost(root, frame["id"].tolist()), read_samples(root, frame)
    table = paths.given("SEAL_ALIASES")
    aliases = Aliases.read(table) if table else None
    made = _made_from(profile, samples, aliases, lost)
    folder = folder_of(profile)
    record = folder / "pairs.json"
    if not made.is_current(record):
        with lock(folder, "assembles"):
            if not made.is_current(record):  # another process may have made them meanwhile
                _build(folder, profile, samples, made, aliases)
    return read(profile)


def _list_lost(root: Path, ids: Sequence[str]) -> list[list]:
    """Samples of a table without counts or pictures, as rows of dropped.json; a SealError of most of one's own."""
    rows, faults, own = [], [], find_hest_table(root) is None
    for id in ids:
        what, places = "samples", [root / "st" / f"{id}.h5ad"]
        if places[0].is_file():
            images = (path for path in (root / "wsis").glob(f"{glob.escape(id)}.*") if path.stem == id)
            what, places = "pictures", [root / "patches" / f"{id}.h5", *images]
            if any(path.is_file() and path.suffix in (".h5", *IMAGES) for path in places):
                continue
        named = [path for path in places if path.is_symlink() or path.exists()]
        fault = "is not there" if not named else "has no known format" if named[0].exists() else "is a link to nothing"
        place = (named or places)[0]
        rows.append([id, what, f"{place.parent.name}/ID{place.suffix} {fault}", 1, 1])
        faults += [place] if named or (own and what == "samples") else []
    if 2 * len(faults) > len(ids):
        raise SealError(
            f"{root}: {len(faults)} of {len(ids)} samples in its table lack files, or these lead nowhere: {faults[0]}",
            expected="st/ID.h5ad of each sample, and pictures where patches/ or wsis/ name them",
            do="mount the disk that links lead to, correct ids or names of files, or shorten the table",
        )
    return rows


def _made_from(profile: Profile, samples: Sequence[Sample], aliases: Aliases | None, lost: list) -> Made:
    """Everything that the pairs depend on: the samples and their files' contents, the settings, the alias table."""
    named = [(s.id, path) for s in samples for path in (s.st_path, s.patches_path, s.wsi_path)]
    inputs = {f"{name} {path.parent.name}": path for name, path in named if path is not None and path.is_file()}
    known = [{k: v for k, v in asdict(s).items() if k != "spot_distance"} for s in samples]  # it is compared, no more
    settings = {name: getattr(profile, name) for name in ("image_size", "um_per_px")}
    parts = {
        "sample": {s.id: digest({**facts, "root": None}) for s, facts in zip(samples, known, strict=True)},
        "file": dict(zip(inputs, contents(inputs.values()), strict=True)),
        "panel": keyed(profile.panel),
        "settings": settings | {name: getattr(profile.evaluation, name) for name in ("split", "folds")},
        "aliases": aliases.digest if aliases else None,
        "lost": lost,
    }
    return Made("pairs", VERSION, parts)


def _build(folder: Path, profile: Profile, samples: Sequence[Sample], made: Made, aliases: Aliases | None) -> None:
    """Fill a folder of its own, and give it its name when it is whole: until then the pairs before it stay."""
    left_out(_place_sections(samples, [{"spots": 0, "nnz": 0}] * len(samples)), profile.evaluation)  # folds can be made
    partial, made = files.find_partial(folder, made)
    for name in (PARTS, "moments"):
        files.make_folder(partial / name)
    for place in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
        files.remove_parts(place)
    if not (partial / "pairs.json").is_file():  # else the last one was killed when all was written
        write_json(partial / PARTS / "aliases.json", dict(aliases.renamed) if aliases else {})
        # Samples with an image first: then row i of the counts belongs to patch i, and what follows is expression
        # alone, which only stage 1 uses.
        samples = sorted(samples, key=lambda sample: (not sample.has_image, sample.id))
        jobs = [Job(partial, sample, profile) for sample in samples]
        with cluster.open_executor(profile.compute.assembly, len(jobs)) as executor:
            _fill(partial, profile, jobs, made, executor)
    _settle(partial, folder)


def _fill(partial: Path, profile: Profile, jobs: Sequence[Job], made: Made, executor: Executor) -> None:
    run = functools.partial(cluster.run_jobs, executor)
    counts = run(assemble_sample.count, jobs, "counting", [job.sample.st_path.stat().st_size for job in jobs])
    write_json(partial / "dropped.json", [*made.parts["lost"], *(row for found in counts for row in found["dropped"])])
    genes = sorted({gene for found in counts for gene in found["genes"]})
    write_json(partial / "genes.json", genes)
    sections = _place_sections([job.sample for job in jobs], counts)
    jobs = [replace(job, section=section) for job, section in zip(jobs, sections, strict=True)]
    rows = {"n_pairs": max((s.stop for s in sections if s.has_image), default=0), "n_spots": sections[-1].stop}
    nnz = [found["nnz"] for found in counts]
    _make_arrays(partial, rows, sum(nnz), profile.image_size)
    sizes = [12 * n + found["spots"] * 3 * profile.image_size**2 for n, found in zip(nnz, counts, strict=True)]
    run(assemble_sample.place, jobs, "patches and counts", sizes)
    _join_spots(jobs, partial / "spots.parquet")
    folds = _choose_panels(partial, profile, sections, genes)
    run(assemble_sample.write_folds, [replace(job, folds=folds) for job in jobs], "folds", [12 * n for n in nnz])
    _write_record(partial, jobs, made, rows)


def _place_sections(samples: Sequence[Sample], counts: Sequence[dict]) -> list[Section]:
    """What the pairs know of each sample, with the place of its rows and stored counts."""
    sections, row, nnz = [], 0, 0
    for sample, found in zip(samples, counts, strict=True):
        values = {**vars(sample), "sample": sample.id, "has_image": sample.has_image}
        values |= {"start": row, "stop": row + found["spots"], "nnz": nnz}
        sections.append(Section(**{field.name: values[field.name] for field in fields(Section)}))
        row, nnz = row + found["spots"], nnz + found["nnz"]
    return sections


def _make_arrays(partial: Path, rows: dict[str, int], nnz: int, image_size: int) -> None:
    """Make the empty arrays that are written in parts, once it is sure that all fits on the disk."""
    arrays = {
        "patches.npy": ("u1", (rows["n_pairs"], image_size, image_size, 3)),
        "counts/data.npy": ("<f4", (nnz,)),
        "counts/indices.npy": ("<i4", (nnz,)),
        "counts/indptr.npy": ("<i8", (rows["n_spots"] + 1,)),
    }
    needed = sum(math.prod(shape) * np.dtype(dtype).itemsize for dtype, shape in arrays.values())
    there = sum(path.stat().st_blocks * 512 for name in arrays if (path := partial / name).is_file())
    require_room(partial.parent, int(ROOM * needed) - there, "pairs")
    for name, (dtype, shape) in arrays.items():
        store.create(partial / name, dtype, shape)


def _join_spots(jobs: Sequence[Job], path: Path) -> None:
    """spots.parquet out of the samples' parts, one at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(list(assemble_sample.INDEX.items()))
    with atomic(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for job in jobs:
            writer.write_table(pq.read_table(job.part("parquet")).cast(schema))


def _choose_panels(
    partial: Path, profile: Profile, sections: Sequence[Section], genes: Sequence[str]
) -> tuple[str, ...]:
    """Choose each fold's panel on its training donors, and make its empty tables; the names of the folds."""
    folds = left_out(sections, profile.evaluation)
    for name, inside in folds.items():
        home = partial / "folds" / name
        trained = [s for s in sections if s not in inside]
        scored = _scored(trained, sorted({s.organ for s in inside if s.has_image}))
        sums = functools.partial(_sum_donor, partial / "moments", trained)
        panel = panels.select(sums, {s.donor for s in trained}, genes, scored, profile.panel)
        panel.save(home / "panel.json")
        for table, columns in (("context", panel.genes), ("measured", panel.test_genes)):
            store.create(home / f"{table}.npy", "<f4", (sections[-1].stop, len(columns)))
    return tuple(folds)


def _sum_donor(folder: Path, sections: Sequence[Section], donor: str) -> panels.Moments:
    """Sums over a donor's spots in some sections, read from disk."""
    return panels.add_moments(panels.load_moments(folder / f"{s.sample}.npz") for s in sections if s.donor == donor)


def _scored(trained: Sequence[Section], tested: Sequence[str]) -> dict[str, list[str]]:
    """The training donors that choose each test organ's genes: all of them for an organ that no other donor has."""
    everyone = sorted({section.donor for section in trained})
    return {organ: sorted({s.donor for s in trained if s.organ == organ}) or everyone for organ in tested}


def _write_record(partial: Path, jobs: Sequence[Job], made: Made, rows: dict[str, int]) -> None:
    """Gather the checksums and write the record."""
    parts = [block for job in jobs for step in ("place", "folds") for block in read_json(job.part(f"{step}.json"))]
    in_parts = {block["file"] for block in parts}
    names = sorted(str(path.relative_to(partial)) for path in partial.rglob("*") if path.is_file())
    left_over = (f"{PARTS}/", "checksums.json")
    whole = [name for name in names if name not in in_parts and not name.startswith(left_over)]
    checksums = {
        "parts": parts,
        "heads": {name: store.hash_head(partial / name) for name in sorted(in_parts)},
        "whole": {name: sha256(partial / name) for name in whole},
    }
    write_json(partial / "checksums.json", checksums)
    record = made.stamp() | rows | {"sections": [asdict(job.section) for job in jobs]}
    record["checksums"] = sha256(partial / "checksums.json")
    write_json(partial / "pairs.json", record | {"digest": digest(record)})


def _settle(partial: Path, folder: Path) -> None:
    """Take away what was put aside, and give the folder its name; a killed one does it again."""
    if (partial / PARTS).is_dir():
        shutil.rmtree(partial / PARTS)
    swap(partial, folder)


# ---- verified --------------------------------------------------------------------------------------------------


def verify(profile: Profile) -> str:
    """Compare every byte that was assembled for a profile with its checksum; say how many files and bytes they are.

    Raises
    ------
    SealError
        Nothing is assembled, or a file is missing, has another size, is not of these pairs, or differs: it is named,
        with the sample and rows where a sample wrote it.
    """
    folder = read(profile).folder
    record = folder / "checksums.json"
    if not record.is_file() or sha256(record) != stored(folder)["checksums"]:
        raise _altered(record, "is missing or was altered")
    checksums = read_json(record)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in sorted(names ^ {*checksums["whole"], *checksums["heads"], "pairs.json", "checksums.json"}):
        raise _altered(folder / name, "is not of these pairs" if name in names else "is missing")
    blocks = list(_list_blocks(folder, checksums))

    def require_unchanged(block: _Bytes) -> None:
        name, start, stop, sha, owner = block
        if store.hash_bytes(folder / name, start, stop) != sha:
            raise _altered(folder / name, f"differs from what was written{owner}")

    sizes = [stop - start for _, start, stop, *_ in blocks]
    with ThreadPoolExecutor(cluster.cores()) as executor:
        cluster.run_jobs(executor, require_unchanged, blocks, "verify", sizes)
    return f"{len(names)} files, {sum(sizes) / 1e9:.2f} GB: every checksum holds"


def _list_blocks(folder: Path, checksums: dict) -> Iterator[_Bytes]:
    """Everything that has a checksum: between them, the blocks leave no byte of a file out."""
    for name, sha in checksums["whole"].items():
        yield name, 0, (folder / name).stat().st_size, sha, ""
    for name, head in checksums["heads"].items():
        yield name, 0, head["bytes"], head["sha256"], ""
    for part in checksums["parts"]:
        offset, dtype, shape = store.read_layout(folder / part["file"])
        row, (first, last) = math.prod(shape[1:]) * dtype.itemsize, part["rows"]
        owner = f": sample {part['sample']}, rows {first} to {last}"
        yield part["file"], offset + first * row, offset + last * row, part["sha256"], owner


def _altered(path: Path, problem: str) -> SealError:
    return SealError(
        f"{path} {problem}",
        expected="the bytes that the assembly wrote",
        do="delete the profile's folder in data/pairs and assemble the pairs again (notebook 01); if it happens again, "
        "check the disk",
    )
