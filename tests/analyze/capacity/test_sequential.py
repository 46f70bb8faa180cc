"""Decisions that hold however often one looks, and what they rest on."""

from __future__ import annotations

import dataclasses
import math
import random
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.analyze.capacity.search_evidence import SearchEvidence
from loadbench.analyze.capacity.sequential import (
    HitCount,
    ProbeCounts,
    SequentialMonitor,
    leaning,
    log_wealths,
    required_share,
)
from loadbench.analyze.stats.intervals import binomial_cdf
from loadbench.plan.abandonment import Patience
from loadbench.plan.load import Closed, Open, Phase
from loadbench.plan.objective import parse_objective
from loadbench.plan.search import Probe, Purpose, Rates, Users
from loadbench.record.outcome import Outcome
from tests.analyze.queues import single
from tests.building import MS, S, a_failure, a_sample

TTFT = parse_objective("ttft_p95<1s")
ALPHA = 0.05


def most(runs: int, share: float) -> int:
    """As many as there are, were the share so large, but for one time in a thousand."""
    first, cumulative = binomial_cdf(runs, share)
    return first + int(np.searchsorted(cumulative, 0.999))


def independent(hits: int, n: int) -> HitCount:
    return HitCount(n, hits, float(n))


def at(amount: float, *counts: HitCount) -> ProbeCounts:
    return ProbeCounts(amount, counts)


def wealth(probes, candidates, *p0s: float, closed: bool = False):
    """(that loads up to each candidate miss too often, that loads above it hit often enough), as logarithms."""
    return log_wealths(probes, p0s or (0.95,), candidates, closed=closed)


def monitor(*rules, amount: float = 1.0, closed: bool = True) -> SequentialMonitor:
    """A monitor of one probe, in a search that knows nothing else."""
    grid = Users(200) if closed else Rates.of(0.1, 200)
    evidence = SearchEvidence(rules, grid, confidence=1 - ALPHA, closed=closed)
    load = Closed(round(amount)) if closed else Open(amount, None)
    return evidence.monitor(Probe(grid.nearest(amount), Purpose.TEST), load, opens_ns=0)


@pytest.mark.slow
@pytest.mark.parametrize("p0", [0.5, 0.9, 0.95, 0.99])
def test_peeking_at_every_request_keeps_the_error(p0):
    """Loads 8 and 16 at the very share that is asked for, looked at after every tenth of 1500 requests: a candidate
    that the share agrees with is rejected in at most α of the streams, from either side, by Ville's inequality."""
    rng = np.random.default_rng(5)
    wrong = [0, 0]
    for _ in range(40):
        hits = [np.cumsum(rng.random(750) < p0) for _ in range(2)]
        highest = np.full(2, -math.inf)
        for n in range(20, 751, 10):
            probes = [at(load, independent(int(seen[n - 1]), n)) for load, seen in zip((8, 16), hits, strict=True)]
            below, above = wealth(probes, [4, 16], p0)
            highest = np.maximum(highest, [below[1], above[0]])
        wrong = [count + (log >= math.log(1 / ALPHA)) for count, log in zip(wrong, highest, strict=True)]
    assert max(wrong) <= most(40, ALPHA), wrong


@pytest.mark.slow
@settings(max_examples=25)
@given(st.sampled_from([0.5, 0.9, 0.95, 0.99]), st.integers(20, 150), st.sampled_from([4.0, 8.0, 60.0]))
def test_wealth_is_a_fair_game(p0, n, load):
    """After n requests at the share asked for, the wealth is 1 on average at most: the sum over all numbers of hits."""
    means = np.zeros((2, 3))
    for k in range(n + 1):
        log = math.log(math.comb(n, k)) + k * math.log(p0) + (n - k) * math.log1p(-p0)
        means += np.exp(log + np.array(wealth([at(load, independent(k, n))], [5, 6, 50], p0)))
    assert means.max() <= 1 + 1e-6


@given(st.integers(20, 500), st.integers(0, 500))
def test_more_hits_never_speak_against_passing(hits, misses):
    """Wealth for PASS grows with each hit and falls with each miss; for FAIL it is the other way round."""

    def both(hits, misses):
        below, above = wealth([at(10, independent(hits, hits + misses))], [9, 10])
        return above[0], below[1]

    passes, fails = both(hits, misses)
    assert both(hits, misses + 1)[0] < passes
    assert both(hits + 1, misses)[1] < fails


def test_flawless_servers_pass_soon_and_hopeless_ones_fail_at_once():
    """By p95 at 95 %: some 100 requests without a miss; one user's first three that all miss."""
    needed = math.log(2 / ALPHA)
    clean = next(n for n in range(20, 999) if wealth([at(10, independent(n, n))], [9, 10])[1][0] >= needed)
    assert clean <= 110
    assert wealth([at(1, independent(0, 3))], [1], closed=True)[0][0] >= needed


