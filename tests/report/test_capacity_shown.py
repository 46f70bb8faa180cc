"""What the report of a capacity search says of probes that a sweep would call INVALID or INCONCLUSIVE."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from loadbench.analyze.level.rebuild import run_in
from loadbench.report.capacity import capacity_document
from loadbench.report.page import run_blocks
from loadbench.report.render_text import render_text
from loadbench.report.run import run_document
from loadbench.results.capacity import read_capacity
from loadbench.results.run import FailureCount, Reason, Verdict

FOLDER = next((Path(__file__).parents[2] / "results").glob("*-capacity-*"))


def with_reasons(places, *codes):
    """The saved search, and its levels of which those at these places have these reasons and the others none."""
    capacity, run = read_capacity(FOLDER), run_in(FOLDER)
    invalid = Verdict("INVALID", [Reason(code, f"because of {code}", f"against {code}") for code in codes])
    levels = [
        msgspec.structs.replace(level, verdict=invalid if place in places else Verdict("VALID"))
        for place, level in enumerate(run.levels)
    ]
    return capacity, msgspec.structs.replace(run, levels=levels)


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        (("late_reads",), "loadbench was late in 1 of {all} probes, by too little to change a result"),
        (("cached_prompts",), "Something else is wrong with the measurement at {label}"),
        (("too_few_answers", "short_warm_up"), None),
    ],
)
def test_the_answer_says_whether_its_probes_can_be_believed(codes, said):
    """Late ones count where that changed nothing; short ones always; others may change the answer."""
    capacity = read_capacity(FOLDER)
    probe = capacity.probes[0]
    capacity, run = with_reasons({probe.level}, *codes)
    plain, text = render_text(capacity_document(capacity)), render_text(capacity_document(capacity, run.levels))
    if said is None:
        assert text == plain
    else:
        assert said.format(all=len(capacity.probes), label=probe.label) in " ".join(text.split())


def test_the_answer_names_what_did_not_count():
    """A level that is neither a probe nor a step of the curve, because the load generator was too slow."""
    capacity, run = with_reasons({read_capacity(FOLDER).probes[-1].level}, "late_start")
    fewer = msgspec.structs.replace(capacity, probes=capacity.probes[:-1])
    text = render_text(capacity_document(fewer, run.levels))
    assert f"Not counted, because loadbench was too slow: {capacity.probes[-1].label}." in text


def test_the_levels_of_a_search_have_no_verdict():
    """They are short on purpose, so advice to measure longer is no use; what the objectives cannot settle is shown."""
    _, run = with_reasons({0}, "too_few_answers", "late_reads", "cached_prompts")
    text, page = render_text(run_document(run)), str(run_blocks(run, None))
    for shown in (text, page):
        assert "against too_few_answers" not in shown
        assert "against late_reads" not in shown
        assert "against cached_prompts" in shown
    assert "INVALID" not in text
    assert "INVALID" in render_text(run_document(msgspec.structs.replace(run, scenario={})))


def test_requests_that_the_search_ended_are_no_failures():
    """They are counted in a note; in a sweep they stay where they were."""
    _, run = with_reasons(set())
    cut = FailureCount(outcome="cancelled", detail="cut before its end", count=3)
    first = msgspec.structs.replace(run.levels[0], failures=[cut], outcomes={"ok": 9, "cancelled": 3})
    others = [msgspec.structs.replace(level, failures=[], outcomes={"ok": 9}) for level in run.levels[1:]]
    run = msgspec.structs.replace(run, levels=[first, *others])
    text = render_text(run_document(run))
    assert "cut before its end" not in text
    assert "3 requests ended by the search once it knew enough; this is no failure" in text
    assert "cut before its end" not in str(run_blocks(run, None))
    assert "cut before its end" in render_text(run_document(msgspec.structs.replace(run, scenario={})))
