"""Finished rounds of a search, one JSON file each: written whole, never changed, and all that a search goes on from."""

import json
from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Any

from sweeps.search import Search, Trial
from trainable.config import key
from trainable.remote import Place
from trainable.store import Store, names_in, write_once

Round = tuple[Trial, ...]


def folder_of(search: Search, study: Place) -> Place:
    """Where a search's rounds lie in its study's folder."""
    return study / "search" / search.group.name.replace("/", "-")


def read(search: Search, folder: Place) -> list[Round]:
    """The finished rounds in order; the first one is the warm start.

    Raises ValueError for a damaged file, a missing round, and rounds of another search.
    """
    names = [name for name in names_in(folder) if fnmatch(name, "round-*.json")]
    rounds = []
    for number, name in enumerate(names):
        if name != _name(number):
            raise ValueError(f"{folder} has {name}, but no {_name(number)}: delete the later rounds {_AGAIN}")
        rounds.append(_read(search, folder / name))
    return rounds


def write(search: Search, folder: Place, rounds: Sequence[Round]) -> None:
    """Write the rounds that are not there yet."""
    for number, trials in enumerate(rounds):
        content = {"search": search.description(), "round": number, "trials": [_as_json(search, t) for t in trials]}
        write_once(folder / _name(number), (json.dumps(content, indent=1) + "\n").encode())


def warm_start(search: Search, store: Store) -> Round:
    """The points of a search's space that are done on all of its seeds already: same group, same val_examples."""
    found: list[Trial] = []
    if not all(store.done(search.dense_run(seed)) for seed in search.seeds):
        return ()  # without a look at every point: a fine grid has 100,000
    begun = set(store.run_keys())
    for retraining, params in search.space.points.items():
        cells = [search.cell(retraining, seed) for seed in search.seeds]
        if all(key(cell) in begun and store.done(cell) for cell in cells):
            reached = tuple(val_accuracy(store, search, params))
            found.append(Trial(number=None, params=params, val_accuracy=reached))
    return tuple(found)


def val_accuracy(store: Store, search: Search, params: dict[str, Any]) -> list[float]:
    """What a trial's cells, all done, reached: validation accuracy by seed. The test set's is never read here."""
    return [store.result(cell)["numbers"]["val_accuracy"] for cell in search.cells(params)]


_AGAIN = "(what they trained is found again)"


def _name(number: int) -> str:
    return f"round-{number:04d}.json"


def _as_json(search: Search, trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "params": trial.params,
        "keys": [key(cell) for cell in search.cells(trial.params)],
        "val_accuracy": trial.val_accuracy,
        "value": trial.value,
        "error": trial.error,
    }


def _read(search: Search, path: Place) -> Round:
    try:
        content = json.loads(path.read_bytes())
        theirs = content["search"]
        trials = tuple(
            Trial(
                number=trial["number"],
                params=trial["params"],
                val_accuracy=None if trial["val_accuracy"] is None else tuple(trial["val_accuracy"]),
                error=trial["error"],
            )
            for trial in content["trials"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): delete it and the later rounds {_AGAIN}") from error
    ours = json.loads(json.dumps(search.description()))
    if theirs != ours:
        names = [name for name in (*ours, *(theirs.keys() - ours.keys())) if theirs.get(name) != ours.get(name)]
        shown = [name for name in names if name not in ("parameters", "named")] or names
        said = ", ".join(f"{name} {theirs.get(name)} there, {ours.get(name)} here" for name in shown)
        raise ValueError(
            f"{path.parent} has rounds of another search ({said}): choose another --name (what is trained is found "
            "under it too), or delete that folder to begin again"
        )
    return trials
