"""A level's figures: each from its definition, in seconds, with its doubt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadbench.analyze.level.summary import INDEPENDENT, metric
from loadbench.core.units import parse_duration
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.distribution import parse_distribution
from loadbench.plan.load import Closed, Open, Phase
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome
from loadbench.results.run import ClosedLoad, OpenLoad
from tests.building import MS, S, a_failure, a_level, a_recording, a_sample, calm


def test_throughput_is_what_arrived_over_the_window():
    """Ten answers of eleven tokens in a window of 100 s, prompts of 50 tokens beside them."""
    level = a_level(a_sample(n, due_ns=n * S) for n in range(10))
    assert level.throughput.requests_per_s == pytest.approx(0.1)
    assert level.throughput.output_tokens_per_s == pytest.approx(1.1)
    assert level.throughput.total_tokens_per_s == pytest.approx(6.1)
    assert (level.tokens.input, level.tokens.output) == (500, 110)


def test_latencies_are_in_seconds():
    """TTFT 100 ms, gaps of 20 ms, ten gaps."""
    metrics = a_level([a_sample()]).metrics
    assert metrics["ttft_s"].p50 == pytest.approx(0.1, rel=1e-3)
    assert metrics["tpot_s"].p50 == pytest.approx(0.02, rel=1e-3)
    assert metrics["e2e_s"].p50 == pytest.approx(0.3, rel=1e-3)
    assert metrics["event_gap_s"].count == 10
    assert metrics["ttft_s"].min == metrics["ttft_s"].max == 0.1


def test_absent_is_null_and_never_zero():
    """Where nothing was answered there is no latency at all."""
    level = a_level([a_failure(Outcome.RESET)])
    assert level.metrics["ttft_s"] is None
    assert level.outcomes == {"reset": 1}


def test_small_sample_has_quantiles_with_open_ends():
    """Ten requests have a median between two of them, and a p99 of which only the lower end is known."""
    ttft = a_level(a_sample(n, due_ns=n * S) for n in range(10)).metrics["ttft_s"]
    assert ttft.interval["p50"] == (0.1, 0.1)
    assert ttft.interval["p99"] == (0.1, None)
    assert ttft.p99 > 0
    assert ttft.effective == 10


def test_interval_reaches_to_the_ends_of_its_buckets():
    """Values are known to a bucket of the histogram, and so is each end of an interval."""
    values = [100 * MS + 20_000 * n for n in range(100)]
    histogram = Histogram()
    histogram.record_many(values)
    low, high = metric(histogram, failures=0, correlated=INDEPENDENT).interval["p50"]
    assert low * S <= values[39] < values[60] <= high * S
    assert low * S > values[39] * 0.999
    assert high * S < values[60] * 1.001


def test_interval_holds_its_quantile():
    """Every interval that exists contains the quantile that it is for."""
    ttft = a_level().metrics["ttft_s"]
    for name, interval in ttft.interval.items():
        low, high = interval
        assert low <= getattr(ttft, name)
        assert high is None or getattr(ttft, name) <= high
    assert ttft.interval["p95"][1] is not None
    assert ttft.interval["p99"][1] is None


def test_gaps_have_no_interval_of_independent_values():
    """A request brings many gaps that hang together: no order-statistic interval is made up for them."""
    level = a_level()
    assert set(level.metrics["event_gap_s"].interval.values()) == {None}


def test_failures_are_infinitely_slow_beside_successes_only():
    """With 40 % failures the median is finite and p90 is not; over successes alone both are."""
    samples = [a_sample(n, due_ns=n * S) for n in range(6)]
    samples += [a_failure(Outcome.HTTP_ERROR, number=n, due_ns=n * S) for n in range(6, 10)]
    ttft = a_level(samples).metrics["ttft_s"]
    assert ttft.with_failures["p50"] == pytest.approx(0.1, rel=1e-3)
    assert ttft.with_failures["p90"] is None
    assert ttft.p90 == pytest.approx(0.1, rel=1e-3)


def test_request_cut_by_the_drain_counts_as_infinitely_slow():
    """What was abandoned had not answered in time; what the user cut says nothing of the server."""
    samples = [a_sample(0), a_failure(Outcome.ABANDONED, number=1)]
    assert a_level(samples).metrics["ttft_s"].with_failures["p90"] is None
    samples = [a_sample(0), a_failure(Outcome.CANCELLED, number=1)]
    assert a_level(samples).metrics["ttft_s"].with_failures["p90"] is not None


def test_failures_are_grouped_by_what_they_said():
    """The most frequent comes first, with its count."""
    samples = [a_failure(Outcome.HTTP_ERROR, number=n, detail="HTTP 503: busy") for n in range(3)]
    samples.append(a_failure(Outcome.RESET, number=3, detail="gone"))
    failures = a_level(samples).failures
    assert [(one.outcome, one.detail, one.count) for one in failures] == [
        ("http_error", "HTTP 503: busy", 3),
        ("reset", "gone", 1),
    ]


def test_load_is_told_as_it_was():
    """Users with their think time, rates with their arrivals."""
    think = parse_distribution("2s", parse_value=parse_duration)
    assert a_level(load=Closed(3, think)).load == ClosedLoad(3, "2s")
    assert a_level(load=Open(0.5, parse_arrivals("gamma:2"))).load == OpenLoad(0.5, "gamma:2")


def test_histogram_travels_with_the_metric():
    """The embedded histogram gives the same figures again."""
    histogram = Histogram()
    histogram.record_many([n * MS for n in range(1, 501)])
    told = metric(histogram, failures=0, correlated=INDEPENDENT)
    again = Histogram.decode(told.hdr)
    assert again.count == told.count
    assert again.percentile(95) / 1e9 == told.p95


def test_what_a_level_cost_the_client():
    """CPU time by request and by event of the whole level: those of the warm-up and those that failed cost too."""
    samples = [
        a_sample(number=0, phase=Phase.WARM_UP, due_ns=-2 * S),
        a_sample(number=1, due_ns=S),
        a_failure(Outcome.RESET, number=2, due_ns=5 * S),
    ]
    known = a_level(recording=a_recording(samples, health=replace(calm(), cpu_ns=6_600_000))).client
    assert (known.cpu_s, known.cpu_per_request_s, known.cpu_per_event_s) == (0.0066, 0.0022, 0.0003)
    unknown = a_level(recording=a_recording(samples)).client
    assert (unknown.cpu_s, unknown.cpu_per_request_s, unknown.cpu_per_event_s) == (None, None, None)
    idle = a_level(recording=a_recording(samples[2:], health=replace(calm(), cpu_ns=6_000_000))).client
    assert (idle.cpu_per_request_s, idle.cpu_per_event_s) == (0.006, None)
