"""Readings by name over time, and their values in a window. Pure: all times are arguments.

A name that ends in `_total` is a counter, every other name a gauge. Both are interpolated linearly between two
readings, so that a window between readings gets its share of them. A counter that fell was restarted: its increase
continues from 0, and the restart is recorded.
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
# A gauge without a reading in this share of the window, at either edge, is not reported.
_MOST_UNSEEN = 0.5


class ReadingSeries:
    """All readings since the start, or since the last `forget`; times are ns of the run's clock."""

    def __init__(self) -> None:
        self._names: dict[str, _Readings] = {}

    def add(self, at_ns: int, values: Mapping[str, float]) -> None:
        """The readings of one moment; moments come in order."""
        for name, value in values.items():
            self._names.setdefault(name, _Readings()).add(at_ns, value)

    def forget(self, before_ns: int) -> None:
        """Drop the readings that no later window needs."""
        for readings in self._names.values():
            readings.forget(before_ns)

    def window(self, opens_ns: int, closes_ns: int) -> Telemetry | None:
        """The telemetry of a window; `None` if there is none, or if the window has no length."""
        if closes_ns <= opens_ns:
            return None
        gauges: dict[str, Gauge] = {}
        counters, resets = {}, []
        for name, readings in self._names.items():
            if not name.endswith(_COUNTED):
                gauge = readings.gauge(opens_ns, closes_ns)
                gauges |= {} if gauge is None else {name: gauge}
                continue
            rise = readings.rise(opens_ns, closes_ns)
            if rise is not None:
                counters[name] = rise
                resets += [name] * readings.fell(opens_ns, closes_ns)
        if not gauges and not counters:
            return None
        return Telemetry(
            gauges=dict(sorted(gauges.items())), counters=dict(sorted(counters.items())), resets=sorted(resets)
        )


class _Readings:
    """The readings of one name."""

    __slots__ = ("_at", "_values")

    def __init__(self) -> None:
        self._at = array("q")
        self._values = array("d")

    def add(self, at_ns: int, value: float) -> None:
        self._at.append(at_ns)
        self._values.append(value)

    def forget(self, before_ns: int) -> None:
        """Keeps the last reading before that moment, for the interpolation."""
        first = max(0, bisect_right(self._at, before_ns) - 1)
        del self._at[:first], self._values[:first]

    def gauge(self, opens_ns: int, closes_ns: int) -> Gauge | None:
        """`None` if no reading is inside the window, or if more than half of it is before or after all readings."""
        first, last = bisect_left(self._at, opens_ns), bisect_right(self._at, closes_ns)
        inside = self._values[first:last]
        unseen_ns = max(self._at[0] - opens_ns, closes_ns - self._at[-1])
        if not inside or unseen_ns > _MOST_UNSEEN * (closes_ns - opens_ns):
            return None
        # Constant before the first and after the last reading.
        moments = [opens_ns, *self._at[first:last], closes_ns]
        heights = [value_at(self._at, self._values, opens_ns), *inside, value_at(self._at, self._values, closes_ns)]
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
        """`None` without a reading on each side of the window: the increase would be a guess."""
        first, last = bisect_right(self._at, opens_ns) - 1, bisect_left(self._at, closes_ns)
        if first < 0 or last >= len(self._at):
            return None
        moments, values = self._at[first : last + 1], self._values[first : last + 1]
        totals = array("d", [0.0])
        for earlier, later in pairwise(values):
            totals.append(totals[-1] + (later - earlier if later >= earlier else later))
        return value_at(moments, totals, closes_ns) - value_at(moments, totals, opens_ns)

    def fell(self, opens_ns: int, closes_ns: int) -> bool:
        """Whether it was restarted inside the window, or in a step across its edges."""
        first, last = max(0, bisect_right(self._at, opens_ns) - 1), bisect_left(self._at, closes_ns)
        return any(later < earlier for earlier, later in pairwise(self._values[first : last + 1]))


def value_at(moments: Sequence[int], values: Sequence[float], moment: int) -> float:
    """The value at a moment, interpolated linearly; constant before the first point and after the last."""
    right = bisect_left(moments, moment)
    if right == 0:
        return values[0]
    if right == len(moments):
        return values[-1]
    if moments[right] == moment:
        return values[right]
    share = (moment - moments[right - 1]) / (moments[right] - moments[right - 1])
    return values[right - 1] + share * (values[right] - values[right - 1])
