"""Command-line arguments: types that check, and a parser whose errors are one line."""

import argparse
import math
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """argparse's, with errors as everywhere in this project: one line, exit status 2."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message} (see --help)", file=sys.stderr)
        sys.exit(2)


def positive(text: str) -> int:
    """A whole number, 1 or more."""
    return _whole(text, 1)


def not_negative(text: str) -> int:
    """A whole number, 0 or more."""
    return _whole(text, 0)


def seconds(text: str) -> float:
    """A time above 0, finite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text}")
    return value


def gpu_share(text: str) -> float:
    """A share of one GPU, or a whole number of them."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not (0 < share <= 1 or (share > 1 and share.is_integer())):
        raise argparse.ArgumentTypeError(f"must be a share in (0, 1] or a whole number of GPUs, got {text}")
    return share


def _whole(text: str, least: int) -> int:
    if not text.removeprefix("-").isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number, {least} or more, got {text}")
    return int(text)
