"""One HTTP/1.1 connection: requests written as bytes, answers pushed to a sink from the socket's own callback.

Between the arrival of bytes and the sink there is no queue, no task switch and no lock: asyncio calls `buffer_updated`,
llhttp (through httptools) finds the body's bytes, the sink gets them with their stamp. Whoever carries an exchange
awaits its end, not its parts. A request whose body is not known beforehand is begun with `flushed`, goes on with
`write` and is completed by `end`.

    idle ── begin ──► busy ── message complete, kept alive ──► idle
                        └───── anything else ──► closed
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Protocol

import httptools

from loadbench.client.faults import explain
from loadbench.client.stamping import StampedSocket
from loadbench.client.transport import TransportError
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.client.stamping import Stamper
    from loadbench.client.transport import Header

# What one read may bring; all connections share one buffer, for each read is parsed before the next begins.
_READ_BYTES = 256 * 1024
_BUFFER = memoryview(bytearray(_READ_BYTES))
# More than any server's header block; less than what would fill memory.
_MOST_HEADER_BYTES = 256 * 1024


class Receiver(Protocol):
    """What is told of an answer, in order; the last three of `loadbench.client.transport.Sink`."""

    def sent(self, at_ns: int) -> None:
        """The request's last byte was handed to the socket."""
        ...

    def headers(self, at_ns: int, status: int, headers: list[Header]) -> None:
        """The header block is complete."""
        ...

    def data(self, at_ns: int, chunk: bytes) -> None:
        """Body bytes."""
        ...


