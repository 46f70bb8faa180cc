"""The answer of a capacity search, by what the search knows: each end, its strength, and what is still needed."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from loadbench.analyze.capacity.answer import answer, needed
from loadbench.plan.search import Purpose, Rates, Search, Standing, Users
from loadbench.results.capacity import Capacity, CapacityAnswer

USERS = Users(200)


def a_search(
    standing: Standing, *, grid=USERS, require="likely", verified: int | None = 20, leanings=((10, 3), (40, -3))
):
    """A search of which so much is known, with a load that leans to PASS and a higher one to FAIL."""
    search = Search(
        grid, 10, lambda _: 1, require=require, standing=standing, leanings=dict(leanings), verified=verified
    )
    search.visits[10, Purpose.BRACKET] += 1
    return search


def strength(standing: Standing, *, agrees=True, **search) -> str:
    return answer(a_search(standing, **search), 0.95, 10.0, agrees=agrees).strength


@pytest.mark.parametrize(
    ("standing", "agrees", "expected"),
    [
        (Standing(None, None, 20, 32, 25), True, "likely"),
        (Standing(None, None, 20, 33, 25), True, "estimate"),  # wider than a factor of 1.6
        (Standing(None, None, 20, 32, 25), False, "estimate"),
        (Standing(20, 27, 20, 40, 25), False, "proven"),  # up to 26: a factor of 1.3
        (Standing(20, 28, 20, 40, 25), False, "estimate"),
        (Standing(2, 4, 2, 9, 3), False, "proven"),  # 2 or 3: no range of users is narrower
        (Standing(2, 5, 2, 9, 3), False, "estimate"),
        (Standing(None, 2, 0, 1, 1), True, "estimate"),  # not even one user is known to pass
    ],
)
def test_a_range_answers_if_it_is_narrow(standing, agrees, expected):
    """A proven one by itself; a likely one if the verification agrees."""
    assert strength(standing, agrees=agrees) == expected


def test_where_proof_is_required_a_factor_of_two_answers():
    """Not a factor beyond."""
    assert strength(Standing(20, 41, 20, 40, 30), require="proven", agrees=False) == "proven"
    assert strength(Standing(20, 42, 20, 41, 30), require="proven", agrees=False) == "estimate"


@pytest.mark.parametrize(
    ("verified", "expected"), [(None, "estimate"), (18, "estimate"), (19, "likely"), (25, "likely")]
)
def test_a_verification_counts_at_the_low_end_of_the_range(verified, expected):
    """One at a lower load says nothing of a range that has moved up since; 6 % below is the same load."""
    assert strength(Standing(None, None, 20, 28, 24), verified=verified) == expected


@pytest.mark.parametrize("leanings", [((10, 3),), ((40, -3),), ()])
def test_a_likely_range_has_loads_on_both_sides(leanings):
    """Where no load leans to FAIL, or none to PASS, the curve is a guess beyond what was seen."""
    assert strength(Standing(None, None, 20, 28, 24), leanings=leanings) == "estimate"


def test_both_ranges_are_loads_that_are_served():
    """The proven and the likely one end with the last load that may be served; for rates just below the next."""
    found = answer(a_search(Standing(20, 30, 22, 27, 25)), 0.9, 10.0, agrees=True)
    assert (found.users, found.rate_per_s) == (25, msgspec.UNSET)
    assert (found.low, found.high, found.likely_low, found.likely_high) == (20, 29, 22, 27)
    assert (found.confidence, found.think_s) == (0.9, 10.0)
    grid = Rates.of(0.1, 100)
    found = answer(a_search(Standing(40, 50, 42, 47, 45), grid=grid), 0.95, None, agrees=True)
    assert (found.users, found.rate_per_s, found.think_s) == (msgspec.UNSET, grid.amount(45), None)
    assert (found.low, found.high) == (grid.amount(40), grid.amount(50))
    assert (found.likely_low, found.likely_high) == (grid.amount(42), grid.amount(48))


def test_nothing_known_is_no_answer():
    """Before the first probe, without an estimate, and where the lowest load fails."""
    assert answer(a_search(Standing()), 0.95, 10.0, agrees=False) is None
    assert answer(a_search(Standing(None, 1, 0, 0, 0)), 0.95, 10.0, agrees=False) is None
    search = a_search(Standing(None, None, 20, 28, 24))
    search.visits.clear()
    assert answer(search, 0.95, 10.0, agrees=False) is None
    # The lowest load may fail, and is the best that there is.
    found = answer(a_search(Standing(None, None, 0, 3, 0)), 0.95, 10.0, agrees=False)
    assert (found.users, found.likely_low, found.likely_high) == (1, None, 3)


def still_needed(low: float | None, high: float | None, *, require="likely", requests=(300, 100), **size):
    """What a search of 400 requests in 100 s still needs, whose likely range is this one."""
    size = size or {"users": 24}
    found = CapacityAnswer(low=None, high=None, likely_low=low, likely_high=high, confidence=0.95, **size)
    so_far = Capacity(status="inconclusive", objectives=[], model="m", budget_s=60.0, require=require, spent_s=100.0)
    evidence = SimpleNamespace(probes=[SimpleNamespace(requests=count) for count in requests])
    return needed(found, so_far, evidence)


def test_what_is_still_needed_grows_with_the_square_of_the_width():
    """To 1.4; the range of 1.96 has twice its logarithm, so four times as many requests, of which one part is there."""
    more = still_needed(100, 196)
    assert (more.requests, more.seconds) == (1250, pytest.approx(312.5))
    # A narrow one lacks the verification alone.
    for low, high in ((100, 130), (1, 2)):
        assert still_needed(low, high).requests == 50
    assert still_needed(1, 3).requests > 50
    assert still_needed(0.1, 0.2, rate_per_s=0.15).requests > 50
    # A proof takes five times as many.
    assert still_needed(100, 130, require="proven").requests == 1650


@pytest.mark.parametrize(
    ("low", "high", "requests"), [(None, 20, (1,)), (20, None, (1,)), (20, 30, ()), (20, 30, (0,))]
)
def test_nobody_knows_what_is_needed_without_a_range(low, high, requests):
    """Or without a request."""
    assert still_needed(low, high, requests=requests) is None
