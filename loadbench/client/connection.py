"""One HTTP/1.1 connection: requests written as bytes, responses pushed to a receiver from the socket's own callback.

Between the arrival of bytes and the receiver there is no queue, no task switch and no lock: asyncio calls
`buffer_updated`, llhttp (through httptools) finds the bytes of the body, and the receiver gets them with their stamp.
The caller awaits the end of the response, not its parts.

    idle ── begin ──► busy ── message complete, kept alive ──► idle
                        └───── anything else ──► closed
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Any, Protocol

import httptools

from loadbench.client.faults import explain
from loadbench.client.stamping import StampedSocket
from loadbench.client.transport import TransportError
from loadbench.core.event_loop import EventLoop
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from loadbench.client.stamping import Stamper
    from loadbench.client.transport import Header

# The most that one read brings. All connections share one buffer, because each read is parsed before the next begins.
_READ_BYTES = 256 * 1024
_BUFFER = memoryview(bytearray(_READ_BYTES))
# More than the header block of any server, and too little to fill the memory. Bytes that are no body: headers, interim
# responses, the frames of chunks with what may be written into them, and trailers.
_MOST_FRAMING_BYTES = 256 * 1024
# Each takes some 150 bytes of memory, however short: those of one read could take 20 MB. Servers send some twenty.
MOST_HEADERS = 1000
# A send that takes longer was interrupted: copying what a socket takes at once needs some 100 µs.
_PREEMPTED_NS = 1_000_000

# The sizes of chunks as servers write them; other spellings, and larger chunks, are read by llhttp.
_SIZES = {form % size: size for size in range(1, 4096) for form in (b"%x", b"%X")}
_LONGEST_SIZE = len(b"fff\r\n")


class Receiver(Protocol):
    """Gets the parts of one exchange in order; these are the last three methods of `client.transport.Sink`."""

    def sent(self, at_ns: int) -> None:
        """The last byte of the request was handed to the socket. A second call corrects this to an earlier moment."""
        ...

    def headers(self, at_ns: int, status: int, headers: list[Header]) -> None:
        """The header block is complete."""
        ...

    def data(self, at_ns: int, chunk: bytes) -> None:
        """Bytes of the body."""
        ...


class Connection(asyncio.BufferedProtocol):
    """A connection in one of the three states; `response_began` is true once a byte of the response has come."""

    __slots__ = (
        "_at_ns",
        "_batches",
        "_between_chunks",
        "_done",
        "_framing_bytes",
        "_has_headers",
        "_has_unsent",
        "_headers",
        "_is_framed",
        "_lost_by",
        "_parser",
        "_parts",
        "_receiver",
        "_sock",
        "_stamped",
        "_stamper",
        "_status",
        "_transport",
        "closed",
        "on_body",
        "response_began",
    )

    def __init__(self, stamper: Stamper, sock: socket.socket | None) -> None:
        self.closed = False
        self._batches: Any = None  # the loop's `BatchingSelector`, which calls `_read_ready`; only Linux has it
        self._lost_by: OSError | None = None
        self.response_began = False
        self._stamper = stamper
        self._sock = sock
        self._stamped = sock if isinstance(sock, StampedSocket) else None
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._done: asyncio.Future[None] | None = None
        self._parts: list[bytes] = []
        # llhttp calls this for each part of the body. One read from a busy server has many: run no Python in between.
        self.on_body = self._parts.append
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._headers: list[Header] = []
        self._framing_bytes = 0  # since the last read with a byte of a body
        self._at_ns = 0
        self._has_unsent = False
        self._has_headers = self._is_framed = False  # framed: by a length, or by chunks
        self._between_chunks = False  # known only where a read has ended with a chunk

    # Called by the transport.

    def begin(self, request: bytes, receiver: Receiver) -> asyncio.Future[None]:
        """Send the request; the future is done when the response has ended, or fails with `TransportError`."""
        assert self._transport is not None  # noqa: S101 - it was connected before it was handed out
        self._done = asyncio.get_running_loop().create_future()
        self._receiver = receiver
        self.response_began = self._has_headers = self._between_chunks = False
        self._framing_bytes = 0
        self._transport.write(request)
        self._at_ns = self._stamper.now_ns()
        if self._transport.get_write_buffer_size():
            self._has_unsent = True
        else:
            if self._stamped is not None and self._at_ns - self._stamped.send_began_ns > _PREEMPTED_NS:
                # The send woke the server, which took the core from this process: the request left as the call began.
                self._at_ns = self._stamped.send_began_ns
            receiver.sent(self._at_ns)
        return self._done

    def peer_closed(self) -> bool:
        """Whether the server has closed this idle connection, even if the event loop has not reported it yet.

        Without this check, a server that closes after each response would cost every request one failed write.
        """
        if self.closed or self._sock is None:
            return self.closed
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            return True
        except OSError:  # nothing to read: it is open
            return False

    def merged_segments(self) -> int | None:
        """How many segments were read together with a later one so far; `None` where the kernel does not count them."""
        return None if self._stamped is None else self._stamped.merged_segments()

    def abort(self) -> None:
        """Drop the connection; bytes that still come are ignored."""
        self.closed = True
        self._receiver = None
        if self._done is not None and not self._done.done():
            self._done.cancel()
        if self._transport is not None:
            self._transport.abort()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected; with TLS, after the handshake."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream of bytes
        self._transport = transport
        # With a limit of 0, asyncio calls `resume_writing` when the last byte has been sent.
        transport.set_write_buffer_limits(0)
        loop = asyncio.get_running_loop()
        # asyncio has to decrypt what comes under TLS, and a wait would show in stamps that are not the kernel's.
        if sys.platform == "linux" and isinstance(loop, EventLoop) and self._stamped is not None:
            if transport.get_extra_info("sslcontext") is None:
                self._batches = loop.batches
                self._batches.readers[self._stamped.fileno()] = self._read_ready

    def resume_writing(self) -> None:
        """Everything that was written has been handed to the socket."""
        if self._has_unsent:
            self._has_unsent = False
            sent_ns = self._stamper.now_ns()
            if not self.response_began:
                self._at_ns = sent_ns
            if self._receiver is not None:
                self._receiver.sent(sent_ns)

    def _read_ready(self) -> bool:
        """Read past asyncio what has come; `False` at the end of the connection, which asyncio handles."""
        if self.closed or self._sock is None:
            return self.closed
        before_ns = self._at_ns
        try:
            count = self._sock.recv_into(_BUFFER)
            if not count:
                return False
            self.buffer_updated(count)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError as error:
            # asyncio did not see it: it reports the end of a connection that was dropped.
            self._lost_by = error
            assert self._transport is not None  # noqa: S101 - it was connected
            self._transport.abort()
            return True
        except Exception as error:  # noqa: BLE001 - a mistake: it ends the exchange, which raises it
            self._fail(error)
        # A stamp that was taken at the read must not be later for a wait.
        stamped_ns = 0 if self._stamped is None else self._stamped.stamped_ns
        self._batches.read_after(self._at_ns - before_ns if stamped_ns else 0)
        return True

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - always the same buffer
        """Where to read to."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived. What they hold of a body is pushed, even if bytes that are not HTTP follow it."""
        arrived_ns = self._stamper.arrived(self._stamped)
        if self._receiver is None:
            # These bytes belong to no request: the connection cannot be trusted with another one.
            self.abort()
            return
        # No mark may come before the one that caused it, by however little two clocks differ.
        if arrived_ns > self._at_ns:
            self._at_ns = arrived_ns
        elif self._stamped is not None and not self.response_began and not self._has_unsent:
            # A fast server has answered before the send returned: the request left when that call began. Only another
            # clock puts the arrival before even that; the read is certainly later.
            began_ns = self._stamped.send_began_ns
            self._at_ns = arrived_ns if arrived_ns > began_ns else self._stamper.now_ns()
            self._receiver.sent(began_ns)
        self.response_began = True

        # Nearly always one whole chunk has come. Between two of them, llhttp need not see it: it stays there.
        if self._between_chunks:
            data = bytes(_BUFFER[:nbytes])
            begin = data.find(b"\r\n", 0, _LONGEST_SIZE)
            size = _SIZES.get(data[:begin])
            if size is not None and nbytes == begin + size + 4 and data.endswith(b"\r\n"):
                self._framing_bytes = 0
                try:
                    self._receiver.data(self._at_ns, data[begin + 2 : -2])
                except BaseException as raised:  # noqa: BLE001 - the receiver's own error, as below
                    self._fail(raised)
                return

        self._framing_bytes += nbytes
        error: BaseException | None = None
        try:
            self._parser.feed_data(_BUFFER[:nbytes])
        except httptools.HttpParserCallbackError as wrapper:
            error = wrapper.__context__ or wrapper  # raised by the receiver
        except httptools.HttpParserUpgrade:
            error = TransportError(Outcome.PROTOCOL, "the server wants to speak another protocol")
        except httptools.HttpParserError as reason:
            error = TransportError(Outcome.PROTOCOL, f"not HTTP: {reason}")
        try:
            self._push()
        except BaseException as raised:  # noqa: BLE001 - the receiver's own error: it ends the exchange, which raises it
            error = raised

        if self._between_chunks and bytes(_BUFFER[nbytes - 2 : nbytes]) != b"\r\n":
            self._between_chunks = False  # the next size has begun
        if error is None and self._framing_bytes > _MOST_FRAMING_BYTES and self._receiver is not None:
            what = "of trailers or of chunks without a body" if self._has_headers else "of headers"
            error = TransportError(Outcome.PROTOCOL, f"more than {_MOST_FRAMING_BYTES // 1024} KiB {what}")
        if error is not None:
            self._fail(error)

    def _push(self) -> None:
        """Hand the body bytes of this read to the receiver."""
        parts = self._parts
        if parts:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self._framing_bytes = 0
            if self._receiver is not None:
                self._receiver.data(self._at_ns, body)

    def eof_received(self) -> bool:
        """The server sends nothing more; asyncio closes the connection."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed by either side, or broken."""
        exc = exc or self._lost_by
        secure = self._transport is not None and self._transport.get_extra_info("sslcontext")
        if exc is not None and self._has_unsent and self._sock is not None and not secure:
            # A server that refuses the rest of a request has mostly sent the reason before. asyncio gives up a socket
            # at the first failed write and closes it only after this call, so its last bytes can still be read here.
            # (Under TLS they are encrypted.)
            with contextlib.suppress(OSError):
                while self._receiver is not None and (count := self._sock.recv_into(_BUFFER)):
                    self.buffer_updated(count)
        self.closed = True
        if self._batches is not None and self._sock is not None:
            self._batches.readers.pop(self._sock.fileno(), None)
        if self._done is not None and not self._done.done():
            if exc is not None:
                reason, hint = explain(exc)
                reason += f" ({hint})" if hint and isinstance(exc, ssl.SSLError) else ""
                self._fail(TransportError(Outcome.RESET, reason))
            elif not self._has_headers:
                self._fail(TransportError(Outcome.RESET, "the connection was closed before a response"))
            elif self._is_framed:
                self._fail(TransportError(Outcome.TRUNCATED, "the connection was closed in the middle of the response"))
            else:
                # Neither a length nor chunks were announced: the body ends where the connection ends.
                self._finish()
        # It refers to this, and has the header that it was reading: nothing shall wait for the garbage collector.
        del self._parser

    # Called by llhttp.

    def on_message_begin(self) -> None:
        """A header block begins, of a final or an interim response. Without a request, it ends the connection."""
        self._headers = []
        if self._receiver is None:
            self._close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header. Those after the body, the trailers, say nothing that is used."""
        if not self._has_headers:
            if len(self._headers) == MOST_HEADERS:
                raise TransportError(Outcome.PROTOCOL, f"more than {MOST_HEADERS:,} headers")
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The header block is complete; those of interim responses (1xx) are skipped."""
        self._status = self._parser.get_status_code()
        if self._status >= 200 and self._receiver is not None:
            self._has_headers = True
            headers, self._headers = self._headers, []  # not kept: every stream would have its own
            self._is_framed = any(name.lower() in {b"content-length", b"transfer-encoding"} for name, _ in headers)
            self._receiver.headers(self._at_ns, self._status, headers)

    def on_chunk_header(self) -> None:
        """A chunk begins, or the trailers do."""
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        """It has ended, with its line ending."""
        self._between_chunks = True

    def on_message_complete(self) -> None:
        """The response, or an interim one, is complete."""
        self._push()
        if self._status >= 200:
            self._finish()

    # The three ways to end.

    def _finish(self) -> None:
        """End the exchange; the connection stays open if the server keeps it and the whole request was sent."""
        done, self._receiver = self._done, None
        if self._has_unsent or not self._parser.should_keep_alive():
            self._close()
        if done is not None and not done.done():
            done.set_result(None)

    def _fail(self, error: BaseException) -> None:
        """End the exchange with this error, and drop the connection."""
        done, self._receiver = self._done, None
        if done is not None and not done.done():
            done.set_exception(error)
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def _close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.close()
