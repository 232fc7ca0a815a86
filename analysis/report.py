"""The report of a subject: a page that needs neither network nor script, its figures and its tables, in one folder."""

import base64
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, final

import jinja2
import pandas as pd

from analysis import aggregate, claims, methods, plots, published, tables
from analysis.claims import ALL_PARTS, CLAIMS
from analysis.files import write as write_file
from analysis.mikler2021 import load_published
from analysis.subject import Subject

LONG = ("remarks", "scope", "comparison", "because", "trained otherwise", "error", "versions")
"""Columns that hold sentences."""
COLUMNS = (
    "verdict",
    "scope",
    "comparison",
    "setting",
    "effect, points",
    "bounds",
    "p",
    "n",
    "level",
    "smallest p",
    "remarks",
)
"""Of a claim's table, in their order."""
VERDICTS_READ = (
    "The independent unit is one dense run with all that was pruned from it; n counts units, and each gives one "
    "number, the mean of its paired differences over the range's sparsities (low: up to {boundary:g}; high: above). "
    "Effects are in the claim's direction, in points of test accuracy, with one-sided t bounds at the level of this "
    "look; p is exact, after Holm over a claim's parts. Supported: the lower bound is above 0 (claims of at least as "
    "good: above −{margin:g}). Contradicted: the upper bound is below 0. Equivalent: both lie within {margin:g} "
    "points. Undecided: none of these, and the remark says what would decide it. A bound counts only when the exact "
    "test agrees; smallest p is the least that this test can reach with so many units."
)
SCORES_READ = (
    "A point holds when our median is within 1 point of theirs (the paper's own margin) and our change against our own "
    "dense network within 0.5 points of theirs; a pair of strategies when its sign is theirs, wherever they differ by "
    "0.5 points or more in print. A panel is reproduced when at least 90 % of both hold, trained by the paper's "
    "protocol: a scaled run never is. Two wrong tables are scored the same way: dense accuracy everywhere, and weight "
    "and learning-rate rewinding exchanged; where they score as well as ours, the panel hardly could have failed. "
)


@final
@dataclass(frozen=True, kw_only=True)
class Table:
    """Numbers, and the same as people read it."""

    name: str
    """Of its files."""
    caption: str
    numbers: pd.DataFrame
    said: pd.DataFrame


def write(subject: Subject, out: str | Path) -> Path:
    """Write index.html, figures/ (PNG, SVG, PDF) and tables/ (CSV, Markdown, LaTeX) below out; return the page's path.

    Raises ValueError when no cell is finished, or what is compared cannot be (see claims.evaluate).
    """
    out = Path(out)
    aggregate.done_cells(subject.frame)
    verdicts, at_equal_budget = subject.verdicts(), subject.verdicts_at_equal_budget()
    scores = published.scorecard(subject.shown)
    drawn, not_drawn = _drawn(subject)
    made = [*made_tables(subject), *_verdict_tables(verdicts, at_equal_budget)]
    for name, figure in drawn.items():
        plots.save(figure, out / "figures" / name)
    save_tables(made, out / "tables")
    page = {
        "title": f"{subject.title}: how should a pruned network be trained again?",
        "state": _state(subject.frame),
        "notes": subject.notes,
        "contents": CONTENTS,
        "verdicts_read": VERDICTS_READ.format(boundary=claims.BOUNDARY, margin=100 * subject.margin),
        "claims": list(_claims(verdicts, at_equal_budget)),
        "undecided": list(_undecided(verdicts)),
        "figures": [_embedded(name, figure, out / "figures") for name, figure in drawn.items()],
        "not_drawn": not_drawn,
        "tables": [(table.caption, table.said) for table in made if table.name not in VERDICT_TABLES],
        "scores": tables.scores(published.summary(scores)) if len(scores) else None,
        "scores_read": SCORES_READ + published.UNKNOWN,
        "points": tables.score_points(scores),
        "costs": tables.costs(methods.costs(subject.frame)),
        "costs_read": _saved(subject),
        "failures": _failures(subject.frame),
        "methods": methods.paragraphs(subject.frame, subject.declared),
        "provenance": _provenance(subject.frame),
        "long": LONG,
    }
    path = out / "index.html"
    write_file(path, _template().render(page).encode())
    return path


CONTENTS = (
    ("verdicts", "Verdicts"),
    ("open", "What could not be concluded"),
    ("figures", "Figures"),
    ("tables", "Tables"),
    ("scorecard", "Scorecard"),
    ("costs", "Costs"),
    ("failures", "Failures"),
    ("methods", "Methods"),
    ("provenance", "Provenance"),
)
VERDICT_TABLES = ("verdicts", "verdicts_at_equal_budget")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.globals["zip"] = zip
    return environment.from_string(resources.files("analysis").joinpath("report.html").read_text("utf-8"))


