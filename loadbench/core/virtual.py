"""Virtual time: an event loop whose clock jumps to the next timer whenever nothing is ready to run.

A ten-minute level runs in milliseconds, and exactly: timers fire at their own nanosecond, in order, and no
real time enters. Only what lives inside the loop may be used under it (no sockets, no threads, no files that block).

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
    """Never waits: asked to wait for a timer, it moves the virtual clock there."""

    now_ns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("virtual time stands still: every task waits and no timer is set")
        if timeout > 0:
            # At least one nanosecond, or a rest too small for the float would spin for ever.
            self.now_ns += max(1, round(timeout * NS_PER_S))
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop that keeps time in whole nanoseconds of its own, beginning at 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        # Timers within this of now are due (asyncio's own rule); half a nanosecond makes "due" exact.
        self._clock_resolution = 0.5 / NS_PER_S
        self._asked_s = 0.0

    def time(self) -> float:
        """Seconds of virtual time, as asyncio wants them."""
        return max(self._jumping.now_ns / NS_PER_S, self._asked_s)

    def time_ns(self) -> int:
        """Nanoseconds of virtual time."""
        return self._jumping.now_ns

    def call_at(
        self, when: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Schedule at the nearest nanosecond, so that sums of floats do not drift; what is due never, never is."""
        if when == math.inf:
            return asyncio.TimerHandle(when, callback, args, self, context)
        moment_ns = round(when * NS_PER_S)
        if moment_ns == self._jumping.now_ns:
            # Who was woken a hair before his float, and asks again, would be woken a hair before it for ever.
            self._asked_s = when
        return super().call_at(moment_ns / NS_PER_S, callback, *args, context=context)


class VirtualClock:
    """`loadbench.core.clock.Clock` inside a `VirtualLoop`."""

    def now_ns(self) -> int:
        """Nanoseconds since the loop began."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)  # noqa: S101 - a clock out of its loop is a fault of ours
        return loop.time_ns()

    async def sleep_until(self, when_ns: int, stop: anyio.Event) -> bool:
        """Wait exactly until the moment, or until `stop`."""
        ahead_ns = when_ns - self.now_ns()
        if ahead_ns > 0:
            with anyio.move_on_after(ahead_ns / NS_PER_S):
                await stop.wait()
        return not stop.is_set()


def run_virtual(main: Callable[..., Awaitable[_T]], *args: object) -> _T:
    """Run `main(*args)` to its end in virtual time and return its result."""
    return anyio.run(main, *args, backend_options={"loop_factory": VirtualLoop})
