"""The checkpoints that the paper's authors released, read strictly: no key left over, none missing."""

import re
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from seal.errors import SealError
from seal.models import architecture, encoders, weights
from seal.models.encoder_registry import REGISTRY
from seal.models.encoders import VisionEncoder
from seal.models.omics import SealOmics, make_projection_head
from seal.models.vision import GeneDecoder
from seal.profiles import OmicsSettings, VisionSettings

HUB = "https://huggingface.co/MahmoodLab/SEAL"
ENCODER = "encoder.base_model.model."  # where PEFT keeps the module that it wraps
WRAPPERS = ("model.", "encoder.")  # the release wraps some encoders once more, Virchow2 at times under the second name
DECODER, HEAD = "decoder.", "projection_head."
LORA_A = ".lora_A.default.weight"
SIDE = 224  # px of the images that the release gives to every encoder


def load_omics(path: Path) -> SealOmics:
    """Load a released SEAL-omics, `seal_{backbone}_omics.pth`.

    Its sizes, the number of flows, a projection head and norms in the decoder are those of the file's tensors. Neither
    the order of its genes nor their mean and sd are in it: these are zeros and ones, with which the gene losses compare
    values as they are.

    Returns
    -------
    SealOmics in evaluation mode.

    Raises
    ------
    SealError
        The file is truncated, would need code to be run, is of another kind, or a key is missing, left over or
        of another shape.

    Source: release.
    """
    state = _read(path)
    is_linear = re.compile(r"encoder\.(\d+)\.weight").fullmatch
    linear = {int(m[1]): w for name, w in state.items() if (m := is_linear(name)) and w.ndim == 2}  # 1: batch norms
    latent = state.get("fc_mu.weight")
    if not linear or latent is None or latent.ndim != 2:
        looks = "a SEAL-vision file" if any(name.startswith(ENCODER) for name in state) else f"keys as {_some(state)}"
        raise _misfit(path, "is no SEAL-omics file", "encoder.0.weight and fc_mu.weight", f"it looks like {looks}")
    hidden = [linear[i] for i in sorted(linear)]
    genes, dim = hidden[0].shape[1], latent.shape[0]
    flows = len({name.split(".")[1] for name in state if name.startswith("flows.")})
    mean, sd = torch.zeros(genes), torch.ones(genes)
    head = "linear" if f"{HEAD}weight" in state else "none"
    settings = OmicsSettings(hidden=tuple(len(w) for w in hidden), flows=flows, head=head)
    norm = any(name.startswith(DECODER) and name.endswith(".running_mean") for name in state)
    model = SealOmics(genes, dim, settings, mean, sd, decoder_norm=norm)
    shapes = {n: s for n, s in weights.find_shapes(model).items() if n not in ("gene_mean", "gene_sd")}
    if problem := weights.differences(state, shapes):
        raise _misfit(path, f"does not fit SEAL-omics: {problem}", f"exactly {len(shapes)} tensors", "it was changed")
    model.load_state_dict({**state, "gene_mean": mean, "gene_sd": sd}, strict=True)
    return model.eval()


