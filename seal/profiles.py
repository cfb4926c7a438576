"""Profiles: the only place where settings live. The three differ in values, never in the way they run.

Each setting carries its source. RELEASE: the default is what the authors' public release does (mahmoodlab/SEAL,
2137d8d), held against its own numbers by tests/test_release.py. BENCH, PATHO: HEST-Bench, Patho-Bench. PAPER: the
public part of the paper. CHOICE: ours, because none of them says. A profile that sets another value makes it our choice
too (`setting_rows`).

Each also carries what it may be, by its type (a `Literal` lists the words) and its range. Settings are checked when
they are made, however that comes about, and nowhere else (`_Checked`).
"""

import dataclasses
import hashlib
import json
import math
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from seal.errors import SealError, require_known, suggest

LONGEST = 80  # characters of a folder's name that settings may take
RELEASE, BENCH, PATHO, PAPER, CHOICE = "release", "HEST-Bench", "Patho-Bench", "paper", "our choice"
REQUIRED = dataclasses.MISSING


def _set(default: Any, source: str = CHOICE, symbol: str = "", before: Any = REQUIRED, **limits: float) -> Any:
    """One setting: its default, where that is from, its symbol in the paper, and limits by the names of `_LIMITS`.

    `before`: what was done while there was no such setting, and is still current if made then: see `keyed`.
    """
    return field(default=default, metadata={"source": source, "symbol": symbol, "before": before, "limits": limits})


class Shown:
    """What a notebook shows as it prints, in a few lines; `repr` stays complete."""

    def __init_subclass__(cls) -> None:  # IPython asks the class itself, not those it comes from
        cls._repr_pretty_ = lambda self, printer, cycle: printer.text(str(self))


class _Checked:
    """Settings that are what they may be: made of anything else, they raise.

    A numpy number becomes Python's, a whole number where a real one is expected a real one, a list a tuple, so that
    equal settings have equal digests.
    """

    def __post_init__(self) -> None:
        group = type(self).__name__.removesuffix("Settings").lower()
        for f in dataclasses.fields(self):
            value = fitted(f"{group}.{f.name}", getattr(self, f.name), f.type, **f.metadata.get("limits", {}))
            object.__setattr__(self, f.name, value)


_TYPES = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}
_LIMITS = {
    "least": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "most": ("at most", operator.le),
    "below": ("below", operator.lt),
    "never": ("not", operator.ne),
}


def fitted(name: str, value: Any, kind: Any, **limits: float) -> Any:
    """Give a value as the plain Python value of that type and inside its limits; the error says its name."""
    try:
        return _fitted(value, kind, limits)
    except ValueError as error:
        words = get_args(kind) if get_origin(kind) is Literal else ()
        do = suggest(value, words) or f"change {name}"
        raise SealError(f"{name} is {value!r}", expected=str(error), do=do) from None


def _fitted(value: Any, kind: Any, limits: Mapping[str, float]) -> Any:
    """The value as the plain Python value of that type; else a ValueError that says what was expected."""
    origin, inner = get_origin(kind), get_args(kind)
    if getattr(value, "ndim", None) == 0:  # numpy's numbers
        value = value.item()
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"one of {', '.join(inner)}")
    elif origin is Mapping:  # of a source's settings, which the source checks
        if not isinstance(value, Mapping):
            raise ValueError("settings by name")
        return {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}
    elif origin is tuple:
        of_each = {name: limit for name, limit in limits.items() if name != "fewest"}
        if not isinstance(value, (tuple, list)) or len(value) < limits.get("fewest", 1):
            raise ValueError("a tuple" if "fewest" in limits else "a tuple of one value or more")
        return tuple(_fitted(item, inner[0], of_each) for item in value)
    else:
        value = float(value) if kind is float and type(value) is int else value
        if type(value) is not kind:
            raise ValueError(_TYPES.get(kind) or kind.__name__)
        if kind in (int, float):
            _require_inside(value, {"least": 0, **limits})
    return value


def _require_inside(value: float, limits: Mapping[str, float]) -> None:
    if not math.isfinite(value) or not all(_LIMITS[name][1](value, limit) for name, limit in limits.items()):
        raise ValueError("a number " + ", ".join(f"{_LIMITS[name][0]} {limit:g}" for name, limit in limits.items()))


