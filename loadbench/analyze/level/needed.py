"""How much longer a level must be measured for a p95 to be known well, by what it showed.

The values of the level stand for those to come: of so many independent ones, the interval of the p95 lies between two
ranks (`loadbench.analyze.stats.intervals`); between ranks values are interpolated, and the width falls with the root of
the number. How many requests are worth an independent one is taken from the median's effective n, and is more where the
p95's own interval shows it. It is an estimate: of 150 lognormal values it was right to a factor of two, mostly.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadbench.analyze.stats.effective_n import SHORT
from loadbench.analyze.stats.intervals import quantile_ranks
from loadbench.core.errors import BadInput
from loadbench.record.histogram import Histogram
from loadbench.results.run import OpenLoad

if TYPE_CHECKING:
    from loadbench.results.run import LevelResult, Metric

# The fewest independent values that bound a p95 on both sides; and as many as have their ranks so far from it that
# single values of a short level matter little, and near enough for the same density.
_FEWEST, _LOOKED_AT = 72, 200


def needed_for_p95(level: LevelResult, metric: Metric, *, within: float) -> int | None:
    """About how many responses the level needs for half the interval of its p95 to be `within` this share of it; `None`
    where that cannot be told."""
    try:
        histogram = Histogram.decode(metric.hdr) if metric.hdr else Histogram()
    except BadInput:
        return None
    count, p95_ns = histogram.count, metric.p95 * 1e9
    low, high = quantile_ranks(_LOOKED_AT, 0.95)
    if not count or not metric.effective or p95_ns <= 0 or low is None or high is None:
        return None

    def value_at(rank: int) -> float:
        place = min(max((rank - 0.5) / _LOOKED_AT * count - 0.5, 0.0), count - 1.0)
        below = math.floor(place)
        one, next_one = histogram.value_at_rank(below + 1), histogram.value_at_rank(min(count, below + 2))
        return one + (next_one - one) * (place - below)

    half = (value_at(high) - value_at(low)) / 2 / p95_ns
    inefficiency = max(1.0, count / metric.effective)
    if (metric.interval.get("p95") or (None, None))[1] is None:
        inefficiency = max(inefficiency, count / _FEWEST)
    needed = inefficiency * max(_FEWEST, _LOOKED_AT * (half / within) ** 2)
    # A short level of an open loop has no upper end, whatever its requests are worth.
    return math.ceil(max(needed, 2 * SHORT if isinstance(level.load, OpenLoad) else 0))
