"""Files of a figure or table, each with the stamp inside: PDF and PNG, csv and Markdown."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seal import paths
from seal.files import atomic

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def write_figure(figure: "Figure", id: str, title: str, caption: str, stamp: dict[str, Any]) -> tuple[str, list[Path]]:
    """Mark a figure and write it as ID.pdf and ID.png; returns its title and the files."""
    from figures.style import mark, style

    metadata = {
        "pdf": {"Title": f"{id} {title}", "Subject": caption, "Keywords": _text(stamp), "CreationDate": None},
        "png": {"Title": f"{id} {title}", "Description": caption, "Comment": _text(stamp)},
    }
    files = [paths.figures(stamp["profile"]) / f"{id}.{kind}" for kind in metadata]
    mark(figure, f"{stamp['data']} ({stamp['profile']})")
    with style():
        for path, (kind, words) in zip(files, metadata.items(), strict=True):
            with atomic(path) as temporary:
                figure.savefig(temporary, format=kind, dpi=300, metadata=words)
    return title, files


def write_table(
    table: "pd.DataFrame", id: str, title: str, caption: str, stamp: dict[str, Any]
) -> tuple[str, list[Path]]:
    """Write a table as tables/ID.csv and ID.md; returns its title, its own before the given one, and the files."""
    from figures.markdown import table_text

    title = table.attrs.get("title", title)
    files = [paths.figures(stamp["profile"]) / "tables" / f"{id}.{kind}" for kind in ("csv", "md")]
    with atomic(files[0]) as temporary:
        # The csv has no room for a mark but a column.
        marked = table.assign(data=stamp["data"]) if stamp["data"] == "simulated data" else table
        marked.to_csv(temporary, index=False)
    parts = [
        f"**{stamp['data']}**, profile {stamp['profile']}",
        f"## {id} {title}",
        caption,
        table_text(table).rstrip("\n"),
        table.attrs.get("note", ""),
        f"<sub>{_short(stamp)}</sub>",
        f"<!-- {_text(stamp)} -->",
    ]
    with atomic(files[1]) as temporary:
        temporary.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return title, files


def _text(stamp: dict[str, Any]) -> str:
    """The stamp as it goes into files: of inputs the digest, and no time, so that equal inputs give equal files."""
    inputs = {name: {"sha256": table["sha256"]} for name, table in stamp["inputs"].items()}
    return json.dumps({k: v for k, v in stamp.items() if k != "time"} | {"inputs": inputs}, sort_keys=True)


def _short(stamp: dict[str, Any]) -> str:
    seeds = ", ".join(map(str, stamp["seeds"]))
    commit = (stamp["commit"] or "none")[:10] + (" with changes" if stamp["dirty"] else "")
    sources = ", ".join(f"{name}.csv {source['sha256'][:10]}" for name, source in stamp["inputs"].items())
    return f"{stamp['data']}; profile {stamp['profile']}; seeds {seeds}; commit {commit}; from {sources}"
