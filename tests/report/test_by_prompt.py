"""The tables of each prompt's figures."""

from __future__ import annotations

import msgspec

from loadbench.analyze.level.by_prompt import by_prompt
from loadbench.report.by_prompt import by_prompt_document
from loadbench.report.render_text import render_text
from tests.analyze.asked import a_request
from tests.building import a_run


def test_outliers_are_named_and_not_without_end():
    """Each with its prompt, level and request; of many the first, and how many more there are."""
    quiet = [a_request(n, e2e_s=1 + n % 7 / 1000) for n in range(200)]
    few = render_text(by_prompt_document(a_run(), by_prompt([*quiet, a_request(200, e2e_s=9.0)])))
    assert "request 200, E2E 9.00 s" in few
    loud = [a_request(n, e2e_s=9.0) for n in range(200, 250)]
    lines = render_text(by_prompt_document(a_run(), by_prompt([*quiet, *loud]))).splitlines()
    assert sum("E2E 9.00 s" in line for line in lines) == 20
    assert any("and 30 more" in line for line in lines)


def test_a_level_that_decides_nothing_is_marked():
    """In the title of its table: its figures look like those of any other."""
    run, figures = a_run(), by_prompt([a_request(n) for n in range(3)])
    for status, shown in (("INVALID", True), ("INCONCLUSIVE", True), ("VALID", False)):
        verdict = msgspec.structs.replace(run.levels[0].verdict, status=status)
        levels = [msgspec.structs.replace(run.levels[0], verdict=verdict)]
        text = render_text(by_prompt_document(msgspec.structs.replace(run, levels=levels), figures))
        assert (f", {status}\n" in text) == shown


def test_a_run_of_made_prompts_says_so():
    """Nothing to show is no empty table."""
    assert "no given prompt was sent" in render_text(by_prompt_document(a_run(), []))