@dataclass(frozen=True)
class SelectionSettings(_Checked):
    """MAPLE-Test out of HEST-1k (`seal.data.maple.testset`)."""

    test_organs: int = _set(6, PAPER, least=1)
    test_spots: int = _set(70_000, PAPER, least=1)  # of all organs together, about


@dataclass(frozen=True)
class PanelSettings(_Checked):
    """Gene panel and normalisation."""

    genes: int = _set(2000, RELEASE, "G", least=1)
    test_genes: int = _set(50, CHOICE, least=1)  # HEST-Bench's number; the paper takes 10 an organ
    min_gene_counts: int = _set(3, RELEASE)
    # genes of fewer counts in a section: left out of it, before a spot's total is taken; counted: of no panel only
    rare_genes: Literal["dropped", "counted"] = _set("dropped", RELEASE, before="counted")
    min_spot_counts: int = _set(1, RELEASE)
    # what a gene must vary in to be of the panel: the spots' own counts, or those of their context
    variable_genes: Literal["own", "context"] = _set("own", RELEASE, before="context")
    # share of the training spots whose section must list a gene of the panel
    coverage: float = _set(0.0, CHOICE, most=1)
    own_weight: float = _set(0.5, RELEASE, "a", most=1)  # half the spot's own counts, half the mean around it
    # radius: the spot itself and those up to a row and a column away; grid: its true neighbours alone
    neighbourhood: Literal["radius", "grid"] = _set("radius", RELEASE, before="grid")
    target_sum: float = _set(1e4, RELEASE, above=0)


@dataclass(frozen=True)
class OmicsSettings(_Checked):
    """Stage 1, SEAL-omics."""

    # vae: with planar flows; mae: an mlp that sees four fifths of the genes; transformer: over a spot's genes
    encoder: Literal["vae", "mlp", "mae", "transformer"] = _set("vae", RELEASE, before="vae")
    hidden: tuple[int, ...] = _set((1024, 512), RELEASE, least=1)
    dropout: float = _set(0.0, RELEASE, below=1)
    flows: int = _set(3, RELEASE, "K_f")
    mask: float = _set(0.0, RELEASE, below=1)  # share of the genes that training hides from the encoder
    mask_weight: float = _set(10.0, RELEASE, before=0.0)  # of the squared error of the hidden genes, in stage 1
    kl: float = _set(0.0, RELEASE, "β")  # weight of the KL term in stage 1; the release's is 1 where it is on
    # closed: in closed form before the flows, by dimension; drawn: of the flows' result, one draw
    kl_form: Literal["closed", "drawn"] = _set("closed", RELEASE, before="drawn")
    # projection of z_o before the contrastive loss; what the release calls mlp is linear, our mlp has two layers
    head: Literal["none", "linear", "mlp"] = _set("none", RELEASE)
    # of seal.losses; both stages use it. barlow_mse is the release's barlow_std_mse
    gene_loss: Literal["barlow_mse", "mse", "standardized_mse", "pcc", "pls", "mmd", "l1", "huber", "negbin"] = _set(
        "barlow_mse", RELEASE
    )
    lr: float = _set(5e-4, RELEASE, above=0)  # warm-up lr
    weight_decay: float = _set(0.2, RELEASE)
    batch: int = _set(384, RELEASE, least=2)
    epochs: int = _set(0, RELEASE)  # of warm-up; without any, stage 2 starts from random weights

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl > 0 and self.encoder != "vae":
            what = f"omics.kl is {self.kl:g} with omics.encoder {self.encoder!r}"
            raise SealError(what, expected="0: the vae alone has a posterior", do="change one of the two")


