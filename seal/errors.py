"""The one error of this package: what is wrong, what was expected, what to do; and how a shell is told of it."""

import difflib
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any


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


def require_known(what: str, word: object, known: Iterable[str]) -> None:
    """Assert that a word is one of those that are known; the error asks for what was meant."""
    if word not in (known := list(known)):
        expected = f"one of {', '.join(known)}"
        raise SealError(f"unknown {what} {word!r}", expected=expected, do=suggest(word, known) or "choose one of them")


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
