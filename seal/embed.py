"""Whole slides into embeddings, one h5 a slide in TRIDENT's layout: what `python -m seal embed` does."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from seal.errors import SealError
from seal.export import load
from seal.files import Made, contents, digest, progress, remove_parts
from seal.models import encoders, weights
from seal.models.encoder_registry import REGISTRY
from seal.models.encoders import VisionEncoder
from seal.slides import patches as patching
from seal.slides import trident
from seal.slides.patches import Patches, PatchSettings
from seal.slides.pixels import is_tiff
from seal.train import parallel
from seal.train.tokens import CHUNK

# One file a slide; of a DICOM slide, which is many, name one.
SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".svslide", ".bif", ".vms", ".vmu")
SAME_SCALE = 0.01  # by how much the um/px of a model's input may differ from that of its training
VERSION = 2  # counted up when the same slide and settings give other embeddings


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
    folder = load.find_folder(name_or_folder)
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
        elif not path.exists():
            is_tiff(path)  # says what is wrong
        if not inside:
            raise SealError(
                f"{path} holds no slides",
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
        Here come {mag}x_{px}px_{overlap}px_overlap/features_{name}/SLIDE.h5, .../patches/SLIDE_patches.h5 and
        .../contours/SLIDE.jpg.
    slide_um_per_px
        Of the slides, whatever their files say.
    precision
        See `seal.train.parallel.autocast`.

    Returns
    -------
    The files of features, a slide each.

    Raises
    ------
    SealError
        No such slides or model; the model was trained at another um/px; the folder holds another model's embeddings or
        cannot be written; at the end, slides that cannot be opened or are no image, without tissue or a known um/px.
    """
    files, failed = embed_what_can_be(find_slides(slides), model, out, settings, slide_um_per_px, precision)
    if failed:
        raise join_errors(failed, len(files) + len(failed))
    return list(files.values())


def embed_what_can_be(
    paths: Sequence[Path],
    model: str | Path,
    out: Path,
    settings: PatchSettings | None = None,
    slide_um_per_px: float | None = None,
    precision: str = "float32",
) -> tuple[dict[Path, Path], dict[Path, SealError]]:
    """Embed slides, as `find_slides` gives them, by `embed`'s rules; each one's file, and why others have none."""
    parallel.autocast(precision)  # an unknown one is no slide's fault, nor is an um/px that no slide has
    if slide_um_per_px is not None:
        patching.require_plausible("--slide-um-per-px", slide_um_per_px, "as stated")
    chosen = find_model(model)
    task = _Task(chosen, Path(out), settings or PatchSettings(), slide_um_per_px, precision)
    require_scale(chosen, task.settings)
    _require_same_model(task.folder, chosen)
    if not all(task.file(path).is_file() for path in paths):
        require_writable(task.folder)
    failed: dict[Path, SealError] = {}
    for path in paths:
        try:
            is_tiff(path)
        except SealError as error:
            failed[path] = error
    whole = [path for path in paths if path not in failed]
    beside = {p: sorted(p.with_suffix("").glob("*.*")) for p in whole if p.suffix.lower() == ".mrxs"}  # MIRAX's pixels
    files = {path: [path, *beside.get(path, ())] for path in whole}
    every = [file for own in files.values() for file in own]
    known = dict(zip(every, contents(every), strict=True))
    made = {path: task.made_from("".join(known[file] for file in own)) for path, own in files.items()}
    missing = {path: each for path, each in made.items() if not is_current(task.file(path), each, slide_um_per_px)}
    failed |= _embed_each(task, missing) if missing else {}
    return {path: task.file(path) for path in paths if path not in failed}, failed


@dataclass(frozen=True)
class _Task:
    """How slides are to be embedded, and where to; see `embed`."""

    model: Model
    out: Path
    settings: PatchSettings
    stated: float | None  # um/px
    precision: str

    @property
    def scale(self) -> str:
        return trident.scale_folder(self.settings.um_per_px, self.settings.size, self.settings.overlap)

    @property
    def folder(self) -> Path:
        return trident.features_folder(self.out, self.scale, self.model.name)

    def file(self, slide: Path) -> Path:
        return self.folder / f"{slide.stem}.h5"

    def made_from(self, content: str) -> Made:
        parts = {"model": self.model.key, "precision": self.precision, "patches": asdict(self.settings)}
        return Made("embeddings", VERSION, parts | {"slide": content})


