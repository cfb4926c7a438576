"""Ablations: one part of the method changed at a time, everything else, the seeds and the test spots the same."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from seal import profiles
from seal.data.pairs import Fold, Pairs
from seal.evaluate import geometry
from seal.evaluate.patch import Evaluation, predict
from seal.evaluate.scoring import summary
from seal.models.vision import SealVision
from seal.train import runs
from seal.train.tokens import embed

FULL, FROZEN = "full", "frozen"


@dataclass(frozen=True)
class Variant:
    """One row of a table of ablations.

    Attributes
    ----------
    table
        The table it stands in, T51 to T54.
    changes
        Settings that differ from the profile's, as `seal.profile` takes them.
    genes, pairs
        Share of the gene panel and of the training rows that is used.
    """

    table: str
    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    genes: float = 1.0
    pairs: float = 1.0


VARIANTS = {
    "no_info": Variant("T51", "without the contrastive loss", {"vision__info_weight": 0.0}),
    "no_rec_vision": Variant("T51", "without reconstruction from images", {"vision__rec_vision_weight": 0.0}),
    "info_alone": Variant(
        "T51", "contrastive loss alone", {"vision__rec_vision_weight": 0.0, "vision__rec_omics_weight": 0.0}
    ),
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


@dataclass
class Ablation(Evaluation):
    """Predictions of every variant, beside the full method's and the frozen encoder's.

    Runs the profile's first seed, on as many folds as `EvaluationSettings.ablation_folds` says (0: on all), since a
    dozen variants times all seeds would take longer than everything else.
    """

    methods: ClassVar[tuple[str, ...]] = (FULL, FROZEN, *VARIANTS)
    reference: ClassVar[str] = FULL

    geometry: list[dict[str, Any]] = field(default_factory=list)

    def folds(self) -> tuple[Fold, ...]:
        """The first folds, as many as the profile says."""
        return self.pairs.folds()[: self.pairs.profile.evaluation.ablation_folds or None]

    def run(self) -> "Ablation":
        """Train and predict for every variant and fold."""
        from tqdm import tqdm

        seed = self.pairs.profile.evaluation.seeds[0]
        frozen: np.ndarray | None = None
        for fold in tqdm(self.folds(), desc="ablations", unit="fold"):
            models = {name: self._train(name, fold, seed) for name in (FULL, *VARIANTS)}
            tails = {name: model.encoder for name, model in models.items()}
            found = embed(tails if frozen is not None else {FROZEN: self.source.encoder, **tails}, self.source)
            frozen = found.pop(FROZEN, frozen)
            for name, embedding in {FROZEN: frozen, **found}.items():
                # The probe learns from all training spots, whatever the encoder has learnt from.
                self.predictions[name, fold.name, seed] = predict(self.pairs, fold, embedding)
            self.geometry += [
                self._shape(name, fold, models.get(name), found.get(name, frozen)) for name in self.methods
            ]
        return self

    def _train(self, name: str, fold: Fold, seed: int):
        if name == FULL:
            return runs.train_vision(self.pairs, fold, seed, self.source)
        variant = VARIANTS[name]
        pairs = varied(self.pairs, name)
        part = fold if variant.pairs == 1 else fold.part(variant.pairs, seed)
        return runs.train_vision(pairs, part, seed, self.source)

    def _shape(self, name: str, fold: Fold, model: SealVision | None, z_v: np.ndarray) -> dict[str, Any]:
        """How the embeddings of the fold's training and test spots lie, and how well they find their own spot."""
        row: dict[str, Any] = {"method": name, "fold": fold.name}
        for where, rows in (("train", geometry.sample(fold.train)), ("test", geometry.sample(fold.test))):
            row[f"effective_rank_{where}"] = geometry.effective_rank(z_v[rows])
            row[f"uniformity_{where}"] = geometry.uniformity(z_v[rows])
            if model is None:  # the frozen encoder knows no omics embedding
                row[f"alignment_{where}"] = row[f"recall10_{where}"] = row[f"chance10_{where}"] = float("nan")
                continue
            x = self.pairs.context(fold)[rows][:, : len(model.gene_mean)]
            with torch.no_grad():
                z_o = model.omics(torch.from_numpy(np.array(x)).to(model.gene_mean.device)).cpu().numpy()
            row[f"alignment_{where}"] = geometry.alignment(z_v[rows], z_o)
            row[f"recall10_{where}"] = geometry.recall(z_v[rows], z_o, 10)
            row[f"chance10_{where}"] = min(1.0, 10 / len(rows))
        return row


def varied(pairs: Pairs, name: str) -> Pairs:
    """The pairs under a variant's settings."""
    variant, profile = VARIANTS[name], pairs.profile
    longer = {f"{s}__epochs": round(getattr(profile, s).epochs / variant.pairs) for s in ("omics", "vision")}
    profile = profiles.changed(profile, **longer, **variant.changes)
    genes = None if variant.genes == 1 else max(2, round(variant.genes * profile.panel.genes))
    return pairs.with_profile(profile, genes)


def table(ablation: Ablation):
    """One row a table, variant and organ: as `seal.evaluate.scoring.summary`, differences against the full method.

    The full method and the frozen encoder stand in every table.

    Returns
    -------
    DataFrame with table, label and the columns of the summary.
    """
    import pandas as pd

    tables = sorted({variant.table for variant in VARIANTS.values()})
    both = {FULL: "SEAL, the full method", FROZEN: "frozen encoder"}
    rows = [{"table": t, "method": name, "label": label} for t in tables for name, label in both.items()]
    rows += [{"table": v.table, "method": name, "label": v.label} for name, v in VARIANTS.items()]
    return pd.DataFrame(rows).merge(summary(ablation), on="method").sort_values("table", kind="stable")


def shapes(ablation: Ablation):
    """One row a variant and fold: effective rank, uniformity, alignment and recall of embeddings, train and test.

    Returns
    -------
    DataFrame with method, fold and, for train and test, effective_rank, uniformity, alignment, recall10, chance10.
    """
    import pandas as pd

    return pd.DataFrame(ablation.geometry)
