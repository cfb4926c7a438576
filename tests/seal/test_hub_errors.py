"""What is said of the hub's errors, and which of them pass; the messages of its users are tested with them."""

import errno
import ssl

import httpx2
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from seal import hub_errors


def answered(status: int) -> Exception:
    error = RuntimeError("for token hf_secret")
    error.response = type("Response", (), {"status_code": status})
    return error


def caused(cause: BaseException) -> Exception:
    error = ValueError("could not")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (answered(503), True),
        (answered(500), True),
        (answered(429), True),
        (answered(401), False),
        (answered(404), False),
        (caused(answered(502)), True),
        (httpx2.ConnectError("refused"), True),
        (httpx2.ReadTimeout("late"), True),
        (httpx2.RemoteProtocolError("cut"), True),
        (OfflineModeIsEnabled("offline"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ValueError("not JSON"), False),
    ],
)
def test_which_errors_pass(error, passes):
    assert hub_errors.is_passing(error) is passes


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full"),
        (caused(OSError(errno.ENOSPC, "No space left on device")), "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied"), "the disk cannot be written to"),
        (OSError(errno.EIO, "Input/output error"), "the disk fails (Input/output error)"),
        (caused(OSError(errno.EIO, "Input/output error")), "the disk fails (Input/output error)"),
        (FileExistsError(errno.EEXIST, "File exists", "/x/st"), "/x/st is in the way (File exists)"),
        (
            IsADirectoryError(errno.EISDIR, "Is a directory", "/x/a", None, "/x/b"),
            "/x/b is in the way (Is a directory)",
        ),
        (OSError(errno.EFBIG, "File too large"), "File too large"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x/a"), "No such file (/x/a)"),
        (caused(ssl.SSLError(1, "certificate")), "the hub cannot be reached (ValueError)"),  # 1 is EPERM elsewhere
        (caused(ssl.SSLError(5, "system call")), "the hub cannot be reached (ValueError)"),  # and 5 EIO
        (caused(OSError(errno.ENETUNREACH, "unreachable")), "the hub cannot be reached (ValueError)"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "the hub cannot be reached (ConnectionResetError)"),
        (answered(502), "the hub answered 502, so it is busy or out of order"),
        (answered(410), "the hub answered 410"),
        (httpx2.ConnectError("hf_secret"), "the hub cannot be reached (ConnectError)"),
    ],
)
def test_each_reason_has_its_words(error, what):
    explained = hub_errors.explain(error, "cannot do it", expected="something", address="there", otherwise="or not")
    assert explained.what == f"cannot do it: {what}"
    assert explained.do.endswith("; or not")
    assert "hf_secret" not in str(explained)
