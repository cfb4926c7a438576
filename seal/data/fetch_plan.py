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


def plan(
    ids: Sequence[str], root: Path, revision: str | None = None, slides: bool = False, skip: Sequence[str] = ()
) -> Plan:
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
    skip
        Those of `ids` to go on without.

    Raises
    ------
    SealError
        No network, no token, no access, or samples that the hub lacks, whole or in part; all of them are named.

    Source: the layout is HEST-1k's; what is taken of it, our choice.
    """
    root, ids = Path(root), _without(ids, skip)
    record = read_record(root)
    pinned = record["revision"]
    at = hest_hub.commit(revision) if revision or pinned is None else pinned
    kinds = {**KINDS, "wsis": "tif"} if slides else KINDS
    wanted = {id: [f"{kind}/{id}.{suffix}" for kind, suffix in kinds.items()] for id in ids}
    # A tree is of one commit: what another one left here comes along with the first samples, not with the table alone.
    left = [p for p, entry in record["files"].items() if entry["revision"] != at and (root / p).is_file()]
    others = left if ids else []
    table = hest_hub.table(at)
    paths = list(dict.fromkeys([*(path for some in wanted.values() for path in some), *others]))
    found = hest_hub.files([path for path in paths if path != table.path], at)
    _require_all(wanted, found, at)
    return Plan(root, at, ids, tuple(look(file, root, record) for file in (table, *found.values())))


def _without(ids: Sequence[str], skip: Sequence[str]) -> tuple[str, ...]:
    ids = tuple(dict.fromkeys(ids))
    unknown = [id for id in skip if id not in ids]
    if unknown:
        raise SealError(
            f"--skip names {', '.join(unknown)}, not to be fetched anyway",
            expected="ids of samples that would be fetched",
            do="leave them out of --skip, or correct the ids",
        )
    return tuple(id for id in ids if id not in skip)


def _require_all(wanted: dict[str, list[str]], found: dict[str, HubFile], at: str) -> None:
    lacking = {id: [path for path in some if path not in found] for id, some in wanted.items()}
    lacking = {id: paths for id, paths in lacking.items() if paths}
    if lacking:
        each = [
            f"no sample {id!r}" if paths == wanted[id] else f"no {', '.join(paths)}" for id, paths in lacking.items()
        ]
        raise SealError(
            f"HEST-1k has {'; '.join(each)} (commit {at[:8]})",
            expected="ids of the column id of HEST_v*.csv, and every file of each sample",
            do=f"correct the ids, go on without (python -m seal fetch --skip {' '.join(lacking)}), or choose another "
            "commit with --revision",
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
    return root / PARTS / f"{_flat(file.path)}.{file.checksum.partition(':')[2]}.part"


def leftovers(plan: Plan) -> list[Path]:
    """What grew of a plan's files, of whatever version; what grew of others may still be taken up."""
    names = {_flat(planned.file.path) for planned in plan.files}
    return [path for path in (plan.root / PARTS).glob("*.part") if path.name.rsplit(".", 2)[0] in names]


def _flat(path: str) -> str:
    return path.replace("/", "_")


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
