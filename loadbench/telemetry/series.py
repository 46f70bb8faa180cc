"""Readings by name over time, and their values in a window. Pure: all times are arguments.

A name that ends in `_total` is a counter, every other name a gauge. Both are interpolated linearly between two
readings, so that a window between readings gets its share of them. A counter that fell was restarted: its increase
continues from 0, and the restart is recorded. Memory is bounded: beyond `_MOST_KEPT` readings neighbours are merged.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from loadbench.results.telemetry import Gauge, Telemetry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COUNTED = "_total"
# Of each name; odd, since the first one stays by itself. Five minutes of readings each second are kept one by one.
_MOST_KEPT = 301
# A gauge without a reading in this share of the window, at either edge, is not reported.
_MOST_UNSEEN = 0.5


class ReadingSeries:
    """All readings since the start, or since the last `forget`; times are ns of the run's clock."""

    def __init__(self) -> None:
        self._names: dict[str, _Readings] = {}

    def add(self, at_ns: int, values: Mapping[str, float]) -> None:
        """The readings of one moment; moments come in order."""
        for name, value in values.items():
            if name not in self._names:
                self._names[name] = _Readings(counted=name.endswith(_COUNTED))
            self._names[name].add(at_ns, value)

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
    """The readings of one name. Each entry is one reading, or in a long series as many that followed each other as
    each other entry holds: the last of them, and what all of them come to. So a window has its sums exactly, except for
    where its edges cut one."""

    # Moments and, of the readings up to each, the sum: for a counter its rise, for a gauge the area below it. A gauge
    # also has values. Of each entry by itself: extremes, and how many readings, or for a counter falls, it holds.
    __slots__ = ("_at", "_counted", "_each", "_high", "_in_last", "_low", "_number", "_sums", "_values")

    def __init__(self, *, counted: bool) -> None:
        self._counted = counted
        self._each, self._in_last = 1, 1  # readings of a whole entry, and of the last
        self._at, self._number = array("q"), array("l")
        self._values, self._sums, self._low, self._high = (array("d") for _ in range(4))

    def add(self, at_ns: int, value: float) -> None:
        if len(self._at) >= _MOST_KEPT and self._in_last == self._each:
            self._merge_pairs()
        before, total = (self._values[-1], self._sums[-1]) if self._at else (value, 0.0)
        fell = value < before
        if not self._counted:
            total += (at_ns - self._at[-1]) * (before + value) / 2 if self._at else 0.0
        else:
            total += value if fell else value - before
        number = int(fell) if self._counted else 1
        if self._in_last < self._each:
            self._at[-1], self._values[-1], self._sums[-1] = at_ns, value, total
            self._low[-1], self._high[-1] = min(self._low[-1], value), max(self._high[-1], value)
            self._number[-1] += number
            self._in_last += 1
            return
        self._at.append(at_ns)
        self._number.append(number)
        for values, entry in ((self._values, value), (self._sums, total), (self._low, value), (self._high, value)):
            values.append(entry)
        self._in_last = 1

    def _merge_pairs(self) -> None:
        """All but the first, from which interpolation begins, by two."""
        self._each *= 2
        self._in_last = self._each
        for values in (self._at, self._values, self._sums):
            del values[1:-1:2]
        for values, merged in ((self._low, min), (self._high, max), (self._number, lambda one, two: one + two)):
            values[1:] = array(values.typecode, map(merged, values[1::2], values[2::2]))

    def forget(self, before_ns: int) -> None:
        """Keeps the last reading before that moment, for the interpolation."""
        first = max(0, bisect_right(self._at, before_ns) - 1)
        for values in (self._at, self._number, self._values, self._sums, self._low, self._high):
            del values[:first]

    def gauge(self, opens_ns: int, closes_ns: int) -> Gauge | None:
        """`None` if no reading is inside the window, or if more than half of it is before or after all readings."""
        first, last = bisect_left(self._at, opens_ns), bisect_right(self._at, closes_ns)
        unseen_ns = max(self._at[0] - opens_ns, closes_ns - self._at[-1])
        if first == last or unseen_ns > _MOST_UNSEEN * (closes_ns - opens_ns):
            return None
        # Constant before the first and after the last reading.
        begin, end = (value_at(self._at, self._values, moment) for moment in (opens_ns, closes_ns))
        area = self._sums[last - 1] - self._sums[first]
        area += (self._at[first] - opens_ns) * (begin + self._values[first]) / 2
        area += (closes_ns - self._at[last - 1]) * (self._values[last - 1] + end) / 2
        return Gauge(
            mean=area / (closes_ns - opens_ns),
            min=min(begin, *self._low[first:last], end),
            max=max(begin, *self._high[first:last], end),
            last=self._values[last - 1],
            readings=sum(self._number[first:last]),
        )

    def rise(self, opens_ns: int, closes_ns: int) -> float | None:
        """`None` without a reading on each side of the window: the increase would be a guess."""
        if not self._at[0] <= opens_ns or self._at[-1] < closes_ns:
            return None
        return value_at(self._at, self._sums, closes_ns) - value_at(self._at, self._sums, opens_ns)

    def fell(self, opens_ns: int, closes_ns: int) -> bool:
        """Whether it was restarted inside the window, or in a step across its edges."""
        first, last = max(0, bisect_right(self._at, opens_ns) - 1), bisect_left(self._at, closes_ns)
        return any(self._number[first + 1 : last + 1])


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
