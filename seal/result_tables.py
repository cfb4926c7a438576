"""The table of encoders."""

import torch

from seal.models import architecture, encoders
from seal.profiles import Profile, VisionSettings

_ENCODER_FIELDS = ("name", "label", "hub", "dim", "pooling", "precision", "gated", "licence")


def encoder_table(profile: Profile):
    """One row an encoder of the registry, with all its parameters and those that the profile's adapter would train.

    Both are counted on the true geometry on torch's meta device: nothing is downloaded or allocated.

    Returns
    -------
    DataFrame with name, label, hub, geometry, dim, pooling, mean, std, precision, gated, licence, parameters,
    trainable, adapter, used (whether this profile runs it).
    """
    import pandas as pd

    rows = []
    for name, spec in encoders.REGISTRY.items():
        with torch.device("meta"):
            encoder = encoders.VisionEncoder(spec, architecture.plain(spec, spec.image_size))
        row = {field: getattr(spec, field) for field in _ENCODER_FIELDS}
        rows.append(
            row
            | {"geometry": str(spec.geometry), "mean": str(spec.mean), "std": str(spec.std)}
            | {"parameters": sum(p.numel() for p in encoder.model.parameters())}
            | {"trainable": _trainable(encoder, profile.vision), "adapter": profile.vision.adapter}
            | {"used": name == profile.encoder}
        )
    return pd.DataFrame(rows)


def _trainable(encoder: encoders.VisionEncoder, settings: VisionSettings) -> int:
    """What the adapter trains: r (d_in + d_out) a linear by LoRA, the last blocks, or 2 d h + h + d beside them."""
    if settings.adapter == "lora":
        linears = [encoder.model.get_submodule(name) for name in encoder.lora_targets(settings.blocks)]
        return sum(settings.rank * (m.in_features + m.out_features) for m in linears)
    if settings.adapter == "full":
        return sum(p.numel() for p in encoder.tail_parameters(settings.blocks))
    d, h = encoder.dim, settings.bottleneck
    return 2 * d * h + h + d
