"""Tidy tables that no evaluation makes."""

import pytest
import torch

from seal import profiles, result_tables, results
from seal.models import architecture, encoders
from seal.models.vision import SealVision


@pytest.mark.parametrize("adapter", ["lora", "full", "bottleneck"])
def test_encoders_count_what_their_adapter_trains(adapter):
    profile = profiles.get("demo", vision__adapter=adapter, vision__blocks=2, vision__rank=4, vision__bottleneck=16)
    table = result_tables.encoder_table(profile)
    assert set(results.RESULTS["encoders"].columns) <= set(table.columns)
    assert set(table["adapter"]) == {adapter}
    for name in ("dinov2_s", "conch"):
        spec = encoders.REGISTRY[name]
        with torch.device("meta"):
            encoder = encoders.VisionEncoder(spec, architecture.plain(spec, spec.image_size))
            SealVision._adapt(encoder, profile.vision)
        trained = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
        assert table.set_index("name").loc[name, "trainable"] == trained > 0
