"""The selection as samples, and where it comes from."""

from pathlib import Path
from typing import TYPE_CHECKING

from seal.data import fetch
from seal.data.samples import find_hest_table
from seal.files import read_json, sha256

if TYPE_CHECKING:
    import pandas as pd

    from seal.data.maple import Selection


def origin(root: Path, selection: "Selection") -> dict[str, str | None]:
    """What a selection follows from, for the stamp of its results: the table, its SHA-256, the data set's revision.

    The revision is the commit that `python -m seal fetch` pinned; None where the table came another way.
    """
    table = find_hest_table(root)
    pinned = table.with_name(fetch.RECORD)
    return {
        "table": table.name,
        "sha256": sha256(table),
        "revision": read_json(pinned)["revision"] if pinned.is_file() else None,
        "selection": selection.hash,
    }


def as_samples(samples: "pd.DataFrame") -> "pd.DataFrame":
    """`Selection.samples` in the form of `seal.data.pairs.tabulate_samples`, before any file is there.

    Spots are those under tissue by HEST-1k's table, each of which should give a pair.
    """
    return samples.rename(columns={"dataset_title": "dataset", "license": "licence"}).assign(
        pairs=samples["spots"],
        simulated=False,
        fold=samples["role"].where(samples["role"] == "test", None),
        counted="metadata",
    )