def _embed_each(task: _Task, missing: dict[Path, Made]) -> dict[Path, SealError]:
    """Embed slides one after the other; those that cannot be, and why."""
    encoder, failed = task.model.load(), {}
    with progress("slides", len(missing), "slide") as advance:
        for slide, made in missing.items():
            try:
                found = patching.extract(slide, task.settings, task.stated)
                features = embed_patches(encoder, found.patches, task.precision)
            except SealError as error:
                failed[slide], old = error, task.file(slide)
                if old.is_file() and _stamp(trident.attributes_of(old)).get("key") != made.key:
                    old.unlink(missing_ok=True)  # of what the slide was before
            else:
                _write(task, slide, made, found, features)
            advance()
    return failed


def _write(task: _Task, slide: Path, made: Made, found: patching.Extraction, features: np.ndarray) -> None:
    wanted, coords = task.settings, found.patches.coords
    scales = found.um_per_px, wanted.um_per_px
    described = trident.describe_grid(slide.stem, found.tissue.size, *scales, wanted.size, wanted.overlap)
    trident.write_coords(trident.coords_path(task.out, task.scale, slide.stem), coords, described)
    trident.write_contour(task.out, task.scale, slide.stem, found.tissue.draw_contour())
    attributes = {"model": task.model.key, "made": json.dumps(made.stamp()), "um_per_px": found.um_per_px}
    if task.stated is not None and found.patches.image.um_per_px != (task.stated, task.stated):
        attributes["stated_um_per_px"] = task.stated
    trident.write_features(task.file(slide), features, coords, task.model.name, described, attributes)


@torch.no_grad()
def embed_patches(encoder: VisionEncoder, patches: Patches | np.ndarray, precision: str = "float32") -> np.ndarray:
    """Embed patches with the whole encoder: a slide's, read while the batch before is embedded, or an array's.

    Shapes: uint8 [n, S, S, 3] -> float32 [n, d].
    """
    encoder.to(parallel.device()).eval()
    size, parts = CHUNK[parallel.device().type], []
    if isinstance(patches, Patches):
        name, batches = patches.path.stem, patches.batches(size, threads=min(os.cpu_count() or 1, 16))
    else:
        name, batches = "patches", (np.ascontiguousarray(patches[i : i + size]) for i in range(0, len(patches), size))
    with progress(name, len(patches), "patch") as advance:
        for batch in batches:
            images = encoder.preprocess(torch.from_numpy(batch).to(parallel.device()))  # [B, 3, S, S]
            with parallel.autocast(precision):
                parts.append(encoder(images).float().cpu().numpy())
            advance(len(batch))
    return np.concatenate(parts)


def require_scale(model: Model, settings: PatchSettings) -> None:
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


def require_writable(folder: Path) -> None:
    """Assert that a folder of results can be made and written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        what = f"{folder} cannot be written ({error.strerror})"
        raise SealError(what, expected="a folder for results", do="choose another --out") from error


def _require_same_model(folder: Path, model: Model) -> None:
    remove_parts(folder)
    for path in sorted(folder.glob("[!.]*.h5")):
        own = trident.attributes_of(path).get("model")
        if own != model.key:
            whose = "another program" if own is None else f"another model of the name {model.name}"
            raise SealError(
                f"{path} was made by {whose}",
                expected="one model's embeddings in a folder",
                do="choose another --out, or move that folder away",
            )


def is_current(path: Path, made: Made, stated: float | None = None) -> bool:
    """Say whether an h5 is there and made from the same, the um/px that was stated for its slide included."""
    if not path.is_file():
        return False
    attributes = trident.attributes_of(path)
    if not made.matches(_stamp(attributes), path):
        return False
    return "stated_um_per_px" not in attributes if stated is None else attributes.get("um_per_px") == stated


def _stamp(attributes: Mapping[str, Any]) -> dict:
    return json.loads(attributes.get("made", "{}"))


def join_errors(failed: dict[Path, SealError], number: int) -> SealError:
    """One error of those of some of so many slides."""
    first = next(iter(failed.values()))
    if number == 1:
        return first
    return SealError(
        f"{len(failed)} of {number} slides were not embedded: " + "; ".join(error.what for error in failed.values()),
        expected="; ".join(dict.fromkeys(error.expected for error in failed.values())),
        do="; ".join(dict.fromkeys(error.do for error in failed.values()))
        + "; the other slides are there, and the same command goes on from here",
    )
