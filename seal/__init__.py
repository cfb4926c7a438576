"""A companion to SEAL, spatial-transcriptomics-driven finetuning of pathology encoders.

    >>> import seal
    >>> profile = seal.profile("demo")
    >>> model, transform = seal.load("folder")  # a trained encoder, see seal.export.save

Submodules load on demand: `seal.data`, `seal.models`, `seal.train.runs`, `seal.embed`, `seal.evaluate`.
"""

import os
from typing import Any

from seal.errors import SealError
from seal.profiles import get as profile

# An OpenMP thread that waits spins, by default for milliseconds; on a busy machine that takes the others' time. So it
# spins briefly: GNU's runtime counts turns, LLVM's and Intel's milliseconds. They look when torch is imported, so this
# stands here, and in the Makefile; what the user set wins, and OMP_WAIT_POLICY says it for any runtime.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    os.environ.setdefault("KMP_BLOCKTIME", "1")

__version__ = "0.1.0"
__all__ = ["SealError", "__version__", "load", "profile"]


def __getattr__(name: str) -> Any:
    if name == "load":  # on demand: it imports torch
        from seal.export.load import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