@dataclass(frozen=True)
class VisionSettings(_Checked):
    """Stage 2, SEAL-vision: what is trained, the losses, the schedule."""

    # full: the last blocks themselves; bottleneck: added to the embedding; bottleneck_twice: in its place, as released
    adapter: Literal["lora", "full", "bottleneck", "bottleneck_twice"] = _set("lora", RELEASE)
    blocks: int = _set(1, RELEASE, "N", least=1)  # 1 for CONCH, 3 for UNI2-h
    # linears of a block that get LoRA; named: those with attn or mlp in their name, of Phikon-v2's six the MLP's two
    lora_layers: Literal["named", "all", "attention", "mlp"] = _set("named", RELEASE)
    rank: int = _set(8, RELEASE, "r", least=1)
    alpha: int = _set(8, RELEASE, "α", least=1)
    lora_dropout: float = _set(0.15, RELEASE, below=1)
    bottleneck: int = _set(256, RELEASE, least=1)  # hidden size of the bottleneck adapters
    head: Literal["none", "linear", "mlp"] = _set("none", RELEASE)  # projection of z_v before the contrastive loss
    decoder_hidden: int = _set(512, RELEASE, least=1)
    decoder_dropout: float = _set(0.0, RELEASE, below=1)
    decoder_relu: bool = _set(True, RELEASE)  # at the decoder's end
    # of seal.losses: clip is L_INFO; the release names the others (and s2l) but shows none of them
    contrast: Literal["clip", "soft_clip", "barlow", "cca"] = _set("clip", RELEASE, before="clip")
    temperature: float = _set(0.05, RELEASE, "τ", above=0)  # of clip and soft_clip
    learn_temperature: bool = _set(False, RELEASE)
    info_weight: float = _set(1.0, RELEASE, "w₁")
    rec_omics_weight: float = _set(1.0, RELEASE, "w₂")
    rec_vision_weight: float = _set(1.0, RELEASE, "w₃")
    lr: float = _set(1e-4, RELEASE, above=0)  # for both encoders
    weight_decay: float = _set(0.2, RELEASE)
    batch: int = _set(384, RELEASE, least=2)  # of all processes together
    epochs: int = _set(10, RELEASE, least=1)
    views: int = _set(2, CHOICE, "K")  # augmented views of a patch kept beside the plain one


@dataclass(frozen=True)
class BaselineSettings(_Checked):
    """Baselines of `seal.models.baselines`: what is theirs alone. Adapter and schedule are those of SEAL-vision."""

    projection: int = _set(256, "BLEEP, mclSTExp", least=1)  # size of the space that image and spot share
    bleep_dropout: float = _set(0.1, "BLEEP", below=1)
    bleep_temperature: float = _set(1.0, "BLEEP", above=0)
    bleep_nearest: int = _set(50, "BLEEP", "k", least=1)
    mclstexp_layers: int = _set(2, "mclSTExp", least=1)
    mclstexp_heads: int = _set(8, "mclSTExp", least=1)
    mclstexp_head_width: int = _set(64, "mclSTExp", least=1)
    mclstexp_nearest: int = _set(200, "mclSTExp", "k", least=1)
    pathomclip_heads: int = _set(8, RELEASE, least=1)  # at most: as many as divide the embedding's size
    pathomclip_hidden: int = _set(256, CHOICE, least=1)  # 2,048 in the release
    pathomclip_dropout: float = _set(0.1, RELEASE, below=1)
    triplex_width: int = _set(128, CHOICE, least=2)  # 512 in TRIPLEX, and up to 16 heads
    triplex_heads: int = _set(4, CHOICE, least=1)
    triplex_dropout: float = _set(0.1, "TRIPLEX", below=1)
    triplex_distillation: float = _set(0.3, "TRIPLEX", "α", most=1)
    deepspot_width: int = _set(128, CHOICE, least=1)  # 512 in DeepSpot
    deepspot_ensemble: int = _set(10, "DeepSpot", least=1)
    deepspot_dropout: float = _set(0.3, "DeepSpot", below=1)


@dataclass(frozen=True)
class ComputeSettings(_Checked):
    """How things are computed: speed and memory, not what is computed."""

    assembly: Literal["threads", "processes"] = _set("threads", CHOICE)  # of samples; SEAL_DASK comes first
    tokens: Literal["auto", "memory", "disk", "recompute"] = _set("auto", CHOICE)  # where trunk tokens are kept
    memory_gb: float = _set(4.0, CHOICE)  # auto: tokens up to this size are held in memory
    disk_gb: float = _set(2000.0, CHOICE)  # auto: tokens up to this size are kept on disk, larger ones recomputed
    token_dtype: Literal["float32", "float16", "bfloat16"] = _set("float32", CHOICE)  # what tokens are kept in
    precision: Literal["float32", "bfloat16"] = _set("float32", CHOICE)  # of trunk and tail; losses: always float32
    gradcache: bool = _set(False, CHOICE)  # embed a batch twice, piece by piece: memory no longer grows with it
    compile: bool = _set(False, CHOICE)  # torch.compile of the trunk
    workers: int = _set(0, CHOICE)  # processes that augment patches when tokens are recomputed


