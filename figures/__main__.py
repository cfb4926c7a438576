"""`python -m figures`: draw, what is drawn and what is not, where it comes from, take results as the reference."""

import argparse
import sys
from collections.abc import Sequence

from figures import draw, readme, reference, trace
from figures.sources import Source
from seal import profiles
from seal.errors import run_command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m figures", description="Figures and tables of the SEAL companion")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    drawing = commands.add_parser("draw", help="draw from the profile's results into figures/PROFILE/")
    tracing = commands.add_parser("trace", help="the way from a figure or table to its results, runs and settings")
    status = commands.add_parser("status", help="which figures and tables are drawn, stale, or missing and why")
    taking = commands.add_parser("reference", help="take a profile's results as its reference, to be committed")
    stating = commands.add_parser("readme", help="make the table and figures of README.md from the references")
    for command in (drawing, tracing, status, taking):
        command.add_argument("--profile", default="demo", help="demo (default), her2st or maple")
    drawing.add_argument("ids", nargs="*", metavar="ID", help="such as F3 T19; default: all that can be drawn")
    drawing.add_argument("--reference", action="store_true", help="from the committed results: nothing has to be run")
    tracing.add_argument("id", metavar="ID", help="such as F3 or T19")
    functions = (_draw, _trace, _status, _reference, _readme)
    for command, function in zip((drawing, tracing, status, taking, stating), functions, strict=True):
        command.set_defaults(run=function)
    return parser


def _draw(arguments: argparse.Namespace) -> None:
    profile = profiles.get(arguments.profile)
    written = draw.draw(profile, arguments.ids or None, arguments.reference)
    if arguments.ids:
        print(*written, sep="\n")
        return
    print(*(path for path in written if path.suffix == ".png"), sep="\n")
    tables = sum(path.suffix == ".csv" for path in written)
    print(f"{tables} tables in tables/ beside them, and each figure as PDF" if written else "nothing to draw from yet")
    if arguments.reference:
        print(draw.lacking_text(Source(profile, committed=True)), end="")


def _trace(arguments: argparse.Namespace) -> None:
    print(trace.trace(profiles.get(arguments.profile), arguments.id), end="")


def _status(arguments: argparse.Namespace) -> None:
    print(draw.status_text(profiles.get(arguments.profile)), end="")


def _reference(arguments: argparse.Namespace) -> None:
    profile = profiles.get(arguments.profile)
    print(reference.save(profile))
    print(draw.lacking_text(Source(profile, committed=True)), end="")


def _readme(_: argparse.Namespace) -> None:
    print(readme.write(), *readme.draw_pictures(), sep="\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    given = _parser().parse_args(arguments)
    return run_command(given.run, given)


if __name__ == "__main__":
    sys.exit(main())
