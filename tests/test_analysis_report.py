"""The report as a reader of its HTML finds it: made-up studies in real storages, read back by a plain parser."""

import base64
import dataclasses
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from analysis import aggregate, plots, report, subject
from analysis.load import load
from trainable import recipes, strategies
from trainable.columns import columns
from trainable.config import Cycle, DenseRun, density, describe
from trainable.store import Store, write

DATA = Path(__file__).parent / "data"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
ANCHORS = ["verdicts", "open", "figures", "tables", "scorecard", "costs", "failures", "methods", "provenance"]
NASTY = "<b>&\"bold\" 'it' {{ 1 }} | \\ é"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """A page's elements in order, its text by section, and its tables by their labels."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.sections: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.section, self.table = "", ""
        self.feed(path.read_text("utf-8"))
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = attributes["id"]
        if "aria-label" in attributes:
            self.table = attributes["aria-label"]
        if tag == "table":
            self.tables[self.table] = []
        if tag == "tr":
            self.tables[self.table].append([])
        if tag in ("td", "th"):
            self.tables[self.table][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.sections[self.section] = self.sections.get(self.section, "") + data
        if {"td", "th"} & set(self.open):
            self.tables[self.table][-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def rows(self, label):
        head, *rows = self.tables[label]
        return [dict(zip(head, row, strict=True)) for row in rows]


def declare(store, rows, name="quick", protocol="digits"):
    written = [
        {"study": name, "protocol_name": protocol, **columns(cell, schedule), "cell": describe(cell)}
        for schedule, cell in rows
    ]
    write(store.root / "studies" / name / "cells.json", json.dumps(written).encode())


def finish(store, cell, accuracy, **provenance):
    kept = 1.0 if isinstance(cell, DenseRun) else cell.density
    curve = [{"step": 100 * n, "test_accuracy": accuracy * n / 4, "train_loss": 1 / n} for n in range(1, 5)]
    numbers = {"density": kept, "macs": int(1000 * kept), "dense_macs": 1000, "history": curve}
    numbers |= {"val_accuracy": None, "test_accuracy": accuracy, "test_loss": 0.1, "max_test_accuracy": accuracy}
    written = {
        "numerics": {"device": "a cpu", "threads": 2, "compile": False},
        "numerics_mixed": False,
        "train_seconds": 36.0,
        "images_per_second": 1000.0,
        "resumed_at": [],
        "git_commit": "abc1234",
        "versions": {"torch": "2.6"},
        "finished_at": "2026-11-23T08:00:00+00:00",
    }
    store.begin(cell)
    store.write_result(cell, numbers, written | provenance)


SEEDS = (0, 1, 2)
ACCURACY = {"fine-tuning": 0.90, "weight-rewinding": 0.93, "lr-rewinding": 0.94, "dense-extra-budget": 0.97}


def retrainings(dense):
    return strategies.fine_tuning(dense), strategies.weight_rewinding(dense, 44), strategies.lr_rewinding(dense)


def grid(seeds=SEEDS, structure="unstructured"):
    """(schedule, cell) of three strategies at two sparsities, one-shot and as a chain."""
    for dense in map(recipes.digits, seeds):
        yield "dense", dense
        for retraining in retrainings(dense):
            for schedule, densities in (
                *(("one-shot", (kept,)) for kept in (0.5, 0.2)),
                *(("iterative", (0.5, 0.25)[:cycles]) for cycles in (1, 2)),
            ):
                cell = Cycle(dense=dense, densities=densities, retraining=retraining, structure=structure)
                yield schedule, cell


def accuracy(schedule, cell):
    if schedule == "dense":
        return 0.97
    return ACCURACY[columns(cell, schedule)["strategy"]] - 0.002 * cell.dense.seed + 0.01 * cell.density


def study(root, rows, name="quick", value=accuracy, protocol="digits", **provenance) -> Store:
    """A storage with a finished study."""
    store, rows = Store(root), list(rows)
    declare(store, rows, name, protocol)
    for schedule, cell in rows:
        if not store.done(cell):
            finish(store, cell, value(schedule, cell), **provenance)
    return store


def remove(store, cell):
    shutil.rmtree(store.run(columns(cell, "one-shot")["key"]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The report of a study in which one cell failed and one is missing, its page, and the study's frame.

    Names and errors hold what HTML would read.
    """
    root = tmp_path_factory.mktemp("whole")
    rows = list(grid())
    store = study(root, rows, NASTY, protocol=NASTY, versions={"torch": NASTY})
    failed, missing = rows[-3][1], rows[-1][1]
    for cell in (failed, missing):
        remove(store, cell)
    store.begin(failed)
    store.write_failure(failed, f"diverged: {NASTY}")
    path = report.write(subject.of_study(root, NASTY), root / "report")
    return path, Page(path), load(root, NASTY)


