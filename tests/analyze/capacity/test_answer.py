"""The answer of a capacity search, by what the search knows: each end, its strength, and what is still needed."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from loadbench.analyze.capacity.answer import answer, conclude, needed
from loadbench.analyze.capacity.search_evidence import SearchEvidence
from loadbench.plan.search import Purpose, Rates, Search, Standing, Users
from loadbench.plan.sources import resolve
from loadbench.results.capacity import Capacity, CapacityAnswer, HitShare, ProbeResult
from loadbench.results.prediction import Bottleneck

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
    probes = [SimpleNamespace(requests=count, leaning=-3.0, decision="UNDECIDED") for count in requests]
    return needed(found, so_far, SimpleNamespace(probes=probes), SimpleNamespace(grid=USERS))


def test_what_is_still_needed_grows_with_the_square_of_the_width():
    """To 1.4; the range of 1.96 has twice its logarithm, so four times as many requests, of which one part is there.
    Twice what it is on average, to be enough in most cases."""
    more = still_needed(100, 196)
    assert (more.requests, more.seconds) == (2800, pytest.approx(700))
    # A narrow one lacks the verification alone.
    for low, high in ((100, 130), (1, 2)):
        assert still_needed(low, high).requests == 400
    assert still_needed(1, 3).requests > 400
    assert still_needed(0.1, 0.2, rate_per_s=0.15).requests > 400
    # A range that is open ends with the loads that are allowed.
    assert still_needed(100, None).requests == still_needed(100, 200).requests
    assert still_needed(None, 20).requests > still_needed(1, 20).requests
    # A proof takes five times as many.
    assert still_needed(100, 130, require="proven").requests == 3600


@pytest.mark.parametrize("requests", [(), (0,)])
def test_nobody_knows_what_is_needed_without_a_request(requests):
    """Nothing says then."""
    assert still_needed(20, 30, requests=requests) is None


@pytest.mark.parametrize(("users", "least"), [(20, 100), (200, 1000)])
def test_a_load_that_nothing_exceeded_takes_what_proves_it_in_one_probe(users, least):
    """Five requests of each user, or as many as prove the objectives, whatever shorter probes there were."""
    evidence = SearchEvidence(resolved().objectives, Users(users), confidence=0.95)
    hit = HitShare(share=1.0, asked=0.95, requests=2 * users, hits=2 * users, effective=2.0 * users)
    probe = msgspec.structs.replace(a_probe(users, 3.0), attainment=dict.fromkeys(RULES, hit), requests=2 * users)
    evidence.probes = [probe] * 3
    assert least <= evidence.requests_to_pass(users) <= 1.3 * max(least, 140)
    unlike = msgspec.structs.replace(hit, share=0.9, hits=round(1.8 * users))
    evidence.probes = [msgspec.structs.replace(probe, attainment=dict.fromkeys(RULES, unlike))]
    assert evidence.requests_to_pass(users) is None


def resolved():
    """A search with these objectives."""
    return resolve(flags={"objectives": list(RULES), "think": "10s"}, environment={}, command="capacity")


# The conclusion.

RULES = ("ttft_p95<1s", "tpot_p95<80ms")


def a_probe(users: int, leaning: float, purpose=Purpose.BRACKET, *, misses=RULES[0], **more):
    """A probe whose requests all hit, or miss one objective in half of the cases."""
    hit = HitShare(share=0.97, asked=0.95, requests=200, hits=194, effective=200.0)
    attainment = dict.fromkeys(RULES, hit)
    if leaning < 0:
        attainment[misses] = msgspec.structs.replace(hit, share=0.5, hits=100)
    fields = {"requests": 200, "window_s": 60.0, "answer_s": 2.0, "decision": "UNDECIDED", **more}
    return ProbeResult(
        users=users, at=users, level=0, leaning=leaning, purpose=purpose, attainment=attainment, **fields
    )


def concluded(
    standing: Standing,
    *,
    require="likely",
    last=None,
    second=None,
    think="10s",
    aborted="",
    misses=RULES[0],
    verified=20,
    devices_for=None,
    **facts,
):
    """A search that was bracketed by 10 and 40 users, and verified at 20 unless its last probe is another."""
    flags = {"objectives": list(RULES), "require": require} | ({} if think is None else {"think": think})
    flags |= {} if devices_for is None else {"devices_for": devices_for}
    scenario = resolve(flags=flags, environment={}, command="capacity")
    evidence = SearchEvidence(scenario.objectives, USERS, confidence=0.95)
    evidence.probes = [a_probe(10, 3.0), second or a_probe(40, -3.0, misses=misses, aborted=aborted)]
    evidence.probes.append(a_probe(20, 3.0, Purpose.VERIFY) if last is None else last)
    so_far = Capacity(status="inconclusive", objectives=[], model="m", budget_s=60.0, require=require, spent_s=100.0)
    search = a_search(standing, require=require, verified=verified)
    return conclude(evidence, search, scenario, [], so_far=so_far, **facts)


LIKELY = Standing(None, None, 20, 28, 24)


@pytest.mark.parametrize(
    ("standing", "facts", "status", "conclusion", "end_reason"),
    [
        (
            LIKELY,
            {},
            "found",
            "Plan with at most 20 users: the limit is likely between 20 and 28 (95 % confidence; best estimate 24).",
            "the likely range is within ±17 % of its middle, and --precision allows ±20 %",
        ),
        (
            Standing(20, 26, 20, 28, 24),
            {"require": "proven"},
            "found",
            (
                "Plan with at most 20 users: the limit is proven to be between 20 and 25 (95 % confidence; "
                "best estimate 24)."
            ),
            "no further probe was possible; its range, at most a factor of 2 wide, is an answer all the same",
        ),
        (
            Standing(1, 2, 1, 1, 1),
            {},
            "found",
            "Plan with at most 1 user: the limit is proven to be 1 (95 % confidence; best estimate 1).",
            "no proven range is narrower than this one",
        ),
        (
            Standing(None, None, 150, 200, 170),
            {"last": a_probe(150, 3.0, Purpose.VERIFY), "verified": 150},
            "found",
            "Plan with at most 150 users: the limit is likely 150 or more (95 % confidence; best estimate 170).",
            "the likely range is within ±14 % of its middle, and --precision allows ±20 %",
        ),
        (
            Standing(150, None, 120, 200, 170),
            {"require": "proven"},
            "inconclusive",
            (
                "Inconclusive: the time was too short. 150 users are proven to meet the objectives; no load is proven "
                "not to. The best estimate is 170 users (likely range 120 or more)."
            ),
            "the time left was too short for another probe",
        ),
        (
            LIKELY,
            {"require": "proven"},
            "inconclusive",
            (
                "Inconclusive: the time was too short. Nothing is proven yet. The best estimate is 24 users "
                "(likely range 20 to 28)."
            ),
            "the time left was too short for another probe",
        ),
        (
            Standing(1, 60, 20, 40, 24),
            {},
            "inconclusive",
            (
                "Inconclusive: the time was too short. 1 user is proven to meet the objectives; 60 users are proven "
                "not to. The best estimate is 24 users (likely range 20 to 40)."
            ),
            "the time left was too short for another probe",
        ),
        (
            Standing(None, 60, 20, 40, 24),
            {"stopped": "Stopped"},
            "interrupted",
            (
                "Stopped. No load is proven to meet the objectives; 60 users are proven not to. "
                "The best estimate is 24 users (likely range 20 to 40)."
            ),
            "",
        ),
        (
            Standing(7, None, 20, 40, 24),
            {"client_limited": True},
            "client",
            (
                "The load generator was the bottleneck, not the server, so the search stopped. "
                "7 users are proven to meet the objectives."
            ),
            "",
        ),
        (
            LIKELY,
            {"client_limited": True},
            "client",
            "The load generator was the bottleneck, not the server, so the search stopped.",
            "",
        ),
        (
            Standing(200, None, 200, 200, 200),
            {},
            "at_least",
            "The server meets the objectives with 200 users, the highest load that --at-most allows, and maybe more.",
            "users=200, the highest load allowed, passed",
        ),
        (
            Standing(None, 1, 0, 0, 0),
            {"misses": RULES[1]},
            "none",
            "The server misses tpot_p95<80ms even with 1 user.",
            "the lowest load failed",
        ),
        (
            Standing(20, 26, 20, 28, 24, monotone=False),
            {},
            "inconclusive",
            (
                "Inconclusive: a higher load passed and a lower one failed: more load is not always worse here. "
                "20 users are proven to meet the objectives; 26 users are proven not to."
            ),
            "",
        ),
        (
            LIKELY,
            {"last": a_probe(20, -9.0, Purpose.VERIFY)},
            "inconclusive",
            "Inconclusive: the verification at users=20 contradicts the search. Nothing is proven yet.",
            "",
        ),
    ],
)
def test_the_conclusion_says_what_is_known(standing, facts, status, conclusion, end_reason):
    """The status, one to three sentences, and why the search ended where these do not say it."""
    found = concluded(standing, **facts)
    assert (found.status, found.conclusion, found.end_reason) == (status, conclusion, end_reason)
    assert (found.needed is None) == (status not in {"inconclusive", "interrupted"})
    if found.answer is not None:
        assert found.answer.limit == ("client" if status == "client" else "unknown")


def test_a_verification_agrees_unless_it_could_and_did_contradict():
    """Ten informed requests are the least; by the log likelihood of 95 %, or by an abort rule."""
    cases = [
        ({"leaning": 3.0}, True),
        ({"leaning": -1.9}, True),
        ({"leaning": -1.93}, False),
        ({"leaning": 3.0, "aborted": "failures>20%"}, False),
        ({"leaning": 3.0, "informed": False}, None),
        ({"leaning": -9.0, "informed": False}, False),
        ({"leaning": 3.0, "requests": 10}, True),
        ({"leaning": -9.0, "requests": 9}, None),
    ]
    for facts, agrees in cases:
        found = concluded(LIKELY, last=a_probe(20, purpose=Purpose.VERIFY, **facts))
        assert found.verification.agrees is agrees
        assert bool(found.contradictions) is (agrees is False)
        assert (found.status == "found") is bool(agrees)


def test_other_think_times_have_their_users_by_proportion():
    """With responses of 2 s, 24 users who think for 10 s are as many as 44 who think for 20 s; both ends likewise."""
    rows = concluded(LIKELY).at_think_times
    assert [(row.think_s, row.users, row.low, row.high) for row in rows] == [
        (5.0, 14, 11, 16),
        (20.0, 44, 36, 51),
        (40.0, 84, 70, 98),
    ]
    assert concluded(LIKELY, think=None).at_think_times == []
    few = concluded(Standing(None, None, 0, 1, 1)).at_think_times
    assert [(row.users, row.low, row.high) for row in few] == [(0, None, None), (1, None, None), (3, None, None)]
    assert concluded(Standing(None, 1, 0, 0, 0)).at_think_times == []


OPEN = (
    Standing(200, None, 200, 200, 200),  # at_least
    Standing(None, None, 150, 200, 170),  # found
    Standing(150, None, 100, 200, 170),  # the proven end is above the likely one
    Standing(50, None, 100, 200, 170),
)


@pytest.mark.parametrize("standing", OPEN)
def test_what_may_lie_beyond_the_highest_load_has_no_upper_end(standing):
    """Neither the likely range, nor the one that answers, nor that of another think time, nor the number of servers."""
    last = a_probe(150, 3.0, Purpose.VERIFY)
    found = concluded(standing, last=last, verified=150, devices_for=200)
    assert (found.answer.likely_high, found.answer.range[1]) == (None, None)
    assert found.answer.range[0] == max(standing.passed or 0, standing.low)
    assert [row.high for row in found.at_think_times] == [None] * 3
    assert found.devices.least is None


@pytest.mark.parametrize("standing", [*OPEN, LIKELY, Standing(7, None, 20, 40, 24)])
@pytest.mark.parametrize("client_limited", [False, True])
def test_a_load_generator_that_decided_nothing_is_no_bottleneck(standing, client_limited, monkeypatch):
    """One that was too slow without think time is no limit of users who think; unless it ended the search."""
    slow = Bottleneck(kind="client", sentence="the load generator, at users=2", advice="give it its own core")
    monkeypatch.setattr("loadbench.analyze.capacity.answer.find_bottleneck", lambda *_, **__: slow)
    found = concluded(standing, client_limited=client_limited)
    if client_limited:
        assert (found.answer.limit, found.explanation) == ("client", slow)
    else:
        assert found.answer.limit == "unknown"
        assert found.explanation.sentence.startswith("not known: loadbench was too slow")


def test_a_search_without_a_miss_has_no_best_estimate():
    """The estimate is then the highest load that was measured, which says nothing of the limit."""
    passing = Standing(None, None, 172, 200, 200)
    found = concluded(passing, second=a_probe(100, 3.0), last=a_probe(200, 3.0))
    assert "No limit was found up to 200 users, the highest load" in found.conclusion
    assert "172 or more are likely" in found.conclusion
    assert "best estimate" not in found.conclusion
