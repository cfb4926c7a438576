"""Why the Hugging Face hub did not do it, in one message, and whether to try again."""

import errno
import os
import socket
import ssl

from seal.errors import SealError

BUSY = (408, 425, 429)  # what a server says that is busy; with 500 and above, one that is in trouble
IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


def _chain(error: BaseException) -> list[BaseException]:
    """An error and what it came from."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    return chain


def status(error: BaseException) -> int | None:
    """The HTTP status of the answer behind an error, None where there was none."""
    answers = (getattr(e, "response", None) for e in _chain(error))
    return next((answer.status_code for answer in answers if answer is not None), None)


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed a little later: a broken connection, a timeout, a busy server."""
    answer = status(error)
    if answer is not None:
        return answer in BUSY or answer >= 500
    # by name: the client changes its HTTP library between versions
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


def _is_local(error: BaseException) -> bool:
    """Whether the system itself raised it: what the network raises reaches us as an error of the client's."""
    plain = isinstance(error, OSError) and type(error).__module__ == "builtins" and error.errno is not None
    return plain and not isinstance(error, ConnectionError | TimeoutError)


def explain(
    error: BaseException,
    what: str,
    *,
    expected: str,
    address: str,
    space: str = "set HF_HOME to a folder on another disk",
    otherwise: str = "",
) -> SealError:
    """Say in one message why the hub did not do it; never shows a token.

    The hub's client raises errors of its own, of its HTTP library and of the system, and changes them between
    versions: they are told apart by status and by name.

    Parameters
    ----------
    what
        What was tried.
    expected
        What should have been there.
    address
        The repository's page, where access is asked for.
    space
        How another disk is chosen.
    otherwise
        Another way to the same end, if there is one.
    """
    why, do = _reason(error, address, space)
    return SealError(f"{what}: {why}", expected=expected, do=f"{do}; {otherwise}" if otherwise else do)


def _reason(error: BaseException, address: str, space: str) -> tuple[str, str]:
    chain, answer = _chain(error), status(error)
    names = {type(e).__name__ for e in chain}
    # the numbers of TLS and of name servers are their own: 1 is no EPERM there
    system = [e for e in chain if isinstance(e, OSError) and not isinstance(e, ssl.SSLError | socket.gaierror)]
    numbers = {e.errno for e in system}
    if numbers & {errno.ENOSPC, errno.EDQUOT} or any("No space left" in str(e) for e in chain):
        return "the disk is full", f"free some space, or {space}"
    if numbers & {errno.EACCES, errno.EPERM, errno.EROFS}:
        return "the disk cannot be written to", f"make the folder writable, or {space}"
    if errno.EIO in numbers:
        return f"the disk fails ({os.strerror(errno.EIO)})", f"check the disk, or {space}"
    if _is_local(error):
        where = error.filename2 or error.filename
        if error.errno in IN_THE_WAY:
            return f"{where} is in the way ({error.strerror})", f"move it away, or {space}"
        return f"{error.strerror}{f' ({where})' if where else ''}", f"look at the folder and its disk, or {space}"
    if "HFValidationError" in names:
        return "the hub allows no such name", 'give it as "user/name", of letters, digits, - _ .'
    if "LocalTokenNotFoundError" in names or answer == 401:
        do = f"ask for access at {address} if it is gated, then run `hf auth login` or set HF_TOKEN"
        return "the hub knows no valid token, or no such repository", do
    if answer == 403:
        do = f"ask for access at {address} (an answer can take days), or use a token with that right"
        return "the token's account has no access", do
    if answer is not None and (answer in BUSY or answer >= 500):
        return f"the hub answered {answer}, so it is busy or out of order", "run the same command later"
    if answer is not None:
        return f"the hub answered {answer}", f"look whether {address} still exists"
    why = f"the hub cannot be reached ({type(error).__name__})"
    return why, "connect to the network (HF_HUB_OFFLINE unset), then run the same command"
