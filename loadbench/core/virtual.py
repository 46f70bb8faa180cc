"""Virtual time: an event loop whose clock jumps to the next timer whenever nothing is ready to run.

A ten-minute level runs in milliseconds, and exactly: timers fire at their own nanosecond, in order, and no real time
enters. Code that runs in it must stay inside the loop: no sockets, no threads, no blocking files.

    anyio.run(main, backend_options={"loop_factory": VirtualLoop})
"""

from __future__ import annotations

import asyncio
import math
import selectors
from typing import TYPE_CHECKING, TypeVar

import anyio

from loadbench.core.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

_T = TypeVar("_T")


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type, unused-ignore]
    """Never waits; instead of waiting for a timer it moves the virtual clock to it."""

    now_ns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("virtual time stands still: every task waits and no timer is set")
        if timeout > 0:
            # At least one nanosecond, or a remainder below the precision of the float would loop for ever.
            self.now_ns += max(1, round(timeout * NS_PER_S))
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop with its own time in whole nanoseconds, starting at 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        # Timers within this of now are due (asyncio's own rule); half a nanosecond makes "due" exact.
        self._clock_resolution = 0.5 / NS_PER_S
        self._requested_s = 0.0

    def time(self) -> float:
        """Seconds of virtual time, which asyncio uses."""
        return max(self._jumping.now_ns / NS_PER_S, self._requested_s)

    def time_ns(self) -> int:
        """Nanoseconds of virtual time."""
        return self._jumping.now_ns

    def call_at(
        self, when: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Schedule at the nearest nanosecond, so that sums of floats do not drift; infinity never comes."""
        if when == math.inf:
            return asyncio.TimerHandle(when, callback, args, self, context)
        moment_ns = round(when * NS_PER_S)
        if moment_ns == self._jumping.now_ns:
            # A task that was woken just before its float, and schedules it again, would be woken too early for ever.
            self._requested_s = when
        return super().call_at(moment_ns / NS_PER_S, callback, *args, context=context)


class VirtualClock:
    """`loadbench.core.clock.Clock` inside a `VirtualLoop`."""

    def now_ns(self) -> int:
        """Nanoseconds since the loop began."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)  # noqa: S101 - using the clock outside its loop is a bug
        return loop.time_ns()

    async def sleep_until(self, when_ns: int, stop: anyio.Event) -> bool:
        """Wait exactly until the moment, or until `stop`; returns whether the moment came."""
        ahead_ns = when_ns - self.now_ns()
        if ahead_ns > 0:
            with anyio.move_on_after(ahead_ns / NS_PER_S):
                await stop.wait()
        return not stop.is_set()


def run_virtual(main: Callable[..., Awaitable[_T]], *args: object) -> _T:
    """Run `main(*args)` to its end in virtual time and return its result."""
    return anyio.run(main, *args, backend_options={"loop_factory": VirtualLoop})
