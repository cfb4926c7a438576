"""A companion to SEAL, spatial-transcriptomics-driven finetuning of pathology encoders.

    >>> import seal
    >>> profile = seal.profile("demo")
    >>> model, transform = seal.load("folder")  # a trained encoder, see seal.export.save

Submodules load on demand: `seal.data`, `seal.models`, `seal.train.runs`, `seal.evaluate`, `figures.draw`.
"""

from typing import Any

from seal.errors import SealError
from seal.profiles import get as profile

__version__ = "0.1.0"
__all__ = ["SealError", "__version__", "load", "profile"]


def __getattr__(name: str) -> Any:
    if name == "load":  # on demand: it imports torch
        from seal.export.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
