"""Tables of the data, T1 to T8: tidy tables in, a DataFrame out, rounded for reading.

What a reader must know beside the columns stands in the frame's ``attrs["note"]``; a title that depends on
the results in ``attrs["title"]``.
"""

from typing import TYPE_CHECKING

import numpy as np

from seal.errors import SealError

if TYPE_CHECKING:
    import pandas as pd

# The paper's own figures: pairs of its two sets, organs, and disease states in % of pairs ("Tumor" is among cancer).
PAPER_PAIRS = {"train": 720_000, "test": 70_000}
PAPER_ORGANS, PAPER_TEST_ORGANS = 14, 6
PAPER_STATES = {"Cancer": 42.8, "Diseased": 19.4, "Healthy": 32.2, "Treated": 5.6}
PAPER_ENCODERS = ("conch", "h0_mini", "phikon_v2", "uni2_h", "virchow2")
# What the profile's adapter trains, as T5 names it.
TRAINED = {
    "lora": "trained by LoRA, M",
    "full": "trained of the encoder, M",
    "bottleneck": "trained in a bottleneck, M",
    "bottleneck_twice": "trained in a bottleneck, M",
}


def samples_by_technology(samples: "pd.DataFrame") -> "pd.DataFrame":
    """T1: samples, donors, spots and pairs by organ and technology, with a total.

    Where all four disease states of the paper occur, also each state's share of the spots beside the paper's, in %.
    """
    by = ["organ", "technology"]
    table = _counted(samples, by)
    if not set(PAPER_STATES) <= set(samples["disease_state"]):
        return table
    merged = samples.assign(disease_state=samples["disease_state"].replace("Tumor", "Cancer"))
    spots = merged.groupby(by, dropna=False)["spots"].sum()
    for state, paper in PAPER_STATES.items():
        part = merged["spots"].where(merged["disease_state"] == state, 0)
        of_state = part.groupby([merged[name] for name in by], dropna=False).sum()
        shares = [*(100 * of_state / spots), 100 * part.sum() / spots.sum()]
        table[f"{state}, % of spots (paper {paper})"] = np.round(shares, 1)
    return table


def held_out_folds(samples: "pd.DataFrame") -> "pd.DataFrame":
    """T2: what each fold tests on and trains on; spots without an image serve stage 1 alone."""
    import pandas as pd

    folds = samples["fold"].astype("string")
    if set(folds.dropna()) == {"test"}:
        return _given_test_set(samples, folds.eq("test").fillna(False).astype(bool))
    rows = []
    for fold in sorted(folds.dropna().unique()):
        inside = folds.eq(fold).fillna(False).astype(bool)
        test, train = samples[inside & (samples["pairs"] > 0)], samples[~inside]
        organs = sorted(test["organ"].unique())
        rows.append(
            {
                "left out": f"{_unit(samples[inside], fold)} {fold}",
                "organ": ", ".join(organs) if len(organs) <= 3 else f"{len(organs)} organs",
                "test donors": test["donor"].nunique(),
                "test sections": len(test),
                "test pairs": test["pairs"].sum(),
                "training donors": train["donor"].nunique(),
                "training pairs": train["pairs"].sum(),
                "training spots, stage 1": train["spots"].sum(),
            }
        )
    return pd.DataFrame(rows)


def _given_test_set(samples: "pd.DataFrame", inside: "pd.Series") -> "pd.DataFrame":
    """T2 where the test set is given: by organ, with a total; the other organs are trained on alone."""
    import pandas as pd

    organs = sorted(samples.loc[inside, "organ"].unique())
    rows = []
    for organ in [*organs, "all"]:
        chosen = samples["organ"].eq(organ) | (organ == "all")
        test, train = samples[inside & chosen & (samples["pairs"] > 0)], samples[~inside & chosen]
        rows.append(
            {
                "organ": organ,
                "test donors": test["donor"].nunique(),
                "test sections": len(test),
                "test pairs": test["pairs"].sum(),
                "training donors": train["donor"].nunique(),
                "training pairs": train["pairs"].sum(),
            }
        )
    table = pd.DataFrame(rows)
    table.attrs["note"] = f"{_counting(samples)} The last row counts all organs, those without test donors too."
    return table


def _unit(inside: "pd.DataFrame", fold: str) -> str:
    """What a fold leaves out: a donor, section, study or organ of its name, else a numbered fold."""
    units = {"donor": "donor", "id": "section", "dataset": "study", "organ": "organ"}
    return next((unit for column, unit in units.items() if (inside[column].astype(str) == fold).all()), "fold")