def load_vision(
    path: Path, encoder_name: str, *, image_size: int = SIDE, alpha: int = 8, tiny: bool = False
) -> tuple[VisionEncoder, GeneDecoder, nn.Module]:
    """Load a released SEAL-vision, `seal_{backbone}_vision.pth`: the encoder with its adapters, and its decoder.

    W' = W + (alpha / r) B A on the adapted linears; which these are, and r, is read from the file's keys.

    Parameters
    ----------
    encoder_name
        A name in `seal.models.encoder_registry.REGISTRY`.
    image_size
        Side of the images, px. Position embeddings of another size are resampled: CONCH's own images have 448.
    alpha
        LoRA's alpha; it is not in the file.
    tiny
        The file holds the tiny encoder of tests, see `encoders.build`.

    Returns
    -------
    The encoder, LoRA layers of PEFT in place; its gene decoder, which ends with a ReLU; and its projection head, the
    identity if the file has none; all in evaluation mode.

    Raises
    ------
    SealError
        The file is truncated, would need code to be run, is of another kind or of another encoder, or a key is
        missing, left over or of another shape.

    Source: release (alpha 8).
    """
    # On the meta device no start values are computed: all are loaded.
    with torch.device("meta"):
        encoder = encoders.build(encoder_name, weights="random", image_size=image_size, tiny=tiny)
    file = _read(path)
    body = {name.removeprefix(ENCODER): value for name, value in file.items() if name.startswith(ENCODER)}
    rest = {name: value for name, value in file.items() if not name.startswith(ENCODER)}
    if not body:
        looks = "a SEAL-omics file" if "fc_mu.weight" in rest else f"keys as {_some(rest)}"
        raise _misfit(path, "is no SEAL-vision file", f"keys that begin with {ENCODER}", f"it looks like {looks}")
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in body):
            body = {name.removeprefix(wrapper): value for name, value in body.items()}
    state = weights.convert_state(body, encoder.spec, weights.find_shapes(encoder.model))
    _add_adapters(encoder.model, state, alpha)
    head = make_projection_head("linear" if f"{HEAD}weight" in rest else "none", encoder.dim)
    parts = {ENCODER: encoder.model, DECODER: _decoder(rest, encoder.dim), HEAD: head}
    shapes = {prefix + name: s for prefix, part in parts.items() for name, s in weights.find_shapes(part).items()}
    if problem := weights.differences({**{ENCODER + name: value for name, value in state.items()}, **rest}, shapes):
        spec, other = encoder.spec, _recognise(body, tiny)
        what = f"does not fit {spec.label}: {problem}"
        hint = f"it looks like {other!r}" if other not in (None, spec.name) else "it is another encoder's or changed"
        raise _misfit(path, what, f"{spec.label} ({spec.geometry}) with LoRA, and a decoder", hint)
    if not any(name.endswith(LORA_A) for name in state):
        raise _misfit(path, "has no adapters", f"keys that end with {LORA_A}", "it was merged or never adapted")
    encoder.model.load_state_dict(state, strict=True, assign=True)
    for prefix in (DECODER, HEAD):
        own = {name.removeprefix(prefix): value for name, value in rest.items() if name.startswith(prefix)}
        parts[prefix].load_state_dict(own, strict=True, assign=True)
    return encoder.eval(), parts[DECODER].eval(), head.eval()


def _read(path: Path) -> dict[str, Tensor]:
    """The file's tensors, under names without what training in parallel, or a head of one layer, puts before them."""
    state = weights.read_weights(Path(path), f"download it again from {HUB}")
    state = {name.removeprefix("module.").replace(f"{HEAD}0.", HEAD): value for name, value in state.items()}
    return {name: v.long() if name.endswith("num_batches_tracked") else v for name, v in state.items()}


def _add_adapters(model: nn.Module, state: dict[str, Tensor], alpha: int) -> None:
    """Put LoRA layers, in place, on the linears for which a state dict has them."""
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if targets := [name for name in linears if name + LORA_A in state]:
        rank = len(state[targets[0] + LORA_A])  # one for all; another one's shape would be reported as not fitting
        with torch.device("meta"):
            get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, bias="none"))


def _decoder(state: dict[str, Tensor], dim: int) -> GeneDecoder:
    """A gene decoder without weights, of the sizes that its biases have, 1 where one is missing."""
    norm = f"{DECODER}decoder.1.running_mean" in state
    biases = (state.get(f"{DECODER}decoder.{i}.bias") for i in (0, 4 if norm else 3))
    hidden, genes = (1 if bias is None else bias.numel() for bias in biases)
    with torch.device("meta"):
        settings = VisionSettings(decoder_hidden=hidden, decoder_relu=True)
        return GeneDecoder(dim, torch.zeros(genes), torch.ones(genes), settings, norm)


def _recognise(body: dict[str, Tensor], tiny: bool) -> str | None:
    """Name the encoder whose tensors, adapters aside, a state dict has."""
    bare = {name.replace(".base_layer.", "."): value for name, value in body.items() if ".lora_" not in name}
    for spec in REGISTRY.values():
        with torch.device("meta"):
            shapes = weights.find_shapes(architecture.make_plain(spec, spec.image_size, tiny=tiny))
        if not weights.differences(weights.convert_state(bare, spec, shapes), shapes):
            return spec.name
    return None


def _some(state: dict[str, Tensor]) -> str:
    return ", ".join(list(state)[:3])


def _misfit(path: Path, what: str, expected: str, hint: str) -> SealError:
    return SealError(
        f"{path} {what}",
        expected=expected,
        do=f"{hint}; give the file of this encoder and kind from {HUB}, unchanged",
    )
