"""A deadline that moves with every read, at the cost of one assignment.

The timer does not move with it: it fires at the old deadline, finds the new one, and is set again for that. So a stream
of a thousand reads sets a timer once or twice, and the deadline is still met exactly.

A process that lacked a core finds its timers expired before it has looked at what came in the meantime. So a timer that
fires far too late is set once more: no server is blamed for the delay of the load generator.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from loadbench.core.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.core.clock import Clock


# A timer that is so late belongs to an event loop that stood still. What had come by then has been handled after that.
_STALLED_NS, _HANDLED_NS = 500_000_000, 100_000_000


class Deadline:
    """Calls `expired` at the moment of the last `move`, unless it was moved later or cleared before.

    `when_ns` is that moment, `None` for never.
    """

    __slots__ = ("_clock", "_expired", "_fires_ns", "_timer", "when_ns")

    def __init__(self, clock: Clock, expired: Callable[[], None]) -> None:
        self._clock = clock
        self._expired: Callable[[], None] | None = expired
        self.when_ns: int | None = None
        self._fires_ns = 0
        self._timer: asyncio.TimerHandle | None = None

    def move(self, when_ns: int | None) -> None:
        """Expire at this moment and not before; `None` means never."""
        self.when_ns = when_ns
        if when_ns is not None and (self._timer is None or when_ns < self._fires_ns):
            self._set(when_ns)

    def clear(self) -> None:
        """Never expire from now on, and cancel the timer. `expired` is let go: a request and its deadline that held
        each other would stay in memory until the garbage collector finds them."""
        self.when_ns = None
        self._expired = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, when_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._fires_ns = when_ns
        self._timer = loop.call_at(loop.time() + (when_ns - self._clock.now_ns()) / NS_PER_S, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self.when_ns is None:
            return
        now_ns = self._clock.now_ns()
        if now_ns < self.when_ns:
            self._set(self.when_ns)
        elif now_ns - self._fires_ns > _STALLED_NS:
            self._set(now_ns + _HANDLED_NS)
        elif self._expired is not None:
            self._expired()
