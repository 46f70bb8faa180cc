"""How a comparison is shown of which one pair alone counts: narrow tables, what marks mean, the counts."""

from __future__ import annotations

from loadbench.analyze.compare.compare import compare
from loadbench.report.compare import compare_document
from loadbench.report.document import Tiles
from loadbench.report.line import comparison_line
from loadbench.report.pages import comparison_page
from loadbench.report.render_text import render_text
from loadbench.results.run import Reason, Verdict
from tests.analyze.comparing import a_side, figures

BAD = Verdict("INVALID", [Reason("late", "others kept it waiting: 9 ms", "end the other programs")])
A = a_side(*([figures(1, tokens=10.0)] for _ in range(3)), name="a")
B = a_side([figures(1, tokens=67.0)], *([figures(1, tokens=67.0, verdict=BAD)] for _ in range(2)), name="b")
FOUND = compare(A, B, paired=True)


def test_a_narrow_table_has_both_sides_before_an_empty_interval():
    """60 columns."""
    text = render_text(compare_document(FOUND), width=60)
    heads = [line.split() for line in text.splitlines() if " figure " in line]
    assert heads
    assert all({"A", "B"} <= set(head) for head in heads)
    assert "intervals are from" not in text


def test_marks_repeats_and_two_rates_are_explained():
    """*undecided*, the number of a repeat that is not compared, and tok/s that changes more than req/s."""
    text = render_text(compare_document(FOUND), width=200)
    assert "\nundecided: there is no interval, or it includes 1 and reaches 0.5 or 2, or * says why\n" in text
    assert (
        "\nnot compared: repeat 2 of users=1, repeat 3 of users=1: B: INVALID: others kept it waiting: 9 ms (late); "
        in text
    )
    assert "so that with few responses the two differ (users=1: 6.70x and 1.000x)" in text


def test_a_line_and_a_page_say_that_it_is_undecided():
    """The page counts what is decided, and the pairs."""
    line = comparison_line(FOUND)
    assert line.startswith(
        "A (m), B (m): Undecided at 1 user: B measured 6.7 times A's tokens/s, but only 1 of 3 pairs"
    )
    tiles = {
        name: (value, of)
        for block in comparison_page(FOUND, A, B).blocks
        if isinstance(block, Tiles)
        for name, value, of in block.items
    }
    assert tiles["pairs that count"] == ("1", "of 3 at each load that is compared")
    assert tiles["differences shown"][0] == "0"
