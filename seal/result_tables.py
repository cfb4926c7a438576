"""Tidy tables about data, settings and training; what evaluation adds lies in `seal.evaluate`."""

import torch

from seal import profiles
from seal.data.folds import left_out
from seal.data.pairs import Pairs
from seal.models import architecture, encoders
from seal.profiles import Profile, VisionSettings
from seal.train import runs

_ENCODER_FIELDS = ("name", "label", "hub", "dim", "pooling", "precision", "gated", "licence")


def samples(pairs: Pairs):
    """One row a section, with the fold that leaves it out (None: none does).

    Returns
    -------
    DataFrame with id, organ, disease_state, donor, technology, spots, pairs, dataset, licence, simulated, fold.
    """
    import pandas as pd

    out = left_out(pairs.sections, pairs.profile.evaluation)
    fold_of = {section.sample: name for name, inside in out.items() for section in inside}
    rows = [
        {
            "id": s.sample,
            "organ": s.organ,
            "disease_state": s.disease_state,
            "donor": s.donor,
            "technology": s.technology,
            "spots": s.stop - s.start,
            "pairs": (s.stop - s.start) * s.has_image,
            "dataset": s.dataset,
            "licence": s.licence,
            "simulated": pairs.profile.simulated,
            "fold": fold_of.get(s.sample),
        }
        for s in pairs.sections
    ]
    return pd.DataFrame(rows)


def panel(pairs: Pairs):
    """One row a fold and gene, in panel order: fold, rank, gene, test, organs (those it is scored in)."""
    import pandas as pd

    rows = []
    for fold in pairs.folds():
        genes = pairs.panel(fold)
        organs = {gene: [o for o, scored in genes.test.items() if gene in scored] for gene in genes.test_genes}
        rows += [
            {"fold": fold.name, "rank": rank, "gene": gene, "test": gene in organs}
            | {"organs": ", ".join(organs.get(gene, []))}
            for rank, gene in enumerate(genes.genes, start=1)
        ]
    return pd.DataFrame(rows)


def settings(profile: Profile):
    """One row a setting: stage, setting, symbol, value, default, source."""
    import pandas as pd

    rows = profiles.setting_rows(profile)
    return pd.DataFrame([{k: str(v) if isinstance(v, tuple) else v for k, v in row.items()} for row in rows])


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


def training_curves(pairs: Pairs):
    """Loss terms of every finished run of this profile: stage, method, fold, seed, epoch, step, term, value."""
    import pandas as pd

    frames = []
    for fold in pairs.folds():
        for seed in pairs.profile.evaluation.seeds:
            for name in ("omics", *runs.METHODS):
                folder = runs.run_folder(pairs, fold, seed, name)
                if not (folder / "run.json").is_file():
                    continue
                log = pd.DataFrame(runs.read_log(folder)).drop(columns="lr")
                long = log.melt(["epoch", "step"], var_name="term")
                stage, method = ("omics", "seal") if name == "omics" else ("vision", name)
                frames.append(long.assign(stage=stage, method=method, fold=fold.name, seed=seed))
    columns = ["stage", "method", "fold", "seed", "epoch", "step", "term", "value"]
    return pd.concat(frames, ignore_index=True)[columns]
