"""What one step of each stage does; `seal.train.loop` repeats it.

A batch is embedded in blocks of a few patches, each of which draws its dropout from its own seed. So a step can
be cut twice without changing its result. Over processes: each embeds its blocks, the embeddings are gathered,
every process computes the same loss on all of them. Over memory (Gao et al. 2021, GradCache): embeddings first
without a graph, then the loss and its gradient g = dL/dz, then each block again, with a graph, seeded with its
part of g. Both rest on dL/dtheta = sum over blocks of g_b . dz_b/dtheta.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from seal.models.baselines.base import Baseline, Spots
from seal.models.baselines.deepspot import DeepSpot
from seal.models.omics import SealOmics
from seal.models.vision import SealVision
from seal.shapes import Float, Int, RowReader
from seal.train import parallel
from seal.train.batches import TokenSource
from seal.train.loop import Batch, make_seed
from seal.train.tokens import Request


@dataclass(frozen=True)
class Expression:
    """Rows of a memory-mapped expression matrix, read when they are asked for: x[positions]."""

    matrix: Float[np.ndarray, "spots genes"]
    rows: Int[np.ndarray, " rows"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: Int[Tensor, " batch"]) -> Float[Tensor, "batch genes"]:
        return torch.from_numpy(np.array(self.matrix[self.rows[positions.numpy()]])).to(parallel.device())


@dataclass(frozen=True)
class PlacedExpression:
    """Expression and where among the pairs its spots stand: what baselines learn from."""

    expression: Expression

    def __len__(self) -> int:
        return len(self.expression)

    def __getitem__(self, positions: Int[Tensor, " batch"]) -> Spots:
        rows = torch.from_numpy(self.expression.rows)[positions]
        return Spots(self.expression[positions], rows.to(parallel.device()))


@dataclass(frozen=True)
class OmicsTask:
    """Stage 1: reconstruct expression, x, [n, G]; or a baseline that trains on frozen embeddings."""

    model: SealOmics | DeepSpot
    x: RowReader
    shared: bool = False  # the first process trains it alone

    @property
    def n(self) -> int:
        """Training spots."""
        return len(self.x)

    def stream(self, batches: Sequence[Batch]) -> Iterator[Batch]:
        """Nothing to read ahead: a batch of expression is small."""
        return iter(batches)

    def backward(self, inputs: Batch) -> dict[str, Float[Tensor, ""]]:
        """Gradients of one batch's losses: L_REC,omics (and KL)."""
        parallel.seed(inputs.seed)
        terms = self.model.losses(self.x[inputs.rows])
        terms["total"].backward()
        return terms


BLOCK = 32  # patches that share a seed: small enough to be dealt out evenly, large enough to be quick


@dataclass(frozen=True)
class Share:
    """One process's part of a batch: the tokens and seeds of its blocks, and how many rows each process has."""

    batch: Batch
    tokens: Float[Tensor, "share tokens width"] | Float[Tensor, " 0"]  # none for a process beyond the last block
    seeds: list[int]
    counts: list[int]