@pytest.fixture
def undrawn(monkeypatch):
    """Reports of text: figures are tested elsewhere and take seconds."""
    monkeypatch.setattr(report, "_figures", lambda subject: iter(()))


def written(root, name="quick", **options) -> Page:
    return Page(report.write(subject.of_study(root, name, **options), root / "report"))


def test_it_needs_neither_network_nor_script(whole):
    path, page, _ = whole
    assert not {"script", "link", "iframe", "object", "base"} & {name for name, _ in page.elements}
    assert {a["href"] for a in page.all("a")} == {f"#{anchor}" for anchor in ANCHORS}
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in page.all("img"))
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import", path.read_text())


def test_contents_lead_to_the_sections_in_order_verdicts_first(whole):
    _, page, _ = whole
    assert [section["id"] for section in page.all("section")] == ANCHORS
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    assert [name for name, _ in page.elements].index("section") < [name for name, _ in page.elements].index("figure")


def test_every_figure_has_words(whole):
    path, page, _ = whole
    names = [name for name, _ in page.elements]
    assert names.count("img") == names.count("figure") == names.count("figcaption") == 8
    assert all(len(image["alt"]) > 50 for image in page.all("img"))
    assert "lr-rewinding (n = 2–3 of 3)" in page.all("img")[0]["alt"]
    assert "Test accuracy against compression ratio." in page.sections["figures"]
    assert "37 of 39 cells are finished" in page.sections["figures"]
    drawn = [figure["id"].removeprefix("figure-") for figure in page.all("figure")]
    files = {f"{name}.{suffix}" for name in drawn for suffix in ("png", "svg", "pdf")}
    assert {file.name for file in (path.parent / "figures").iterdir()} == files
    svg = base64.b64decode(page.all("img")[0]["src"].split(",")[1])
    assert svg == (path.parent / "figures" / f"{drawn[0]}.svg").read_bytes()


def test_every_claim_has_its_rows_and_verdicts(whole):
    path, page, frame = whole
    verdicts = subject.Subject(title="", frame=frame, shown=frame, margin=0.006).verdicts()
    assert re.findall(r"Claim (\w+)\. ", page.sections["verdicts"]) == ["1", "2", "3a", "3b", "4", "5"]
    main = page.rows("Claim 1, verdicts")
    assert [(row["verdict"], row["scope"], row["n"]) for row in main] == [
        ("undecided", f"digits, resnet8-8, unstructured, {schedule}, {part}", n)
        for schedule, part, n in (
            *(("one-shot", "low", "3"), ("one-shot", "high", "2")),
            *(("iterative", "low", "3"), ("iterative", "high", "2")),
        )
    ]
    parts = page.rows("Claim 1, its parts")
    assert [row["comparison"] for row in parts[:2]] == ["weight-rewinding > fine-tuning", "lr-rewinding > fine-tuning"]
    assert [row["effect, points"] for row in parts[:2]] == ["+3.00", "+4.00"]
    shown = [row for label, rows in page.tables.items() if label.startswith("Claim") for row in rows[1:]]
    assert len(shown) == len(verdicts)
    assert {row[0] for row in shown} == {"undecided", "no data"}
    words = [(a["class"], b) for (tag, a), b in zip(page.elements, page.elements, strict=True) if tag == "span"]
    assert {name for name, _ in words} == {"verdict undecided", "verdict no-data"}
    table = pd.read_csv(path.parent / "tables" / "verdicts.csv", dtype={"claim": str})
    assert table["verdict"].tolist() == verdicts["verdict"].tolist()


