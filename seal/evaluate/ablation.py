"""Ablations: one part of the method changed at a time, everything else, the seeds and the test spots the same."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seal import profiles
from seal.data.pairs import Fold, Pairs
from seal.errors import require_known
from seal.evaluate import geometry
from seal.evaluate.methods import Method, predict_by_probe
from seal.evaluate.patch import Evaluation
from seal.evaluate.scoring import summary
from seal.train.runs import CHANGED, Run

FULL, FROZEN = "full", "frozen"


@dataclass(frozen=True)
class Variant:
    """One row of a table of ablations."""

    table: str  # T51 to T54
    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)  # of the profile's settings, as `seal.profile` takes them
    genes: float = 1.0  # share of the panel
    pairs: float = 1.0  # share of the training rows


VARIANTS = {
    "no_info": Variant("T51", "without the contrastive loss", CHANGED["no_info"]),
    "no_rec_vision": Variant("T51", "without reconstruction from images", {"vision__rec_vision_weight": 0.0}),
    "info_alone": Variant("T51", "contrastive loss alone", CHANGED["info_alone"]),
    "heads": Variant("T51", "contrast through MLP heads", {"vision__head": "mlp", "omics__head": "mlp"}),
    "rank_32": Variant("T52", "LoRA of rank 32", {"vision__rank": 32, "vision__alpha": 32}),
    "attention": Variant("T52", "LoRA on attention alone", {"vision__lora_layers": "attention"}),
    "mlp": Variant("T52", "LoRA on the MLP alone", {"vision__lora_layers": "mlp"}),
    "full_tuning": Variant("T52", "last blocks fine-tuned", {"vision__adapter": "full"}),
    "bottleneck": Variant("T52", "bottleneck on the embedding", {"vision__adapter": "bottleneck"}),
    "no_flows": Variant("T53", "omics encoder without flows", {"omics__flows": 0}),
    "masking": Variant("T53", "20 % of the genes masked", {"omics__mask": 0.2}),
    # weights 1/2: those that the MSE has inside the full gene loss
    "mse": Variant(
        "T53",
        "gene loss without the Barlow term",
        {"omics__gene_loss": "mse", "vision__rec_omics_weight": 0.5, "vision__rec_vision_weight": 0.5},
    ),
    "third_panel": Variant("T54", "the first third of the panel", genes=1 / 3),
    "half_pairs": Variant("T54", "half of the pairs, as many steps", pairs=0.5),
}


def list_methods() -> tuple[Method, ...]:
    """List the full method, the frozen encoder and every variant, each probed in the same way."""
    full = Method(FULL, "SEAL, the full method", "adapted", "first", predict_by_probe, embedding="seal")
    frozen = Method(FROZEN, "frozen encoder", "encoder", "none", predict_by_probe, embedding=FROZEN)
    variants = [Method(name, v.label, "adapted", "first", predict_by_probe, name) for name, v in VARIANTS.items()]
    return full, frozen, *variants


@dataclass
class Ablation(Evaluation):
    """Predictions of every variant, beside the full method's and the frozen encoder's.

    Runs the profile's first seed, on as many folds as `EvaluationSettings.ablation_folds` says (0: on all), since a
    dozen variants times all seeds would take longer than everything else.
    """

    methods: tuple[Method, ...] = field(default_factory=list_methods)
    reference: str = FULL

    def folds(self) -> tuple[Fold, ...]:
        """Give the first folds, as many as the profile says."""
        return choose_folds(self.pairs)


def choose_folds(pairs: Pairs) -> tuple[Fold, ...]:
    """Choose the first folds, as many as the profile says."""
    return pairs.folds()[: pairs.profile.evaluation.ablation_folds or None]


def list_runs(pairs: Pairs) -> list[Run]:
    """List what the ablations compare: the full method and its variants, each with the profile's first seed."""
    seed, runs = pairs.profile.evaluation.seeds[0], []
    for fold in choose_folds(pairs):
        runs.append(Run(pairs, fold, seed))
        for name, variant in VARIANTS.items():
            part = fold if variant.pairs == 1 else fold.part(variant.pairs, seed)
            runs.append(Run(vary(pairs, name), part, seed, variant=name))
    return runs


def vary(pairs: Pairs, name: str) -> Pairs:
    """Give the pairs under a variant's settings."""
    variant, profile = VARIANTS[require_known("variant", name, VARIANTS)], pairs.profile
    longer = {f"{s}__epochs": round(getattr(profile, s).epochs / variant.pairs) for s in ("omics", "vision")}
    profile = profiles.changed(profile, **longer, **variant.changes)
    genes = None if variant.genes == 1 else max(2, round(variant.genes * profile.panel.genes))
    return pairs.with_profile(profile, genes)


def table(ablation: Ablation):
    """One row a table, variant and organ: as `seal.evaluate.scoring.summary`, differences against the full method.

    The full method and the frozen encoder stand in every table.

    Returns
    -------
    DataFrame with table and the columns of the summary.
    """
    import pandas as pd

    tables = sorted({variant.table for variant in VARIANTS.values()})
    rows = [{"table": t, "method": name} for t in tables for name in (FULL, FROZEN)]
    rows += [{"table": variant.table, "method": name} for name, variant in VARIANTS.items()]
    return pd.DataFrame(rows).merge(summary(ablation), on="method").sort_values("table", kind="stable")


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
