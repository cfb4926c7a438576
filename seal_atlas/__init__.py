"""The simulated atlas: sections of simulated tissue of 14 organs with counts, and slides. Not real data.

A profile's source: `prepare` makes its samples, `methods` what the known truth would predict. README.md says more.
"""

from typing import Any

_PLACES = {
    "prepare": "writing.atlas",
    "prepare_unseen": "writing.atlas",
    "prepare_bench": "writing.hest_bench",
    "prepare_slides": "writing.cohorts",
    "slide_truth": "writing.cohorts",
    "methods": "counting.truth",
    "settings_of": "settings",
    "folders": "settings",
}
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: deleting an atlas takes no compiler."""
    from importlib import import_module

    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
