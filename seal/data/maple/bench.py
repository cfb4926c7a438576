"""HEST-Bench: its tasks and their samples, which MAPLE leaves out together with their donors."""

import csv
import re
from functools import cache

from seal.data.maple.same_donor import TABLES


@cache
def tasks() -> dict[str, tuple[str, ...]]:
    """Task -> the ids of its samples, from tables/hest_bench.csv ("INT1-24" stands for INT1 to INT24).

    Source: the splits of the data set MahmoodLab/hest-bench.
    """
    with (TABLES / "hest_bench.csv").open(newline="") as file:
        return {row["task"]: _spelled_out(row["samples"]) for row in csv.DictReader(file)}


def samples() -> frozenset[str]:
    """All samples of HEST-Bench."""
    return frozenset(name for names in tasks().values() for name in names)


def _spelled_out(text: str) -> tuple[str, ...]:
    names: list[str] = []
    for word in text.split():
        prefix, first, last = re.fullmatch(r"([A-Z]+)(\d+)(?:-(\d+))?", word).groups()
        names += [f"{prefix}{number}" for number in range(int(first), int(last or first) + 1)]
    return tuple(names)