def disease_states(samples: "pd.DataFrame") -> "pd.DataFrame":
    """T3: samples, donors, spots and pairs by disease state, with the share of the pairs in %.

    Where all four disease states of the paper occur, also the share of the spots beside the paper's.
    """
    table = _counted(samples, ["disease_state"])
    if set(PAPER_STATES) <= set(samples["disease_state"]):
        table["share of spots, %"] = (100 * table["spots"] / table["spots"].iloc[-1]).round(1)
        table["in the paper, %"] = [*map(PAPER_STATES.get, table["disease state"].iloc[:-1]), 100.0]
        if "Tumor" in set(samples["disease_state"]):
            table.attrs["note"] += " The paper's cancerous samples are those of the states Cancer and Tumor."
    return table.assign(**{"share of pairs, %": (100 * table["pairs"] / table["pairs"].iloc[-1]).round(1)})


def samples_with_licence(samples: "pd.DataFrame") -> "pd.DataFrame":
    """T4: every sample with its source and licence."""
    columns = ["id", "organ", "disease_state", "donor", "technology", "spots", "pairs", "dataset", "licence"]
    return samples[columns].rename(columns={"disease_state": "disease state", "dataset": "source"})


def _counting(samples: "pd.DataFrame") -> str:
    """What a pair is here, and whether pairs were counted or are expected."""
    if "counted" in samples and samples["counted"].eq("metadata").any():
        return "Nothing is assembled yet: spots under tissue by HEST-1k's table, each of which should give a pair."
    return "A pair is a spot with a patch; spots without a patch serve stage 1 alone."


def _counted(samples: "pd.DataFrame", by: list[str]) -> "pd.DataFrame":
    import pandas as pd

    what = {
        "samples": ("id", "nunique"),
        "donors": ("donor", "nunique"),
        "spots": ("spots", "sum"),
        "pairs": ("pairs", "sum"),
    }
    table = samples.groupby(by, dropna=False).agg(**what).reset_index()
    total = {name: getattr(samples[column], how)() for name, (column, how) in what.items()}
    table = pd.concat([table, pd.DataFrame([dict.fromkeys(by, "") | {by[0]: "total"} | total])], ignore_index=True)
    table.attrs["note"] = _counting(samples)
    return table.rename(columns={"disease_state": "disease state"})


def encoder_list(encoders: "pd.DataFrame") -> "pd.DataFrame":
    """T5: the encoders, how their images are normalised, and how many parameters the adapter trains, in millions."""
    table = encoders.assign(
        parameters=(encoders["parameters"] / 1e6).round(1),
        trainable=(encoders["trainable"] / 1e6).round(3),
        paper=["yes" if name in PAPER_ENCODERS else "no" for name in encoders["name"]],
        gated=["yes" if str(gated) == "True" else "no" for gated in encoders["gated"]],
    )
    names = {
        "label": "encoder",
        "paper": "in the paper",
        "hub": "hub id",
        "dim": "embedding size",
        "parameters": "parameters, M",
        "trainable": TRAINED[encoders["adapter"].iloc[0]],
    }
    order = ["label", "paper", "hub", "geometry", "dim", "pooling", "mean", "std", "precision", "gated", "licence"]
    return table[[*order, "parameters", "trainable"]].rename(columns=names)


def omics_settings(settings: "pd.DataFrame") -> "pd.DataFrame":
    """T6: settings of stage 1, SEAL-omics, each with where it comes from."""
    table = _settings(settings, "omics")
    table.attrs["note"] = (
        "The release calls barlow_mse barlow_std_mse (what it calls barlow_mse is not standardised), and our mse, "
        "times 10, standardized_mse."
    )
    return table


def vision_settings(settings: "pd.DataFrame") -> "pd.DataFrame":
    """T7: settings of stage 2, SEAL-vision, each with where it comes from."""
    return _settings(settings, "vision")


def _settings(settings: "pd.DataFrame", stage: str) -> "pd.DataFrame":
    columns = [c for c in ("setting", "symbol", "value", "default", "source") if c in settings]
    table = settings.loc[settings["stage"] == stage, columns].reset_index(drop=True)
    if table.empty:
        raise SealError(
            f"settings.csv has no setting of stage {stage!r}",
            expected="at least one row",
            do="run the notebook that writes settings.csv again",
        )
    return table