def test_what_could_not_be_concluded_is_listed(whole):
    _, page, _ = whole
    lines = page.sections["open"].strip().splitlines()
    assert sum(line.startswith("Claim 1, digits, resnet8-8, unstructured, ") for line in lines) == 4
    assert "Claim 2, all scenarios: undecided, n = " in page.sections["open"]
    assert "more seeds" in page.sections["open"]
    assert "Claim 5, digits, resnet8-8, unstructured, one-shot, low: no data, n = 0." in page.sections["open"]


def test_failures_name_the_error_once(whole):
    """A chain's first cycle that is a one-shot cell too fails as one run."""
    _, page, frame = whole
    (row,) = page.rows("Failed cells")
    assert row["error"] == f"diverged: {NASTY}"
    assert (row["architecture"], row["strategy"], row["sparsity_target"], row["seed"]) == (
        "resnet8-8", "lr-rewinding", "0.8", "2",
    )  # fmt: skip
    assert row["key"] == frame.loc[frame["status"] == "failed", "key"].iloc[0]
    assert page.sections[""].count("39 cells: ") == 1


def test_costs_by_hand(whole):
    """Seeds 0 and 1: each strategy trains three networks, a chain's first cycle is the one-shot cell of 0.5 too."""
    _, page, _ = whole
    rows = {row["what"]: row for row in page.rows("Steps and hours of the finished networks")}
    counted = {"dense": 3, "fine-tuning": 9, "weight-rewinding": 9, "lr-rewinding": 7}
    steps = {"dense": 1200, "fine-tuning": 9 * 400, "weight-rewinding": 9 * 356, "lr-rewinding": 7 * 400}
    alone = {
        "dense": 1200,
        "fine-tuning": 3 * (800 + 800 + 1200),
        "weight-rewinding": 3 * (756 + 756 + 1112),
        "lr-rewinding": 2 * (800 + 800 + 1200) + 800,
    }
    for name in counted:
        assert rows[name]["networks"] == f"{counted[name]}"
        assert rows[name]["steps trained"] == f"{steps[name]:,}"
        assert rows[name]["if each trained its whole past"] == f"{alone[name]:,}"
        assert rows[name]["device hours"] == f"{counted[name] / 100:.2f}"
    trained, separate = sum(steps.values()), sum(alone.values())
    assert rows["together"]["steps trained"] == f"{trained:,}"
    assert f"saved {separate - trained:,} of {separate:,} steps" in page.sections["costs"]


def test_methods_and_provenance(whole):
    _, page, _ = whole
    assert (
        "dense runs of 400 steps of 64 images (Nesterov SGD, learning rate 0.1, dropped at steps 200, 300"
        in (page.sections["methods"])
    )
    assert f"protocol {NASTY}" in page.sections["methods"]
    (row,) = page.rows("Where the finished networks were computed")
    assert row == {
        "device": "a cpu",
        "threads": "2",
        "compile": "False",
        "precision": "fp32",
        "versions": f"torch={NASTY}",
        "git_commit": "abc1234",
        "networks": "28",
        "mixed": "0",
        "first": "2026-11-23T08:00:00+00:00",
        "last": "2026-11-23T08:00:00+00:00",
    }


def test_what_others_named_is_text_not_markup(whole):
    path, page, _ = whole
    assert page.sections[""].count(NASTY) == 2, "in the title and the heading"
    assert "b" not in {name for name, _ in page.elements}
    assert "<b>" not in path.read_text()


