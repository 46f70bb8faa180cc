"""The figures of groups of requests, and those of prefix caches: sums of what ended ok, nothing from what did not."""

from __future__ import annotations

from loadbench.record.group_stats import GROUP_FIGURES, GroupStats, PrefixCacheStats
from loadbench.record.outcome import Outcome
from tests.building import MS, S, a_failure, a_sample


def test_a_group_counts_all_requests_and_sums_the_successful_ones() -> None:
    """Tokens and latencies are of those that ended ok; what a server did not report adds nothing."""
    stats = GroupStats()
    assert (stats.requests, stats.ok, stats.input_tokens, stats.output_tokens) == (0, 0, 0, 0)
    failures = Outcome.RESET, Outcome.GAVE_UP, Outcome.CANCELLED
    unknown = a_sample(3, input_tokens=None, output_tokens=None, model=None)
    for sample in (a_sample(0), a_sample(1, due_ns=S), unknown, *(a_failure(outcome) for outcome in failures)):
        stats.add(sample)
    assert (stats.requests, stats.ok) == (6, 3)
    assert (stats.input_tokens, stats.output_tokens) == (100, 22)
    assert stats.models == {"m": 2, "": 1}
    counts = {name: (histogram.count, histogram.max) for name, histogram in stats.histograms.items()}
    ttft, e2e = (3, 100 * MS), (3, 300 * MS)
    assert counts == {"ttft": ttft, "ttft_response": ttft, "e2e_response": e2e, "tpot": (2, 20 * MS)}
    assert tuple(counts) == GROUP_FIGURES


def test_what_a_prefix_cache_did_is_summed_where_both_numbers_are_known() -> None:
    """A request of which only one is known counts as a request only."""
    stats = PrefixCacheStats()
    assert stats == PrefixCacheStats(0, 0, 0, 0)
    stats.add(a_sample(cached_tokens=32), is_cached=True)
    stats.add(a_sample(cached_tokens=8), is_cached=False)
    stats.add(a_sample(cached_tokens=None), is_cached=False)
    stats.add(a_sample(cached_tokens=32, input_tokens=None), is_cached=True)
    assert stats == PrefixCacheStats(requests=4, cached=2, input_tokens=100, cached_tokens=40)
