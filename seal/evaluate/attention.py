"""Where ABMIL looks on slides, with the encoder as it comes and after SEAL: tables for maps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seal.data.slide_tasks import SlideTask
from seal.evaluate.scoring import encode_picture
from seal.evaluate.slide_features import Cohort
from seal.evaluate.slide_level import FROZEN, SEAL, SlideLevel, attend
from seal.slides import trident
from seal.slides.image import SlideImage
from seal.slides.patches import find_um_per_px
from seal.train.mil_jobs import MilSettings

if TYPE_CHECKING:
    import pandas as pd

PICTURE = 320  # px, the longer side of a slide's picture
SHOWN = ("molecular", "morphology")  # groups whose first task of classes is shown


def choose(tasks: Sequence[SlideTask]) -> Iterator[tuple[SlideTask, list[str]]]:
    """Choose what is shown, whatever came out: a task a group, and of the first fold's test a slide of two classes."""
    for group in SHOWN:
        own = [task for task in tasks if task.group == group and task.kind == "classes"]
        for task in own[:1]:
            _, test = next(iter(task.folds.values()))
            first = {task.labels[row]: task.slides[row] for row in reversed(test.tolist())}
            yield task, [first[label] for label in sorted(first)[:2]]


def tabulate(
    level: SlideLevel, shown: Sequence[tuple[SlideTask, Sequence[str]]], cohort: Cohort, settings: MilSettings
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Train ABMIL on each task's first fold, and tabulate where it looks on the slides.

    Parameters
    ----------
    shown
        Tasks, and slides that they are not trained on: of their test, or without labels.
    cohort
        Pictures and coordinates of the slides.

    Returns
    -------
    A row a patch: slide, task, encoder, method, label, kind, x, y (upper left corner), side (px of level 0), attention
    (which sums to 1 over a slide and method), simulated.
    A row a slide: slide, task, truth and guess (SEAL's; empty where the task does not know the slide), um_per_px, width
    and height (px of level 0), simulated, jpeg (the whole slide, base64).
    """
    import pandas as pd

    patches, slides = [], []
    for task, names in shown:
        found = {method: attend(level, method, task, settings, names) for method in (FROZEN, SEAL)}
        for name in names:
            slides.append({"slide": name, "task": task.name, **_words(task, found[SEAL], name), **_look(cohort, name)})
            corners = trident.read_table(cohort.coords[name], "coords")
            side = float(trident.attributes_of(cohort.coords[name], "coords")["patch_size_level0"])
            for method, own in found.items():
                named = level.name(method)
                about = {"slide": name, "task": task.name, "encoder": level.encoder, "method": named.name}
                about |= {"label": named.label, "kind": named.kind, "side": side, "simulated": cohort.simulated}
                seen = {"x": corners[:, 0], "y": corners[:, 1], "attention": own.attention[name]}
                patches.append(pd.DataFrame(about | seen))
    return pd.concat(patches, ignore_index=True), pd.DataFrame(slides)


def _words(task: SlideTask, found: Any, slide: str) -> Mapping[str, str]:
    if slide not in task.slides:
        return {"truth": "", "guess": ""}
    truth, guess = task.labels[task.slides.index(slide)], int(np.argmax(found.predictions[slide]))
    return {"truth": task.classes[truth], "guess": task.classes[guess]}


def _look(cohort: Cohort, slide: str) -> dict[str, Any]:
    image = SlideImage(cohort.pictures[slide])
    grid = trident.attributes_of(cohort.coords[slide], "coords")
    stated = None if image.um_per_px else 10 / float(grid["level0_magnification"])
    row = {"um_per_px": find_um_per_px(image, stated), "width": image.width, "height": image.height}
    jpeg, _ = encode_picture(image.overview(max(image.width, image.height) / PICTURE), PICTURE)
    return row | {"simulated": cohort.simulated, "jpeg": jpeg}