def _drawn(subject: Subject) -> tuple[dict[str, plots.Drawn], list[tuple[str, str]]]:
    """Figures by name, and what could not be drawn with the reason."""
    drawn: dict[str, plots.Drawn] = {}
    not_drawn: list[tuple[str, str]] = []
    for name, draw in _figures(subject):
        try:
            drawn[name] = draw()
        except ValueError as error:
            not_drawn.append((name.replace("_", " "), str(error)))
    return drawn, not_drawn


def _figures(subject: Subject) -> Iterator[tuple[str, Callable[[], plots.Drawn]]]:
    shown, setting = subject.shown, subject.setting
    overlaid = None if subject.by_validation else load_published("mikler2021")
    yield "accuracy_against_compression", partial(plots.accuracy_against_compression, shown, overlaid, setting)
    for a, b in compared(shown):
        yield f"{a}_minus_{b}", partial(plots.paired_differences, shown, a, b, setting)
    for sparsity in _with_budgets(subject.frame):
        yield (
            f"accuracy_against_budget_at_{sparsity:.3f}",
            partial(plots.accuracy_against_budget, subject.frame, sparsity),
        )
    yield "pareto_front", partial(plots.pareto_front, shown, setting)
    yield "accuracy_against_speedup", partial(plots.accuracy_against_speedup, shown, setting)
    yield "performance_profiles", partial(plots.performance_profiles, shown, setting)
    if curves := subject.curves():
        yield "training_curves", partial(plots.training_curves, curves)


