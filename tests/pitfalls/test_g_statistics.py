"""G: statistics and aggregation. Each test has the figure that the wrong way gives beside ours."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.analyze.stats.intervals import fewest_requests, quantile_ranks
from loadbench.core.errors import BadInput
from loadbench.plan.scenario import Scenario
from loadbench.plan.settings import settings as declared
from loadbench.plan.sources import resolve
from loadbench.record.histogram import DIGITS, HIGHEST_NS, LOWEST_NS, Histogram
from loadbench.report.formats import render
from loadbench.report.run import level_table
from tests.building import MS, S, a_level, a_run, a_sample

if TYPE_CHECKING:
    from collections.abc import Iterable


def histogram(values: Iterable[int]) -> Histogram:
    """Of these values, in ns."""
    made = Histogram()
    made.record_many(list(values))
    return made


def test_g1_workers_are_merged_and_not_their_percentiles():
    """One worker of two saw slow answers only: merged, the p99 is that of all values together.

    Seen to fail when percentiles are averaged, or the worst is taken: 25 % below it and 5 % above it.
    """
    rng = random.Random(1)
    quick = [round(rng.uniform(10, 50) * MS) for _ in range(9900)]
    slow = [round(rng.uniform(500, 1000) * MS) for _ in range(300)]
    merged = histogram(quick)
    merged.merge(histogram(slow))
    assert merged == histogram(quick + slow)
    p99s = [histogram(values).percentile(99) for values in (quick, slow)]
    assert sum(p99s) / 2 < 0.75 * merged.percentile(99)
    assert max(p99s) > 1.05 * merged.percentile(99)


@given(st.lists(st.integers(0, HIGHEST_NS), min_size=1, max_size=60))
def test_g2_no_percentile_is_above_the_maximum(values):
    """The greatest value is exact, and no percentile is above it, whatever the values.

    Seen to fail when values are rounded on the way in: a p99 of 1000 ms where the slowest took 996.
    """
    made = histogram(values)
    assert made.max == max(values)
    assert max(made.percentile(p) for p in (50, 99, 99.9, 100)) <= made.max


def test_g3_a_mean_that_dilution_improves_does_not_hide_the_tail():
    """Two cold answers among 20, then two, twice as cold, among 100: the mean halves, and p99 doubles, as is shown.

    Seen to fail when the mean is what is shown: it improves with the load.
    """

    def level(cold_ms: int, warm_ms: int, count: int):
        ttfts = [cold_ms] * 2 + [warm_ms] * (count - 2)
        return a_level([a_sample(n, due_ns=n * S // 2, ttft_ns=ttft * MS) for n, ttft in enumerate(ttfts)])

    light, heavy = level(1000, 10, 20).metrics["ttft_s"], level(2000, 12, 100).metrics["ttft_s"]
    assert heavy.mean < light.mean / 2
    assert heavy.p99 == pytest.approx(2 * light.p99, rel=0.001)
    headers = level_table([a_level()]).headers
    assert {"TTFT p50", "TTFT p95", "TTFT p99"} <= set(headers)
    assert not any("mean" in header for header in headers)


def test_g3_a_warm_cache_is_told():
    """Answers whose prompts were in the server's cache make the level invalid: they are another work."""
    level = a_level([a_sample(n, due_ns=n * S, cached_tokens=48 if n < 2 else 0) for n in range(100)])
    assert "cached_prompts" in {reason.code for reason in level.verdict.reasons}


def test_g4_what_is_out_of_range_is_counted():
    """A value of 48 hours is one of two, the greatest, and counted as clipped, in the result too.

    Seen to fail when the histogram's refusal is not looked at: one value, and nobody knows of the other.
    """
    made = histogram([S, 48 * 3600 * S])
    assert (made.count, made.clipped, made.max) == (2, 1, HIGHEST_NS)
    assert a_level([a_sample(ttft_ns=48 * 3600 * S)]).metrics["ttft_s"].clipped == 1
    library = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    library.record_value(S)
    library.record_value(48 * 3600 * S)
    assert library.total_count == 1


