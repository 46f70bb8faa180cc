"""Patterns: an open loop's rate that varies over time, for example over a day.

A pattern is a list of points (time, factor), with straight lines between them; at each moment the rate is the level's
rate times the factor. Two points at the same time are a step. The last point ends a pass; then the pattern repeats.

Arrivals follow by a *change of time* (Cinlar, *Introduction to Stochastic Processes*, 1975, 4.7): arrivals are drawn at
the level's rate, and each is moved from `s` to the `t` at which the integral of the factor reaches `s`. Poisson
arrivals become a Poisson process of exactly this rate; constant arrivals stay even in the integral, and gamma arrivals
keep their CV. On each piece the inverse of the integral solves a quadratic equation: nothing is approximated.

The first pass begins when the measured window opens. During the warm-up the rate is that of the first point.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from loadbench.core.units import NS_PER_S, format_duration, parse_duration
from loadbench.plan.arrivals import Schedule

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    from loadbench.plan.arrivals import Arrivals

_MAX_BYTES = 1 << 20
_MAX_FACTOR = 1000.0
# A smaller mean factor would put years between two requests.
_MIN_MEAN = 1e-6
# An office's day with mean 1: quiet at night, busiest before and after noon. It is drawn by hand, not measured.
_DAY = (
    *((0, 0.1), (6, 0.1), (8, 0.9), (9, 2.2), (10.5, 2.6), (12, 1.9), (13, 1.4), (14, 2.2)),
    *((15.5, 2.4), (17, 1.9), (18, 1.1), (20, 0.6), (22, 0.3), (24, 0.1)),
)


class Point(NamedTuple):
    """At `at_ns` of a pass the rate is `factor` times the level's rate."""

    at_ns: int
    factor: float


@dataclass(frozen=True, slots=True)
class Pattern:
    """How the rate varies over one pass. `str()` gives a text that parses to the same pattern."""

    points: tuple[Point, ...]
    name: str = ""

    def __post_init__(self) -> None:
        times = [point.at_ns for point in self.points]
        if len(times) < 2 or times != sorted(times) or times[0] != 0:
            raise ValueError("a pattern has at least two points, the first at 0, each no earlier than the one before")
        if times[-1] == 0 or self.mean < _MIN_MEAN:
            raise ValueError("a pattern needs a factor above 0 for some time")

    @property
    def length_ns(self) -> int:
        """The length of one pass."""
        return self.points[-1].at_ns

    @property
    def highest(self) -> float:
        """The largest factor."""
        return max(point.factor for point in self.points)

    @property
    def mean(self) -> float:
        """The mean factor of a pass."""
        return math.fsum(_area(a, b) for a, b in _pieces(self.points)) / self.length_ns

    def scaled(self, by: float) -> Pattern:
        """The same pattern, `by` times as fast."""
        return Pattern(tuple(Point(round(at_ns / by), factor) for at_ns, factor in self.points), self.name)

    def times_ns(self, integrals_ns: Iterator[float]) -> Iterator[float]:
        """When each integral of the factor is reached, in ns from the beginning of the first pass.

        Integrals ascend. A negative one is reached before the pass, at the rate of the first point, and is left out if
        that is 0.
        """
        pieces = _pieces(self.points)
        *begins_ns, pass_ns = accumulate((_area(a, b) for a, b in pieces), initial=0.0)
        first = self.points[0].factor
        for integral_ns in integrals_ns:
            if integral_ns < 0:
                if first:
                    yield integral_ns / first
                continue
            passes, rest_ns = divmod(integral_ns, pass_ns)
            # The last piece that begins at or below the rest; never one with factor 0.
            index = bisect_right(begins_ns, rest_ns) - 1
            a, b = pieces[index]
            # Solve `a.factor * t + slope * t^2 / 2 = area`, in the form that loses no digits.
            area_ns, slope = rest_ns - begins_ns[index], (b.factor - a.factor) / (b.at_ns - a.at_ns)
            factors = a.factor + math.sqrt(max(0.0, a.factor**2 + 2 * slope * area_ns))
            into_ns = 2 * area_ns / factors if factors else 0.0
            yield passes * self.length_ns + a.at_ns + min(into_ns, b.at_ns - a.at_ns)

    def __str__(self) -> str:
        return self.name or ",".join(f"{format_duration(at_ns)}:{factor!r}" for at_ns, factor in self.points)


def _pieces(points: Sequence[Point]) -> list[tuple[Point, Point]]:
    """The lines between points, without the steps."""
    return [(a, b) for a, b in pairwise(points) if b.at_ns > a.at_ns]


def _area(a: Point, b: Point) -> float:
    return (b.at_ns - a.at_ns) * (a.factor + b.factor) / 2


@dataclass(frozen=True, slots=True)
class Patterned(Schedule):
    """Arrivals whose rate follows a pattern."""

    arrivals: Arrivals
    pattern: Pattern

    @property
    def rate_varies(self) -> bool:
        """By the pattern."""
        return True

    @property
    def peak_factor(self) -> float:
        """The pattern's largest factor."""
        return self.pattern.highest

    def offsets_ns(self, rate_per_s: float, rng: random.Random, *, lead_ns: int = 0) -> Iterator[int]:
        """Offsets from the level's beginning in ns; the first pass begins `lead_ns` after it."""
        lead = lead_ns * self.pattern.points[0].factor
        integrals = (offset_ns - lead for offset_ns in self.arrivals.offsets_ns(rate_per_s, rng))
        return (round(lead_ns + at_ns) for at_ns in self.pattern.times_ns(integrals))

    def __str__(self) -> str:
        return f"{self.arrivals} arrivals on the pattern {self.pattern}"


def parse_pattern(text: str) -> Pattern:
    """A pattern from `day`, from points such as `0s:0.2,9h:1,24h:0.2`, or from a file with one point per line.

    Raises `ValueError` with the reason.
    """
    text = text.strip()
    if text.lower() == "day":
        day = Pattern(tuple(Point(round(hour * 3600 * NS_PER_S), factor) for hour, factor in _DAY))
        return Pattern(tuple(Point(at_ns, factor / day.mean) for at_ns, factor in day.points), "day")
    try:
        is_file = ":" not in text or Path(text).exists()
    except OSError:  # longer than a file name can be
        is_file = False
    points = _read_points(Path(text)) if is_file else (_point(part, ":") for part in text.split(","))
    return Pattern(tuple(points))


def _read_points(path: Path) -> Iterator[Point]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ValueError(
            f"{path}: {reason}; write day, points as in 0s:0.2,9h:1,24h:0.2, or a file: a time and a factor per line"
        ) from None
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{path} is too large for a pattern")
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip() and not line.lstrip().startswith(("#", "time")):
            try:
                yield _point(line, ",")
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None


def _point(text: str, separator: str) -> Point:
    at, has_both, number = text.rpartition(separator)
    if not has_both:
        raise ValueError(f"{text.strip()!r} is not a point; write a time and a factor, as in 9h{separator}1.5")
    try:
        factor = float(number)
    except ValueError:
        factor = math.nan
    if not 0 <= factor <= _MAX_FACTOR:
        raise ValueError(f"{text.strip()!r} has no factor from 0 to {_MAX_FACTOR:g}")
    return Point(parse_duration(at), factor)
