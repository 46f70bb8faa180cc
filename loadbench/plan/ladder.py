"""Which loads without think time to measure, so that they show how throughput grows, and where it ends. Pure.

The users double until twice as many bring hardly more. Beyond that, half as many again show what a request meets that
has to wait, as far as is needed: until most requests miss an objective. Between, two more show where the bend is: it
lies after the last number that still brought more, and before the first that did not.
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


class Step(NamedTuple):
    """What a rung came to: answers per second, and whether most of its requests missed an objective."""

    per_s: float
    missed: bool


@dataclass(slots=True)
class Ladder:
    """One ladder of at most so many users; `left_out` are those for which there is no time."""

    most: int
    seen: dict[int, Step] = field(default_factory=dict)
    left_out: set[int] = field(default_factory=set)

    def next(self) -> int | None:
        """How many users to measure next; `None` when it is complete."""
        if len(self.seen) >= MOST_RUNGS:
            return None
        done = self.seen.keys() | self.left_out
        return next((users for users in self._wanted() if users <= self.most and users not in done), None)

    def _wanted(self) -> Iterator[int]:
        """In the order in which they are worth their time; each is asked for once those before it are known."""
        top = 1
        yield top
        while top in self.seen and self._grows(top):
            top *= 2
            yield top
        beyond = top + top // 2
        while top in self.seen and beyond > top:
            yield beyond
            if beyond not in self.seen or self.seen[beyond].missed:
                break
            beyond *= 2
        yield from (round(3 * top / 8), round(3 * top / 4))

    def _grows(self, users: int) -> bool:
        return users == 1 or self.seen[users].per_s > _WORTHWHILE * self.seen[users // 2].per_s
