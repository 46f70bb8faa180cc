"""The capacity search in virtual time: against servers whose capacity is known, within its budget, taken up again."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest

from loadbench.core.errors import BadInput
from loadbench.core.virtual import VirtualClock
from loadbench.engine.capacity import EarlierSearch
from loadbench.plan.objective import parse_abort
from loadbench.plan.search import Finding, Probe, Purpose, Standing
from tests.coverage.capacity import CASES, a_scenario, holds, least_held, searched
from tests.coverage.servers import S, Slots, queue_miss, slot_miss
from tests.engine.scripted import Act, Scripted

SLOTS, SHARING = CASES[0], CASES[2]


@pytest.mark.slow
@pytest.mark.parametrize("case", [SLOTS, SHARING], ids=lambda case: case.name)
def test_the_range_holds_the_truth(case):
    """Of twelve searches as many ranges hold the true capacity as 95 % must, but for one time in a thousand."""
    truth, seeds = case.truth(), 12
    found = [searched(case.scenario(seed), partial(case.server, seed=seed + 1)) for seed in range(seeds)]
    assert sum(holds(one, truth) for one in found) >= least_held(seeds)
    assert sum(one.answer is not None and one.answer.strength != "estimate" for one in found) >= 10
    assert max(one.spent_s for one in found) <= case.budget_s + 40  # and a drain


def test_formulas_of_the_truth_agree_where_they_must():
    """With ever more users who think ever longer, M/M/c//N becomes M/M/c; one user never waits."""
    rate, users = 1.5, 3000
    many = slot_miss(users, slots=4, work_s=2.0, think_s=users / rate - 2.2, bound_s=1.0)
    assert many == pytest.approx(queue_miss(rate, slots=4, work_s=2.0, bound_s=1.0), rel=0.02)
    assert slot_miss(1, slots=1, work_s=2.0, think_s=1.0, bound_s=0.0) == 0


def test_slow_answers_end_within_the_budget():
    """Answers of 40 s, below one a minute each: a search of 10 minutes ends, and not much later (I3)."""
    found = searched(a_scenario("ttft_p50<5s", budget=600 * S), partial(Slots, 2, 40.0, seed=1))
    assert found.spent_s <= 600 + 31
    assert found.requests > 0


def test_a_ladder_that_the_budget_does_not_carry_is_left_out():
    """With answers of 40 s and 10 minutes in all no rung has time: none is measured, and the search is as without."""
    scenario = a_scenario("ttft_p50<5s", think_s=5.0, budget=600 * S, curve=True)
    assert scenario.measures_curve
    found = searched(scenario, partial(Slots, 2, 40.0, seed=1))  # whose judge refuses rungs
    assert found.spent_s <= 600 + 31


@pytest.mark.slow
def test_rates_below_one_a_second():
    """A server of one slot and 30 s of work has a capacity of hundredths a second, and the ranges hold it (I2).

    Of six ranges that hold with 95 % fewer than four do once in 400 times; each end that is proven is right.
    """
    truth_rule = partial(queue_miss, slots=1, work_s=30.0, bound_s=60.0)
    held = 0
    for seed in range(3, 9):
        scenario = a_scenario("ttft_p50<60s", by="rate", budget=4 * 3600 * S, seed=seed)
        found = searched(scenario, partial(Slots, 1, 30.0, seed=seed))
        answer = found.answer
        assert answer is not None
        assert answer.low is None or truth_rule(answer.low) <= 0.5
        assert answer.high is None or truth_rule(answer.high) >= 0.5
        assert answer.likely_low is not None
        assert answer.likely_high is not None
        held += truth_rule(answer.likely_low) <= 0.5 <= truth_rule(answer.likely_high)
        assert found.spent_s <= 4 * 3600 + 31
    assert held >= 4


def test_hopeless_rates_fail_soon():
    """Far above capacity, where requests pile up, a probe ends long before its time."""
    scenario = a_scenario("ttft_p95<1s", by="rate", budget=600 * S, at_most=50.0)
    found = searched(scenario, partial(Slots, 4, 0.4, seed=3))
    failed = [one for one in found.evidence.probes if one.amount > 10.5]
    assert failed
    assert all(one.decision == "FAIL" or one.leaning < 0 for one in failed)
    assert max(one.window_s for one in failed) < 60


def test_a_short_search_by_rate_claims_no_more_than_the_server_completes():
    """Eight slots of 0.65 s complete 12.3 requests per second. No estimate exceeds this by more than chance does, and a
    likely answer is verified by as many independent requests as could have contradicted it."""
    for seed in range(6):
        scenario = a_scenario("ttft_p90<1s", by="rate", budget=45 * S, at_most=200.0, seed=seed)
        found = searched(scenario, partial(Slots, 8, 0.65, fixed=True, seed=seed + 1))
        assert found.answer.rate_per_s <= 12.3 * 1.1
        if found.answer.strength == "likely":
            effective = [
                one.attainment["ttft_p90<1s"].effective
                for one in found.evidence.probes
                if one.purpose is Purpose.VERIFY
            ]
            assert sum(effective) >= 6


