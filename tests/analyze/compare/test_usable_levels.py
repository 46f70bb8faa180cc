"""How many runs of a comparison count: what its first lines, its page and its exit code say of it."""

from __future__ import annotations

import msgspec
import pytest

from loadbench.analyze.compare.compare import compare
from loadbench.cli.compare import exit_code
from loadbench.core.errors import ExitCode
from loadbench.plan.gate import parse_gate
from loadbench.report.compare import compare_document, conclusions
from loadbench.report.document import Text
from loadbench.report.pages import comparison_page
from loadbench.report.render_text import render_text
from loadbench.results.run import Reason, Verdict
from tests.analyze.comparing import LUCK, a_side, figures

COLD = Verdict(
    "INVALID",
    [Reason("short_warm_up", "the warm-up of 2s ended early: 3 s", "use --warm-up 7s, and a longer duration")],
)
WARMER = Verdict(
    "INVALID",
    [Reason("short_warm_up", "the warm-up of 2s ended early: 4 s", "use --warm-up 9s, and a longer duration")],
)
FEW = Verdict(
    "INCONCLUSIVE",
    [Reason("too_few_answers", "there are only 6 responses: too few to judge by", "use --duration 20s or longer")],
)


def side(verdicts, *, at=4, tokens=100.0):
    """Six runs at 1 and 4 users; those at `at` have these verdicts, in order."""
    runs = []
    for place, luck in enumerate(LUCK):
        levels = [figures(users, tokens=tokens * luck) for users in (1, 4)]
        verdict = verdicts.get(place)
        runs.append(
            [
                msgspec.structs.replace(level, verdict=verdict) if verdict and level.load.users == at else level
                for level in levels
            ]
        )
    return a_side(*runs)


def test_where_all_pairs_count_that_is_said():
    """In one short sentence."""
    found = compare(side({}), side({}, tokens=200.0), paired=True)
    assert found.counted == "All 6 pairs of runs count."
    assert found.counted in conclusions(found)


def test_pairs_that_do_not_count_have_reason_and_remedy_in_the_first_lines():
    """At which loads, on which side, and the warm-up that is enough for all of them; in the page's conclusion too."""
    a, b = side({}), side({1: COLD, 4: WARMER}, tokens=200.0)
    found = compare(a, b, paired=True)
    assert found.counted == (
        "All 6 pairs of runs count at 1 user; 4 of 6 at 4 users (INVALID on B: the warm-up of 2s ended early): measure "
        "again with --warm-up 9s."
    )
    first = render_text(compare_document(found), width=None).partition("\n\nA: ")[0]
    assert found.counted in first
    texts = [block for block in comparison_page(found, a, b).blocks if isinstance(block, Text)]
    assert any(found.counted in block.lines for block in texts)


def test_levels_that_are_inconclusive_are_counted():
    """They are compared, and their noise is in the intervals: the first lines say so, and what to do."""
    found = compare(side({0: FEW, 2: FEW}), side({}, tokens=200.0), paired=True)
    assert found.counted == (
        "All 6 pairs of runs count. 2 of the 24 levels that count are INCONCLUSIVE, on A (there are only 6 responses), "
        "which makes intervals wider: measure again with --duration 20s or longer."
    )


def test_an_advice_that_another_one_begins_with_is_there_once():
    """Other programs are a reason and a note, whose advice goes on."""
    late = Verdict("INVALID", [Reason("late_reads", "it read late", "end the other programs")])
    busy = Reason("busy_machine", "other programs used 96 %", "end the other programs: `loadbench doctor` shows them")
    level = msgspec.structs.replace(figures(1), verdict=late, caveats=[busy])
    found = compare(a_side(*([figures(1)] for _ in range(3))), a_side([figures(1)], [figures(1)], [level]), paired=True)
    (left,) = (one for one in found.left_out if one.run)
    assert left.message.count("end the other programs") == 1
    assert left.message.endswith("; end the other programs: `loadbench doctor` shows them")


def test_what_the_sentence_says_is_not_told_twice():
    """Of a load that is undecided for its pairs, the sentence has the counts and the remedy."""
    bad = dict.fromkeys(range(5), COLD)
    found = compare(side({}), side(bad, tokens=200.0), paired=True)
    assert "only 1 of 6 pairs of runs counts" in found.summary.sentence
    assert found.counted == "All 6 pairs of runs count at 1 user."


