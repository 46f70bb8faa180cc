"""Our connections and stamps for whoever wants httpx's API: `httpx.AsyncClient(transport=LoadTransport())`.

Above it everything is httpx's own: redirects, authentication, cookies, decompression, time-outs. Below it is what
`loadbench.client.fast_transport` measures with: the same pool, the same connections, the same stamps of arrival. What
the one pushes, the other asks for; between them stands `Answer`, which holds what was pushed until it is asked for, and
has the connection stop reading while it holds too much.

A request's extensions may say `timeout` (httpx sets it), `target`, and `sink`: a `loadbench.client.transport.Sink` that
is told everything at once, as the engine's client is; the response's own stream is then empty and ends with the body.
`trace` is not heard. A response's extensions say `http_version`, `reason_phrase` and `loadbench_stamps`.

Differences from httpx's transport, each for a reason: an answer may come before the request has been sent (the refusal
of a large upload is heard at once); a connection that carried HEAD is closed, for our parser cannot be told that no
body comes; header block and interim answers share one read time-out; the pool has no limits, so nobody waits for it.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import httpx

from loadbench.client.connection import Connection
from loadbench.client.deadline import Deadline
from loadbench.client.fast_transport import FastTransport
from loadbench.client.httpx_transport import tls_context
from loadbench.client.transport import TransportError
from loadbench.core.clock import MonotonicClock
from loadbench.core.units import NS_PER_S
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable

    from loadbench.client.fast_transport import Origin
    from loadbench.client.transport import Header, Sink
    from loadbench.record.histogram import Histogram

# An answer that is not asked for is held up to this; then reading pauses until half of it is gone. What one read
# brings (`connection`) comes on top. Large enough that a reader who keeps up never meets it.
_MOST_HELD_BYTES = 1024 * 1024
# What a part costs beside its bytes: the bytes object, the stamp, their pair.
_PART_BYTES = 100

# RFC 9110 5.1, 5.5 and 9.1; as strict as h11, which httpx's own transport sends with.
_TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"(?:[^\x00\s]+(?:[ \t]+[^\x00\s]+)*)?")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_LENGTH = re.compile(rb"[0-9]{1,20}")

_PORTS = {"http": 80, "https": 443}
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(slots=True)
class Stamps:
    """When what happened to one exchange, in ns of `time.perf_counter_ns`; filled in as it happens.

    `sent_ns` is when the request's last byte was with the socket, `headers_ns` when the answer's header block had
    arrived, `last_ns` when the body part had that was given out last. `connect_ns` is a duration, absent where the
    connection was reused; `pauses` counts how often reading paused because nobody asked for what had come.
    """

    sent_ns: int | None = None
    headers_ns: int | None = None
    last_ns: int | None = None
    connect_ns: int | None = None
    pauses: int = 0


class LoadTransport(httpx.AsyncBaseTransport):
    """httpx's transport by our own means: HTTP/1.1, straight to the server, in one event loop.

    `tls` is the context for https, the system's trust if absent. Raises `ValueError` for a proxy and for HTTP/2.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, proxy: object | None = None, http2: bool = False) -> None:
        if proxy is not None or http2:
            what = "HTTP/2" if http2 else "proxies"
            raise ValueError(f"LoadTransport does not speak {what}: use httpx.AsyncHTTPTransport, without our stamps")
        self.pauses = 0  # of reading, in all answers so far
        self._fast = FastTransport(tls=tls or tls_context(), connection=_WordedConnection)
        self._open: set[Answer] = set()

    @property
    def stamp_source(self) -> str:
        """Where the stamps of arrival come from: `kernel` or `user`."""
        return self._fast.stamp_source

    def take_delays(self) -> Histogram:
        """This client's own delay of every read since this was last asked, in ns; empty without kernel stamps."""
        return self._fast.take_delays()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request; the response is there with its headers, its stream yields the body's parts as they come.

        Raises `httpx.TransportError` and its kinds. Cancelled, it drops the connection.
        """
        asked = _asked(request)
        try:
            answer = await self._answer(asked)
        except TransportError as error:
            raise _theirs(error) from error
        return httpx.Response(answer.status, headers=answer.headers_list, stream=answer, extensions=answer.extensions())

    async def _answer(self, asked: _Asked) -> Answer:
        """An answer with its headers; a dead kept connection is replaced once, if the body can be sent again."""
        kept = self._fast.take(asked.origin)
        if kept is not None:
            try:
                return await self._begin(kept, asked, connect_ns=None)
            except TransportError as error:
                if kept.answered or error.outcome is not Outcome.RESET or not isinstance(asked.body, bytes):
                    raise
                if asked.sink is not None:
                    asked.sink.reconnecting()
        try:
            async with asyncio.timeout(asked.connect_s):
                connection, connect_ns = await self._fast.connect(asked.origin)
        except TimeoutError:
            raise httpx.ConnectTimeout(f"no connection within {asked.connect_s:g} s") from None
        return await self._begin(connection, asked, connect_ns=connect_ns)

    async def _begin(self, connection: Connection, asked: _Asked, *, connect_ns: int | None) -> Answer:
        answer = Answer(self, cast("_WordedConnection", connection), asked, connect_ns=connect_ns)
        self._open.add(answer)
        try:
            await answer.ask()
        except BaseException:
            answer.drop()
            raise
        return answer

    def release(self, answer: Answer, connection: Connection, origin: Origin, *, whole: bool) -> None:
        """The answer is done with; its connection is kept if it was read to its end."""
        self._open.discard(answer)
        self.pauses += answer.stamps.pauses
        if whole:
            self._fast.keep(origin, connection)
        else:
            connection.abort()

    async def aclose(self) -> None:
        """Close every connection; answers that are being read break off."""
        for answer in list(self._open):
            answer.drop()
        await self._fast.aclose()


class Answer(httpx.AsyncByteStream):
    """One exchange: told by its connection what comes, asked by httpx for the body.

    Whoever waits does so in `_wait`, with the deadline set; whatever happens wakes them, and takes the deadline off.
    """

    def __init__(
        self, transport: LoadTransport, connection: _WordedConnection, asked: _Asked, *, connect_ns: int | None
    ) -> None:
        self.status = 0
        self.headers_list: list[Header] = []
        self.stamps = Stamps(connect_ns=connect_ns)
        self._transport = transport
        self._connection = connection
        self._asked = asked
        self._parts: deque[tuple[int, bytes]] = deque()
        self._held_bytes = 0
        self._paused = False
        self._gone = False
        self._over: asyncio.Future[None]
        self._woken: asyncio.Future[None] | None = None
        self._clock = MonotonicClock()
        self._deadline = Deadline(self._clock, self._expired)
        self._late: tuple[type[httpx.TimeoutException], float | None]

    @property
    def last_ns(self) -> int | None:
        """When the part had arrived that was given out last."""
        return self.stamps.last_ns

    # What the transport calls.

    async def ask(self) -> None:
        """Send the request and wait for the answer's headers."""
        asked, body = self._asked, self._asked.body
        if asked.sink is not None:
            reused = self.stamps.connect_ns is None
            asked.sink.connected(self._clock.now_ns(), reused=reused, connect_ns=self.stamps.connect_ns)
        if isinstance(body, bytes):
            self._over = self._connection.begin(asked.head + body, self, no_body=asked.no_body)
            self._over.add_done_callback(self._ended)
        else:
            self._over = self._connection.begin(asked.head, self, no_body=asked.no_body, flushed=self._wake)
            self._over.add_done_callback(self._ended)
            await self._send(body)
        while not self.status and not self._over.done():
            if self.stamps.sent_ns is None:
                await self._wait(httpx.WriteTimeout, asked.write_s)
            else:
                await self._wait(httpx.ReadTimeout, asked.read_s)
        if not self.status:
            self._raise_end()

    def extensions(self) -> dict[str, object]:
        """Those of the response."""
        return {
            "http_version": self._connection.version,
            "reason_phrase": self._connection.reason,
            "loadbench_stamps": self.stamps,
        }

    def drop(self) -> None:
        """Be done with it, whatever may still come."""
        self._parts.clear()
        self._let_go(whole=False)

    async def _send(self, body: AsyncIterable[bytes] | Iterable[bytes]) -> None:
        """Send the body as it is made; an exchange that is over by then needs no more of it."""
        async with aclosing(_framed(body, self._asked.length)) as pieces:
            async for piece in pieces:
                if self._over.done():
                    return
                self._connection.write(piece)
                # A body that is there at once must not keep the loop from hearing that the server wants no more of it.
                await asyncio.sleep(0)
                while self._connection.has_unsent and not self._over.done():
                    await self._wait(httpx.WriteTimeout, self._asked.write_s)
        self._connection.end()

    # What the connection calls.

    def sent(self, at_ns: int) -> None:
        """The request's last byte was handed to the socket."""
        self.stamps.sent_ns = at_ns
        if self._asked.sink is not None:
            self._asked.sink.sent(at_ns)
        self._wake()

    def headers(self, at_ns: int, status: int, headers: list[Header]) -> None:
        """The header block is complete; trailers, which the connection adds to its list later, are not ours."""
        self.stamps.headers_ns, self.status, self.headers_list = at_ns, status, list(headers)
        if self._asked.sink is not None:
            self._asked.sink.headers(at_ns, status, headers)
        self._wake()

    def data(self, at_ns: int, chunk: bytes) -> None:
        """A part of the body: to the sink if there is one, else held until it is asked for."""
        if self._asked.sink is not None:
            self.stamps.last_ns = at_ns
            self._asked.sink.data(at_ns, chunk)
            self._expect(httpx.ReadTimeout, self._asked.read_s)
            return
        self._parts.append((at_ns, chunk))
        self._held_bytes += len(chunk) + _PART_BYTES
        if self._held_bytes > _MOST_HELD_BYTES and not self._paused:
            self._paused = True
            self.stamps.pauses += 1
            self._connection.pause()
        self._wake()

    # What httpx calls.

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body's parts; at its end the connection is kept, at anything else it is dropped."""
        try:
            while True:
                while self._parts:
                    yield self._next()
                if self._over.done():
                    break
                await self._wait(httpx.ReadTimeout, self._asked.read_s)
            self._raise_end()
        except TransportError as error:
            self.drop()
            raise _theirs(error) from error
        except BaseException:
            self.drop()
            raise
        self._let_go(whole=True)

    async def aclose(self) -> None:
        """Be done with it: the connection is kept if the body had ended and was read, else dropped."""
        if self._over.done() and not self._parts:
            self._let_go(whole=True)
        else:
            self.drop()

    def _next(self) -> bytes:
        self.stamps.last_ns, part = self._parts.popleft()
        self._held_bytes -= len(part) + _PART_BYTES
        if self._paused and self._held_bytes <= _MOST_HELD_BYTES // 2:
            self._paused = False
            self._connection.resume()
        return part

    def _raise_end(self) -> None:
        """Raise what the exchange ended by, if it did not end well."""
        if self._over.cancelled():
            raise httpx.ReadError("the connection was closed while the answer was awaited")
        error = self._over.exception()
        if error is not None:
            raise error

    def _let_go(self, *, whole: bool) -> None:
        if self._gone:
            return
        self._gone = True
        self._deadline.clear()
        keeps = whole and not self._asked.closes
        self._transport.release(self, self._connection, self._asked.origin, whole=keeps)

    # Waiting.

    async def _wait(self, otherwise: type[httpx.TimeoutException], within_s: float | None) -> None:
        """Until something has happened; where nothing does, the exchange fails, which is something."""
        self._woken = asyncio.get_running_loop().create_future()
        self._expect(otherwise, within_s)
        await self._woken

    def _expect(self, otherwise: type[httpx.TimeoutException], within_s: float | None) -> None:
        self._late = (otherwise, within_s)
        self._deadline.move(None if within_s is None else self._clock.now_ns() + round(within_s * NS_PER_S))

    def _wake(self) -> None:
        self._deadline.move(None)
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def _ended(self, over: asyncio.Future[None]) -> None:
        if not over.cancelled():
            over.exception()  # seen, even if nobody reads to the end
        self._wake()

    def _expired(self) -> None:
        otherwise, within_s = self._late
        if not self._over.done():
            self._connection.fail(otherwise(f"nothing happened within {within_s:g} s"))


