"""python -m analysis table STORAGE STUDY: what a study has so far."""

import argparse
import sys

from analysis import tables
from analysis.load import load


def main(argv: list[str] | None = None) -> int:
    """The command line. Exit status 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("table", help="accuracy by strategy and sparsity: median and range over seeds")
    table.add_argument("storage", metavar="STORAGE")
    table.add_argument("study", metavar="STUDY")
    table.add_argument("--json", action="store_true", help="a list of one object a row")
    options = parser.parse_args(argv)
    try:
        rows = tables.accuracy(load(options.storage, options.study))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(rows.to_json(orient="records", indent=1) if options.json else tables.as_text(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
