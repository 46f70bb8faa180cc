"""The search without time: against servers whose border is known, honest and dishonest ones."""

from __future__ import annotations

import math
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.plan.search import Budget, Finding, Probe, Purpose, Rates, Search, Standing, Users, narrow_text

S = 1_000_000_000


def run(search: Search, border: int, *, most: int = 80) -> list[Probe]:
    """Search a server that passes up to the border. What is measured is likely; what is tested, and both ends, are
    proven."""
    probes: list[Probe] = []
    lowest, highest = search.grid.lowest, search.grid.highest
    passed = failed = None
    while (probe := search.next()) is not None and len(probes) < most:
        probes.append(probe)
        passes = probe.at <= border
        seen = [one.at for one in probes]
        low = max((at for at in seen if at <= border), default=lowest - 1)
        high = min((at for at in seen if at > border), default=highest + 1) - 1
        if probe.purpose is Purpose.TEST:
            passed = max(probe.at, probe.at if passed is None else passed) if passes else passed
            failed = failed if passes else min(probe.at, highest if failed is None else failed)
        standing = Standing(passed, failed, low, high, middle(search.grid, max(low, lowest), max(high, lowest)))
        search.add(probe, Finding(standing.decision(probe.at), 5.0 if passes else -5.0, standing))
    return probes


def middle(grid, low: int, high: int) -> int:
    """Half-way by ratio."""
    return (low + high) // 2 if isinstance(grid, Rates) else round(math.sqrt(max(low, 1) * high))


def a_search(grid, start: int = 1, **settings) -> Search:
    """Refining bisects."""
    return Search(grid, start, lambda standing: middle(grid, standing.low, standing.high + 1), **settings)


@given(st.integers(1, 999), st.integers(1, 1000))
@settings(max_examples=150)
def test_the_range_holds_the_border_wherever_it_begins(border, start):
    """The likely range is narrow, verified at its low end, and holds the border; the number of probes grows with the
    logarithm only."""
    search = a_search(Users(1000), start)
    probes = run(search, border)
    assert search.settled or search.likely
    assert search.settled or search.standing.low <= border <= search.standing.high
    assert len(probes) <= 30


@given(st.floats(0.02, 150), st.floats(0.01, 200))
@settings(max_examples=100)
def test_rates_far_below_one_are_as_good_as_others(border, start):
    """Real rates on a grid of 2 %: the two ends lie around the border (I2)."""
    grid = Rates.of(0.01, 200)
    search = a_search(grid, grid.nearest(start))
    run(search, max(at for at in range(grid.lowest, grid.highest + 1) if grid.amount(at) <= border))
    assert grid.amount(search.standing.low) <= border
    assert grid.amount(search.standing.high + 1) > border


def test_rates_are_two_percent_apart():
    """Neighbours on the grid differ by 2 %, below 1/s as above it."""
    grid = Rates.of(0.05, 20)
    steps = [grid.amount(at + 1) / grid.amount(at) for at in range(grid.lowest, grid.highest)]
    assert min(steps) > 1.019
    assert max(steps) < 1.021
    assert all(grid.nearest(grid.amount(at)) == at for at in range(grid.lowest, grid.highest + 1))


def test_a_grid_has_one_rate_at_least():
    """Where the lowest rate and the cap are the same and between two positions, the one below is left."""
    grid = Rates.of(0.0103, 0.0103)
    assert grid.lowest == grid.highest
    assert grid.amount(grid.highest) <= 0.0103


def test_everything_passes_up_to_the_cap():
    """The cap is tested itself, and that ends it."""
    search = a_search(Users(50))
    probes = run(search, 50)
    assert (search.passed, search.failed, search.settled) == (50, None, True)
    assert (probes[-1].at, probes[-1].purpose) == (50, Purpose.TEST)


def test_not_even_one():
    """One user who fails is proven to, and that ends it."""
    search = a_search(Users(50), start=8)
    run(search, 0)
    assert (search.passed, search.failed, search.settled) == (None, 1, True)


def test_probes_that_contradict_each_other_end_the_search():
    """A server on which more load is better: nothing is claimed (I6)."""
    search = a_search(Users(100))
    search.add(Probe(4, Purpose.BRACKET), Finding("UNDECIDED", 0.0, Standing(monotone=False)))
    assert search.next() is None


def test_a_server_that_is_never_sure_is_not_asked_for_ever():
    """Each position is tried a few times at most for one purpose."""
    search, probes = a_search(Users(100)), []
    while (probe := search.next()) is not None:
        probes.append(probe)
        search.add(probe, Finding("UNDECIDED", 1.0 if probe.at <= 20 else -1.0, Standing(None, None, 5, 60, 20)))
        assert len(probes) < 60
    assert max(Counter(probes_of(probes)).values()) == 16


