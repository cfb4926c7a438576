"""Who gave a section: studies and donors inferred from HEST-1k's metadata table, so that no donor is on both sides.

The table names a patient for few samples, numbers patients anew in each study, publishes some sections twice and
spreads some donors over studies. So donors are inferred, and wherever the table leaves a choice, samples are put
together: a donor here may hold several persons, but no person is in two donors.

1. Study: samples of one title or one article, or of one organ and titles that begin alike (up to the first of
   ``: ( [ ,``), as a vendor names several sections of a block.
2. Within a study: if each of its samples names its patient, in `patient` or in `subseries` ("Patient 22, 19
   lesional"), a donor a patient; else the whole study is one donor.
3. Across studies: a donor's code in `subseries` ("IU-F59", "F59 - F63") joins samples of one organ.
4. The same section twice: equal organ, image size and number of spots; and what fingerprints find.
5. What is known from elsewhere: tables/known.csv, with the reason.

Source: our choice; the gaps and the known cases: HEST-1k's table v1.1.0 and the threads named in tables/known.csv.
"""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seal.errors import SealError

if TYPE_CHECKING:
    import pandas as pd

TABLES = Path(__file__).parent / "tables"
NEEDED = ("id", "organ", "species", "dataset_title", "study_link", "patient", "subseries", "nb_genes")
SECTION = ("species", "organ", "fullres_px_width", "fullres_px_height", "spots_under_tissue")

_STEM = re.compile(r"[:(\[,]")
_PATIENT = re.compile(r"patients?[ _]?([0-9]+(?: ?, ?[0-9]+)*)", re.IGNORECASE)
# A donor's code: letters and two digits or more, or numbers joined by a hyphen; not a Visium slide's serial
# (V19D02-085) nor an accession (GSM7659430), which name no donor.
_CODE = re.compile(r"(?:[A-Z]{1,4}\d{2,}|\d{2}-\d{4,})")
_NO_CODE = re.compile(r"V\d{2}[A-Z]\d{2}|GS[EM]\d+|SP\d+")


def in_order(name: str) -> tuple:
    """Sort key that puts TENX9 before TENX10."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name))


def known() -> "pd.DataFrame":
    """Pairs of samples known to share a section or a donor: sample, other, relation, reason.

    Checked against HEST-1k's table v1.1.0: each pair is of one organ and technology, and of one image size or patient.
    """
    import pandas as pd

    return pd.read_csv(TABLES / "known.csv", dtype=str)


def infer(frame: "pd.DataFrame", overlaps: "pd.DataFrame | None" = None) -> "pd.DataFrame":
    """Infer study, donor and repeated sections of every sample of HEST-1k's table.

    Parameters
    ----------
    frame
        The whole table, all species and technologies: a donor's other sections tell of it too.
    overlaps
        What `fingerprints` found in the files, columns sample_a, sample_b and verdict; None before they are there.

    Returns
    -------
    DataFrame in the rows of `frame`: id, study, donor, section (the same for one section published twice), each
    named after its first sample, and `basis`: what the donor rests on.

    Raises
    ------
    SealError
        The table lacks a column.
    """
    missing = [column for column in (*NEEDED, *SECTION) if column not in frame]
    if missing:
        raise SealError(
            f"the metadata table lacks {', '.join(missing)}",
            expected=", ".join(dict.fromkeys((*NEEDED, *SECTION))),
            do="take HEST-1k's own table, HEST_v*.csv: MAPLE is selected by these columns",
        )
    rows = frame.to_dict("records")
    ids = frame["id"].tolist()
    study = _join(ids, _group((key, row["id"]) for row in rows for key in _study_keys(row)))
    own, basis = _within_studies(rows, study)
    repeated = [*_repeated(frame), *_related(frame, overlaps, "same section")]
    linked = [*_codes(rows, study), *repeated, *_related(frame, overlaps, None)]
    alone, donor = _join(ids, own), _join(ids, [*own, *linked])
    for names in _group((donor[name], name) for name in ids):
        if len({alone[name] for name in names}) > 1:
            basis |= dict.fromkeys(names, "joined by a code, a section or what is known")
    section = _join(ids, repeated)
    return frame[["id"]].assign(
        study=frame["id"].map(study),
        donor="donor " + frame["id"].map(donor),
        section=frame["id"].map(section),
        basis=frame["id"].map(basis),
    )


def _group(named: Iterable[tuple[Hashable, str]]) -> list[list[str]]:
    """Names with equal keys, together."""
    groups: dict[Hashable, list[str]] = {}
    for key, name in named:
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _join(ids: Sequence[str], together: Iterable[Sequence[str]]) -> dict[str, str]:
    """Make one set of all names that are together anywhere: each name's set, named after its first sample."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ordered = sorted(ids, key=in_order)
    place = {name: i for i, name in enumerate(ordered)}
    links = np.array([(place[names[0]], place[name]) for names in together for name in names], dtype=int)
    ends = tuple(links.reshape(-1, 2).T)
    graph = coo_array((np.ones(len(links)), ends), shape=(len(ordered), len(ordered)))
    _, labels = connected_components(graph, directed=False)
    _, first = np.unique(labels, return_index=True)
    return {name: ordered[first[label]] for name, label in zip(ordered, labels, strict=True)}


