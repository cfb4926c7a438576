"""Embeddings on disk, one h5 a slide or a section, in TRIDENT's layout.

Of whole slides, which is what `python -m seal embed` does; and of a profile's pairs, which every evaluation reads.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from seal import paths
from seal.data.pairs import Pairs, Section
from seal.errors import SealError
from seal.export import load
from seal.files import Made, contents, digest, remove_parts
from seal.models import encoders, weights
from seal.models.baselines import colour_statistics
from seal.models.encoder_registry import REGISTRY
from seal.models.encoders import VisionEncoder
from seal.models.omics import SealOmics
from seal.profiles import difference
from seal.slides import patches as patching
from seal.slides import trident
from seal.slides.patches import Patches, PatchSettings
from seal.train import parallel, runs, tokens
from seal.train.runs import Run
from seal.train.tokens import CHUNK, TokenSource

# One file a slide; of a DICOM slide, which is many, name one.
SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".svslide", ".bif", ".vms", ".vmu")
SAME_SCALE = 0.01  # by how much the um/px of a model's input may differ from that of its training
VERSION = 1  # counted up when the same patches and settings give other embeddings
# features_{...} of the pairs: what does not depend on a fold, and what was trained on one
FIXED = {"frozen": "{encoder}", "random": "{encoder}_random_seed{seed}", "colour": "colour"}
TRAINED = "{encoder}_{method}_{fold}_seed{seed}"
AGAIN = "embed the pairs: run notebook 04 from its beginning (seal.embed.embed_all)"


class Model(NamedTuple):
    """An encoder that slides are embedded with."""

    name: str  # embeddings lie in features_{name}
    key: str  # digest of what tells it from others, of the same name too
    load: Callable[[], VisionEncoder]
    image_size: int | None = None  # px, of the images that a saved model was trained on
    um_per_px: float | None = None


def find_model(name_or_folder: str | Path) -> Model:
    """Name an encoder of the registry, or a saved SEAL model by its folder or its repository on the hub.

    Raises
    ------
    SealError
        There is neither, or the saved model is damaged.
    """
    name = str(name_or_folder)
    if name in REGISTRY:
        return Model(name, digest([name, weights.fingerprint(name)]), partial(encoders.build, name))
    folder = Path(name_or_folder)
    if not folder.is_dir():
        if name.count("/") != 1:
            raise SealError(
                f"{name} is neither an encoder nor a folder",
                expected=f"one of {', '.join(REGISTRY)}, a saved SEAL model's folder, or a repository's name",
                do="correct --model",
            )
        folder = load.fetch(name)
    record = load.read_record(folder)
    name, trained = f"{record['encoder']['name']}_seal", (record["image_size"], record["um_per_px"])
    return Model(name, digest(record), lambda: load.load(folder).model, *trained)


def find_slides(paths: Sequence[Path]) -> list[Path]:
    """Slides themselves, and those in folders (not in folders therein), by name.

    Raises
    ------
    SealError
        A path does not exist, a folder has no slides, or two slides have one name.
    """
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        if not inside or not path.exists():
            raise SealError(
                f"{path} {'holds no slides' if path.exists() else 'is missing'}",
                expected=f"a slide, or a folder of {', '.join(SUFFIXES)}",
                do="correct the path; images of other kinds are taken if they are named one by one",
            )
        for slide in inside:
            if found.setdefault(slide.stem, slide).absolute() != slide.absolute():
                raise SealError(
                    f"{slide} and {found[slide.stem]} have one name",
                    expected="slides whose names differ, for each gives one file of that name",
                    do="rename one, or embed them into different folders",
                )
    return list(found.values())


def embed(
    slides: Sequence[Path],
    model: str | Path,
    out: Path,
    settings: PatchSettings | None = None,
    slide_um_per_px: float | None = None,
    precision: str = "float32",
) -> list[Path]:
    """Embed the patches on the tissue of slides; what is there already and follows from the same is left alone.

    A slide that cannot be embedded does not stop the others: it is named at the end.

    Parameters
    ----------
    slides, model
        See `find_slides` and `find_model`.
    out
        Here come {mag}x_{px}px_{overlap}px_overlap/patches/SLIDE_patches.h5 and .../features_{name}/SLIDE.h5.
    slide_um_per_px
        Of the slides whose files do not say it.
    precision
        See `seal.train.parallel.autocast`.

    Returns
    -------
    The files of features, a slide each.

    Raises
    ------
    SealError
        No such slides or model; the model was trained at another um/px; the folder holds another model's embeddings;
        the disk is full; at the end, slides without tissue, without a known um/px, or damaged.
    """
    from tqdm import tqdm

    paths, chosen, settings = find_slides(slides), find_model(model), settings or PatchSettings()
    _require_scale(chosen, settings)
    scale = trident.scale_folder(settings.um_per_px, settings.size, settings.overlap)
    folder = trident.features_folder(out, scale, chosen.name)
    _require_same_model(folder, chosen)
    own = {"model": chosen.key, "precision": precision, "patches": asdict(settings)}
    done = {path: folder / f"{path.stem}.h5" for path in paths}
    made = [Made("embeddings", VERSION, own | {"slide": content}) for content in contents(paths)]
    made = dict(zip(paths, made, strict=True))
    missing = [path for path in paths if not _is_current(done[path], made[path], slide_um_per_px)]
    if not missing:
        return list(done.values())
    parallel.autocast(precision)  # an unknown one is no slide's fault
    encoder, failed = chosen.load(), {}
    for path in tqdm(missing, desc="slides", unit="slide"):
        try:
            patches, tissue, scale_of = patching.extract(path, settings, slide_um_per_px)
            features = embed_patches(encoder, patches, precision)
        except SealError as error:
            done[path].unlink(missing_ok=True)  # of what the slide was before
            failed[path] = error
            continue
        described = trident.describe_grid(
            path.stem, tissue.size, scale_of, settings.um_per_px, settings.size, settings.overlap
        )
        trident.write_coords(trident.coords_path(out, scale, path.stem), patches.coords, described)
        attributes = {"model": chosen.key, "made": json.dumps(made[path].stamp())}
        attributes |= {"stated_um_per_px": scale_of} if scale_of == slide_um_per_px else {}
        trident.write_features(done[path], features, patches.coords, chosen.name, described, attributes)
    if failed:
        raise _join_errors(failed, len(paths))
    return list(done.values())


@torch.no_grad()
def embed_patches(encoder: VisionEncoder, patches: Patches | np.ndarray, precision: str = "float32") -> np.ndarray:
    """Embed patches with the whole encoder: a slide's, read while the batch before is embedded, or an array's.

    Shapes: uint8 [n, S, S, 3] -> float32 [n, d].
    """
    from tqdm import tqdm

    encoder.to(parallel.device()).eval()
    size, parts = CHUNK[parallel.device().type], []
    if isinstance(patches, Patches):
        name, batches = patches.path.stem, patches.batches(size, threads=min(os.cpu_count() or 1, 16))
    else:
        name, batches = None, (np.ascontiguousarray(patches[i : i + size]) for i in range(0, len(patches), size))
    with tqdm(total=len(patches), desc=name, unit="patch", leave=False) as bar:
        for batch in batches:
            images = encoder.preprocess(torch.from_numpy(batch).to(parallel.device()))  # [B, 3, S, S]
            with parallel.autocast(precision):
                parts.append(encoder(images).float().cpu().numpy())
            bar.update(len(batch))
    return np.concatenate(parts)


def _require_scale(model: Model, settings: PatchSettings) -> None:
    """Assert that a saved model sees what it was trained on: patches are resampled to the size of its input."""
    if model.image_size is None or model.um_per_px is None:
        return
    size, own = model.image_size, model.um_per_px
    seen = settings.um_per_px * settings.size / size
    if abs(seen - own) > SAME_SCALE * own:
        raise SealError(
            f"{model.name} would see patches of {settings.size * settings.um_per_px:g} um, at {seen:g} um/px",
            expected=f"patches of {size * own:g} um, which it takes at {own:g} um/px, as it was trained",
            do=f"use --um-per-px {own:g} --size {size}, or another scale with the same product",
        )


def _require_same_model(folder: Path, model: Model) -> None:
    remove_parts(folder)
    for path in sorted(folder.glob("*.h5")):
        own = trident.attributes_of(path).get("model")
        if own != model.key:
            whose = "another program" if own is None else f"another model of the name {model.name}"
            raise SealError(
                f"{path} was made by {whose}",
                expected="one model's embeddings in a folder",
                do="choose another --out, or move that folder away",
            )


def _is_current(path: Path, made: Made, stated: float | None = None) -> bool:
    if not path.is_file():
        return False
    attributes = trident.attributes_of(path)
    if not made.matches(json.loads(attributes.get("made", "{}")), path):
        return False
    return attributes.get("stated_um_per_px", stated) == stated


def _join_errors(failed: dict[Path, SealError], number: int) -> SealError:
    """One error of those of some of so many slides."""
    first = next(iter(failed.values()))
    if number == 1:
        return first
    return SealError(
        f"{len(failed)} of {number} slides were not embedded: " + "; ".join(error.what for error in failed.values()),
        expected=first.expected,
        do=f"{first.do}; the other slides are there, and the same command goes on from here",
    )


# ---- pairs of patch and spot -------------------------------------------------------------------------------


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
        return all(_is_current(path, made) for _, path in self.files(name))

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
        for section, features in _by_section(self.pairs, pieces):
            rows = slice(section.start, section.stop)
            half = profile.image_size * profile.um_per_px / 2 / section.um_per_px  # full-resolution px
            coords = np.rint(frame[["x", "y"]].to_numpy()[rows] - half)
            for name, z in features.items():
                tables = {"barcodes": np.array(frame["barcode"].iloc[rows], dtype="S")}
                tables |= {"omics": omics[name](rows)} if name in omics else {}
                path, attributes = self.folder(name) / f"{section.sample}.h5", {"made": json.dumps(made[name].stamp())}
                trident.write_features(path, z, coords, name, attributes=attributes, tables=tables)


def embed_all(pairs: Pairs, source: TokenSource) -> Embeddings:
    """Embed the pairs in every way that is compared; what is there and follows from the same is left alone.

    Raises
    ------
    SealError
        A run is not trained yet.
    """
    profile, store = pairs.profile, Embeddings(pairs)
    patches = {"patches": pairs.digest_of("patches.npy")}
    own = {"encoder": profile.encoder, "image_size": profile.image_size, "precision": profile.compute.precision}
    controls = {store.name("colour"): (patches, partial(colour_statistics, pairs.patches))}
    for seed in profile.evaluation.seeds[: profile.evaluation.random_encoders]:
        controls[store.name("random", seed=seed)] = patches | own | {"seed": seed}, partial(_embed_random, pairs, seed)
    for name, (parts, compute) in controls.items():
        made = Made("embeddings", VERSION, parts)
        if not store.is_current(name, made):
            store.write({name: made}, [{name: compute()}], omics={})
    return embed_runs(pairs, source, runs.list_runs(pairs))


def embed_runs(pairs: Pairs, source: TokenSource, chosen: Sequence[Run]) -> Embeddings:
    """Embed the pairs with trained runs, and with the frozen encoder; what is there and current is left alone.

    The runs of a fold share one pass over the trunk's tokens.

    Raises
    ------
    SealError
        A run is not trained yet.
    """
    store, own = Embeddings(pairs), {"tokens": source.key, "precision": pairs.profile.compute.precision}
    for fold in dict.fromkeys(run.fold.name for run in chosen):
        named = {store.name(r.variant or r.method, fold, r.seed): r for r in chosen if r.fold.name == fold}
        parts = {name: own | {"run": run.key(source)} for name, run in named.items()}
        parts = {store.name("frozen"): own, **parts}
        made = {name: Made("embeddings", VERSION, each) for name, each in parts.items()}
        made = {name: each for name, each in made.items() if not store.is_current(name, each)}
        models = {name: run.model(source) for name, run in named.items() if name in made}
        tails = {name: models[name].encoder if name in models else source.encoder for name in made}
        omics = {name: partial(_embed_expression, model.omics, named[name]) for name, model in models.items()}
        if made:
            store.write(made, tokens.embed_pieces(tails, source), omics)
    return store


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
