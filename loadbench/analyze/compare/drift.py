"""Drift: whether something changed while two sides were measured in turns, such as heat, other load or a filling cache.

The order of the turns cancels a change that affects both sides equally (`loadbench.plan.pairs`), so that is only
reported. A change that affects one side is part of the ratio, which then is that of no moment in particular.

The figure of a repeat is the geometric mean over its levels. Kendall's S decides exactly whether it rises or falls with
the repeats (Mann, *Nonparametric tests against trend*, 1945): the Mahonian numbers are the number of orders of n values
with k inversions. The size of the change is n - 1 times the median slope over all pairs of repeats (Theil, 1950; Sen,
1968), in logarithms.
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

# One false positive in twenty comparisons, shared among the figures and the two trends of each.
_ALPHA = 0.05
_TRENDS = 2
# A smaller change does not matter, even if it is certain.
_LEAST = math.log(1.01)
_ROUNDING = 1e-12


def drift(a: Sequence[Run], b: Sequence[Run]) -> list[Reason]:
    """The changes over the repeats: code `common_drift` for both sides alike, and `unequal_drift`."""
    reasons = []
    for name, figure in _FIGURES.items():
        pairs = _repeats(a, b, figure)
        both = trend([(one + other) / 2 for one, other in pairs])
        between = trend([other - one for one, other in pairs])
        over = f"from the first of {len(pairs)} repeats to the last"
        if between is not None:
            message = f"the ratio of B's {name} to A's {_changed(between)} {over}"
            advice = "the ratio was not constant: warm up both sides for longer, then compare again"
            reasons.append(Reason("unequal_drift", message, advice))
        elif both is not None:
            message = f"{name} {_changed(both)} on both sides {over}"
            advice = "the order of the turns cancels this; check whether the machine is hot, or busy with other work"
            reasons.append(Reason("common_drift", message, advice))
    return reasons


def trend(logs: Sequence[float]) -> float | None:
    """The total change of these logarithms over their order; `None` where it may be chance."""
    if len(logs) < 2:
        return None
    pairs = list(combinations(range(len(logs)), 2))
    rises = sum(logs[later] > logs[sooner] for sooner, later in pairs)
    falls = sum(logs[later] < logs[sooner] for sooner, later in pairs)
    change = (len(logs) - 1) * median((logs[later] - logs[sooner]) / (later - sooner) for sooner, later in pairs)
    certain = trend_p(len(logs), rises - falls) <= _ALPHA / (_TRENDS * len(_FIGURES)) + _ROUNDING
    return change if certain and abs(change) >= _LEAST else None


def trend_p(n: int, s: int) -> float:
    """The probability that n values in random order have a Kendall's S at least this far from 0."""
    # How many orders have 0, 1, … inversions: the product of `1 + x + … + x^(k-1)` for k up to n.
    orders = [1]
    for k in range(2, n + 1):
        sums = list(accumulate([*orders, *[0] * (k - 1)]))
        orders = [total - (sums[place - k] if place >= k else 0) for place, total in enumerate(sums)]
    pairs = n * (n - 1) // 2
    within = (pairs - abs(s)) // 2
    return min(1.0, 2 * sum(orders[: within + 1]) / math.factorial(n))


def _repeats(
    a: Sequence[Run], b: Sequence[Run], figure: Callable[[LevelResult], float | None]
) -> list[tuple[float, float]]:
    """(A, B) of each repeat, as logarithms, over the levels that are valid in every repeat on both sides."""
    sides = [
        [
            [None if not level.verdict.usable or level.interrupted else figure(level) for level in run.levels]
            for run in runs
        ]
        for runs in (a, b)
    ]
    levels = min((len(values) for side in sides for values in side), default=0)
    valid = [place for place in range(levels) if all(values[place] for side in sides for values in side)]
    if not valid:
        return []
    logs = [[fmean(math.log(values[place] or 1.0) for place in valid) for values in side] for side in sides]
    return list(zip(*logs, strict=False))


def _p50(metric: str) -> Callable[[LevelResult], float | None]:
    def p50(level: LevelResult) -> float | None:
        measured = level.metrics.get(metric)
        return None if measured is None else measured.p50

    return p50


_FIGURES: dict[str, Callable[[LevelResult], float | None]] = {
    "time to first token": _p50("ttft_s"),
    "time per output token": _p50("tpot_s"),
    "output tokens per second": lambda level: level.throughput.output_tokens_per_s,
}


def _changed(log: float) -> str:
    return f"{'rose' if log > 0 else 'fell'} by {100 * abs(math.expm1(log)):.0f} %"
