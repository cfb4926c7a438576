"""What `errors.explain_hub_error` says of the hub's errors; the messages of its users are tested with them."""

import errno
import ssl

import httpx2
import pytest

from seal.errors import explain_hub_error


def answered(status: int) -> Exception:
    error = RuntimeError("for token hf_secret")
    error.response = type("Response", (), {"status_code": status})
    return error


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


OFF = "the hub cannot be reached, or its answer broke off"


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full"),
        (caused(ValueError("x"), OSError(errno.ENOSPC, "No space left on device")), "the disk is full"),
        (RuntimeError("Data processing error: No space left on device"), "the disk is full"),  # of the xet client
        (PermissionError(errno.EACCES, "Permission denied", "/x/a"), "Permission denied (/x/a)"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (caused(ValueError("x"), OSError(errno.EIO, "Input/output error")), "Input/output error"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/x/a", None, "/x/b"), "Is a directory (/x/b)"),
        (caused(ValueError("x"), ssl.SSLError(1, "certificate")), f"{OFF} (ValueError)"),  # 1 is EPERM elsewhere
        (caused(httpx2.ConnectError("x"), OSError(errno.ENETUNREACH, "unreachable")), f"{OFF} (ConnectError)"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), f"{OFF} (ConnectionResetError)"),
        (httpx2.ReadTimeout("hf_secret"), f"{OFF} (ReadTimeout)"),
        (answered(401), "the hub knows no valid token, or no such repository"),
        (answered(403), "the token's account has no access"),
        (answered(404), "the hub answered 404"),
        (answered(429), "the hub answered 429, so it is busy or out of order"),
        (caused(OSError("for token hf_secret"), answered(502)), "the hub answered 502, so it is busy or out of order"),
    ],
)
def test_each_reason_has_its_words_and_no_token(error, what):
    explained = explain_hub_error(error, "cannot do it", expected="something", address="there", otherwise="or not")
    assert explained.what == f"cannot do it: {what}"
    assert explained.do.endswith("; or not")
    assert "hf_secret" not in str(explained)
