"""What one step of each stage does; `seal.train` repeats it.

A step of stage 2 is cut twice without changing its result. Over processes: each embeds its share of the batch,
the embeddings are gathered, every process computes the same loss on all of them. Over chunks (Gao et al. 2021,
GradCache): embeddings first without a graph, then the loss and its gradient g = dL/dz, then each chunk again,
with a graph, seeded with its part of g. Since dL/dtheta = sum_chunks g_c . dz_c/dtheta, the sum over chunks and
processes is the gradient of the whole batch. A chunk draws its dropout from its own seed, so both passes, and
any number of processes with chunks of the same size, see the same masks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from seal import parallel
from seal.models.omics import Rows, SealOmics
from seal.models.vision import SealVision
from seal.tokens import TokenSource
from seal.train import Batch, seeded


@dataclass(frozen=True)
class Expression:
    """Rows of a memory-mapped expression matrix [spots, G], read when they are asked for: x[positions] -> [B, G]."""

    matrix: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: Tensor) -> Tensor:
        return torch.from_numpy(np.array(self.matrix[self.rows[positions.numpy()]])).to(parallel.device())


@dataclass(frozen=True)
class OmicsTask:
    """Stage 1: reconstruct expression, x [n, G]."""

    model: SealOmics
    x: Rows

    @property
    def n(self) -> int:
        """Training spots."""
        return len(self.x)

    def stream(self, batches: Sequence[Batch]) -> Iterator[Batch]:
        """Nothing to read ahead: a batch of expression is small."""
        return iter(batches)

    def backward(self, inputs: Batch) -> dict[str, Tensor]:
        """L_REC,omics (and KL) of one batch."""
        torch.manual_seed(inputs.seed)
        terms = self.model.losses(self.x[inputs.rows])
        terms["total"].backward()
        return terms


@dataclass(frozen=True)
class Share:
    """One process's part of a batch: its chunks' tokens and seeds, how many rows each process has, and the batch."""

    batch: Batch
    tokens: list[Tensor]
    seeds: list[int]
    counts: list[int]


@dataclass(frozen=True)
class VisionTask:
    """Stage 2: align and reconstruct, on trunk tokens.

    Parameters
    ----------
    source
        Where tokens come from.
    rows
        Row of each training pair in the source, [n].
    x
        Expression that each training pair gets, [n, G].
    chunk
        Patches embedded at a time; 0: a process's whole share of the batch.
    precision
        Of the tail, "float32" or "bfloat16"; losses are computed in float32.
    """

    model: SealVision
    source: TokenSource
    rows: np.ndarray
    x: Rows
    chunk: int
    precision: str

    @property
    def n(self) -> int:
        """Training pairs."""
        return len(self.rows)

    def stream(self, batches: Sequence[Batch]) -> Iterator[Share]:
        """Tokens of this process's share of each batch, read ahead."""
        process, processes = parallel.state().process_index, parallel.state().num_processes
        cut = [self._cut(batch, processes) for batch in batches]
        wanted = [self._wanted(batch, chunks[process]) for batch, chunks in zip(batches, cut, strict=True)]
        tokens = self.source.stream([request for requests in wanted for request in requests])
        for batch, chunks, requests in zip(batches, cut, wanted, strict=True):
            counts = [sum(len(c) for _, c in of_process) for of_process in chunks]
            seeds = [seeded(batch.seed, number) for number, _ in chunks[process]]
            yield Share(batch, [next(tokens) for _ in requests], seeds, counts)

    def _cut(self, batch: Batch, processes: int) -> list[list[tuple[int, Tensor]]]:
        """Positions within the batch: for each process its chunks, numbered over the whole batch."""
        positions = torch.arange(len(batch.rows))
        pieces = positions.split(self.chunk) if self.chunk else positions.tensor_split(processes)
        numbered = list(enumerate(pieces))
        edges = np.linspace(0, len(numbered), processes + 1).round().astype(int)
        return [numbered[a:b] for a, b in pairwise(edges)]

    def _wanted(self, batch: Batch, chunks: list[tuple[int, Tensor]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Views and source rows of each chunk. Training sees augmented views only; without any, the plain patch."""
        draw = torch.Generator().manual_seed(batch.seed)
        views, n = self.source.views, len(batch.rows)
        drawn = torch.randint(1, views + 1, (n,), generator=draw) if views else torch.zeros(n, dtype=torch.int64)
        return [(drawn[c].numpy(), self.rows[batch.rows[c].numpy()]) for _, c in chunks]

    def backward(self, inputs: Share) -> dict[str, Tensor]:
        """Gradients of L over the whole batch, on every process the same."""
        model, again = self.model, len(inputs.tokens) > 1
        with torch.set_grad_enabled(not again):
            local = [self._embed(*pair) for pair in zip(inputs.tokens, inputs.seeds, strict=True)]
        own = (
            torch.cat([z.detach() for z in local])
            if local
            else torch.zeros(0, model.encoder.dim, device=parallel.device())
        )
        z = parallel.gather_rows(own, inputs.counts).requires_grad_(True)
        torch.manual_seed(inputs.batch.seed)
        terms = model.objective(z, self.x[inputs.batch.rows])
        terms["total"].backward()
        start = sum(inputs.counts[: parallel.state().process_index])
        gradients = z.grad[start : start + len(own)].split([len(part) for part in local])
        for i, gradient in enumerate(gradients):
            part = self._embed(inputs.tokens[i], inputs.seeds[i]) if again else local[i]
            if part.requires_grad:
                part.backward(gradient)
        self._reduce()
        return terms

    def _embed(self, tokens: Tensor, seed: int) -> Tensor:
        torch.manual_seed(seed)
        with parallel.autocast(self.precision):
            return self.model.embed(tokens).float()

    def _reduce(self) -> None:
        """Encoder: each process has a part of the gradient. The rest: each has all of it, up to rounding."""
        encoder = {id(p) for p in self.model.encoder.parameters()}
        parallel.sum_gradients(self.model.encoder.parameters())
        rest = [p for p in self.model.parameters() if id(p) not in encoder]
        parallel.sum_gradients(rest, share=1 / parallel.state().num_processes)
