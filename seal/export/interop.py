"""Saved models in other people's tools, none of which is needed to import this module.

timm
    ``timm.create_model("local-dir:FOLDER", pretrained=True)``; Phikon-v2:
    ``transformers.AutoModel.from_pretrained("FOLDER")``.
PEFT
    ``peft.PeftModel.from_pretrained(base, "FOLDER/adapter")``, base being the plain pretrained encoder.
TRIDENT, whose features Patho-Bench reads, and HEST-Bench
    See below.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seal.errors import SealError
from seal.export.load import load


class FloatEmbedding(nn.Module):
    """An encoder whose embeddings are float32 whatever autocast computes in.

    Both tools call ``.cpu().numpy()`` on what comes out under autocast, and numpy has no bfloat16.

    Shapes: [B, 3, S, S] -> [B, d].
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """Embed preprocessed images."""
        return self.encoder(images).float()


def trident_encoder(path_or_repo: str | Path) -> Any:
    """Wrap a saved model for TRIDENT: ``processor.run_patch_feature_extraction_job(coords, encoder, device)``.

    Patches must be taken at the um/px of the model's seal.json, e.g. 20x for 0.5.

    Returns
    -------
    trident.patch_encoder_models.load.CustomInferenceEncoder, named {encoder}_seal.

    Raises
    ------
    SealError
        TRIDENT is not installed, or as `seal.load`.

    Source: mahmoodlab/TRIDENT, trident/patch_encoder_models/load.py (0120b8b).
    """
    try:
        from trident.patch_encoder_models.load import CustomInferenceEncoder
    except ImportError as error:
        raise SealError(
            f"TRIDENT cannot be imported ({error})",
            expected="the package trident",
            do="pip install git+https://github.com/mahmoodlab/TRIDENT.git",
        ) from error
    loaded = load(path_or_repo)
    encoder = CustomInferenceEncoder(
        enc_name=f"{loaded.model.spec.name}_seal",
        model=FloatEmbedding(loaded.model),
        transforms=loaded.transform,
        precision=getattr(torch, loaded.model.spec.precision),  # of autocast
    )
    encoder.embedding_dim = loaded.model.dim  # it asks for this where a slide has no tissue
    return encoder


def hest_bench_arguments(path_or_repo: str | Path) -> dict[str, Any]:
    """Give what HEST-Bench takes for an encoder of one's own: encoder, enc_transf, precision, and no encoders besides.

    ``hest.bench.benchmark(**hest_bench_arguments("FOLDER"), datasets=["IDC"])``. Without the empty list it would also
    download and run ResNet50. Its older versions, ``benchmark_encoder(..., config_path=...)``, take the first three.

    Raises
    ------
    SealError
        As `seal.load`.

    Source: mahmoodlab/HEST, src/hest/bench/benchmark.py (87e586f; 0512f57 for the older one).
    """
    loaded = load(path_or_repo)
    return {
        "encoder": FloatEmbedding(loaded.model),
        "enc_transf": loaded.transform,
        "precision": getattr(torch, loaded.model.spec.precision),  # of autocast
        "encoders": [],
    }
