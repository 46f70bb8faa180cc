"""Whether the load generator's own delay could have changed a probe's decision: compared request by request."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.analyze.capacity.client_delay import ClientDelays
from loadbench.analyze.level.verdict import CLIENT_CODES, LESS_LOAD_CODES, client_reasons
from loadbench.plan.abandonment import Patience
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.load import Closed, Open, Phase
from loadbench.plan.objective import parse_objective
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome
from loadbench.results.run import Reason, Verdict
from tests.building import MS, S, a_sample

RATE = Open(20.0, parse_arrivals("poisson"))


def limited(samples, rule="ttft_p90<1s", *, load=RATE, codes=("late_start",), lag_ns=0, lags=1, most_lag_ns=None):
    """What is said of a probe with these samples, whose verdict has these reasons."""
    delays = ClientDelays([parse_objective(rule)])
    lateness, lag = Histogram(), Histogram()
    for sample in samples:
        delays.add(sample)
        lateness.record(sample.lateness() or 0)
    lag.record(lag_ns, lags)
    lag.record(lag_ns if most_lag_ns is None else most_lag_ns)
    level = SimpleNamespace(verdict=Verdict("INVALID", [Reason(code, f"because of {code}", "") for code in codes]))
    recording = SimpleNamespace(histograms={"lateness": lateness}, health=SimpleNamespace(loop_lag=lag))
    return delays.limited(level, load, recording)


def with_patience(sample, patience):
    """The same request of a user with such patience."""
    return dataclasses.replace(sample, request=dataclasses.replace(sample.request, patience=patience))


def late(ttft_ms, late_ms=2, **over):
    """A request that was sent late, with this TTFT since it was sent."""
    return a_sample(sent_ns=late_ms * MS, ttft_ns=(ttft_ms + late_ms) * MS, **over)


def test_a_probe_that_misses_by_far_counts_however_late():
    """A TTFT of 27.5 s is not due to 2 ms, nor are failures."""
    assert limited([late(27_500)] * 50) == ""
    assert limited([late(27_500)] * 50, codes=("late_start", "rate_not_reached", "lost_worker")) == ""
    failed = {"outcome": Outcome.TIMEOUT_TOTAL}
    assert limited([late(10, **failed)] * 50) == ""


def test_a_probe_that_passes_in_spite_of_the_delay_counts():
    """Without it, it would pass even more; but not where the load was less than it should be."""
    assert limited([late(10)] * 50) == ""
    assert limited([late(999)] * 50) == ""
    assert limited([late(10)] * 50, codes=("rate_not_reached",)) == "because of rate_not_reached"


def test_users_who_send_late_must_pass_with_their_delay_added():
    """They make less load; on time, their responses would take longer by the delay at most."""
    assert limited([late(10)] * 50, load=Closed(4)) == ""
    assert limited([late(999)] * 50, load=Closed(4)) == "because of late_start"
    assert limited([late(997)] * 50, load=Closed(4)) == ""


def test_a_probe_that_misses_by_less_than_the_delay_does_not_count():
    """1,001 ms of a bound of 1 s, sent 2 ms late: on time, it might have been within the bound."""
    assert limited([late(1001)] * 50) == "because of late_start"
    assert limited([late(1003)] * 50) == ""
    # The lateness of others delays a request too: a server serves in order.
    assert limited([late(1001, late_ms=0)] * 40 + [late(10, late_ms=9)] * 10) == "because of late_start"


def test_a_loop_that_lags_delays_every_stamp():
    """Where the loop takes the stamps, its lag is part of each."""
    assert limited([late(1040, late_ms=0)] * 50, codes=("loop_lag",), lag_ns=50 * MS) == "because of loop_lag"
    assert limited([late(1060, late_ms=0)] * 50, codes=("loop_lag",), lag_ns=50 * MS) == ""


def test_what_is_usual_delays_and_what_happened_once_does_not():
    """The lateness, or the lag, of 99 % of the requests; the loop's lag only where it is among the reasons."""
    for late_ones, said in ((2, "because of late_start"), (1, "")):
        requests = [late(1005, late_ms=0)] * (100 - late_ones) + [late(1005, late_ms=9)] * late_ones
        assert limited(requests) == said
    requests = [late(1040, late_ms=0)] * 50
    assert limited(requests, codes=("loop_lag",), lag_ns=MS, lags=199, most_lag_ns=50 * MS) == ""
    assert limited(requests, codes=("late_start",), lag_ns=50 * MS) == ""


