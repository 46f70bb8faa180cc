"""The report for a terminal."""

from __future__ import annotations

from itertools import pairwise

import pytest

from loadbench.report.formats import render
from loadbench.report.render_text import PLAIN_WIDTH
from tests.report.golden import HOSTILE, RUNS, golden, hostile


@pytest.mark.parametrize("name", RUNS)
def test_report_is_the_one_that_is_kept(name):
    """What people read is as it was when somebody last looked at it."""
    assert render(RUNS[name](), "text", width=PLAIN_WIDTH) == golden(name, "text")


@pytest.mark.parametrize("name", ["bending", "empty", "hostile"])
def test_simulated_run_says_so_in_its_first_line(name):
    """Nobody shall take a simulated server's figures for a real one's."""
    assert "simulated" in render(RUNS[name](), "text").splitlines()[0]


def test_real_run_does_not_say_simulated():
    """The word stands only where it holds."""
    assert "simulated" not in render(RUNS["models"](), "text")


def test_terminal_is_given_no_orders():
    """Of foreign text only what can be printed is left, on one line each."""
    shown = render(hostile(), "text")
    assert HOSTILE not in shown
    assert all(line.isprintable() for line in shown.split("\n"))
    assert len(shown.splitlines()) == len(shown.split("\n")) - 1


def test_rows_of_a_table_are_equally_wide():
    """Columns stand under each other, whatever is in them."""
    table = render(RUNS["bending"](), "text").split("\n\n")[3].splitlines()
    assert len(table) == 6
    (rule,) = (line for line in table if set(line) == {"-", " "})
    edges = [place for place, pair in enumerate(pairwise(rule)) if pair == ("-", " ")]
    assert len(edges) == 10
    for line in table:
        # The last column is aligned left, and nothing is padded after it.
        assert [line[edge + 1 : edge + 3] for edge in edges] == ["  "] * 10
        assert len(line.rstrip()) <= len(rule)
        assert line[edges[-2] + 3 :].strip()
