"""The plan of a comparison, as people read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadbench.plan.pairs import Pairing, sides
from loadbench.plan.scenario import Scenario
from loadbench.plan.settings import LoadSettings
from loadbench.report.compare_plan import compare_plan_document, repeats_text
from loadbench.report.render_text import render_text

S = 1_000_000_000
A, B = "http://127.0.0.1:1", "url=http://127.0.0.1:2/v1,model=phi"
PLAN = Scenario(load=LoadSettings(users=(1, 4), duration=10 * S, warm_up=4 * S))


def test_plan_names_sides_order_and_time():
    """Both sides, the work, the order at each level, and the time of one repeat and of all."""
    text = render_text(compare_plan_document(sides(PLAN, a=A, b=B), Pairing(repeats=4), verbose=True))
    assert "A         http://127.0.0.1:1, the model that the server lists\n" in text
    assert "B         http://127.0.0.1:2/v1, model phi\n" in text
    assert "responses of at most 64 tokens, the same on both sides" in text
    rows = [line.split()[-4:] for line in text.splitlines() if " users=" in line]
    assert rows in (
        [["AB", "BA", "BA", "AB"], ["BA", "AB", "AB", "BA"]],
        [["BA", "AB", "AB", "BA"], ["AB", "BA", "BA", "AB"]],
    )
    time = "1s of rest before each: 1m a repeat, 4m in all, and the drain of each, at most 30s"
    assert time in " ".join(text.split())
    assert "4 measurements a repeat (each level once on each side), " in text
    assert "load.users" in text
    assert "\nonly B has target.url http://127.0.0.1:2/v1, target.model phi\n" in text


def test_a_budget_for_few_repeats_is_warned_of():
    """The time of as many as decide is named; with enough of it there is no warning."""
    for minutes, warned in ((2, True), (7, False)):
        pairing = Pairing(repeats=None, budget_ns=minutes * 60 * S)
        text = render_text(compare_plan_document(sides(PLAN, a=A, b=B), pairing))
        assert ("is too short: 6 repeats, which decide, take 6m; give more time" in text) == warned


def test_simulated_sides_are_named_by_their_profiles():
    """Where there is no server, the plan says what is measured instead."""
    text = render_text(compare_plan_document(sides(PLAN, a="profile=slot-server", b="profile=small-gpu"), Pairing()))
    assert "A         the simulated server slot-server\n" in text
    assert "B         the simulated server small-gpu\n" in text


def test_repeats_say_what_they_can_decide():
    """Six are enough; fewer are said to be few, also where it is the budget that allows no more."""
    assert repeats_text(PLAN, Pairing()) == "8"
    least = "3 repeats most likely show a difference of 11 % or more, if runs differ by 2 %"
    three = f"3; {least}: use 6 or more to show smaller ones"
    assert repeats_text(PLAN, Pairing(repeats=3)) == three
    assert repeats_text(PLAN, Pairing(repeats=1)).startswith(
        "1; one repeat shows no spread, and only a large difference"
    )
    assert repeats_text(PLAN, Pairing(budget_ns=600 * S)) == "as many as fit into 10m, at most 20: about 10"
    assert repeats_text(PLAN, Pairing(budget_ns=150 * S)).endswith("use 6 or more to show smaller ones")


def test_time_is_not_guessed_for_levels_by_number():
    """How long so many requests take, nobody knows before."""
    counted = Scenario(load=LoadSettings(users=(1,), duration=None, requests=20))
    text = render_text(compare_plan_document(sides(counted, a=A, b=B), Pairing(budget_ns=600 * S)))
    assert "(each level once on each side), 1s of rest before each; the time is that of the requests" in text
    assert "as many as fit into 10m, at most 20\n" in text


def test_repeats_until_the_ratio_is_known():
    """From as many as the first look needs to the most, as the bounds have it."""
    assert repeats_text(PLAN, Pairing(until=0.03, repeats=40)) == (
        "until the ratio is known to ±3 % at every level, from 8 to 40"
    )
    assert repeats_text(PLAN, Pairing(until=0.03, budget_ns=600 * S)) == (
        "until the ratio is known to ±3 % at every level, from 8 to 100, and as many as fit into 10m: about 10"
    )


@pytest.mark.parametrize(("complete", "left"), [(3, "1 repeat"), (4, "nothing: all is there"), (0, "4 repeats")])
def test_plan_of_a_resumed_comparison_has_what_is_left(complete, left):
    """What it resumes, how many repeats are there, and the time of the others."""
    both, resume = sides(PLAN, a=A, b=B), Path("results/x")
    text = render_text(compare_plan_document(both, Pairing(repeats=4), resume=resume, complete=complete))
    assert "resumes        results/x\n" in text
    assert f"left           {left}\n" in text
    assert ("1m a repeat" in text) == (complete < 4)
    assert (f"{4 - complete}m in all" in text) == (complete < 4)
    assert ("nothing whole" in text) == (complete == 0)
