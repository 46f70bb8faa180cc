"""From how many users on the other side is the faster one.

Between two levels the logarithm of the ratio b over a is taken to be straight over the logarithm of the users; where it
crosses 0 is the crossover. Its interval are those numbers of users at which no difference can be told: at each the
runs' own values are interpolated, and compared as at a level (Fieller, *Some problems in interval estimation*, 1954,
does the same for the root of a straight line).

There is a crossover only where one side is surely faster at some level and the other at a higher one. Levels between
the two that tell nothing may cross 0 several times by chance alone: of these crossings the middle one is taken.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from loadbench.results.compare import Crossover

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.analyze.compare.effect import FigureData
    from loadbench.results.compare import Speed

# Points between two levels at which the interval is looked for: finer than users can be counted.
_STEPS = 64


def crossover(
    users: Sequence[int], evidence: Sequence[FigureData], decisions: Sequence[Speed], *, confidence: float
) -> Crossover | None:
    """`None` where the decisions do not change sides once, or no two runs have both levels that it lies between."""
    order = sorted(range(len(users)), key=lambda position: users[position])
    told = [position for position in order if decisions[position] != "~"]
    turns = [(one, other) for one, other in pairwise(told) if decisions[one] != decisions[other]]
    if len(turns) != 1:
        return None
    first, last = (order.index(position) for position in turns[0])
    span = order[first : last + 1]
    steps = [
        _between((users[low], evidence[low]), (users[high], evidence[high]), confidence) for low, high in pairwise(span)
    ]
    if not all(steps):
        return None
    points = [point for step in steps for point in step]
    roots = [
        _root(one, other) for one, other in pairwise(points) if (one[1] < 0) != (other[1] < 0) and one[1] != other[1]
    ]
    if not roots:
        return None
    unsure = [at for at, _, (low, high) in points if low <= 0 <= high]
    middle = math.exp(sorted(roots)[len(roots) // 2])
    return Crossover(
        users=middle,
        low=min([middle, *(math.exp(at) for at in unsure)]),
        high=max([middle, *(math.exp(at) for at in unsure)]),
        beyond="b" if decisions[turns[0][1]] == "faster" else "a",
    )


_Point = tuple[float, float, tuple[float, float]]


def _between(low: tuple[int, FigureData], high: tuple[int, FigureData], confidence: float) -> list[_Point]:
    """(log users, log ratio, its interval) from one level to the next; nothing where no two runs have both."""
    points = []
    begin, end = math.log(low[0]), math.log(high[0])
    for step in range(_STEPS + 1):
        share = step / _STEPS
        effect = high[1].blended(share, low[1]).effect()  # type: ignore[arg-type]
        if effect is not None:
            points.append((begin + share * (end - begin), effect.value, effect.interval(confidence)))
    return points


def _root(one: _Point, other: _Point) -> float:
    """Where the straight line between two points is 0."""
    return one[0] + (other[0] - one[0]) * one[1] / (one[1] - other[1])
