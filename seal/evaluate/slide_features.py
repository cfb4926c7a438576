"""Slides with labels, embedded by all that is compared: one h5 a slide in TRIDENT's layout, one pass over the trunk."""

import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from seal import paths
from seal.data.patho_bench import read_tasks
from seal.data.slide_tasks import MISSING, SlideTask, read_columns
from seal.embed import SAME_SCALE, embed_patches, find_slides, is_current
from seal.errors import SealError
from seal.evaluate.embeddings import Embeddings, embed_images
from seal.files import Made, contents, digest, lock, progress, say_done
from seal.models import encoders, weights
from seal.models.baselines.colour import colour_statistics
from seal.models.encoder_registry import find_spec
from seal.models.encoders import VisionEncoder
from seal.profiles import Profile, difference
from seal.slides import trident
from seal.slides.image import SlideImage
from seal.slides.patches import Patches, PatchSettings, extract, find_um_per_px
from seal.train import parallel, runs
from seal.train.batches import TokenSource
from seal.train.runs import Run
from seal.train.tokens import CHUNK

VERSION = 1  # counted up when the same slides, runs and settings give other embeddings
ASSUMED = 0.5  # um/px of a slide that does not say: a 20x scan
AGAIN = "add them, or take the slides out of the tasks"


@dataclass(frozen=True)
class Cohort:
    """Slides: their tasks, their pictures, the h5 of the coordinates of each one's patches, and what else is known."""

    tasks: tuple[SlideTask, ...]
    pictures: Mapping[str, Path]  # slide -> file
    coords: Mapping[str, Path]
    simulated: bool
    covariates: Mapping[str, np.ndarray] = field(default_factory=dict)  # slide -> numbers, see `read_covariates`


def find_cohort(profile: Profile) -> Cohort:
    """The profile's cohort: what its source simulates, if it offers ``prepare_slides``, else what SEAL_SLIDES names.

    A folder with tasks/ (Patho-Bench's layout), wsis/, patches/SLIDE_patches.h5 in a folder a scale (TRIDENT's layout)
    and, if there is something to say, covariates.csv.

    Raises
    ------
    SealError
        There are no slides; a task is bad (`seal.data.patho_bench`), simulated and the profile not or the reverse; a
        slide of a task has no picture or no coordinates.
    """
    offered = getattr(importlib.import_module(profile.source), "prepare_slides", None)
    root = offered(profile) if offered else paths.given("SEAL_SLIDES")
    if root is None:
        what = f"profile {profile.name} has no slides with labels"
        do = "name a folder of tasks/, wsis/ and coordinates; data/README.md says how it is laid out"
        raise SealError(what, expected="SEAL_SLIDES=FOLDER", do=do)
    tasks = tuple(read_tasks(root / "tasks"))
    for task in tasks:
        if task.simulated != profile.simulated:
            kind = "simulated" if task.simulated else "real"
            what = f"task {task.name} is {kind}, profile {profile.name} has {profile.label}"
            raise SealError(what, expected="what the results will say they are", do="take the profile's own slides")
    names = sorted({slide for task in tasks for slide in task.slides})
    pictures = {path.stem: path for path in find_slides([root / "wsis"])}
    coords = {path.name.removesuffix("_patches.h5"): path for path in sorted(root.glob("*/patches/*_patches.h5"))}
    for what, known in (("picture in wsis/", pictures), ("file of coordinates in */patches/", coords)):
        if lacking := [name for name in names if name not in known]:
            raise SealError(
                f"{root}: {len(lacking)} of {len(names)} slides have no {what}, first {lacking[0]}",
                expected="one of each slide that a task names",
                do=AGAIN,
            )
    files = ({name: known[name] for name in names} for known in (pictures, coords))
    return Cohort(tasks, *files, profile.simulated, read_covariates(root / "covariates.csv", tasks))


def digest_of(cohort: Cohort) -> str:
    """Digest of a cohort: its pictures, coordinates, labels, folds and covariates."""
    files = contents([*cohort.pictures.values(), *cohort.coords.values()])
    known = {slide: row.tolist() for slide, row in cohort.covariates.items()}
    tasks = [{name: _plain(value) for name, value in vars(task).items()} for task in cohort.tasks]
    return digest([list(cohort.pictures), files, tasks, known])


