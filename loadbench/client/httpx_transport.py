"""Stock httpx, stamped at the read: the transport to compare ours with (`--transport httpx`).

A pool of httpx costs CPU for each of its connections at each request. So every request in flight has its own
`AsyncClient` with one connection, taken from a last-in-first-out list of idle ones: the warmest connection first, and
no pool to wait for. They share one TLS context, which is the costly part of a client.

Nothing is added to what the user measures: no proxy from the environment, no redirects, no decompression (it requests
`identity`), no limits, no timeouts (the client above keeps the deadlines), and no retries but one: a kept connection
that the server had closed before a byte of a response came is replaced, and the sink is notified.
"""

from __future__ import annotations

import ssl
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import anyio

from loadbench.client.connection import MOST_HEADERS
from loadbench.client.descriptors import keep_descriptors
from loadbench.client.faults import explain, is_out_of_ports, is_shortage
from loadbench.client.lean_httpx import httpx
from loadbench.client.local_ports import SourceTurns
from loadbench.client.stamping import StampStats
from loadbench.client.transport import ALWAYS, TransportError
from loadbench.plan.load import WHOLE, Shard
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    import httpcore

    from loadbench.client.transport import HttpRequest, Sink
    from loadbench.core.clock import Clock

# What httpx's exceptions mean, the most specific first. Any other is a bug of ours and is raised.
_OUTCOMES: tuple[tuple[type[Exception], Outcome], ...] = (
    (httpx.ConnectError, Outcome.REFUSED),
    (httpx.ConnectTimeout, Outcome.TIMEOUT_CONNECT),
    (httpx.RemoteProtocolError, Outcome.RESET),
    (httpx.LocalProtocolError, Outcome.PROTOCOL),
    (httpx.UnsupportedProtocol, Outcome.PROTOCOL),
    (httpx.NetworkError, Outcome.RESET),
    (httpx.TimeoutException, Outcome.TIMEOUT_TOTAL),
)

# Words of httpcore's message when a server's bytes are not HTTP; without them the connection ended early.
_NOT_HTTP = ("illegal", "invalid", "malformed", "too many", "too long", "bad ")


class HttpxTransport:
    """`loadbench.client.transport.Transport` over httpx."""

    stamp_source = "user"

    def __init__(
        self, clock: Clock, *, tls: ssl.SSLContext | None = None, sources: Sequence[str] = (), part: Shard = WHOLE
    ) -> None:
        self._sources = SourceTurns(sources, part)
        self._now_ns = clock.now_ns
        self._tls = tls
        self._idle: list[httpx.AsyncClient] = []
        self._busy: set[httpx.AsyncClient] = set()

    async def exchange(self, request: HttpRequest, sink: Sink) -> None:
        """Carry one exchange; a dead kept connection is replaced once, unless a byte of a response had come."""
        if self._idle:
            trace = _Trace(sink, self._now_ns)
            try:
                await self._carry(self._idle.pop(), request, sink, trace)
            except TransportError as error:
                is_dead = trace.reused and not trace.response_began and error.outcome is Outcome.RESET
                # httpx makes a new connection where it knows that the kept one is dead, from the same local address.
                if not is_dead and not is_out_of_ports(error):
                    raise
            else:
                return
            sink.reconnecting()
        if self._tls is None and request.url.startswith("https:"):
            self._tls = ssl.create_default_context()
        source, *others = self._sources.next()
        while True:
            client = httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(
                    verify=self._tls or False,  # for http:// none is made: that would cost 30 ms a client
                    trust_env=False,
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=None),
                    local_address=source,
                ),
                trust_env=False,
                follow_redirects=False,
                timeout=None,
                headers=dict(ALWAYS),
            )
            try:
                await self._carry(client, request, sink, _Trace(sink, self._now_ns))
            except TransportError as error:
                if not others or not is_out_of_ports(error):
                    raise
                source, *others = others
            else:
                return

    async def _carry(self, client: httpx.AsyncClient, request: HttpRequest, sink: Sink, trace: _Trace) -> None:
        """Send the request over this client, and keep the client if the response was read to its end."""
        now_ns = self._now_ns
        self._busy.add(client)
        try:
            response = await client.send(
                client.build_request(
                    request.method,
                    request.url,
                    headers=list(request.headers),
                    content=request.body or None,
                    extensions={"trace": trace},
                ),
                stream=True,
            )
            try:
                async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_raw())) as chunks:
                    async for chunk in chunks:
                        sink.data(now_ns(), chunk)
            finally:
                await response.aclose()
        except BaseException as error:
            # Broken or cancelled: the response was not read to its end, so the connection cannot be used again.
            await trace.drop()
            self._busy.discard(client)
            await client.aclose()
            if isinstance(error, httpx.TransportError):
                raise _convert(error) from None
            if isinstance(error, httpx.InvalidURL):
                raise TransportError(Outcome.PROTOCOL, str(error)) from None
            raise
        self._busy.discard(client)
        client.cookies.clear()
        self._idle.append(client)

    def take_stamp_stats(self) -> StampStats:
        """Empty: without the kernel's stamp nobody knows how late a read was."""
        return StampStats(Histogram())

    async def aclose(self) -> None:
        """Close every connection."""
        for client in [*self._idle, *self._busy]:
            await client.aclose()
        self._idle.clear()
        self._busy.clear()


