"""What the selection gives, for reading: as samples, beside the paper, and what its donors rest on."""

from pathlib import Path
from typing import TYPE_CHECKING

from seal.data import hest
from seal.data.hest import ORGANS
from seal.data.maple.donors import known, text
from seal.files import read_json, sha256

if TYPE_CHECKING:
    import pandas as pd

    from seal.data.maple import Selection

# The paper's own figures: pairs of its two sets, organs, and disease states in % of pairs ("Tumor" is among cancer).
PAPER_PAIRS = {"train": 720_000, "test": 70_000}
PAPER_TEST_ORGANS = 6
PAPER_STATES = {"Cancer": 42.8, "Diseased": 19.4, "Healthy": 32.2, "Treated": 5.6}


def origin(root: Path, selection: "Selection") -> dict[str, str | None]:
    """What a selection follows from, for the stamp of its results: the table, its SHA-256, the data set's revision.

    The revision is the commit that `python -m seal fetch` pinned; None where the table came another way.
    """
    table = hest.own_table(root)
    pinned = table.with_name("fetch.json")
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


def beside_paper(samples: "pd.DataFrame") -> "pd.DataFrame":
    """Set the selection beside the paper's public figures: a row a figure, with ours, the paper's and the difference.

    Parameters
    ----------
    samples
        `Selection.samples`.
    """
    import pandas as pd

    spots = samples.groupby("role")["spots"].sum()
    rows = [(f"spots, {role}", int(spots.get(role, 0)), paper) for role, paper in PAPER_PAIRS.items()]
    tested = samples.loc[samples["role"] == "test", "organ"]
    rows += [("organs", samples["organ"].nunique(), len(ORGANS)), ("organs, test", tested.nunique(), PAPER_TEST_ORGANS)]
    states = samples["disease_state"].replace("Tumor", "Cancer")
    shares = 100 * samples.groupby(states)["spots"].sum() / samples["spots"].sum()
    rows += [(f"{state}, % of spots", round(float(shares.get(state, 0)), 1), p) for state, p in PAPER_STATES.items()]
    table = pd.DataFrame(rows, columns=["figure", "ours", "paper"], dtype=object)
    gaps = [ours - paper if isinstance(paper, int) else round(ours - paper, 1) for _, ours, paper in rows]
    return table.assign(difference=pd.Series(gaps, dtype=object))


def basis(frame: "pd.DataFrame", samples: "pd.DataFrame") -> "pd.DataFrame":
    """What the donors of the selected samples rest on: a row a kind of evidence, with samples, spots and donors.

    Parameters
    ----------
    frame
        HEST-1k's table.
    samples
        `Selection.samples`.
    """
    import pandas as pd

    named = frame.set_index("id")["patient"].reindex(samples["id"])
    state = named.map(lambda value: "named" if text(value) else "blank" if value == value else "missing").to_numpy()
    rows = [
        {"evidence": f"column patient: {kind}", **_size(samples[state == kind])}
        for kind in ("named", "blank", "missing")
    ]
    rows += [{"evidence": f"donor by {kind}", **_size(part)} for kind, part in samples.groupby("basis")]
    return pd.DataFrame(rows)


def _size(part: "pd.DataFrame") -> dict[str, int]:
    return {"samples": len(part), "spots": int(part["spots"].sum()), "donors": part["donor"].nunique()}


def joined(inferred: "pd.DataFrame") -> "pd.DataFrame":
    """Sections that occur more than once in HEST-1k, and pairs known from elsewhere: a row each, with the reason.

    Parameters
    ----------
    inferred
        From `seal.data.maple.donors.infer`.
    """
    import pandas as pd

    reasons = {frozenset((row.sample, row.other)): row.reason for row in known().itertuples()}
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
