"""Intervals hold what they promise: against queues whose laws are known, as often as they say.

An interval of 95 % may miss in 5 % of levels; among so many levels the share is uncertain by its own standard error,
of which three are allowed. A level that states no interval does not miss; how many state one is asserted beside.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from loadbench.analyze.level.summary import INDEPENDENT, metric
from loadbench.analyze.stats.effective_n import CorrelatedSeries
from loadbench.analyze.stats.intervals import mean_interval
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.load import Open
from loadbench.record.histogram import Histogram
from tests.analyze.queues import sharing, single
from tests.building import MS, S, a_level
from tests.engine.scripted import Act, run_scripted

if TYPE_CHECKING:
    from loadbench.results.run import Metric

CONSTANT = parse_arrivals("constant")
POISSON = parse_arrivals("poisson")


def most_misses(levels: int) -> float:
    """How many of so many intervals of 95 % may miss, three standard errors allowed."""
    return levels * 0.05 + 3 * math.sqrt(levels * 0.05 * 0.95)


def stated(values: np.ndarray) -> Metric:
    """The metric of values in seconds, in their order, as a level states it."""
    histogram = Histogram()
    histogram.record_many(np.maximum(np.round(values * S), 1).astype(np.int64))
    told = metric(histogram, failures=0, correlated=CorrelatedSeries(values, users=None))
    assert told is not None
    return told


def holds(interval: tuple[float | None, float | None], truth: float) -> bool:
    """Whether the truth is inside, to the precision of the histogram's buckets."""
    low, high = interval
    return (low or 0.0) * 0.999 <= truth and (high is None or truth <= high * 1.001)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "n", "levels", "surely"),
    [
        (0.3, 1000, 300, ("p50", "p90", "p95")),
        (0.5, 2000, 300, ("p50", "p90", "p95")),
        (0.7, 5000, 300, ("p50", "p90", "p95")),
        (0.3, 5000, 150, ("p50", "p90", "p95", "p99")),
    ],
)
def test_quantiles_of_a_queue(load, n, levels, surely):
    """M/M/1: responses are exponential of mean 1 / (μ - λ), their quantiles -ln(1 - p) / (μ - λ).

    Of requests that queue together as of independent ones, an interval of 95 % misses in no more levels than it says.
    """
    quantiles = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
    missed, told = dict.fromkeys(quantiles, 0), dict.fromkeys(quantiles, 0)
    for seed in range(levels):
        _, waits, services = single(np.random.default_rng(seed), rate=load, n=n)
        for name, interval in stated(waits + services).interval.items():
            if name in quantiles and interval is not None:
                told[name] += 1
                missed[name] += not holds(interval, -math.log(1 - quantiles[name]) / (1 - load))
    assert max(missed.values()) <= most_misses(levels), missed
    assert all(told[name] >= 0.95 * levels for name in surely), told
    assert all(missed[name] <= most_misses(told[name]) for name in surely), missed


def test_intervals_for_independent_requests_would_not_hold():
    """Of the same queue at 70 %, intervals that take requests for independent miss in a third of the levels or more."""
    missed = 0
    for seed in range(100):
        _, waits, services = single(np.random.default_rng(seed), rate=0.7, n=1000)
        histogram = Histogram()
        histogram.record_many(np.round((waits + services) * S).astype(np.int64))
        told = metric(histogram, failures=0, correlated=INDEPENDENT)
        assert told is not None
        interval = told.interval["p90"]
        assert interval is not None
        missed += not holds(interval, math.log(10) / 0.3)
    assert missed >= 33