def test_a_server_that_stops_responding_keeps_no_search_for_long():
    """From the twentieth request on none ends: the search waits for the last ones three warm-ups of 2 s, not 30 s."""
    sent = itertools.count()
    server = Scripted(VirtualClock(), lambda _: Act(first_ns=S // 5 if next(sent) < 20 else 1000 * S))
    found = searched(a_scenario("ttft_p95<1s", budget=60 * S), lambda: server)
    assert found.spent_s <= 60 + 6.5


def test_not_even_one():
    """Where the only user waits too long, one user surely fails, and there is no answer."""
    found = searched(a_scenario("e2e_p95<1s", budget=600 * S), lambda: _steady(2 * S))
    assert found.search.failed == 1
    assert found.answer is None


def test_at_least_as_many_as_the_cap():
    """A server that nobody waits for passes at the cap itself."""
    found = searched(a_scenario("e2e_p95<1s", budget=600 * S, at_most=12.0), lambda: _steady(S // 5))
    assert found.search.passed == 12
    assert (found.answer.users, found.answer.low, found.answer.high) == (12, 12, None)


def _steady(first_ns: int):
    return Scripted(VirtualClock(), lambda _: Act(first_ns=first_ns))


@pytest.mark.slow
def test_probes_differ_and_the_low_end_is_verified():
    """The low end of the likely range is measured last, and a run is the same when repeated."""
    one, two = (searched(SLOTS.scenario(3), partial(SLOTS.server, seed=4)) for _ in range(2))
    assert [probe.amount for probe in one.evidence.probes] == [probe.amount for probe in two.evidence.probes]
    last = one.evidence.probes[-1]
    assert last.purpose is Purpose.VERIFY
    assert one.answer.strength == "likely"
    assert last.amount <= one.answer.likely_low * 1.1
    assert one.answer.likely_low <= one.answer.users <= one.answer.likely_high


@pytest.mark.slow
def test_proof_goes_on_until_both_ends_are_proven():
    """Where it is required, the search goes on after a likely answer; both ends hold the truth."""
    case = CASES[1]
    found = searched(case.scenario(2, require="proven", budget=900 * S), partial(case.server, seed=3))
    assert found.answer.strength == "proven"
    assert found.answer.low <= case.truth() <= found.answer.high
    tests = [probe.decision for probe in found.evidence.probes if probe.purpose is Purpose.TEST]
    assert {"PASS", "FAIL"} <= set(tests)


def test_a_search_goes_on_where_it_was():
    """Told what was found before, it measures nothing of that anew, and counts the time that was spent."""
    known = Standing(None, None, 8, 8, 8)
    told = (
        (Probe(8, Purpose.REFINE), Finding("UNDECIDED", 9.0, known)),
        (Probe(9, Purpose.REFINE), Finding("UNDECIDED", -9.0, known)),
    )
    found = searched(
        a_scenario("ttft_p95<100ms", budget=600 * S),
        partial(Slots, 8, 0.2, seed=3, fixed=True),
        earlier=EarlierSearch(findings=told, spent_ns=500 * S, levels=2),
    )
    assert found.evidence.probes[0].purpose is Purpose.VERIFY
    assert found.evidence.probes[0].users == 8
    assert found.spent_s >= 500


def test_failing_servers_fail_their_objective():
    """A server that fails three of ten requests has no load at which fewer than 5 % fail."""
    found = searched(a_scenario("failures<5%", budget=3000 * S), partial(Slots, 4, 0.5, seed=5, fails=0.3))
    assert found.search.failed == 1


def test_an_objective_that_nothing_has_is_refused():
    """Answers of one token have no TPOT: that is said, not passed and not failed (I1)."""
    with pytest.raises(BadInput, match=r"none of .* requests has a tpot"):
        searched(a_scenario("tpot_p95<80ms", budget=60 * S), lambda: _steady(S // 5))


def test_a_probe_that_an_abort_rule_ends_fails():
    """It is kept with its rule, its load is not tested again, and the search goes on below it."""
    scenario = a_scenario("e2e_p95<8s", think_s=5.0, budget=1800 * S)
    scenario = replace(scenario, slo=replace(scenario.slo, abort_on=(parse_abort("e2e_p50>5s"),)))
    found = searched(scenario, partial(Slots, 2, 2.0, seed=4))
    aborted = [
        probe for probe, recording in zip(found.evidence.probes, found.recordings, strict=True) if recording.aborted
    ]
    assert aborted
    assert all(probe.decision == "FAIL" and probe.aborted.startswith("e2e_p50>5s") for probe in aborted)
    tests = Counter(probe.amount for probe in aborted if probe.purpose != "verify")
    assert set(tests.values()) == {1}, "a load that the rule ended is not tested again"
    first = min(number for number, probe in enumerate(found.evidence.probes) if probe.aborted)
    later = [probe.amount for probe in found.evidence.probes[first + 1 :] if probe.purpose == "test"]
    assert all(amount < found.evidence.probes[first].amount for amount in later)
    assert found.answer.users < min(probe.users for probe in aborted)


def test_the_ramp_is_the_users_where_it_is_set():
    """The search spreads the users' starts over a cycle, unless `--ramp` says over what."""

    def ramps(ramp_ns: int | None) -> set[int]:
        scenario = a_scenario("e2e_p95<1s", budget=60 * S, at_most=4.0, warm_up=5 * S)
        scenario = replace(scenario, load=replace(scenario.load, ramp=ramp_ns))
        found = searched(scenario, lambda: _steady(S // 5))
        return {plan.ramp_ns for plan in found.plans}

    assert ramps(3 * S) == {3 * S}
    assert 3 * S not in ramps(None)


def test_think_times_are_part_of_the_load():
    """Who thinks four times as long lets about four times as many in, less the time of the answers."""
    estimates = []
    for think_s in (5.0, 20.0):
        case = replace(SLOTS, think_s=think_s, budget_s=3600)
        estimates.append(searched(case.scenario(1), partial(case.server, seed=2)).answer.users)
    assert 2 < estimates[1] / estimates[0] < 4.5
    assert math.isfinite(sum(estimates))
