"""What objectives come to: the exact interval of a share, the decision by it, goodput, and the verdict."""

from __future__ import annotations

import dataclasses
import math
from array import array
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.analyze.level.objectives import with_gates
from loadbench.analyze.level.steady import Unjudged
from loadbench.analyze.stats.effective_n import effective_n
from loadbench.analyze.stats.intervals import quantile_ranks, share_interval
from loadbench.analyze.stats.student import quantile
from loadbench.plan.load import Closed
from loadbench.plan.objective import parse_objective
from loadbench.record.outcome import Outcome
from loadbench.results.run import Reason, Verdict
from tests.building import MS, S, a_failure, a_level, a_recording, a_sample, calm


def at_most(k: int, n: int, p: float) -> Fraction:
    """P(Bin(n, p) <= k), exactly."""
    exact = Fraction(p)
    return sum((math.comb(n, i) * exact**i * (1 - exact) ** (n - i) for i in range(k + 1)), Fraction(0))


# The interval of a share.


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95]))
def test_share_interval_is_that_of_the_exact_sums(seen, confidence):
    """At its ends so many hits, or so few, are just as rare as the tail allows, by binomial sums in fractions."""
    hits, n = seen
    low, high = share_interval(hits, n, confidence)
    tail = (1 - confidence) / 2
    assert low == 0 if hits == 0 else float(1 - at_most(hits - 1, n, low)) == pytest.approx(tail, rel=1e-9)
    assert high == 1 if hits == n else float(at_most(hits, n, high)) == pytest.approx(tail, rel=1e-9)
    assert low <= hits / n <= high


@pytest.mark.parametrize(
    ("n", "misses", "low"),
    [
        (300, 0, 0.9901),
        (300, 1, 0.9843),
        (300, 2, 0.9792),
        (300, 5, 0.9653),
        (1000, 0, 0.9970),
        (1000, 1, 0.9953),
        (1000, 2, 0.9937),
        (1000, 5, 0.9895),
    ],
)
def test_share_interval_is_that_of_the_tables(n, misses, low):
    """One-sided 95 %, which is 90 % of both sides."""
    assert share_interval(n - misses, n, 0.90)[0] == pytest.approx(low, abs=5e-5)


@pytest.mark.parametrize(("hits", "n"), [(1, 10**6), (999_990, 10**6), (500_000, 10**6)])
def test_share_interval_of_a_million(hits, n):
    """Large samples neither overflow nor lose the tail: about where the normal law, or Poisson's, has it."""
    low, high = share_interval(hits, n)
    misses = min(hits, n - hits)
    assert low < hits / n < high
    assert high - low < 10 * math.sqrt(max(misses, 1)) / n


