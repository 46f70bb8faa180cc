"""Personas, later turns and planned rates below the table: a line for each, where there are any."""

from __future__ import annotations

import pytest

from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.load import Closed, Open
from loadbench.plan.pattern import Patterned, parse_pattern
from loadbench.report.formats import render
from loadbench.report.run import bars
from tests.building import MS, S, a_level, a_run, a_sample
from tests.report.golden import all_notes


def mixed(users: int):
    """A level of two personas, of which the second waits ten times as long."""
    return a_level(
        (
            a_sample(n, due_ns=n * S // 2, persona=("chat", "rag")[n % 2], ttft_ns=(1 + 9 * (n % 2)) * users * 100 * MS)
            for n in range(200)
        ),
        load=Closed(users),
    )


def test_each_persona_has_a_line_over_all_levels():
    """With what was answered and what it had to wait, level by level; in text as in Markdown."""
    run = a_run(mixed(1), mixed(2))
    lines = [note for note in all_notes(run) if note.startswith("persona ")]
    assert lines == [
        f"persona {name}: users=1 (100 of 100 ok, TTFT p95 {one}) · users=2 (100 of 100 ok, TTFT p95 {two})"
        for name, one, two in (
            ("chat", "100 ms, E2E p95 300 ms", "200 ms, E2E p95 400 ms"),
            ("rag", "1.00 s, E2E p95 1.20 s", "2.00 s, E2E p95 2.20 s"),
        )
    ]
    assert all(line in render(run, "text") for line in lines)
    assert "persona rag" in render(run, "markdown")


def test_a_persona_of_few_requests_is_marked_as_such():
    """Of thirty requests no 95th percentile is sure, though the level has enough of them."""
    few = a_level(a_sample(n, due_ns=n * S // 2, persona="rag" if n % 10 == 0 else "chat") for n in range(300))
    chat, rag = (note for note in all_notes(a_run(few)) if note.startswith("persona "))
    assert "270 of 270 ok, TTFT p95 100 ms" in chat
    assert "30 of 30 ok, TTFT p95 ~100 ms" in rag
    assert any(note.startswith("~ too few") for note in all_notes(a_run(few)))


def test_one_persona_needs_no_line():
    """It is the whole level, and that is the table's row."""
    alone = a_level(a_sample(n, due_ns=n * S, persona="chat") for n in range(50))
    assert alone.personas["chat"].requests == 50
    assert not [note for note in all_notes(a_run(alone)) if note.startswith("persona ")]


def test_later_turns_tell_what_was_cached():
    """As a share of their tokens, or that the server does not say; levels without any say nothing."""
    told, untold = (
        a_level(a_sample(n, due_ns=n * S, warm=n % 2 == 1, turn=1 + n % 2, cached_tokens=cached) for n in range(50))
        for cached in (40, None)
    )
    title = "requests whose prefix was sent before: users=1"
    assert f"{title} (25, 80 % of their input tokens from the server's cache)" in all_notes(a_run(told))
    assert f"{title} (25, the server does not report cached tokens)" in all_notes(a_run(untold))
    assert "before" not in "".join(note for note in all_notes(a_run()) if note.startswith("requests"))


def test_a_planned_course_is_shown_in_parts():
    """Twenty-four parts of the window, each with its bar: few answers first, many then; a steady rate has none."""
    pattern = Patterned(parse_arrivals("constant"), parse_pattern("0s:1,48s:1,48s:3,96s:3"))
    due_s = [*range(0, 48, 2), *(48 + n * 2 / 3 for n in range(72))]
    planned, steady = (
        a_level([a_sample(n, due_ns=round(at * S)) for n, at in enumerate(due_s)], load=load)
        for load in (Open(1.0, pattern), Open(1.0, parse_arrivals("constant")))
    )
    parts = planned.course
    assert len(parts) == 24
    assert [part.from_s for part in parts[:3]] == [0, 4.1, 8.3]
    assert parts[2].answers_per_s < 0.8
    assert parts[15].answers_per_s > 1.2
    # The last answer comes 0.3 s after its request.
    assert sum(part.answers_per_s for part in parts) * 100 / 24 == pytest.approx(96, rel=0.02)
    assert {part.ttft_mean_s for part in parts if part.ttft_mean_s is not None} == {0.1}
    (line,) = [note for note in all_notes(a_run(planned)) if note.startswith("timeline of rate=1: responses ")]
    assert line.count("█") >= 2
    assert not steady.course
    assert "planned_course" in {reason.code for reason in planned.caveats}
    assert "planned_course" not in {reason.code for reason in steady.caveats}


def test_bars_go_from_nothing_to_the_largest():
    """Nothing is the lowest bar, the largest the highest, nothing at all is flat; what is unknown has no bar."""
    assert bars([0, 1, 2, 4, 8]) == "▁▂▃▅█"
    assert bars([0, 0]) == "▁▁"
    assert bars([None, 0, 4, None]) == "·▁█·"
    assert bars([]) == ""