def gene_panel(panel: "pd.DataFrame") -> "pd.DataFrame":
    """T8: the test genes, in which organs and how many folds each is scored, and their ranks in the panels."""
    folds = panel["fold"].nunique()
    scored = panel[panel["test"].astype(bool)]
    table = (
        scored.groupby("gene")
        .agg(scored=("fold", "nunique"), best=("rank", "min"), worst=("rank", "max"))
        .reset_index()
        .sort_values(["scored", "best", "gene"], ascending=[False, True, True], ignore_index=True)
    )
    organs = {gene: sorted(set(", ".join(part).split(", "))) for gene, part in scored.groupby("gene")["organs"]}
    if len({organ for names in organs.values() for organ in names}) > 1:
        table.insert(1, "organs", [", ".join(organs[gene]) for gene in table["gene"]])
    sizes = sorted(panel.groupby("fold")["gene"].nunique().unique())
    table.attrs["note"] = (
        f"Each of {folds} folds has its own panel of {' or '.join(map(str, sizes))} genes, chosen on its training "
        "donors; the whole panels in order are in results, panel.csv."
    )
    return table.rename(
        columns={"scored": f"test gene in folds, of {folds}", "best": "best rank", "worst": "worst rank"}
    )


# --- the selection of MAPLE, for notebook 01 --------------------------------------------------------------


def beside_paper(samples: "pd.DataFrame") -> "pd.DataFrame":
    """Set the selection beside the paper's public figures: a row a figure, with ours, the paper's and the difference.

    Parameters
    ----------
    samples
        The selected samples, with their role, "train" or "test".
    """
    import pandas as pd

    spots = samples.groupby("role")["spots"].sum()
    rows = [(f"spots, {role}", int(spots.get(role, 0)), paper) for role, paper in PAPER_PAIRS.items()]
    tested = samples.loc[samples["role"] == "test", "organ"]
    rows += [("organs", samples["organ"].nunique(), PAPER_ORGANS)]
    rows += [("organs, test", tested.nunique(), PAPER_TEST_ORGANS)]
    states = samples["disease_state"].replace("Tumor", "Cancer")
    shares = 100 * samples.groupby(states)["spots"].sum() / samples["spots"].sum()
    rows += [(f"{state}, % of spots", round(float(shares.get(state, 0)), 1), p) for state, p in PAPER_STATES.items()]
    table = pd.DataFrame(rows, columns=["figure", "ours", "paper"], dtype=object)
    gaps = [ours - paper if isinstance(paper, int) else round(ours - paper, 1) for _, ours, paper in rows]
    return table.assign(difference=pd.Series(gaps, dtype=object))


def donor_evidence(metadata: "pd.DataFrame", samples: "pd.DataFrame") -> "pd.DataFrame":
    """What the donors of the selected samples rest on: a row a kind of evidence, with samples, spots and donors.

    Parameters
    ----------
    metadata
        HEST-1k's table.
    samples
        The selected samples; the column `basis` says what their donor was inferred from.
    """
    import pandas as pd

    named = metadata.set_index("id")["patient"].reindex(samples["id"])
    blank = named.map(lambda value: not str(value).strip())
    state = np.select([named.isna(), blank], ["missing", "blank"], "named")
    kinds = ("named", "blank", "missing")
    rows = [{"evidence": f"column patient: {kind}", **_size(samples[state == kind])} for kind in kinds]
    rows += [{"evidence": f"donor: {kind}", **_size(part)} for kind, part in samples.groupby("basis")]
    return pd.DataFrame(rows)


def _size(part: "pd.DataFrame") -> dict[str, int]:
    return {"samples": len(part), "spots": int(part["spots"].sum()), "donors": part["donor"].nunique()}


def joined_samples(inferred: "pd.DataFrame", known: "pd.DataFrame") -> "pd.DataFrame":
    """Sections that occur more than once in HEST-1k, and pairs known from elsewhere: a row each, with the reason.

    Parameters
    ----------
    inferred
        Every sample's section and donor, from `seal.data.maple.same_donor.infer`.
    known
        Pairs known from elsewhere, from `seal.data.maple.same_donor.known`.
    """
    import pandas as pd

    reasons = {frozenset((row.sample, row.other)): row.reason for row in known.itertuples()}
    donor = inferred.set_index("id")["donor"]
    rows = []
    for _, part in inferred.groupby("section"):
        if len(part) > 1:
            names = sorted(part["id"])
            reason = reasons.pop(frozenset(names), "same organ, image size and number of spots")
            rows.append({"samples": " ".join(names), "relation": "same section", "reason": reason})
    for pair, reason in reasons.items():
        if pair <= set(donor.index):
            rows.append({"samples": " ".join(sorted(pair)), "relation": "same donor", "reason": reason})
    return pd.DataFrame(rows, columns=["samples", "relation", "reason"])
