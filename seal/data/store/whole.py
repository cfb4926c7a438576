"""What is put together once all parts are there: the table of spots, the checksums, the folder's name."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from seal.data.pairs import Section
from seal.data.store.blocks import file_block, full_disk, header_block, marked
from seal.data.store.parts import spots_schema
from seal.data.store.plan import Build
from seal.files import sha256, write_json


def write_spots(build: Build, sections: Sequence[Section]) -> None:
    """Put the samples' tables together, one at a time, a row group each."""
    import pyarrow.parquet as pq

    path = build.folder / "spots.parquet"
    with full_disk(path), pq.ParquetWriter(path, spots_schema()) as writer:
        for section in sections:
            writer.write_table(pq.read_table(build.place(section.sample), schema=spots_schema()))


def write_checksums(build: Build, sections: Sequence[Section]) -> Path:
    """Write checksums.json: each file's size and, over the whole of it, the SHA-256 of its blocks."""
    blocks: dict[str, list[dict]] = {}
    for section in sections:
        for step in ("parts", "folds"):
            for name, found in marked(build.done(step, section.sample)).items():
                blocks.setdefault(name, []).extend(found)
    for name in sorted(blocks):
        if name.endswith(".npy"):
            blocks[name].insert(0, header_block(build.folder / name))
    panels = sorted((build.folder / "folds").glob("*/panel.json"))
    for path in (build.folder / "genes.json", build.folder / "spots.parquet", *panels):
        blocks[path.relative_to(build.folder).as_posix()] = file_block(path, None)
    files = {n: {"bytes": (build.folder / n).stat().st_size, "blocks": blocks[n]} for n in sorted(blocks)}
    return write_json(build.folder / "checksums.json", files)


def finish(build: Build, folder: Path, key: str, sections: Sequence[Section], n_pairs: int, truth: bool) -> None:
    """Write pairs.json, which says that all is there, and give the folder its name."""
    write_json(
        build.folder / "pairs.json",
        {
            "key": key,
            "n_pairs": n_pairs,
            "n_spots": sections[-1].stop,
            "truth": truth,
            "checksums": sha256(build.folder / "checksums.json"),
            "sections": [asdict(section) for section in sections],
        },
    )
    if folder.is_dir():
        shutil.rmtree(folder)
    build.folder.rename(folder)
    tidy(folder)


def tidy(folder: Path) -> None:
    """Remove what only a build that goes on would need."""
    shutil.rmtree(folder / "building", ignore_errors=True)
