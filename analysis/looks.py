"""How often a study's seeds were extended after somebody looked at its verdicts.

Seeds added because of what the first ones showed make false positives; a verdict at a later look is tested at a
stricter level (stats.level), so that what was declared at each look is written down beside the study.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.files import write
from analysis.load import filesystem, is_remote, read_json

Network = tuple[str, str]
"""(data set, architecture)."""
Declared = dict[str, list[list[int]]]
"""By data set/architecture: the seeds declared at the first look, at the second, …"""


def take(storage: str | Path, study: str, frame: pd.DataFrame) -> dict[Network, int]:
    """Note the seeds that a study declares now, and return each network's look: 0, then 1 more with every extension.

    Kept in studies/<study>/looks.json, which is written only when something new is declared. Raises ValueError when
    the file is damaged, OSError when it cannot be written.
    """
    files, name = filesystem(storage)
    path = f"studies/{study}/looks.json"
    try:
        noted = _checked(read_json(files, path) or {})
    except ValueError as error:
        raise ValueError(
            f"{name}/{path} is damaged ({error}): restore it; deleting it forgets how often the study was looked at"
        ) from error
    looks = _extended(noted, frame)
    if looks != noted:
        content = (json.dumps(looks, sort_keys=True) + "\n").encode()
        if is_remote(storage):
            with files.open_output_stream(path) as file:
                file.write(content)
        else:
            write(Path(storage) / path, content)
    networks = frame[["dataset", "architecture"]].drop_duplicates().itertuples(index=False, name=None)
    return {network: max(0, len(looks.get("/".join(network), [])) - 1) for network in networks}


def _checked(noted: Any) -> Declared:
    good = isinstance(noted, dict) and all(
        isinstance(looks, list) and all(isinstance(seeds, list) for seeds in looks) for looks in noted.values()
    )
    if not good:
        raise ValueError(f"expected lists of seeds by network, got {noted!r:.80}")
    return noted


def _extended(noted: Declared, frame: pd.DataFrame) -> Declared:
    """With another look of every network that has seeds which no look had."""
    looks = dict(noted)
    for (dataset, architecture), rows in frame.groupby(["dataset", "architecture"], sort=False):
        network, declared = f"{dataset}/{architecture}", set(map(int, rows["seed"].dropna()))
        before = looks.get(network, [])
        known = {seed for seeds in before for seed in seeds}
        if not declared <= known:
            looks[network] = [*before, sorted(declared | known)]
    return looks
