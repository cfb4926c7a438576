"""Whole slides to embeddings of their patches, in TRIDENT's layout: what `python -m seal embed` does."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from seal.errors import SealError
from seal.export import load
from seal.files import Made, contents, digest, remove_parts
from seal.models import encoders, weights
from seal.models.encoders import VisionEncoder
from seal.slides import patches as patching
from seal.slides import trident
from seal.slides.patches import Patches, PatchSettings
from seal.train import parallel

# One file a slide; of a DICOM slide, which is many, name one.
SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".svslide", ".bif", ".vms", ".vmu")
BATCH = {"cpu": 64, "cuda": 256}  # patches a forward pass
SAME_SCALE = 0.01  # by how much the um/px of a model's input may differ from that of its training
VERSION = 1  # counted up when the same slide and settings give other embeddings


@dataclass(frozen=True)
class Model:
    """An encoder that slides are embedded with, loaded when it is first needed.

    Attributes
    ----------
    name
        Embeddings lie in features_{name}.
    key
        Digest of what tells it from others, of the same name too.
    folder
        Of a saved model.
    image_size, um_per_px
        Of the images it was trained on, px and um/px; None: of any.
    """

    name: str
    key: str
    folder: Path | None = None
    image_size: int | None = None
    um_per_px: float | None = None

    @cached_property
    def encoder(self) -> VisionEncoder:
        """The encoder on this process's device."""
        built = encoders.build(self.name) if self.folder is None else load.load(self.folder).model
        return built.to(parallel.device()).eval()


def find_model(name_or_folder: str | Path) -> Model:
    """Name an encoder of the registry, or a saved SEAL model by its folder or its repository on the hub.

    Raises
    ------
    SealError
        There is neither, or the saved model is damaged.
    """
    name = str(name_or_folder)
    if name in encoders.REGISTRY:
        return Model(name, digest([name, weights.fingerprint(name)]))
    folder = Path(name_or_folder)
    if not folder.is_dir():
        if name.count("/") != 1:
            raise SealError(
                f"{name} is neither an encoder nor a folder",
                expected=f"one of {', '.join(encoders.REGISTRY)}, a saved SEAL model's folder, or a repository's name",
                do="correct --model",
            )
        folder = load.fetch(name)
    record = load.read_record(folder)
    return Model(f"{record['encoder']['name']}_seal", digest(record), folder, record["image_size"], record["um_per_px"])


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
    slides
        Slides or folders of slides.
    settings
        Which patches; those of `PatchSettings` by default.
    model
        See `find_model`.
    out
        Here come {mag}x_{px}px_{overlap}px_overlap/patches/SLIDE_patches.h5 and .../features_{name}/SLIDE.h5.
    slide_um_per_px
        Of the slides whose files do not say it.
    precision
        "float32" or "bfloat16", see `seal.train.parallel.autocast`.

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
    read = zip(paths, contents(paths), strict=True)
    made = {path: Made("embeddings", VERSION, own | {"slide": content}) for path, content in read}
    done = {path: folder / f"{path.stem}.h5" for path in paths}
    missing = [path for path in paths if not _is_current(done[path], made[path], slide_um_per_px)]
    if not missing:
        return list(done.values())
    parallel.autocast(precision)  # an unknown one is no slide's fault
    encoder, failed = chosen.encoder, {}
    for path in tqdm(missing, desc="slides", unit="slide"):
        try:
            patches, tissue, scale_of = patching.extract(path, settings, slide_um_per_px)
            features = embed_patches(encoder, patches, precision)
        except SealError as error:
            failed[path] = error
            continue
        described = trident.describe_grid(
            path.stem, tissue.size, scale_of, settings.um_per_px, settings.size, settings.overlap
        )
        trident.write_coords(trident.coords_path(out, scale, path.stem), patches.coords, described)
        attributes = {"model": chosen.key, "made": json.dumps(made[path].stamp())}
        attributes |= {"stated_um_per_px": scale_of} if scale_of == slide_um_per_px else {}
        trident.write_features(done[path], features, patches.coords, chosen.name, described, attributes)
    _report(failed, len(paths))
    return list(done.values())


@torch.no_grad()
def embed_patches(encoder: VisionEncoder, patches: Patches, precision: str = "float32") -> np.ndarray:
    """Embed all patches of a slide, float32 [n, d]; they are read while the batch before is embedded."""
    from tqdm import tqdm

    size, parts = BATCH[parallel.device().type], []
    with tqdm(total=len(patches), desc=patches.path.stem, unit="patch", leave=False) as bar:
        for batch in patches.batches(size, threads=min(os.cpu_count() or 1, 16)):
            images = encoder.preprocess(torch.from_numpy(batch).to(parallel.device()))
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
            f"{model.folder} would see patches of {settings.size * settings.um_per_px:g} um, at {seen:g} um/px",
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


def _is_current(path: Path, made: Made, stated: float | None) -> bool:
    if not path.is_file():
        return False
    attributes = trident.attributes_of(path)
    if not made.matches(json.loads(attributes.get("made", "{}")), path):
        return False
    return attributes.get("stated_um_per_px", stated) == stated


def _report(failed: dict[Path, SealError], number: int) -> None:
    if not failed:
        return
    first = next(iter(failed.values()))
    if number == 1:
        raise first
    raise SealError(
        f"{len(failed)} of {number} slides were not embedded: " + "; ".join(error.what for error in failed.values()),
        expected=first.expected,
        do=f"{first.do}; the other slides are there, and the same command goes on from here",
    )
