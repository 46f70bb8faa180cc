"""Two searches against each other: the ratio that is known, what one user costs, and the sentence."""

from __future__ import annotations

import msgspec
import pytest

from loadbench.analyze.capacity.compare_sides import compare_searches, searched_side
from loadbench.plan.search import Purpose
from loadbench.report.compare_capacity import capacity_comparison_document
from loadbench.report.render_text import render_text
from loadbench.results.capacity import Capacity, CapacityAnswer, ProbeResult
from loadbench.results.run import ClosedLoad
from loadbench.results.telemetry import Cost
from tests.analyze.comparing import figures
from tests.building import a_run

S_PER_MONTH = 365.25 * 24 * 3600 / 12


def search(amount, low, high, *, status="found", probes=(), **over):
    """A likely answer with this range; probes are at these users, each the level of its place."""
    answer = CapacityAnswer(
        users=amount, low=None, high=None, likely_low=low, likely_high=high, strength="likely", confidence=0.95
    )
    made = [
        ProbeResult(
            users=users,
            decision="UNDECIDED",
            attainment={},
            requests=9,
            purpose=Purpose.REFINE,
            level=level,
            at=level,
            leaning=0.0,
            window_s=9.0,
        )
        for level, users in enumerate(probes)
    ]
    fields = {"objectives": ["ttft_p95<1s"], "model": "m", "budget_s": 60.0, "complete": True, "probes": made}
    return Capacity(status=status, answer=answer, **{**fields, **over})


def sides(a, b, currency=None):
    return compare_searches(searched_side("a", a, None), searched_side("b", b, None), currency=currency, complete=True)


def test_the_ratio_lies_between_the_quotients_of_the_ends():
    """21 to 28 against 63 to 80: from 63/28 to 80/21, with 90 % if each has 95 %."""
    found = sides(search(24, 21, 28), search(70, 63, 80))
    assert found.interval == pytest.approx((63 / 28, 80 / 21))
    assert found.ratio == pytest.approx(70 / 24)
    assert found.confidence == pytest.approx(0.9)
    assert (found.a.plan, found.b.plan, found.decision) == (21, 63, "more")
    assert found.conclusion == (
        "Plan with at most 21 users on A and 63 on B; B serves 2.25 to 3.81 times as many (at least 90 % confidence)."
    )


def test_ranges_that_overlap_show_no_difference():
    """A may serve more, and so may B."""
    found = sides(search(24, 21, 28), search(27, 24, 30))
    assert found.decision == "~"
    assert "no difference is shown: B may serve 0.857 to 1.43 times as many" in found.conclusion


def test_a_side_whose_limit_was_not_reached_has_an_open_end():
    """B serves 200 and maybe more: at least 200/28 times as many."""
    found = sides(search(24, 21, 28), search(200, 200, None, status="at_least"))
    assert found.interval == (pytest.approx(200 / 28), None)
    assert (found.decision, found.b.range) == ("more", (200, None))
    assert found.conclusion == (
        "Plan with at most 21 users on A and 200 on B; the limit of B was not reached, which a higher --at-most finds; "
        "B serves at least 7.14 times as many (at least 90 % confidence)."
    )


def test_a_limit_that_was_not_reached_is_no_estimate():
    """The report has the ratio as a lower bound alone."""
    bound = sides(search(24, 21, 28), search(200, 200, None, status="at_least"))
    text = render_text(capacity_comparison_document(bound))
    assert "B/A: 7.14 or more, with at least 90 %; there is no best estimate: the limit of B was not reached" in text
    assert "by the best estimates" not in text
    both = render_text(capacity_comparison_document(sides(search(24, 21, 28), search(70, 63, 80))))
    assert "B/A: 2.92 by the best estimates; 2.25 to 3.81, with at least 90 %" in both


def test_a_side_that_no_load_is_light_enough_for_has_no_ratio():
    """A serves nobody under the objectives."""
    none = msgspec.structs.replace(search(1, 1, 1), status="none", answer=None)
    found = sides(none, search(24, 21, 28))
    assert (found.a.plan, found.ratio, found.decision) == (0, None, "more")
    assert found.conclusion == "Plan with at most 21 users on B; no load meets the objectives on A."


def test_a_search_without_an_answer_leaves_its_side_unknown():
    """The time was too short; the estimate is no plan."""
    found = sides(search(3, None, 8, status="inconclusive"), search(24, 21, 28))
    assert found.a.plan is None
    assert (found.ratio, found.confidence, found.decision) == (None, None, "~")
    assert (
        "how many users A can serve is not known: its search gave no answer, only an estimate of 3" in found.conclusion
    )


def test_an_end_that_is_proven_decides_without_an_answer():
    """B is proven to serve 9 at most, and A 13 or more: fewer, by how much is open."""
    proven = search(5, 3, 6, status="inconclusive")
    proven = msgspec.structs.replace(proven, answer=msgspec.structs.replace(proven.answer, high=9))
    found = sides(search(16, 13, 19), proven)
    assert found.interval == (None, pytest.approx(9 / 13))
    assert found.decision == "fewer"
    assert found.conclusion.endswith("; B serves at most 0.692 times as many (at least 90 % confidence).")


def test_a_side_that_could_not_be_searched_says_why():
    """Its server was gone."""
    a, b = searched_side("a", search(24, 21, 28), None), searched_side("b", None, None, "B: no server")
    found = compare_searches(a, b, currency=None, complete=False)
    assert "how many users B can serve is not known: B: no server" in found.conclusion


def test_each_side_says_which_workers_made_its_load():
    """Where it was not one process: the ratio is also that of who made it."""
    made = msgspec.structs.replace(
        a_run(figures(5)), environment={"host": "h", "workers": 3, "cluster": {"address": "local:3", "nodes": 3}}
    )
    a, b = searched_side("a", search(24, 21, 28), a_run(figures(5))), searched_side("b", search(8, 7, 9), made)
    assert (a.load_from, b.load_from[:9]) == ("", "3 workers")
    text = render_text(capacity_comparison_document(compare_searches(a, b, currency=None, complete=True)), width=300)
    assert text.count("load from") == 1
    assert "load from 3 workers on 3 nodes of the Ray cluster local:3" in text


def test_a_user_costs_the_machine_by_the_users_it_is_planned_for():
    """5 EUR per million tokens at 200 tokens/s, of the probe at 20 users, the nearest to 21."""
    levels = [
        msgspec.structs.replace(
            figures(users, tokens=tokens), cost=Cost(per_million_output_tokens=money, currency="EUR")
        )
        for users, tokens, money in ((5, 90.0, 9.0), (20, 200.0, 5.0), (80, 300.0, 4.0))
    ]
    side = searched_side("a", search(24, 21, 28, probes=(5, 20, 80)), a_run(*levels))
    assert side.cost_per_unit_month == pytest.approx(200.0 * 5e-6 * S_PER_MONTH / 21)
    assert levels[1].load == ClosedLoad(20)
    found = compare_searches(side, searched_side("b", None, None), currency="EUR", complete=False)
    assert found.conclusion.endswith("a user costs 125 on A (EUR a month, if the machine is always on).")