def test_tables_are_written_three_ways(whole):
    path, page, frame = whole
    files = sorted((path.parent / "tables").iterdir())
    names = {file.stem for file in files}
    assert {file.name for file in files} == {f"{name}.{suffix}" for name in names for suffix in ("csv", "md", "tex")}
    assert {"accuracy_1", "accuracy_3", "iso_accuracy", "search_cost", "win_tie_loss", "verdicts"} <= names
    assert "verdicts_at_equal_budget" not in names
    found = pd.read_csv(path.parent / "tables" / "accuracy_1.csv")
    expected = aggregate.accuracy(frame)
    found["weights_from"] = found["weights_from"].map("{:.0f}".format, na_action="ignore")  # a step, or "fresh"
    pd.testing.assert_frame_equal(found.astype(expected.dtypes), expected)
    caption = "digits, resnet8-8, unstructured, one-shot: test accuracy, %, by sparsity: median [lowest, highest]"
    rows = page.rows(caption)
    assert rows[0] == {
        "strategy": "fine-tuning",
        "0.5": "90.3 [90.1, 90.5] n=3",
        "0.8": "90.0 [89.8, 90.2] n=3",
    }
    assert "| fine-tuning | 90.3 \\[90.1, 90.5\\] n=3 |" in (path.parent / "tables" / "accuracy_2.md").read_text()
    assert r"fine-tuning & 90.3 [90.1, 90.5] n=3 &" in (path.parent / "tables" / "accuracy_2.tex").read_text()


def test_no_finished_cell_is_refused_and_nothing_written(tmp_path):
    declare(Store(tmp_path), list(grid([0])))
    with pytest.raises(ValueError, match=r"no cell is finished \(13 missing\): nothing to show"):
        report.write(subject.of_study(tmp_path, "quick", look=False), tmp_path / "report")
    with pytest.raises(ValueError, match="no cell is finished"):
        subject.of_study(tmp_path, "quick")
    assert [path.name for path in tmp_path.iterdir()] == ["studies"]
    assert [path.name for path in (tmp_path / "studies" / "quick").iterdir()] == ["cells.json"]


def test_two_protocols_are_refused_by_name_unless_allowed(tmp_path, undrawn):
    longer = dataclasses.replace(recipes.digits(0), steps=420)
    study(tmp_path, [*grid([0]), ("dense", longer)])
    names = [columns(dense, "dense")["protocol"] for dense in (recipes.digits(0), longer)]
    message = rf"trained by 2 protocols: {names[0]} \(digits, 400 steps\); {names[1]} \(digits, 420 steps\)"
    for look in (True, False):
        with pytest.raises(ValueError, match=message):
            report.write(subject.of_study(tmp_path, "quick", look=look), tmp_path / "report")
    assert not (tmp_path / "report").exists()
    assert not (tmp_path / "studies" / "quick" / "looks.json").exists()
    page = written(tmp_path, allow_mixed=True)
    assert page.sections["methods"].count("resnet8-8 on digits") == 2


def test_the_look_stands_with_the_level(tmp_path, undrawn):
    study(tmp_path, STRANGE["one strategy"][:5])
    assert {row["level"] for row in written(tmp_path).rows("Claim 3a, verdicts: dense > lr-rewinding")} == {"0.04"}
    study(tmp_path, STRANGE["one strategy"])
    assert {row["level"] for row in written(tmp_path).rows("Claim 3a, verdicts: dense > lr-rewinding")} == {
        "0.005, look 2"
    }


