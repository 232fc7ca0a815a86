"""What is analysed: a frame, how its strategies are compared, and the words that belong to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, final

import pandas as pd

from analysis import aggregate, claims, looks, renda2020
from analysis.aggregate import SETTING
from analysis.load import declared, histories, load

RENDA2020_FILES = ("renda2020_pruned.csv", "renda2020_dense.csv")
RENDA2020_NOTES = (
    "Every strategy is shown at the retraining budget with the highest median validation accuracy of its network, "
    "schedule and density, as the paper's figures do; verdicts at each equal budget stand beside. Nothing is pooled "
    "over budgets. Weight rewinding of all 182 passes rewinds to initialisation and is a strategy of its own.",
    "Released accuracies are on 8,000 of the test images; 2,000 are validation.",
    "Which networks share a dense run is not in the files. That one-shot fine-tuning, weight, learning-rate and low-LR "
    "weight rewinding of one (network, density, trial) do is inferred (their accuracies correlate by 0.3 to 0.6), and "
    "so they are paired. Iterative chains and reinitialisation are not paired with anything, and no trial is paired "
    "with a dense network: changes are against the median of the network's dense runs.",
)


@final
@dataclass(frozen=True, kw_only=True)
class Subject:
    """A frame and how it is compared."""

    title: str
    frame: pd.DataFrame
    """Every row."""
    shown: pd.DataFrame
    """What figures, tables and the first verdicts take: the frame, or of each strategy its best budget."""
    setting: Sequence[str] = field(default_factory=lambda: list(SETTING))
    """What one line of a figure holds fixed."""
    looks: Mapping[claims.Network, int] = field(default_factory=dict)
    """How often each network's seeds were extended after somebody looked."""
    margin: float
    """Fraction."""
    allow_mixed: bool = False
    declared: Sequence[Mapping[str, Any]] = ()
    """The study's rows as they were declared, with complete descriptions under "cell"."""
    storage: str | Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def by_validation(self) -> bool:
        """Whether a budget was chosen for every strategy."""
        return self.shown is not self.frame

    def verdicts(self) -> pd.DataFrame:
        """claims.evaluate() of what is shown."""
        return self._of_shown

    def verdicts_at_equal_budget(self) -> pd.DataFrame:
        """claims.evaluate() at each budget that both sides of a comparison have; no row where none was chosen."""
        if not self.by_validation:
            return self.verdicts().iloc[:0]
        found = self._verdicts(self.frame)
        return found[(found["setting"] != "") & ~found["setting"].str.contains(" against ")]

    def curves(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Training curves to draw: of the first network and seed, dense, and each strategy's sparsest one-shot cell."""
        done = self.shown[self.shown["status"] == "done"]
        if self.storage is None or done.empty:
            return []
        first = done.iloc[0]
        same = (done[["dataset", "architecture", "seed"]] == first[["dataset", "architecture", "seed"]]).all(axis=1)
        chosen = done[same & done["schedule"].isin(["dense", "one-shot"])]
        chosen = chosen.sort_values("sparsity_target", kind="stable").drop_duplicates("strategy", keep="last")
        names = [
            row.strategy if row.sparsity_target == 0 else f"{row.strategy} at {row.sparsity_target:g}"
            for row in chosen.itertuples()
        ]
        return list(zip(names, histories(self.storage, chosen["key"]), strict=True))

    @cached_property
    def _of_shown(self) -> pd.DataFrame:
        """Takes seconds, and is asked for more than once."""
        return self._verdicts(self.shown)

    def _verdicts(self, frame: pd.DataFrame) -> pd.DataFrame:
        return claims.evaluate(frame, margin=self.margin, looks=self.looks, allow_mixed=self.allow_mixed)


def of_study(
    storage: str | Path,
    study: str,
    *,
    frame: pd.DataFrame | None = None,
    protocol: str | None = None,
    margin: float | None = None,
    allow_mixed: bool = False,
    look: bool = True,
) -> Subject:
    """A study of a storage. look: note that its verdicts are looked at (analysis.looks).

    frame: its table, where it is loaded already. protocol: of the rows to take, as the column has it; None: all rows.
    margin: fraction; None: claims.margin_for(). Raises as analysis.load.load() and analysis.looks.take() do, for a
    protocol that no row has, and where there can be no verdict, before a look is noted.
    """
    frame = load(storage, study) if frame is None else frame
    if protocol is not None:
        frame = _of_protocol(frame, protocol)
    margin = claims.margin_for(frame) if margin is None else margin
    if look:
        aggregate.done_cells(frame)
        claims.require_comparable(frame, margin, allow_mixed)
    return Subject(
        title=study
        if protocol is None
        else f"{study}, {frame['dense_schedule'].iloc[0]} schedule, protocol {protocol}",
        frame=frame,
        shown=frame,
        looks=looks.take(storage, study, frame) if look else {},
        margin=margin,
        allow_mixed=allow_mixed,
        declared=declared(storage, study),
        storage=storage,
    )


def _of_protocol(frame: pd.DataFrame, protocol: str) -> pd.DataFrame:
    rows = frame[frame["protocol"] == protocol]
    if rows.empty:
        raise ValueError(f"no row has protocol {protocol!r}: the study has {', '.join(frame['protocol'].unique())}")
    return rows.reset_index(drop=True)


def of_renda2020(folder: str | Path, *, margin: float | None = None) -> Subject:
    """What Renda et al. 2020 released, from a folder with both files."""
    frame = renda2020.load_renda2020(*(Path(folder) / name for name in RENDA2020_FILES))
    return Subject(
        title="Renda, Frankle & Carbin 2020, CIFAR-10",
        frame=frame,
        shown=renda2020.best_budget(frame),
        setting=["strategy"],
        margin=claims.margin_for(frame) if margin is None else margin,
        notes=RENDA2020_NOTES,
    )
