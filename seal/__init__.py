"""A companion to SEAL, spatial-transcriptomics-driven finetuning of pathology encoders.

    >>> import seal
    >>> profile = seal.profile("demo")

Submodules load on demand: `seal.data`, `seal.models`, `seal.stages`, `seal.evaluate`, `seal.artefacts`.
"""

from seal.errors import SealError
from seal.profiles import get as profile

__version__ = "0.1.0"
__all__ = ["SealError", "__version__", "profile"]