@pytest.mark.parametrize(("hits", "n", "confidence"), [(1, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_share_interval_of_the_impossible(hits, n, confidence):
    """More hits than tries, or no try at all."""
    with pytest.raises(ValueError, match="no share"):
        share_interval(hits, n, confidence)


@given(st.integers(1, 500), st.sampled_from([0.5, 0.9, 0.95]), st.data())
def test_share_and_quantile_agree(n, p, data):
    """The share of values below a bound is surely above p just where the p-quantile is surely below that bound."""
    hits = data.draw(st.integers(0, n))
    first, last = quantile_ranks(n, p)
    low, high = share_interval(hits, n)
    assert (low >= p) == (last is not None and hits >= last)
    assert (high < p) == (first is not None and hits < first)


# Decisions.


def level(samples, *rules: str, gate: bool = False, load=None, **facts):
    """A level held against these rules."""
    objectives = [dataclasses.replace(parse_objective(rule), gate=gate) for rule in rules]
    return a_level(recording=a_recording(samples, window_ns=500 * S, objectives=objectives, **facts), load=load)


def decided(samples, rule: str, **facts):
    """What becomes of one rule."""
    (one,) = level(samples, rule, **facts).objectives
    return one


def answers(quick: int, slow: int = 0) -> list:
    """So many answers with a TTFT of 100 ms, and of 2 s, these strewn evenly among them."""
    total = quick + slow
    return [a_sample(n, due_ns=n * S, ttft_ns=(2000 if n * slow % total < slow else 100) * MS) for n in range(total)]


def varied(count: int) -> list:
    """So many answers with independent TTFTs from 10 to 190 ms."""
    ttft_ms = np.random.default_rng(3).uniform(10, 190, count)
    return [a_sample(n, due_ns=n * S, ttft_ns=round(ms * MS)) for n, ms in enumerate(ttft_ms)]


def failures(count: int, *, every_s: int = 1) -> list:
    """So many requests that failed."""
    return [a_failure(Outcome.RESET, number=n, due_ns=n * every_s * S) for n in range(count)]


@pytest.mark.parametrize(
    ("samples", "rule", "decision"),
    [
        # Far from the bound, where the next of n is beyond all of them one time in n + 1.
        (answers(19), "ttft_p95<1s", "PASS"),
        (answers(18), "ttft_p95<1s", "UNDECIDED"),
        (answers(99), "ttft_p99<1s", "PASS"),
        # Near it, 72 independent ones are the least for which a p95 has an interval of 95 %.
        (varied(150), "ttft_p95<200ms", "PASS"),
        (varied(71), "ttft_p95<200ms", "UNDECIDED"),
        (answers(400, 1), "ttft_p99<1s", "UNDECIDED"),
        (varied(800), "ttft_p99<200ms", "PASS"),
        (answers(90, 10), "ttft_p95<1s", "UNDECIDED"),
        (answers(85, 15), "ttft_p95<1s", "FAIL"),
        # It takes far fewer to tell that most are too slow.
        (answers(0, 3), "ttft_p50<1s", "UNDECIDED"),
        (answers(0, 6), "ttft_p50<1s", "FAIL"),
        (answers(0, 2), "ttft_p95<1s", "FAIL"),
        # Failures are infinitely slow.
        ([*answers(72), *failures(1)], "ttft_p95<1s", "UNDECIDED"),
        ([*answers(80), *failures(20, every_s=4)], "ttft_p95<1h", "FAIL"),
        ([*answers(200), *failures(1)], "ttft_mean<1h", "FAIL"),
        ([*answers(200), *failures(1)], "ttft_max<1h", "FAIL"),
        (answers(19), "ttft_mean<1s", "UNDECIDED"),
        (answers(20), "ttft_mean<1s", "PASS"),
        (answers(30), "ttft_mean<100ms", "FAIL"),
        (answers(20, 20), "ttft_mean<1.1s", "UNDECIDED"),
        (answers(20, 20), "ttft_mean<700ms", "FAIL"),
        (answers(1), "ttft_max<101ms", "PASS"),
        (answers(500, 1), "ttft_max<1s", "FAIL"),
        (answers(400), "failures<1%", "PASS"),
        (answers(300), "failures<1%", "UNDECIDED"),
        ([*answers(50), *failures(50)], "failures<10%", "FAIL"),
        ([*answers(95), *failures(5)], "failures<5%", "UNDECIDED"),
        # 500 answers of 11 tokens in 500 s: one request and 11 tokens a second.
        (answers(500), "requests_per_s>0.9", "PASS"),
        (answers(500), "requests_per_s>1.2", "FAIL"),
        (answers(500), "output_tokens_per_s>10", "PASS"),
        (answers(500), "output_tokens_per_s>12", "FAIL"),
        (answers(250), "output_tokens_per_s>5.5", "UNDECIDED"),
    ],
)
def test_decision(samples, rule, decision):
    """PASS and FAIL where the interval lies wholly on one side of the bound, UNDECIDED between and for too few."""
    assert decided(samples, rule).decision == decision


@pytest.mark.parametrize(
    ("samples", "rule"),
    [
        ([], "ttft_p95<1h"),
        ([], "failures<99%"),
        (failures(1), "ttft_p50<1h"),
        (failures(1), "ttft_max<1h"),
        ([a_sample(output_tokens=1, event_ns=array("q", [0]), event_tokens=array("q", [1]))] * 100, "tpot_p50<1h"),
        (failures(1), "itl_p99<1h"),
    ],
)
def test_objective_without_a_sample_fails(samples, rule):
    """I1, D15, E5: what was not seen once is no pass, and has no value."""
    one = decided(samples, rule)
    assert (one.decision, one.value, one.interval) == ("FAIL", None, None)
    assert "no request" in one.note


def test_quantile_is_told_with_its_doubt():
    """Value and interval in seconds over successes and failures, the share below the bound and its interval."""
    one = decided([*answers(150, 10), *failures(2, every_s=70)], "ttft_p90<1s")
    assert one.value == pytest.approx(0.1, rel=1e-3)
    low, high = one.interval
    assert low == pytest.approx(0.1, rel=1e-3)
    assert high == pytest.approx(2.0, rel=1e-3)
    assert one.share == 150 / 162
    assert one.share_interval == pytest.approx(share_interval(150, 162), abs=0.01)
    assert (one.decision, one.rule) == ("UNDECIDED", "ttft_p90<1s")
    assert "92.6 % of requests met it" in one.note


def test_quantile_among_the_failures_is_infinite():
    """There is no number for it, and the note says so."""
    one = decided([*answers(50), *failures(50)], "ttft_p90<1s")
    assert (one.decision, one.value, one.interval) == ("FAIL", None, (None, None))
    assert "infinite" in one.note


def test_missed_arrivals_are_infinitely_slow_too():
    """B3: what was due and never sent is not left out of the count."""
    assert decided(answers(100), "ttft_p95<1s").decision == "PASS"
    assert decided(answers(100), "ttft_p95<1s", missed=20).decision == "FAIL"
    assert decided(answers(100), "failures<5%", missed=20).decision == "FAIL"


def gaps(number: int, *, slow: bool) -> list:
    """An answer whose hundred gaps are all of 20 ms, or all of 200."""
    stamps = array("q", (number * S + 100 * MS + index * (200 if slow else 20) * MS for index in range(101)))
    fields = {"event_ns": stamps, "event_tokens": array("q", [1] * 101), "last_token_ns": stamps[-1]}
    return a_sample(number, due_ns=number * S, output_tokens=101, end_ns=stamps[-1], **fields)


def test_gaps_of_one_request_are_hardly_worth_more_than_one():
    """2000 gaps of 20 requests, of which two are slow throughout: as doubtful as 2 of 20, not as 200 of 2000."""
    samples = [gaps(n, slow=n % 10 == 3) for n in range(20)]
    clustered = decided(samples, "event_gap_p50<100ms")
    assert clustered.share == pytest.approx(0.9)
    low, high = clustered.share_interval
    narrow_low, narrow_high = share_interval(1800, 2000)
    low_20, high_20 = share_interval(18, 20)
    assert high - low > 4 * (narrow_high - narrow_low)
    assert low == pytest.approx(low_20, abs=0.12)
    assert high == pytest.approx(high_20, abs=0.02)
    assert clustered.decision == "PASS"
    assert decided(samples, "event_gap_p95<100ms").decision == "UNDECIDED"


def test_gaps_that_all_agree_count_as_one_a_request():
    """Where no request differs nothing tells how many of its gaps are worth one: the least is taken."""
    samples = [gaps(n, slow=False) for n in range(20)]
    assert decided(samples, "itl_p99<100ms").share_interval == (1 - 1 / 21, 1)


def test_requests_that_hang_together_are_worth_fewer():
    """A slow stretch in the middle: 80 slow ones of 400 in a row leave open what 80 strewn about decide."""
    strewn = [a_sample(n, due_ns=n * S, ttft_ns=(2000 if n % 5 == 0 else 100) * MS) for n in range(400)]
    in_a_row = [a_sample(n, due_ns=n * S, ttft_ns=(2000 if 160 <= n < 240 else 100) * MS) for n in range(400)]
    assert decided(strewn, "ttft_p90<1s").share == decided(in_a_row, "ttft_p90<1s").share == 0.8
    assert decided(strewn, "ttft_p90<1s").decision == "FAIL"
    assert decided(in_a_row, "ttft_p90<1s").decision == "UNDECIDED"
    assert decided(strewn, "ttft_mean<600ms").decision == "PASS"
    assert decided(in_a_row, "ttft_mean<600ms").decision == "UNDECIDED"


# Goodput.


def test_goodput_is_of_every_measured_arrival():
    """8 of 12 good: two too slow, one failed, one missed; per second of the window, with their tokens."""
    made = level([*answers(8, 2), *failures(1)], "ttft_p95<1s", "failures<50%", missed=1)
    good = made.goodput
    assert (good.good, good.arrivals) == (8, 12)
    assert good.requests_per_s == 8 / 500
    assert good.output_tokens_per_s == 88 / 500
    assert good.attainment == 8 / 12
    low, high = share_interval(8, 12)
    assert good.attainment_interval[0] <= low < high <= good.attainment_interval[1]


def test_goodput_counts_an_undefined_figure_as_missed():
    """D15: an answer of one token passes no bound on its TPOT."""
    single = a_sample(1, due_ns=S, output_tokens=1, event_ns=array("q", [0]), event_tokens=array("q", [1]))
    good = level([a_sample(), single], "tpot_p95<1h").goodput
    assert (good.good, good.arrivals) == (1, 2)


def test_no_goodput_without_objectives_for_it():
    """Without any, with one on the throughput only, or without a request."""
    assert level(answers(3)).goodput is None
    assert level(answers(3), "requests_per_s>1").goodput is None
    assert level([], "ttft_p95<1s").goodput is None
    assert level(failures(3), "ttft_p95<1s").goodput.attainment == 0


# The verdict.


def test_undecided_gate_makes_a_valid_level_inconclusive():
    """With the rules and why they are undecided; a gate that is decided, either way, leaves it VALID."""
    made = level(answers(40), "ttft_p99<1s", "ttft_p50<1s", "e2e_p50<1ms", gate=True)
    assert [one.decision for one in made.objectives] == ["UNDECIDED", "PASS", "FAIL"]
    assert made.verdict.status == "INCONCLUSIVE"
    (reason,) = made.verdict.reasons
    assert reason.code == "undecided"
    assert "ttft_p99<1s" in reason.message
    assert "ttft_p50" not in reason.message
    assert level(answers(40), "ttft_p50<1s", "e2e_p50<1ms", gate=True).verdict.status == "VALID"


def test_objective_that_is_no_gate_only_reports():
    """Undecided or missed, the measurement is what it was."""
    assert level(answers(40), "ttft_p95<1s", "e2e_p50<1ms").verdict.status == "VALID"


def test_invalid_level_stays_invalid():
    """What cannot be believed is not merely undecided."""
    made = level(answers(40), "ttft_p99<1s", gate=True, health=calm(lag_ns=9 * MS), load=Closed(2))
    assert made.verdict.status == "INVALID"
    assert "undecided" not in [reason.code for reason in made.verdict.reasons]


TTFT, DECODING, LEVEL = (Reason("steadiness_unknown", f"{name} is unknown", "") for name in ("TTFT", "speed", "both"))


@pytest.mark.parametrize(
    ("rule", "unknown", "status"),
    [
        # What could not be judged, and what it does not concern.
        ("ttft_p50<190ms", Unjudged(ttft=TTFT), "INCONCLUSIVE"),
        ("ttft_p50<190ms", Unjudged(decoding=DECODING), "VALID"),
        ("tpot_p50<19ms", Unjudged(decoding=DECODING), "INCONCLUSIVE"),
        ("itl_mean<19ms", Unjudged(decoding=DECODING), "INCONCLUSIVE"),
        ("tpot_p50<19ms", Unjudged(ttft=TTFT), "VALID"),
        ("e2e_p50<390ms", Unjudged(ttft=TTFT), "VALID"),
        ("e2e_p50<390ms", Unjudged(ttft=TTFT, level=LEVEL), "INCONCLUSIVE"),
        ("output_tokens_per_s>6", Unjudged(decoding=DECODING, level=LEVEL), "INCONCLUSIVE"),
        ("failures<10%", Unjudged(TTFT, DECODING, LEVEL), "VALID"),
        # A slow-down to half the speed would not have made it fail.
        ("ttft_p50<201ms", Unjudged(ttft=TTFT), "VALID"),
        ("ttft_max<201ms", Unjudged(ttft=TTFT), "VALID"),
        ("ttft_mean<199ms", Unjudged(ttft=TTFT), "INCONCLUSIVE"),
        ("e2e_p50<450ms", Unjudged(level=LEVEL), "VALID"),
        ("output_tokens_per_s>5", Unjudged(level=LEVEL), "VALID"),
        # A gate that fails has failed.
        ("ttft_p50<90ms", Unjudged(ttft=TTFT), "VALID"),
    ],
)
def test_gate_that_could_fail_a_minute_later_is_undecided(rule, unknown, status):
    """TTFT 100 ms, TPOT 10 ms, E2E 200 ms, 11 tokens a second. The objective keeps its decision."""
    samples = [a_sample(n, due_ns=n * S, ttft_ns=100 * MS, gaps_ns=10 * MS) for n in range(500)]
    objective = dataclasses.replace(parse_objective(rule), gate=True)
    made = level(samples, rule, gate=True)
    verdict = with_gates(Verdict("VALID", []), [objective], made.objectives, unknown)
    assert verdict.status == status
    if status == "INCONCLUSIVE":
        assert verdict.reasons[0].message.startswith("these gates would pass, but ")
        assert rule in verdict.reasons[0].message
    assert made.objectives[0].decision == ("FAIL" if rule == "ttft_p50<90ms" else "PASS")


# What is said.


def test_how_many_more_would_decide_is_said():
    """By count and, where the values are far from the bound, by distance; where some missed, by the width of the
    interval, unless the share is so near to the bound that nobody would measure for so long."""
    one = decided(answers(300), "failures<1%")
    assert one.note == "none of 300 requests failed; 368 without a failure would decide it"
    assert decided([*answers(95), *failures(5)], "failures<5%").note == "the bound lies inside the 95 % interval"
    note = decided(answers(18), "ttft_p95<1s").note
    assert note.startswith("100 % of requests met it, 95 % interval 94.7 % to 100 %; at least 95 % must")
    assert note.endswith("; 19 without a miss would decide it")
    assert decided(varied(71), "ttft_p95<200ms").note.endswith(
        "; 72 independent ones without a miss would decide it, and these 71 count as 64"
    )
    more = "; about 110 would decide it if the share stays the same"
    assert decided(answers(90, 10), "ttft_p95<1s").note.endswith(f"at least 95 % must{more}")
    assert decided(answers(99, 11), "ttft_p95<1s").decision == "FAIL"
    assert decided(answers(94, 6), "ttft_p95<1s").note.endswith("at least 95 % must")
    assert "% of values met it" in decided([gaps(n, slow=n == 3) for n in range(20)], "event_gap_p95<100ms").note


def test_a_mean_and_a_maximum_have_their_values_in_seconds():
    """A mean has an interval from 20 requests on: Student's t, wider the more they depend on each other."""
    few, many = decided(answers(19), "ttft_mean<1s"), decided(varied(400), "ttft_mean<1s")
    assert (few.value, few.interval) == (pytest.approx(0.1, rel=1e-3), None)
    assert few.note == "the interval of a mean needs 20 requests, but there are only 19"
    ttft_s = np.random.default_rng(3).uniform(10, 190, 400) / 1e3
    low, high = many.interval
    assert many.value == pytest.approx(ttft_s.mean(), rel=1e-3) == pytest.approx((low + high) / 2, rel=1e-3)
    plain = 1.966 * ttft_s.std(ddof=1) / 20
    assert plain * 0.999 < (high - low) / 2 < 1.5 * plain
    low, high = decided(varied(20), "ttft_mean<1s").interval
    ttft_s = np.random.default_rng(3).uniform(10, 190, 20) / 1e3
    effective = effective_n(ttft_s)
    reach = quantile(0.975, effective - 1) * ttft_s.std(ddof=1) / math.sqrt(effective)
    assert (high - low) / 2 == pytest.approx(reach, rel=1e-3)
    in_a_row = [a_sample(n, due_ns=n * S, ttft_ns=(2000 if 160 <= n < 240 else 100) * MS) for n in range(400)]
    low, high = decided(in_a_row, "ttft_mean<600ms").interval
    assert high - low > 8 * 1.966 * 0.76 / 20
    assert decided(answers(500, 1), "ttft_max<1s").value == pytest.approx(2.0, rel=1e-3)
    assert decided([*answers(200), *failures(3)], "ttft_max<1h").note == "infinite: 3 failed"


def test_a_quantile_among_few_requests_has_open_ends():
    """Below the smallest nothing is known, and above the largest a request may be infinitely slow."""
    one = decided(answers(5), "ttft_p50<1s")
    assert (one.value, one.interval) == (pytest.approx(0.1, rel=1e-3), (0.0, None))
    one = decided(answers(150), "ttft_p90<1s")
    assert one.interval == (pytest.approx(0.1, rel=1e-3), pytest.approx(0.1, rel=1e-3))
    assert decided([gaps(n, slow=False) for n in range(20)], "itl_p99<100ms").interval is None
