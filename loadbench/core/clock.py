"""The one clock of a run.

Every mark of every request is an integer of nanoseconds read from here. The real clock is `time.perf_counter_ns`, which
is monotonic: a step of the wall clock changes nothing. In virtual time the event loop has its own clock
(`loadbench.core.virtual`), and the same engine runs in it unchanged.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Protocol

import anyio
import anyio.lowlevel

# The timers of an event loop have the selector's resolution of a millisecond, and the kernel needs time to wake the
# process. So sleep until this long before the moment, then yield to other tasks until it has come. Windows wakes only
# at a tick of its own clock.
TICK_NS = 15_625_000 if sys.platform == "win32" else 0
_TAIL_NS = 1_000_000 + TICK_NS


def slept_ns() -> int:
    """For how long this machine has been suspended, in ns since an arbitrary start, where the run's clock stops then.

    Where the clock runs on, which is on Windows, this is 0: a suspension is a late wake-up like another.
    """
    slept = 0
    if sys.platform == "linux":
        slept = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    elif sys.platform == "darwin":
        slept = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - time.clock_gettime_ns(time.CLOCK_UPTIME_RAW)
    return slept


class Clock(Protocol):
    """Time, and waiting for it."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary start; never decreases."""
        ...

    async def sleep_until(self, when_ns: int, stop: anyio.Event) -> bool:
        """Wait for the moment or for `stop`; returns whether the moment came. A past moment comes at once."""
        ...


class MonotonicClock:
    """The machine's monotonic clock at its finest resolution."""

    now_ns = staticmethod(time.perf_counter_ns)

    async def sleep_until(self, when_ns: int, stop: anyio.Event) -> bool:
        """Sleep by timer, then yield to other tasks through the last moment, so that lateness stays in µs."""
        ahead_ns = when_ns - self.now_ns()
        tail_ns = getattr(asyncio.get_running_loop(), "tail_ns", _TAIL_NS)
        if ahead_ns > tail_ns:
            with anyio.move_on_after((ahead_ns - tail_ns) / 1e9):
                await stop.wait()
        while not stop.is_set() and self.now_ns() < when_ns:
            await anyio.lowlevel.checkpoint()
        return not stop.is_set()