def test_runs_without_pairs_are_counted_by_side():
    """And one run a side needs no count, unless it does not count."""
    found = compare(side({}), side({3: COLD}, tokens=200.0))
    assert found.counted.startswith(
        "6 of 6 runs of A and 6 of 6 of B count at 1 user; 6 of 6 runs of A and 5 of 6 of B at 4 users (INVALID on B: "
    )
    alone = a_side([figures(1), figures(4)])
    assert compare(alone, a_side([figures(1), figures(4)])).counted == ""
    bad = a_side([figures(1), msgspec.structs.replace(figures(4), verdict=COLD)])
    assert compare(alone, bad).counted.startswith("The run of B does not count at 4 users (INVALID on B: ")


@pytest.mark.parametrize(
    ("undecided", "title", "code"),
    [
        (None, "loadbench compare: undecided", ExitCode.INCONCLUSIVE),
        ("pass", "loadbench compare: undecided, counted as passed", ExitCode.OK),
        ("fail", "loadbench compare: undecided, counted as failed", ExitCode.GATE_FAILED),
    ],
)
def test_an_undecided_gate_is_the_first_thing_that_is_said(undecided, title, code):
    """As it is in the exit code; the page has it in a tile."""
    sides = a_side([figures(1)]), a_side([figures(1, tokens=110.0)])
    found = compare(*sides, gates=[parse_gate("output_tokens_per_s<-5%")])
    assert render_text(compare_document(found, undecided=undecided)).splitlines()[0] == title
    assert exit_code(found, undecided=undecided) == code
    (tiles,) = (
        block.items for block in comparison_page(found, *sides, undecided=undecided).blocks if hasattr(block, "items")
    )
    assert ("gates", "undecided") in [tile[:2] for tile in tiles]


def test_a_gate_that_an_invalid_level_left_undecided_says_so():
    """The exit code is that of INVALID, whatever undecided ones count as."""
    bad = a_side([figures(1), msgspec.structs.replace(figures(4), verdict=COLD)])
    found = compare(a_side([figures(1), figures(4)]), bad, gates=[parse_gate("ttft_p95>50%@users=4")])
    assert compare_document(found, undecided="pass").title == "loadbench compare: undecided, since a level is INVALID"
    assert exit_code(found, undecided="pass") == ExitCode.INVALID


def together(level, seconds):
    """The level with this median gap between events."""
    metrics = dict(level.metrics)
    metrics["itl_s"] = msgspec.structs.replace(metrics["itl_s"] or metrics["tpot_s"], p50=seconds)
    return msgspec.structs.replace(level, metrics=metrics)


def test_gaps_of_events_that_came_together_have_no_ratio():
    """Half a microsecond against four milliseconds would be a ratio of 8,000: there is none, no interval, and a gate on
    it is undecided; the other figures are decided without it."""
    a = a_side(*([together(figures(1), 5e-7)] for _ in range(6)))
    b = a_side(*([together(figures(1, tokens=200.0), 4e-3)] for _ in range(6)))
    found = compare(a, b, paired=True, gates=[parse_gate("itl_p50>5%")])
    (row,) = (row for row in found.comparisons if row.metric == "itl_p50")
    assert (row.ratio, row.ends, row.shift, row.p_value, row.decision) == (None, None, None, None, "~")
    assert row.note == "events came together in one read on A, so that this is no time for a token: see TPOT"
    (check,) = found.gates[0].checks
    assert (check.decision, check.ratio, check.note) == ("UNDECIDED", None, row.note)
    text = render_text(compare_document(found), width=None)
    assert f"* {row.note}" in text
    assert found.winner == "b"


def test_a_mark_of_a_row_that_is_not_shown_is_not_explained():
    """Gaps between tokens are in a table where a gate names them, and nowhere else."""
    a = a_side(*([together(figures(1), 5e-7)] for _ in range(6)))
    found = compare(a, a_side(*([figures(1, tokens=200.0)] for _ in range(6))), paired=True)
    assert "came together" not in render_text(compare_document(found))
    assert "\nundecided: " not in render_text(compare_document(found))


def test_of_several_reasons_for_a_mark_each_names_its_figures():
    """Two rows of one reason that differ in a p alone have one line."""
    found = compare(side({}), side({}, tokens=200.0), paired=True)
    notes = (
        "the rank test alone shows no difference: p 0.06",
        "the rank test alone shows no difference: p 0.13",
        "late",
    )
    rows = [msgspec.structs.replace(row, note=note) for row, note in zip(found.comparisons, notes, strict=False)]
    lines = compare_document(msgspec.structs.replace(found, comparisons=rows, overall=[])).blocks[-1].lines
    first, second = (line for line in lines if line.startswith("* "))
    assert first.endswith(": the rank test alone shows no difference: p 0.06 to 0.13")
    assert first.startswith("* tok/s at users=1, ")
    assert second.endswith("at users=1: late")