def _plain(value: object) -> object:
    """What `digest` takes: a task's arrays as lists."""
    if isinstance(value, Mapping):
        return {name: _plain(own) for name, own in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(own) for own in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def read_covariates(path: Path, tasks: Sequence[SlideTask]) -> dict[str, np.ndarray]:
    """Read what is known of cases beside their pictures: case_id, and columns such as site, age, organ.

    Returns
    -------
    slide -> numbers: a column of numbers standardised, 0 where it is empty; of others a 0 or 1 for each of its values.
    Empty if there is no such file.

    Raises
    ------
    SealError
        The file cannot be read, lacks case_id, or a case of the tasks, or has a case twice.
    """
    if not path.is_file():
        return {}
    columns = read_columns(path)
    place = {case: i for i, case in enumerate(columns.get("case_id", ()))}
    if len(place) < len(columns.get("case_id", ())):
        raise SealError(f"{path} has a case twice", expected="a row a case", do="keep one row of each")
    cases = {slide: case for task in tasks for slide, case in zip(task.slides, task.cases, strict=True)}
    if lacking := sorted({*cases.values()} - {*place}):
        what = f"{path} lacks {len(lacking)} cases of the tasks, first {lacking[0]}"
        raise SealError(what, expected="a column case_id, a row a case", do="add them, or delete the file")
    parts = [_code(np.array(values)) for name, values in columns.items() if name != "case_id"]
    table = np.column_stack(parts) if parts else np.zeros((len(place), 0))
    return {slide: table[place[case]] for slide, case in cases.items()} if table.shape[1] else {}


def _code(values: np.ndarray) -> np.ndarray:
    """Numbers of one column, [cases, 1 or its values]."""
    known = ~np.isin(values, sorted(MISSING))
    try:
        numbers = values[known].astype(float)
    except ValueError:
        return (values[:, None] == np.unique(values)).astype(float)
    scaled = np.zeros((len(values), 1))
    scaled[known, 0] = (numbers - numbers.mean()) / (numbers.std() or 1.0) if len(numbers) else 0
    return scaled


def find_truth(profile: Profile) -> dict[str, np.ndarray]:
    """Slide -> what the profile's source knows of it, if it simulates slides (``slide_truth``); else empty."""
    offered = getattr(importlib.import_module(profile.source), "slide_truth", None)
    return offered(profile) if offered else {}


def find_real(profile: Profile) -> Cohort | None:
    """Real slides without labels, of the folder that SEAL_WSI names, patches laid over their tissue; None without it.

    A slide that does not say its um/px is taken for one of `ASSUMED`, which is printed.
    """
    root = paths.given("SEAL_WSI")
    if root is None:
        return None
    settings = PatchSettings(size=profile.image_size, um_per_px=profile.um_per_px)
    scale, pictures, coords = trident.scale_folder(profile.um_per_px, profile.image_size, 0), {}, {}
    for path in find_slides([root]):
        stated = None
        if SlideImage(path).um_per_px is None:
            stated = ASSUMED
            print(f"{path.name} does not say how large its pixels are: {ASSUMED} um are assumed")
        found, name = extract(path, settings, stated), path.stem
        pictures[name], coords[name] = path, trident.coords_path(paths.slides("real"), scale, name)
        scales = found.um_per_px, profile.um_per_px, profile.image_size
        grid = trident.describe_grid(name, found.tissue.size, *scales)
        trident.write_coords(coords[name], found.patches.coords, grid)
    return Cohort((), pictures, coords, simulated=False)


def features_folder(source: TokenSource, name: str) -> Path:
    """Where a cohort's embeddings of a name lie, SLIDE.h5."""
    profile = source.pairs.profile
    root = paths.embeddings(profile.name, difference(profile, runs.VISION)) / "slides"
    return trident.features_folder(root, trident.scale_folder(profile.um_per_px, profile.image_size, 0), name)


def embed_cohort(cohort: Cohort, *own: tuple[TokenSource, Sequence[Run]]) -> list[dict[tuple[str, int], Path]]:
    """Embed a cohort with encoders as they come, trained runs and, of a main encoder, random weights and colour.

    What is there and current is left alone. Encoders that are cut from the same share a pass.

    Parameters
    ----------
    own
        Of each encoder its tokens' source and its runs.

    Returns
    -------
    Of each encoder, (method, seed) -> the folder of its embeddings.

    Raises
    ------
    SealError
        A run is not trained; a slide cannot be read, or its patches are of another field of view than the pairs'.
    """
    encoders_of, began = [_Own.of(source, chosen) for source, chosen in own], time.monotonic()
    by_trunk: dict[tuple, list[_Own]] = {}
    for each in encoders_of:
        by_trunk.setdefault(each.trunk, []).append(each)
    for group in by_trunk.values():
        missing = dict(_missing(cohort, group))
        if missing:
            _embed(missing, cohort, group)
        number, where = len(cohort.pictures), features_folder(group[0].source, "").parent
        say_done(f"{number} slides' embeddings", where, began, number - len(missing), len(missing))
    return [{key: features_folder(e.source, name) for key, name in e.named.items()} for e in encoders_of]


@dataclass(frozen=True)
class _Own:
    """What one encoder has embedded: names of its embeddings, and the runs among them."""

    source: TokenSource
    named: Mapping[tuple[str, int], str]  # (method, seed) -> name
    by_name: Mapping[str, Run]

    @classmethod
    def of(cls, source: TokenSource, chosen: Sequence[Run]) -> "_Own":
        pairs, store = source.pairs, Embeddings(source.pairs)
        first = pairs.profile.evaluation.seeds[0]
        named = {(run.method, run.seed): store.name(run.method, run.fold.name, run.seed) for run in chosen}
        named |= {("frozen", first): store.name("frozen")}
        if not pairs.further:
            named |= {("random", first): store.name("random", seed=first), ("colour", first): store.name("colour")}
        return cls(source, named, {named[run.method, run.seed]: run for run in chosen})

    @property
    def trunk(self) -> tuple:
        """What encoders share that can be embedded in one pass."""
        profile = self.source.pairs.profile
        where = profile.image_size, profile.um_per_px, profile.vision.blocks, profile.compute.precision
        return find_spec(profile.encoder).file_name, *where

    def file(self, name: str, slide: str) -> Path:
        return features_folder(self.source, name) / f"{slide}.h5"

    def parts(self, name: str) -> dict:
        """What embeddings of a name follow from beside the slide."""
        profile, run = self.source.pairs.profile, self.by_name.get(name)
        own = {"encoder": profile.encoder, "weights": weights.fingerprint(profile.encoder)}
        own |= {"image_size": profile.image_size, "um_per_px": profile.um_per_px}
        own |= {"precision": profile.compute.precision}
        return own | ({"run": run.key(self.source)} if run else {})

    def tails(self) -> dict[str, VisionEncoder]:
        frozen = self.named["frozen", self.source.pairs.profile.evaluation.seeds[0]]
        trained = {name: runs.train_vision(run, self.source).encoder for name, run in self.by_name.items()}
        return trained | {frozen: self.source.encoder}

    def others(self) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
        """What is embedded without the trunk."""
        profile, first = self.source.pairs.profile, self.source.pairs.profile.evaluation.seeds[0]
        if ("random", first) not in self.named:
            return {}
        random = encoders.build(profile.encoder, weights="random", image_size=profile.image_size, seed=first)
        embed = partial(embed_patches, random, precision=profile.compute.precision)
        return {self.named["random", first]: embed, self.named["colour", first]: colour_statistics}


def _missing(cohort: Cohort, group: Sequence[_Own]) -> Iterator[tuple[str, dict[Path, Made]]]:
    """Slides that are not embedded by every name, and what each of their files is to be made from."""
    slides = list(cohort.pictures)
    known = contents([*cohort.pictures.values(), *cohort.coords.values()])
    parts = [(own, name, own.parts(name)) for own in group for name in own.named.values()]
    for slide, picture, coords in zip(slides, known[: len(slides)], known[len(slides) :], strict=True):
        files = {"slide": picture, "coords": coords}
        made = {own.file(name, slide): Made("a slide's embeddings", VERSION, part | files) for own, name, part in parts}
        if not all(is_current(file, each) for file, each in made.items()):
            yield slide, made


def _embed(missing: Mapping[str, dict[Path, Made]], cohort: Cohort, group: Sequence[_Own]) -> None:
    tails = {name: tail for own in group for name, tail in own.tails().items()}
    others = {name: other for own in group for name, other in own.others().items()}
    deepest = max((own.source for own in group), key=lambda source: source.encoder.depth)
    profile, files = deepest.pairs.profile, {name: own for own in group for name in own.named.values()}
    with lock(paths.embeddings(profile.name), "embeds slides in"), progress("slides", len(missing), "slide") as advance:
        for slide, made in missing.items():
            patches = open_patches(cohort.pictures[slide], cohort.coords[slide], profile)
            found = embed_images(deepest, tails, patches.batches(CHUNK[parallel.device().type]), others)
            for name, z in found.items():
                file = files[name].file(name, slide)
                notes = {"made": json.dumps(made[file].stamp()), "simulated": cohort.simulated}
                trident.write_features(file, z, patches.coords, name, None, notes)
            advance()


def open_patches(picture: Path, coords: Path, profile: Profile) -> Patches:
    """Open a slide's patches where TRIDENT's coordinates put them, at the profile's image size.

    Raises
    ------
    SealError
        The slide cannot be read; there is no patch; patches are of another field of view than the profile's.
    """
    image, grid = SlideImage(picture), trident.attributes_of(coords, "coords")
    corners = np.asarray(trident.read_table(coords, "coords")).reshape(-1, 2).astype(np.int64)
    side = float(grid.get("patch_size_level0", 0))
    stated = None if image.um_per_px else 10 / float(grid.get("level0_magnification", np.nan))
    seen, wanted = side * find_um_per_px(image, stated), profile.image_size * profile.um_per_px
    if not len(corners):
        raise SealError(f"{coords} holds no patch", expected="one or more", do=AGAIN)
    if abs(seen / wanted - 1) > SAME_SCALE:
        raise SealError(
            f"{coords} has patches of {seen:g} um",
            expected=f"{wanted:g} um, as the pairs have",
            do=f"lay patches of {wanted:g} um, or change the profile's image_size or um_per_px",
        )
    return Patches(image, corners, side, profile.image_size)
