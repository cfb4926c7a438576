"""HEST-1k from the Hugging Face hub to disk, by sample: one commit, every checksum verified, whole files stay.

Files come into .fetch/, are verified there, and only then go to their places: what lies in st/, patches/, metadata/
and wsis/ is whole. fetch.json, beside the tables, holds the commit.
"""

import difflib
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from seal.data import maple
from seal.data.samples import find_hest_table
from seal.errors import SealError, explain_hub_error
from seal.files import lock, read_json, require_room, sha256, write_json
from seal.profiles import SelectionSettings

REPOSITORY = "MahmoodLab/hest"
ADDRESS = f"https://huggingface.co/datasets/{REPOSITORY}"
TIMEOUT = 20.0  # s that the hub has for its first answer
RECORD, PARTS = "fetch.json", ".fetch"
KINDS = {"st": "h5ad", "patches": "h5", "metadata": "json"}


@dataclass(frozen=True)
class Plan:
    """What a fetch would do."""

    root: Path
    commit: str
    samples: tuple[str, ...]
    paths: tuple[str, ...]  # of their files and of the metadata tables
    sizes: Mapping[str, int]  # bytes of every file of the data set

    def absent(self) -> set[str]:
        """Paths that are not on disk in their full size."""
        places = {path: self.root / path for path in self.paths}
        return {path for path, at in places.items() if not at.is_file() or at.stat().st_size != self.sizes[path]}

    def gb(self, paths: Iterable[str]) -> float:
        """GB of some paths."""
        return sum(self.sizes[path] for path in paths) / 1e9

    def __str__(self) -> str:
        return (
            f"HEST-1k at commit {self.commit[:8]}: {len(self.samples)} samples, {len(self.paths)} files, "
            f"{self.gb(self.paths):.3g} GB, of which {self.gb(self.absent()):.3g} GB to fetch into {self.root}"
        )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Say in one message what the hub or the disk did not do."""
    try:
        yield
    except SealError:
        raise
    except Exception as error:  # the client's, its HTTP library's and the system's
        expected = f"a network that reaches the hub, and a token whose account has access to {ADDRESS}"
        raise explain_hub_error(error, f"cannot {what}", expected=expected, address=ADDRESS) from error


def plan(
    ids: Sequence[str], root: Path, revision: str | None = None, slides: bool = False, skip: Sequence[str] = ()
) -> Plan:
    """Ask the hub which files some samples have; writes nothing.

    Parameters
    ----------
    ids
        Of samples; none: the metadata tables alone.
    revision
        A branch, a tag or a commit; None: the commit that was fetched first, the newest if nothing was.
    slides
        Whether the whole slides, wsis/, are wanted too.
    skip
        Those of `ids` to go on without.

    Raises
    ------
    SealError
        No network, no token, no access, a sample to skip that is not among `ids`, or samples that the hub lacks, whole
        or in part; all of them are named.
    """
    from huggingface_hub import HfApi, RepoFile

    if unknown := [id for id in skip if id not in ids]:
        near = difflib.get_close_matches(unknown[0], ids, n=1)
        raise SealError(
            f"--skip {' '.join(unknown)}: not among the {len(ids)} samples to fetch",
            expected="ids of samples that would be fetched",
            do=f"did you mean {near[0]!r}?" if near else "leave it out: it is not fetched anyway",
        )
    ids = tuple(id for id in dict.fromkeys(ids) if id not in skip)
    commit = _pinned_commit(root) if revision is None else None
    with _explained(f"find HEST-1k at revision {revision or commit or 'main'}"):
        commit = commit or _ask_commit(revision or "main")
        tree = HfApi().list_repo_tree(REPOSITORY, repo_type="dataset", recursive=True, revision=commit)
        sizes = {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}
    kinds = {**KINDS, "wsis": "tif"} if slides else KINDS
    wanted = {id: [f"{kind}/{id}.{suffix}" for kind, suffix in kinds.items()] for id in ids}
    _require_all(wanted, sizes, commit)
    tables = [path for path in sizes if path.startswith("HEST_v") and path.endswith(".csv")]
    return Plan(root, commit, ids, (*tables, *(path for some in wanted.values() for path in some)), sizes)


def _ask_commit(revision: str) -> str:
    """Ask which commit a revision is; wait where the hub is busy, as long as it says: `dataset_info` does not."""
    from huggingface_hub import constants, utils

    address = f"{constants.ENDPOINT}/api/datasets/{REPOSITORY}/revision/{quote(revision, safe='')}"
    options = {"headers": utils.build_hf_headers(), "timeout": TIMEOUT, "retry_on_exceptions": ()}
    answer = utils.http_backoff("GET", address, retry_on_status_codes=(408, 429, 503), **options)
    utils.hf_raise_for_status(answer)
    return answer.json()["sha"]


def _pinned_commit(root: Path) -> str | None:
    """The commit that a folder was fetched from."""
    return read_json(root / RECORD)["revision"] if (root / RECORD).is_file() else None


def _require_all(wanted: Mapping[str, list[str]], sizes: Mapping[str, int], commit: str) -> None:
    lacking = {path: id for id, paths in wanted.items() for path in paths if path not in sizes}
    if lacking:
        ids = " ".join(dict.fromkeys(lacking.values()))
        raise SealError(
            f"HEST-1k lacks {', '.join(lacking)} (commit {commit[:8]})",
            expected="ids of the column id of HEST_v*.csv, and every file of each sample",
            do=f"correct the ids, go on without (python -m seal fetch --skip {ids}), or choose another commit with "
            "--revision",
        )


def fetch(plan: Plan, workers: int = 8, check: bool = False) -> None:
    """Download what a plan lacks; killed or cut off, the same call keeps the files that came whole.

    A folder that came another way, or from another commit, is verified first, and any folder with `check`: what differs
    is fetched anew, whether the plan names it or not, so that a folder is of one commit. `workers` files come at once.

    Raises
    ------
    SealError
        No network, no token, no access, no room, a disk that fails, or a checksum that differs twice.
    """
    root, record = plan.root, plan.root / RECORD
    with _explained(f"fetch HEST-1k into {root}"), lock(record, "fetches and writes"):
        root.mkdir(parents=True, exist_ok=True)
        known = _pinned_commit(root) == plan.commit
        wanted = plan.absent() | (_damaged(root, plan.commit) if check or not known else set())
        if wanted:
            _download(plan, wanted, workers)
        if not known:
            record.unlink(missing_ok=True)  # killed among the moves, the folder is of no commit: verified next time
        if wanted:
            _settle(plan)
        write_json(record, {"repository": REPOSITORY, "revision": plan.commit})


def _damaged(folder: Path, commit: str) -> set[str]:
    """Paths below a folder whose content is not the commit's."""
    from huggingface_hub import HfApi

    print(f"checksums of the files in {folder}", file=sys.stderr)  # of all of MAPLE: some minutes without a word
    found = HfApi().verify_repo_checksums(REPOSITORY, repo_type="dataset", revision=commit, local_dir=folder)
    return {mismatch["path"] for mismatch in found.mismatches}


