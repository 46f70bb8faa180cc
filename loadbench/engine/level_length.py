"""How long a level lasts where nobody said: by its responses.

*The warm-up* ends when every user has had a response (in an open loop: when the first arrivals have theirs), with a
quarter to spare. Until then the load is still building up.

*The window* lasts its duration, or longer until enough measured requests have ended. A window that closed when a
response arrives would favour fast moments: the rate k / T of a window that ends with the k-th arrival is too high by a
factor of k / (k - 1) on average, since T is short whenever arrivals are dense (Haldane, *On a method of estimating
frequencies*, Biometrika 1945; Girshick, Mosteller and Savage, 1946). So the length is fixed as the window opens, by how
long the responses of the warm-up took, with a quarter to spare: what then arrives has no influence on it. Only where
that was too short, the window goes on by as long again, which halves what is left of that error. Bounds are moved at
moments of a fixed grid, not at responses.

The main process decides for all workers, and tells them (`loadbench.engine.workers`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from loadbench.core.units import NS_PER_S
from loadbench.plan.load import Closed, Phase, answers_wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.load import LevelDuration, Load, Open, Phases
    from loadbench.record.sample import Sample

# Time between two looks at what there is.
LOOK_NS = 250_000_000
# Bounds are moved to moments this far ahead, so that every worker process has heard of them by then.
_AHEAD_NS = 500_000_000
# Some responses take longer than those before.
_TO_SPARE = 1.25
# Of as many Poisson arrivals on average, fewer than 20 come once in 45 times.
_OPEN_TO_SPARE = 1.5


def open_window_ns(load: Open) -> int:
    """How long the window of an open loop is, so that it has enough arrivals, with some to spare."""
    return math.ceil(_OPEN_TO_SPARE * answers_wanted(load) / load.rate_per_s) * NS_PER_S


class LengthPart(NamedTuple):
    """What one of several workers knows of a level's length, of its own requests; times are the run's."""

    heard: int  # users that have had a response
    early: int
    measured: int  # requests that have ended
    first_ns: int | None
    warm_up_ended: int
    warm_up_busy_ns: int
    last_ns: int


class LevelLength:
    """Moves the bounds of one level's window; `answers_left` are the responses that the window still waits for."""

    def __init__(self, phases: Phases, duration: LevelDuration, load: Load) -> None:
        self._phases = phases
        self._duration = duration
        self._load = load
        self._opens_is_known = duration.most_warm_up_ns is None
        self._without_response = set(range(load.users)) if isinstance(load, Closed) else set()
        self._heard = 0  # of these, those that workers say have one
        self._early = 0  # arrivals of an open loop's first moments that have no response yet
        self._warm_up_ended = self._warm_up_busy_ns = self._measured = 0
        self._last_ns = phases.begin_ns
        self._first_ns: int | None = None  # the end of the first measured request
        self._planned_ns: int | None = None  # the length of the window, once it is open
        self.answers_left = duration.answers

    def started(self, due_ns: int) -> None:
        """A request has been sent."""
        self._early += due_ns < self._phases.begin_ns + self._duration.warm_up_ns

    def ended(self, sample: Sample) -> None:
        """A request has ended, however it did: a server that refuses everything is not waited for."""
        if sample.request.user is not None:
            self._without_response.discard(sample.request.user)
        self._early -= sample.due_ns < self._phases.begin_ns + self._duration.warm_up_ns
        if sample.phase is Phase.MEASURED:
            self._measured += 1
            self.answers_left = max(0, self.answers_left - 1)
            self._first_ns = self._first_ns or sample.end_ns
        elif sample.end_ns <= self._phases.opens_ns:
            self._warm_up_ended += 1
            self._warm_up_busy_ns += sample.end_ns - sample.due_ns
            self._last_ns = max(self._last_ns, sample.end_ns)

    def part(self, ahead_ns: int) -> LengthPart:
        """What is known here, in a clock that is ahead of the run's by so much."""
        users = self._load.users if isinstance(self._load, Closed) else 0
        return LengthPart(
            heard=users - len(self._without_response),
            early=self._early,
            measured=self._measured,
            first_ns=None if self._first_ns is None else self._first_ns - ahead_ns,
            warm_up_ended=self._warm_up_ended,
            warm_up_busy_ns=self._warm_up_busy_ns,
            last_ns=self._last_ns - ahead_ns,
        )

    def take(self, parts: Sequence[LengthPart]) -> None:
        """Know what all workers know."""
        self._heard = sum(part.heard for part in parts)
        self._early = sum(part.early for part in parts)
        self._warm_up_ended = sum(part.warm_up_ended for part in parts)
        self._warm_up_busy_ns = sum(part.warm_up_busy_ns for part in parts)
        self._last_ns = max((part.last_ns for part in parts), default=self._last_ns)
        self._first_ns = min((part.first_ns for part in parts if part.first_ns is not None), default=None)
        self.answers_left = max(0, self._duration.answers - sum(part.measured for part in parts))

    @property
    def _unheard(self) -> int:
        """Users that have had no response yet."""
        return len(self._without_response) - self._heard

    def look(self, now_ns: int) -> bool:
        """Move the bounds that can be known now; whether any was moved."""
        phases, duration, before = self._phases, self._duration, (self._phases.opens_ns, self._phases.closes_ns)
        if not phases.moves:
            return False
        if not self._opens_is_known:
            least_ns = phases.begin_ns + duration.warm_up_ns
            waits = self._unheard if isinstance(self._load, Closed) else now_ns < least_ns or self._early
            if not waits:
                enough_ns = phases.begin_ns + round(_TO_SPARE * (self._last_ns - phases.begin_ns))
                phases.opens_ns = min(phases.opens_ns, max(least_ns, enough_ns, now_ns + _AHEAD_NS))
            if not waits or now_ns + _AHEAD_NS > phases.opens_ns:
                self._opens_is_known = True
                if duration.most_ns is None and duration.duration_ns is not None:
                    phases.closes_ns = phases.opens_ns + duration.duration_ns
                phases.moves = duration.most_ns is not None
        if self._opens_is_known and duration.most_ns is not None and now_ns >= phases.opens_ns:
            if self._planned_ns is None:
                self._planned_ns = max(duration.duration_ns or 0, self._predicted_ns())
            if not self.answers_left:
                times = math.ceil((now_ns + _AHEAD_NS - phases.opens_ns) / self._planned_ns)
                phases.close(phases.opens_ns + times * self._planned_ns)
        return (phases.opens_ns, phases.closes_ns) != before

    def expected_closes_ns(self, now_ns: int) -> int | None:
        """When the window is likely to close, by what is known now; `None` while nobody can know."""
        phases, duration = self._phases, self._duration
        if not phases.moves or duration.duration_ns is None:
            return phases.closes_ns
        opens_ns = phases.opens_ns
        if not self._opens_is_known:
            # A full server serves its users one after another; the first of them say little.
            users = self._load.users if isinstance(self._load, Closed) else 1
            heard = 1 - self._unheard / users
            if heard < 0.5 or not self._warm_up_ended:
                return None
            enough_ns = round(_TO_SPARE * (now_ns - phases.begin_ns) / heard)
            opens_ns = min(opens_ns, phases.begin_ns + max(duration.warm_up_ns, enough_ns))
        if duration.most_ns is None or phases.closes_ns is None:
            return opens_ns + duration.duration_ns
        planned_ns = self._planned_ns or max(duration.duration_ns, self._predicted_ns())
        times, ended = 1, duration.answers - self.answers_left
        if self._opens_is_known and self._first_ns is not None and self.answers_left:
            needed_ns = now_ns - opens_ns
            if ended > duration.answers // 4:  # a few say little about the rate at which they come
                needed_ns += (now_ns - self._first_ns) * self.answers_left // (ended - 1)
            # What is to spare is there to be used.
            times = max(1, math.ceil((now_ns - opens_ns) / planned_ns), math.ceil(needed_ns / planned_ns - 0.2))
        return min(phases.closes_ns, opens_ns + times * planned_ns)

    def _predicted_ns(self) -> int:
        """How long a window takes that has enough responses, by the warm-up, with some to spare."""
        load, wanted = self._load, self._duration.answers
        if not isinstance(load, Closed):
            return open_window_ns(load)
        if not self._warm_up_ended:
            return 0
        # From one response of a user to the next; users who think may have had none but their first.
        served_ns = load.users * (self._last_ns - self._phases.begin_ns) / self._warm_up_ended
        think_ns = 0.0 if load.think is None else load.think.mean
        cycle_ns = max(served_ns, self._warm_up_busy_ns / self._warm_up_ended + think_ns)
        # Whole rounds: of users in step, a part of a round has all of the time and none of the responses.
        return math.ceil(math.ceil(_TO_SPARE * wanted / load.users) * cycle_ns / NS_PER_S) * NS_PER_S
