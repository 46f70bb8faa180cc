"""The simulated server over HTTP/1.1: asyncio's protocols and httptools, nothing between the engine and the socket.

The head of a streamed response is sent when the request is accepted, then one chunk in one write for each token, in the
engine's own turn of the loop. Connections are kept alive. A client that closes its side ends its request: the slot is
free at the next step. Each connection has one request at a time; a client that pipelines is disconnected.
"""

from __future__ import annotations

import asyncio
import errno
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import httptools

from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import CANNOT_LISTEN, BadInput, why_not_listening
from loadbench.sim.chat import Refusal
from loadbench.sim.process import listening_url
from loadbench.sim.service import EVENT_STREAM, SERVER_NAME, Service, WholeResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import anyio

    from loadbench.plan.sim_profile import Profile
    from loadbench.sim.batching import QueuedRequest

# Far more than the longest context needs, far less than the memory.
MOST_BODY_BYTES = 8 * 1024 * 1024
# Room in the queue of the listening socket for many users who start in one instant.
_BACKLOG = 4096


async def serve(
    profile: Profile,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    seed: int = 0,
    models: Sequence[str] = (),
    on_ready: Callable[[str], None],
    stop: anyio.Event,
) -> None:
    """Serve until `stop`; `on_ready` gets the URL when the server listens. Port 0 is any free one.

    Raises `BadInput` if it cannot listen on the address.
    """
    service = Service(profile, clock=MonotonicClock(), seed=seed, models=models, created=int(time.time()))
    connections: set[_Connection] = set()
    server = await _listen(lambda: _Connection(service, connections), host=host, port=port)
    try:
        async with service.engine.stepping():
            on_ready(listening_url(server.sockets[0]))
            await stop.wait()
    finally:
        server.close()
        for connection in tuple(connections):
            connection.drop()
        await server.wait_closed()


async def _listen(protocol: Callable[[], asyncio.Protocol], *, host: str, port: int) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(protocol, host, port, backlog=_BACKLOG)
    except CANNOT_LISTEN as error:
        place = f"cannot listen on {host}:{port}"
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            hint = "stop the program that listens there, or choose another --port; 0 takes any free one"
            raise BadInput(f"{place}: the port is in use", hint=hint) from None
        raise BadInput(
            f"{place}: {why_not_listening(error)}", hint="choose an address of this machine and a free port"
        ) from None


class _Connection(asyncio.Protocol):
    """One connection: the callbacks of the parser collect a request, the service sends the response back."""

    _transport: asyncio.Transport

    def __init__(self, service: Service, connections: set[_Connection]) -> None:
        self._service = service
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._queued: QueuedRequest | None = None
        self._responding = False
        self._chunked = self._keep = True
        self._begin_request()

    def _begin_request(self) -> None:
        self._target = b""
        self._body = bytearray()
        self._complete = self._too_large = self._continue = False

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a stream socket gives
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it ends the same way
        """Cancel the request of a client that has gone."""
        self._connections.discard(self)
        if self._queued is not None:
            self._service.engine.cancel(self._queued)

    def data_received(self, data: bytes) -> None:
        """Parse; handle the request when it is complete."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refuse(400, f"This is not HTTP/1.1 as this server speaks it: {type(error).__name__}: {error}")
            return
        if self._too_large:
            self._refuse(413, f"The body is longer than {MOST_BODY_BYTES} bytes")
        elif self._complete and not self._transport.is_closing():
            self._complete = False
            self._responding = True
            method, path = self._parser.get_method().decode(), self._target.split(b"?")[0].decode(errors="replace")
            self._queued = self._service.handle(method, path, body=bytes(self._body), sink=self)
        elif self._continue:
            self._continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def drop(self) -> None:
        """Disconnect at once."""
        self._transport.abort()

    # Called by the parser.

    def on_message_begin(self) -> None:
        """A request begins; if the one before has no response yet, the client pipelines: disconnect it."""
        if self._responding or self._complete:
            self._transport.close()
        self._begin_request()

    def on_url(self, part: bytes) -> None:
        """The target of the request, or a part of it."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Only two headers matter here; the parser itself uses those that frame the message."""
        match name.lower():
            case b"content-length":
                self._too_large |= int(value) > MOST_BODY_BYTES
            case b"expect":
                self._continue = value.lower() == b"100-continue"

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        self._too_large |= len(self._body) + len(part) > MOST_BODY_BYTES
        if not self._too_large:
            self._body += part

    def on_message_complete(self) -> None:
        """Note it; the request is handled after the parser returns, so that errors are not taken for the parser's."""
        self._complete = True
        # The parser knows this only now. HTTP/1.0 has no chunks: the response ends with the connection.
        self._chunked = self._parser.get_http_version() == "1.1"
        self._keep = self._chunked and self._parser.should_keep_alive()

    def _refuse(self, status: int, message: str) -> None:
        """Refuse a request that was not read to its end, and close the connection after that."""
        self._keep = False
        self.send_whole(WholeResponse(status, "application/json", Refusal(status, message).body()))

    # Called by the service: `loadbench.sim.service.ResponseSink`.

    def send_whole(self, response: WholeResponse) -> None:
        """Head and body in one write."""
        framing = f"content-length: {len(response.body)}\r\n"
        if response.allow:
            framing += f"allow: {response.allow}\r\n"
        self._transport.write(self._head(response.status, response.content_type, framing) + response.body)
        self._end()

    def begin_stream(self) -> None:
        """The head of an event stream."""
        framing = "cache-control: no-cache\r\n" + ("transfer-encoding: chunked\r\n" if self._chunked else "")
        self._transport.write(self._head(200, EVENT_STREAM, framing))

    def send_events(self, data: bytes, *, last: bool) -> None:
        """One chunk; the last one together with the end of the body."""
        if self._chunked:
            data = b"%x\r\n%b\r\n%b" % (len(data), data, b"0\r\n\r\n" if last else b"")
        self._transport.write(data)
        if last:
            self._end()

    def _head(self, status: int, content_type: str, framing: str) -> bytes:
        close = "" if self._keep else "connection: close\r\n"
        line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nserver: {SERVER_NAME}\r\n"
        return f"{line}content-type: {content_type}\r\n{framing}{close}\r\n".encode()

    def _end(self) -> None:
        self._queued = None
        self._responding = False
        if not self._keep:
            self._transport.close()