def _download(plan: Plan, wanted: set[str], workers: int) -> None:
    """Bring files into .fetch/ and verify them; what came damaged, once more."""
    from huggingface_hub import snapshot_download

    parts = plan.root / PARTS
    parts.mkdir(exist_ok=True)
    options = {"revision": plan.commit, "allow_patterns": sorted(wanted), "max_workers": max(workers, 1)}
    for _ in range(2):
        lost = [path for path in wanted if not (parts / path).is_file()]
        require_room(parts, round(1e9 * plan.gb(lost)), "HEST-1k")
        snapshot_download(REPOSITORY, repo_type="dataset", local_dir=parts, **options)
        for path in _damaged(parts, plan.commit):
            (parts / path).unlink()
    if lost := [path for path in sorted(wanted) if not (parts / path).is_file()]:
        raise SealError(
            f"{', '.join(lost[:3])} of HEST-1k came twice with another checksum than the hub lists; it was not kept",
            expected="the bytes whose checksum the hub lists",
            do="something between the hub and here changes files: try another network or proxy, or the same command",
        )


def _settle(plan: Plan) -> None:
    """Move files that were verified to their places."""
    parts = plan.root / PARTS
    paths = [path.relative_to(parts).as_posix() for path in parts.rglob("*") if path.is_file()]
    for path in plan.sizes.keys() & paths:
        (plan.root / path).parent.mkdir(parents=True, exist_ok=True)
        (parts / path).replace(plan.root / path)
    shutil.rmtree(parts)


def maple_ids(root: Path, settings: SelectionSettings, revision: str | None = None) -> list[str]:
    """Fetch HEST-1k's metadata tables and select MAPLE's samples from the newest.

    Raises
    ------
    SealError
        See `plan` and `fetch`, or the folder has a table of its own.
    """
    fetch(plan([], root, revision))
    selection = maple.read_selection(root, settings)
    if selection is None:
        raise SealError(
            f"{root}/metadata.csv is not HEST-1k's table",
            expected="HEST_v*.csv alone",
            do="set SEAL_HEST to a folder for HEST-1k, or name samples with --samples",
        )
    return selection.samples["id"].tolist()


def origin(root: Path, selection: maple.Selection) -> dict[str, str | None]:
    """What a selection follows from, for the stamp of its results: the table, its SHA-256, the data set's revision.

    The revision is the commit that was fetched; None where the table came another way.
    """
    table = find_hest_table(root)
    pinned = _pinned_commit(table.parent)
    return {"table": table.name, "sha256": sha256(table), "revision": pinned, "selection": selection.hash}
