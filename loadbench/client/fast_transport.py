"""The measuring transport: asyncio's `BufferedProtocol` and llhttp, stamped by the kernel, pushed to the sink.

Nothing here costs more the more connections there are: idle connections of an origin stand in a list, last in, first
out, and an exchange takes the top one or makes a new one. No limits, no proxy, no redirects, no retries, but for the
one that is ours to make: a kept connection that the server had closed in the meantime is replaced, once, if not one
byte of an answer had come, and the exchange says so.

A host is resolved once and its addresses are kept: a name service is not what is measured. The one that answered first
is tried first from then on.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from loadbench.client.connection import Connection
from loadbench.client.faults import explain
from loadbench.client.stamping import KERNEL, StampedSocket, Stamper, keep_stamping, stamp_source
from loadbench.client.transport import TransportError
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from loadbench.client.transport import HttpRequest, Sink
    from loadbench.record.histogram import Histogram

# What is asked for besides the caller's headers; no compression, for that would hold tokens back.
_ALWAYS = "accept: text/event-stream, application/json\r\naccept-encoding: identity\r\n"
# How long an address has to answer where there is another to try (RFC 8305 has 250 ms).
_NEXT_ADDRESS_S = 0.25
# A dead peer that says nothing is found by the system after this, if no deadline finds it before.
_KEEPALIVE_S = 30

Origin = tuple[str, str, int]  # scheme, host, port
Address = tuple[int, tuple[object, ...]]  # family, socket address


class FastTransport:
    """`loadbench.client.transport.Transport` by our own means; use it in one event loop, and close it there."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, connection: type[Connection] = Connection) -> None:
        self._tls = tls
        self._make = connection
        self._stamper = Stamper()
        self._stamping: socket.socket | None = None
        self._idle: dict[Origin, list[Connection]] = {}
        self._busy: set[Connection] = set()
        self._addresses: dict[tuple[str, int], list[Address]] = {}
        self._heads: dict[tuple[str, str, tuple[tuple[str, str], ...]], tuple[Origin, bytes]] = {}

    @property
    def stamp_source(self) -> str:
        """Where the stamps of arrival come from: `kernel` or `user`."""
        return stamp_source()

    def take_delays(self) -> Histogram:
        """This client's own delay of every read since this was last asked, in ns; empty without kernel stamps."""
        return self._stamper.take_delays()

    def take_steps(self) -> int:
        """How often the wall clock was seen to step since this was last asked."""
        return self._stamper.take_steps()

    def take_unstamped(self) -> int:
        """How many reads the kernel gave no stamp for since this was last asked; they are stamped as they were read."""
        return self._stamper.take_unstamped()

    async def exchange(self, exchange: HttpRequest, sink: Sink) -> None:
        """Carry one exchange; see `loadbench.client.transport.Transport`."""
        origin, request = self._request(exchange)
        connection = self.take(origin)
        if connection is not None:
            try:
                await self._carry(connection, origin, request, sink=sink, connect_ns=None)
            except TransportError as error:
                if connection.answered or error.outcome is not Outcome.RESET:
                    raise
                sink.reconnecting()
            else:
                return
        connection, connect_ns = await self.connect(origin)
        await self._carry(connection, origin, request, sink=sink, connect_ns=connect_ns)

    async def _carry(
        self, connection: Connection, origin: Origin, request: bytes, *, sink: Sink, connect_ns: int | None
    ) -> None:
        self._busy.add(connection)
        sink.connected(self._stamper.now_ns(), reused=connect_ns is None, connect_ns=connect_ns)
        try:
            await connection.begin(request, sink)
        except BaseException:
            # Cancelled or broken: the answer was not read to its end, so the connection is of no more use.
            connection.abort()
            raise
        finally:
            self._busy.discard(connection)
        self.keep(origin, connection)

    def keep(self, origin: Origin, connection: Connection) -> None:
        """Have the connection ready for the next exchange, if it is still open."""
        if not connection.closed:
            self._idle.setdefault(origin, []).append(connection)

    def take(self, origin: Origin) -> Connection | None:
        """The kept connection that was used last, of those that are still open."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if not connection.peer_closed():
                return connection
            connection.abort()
        return None

    def _request(self, exchange: HttpRequest) -> tuple[Origin, bytes]:
        """Where to, and the request's bytes. All but the body is the same for the requests of a run, and is kept."""
        key = (exchange.method, exchange.url, exchange.headers)
        if key not in self._heads:
            if len(self._heads) > 1000:
                self._heads.clear()
            self._heads[key] = _head(*key)
        origin, head = self._heads[key]
        body = exchange.body
        length = b"content-length: %d\r\n\r\n" % len(body) if body or exchange.method != "GET" else b"\r\n"
        return origin, head + length + body

    async def connect(self, origin: Origin) -> tuple[Connection, int]:
        """A new connection and the ns that it took: name, TCP and TLS.

        Raises `TransportError` where none can be had.
        """
        scheme, host, port = origin
        began_ns = self._stamper.now_ns()
        if self._stamping is None:
            self._stamping = keep_stamping()
        try:
            addresses = await self._resolve(host, port)
            sock = await self._reach(addresses)
            connection = await self._wrap(sock, scheme, host)
        except (OSError, UnicodeError) as error:  # the latter is a name that no name service could know
            what, hint = explain(error)
            raise TransportError(Outcome.REFUSED, f"{what} ({hint})" if hint else what) from None
        return connection, self._stamper.now_ns() - began_ns

    async def _resolve(self, host: str, port: int) -> list[Address]:
        known = self._addresses.get((host, port))
        if known is None:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            known = [(family, address) for family, _, _, _, address in found]
            self._addresses[host, port] = known
        return known

    async def _reach(self, addresses: list[Address]) -> socket.socket:
        """A connected socket to the first address that answers, which is the first to be tried from now on."""
        failure: OSError | None = None
        for address in list(addresses):
            try:
                # An address that swallows the attempt must not use up the time of the next.
                async with asyncio.timeout(None if address is addresses[-1] else _NEXT_ADDRESS_S):
                    sock = await _open(*address)
            except OSError as error:
                failure = failure or error
            else:
                if addresses[0] is not address:
                    addresses.remove(address)
                    addresses.insert(0, address)
                return sock
        raise failure or OSError("no address")

    async def _wrap(self, sock: socket.socket, scheme: str, host: str) -> Connection:
        secure = scheme == "https"
        if secure and self._tls is None:
            self._tls = ssl.create_default_context()
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: self._make(self._stamper, sock),
                sock=sock,
                ssl=self._tls if secure else None,
                server_hostname=host if secure else None,
            )
        except BaseException:
            sock.close()
            raise
        return connection

    async def aclose(self) -> None:
        """Close every connection, and give the event loop a turn to do so."""
        for connection in [*self._busy, *(one for idle in self._idle.values() for one in idle)]:
            connection.abort()
        self._idle.clear()
        self._busy.clear()
        if self._stamping is not None:
            self._stamping.close()
            self._stamping = None
        await asyncio.sleep(0)


async def _open(family: int, address: tuple[object, ...]) -> socket.socket:
    """A TCP connection, with kernel stamps where they can be had."""
    make = StampedSocket if stamp_source() == KERNEL else socket.socket
    sock = make(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)  # asyncio wants it non-blocking
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
        if isinstance(sock, StampedSocket):
            sock.enable()
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _head(method: str, url: str, headers: tuple[tuple[str, str], ...]) -> tuple[Origin, bytes]:
    """Origin and header block of a request, but for the length of its body."""
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    given = "".join(f"{name}: {text}\r\n" for name, text in headers)
    head = f"{method} {path} HTTP/1.1\r\nhost: {parts.netloc.rpartition('@')[2]}\r\n{_ALWAYS}{given}"
    return (parts.scheme, host, port), head.encode("latin-1", errors="replace")
