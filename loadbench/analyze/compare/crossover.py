"""The crossover: the number of users from which the other side is the faster one.

Between two levels, the logarithm of the ratio b / a is interpolated linearly over the logarithm of the users; the
crossover is where it is 0. Its interval are the numbers of users at which no difference is shown: at each, the runs'
own values are interpolated and compared as at a level (Fieller, *Some problems in interval estimation*, 1954, does the
same for the root of a straight line).

There is a crossover only where one side is shown to be faster at some level, and the other side at a higher level.
Undecided levels between the two may cross 0 several times by chance; the middle crossing is then taken.
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

# Points between two levels at which the interval is evaluated: finer than whole users.
_STEPS = 64


def crossover(
    users: Sequence[int], data: Sequence[FigureData], decisions: Sequence[Speed], *, confidence: float
) -> Crossover | None:
    """`None` where the decisions do not change sides exactly once, or no two runs have both neighbouring levels."""
    order = sorted(range(len(users)), key=lambda position: users[position])
    decided = [position for position in order if decisions[position] != "~"]
    turns = [(one, other) for one, other in pairwise(decided) if decisions[one] != decisions[other]]
    if len(turns) != 1:
        return None
    first, last = (order.index(position) for position in turns[0])

    # (log users, log ratio, its interval) from the last level of the one side to the first of the other.
    points = []
    for low, high in pairwise(order[first : last + 1]):
        begin, end = math.log(users[low]), math.log(users[high])
        between = []
        for step in range(_STEPS + 1):
            share = step / _STEPS
            effect = data[high].interpolated(share, data[low]).effect()  # type: ignore[arg-type]
            if effect is not None:
                between.append((begin + share * (end - begin), effect.value, effect.interval(confidence)))
        if not between:
            return None
        points += between
    roots = [
        at + (next_at - at) * value / (value - next_value)
        for (at, value, _), (next_at, next_value, _) in pairwise(points)
        if (value < 0) != (next_value < 0) and value != next_value
    ]
    if not roots:
        return None
    middle = math.exp(sorted(roots)[len(roots) // 2])
    undecided = [math.exp(at) for at, _, (low, high) in points if low <= 0 <= high]
    return Crossover(
        users=middle,
        low=min([middle, *undecided]),
        high=max([middle, *undecided]),
        beyond="b" if decisions[turns[0][1]] == "faster" else "a",
    )
