"""The load of one level, and the phases that it goes through.

Two load models, in the field's words. *Closed*: so many virtual users, each with one request in flight at most,
who think between an answer and the next request. *Open*: requests become due at a rate, whatever the server does.

A level in time, for a level of given duration (`k6` calls the last part the graceful stop):

    begin       window opens            window closes          load ends           all answered, or cut
      |-- warm-up --|------ measured -------|---- cool-down ------|------ drain ------|

The load goes on unchanged from the warm-up into the window and through the cool-down: nothing is drained between
them. A level of a given number of requests closes its window at the end of the steady part (`Phases`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from loadbench.plan.distribution import Think

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadbench.plan.distribution import Distribution


# How long the responses in flight may take at a level's end. A slow CPU takes some 20 s for a whole response.
DRAIN_NS = 30_000_000_000
# Requests in flight that an open loop may build up before it counts arrivals as missed; the limit on open files is
# usually lower.
MOST_IN_FLIGHT = 10_000


class Phase(StrEnum):
    """When a request became due."""

    WARM_UP = "warm_up"
    MEASURED = "measured"
    COOL_DOWN = "cool_down"


@dataclass(frozen=True, slots=True)
class Closed:
    """`users` virtual users; `think` is the time between an answer's end and the next request, in ns."""

    users: int
    think: Distribution | None = None

    @property
    def label(self) -> str:
        """The load in a few characters, fit for a tag: `users=8`."""
        return f"users={self.users}"

    def think_of(self, persona: str | None) -> Distribution | None:
        """The think time of a user who is this persona."""
        return self.think.of(persona) if isinstance(self.think, Think) else self.think


class Schedule(Protocol):
    """When the requests of an open loop become due. `str()` says it in a few words."""

    @property
    def planned(self) -> bool:
        """Whether the rate is meant to change in the course of a level."""
        ...

    @property
    def rows(self) -> int:
        """How many requests it consists of, all of which are to be asked; 0 where it goes on without end."""
        ...

    @property
    def peak(self) -> float:
        """The highest rate over the mean one, as far as it is planned."""
        ...

    def offsets_ns(self, rate_per_s: float, rng: random.Random, *, lead_ns: int = 0) -> Iterator[int]:
        """Offsets from the level's beginning in ns, ascending; with their end, if they have one, the load is over.

        `lead_ns` is how long after that beginning the window opens.
        """
        ...


@dataclass(frozen=True, slots=True)
class Open:
    """`rate_per_s` requests per second on average, spaced by `arrivals`."""

    rate_per_s: float
    arrivals: Schedule

    @property
    def label(self) -> str:
        """The load in a few characters, fit for a tag: `rate=0.5`."""
        return f"rate={self.rate_per_s:g}"

    @property
    def most_per_s(self) -> float:
        """The rate at its highest; within a trace nobody knows it, and it is the mean."""
        return self.rate_per_s * self.arrivals.peak

    @property
    def begins_empty(self) -> bool:
        """Whether what is measured begins with an idle server, as it did when it was recorded."""
        return self.arrivals.rows > 0

    def offsets_ns(self, seed: int, *, lead_ns: int) -> Iterator[int]:
        """When its requests become due, after the level's beginning; the window opens `lead_ns` after it."""
        return self.arrivals.offsets_ns(self.rate_per_s, random.Random(seed), lead_ns=lead_ns)


Load = Closed | Open


@dataclass(frozen=True, slots=True)
class Shard:
    """A worker's part of a load: of the users, or of the one stream of arrivals, every `of`-th, from `index` on."""

    index: int = 0
    of: int = 1

    def holds(self, number: int) -> bool:
        """Whether this user or arrival, counted over the whole load from 0, is in this part."""
        return number % self.of == self.index

    def share(self, amount: int) -> int:
        """This part of an amount that is dealt out evenly."""
        return len(range(self.index, amount, self.of))


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelDuration:
    """How long a level goes on: by duration or by number of measured requests, exactly one of them."""

    duration_ns: int | None = None
    requests: int | None = None
    warm_up_ns: int = 0
    cool_down_ns: int = 0
    drain_ns: int = DRAIN_NS

    def __post_init__(self) -> None:
        if (self.duration_ns is None) == (self.requests is None):
            raise ValueError("a level has a duration or a number of requests, and not both")


WHOLE = Shard()


class Phases:
    """Says of each request that becomes due which phase it belongs to, and when the load is over.

    By duration the phases are intervals of time: a request belongs to the interval `[start, end)` that its due time
    lies in. By number, exactly `requests` requests that become due after the warm-up are measured; the window closes
    when the load can no longer be kept up (`close`): the first user without work, or the arrival after the last.

    With `keeps_on` the load goes on after these requests, in the cool-down, until it is ended from outside: a worker
    whose share has been measured keeps its users busy until the other workers have measured theirs.
    """

    def __init__(self, extent: LevelDuration, begin_ns: int, *, keeps_on: bool = False) -> None:
        self._extent = extent
        self._keeps_on = keeps_on
        self._left = extent.requests
        self.warm_up_ns = extent.warm_up_ns
        self.opens_ns = begin_ns + extent.warm_up_ns
        self._closes_ns = None if extent.duration_ns is None else self.opens_ns + extent.duration_ns

    @property
    def closes_ns(self) -> int | None:
        """When the window closes; `None` while that is open, in a level by number of requests."""
        return self._closes_ns

    @property
    def load_ends_ns(self) -> int | None:
        """When no more requests become due."""
        if self._closes_ns is None or self._extent.requests is not None:
            return self._closes_ns
        return self._closes_ns + self._extent.cool_down_ns

    def admit(self, due_ns: int) -> Phase | None:
        """The phase of a request that becomes due now; `None` once the load is over. Each call takes one request."""
        if due_ns < self.opens_ns:
            return Phase.WARM_UP
        if self._left is not None:
            return self._admit_counted(due_ns)
        assert self._closes_ns is not None  # noqa: S101 - by duration it always is known
        if due_ns < self._closes_ns:
            return Phase.MEASURED
        return Phase.COOL_DOWN if due_ns < self._closes_ns + self._extent.cool_down_ns else None

    def _admit_counted(self, due_ns: int) -> Phase | None:
        if self._left == 0:
            self.close(due_ns)
            return Phase.COOL_DOWN if self._keeps_on else None
        assert self._left is not None  # noqa: S101 - checked by the caller
        self._left -= 1
        return Phase.MEASURED

    def close(self, at_ns: int) -> None:
        """Close the window now, unless it has been closed: the load cannot be kept up, or the user stops the run."""
        if self._closes_ns is None or at_ns < self._closes_ns:
            self._closes_ns = max(at_ns, self.opens_ns)
            self._left = 0 if self._left is not None else None

    @property
    def remaining(self) -> int | None:
        """How many measured requests are still to come, in a level by number."""
        return self._left
