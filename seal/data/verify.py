"""Every byte of assembled pairs against the checksums of their assembly."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from seal.data import store
from seal.data.cluster import cores
from seal.data.pairs import folder_of, stored
from seal.errors import SealError
from seal.files import read_json, sha256
from seal.profiles import Profile

CHUNK = 1 << 22  # bytes read at a time


@dataclass(frozen=True)
class _Block:
    """Consecutive bytes of a file and their SHA-256; `owner` names the sample and rows, if they are a sample's."""

    file: str
    start: int
    stop: int
    sha256: str
    owner: str = ""


def verify(profile: Profile) -> str:
    """Read everything that was assembled for a profile and compare it with its checksums.

    Returns
    -------
    How many files and bytes were checked, in words.

    Raises
    ------
    SealError
        Nothing is assembled, or a file is missing, has another size, is not of these pairs, or differs: it is named,
        with the sample and rows where a sample wrote it.
    """
    from tqdm import tqdm

    folder = folder_of(profile)
    if not (folder / "pairs.json").is_file():
        raise SealError(f"{folder} holds no assembled pairs", expected="pairs.json", do="run notebook 01")
    record = stored(folder)
    if not (folder / "checksums.json").is_file() or sha256(folder / "checksums.json") != record["checksums"]:
        raise _bad(folder / "checksums.json", "is missing or was altered")
    checksums = read_json(folder / "checksums.json")
    blocks = list(_blocks(folder, checksums))
    known = {block.file for block in blocks} | {"pairs.json", "checksums.json"}
    strangers = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    strangers = [name for name in strangers if name not in known]
    if strangers:
        raise _bad(folder / strangers[0], "is not of these pairs")
    size = sum(block.stop - block.start for block in blocks)
    with tqdm(total=size, desc="verify", unit="B", unit_scale=True) as bar, ThreadPoolExecutor(cores()) as pool:
        for block, found in zip(blocks, pool.map(lambda block: _digest(folder, block), blocks), strict=True):
            if found != block.sha256:
                raise _bad(folder / block.file, f"differs from what was written{block.owner}")
            bar.update(block.stop - block.start)
    return f"{len(known)} files, {size / 1e9:.2f} GB: every checksum holds"


def _blocks(folder: Path, checksums: dict) -> Iterator[_Block]:
    """All blocks; those of a file follow each other without a gap, from its first byte to its last."""
    reached = {}
    for name, head in checksums["heads"].items():
        if not (folder / name).is_file():
            raise _bad(folder / name, "is missing")
        store.layout(folder / name)  # the size that its header says
        reached[name] = head["bytes"]
        yield _Block(name, 0, head["bytes"], head["sha256"])
    for part in sorted(checksums["parts"], key=lambda part: (part["file"], part["rows"])):
        name, (first, last) = part["file"], part["rows"]
        offset, row = _row(folder / name)
        start, stop = offset + first * row, offset + last * row
        if start != reached[name]:
            raise _bad(folder / name, f"has bytes that no sample wrote, before row {first}")
        reached[name] = stop
        yield _Block(name, start, stop, part["sha256"], f": sample {part['sample']}, rows {first} to {last}")
    for name, end in reached.items():
        if end != (folder / name).stat().st_size:
            raise _bad(folder / name, "has bytes at its end that no sample wrote")
    for name, digest in checksums["whole"].items():
        if not (folder / name).is_file():
            raise _bad(folder / name, "is missing")
        yield _Block(name, 0, (folder / name).stat().st_size, digest)


def _row(path: Path) -> tuple[int, int]:
    """Where the data begin, and bytes a row."""
    offset, _, shape = store.layout(path)
    return offset, (path.stat().st_size - offset) // max(1, shape[0])


def _digest(folder: Path, block: _Block) -> str:
    found = hashlib.sha256()
    try:
        with (folder / block.file).open("rb") as file:
            file.seek(block.start)
            left = block.stop - block.start
            while left and (chunk := file.read(min(CHUNK, left))):
                found.update(chunk)
                left -= len(chunk)
    except OSError as error:
        raise _bad(folder / block.file, f"cannot be read ({error.strerror})") from error
    return found.hexdigest()


def _bad(path: Path, problem: str) -> SealError:
    return SealError(
        f"{path} {problem}",
        expected="the bytes that the assembly wrote",
        do="delete the profile's folder in data/pairs and assemble the pairs again (notebook 01); if it happens again, "
        "check the disk",
    )
