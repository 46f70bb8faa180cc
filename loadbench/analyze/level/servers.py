"""Whether several servers that share a level's requests serve them alike.

All get the same requests, in turn, so a server that stands out does so by itself. It is named only where chance is
ruled out: its interval of failures, or of a median, lies wholly beyond that of the others together.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from loadbench.analyze.stats.intervals import quantile_ranks, share_interval
from loadbench.core.text import some
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome, failed_of
from loadbench.results.run import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadbench.record.group_stats import GroupStats
    from loadbench.record.recorder import LevelRecording

# Requests to one server are correlated, so what chance explains is judged strictly.
_CONFIDENCE = 0.999
# A smaller difference, though certain, is no reason to look for what is wrong.
_MUCH_SLOWER = 1.5
_FIGURES = {"ttft": "TTFT", "tpot": "TPOT"}


def uneven_servers(recording: LevelRecording) -> Iterator[Reason]:
    """Each server that fails more of its requests, or is much slower, than the others together."""
    servers = recording.groups_of("server")
    standing_out = []
    for name, stats in servers.items():
        others = [other for other in servers.values() if other is not stats]
        parts = [*_failures(stats, others), *_slower(stats, others)] if others else []
        if parts:
            standing_out.append(f"{name}: {', '.join(parts)}")
    if standing_out:
        yield Reason(
            "uneven_servers",
            f"the servers are not alike: {some(standing_out, most=5, separator='; ')}",
            "see what is different there; the level's figures are those of all servers together",
        )


def _failures(stats: GroupStats, others: Sequence[GroupStats]) -> Iterator[str]:
    together = sum((other.outcomes for other in others), Counter[Outcome]())
    (failed, requests), of_others = failed_of(stats.outcomes), failed_of(together)
    if not requests or not of_others[1]:
        return
    if share_interval(failed, requests, _CONFIDENCE)[0] > share_interval(*of_others, _CONFIDENCE)[1]:
        yield f"{failed} of {requests} requests failed (elsewhere {of_others[0]} of {of_others[1]})"


def _slower(stats: GroupStats, others: Sequence[GroupStats]) -> Iterator[str]:
    for figure, name in _FIGURES.items():
        own, rest = stats.histograms[figure], Histogram()
        for other in others:
            rest.merge(other.histograms[figure])
        low, _ = quantile_ranks(own.count, 0.5, _CONFIDENCE)
        _, high = quantile_ranks(rest.count, 0.5, _CONFIDENCE)
        if low is None or high is None:
            continue
        if own.value_at_rank(low) > _MUCH_SLOWER * rest.value_at_rank(high):
            medians = ((histogram.percentile(50) or 0) / 1e6 for histogram in (own, rest))
            yield "{} p50 is {:.1f} ms (elsewhere {:.1f} ms)".format(name, *medians)