def test_correlated_queues_are_not_passed_by_a_calm_stretch():
    """M/M/1 at 70 %, its p90 asked to be what it is not by far: no more wrong proofs than α says, under peeking."""
    wrong = 0
    rule = parse_objective("ttft_p90<1s")
    bound = math.log(10) / 0.3 * 0.85  # below the true p90: the share is too small
    for seed in range(40):
        _, waits, services = single(np.random.default_rng(seed), rate=0.7, n=800)
        judge = monitor(rule, closed=False)
        for number, response in enumerate(waits + services):
            judge.add(a_sample(number, due_ns=number * S, ttft_ns=max(1, round(response / bound * S))))
            if number % 100 == 99 and judge.finding(number * S).decision == "PASS":
                wrong += 1
                break
    assert wrong <= most(40, ALPHA)


def test_requests_count_in_the_order_in_which_they_were_due():
    """While an early request is under way, those after it do not count: the quick ones end first."""
    judge = monitor(TTFT)
    for number in range(30):
        judge.started(number, number * MS)
    for number in range(1, 30):
        judge.add(a_sample(number, due_ns=number * MS))
    assert judge.known == 0
    judge.add(a_sample(0, due_ns=0, ttft_ns=5 * S))
    assert judge.known == 30
    assert judge.counts()[0].hits == 29


def test_failures_are_misses_and_what_the_user_cut_is_nothing():
    """A failed request misses an objective on its latency; a cancelled one and one of the warm-up do not count."""
    judge = monitor(TTFT, parse_objective("failures<1%"))
    judge.add(a_failure(Outcome.HTTP_ERROR, number=0))
    judge.add(a_failure(Outcome.CANCELLED, number=1))
    judge.add(a_sample(2, phase=Phase.WARM_UP))
    judge.add(a_sample(3))
    assert [(count.n, count.hits) for count in judge.counts()] == [(2, 1), (2, 1)]


def test_users_who_would_not_wait_as_long_as_the_bound_count_for_nothing():
    """One who would, and left without the figure, is a miss. In neither case it is a failure, or hides one."""
    judge = monitor(TTFT, parse_objective("failures<1%"))
    enough, little = Patience(round(TTFT.bound)), Patience(round(TTFT.bound) - 1)
    ends = product((Outcome.GAVE_UP, Outcome.OK, Outcome.RESET), (enough, little))
    for number, (outcome, patience) in enumerate(ends):
        sample = a_sample(number) if outcome is Outcome.OK else a_failure(outcome, number=number)
        judge.add(dataclasses.replace(sample, request=dataclasses.replace(sample.request, patience=patience)))
    assert [(count.n, count.hits) for count in judge.counts()] == [(3, 1), (4, 2)]
    assert judge.known == 6
    assert judge.left_out[TTFT] == 3


def test_heavier_loads_vouch_for_lighter_ones_and_never_the_other_way():
    """What was seen at 12 helps to prove that 10 passes; what was seen at 8 does not."""
    own = at(10, independent(60, 60))
    alone, above, below = (
        wealth([own, *more], [9, 10])[1][0]
        for more in ([], [at(12, independent(60, 60))], [at(8, independent(60, 60))])
    )
    assert alone == below < above


def test_no_load_passes_before_everybody_has_asked_five_times():
    """A closed loop of 100 users is not judged by its first 400 answers, and an open one by enough of them is."""
    own = [at(100, independent(400, 400))]
    assert wealth(own, [99, 100], closed=True)[1][0] == 0
    assert wealth(own, [99, 100])[1][0] > math.log(2 / ALPHA)


@pytest.mark.parametrize(
    ("load", "n", "hits", "fails", "passes"),
    [
        (10, 19, 0, False, False),
        (10, 20, 0, True, False),
        (30, 29, 0, False, False),  # not each user has asked once
        (30, 30, 0, True, False),
        (1, 2, 0, False, False),
        (1, 3, 0, True, False),  # one request with no other load: three misses of three are enough
        (1, 4, 1, False, False),
        (2, 3, 0, False, False),
        (2, 19, 19, False, False),
        (2, 20, 20, False, True),
        (10, 49, 49, False, False),  # not each user has asked five times
        (10, 50, 50, False, True),
    ],
)
def test_few_requests_say_nothing(load, n, hits, fails, passes):
    """No bet has won before a queue had time to build up."""
    probe = [at(load, independent(hits, n))]
    misses, hits_often = wealth(probe, [load], closed=True)[0][0], wealth(probe, [load / 2], closed=True)[1][0]
    assert (misses > 1e-9, hits_often > 1e-9) == (fails, passes)


def test_leaning_is_the_likelihood_ratio_of_what_was_seen():
    """n KL(share, p0), to the side of the share; effective requests count."""
    assert leaning(0.9, independent(0, 0)) == 0
    assert leaning(0.9, independent(90, 100)) == pytest.approx(0)
    assert leaning(0.9, independent(100, 100)) == pytest.approx(100 * math.log(1 / 0.9))
    assert leaning(0.9, independent(0, 10)) == pytest.approx(-10 * math.log(1 / 0.1))
    seen = 80 * math.log(0.8 / 0.9) + 20 * math.log(0.2 / 0.1)
    assert leaning(0.9, independent(80, 100)) == pytest.approx(-seen)
    assert leaning(0.9, HitCount(100, 80, 25.0)) == pytest.approx(-seen / 4)


