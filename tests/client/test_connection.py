"""One HTTP/1.1 connection, fed byte streams whole and in every kind of pieces."""

from __future__ import annotations

import asyncio
import itertools
import socket
from dataclasses import dataclass, field
from unittest import mock

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadbench.client import connection as module
from loadbench.client.connection import Connection
from loadbench.client.stamping import StampedSocket
from loadbench.client.transport import TransportError
from loadbench.record.outcome import Outcome

MS = 1_000_000


class Wire(asyncio.Transport):
    """The socket's side: remembers what was written and whether it was closed; sends at once unless it is stuck."""

    def __init__(self, *, stuck: bool = False) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.has_unsent = stuck

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The connection asks for none."""

    def get_write_buffer_size(self) -> int:
        return len(self.written) if self.has_unsent else 0

    def write(self, data) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close


class Ticks:
    """A stamper whose clock goes on by one with every look."""

    def __init__(self, *arrivals: int) -> None:
        self.now = 0
        self.arrivals = list(arrivals)

    def now_ns(self) -> int:
        self.now += 1
        return self.now

    def arrived(self, sock) -> int:
        return self.arrivals.pop(0) if self.arrivals else self.now_ns()


@dataclass
class Heard:
    """What an exchange told, and how it ended."""

    sent: int | None = None
    status: int | None = None
    headers_at: int | None = None
    names: list = field(default_factory=list)
    body: bytes = b""
    stamps: list = field(default_factory=list)
    ended: object = None

    def told(self) -> tuple:
        """All but the stamps, which depend on the pieces."""
        return self.status, self.names, self.body, self.ended


class Receiver:
    """Writes down what it is told."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard

    def sent(self, at_ns: int) -> None:
        self._heard.sent = at_ns

    def headers(self, at_ns: int, status: int, headers: list) -> None:
        self._heard.status, self._heard.headers_at = status, at_ns
        self._heard.names = [name.lower() for name, _ in headers]

    def data(self, at_ns: int, chunk: bytes) -> None:
        self._heard.stamps.append(at_ns)
        self._heard.body += chunk


def feed(connection: Connection, data: bytes) -> None:
    """As asyncio does it: into the connection's own buffer."""
    for start in range(0, len(data), 100_000):
        piece = data[start : start + 100_000]
        connection.get_buffer(-1)[: len(piece)] = piece
        connection.buffer_updated(len(piece))


def exchange(pieces: list[bytes], *, closes: bool = True, stamper: Ticks | None = None):
    """Send a request over a fresh connection, feed it the pieces, close it; what was heard, and the connection."""

    async def run() -> tuple[Heard, Connection]:
        connection, heard = Connection(stamper or Ticks(), None), Heard()
        connection.connection_made(Wire())
        over = connection.begin(b"GET / HTTP/1.1\r\n\r\n", Receiver(heard))
        for piece in pieces:
            feed(connection, piece)
        was_open = not connection.closed
        if closes and was_open:
            connection.connection_lost(None)
        if over.done():
            error = over.exception()
            heard.ended = error.outcome if isinstance(error, TransportError) else error
        else:
            heard.ended = "waits"
            over.cancel()
        connection.closed = not was_open
        return heard, connection

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("returns", "arrived", "sent", "stamp"),
    [
        (11, 30, 11, 30),  # after the send had returned
        (11, 8, 5, 8),  # while it had not: counted from its beginning
        (11, 11, 5, 11),
        (11, 3, 5, 12),  # before it began: another clock's moment; it was read at 12
        # The server had the core while the send lasted, and gave it back with the end of its response.
        (40 * MS, 40 * MS + 65, 5, 40 * MS + 65),
        (40 * MS, 30 * MS, 5, 30 * MS),
        (MS, 2 * MS, MS, 2 * MS),
    ],
)
def test_response_before_the_send_has_returned_is_counted_from_its_beginning(returns, arrived, sent, stamp):
    """No response takes no time: the mark is moved, and never the stamp of an arrival that can be."""

    async def run() -> Heard:
        with StampedSocket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.stamped_ns, sock.send_began_ns = 0, 5
            ticks, heard = Ticks(arrived, arrived + 10), Heard()
            ticks.now = returns - 1
            connection = Connection(ticks, sock)
            connection.connection_made(Wire())
            over = connection.begin(b"GET / HTTP/1.1\r\n\r\n", Receiver(heard))
            feed(connection, LENGTH[:-2])
            feed(connection, LENGTH[-2:])
            await over
            return heard

    heard = asyncio.run(run())
    assert (heard.sent, heard.headers_at, heard.stamps) == (sent, stamp, [stamp, max(stamp, arrived + 10)])


