"""Optional projection heads: what the contrastive loss sees may differ from the embedding that is used."""

from torch import nn

from seal.errors import SealError


def projection(kind: str, dim: int) -> nn.Module:
    """Make a projection head; it stands before the contrastive loss only, the embedding is taken before it.

    none: p = z;  linear: p = W z + b;  mlp: p = W_2 max(W_1 z + b_1, 0) + b_2

    Parameters
    ----------
    kind
        "none", "linear" or "mlp".
    dim
        Size d of the embedding and of its projection.

    Returns
    -------
    A module, [B, d] -> [B, d]; for "none" without parameters.

    Raises
    ------
    SealError
        There is no head of that kind.

    Source: release (none by default); the MLP's hidden size, d, is our choice.
    """
    if kind == "none":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(dim, dim)
    if kind == "mlp":
        return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
    raise SealError(
        f"unknown projection head {kind!r}",
        expected="none, linear or mlp",
        do="change omics.head and vision.head in the profile",
    )
