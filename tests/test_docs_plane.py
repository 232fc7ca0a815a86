"""The drawing of the rewind plane has every strategy on it."""

import runpy
from pathlib import Path

from analysis.plots import LOOKS

SCRIPT = Path(__file__).parents[1] / "docs" / "plane.py"
ELSEWHERE = {"dense-extra-budget", "weight-rewinding-to-init"}
"""At the points of lr-rewinding and weight-rewinding."""


def test_every_strategy_is_drawn():
    script = runpy.run_path(str(SCRIPT))
    assert {point[0] for point in script["POINTS"]} | {*script["BESIDE"]} == {*LOOKS} - ELSEWHERE
    figure = script["draw"]()
    assert {text.get_text() for text in figure.axes[0].texts} >= {"SLR", "CLR", "LLR", "ALLR", "fine-tuning"}


def test_the_docs_name_every_strategy_and_mask():
    said = (SCRIPT.parent / "strategies.md").read_text(encoding="utf-8")
    for name in {*LOOKS} - {"weight-rewinding-to-init"}:
        assert f"`{name}`" in said
    for mask in ("magnitude", "random", "random-in-layers", "magnitude-in-layers", "erk"):
        assert f"| `{mask}` |" in said
