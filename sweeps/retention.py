"""Which States a storage keeps: a dense run's all, a chain's last; an inner cycle's until no cell needs it."""

import json
from collections.abc import Iterable

from trainable.config import Cell, Cycle, from_description, key, lineage, states_read
from trainable.remote import Place
from trainable.store import Store


class Retention:
    """Who reads the States of the storage's cycles, over all its studies."""

    def __init__(self, store: Store, cells: Iterable[Cell]) -> None:
        """cells: of the study at hand; those of the storage's other studies are read."""
        self._store, self._heard = store, store.declarations()
        self._readers: dict[str, dict[str, Cell]] = {}
        self.cycles: dict[str, Cycle] = {}
        self._hear((*cells, *declared(store)))

    def _hear(self, cells: Iterable[Cell]) -> None:
        for cell in cells:
            for member in lineage(cell):
                if isinstance(member, Cycle):
                    self.cycles[key(member)] = member
                for run, _ in states_read(member):
                    self._readers.setdefault(key(run), {})[key(member)] = member

    def ended(self, cell: Cell) -> list[Place]:
        """Remove the States that a finished cell was the last to need; their paths."""
        if (heard := self._store.declarations()) != self._heard:  # studies declared or extended since
            self._heard = heard
            self._hear(declared(self._store))
        runs = {key(run): run for run, _ in states_read(cell)}
        return [path for run in runs.values() if isinstance(run, Cycle) for path in self.remove(run)]

    def removable(self, run: Cycle) -> list[Place]:
        """The kept States of a finished cycle that has readers, all of them done."""
        readers = self._readers.get(key(run), {}).values()
        if not readers or not self._store.done(run) or not all(self._store.done(reader) for reader in readers):
            return []
        return [self._store.state_path(run, step) for step in self._store.kept_steps(run)]

    def remove(self, run: Cycle) -> list[Place]:
        """Remove what removable() lists; the paths."""
        paths = self.removable(run)
        for path in paths:
            path.unlink(missing_ok=True)
        return paths


def declared(store: Store) -> list[Cell]:
    """The cells of every study of a storage, once each. Raises ValueError for a damaged cells.json."""
    found: dict[str, Cell] = {}
    for path in store.declarations():
        try:
            rows = json.loads(path.read_bytes())
            found |= {row["key"]: from_description(row["cell"]) for row in rows if row["key"] not in found}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged ({error}): delete it, and the study's script writes it again"
            ) from error
    return list(found.values())
