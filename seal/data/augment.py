"""Augmentation of patches ("hard", after the release's setting of that name; its parts are our choice)."""

import numpy as np
import torch
from torch import Tensor


def _pipeline(size: int):
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.6, 1.0), ratio=(0.9, 1.1), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomChoice([v2.Identity(), v2.RandomRotation((90, 90))]),
            v2.RandomApply([v2.ColorJitter(0.3, 0.3, 0.3, 0.05)], p=0.8),
            v2.RandomApply([v2.GaussianBlur(5, (0.1, 1.5))], p=0.3),
            v2.RandomGrayscale(p=0.1),
        ]
    )


def augmented(patches: np.ndarray, rows: np.ndarray, view: int, seed: int) -> Tensor:
    """One augmented view of each patch.

    Each patch draws from its own seed (seed, view, row), so the result does not depend on how the rows
    are chunked.

    Parameters
    ----------
    patches
        uint8 [n, S, S, 3], the patches of `rows`.
    view
        1, 2, ...; view 0 is the plain patch and is returned as it is.

    Returns
    -------
    Tensor uint8 [n, S, S, 3].
    """
    images = torch.from_numpy(np.ascontiguousarray(patches))
    if view == 0:
        return images
    transform = _pipeline(images.shape[1])
    out = torch.empty_like(images)
    with torch.random.fork_rng(devices=[]):
        for i, row in enumerate(rows.tolist()):
            torch.manual_seed(int(np.random.SeedSequence([seed, view, row]).generate_state(1)[0]))
            out[i] = transform(images[i].permute(2, 0, 1)).permute(1, 2, 0)
    return out
