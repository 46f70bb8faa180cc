"""The measuring transport: asyncio's `BufferedProtocol` and llhttp, stamped by the kernel, pushed to the sink.

Nothing here costs more when there are more connections: the idle connections of an origin are a list, last in, first
out, and an exchange takes the last one or opens a new one. There are no limits, no proxy, no redirects and no retries
but one: a kept connection that the server closed in the meantime is replaced once, provided that not one byte of a
response has come, and the sink is notified.

A host is resolved once and its addresses are kept, because the name service is not what is measured. The address that
accepted a connection first is tried first from then on. Several local addresses, if there are `sources`, take turns;
one that has no port left is passed over.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from loadbench.client.connection import Connection
from loadbench.client.descriptors import keep_descriptors
from loadbench.client.faults import WrongFamilyError, explain, is_out_of_ports, is_shortage
from loadbench.client.local_ports import SourceTurns, bind_source, family_of
from loadbench.client.stamping import KERNEL, StampedSocket, Stamper, keep_stamping, stamp_source
from loadbench.client.transport import TransportError, sent_headers
from loadbench.plan.load import WHOLE, Shard
from loadbench.record.outcome import Outcome
from loadbench.record.trial import ConnectSteps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.client.stamping import StampStats
    from loadbench.client.transport import HttpRequest, Sink

# How long one address may take to connect where there is another to try (RFC 8305 has 250 ms).
_NEXT_ADDRESS_S = 0.25
# The system finds a dead peer after this, if no deadline finds it before.
_KEEPALIVE_S = 30
# More kinds of requests than any run has; beyond that, kept header blocks are forgotten.
_MOST_HEADS = 1000

Origin = tuple[str, str, int]  # scheme, host, port
Address = tuple[int, tuple[object, ...]]  # family, socket address


class FastTransport:
    """`loadbench.client.transport.Transport` over `Connection`; use it in one event loop, and close it there."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        sources: Sequence[str] = (),
        part: Shard = WHOLE,
        connection: type[Connection] = Connection,
    ) -> None:
        self._tls = tls
        self._family, self._sources = family_of(sources), SourceTurns(sources, part)
        self._connection_type = connection
        self._stamper = Stamper()
        self._stamping: socket.socket | None = None
        self._idle: dict[Origin, list[Connection]] = {}
        self._busy: set[Connection] = set()
        self._addresses: dict[tuple[str, int], list[Address]] = {}
        self.last_connect: ConnectSteps | None = None
        self._heads: dict[tuple[str, str, tuple[tuple[str, str], ...]], tuple[Origin, bytes]] = {}

    @property
    def stamp_source(self) -> str:
        """Where the stamps of arrival come from: `kernel` or `user`."""
        return stamp_source()

    def take_stamp_stats(self) -> StampStats:
        """The client's delays, unstamped reads and clock steps since the last call."""
        return self._stamper.take_stats()

    async def exchange(self, request: HttpRequest, sink: Sink) -> None:
        """Carry one exchange; see `loadbench.client.transport.Transport`."""
        # All but the body is the same for the requests of a run, and is kept.
        key = (request.method, request.url, request.headers)
        if key not in self._heads:
            if len(self._heads) > _MOST_HEADS:
                self._heads.clear()
            self._heads[key] = _head(*key)
        origin, head = self._heads[key]

        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.peer_closed():
                connection.abort()
                continue
            try:
                await self._carry(connection, origin, head, request, sink=sink, connect_ns=None)
            except TransportError as error:
                if connection.response_began or error.outcome is not Outcome.RESET:
                    raise
                sink.reconnecting()
                break
            return
        connection, connect_ns = await self._connect(origin)
        await self._carry(connection, origin, head, request, sink=sink, connect_ns=connect_ns)

    async def _carry(
        self,
        connection: Connection,
        origin: Origin,
        head: bytes,
        request: HttpRequest,
        *,
        sink: Sink,
        connect_ns: int | None,
    ) -> None:
        """Send the request over this connection, and keep the connection if it is still open afterwards."""
        self._busy.add(connection)
        sink.connected(
            self._stamper.now_ns(),
            reused=connect_ns is None,
            connect_ns=connect_ns,
            merged_segments=connection.merged_segments,
        )
        body = request.body
        length = b"content-length: %d\r\n\r\n" % len(body) if body or request.method != "GET" else b"\r\n"
        try:
            await connection.begin(head + length + body, sink)  # held by nobody once it is sent
        except BaseException:
            # Cancelled or broken: the response was not read to its end, so the connection cannot be used again.
            connection.abort()
            raise
        finally:
            self._busy.discard(connection)
        if not connection.closed:
            self._idle.setdefault(origin, []).append(connection)

    async def _connect(self, origin: Origin) -> tuple[Connection, int]:
        """A new connection, and the ns that name, TCP and TLS took. Raises `TransportError` if it cannot be made."""
        scheme, host, port = origin
        loop = asyncio.get_running_loop()
        began_ns = self._stamper.now_ns()
        try:
            if self._stamping is None:
                self._stamping = keep_stamping()
            if scheme == "https" and self._tls is None:
                self._tls = ssl.create_default_context()
            if (host, port) not in self._addresses:
                infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                addresses: list[Address] = [
                    (family, to) for family, _, _, _, to in infos if self._family in {0, family}
                ]
                if not addresses:
                    raise WrongFamilyError(host, self._family)
                self._addresses[host, port] = addresses
            named_ns = self._stamper.now_ns()
            sock = await _open_first(self._addresses[host, port], self._sources.next())
            opened_ns = self._stamper.now_ns()
            try:
                _, connection = await loop.create_connection(
                    lambda: self._connection_type(self._stamper, sock),
                    sock=sock,
                    ssl=self._tls if scheme == "https" else None,
                    server_hostname=host if scheme == "https" else None,
                )
            except BaseException:
                sock.close()
                raise
        except (OSError, UnicodeError) as error:  # the latter is a host name that cannot exist
            reason, hint = explain(error)
            outcome = Outcome.CLIENT_LIMIT if is_shortage(error) else Outcome.REFUSED
            raise TransportError(outcome, f"{reason} ({hint})" if hint else reason) from None
        ready_ns = self._stamper.now_ns()
        tls_ns = ready_ns - opened_ns if scheme == "https" else None
        self.last_connect = ConnectSteps(named_ns - began_ns, opened_ns - named_ns, tls_ns)
        return connection, ready_ns - began_ns

    async def aclose(self) -> None:
        """Close every connection, and give the event loop a turn to do so."""
        for connection in [*self._busy, *(connection for idle in self._idle.values() for connection in idle)]:
            connection.abort()
        self._idle.clear()
        self._busy.clear()
        if self._stamping is not None:
            self._stamping.close()
            self._stamping = None
        await asyncio.sleep(0)


