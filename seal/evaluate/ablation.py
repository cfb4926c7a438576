"""Ablations: one part of the method changed at a time, everything else, the seeds and the test spots the same."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from seal import profiles
from seal.data.pairs import Fold, Pairs
from seal.errors import require_known
from seal.evaluate import geometry
from seal.evaluate.methods import Method, predict_by_probe
from seal.evaluate.patch import Evaluation
from seal.evaluate.scoring import summary
from seal.models.encoder_registry import find_spec
from seal.profiles import Profile
from seal.train.runs import CHANGED, Run

FULL, FROZEN = "full", "frozen"


@dataclass(frozen=True)
class Variant:
    """One row of a table of ablations."""

    table: str  # T51 to T54
    label: str
    # of the profile's settings, as `seal.profile` takes them; a function gives a value for the profile
    changes: Mapping[str, Any] = field(default_factory=dict)
    genes: float = 1.0  # share of the panel
    pairs: float = 1.0  # share of the training rows
    long: bool = False  # left out unless `EvaluationSettings.long_ablations` names it


VARIANTS = {
    "no_info": Variant("T51", "without the contrastive loss", CHANGED["no_info"]),
    "no_rec_vision": Variant("T51", "without reconstruction from images", {"vision__rec_vision_weight": 0.0}),
    "info_alone": Variant("T51", "contrastive loss alone", CHANGED["info_alone"]),
    "heads": Variant("T51", "contrast through MLP heads", {"vision__head": "mlp", "omics__head": "mlp"}, long=True),
    "soft_clip": Variant("T51", "contrast with soft targets", {"vision__contrast": "soft_clip"}, long=True),
    "barlow_twins": Variant("T51", "Barlow Twins for the contrast", {"vision__contrast": "barlow"}, long=True),
    "cca": Variant("T51", "canonical correlation for the contrast", {"vision__contrast": "cca"}, long=True),
    "one_block": Variant("T52", "last block alone", {"vision__blocks": 1}, long=True),
    "three_blocks": Variant("T52", "last three blocks", {"vision__blocks": 3}, long=True),
    "all_blocks": Variant(
        "T52", "all blocks", {"vision__blocks": lambda profile: find_spec(profile.encoder).geometry.depth}, long=True
    ),
    "rank_32": Variant("T52", "LoRA of rank 32", {"vision__rank": 32, "vision__alpha": 32}),
    "attention": Variant("T52", "LoRA on attention alone", {"vision__lora_layers": "attention"}, long=True),
    "mlp": Variant("T52", "LoRA on the MLP alone", {"vision__lora_layers": "mlp"}, long=True),
    "full_tuning": Variant("T52", "last blocks fine-tuned", {"vision__adapter": "full"}),
    "bottleneck": Variant("T52", "bottleneck on the embedding", {"vision__adapter": "bottleneck"}),
    "mlp_encoder": Variant("T53", "omics encoder: MLP", {"omics__encoder": "mlp"}),
    "mae_encoder": Variant("T53", "omics encoder: MLP, genes hidden", {"omics__encoder": "mae"}, long=True),
    "transformer_encoder": Variant("T53", "omics encoder: transformer", {"omics__encoder": "transformer"}, long=True),
    "no_flows": Variant("T53", "omics encoder without flows", {"omics__flows": 0}),
    "masking": Variant("T53", "20 % of the genes masked", {"omics__mask": 0.2}, long=True),
    # weights 1/2: those that the MSE has inside the full gene loss
    "mse": Variant(
        "T53",
        "gene loss without the Barlow term",
        {"omics__gene_loss": "mse", "vision__rec_omics_weight": 0.5, "vision__rec_vision_weight": 0.5},
    ),
    "loss_pcc": Variant("T53", "gene loss: correlation over genes", {"omics__gene_loss": "pcc"}, long=True),
    "loss_l1": Variant("T53", "gene loss: absolute error", {"omics__gene_loss": "l1"}, long=True),
    "loss_huber": Variant("T53", "gene loss: Huber", {"omics__gene_loss": "huber"}, long=True),
    "loss_mmd": Variant("T53", "gene loss: mean discrepancy", {"omics__gene_loss": "mmd"}, long=True),
    "loss_pls": Variant("T53", "gene loss: partial least squares", {"omics__gene_loss": "pls"}, long=True),
    "loss_negbin": Variant("T53", "gene loss: negative binomial", {"omics__gene_loss": "negbin"}, long=True),
    "tenth_panel": Variant("T54", "the first tenth of the panel", genes=0.1, long=True),
    "third_panel": Variant("T54", "the first third of the panel", genes=1 / 3, long=True),
    "half_pairs": Variant("T54", "half of the pairs, as many steps", pairs=0.5),
    "eighth_pairs": Variant("T54", "an eighth of the pairs, as many steps", pairs=0.125, long=True),
}


def choose_variants(profile: Profile, long: bool = False) -> dict[str, Variant]:
    """Choose the variants that change something in this profile; without the long ones unless it asks for them."""
    plain, named = profiles.changed(profile, further_encoders=()), profile.evaluation.long_ablations
    for name in named:
        require_known("ablation", name, (*VARIANTS, "all"))
    own = {n: v for n, v in VARIANTS.items() if v.genes < 1 or v.pairs < 1 or _changed(profile, v) != plain}
    return {n: v for n, v in own.items() if long or not v.long or n in named or "all" in named}


def list_methods(profile: Profile) -> tuple[Method, ...]:
    """List the full method, the frozen encoder and the profile's variants, each probed in the same way."""
    own = {FULL: ("SEAL, the full method", "seal")} | {n: (v.label, n) for n, v in choose_variants(profile).items()}
    full, *variants = (Method(n, v[0], "adapted", "ablation_seeds", predict_by_probe, v[1]) for n, v in own.items())
    return full, Method(FROZEN, "frozen encoder", "encoder", "none", predict_by_probe, embedding=FROZEN), *variants