def test_response_before_the_rest_was_sent_keeps_its_stamp():
    """What the socket could not take at once is sent later: an early head does not count as sent."""

    async def run() -> Heard:
        with StampedSocket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.stamped_ns, sock.send_began_ns = 0, 5
            ticks, heard, wire = Ticks(20, 15, 40), Heard(), Wire(stuck=True)
            ticks.now = 10
            connection = Connection(ticks, sock)
            connection.connection_made(wire)
            over = connection.begin(b"GET / HTTP/1.1\r\n\r\n", Receiver(heard))
            feed(connection, CHUNKS[:47])
            assert heard.sent is None
            wire.has_unsent = False
            ticks.now = 30
            connection.resume_writing()
            feed(connection, CHUNKS[47:60])
            feed(connection, CHUNKS[60:])
            await over
            return heard

    heard = asyncio.run(run())
    assert (heard.headers_at, heard.sent, heard.body) == (20, 31, b"hello")


def cut(data: bytes, at: list[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    places = sorted({place % (len(data) + 1) for place in at} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;name=value\r\nlo\r\n0\r\n\r\n"
TRAILERS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + LENGTH
TILL_CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"
CLOSES = LENGTH.replace(b"X-A: b", b"Connection: close")
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
OLD = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize(
    ("answer", "status", "body", "kept"),
    [
        (LENGTH, 200, b"hello", True),
        (CHUNKS, 200, b"hello", True),
        (TRAILERS, 200, b"hello", True),
        (INTERIM, 200, b"hello", True),
        (TILL_CLOSE, 200, b"hello", True),  # open until the close that ends it
        (CLOSES, 200, b"hello", False),
        (EMPTY, 200, b"", True),
        (NO_CONTENT, 204, b"", True),
        (OLD, 200, b"hello", False),
    ],
)
def test_answer_is_heard_whole(answer, status, body, kept):
    """Each way to frame a body gives its status and bytes, and the connection is kept where the rules keep it."""
    heard, connection = exchange([answer])
    assert (heard.status, heard.body, heard.ended) == (status, body, None)
    assert connection.closed is not kept


@given(
    answer=st.sampled_from([LENGTH, CHUNKS, TRAILERS, INTERIM, TILL_CLOSE, CLOSES, EMPTY, NO_CONTENT, OLD]),
    at=st.lists(st.integers(0, 200), max_size=12),
)
def test_pieces_make_no_difference(answer, at):
    """However a stream is cut, the same is heard."""
    assert exchange(cut(answer, at))[0].told() == exchange([answer])[0].told()


SIZES = [b"5", b"05", b"0x5", b"+5", b"5 ", b"5;x=y", b"4", b"6", b"", b"g", b"1000", b"fff", b"A", b"a"]
PARTS = [b"hello", b"hello\r\n", b"5\r\n", b"0\r\n\r\n", b"0123456789", b"\r\n", b"x" * 0xFFF, b"x" * 0x1000, b""]


@example(parts=[b"5\r\nhello\r\n"], joined=[True] + [False] * 6, last=b"0x5\r\nhello\r\n")
@example(parts=[b"5\r\nhello\r\n5"], joined=[True] + [False] * 6, last=b"5\r\nhello\r\n")
@given(
    parts=st.lists(
        st.one_of(
            st.sampled_from(PARTS).map(lambda part: b"%x\r\n%b\r\n" % (len(part), part)),
            st.sampled_from([b"0\r\n\r\n", b"5\r\nhel", b"lo\r\n", b"5", b"5\r", b"\r\n", b"\n", b"0\r\n"]),
        ),
        max_size=6,
    ),
    joined=st.lists(st.booleans(), min_size=7, max_size=7),
    last=st.sampled_from([size + b"\r\n" + part + b"\r\n" for size in SIZES for part in PARTS]),
)
def test_whole_chunks_are_read_as_llhttp_reads_them(parts, joined, last):
    """Where reads begin and end with chunks or not, and whatever servers write in their place."""
    pieces = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
    for part, is_joined in zip([*parts, last], joined, strict=False):
        if is_joined:
            pieces[-1] += part
        else:
            pieces.append(part)
    heard, connection = exchange(pieces, stamper=Ticks())
    with mock.patch.object(module, "_SIZES", {}):
        expected, plain = exchange(pieces, stamper=Ticks())
    assert (heard, connection.closed) == (expected, plain.closed)


def test_whole_chunks_do_not_reach_llhttp():
    """Unless one brings the end, or only a part of it came."""
    seen = []

    class Parser(httptools.HttpResponseParser):
        def feed_data(self, data) -> None:
            seen.append(bytes(data))
            super().feed_data(data)

    head, end = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"0\r\n\r\n"
    with mock.patch.object(module.httptools, "HttpResponseParser", Parser):
        heard, _ = exchange([head, b"6\r\nworlds\r\n", b"3\r\nand", b"\r\n", b"4\r\nmore\r\n", end])
    assert (heard.body, heard.ended) == (b"helloworldsandmore", None)
    assert seen == [head, b"3\r\nand", b"\r\n", end]


@pytest.mark.parametrize("answer", [LENGTH, CHUNKS, TRAILERS, INTERIM])
def test_one_byte_at_a_time(answer):
    """The slowest of servers is heard too."""
    pieces = [answer[place : place + 1] for place in range(len(answer))]
    assert exchange(pieces)[0].told() == exchange([answer])[0].told()


@given(noise=st.binary(max_size=300), at=st.lists(st.integers(0, 300), max_size=5))
def test_noise_ends_in_an_outcome(noise, at):
    """Whatever bytes come, the exchange ends, at the close at the latest; nothing else is raised."""
    heard, _ = exchange(cut(noise, at))
    assert heard.ended in {None, Outcome.PROTOCOL, Outcome.RESET, Outcome.TRUNCATED}


@given(place=st.integers(0, 400), byte=st.integers(0, 255), answer=st.sampled_from([LENGTH, CHUNKS, TRAILERS]))
def test_one_wrong_byte_ends_in_an_outcome(place, byte, answer):
    """A single flipped byte never crashes the client."""
    broken = bytearray(answer)
    broken[place % len(broken)] = byte
    assert exchange([bytes(broken)])[0].ended in {None, Outcome.PROTOCOL, Outcome.RESET, Outcome.TRUNCATED}


# What breaks, how it is named.
@pytest.mark.parametrize(
    ("pieces", "outcome"),
    [
        ([], Outcome.RESET),
        ([b"HTTP/1.1 200 OK\r\nContent-"], Outcome.RESET),
        ([LENGTH[:-2]], Outcome.TRUNCATED),
        ([CHUNKS[:-5]], Outcome.TRUNCATED),
        ([CHUNKS.replace(b"3\r\nhel", b"zz\r\nhel")], Outcome.PROTOCOL),
        ([CHUNKS.replace(b"3\r\nhel", b"-3\r\nhel")], Outcome.PROTOCOL),
        ([LENGTH.replace(b": 5", b": five")], Outcome.PROTOCOL),
        ([LENGTH.replace(b"X-A: b", b"Content-Length: 6")], Outcome.PROTOCOL),
        ([LENGTH.replace(b"X-A: b", b"Transfer-Encoding: chunked")], Outcome.PROTOCOL),
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], Outcome.PROTOCOL),
        ([b"<html>no</html>"], Outcome.PROTOCOL),
        ([b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"], Outcome.PROTOCOL),
        ([b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"y" * 400_000], Outcome.PROTOCOL),
        ([b"HTTP/1.1 200 OK\r\n" + b"X-Many: 1\r\n" * 50_000], Outcome.PROTOCOL),
    ],
)
def test_broken_answer_is_named(pieces, outcome):
    """Closed before an answer is a reset, closed within one is truncated, what is not HTTP is a protocol error."""
    heard, connection = exchange(pieces)
    assert heard.ended is outcome
    if outcome is Outcome.PROTOCOL:
        assert connection.closed


def test_bytes_after_the_answer_end_the_connection():
    """What nobody asked for makes the next answer doubtful."""
    for extra in (b"HTTP/1.1 200 OK\r\n", b"junk", LENGTH):
        heard, connection = exchange([LENGTH + extra], closes=False)
        assert (heard.body, heard.ended) == (b"hello", None)
        assert connection.closed
    _, connection = exchange([LENGTH, b"more"], closes=False)
    assert connection.closed


def test_marks_never_go_back():
    """A stamp before the sending, or before the last one, is lifted to it: clocks differ by less than order matters."""
    heard, _ = exchange([CHUNKS[:50], CHUNKS[50:55], CHUNKS[55:]], stamper=Ticks(-1000, -2000, 500))
    assert heard.sent <= heard.headers_at <= heard.stamps[0]
    assert heard.stamps == sorted(heard.stamps)


def test_all_bodies_of_one_read_share_its_stamp():
    """Two chunks in one read arrived together."""
    heard, _ = exchange([CHUNKS], stamper=Ticks(77))
    assert set(heard.stamps) == {77}


def test_request_that_did_not_leave_at_once_is_sent_when_it_has_left():
    """With a full socket buffer `sent` waits for the last byte."""

    async def run() -> tuple[int | None, int | None]:
        connection, heard = Connection(Ticks(), None), Heard()
        connection.connection_made(Wire(stuck=True))
        over = connection.begin(b"x" * 100, Receiver(heard))
        before = heard.sent
        connection.resume_writing()
        over.cancel()
        return before, heard.sent

    before, after = asyncio.run(run())
    assert before is None
    assert after is not None


def test_answer_before_the_whole_request_ends_the_connection():
    """A refusal that comes while the request is still being sent is heard; the rest of it cannot be recalled."""

    async def run() -> tuple[Heard, bool]:
        connection, heard = Connection(Ticks(), None), Heard()
        connection.connection_made(Wire(stuck=True))
        over = connection.begin(b"x" * 100, Receiver(heard))
        feed(connection, LENGTH.replace(b"200 OK", b"413 Too Large"))
        await over
        return heard, connection.closed

    heard, closed = asyncio.run(run())
    assert (heard.status, heard.sent, closed) == (413, None, True)


def test_fault_of_the_receiver_is_raised_to_whoever_waits():
    """An error of ours in a callback is neither swallowed nor taken for the server's."""

    class Faulty(Receiver):
        def data(self, at_ns: int, chunk: bytes) -> None:
            raise ZeroDivisionError

    async def run() -> None:
        connection = Connection(Ticks(), None)
        connection.connection_made(Wire())
        over = connection.begin(b"", Faulty(Heard()))
        feed(connection, LENGTH)
        await over

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run())


def test_connection_serves_again():
    """Kept alive, it carries a second exchange like the first."""

    async def run() -> list[bytes]:
        connection, bodies = Connection(Ticks(), None), []
        connection.connection_made(Wire())
        for answer in (CHUNKS, LENGTH):
            heard = Heard()
            over = connection.begin(b"", Receiver(heard))
            feed(connection, answer)
            await over
            bodies.append(heard.body)
        return bodies

    assert asyncio.run(run()) == [b"hello", b"hello"]