@dataclass(frozen=True)
class VisionTask:
    """Stage 2: align and reconstruct, on trunk tokens.

    With `gradcache` blocks are embedded twice, so that only one at a time keeps what its gradient needs.
    """

    model: SealVision | Baseline
    source: TokenSource
    rows: Int[np.ndarray, " pairs"]  # of each training pair in the source
    x: RowReader  # expression that each training pair gets, [n, G]
    precision: str  # of the tail, "float32" or "bfloat16"; losses are computed in float32
    gradcache: bool = False
    shared: bool = True

    @property
    def n(self) -> int:
        """Training pairs."""
        return len(self.rows)

    def stream(self, batches: Sequence[Batch]) -> Iterator[Share]:
        """Tokens of this process's share of each batch, read ahead."""
        process, processes = parallel.state().process_index, parallel.state().num_processes
        whole = [self._draw(batch) for batch in batches]
        shares = [split_batch(len(rows), processes) for _, rows in whole]
        parts = [slice(share[process].start, share[process].stop) for share in shares]
        wanted = [(views[part], rows[part]) for (views, rows), part in zip(whole, parts, strict=True)]
        tokens = self.source.stream([request for request in wanted if len(request[0])])
        for batch, share, request in zip(batches, shares, wanted, strict=True):
            own = share[process]
            seeds = [make_seed(batch.seed, start // BLOCK) for start in range(own.start, own.stop, BLOCK)]
            found = next(tokens) if len(request[0]) else torch.zeros(0)
            yield Share(batch, found, seeds, [len(part) for part in share])

    def _draw(self, batch: Batch) -> Request:
        """Views and source rows of a batch. Training sees augmented views only; without any, the plain patch."""
        draw = torch.Generator().manual_seed(batch.seed)
        views, n = self.source.pairs.profile.vision.views, len(batch.rows)
        drawn = torch.randint(1, views + 1, (n,), generator=draw) if views else torch.zeros(n, dtype=torch.int64)  # [B]
        return drawn.numpy(), self.rows[batch.rows.numpy()]

    def backward(self, inputs: Share) -> dict[str, Float[Tensor, ""]]:
        """Gradients of L over the whole batch, on every process the same."""
        model, again = self.model, self.gradcache
        blocks = list(zip(inputs.tokens.split(BLOCK), inputs.seeds, strict=True)) if inputs.seeds else []
        with torch.set_grad_enabled(not again):
            local = [self._embed(*block) for block in blocks]  # [BLOCK, d] each
        nothing = torch.zeros(0, model.encoder.dim, device=parallel.device())  # more processes than blocks
        z = parallel.gather_rows(torch.cat([nothing, *(part.detach() for part in local)]), inputs.counts)  # [B, d]
        z.requires_grad_(True)
        parallel.seed(inputs.batch.seed)
        terms = model.objective(z, self.x[inputs.batch.rows])
        terms["total"].backward()
        start = sum(inputs.counts[: parallel.state().process_index])
        own = z.grad[start : start + inputs.counts[parallel.state().process_index]].split(BLOCK)  # [BLOCK, d] each
        own = own if blocks else ()  # nothing splits into one part, of no rows
        if again:
            for block, gradient in zip(blocks, own, strict=True):
                self._embed(*block).backward(gradient)
        elif blocks:
            torch.autograd.backward(local, own)
        self._reduce()
        return terms

    def _embed(self, tokens: Float[Tensor, "block tokens width"], seed: int) -> Float[Tensor, "block dim"]:
        parallel.seed(seed)
        with parallel.autocast(self.precision):
            return self.model.embed(tokens).float()

    def _reduce(self) -> None:
        """Encoder: each process has a part of the gradient. The rest: each has all of it, up to rounding."""
        encoder = {id(p) for p in self.model.encoder.parameters()}
        parallel.sum_gradients(self.model.encoder.parameters())
        rest = [p for p in self.model.parameters() if id(p) not in encoder]
        parallel.sum_gradients(rest, share=1 / parallel.state().num_processes)


class TwoViewTask(VisionTask):
    """Stage 2 on two views of each patch, all first ones before all second ones: z is [2 B, d].

    Two different augmented views, or, where only one is kept, the plain patch and that one, in either order.
    """

    def _draw(self, batch: Batch) -> Request:
        draw = torch.Generator().manual_seed(batch.seed)
        views, n = self.source.pairs.profile.vision.views, len(batch.rows)
        least, choices = (1, views) if views > 1 else (0, views + 1)
        first = torch.randint(choices, (n,), generator=draw)  # [B]
        second = (first + torch.randint(1, choices, (n,), generator=draw)) % choices  # [B]
        rows = self.rows[batch.rows.numpy()]
        return least + torch.cat([first, second]).numpy(), np.concatenate([rows, rows])


def split_batch(n: int, processes: int) -> list[range]:
    """Positions of a batch of n for each process: whole blocks, in order, as evenly as they go."""
    blocks = -(-n // BLOCK)
    edges = [min(n, BLOCK * round(blocks * i / processes)) for i in range(processes + 1)]
    return [range(a, b) for a, b in pairwise(edges)]