def test_g5_a_p99_of_ten_requests_is_marked():
    """Ten requests do not bound their p99 from above: null in the result, `~` in the report; a thousand do.

    Seen to fail when a quantile is a quantile: the slowest of ten is printed as p99.
    """

    def level(count: int):
        # In an order in which none of them looks like the one before.
        ttfts = [100 + n * 7919 % count for n in range(count)]
        return a_level([a_sample(n, due_ns=n * S // 8, ttft_ns=ttft * MS) for n, ttft in enumerate(ttfts)])

    few, many = level(10), level(1000)
    assert few.metrics["ttft_s"].p99 == few.metrics["ttft_s"].max
    assert few.metrics["ttft_s"].interval["p99"][1] is None
    assert "~109 ms (≥" in render(a_run(few), "text")
    low, high = many.metrics["ttft_s"].interval["p99"]
    assert low < many.metrics["ttft_s"].p99 < high
    assert level(367).metrics["ttft_s"].interval["p99"][1] is None


def at_most(k: int, n: int, p: float) -> float:
    """P(Bin(n, p) <= k) as the regularised incomplete beta function I_q(n - k, k + 1), by its continued fraction.

    Lentz's method (*Numerical Recipes*, section 6.4): nothing in it is like a sum over outcomes.
    """
    if k < 0 or k >= n:
        return float(k >= n)
    return beta_share(n - k, k + 1, 1 - p)


def beta_share(a: float, b: float, x: float) -> float:
    """I_x(a, b)."""
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_share(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 20_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * value


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 1_000_000), st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999]))
def test_g6_ranks_are_those_of_the_binomial_distribution(n, p):
    """At every number of requests up to a million each tail has 2.5 % at most, and one rank nearer would have more.

    Seen to fail when the normal distribution stands in: at 368 requests its upper rank for p99 does not exist.
    """
    (low, high), tail, slack = quantile_ranks(n, p), 0.025, 1e-6
    assert low is None or at_most(low - 1, n, p) <= tail + slack
    assert at_most(low or 0, n, p) > tail - slack
    assert high is None or 1 - at_most(high - 1, n, p) <= tail + slack
    assert 1 - at_most((high or n + 1) - 2, n, p) > tail - slack


@pytest.mark.parametrize(
    ("n", "ranks"),
    [(500, (490, 500)), (1000, (983, 997)), (2000, (1971, 1989)), (10_000, (9880, 9920)), (100_000, (98_938, 99_062))],
)
def test_g6_ranks_of_p99_are_those_of_tables(n, ranks):
    """Known ranks of the 95 % interval of a p99; the normal distribution's differ at 500."""
    assert quantile_ranks(n, 0.99) == ranks
    assert quantile_ranks(367, 0.99)[1] is None
    reach = 1.96 * math.sqrt(368 * 0.99 * 0.01)
    assert math.ceil(368 * 0.99 + reach) + 1 > quantile_ranks(368, 0.99)[1] == 368


@pytest.mark.parametrize(
    ("p", "over", "least"),
    [(0.99, 0, 459), (0.99, 1, 662), (0.99, 10, 2010), (0.99, 100, 12_571), (0.999, 50, 69_058), (0.5, 5, 22)],
)
def test_g6_early_stopping_needs_as_many_requests_as_tables_say(p, over, least):
    """With so many requests above the bound, the least number that shows p below it at 99 % is the binomial's.

    Seen to fail when the share above it is compared with 1 - p: 662 requests could have six above.
    """
    assert fewest_requests(over, p) == least
    assert at_most(over, least, 1 - p) <= 0.01 < at_most(over, least - 1, 1 - p)
    assert fewest_requests(over, p) * (1 - p) > over


def test_g7_a_setting_that_nobody_reads_is_an_error(tmp_path):
    """A misspelt key stops the run before it starts, with its line and the name that was meant.

    Seen to fail when unknown keys are passed over: the run goes on with ten seconds for thirty.
    """
    file = tmp_path / "mine.toml"
    file.write_text('[load]\nusers = [1]\nduraton = "30s"\n', encoding="utf-8")
    with pytest.raises(BadInput, match=r"mine\.toml:3.*duraton") as caught:
        resolve(flags={}, environment={}, file=file)
    assert "duration" in f"{caught.value} {caught.value.hint}"
    with pytest.raises(BadInput, match="LOADBENCH_DURATON"):
        resolve(flags={}, environment={"LOADBENCH_DURATON": "30s"}, file=None)


def test_g7_the_result_says_every_setting_that_was_in_force(tmp_path):
    """Each setting is in the record, those of the file as those by default, and where it came from.

    But those of another command, unless somebody has set one.
    """
    file = tmp_path / "mine.toml"
    file.write_text('[load]\nduration = "30s"\n', encoding="utf-8")
    scenario = resolve(flags={}, environment={}, file=file)
    effective = scenario.effective()
    assert {f"{section}.{name}" for section, names in effective.items() for name in names} == {
        setting.key for setting in declared() if setting.section in {one.section for one in declared("sweep")}
    }
    assert effective["load"]["duration"] == "30s"
    assert "mine.toml:2" in scenario.origins["load.duration"].place
    assert effective["load"]["drain"] == Scenario().effective()["load"]["drain"]
