"""Bags: the patch features of each case's slides, read from TRIDENT's files case by case, within a bound of memory."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from seal.errors import SealError, require_known
from seal.files import contents, digest
from seal.shapes import Float
from seal.slides import trident
from seal.train import parallel


class Bags:
    """The bags of a cohort: features of each case's slides, h5 files in TRIDENT's layout, joined in their order.

    Bags are held once they were read, until half of the memory is full, with room for those on their way; the others
    are read anew each epoch, one ahead. The other half is for the runs.
    """

    def __init__(
        self, folder: Path, slides: Mapping[str, Sequence[str]], memory_gb: float = 4.0, precision: str = "float32"
    ) -> None:
        """`folder` of an encoder's features, the slides of each bag, and in what precision features are held."""
        self.folder, self.slides, self.memory = Path(folder), slides, memory_gb * 1e9
        self.dtype = parallel.PRECISIONS[require_known("precision", precision, parallel.PRECISIONS)]
        self.width, self.encoder, self.patches = 0, "", {}
        self._held, self._room, self._reader = {}, self.memory / 2, ThreadPoolExecutor(1)

    def files(self, names: Collection[str]) -> list[Path]:
        """Files of some bags."""
        return [self.folder / f"{slide}.h5" for name in names for slide in self.slides[name]]

    def look(self, names: Collection[str]) -> None:
        """Take down the patches of each bag, before any is read.

        Raises
        ------
        SealError
            A case without slides or patches, a slide without features, features of another encoder or width.
        """
        for name in names:
            if not self.slides.get(name):
                raise self._bad(name, "it has no slides")
            self.patches[name] = sum(self._look(name, path) for path in self.files([name]))
            if not self.patches[name]:
                raise self._bad(name, "its slides have no patches")

    def _look(self, name: str, path: Path) -> int:
        if not path.is_file():
            raise self._bad(name, f"slide {path.stem} has no features, {path} is missing")
        encoder = str(trident.attributes_of(path).get("encoder", ""))
        with h5py.File(path, "r") as file:
            shape, kind = file["features"].shape, file["features"].dtype.kind
        if len(shape) != 2 or kind != "f":
            raise self._bad(name, f"`features` of {path} are {list(shape)}, not floating [n, d]")
        self.width, self.encoder = self.width or shape[1], self.encoder or encoder
        if shape[1] != self.width:
            raise self._bad(name, f"features of {path} are {shape[1]} wide, those before {self.width}")
        if encoder and encoder != self.encoder:
            raise self._bad(name, f"features of {path} are of {encoder}, those before of {self.encoder}")
        return shape[0]

    def _bad(self, name: str, what: str) -> SealError:
        expected = "finite features [n, d] of one encoder for every slide of every case"
        return SealError(f"case {name}: {what}", expected=expected, do="embed its slides, or leave it out of the table")

    def read(self, name: str) -> Float[Tensor, "patches width"]:
        """Read a bag.

        Raises
        ------
        SealError
            A feature is not finite, or a file cannot be read.
        """
        if name not in self.patches:
            self.look([name])
        bag, start = torch.empty(self.patches[name], self.width, dtype=self.dtype), 0  # [n, d]
        for path in self.files([name]):
            part = trident.read_table(path, "features")
            if not np.isfinite(part).all():
                raise self._bad(name, f"features of {path} are not finite")
            bag[start : start + len(part)] = torch.from_numpy(part)
            start += len(part)
        return bag

    def stream(self, names: Sequence[str]) -> Iterator[Float[Tensor, "patches width"]]:
        """Give bags in turn, reading one ahead."""
        coming = 8 * max(self.patches.values(), default=0) * self.width  # bytes, of two bags in float32
        ahead = None
        for i, name in enumerate(names):
            bag = self._held.get(name)
            if bag is None:
                bag = (ahead or self._reader.submit(self.read, name)).result()
                if bag.nbytes <= self._room - coming:
                    self._held[name], self._room = bag, self._room - bag.nbytes
                ahead = None
            if ahead is None and (missing := next((n for n in names[i + 1 :] if n not in self._held), None)):
                ahead = self._reader.submit(self.read, missing)
            yield bag

    def digests(self, names: Collection[str]) -> dict[str, str]:
        """Digest of each bag's files."""
        found = iter(contents(self.files(names)))
        return {name: digest([next(found) for _ in self.slides[name]]) for name in names}
