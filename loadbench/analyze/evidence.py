"""What two sides tell of one figure at one level, as logarithms: run by run, or by the inside of one run each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadbench.analyze.effect import Inside, Runs
from loadbench.analyze.intervals import share_interval
from loadbench.plan.objective import FAILURES, RATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.analyze.effect import Evidence
    from loadbench.results.run import Level

    # At each run of a side its level; none where it has none that may be compared.
    Levels = Sequence[Level | None]

# A quantile has to have a request beyond it, or it is another name for the maximum.
_FEWEST = {"p50": 2, "p95": 20, "p99": 100}


def evidence(a: Levels, b: Levels, metric: str, *, paired: bool) -> Evidence | None:
    """`None` where a side has no value, or one run a side and no interval in it."""
    if metric == FAILURES:
        return None if not _any(a) or not _any(b) else Inside(_failed(a), _failed(b))
    if len(a) == len(b) == 1:
        one, other = _inside(a[0], metric), _inside(b[0], metric)
        return None if one is None or other is None else Inside(one, other)
    if any(value(level, metric) is None for level in (*a, *b) if level is not None):
        # The runs that have it are those with more requests, the faster ones: to compare them alone would flatter.
        return None
    found = Runs(np.array([_log(level, metric) for level in a]), np.array([_log(level, metric) for level in b]), paired)
    return found if all(len(side) for side in found.kept()) else None


def too_few_requests(a: Levels, b: Levels, metric: str) -> bool:
    """Whether both sides have such a figure, and not enough of it for this point or its interval."""
    figure = f"{metric.rpartition('_')[0]}_s"
    return all(any(level is not None and level.metrics.get(figure) is not None for level in side) for side in (a, b))


def failures_by_run(a: Levels, b: Levels, *, paired: bool) -> Runs:
    """The share that failed in each run."""
    sides = [np.array([math.nan if level is None else _share(level) for level in side]) for side in (a, b)]
    return Runs(sides[0], sides[1], paired)


def value(level: Level, metric: str) -> float | None:
    """Seconds, or per second; `None` where nothing was measured, or too little for this quantile."""
    if metric in RATES:
        return float(getattr(level.throughput, metric))
    figure, _, point = metric.rpartition("_")
    found = level.metrics.get(f"{figure}_s")
    return None if found is None or found.count < _FEWEST[point] else float(getattr(found, point))


def counts(level: Level) -> tuple[int, int]:
    """(failed, all) measured arrivals, those apart that the user cut."""
    asked = sum(level.outcomes.values()) - level.outcomes.get("cancelled", 0) + level.missed
    return asked - level.outcomes.get("ok", 0), asked


def _any(side: Levels) -> bool:
    return any(level is not None and counts(level)[1] for level in side)


def _share(level: Level) -> float:
    failed, asked = counts(level)
    return failed / asked if asked else math.nan


def _failed(side: Levels) -> tuple[float, float, float]:
    """The share of all that failed, in its interval."""
    failed, asked = map(sum, zip(*(counts(level) for level in side if level is not None), strict=True))
    low, high = share_interval(failed, asked)
    return low, failed / asked, high


def _log(level: Level | None, metric: str) -> float:
    found = None if level is None else value(level, metric)
    return math.log(found) if found else math.nan


def _inside(level: Level | None, metric: str) -> tuple[float, float, float] | None:
    found = None if level is None else value(level, metric)
    interval = None if level is None else _interval(level, metric)
    if not found or interval is None:
        return None
    low, high = interval
    return math.log(low) if low > 0 else -math.inf, math.log(found), math.log(high)


def _interval(level: Level, metric: str) -> tuple[float, float] | None:
    if metric in RATES:
        return level.throughput.interval.get(metric)
    figure, _, point = metric.rpartition("_")
    found = level.metrics.get(f"{figure}_s")
    return None if found is None else found.interval.get(point)