@dataclass(frozen=True)
class EvaluationSettings(_Checked):
    """Patch-level evaluation (our choice where HEST-Bench does not say)."""

    # left out: a donor, section, study (its data set), organ, or the given test set
    split: Literal["donor", "section", "study", "organ", "given"] = _set("donor", CHOICE)
    folds: int = _set(0, CHOICE, never=1)  # 0: each of these in turn; K: dealt into K folds, see seal.data.folds
    # what the bootstrap draws: spots within each test donor, or the donors
    resample: Literal["spots", "donors"] = _set("spots", CHOICE)
    pca: int = _set(256, BENCH, least=1)
    # quarter decades
    alphas: tuple[float, ...] = _set(tuple(round(10 ** (k / 4), 4) for k in range(-4, 21)), CHOICE, above=0)
    seeds: tuple[int, ...] = _set((0, 1, 2), CHOICE)
    bootstrap: int = _set(1000, CHOICE, least=1)
    random_encoders: int = _set(3, CHOICE)  # how many random initialisations the control takes, first of the seeds
    ablation_folds: int = _set(0, CHOICE)  # 0: ablations run on all folds; k: on the first k
    ablation_seeds: int = _set(1, CHOICE, least=1)  # the first so many of the seeds; one gives no verdict
    # names of the long ablations that run too; "all": all of them
    long_ablations: tuple[str, ...] = _set((), CHOICE, fewest=0)


@dataclass(frozen=True)
class SlideSettings(_Checked):
    """Slide level: how ABMIL and mean MIL are trained."""

    hidden: int = _set(0, PATHO)  # width of their layers; 0: the embedding's
    attention: int = _set(512, PATHO, least=1)  # width of ABMIL's attention
    epochs: int = _set(20, PATHO, least=1)
    lr: float = _set(3e-4, PATHO, above=0)
    weight_decay: float = _set(1e-5, PATHO)
    bag: int = _set(2048, PATHO, least=1)  # patches of a case that a step sees at most
    seeds: int = _set(3, CHOICE, least=1)  # the first so many of the evaluation's
    memory_gb: float = _set(4.0, CHOICE, above=0)  # of bags and models, of all processes together


