"""The search without time: against servers whose border is known, honest and dishonest ones."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.plan.search import Budget, Finding, Probe, Purpose, Rates, Search, Users

S = 1_000_000_000


def run(search: Search, border: int, *, sure: bool = True, most: int = 60) -> list[Probe]:
    """Search a server that passes up to the border; proofs succeed, other probes only lean."""
    probes = []
    while (probe := search.next()) is not None and len(probes) < most:
        probes.append(probe)
        passes = probe.at <= border
        decided = sure and probe.purpose is Purpose.TEST
        search.add(probe, Finding(("PASS" if passes else "FAIL") if decided else "UNDECIDED", 5.0 if passes else -5.0))
    return probes


def aiming(kept: list[Search]):
    """Aims at the border itself, as the probes lean, and then half-way between what is proven."""

    def aim(*, passes: bool) -> int | None:
        search = kept[0]
        border = search.threshold
        low, high = search.passed, search.failed
        at = border.passes if passes else border.fails
        if at not in {low, high}:
            return at
        middle = None if low is None or high is None else search.grid.between(low, high)
        return middle if middle not in {low, high} else None

    return aim


def a_search(grid, start: int = 1, **settings) -> Search:
    kept: list[Search] = []
    search = Search(grid, start, aiming(kept), **settings)
    kept.append(search)
    return search


@given(st.integers(1, 999), st.integers(1, 1000))
@settings(max_examples=150)
def test_the_range_holds_the_border_wherever_it_begins(border, start):
    """What is proven lies on its own side of the border, and the number of probes grows with the logarithm only."""
    search = a_search(Users(1000), start)
    probes = run(search, border)
    assert search.passed is not None
    assert search.passed <= border
    assert search.failed is None or search.failed > border
    assert len(probes) <= 2 * search.max_loads
    assert len(search.known) <= search.max_loads


@given(st.floats(0.02, 150), st.floats(0.01, 200))
@settings(max_examples=100)
def test_rates_far_below_one_are_as_good_as_others(border, start):
    """Real rates on a grid of 5 %: the two ends lie around the border (I2)."""
    grid = Rates.of(0.01, 200)
    search = a_search(grid, grid.nearest(start))
    run(search, max(at for at in range(grid.lowest, grid.highest + 1) if grid.amount(at) <= border))
    assert grid.amount(search.passed) <= border
    assert search.failed is None or grid.amount(search.failed) > border


def test_rates_are_five_percent_apart():
    """Neighbours on the grid differ by 5 %, below 1/s as above it."""
    grid = Rates.of(0.05, 20)
    steps = [grid.amount(at + 1) / grid.amount(at) for at in range(grid.lowest, grid.highest)]
    assert min(steps) > 1.049
    assert max(steps) < 1.051
    assert all(grid.nearest(grid.amount(at)) == at for at in range(grid.lowest, grid.highest + 1))


def test_a_grid_has_one_rate_at_least():
    """Where the lowest rate and the cap are the same and between two positions, the one below is left."""
    grid = Rates.of(0.0103, 0.0103)
    assert grid.lowest == grid.highest
    assert grid.amount(grid.highest) <= 0.0103


def test_everything_passes_up_to_the_cap():
    """The cap is proven itself, and that ends it."""
    search = a_search(Users(50))
    run(search, 50)
    assert (search.passed, search.failed, search.narrow) == (50, None, True)


def test_not_even_one():
    """One user who fails is proven to, and that ends it."""
    search = a_search(Users(50), start=8)
    run(search, 0)
    assert (search.passed, search.failed, search.narrow) == (None, 1, True)


def test_one_probe_that_leans_wrongly_is_overruled():
    """A short probe at 8 that leans to FAIL while 16 and 32 lean to PASS more strongly does not move the border."""
    search = a_search(Users(100))
    for at, leaning in ((8, -0.5), (16, 4.0), (32, 3.0), (64, -6.0)):
        search.add(Probe(at, Purpose.BRACKET), Finding("UNDECIDED", leaning))
    assert search.threshold == (32, 64)


def test_pass_above_fail_ends_the_search_as_a_range():
    """A server on which more load is better: nothing in between is claimed (I6)."""
    search = a_search(Users(100))
    for at, decision in ((4, "PASS"), (8, "FAIL"), (16, "PASS"), (32, "FAIL")):
        search.add(Probe(at, Purpose.TEST), Finding(decision, 0.0))
    assert not search.monotone
    assert (search.passed, search.failed) == (4, 32)
    assert search.next() is None


def test_what_is_sure_stays_so():
    """A later probe that tells nothing does not undo a proof."""
    search = a_search(Users(100))
    search.add(Probe(8, Purpose.TEST), Finding("PASS", 9.0))
    search.add(Probe(8, Purpose.REPEAT), Finding("UNDECIDED", -0.1))
    assert search.passed == 8


def test_a_server_that_is_never_sure_is_not_asked_for_ever():
    """Each position is tried four times at most."""
    search = a_search(Users(100))
    probes = run(search, 20, sure=False)
    assert len(probes) < 30
    tried = [probe.at for probe in probes if probe.purpose is Purpose.TEST]
    assert max(tried.count(at) for at in tried) == 4


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
    """It ends once the range is as narrow as was asked for."""
    search = a_search(Users(1000), precision=precision)
    run(search, 300)
    assert search.narrow
    low, high = search.passed, search.failed - 1
    assert high - low <= max(1, precision * math.sqrt(low * (high + 1)))