class Connection(asyncio.BufferedProtocol):
    """A connection in one of the three states; `answered` says whether a byte of the present answer has come."""

    __slots__ = (
        "_at_ns",
        "_body_began",
        "_flushed",
        "_header_bytes",
        "_headers",
        "_no_body",
        "_over",
        "_parser",
        "_parts",
        "_receiver",
        "_sent_ns",
        "_sock",
        "_stamped",
        "_stamper",
        "_status",
        "_transport",
        "_unsent",
        "answered",
        "closed",
        "on_body",
        "served",
    )

    def __init__(self, stamper: Stamper, sock: socket.socket | None) -> None:
        self.closed = False
        self.served = 0
        self.answered = False
        self._stamper = stamper
        self._sock = sock
        self._stamped = sock if isinstance(sock, StampedSocket) else None
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._over: asyncio.Future[None] | None = None
        self._parts: list[bytes] = []
        # What llhttp calls for each part of the body. They are many in a read from a busy server: no Python in between.
        self.on_body = self._parts.append
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._headers: list[Header] = []
        self._header_bytes = 0
        self._at_ns = self._sent_ns = 0
        self._unsent = False
        self._flushed: Callable[[], None] | None = None
        self._no_body = False
        self._body_began = False

    # What the carrier of an exchange calls.

    def begin(
        self,
        request: bytes,
        receiver: Receiver,
        *,
        no_body: bool = False,
        flushed: Callable[[], None] | None = None,
    ) -> asyncio.Future[None]:
        """Send the request; the future is done when the answer has ended, or fails with `TransportError`.

        `no_body` is for an answer to HEAD, whose headers speak of a body that does not come. With `flushed` this is
        only the request's beginning; that is called when a `write` that was not taken at once has gone, until `end`.
        """
        assert self._transport is not None  # noqa: S101 - it was connected before it was handed out
        self._over = asyncio.get_running_loop().create_future()
        self._receiver = receiver
        self._no_body = no_body
        self.answered = self._body_began = False
        self._header_bytes = 0
        self._flushed = flushed
        self.served += 1
        self._transport.write(request)
        self._at_ns = self._sent_ns = self._stamper.now_ns()
        if flushed is not None or self._transport.get_write_buffer_size():
            self._unsent = True
        else:
            receiver.sent(self._sent_ns)
        return self._over

    def write(self, data: bytes) -> None:
        """Send more of a request that was begun with `flushed`; nothing once the connection is closed."""
        if self._transport is not None and not self.closed:
            self._transport.write(data)

    @property
    def has_unsent(self) -> bool:
        """Whether some of what was written is not yet with the socket."""
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def end(self) -> None:
        """The request that was begun with `flushed` has been written to its last byte."""
        self._flushed = None
        if not self.has_unsent and not self.closed:
            self.resume_writing()

    def pause(self) -> None:
        """Read no more for now; what was read already is still pushed."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None:
            self._transport.resume_reading()

    def peer_closed(self) -> bool:
        """Whether the server has closed an idle connection, even if the event loop has not had the time to tell.

        A server that closes after each answer would otherwise cost every request a write into the void first.
        """
        if self.closed or self._sock is None:
            return self.closed
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            return True
        except OSError:  # nothing there: it is open
            return False

    def abort(self) -> None:
        """Drop the connection; whatever comes is of no interest."""
        self.closed = True
        self._receiver = None
        if self._over is not None and not self._over.done():
            self._over.cancel()
        if self._transport is not None:
            self._transport.abort()

    def fail(self, error: BaseException) -> None:
        """End the exchange by this error, and drop the connection."""
        over, self._receiver = self._over, None
        if over is not None and not over.done():
            over.set_exception(error)
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected; with TLS, after the handshake."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream of bytes
        self._transport = transport
        # With no buffer allowed, the end of sending is told by `resume_writing`.
        transport.set_write_buffer_limits(0)

    def resume_writing(self) -> None:
        """All that was written has been handed to the socket."""
        if self._flushed is not None:
            self._flushed()
        elif self._unsent:
            self._unsent = False
            self._sent_ns = self._stamper.now_ns()
            if self._receiver is not None:
                self._receiver.sent(self._sent_ns)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - one size fits all
        """Where to read to."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived."""
        arrived_ns = self._stamper.arrived(self._stamped)
        if self._receiver is None:
            # Bytes that nobody asked for: the connection cannot be trusted with another request.
            self.abort()
            return
        # No mark may come before the one that caused it, by however little two clocks differ.
        if arrived_ns > self._at_ns:  # noqa: PLR1730 - once for every read: a call less
            self._at_ns = arrived_ns
        self.answered = True
        self._feed(_BUFFER[:nbytes])

    def _feed(self, data: memoryview) -> None:
        """Parse a read; what it brought of a body is pushed, even if something that is no HTTP came after it."""
        failure: BaseException | None = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            failure = _meaning(error)
        try:
            self._push()
        except BaseException as error:  # noqa: BLE001 - the receiver's own: it ends the exchange, which raises it
            failure = error
        if failure is not None:
            self.fail(failure)
        elif not self._body_began and self._receiver is not None:
            self._header_bytes += len(data)
            if self._header_bytes > _MOST_HEADER_BYTES:
                self.fail(TransportError(Outcome.PROTOCOL, "the header block has no end"))

    def _push(self) -> None:
        """Hand on what this read has brought of the body."""
        parts = self._parts
        if parts:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            if self._receiver is not None:
                self._receiver.data(self._at_ns, body)

    def eof_received(self) -> bool:
        """The server has said all."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed by either side, or broken."""
        if exc is not None and self._unsent:
            self._hear_last()
        self.closed = True
        if self._over is None or self._over.done():
            return
        if exc is not None:
            what, _ = explain(exc)
            error = TransportError(Outcome.RESET, what)
            error.__cause__ = exc
            self.fail(error)
        elif self._body_began and self._until_close():
            self._finish()
        elif self._body_began:
            self.fail(TransportError(Outcome.TRUNCATED, "the connection was closed in the middle of the answer"))
        else:
            self.fail(TransportError(Outcome.RESET, "the connection was closed before an answer"))

    def _hear_last(self) -> None:
        """Read what the server had said before it refused to read on: mostly why.

        asyncio gives a socket up at the first failed write, and closes it after this; with TLS its bytes are not ours.
        """
        if self._sock is None or self._transport is None or self._transport.get_extra_info("sslcontext"):
            return
        with contextlib.suppress(OSError):
            while self._receiver is not None and (count := self._sock.recv_into(_BUFFER)):
                self.buffer_updated(count)

    # What llhttp calls.

    def on_message_begin(self) -> None:
        """A header block begins, of the answer or of an interim one; an answer that nobody asked for ends it all."""
        self._headers = []
        if self._receiver is None:
            self._close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The header block is complete; interim answers (1xx) are none."""
        self._status = self._parser.get_status_code()
        if self._status >= 200 and self._receiver is not None:
            self._body_began = True
            self._receiver.headers(self._at_ns, self._status, self._headers)
            if self._no_body:
                self._finish()

    def on_message_complete(self) -> None:
        """The answer is complete, or an interim one is."""
        self._push()
        if self._status >= 200:
            self._finish()

    def _until_close(self) -> bool:
        """Whether the body's end is the connection's: neither a length nor chunks were announced."""
        names = {name.lower() for name, _ in self._headers}
        return not names & {b"content-length", b"transfer-encoding"}

    def _finish(self) -> None:
        over, self._receiver = self._over, None
        if self._unsent or self._no_body or not self._parser.should_keep_alive():
            self._close()
        if over is not None and not over.done():
            over.set_result(None)

    def _close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.close()


def _meaning(error: Exception) -> BaseException:
    """What a parser's error stands for: one of our own callbacks' errors, or an answer that cannot be read."""
    if isinstance(error, httptools.HttpParserCallbackError):
        return error.__context__ or error
    if isinstance(error, httptools.HttpParserUpgrade):
        return TransportError(Outcome.PROTOCOL, "the server wants to speak another protocol")
    return TransportError(Outcome.PROTOCOL, f"not HTTP: {error}")