async def _open_first(addresses: list[Address], sources: list[str | None]) -> socket.socket:
    """A socket connected to the first address that accepts, which is moved to the front of the list."""
    failure: OSError | None = None
    for address in list(addresses):
        try:
            # An address that swallows the attempt must not use up the time of the next.
            async with asyncio.timeout(None if address is addresses[-1] else _NEXT_ADDRESS_S):
                sock = await _open(*address, sources)
        except OSError as error:
            failure = failure or error
        else:
            if addresses[0] is not address:
                addresses.remove(address)
                addresses.insert(0, address)
            return sock
    raise failure or OSError("no address")


async def _open(family: int, address: tuple[object, ...], sources: list[str | None]) -> socket.socket:
    """A TCP connection from the first of these local addresses that has a port left, with kernel stamps where the
    system has them."""
    source, *others = sources
    socket_type = StampedSocket if stamp_source() == KERNEL else socket.socket
    sock = socket_type(family, socket.SOCK_STREAM)
    try:
        keep_descriptors(sock)
        sock.settimeout(0)  # asyncio needs it non-blocking
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
        if isinstance(sock, StampedSocket):
            sock.enable()
        if source is not None:
            bind_source(sock, source)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException as error:
        sock.close()
        if not others or not isinstance(error, OSError) or not is_out_of_ports(error):
            raise
    else:
        return sock
    return await _open(family, address, others)


def _head(method: str, url: str, headers: tuple[tuple[str, str], ...]) -> tuple[Origin, bytes]:
    """Origin and header block of a request, without the length of its body."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = "".join(f"{name}: {text}\r\n" for name, text in sent_headers(headers))
    head = f"{method} {path} HTTP/1.1\r\nhost: {parts.netloc.rpartition('@')[2]}\r\n{lines}"
    return (parts.scheme, parts.hostname or "", port), head.encode("latin-1", errors="replace")