@dataclass(frozen=True)
class Profile(_Checked, Shown):
    """One way through the project, from data to figures."""

    name: str
    source: str  # the module that writes the samples
    simulated: bool
    encoder: str  # a name in seal.models.encoder_registry
    image_size: int = _set(REQUIRED, least=1)  # px a patch side, as the encoder sees it
    # of the patch as the encoder sees it; image_size x um_per_px is the field of view
    um_per_px: float = _set(REQUIRED, above=0)
    needs: str  # time, disk, memory, GPU, tokens: shown by `make help` and the README
    # compared with it: frozen, after SEAL and after shuffled pairs, with the first seed, see `for_encoder`
    further_encoders: tuple[str, ...] = _set((), CHOICE, fewest=0)
    source_settings: Mapping[str, Any] = field(default_factory=dict)  # handed to the source, which checks them
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    panel: PanelSettings = field(default_factory=PanelSettings)
    omics: OmicsSettings = field(default_factory=OmicsSettings)
    vision: VisionSettings = field(default_factory=VisionSettings)
    baselines: BaselineSettings = field(default_factory=BaselineSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    slides: SlideSettings = field(default_factory=SlideSettings)

    def __str__(self) -> str:
        what = f"{self.panel.genes} genes, patches of {self.image_size} px at {self.um_per_px:g} µm"
        return f"profile {self.name}: {self.label}\nencoder {self.encoder}, {what}\nneeds {self.needs}"

    @property
    def label(self) -> str:
        """What every figure and table says of its data."""
        return "simulated data" if self.simulated else "real data"


# What small data are trained with in place of the release's way.
SMALL_PANEL = {
    "rare_genes": "counted",  # one set of genes for all sections, however deep
    "variable_genes": "context",  # chosen on what is learnt
    "neighbourhood": "grid",  # the radius reaches four of Visium's six neighbours, and counts the spot twice
}
SMALL_OMICS = {
    "dropout": 0.1,  # a few thousand spots
    "mask_weight": 0.0,  # the gene loss weighs hidden genes too
    "kl_form": "drawn",  # the flows' own bound, which the closed form is not
    "epochs": 10,  # too few steps in stage 2 to learn both encoders from nothing
}
SMALL_VISION = {
    "lora_layers": "all",  # in a DINOv2 of timm the same as named
    "decoder_dropout": 0.1,  # as in stage 1
    "decoder_relu": False,  # a rectified output has no gradient where it is off
}

DEMO = Profile(
    name="demo",
    source="seal_atlas",
    simulated=True,
    encoder="dinov2s_derived",
    further_encoders=("dinov2s_derived_b9", "dinov2s_derived_b6"),
    image_size=112,
    um_per_px=1.0,
    needs="about 40 min on 2 CPU cores, 13 GB disk with the environment, 6 GB memory, no GPU, no token",
    panel=PanelSettings(genes=500, **SMALL_PANEL),
    omics=OmicsSettings(hidden=(256, 128), batch=128, **SMALL_OMICS),
    # 160 steps a fold, where the paper takes some 19,000: hence the larger learning rate; both set by run time
    vision=VisionSettings(decoder_hidden=128, lr=1e-3, batch=128, epochs=8, views=1, **SMALL_VISION),
    evaluation=EvaluationSettings(folds=2, resample="donors", random_encoders=1, ablation_folds=1),
    # sizes, length and seeds by run time
    slides=SlideSettings(hidden=32, attention=32, epochs=10, lr=2e-3, seeds=1),
)

HER2ST = Profile(
    name="her2st",
    source="seal.data.sources.her2st",
    simulated=False,
    encoder="dinov2s_derived",
    further_encoders=("dinov2s_derived_b9", "dinov2s_derived_b6"),
    image_size=112,
    um_per_px=1.0,
    needs="about 60 min on 2 CPU cores for four sections, 11 GB disk with the environment, 6 GB memory, no GPU, "
    "no token",
    panel=PanelSettings(genes=500, **SMALL_PANEL),
    omics=OmicsSettings(hidden=(256, 128), batch=128, **SMALL_OMICS),
    # few pairs, so many epochs: 160 to 320 steps a fold; set after a trial inside patient C (figures/reference/README)
    vision=VisionSettings(decoder_hidden=256, lr=1e-3, batch=128, epochs=80, **SMALL_VISION),
)

MAPLE = Profile(
    name="maple",
    source="seal.data.sources.hest",
    simulated=False,
    encoder="uni2_h",
    further_encoders=("conch", "h0_mini", "phikon_v2", "virchow2"),
    image_size=224,
    um_per_px=0.5,
    needs="HEST-1k (gated; 336 samples, about 140 GB to fetch and 140 GB of pairs) and UNI2-h (gated): a Hugging Face "
    "token with access, one GPU or more",
    # the radius reaches four of Visium's six neighbours, and counts the spot twice
    panel=PanelSettings(coverage=0.9, neighbourhood="grid"),
    # the release's loader knows a file "post warm-up", so the paper's runs had it; for how long, nobody says
    omics=OmicsSettings(epochs=10),
    # a rectified output has no gradient where it is off
    vision=VisionSettings(blocks=3, decoder_relu=False),
    evaluation=EvaluationSettings(split="given", resample="donors", ablation_seeds=2, long_ablations=("all",)),
    compute=ComputeSettings(
        assembly="processes", memory_gb=64.0, token_dtype="bfloat16", precision="bfloat16", workers=14
    ),
)

PROFILES = {profile.name: profile for profile in (DEMO, HER2ST, MAPLE)}


def get(name: str, **changes: Any) -> Profile:
    """Look a profile up by name, with some of its values `changed`.

    Raises
    ------
    SealError
        The profile or a changed setting does not exist, or cannot have that value.
    """
    return changed(PROFILES[require_known("profile", name, PROFILES)], **changes)


def changed(profile: Profile, **changes: Any) -> Profile:
    """Change some values of a profile; a nested setting as ``group__field``, e.g. ``vision__epochs=2``.

    Raises
    ------
    SealError
        A changed setting does not exist, or cannot have that value.
    """
    names = [*(f.name for f in dataclasses.fields(profile)), *_flat(profile)]
    for key, value in changes.items():
        group, _, leaf = key.rpartition("__")
        if group == "source_settings":  # its source checks these
            change = {group: {**profile.source_settings, leaf: value}}
        elif key not in names:
            nested = [name for name in names if name.endswith(f"__{key}")]  # the group was forgotten
            near = f"did you mean {' or '.join(nested)}?" if nested else suggest(key, names)
            raise SealError(
                f"unknown setting {key!r} of profile {profile.name!r}",
                expected="a field of seal.profiles.Profile, nested ones as group__field",
                do=near or "look the name up in seal/profiles.py",
            )
        elif group:
            change = {group: dataclasses.replace(getattr(profile, group), **{leaf: value})}
        else:
            change = {key: value}
        profile = dataclasses.replace(profile, **change)
    return profile


def for_encoder(profile: Profile, name: str, blocks: int | None) -> Profile:
    """Change a profile to one of its further encoders, with the first seed and no random weights beside it.

    `blocks`: how many of that encoder's last blocks are adapted; None: as many as of the profile's own.
    """
    blocks = {} if blocks is None else {"vision__blocks": blocks}
    own = {"evaluation__seeds": profile.evaluation.seeds[:1], "evaluation__random_encoders": 0}
    return changed(profile, encoder=name, further_encoders=(), **own, **blocks)


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
    text = ",".join(
        f"{name}={value}"
        for name, value in sorted(_flat(profile).items())
        if value != own.get(name) and any(name == field or name.startswith(f"{field}__") for field in fields)
    )
    plain = re.sub(r"[^\w=.,+-]+", "-", text)
    if len(plain) <= LONGEST and plain == text:
        return text
    return f"{plain[:LONGEST]},{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def keyed(settings: Any) -> dict[str, Any]:
    """One group of settings as keys have it: what was done before a setting was there is left out (`before`)."""
    fields = ((f, getattr(settings, f.name)) for f in dataclasses.fields(settings))
    return {f.name: value for f, value in fields if value != f.metadata["before"]}


def _flat(profile: Profile) -> dict[str, Any]:
    """Every setting of a profile, nested ones as ``group__field``."""
    flat: dict[str, Any] = {}
    for group, value in dataclasses.asdict(profile).items():
        flat |= {f"{group}__{name}": inner for name, inner in value.items()} if type(value) is dict else {group: value}
    return flat


def to_json(profile: Profile) -> str:
    """Give a profile as JSON, which `from_json` reads."""
    return json.dumps(dataclasses.asdict(profile), indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Profile:
    """Read a profile that `to_json` gave.

    Raises
    ------
    SealError
        It is no JSON, a field is unknown or missing, or cannot have its value.
    """
    try:
        return _from_values(Profile, json.loads(text), "profile")
    except json.JSONDecodeError as error:
        raise SealError(
            f"the profile is not JSON ({error})", expected="what profiles.to_json gives", do="write the file again"
        ) from error


def _from_values(kind: type, values: Any, where: str) -> Any:
    types = {f.name: f.type for f in dataclasses.fields(kind)}
    names = set(values) if isinstance(values, dict) else set()
    if names != set(types):
        unknown, missing = sorted(names - set(types)), sorted(set(types) - names)
        raise SealError(
            f"{where}: unknown fields {unknown}, missing fields {missing}",
            expected=f"exactly the fields of seal.profiles.{kind.__name__}",
            do="write the file again with this version of the package",
        )
    nested = {n: _from_values(t, values[n], n) for n, t in types.items() if dataclasses.is_dataclass(t)}
    return kind(**values | nested)


def setting_rows(profile: Profile) -> list[dict[str, Any]]:
    """Every setting of the two stages, the panel, the computing and the evaluation, with its source.

    Returns
    -------
    One dict a setting: stage, setting, symbol, value, default, source.
    """
    rows = []
    for stage in ("panel", "omics", "vision", "baselines", "compute", "evaluation", "slides"):
        for f in dataclasses.fields(group := getattr(profile, stage)):
            value = getattr(group, f.name)
            source = f.metadata["source"] if value == f.default else CHOICE
            row = {"stage": stage, "setting": f.name, "symbol": f.metadata["symbol"], "value": value}
            rows.append({**row, "default": f.default, "source": source})
    return rows
