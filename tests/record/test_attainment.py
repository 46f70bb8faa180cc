"""How requests fare by objectives: good or not, and the sums that shares and means are made from."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.abandonment import Patience
from loadbench.plan.objective import parse_objective
from loadbench.record.attainment import Attainment, Tally
from loadbench.record.figures import FIGURES, MANY_A_REQUEST
from loadbench.record.outcome import Outcome
from loadbench.record.recorder import METRICS
from tests.building import MS, S, a_failure, a_sample


def attained(samples, *rules: str):
    """What these samples come to by these rules."""
    attainment = Attainment([parse_objective(rule) for rule in rules])
    for sample in samples:
        attainment.add(sample)
    return attainment.attained()


def one_token(**over):
    """An answer of a single token: it has no time per further token, and no gap."""
    return a_sample(output_tokens=1, event_ns=array("q", [100 * MS]), event_tokens=array("q", [1]), **over)


def with_gaps(*gaps_ms: int, **over):
    """An answer with these gaps between its events, of a token each."""
    stamps = [100 * MS]
    for gap in gaps_ms:
        stamps.append(stamps[-1] + gap * MS)
    count = len(stamps)
    return a_sample(event_ns=array("q", stamps), event_tokens=array("q", [1] * count), output_tokens=count, **over)


@pytest.mark.parametrize(
    ("rule", "good"),
    [
        ("ttft_p95<101ms", True),
        ("ttft_p95<100ms", False),  # a bound is not met by what reaches it
        ("ttft_mean<101ms", True),
        ("ttft_max<100ms", False),
        ("e2e_p50<301ms", True),
        ("e2e_p50<300ms", False),
        ("tpot_p99<20.1ms", True),
        ("tpot_p99<20ms", False),
        ("event_gap_max<20.1ms", True),
        ("itl_mean<20ms", False),
        ("failures<50%", True),
        ("requests_per_s>1000", True),  # not asked of a request
    ],
)
def test_request_is_held_against_each_bound(rule, good):
    """The figure of the request itself, in exact ns, whatever point of the distribution the rule names."""
    assert attained([a_sample()], rule).good == int(good)


def test_good_request_meets_every_objective():
    """One bound missed is one too many; the tokens of good requests are counted with them."""
    quick, slow = a_sample(0, ttft_ns=50 * MS), a_sample(1, ttft_ns=500 * MS)
    late_end = a_sample(2, ttft_ns=50 * MS, gaps_ns=90 * MS)
    result = attained([quick, slow, late_end], "ttft_p95<100ms", "tpot_p95<50ms")
    assert (result.requests, result.good, result.good_tokens) == (3, 1, 11)


@pytest.mark.parametrize("outcome", [one for one in Outcome if one is not Outcome.OK and not one.left_out])
def test_failed_and_unfinished_requests_are_misses(outcome):
    """They count among all, whatever kind of end they had, and never as good. A user who gave up had a wait."""
    result = attained([a_sample(), a_failure(outcome, number=1)], "ttft_p95<1s")
    assert (result.requests, result.good) == (2, 1)
    gave_up = outcome is Outcome.GAVE_UP
    assert [(tally.requests, tally.gave_up) for tally in result.tallies.values()] == [(1 + gave_up, gave_up)]


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.CLIENT_LIMIT])
def test_requests_that_were_cut_or_not_sent_do_not_count(outcome):
    """Neither good nor missed: nobody knows what they would have been."""
    assert attained([a_sample(), a_failure(outcome, number=1)], "ttft_p95<1s").requests == 1


@pytest.mark.parametrize("rule", ["tpot_p95<1h", "tpot_mean<1h", "event_gap_p99<1h", "itl_max<1h"])
def test_undefined_figure_is_a_miss(rule):
    """D15: an answer of one token has no TPOT, and so does not meet a bound on it, however generous."""
    result = attained([one_token()], rule)
    assert (result.requests, result.good) == (1, 0)
    assert [tally.requests for tally in result.tallies.values()] == [0]


@pytest.mark.parametrize(
    ("rule", "good"),
    [
        ("event_gap_p50<50ms", True),
        ("event_gap_p90<50ms", False),
        ("event_gap_max<50ms", False),
        ("itl_mean<50ms", True),
    ],
)
def test_figure_with_many_values_is_asked_of_the_requests_own(rule, good):
    """Three gaps of four are short: so many as p50 wants, not so many as p90 does, and their mean is short too."""
    assert attained([with_gaps(10, 10, 10, 100)], rule).good == int(good)


def test_without_objectives_there_is_none_to_ask():
    """No tally, and nothing that goodput could be of."""
    result = attained([a_sample()])
    assert not result.by_request
    assert not attained([a_sample()], "requests_per_s>1").by_request
    assert attained([a_sample()], "failures<1%").by_request


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=2, max_size=40))
def test_variance_is_that_of_the_ratio_estimator(parts):
    """n/(n-1) · Σ(y - Rm)² / (Σm)², against the same in fractions."""
    tally = Tally()
    for y, m in parts:
        tally.add(y, m)
    n, whole = len(parts), sum(m for _, m in parts)
    ratio = Fraction(sum(y for y, _ in parts), whole)
    exact = Fraction(n, n - 1) * sum((y - ratio * m) ** 2 for y, m in parts) / whole**2
    assert tally.variance() == pytest.approx(float(exact), rel=1e-6, abs=1e-12)


def test_one_request_has_no_spread():
    """Two make the first."""
    tally = Tally()
    assert tally.variance() is None
    tally.add(3, 4)
    assert tally.variance() is None


def test_figures_are_those_of_the_recorder():
    """Each figure of a request has its name there."""
    assert {*FIGURES, *MANY_A_REQUEST, "lateness", "connect"} == set(METRICS)


def test_sums_are_of_the_answered():
    """y counts what is below the bound, or sums values; m counts values."""
    samples = [a_sample(0, ttft_ns=50 * MS), a_sample(1, due_ns=S, ttft_ns=200 * MS)]
    share, mean = attained(samples, "ttft_p95<100ms", "ttft_mean<100ms").tallies.values()
    assert (share.requests, share.y, share.m) == (2, 1, 2)
    assert (mean.requests, mean.y, mean.m) == (2, 250 * MS, 2)


# Users with limited patience.


def impatient(patience_ms: int, *, ttft_ms: int = 100, gaps_ms: int = 20, first: bool = False, number: int = 0):
    """A response of 11 tokens that is given up if its user does not wait as long as it takes."""
    whole = a_sample(number, ttft_ns=ttft_ms * MS, gaps_ns=gaps_ms * MS)
    request = replace(whole.request, patience=Patience(patience_ms * MS, first))
    if (ttft_ms if first else ttft_ms + 10 * gaps_ms) <= patience_ms:
        return replace(whole, request=request)
    stamps = array("q", [stamp for stamp in whole.event_ns if stamp <= patience_ms * MS])
    first_ns, last_ns = (stamps[0], stamps[-1]) if stamps else (None, None)
    return replace(
        whole,
        request=request,
        outcome=Outcome.GAVE_UP,
        first_byte_ns=first_ns,
        first_token_ns=first_ns,
        first_visible_ns=first_ns,
        last_token_ns=last_ns,
        end_ns=patience_ms * MS,
        event_ns=stamps,
        event_tokens=array("q", [1] * len(stamps)),
        output_tokens=len(stamps),
    )


@pytest.mark.parametrize(
    ("rule", "sample", "waits", "others"),
    [  # of those who wait as long as the bound, and of the others: requests, of them below the bound, given up without
        ("ttft_p95<150ms", impatient(200), (1, 1, 0), (0, 0, 0)),  # left after the first token, which was in time
        ("ttft_p95<90ms", impatient(200), (1, 0, 0), (0, 0, 0)),  # which was late
        ("ttft_p95<150ms", impatient(200, ttft_ms=300), (1, 0, 1), (0, 0, 0)),  # waited for the bound, in vain
        ("ttft_p95<200ms", impatient(200, ttft_ms=300), (1, 0, 1), (0, 0, 0)),
        ("ttft_p95<201ms", impatient(200, ttft_ms=300), (0, 0, 0), (0, 0, 1)),  # it might have been in time
        ("ttft_p95<201ms", impatient(200, ttft_ms=50), (0, 0, 0), (1, 1, 0)),  # so those that were are kept apart, too
        ("e2e_p50<250ms", impatient(260), (1, 0, 1), (0, 0, 0)),  # the last token that came is not the last one
        ("e2e_p50<299ms", impatient(300), (1, 0, 0), (0, 0, 0)),
        ("e2e_p50<400ms", impatient(300), (0, 0, 0), (1, 1, 0)),
        ("e2e_p50<150ms", impatient(200, ttft_ms=300, first=True), (1, 0, 1), (0, 0, 0)),
        ("e2e_p50<1s", impatient(200, first=True), (0, 0, 0), (1, 1, 0)),
        ("e2e_max<250ms", impatient(260), (1, 0, 1), (0, 0, 0)),
        ("e2e_mean<1s", impatient(260), (0, 0, 0), (0, 0, 1)),  # a mean is of all values, or of a fair part of them
        ("tpot_p95<1s", impatient(9000), (0, 0, 0), (1, 1, 0)),  # slow responses are those that are given up
        ("tpot_p95<1s", impatient(200), (0, 0, 0), (0, 0, 1)),
        ("event_gap_p95<1s", impatient(200), (0, 0, 0), (0, 0, 1)),
    ],
)
def test_users_who_would_not_wait_as_long_as_the_bound_are_kept_apart(rule, sample, waits, others):
    """A wait that reached the bound is a miss; one that ended before says nothing, and nor does its quick neighbour."""
    result = attained([sample], rule)
    for kept, told in ((result.tallies, waits), (result.others, others)):
        (tally,) = kept.values()
        assert (tally.requests, tally.y, tally.gave_up) == told


def test_a_user_who_left_was_not_served_well():
    """The goodput counts complete responses only, even if every figure that was reached was in time."""
    result = attained([impatient(200), impatient(9000, number=1)], "ttft_p95<1s", "failures<1%")
    assert (result.requests, result.good) == (2, 1)


def test_failures_of_users_who_would_not_have_waited_are_left_out_with_them():
    """Else the share of failures would grow with the share of impatient users."""
    failure = a_failure(Outcome.RESET)
    hasty = replace(failure, request=replace(failure.request, patience=Patience(200 * MS)))
    others = attained([failure, hasty], "ttft_p95<1s", "ttft_p95<100ms").others
    assert [tally.failed for tally in others.values()] == [1, 0]


@given(
    users=st.lists(st.tuples(st.integers(1, 400), st.none() | st.integers(1, 400), st.booleans()), max_size=40),
    bound=st.integers(1, 400),
    metric=st.sampled_from(["ttft", "e2e"]),
)
def test_the_share_is_that_of_a_random_part_of_all_responses(users, bound, metric):
    """Those whose users would have waited, each as slow as it would have been: leaving does not bias it."""
    samples, truth = [], []
    for slow_ms, patience_ms, first in users:
        sample = a_sample(ttft_ns=slow_ms * MS, gaps_ns=MS)
        if patience_ms is not None:
            sample = impatient(patience_ms, ttft_ms=slow_ms, gaps_ms=1, first=first)
        samples.append(sample)
        if patience_ms is None or patience_ms >= bound:
            truth.append(slow_ms + 10 * (metric == "e2e") < bound)
    result = attained(samples, f"{metric}_p95<{bound}ms")
    (tally,), (others,) = result.tallies.values(), result.others.values()
    assert (tally.requests, tally.y) == (len(truth), sum(truth))
    assert others.requests + others.gave_up == len(users) - len(truth)


def test_tallies_add_up():
    """Sums over some requests and over others are those over all."""
    some, more = Tally(), Tally()
    some.add(3, 4)
    more.add(1, 1)
    more.gave_up, more.failed = 2, 5
    both = Tally()
    both.add(3, 4)
    both.add(1, 1)
    assert some.plus(more) == replace(both, gave_up=2, failed=5)


LATER = {"due_ns": 2 * S, "number": 1}
SOONER = {"due_ns": S, "number": 0}


@pytest.mark.parametrize(
    ("rule", "last_ended", "rows"),
    [
        ("ttft_p95<200ms", a_sample(ttft_ns=300 * MS, **SOONER), [(0, 1, 1.5), (1, 1, 0.5)]),
        ("ttft_p95<200ms", a_failure(Outcome.RESET, **SOONER), [(0, 1, math.inf), (1, 1, 0.5)]),
        ("ttft_mean<200ms", a_sample(ttft_ns=300 * MS, **SOONER), [(300 * MS, 1, 1.5), (100 * MS, 1, 0.5)]),
        ("event_gap_p90<50ms", a_sample(gaps_ns=60 * MS, **SOONER), [(0, 10, 1.2), (10, 10, 0.4)]),
        ("event_gap_p90<50ms", a_failure(Outcome.RESET, **SOONER), [(10, 10, 0.4)]),
        ("failures<1%", a_failure(Outcome.RESET, **SOONER), [(0, 1, math.inf), (1, 1, 0)]),
        ("failures<1%", a_failure(Outcome.GAVE_UP, **SOONER), [(1, 1, 0)]),
    ],
)
def test_requests_are_kept_one_by_one_in_the_order_in_which_they_were_due(rule, last_ended, rows):
    """Hits, values, and the largest over the bound. A failure has no wait; of gaps it says nothing."""
    result = attained([a_sample(**LATER), last_ended], rule)
    (kept,) = result.kept.values()
    assert [tuple(row) for row in kept.rows] == [pytest.approx(row) for row in rows]
    is_good = last_ended.outcome is Outcome.OK and rows[0][2] < 1
    assert [tuple(row) for row in result.kept_good.rows] == [(is_good, 1, 0 if is_good else math.inf), (1, 1, 0)]


def test_only_the_requests_that_ended_first_are_kept_one_by_one(monkeypatch):
    """As many as fit; the sums are of all, and so are those of batches, of ever more requests each."""
    monkeypatch.setattr("loadbench.record.attainment._MOST_KEPT", 3)
    monkeypatch.setattr("loadbench.record.attainment._MOST_BATCHES", 4)
    samples = [a_sample(n, due_ns=n * S, ttft_ns=(n + 1) * MS) for n in range(15)]
    for count, sums, size in (
        (3, [], 1),
        (4, [1, 1, 1, 0], 1),
        (5, [2, 1], 2),
        (6, [2, 1, 0], 2),
        (8, [2, 1, 0, 0], 2),
        (9, [3, 0], 4),
        (15, [3, 0, 0], 4),
    ):
        result = attained(samples[:count], "ttft_p95<3500us")
        (kept,), (tally,) = result.kept.values(), result.tallies.values()
        assert [row[2] for row in kept.rows] == pytest.approx([1 / 3.5, 2 / 3.5, 3 / 3.5])
        assert (kept.batches.tolist(), kept.size) == ([sums, [size] * len(sums)], size)
        assert result.kept_good.batches.tolist() == kept.batches.tolist()
        assert (len(result.kept_good.rows), tally.requests, result.requests) == (3, count, count)


@pytest.mark.parametrize("rule", ["ttft_p95<1s", "itl_p95<40ms", "itl_mean<40ms", "failures<1%"])
def test_what_is_known_of_all_requests_is_exact(monkeypatch, rule):
    """Sums of batches and the moments of the largest values, of requests with several values too."""
    rng = np.random.default_rng(3)
    samples = [
        a_sample(n, due_ns=n * S, ttft_ns=round(t * S), gaps_ns=round(g * MS))
        for n, (t, g) in enumerate(
            zip(rng.uniform(0.01, 0.4, 50).tolist(), rng.uniform(20, 30, 50).tolist(), strict=True)
        )
    ]
    monkeypatch.setattr("loadbench.record.attainment._MOST_BATCHES", 16)
    (complete,) = attained(samples, rule).kept.values()
    monkeypatch.setattr("loadbench.record.attainment._MOST_KEPT", 10)
    (kept,) = attained(samples, rule).kept.values()
    over = complete.rows[:, 2]
    assert (complete.over, complete.size, kept.size) == (None, 1, 4)
    assert kept.batches == pytest.approx(complete.rows[:48, :2].reshape(12, 4, 2).sum(axis=1).T)
    exact = (50, over.mean(), over.std(), ((over - over.mean()) ** 4).mean(), over.max())
    assert kept.over == pytest.approx(exact)
    (failed,) = attained([*samples, a_failure(Outcome.RESET)], "failures<1%").kept.values()
    assert (failed.over, len(failed.rows)) == (None, 10)


def test_a_good_response_whose_tokens_are_unknown_has_none():
    """Nothing is made up for it."""
    result = attained([a_sample(output_tokens=None), a_sample(1)], "ttft_p95<1s")
    assert (result.good, result.good_tokens) == (2, 11)
