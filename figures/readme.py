"""What the README shows of the results: rows, verdicts and two figures, from the committed reference, never typed."""

from pathlib import Path
from typing import TYPE_CHECKING

from figures.draw import REGISTER, inputs_of
from figures.markdown import interval_text, table_text
from figures.reference import RESULT
from figures.sources import REFERENCE, Source
from figures.style import mark, style
from seal import paths, profiles
from seal.errors import SealError
from seal.files import atomic

if TYPE_CHECKING:
    import pandas as pd

README = paths.PROJECT / "README.md"
LEDGER = "ledger"  # a result, see `seal.evaluate.ledger`
BEGIN, END = "<!-- results: written by `python -m figures readme` -->\n", "<!-- end of results -->\n"
PICTURES = [REFERENCE / f"{id}.png" for id in ("F1", "F3")]  # of the demo
CUT = "dinov2s_derived_b6"  # the encoder of both profiles, read after half of its blocks
ROWS = {  # label -> method, and encoder where it is not the profile's
    "frozen encoder": ("frozen", ""),
    "SEAL": ("seal", ""),
    "SEAL on shuffled pairs": ("seal_shuffled", ""),
    "the same adapter, no expression": ("no_expression", ""),
    "random weights": ("random", ""),
    "frozen encoder after 6 of its 12 blocks": ("frozen", CUT),
    "SEAL there": ("seal", CUT),
    "oracle, which knows the truth": ("oracle", ""),
}


def results_table() -> str:
    """Give the main methods with their intervals on simulated and on real tissue, as Markdown.

    Differences are to the frozen encoder read as far.

    Raises
    ------
    SealError
        A profile's reference holds no summary.
    """
    import pandas as pd

    columns = {"": list(ROWS)}
    for name in ("demo", "her2st"):
        profile = profiles.get(name)
        means = Source(profile, committed=True).read(RESULT)
        means = means[(means["organ"] == "all") & (means["metric"] == "pcc")].set_index(["method", "encoder"])
        means = means.reindex([(method, encoder or profile.encoder) for method, encoder in ROWS.values()])
        columns[f"{name}, {profile.label}"] = _intervals(means[["mean", "low", "high"]], "")
        differences = means[["difference", "difference_low", "difference_high"]].copy()
        differences[means.index.get_level_values("method") == "frozen"] = float("nan")
        columns[f"{name} minus frozen"] = _intervals(differences, "+")
    return table_text(pd.DataFrame(columns))


def verdicts_table() -> str:
    """Give the claims that the results of a profile speak of, with their verdicts, as Markdown; empty without any."""
    import pandas as pd

    found = {}
    for name in ("demo", "her2st"):
        source = Source(profiles.get(name), committed=True)
        if source.has(LEDGER):
            ledger = source.read(LEDGER).set_index("text")
            ledger = ledger[ledger["comparisons"] > 0]
            found[f"{name}, {source.profile.label}"] = ledger.apply(_verdict, axis=1)
    if not found:
        return ""
    order = list(dict.fromkeys(text for verdicts in found.values() for text in verdicts.index))
    return table_text(pd.DataFrame(found).reindex(order).fillna("").rename_axis("claim").reset_index())


def _verdict(row: "pd.Series") -> str:
    """A verdict, and what its intervals leave out."""
    left_out = ["over spots"] * (row["resample"] == "spots") + ["one seed"] * (row["seeds"] == 1)
    return row["verdict"] + (f" ({', '.join(left_out)})" if left_out else "")


def both_tables() -> str:
    """Give what stands between the README's two marks."""
    return "\n".join(filter(None, (results_table(), verdicts_table())))


def _intervals(numbers: "pd.DataFrame", sign: str) -> list[str]:
    rows = numbers.itertuples(index=False)
    return ["" if value != value else interval_text(value, low, high, sign) for value, low, high in rows]


def draw_pictures() -> list[Path]:
    """Draw the two figures that the README opens with, of the demo, small enough to be committed."""
    source = Source(profiles.get("demo"), committed=True)
    for path in PICTURES:
        artefact = REGISTER[path.stem]
        figure = artefact.function()(**{name: source.read(name) for name in inputs_of(artefact, source)})
        mark(figure, f"{source.profile.label} ({source.profile.name})")
        with style(), atomic(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120, metadata={"Title": f"{artefact.id} {artefact.title}"})
    return PICTURES


def write(path: Path = README) -> Path:
    """Put the tables between the README's two marks.

    Raises
    ------
    SealError
        A mark is missing.
    """
    head, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise SealError(f"{path} lacks a mark", expected=f"{BEGIN.strip()} and {END.strip()}", do="put both back")
    with atomic(path) as temporary:
        temporary.write_text(f"{head}{BEGIN}\n{both_tables()}\n{END}{tail}", encoding="utf-8")
    return path