class _WordedConnection(Connection):
    """A connection that keeps the words of the status line too: httpx shows them, what measures has no use for them."""

    reason = b""

    @property
    def version(self) -> bytes:
        """`HTTP/1.1` or `HTTP/1.0`."""
        return b"HTTP/" + self._parser.get_http_version().encode()

    def on_message_begin(self) -> None:
        """A new status line."""
        self.reason = b""
        super().on_message_begin()

    def on_status(self, words: bytes) -> None:
        """A part of the reason phrase."""
        self.reason += words


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request as it goes over the wire; a body that is no `bytes` can be sent once. `length` is absent for chunks."""

    origin: Origin
    head: bytes
    body: bytes | AsyncIterable[bytes] | Iterable[bytes]
    length: int | None
    no_body: bool
    closes: bool
    connect_s: float | None
    write_s: float | None
    read_s: float | None
    sink: Sink | None


def _asked(request: httpx.Request) -> _Asked:
    """The request, checked before a connection is looked for.

    Raises `httpx.UnsupportedProtocol`, and `httpx.LocalProtocolError` for what would not be HTTP.
    """
    origin, head, length = _origin(request), _head(request), _length(request.headers)
    timeout = request.extensions.get("timeout") or {}
    return _Asked(
        origin=origin,
        head=head,
        body=_body(request, length),
        length=length,
        no_body=request.method == "HEAD",
        closes="close" in request.headers.get("connection", "").lower(),
        connect_s=timeout.get("connect"),
        write_s=timeout.get("write"),
        read_s=timeout.get("read"),
        sink=request.extensions.get("sink"),
    )


def _origin(request: httpx.Request) -> Origin:
    url = request.url
    if url.scheme not in _PORTS:
        what = f"has an unsupported protocol '{url.scheme}://'" if url.scheme else "is missing 'http://' or 'https://'"
        raise httpx.UnsupportedProtocol(f"Request URL {what}.")
    if "sni_hostname" in request.extensions:
        raise httpx.UnsupportedProtocol("LoadTransport names the URL's host to TLS: use httpx.AsyncHTTPTransport")
    return url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme]


def _head(request: httpx.Request) -> bytes:
    """The request's first line and headers, as they were given."""
    method = request.method.encode("ascii", errors="replace")
    target = request.extensions.get("target", request.url.raw_path)
    if not _TOKEN.fullmatch(method) or method == b"CONNECT":
        raise httpx.LocalProtocolError(f"Illegal method {method!r}")
    if not _TARGET.fullmatch(target):
        raise httpx.LocalProtocolError(f"Illegal target {target!r}")
    raw = request.headers.raw
    for name, value in raw:
        if not _TOKEN.fullmatch(name):
            raise httpx.LocalProtocolError(f"Illegal header name {name!r}")
        if not _VALUE.fullmatch(value):
            raise httpx.LocalProtocolError(f"Illegal header value {value!r}")
    if len(request.headers.get_list("host")) != 1:
        raise httpx.LocalProtocolError("A request has exactly one Host header")
    lines = [b"%b %b HTTP/1.1" % (method, target), *(b"%b: %b" % header for header in raw)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _length(headers: httpx.Headers) -> int | None:
    """The body's length as the headers announce it: 0 if they do not speak of one, `None` for chunks."""
    codings = headers.get_list("transfer-encoding")
    lengths = set(headers.get_list("content-length", split_commas=True))
    if codings and ([coding.lower() for coding in codings] != ["chunked"] or lengths):
        raise httpx.LocalProtocolError("A body comes in chunks or by its length, and in no other coding")
    if len(lengths) > 1:
        raise httpx.LocalProtocolError("conflicting Content-Length headers")
    if any(not _LENGTH.fullmatch(length.encode()) for length in lengths):
        raise httpx.LocalProtocolError("bad Content-Length")
    return None if codings else int(next(iter(lengths), "0"))


def _body(request: httpx.Request, length: int | None) -> bytes | AsyncIterable[bytes] | Iterable[bytes]:
    """The body's bytes as they go over the wire where httpx has them, else what makes them."""
    stream = request.stream
    if not isinstance(stream, httpx.ByteStream):
        return stream
    body = b"".join(stream)
    if length is None:
        return (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + _LAST_CHUNK
    _check_length(len(body), length, whole=True)
    return body


async def _framed(body: AsyncIterable[bytes] | Iterable[bytes], length: int | None) -> AsyncGenerator[bytes, None]:
    """The body as it goes over the wire: in chunks where no length was announced, else just as long."""
    done = 0
    async with aclosing(_each(body)) as parts:
        async for part in parts:
            done += len(part)
            if length is not None:
                _check_length(done, length, whole=False)
                yield part
            elif part:  # an empty chunk would be the last
                yield b"%x\r\n%b\r\n" % (len(part), part)
    if length is None:
        yield _LAST_CHUNK
    else:
        _check_length(done, length, whole=True)


async def _each(body: AsyncIterable[bytes] | Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    if hasattr(body, "__aiter__"):
        async for part in body:
            yield part
    else:
        for part in body:
            yield part


def _check_length(done: int, length: int, *, whole: bool) -> None:
    if done > length:
        raise httpx.LocalProtocolError("Too much data for declared Content-Length")
    if whole and done < length:
        raise httpx.LocalProtocolError("Too little data for declared Content-Length")


def _theirs(error: TransportError) -> httpx.TransportError:
    """A broken exchange in httpx's words; a connection that was closed, not broken, is the server's breach of HTTP."""
    if error.outcome is Outcome.REFUSED:
        return httpx.ConnectError(error.detail)
    if error.outcome is Outcome.RESET and error.__cause__ is not None:
        return httpx.ReadError(error.detail)
    return httpx.RemoteProtocolError(error.detail)