def test_independent_requests_have_the_intervals_that_they_had():
    """Without a queue the quantiles of exponential services are held, in intervals hardly wider than before."""
    missed = worth = 0
    for seed in range(300):
        told = stated(np.random.default_rng(seed).exponential(size=500))
        interval = told.interval["p90"]
        assert interval is not None
        missed += not holds(interval, math.log(10))
        worth += told.effective
    assert missed <= most_misses(300)
    # Batch means with Student's t take a share of it.
    assert worth / 300 >= 0.65 * 500


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_mean_wait_of_constant_services(load):
    """M/D/1: the mean wait is ρ / 2(1 - ρ) of a service, by Pollaczek and Khinchine."""
    missed = 0
    for seed in range(300):
        _, waits, _ = single(np.random.default_rng(seed), rate=load, n=20_000, constant=True)
        interval = mean_interval(waits)
        assert interval is not None
        missed += not interval[0] <= load / (2 * (1 - load)) <= interval[1]
    assert missed <= most_misses(300)


def test_mean_sojourn_of_processor_sharing():
    """M/M/1-PS, an engine that shares itself among all requests: the mean sojourn is 1 / (μ - λ)."""
    missed = 0
    for seed in range(150):
        interval = mean_interval(sharing(np.random.default_rng(seed), rate=0.5, n=4000))
        assert interval is not None
        missed += not interval[0] <= 2.0 <= interval[1]
    assert missed <= most_misses(150)


@pytest.mark.parametrize(("workers", "rate"), [(1, 0.8), (2, 1.6), (3, 3.0)])
def test_constant_arrivals_and_services_are_exact(workers, rate):
    """D/D/c through the engine: up to capacity nobody waits; interval, mean and concurrency are the exact values."""
    load = Open(rate, CONSTANT)
    ran = run_scripted(load, Act(first_ns=S), workers=workers, warm_up_ns=10 * S, duration_ns=100 * S, cool_down_ns=S)
    level = a_level(recording=ran.recording, load=load)
    response = level.metrics["ttft_response_s"]
    assert (level.verdict.status, response.mean, response.interval["p50"]) == ("VALID", 1.0, (1.0, 1.0))
    assert level.concurrency.mean == pytest.approx(rate)
    assert all(one.ok for one in level.audit)


def test_queue_above_capacity_is_exact_and_said_to_be_one():
    """D/D/1 at 125 %: each waits a quarter of a period longer than the one before, and the level is not steady."""
    load = Open(1.25, CONSTANT)
    ran = run_scripted(
        load, Act(first_ns=S), workers=1, warm_up_ns=2 * S, duration_ns=200 * S, drain_ns=100 * S, cool_down_ns=0
    )
    waits = [sample.since_due(sample.first_token_ns) for sample in ran.by_number()]
    assert waits == [S + number * 200 * MS for number in range(len(waits))]
    level = a_level(recording=ran.recording, load=load)
    assert [reason.code for reason in level.verdict.reasons][-1] == "not_steady"
    assert level.verdict.reasons[-1].message.startswith("the offered rate is above capacity")
    assert all(one.ok for one in level.audit)


@pytest.mark.parametrize("rate", [3.0, 6.0])
def test_queue_through_the_engine(rate):
    """M/M/1 through loop, client and recorder: response quantiles and throughput are held, and the level is valid."""
    rng = random.Random(11)
    services = [max(1, round(rng.expovariate(10.0) * S)) for _ in range(4000)]
    load = Open(rate, POISSON)
    ran = run_scripted(
        load,
        lambda n: Act(first_ns=services[n]),
        workers=1,
        plan={"seed": 3},
        warm_up_ns=20 * S,
        duration_ns=300 * S,
        cool_down_ns=5 * S,
    )
    level = a_level(recording=ran.recording, load=load)
    assert level.verdict.status == "VALID"
    response = level.metrics["ttft_response_s"]
    for name, p in {"p50": 0.5, "p90": 0.9}.items():
        interval = response.interval[name]
        assert interval is not None
        assert holds(interval, -math.log(1 - p) / (10 - rate))
    assert response.effective < response.count
    low, high = level.throughput.interval["output_tokens_per_s"]
    assert low <= rate <= high
