"""How methods without a regression head predict: from the training spots that a patch resembles."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from seal.errors import SealError
from seal.shapes import Float, Int

Query = Float[Tensor, "batch shared"]
Keys = Float[Tensor, "train shared"]
Values = Float[Tensor, "train genes"]
Prediction = Float[Tensor, "batch genes"]


def soft_targets(image: Query, spot: Query, temperature: float) -> Float[Tensor, "batch batch"]:
    """BLEEP's targets, softmax over each row of (i i' + s s') / 2 T.

    Source: BLEEP, models.py (bowang-lab/BLEEP; Xie et al. 2023), which multiplies by T here and divides the logits.
    """
    return F.softmax((image @ image.T + spot @ spot.T) / 2 * temperature, dim=1)


def find_nearest(query: Query, keys: Keys, k: int) -> Int[Tensor, "batch k"]:
    """Find the k training spots of highest cosine similarity.

    Raises
    ------
    SealError
        There are fewer training spots.
    """
    if len(keys) < k:
        do = "train on more spots, or lower baselines.bleep_nearest and baselines.mclstexp_nearest"
        raise SealError(f"{len(keys)} training spots to look up", expected=f"at least the {k} that are averaged", do=do)
    return (F.normalize(query, dim=1) @ F.normalize(keys, dim=1).T).topk(k, dim=1).indices


def average_nearest(query: Query, keys: Keys, values: Values, k: int) -> Prediction:
    """Mean expression of the k nearest training spots. Source: BLEEP, its method "average"."""
    return values[find_nearest(query, keys, k)].mean(dim=1)


def weigh_nearest(query: Query, keys: Keys, values: Values, k: int) -> Prediction:
    """Mean of the k nearest by cosine, weighted by 1 / d^2, d = sum_j |q_j - k_j|.

    Source: mclSTExp, evel_her2st.py (ZhicengShi/mclSTExp). That d is at least 1e-6 is ours.
    """
    nearest = find_nearest(query, keys, k)  # [B, k]
    weights = (keys[nearest] - query[:, None]).abs().sum(dim=2).clamp_min(1e-6) ** -2  # [B, k]
    return torch.einsum("bk,bkg->bg", weights / weights.sum(dim=1, keepdim=True), values[nearest])


def weigh_all(keys: Keys, values: Values) -> Callable[[Query], Prediction]:
    """Mean over all training spots, weighted by cosine similarity: sum_j s_ij y_j / sum_j s_ij; no training.

    Returns
    -------
    What predicts patches. The rule is linear in a patch's direction, so no matrix of similarities is needed.

    Source: Loki's PredEx (GuangyuWangLab2021/Loki; Chen et al. 2025), which compares the image with the spots' text by
    OmiCLIP. Its weights are gated: here the image is compared with the spots' images by the profile's encoder.
    """
    keys = F.normalize(keys.double(), dim=1)
    summed, product = keys.sum(dim=0), keys.T @ values.double()  # [s], [s, G]

    def predict(query: Query) -> Prediction:
        query = F.normalize(query.double(), dim=1)
        total = query @ summed  # [B]
        if not (total.abs() > 1e-9).all():
            what = f"the similarities of a patch with {len(keys)} training spots add up to zero"
            raise SealError(what, expected="similarities that can be weights", do="train on more spots")
        return (query @ product / total[:, None]).float()

    return predict
