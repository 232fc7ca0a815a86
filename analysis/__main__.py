"""From trials to verdicts, in the terminal: python -m analysis COMMAND STORAGE STUDY.

STORAGE is a local folder or s3://bucket/prefix. In place of STORAGE STUDY, --renda2020 DIR reads what Renda et al. 2020
released: renda2020_pruned.csv and renda2020_dense.csv.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from analysis import aggregate, published, report, stats, subject, tables
from analysis.load import correct, save
from analysis.subject import Subject


def main(argv: list[str] | None = None) -> int:
    """The command line. Exit status 0; 2 for bad input; 3 when the storage gave up."""
    options = _parser().parse_args(argv)
    try:
        options.run(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"storage error: {error}", file=sys.stderr)
        return 3
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _command(commands, "table", _table, "accuracy by strategy and sparsity: median and range over seeds")
    _command(commands, "claims", _claims, "the papers' claims and the verdict on each", verdicts=True)
    _command(commands, "scorecard", _scorecard, "published points beside ours, and how two wrong tables would score")
    _command(commands, "power", _power, "how many more seeds would decide what is undecided", verdicts=True)
    export = _command(commands, "export", _export, "the table as Parquet and CSV, results as CSV, Markdown and LaTeX")
    export.add_argument("--out", type=Path, default=Path("export"), metavar="DIR", help="(default: export)")
    page = _command(commands, "report", _report, "a page with all of it, its figures and tables", verdicts=True)
    page.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="(default: report)")
    mcnemar = commands.add_parser("mcnemar", help="two networks on the same test images; describes them, no verdict")
    mcnemar.add_argument("storage", metavar="STORAGE")
    mcnemar.add_argument("keys", nargs=2, metavar="KEY", help="from the table's column `key`")
    mcnemar.add_argument("--json", action="store_true", help="a list of one object")
    mcnemar.set_defaults(run=_mcnemar)
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], None],
    help: str,
    *,
    verdicts: bool = False,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help)
    parser.add_argument("storage", metavar="STORAGE", nargs="?")
    parser.add_argument("study", metavar="STUDY", nargs="?")
    parser.add_argument(
        "--renda2020", metavar="DIR", help="in place of STORAGE STUDY: folder of the two released files"
    )
    parser.add_argument("--protocol", metavar="DIGEST", help="take the rows of one protocol, as the column has it")
    parser.add_argument("--json", action="store_true", help="a list of one object a row")
    if verdicts:
        parser.add_argument(
            "--margin",
            type=float,
            metavar="POINTS",
            help="differences below it are equivalent (default: 0.25, or what two test images are, rounded up)",
        )
        parser.add_argument("--allow-mixed", action="store_true", help="compare across protocols of one network")
    parser.set_defaults(run=run, look=verdicts, margin=None, allow_mixed=False)
    return parser


def _subject(options: argparse.Namespace) -> Subject:
    if options.margin is not None and not 0 < options.margin < 100:
        raise ValueError(f"--margin must be points between 0 and 100, got {options.margin:g}")
    margin = None if options.margin is None else options.margin / 100
    if options.renda2020 is not None:
        if options.storage is not None:
            raise ValueError(f"--renda2020 stands in place of STORAGE STUDY, got {options.storage!r} too: give one")
        if options.protocol is not None:
            raise ValueError(f"--protocol is for a study, --renda2020 has one protocol, got {options.protocol!r}")
        return subject.of_renda2020(options.renda2020, margin=margin)
    if options.study is None:
        raise ValueError("STORAGE and STUDY are needed, or --renda2020 DIR")
    return subject.of_study(
        options.storage,
        options.study,
        protocol=options.protocol,
        margin=margin,
        allow_mixed=options.allow_mixed,
        look=options.look,
    )


def _print(options: argparse.Namespace, numbers: pd.DataFrame, text: Callable[[pd.DataFrame], str]) -> None:
    print(numbers.to_json(orient="records", indent=1) if options.json else text(numbers))


def _text(table: pd.DataFrame) -> str:
    return table.to_string(index=False, justify="left", max_colwidth=None)


def _table(options: argparse.Namespace) -> None:
    chosen = _subject(options)
    _print(options, aggregate.accuracy(chosen.shown, chosen.setting), tables.as_text)


def _claims(options: argparse.Namespace) -> None:
    chosen = _subject(options)
    aggregate.done_cells(chosen.frame)
    _print(options, pd.concat([chosen.verdicts(), chosen.verdicts_at_equal_budget()], ignore_index=True), _by_claim)


def _by_claim(verdicts: pd.DataFrame) -> str:
    parts = [
        f"Claim {number}. {rows['text'].iloc[0]}\n{_text(tables.verdicts(rows).drop(columns='claim'))}"
        for number, rows in verdicts.groupby("claim", sort=False)
    ]
    return "\n\n".join(parts)


def _power(options: argparse.Namespace) -> None:
    chosen = _subject(options)
    aggregate.done_cells(chosen.frame)
    verdicts = chosen.verdicts()
    undecided = verdicts[verdicts["verdict"] == "undecided"]
    columns = ["claim", "scope", "part", "effect", "n", "look", "level", "note", "needs"]
    nothing = f"no verdict is undecided: {report.counted(verdicts['verdict'])}"
    _print(options, undecided[columns], lambda rows: _text(rows) if len(rows) else nothing)


def _scorecard(options: argparse.Namespace) -> None:
    chosen = _subject(options)
    aggregate.done_cells(chosen.frame)
    points = published.scorecard(chosen.shown)
    _print(options, points, _scores)


def _scores(points: pd.DataFrame) -> str:
    if points.empty:
        return "no published point has a finished cell here"
    summary, each = tables.scores(published.summary(points)), tables.score_points(points)
    return f"{_text(summary)}\n\n{_text(each)}\n\n{published.UNKNOWN}"


def _export(options: argparse.Namespace) -> None:
    chosen = _subject(options)
    aggregate.done_cells(chosen.frame)
    if not options.json:
        options.out.mkdir(parents=True, exist_ok=True)
        save(chosen.frame, options.out)
        report.save_tables(report.made_tables(chosen), options.out / "tables")
    _print(options, chosen.frame, lambda _: f"wrote {options.out}/results.parquet, results.csv and tables/")


def _report(options: argparse.Namespace) -> None:
    chosen = _subject(options)
    path = report.write(chosen, options.out)
    written = pd.DataFrame([{"report": str(path)}])
    _print(options, written, lambda _: f"wrote {path}, figures/ and tables/")


def _mcnemar(options: argparse.Namespace) -> None:
    first, second = (correct(options.storage, key) for key in options.keys)
    only_first, only_second, p = stats.mcnemar(first, second)
    row = {"a": options.keys[0], "b": options.keys[1], "only_a": only_first, "only_b": only_second, "p": p}
    _print(options, pd.DataFrame([row]), _text)


if __name__ == "__main__":
    sys.exit(main())
