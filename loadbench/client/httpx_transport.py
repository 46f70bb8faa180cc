"""The plain transport: httpx, stamped at the read.

httpx and httpcore cost CPU for each connection in a pool, for each request; so every request that is in flight has an
`AsyncClient` of its own with one connection in it, taken from a last-in-first-out list of idle ones: the warmest
connection first, and no pool to wait for. They share one TLS context, which is the costly part of a client.

Nothing is added to what the user measures: no proxy from the environment, no redirects, no retries (but for a
keep-alive connection that the server had closed before a byte was sent: that is ours to mend, and is counted), no
decompression (`identity` is asked for), no limits, no time-outs (the client above holds the deadlines).
"""

from __future__ import annotations

import ssl
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import anyio
import httpx

from loadbench.client.faults import explain
from loadbench.client.transport import TransportError
from loadbench.core.errors import BadInput
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from pathlib import Path

    import httpcore

    from loadbench.client.transport import HttpRequest, Sink
    from loadbench.core.clock import Clock

# httpx's exceptions in our words, the most telling first. What is not here is a fault of ours and is raised.
_OUTCOMES: tuple[tuple[type[Exception], Outcome], ...] = (
    (httpx.ConnectError, Outcome.REFUSED),
    (httpx.ConnectTimeout, Outcome.TIMEOUT_CONNECT),
    (httpx.RemoteProtocolError, Outcome.RESET),
    (httpx.LocalProtocolError, Outcome.PROTOCOL),
    (httpx.UnsupportedProtocol, Outcome.PROTOCOL),
    (httpx.NetworkError, Outcome.RESET),
    (httpx.TimeoutException, Outcome.TIMEOUT_TOTAL),
)

# What httpcore says when a server's bytes are not HTTP, as against a connection that ended early.
_NOT_HTTP = ("illegal", "invalid", "malformed", "too many", "bad ")


def tls_context(*, cacert: Path | None = None, insecure: bool = False) -> ssl.SSLContext:
    """The TLS context of a run: the system's trust, or the given CA file, or (loudly) none.

    Raises `BadInput` where the file cannot be read or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=cacert)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"--cacert {cacert}: {error}", hint="name a readable PEM file") from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class HttpxTransport:
    """`loadbench.client.transport.Transport` over httpx."""

    stamp_source = "user"

    def __init__(self, clock: Clock, *, tls: ssl.SSLContext | None = None) -> None:
        self._now_ns = clock.now_ns
        self._tls = tls
        self._idle: list[httpx.AsyncClient] = []
        self._busy: set[httpx.AsyncClient] = set()

    async def exchange(self, exchange: HttpRequest, sink: Sink) -> None:
        """Carry one exchange; a dead keep-alive connection is replaced once, unless a byte of an answer had come."""
        if self._idle:
            trace = _Trace(sink, self._now_ns)
            try:
                await self._use(self._idle.pop(), exchange, sink, trace)
            except TransportError as error:
                if not trace.reused or trace.answered or error.outcome is not Outcome.RESET:
                    raise
            else:
                return
            sink.reconnecting()
        if self._tls is None and exchange.url.startswith("https:"):
            self._tls = ssl.create_default_context()
        await self._use(self._new_client(), exchange, sink, _Trace(sink, self._now_ns))

    async def _use(self, client: httpx.AsyncClient, exchange: HttpRequest, sink: Sink, trace: _Trace) -> None:
        self._busy.add(client)
        try:
            await self._carry(client, exchange, sink, trace)
        except BaseException:
            # Broken or cancelled: the answer was not read to its end, so the connection is of no more use.
            await trace.drop()
            await self._drop(client)
            raise
        self._busy.discard(client)
        client.cookies.clear()
        self._idle.append(client)

    async def _carry(self, client: httpx.AsyncClient, exchange: HttpRequest, sink: Sink, trace: _Trace) -> None:
        now_ns = self._now_ns
        try:
            request = client.build_request(
                exchange.method,
                exchange.url,
                headers=list(exchange.headers),
                content=exchange.body or None,
                extensions={"trace": trace},
            )
            response = await client.send(request, stream=True)
            try:
                async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_raw())) as chunks:
                    async for chunk in chunks:
                        sink.data(now_ns(), chunk)
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            raise _ours(error) from None
        except httpx.InvalidURL as error:
            raise TransportError(Outcome.PROTOCOL, str(error)) from None

    def _new_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=self._tls or False,  # none is made for http://, which would cost 30 ms a client
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # noqa: S113 - the client above holds every deadline
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=None),
            headers={"accept": "text/event-stream, application/json", "accept-encoding": "identity"},
        )

    def take_delays(self) -> Histogram:
        """Nothing: without the kernel's stamp nobody knows how late a read was."""
        return Histogram()

    def take_steps(self) -> int:
        """None: no stamp is of the wall clock."""
        return 0

    def take_unstamped(self) -> int:
        """None: no stamp is asked for."""
        return 0

    async def _drop(self, client: httpx.AsyncClient) -> None:
        self._busy.discard(client)
        await client.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        for client in [*self._idle, *self._busy]:
            await client.aclose()
        self._idle.clear()
        self._busy.clear()


class _Trace:
    """Turns httpcore's trace events into marks. They come in the order of what happens on the wire."""

    def __init__(self, sink: Sink, now_ns: Callable[[], int]) -> None:
        self._sink = sink
        self._now_ns = now_ns
        self._connect_began_ns: int | None = None
        self._connect_ns: int | None = None
        self._unready: httpcore.AsyncNetworkStream | None = None
        self.reused = False
        self.answered = False

    async def __call__(self, name: str, info: Mapping[str, object]) -> None:
        at_ns = self._now_ns()
        match name:
            case "connection.connect_tcp.started":
                self._connect_began_ns = at_ns
            case "connection.connect_tcp.complete" | "connection.start_tls.complete":
                assert self._connect_began_ns is not None  # noqa: S101 - the events come in order
                self._connect_ns = at_ns - self._connect_began_ns
                self._unready = cast("httpcore.AsyncNetworkStream", info["return_value"])
            case "http11.send_request_headers.started":
                self._unready, self.reused = None, self._connect_began_ns is None
                self._sink.connected(at_ns, reused=self.reused, connect_ns=self._connect_ns)
            case "http11.send_request_body.complete":
                self._sink.sent(at_ns)
            case "http11.receive_response_headers.complete":
                self.answered = True
                _, status, _, headers = info["return_value"]  # type: ignore[misc]
                self._sink.headers(at_ns, status, headers)  # type: ignore[has-type]

    async def drop(self) -> None:
        """Close a connection that was given up before it was ready: in a TLS handshake, httpcore forgets it."""
        if self._unready is not None:
            with anyio.CancelScope(shield=True):
                await self._unready.aclose()


def _ours(error: httpx.TransportError) -> TransportError:
    """The exception in our words; raises it again where there are none."""
    outcome = next((ours for theirs, ours in _OUTCOMES if isinstance(error, theirs)), None)
    if outcome is None:
        raise error
    text, _ = explain(error)
    if isinstance(error, httpx.RemoteProtocolError):
        if any(word in text.lower() for word in _NOT_HTTP):
            outcome = Outcome.PROTOCOL
        elif "complete message body" in text:
            outcome = Outcome.TRUNCATED
    return TransportError(outcome, text)
