"""What a fetch of HEST-1k would do: the files, their sizes and checksums, and what of them is on disk."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seal.data import hest_hub
from seal.data.hest_hub import HubFile
from seal.errors import SealError
from seal.files import read_json

RECORD, PARTS = "fetch.json", ".fetch"
KINDS = {"st": "h5ad", "patches": "h5", "metadata": "json"}
WHOLE, UNVERIFIED, ABSENT = "whole", "unverified", "absent"


@dataclass(frozen=True)
class Planned:
    """One file of a plan: what the hub says of it, and what is on disk.

    Attributes
    ----------
    state
        "whole": there, its checksum verified earlier; "unverified": there, of the right size; else "absent".
    there
        Bytes that need not be fetched.
    """

    file: HubFile
    state: str
    there: int


@dataclass(frozen=True)
class Plan:
    """What a fetch would do.

    Attributes
    ----------
    commit
        Of the data set.
    samples
        Their ids.
    files
        The metadata table, the samples' files, and files of another commit that were fetched earlier.
    """

    root: Path
    commit: str
    samples: tuple[str, ...]
    files: tuple[Planned, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(planned.file.size for planned in self.files)

    @property
    def missing(self) -> int:
        """Bytes to fetch."""
        return self.size - sum(planned.there for planned in self.files)

    def __str__(self) -> str:
        there = sum(planned.state != ABSENT for planned in self.files)
        return (
            f"HEST-1k at commit {self.commit[:8]}: {len(self.samples)} samples, {len(self.files)} files, "
            f"{gb(self.size)}; there already: {there} files; to fetch: {gb(self.missing)} into {self.root}"
        )


def gb(size: float) -> str:
    """Bytes as GB with the digits that matter, "0.05 GB" or "118 GB"."""
    return f"{size / 1e9:.0f} GB" if size >= 1e10 else f"{size / 1e9:.2g} GB"


def plan(ids: Sequence[str], root: Path, revision: str | None = None, slides: bool = False) -> Plan:
    """Ask the hub which files some samples have, and look which of them are on disk; writes nothing.

    Parameters
    ----------
    ids
        Of samples; none: the metadata table alone.
    root
        The folder of HEST-1k.
    revision
        A branch, a tag or a commit; None: the commit that was fetched first, the newest if nothing was.
    slides
        Whether the whole slides, wsis/, are wanted too.

    Raises
    ------
    SealError
        No network, no token, no access, an unknown sample, or one that lacks a file.

    Source: the layout is HEST-1k's; what is taken of it, our choice.
    """
    root, ids = Path(root), tuple(dict.fromkeys(ids))
    record = read_record(root)
    pinned = record["revision"]
    at = hest_hub.commit(revision) if revision or pinned is None else pinned
    kinds = {**KINDS, "wsis": "tif"} if slides else KINDS
    wanted = {id: [f"{kind}/{id}.{suffix}" for kind, suffix in kinds.items()] for id in ids}
    # A tree is of one commit: what another one left here comes along.
    others = [p for p, entry in record["files"].items() if entry["revision"] != at and (root / p).is_file()]
    table = hest_hub.table(at)
    paths = list(dict.fromkeys([*(path for some in wanted.values() for path in some), *others]))
    found = hest_hub.files([path for path in paths if path != table.path], at)
    for id, some in wanted.items():
        _require_all(id, some, found, at)
    return Plan(root, at, ids, tuple(look(file, root, record) for file in (table, *found.values())))


def _require_all(id: str, wanted: Sequence[str], found: dict[str, HubFile], at: str) -> None:
    lacking = [path for path in wanted if path not in found]
    if len(lacking) == len(wanted):
        raise SealError(
            f"HEST-1k has no sample {id!r} (commit {at[:8]})",
            expected="an id of the data set, such as TENX13",
            do="look it up in the column id of HEST_v*.csv",
        )
    if lacking:
        raise SealError(
            f"HEST-1k's sample {id} has no {', '.join(lacking)} (commit {at[:8]})",
            expected=", ".join(wanted),
            do="leave the sample out with --samples, or choose another commit with --revision",
        )


def read_record(root: Path) -> dict[str, Any]:
    """The commit a tree was fetched from, None before the first fetch, and what was verified, by path."""
    path = root / RECORD
    return read_json(path) if path.is_file() else {"revision": None, "files": {}}


def look(file: HubFile, root: Path, record: dict[str, Any]) -> Planned:
    """Say what is on disk of a file."""
    path, unfinished = root / file.path, part(root, file)
    if path.is_file() and path.stat().st_size == file.size:
        known = record["files"].get(file.path, {}).get("checksum") == file.checksum
        return Planned(file, WHOLE if known else UNVERIFIED, file.size)
    return Planned(file, ABSENT, min(unfinished.stat().st_size, file.size) if unfinished.is_file() else 0)


def part(root: Path, file: HubFile) -> Path:
    """Give the place where a file grows, its own (two samples may have the same content) and its version's."""
    return root / PARTS / f"{file.path.replace('/', '_')}.{file.checksum.partition(':')[2]}.part"


def verified(path: Path, file: HubFile) -> bool:
    """Whether a file on disk has the size and the checksum that the hub lists."""
    if path.stat().st_size != file.size:
        return False
    kind, _, expected = file.checksum.partition(":")
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % file.size)
    with path.open("rb") as content:
        while piece := content.read(2**20):
            digest.update(piece)
    return digest.hexdigest() == expected
