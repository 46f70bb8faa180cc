"""The one clock of a run.

Every mark of every request is an integer of nanoseconds read from here. The real clock is
`time.perf_counter_ns`: monotonic, so that a step of the wall clock changes nothing. Under test the event
loop carries its own time (`loadbench.core.virtual`) and the same engine runs in it unchanged.
"""

from __future__ import annotations

import sys
import time
from typing import Protocol

import anyio
import anyio.lowlevel

# An event loop's timers are as coarse as the selector's milliseconds, and a wake-up is late by the time that
# the kernel needs to run us: sleep until this much before the moment, then yield in turns until it has come.
# Windows wakes at a tick of its own clock only.
TICK_NS = 15_625_000 if sys.platform == "win32" else 0
_TAIL_NS = 1_000_000 + TICK_NS


class Clock(Protocol):
    """Time, and waiting for it."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary beginning; never steps back."""
        ...

    async def sleep_until(self, when_ns: int, stop: anyio.Event) -> bool:
        """Wait for the moment, or for `stop`; whether the moment came. A moment gone by comes at once."""
        ...


class MonotonicClock:
    """The machine's monotonic clock, in its finest resolution."""

    now_ns = staticmethod(time.perf_counter_ns)

    async def sleep_until(self, when_ns: int, stop: anyio.Event) -> bool:
        """Sleep by timer, then give way in turns through the last millisecond, so that lateness stays in µs."""
        ahead_ns = when_ns - self.now_ns()
        if ahead_ns > _TAIL_NS:
            with anyio.move_on_after((ahead_ns - _TAIL_NS) / 1e9):
                await stop.wait()
        while not stop.is_set() and self.now_ns() < when_ns:
            await anyio.lowlevel.checkpoint()
        return not stop.is_set()
