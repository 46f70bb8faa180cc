"""The closed levels of a run as the models want them: one for each number of users, in order, with its spread.

Only levels without think time say what the server does with exactly so many requests in flight. A level that is invalid
says it of something else and is left out, unless failures are all that is wrong with it: those are counted. Levels of
the same number of users are taken together, their histograms merged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loadbench.record.histogram import Histogram
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadbench.results.run import LevelResult

# Half a 95 % interval in standard deviations.
_NORMAL_975 = 1.96
_FAILURES = "failures"


@dataclass(frozen=True, slots=True)
class MeasuredLevel:
    """What so many users came to. `ended_per_s` counts every request that ended, `per_s` those that were answered.

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
        """Of a metric as `run.json` names it, in ns; empty where it was not seen."""
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
        found = [metric for level in self.levels if (metric := level.metrics.get(name)) is not None]
        count = sum(metric.count for metric in found)
        return sum(metric.mean * metric.count for metric in found) / count if count else None

    def independent(self, name: str) -> float:
        """How many independent requests tell as much as its measured ones, by this metric where it says so."""
        found = [metric for level in self.levels if (metric := level.metrics.get(name)) is not None]
        effective = [metric.effective for metric in found if metric.effective is not None]
        if len(effective) < len(found) or not found:
            return float(self.answered + self.failed)
        return sum(effective) * (1 + self.failed / max(1, self.answered))

    def server(self, name: str) -> float:
        """By how much one of the server's counters rose, over all its levels."""
        return sum((level.server or {}).get(name, 0.0) for level in self.levels)


def measured_levels(levels: Iterable[LevelResult]) -> list[MeasuredLevel]:
    """The usable levels by their users, ascending."""
    by_users: dict[int, list[LevelResult]] = {}
    for level in levels:
        if isinstance(level.load, ClosedLoad) and not exclusion_reason(level):
            by_users.setdefault(level.load.users, []).append(level)
    return [_together(users, by_users[users]) for users in sorted(by_users)]


def exclusion_reason(level: LevelResult) -> str:
    """Why a level does not count here; empty where it does."""
    if not isinstance(level.load, ClosedLoad):
        return "is of an open load"
    if level.load.think is not None:
        return "has think time"
    codes = sorted({reason.code for reason in level.verdict.reasons} - {_FAILURES})
    if level.interrupted or (level.verdict.status == "INVALID" and codes):
        return "is invalid" + (f" ({', '.join(codes)})" if codes else "")
    return "" if level.window_s > 0 and level.throughput.requests_per_s > 0 else "has no answer"


def _together(users: int, levels: Sequence[LevelResult]) -> MeasuredLevel:
    answered = sum(level.outcomes.get("ok", 0) for level in levels)
    failed = sum(sum(level.outcomes.values()) + level.missed for level in levels) - answered
    failed -= sum(level.outcomes.get("cancelled", 0) for level in levels)
    window_s = sum(level.window_s for level in levels)
    per_s = sum(level.throughput.requests_per_s * level.window_s for level in levels) / window_s
    variance = sum((_spread(level) * level.throughput.requests_per_s * level.window_s) ** 2 for level in levels)
    return MeasuredLevel(
        users=users,
        per_s=per_s,
        ended_per_s=per_s * (1 + failed / max(1, answered)),
        spread=math.sqrt(variance) / window_s / per_s,
        answered=answered,
        failed=failed,
        levels=tuple(levels),
    )


def _spread(level: LevelResult) -> float:
    per_s, interval = level.throughput.requests_per_s, level.throughput.interval.get("requests_per_s")
    if interval is None:
        return 1 / math.sqrt(max(1.0, per_s * level.window_s))
    return (interval[1] - interval[0]) / 2 / _NORMAL_975 / per_s
