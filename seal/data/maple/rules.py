"""Which samples of HEST-1k are MAPLE's: rules with a name and a reason, applied in turn, each with its count.

The first four are what the paper says; with them HEST-1k v1.1.0 gives 363 samples and 832,928 spots under tissue.
The others are ours. Each was written for its reason; none looks at a result or at how many samples are left.
"""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from seal.data.maple.same_donor import TABLES, in_order, patients, text

if TYPE_CHECKING:
    import pandas as pd

ORGANS = (
    *("Bladder", "Bowel", "Brain", "Breast", "Cervix", "Heart", "Kidney"),
    *("Liver", "Lung", "Ovary", "Pancreas", "Prostate", "Skin", "Uterus"),
)
TECHNOLOGIES = ("Visium", "Visium HD")
WHOLE_TRANSCRIPTOME = 10_000  # genes: targeted panels have about 1,200, probe sets of the whole some 18,000


@dataclass(frozen=True)
class Rule:
    """One rule: `keeps` gives a boolean a row of the table with study, donor and section inferred."""

    name: str
    reason: str
    source: str
    keeps: Callable[["pd.DataFrame"], "pd.Series"]


@cache
def bench_tasks() -> dict[str, tuple[str, ...]]:
    """HEST-Bench's tasks -> the ids of their samples, from tables/hest_bench.csv ("INT1-24" stands for INT1 to INT24).

    Source: the splits of the data set MahmoodLab/hest-bench, HCC among them, which its published average of nine tasks
    leaves out. Each id is a row of HEST-1k's table v1.1.0, of its task's organ; MEND155 is none, and no sample.
    """
    with (TABLES / "hest_bench.csv").open(newline="") as file:
        return {row["task"]: _spelled_out(row["samples"]) for row in csv.DictReader(file)}


def bench_samples() -> frozenset[str]:
    """All samples of HEST-Bench, which MAPLE leaves out together with their donors."""
    return frozenset(name for names in bench_tasks().values() for name in names)


def _spelled_out(words: str) -> tuple[str, ...]:
    names: list[str] = []
    for word in words.split():
        prefix, first, last = re.fullmatch(r"([A-Z]+)(\d+)(?:-(\d+))?", word).groups()
        names += [f"{prefix}{number}" for number in range(int(first), int(last or first) + 1)]
    return tuple(names)


def _not_of_bench_donors(frame: "pd.DataFrame") -> "pd.Series":
    donors = set(frame.loc[frame["id"].isin(bench_samples()), "donor"])
    return ~frame["donor"].isin(donors)


def _not_cultured(frame: "pd.DataFrame") -> "pd.Series":
    """Organoids, and the same sections where they were published under another name."""
    cultured = frame["subseries"].map(text).str.contains("organoid", case=False)
    return ~frame["section"].isin(frame.loc[cultured, "section"])


def _first_of_section(frame: "pd.DataFrame") -> "pd.Series":
    """Of one section: the sample with most genes, then one that names its patient, then the first by name."""
    rank = {row["id"]: (-row["nb_genes"], not patients(row), in_order(row["id"])) for row in frame.to_dict("records")}
    best = {name: min(group["id"], key=rank.get) for name, group in frame.groupby("section")}
    return frame["id"].eq(frame["section"].map(best))


RULES = (
    Rule("human", "the paper trains on human tissue", "paper", lambda f: f["species"].eq("Homo sapiens")),
    Rule("Visium, Visium HD", "the paper's technologies", "paper", lambda f: f["st_technology"].isin(TECHNOLOGIES)),
    Rule("14 organs", "the paper's organs", "paper", lambda f: f["organ"].isin(ORGANS)),
    Rule("not in HEST-Bench", "the benchmark is tested on", "paper", lambda f: ~f["id"].isin(bench_samples())),
    Rule(
        "no donor of HEST-Bench",
        "another section of a benchmark's donor would leak into training",
        "our choice",
        _not_of_bench_donors,
    ),
    Rule(
        "whole transcriptome",
        f"targeted panels (under {WHOLE_TRANSCRIPTOME:,} genes) lack most of the gene panel",
        "our choice",
        lambda f: f["nb_genes"].ge(WHOLE_TRANSCRIPTOME),
    ),
    Rule("no culture", "organoids are grown, they are no tissue of the organ", "our choice", _not_cultured),
    Rule("each section once", "a section published twice would weigh twice", "our choice", _first_of_section),
)


def apply(frame: "pd.DataFrame") -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Apply the rules in turn to HEST-1k's whole table with study, donor and section (of `same_donor.infer`).

    Returns
    -------
    The rows that stay, and the waterfall: rule, reason, source, samples and spots that it took out, samples and
    spots that are left, and the names of what it took out where these are at most 40.
    """
    import pandas as pd

    left = frame
    steps = [_step("HEST-1k", "the whole table", "HEST-1k", frame.iloc[:0], frame)]
    for rule in RULES:
        # what a rule needs to know of other samples (a benchmark's donors) is in the whole table; which of two
        # copies stays depends on those that are still there
        keeps = rule.keeps(left if rule.keeps is _first_of_section else frame).reindex(left.index)
        steps.append(_step(rule.name, rule.reason, rule.source, left[~keeps], left[keeps]))
        left = left[keeps]
    return left, pd.DataFrame(steps)


def _step(name: str, reason: str, source: str, out: "pd.DataFrame", left: "pd.DataFrame") -> dict[str, object]:
    return {
        "rule": name,
        "reason": reason,
        "source": source,
        "samples_out": len(out),
        "spots_out": int(out["spots_under_tissue"].sum()),
        "samples_left": len(left),
        "spots_left": int(left["spots_under_tissue"].sum()),
        "out": " ".join(sorted(out["id"], key=in_order)) if len(out) <= 40 else "",
    }
