"""What two sides tell of one figure at one level, as logarithms: run by run, or by the inside of one run each.

Failures are no logarithms, for there may be none, but the share of all requests of a side. Its interval is that of
Clopper and Pearson; where the runs differ in it by more than chance explains, it is wider by the root of Pearson's
chi-square over its degrees of freedom (McCullagh and Nelder, *Generalized Linear Models*, section 4.5), and Student's
t has those: one odd run of six is one observation, however many requests failed in it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from loadbench.analyze.compare.effect import BetweenRuns, WithinRun
from loadbench.analyze.stats.intervals import share_interval
from loadbench.plan.gate import COST, ENERGY
from loadbench.plan.objective import FAILURES, RATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.analyze.compare.effect import FigureData
    from loadbench.results.run import LevelResult

    # At each run of a side its level; none where it has none that may be compared.
    Levels = Sequence[LevelResult | None]

# A quantile has to have a request beyond it, or it is another name for the maximum.
_FEWEST = {"p50": 2, "p95": 20, "p99": 100}


def evidence(a: Levels, b: Levels, metric: str, *, paired: bool) -> FigureData | None:
    """`None` where a side has no value in each of its runs, or one run a side and no interval in it."""
    if metric == FAILURES:
        return _failures(a, b) if _any(a) and _any(b) else None
    if len(a) == len(b) == 1:
        one, other = _inside(a[0], metric), _inside(b[0], metric)
        return None if one is None or other is None else WithinRun(one, other)
    if not all(value(level, metric) for level in (*a, *b) if level is not None):
        # The runs that have it are those with more requests, the faster ones: to compare them alone would flatter.
        return None
    found = BetweenRuns(
        np.array([_log(level, metric) for level in a]), np.array([_log(level, metric) for level in b]), paired
    )
    return found if all(len(side) for side in found.kept()) else None


def too_few_requests(a: Levels, b: Levels, metric: str) -> bool:
    """Whether both sides have such a figure, and not enough of it for this point or its interval."""
    figure = f"{metric.rpartition('_')[0]}_s"
    there = [level for level in (*a, *b) if level is not None]
    return all(level.metrics.get(figure) is not None for level in there)


def not_in_every_run(a: Levels, b: Levels, metric: str) -> str:
    """Which of the runs have any such figure, if some have and some have not; else empty."""
    sides = [[bool(_any_value(level, metric)) for level in side if level is not None] for side in (a, b)]
    if not any(map(any, sides)) or all(map(all, sides)):
        return ""
    return " and ".join(f"{sum(has)} of {len(has)} runs of {name}" for name, has in zip("ab", sides, strict=True))


def _any_value(level: LevelResult, metric: str) -> object:
    figure = f"{metric.rpartition('_')[0]}_s"
    return level.metrics.get(figure) if figure in level.metrics else value(level, metric)


def failures_by_run(a: Levels, b: Levels, *, paired: bool) -> BetweenRuns:
    """The share that failed in each run."""
    sides = [np.array([math.nan if level is None else _share(level) for level in side]) for side in (a, b)]
    return BetweenRuns(sides[0], sides[1], paired)


def value(level: LevelResult, metric: str) -> float | None:
    """Seconds, or per second; `None` where nothing was measured, or too little for this quantile."""
    if metric in RATES:
        return float(getattr(level.throughput, metric))
    if metric == ENERGY:
        return None if level.energy is None else level.energy.joules_per_output_token
    if metric == COST:
        return None if level.cost is None else level.cost.per_million_output_tokens
    figure, _, point = metric.rpartition("_")
    found = level.metrics.get(f"{figure}_s")
    return None if found is None or found.count < _FEWEST[point] else float(getattr(found, point))


def counts(level: LevelResult) -> tuple[int, int]:
    """(failed, all) measured arrivals, those apart that the user cut."""
    asked = sum(level.outcomes.values()) - level.outcomes.get("cancelled", 0) + level.missed
    return asked - level.outcomes.get("ok", 0), asked


def _any(side: Levels) -> bool:
    return any(level is not None and counts(level)[1] for level in side)


def _share(level: LevelResult) -> float:
    failed, asked = counts(level)
    return failed / asked if asked else math.nan


def _failures(a: Levels, b: Levels) -> WithinRun:
    """The share of all that failed on either side, in its interval."""
    sides = [[counts(level) for level in side if level is not None] for side in (a, b)]
    excess = [_excess(side) for side in sides]
    # The fewest that Welch's degrees of freedom can be.
    freedom = min(map(len, sides)) - 1 if max(excess) > 1 else math.inf
    one, other = (_share_of_all(side, math.sqrt(more)) for side, more in zip(sides, excess, strict=True))
    return WithinRun(one, other, freedom or math.inf)


def _share_of_all(side: Sequence[tuple[int, int]], wider: float) -> tuple[float, float, float]:
    failed, asked = map(sum, zip(*side, strict=True))
    low, high = share_interval(failed, asked)
    share = failed / asked
    return max(0.0, share - wider * (share - low)), share, min(1.0, share + wider * (high - share))


def _excess(side: Sequence[tuple[int, int]]) -> float:
    """How many times as much the shares of the runs vary as chance would have them; at the least 1."""
    failed, asked = map(sum, zip(*side, strict=True))
    share = failed / asked
    if len(side) < 2 or share in {0, 1}:
        return 1.0
    chance = share * (1 - share)
    return max(1.0, sum((bad - share * of) ** 2 / (of * chance) for bad, of in side if of) / (len(side) - 1))


def _log(level: LevelResult | None, metric: str) -> float:
    found = None if level is None else value(level, metric)
    return math.log(found) if found else math.nan


def _inside(level: LevelResult | None, metric: str) -> tuple[float, float, float] | None:
    found = None if level is None else value(level, metric)
    if found and metric in {ENERGY, COST}:
        return -math.inf, math.log(found), math.inf  # what a meter reads has no interval of its own
    interval = None if level is None else _interval(level, metric)
    if not found or interval is None:
        return None
    low, high = interval
    return math.log(low) if low > 0 else -math.inf, math.log(found), math.log(high)


def _interval(level: LevelResult, metric: str) -> tuple[float, float] | None:
    if metric in RATES:
        return level.throughput.interval.get(metric)
    figure, _, point = metric.rpartition("_")
    found = level.metrics.get(f"{figure}_s")
    return None if found is None else found.interval.get(point)
