"""Numbers and tables as text: a value with its interval, a table as Markdown."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def interval_text(value: float, low: float, high: float, sign: str = "", decimals: int = 3) -> str:
    """A value with its interval, "0.412 [0.380, 0.444]"; alone where there is none (NaN).

    Parameters
    ----------
    sign
        "+" for differences.
    """
    numbers = [f"{number:{sign}.{decimals}f}" for number in (value, low, high)]
    return numbers[0] if low != low else f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def table_text(table: "pd.DataFrame") -> str:
    """Give a table as Markdown: numbers to the right, thousands set apart, bars escaped, missing values empty."""
    numeric = [table[column].dtype.kind in "iuf" for column in table]
    head = _line(map(str, table.columns))
    rule = _line("---:" if right else "---" for right in numeric)
    columns = [_cells(table[column]) for column in table]
    return "\n".join([head, rule, *map(_line, zip(*columns, strict=True))]) + "\n"


def _line(cells) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(column: "pd.Series") -> list[str]:
    if column.dtype.kind in "iu":
        return [f"{value:,}" for value in column]
    if column.dtype.kind == "f":
        # As many decimals as the column needs, three at most, the same in every row.
        texts = [f"{value:.3f}".rstrip("0") for value in column.dropna()]
        decimals = max((len(text.partition(".")[2]) for text in texts), default=0)
        return ["" if value != value else f"{value:,.{decimals}f}" for value in column]
    texts = ["" if value is None or value != value else str(value) for value in column]
    return [text.replace("|", "\\|").replace("\n", " ") for text in texts]
