"""The simulated server over HTTP/1.1: asyncio's protocols and httptools, nothing between the engine and the socket.

A streamed answer's head is sent as the request is accepted, then one chunk in one write for each token, in the engine's
own turn of the loop. Connections are kept. A client that goes away, or closes its half, ends its request: the slot is
free at the next step. One request at a time on each connection; who pipelines is cut off.
"""

from __future__ import annotations

import asyncio
import errno
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import httptools

from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import BadInput
from loadbench.sim.chat import Refusal
from loadbench.sim.service import EVENT_STREAM, SERVER_NAME, Response, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import anyio

    from loadbench.sim.batching import Job
    from loadbench.sim.profile import Profile

# Far more than the longest context needs, far less than memory.
MOST_BODY_BYTES = 8 * 1024 * 1024
# Many users who begin in one instant all find a place in the queue of the listening socket.
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
    """Serve until `stop`; `on_ready` is told the URL once connections are taken. Port 0 is any free one.

    Raises `BadInput` where the address cannot be listened on.
    """
    service = Service(profile, clock=MonotonicClock(), seed=seed, models=models, created=int(time.time()))
    connections: set[_Connection] = set()
    server = await _listen(lambda: _Connection(service, connections), host=host, port=port)
    try:
        async with service.engine.stepping():
            on_ready(_url(server))
            await stop.wait()
    finally:
        server.close()
        for connection in tuple(connections):
            connection.drop()
        await server.wait_closed()


async def _listen(protocol: Callable[[], asyncio.Protocol], *, host: str, port: int) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(protocol, host, port, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        place = f"cannot listen on {host}:{port}"
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            hint = f"end what listens there, or choose another --port; 0 takes any free one instead of {port}"
            raise BadInput(f"{place}: the port is in use", hint=hint) from None
        raise BadInput(f"{place}: {error}", hint="choose an address of this machine and a port it may use") from None


def _url(server: asyncio.Server) -> str:
    host, port = server.sockets[0].getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Connection(asyncio.Protocol):
    """One connection: the parser's callbacks collect a request, the service answers it through `Out`."""

    _transport: asyncio.Transport

    def __init__(self, service: Service, connections: set[_Connection]) -> None:
        self._service = service
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._job: Job | None = None
        self._answering = False
        self._chunked = self._keep = True
        self._begin_request()

    def _begin_request(self) -> None:
        self._target = b""
        self._body = bytearray()
        self._complete = self._too_large = self._continue = False

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection in."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what a stream socket gives
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whichever way it went
        """Who has gone away needs no answer."""
        self._connections.discard(self)
        if self._job is not None:
            self._service.engine.cancel(self._job)

    def data_received(self, data: bytes) -> None:
        """Parse; answer when the request is complete."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._refuse(400, f"This is not HTTP/1.1 as it is spoken here: {type(error).__name__}: {error}")
            return
        if self._too_large:
            self._refuse(413, f"The body is longer than {MOST_BODY_BYTES} bytes")
        elif self._complete and not self._transport.is_closing():
            self._answer()
        elif self._continue:
            self._continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def drop(self) -> None:
        """Cut it off."""
        self._transport.abort()

    # The parser's side.

    def on_message_begin(self) -> None:
        """A request begins; if the one before has no answer yet, that is more than is spoken here."""
        if self._answering or self._complete:
            self._transport.close()
        self._begin_request()

    def on_url(self, part: bytes) -> None:
        """The request's target, or some of it."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Two headers matter; the parser keeps those that frame the message."""
        match name.lower():
            case b"content-length":
                self._too_large |= int(value) > MOST_BODY_BYTES
            case b"expect":
                self._continue = value.lower() == b"100-continue"

    def on_body(self, part: bytes) -> None:
        """Some of the body."""
        self._too_large |= len(self._body) + len(part) > MOST_BODY_BYTES
        if not self._too_large:
            self._body += part

    def on_message_complete(self) -> None:
        """Answer it once the parser has let go: what goes wrong there is no parser's error."""
        self._complete = True
        # The parser knows this here and no later. HTTP/1.0 knows no chunks: the connection's end is the answer's end.
        self._chunked = self._parser.get_http_version() == "1.1"
        self._keep = self._chunked and self._parser.should_keep_alive()

    def _answer(self) -> None:
        self._complete = False
        self._answering = True
        method, path = self._parser.get_method().decode(), self._target.split(b"?")[0].decode(errors="replace")
        self._job = self._service.answer(method, path, body=bytes(self._body), out=self)

    def _refuse(self, status: int, message: str) -> None:
        """Answer what could not be read to its end; after that the connection is of no use."""
        self._keep = False
        self.whole(Response(status, "application/json", Refusal(status, message).body()))

    # The service's side: `loadbench.sim.service.Out`.

    def whole(self, response: Response) -> None:
        """The head and the body, in one write."""
        framing = f"content-length: {len(response.body)}\r\n"
        if response.allow:
            framing += f"allow: {response.allow}\r\n"
        self._transport.write(self._head(response.status, response.content_type, framing) + response.body)
        self._end()

    def begin(self) -> None:
        """The head of an event stream."""
        framing = "cache-control: no-cache\r\n" + ("transfer-encoding: chunked\r\n" if self._chunked else "")
        self._transport.write(self._head(200, EVENT_STREAM, framing))

    def part(self, data: bytes, *, last: bool) -> None:
        """One chunk; the last one together with the end of all chunks."""
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
        self._job = None
        self._answering = False
        if not self._keep:
            self._transport.close()
