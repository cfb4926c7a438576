"""Embeddings of a profile's pairs, one h5 a section in TRIDENT's layout: made once, read by every evaluation."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from seal import paths
from seal.data.pairs import Pairs, Section
from seal.embed import embed_patches, is_current
from seal.errors import SealError
from seal.files import Made, lock, progress, remove_parts, say_done
from seal.models import encoders
from seal.models.baselines.colour import colour_statistics
from seal.models.encoders import VisionEncoder
from seal.models.omics import SealOmics
from seal.profiles import difference
from seal.slides import trident
from seal.train import batches, parallel, runs
from seal.train.batches import RecomputedTokens, TokenSource
from seal.train.runs import Run

VERSION = 1  # counted up when the same pairs, runs and settings give other embeddings
# features_{...}: what does not depend on a fold, and what was trained on one
FIXED = {"frozen": "{encoder}", "random": "{encoder}_random_seed{seed}", "colour": "colour"}
TRAINED = "{encoder}_{method}_{fold}_seed{seed}"
AGAIN = "embed the pairs: run notebook 04 from its beginning (seal.evaluate.embeddings.embed_all)"


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of a profile's pairs on disk: {mag}x_{px}px_0px_overlap/features_{name}/SAMPLE.h5.

    A file holds `features` [spots, d], `coords` (the patch's upper left corner, full-resolution px), `barcodes` and,
    of a SEAL model, `omics` [spots, d], its embeddings of the same spots' expression.
    """

    pairs: Pairs

    def name(self, method: str, fold: str | None = None, seed: int | None = None) -> str:
        """Name embeddings after their method and, where these matter, fold and seed."""
        encoder = self.pairs.profile.encoder
        return FIXED.get(method, TRAINED).format(encoder=encoder, method=method, fold=fold, seed=seed)

    def folder(self, name: str) -> Path:
        """Find the folder of a name. Patches lie on spots, so their overlap is given as 0."""
        profile = self.pairs.profile
        root = paths.embeddings(profile.name, difference(profile, runs.VISION))
        return trident.features_folder(root, trident.scale_folder(profile.um_per_px, profile.image_size, 0), name)

    def files(self, name: str) -> list[tuple[Section, Path]]:
        """List the sections with patches and the file of each."""
        folder = self.folder(name)
        return [(section, folder / f"{section.sample}.h5") for section in self.pairs.sections if section.has_image]

    def read(
        self, method: str, fold: str | None = None, seed: int | None = None, table: str = "features"
    ) -> np.ndarray:
        """Read a table of all pairs, float32 [pairs, d]: the patches' "features", or the spots' "omics".

        Raises
        ------
        SealError
            A file is missing, truncated, of other spots or of another run than the one before.
        """
        found, made = [], set()
        for section, path in self.files(self.name(method, fold, seed)):
            if not path.is_file():
                raise SealError(f"{path} is missing", expected="embeddings of every section", do=AGAIN)
            found.append(trident.read_table(path, table))  # [spots, d]
            made.add(trident.attributes_of(path).get("made"))
            rows, spots = len(found[-1]), section.stop - section.start
            if rows != spots:
                raise SealError(f"{path} has {rows} rows", expected=f"{spots}, one a spot", do=AGAIN)
            if len(made) > 1:
                raise SealError(f"{path} is of another run than the files before", expected="one run", do=AGAIN)
        return np.concatenate(found)

    def is_current(self, name: str, made: Made) -> bool:
        """Say whether every section is embedded, and from the same."""
        return all(is_current(path, made) for _, path in self.files(name))

    def write(
        self,
        made: Mapping[str, Made],
        pieces: Iterable[Mapping[str, np.ndarray]],
        omics: Mapping[str, Callable[[slice], np.ndarray]],
    ) -> None:
        """Write embeddings under several names, each section as soon as it is whole.

        Parameters
        ----------
        pieces
            Name -> embeddings of the next rows, [B, d].
        omics
            Name -> what embeds the expression of some rows, [spots, d].
        """
        frame, profile = self.pairs.frame(), self.pairs.profile
        for name in made:
            remove_parts(self.folder(name))
        with progress("sections", sum(section.has_image for section in self.pairs.sections), "section") as advance:
            for section, features in _by_section(self.pairs, pieces):
                rows = slice(section.start, section.stop)
                half = profile.image_size * profile.um_per_px / 2 / section.um_per_px  # full-resolution px
                coords = np.rint(frame[["x", "y"]].to_numpy()[rows] - half)
                for name, z in features.items():
                    tables = {"barcodes": np.array(frame["barcode"].iloc[rows], dtype="S")}
                    tables |= {"omics": omics[name](rows)} if name in omics else {}
                    path, own = self.folder(name) / f"{section.sample}.h5", {"made": json.dumps(made[name].stamp())}
                    trident.write_features(path, z, coords, name, attributes=own, tables=tables)
                advance()


def embed_all(pairs: Pairs, source: TokenSource) -> Embeddings:
    """Embed the pairs in every way that is compared, the profile's runs, which must be trained, among them."""
    profile, store = pairs.profile, Embeddings(pairs)
    patches = {"patches": pairs.digest_of("patches.npy")}
    own = {"encoder": profile.encoder, "image_size": profile.image_size, "precision": profile.compute.precision}
    colour = (patches, partial(colour_statistics, pairs.patches))
    controls = {} if pairs.further else {store.name("colour"): colour}
    for seed in profile.evaluation.seeds[: profile.evaluation.random_encoders]:
        controls[store.name("random", seed=seed)] = patches | own | {"seed": seed}, partial(_embed_random, pairs, seed)
    chosen = [run for run in runs.list_compared(pairs) if run.method != "deepspot"]  # which adapts no encoder
    return embed_runs(pairs, source, chosen, controls)