def test_all_objectives_pass_or_one_fails():
    """One objective that is far from met makes the load fail, and one that is open keeps it from passing."""

    def standing(second: HitCount):
        rules = [TTFT, parse_objective("tpot_p95<80ms")]
        evidence = SearchEvidence(rules, Rates.of(0.1, 200), confidence=1 - ALPHA, closed=False)
        found = evidence.standing(at(1, independent(300, 300), second))
        return found.decision(evidence.grid.nearest(1))

    assert standing(independent(0, 30)) == "FAIL"
    assert standing(independent(29, 30)) == "UNDECIDED"
    assert standing(independent(300, 300)) == "PASS"


def test_an_open_loop_above_capacity_fails_by_its_queue():
    """D/D/1 at 110 %: requests in flight grow, and the load fails though no request has missed a generous bound."""
    rule = parse_objective("ttft_p95<10m")
    judge = monitor(rule, amount=1.1, closed=False)
    rng = random.Random(1)
    for number in range(220):
        due_ns = round(number * S / 1.1)
        judge.started(number, due_ns)
        ends_ns = max(due_ns, number * S) + S + rng.randrange(MS)
        if ends_ns < 200 * S:
            judge.add(a_sample(number, due_ns=due_ns, ttft_ns=ends_ns - due_ns - 200 * MS))
    assert judge.finding(200 * S).decision == "FAIL"
    assert judge.overloaded


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), min_size=1, max_size=60))
def test_effective_n_is_never_more_than_there_is(requests):
    """However requests fare, they are worth no more than their number."""
    judge = monitor(TTFT)
    for number, (quick, seconds) in enumerate(requests):
        judge.add(a_sample(number, due_ns=number * S, ttft_ns=100 * MS if quick else seconds * S))
    (count,) = judge.counts()
    assert 0 < count.effective_n <= count.n == len(requests)


def test_shares_that_objectives_ask_for():
    """A quantile asks for its own share, a limit on failures for the rest of it."""
    assert required_share(TTFT) == 0.95
    assert required_share(parse_objective("failures<1%")) == 0.99


@pytest.mark.parametrize(("grows_by", "overloaded"), [(0, False), (6, False), (16, True)])
def test_a_queue_grows_if_it_keeps_one_arrival_in_twenty(grows_by, overloaded):
    """Of 200 arrivals, one a second; a rise that is smaller may be an end of the warm-up."""
    judge = monitor(parse_objective("ttft_p95<10m"), amount=1.0, closed=False)
    for number in range(200):
        took_ns = S + round(number / 200 * grows_by * S)
        judge.started(number, number * S)
        if number * S + took_ns < 200 * S:
            judge.add(a_sample(number, due_ns=number * S, ttft_ns=took_ns - 200 * MS))
    assert judge.finding(200 * S).decision == ("FAIL" if overloaded else "PASS")
    assert judge.overloaded is overloaded


def test_requests_are_counted_by_how_many_others_they_met():
    """Those of the warm-up are others too, from the start of the window on; what was cut or never sent counts for
    nothing."""
    rules = (TTFT, parse_objective("failures<1%"))
    evidence = SearchEvidence(rules, Users(200), confidence=1 - ALPHA)
    judge = evidence.monitor(Probe(3, Purpose.TEST), Closed(3), opens_ns=10 * S)
    judge.started(0, 8 * S, measured=False)
    judge.started(1, 12 * S)
    judge.started(2, 13 * S)
    judge.add(a_sample(0, due_ns=8 * S, ttft_ns=6 * S - 200 * MS, phase=Phase.WARM_UP))  # until 14 s
    judge.add(a_sample(1, due_ns=12 * S, ttft_ns=4 * S - 200 * MS))  # until 16 s
    judge.started(3, 17 * S)
    judge.add(a_failure(Outcome.CANCELLED, number=3, due_ns=17 * S))  # until 18 s
    judge.add(a_failure(Outcome.RESET, number=2, due_ns=18 * S))  # until 19 s
    states = judge.states
    assert states.met.tolist() == [0, 1, 1, 0]
    assert states.missed.tolist() == [[0, 1, 1, 0], [0, 0, 1, 0]]
    assert states.seconds.tolist() == pytest.approx([0, 2 + 1 + 1, 1 + 2 + 1, 1])
    assert states.ended.tolist() == [0, 1, 1, 1]
    assert judge.ended == 2


def test_only_requests_of_both_kinds_show_how_they_depend_on_each_other():
    """Hits alone, or misses alone, may be independent or not."""
    for ttft_s, is_known in ((lambda _: 0.1, False), (lambda _: 3, False), (lambda n: 3 if n % 10 < 5 else 0.1, True)):
        judge = monitor(TTFT)
        for number in range(100):
            judge.add(a_sample(number, due_ns=number * S, ttft_ns=round(ttft_s(number) * S)))
        (count,) = judge.counts()
        assert (count.inefficiency is not None) is is_known
        assert count.inefficiency is None or count.inefficiency > 2
    assert HitCount() == HitCount(0, 0, 0.0)
    assert HitCount().share is None
