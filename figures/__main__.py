"""`python -m figures`: draw, what is drawn and what is not, take the results as the reference."""

import argparse
import sys
from collections.abc import Sequence

from figures import draw, reference
from seal import profiles
from seal.errors import run_command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m figures", description="Figures and tables of the SEAL companion")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    drawing = commands.add_parser("draw", help="draw from the profile's results into figures/PROFILE/")
    commands.add_parser("status", help="which figures and tables are drawn, stale, or missing and why")
    commands.add_parser("reference", help="take a profile's results as its reference")
    for command in commands.choices.values():
        command.add_argument("--profile", default="demo", help="demo (default), her2st or maple")
    drawing.add_argument("ids", nargs="*", metavar="ID", help="such as F3 T19; default: all that can be drawn")
    return parser


def _draw_or_list(arguments: argparse.Namespace) -> None:
    profile = profiles.get(arguments.profile)
    if arguments.command == "draw":
        print(*draw.draw(profile, arguments.ids or None), sep="\n")
    elif arguments.command == "status":
        print(draw.status_text(profile), end="")
    else:
        print(reference.save(profile))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    return run_command(_draw_or_list, _parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
