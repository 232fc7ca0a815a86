"""A launch that can't go on."""

from types import SimpleNamespace

import pytest

from sweeps.launch import BrokenEnvironment
from sweeps.searcher import Stop
from trainable import claims
from trainable.config import key


@pytest.fixture
def dies(tmp_path, empty, tiny):
    """Lets a trial of a launch die, by what it has left, and tells whether the launch gave up."""
    (tmp_path / "error").write_text("ImportError: no torch here\n")
    trial = SimpleNamespace(config={"key": key(tiny)}, error_file=str(tmp_path / "error"))
    stop, lost = Stop(), []
    broken = BrokenEnvironment(empty, "ours", stop, lambda: bool(lost))

    def once(*, error: bool = False, with_machine: bool = False) -> str:
        lost[:] = [None] * with_machine
        (broken.on_trial_error if error else broken.on_trial_recover)(0, [], trial)
        return stop.reason

    once.works = lambda: broken.on_trial_result(0, [], trial, {})
    return once


def test_three_deaths_before_the_beginning(dies):
    assert dies() == dies(error=True) == ""
    assert dies() == ("trials die before they begin, three in a row; the last one's words:\nImportError: no torch here")


def test_deaths_with_a_machine_do_not_count(dies):
    """All trials of a machine that is taken back while they start."""
    assert {dies(with_machine=True) for _ in range(16)} == {""}
    assert dies() == dies() == ""
    assert dies() != ""


def test_deaths_between_results_are_not_in_a_row(dies):
    for _ in range(3):
        assert dies() == dies() == ""
        dies.works()


def test_deaths_after_the_beginning_are_the_cells(dies, empty, tiny):
    claims.take(empty.begin(tiny), "ours", 0)
    assert {dies() for _ in range(9)} == {""}
    claims.release(empty.run(key(tiny)), "ours")
    claims.take(empty.begin(tiny), "theirs", 0)
    assert [bool(dies()) for _ in range(3)] == [False, False, True]
