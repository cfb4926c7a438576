"""Pathway activity as a target: ssGSEA scores of patients' bulk expression, which regression learns from slides."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seal.errors import SealError, explain_unreadable, require_known

if TYPE_CHECKING:
    import pandas as pd

MIN_GENES, MAX_GENES = 15, 500  # measured genes of a set, GSEApy's defaults


@dataclass(frozen=True)
class PathwayScores:
    """Pathway scores of patients, and what became of each gene set."""

    scores: "pd.DataFrame"  # patient, pathway, score; patients in the matrix's order
    coverage: "pd.DataFrame"  # pathway, genes, measured, share, refused (why, or "")

    def labels(self, pathway: str) -> tuple[tuple[str, ...], np.ndarray]:
        """Patients and their scores of one pathway: the labels of a regression task, [n]."""
        refused = dict(zip(self.coverage["pathway"], self.coverage["refused"], strict=True))
        if refused[require_known("pathway", pathway, refused)]:
            what = f"{pathway} has no scores: {refused[pathway]}"
            raise SealError(what, expected=f"{MIN_GENES} measured genes or more", do="take a matrix of more genes")
        own = self.scores[self.scores["pathway"] == pathway]
        return tuple(own["patient"]), own["score"].to_numpy()


def read_gene_sets(path: Path) -> dict[str, tuple[str, ...]]:
    """Read gene sets by name: of a gmt file (a row each: name, source, genes), or of a csv table (a column each).

    Raises
    ------
    SealError
        The file cannot be read, or its sets have no name or the same.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why, do = explain_unreadable(path, error)
        raise SealError(f"{path} cannot be read ({why})", expected="a gmt file or a csv table", do=do) from error
    if Path(path).suffix == ".csv":
        rows = list(zip_longest(*csv.reader(text.splitlines()), fillvalue=""))
    else:
        rows = [(fields[0], *fields[2:]) for line in text.splitlines() if len(fields := line.split("\t")) > 2]
    sets = {row[0]: tuple(dict.fromkeys(gene.strip() for gene in row[1:] if gene.strip())) for row in rows}
    if not all(sets) or not sets or len(sets) < len(rows):
        what = f"{path} holds {len(rows)} gene sets of {len(sets.keys() - {''})} names"
        raise SealError(what, expected="sets with a name each", do="correct the file")
    return sets


def cover_sets(sets: Mapping[str, Sequence[str]], genes: Sequence[str]) -> "pd.DataFrame":
    """Say how many genes of each set were measured, and which sets are refused for it.

    Returns
    -------
    DataFrame with pathway, genes, measured, share, refused: too few, too many, or all that was measured.
    """
    import pandas as pd

    known, rows = set(genes), []
    for name, members in sets.items():
        n = len(known.intersection(members))
        why = f"{n} of {len(members)} genes measured"
        whole = f"{why}, and no other to compare them with" if n == len(known) else ""
        refused = f"{why}, {MIN_GENES} to {MAX_GENES} are needed" if not MIN_GENES <= n <= MAX_GENES else whole
        rows.append((name, len(members), n, n / max(len(members), 1), refused))
    return pd.DataFrame(rows, columns=["pathway", "genes", "measured", "share", "refused"])


def score_pathways(expression: "pd.DataFrame", sets: Mapping[str, Sequence[str]]) -> PathwayScores:
    """Score gene sets in each patient by ssGSEA with GSEApy's defaults.

    ES = sum over genes, from the highest on, of (share of the set's rank^0.25 so far - share of other genes so far)

    A score depends on the order of a patient's own genes alone: no other patient, of training or test, enters it, and
    counts per million and their logarithm give the same. Genes of one value, as zeros are, are sorted by name.

    Parameters
    ----------
    expression
        Patients (index) x gene symbols (columns).
    sets
        See `read_gene_sets`.

    Raises
    ------
    SealError
        No GSEApy; a patient or gene twice; NaN, infinity or text; no set with genes enough.

    Source: Barbie et al. 2009; GSEApy's ES, without its NES, which divides by the range over the cohort.
    """
    expression = expression.rename(index=str, columns=str).sort_index(axis=1)
    _require_matrix(expression)
    coverage = cover_sets(sets, expression.columns)
    taken = {name: list(sets[name]) for name in coverage.loc[coverage["refused"] == "", "pathway"]}
    if not taken:
        best = coverage.loc[coverage["measured"].idxmax()] if len(sets) else {"pathway": "none", "refused": ""}
        what = f"none of {len(sets)} gene sets can be scored, not even {best['pathway']}: {best['refused']}"
        raise SealError(what, expected="a set with genes enough", do="take a matrix of more genes, by their symbols")
    try:
        import gseapy
    except ImportError as error:
        raise SealError(f"ssGSEA: {error}", expected="the package", do="pip install gseapy") from error
    how = {"sample_norm_method": "rank", "correl_norm_type": "rank", "weight": 0.25, "outdir": None, "no_plot": True}
    sizes = {"min_size": MIN_GENES, "max_size": MAX_GENES}
    found = gseapy.ssgsea(data=expression.T, gene_sets=taken, **how, **sizes).res2d
    table = found.pivot_table(index="Name", columns="Term", values="ES", aggfunc="first")  # a row a patient
    table = table.loc[expression.index, list(taken)].astype(float).rename_axis(index="patient").reset_index()
    return PathwayScores(table.melt("patient", var_name="pathway", value_name="score"), coverage)


def _require_matrix(expression: "pd.DataFrame") -> None:
    for axis, name in ((expression.index, "patients"), (expression.columns, "genes")):
        if (twice := axis[axis.duplicated()]).size:
            what = f"{twice.size} {name} stand in the matrix more than once, first {twice[0]}"
            raise SealError(what, expected="each once", do="keep one of each, or average them")
    try:
        wrong = ~np.isfinite(expression.to_numpy(dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise SealError(f"the matrix holds text: {error}", expected="numbers", do="keep genes only") from error
    if wrong.any() or not wrong.size:
        row, column = np.argwhere(wrong)[0] if wrong.size else (0, 0)
        first = f", first {expression.columns[column]} of {expression.index[row]}" if wrong.size else ""
        what = f"{wrong.sum()} of {wrong.size} values of the matrix are NaN or infinite{first}"
        raise SealError(what, expected="a number a patient and gene", do="leave out these genes or patients")