def cifar(steps):
    """A dense run of the paper's recipe, or a scaled one, and two strategies of its figure 1, one-shot."""
    dense = dataclasses.replace(
        recipes.cifar_resnet("resnet20", 0), steps=steps, drops=(steps // 2, steps * 3 // 4)
    )  # fmt: skip
    yield "dense", dense
    ways = strategies.weight_rewinding(dense, steps // 9), strategies.lr_rewinding(dense)
    for retraining, sparsity in itertools.product(ways, (0.2, 0.893)):
        yield "one-shot", Cycle(dense=dense, densities=(density(sparsity),), retraining=retraining)


PRINTED = {("weight-rewinding", 0.8): 0.92645, ("weight-rewinding", 0.107): 0.90395,
           ("lr-rewinding", 0.8): 0.928, ("lr-rewinding", 0.107): 0.9032}  # fmt: skip


def as_printed(schedule, cell):
    return 0.9246 if schedule == "dense" else PRINTED[columns(cell, schedule)["strategy"], cell.density]


@pytest.mark.parametrize(("steps", "reproduced"), [(72_000, "yes"), (720, "no")])
def test_only_the_papers_protocol_reproduces(tmp_path, undrawn, steps, reproduced):
    study(tmp_path, cifar(steps), value=as_printed)
    page = written(tmp_path)
    assert "a scaled run never is" in page.sections["scorecard"]
    assert "a number chosen after looking at results" in page.sections["scorecard"]
    panel, together = page.rows("Shares of published points that hold, by panel, beside those of two wrong tables")
    assert (panel["panel"], panel["points"], panel["both"]) == ("Mikler 2021, figure 1 left", "4 of 30", "100 %")
    assert panel["reproduced"] == reproduced
    assert ("not comparable: dense_steps 720, theirs 72000" in panel["because"]) == (steps == 720)
    assert (together["panel"], together["reproduced"]) == ("all panels", "")
    points = page.rows("Published points beside ours")
    assert [(point["theirs, %"], point["ours, %"], point["our change"]) for point in points[:2]] == [
        ("92.64", "92.64", "+0.19"),
        ("90.40", "90.40", "−2.06"),
    ]
    assert all(("dense_steps 720" in point["trained otherwise"]) == (steps == 720) for point in points)


def test_without_a_published_point_the_scorecard_says_so(whole):
    assert "No published point has a finished cell here." in whole[1].sections["scorecard"]


@pytest.fixture
def renda2020(tmp_path):
    """The small files with a second budget of fine-tuning: better in validation, worse on the test images."""
    pruned = (DATA / "renda_pruned.csv").read_text()
    other = "resnet20,Unstructured,False,finetune,0.1074,30.0,trial_1,0.80,0.88,\n"
    rewound = "resnet20,Unstructured,False,lottery,0.1074,30.0,trial_1,0.81,0.80,\n"
    (tmp_path / "renda2020_pruned.csv").write_text(pruned + other + rewound)
    shutil.copy(DATA / "renda_dense.csv", tmp_path / "renda2020_dense.csv")
    return tmp_path


def test_the_released_networks(renda2020, undrawn):
    page = Page(report.write(subject.of_renda2020(renda2020), renda2020 / "report"))
    for note in subject.RENDA2020_NOTES:
        assert note in page.sections[""]
    assert "What sharing saved".lower() in page.sections["costs"]
    assert "is not known" in page.sections["costs"]
    assert "not recorded" in page.sections["provenance"]
    rows = page.rows(
        "cifar10, resnet20, unstructured, one-shot: test accuracy, %, by sparsity: median [lowest, highest]"
    )
    assert {"strategy": "fine-tuning", "0.8926": "80.0 [80.0, 80.0] n=1"} in rows
    beside = page.rows("Claim 1, at each equal budget")
    rewound = [row for row in beside if row["comparison"] == "weight-rewinding > fine-tuning"]
    assert {row["setting"]: row["effect, points"] for row in rewound} == {
        "3,907 steps": "+1.00",
        "11,719 steps": "+1.00",
    }
    measured = {row["comparison"]: row for row in page.rows("Claim 1, its parts") if row["n"] == "1"}
    assert measured["weight-rewinding > fine-tuning"]["effect, points"] == "+5.00"
    assert "steps a cycle: 3,907 against 11,719" in measured["weight-rewinding > fine-tuning"]["remarks"]
    assert (renda2020 / "report" / "tables" / "verdicts_at_equal_budget.csv").exists()


def test_figures_of_released_networks(renda2020):
    """Against budget too, and without the published overlay: networks of other protocols stand in the scorecard."""
    names = [name for name, _ in report._figures(subject.of_renda2020(renda2020))]
    assert names == [
        "accuracy_against_compression",
        "weight-rewinding_minus_fine-tuning",
        "lr-rewinding_minus_fine-tuning",
        "lr-rewinding_minus_weight-rewinding",
        "accuracy_against_budget_at_0.893",
        "pareto_front",
        "accuracy_against_speedup",
        "performance_profiles",
    ]


def test_training_curves_are_of_one_seed_and_the_sparsest_cells(whole, tmp_path):
    study(tmp_path, grid())
    chosen = subject.of_study(tmp_path, "quick", look=False).curves()
    assert [name for name, _ in chosen] == [
        *("dense", "fine-tuning at 0.8", "weight-rewinding at 0.8", "lr-rewinding at 0.8"),
    ]
    assert [entries[-1]["test_accuracy"] for _, entries in chosen] == pytest.approx([0.97, 0.902, 0.932, 0.942])
    assert "figure-training_curves" in {figure["id"] for figure in whole[1].all("figure")}


def test_the_same_study_gives_the_same_bytes_but_for_the_time(tmp_path, monkeypatch):
    study(tmp_path, itertools.islice(grid([0]), 3))
    found = []
    for folder in ("first", "second"):
        report.write(subject.of_study(tmp_path, "quick"), tmp_path / folder)
        files = sorted(path for path in (tmp_path / folder).rglob("*") if path.is_file())
        contents = {str(path.relative_to(tmp_path / folder)): path.read_bytes() for path in files}
        contents["index.html"] = re.sub(rb"Written [\d:\- ]{16} UTC", b"", contents["index.html"])
        found.append(contents)
    assert found[0] == found[1]


STRANGE = {
    "a chain only": [pair for pair in grid([0, 1]) if pair[0] != "one-shot"],
    "one strategy": [
        (schedule, cell) for schedule, cell in grid([0, 1]) if schedule == "dense" or cell.retraining.lr_from == 0
    ],
    "one seed": list(grid([0])),
    "dense networks only": [("dense", recipes.digits(seed)) for seed in SEEDS],
    "structured": list(grid([0], structure="structured"))[:4],
    "no dense row": [pair for pair in grid([0]) if pair[0] != "dense"],
    "the control only": [
        (
            "one-shot",
            Cycle(dense=recipes.digits(0), densities=(1.0,), retraining=strategies.lr_rewinding(recipes.digits(0))),
        )
    ],
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_studies_have_a_report(tmp_path, monkeypatch, name):
    """Every figure is made, and none saved; what cannot be drawn is said with the reason."""
    monkeypatch.setattr(plots, "save", lambda figure, path: write(path.with_suffix(".svg"), b"<svg/>"))
    study(tmp_path, STRANGE[name])
    page = written(tmp_path)
    assert len(page.all("figure")) + page.sections["figures"].count("Not drawn: ") >= 4
    assert not re.search(r"\bnan\b|<NA>|\bNone\b(?! )", " ".join(page.sections.values()))


def test_what_sharing_saved_is_not_claimed_without_the_dense_rows(tmp_path, undrawn):
    study(tmp_path, STRANGE["the control only"])
    assert "what sharing saved is not known" in written(tmp_path).sections["costs"]


def test_unknown_speeds_and_hours(tmp_path, undrawn):
    study(tmp_path, STRANGE["structured"], train_seconds=None, git_commit=None, finished_at=None)
    page = written(tmp_path)
    assert {row["device hours"] for row in page.rows("Steps and hours of the finished networks")} == {"not recorded"}
    assert page.rows("Where the finished networks were computed")[0]["git_commit"] == "not recorded"


def overflow(page: Path, width: int, folder: Path) -> int:
    """By how many pixels a page is wider than a window of this width."""
    frame = folder / f"{width}.html"
    frame.write_text(
        f'<iframe id=f src="{page.as_uri()}" style="width:{width}px;height:800px;border:0"></iframe><p id=out></p>'
        "<script>f.onload = () => { const root = f.contentDocument.scrollingElement;"
        "f.contentDocument.querySelectorAll('details').forEach(d => d.open = true);"
        "out.textContent = 'width ' + root.scrollWidth + ' of ' + root.clientWidth }</script>"
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    options = [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=10000", "--dump-dom", frame.as_uri()]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True, timeout=120)
    found = re.search(r"width (\d+) of (\d+)", done.stdout)
    assert found, done.stdout[-500:] + done.stderr[-500:]
    return int(found[1]) - int(found[2])


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is here")
def test_nothing_overflows_in_a_browser(whole, tmp_path):
    path, _, _ = whole
    assert [overflow(path, width, tmp_path) for width in (1280, 390)] == [0, 0]
    wide = tmp_path / "wide.html"
    wide.write_text(path.read_text().replace("overflow-x: auto", "overflow-x: visible"))
    assert overflow(wide, 390, tmp_path) > 0, "the check can fail"
