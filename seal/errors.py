"""The one error of this package: what is wrong, what was expected, what to do; and how a shell is told of it."""

import sys
from collections.abc import Callable
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
