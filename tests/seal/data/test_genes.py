"""Alias tables: what a name leads to, what is left alone, and files that are no such table."""

import numpy as np
import pytest

from seal.data.genes import Aliases, clean_genes, require_listed
from seal.errors import SealError

HEADER = "hgnc_id\tsymbol\tname\talias_symbol\tprev_symbol\tensembl_gene_id"
ROWS = (
    'HGNC:1\tACKR1\tatypical chemokine receptor 1\t"CCBP1|CD234|Dfy"\t"FY|DARC"\tENSG00000213088',
    "HGNC:2\tC1orf112\topen reading frame\tFLJ10706\t\tENSG00000000460",
    "HGNC:3\tMARCHF1\tring finger\tRNF171\tMARCH1\t",
    'HGNC:4\tDIPK2A\tkinase\t"DIA1|SHARED"\tC3orf58\t',
    "HGNC:5\tCYB5R3\treductase\tSHARED\tDIA1\t",
    "HGNC:6\tCCBP1\tapproved, and an alias of ACKR1\t\t\t",
)


def write(path, *rows, header=HEADER, encoding="utf-8"):
    path.write_bytes("\n".join([header, *rows, ""]).encode(encoding))
    return path


def test_rows_with_empty_cells_at_their_end_do_not_shift(tmp_path, aliases):
    longer = Aliases.read(write(tmp_path / "edited.txt", *(f"{row}\t\t" for row in ROWS)))
    assert longer == aliases


@pytest.fixture
def aliases(tmp_path):
    return Aliases.read(write(tmp_path / "hgnc_complete_set.txt", *ROWS))


@pytest.mark.parametrize(
    ("name", "official"),
    [
        ("DARC", "ACKR1"),  # an earlier symbol
        ("dfy", "ACKR1"),  # an alias, in another case
        (" CD234 ", "ACKR1"),
        ("MARCH1", "MARCHF1"),
        ("C3orf58", "DIPK2A"),
        ("C1orf112", "C1ORF112"),  # approved; HGNC writes some letters small
        ("ACKR1", "ACKR1"),
        ("CCBP1", "CCBP1"),  # approved, though it is an alias too
        ("SHARED", "SHARED"),  # alias of two
        ("DIA1", "DIA1"),  # alias of one, earlier symbol of another
        ("ENSG00000213088", "ACKR1"),
        ("ENSG00000213088.12", "ACKR1"),
        ("ensg00000000460.1", "C1ORF112"),
        ("ENSG00000999999.3", "ENSG00000999999.3"),
        ("DARC.1", "DARC.1"),  # versions are Ensembl's alone
        ("unknown", "UNKNOWN"),
    ],
)
def test_official(aliases, name, official):
    assert aliases.official(name) == official


def test_empty_cells_lead_nowhere(aliases):
    assert "" not in aliases.renamed
    assert "" not in aliases.renamed.values()


def test_a_csv_with_a_byte_order_mark_and_without_ensembl_ids(tmp_path):
    path = write(
        tmp_path / "a.csv", "ACKR1,CD234|Dfy,DARC", header="symbol,alias_symbol,prev_symbol", encoding="utf-8-sig"
    )
    aliases = Aliases.read(path)
    assert [aliases.official(name) for name in ("Dfy", "DARC", "ENSG00000213088")] == [
        "ACKR1",
        "ACKR1",
        "ENSG00000213088",
    ]


