"""The levels that the capacity models use: closed, without think time, one for each number of users.

Only such levels show what the server does with exactly this many requests in flight. An invalid level is left out,
unless failures are its only problem: those are counted. Levels with the same number of users are combined, and their
histograms merged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loadbench.record.histogram import Histogram
from loadbench.record.outcome import failed_of
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadbench.results.run import LevelResult

# Half a 95 % interval in standard deviations.
_NORMAL_975 = 1.96
_FAILURES = "failures"
# Users who leave make room before their responses end: with more of them than this a level is no closed queue.
_MAX_GAVE_UP = 0.01


@dataclass(frozen=True, slots=True)
class MeasuredLevel:
    """The measurement of one number of users. `ended_per_s` counts every completed request, `per_s` successful ones.

    `spread` is the relative standard error of both; without an interval it is that of a Poisson count.
    """

    users: int
    per_s: float
    ended_per_s: float
    spread: float
    answered: int
    failed: int
    levels: tuple[LevelResult, ...]
    _merged: dict[str, Histogram] = field(default_factory=dict, compare=False, repr=False)

    def histogram(self, name: str) -> Histogram:
        """The histogram of a metric, named as in `run.json`, in ns; empty where there is none."""
        if name not in self._merged:
            merged = Histogram()
            for level in self.levels:
                metric = level.metrics.get(name)
                if metric is not None:
                    merged.merge(Histogram.decode(metric.hdr))
            self._merged[name] = merged
        return self._merged[name]

    def mean_s(self, name: str) -> float | None:
        """The mean of a metric in seconds."""
        metrics = [metric for level in self.levels if (metric := level.metrics.get(name)) is not None]
        count = sum(metric.count for metric in metrics)
        return sum(metric.mean * metric.count for metric in metrics) / count if count else None

    def effective_n(self, name: str) -> float:
        """The effective number of requests for a metric; all requests where the metric does not have one."""
        metrics = [metric for level in self.levels if (metric := level.metrics.get(name)) is not None]
        effective = [metric.effective for metric in metrics if metric.effective is not None]
        if len(effective) < len(metrics) or not metrics:
            return float(self.answered + self.failed)
        return sum(effective) * (1 + self.failed / max(1, self.answered))


def measured_levels(levels: Iterable[LevelResult]) -> list[MeasuredLevel]:
    """The usable levels by their users, ascending."""
    by_users: dict[int, list[LevelResult]] = {}
    for level in levels:
        if isinstance(level.load, ClosedLoad) and not exclusion_reason(level):
            by_users.setdefault(level.load.users, []).append(level)
    combined = []
    for users, same in sorted(by_users.items()):
        answered = sum(level.outcomes.get("ok", 0) for level in same)
        failed = sum(failed_of(level.outcomes, level.missed)[0] for level in same)
        window_s = sum(level.window_s for level in same)
        per_s = sum(level.throughput.requests_per_s * level.window_s for level in same) / window_s
        variance = 0.0
        for level in same:
            rate, interval = level.throughput.requests_per_s, level.throughput.interval.get("requests_per_s")
            spread = 1 / math.sqrt(max(1.0, rate * level.window_s))
            if interval is not None:
                spread = (interval[1] - interval[0]) / 2 / _NORMAL_975 / rate
            variance += (spread * rate * level.window_s) ** 2
        combined.append(
            MeasuredLevel(
                users=users,
                per_s=per_s,
                ended_per_s=per_s * (1 + failed / max(1, answered)),
                spread=math.sqrt(variance) / window_s / per_s,
                answered=answered,
                failed=failed,
                levels=tuple(same),
            )
        )
    return combined


def exclusion_reason(level: LevelResult) -> str:
    """Why a level is not used; empty where it is."""
    if not isinstance(level.load, ClosedLoad):
        return "is an open load"
    if level.load.think is not None:
        return "has think time"
    if level.outcomes.get("gave_up", 0) > _MAX_GAVE_UP * level.outcomes.get("ok", 0):
        return "has users who gave up"
    codes = sorted({reason.code for reason in level.verdict.reasons} - {_FAILURES})
    if level.interrupted or (codes and not level.verdict.usable):
        return "is invalid" + (f" ({', '.join(codes)})" if codes else "")
    return "" if level.window_s > 0 and level.throughput.requests_per_s > 0 else "has no successful request"
