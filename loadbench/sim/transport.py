"""The simulated server in process: the client's transport, with no sockets between.

Under `loadbench.core.virtual` a level against it takes the time that it takes to compute, and every stamp is exact: a
request arrives as it is sent, an event arrives as it is made.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio

from loadbench.sim.service import EVENT_STREAM, SERVER_NAME, Response, Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from loadbench.client.transport import Header, HttpRequest, Sink
    from loadbench.core.clock import Clock
    from loadbench.sim.profile import Profile


class SimTransport:
    """`loadbench.client.transport.Transport` into a simulated server of its own; used while `serving()` lasts."""

    def __init__(self, profile: Profile, *, clock: Clock, seed: int = 0, models: Sequence[str] = ()) -> None:
        self.service = Service(profile, clock=clock, seed=seed, models=models)
        self._clock = clock
        self._kept = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[SimTransport]:
        """Run the engine while the context lasts."""
        async with self.service.engine.stepping():
            yield self

    async def exchange(self, request: HttpRequest, sink: Sink) -> None:
        """Carry one exchange; cancelled, it frees its slot. The host in the URL is of no account."""
        reused = self._kept > 0
        self._kept -= reused
        sink.connected(self._clock.now_ns(), reused=reused, connect_ns=None if reused else 0)
        sink.sent(self._clock.now_ns())
        wire = _Wire(self._clock, sink)
        path = urlsplit(request.url).path
        job = self.service.answer(request.method, path, body=request.body, out=wire)
        try:
            await wire.ended.wait()
        finally:
            if job is not None:
                self.service.engine.cancel(job)
        self._kept += 1

    async def aclose(self) -> None:
        """Forget the connections that would have been kept."""
        self._kept = 0


class _Wire:
    """`loadbench.sim.service.Out` of one exchange: hands on to the sink, stamped."""

    def __init__(self, clock: Clock, sink: Sink) -> None:
        self.ended = anyio.Event()
        self._clock = clock
        self._sink = sink

    def whole(self, response: Response) -> None:
        """The head and the body at once."""
        self._head(response.status, response.content_type)
        self.part(response.body, last=True)

    def begin(self) -> None:
        """The head of an event stream."""
        self._head(200, EVENT_STREAM)

    def part(self, data: bytes, *, last: bool) -> None:
        """Some of the body."""
        self._sink.data(self._clock.now_ns(), data)
        if last:
            self.ended.set()

    def _head(self, status: int, content_type: str) -> None:
        headers: list[Header] = [(b"server", SERVER_NAME.encode()), (b"content-type", content_type.encode())]
        self._sink.headers(self._clock.now_ns(), status, headers)