def embed_runs(
    pairs: Pairs, source: TokenSource, chosen: Sequence[Run], controls: Mapping[str, tuple] | None = None
) -> Embeddings:
    """Embed the pairs with trained runs, the frozen encoder and controls; what is there and current is left alone.

    The runs of a fold share one pass over the trunk's tokens; those cut elsewhere have one of their own.

    Raises
    ------
    SealError
        A run is not trained yet.
    """
    store, began, controls = Embeddings(pairs), time.monotonic(), controls or {}
    passes = dict.fromkeys((run.fold.name, source.of(run.pairs)) for run in chosen)
    root, new = paths.embeddings(pairs.profile.name), {}
    with lock(root, "embeds the pairs in"), progress("embedding", len(controls) + len(passes), "pass") as advance:
        for name, (parts, compute) in controls.items():
            made = Made("embeddings", VERSION, parts)
            if new.setdefault(name, not store.is_current(name, made)):
                store.write({name: made}, [{name: compute()}], omics={})
            advance()
        for fold, tokens in passes:
            mine = [r for r in chosen if (r.fold.name, source.of(r.pairs)) == (fold, tokens)]
            named = {store.name(r.variant or r.method, fold, r.seed): r for r in mine}
            own = {"tokens": tokens.key, "precision": pairs.profile.compute.precision}
            parts = {store.name("frozen"): own} if tokens is source else {}
            parts |= {name: own | {"run": run.key(tokens)} for name, run in named.items()}
            made = {name: Made("embeddings", VERSION, each) for name, each in parts.items()}
            made = {name: each for name, each in made.items() if not store.is_current(name, each)}
            models = {name: runs.train_vision(run, tokens) for name, run in named.items() if name in made}
            tails = {name: models[name].encoder if name in models else tokens.encoder for name in made}
            learnt = {name: model.omics for name, model in models.items() if named[name].learns_omics}
            omics = {name: partial(_embed_expression, model, named[name]) for name, model in learnt.items()}
            if made:
                store.write(made, batches.embed_pieces(tails, tokens), omics)
            new |= {name: new.get(name, False) or name in made for name in parts}
            advance()
    say_done(f"{len(new)} encoders' embeddings", root, began, len(new) - sum(new.values()), sum(new.values()))
    return store


@torch.no_grad()
def embed_images(
    source: TokenSource,
    tails: Mapping[str, VisionEncoder],
    images: Iterable[np.ndarray],
    others: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
) -> dict[str, np.ndarray]:
    """Embed images that are no pairs by several encoders of one trunk, in one pass over it.

    Parameters
    ----------
    tails
        Name -> encoder; they share the trunk of `source.encoder`, or its first blocks.
    images
        uint8 [B, S, S, 3] each.
    others
        Name -> what describes images in another way, [B, S, S, 3] -> [B, d].

    Returns
    -------
    Name -> embeddings, float32 [n, d].
    """
    others = others or {}
    pairs, found = source.pairs, {name: [] for name in (*tails, *others)}
    maker, blocks = RecomputedTokens(pairs, source.key), pairs.profile.vision.blocks
    maker.encoder = source.encoder
    after = tuple(dict.fromkeys(encoder.depth - blocks for encoder in tails.values()))
    for piece in images:
        tokens = dict(zip(after, maker.trunks(torch.from_numpy(piece), after), strict=True))  # [B, T, D] each
        with parallel.autocast(pairs.profile.compute.precision):
            for name, encoder in tails.items():
                own = tokens[encoder.depth - blocks]
                z = encoder.to(parallel.device()).eval().tail(own, blocks)  # [B, d]
                found[name].append(z.float().cpu().numpy())
        for name, describe in others.items():
            found[name].append(describe(piece))
    return {name: np.concatenate(pieces) for name, pieces in found.items()}


def _by_section(
    pairs: Pairs, pieces: Iterable[Mapping[str, np.ndarray]]
) -> Iterator[tuple[Section, dict[str, np.ndarray]]]:
    """Cut rows that come in pieces where sections end."""
    left, rows, held = [section for section in pairs.sections if section.has_image], 0, []
    for piece in pieces:
        held.append(piece)
        rows += len(next(iter(piece.values())))
        while left and rows >= (size := left[0].stop - left[0].start):
            whole = {name: np.concatenate([each[name] for each in held]) for name in piece}
            yield left.pop(0), {name: z[:size] for name, z in whole.items()}
            held, rows = [{name: z[size:] for name, z in whole.items()}], rows - size
    if rows or left:
        raise SealError(
            f"{pairs.n_pairs + rows - sum(s.stop - s.start for s in left)} embeddings for {pairs.n_pairs} pairs",
            expected="one embedding a pair, in row order",
            do="embed all of pairs.patches",
        )


def _embed_random(pairs: Pairs, seed: int) -> np.ndarray:
    profile = pairs.profile
    encoder = encoders.build(profile.encoder, weights="random", image_size=profile.image_size, seed=seed)
    return embed_patches(encoder, pairs.patches, profile.compute.precision)


@torch.no_grad()
def _embed_expression(omics: SealOmics, run: Run, rows: slice) -> np.ndarray:
    x = torch.from_numpy(np.array(run.pairs.context(run.fold)[rows]))  # [spots, genes]
    return omics(x.to(next(omics.parameters()).device)).cpu().numpy()
