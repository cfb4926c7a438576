"""Profiles: the only place where settings live. The three differ in values, never in the way they run.

Each setting carries its source. RELEASE: the default of the authors' public release (mahmoodlab/SEAL,
2137d8d). BENCH: HEST-Bench. PAPER: the public part of the paper. CHOICE: ours, because none of them says. A profile
that sets another value makes it our choice too (`setting_rows`).
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from seal.errors import SealError

LONGEST = 80  # characters of a folder's name that settings may take
RELEASE, BENCH, PAPER, CHOICE = "release", "HEST-Bench", "paper", "our choice"


def _set(default: Any, source: str, symbol: str = "") -> Any:
    return field(default=default, metadata={"source": source, "symbol": symbol})


@dataclass(frozen=True)
class SelectionSettings:
    """MAPLE-Test out of HEST-1k (`seal.data.maple.testset`)."""

    test_organs: int = _set(6, PAPER)
    test_spots: int = _set(70_000, PAPER)  # of all organs together, about


@dataclass(frozen=True)
class PanelSettings:
    """Gene panel and normalisation."""

    genes: int = _set(2000, RELEASE, "G")
    test_genes: int = _set(50, CHOICE)  # HEST-Bench's number; the paper takes 10 an organ
    min_gene_counts: int = _set(3, RELEASE)
    min_spot_counts: int = _set(1, RELEASE)
    coverage: float = _set(0.0, CHOICE)  # share of the training spots whose section must list a gene of the panel
    own_weight: float = _set(0.5, RELEASE, "a")  # half the spot's own counts, half its neighbours' mean
    target_sum: float = _set(1e4, RELEASE)


@dataclass(frozen=True)
class OmicsSettings:
    """Stage 1, SEAL-omics."""

    hidden: tuple[int, ...] = _set((1024, 512), RELEASE)
    dropout: float = _set(0.1, CHOICE)
    flows: int = _set(3, RELEASE, "K_f")
    mask: float = _set(0.0, RELEASE)  # share of the genes that training hides from the encoder
    kl: float = _set(0.0, RELEASE, "β")
    head: str = _set("none", RELEASE)  # projection of z_o before the contrastive loss: none, linear, mlp
    gene_loss: str = _set("barlow_mse", RELEASE)  # a name in seal.losses.GENE_LOSSES; both stages use it
    lr: float = _set(5e-4, RELEASE)  # warm-up lr
    weight_decay: float = _set(0.2, RELEASE)
    batch: int = _set(384, RELEASE)
    epochs: int = _set(10, RELEASE)


@dataclass(frozen=True)
class VisionSettings:
    """Stage 2, SEAL-vision: what is trained, the losses, the schedule."""

    adapter: str = _set("lora", RELEASE)  # lora, full (the last blocks themselves) or bottleneck (on the embedding)
    blocks: int = _set(1, RELEASE, "N")  # 1 for CONCH, 3 for UNI2-h
    lora_layers: str = _set("all", RELEASE)  # linears of a block that get LoRA: all, attention or mlp
    rank: int = _set(8, RELEASE, "r")
    alpha: int = _set(8, RELEASE, "α")
    lora_dropout: float = _set(0.15, RELEASE)
    bottleneck: int = _set(256, CHOICE)  # hidden size of the bottleneck adapter
    head: str = _set("none", RELEASE)  # projection of z_v before the contrastive loss: none, linear, mlp
    decoder_hidden: int = _set(512, RELEASE)
    decoder_dropout: float = _set(0.1, CHOICE)
    decoder_relu: bool = _set(False, CHOICE)  # the release ends its decoder with a ReLU
    temperature: float = _set(0.05, RELEASE, "τ")
    learn_temperature: bool = _set(False, RELEASE)
    info_weight: float = _set(1.0, RELEASE, "w₁")
    rec_omics_weight: float = _set(1.0, RELEASE, "w₂")
    rec_vision_weight: float = _set(1.0, RELEASE, "w₃")
    lr: float = _set(1e-4, RELEASE)  # for both encoders
    weight_decay: float = _set(0.2, RELEASE)
    batch: int = _set(384, RELEASE)  # of all processes together
    epochs: int = _set(10, RELEASE)
    views: int = _set(2, CHOICE, "K")  # augmented views of a patch kept beside the plain one


@dataclass(frozen=True)
class ComputeSettings:
    """How things are computed: speed and memory, not what is computed."""

    assembly: str = _set("threads", CHOICE)  # samples are assembled in threads or processes; SEAL_DASK comes first
    tokens: str = _set("auto", CHOICE)  # where trunk tokens are kept: memory, disk, recompute, or auto by size
    memory_gb: float = _set(4.0, CHOICE)  # auto: tokens up to this size are held in memory
    disk_gb: float = _set(2000.0, CHOICE)  # auto: tokens up to this size are kept on disk, larger ones recomputed
    token_dtype: str = _set("float32", CHOICE)  # what tokens are kept in: float32, float16 or bfloat16
    precision: str = _set("float32", CHOICE)  # of trunk and tail: float32 or bfloat16; losses are always float32
    gradcache: bool = _set(False, CHOICE)  # embed a batch twice, piece by piece: memory no longer grows with it
    compile: bool = _set(False, CHOICE)  # torch.compile of the trunk
    workers: int = _set(0, CHOICE)  # processes that augment patches when tokens are recomputed


@dataclass(frozen=True)
class EvaluationSettings:
    """Patch-level evaluation (our choice where HEST-Bench does not say)."""

    split: str = _set("donor", CHOICE)  # left out: a donor, section, study (its data set), organ, or the given test set
    folds: int = _set(0, CHOICE)  # 0: each of these in turn; K: dealt into K folds, see seal.data.folds
    resample: str = _set("spots", CHOICE)  # what the bootstrap draws: spots within each test donor, or the donors
    pca: int = _set(256, BENCH)
    alphas: tuple[float, ...] = _set(tuple(round(10 ** (k / 4), 4) for k in range(-4, 21)), CHOICE)  # quarter decades
    seeds: tuple[int, ...] = _set((0, 1, 2), CHOICE)
    bootstrap: int = _set(1000, CHOICE)
    random_encoders: int = _set(3, CHOICE)  # how many random initialisations the control takes, first of the seeds
    ablation_folds: int = _set(0, CHOICE)  # 0: ablations run on all folds; k: on the first k


@dataclass(frozen=True)
class Profile:
    """One way through the project, from data to figures."""

    name: str
    source: str  # the module that writes the samples
    simulated: bool
    encoder: str  # a name in seal.models.encoders
    image_size: int  # px a patch side, as the encoder sees it
    um_per_px: float  # of the patch as the encoder sees it; image_size x um_per_px is the field of view
    needs: str  # time, disk, memory, GPU, tokens: shown by `make help` and the README
    source_settings: Mapping[str, Any] = field(default_factory=dict)  # handed to the source, which checks them
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    panel: PanelSettings = field(default_factory=PanelSettings)
    omics: OmicsSettings = field(default_factory=OmicsSettings)
    vision: VisionSettings = field(default_factory=VisionSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    @property
    def label(self) -> str:
        """What every figure and table says of its data."""
        return "simulated data" if self.simulated else "real data"


DEMO = Profile(
    name="demo",
    source="seal_atlas",
    simulated=True,
    encoder="dinov2s_derived",
    image_size=112,
    um_per_px=1.0,
    needs="about 12 min on 2 CPU cores, 9 GB disk with the environment, 4 GB memory, no GPU, no token",
    panel=PanelSettings(genes=500),
    omics=OmicsSettings(hidden=(256, 128), batch=128, epochs=10),
    # 160 steps a fold, where the paper takes some 19,000: hence the larger learning rate; both set by run time
    vision=VisionSettings(decoder_hidden=128, lr=1e-3, batch=128, epochs=8, views=1),
    evaluation=EvaluationSettings(folds=2, resample="donors", random_encoders=1, ablation_folds=1),
)

HER2ST = Profile(
    name="her2st",
    source="seal.data.her2st",
    simulated=False,
    encoder="dinov2s_derived",
    image_size=112,
    um_per_px=1.0,
    needs="about 20 min on 2 CPU cores for four sections, 9 GB disk with the environment, 6 GB memory, no GPU, "
    "no token",
    panel=PanelSettings(genes=500),
    omics=OmicsSettings(hidden=(256, 128), batch=128, epochs=10),
    # few pairs, so many epochs: 160 to 320 steps a fold; set after a trial inside patient C had been seen (README)
    vision=VisionSettings(decoder_hidden=256, lr=1e-3, batch=128, epochs=80),
)

MAPLE = Profile(
    name="maple",
    source="seal.data.hest",
    simulated=False,
    encoder="uni2_h",
    image_size=224,
    um_per_px=0.5,
    needs="HEST-1k (gated; 338 samples, about 140 GB to fetch and 140 GB of pairs) and UNI2-h (gated): a Hugging Face "
    "token with access, one GPU or more",
    panel=PanelSettings(coverage=0.9),
    vision=VisionSettings(blocks=3),
    evaluation=EvaluationSettings(split="given", resample="donors"),
    compute=ComputeSettings(
        assembly="processes", memory_gb=64.0, token_dtype="bfloat16", precision="bfloat16", workers=14
    ),
)

PROFILES = {profile.name: profile for profile in (DEMO, HER2ST, MAPLE)}


def get(name: str, **changes: Any) -> Profile:
    """Look a profile up by name, with some of its values changed.

    Parameters
    ----------
    name
        "demo", "her2st" or "maple".
    **changes
        Fields of `Profile`; a nested setting as `group__field`, e.g. ``vision__epochs=2``.

    Raises
    ------
    SealError
        The profile or a changed setting does not exist.
    """
    if name not in PROFILES:
        raise SealError(
            f"unknown profile {name!r}",
            expected=f"one of {', '.join(PROFILES)}",
            do="write PROFILE=demo (simulated), PROFILE=her2st (real, open) or PROFILE=maple (HEST-1k)",
        )
    return changed(PROFILES[name], **changes)


def changed(profile: Profile, **changes: Any) -> Profile:
    """Change some values of a profile; nested settings as ``group__field``.

    Raises
    ------
    SealError
        A changed setting does not exist.
    """
    for key, value in changes.items():
        group, _, leaf = key.rpartition("__")
        target = getattr(profile, group, None) if group else profile
        if isinstance(target, Mapping):
            profile = dataclasses.replace(profile, **{group: {**target, leaf: value}})
            continue
        if not dataclasses.is_dataclass(target) or leaf not in {f.name for f in dataclasses.fields(target)}:
            raise SealError(
                f"unknown setting {key!r} of profile {profile.name!r}",
                expected="a field of seal.profiles.Profile, nested ones as group__field",
                do="look the name up in seal/profiles.py",
            )
        target = dataclasses.replace(target, **{leaf: value})
        profile = dataclasses.replace(profile, **{group: target}) if group else target
    return profile


def difference(profile: Profile, fields: Iterable[str]) -> str:
    """Name what of some settings differs from the profile of that name: the folder of what was made with others.

    Parameters
    ----------
    fields
        Fields of `Profile`, whole groups or nested ones as ``group__field``.

    Returns
    -------
    "", or for instance "vision__rank=16"; many or long ones end in a digest.
    """
    own = _flat(PROFILES[profile.name]) if profile.name in PROFILES else {}
    chosen = {
        name: value
        for name, value in _flat(profile).items()
        if value != own.get(name) and any(name == field or name.startswith(f"{field}__") for field in fields)
    }
    text = ",".join(f"{name}={value}" for name, value in sorted(chosen.items()))
    plain = re.sub(r"[^\w=.,+-]+", "-", text)
    if len(plain) <= LONGEST and plain == text:
        return text
    return f"{plain[:LONGEST]},{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _flat(profile: Profile) -> dict[str, Any]:
    """Every setting of a profile, nested ones as ``group__field``."""
    flat: dict[str, Any] = {}
    for f in dataclasses.fields(profile):
        value = getattr(profile, f.name)
        if dataclasses.is_dataclass(value):
            flat |= {f"{f.name}__{inner.name}": getattr(value, inner.name) for inner in dataclasses.fields(value)}
        elif isinstance(value, Mapping):
            flat |= {f"{f.name}__{name}": inner for name, inner in value.items()}
        else:
            flat[f.name] = value
    return flat


def as_dict(profile: Profile) -> dict[str, Any]:
    """Give a profile as plain values, for stamps and digests."""
    return dataclasses.asdict(profile)


def setting_rows(profile: Profile) -> list[dict[str, Any]]:
    """Every setting of the two stages, the panel and the evaluation, with its source.

    Returns
    -------
    One dict a setting: stage, setting, symbol, value, default, source.
    """
    rows = []
    for stage in ("panel", "omics", "vision", "compute", "evaluation"):
        group = getattr(profile, stage)
        for f in dataclasses.fields(group):
            value = getattr(group, f.name)
            rows.append(
                {
                    "stage": stage,
                    "setting": f.name,
                    "symbol": f.metadata["symbol"],
                    "value": value,
                    "default": f.default,
                    "source": f.metadata["source"] if value == f.default else CHOICE,
                }
            )
    return rows
