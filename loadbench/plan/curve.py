"""The throughput curve: which loads without think time to measure, to show how throughput grows and ends. Pure.

The users double from step to step until twice as many bring hardly more throughput and most requests miss an objective:
a server may be no faster with two users than with one, and yet serve four of them in time. A step at half as many again
shows how longer waits look, and two steps in between show where the knee is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_STEPS = 9
# Twice the users bring less than this factor: throughput has reached its limit.
_WORTHWHILE = 1.1


class CurveStep(NamedTuple):
    """The result of a step: responses per second, and whether most of its requests missed an objective."""

    per_s: float
    missed: bool


@dataclass(slots=True)
class ThroughputCurve:
    """A curve up to `most` users. `measured` are its steps by users, `left_out` those that there is no time for."""

    most: int
    measured: dict[int, CurveStep] = field(default_factory=dict)
    left_out: set[int] = field(default_factory=set)

    def next(self) -> int | None:
        """The users of the next step; `None` when the curve is complete."""
        if len(self.measured) >= MOST_STEPS:
            return None
        done = self.measured.keys() | self.left_out
        return next((users for users in self._steps() if 1 <= users <= self.most and users not in done), None)

    def _steps(self) -> Iterator[int]:
        """The steps in the order of their use; each is due once those before it are known."""
        top, previous = 1, None
        yield top
        while top in self.measured:
            step = self.measured[top]
            if previous is not None and step.missed and step.per_s <= _WORTHWHILE * previous.per_s:
                yield top + top // 2
                break
            top, previous = 2 * top, step
            yield top
        yield from (round(3 * top / 8), round(3 * top / 4))
