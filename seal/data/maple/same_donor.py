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
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seal.errors import SealError

if TYPE_CHECKING:
    import pandas as pd

TABLES = Path(__file__).parent / "tables"
NEEDED = ("id", "organ", "species", "dataset_title", "study_link", "patient", "subseries")
SECTION = ("species", "organ", "fullres_px_width", "fullres_px_height", "spots_under_tissue")

_STEM = re.compile(r"[:(\[,]")
_PATIENT = re.compile(r"patients?[ _]?([0-9]+(?: ?, ?[0-9]+)*)", re.IGNORECASE)
# A donor's code: letters and two digits or more, or numbers joined by a hyphen; not a Visium slide's serial
# (V19D02-085) nor an accession (GSM7659430), which name no donor.
_CODE = re.compile(r"(?:[A-Z]{1,4}\d{2,}|\d{2}-\d{4,})")
_NO_CODE = re.compile(r"V\d{2}[A-Z]\d{2}|GS[EM]\d+|SP\d+")


class Groups:
    """Disjoint sets of names that grow together."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parent = {name: name for name in names}

    def find(self, name: str) -> str:
        """One name of the set that holds `name`, the same for all in it."""
        while self._parent[name] != name:
            self._parent[name] = self._parent[self._parent[name]]
            name = self._parent[name]
        return name

    def join(self, names: Sequence[str]) -> None:
        """Make one set of all that hold one of `names`."""
        roots = {self.find(name) for name in names}
        first = min(roots, default=None, key=in_order)
        for root in roots:
            self._parent[root] = first


def in_order(name: str) -> tuple:
    """Sort key that puts TENX9 before TENX10."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name))


def known() -> "pd.DataFrame":
    """Pairs of samples known to share a section or a donor: sample, other, relation, reason."""
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
    import pandas as pd

    missing = [column for column in (*NEEDED, *SECTION) if column not in frame]
    if missing:
        raise SealError(
            f"the metadata table lacks {', '.join(missing)}",
            expected=", ".join(dict.fromkeys((*NEEDED, *SECTION))),
            do="take HEST-1k's own table, HEST_v*.csv: donors are inferred from these columns",
        )
    rows = frame.to_dict("records")
    studies = _studies(rows)
    donors, basis = _within_studies(rows, studies)
    linked = _codes(rows, studies)
    sections = Groups(row["id"] for row in rows)
    for names in [*_repeated(frame), *_related(frame, overlaps, "same section")]:
        sections.join(names)
        linked.append(names)
    linked += _related(frame, overlaps, None)
    ids = [row["id"] for row in rows]
    alone = {name: donors.find(name) for name in ids}
    for names in linked:
        donors.join(names)
    for names in _group((donors.find(name), name) for name in ids):
        if len({alone[name] for name in names}) > 1:
            basis |= dict.fromkeys(names, "joined by a code, a section or what is known")
    columns = {
        "id": ids,
        "study": _named(ids, studies),
        "donor": [f"donor {name}" for name in _named(ids, donors)],
        "section": _named(ids, sections),
        "basis": [basis[name] for name in ids],
    }
    return pd.DataFrame(columns, index=frame.index)


def _group(named: Iterable[tuple[Hashable, str]]) -> list[list[str]]:
    """Names with equal keys, together."""
    groups: dict[Hashable, list[str]] = {}
    for key, name in named:
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _named(ids: Sequence[str], groups: Groups) -> list[str]:
    """The first sample of each one's group."""
    first: dict[str, str] = {}
    for name in sorted(ids, key=in_order):
        first.setdefault(groups.find(name), name)
    return [first[groups.find(name)] for name in ids]


def text(value: object) -> str:
    """A cell as text; blank where it is missing, as HEST-1k writes some of its missing patients."""
    return "" if value is None or value != value else str(value).strip()


def _studies(rows: Sequence[dict]) -> Groups:
    studies = Groups(row["id"] for row in rows)
    for names in _group((key, row["id"]) for row in rows for key in _study_keys(row)):
        studies.join(names)
    return studies


def _study_keys(row: dict) -> list[tuple]:
    title = text(row["dataset_title"]).casefold()
    stem = _STEM.split(title)[0].strip() or title
    link = text(row["study_link"]).split("?")[0].split("#")[0].rstrip("/")
    keys = [("title", title), ("stem", stem, row["organ"])]
    return [*keys, ("link", link)] if link.startswith("http") else keys


def patients(row: dict) -> set[str]:
    """The patients that a row of the table names, as numbers or words; none if it names none."""
    own = text(row["patient"])
    if own:
        found = _PATIENT.search(own)
        return {found[1]} if found else {own.casefold()}
    found = _PATIENT.search(text(row["subseries"]))
    return {number.strip() for number in found[1].split(",")} if found else set()


def _within_studies(rows: Sequence[dict], studies: Groups) -> tuple[Groups, dict[str, str]]:
    named = {row["id"]: patients(row) for row in rows}
    donors, basis = Groups(named), {}
    for study in _group((studies.find(name), name) for name in named):
        whole = not all(named[name] for name in study)
        for names in [study] if whole else _group((patient, name) for name in study for patient in named[name]):
            donors.join(names)
        why = "study: not every sample names its patient" if whole else "patient, named by the table"
        basis |= dict.fromkeys(study, why)
    return donors, basis


def codes(subseries: str) -> set[str]:
    """Donor codes in a sample's `subseries`."""
    words = re.split(r"[\s,;()\[\]_]+", subseries)
    parts = {part for word in words if not _NO_CODE.search(word) for part in (word, *word.split("-"))}
    return {part for part in parts if _CODE.fullmatch(part)}


def _codes(rows: Sequence[dict], studies: Groups) -> list[list[str]]:
    """Samples of different studies that bear one donor's code; within a study rule 2 knows better."""
    coded = [(row, code) for row in rows for code in codes(text(row["subseries"]))]
    groups = _group(((row["species"], row["organ"], code), row["id"]) for row, code in coded)
    return [names for names in groups if len({studies.find(name) for name in names}) > 1]


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
