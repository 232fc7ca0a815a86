"""Command-line arguments: what is taken, and errors in one line."""

import argparse
import subprocess
import sys

import pytest

from trainable.arguments import Parser, gpu_share, not_negative, positive, seconds

WHOLE = "must be a whole number, {} or more, got {}"
SECONDS = "must be a number of seconds above 0, got {}"
SHARE = "must be a share in (0, 1] or a whole number of GPUs, got {}"
REFUSED = [
    *((positive, text, WHOLE.format(1, text)) for text in ("0", "-1", "1.5", "two", "", "1e3", "nan", "²", "--1")),
    *((not_negative, text, WHOLE.format(0, text)) for text in ("-1", "0.0", "two", "", "inf")),
    *((seconds, text, SECONDS.format(text)) for text in ("0", "-1", "inf", "nan", "soon", "")),
    *((gpu_share, text, SHARE.format(text)) for text in ("0", "-1", "1.5", "inf", "nan", "all", "")),
]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (positive, "1", 1),
        (positive, "16", 16),
        (not_negative, "0", 0),
        (not_negative, "3", 3),
        (seconds, "0.5", 0.5),
        (seconds, "1e3", 1000.0),
        (gpu_share, "0.25", 0.25),
        (gpu_share, "1", 1.0),
        (gpu_share, "2", 2.0),
    ],
)
def test_what_is_taken(kind, text, value):
    found = kind(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("kind", "text", "said"), REFUSED)
def test_what_is_refused(kind, text, said):
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        kind(text)
    assert str(refused.value) == said


def parser() -> Parser:
    made = Parser(prog="prog")
    made.add_argument("--threads", type=positive)
    commands = made.add_subparsers(dest="command")
    commands.add_parser("gc").add_argument("storage")
    return made


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threads", "0"], "argument --threads: must be a whole number, 1 or more, got 0"),
        (["--threads"], "argument --threads: expected one argument"),
        (["--colour"], "unrecognized arguments: --colour"),
        (["gc"], "the following arguments are required: storage"),
    ],
)
def test_an_error_is_one_line(capsys, arguments, said):
    """Of a subcommand too; no usage block."""
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", f"error: {said} (see --help)\n")


@pytest.mark.parametrize("module", ["trainable", "sweeps", "sweeps.quick_study", "sweeps.full_study"])
def test_every_command_says_so(module):
    done = subprocess.run([sys.executable, "-m", module, "--colour"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(" (see --help)\n")
