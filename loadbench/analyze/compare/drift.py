"""Whether anything changed while two sides were measured in turn: heat, other load, a cache that filled up.

A change that meets both sides alike is cancelled by the order in which they are measured (`loadbench.plan.pairs`), and
is only told. One that meets a side alone is in the ratio, and the ratio then is that of no moment in particular.

A figure of a repeat is the geometric mean over the levels. Whether it rises or falls with the repeats is decided by
Kendall's S (Mann, *Nonparametric tests against trend*, 1945), exactly: how many of the orders of n values have k
inversions, the Mahonian numbers say. By how much is n - 1 times the median slope of all pairs of repeats (Theil, 1950;
Sen, 1968), of the logarithms.
"""

from __future__ import annotations

import math
from itertools import accumulate, combinations
from statistics import fmean, median
from typing import TYPE_CHECKING

from loadbench.results.run import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.results.run import LevelResult, Run

# One false alarm in twenty comparisons, shared out among the figures and the two trends that each may have.
_ALPHA = 0.05
_TRENDS = 2
# What is sure but smaller than this is of no account.
_LEAST = math.log(1.01)
_ROUNDING = 1e-12


def drift(a: Sequence[Run], b: Sequence[Run]) -> list[Reason]:
    """What changed over the repeats: codes `common_drift`, for both sides alike, and `unequal_drift`."""
    found = []
    for name, figure in _FIGURES.items():
        pairs = _repeats(a, b, figure)
        both = trend([(one + other) / 2 for one, other in pairs])
        between = trend([other - one for one, other in pairs])
        if between is not None:
            found.append(
                Reason(
                    "unequal_drift",
                    f"B's {name} against A's {_changed(between)} from the first of {len(pairs)} repeats to the last",
                    "the ratio did not stay the same: let both sides run warm first, then compare again",
                )
            )
        elif both is not None:
            found.append(
                Reason(
                    "common_drift",
                    f"{name} {_changed(both)} on both sides from the first of {len(pairs)} repeats to the last",
                    "the order of the sides cancels this; is the machine hot, or busy with something else?",
                )
            )
    return found


def trend(logs: Sequence[float]) -> float | None:
    """The whole change of these logarithms in their order; `None` where chance could have made it."""
    if len(logs) < 2:
        return None
    places = list(combinations(range(len(logs)), 2))
    rises = sum(logs[later] > logs[sooner] for sooner, later in places)
    falls = sum(logs[later] < logs[sooner] for sooner, later in places)
    change = (len(logs) - 1) * median((logs[later] - logs[sooner]) / (later - sooner) for sooner, later in places)
    sure = trend_p(len(logs), rises - falls) <= _ALPHA / (_TRENDS * len(_FIGURES)) + _ROUNDING
    return change if sure and abs(change) >= _LEAST else None


def trend_p(n: int, s: int) -> float:
    """The probability that n values in random order have a Kendall's S as far from 0 as this."""
    pairs = n * (n - 1) // 2
    within = (pairs - abs(s)) // 2
    return min(1.0, 2 * sum(_orders(n)[: within + 1]) / math.factorial(n))


def _orders(n: int) -> list[int]:
    """How many orders of n values have 0, 1, ... inversions: the product of `1 + x + ... + x^(k-1)` for k up to n."""
    counts = [1]
    for k in range(2, n + 1):
        sums = list(accumulate([*counts, *[0] * (k - 1)]))
        counts = [total - (sums[place - k] if place >= k else 0) for place, total in enumerate(sums)]
    return counts


def _repeats(
    a: Sequence[Run], b: Sequence[Run], figure: Callable[[LevelResult], float | None]
) -> list[tuple[float, float]]:
    """(A, B) of each repeat, as logarithms, over the levels that can be believed in every repeat on both sides."""
    sides = [[[_believed(level, figure) for level in run.levels] for run in runs] for runs in (a, b)]
    levels = min((len(values) for side in sides for values in side), default=0)
    told = [place for place in range(levels) if all(values[place] for side in sides for values in side)]
    if not told:
        return []
    logs = [[fmean(math.log(values[place] or 1.0) for place in told) for values in side] for side in sides]
    return list(zip(*logs, strict=False))


def _believed(level: LevelResult, figure: Callable[[LevelResult], float | None]) -> float | None:
    return None if level.verdict.status == "INVALID" or level.interrupted else figure(level)


def _p50(metric: str) -> Callable[[LevelResult], float | None]:
    def p50(level: LevelResult) -> float | None:
        found = level.metrics.get(metric)
        return None if found is None else found.p50

    return p50


_FIGURES: dict[str, Callable[[LevelResult], float | None]] = {
    "time to first token": _p50("ttft_s"),
    "time per output token": _p50("tpot_s"),
    "output tokens per second": lambda level: level.throughput.output_tokens_per_s,
}


def _changed(log: float) -> str:
    return f"{'rose' if log > 0 else 'fell'} by {100 * abs(math.expm1(log)):.0f} %"