def probes_of(probes: list[Probe]) -> list[tuple[int, Purpose]]:
    return [(probe.at, probe.purpose) for probe in probes]


def test_a_verification_that_disagrees_moves_the_estimate_and_is_made_again():
    """It leans to FAIL: the next low end is verified, and only that ends the search."""
    search = a_search(Users(100))
    narrow = Standing(None, None, 20, 22, 21)
    search.add(Probe(20, Purpose.REFINE), Finding("UNDECIDED", 4.0, narrow))
    search.add(Probe(24, Purpose.REFINE), Finding("UNDECIDED", -4.0, narrow))
    assert search.next()[:2] == (20, Purpose.VERIFY)
    search.add(Probe(20, Purpose.VERIFY), Finding("UNDECIDED", -2.5, Standing(None, None, 17, 20, 18)))
    assert not search.likely
    assert search.next()[:2] == (17, Purpose.VERIFY)
    search.add(Probe(17, Purpose.VERIFY), Finding("UNDECIDED", 0.5, Standing(None, None, 17, 20, 18)))
    assert search.likely
    assert search.next() is None


def test_a_verification_that_could_not_contradict_is_made_again():
    """Too few independent requests confirm nothing, however they lean."""
    search = a_search(Users(100))
    narrow = Standing(None, None, 20, 22, 21)
    search.add(Probe(20, Purpose.REFINE), Finding("UNDECIDED", 4.0, narrow))
    search.add(Probe(24, Purpose.REFINE), Finding("UNDECIDED", -4.0, narrow))
    search.add(Probe(20, Purpose.VERIFY), Finding("UNDECIDED", 0.5, narrow, informed=False))
    assert not search.likely
    assert search.next()[:2] == (20, Purpose.VERIFY)
    search.add(Probe(20, Purpose.VERIFY, visit=1), Finding("UNDECIDED", 0.5, narrow))
    assert search.likely


def test_proof_begins_where_it_takes_few_requests():
    """Where proof is required, loads far below the estimate are tested first, PASS before FAIL, then ever nearer."""
    search = a_search(Users(1000), 100, require="proven")
    tests = [probe for probe in run(search, 300) if probe.purpose is Purpose.TEST]
    assert [probe.expects for probe in tests[:2]] == ["PASS", "FAIL"]
    assert tests[0].at < 300 / 1.25
    assert tests[1].at > 300 * 1.25
    assert search.proven
    assert search.passed <= 300 < search.failed
    low, high = search.passed, search.failed - 1
    assert high - low <= max(1, 0.2 * math.sqrt(low * high))


@given(st.integers(10, 7200), st.floats(0.1, 120), st.lists(st.sampled_from(list(Purpose)), max_size=80))
@settings(max_examples=100)
def test_no_plan_is_longer_than_the_budget(budget_s, warm_up_s, purposes):
    """Whatever is measured in whatever order, warm-ups and windows stay within the budget (I3)."""
    budget, spent_ns, warm_up_ns = Budget(budget_s * S), 0, round(warm_up_s * S)
    for purpose in purposes:
        measure_ns = budget.probe_ns(purpose, spent_ns=spent_ns, warm_up_ns=warm_up_ns)
        if measure_ns is not None:
            assert measure_ns > 0
            spent_ns += warm_up_ns + measure_ns
    assert spent_ns <= budget.total_ns


@pytest.mark.parametrize("precision", [0.1, 0.5])
def test_a_narrow_range_is_narrow(precision):
    """It ends once the likely range is twice as wide as was asked for a proven one."""
    search = a_search(Users(1000), precision=precision)
    run(search, 300)
    low, high = search.standing.low, search.standing.high
    assert search.likely
    assert high - low <= max(1, 2 * precision * math.sqrt(low * high))


@pytest.mark.parametrize(("precision", "proven"), [(0.2, False), (0.2, True), (0.5, False)])
def test_what_is_said_of_a_narrow_range_is_the_rule_that_ends_the_search(precision, proven):
    search = a_search(Users(100_000), precision=precision)
    factor = float(re.search(r"factor of ([\d.]+)", narrow_text(precision, proven=proven)).group(1))
    narrow = [search.is_narrow(10_000, round(10_000 * (factor + by)), factor=2 - proven) for by in (-0.006, 0.006)]
    assert narrow == [True, False]
