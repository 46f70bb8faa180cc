"""The event loop of every command: what waits for a name server does not keep the program from ending."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_T = TypeVar("_T")
# As many as asyncio's own threads may be; a program that reconnects a thousand users needs no thousand threads.
_MOST_LOOKUPS = 32
if sys.platform == "win32":
    _Base = asyncio.ProactorEventLoop
else:
    _Base = asyncio.SelectorEventLoop


class EventLoop(_Base):
    """Looks names up in threads that nobody waits for: asyncio's own end only when the last name server has answered,
    or has not for as long as the system asks it again, and the program ends after them."""

    def __init__(self) -> None:
        super().__init__()
        self._lookups = asyncio.Semaphore(_MOST_LOOKUPS)

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """The addresses of a host, as `socket.getaddrinfo` returns them."""
        found: asyncio.Future[Any] = self.create_future()

        def end(addresses: object, error: Exception | None) -> None:
            if not found.done():  # else it was cancelled
                if error is None:
                    found.set_result(addresses)
                else:
                    found.set_exception(error)

        def look_up() -> None:
            addresses, error = None, None
            try:
                addresses = socket.getaddrinfo(host, port, **options)
            except Exception as raised:  # noqa: BLE001 - it is raised where the addresses are awaited
                error = raised
            with suppress(RuntimeError):  # the loop is closed
                self.call_soon_threadsafe(end, addresses, error)

        async with self._lookups:
            threading.Thread(target=look_up, daemon=True, name="name lookup").start()
            return await found


def run(main: Callable[..., Awaitable[_T]], *args: object) -> _T:
    """Run `main(*args)` to its end and return its result."""
    return anyio.run(main, *args, backend_options={"loop_factory": EventLoop})
