"""The load of one level, and the phases that it goes through.

There are two load models. *Closed*: a number of virtual users, each with at most one request in flight, who think
between a response and the next request. *Open*: requests become due at a rate that does not depend on the server.

The timeline of a level with a duration (`k6` calls the last part the graceful stop):

    begin       window opens            window closes          load ends           all done, or cut
      |-- warm-up --|------ measured -------|---- cool-down ------|------ drain ------|

The load continues unchanged from the warm-up through the window and the cool-down; nothing is drained in between. A
level with a number of requests closes its window at the end of the steady part (`Phases`). Where nobody said how long
to warm up or to measure, the server's responses decide (`loadbench.engine.level_length`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from loadbench.plan.distribution import Think

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadbench.plan.arrivals import Schedule
    from loadbench.plan.distribution import Distribution


# Time limit for the responses in flight at the end of a level. A slow CPU takes about 20 s for a whole response.
DRAIN_NS = 30_000_000_000
# Above this many requests in flight an open loop counts arrivals as missed. The limit on open files is usually lower.
MAX_IN_FLIGHT = 10_000


class Phase(StrEnum):
    """When a request became due."""

    WARM_UP = "warm_up"
    MEASURED = "measured"
    COOL_DOWN = "cool_down"


@dataclass(frozen=True, slots=True)
class Closed:
    """`users` virtual users; `think` is the time between the end of a response and the next request, in ns."""

    users: int
    think: Distribution | None = None

    @property
    def label(self) -> str:
        """How the load is written everywhere: `users=8`."""
        return f"users={self.users}"

    def think_of(self, persona: str | None) -> Distribution | None:
        """The think time of a user with this persona."""
        return self.think.of(persona) if isinstance(self.think, Think) else self.think


@dataclass(frozen=True, slots=True)
class Open:
    """`rate_per_s` requests per second on average, spaced by `arrivals`."""

    rate_per_s: float
    arrivals: Schedule

    @property
    def label(self) -> str:
        """How the load is written everywhere: `rate=0.5`."""
        return f"rate={self.rate_per_s:g}"

    @property
    def peak_per_s(self) -> float:
        """The highest planned rate; for a trace, whose peaks are unknown, the mean rate."""
        return self.rate_per_s * self.arrivals.peak_factor

    @property
    def begins_empty(self) -> bool:
        """Whether the measurement begins with an idle server, as the recording of a trace did."""
        return self.arrivals.request_count > 0

    def offsets_ns(self, seed: int, *, lead_ns: int) -> Iterator[int]:
        """When its requests become due, in ns after the level's beginning; the window opens `lead_ns` after it."""
        return self.arrivals.offsets_ns(self.rate_per_s, random.Random(seed), lead_ns=lead_ns)


Load = Closed | Open


@dataclass(frozen=True, slots=True)
class Shard:
    """A worker's part of a load: every `of`-th user, or arrival of the one stream, starting at `index`."""

    index: int = 0
    of: int = 1

    def holds(self, number: int) -> bool:
        """Whether this user or arrival, numbered over the whole load from 0, is in this part."""
        return number % self.of == self.index

    def share(self, amount: int) -> int:
        """This part's share of an amount that is divided evenly."""
        return len(range(self.index, amount, self.of))


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelDuration:
    """How long a level lasts: a duration or a number of measured requests, exactly one of them.

    With `most_ns` the window goes on beyond the duration until `answers` measured requests have ended; warm-up and
    window together last that long at most. With `most_warm_up_ns` the warm-up goes on until the first responses are
    there, and lasts that long at most.
    """

    duration_ns: int | None = None
    requests: int | None = None
    warm_up_ns: int = 0
    cool_down_ns: int = 0
    drain_ns: int = DRAIN_NS
    answers: int = 0
    most_ns: int | None = None
    most_warm_up_ns: int | None = None

    def __post_init__(self) -> None:
        if (self.duration_ns is None) == (self.requests is None):
            raise ValueError("a level has a duration or a number of requests, and not both")


WHOLE = Shard()

# A level whose length nobody gave has this many rounds of its users, and this many responses.
ROUNDS = 3
FEWEST_ANSWERS = 20


def users_of(load: Load) -> int | None:
    """The users of a closed loop; `None` for an open one."""
    return load.users if isinstance(load, Closed) else None


def answers_wanted(load: Load) -> int:
    """How many responses a level whose length nobody gave waits for: three rounds of its users, and 20 in all."""
    return max(FEWEST_ANSWERS, ROUNDS * (users_of(load) or 0))


class Phases:
    """Assigns each request that becomes due to a phase, and knows when the load ends.

    With a duration, the phases are intervals of time: a request belongs to the interval `[start, end)` that contains
    its due time. With a number of requests, exactly that many requests that become due after the warm-up are measured.
    The window then closes when the load can no longer be sustained (`close`): at the first user without work, or at
    the arrival after the last.

    With a number of requests, `remaining` of them are still to be measured, and `closes_ns` is `None` while the window
    is open. Where workers share them, `take` takes one of all, and returns whether one was left. A bound that depends
    on the responses is at its latest moment until it is known; it is moved only to moments still to come. `moves` says
    whether one still may be.
    """

    def __init__(self, duration: LevelDuration, begin_ns: int) -> None:
        self._duration = duration
        self.begin_ns = begin_ns
        self.requests = self.remaining = duration.requests
        self.take: Callable[[], bool] | None = None
        longest_ns = duration.warm_up_ns if duration.most_warm_up_ns is None else duration.most_warm_up_ns
        self.opens_ns = begin_ns + longest_ns
        self.closes_ns: int | None = None
        if duration.most_ns is not None:
            self.closes_ns = begin_ns + duration.most_ns
        elif duration.duration_ns is not None:
            self.closes_ns = self.opens_ns + duration.duration_ns
        self.moves = duration.most_ns is not None or duration.most_warm_up_ns is not None

    @property
    def warm_up_ns(self) -> int:
        """How long the load is applied before the window opens."""
        return self.opens_ns - self.begin_ns

    @property
    def load_ends_ns(self) -> int | None:
        """When no more requests become due."""
        if self.closes_ns is None or self._duration.requests is not None:
            return self.closes_ns
        return self.closes_ns + self._duration.cool_down_ns

    def admit(self, due_ns: int) -> Phase | None:
        """The phase of a request that becomes due now; `None` once the load has ended. Each call counts one request."""
        if due_ns < self.opens_ns:
            return Phase.WARM_UP
        if self.remaining == 0 or (self.take is not None and not self.take()):
            self.close(due_ns)
            return None
        if self.remaining is not None:
            self.remaining -= self.take is None
            return Phase.MEASURED
        assert self.closes_ns is not None  # noqa: S101 - always known with a duration
        if due_ns < self.closes_ns:
            return Phase.MEASURED
        return Phase.COOL_DOWN if due_ns < self.closes_ns + self._duration.cool_down_ns else None

    def close(self, at_ns: int) -> None:
        """Close the window, unless it closed earlier: enough was measured, the load cannot be sustained, or the user
        stops the run."""
        if self.moves:
            # A level that is stopped in a warm-up of unknown length has an empty window now, and not later.
            self.opens_ns = min(self.opens_ns, max(at_ns, self.begin_ns))
            self.moves = False
        if self.closes_ns is None or at_ns < self.closes_ns:
            self.closes_ns = max(at_ns, self.opens_ns)
            self.remaining = 0 if self.remaining is not None else None
