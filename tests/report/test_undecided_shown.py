"""How a comparison is shown of which one pair alone counts: narrow tables, what marks mean, the counts."""

from __future__ import annotations

import msgspec

from loadbench.analyze.compare.compare import compare
from loadbench.report.compare import compare_document
from loadbench.report.compare_chart import comparison_charts
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


def test_no_tile_shows_an_undecided_ratio():
    """The mean over the loads is undecided with one pair: the highest load that is decided, and which are not."""
    both = [[figures(1, tokens=10.0), figures(4, tokens=20.0 + place)] for place in range(3)]
    a = a_side(*both, name="a")
    bad = msgspec.structs.replace(figures(1, tokens=60.0), verdict=BAD)
    b = a_side(
        [figures(1, tokens=60.0), figures(4, tokens=200.0)],
        *([bad, figures(4, tokens=200.0 + place)] for place in (9, 21)),
        name="b",
    )
    found = compare(a, b, paired=True)

    def tile(comparison):
        (items,) = (block.items for block in comparison_page(comparison, a, b).blocks if isinstance(block, Tiles))
        return next((value, note) for name, value, note in items if name == "output tokens/s, B/A")

    value, note = tile(found)
    assert value == "10.0x"
    assert note.endswith(", at users=4; undecided at users=1")
    assert tile(FOUND) == ("undecided", "the tables have what was measured")
    assert "at 4 users (the highest load that is compared): " in found.summary.sentence


def test_one_reason_for_one_pair_that_counts():
    """At a load and over all of them: one line."""
    a = a_side(*([figures(1, tokens=10.0), figures(4, tokens=20.0)] for _ in range(3)), name="a")
    bad = [msgspec.structs.replace(figures(users), verdict=BAD) for users in (1, 4)]
    b = a_side([figures(1, tokens=60.0), figures(4, tokens=200.0)], bad, bad, name="b")
    lines = compare_document(compare(a, b, paired=True)).blocks[-1].lines
    assert [line for line in lines if line.startswith("* ")] == [
        "* only 1 of 3 pairs of runs counts, and one shows no spread"
    ]


def test_a_level_that_is_not_compared_has_the_busy_machine_of_the_sentence():
    """The sentence names what causes the other reasons: it stands with them, as a note."""
    busy = Reason("busy_machine", "other programs used 97 %", "end the other programs")
    b = [
        msgspec.structs.replace(run, levels=[msgspec.structs.replace(level, caveats=[busy]) for level in run.levels])
        for run in B
    ]
    found = compare(A, b, paired=True)
    assert "other programs used 97 %" in found.summary.sentence
    assert all(
        left.message.endswith(
            "(late); at the same time other programs used 97 % (busy_machine, a note); end the other programs"
        )
        for left in found.left_out
        if left.code == "invalid"
    )


def test_captions_speak_of_bands_that_are_there():
    """Of all charts of both sides, and of none without intervals."""
    several = compare(
        a_side(*([figures(1, tokens=10.0 + place), figures(4, tokens=20.0)] for place in range(3)), name="a"),
        a_side(*([figures(1, tokens=60.0), figures(4, tokens=90.0)] for place in range(3)), name="b"),
        paired=True,
    )
    for comparison in (several, FOUND):
        for chart in comparison_charts(comparison):
            drawn = any(line.band for line in chart.series)
            assert ("band" in chart.note.lower()) == drawn
