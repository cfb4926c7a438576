"""Tidy tables about data, settings and training; what evaluation adds lies in `seal.evaluate`."""

from seal import profiles
from seal.data.folds import left_out
from seal.data.pairs import Pairs
from seal.profiles import Profile
from seal.train import runs


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