def test_the_digest_follows_the_mapping_alone(tmp_path, aliases):
    shuffled = Aliases.read(write(tmp_path / "other.txt", *reversed(ROWS)))
    fewer = Aliases.read(write(tmp_path / "fewer.txt", *ROWS[:-1]))  # an alias that is no approved symbol any more
    assert shuffled.digest == aliases.digest
    assert fewer.digest != aliases.digest
    moved = [row.replace("RNF171", "?").replace("FLJ10706", "RNF171").replace("?", "FLJ10706") for row in ROWS]
    assert Aliases.read(write(tmp_path / "moved.txt", *moved)).digest != aliases.digest  # the same names, led elsewhere


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (ROWS, HEADER.replace("prev_symbol", "previous"), "columns prev_symbol are missing"),
        ((), "a,b", "columns symbol, alias_symbol, prev_symbol are missing"),
        ((), HEADER.replace("\t", ";"), "separated by semicolons"),
        ((), "", "No columns"),
        ((), HEADER, "no gene"),
        ((*ROWS[:3], "HGNC:4\tDIPK2A\tkin"), HEADER, "row 4 ends early"),
    ],
)
def test_bad_tables_are_named(tmp_path, rows, header, message):
    path = write(tmp_path / "hgnc.txt", *rows, header=header)
    with pytest.raises(SealError, match=message) as caught:
        Aliases.read(path)
    assert str(path) in caught.value.what


def test_other_files_are_named(tmp_path):
    with pytest.raises(SealError, match=r"none\.txt is missing"):
        Aliases.read(tmp_path / "none.txt")
    with pytest.raises(SealError, match="IsADirectoryError"):
        Aliases.read(tmp_path)
    with pytest.raises(SealError, match="UnicodeDecodeError"):
        Aliases.read(write(tmp_path / "latin.txt", ROWS[0].replace("Dfy", "Dfý"), encoding="latin-1"))


# ---- cleaned ----


def summed(symbols, aliases=None):
    """Genes, and the sums of columns that count 1, 2, 4, 8, ... each."""
    genes, matrix = clean_genes(symbols, aliases)
    return dict(zip(genes, (2 ** np.arange(len(symbols)) @ matrix).tolist(), strict=True))


def test_columns_of_one_gene_are_summed_and_controls_are_left_out():
    found = summed(["Actb", "ACTB", "BLANK-1", "NegControlProbe", "ambiguous", "GAPDH", "", "actb "])
    assert found == {"ACTB": 1 + 2 + 128, "GAPDH": 32}


def test_human_prefixes_are_taken_off():
    """As HEST-1k has them; another genome's genes stay apart from the human ones."""
    raw = ["GRCh38_TP53", "GRCh38______CD3D", "hg19_KRT5", "mm10___Krt5", "GRCh38_BLANK1", "GRCh38__", "GRCh38__tp53"]
    assert summed(raw) == {"TP53": 1 + 64, "CD3D": 2, "KRT5": 4, "MM10___KRT5": 8}


def test_no_gene_is_left():
    genes, matrix = clean_genes(["BLANK", ""])
    assert genes == []
    assert matrix.shape == (2, 0)


ALIASES = Aliases({"DARC": "ACKR1", "FY": "ACKR1", "ENSG00000213088": "ACKR1"})


@pytest.mark.parametrize(
    ("symbols", "genes"),
    [
        (["DARC", "CD3D", "FY"], {"ACKR1": 5, "CD3D": 2}),
        (["DARC", "CD3D", "ackr1", "ACKR1"], {"ACKR1": 13, "CD3D": 2}),
        (["GRCh38_ENSG00000213088.7", "other", "BLANK"], {"ACKR1": 1, "OTHER": 2}),
        (["DARC", "GRCh38_ACKR1"], {"ACKR1": 3}),
    ],
)
def test_aliases_are_resolved_and_what_leads_to_one_gene_is_summed(symbols, genes):
    found = summed(symbols, ALIASES)
    assert found == genes
    assert list(found) == list(genes)


def test_a_sample_that_names_genes_another_way_is_named():
    panel = [f"G{i}" for i in range(10)]
    require_listed(panel[:5], panel, "S1")
    with pytest.raises(SealError, match="sample S1 lists 4 of the panel's 10 genes; its own begin ENSG1, G0") as error:
        require_listed(["ENSG1", *panel[:4]], panel, "S1")
    assert "SEAL_ALIASES" in error.value.do
