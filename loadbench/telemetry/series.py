"""Readings by name over time, and what they amount to inside a window. Pure: it is given its times.

A name that ends in `_total` counts up, every other goes up and down. Between two readings both are taken to go in a
straight line, so that a window that opens and closes between readings has its share of them. A counter that fell began
anew: its rise goes on from 0, and the fall is noted.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

from loadbench.results.telemetry import Gauge, Telemetry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COUNTED = "_total"
# A gauge that nobody read from here to an edge of the window is no account of it.
_MOST_UNSEEN = 0.5


class ReadingSeries:
    """Every reading since the beginning, or since what was forgotten; times are ns of the run's clock."""

    def __init__(self) -> None:
        self._names: dict[str, _Line] = {}

    def add(self, at_ns: int, values: Mapping[str, float]) -> None:
        """What was read at one moment; moments come in order."""
        for name, value in values.items():
            self._names.setdefault(name, _Line()).add(at_ns, value)

    def forget(self, before_ns: int) -> None:
        """Drop what no later window can need."""
        for line in self._names.values():
            line.forget(before_ns)

    def window(self, opens_ns: int, closes_ns: int) -> Telemetry | None:
        """What was read of a window; `None` for nothing at all, or for a window without length."""
        if closes_ns <= opens_ns:
            return None
        found = {name: line for name, line in self._names.items() if not name.endswith(_COUNTED)}
        gauges = {name: gauge for name, line in found.items() if (gauge := line.gauge(opens_ns, closes_ns)) is not None}
        counters, resets = {}, []
        for name in self._names.keys() - found.keys():
            rise = self._names[name].rise(opens_ns, closes_ns)
            if rise is not None:
                counters[name] = rise
                resets += [name] * self._names[name].fell(opens_ns, closes_ns)
        if not gauges and not counters:
            return None
        return Telemetry(
            gauges=dict(sorted(gauges.items())), counters=dict(sorted(counters.items())), resets=sorted(resets)
        )


class _Line:
    """One name's readings."""

    __slots__ = ("_at", "_values")

    def __init__(self) -> None:
        self._at = array("q")
        self._values = array("d")

    def add(self, at_ns: int, value: float) -> None:
        self._at.append(at_ns)
        self._values.append(value)

    def forget(self, before_ns: int) -> None:
        """The last reading before that moment stays: a line is drawn from it."""
        first = max(0, bisect_right(self._at, before_ns) - 1)
        del self._at[:first], self._values[:first]

    def gauge(self, opens_ns: int, closes_ns: int) -> Gauge | None:
        """`None` where no reading fell into the window, or more than half of it lies beyond all readings."""
        first, last = bisect_left(self._at, opens_ns), bisect_right(self._at, closes_ns)
        inside = self._values[first:last]
        unseen_ns = max(self._at[0] - opens_ns, closes_ns - self._at[-1])
        if not inside or unseen_ns > _MOST_UNSEEN * (closes_ns - opens_ns):
            return None
        # Beyond the first and the last reading the line goes on level.
        moments = [opens_ns, *self._at[first:last], closes_ns]
        heights = [at(self._at, self._values, opens_ns), *inside, at(self._at, self._values, closes_ns)]
        area = sum(
            (later - earlier) * (low + high) / 2
            for (earlier, later), (low, high) in zip(pairwise(moments), pairwise(heights), strict=True)
        )
        return Gauge(
            mean=area / (closes_ns - opens_ns),
            min=min(heights),
            max=max(heights),
            last=inside[-1],
            readings=len(inside),
        )

    def rise(self, opens_ns: int, closes_ns: int) -> float | None:
        """`None` where it was not read on both sides of the window: what it rose by there would be a guess."""
        first, last = bisect_right(self._at, opens_ns) - 1, bisect_left(self._at, closes_ns)
        if first < 0 or last >= len(self._at):
            return None
        moments, values = self._at[first : last + 1], self._values[first : last + 1]
        totals = array("d", [0.0])
        for earlier, later in pairwise(values):
            totals.append(totals[-1] + (later - earlier if later >= earlier else later))
        return at(moments, totals, closes_ns) - at(moments, totals, opens_ns)

    def fell(self, opens_ns: int, closes_ns: int) -> bool:
        """Whether it began anew inside the window, or in a step across its edges."""
        first, last = max(0, bisect_right(self._at, opens_ns) - 1), bisect_left(self._at, closes_ns)
        return any(later < earlier for earlier, later in pairwise(self._values[first : last + 1]))


def at(moments: Sequence[int], values: Sequence[float], moment: int) -> float:
    """The height at a moment of the straight lines through these points; level before the first, after the last."""
    right = bisect_left(moments, moment)
    if right == 0:
        return values[0]
    if right == len(moments):
        return values[-1]
    if moments[right] == moment:
        return values[right]
    share = (moment - moments[right - 1]) / (moments[right] - moments[right - 1])
    return values[right - 1] + share * (values[right] - values[right - 1])
