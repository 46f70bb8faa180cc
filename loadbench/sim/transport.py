"""The simulated server in process: a transport of the client without sockets.

In virtual time (`loadbench.core.virtual`) a level against it takes only as long as its computation, and every stamp is
exact: a request arrives when it is sent, an event when it is made.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio

from loadbench.sim.service import EVENT_STREAM, SERVER_NAME, Service, WholeResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from loadbench.client.transport import Header, HttpRequest, Sink
    from loadbench.core.clock import Clock
    from loadbench.plan.sim_profile import Profile


class SimTransport:
    """`loadbench.client.transport.Transport` with its own simulated server; used while `serving()` lasts."""

    def __init__(self, profile: Profile, *, clock: Clock, seed: int = 0, models: Sequence[str] = ()) -> None:
        self.service = Service(profile, clock=clock, seed=seed, models=models)
        self._clock = clock
        self._idle_connections = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[SimTransport]:
        """Run the engine while the context lasts."""
        async with self.service.engine.stepping():
            yield self

    async def exchange(self, request: HttpRequest, sink: Sink) -> None:
        """Carry one exchange; cancelled, it frees its slot. The host in the URL does not matter."""
        reused = self._idle_connections > 0
        self._idle_connections -= reused
        sink.connected(self._clock.now_ns(), reused=reused, connect_ns=None if reused else 0)
        sink.sent(self._clock.now_ns())
        stamping = _StampingSink(self._clock, sink)
        path = urlsplit(request.url).path
        queued = self.service.handle(request.method, path, body=request.body, sink=stamping)
        try:
            await stamping.ended.wait()
        finally:
            if queued is not None:
                self.service.engine.cancel(queued)
        self._idle_connections += 1

    async def aclose(self) -> None:
        """Forget the simulated idle connections."""
        self._idle_connections = 0


class _StampingSink:
    """`loadbench.sim.service.ResponseSink` of one exchange: passes everything to the client's sink, stamped."""

    def __init__(self, clock: Clock, sink: Sink) -> None:
        self.ended = anyio.Event()
        self._clock = clock
        self._sink = sink

    def send_whole(self, response: WholeResponse) -> None:
        """Head and body."""
        self._head(response.status, response.content_type)
        self.send_events(response.body, last=True)

    def begin_stream(self) -> None:
        """The head of an event stream."""
        self._head(200, EVENT_STREAM)

    def send_events(self, data: bytes, *, last: bool) -> None:
        """Some of the body."""
        self._sink.data(self._clock.now_ns(), data)
        if last:
            self.ended.set()

    def _head(self, status: int, content_type: str) -> None:
        headers: list[Header] = [(b"server", SERVER_NAME.encode()), (b"content-type", content_type.encode())]
        self._sink.headers(self._clock.now_ns(), status, headers)
