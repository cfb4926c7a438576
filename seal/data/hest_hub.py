"""HEST-1k on the Hugging Face hub: its files at one commit, and their bytes.

huggingface_hub's own download starts a file again when its process was killed, and waits without a limit for lists of
files; so its session (token, proxy, HF_ENDPOINT, offline mode) is used here with requests of our own.
"""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from seal.errors import SealError
from seal.hub_errors import explain, is_passing, status

REPOSITORY = "MahmoodLab/hest"
ADDRESS = f"https://huggingface.co/datasets/{REPOSITORY}"
TIMEOUT = 20.0  # s without a byte
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # s between attempts that bring nothing
LISTED = 100  # paths asked for at a time
ACCESS = f"a network that reaches the hub, and a token whose account has access to {ADDRESS}"


@dataclass(frozen=True)
class HubFile:
    """One file of the data set.

    Attributes
    ----------
    path
        Below the data set's root.
    size
        Bytes.
    checksum
        "sha256:..." of a large file's content, "git:..." of a small one, its blob's SHA-1; hex.
    """

    path: str
    size: int
    checksum: str


def commit(revision: str | None = None) -> str:
    """Resolve a branch, a tag or a commit (the newest where None) to a commit.

    Raises
    ------
    SealError
        No network, no token, no access, no such revision.
    """
    name = revision or "main"
    try:
        return str(_ask("GET", f"revision/{quote(name, safe='')}", "ask for HEST-1k")["sha"])
    except SealError as error:
        if status(error) != 404:
            raise
        raise SealError(
            f"HEST-1k has no revision {name!r}",
            expected="a branch, a tag or a whole commit of the data set",
            do=f"choose one of {ADDRESS}/commits/main, or leave --revision out",
        ) from error


def table(at: str) -> HubFile:
    """Give the newest metadata table, HEST_v*.csv, at a commit.

    Raises
    ------
    SealError
        There is none, or see `commit`.
    """
    listed = [_file(row) for row in _ask("GET", f"tree/{at}", "list HEST-1k's files") if row["type"] == "file"]
    tables = [file for file in listed if re.fullmatch(r"HEST_v\w+\.csv", file.path)]
    if not tables:
        raise SealError(
            f"commit {at[:8]} of {REPOSITORY} has no metadata table",
            expected="HEST_v*.csv at the root of the data set",
            do=f"look at {ADDRESS}/tree/{at}, and choose another one with --revision",
        )
    return max(tables, key=lambda file: [int(number) for number in re.findall(r"\d+", file.path)])


def files(paths: Sequence[str], at: str) -> dict[str, HubFile]:
    """Those of some paths that exist at a commit, with sizes and checksums.

    Raises
    ------
    SealError
        See `commit`.
    """
    found: dict[str, HubFile] = {}
    for start in range(0, len(paths), LISTED):
        some = list(paths[start : start + LISTED])
        form = {"paths": some, "expand": False}
        rows = _ask("POST", f"paths-info/{at}", "list HEST-1k's files", data=form)
        found |= {row["path"]: _file(row) for row in rows if row["type"] == "file" and row["path"] in some}
    return found


def _file(row: dict[str, Any]) -> HubFile:
    lfs = row.get("lfs")
    return HubFile(row["path"], row["size"], f"sha256:{lfs['oid']}" if lfs else f"git:{row['oid']}")


@contextmanager
def stream(file: HubFile, at: str, start: int) -> Iterator[tuple[int, Iterable[bytes]]]:
    """Open a file's bytes from `start` on.

    Yields
    ------
    Where the bytes begin (0 where the server cannot go on in the middle), and the bytes in pieces.

    Raises
    ------
    Whatever the hub's client raises; see `seal.hub_errors`.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = f"{constants.ENDPOINT}/datasets/{REPOSITORY}/resolve/{at}/{quote(file.path)}"
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}  # sizes and ranges are those of the file itself
    if start:
        headers["Range"] = f"bytes={start}-"
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT) as response:
        hf_raise_for_status(response)
        yield start if response.status_code == 206 else 0, response.iter_bytes()  # as they come: none lost by a break


def refused(error: BaseException, what: str, expected: str = ACCESS) -> SealError:
    """Say in one message why HEST-1k's hub, or the disk, did not do it."""
    return explain(
        error,
        f"cannot {what}",
        expected=expected,
        address=ADDRESS,
        space="set SEAL_HEST (or SEAL_HOME) to a folder on another disk",
    )


def _ask(method: str, route: str, what: str, **form: Any) -> Any:
    """Ask the hub's interface of the data set; again a few times while it is busy."""
    try:
        from huggingface_hub import constants
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status
    except ImportError as error:
        raise SealError(
            f"cannot {what}: the package huggingface_hub is not installed",
            expected="the packages of requirements.lock",
            do="install huggingface-hub, or copy HEST-1k by hand and set SEAL_HEST to the copy",
        ) from error
    url = f"{constants.ENDPOINT}/api/datasets/{REPOSITORY}/{route}"
    waits = iter(WAITS[:3])
    while True:
        try:
            answer = get_session().request(method, url, headers=build_hf_headers(), timeout=TIMEOUT, **form)
            hf_raise_for_status(answer)
            return answer.json()
        except Exception as error:
            wait = next(waits, None)
            if wait is None or not is_passing(error):
                raise refused(error, what) from error
            time.sleep(wait)
