"""Which loads without think time to measure, so that they show how throughput grows, and where it ends. Pure.

The users double until twice as many bring hardly more and most requests miss an objective: a server may be no faster
with two at once, and yet serve four of them in time. Half as many again show how those fare who wait still longer, and
two between show where the bend is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# No more than so many.
MOST_RUNGS = 9
# Twice the users bring less than this: throughput has come to its end.
_WORTHWHILE = 1.1


class CurveStep(NamedTuple):
    """What a rung came to: answers per second, and whether most of its requests missed an objective."""

    per_s: float
    missed: bool


@dataclass(slots=True)
class Ladder:
    """One ladder of at most so many users; `left_out` are those for which there is no time."""

    most: int
    seen: dict[int, CurveStep] = field(default_factory=dict)
    left_out: set[int] = field(default_factory=set)

    def next(self) -> int | None:
        """How many users to measure next; `None` when it is complete."""
        if len(self.seen) >= MOST_RUNGS:
            return None
        done = self.seen.keys() | self.left_out
        return next((users for users in self._wanted() if 1 <= users <= self.most and users not in done), None)

    def _wanted(self) -> Iterator[int]:
        """In the order in which they are worth their time; each is asked for once those before it are known."""
        top = 1
        yield top
        while top in self.seen and self._goes_on(top):
            top *= 2
            yield top
        if top in self.seen:
            yield top + top // 2
        yield from (round(3 * top / 8), round(3 * top / 4))

    def _goes_on(self, users: int) -> bool:
        seen = self.seen[users]
        return users == 1 or not seen.missed or seen.per_s > _WORTHWHILE * self.seen[users // 2].per_s