class _Trace:
    """Turns the trace events of httpcore, which come in the order of the wire, into the marks of the sink."""

    def __init__(self, sink: Sink, now_ns: Callable[[], int]) -> None:
        self._sink = sink
        self._now_ns = now_ns
        self._connect_began_ns: int | None = None
        self._connect_ns: int | None = None
        self._unready: httpcore.AsyncNetworkStream | None = None
        self.reused = False
        self.response_began = False

    async def __call__(self, name: str, info: Mapping[str, object]) -> None:
        at_ns = self._now_ns()
        match name:
            case "connection.connect_tcp.started":
                self._connect_began_ns = at_ns
            case "connection.connect_tcp.complete" | "connection.start_tls.complete":
                assert self._connect_began_ns is not None  # noqa: S101 - the events come in order
                self._connect_ns = at_ns - self._connect_began_ns
                stream = self._unready = cast("httpcore.AsyncNetworkStream", info["return_value"])
                try:
                    keep_descriptors(stream.get_extra_info("socket"))
                except OSError as error:
                    raise httpx.ConnectError(str(error)) from error
            case "http11.send_request_headers.started":
                self._unready, self.reused = None, self._connect_began_ns is None
                self._sink.connected(at_ns, reused=self.reused, connect_ns=self._connect_ns)
            case "http11.send_request_body.complete":
                self._sink.sent(at_ns)
            case "http11.receive_response_headers.complete":
                self.response_began = True
                _, status, _, headers = info["return_value"]  # type: ignore[misc]
                if len(headers) > MOST_HEADERS:  # type: ignore[has-type]
                    raise httpx.RemoteProtocolError(f"too many: more than {MOST_HEADERS:,} headers")
                self._sink.headers(at_ns, status, headers)  # type: ignore[has-type]

    async def drop(self) -> None:
        """Close a connection that was cancelled before it was ready: in a TLS handshake, httpcore forgets it."""
        if self._unready is not None:
            with anyio.CancelScope(shield=True):
                await self._unready.aclose()


def _convert(error: httpx.TransportError) -> TransportError:
    """The `TransportError` for an exception of httpx; raises it again if there is none."""
    outcome = next((outcome for kind, outcome in _OUTCOMES if isinstance(error, kind)), None)
    if outcome is None:
        raise error
    text, _ = explain(error)
    if is_shortage(error):
        return TransportError(Outcome.CLIENT_LIMIT, text)
    if isinstance(error, httpx.RemoteProtocolError):
        if any(word in text.lower() for word in _NOT_HTTP):
            outcome = Outcome.PROTOCOL
        elif "complete message body" in text:
            outcome = Outcome.TRUNCATED
    return TransportError(outcome, text)
