"""The one error of this package: what is wrong, what was expected, what to do."""

from functools import partial


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