@dataclass
class Ablation(Evaluation):
    """Predictions of every variant, beside the full method's and the frozen encoder's.

    Runs as many of the first seeds and folds as `EvaluationSettings.ablation_seeds` and `ablation_folds` say (0: all
    folds), since two dozen variants times all seeds would take longer than everything else.
    """

    methods: tuple[Method, ...] = ()  # those of the profile
    reference: str = FULL

    def __post_init__(self) -> None:
        self.methods = self.methods or list_methods(self.pairs.profile)

    def folds(self) -> tuple[Fold, ...]:
        """Give the first folds, as many as the profile says."""
        return self.pairs.trial_folds()


def list_runs(pairs: Pairs) -> list[Run]:
    """List what the ablations compare: the full method and its variants, each with the profile's first seeds."""
    settings, runs = pairs.profile.evaluation, []
    for fold, seed in product(pairs.trial_folds(), settings.seeds[: settings.ablation_seeds]):
        runs.append(Run(pairs, fold, seed))
        for name, variant in choose_variants(pairs.profile).items():
            part = fold if variant.pairs == 1 else fold.part(variant.pairs, seed)
            runs.append(Run(vary(pairs, name), part, seed, variant=name))
    return runs


def vary(pairs: Pairs, name: str) -> Pairs:
    """Give the pairs under a variant's settings."""
    variant, profile = VARIANTS[require_known("variant", name, VARIANTS)], pairs.profile
    genes = None if variant.genes == 1 else max(2, round(variant.genes * profile.panel.genes))
    return pairs.with_profile(_changed(profile, variant), genes)


def _changed(profile: Profile, variant: Variant) -> Profile:
    longer = {f"{s}__epochs": round(getattr(profile, s).epochs / variant.pairs) for s in ("omics", "vision")}
    changes = {key: value(profile) if callable(value) else value for key, value in variant.changes.items()}
    return profiles.changed(profile, further_encoders=(), **longer, **changes)


def table(ablation: Ablation):
    """One row a table, variant and organ: as `seal.evaluate.scoring.summary`, differences against the full method.

    The full method and the frozen encoder stand in every table.

    Returns
    -------
    DataFrame with table and the columns of the summary. A variant that did not run has one row, of no seeds and no
    values.
    """
    import pandas as pd

    variants, found = choose_variants(ablation.pairs.profile, long=True), summary(ablation)
    rows = [{"table": t, "method": n} for t in sorted({v.table for v in variants.values()}) for n in (FULL, FROZEN)]
    rows += [{"table": variant.table, "method": name} for name, variant in variants.items()]
    same = found.iloc[0][["task", "encoder", "split", "dealt", "resample", "tested"]].to_dict()
    same |= {"kind": "adapted", "organ": "all", "metric": "pcc", "folds": 0, "donors": 0, "seeds": 0}
    left = [{"method": n, "label": v.label} | same for n, v in variants.items() if n not in set(found["method"])]
    found = pd.concat([found, pd.DataFrame(left)]) if left else found
    return pd.DataFrame(rows).merge(found, on="method").sort_values("table", kind="stable")


def shapes(ablation: Ablation):
    """One row a variant and fold: how the embeddings of training and test spots lie, and find their own spot.

    Returns
    -------
    DataFrame with method, label, fold and, for train and test, effective_rank, uniformity, alignment, recall10,
    chance10; the last three are NaN for the frozen encoder, which knows no omics embedding.
    """
    import pandas as pd

    return pd.DataFrame([_shape(ablation, fold, m) for fold in ablation.folds() for m in ablation.methods])


def _shape(ablation: Ablation, fold: Fold, method: Method) -> dict[str, Any]:
    own = method.embedding, fold.name, ablation.pairs.profile.evaluation.seeds[0]
    z_v = ablation.embeddings.read(*own)  # [pairs, d]
    z_o = None if method.name == FROZEN else ablation.embeddings.read(*own, table="omics")
    row: dict[str, Any] = {"method": method.name, "label": method.label, "fold": fold.name}
    for where, rows in (("train", geometry.sample(fold.train)), ("test", geometry.sample(fold.test))):
        row[f"effective_rank_{where}"] = geometry.effective_rank(z_v[rows])
        row[f"uniformity_{where}"] = geometry.uniformity(z_v[rows])
        if z_o is not None:
            row[f"alignment_{where}"] = geometry.alignment(z_v[rows], z_o[rows])
            row[f"recall10_{where}"] = geometry.recall(z_v[rows], z_o[rows], 10)
            row[f"chance10_{where}"] = min(1.0, 10 / len(rows))
    return row
