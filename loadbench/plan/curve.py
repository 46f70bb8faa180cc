"""The throughput curve: which loads without think time to measure, to show how throughput grows and levels off. Pure.

The users double from step to step until twice as many users add hardly any throughput and most requests miss an
objective. Both are needed: a server may be no faster with two users than with one, and yet serve four of them in time.
A step with 1.5 times the last users then shows longer waits, and two steps in between show where the knee is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# At a fortieth of the search's time each (`loadbench.plan.search.Budget`), these take less than a quarter of it.
MAX_STEPS = 9
# Where twice the users multiply the throughput by no more than this, it has reached its limit.
_MIN_GAIN = 1.1


class CurveStep(NamedTuple):
    """The result of a step: responses per second, and whether most of its requests missed an objective."""

    per_s: float
    missed: bool


@dataclass(slots=True)
class ThroughputCurve:
    """A curve up to `max_users`. `measured` has its steps by users, `skipped` the steps that there is no time for."""

    max_users: int
    measured: dict[int, CurveStep] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)

    def next(self) -> int | None:
        """The users of the next step; `None` when the curve is complete."""
        if len(self.measured) >= MAX_STEPS:
            return None
        done = self.measured.keys() | self.skipped
        return next((users for users in self._steps() if 1 <= users <= self.max_users and users not in done), None)

    def _steps(self) -> Iterator[int]:
        """The steps in order; each follows from the results of those before it."""
        top, previous = 1, None
        yield top
        while top in self.measured:
            step = self.measured[top]
            if previous is not None and step.missed and step.per_s <= _MIN_GAIN * previous.per_s:
                yield top + top // 2
                break
            top, previous = 2 * top, step
            yield top
        yield from (round(3 * top / 8), round(3 * top / 4))