@pytest.mark.parametrize(("doubtful", "counts"), [(3, False), (2, True)])
def test_half_of_the_surplus_must_be_beyond_doubt(doubtful, counts):
    """31 of 50 miss, 6 more than may: with 2 of them in doubt the probe fails, with 3 nobody knows."""
    requests = [late(27_500)] * (31 - doubtful) + [late(1001)] * doubtful + [late(10)] * 19
    assert (limited(requests, "ttft_p50<1s") == "") is counts


@pytest.mark.parametrize("rule", ["failures<10%", "ttft_p90<1s"])
@pytest.mark.parametrize("patience", [None, Patience(S)])
def test_failures_are_never_in_doubt(rule, patience):
    """6 of 50 are too many, 4 are not; users who gave up are neither. Failures count whoever waits."""
    for failures, said in ((6, ""), (4, "because of rate_not_reached")):
        requests = [late(10, outcome=Outcome.RESET)] * failures + [late(10)] * (50 - failures)
        if rule.startswith("failures"):
            requests += [late(10, outcome=Outcome.GAVE_UP)] * 50
        assert limited([with_patience(one, patience) for one in requests], rule, codes=("rate_not_reached",)) == said


def test_nothing_is_said_without_a_reason_or_a_request():
    """A level without such a reason counts; one with a reason and nothing measured shows nothing."""
    assert limited([late(1001)] * 50, codes=()) == ""
    assert limited([late(1001)] * 50, codes=("not_steady",)) == ""
    assert limited([]) == "because of late_start"
    assert limited([late(27_500, phase=Phase.WARM_UP)] * 50) == "because of late_start"


@pytest.mark.parametrize(("rule", "counts"), [("itl_p90<30ms", True), ("ttft_p90<1s", False)])
def test_late_reads_matter_for_times_between_tokens_alone(rule, counts):
    """A whole request changes by one such time at most; a gap that is late by as much as it misses does not count."""
    samples = [late(10, gaps_ns=31 * MS)] * 50
    assert limited(samples, rule, codes=("late_reads",), lag_ns=2 * MS) == ("because of late_reads" if counts else "")


@pytest.mark.parametrize("code", sorted(CLIENT_CODES))
def test_a_probe_with_less_load_than_planned_never_passes(code):
    """Arrivals that were not sent, or a part that did nothing: what was sent may well have been quick."""
    passes = limited([late(10)] * 50, "itl_p90<1s", codes=(code,)) == ""
    assert passes is (code not in LESS_LOAD_CODES)


def test_arrivals_that_an_overloaded_server_leaves_no_room_for_are_its_own():
    """--max-in-flight is full because the queue grew; where it did not grow, it was the load generator's limit."""
    reasons = [Reason("not_steady", "", ""), Reason("missed_arrivals", "", ""), Reason("late_start", "", "")]
    for evidence, codes in (([], ["missed_arrivals", "late_start"]), (["not_steady"], ["late_start"])):
        found = client_reasons(Verdict("INVALID", reasons, evidence), per_token=True)
        assert [reason.code for reason in found] == codes


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 50)), min_size=1, max_size=60))
def test_a_decision_that_the_delays_cannot_change_counts(requests):
    """Whatever the requests: if the probe misses or meets its bound with and without the largest delay, it counts."""
    worst = max(late_ms for _, late_ms in requests)
    missed = sum(ttft_ms >= 1000 for ttft_ms, _ in requests)
    surely_missed = sum(ttft_ms >= 1000 + worst for ttft_ms, _ in requests)
    said = limited([late(ttft_ms, late_ms) for ttft_ms, late_ms in requests])
    allowed = 0.1 * len(requests)
    if missed <= allowed or (surely_missed == missed > allowed + 1e-9):
        assert said == ""
    if surely_missed <= allowed < missed:
        assert said == "because of late_start"
