"""The event loop of every command.

What waits for a name server does not keep the program from ending. On Linux, streams whose bytes have the kernel's
stamp are read in batches: a busy loop waits for a moment before it looks what has come, and reads several of them for
one wake-up. The wait changes no stamp, delays no timer and stops nothing; it only makes reads later than they could be.
"""

from __future__ import annotations

import asyncio
import logging
import math
import select
import selectors
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_T = TypeVar("_T")
# As many as asyncio's own threads may be; a program that reconnects a thousand users needs no thousand threads.
_MOST_LOOKUPS = 32
# The longest wait, and its share of the time between two reads of a connection: two events of one stream must not come
# in one read because of it, and a user who reads the end of a response later sends the next request later.
_MOST_WAIT_NS, _WAIT_SHARE = 300_000, 1 / 64
# By these steps, one for each read, the wait follows the time between reads that only a ninth of them are below: the
# last events of a response often come together.
_LONGER_NS, _SHORTER_NS = 100, 800
# No wait begins when a timer is due within so many of its length: what came meanwhile has to be read before that, too.
_CLEAR_WAITS = 3
# With fewer reads in a wait, it costs more than it saves; how many come is counted over such a time.
_WORTH_READS, _COUNTED_NS = 1.5, 10_000_000
# How late a timer may be: the kernel wakes a process up some 60 µs late, and what has come by then is read first.
_TAIL_NS = 500_000
_FD_SETSIZE = 1024  # select takes no descriptor from here on

if sys.platform == "win32":
    _Base = asyncio.ProactorEventLoop
else:
    _Base = asyncio.SelectorEventLoop

if sys.platform == "linux":

    class BatchingSelector(selectors.EpollSelector):
        """Calls the `readers` of sockets that have bytes itself, past the event loop's queue; a reader that returns
        false leaves the socket to the loop. Reports the others as usual. `wait_ns` is its wait for more to read."""

        def __init__(self) -> None:
            super().__init__()
            self.readers: dict[int, Callable[[], bool]] = {}
            self.wait_ns = 0
            self._is_worth = False
            self._reads, self._counted_ns = 0, time.perf_counter_ns()

        def read_after(self, gap_ns: int) -> None:
            """A connection was read, for the first time since so long: adapt the wait."""
            self._reads += 1
            if gap_ns * _WAIT_SHARE < self.wait_ns:
                self.wait_ns = max(0, self.wait_ns - _SHORTER_NS)
            elif self.wait_ns < _MOST_WAIT_NS:
                self.wait_ns += _LONGER_NS

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """Wait until a socket is ready; returns those that no reader has read."""
            now_ns = time.perf_counter_ns()
            if now_ns - self._counted_ns > _COUNTED_NS:
                self._is_worth = self._reads * self.wait_ns > _WORTH_READS * (now_ns - self._counted_ns)
                self._reads, self._counted_ns = 0, now_ns
            timeout = math.inf if timeout is None else max(0.0, timeout)
            if self._is_worth and timeout * 1e9 > _CLEAR_WAITS * self.wait_ns:
                time.sleep(self.wait_ns / 1e9)
                timeout -= self.wait_ns / 1e9
            # The timeout of epoll has whole milliseconds, to which it is rounded up, and what is left at the end is
            # awaited to the microsecond.
            whole_s = None if timeout == math.inf else max(0.0, math.floor(timeout * 1e3) - 0.5) * 1e-3
            if whole_s == 0 < timeout and self.fileno() < _FD_SETSIZE:
                select.select((self.fileno(),), (), (), timeout)
            ready: list[tuple[selectors.SelectorKey, int]] = []
            for fd, events in self._selector.poll(whole_s, max(1, len(self._fd_to_key))):  # type: ignore[attr-defined]
                reader = self.readers.get(fd)
                if reader is not None and events == select.EPOLLIN:
                    try:
                        if reader():
                            continue
                    except Exception:  # it would end the loop, and asyncio reports what a callback raises
                        logging.getLogger("asyncio").exception("an error while reading past the event loop")
                key = self._fd_to_key.get(fd)  # type: ignore[attr-defined]
                if key is not None:
                    mask = selectors.EVENT_WRITE if events & ~select.EPOLLIN else 0
                    mask |= selectors.EVENT_READ if events & ~select.EPOLLOUT else 0
                    ready.append((key, mask & key.events))
            return ready


class EventLoop(_Base):
    """Looks names up in threads that nobody waits for: asyncio's own end only when the last name server has answered,
    or has not for as long as the system asks it again, and the program ends after them."""

    def __init__(self) -> None:
        if sys.platform == "linux":
            self.batches = BatchingSelector()
            self.tail_ns = _TAIL_NS
            super().__init__(self.batches)
        else:
            super().__init__()
        self._lookups = asyncio.Semaphore(_MOST_LOOKUPS)

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """The addresses of a host, as `socket.getaddrinfo` returns them."""
        async with self._lookups:
            return await in_daemon_thread(lambda: socket.getaddrinfo(host, port, **options))


def reply_from_thread() -> tuple[asyncio.Future[Any], Callable[[object, BaseException | None], None]]:
    """(a future of this event loop, what another thread calls with its value, or its error, once it has one). Who does
    not wait for it any more cancels the future alone; the thread need not know."""
    loop = asyncio.get_running_loop()
    reply: asyncio.Future[Any] = loop.create_future()

    def take(value: object, error: BaseException | None) -> None:
        if not reply.done():  # else it was cancelled
            if error is None:
                reply.set_result(value)
            else:
                reply.set_exception(error)

    def pass_on(value: object, error: BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(take, value, error)

    return reply, pass_on


async def in_daemon_thread(work: Callable[[], _T]) -> _T:
    """Do this in a thread of its own, which ends with the process: nobody waits for it once this is cancelled."""
    reply, pass_on = reply_from_thread()

    def run_work() -> None:
        value, error = None, None
        try:
            value = work()
        except BaseException as raised:  # noqa: BLE001 - it is raised where the value is awaited
            # What ends a process would leave a whole event loop there.
            error = raised if isinstance(raised, Exception) else RuntimeError(type(raised).__name__)
        pass_on(value, error)

    threading.Thread(target=run_work, daemon=True).start()
    return await reply  # type: ignore[no-any-return]


def run(main: Callable[..., Awaitable[_T]], *args: object) -> _T:
    """Run `main(*args)` to its end and return its result."""
    return anyio.run(main, *args, backend_options={"loop_factory": EventLoop})
