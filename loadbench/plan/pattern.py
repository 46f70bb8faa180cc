"""Patterns: an open loop's rate in the course of time, as a day has it.

A pattern is points of (time, factor), with straight lines between them; at each moment the rate is the level's own
times the factor. Two points at one time are a step. The last point ends the pass, and what goes on longer begins anew.

Arrivals follow by a *change of time* (Cinlar, *Introduction to Stochastic Processes*, 1975, 4.7): those of the level's
own rate are made as ever, and each is moved from `s` to the `t` at which the integral of the factor has come to `s`.
Poisson arrivals become a Poisson process of just this rate; constant ones stay even in what they integrate, and gamma
ones keep their CV. The inverse of the integral is a root of a square on each piece: nothing is approximated.

The pass begins as the measured window opens. Before it, in the warm-up, the rate is that of the first point.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from loadbench.core.units import NS_PER_S, format_duration, parse_duration

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    from loadbench.plan.arrivals import Arrivals

_MOST_BYTES = 1 << 20
_MOST_FACTOR = 1000.0
# Less is nothing: a pattern of it would have years between two requests.
_LEAST_MEAN = 1e-6


class Point(NamedTuple):
    """At `at_ns` of the pass the rate is `factor` times the level's."""

    at_ns: int
    factor: float


@dataclass(frozen=True, slots=True)
class Pattern:
    """A course of the rate. `str()` gives a text that parses to the same pattern."""

    points: tuple[Point, ...]
    name: str = ""

    def __post_init__(self) -> None:
        times = [point.at_ns for point in self.points]
        if len(times) < 2 or times != sorted(times) or times[0] != 0:
            raise ValueError("a pattern has two points at least, the first at 0, each no earlier than the one before")
        if times[-1] == 0 or self.mean < _LEAST_MEAN:
            raise ValueError("a pattern has a factor above 0 for some time")

    @property
    def length_ns(self) -> int:
        """One pass."""
        return self.points[-1].at_ns

    @property
    def most(self) -> float:
        """The largest factor."""
        return max(point.factor for point in self.points)

    @property
    def least(self) -> float:
        """The smallest factor."""
        return min(point.factor for point in self.points)

    @property
    def mean(self) -> float:
        """The factor's mean over a pass."""
        return self.integral_ns() / self.length_ns

    def integral_ns(self) -> float:
        """That of the factor over a pass."""
        return math.fsum(_area(a, b) for a, b in _pieces(self.points))

    def scaled(self, by: float) -> Pattern:
        """The same, so many times as fast."""
        return Pattern(tuple(Point(round(at_ns / by), factor) for at_ns, factor in self.points), self.name)

    def times_ns(self, integrals_ns: Iterator[float]) -> Iterator[float]:
        """For each integral of the factor from the beginning of the pass, ascending, when it is reached.

        A negative one is reached before the pass, at the first factor; where that is 0 there is no such time, and it is
        left out.
        """
        pieces = _pieces(self.points)
        *done_ns, whole_ns = accumulate((_area(a, b) for a, b in pieces), initial=0.0)
        first = self.points[0].factor
        for integral_ns in integrals_ns:
            if integral_ns < 0:
                if first:
                    yield integral_ns / first
                continue
            passes, rest_ns = divmod(integral_ns, whole_ns)
            # The last piece that begins with no more: never one in which nothing comes.
            index = bisect_right(done_ns, rest_ns) - 1
            a, b = pieces[index]
            yield passes * self.length_ns + a.at_ns + _root(a, b, rest_ns - done_ns[index])

    def __str__(self) -> str:
        return self.name or ",".join(f"{format_duration(at_ns)}:{factor!r}" for at_ns, factor in self.points)


def _pieces(points: Sequence[Point]) -> list[tuple[Point, Point]]:
    """The lines between points, steps apart."""
    return [(a, b) for a, b in pairwise(points) if b.at_ns > a.at_ns]


def _area(a: Point, b: Point) -> float:
    return (b.at_ns - a.at_ns) * (a.factor + b.factor) / 2


def _root(a: Point, b: Point, area_ns: float) -> float:
    """How far into a piece the area is reached: `f t + s t^2 / 2 = area`, in the form that loses no digits."""
    slope = (b.factor - a.factor) / (b.at_ns - a.at_ns)
    under = math.sqrt(max(0.0, a.factor**2 + 2 * slope * area_ns))
    reached_ns = 2 * area_ns / (a.factor + under) if a.factor + under else 0.0
    return min(reached_ns, b.at_ns - a.at_ns)


@dataclass(frozen=True, slots=True)
class Patterned:
    """Arrivals whose rate follows a pattern."""

    arrivals: Arrivals
    pattern: Pattern

    @property
    def planned(self) -> bool:
        """The rate is meant to change."""
        return True

    @property
    def rows(self) -> int:
        """They go on without end."""
        return 0

    @property
    def peak(self) -> float:
        """The largest factor."""
        return self.pattern.most

    def offsets_ns(self, rate_per_s: float, rng: random.Random, *, lead_ns: int = 0) -> Iterator[int]:
        """Offsets from the level's beginning, `lead_ns` before the pass begins."""
        lead = lead_ns * self.pattern.points[0].factor
        even = (offset_ns - lead for offset_ns in self.arrivals.offsets_ns(rate_per_s, rng))
        return (round(lead_ns + at_ns) for at_ns in self.pattern.times_ns(even))

    def __str__(self) -> str:
        return f"{self.arrivals} arrivals on the pattern {self.pattern}"


# An office's day as one might draw it, of mean 1: quiet at night, fullest before noon and after it. Nobody measured it.
_DAY = (
    *((0, 0.1), (6, 0.1), (8, 0.9), (9, 2.2), (10.5, 2.6), (12, 1.9), (13, 1.4), (14, 2.2)),
    *((15.5, 2.4), (17, 1.9), (18, 1.1), (20, 0.6), (22, 0.3), (24, 0.1)),
)


def _day() -> Pattern:
    hour_ns = 3600 * NS_PER_S
    drawn = Pattern(tuple(Point(round(hour * hour_ns), factor) for hour, factor in _DAY))
    return Pattern(tuple(Point(at_ns, factor / drawn.mean) for at_ns, factor in drawn.points), "day")


def parse_pattern(text: str) -> Pattern:
    """A pattern from `day`, from points such as `0s:0.2,9h:1,24h:0.2`, or from a file with one point a line.

    Raises `ValueError` with the reason.
    """
    written = text.strip()
    if written.lower() == "day":
        return _day()
    if ":" in written and not _exists(written):
        return Pattern(tuple(_point(part, ":") for part in written.split(",")))
    return Pattern(tuple(_read_points(Path(written))))


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # longer than a name can be
        return False


def _read_points(path: Path) -> Iterator[Point]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ValueError(
            f"{path}: {why}; write day, points as in 0s:0.2,9h:1,24h:0.2, or a file with a time and a factor a line"
        ) from None
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{path} is too large for a pattern")
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip() and not line.lstrip().startswith(("#", "time")):
            try:
                yield _point(line, ",")
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None


def _point(text: str, between: str) -> Point:
    at, found, factor = text.rpartition(between)
    if not found:
        raise ValueError(f"{text.strip()!r} is no point of a pattern; write a time and a factor, as in 9h{between}1.5")
    try:
        value = float(factor)
    except ValueError:
        value = math.nan
    if not 0 <= value <= _MOST_FACTOR:
        raise ValueError(f"{text.strip()!r} has no factor from 0 to {_MOST_FACTOR:g}")
    return Point(parse_duration(at), value)
