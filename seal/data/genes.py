"""Gene names: cleaned, and official where an alias table, as HGNC publishes it, leads other names to them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seal.data.samples import say_separator
from seal.errors import SealError
from seal.files import digest

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array

NAMES = ("alias_symbol", "prev_symbol")  # columns of names that lead to a row's symbol, `|` between them
ENSEMBL = "ensembl_gene_id"
LISTED = 0.5  # of a panel, that each sample must list
_VERSION = re.compile(r"^(ENSG\d+)\.\d+$")


@dataclass(frozen=True)
class Aliases:
    """What genes are called officially.

    Attributes
    ----------
    renamed
        Earlier symbols, aliases and Ensembl ids, upper-case -> the one approved symbol that each leads to. No
        approved symbol is among the names: it stays itself, though it may be another gene's alias too.
    """

    renamed: Mapping[str, str]

    @classmethod
    def read(cls, path: str | Path) -> "Aliases":
        """Read an alias table: HGNC's hgnc_complete_set.txt, or one with its columns, tab- or comma-separated.

        Needed are the columns symbol, alias_symbol and prev_symbol, several names with `|` between them;
        ensembl_gene_id is used if it is there. A name that leads to two approved symbols leads nowhere.

        Raises
        ------
        SealError
            The file is missing, unreadable, not UTF-8, without rows, lacks a column or ends within a row.
        """
        table = _read_table(Path(path).expanduser())
        names = table.drop(columns="symbol").agg("|".join, axis=1).str.split("|")
        pairs = names.set_axis(table["symbol"]).explode().str.strip().rename("name").reset_index()
        pairs = pairs[(pairs["name"] != "") & ~pairs["name"].isin(table["symbol"])].drop_duplicates()
        return cls(dict(pairs.drop_duplicates("name", keep=False)[["name", "symbol"]].itertuples(index=False)))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the whole mapping, for the keys of what is made with it."""
        return digest(dict(self.renamed))

    def official(self, symbol: str) -> str:
        """The approved symbol, upper-case, of a name in any case; the name itself if the table does not settle it.

        An Ensembl id may bear a version.
        """
        name = symbol.strip().upper()
        return self.renamed.get(_VERSION.sub(r"\1", name), name)


def _read_table(path: Path) -> "pd.DataFrame":
    """Columns symbol and those of names that lead to it, upper-case; the rows that have a symbol."""
    import pandas as pd

    if not path.exists():
        raise _bad(path, "is missing", "an alias table")
    form = {"encoding": "utf-8-sig", "dtype": str, "keep_default_na": False, "engine": "python", "index_col": False}
    wanted = ("symbol", *NAMES, ENSEMBL)  # the engine in Python tells a cell that is not there from an empty one
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        separator = "\t" if "\t" in header else ","
        table = pd.read_csv(path, sep=separator, usecols=lambda column: column in wanted, **form)
    except (OSError, ValueError) as error:  # pandas' own are ValueErrors too
        raise _bad(path, f"cannot be read ({type(error).__name__}: {error})", "a readable table in UTF-8") from error
    if lacking := [name for name in ("symbol", *NAMES) if name not in table]:
        raise _bad(
            path,
            f"is no alias table: columns {', '.join(lacking)} are missing{say_separator(header.split(separator))}",
            f"columns symbol, {', '.join(NAMES)}",
        )
    if table.isna().any(axis=None):
        raise _bad(
            path, f"is cut: row {int(table.isna().any(axis=1).argmax()) + 1} ends early", "all columns in every row"
        )
    table = table.apply(lambda column: column.str.strip().str.upper())
    table = table[table["symbol"] != ""]
    if table.empty:
        raise _bad(path, "has no gene in it", "a row for each gene")
    return table


def _bad(path: Path, problem: str, expected: str) -> SealError:
    return SealError(
        f"{path} {problem}",
        expected=f"{expected}, as in HGNC's hgnc_complete_set.txt",
        do="download the table from genenames.org (Statistics & download files), or correct the file or its path",
    )


# Probes that measure nothing (release).
_CONTROL = re.compile(r"BLANK|CONTROL|AMBIGUOUS")
# A reference of several genomes puts the genome before each gene; HEST-1k has GRCh38_, GRCh38__ and GRCh38______.
# Other genomes keep their prefix: a mouse or viral gene is not the human gene of that name.
_HUMAN = re.compile(r"^(GRCH3[78]|HG19|HG38)_+")


def clean_genes(symbols: Sequence[str], aliases: Aliases | None = None) -> "tuple[list[str], csr_array]":
    """Upper-case gene symbols without duplicates, control probes and the human genome's prefix.

    With `aliases`, earlier symbols, aliases and Ensembl ids become the approved symbols they lead to.

    Returns
    -------
    The genes that stay, in order of first appearance, and the matrix that sums the columns of each: float32 CSR
    [symbols, genes] of zeros and ones; ``counts @ matrix`` are the counts of the genes.

    Source: release; prefix, aliases and the sum our choice.
    """
    from scipy.sparse import csr_array

    genes: dict[str, int] = {}
    places = []  # symbol, gene
    for position, symbol in enumerate(symbols):
        name = _HUMAN.sub("", str(symbol).strip().upper())
        if name and not _CONTROL.search(name):
            gene = aliases.official(name) if aliases else name
            places.append((position, genes.setdefault(gene, len(genes))))
    rows, columns = np.array(places, dtype=np.int64).reshape(-1, 2).T
    ones = np.ones(len(rows), dtype=np.float32)
    return list(genes), csr_array((ones, (rows, columns)), shape=(len(symbols), len(genes)))


def require_listed(listed: Sequence[str], genes: Sequence[str], sample: str) -> None:
    """Assert that a sample lists at least half the genes of a panel: else it names them another way."""
    shared = len(set(listed) & set(genes))
    if shared < LISTED * len(genes):
        raise SealError(
            f"sample {sample} lists {shared} of the panel's {len(genes)} genes; its own begin {', '.join(listed[:3])}",
            expected=f"at least {LISTED:.0%}, under the names that the other samples have, such as {genes[0]}",
            do="let SEAL_ALIASES name HGNC's hgnc_complete_set.txt, which knows Ensembl ids and earlier symbols too, "
            "or take the sample out of the metadata table",
        )
