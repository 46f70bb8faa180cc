"""The values of one figure on both sides of a comparison, at one level: by run, or with one run a side by its interval.

Latencies and rates are compared as logarithms. Failures may be 0, so they are compared as the share of all requests of
a side. Its interval is that of Clopper and Pearson. Where the runs or sessions of a side differ by more than chance
explains, the interval is widened by the root of Pearson's chi-square over its degrees of freedom (McCullagh and Nelder,
*Generalized Linear Models*, section 4.5), and Student's t uses these: one odd run of six is one observation, however
many of its requests failed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from loadbench.analyze.compare.effect import BetweenRuns, WithinRun
from loadbench.analyze.stats.intervals import share_interval
from loadbench.plan.gate import COST, ENERGY
from loadbench.plan.objective import FAILURES, RATES
from loadbench.record.outcome import failed_of
from loadbench.results.compare import DECODE, PREFILL
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.analyze.compare.effect import FigureData
    from loadbench.results.run import LevelResult, OpenInterval

    # The level of each run of a side; `None` for a run without one that may be compared.
    Levels = Sequence[LevelResult | None]

# The time that each speed is computed from.
SPEED_OF = {PREFILL: "ttft_p50", DECODE: "tpot_p50"}
# Prompts of which both sides requested the same length differ by no more (`equal_work`), unless two tokenizers do.
_SAME_PROMPTS = math.log(1.05)
# Events with a smaller gap came in one read: no server makes 100,000 tokens a second for one user.
_TOGETHER_S = 1e-5
# A quantile needs a request beyond it, or it is just the maximum.
_FEWEST = {"p50": 2, "p95": 20, "p99": 100}


@dataclass(frozen=True, slots=True)
class Design:
    """How the runs of both sides belong together: see `BetweenRuns`."""

    paired: bool
    sessions: tuple[Sequence[int], Sequence[int]] | None = None
    first: int = 0

    def between(self, a: Sequence[float], b: Sequence[float]) -> BetweenRuns:
        """The values of the runs."""
        return BetweenRuns(np.array(a), np.array(b), self.paired, self.sessions, self.first)


def figure_data(a: Levels, b: Levels, metric: str, design: Design) -> FigureData | None:
    """`None` where a run lacks the figure, or where one run a side has no interval of it."""
    if metric == FAILURES:
        known = ((level for level in side if level is not None) for side in (a, b))
        both = all(any(failed_of(level.outcomes, level.missed)[1] for level in side) for side in known)
        return _failures(a, b, design) if both else None
    if len(a) == len(b) == 1:
        one, other = _with_interval(a[0], metric), _with_interval(b[0], metric)
        return None if one is None or other is None else WithinRun(one, other, drift=True)
    if not all(value(level, metric) for level in (*a, *b) if level is not None):
        # The runs that have the figure are the faster ones, with more requests: comparing these alone would be biased.
        return None
    logs = [
        [math.nan if level is None else math.log(value(level, metric) or math.nan) for level in side] for side in (a, b)
    ]
    data = design.between(*logs)
    if metric == "requests_per_s":
        # How many responses end within a window depends on where it begins: of a steady stream, a count of n has a
        # variance of 1/6 (that of a fraction f is f (1 - f), on average over all f).
        by_side = [
            [(level.throughput.requests_per_s * level.window_s) ** -2 for level in side if level is not None]
            for side in (a, b)
        ]
        data = replace(data, least=math.sqrt(sum(sum(side) / len(side) for side in by_side if side) / 6))
    return data if all(len(side) for side in data.usable()) else None


def too_few_requests(a: Levels, b: Levels, metric: str) -> bool:
    """Whether every run has such a figure; then too few requests are why this quantile or its interval is missing."""
    figure = f"{metric.rpartition('_')[0]}_s"
    return all(level.metrics.get(figure) is not None for level in (*a, *b) if level is not None)


def not_in_every_run(a: Levels, b: Levels, metric: str) -> str:
    """How many runs have such a figure, if some have it and some do not; else empty."""
    figure = f"{metric.rpartition('_')[0]}_s"
    sides = [
        [
            bool(level.metrics.get(figure) if figure in level.metrics else value(level, metric))
            for level in side
            if level
        ]
        for side in (a, b)
    ]
    if not any(map(any, sides)) or all(map(all, sides)):
        return ""
    return " and ".join(f"{sum(has)} of {len(has)} runs of {name}" for name, has in zip("AB", sides, strict=True))


def failures_by_run(a: Levels, b: Levels, design: Design) -> BetweenRuns:
    """The share of requests that failed in each run."""
    sides = []
    for side in (a, b):
        by_run = [(0, 0) if level is None else failed_of(level.outcomes, level.missed) for level in side]
        sides.append([failed / requests if requests else math.nan for failed, requests in by_run])
    return design.between(*sides)


def value(level: LevelResult, metric: str) -> float | None:
    """Seconds, or per second; `None` where nothing was measured, or too little for this quantile."""
    if metric in RATES:
        return float(getattr(level.throughput, metric))
    if metric == ENERGY:
        return None if level.energy is None else level.energy.joules_per_output_token
    if metric == COST:
        return None if level.cost is None else level.cost.per_million_output_tokens
    figure, _, point = metric.rpartition("_")
    measured = level.metrics.get(f"{figure}_s")
    return None if measured is None or measured.count < _FEWEST[point] else float(getattr(measured, point))


def came_together(a: Levels, b: Levels, metric: str) -> str:
    """Why a time for each token says nothing: on a side, as many events came together with the next one as the quantile
    covers. Their gap of a microsecond is that of one read, and a ratio of such gaps is one of nothing."""
    if not metric.startswith(("itl_", "tpot_")):
        return ""
    sides = [
        name
        for name, side in zip("AB", (a, b), strict=True)
        if any((value(level, metric) or math.inf) < _TOGETHER_S for level in side if level is not None)
    ]
    other = "see TPOT" if metric.startswith("itl_") else "see E2E"
    if not sides:
        return ""
    return f"events came together in one read on {' and '.join(sides)}, so that this is no time for a token: {other}"


def prompt_tokens(level: LevelResult) -> float:
    """The mean number of prompt tokens of the requests that ended ok; NaN where it is not known."""
    known = level.outcomes.get("ok", 0) - level.tokens.unknown_input
    return level.tokens.input / known if known > 0 and level.tokens.input else math.nan


def amounts_of(metric: str, a: Levels, b: Levels) -> tuple[float, float] | None:
    """What A and B do in the time of `SPEED_OF`: a token, or the prompt tokens of a request that waits for no other.

    The same prompts are as many tokens on both sides: their mean, or the speed would differ where the time does not.
    Only where the models split text differently, each side has its own number. `None` where that is not known, or where
    requests waited.
    """
    if metric == DECODE:
        return 1.0, 1.0
    sides = [[level for level in side if level is not None] for side in (a, b)]
    if not all(waits_for_no_other(level) for side in sides for level in side):
        return None
    amounts = [fmean(map(prompt_tokens, side)) for side in sides]
    if not all(map(math.isfinite, amounts)):
        return None
    if abs(math.log(amounts[1] / amounts[0])) <= _SAME_PROMPTS:
        amounts = [fmean(amounts)] * 2
    return amounts[0], amounts[1]


def waits_for_no_other(level: LevelResult) -> bool:
    """Whether there was one request at a time, whose whole prompt the server had to read: then TTFT has no queueing,
    and says how fast prefill is."""
    load = level.load
    alone = load.users == 1 if isinstance(load, ClosedLoad) else level.concurrency.peak <= 1
    return alone and not level.tokens.cached_requests


def _failures(a: Levels, b: Levels, design: Design) -> WithinRun:
    """The share of all requests of a side that failed, with its interval."""
    intervals, overdispersed, fewest = [], False, len(a) + len(b)
    for side, levels in enumerate((a, b)):
        # By run, or by session.
        by_unit: dict[int, tuple[int, int]] = {}
        for place, level in enumerate(levels):
            if level is not None:
                unit = place if design.sessions is None else design.sessions[side][place]
                parts = by_unit.get(unit, (0, 0)), failed_of(level.outcomes, level.missed)
                by_unit[unit] = sum(part[0] for part in parts), sum(part[1] for part in parts)
        failed, requests = map(sum, zip(*by_unit.values(), strict=True))
        share = failed / requests
        # How many times as much the units differ as chance explains; at least 1.
        excess = 1.0
        if len(by_unit) > 1 and 0 < share < 1:
            chance = share * (1 - share)
            square = sum((bad - share * of) ** 2 / (of * chance) for bad, of in by_unit.values() if of)
            excess = max(1.0, square / (len(by_unit) - 1))
        overdispersed, fewest = overdispersed or excess > 1, min(fewest, len(by_unit) - 1)
        low, high = share_interval(failed, requests)
        wider = math.sqrt(excess)
        intervals.append((max(0.0, share - wider * (share - low)), share, min(1.0, share + wider * (high - share))))
    # The fewest degrees of freedom that Welch's test can have.
    return WithinRun(intervals[0], intervals[1], fewest if overdispersed and fewest else math.inf)


def _with_interval(level: LevelResult | None, metric: str) -> tuple[float, float, float] | None:
    """The logarithms of (low, value, high); `None` where the run has no interval of this figure."""
    measured = None if level is None else value(level, metric)
    if level is None or not measured:
        return None
    if metric in {ENERGY, COST}:
        return -math.inf, math.log(measured), math.inf  # a meter reading has no interval
    interval: OpenInterval | None
    if metric in RATES:
        interval = level.throughput.interval.get(metric)
    else:
        figure, _, point = metric.rpartition("_")
        of_figure = level.metrics.get(f"{figure}_s")
        interval = None if of_figure is None else of_figure.interval.get(point)
    if interval is None:
        return None
    low, high = interval  # an end that does not exist is open
    return math.log(low) if low else -math.inf, math.log(measured), math.log(high) if high else math.inf