def compared(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs of strategies that claims compare under one schedule, of those that the frame has pruned cells of."""
    pruned = set(frame.loc[(frame["sparsity_target"] > 0) & (frame["status"] == "done"), "strategy"])
    parts = [part for claim in CLAIMS for part in claim.parts if part.a_schedule == part.b_schedule]
    pairs = {frozenset((part.a, part.b)): (part.a, part.b) for part in reversed(parts) if {part.a, part.b} <= pruned}
    return list(reversed(pairs.values()))


def _with_budgets(frame: pd.DataFrame) -> list[float]:
    """The middle one of the sparsities at which most budgets were tried, when there are several budgets at all."""
    pruned = frame[(frame["sparsity_target"] > 0) & (frame["status"] == "done")]
    tried = pruned.groupby([*aggregate.PANEL, "strategy", "sparsity_target"], dropna=False)["budget"].nunique()
    most = sorted(tried[tried == tried.max()].index.get_level_values("sparsity_target").unique())
    return [most[len(most) // 2]] if len(most) and tried.max() > 1 else []


def made_tables(subject: Subject) -> list[Table]:
    """Every table of results but the verdicts'; those of which the frame has nothing are left out."""
    shown, setting = subject.shown, subject.setting
    accuracy = aggregate.accuracy(shown, setting)
    made = [
        Table(name=f"accuracy_{number}", caption=f"{panel}: test accuracy, %, by sparsity: median [lowest, highest]",
              numbers=accuracy, said=said)
        for number, (panel, said) in enumerate(tables.strategy_by_sparsity(accuracy).items(), 1)
    ]  # fmt: skip
    wanted: list[tuple[str, str, Callable[..., pd.DataFrame], Callable[..., pd.DataFrame]]] = [
        ("iso_accuracy", "Largest compression ratio within so many points of dense, with its range",
         aggregate.iso_accuracy, tables.iso_accuracy),
        ("search_cost", "Search cost: total steps, dense run and earlier cycles included",
         aggregate.search_cost, tables.search_cost),
        ("win_tie_loss", "On how many sparsities the first is ahead / level / behind",
         aggregate.win_tie_loss, tables.win_tie_loss),
        ("noise", "What accuracies vary by: seeds, and the test set, which is the same for all and so is not added",
         aggregate.noise, tables.noise),
        ("across_architectures", "Change against the seed's dense network over architectures; bootstrap, no verdict",
         aggregate.across_architectures, tables.across_architectures),
        ("improvement", "Probability that one strategy's seed changes more than another's; bootstrap, no verdict",
         aggregate.improvement, tables.improvement),
    ]  # fmt: skip
    for a, b in compared(shown):
        caption = f"{a} minus {b} at each sparsity: descriptive; p adjusted after Benjamini and Hochberg"
        difference = partial(aggregate.difference_intervals, a=a, b=b)
        wanted.append((f"{a}_minus_{b}", caption, difference, tables.differences))
    for name, caption, compute, say in wanted:
        try:
            numbers = compute(shown, setting=setting)
        except ValueError:  # nothing of it in this frame
            continue
        if len(numbers):
            made.append(Table(name=name, caption=caption, numbers=numbers, said=say(numbers)))
    return made


def _verdict_tables(verdicts: pd.DataFrame, at_equal_budget: pd.DataFrame) -> Iterator[Table]:
    for name, table in zip(VERDICT_TABLES, (verdicts, at_equal_budget), strict=True):
        if len(table):
            yield Table(name=name, caption="Verdicts", numbers=table, said=tables.verdicts(table))


def _claims(verdicts: pd.DataFrame, at_equal_budget: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for number, rows in verdicts.groupby("claim", sort=False):
        whole = claims.whole(rows)
        about = rows["about"] | ~rows.loc[whole, "about"].any()
        beside = {
            "its parts": rows[about & ~whole],
            "other architectures": rows[~about],
            "at each equal budget": at_equal_budget[at_equal_budget["claim"] == number],
        }
        yield {
            "number": number,
            "text": rows["text"].iloc[0],
            "source": rows["source"].iloc[0],
            "counts": _counts(rows[about & whole]),
            "caption": _caption(number, "verdicts", rows[about & whole]),
            "main": _shown(rows[about & whole]),
            "beside": [(name, _caption(number, name, of), _shown(of)) for name, of in beside.items() if len(of)],
        }


def _counts(rows: pd.DataFrame) -> str:
    """How many verdicts of each kind, and whether they are of architectures that the claim is not about."""
    said = counted(rows["verdict"])
    return f"{said}." if rows["about"].any() else f"It has no cell here; of other architectures: {said}."


def counted(words: pd.Series) -> str:
    """How often each stands there: 3 undecided, 1 no data."""
    return ", ".join(f"{n:,} {word}" for word, n in words.value_counts().items())


def _caption(number: str, what: str, rows: pd.DataFrame) -> str:
    parts = [part for part in rows["part"].unique() if part != ALL_PARTS]
    return f"Claim {number}, {what}" + (f": {parts[0]}" if len(parts) == 1 else "")


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    """A claim's rows as a table, without columns that say the same everywhere."""
    said = tables.verdicts(rows)[list(COLUMNS)]
    return said.drop(columns=[name for name in ("setting", "comparison") if len(said[name].unique()) == 1])


def _undecided(verdicts: pd.DataFrame) -> Iterator[str]:
    """Of each claim and scope without a verdict, what would decide it."""
    open_ = verdicts[verdicts["about"] & verdicts["verdict"].isin(["undecided", "no data"])]
    for (number, scope), rows in open_.groupby(["claim", "scope"], sort=False):
        first = rows.iloc[0]
        why = next(filter(None, [first["needs"], first["note"]]), "")
        yield f"Claim {number}, {scope.replace('/', ', ')}: {first['verdict']}, n = {first['n']}. {why}".strip()


def _state(frame: pd.DataFrame) -> str:
    return f"{len(frame):,} cells: {counted(frame['status'])}. Written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."


def _saved(subject: Subject) -> str:
    if not subject.declared:
        return "The table does not say which networks shared a dense run: what sharing saved is not known."
    done = subject.frame[subject.frame["status"] == "done"]
    if not done["parent"].dropna().isin(done["key"]).all():
        return "Some networks' dense runs or earlier cycles are no rows of this study: what sharing saved is not known."
    together = methods.costs(subject.frame).iloc[-1]
    steps, separate = together["steps"], together["if_separate"]
    return f"Sharing dense runs and the beginnings of chains saved {separate - steps:,} of {separate:,} steps."


def _failures(frame: pd.DataFrame) -> pd.DataFrame | None:
    failed = frame.loc[
        frame["status"] == "failed", ["architecture", "strategy", "sparsity_target", "seed", "key", "error"]
    ]
    return None if failed.empty else failed.drop_duplicates("key")


def _provenance(frame: pd.DataFrame) -> pd.DataFrame:
    table = methods.provenance(frame)
    return table.astype(object).where(table.notna(), "not recorded")


def _embedded(name: str, figure: plots.Drawn, folder: Path) -> dict[str, str]:
    data = base64.b64encode((folder / f"{name}.svg").read_bytes()).decode()
    width = f"{figure.get_figwidth() * 96:.0f}px"
    return {"name": name, "data": data, "alt": figure.alt, "caption": figure.caption, "width": width}


def save_tables(made: Iterable[Table], folder: Path) -> None:
    """Write each as CSV (its numbers), Markdown and LaTeX (as people read it)."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in made:
        write_file(folder / f"{table.name}.csv", table.numbers.to_csv(index=False).encode())
        write_file(folder / f"{table.name}.md", (tables.markdown(table.said) + "\n").encode())
        write_file(folder / f"{table.name}.tex", (tables.latex(table.said) + "\n").encode())
