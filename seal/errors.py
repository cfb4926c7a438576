"""The one error of this package: what is wrong, what was expected, what to do. Others' errors in words."""

import difflib
import errno
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)
# Of files that are whole: what is in their first bytes or in what HDF5 and anndata say; what that means; what to do.
_WHOLE = (
    ("version https://git-lfs", "a pointer of git-lfs, not the data", "run `git lfs pull` where it came from"),
    ("html", "a web page, not the data", "fetch it again, signed in where that is asked for"),
    ("\x1f\x8b", "packed with gzip", "unpack it"),
    ("unable to lock file", "locked by another program", "close that program, or set HDF5_USE_FILE_LOCKING=FALSE"),
    ("is not registered", "packed by a plug-in that is not installed", "pip install hdf5plugin, write it with gzip"),
    ("can't open directory", "packed by a plug-in that is not installed", "pip install hdf5plugin, write it with gzip"),
    ("superblock version", "written by a newer HDF5", "update h5py, or write it again in an older format"),
    ("no read method registered", "written by a newer anndata", "update anndata, or write it again with an older one"),
)


class SealError(Exception):
    """Bad input, named.

    Parameters
    ----------
    what
        The file or value and what is wrong with it.
    expected
        What should have been there.
    do
        What the user can do now.
    """

    def __init__(self, what: str, *, expected: str, do: str) -> None:
        self.what, self.expected, self.do = what, expected, do
        super().__init__(f"{what}\n  expected: {expected}\n  what to do: {do}")

    def __reduce__(self):  # keyword-only arguments would not survive the trip from a worker process
        return partial(SealError, expected=self.expected, do=self.do), (self.what,)


def suggest(word: object, known: Iterable[str]) -> str:
    """Ask for what was meant, if something of that name is near; else give nothing."""
    near = difflib.get_close_matches(str(word), known, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def require_known(what: str, word: str, known: Iterable[str]) -> str:
    """Give a word back if it is one of those that are known; the error asks for what was meant."""
    if word not in (known := list(known)):
        expected = f"one of {', '.join(known)}"
        raise SealError(f"unknown {what} {word!r}", expected=expected, do=suggest(word, known) or "choose one of them")
    return word


def run_command(command: Callable[..., object], *arguments: Any) -> int:
    """Run a command of a shell; its exit status: 2 of a SealError, which goes to stderr as it is, 130 of Ctrl-C."""
    try:
        command(*arguments)
    except SealError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def explain_unwritable(path: Path, error: OSError) -> SealError:
    """Say why a file or folder cannot be written, and what helps: room only where it is room that lacks."""
    help_first = "free some space" if error.errno in FULL else "look at the place and its permissions"
    return SealError(
        f"cannot write {path}: {error.strerror}",
        expected="a writable folder with enough free space",
        do=f"{help_first}, or set SEAL_HOME to a folder on another disk; the same command goes on from here",
    )


def explain_unreadable(path: Path, error: BaseException) -> tuple[str, str]:
    """Say why a file could not be read, and what to do: only what has no known reason is called damaged."""
    said, cause = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", error
    try:
        with Path(path).open("rb") as file:
            text = file.read(64).decode("latin-1")
    except OSError as own:  # missing, a folder, or not ours to read
        return own.strerror or said, "correct the path or the file's rights, or fetch or make it again"
    while cause is not None:
        text, cause = f"{text} {cause}".lower(), cause.__cause__ or cause.__context__
    for sign, what, do in _WHOLE:
        if sign in text:
            return f"it is not damaged, but {what}; {said}", do
    return said, "the file is truncated or corrupt: delete it and fetch or make it again"


def explain_hub_error(
    error: BaseException, what: str, *, expected: str, address: str, otherwise: str = ""
) -> SealError:
    """Say in one message why the Hugging Face hub, or the disk, did not do it; never shows a token.

    Parameters
    ----------
    what, expected
        What was tried, and what should have been there.
    address
        The repository's page, where access is asked for.
    otherwise
        Another way to the same end, if there is one.
    """
    why, do = _hub_reason(error, address)
    return SealError(f"{what}: {why}", expected=expected, do=f"{do}; {otherwise}" if otherwise else do)


def _hub_reason(error: BaseException, address: str) -> tuple[str, str]:
    """Why it was not done, and what to do.

    The hub's client raises errors of its own, of its HTTP library and of the system, and changes them between
    versions: they are told apart by status and by name.
    """
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    names = {kind.__name__ for e in chain for kind in type(e).__mro__}
    answers = (getattr(e, "response", None) for e in chain)
    status = next((answer.status_code for answer in answers if answer is not None), None)
    # the system's own errors: TLS and name servers have modules and numbers of their own
    plain = (e for e in chain if isinstance(e, OSError) and type(e).__module__ == "builtins" and e.errno)
    disk = next((e for e in plain if not isinstance(e, ConnectionError | TimeoutError)), None)
    space = "set HF_HOME (for HEST-1k: SEAL_HEST) to a folder on another disk"
    if (disk and disk.errno in FULL) or any("No space left" in str(e) for e in chain):
        return "the disk is full", f"free some space, or {space}"
    if disk and "TransportError" not in names:
        where = disk.filename2 or disk.filename
        return f"{disk.strerror}{f' ({where})' if where else ''}", f"look at the folder and its disk, or {space}"
    if "HFValidationError" in names:
        return "the hub allows no such name", 'give it as "user/name", of letters, digits, - _ .'
    if "LocalTokenNotFoundError" in names or status == 401:
        do = f"ask for access at {address} if it is gated, then run `hf auth login` or set HF_TOKEN"
        return "the hub knows no valid token, or no such repository", do
    if status == 403:
        do = f"ask for access at {address} (an answer can take days), or use a token with that right"
        return "the token's account has no access", do
    if status in (408, 425, 429) or (status or 0) >= 500:
        return f"the hub answered {status}, so it is busy or out of order", "run the same command later"
    if status is not None:
        return f"the hub answered {status}", f"look whether {address} still exists"
    why = f"the hub cannot be reached, or its answer broke off ({type(error).__name__})"
    return why, "connect to the network (HF_HUB_OFFLINE unset), then run the same command"