def text(value: object) -> str:
    """A cell as text; blank where it is missing, as HEST-1k writes some of its missing patients."""
    return "" if value is None or value != value else str(value).strip()


def _study_keys(row: dict) -> list[tuple]:
    title = text(row["dataset_title"]).casefold()
    stem = _STEM.split(title)[0].strip() or title
    link = text(row["study_link"]).split("?")[0].split("#")[0].rstrip("/")
    keys = [("title", title), ("stem", stem, row["organ"])]
    return [*keys, ("link", link)] if link.startswith("http") else keys


def patients(row: dict) -> set[str]:
    """The patients that a row of the table names, as numbers or words; none if it names none."""
    own = text(row["patient"]).removesuffix(".0")  # a number that a table editor wrote
    if own:
        found = _PATIENT.search(own)
        return {found[1]} if found else {own.casefold()}
    found = _PATIENT.search(text(row["subseries"]))
    return {number.strip() for number in found[1].split(",")} if found else set()


def _within_studies(rows: Sequence[dict], study: Mapping[str, str]) -> tuple[list[list[str]], dict[str, str]]:
    """Samples of one donor by rule 2, and what that rests on."""
    named = {row["id"]: patients(row) for row in rows}
    donors, basis = [], {}
    for names in _group((study[name], name) for name in named):
        whole = not all(named[name] for name in names)
        donors += [names] if whole else _group((patient, name) for name in names for patient in named[name])
        why = "study: not every sample names its patient" if whole else "patient, named by the table"
        basis |= dict.fromkeys(names, why)
    return donors, basis


def codes(subseries: str) -> set[str]:
    """Donor codes in a sample's `subseries`."""
    words = re.split(r"[\s,;()\[\]_]+", subseries)
    parts = {part for word in words if not _NO_CODE.search(word) for part in (word, *word.split("-"))}
    return {part for part in parts if _CODE.fullmatch(part)}


def _codes(rows: Sequence[dict], study: Mapping[str, str]) -> list[list[str]]:
    """Samples of different studies that bear one donor's code; within a study rule 2 knows better."""
    coded = [(row, code) for row in rows for code in codes(text(row["subseries"]))]
    groups = _group(((row["species"], row["organ"], code), row["id"]) for row, code in coded)
    return [names for names in groups if len({study[name] for name in names}) > 1]


def _repeated(frame: "pd.DataFrame") -> list[list[str]]:
    """Samples of one organ whose image and number of spots are the same."""
    groups = frame.groupby(list(SECTION), sort=False)["id"]
    return [names.tolist() for _, names in groups if len(names) > 1]


def _related(frame: "pd.DataFrame", overlaps: "pd.DataFrame | None", relation: str | None) -> list[list[str]]:
    """Pairs that tables/known.csv or fingerprints relate, in this way or (None) in any."""
    pairs = [(row.sample, row.other, row.relation) for row in known().itertuples()]
    if overlaps is not None:
        pairs += [(row.sample_a, row.sample_b, row.verdict) for row in overlaps.itertuples()]
    there = set(frame["id"])
    return [[a, b] for a, b, how in pairs if {a, b} <= there and relation in (None, how)]
