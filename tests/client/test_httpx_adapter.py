"""httpx over our connections: what httpx's own transport does, and beside it the stamps, the sink and the pauses.

Where both transports must agree, a test runs over both, against the same server.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import socket
import ssl
import struct
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.client import httpx_adapter
from loadbench.client.httpx_adapter import LoadTransport
from loadbench.client.stamping import stamp_source

MB = 1024 * 1024
# Loading the system's trust takes longer than all else here.
BARE = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

both = pytest.mark.parametrize("transport", ["ours", "stock"])


def make(transport: str, *, tls: ssl.SSLContext = BARE) -> httpx.AsyncBaseTransport:
    return LoadTransport(tls=tls) if transport == "ours" else httpx.AsyncHTTPTransport(verify=tls, trust_env=False)


def client(transport: str = "ours", **options) -> httpx.AsyncClient:
    tls = options.pop("tls", BARE)
    return httpx.AsyncClient(transport=make(transport, tls=tls), trust_env=False, **options)


@dataclass
class Request:
    """A request as the server read it, with its bytes."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    raw: bytes


@dataclass
class Server:
    """What a test's server saw: `requests` in their order, over how many `connections`, of which some are `open`."""

    url: str = ""
    connections: int = 0
    open: int = 0
    requests: list[Request] = field(default_factory=list)


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    raw, body = head, b""
    if "chunked" in headers.get("transfer-encoding", ""):
        size = -1
        while size:
            line = await reader.readuntil(b"\r\n")
            size = int(line, 16)
            part = await reader.readexactly(size + 2)
            body, raw = body + part[:-2], raw + line + part
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        raw += body
    method, target, _ = first.split(" ")
    return Request(method, target, headers, body, raw)


@asynccontextmanager
async def serving(answer=None, *, connection=None, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"):
    """A server whose `answer(request)` gives the bytes, or whose `connection(reader, writer)` does as it likes."""
    server, writers = Server(), set()

    async def talk(reader, writer) -> None:
        while (request := await read_request(reader)) is not None:
            server.requests.append(request)
            writer.write(answer(request) if callable(answer) else answer)
            await writer.drain()
            if b"connection: close" in (answer(request) if callable(answer) else answer).lower():
                return

    async def served(reader, writer) -> None:
        server.connections += 1
        server.open += 1
        writers.add(writer)
        try:
            await (connection or talk)(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            server.open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    listener = await asyncio.start_server(served, host, 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    server.url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        yield server
    finally:
        listener.close()
        for writer in writers:
            if not writer.transport.is_closing():
                writer.transport.abort()
        await asyncio.sleep(0.01)


async def until(happened) -> None:
    """Wait for what happens in the server's turns."""
    while not happened():
        await asyncio.sleep(0.001)


def run(coroutine):
    async def bounded():
        async with asyncio.timeout(30):
            return await coroutine

    return asyncio.run(bounded())


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

# (what the server sends, status, reason, headers beside those of framing, body)
ANSWERS = [
    (OK, 200, "OK", [], b"hello"),
    (CHUNKED + b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", 200, "OK", [], b"hello"),
    (CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", 200, "OK", [], b"hello"),  # trailers are dropped
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", 200, "OK", [], b"hello"),
    (b"HTTP/1.1 404 Nothing To See\r\nContent-Length: 0\r\n\r\n", 404, "Nothing To See", [], b""),
    (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", 200, "", [], b""),
    (b"HTTP/1.1 204 No Content\r\n\r\n", 204, "No Content", [], b""),
    (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", 304, "Not Modified", [(b"ETag", b"x")], b""),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, 200, "OK", [], b"hello"),
    (
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX-Empty:\r\nContent-Length: 1\r\n\r\n!",
        200,
        "OK",
        [(b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"X-Empty", b"")],
        b"!",
    ),
]
FRAMING = {b"content-length", b"transfer-encoding", b"connection"}


@both
@pytest.mark.parametrize(("sent", "status", "reason", "headers", "body"), ANSWERS)
def test_answer_is_httpx_response(transport, sent, status, reason, headers, body):
    """Status, reason, headers as they were written, in their order, and body: the same from both transports."""

    async def go() -> httpx.Response:
        async with serving(sent) as server, client(transport) as http:
            return await http.get(server.url)

    response = run(go())
    assert (response.status_code, response.reason_phrase, response.content) == (status, reason, body)
    assert [header for header in response.headers.raw if header[0].lower() not in FRAMING] == headers
    assert response.http_version == "HTTP/1.1"


@settings(max_examples=25, deadline=None)
@given(answer=st.sampled_from(ANSWERS), at=st.lists(st.integers(0, 150), max_size=8))
def test_pieces_make_no_difference(answer, at):
    """However the server cuts its answer, httpx gets the same response."""
    sent, status, reason, _, body = answer
    places = sorted({place % (len(sent) + 1) for place in at} | {0, len(sent)})

    async def piecemeal(reader, writer) -> None:
        await read_request(reader)
        for start, end in itertools.pairwise(places):
            writer.write(sent[start:end])
            await asyncio.sleep(0)

    async def go() -> httpx.Response:
        async with serving(connection=piecemeal) as server, client() as http:
            return await http.get(server.url)

    response = run(go())
    assert (response.status_code, response.reason_phrase, response.content) == (status, reason, body)


async def parts_of(*parts: bytes):
    for part in parts:
        await asyncio.sleep(0)
        yield part


@pytest.mark.parametrize(
    "options",
    [
        {"method": "GET"},
        {"method": "DELETE", "params": {"a": "b c", "d": "é"}},
        {"method": "POST"},
        {"method": "POST", "content": b"body"},
        {"method": "POST", "json": {"a": 1}},
        {"method": "POST", "data": {"a": "1"}},
        {"method": "POST", "content": "chunks"},
        {"method": "POST", "content": "chunks", "headers": {"Content-Length": "5"}},
        {"method": "PUT", "files": {"f": b"file"}, "headers": {"Content-Type": "multipart/form-data; boundary=edge"}},
        {"method": "GET", "headers": [("X-Twice", "1"), ("x-twice", "2"), ("X-Empty", "")]},
        {"method": "OPTIONS", "extensions": {"target": b"*"}},
    ],
    ids=str,
)
def test_request_is_byte_for_byte_that_of_httpx(options):
    """What goes over the wire does not depend on the transport, in whatever form the body is given."""

    async def go() -> list[Request]:
        async with serving(OK) as server:
            for transport in ("ours", "stock"):
                given_body = {"content": parts_of(b"hel", b"", b"lo")} if options.get("content") == "chunks" else {}
                async with client(transport) as http:
                    await http.request(url=f"{server.url}/path?q", **{**options, **given_body})
            return [request.raw for request in server.requests]

    ours, stock = run(go())
    assert ours == stock


def test_synchronous_stream_is_sent_too():
    """A plain iterable of bytes, which httpx's async client does not hand down, is a body all the same."""

    class Plain(httpx.SyncByteStream):
        def __iter__(self):
            yield from (b"hel", b"lo")

    async def go() -> bytes:
        async with serving(OK) as server, make("ours") as transport:
            headers = {"Host": "here", "Transfer-Encoding": "chunked"}
            request = httpx.Request("POST", server.url, headers=headers, stream=Plain())
            await (await transport.handle_async_request(request)).aread()
            return server.requests[0].body

    assert run(go()) == b"hello"


@both
@pytest.mark.parametrize(
    "headers",
    [
        [("bad name", "x")],
        [("", "x")],
        [("x", "a\r\nInjected: b")],
        [("x", "a\x00")],
        [("x", " led")],
        [("x", "trailed ")],
        [("Content-Length", "five")],
        [("Content-Length", "1"), ("Content-Length", "2")],
        [("Transfer-Encoding", "gzip")],
        [("Host", "a"), ("Host", "b")],
    ],
    ids=str,
)
def test_illegal_header_is_refused_before_anything_is_sent(transport, headers):
    """What would not be HTTP is this side's fault, and the server hears nothing of it."""

    async def go() -> list[Request]:
        async with serving(OK) as server, client(transport) as http:
            with pytest.raises(httpx.LocalProtocolError):
                await http.get(server.url, headers=headers)
            return server.requests

    assert run(go()) == []


@pytest.mark.parametrize("length", ["4", "6"])
@pytest.mark.parametrize("streams", [False, True])
def test_body_of_another_length_is_refused(length, streams):
    """A body that is longer or shorter than its Content-Length is an error of this side, not a hanging server.

    httpx's own transport lets h11's exception of the same name through.
    """

    async def go() -> None:
        async with serving(OK) as server, client() as http:
            content = parts_of(b"hel", b"lo") if streams else b"hello"
            with pytest.raises(httpx.LocalProtocolError, match="declared Content-Length"):
                await http.post(server.url, content=content, headers={"Content-Length": length})

    run(go())


def test_length_and_chunks_together_are_refused():
    """Two ways to tell the body's end are an opening for smuggled requests."""

    async def go() -> None:
        async with client() as http:
            with pytest.raises(httpx.LocalProtocolError):
                await http.post("http://127.0.0.1:1", content=b"x", headers={"Transfer-Encoding": "chunked"})

    run(go())


@both
@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "//127.0.0.1/"])
def test_scheme_that_is_not_http_is_unsupported(transport, url):
    """Another scheme, or none, is httpx's UnsupportedProtocol."""

    async def go() -> None:
        async with client(transport) as http:
            with pytest.raises(httpx.UnsupportedProtocol):
                await http.get(url)

    run(go())


@both
def test_closed_port_is_a_connect_error(transport):
    """Refused connections have httpx's name, and the request with them."""

    async def go() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            async with client(transport) as http:
                with pytest.raises(httpx.ConnectError) as caught:
                    await http.get(f"http://127.0.0.1:{taken.getsockname()[1]}/")
        assert caught.value.request.method == "GET"

    run(go())


def test_impossible_name_is_a_connect_error():
    """A name that cannot even be asked for is no crash."""

    async def go() -> None:
        async with client() as http:
            with pytest.raises(httpx.ConnectError):
                await http.get(f"http://{'a' * 70}.invalid/")

    run(go())


def reset(writer) -> None:
    """Close with a reset instead of an end."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@both
@pytest.mark.parametrize(
    ("sent", "by_reset", "error"),
    [
        (b"", False, httpx.RemoteProtocolError),
        (b"", True, httpx.ReadError),
        (b"HTTP/1.1 200 OK\r\nContent-", False, httpx.RemoteProtocolError),
        (OK[:-2], False, httpx.RemoteProtocolError),
        (OK[:-2], True, httpx.ReadError),
        (CHUNKED + b"5\r\nhello\r\n", False, httpx.RemoteProtocolError),
        (CHUNKED + b"zz\r\nhello\r\n", False, httpx.RemoteProtocolError),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", False, httpx.RemoteProtocolError),
    ],
    ids=str,
)
def test_broken_answer_has_the_error_of_httpx(transport, sent, by_reset, error):
    """Closed too early and not HTTP are the server's breach of protocol, a reset is an error of reading."""

    async def breaking(reader, writer) -> None:
        await read_request(reader)
        writer.write(sent)
        await writer.drain()
        # A reset discards what the client has not read.
        await asyncio.sleep(0.02 if by_reset else 0)
        if by_reset:
            reset(writer)

    async def go() -> None:
        async with serving(connection=breaking) as server, client(transport) as http:
            with pytest.raises(httpx.TransportError) as caught:
                await http.get(server.url)
        assert type(caught.value) is error
        assert caught.value.request.method == "GET"

    run(go())


@both
def test_what_came_before_the_break_is_given_out(transport):
    """Parts that arrived are read before the error is raised."""

    got = []

    async def breaking(reader, writer) -> None:
        await read_request(reader)
        writer.write(OK[:-2])
        await writer.drain()

    async def go() -> None:
        async with (
            serving(connection=breaking) as server,
            client(transport) as http,
            http.stream("GET", server.url) as response,
        ):
            async for part in response.aiter_raw():
                got.append(part)  # noqa: PERF401 - it is kept when the loop breaks off

    with pytest.raises(httpx.RemoteProtocolError):
        run(go())
    assert b"".join(got) == b"hel"


async def silent(reader, writer) -> None:
    """A server that neither reads nor answers."""
    writer.transport.pause_reading()
    await asyncio.sleep(20)


async def stops_midway(reader, writer) -> None:
    await read_request(reader)
    writer.write(OK[:-2])
    await asyncio.sleep(20)


@both
@pytest.mark.parametrize(
    ("server_does", "scheme", "limit", "body", "error"),
    [
        (silent, "https", "connect", b"", httpx.ConnectTimeout),  # TCP connects, TLS does not
        (silent, "http", "read", b"", httpx.ReadTimeout),
        (stops_midway, "http", "read", b"", httpx.ReadTimeout),
        (silent, "http", "write", bytes(32 * MB), httpx.WriteTimeout),
    ],
    ids=["connect", "headers", "body", "write"],
)
def test_each_timeout_has_its_name(transport, server_does, scheme, limit, body, error):
    """httpx's time-outs are kept by our one deadline, told apart by what was waited for."""

    async def go() -> None:
        timeout = httpx.Timeout(None, **{limit: 0.05})
        async with serving(connection=server_does) as server, client(transport, timeout=timeout) as http:
            with pytest.raises(httpx.TimeoutException) as caught:
                await http.post(server.url.replace("http", scheme), content=body)
        assert type(caught.value) is error
        assert caught.value.request.method == "POST"

    run(go())


def test_stream_that_cannot_be_sent_times_out():
    """The write time-out holds for bodies that are made on the way too."""

    async def endless():
        while True:
            yield bytes(MB)

    async def go() -> None:
        async with serving(connection=silent) as server, client(timeout=httpx.Timeout(None, write=0.05)) as http:
            with pytest.raises(httpx.WriteTimeout):
                await http.post(server.url, content=endless())

    run(go())


@both
def test_slow_reader_is_no_slow_server(transport):
    """The read time-out runs only while something is waited for."""

    async def go() -> bytes:
        got = b""
        async with serving(CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n") as server:
            http = client(transport, timeout=httpx.Timeout(None, read=0.1))
            async with http, http.stream("GET", server.url) as response:
                async for part in response.aiter_raw():
                    got += part
                    await asyncio.sleep(0.15)
        return got

    assert run(go()) == b"hello"


@both
def test_head_has_headers_and_no_body(transport):
    """The length that an answer to HEAD announces is not waited for, and the next request is answered."""

    def answer(request: Request) -> bytes:
        return OK[:-5] if request.method == "HEAD" else OK

    async def go() -> tuple[str, bytes, bytes]:
        async with serving(answer) as server, client(transport) as http:
            head, get = await http.head(server.url), await http.get(server.url)
            return head.headers["content-length"], head.content, get.content

    assert run(go()) == ("5", b"", b"hello")


@both
def test_connection_is_kept_and_used_again(transport):
    """Requests one after the other need one connection, whatever bodies they have."""

    async def go() -> int:
        async with serving(OK) as server, client(transport) as http:
            for content in (None, b"x", parts_of(b"x", b"y"), b"", None):
                assert (await http.post(server.url, content=content)).content == b"hello"
            return server.connections

    assert run(go()) == 1


@both
@pytest.mark.parametrize("by_server", [False, True])
def test_connection_close_is_heeded(transport, by_server):
    """Whichever side says `Connection: close`, the next request has another connection."""
    answer = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") if by_server else OK

    async def go() -> int:
        async with serving(answer) as server, client(transport) as http:
            for _ in range(3):
                await http.get(server.url, headers={} if by_server else {"Connection": "close"})
            return server.connections

    assert run(go()) == 3


@both
def test_many_at_once_share_connections(transport):
    """Rounds of concurrent requests need no more connections than were ever needed at once."""

    async def go() -> tuple[int, int]:
        async with serving(OK) as server, client(transport) as http:
            for _ in range(4):
                answers = await asyncio.gather(*(http.get(server.url) for _ in range(40)))
                assert {answer.content for answer in answers} == {b"hello"}
            return server.connections, len(server.requests)

    connections, requests = run(go())
    assert requests == 160
    assert connections <= 40


def closes_when_used_again(served: int):
    """Answers one request a connection, takes another and closes; `served` connections answer, the others do not."""
    connections = itertools.count()

    async def connection(reader, writer) -> None:
        if next(connections) < served:
            await read_request(reader)
            writer.write(OK)
        await read_request(reader)

    return connection


@pytest.mark.parametrize("content", [None, b"body"])
def test_dead_kept_connection_is_replaced_once(content):
    """A kept connection that dies without a word costs nothing if the body can be sent again; a new one that does is
    an error."""

    async def go(served: int) -> bytes:
        async with serving(connection=closes_when_used_again(served)) as server, client() as http:
            await http.post(server.url, content=content)
            return (await http.post(server.url, content=content)).content

    assert run(go(2)) == b"hello"
    with pytest.raises(httpx.RemoteProtocolError):
        run(go(1))


def test_body_that_is_gone_is_not_sent_again():
    """A stream was read once; the dead connection is an error."""

    async def go() -> None:
        async with serving(connection=closes_when_used_again(2)) as server, client() as http:
            await http.get(server.url)
            with pytest.raises(httpx.RemoteProtocolError):
                await http.post(server.url, content=parts_of(b"x"))
            assert server.connections == 1

    run(go())


async def only_listens(reader, writer) -> None:
    await reader.read()


async def endless_answer(reader, writer) -> None:
    await read_request(reader)
    writer.write(CHUNKED)
    while True:
        writer.write(b"1000\r\n" + bytes(4096) + b"\r\n")
        await writer.drain()


@both
def test_closing_an_unread_answer_drops_the_connection(transport):
    """The server sees the end of a stream that nobody wants to its own end."""

    async def go() -> None:
        async with serving(connection=endless_answer) as server, client(transport) as http:
            async with http.stream("GET", server.url) as response:
                async for _ in response.aiter_raw():
                    break
                assert server.open == 1
            await until(lambda: not server.open)

    run(go())


@both
@pytest.mark.parametrize("server_does", [only_listens, endless_answer], ids=["before headers", "in the body"])
def test_cancelled_request_drops_the_connection(transport, server_does):
    """Cancelled at any place, nothing is left behind."""

    async def go() -> None:
        async with serving(connection=server_does) as server, client(transport, timeout=None) as http:
            task = asyncio.create_task(http.get(server.url))
            await until(lambda: server.open)
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not server.open)

    run(go())


def test_closing_the_transport_breaks_off_what_is_read():
    """A reader whose transport goes away gets an error of reading, neither a cancellation nor a hang."""

    async def go() -> None:
        async with serving(connection=stops_midway) as server:
            transport = make("ours")
            response = await transport.handle_async_request(httpx.Request("GET", server.url))
            reading = asyncio.create_task(response.aread())
            await asyncio.sleep(0.01)
            await transport.aclose()
            with pytest.raises(httpx.ReadError):
                await reading

    run(go())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "::1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def trusting(authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


@both
def test_tls_is_spoken_and_verified(transport, server_tls, trusting):
    """Over TLS all is the same; a certificate that is not trusted is a connect error."""

    async def go() -> bytes:
        async with serving(OK, tls=server_tls) as server:
            async with client(transport) as http:
                with pytest.raises(httpx.ConnectError, match="certificate"):
                    await http.get(server.url)
            async with client(transport, tls=trusting) as http:
                await http.post(server.url, content=parts_of(bytes(MB), b"end"))
                return (await http.get(server.url)).content

    assert run(go()) == b"hello"


@pytest.mark.skipif(sys.platform != "linux", reason="receive stamps are Linux's")
def test_kernel_stamps_under_tls(server_tls, trusting):
    """TLS takes no stamp away, and the marks are in the order of what happened."""

    async def go() -> None:
        async with serving(OK, tls=server_tls) as server, make("ours", tls=trusting) as transport:
            assert transport.stamp_source == "kernel"
            stamped = 0
            # The kernel begins to stamp a little after the first socket of the machine has asked for it.
            while not stamped:
                response = await transport.handle_async_request(httpx.Request("GET", server.url))
                await response.aread()
                stamps = response.extensions["loadbench_stamps"]
                assert stamps.sent_ns <= stamps.headers_ns <= stamps.last_ns
                stamped = transport.take_delays().count

    run(go())


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_large_answer_and_slow_reader_keep_memory_bounded(secure, server_tls, trusting):
    """50 MB come through whole, while no more is held than the limit and what one read brings."""
    size, most = 50 * MB, 0

    async def large(reader, writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        block = bytes(MB)
        for _ in range(50):
            writer.write(block)
            await writer.drain()
        await read_request(reader)

    async def go() -> tuple[int, int]:
        nonlocal most
        got = 0
        async with (
            serving(connection=large, tls=server_tls if secure else None) as server,
            make("ours", tls=trusting) as transport,
        ):
            response = await transport.handle_async_request(httpx.Request("GET", server.url))
            async for part in response.stream:
                most = max(most, response.stream._held_bytes)
                got += len(part)
                # A reader who is slow now and then: what is held fills up meanwhile.
                if got % (5 * MB) < len(part):
                    await asyncio.sleep(0.005)
            assert response.extensions["loadbench_stamps"].pauses == transport.pauses
            return got, transport.pauses

    got, pauses = run(go())
    assert got == size
    assert pauses >= 1
    assert most <= httpx_adapter._MOST_HELD_BYTES + 300 * 1024


def test_answer_that_nobody_reads_stops_its_server():
    """Without a reader the server comes to a halt, and goes on when there is one."""
    written = 0

    async def counting(reader, writer) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(CHUNKED)
        while written < 60 * MB:
            writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
            await writer.drain()
            written += 65536
        writer.write(b"0\r\n\r\n")

    async def halted() -> int:
        before = -1
        while written != before:
            before = written
            await asyncio.sleep(0.05)
        return written

    async def go() -> tuple[int, int]:
        async with serving(connection=counting) as server, make("ours") as transport:
            response = await transport.handle_async_request(httpx.Request("GET", server.url))
            unread = await halted()
            return unread, len(await response.aread())

    unread, whole = run(go())
    assert unread < 30 * MB
    assert whole == 60 * MB


@both
def test_streamed_upload_arrives_whole(transport):
    """A body made on the way arrives as it was made, though the server is slow to take it."""

    async def slowly():
        for number in range(32):
            yield bytes([number]) * 100_000

    async def go() -> bytes:
        async with serving(OK) as server, client(transport) as http:
            await http.post(server.url, content=slowly())
            return server.requests[0].body

    assert run(go()) == b"".join(bytes([number]) * 100_000 for number in range(32))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a reset discards what had arrived")
@pytest.mark.parametrize("streams", [False, True])
def test_refusal_of_an_upload_is_heard(streams):
    """A server that answers early and hangs up has answered, though the rest of the body finds no taker."""

    async def refusing(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        await writer.drain()

    async def endless():
        while True:
            yield bytes(65536)

    async def go() -> None:
        async with serving(connection=refusing) as server, client() as http:
            for _ in range(10):
                response = await http.post(server.url, content=endless() if streams else bytes(16 * MB))
                assert (response.status_code, response.content) == (413, b"no")

    run(go())


@dataclass
class Told:
    """A sink that writes down what it is told."""

    events: list[str] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    body: bytes = b""

    def reconnecting(self) -> None:
        self.events.append("reconnecting")

    def connected(self, at_ns: int, *, reused: bool, connect_ns: int | None) -> None:
        assert reused is (connect_ns is None)
        self._mark("reused" if reused else "connected", at_ns)

    def sent(self, at_ns: int) -> None:
        self._mark("sent", at_ns)

    def headers(self, at_ns: int, status: int, headers) -> None:
        self._mark(f"headers {status}", at_ns)

    def data(self, at_ns: int, chunk: bytes) -> None:
        self._mark("data", at_ns)
        self.body += chunk

    def _mark(self, event: str, at_ns: int) -> None:
        self.events.append(event)
        self.stamps.append(at_ns)


def test_sink_is_told_and_the_stream_ends_empty():
    """With a sink the body is pushed, stamped and in order; the response has no more than its end."""

    async def go() -> tuple[Told, bytes, Told]:
        async with serving(CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n") as server, client() as http:
            first, second = Told(), Told()
            response = await http.get(server.url, extensions={"sink": first})
            await http.get(server.url, extensions={"sink": second})
            return first, response.content, second

    first, content, second = run(go())
    assert first.events == ["connected", "sent", "headers 200", "data"]
    assert second.events[0] == "reused"
    assert (first.body, content) == (b"hello", b"")
    assert first.stamps == sorted(first.stamps)


def test_sink_is_told_of_a_dead_connection():
    """The exchange that begins again says so."""

    async def go() -> list[str]:
        async with serving(connection=closes_when_used_again(2)) as server, client() as http:
            await http.get(server.url)
            sink = Told()
            await http.get(server.url, extensions={"sink": sink})
            return sink.events

    assert run(go()) == ["reused", "sent", "reconnecting", "connected", "sent", "headers 200", "data"]


@pytest.mark.parametrize("upload", [b"", "stream"])
def test_silence_after_a_part_times_out_with_a_sink_too(upload):
    """The read time-out then runs from part to part."""

    async def go() -> bytes:
        async with serving(connection=stops_midway) as server, client(timeout=httpx.Timeout(None, read=0.05)) as http:
            sink = Told()
            content = parts_of(b"x") if upload else None
            with pytest.raises(httpx.ReadTimeout):
                await http.post(server.url, content=content, extensions={"sink": sink})
            return sink.body

    assert run(go()) == b"hel"


def test_fault_of_a_sink_is_raised():
    """An error in the caller's own code comes back to the caller as it is."""

    class Faulty(Told):
        def data(self, at_ns: int, chunk: bytes) -> None:
            raise ZeroDivisionError

    async def go() -> None:
        async with serving(OK) as server, client() as http:
            with pytest.raises(ZeroDivisionError):
                await http.get(server.url, extensions={"sink": Faulty()})

    run(go())


def test_stamps_go_on_with_what_is_read():
    """Each part that is given out moves `last_ns` to its own arrival; a reused connection took no time to connect."""
    gate = asyncio.Event()

    async def two_parts(reader, writer) -> None:
        while await read_request(reader):
            writer.write(CHUNKED + b"3\r\nhel\r\n")
            await gate.wait()
            writer.write(b"2\r\nlo\r\n0\r\n\r\n")

    async def go() -> None:
        async with serving(connection=two_parts) as server, make("ours") as transport:
            response = await transport.handle_async_request(httpx.Request("GET", server.url))
            stamps, seen = response.extensions["loadbench_stamps"], []
            assert stamps.last_ns is None
            async for _ in response.stream:
                seen.append(stamps.last_ns)
                assert response.stream.last_ns == stamps.last_ns
                gate.set()
            assert stamps.sent_ns <= stamps.headers_ns <= seen[0] < seen[1]
            assert stamps.connect_ns > 0
            again = await transport.handle_async_request(httpx.Request("GET", server.url))
            await again.aread()
            assert again.extensions["loadbench_stamps"].connect_ns is None
            assert transport.stamp_source == stamp_source()

    run(go())


def site(request: Request) -> bytes:
    """A small site: a redirect, a cookie, a secret and something compressed."""
    match request.target:
        case "/moved":
            return b"HTTP/1.1 307 Moved\r\nLocation: /here\r\nContent-Length: 4\r\n\r\ngone"
        case "/cookie":
            return b"HTTP/1.1 200 OK\r\nSet-Cookie: key=1\r\nContent-Length: 0\r\n\r\n"
        case "/secret" if "authorization" not in request.headers:
            challenge = b'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth", algorithm=MD5'
            return b"HTTP/1.1 401 Who\r\n%b\r\nContent-Length: 0\r\n\r\n" % challenge
        case "/packed":
            packed = gzip.compress(b"hello" * 1000)
            return b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(packed), packed)
    return OK


@both
def test_what_httpx_does_above_works_over_it(transport):
    """Redirects with their body, cookies, authentication by challenge and decompression, on one connection."""

    async def go() -> Server:
        async with serving(site) as server, client(transport, follow_redirects=True, base_url=server.url) as http:
            moved = await http.post("/moved", content=b"body")
            assert (moved.content, moved.url.path, len(moved.history)) == (b"hello", "/here", 1)
            await http.get("/cookie")
            await http.get("/with")
            assert (await http.get("/secret", auth=httpx.DigestAuth("me", "pass"))).status_code == 200
            assert (await http.get("/packed")).content == b"hello" * 1000
            return server

    server = run(go())
    by_target = {request.target: request for request in server.requests}
    assert by_target["/here"].body == b"body"
    assert by_target["/with"].headers["cookie"] == "key=1"
    assert by_target["/secret"].headers["authorization"].startswith("Digest ")
    assert server.connections == 1


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@both
@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
def test_ipv6_host(transport):
    """An address in brackets is connected to, and named in brackets to the server."""

    async def go() -> tuple[str, str]:
        async with serving(OK, host="::1") as server, client(transport) as http:
            await http.get(server.url)
            return f"http://{server.requests[0].headers['host']}", server.url

    host, url = run(go())
    assert host == url


@pytest.mark.parametrize("options", [{"proxy": "http://127.0.0.1:1"}, {"http2": True}])
def test_what_it_cannot_do_it_says(options):
    """Proxies and HTTP/2 are refused at once, with the name of what can."""
    with pytest.raises(ValueError, match="AsyncHTTPTransport"):
        LoadTransport(**options)


def test_default_trust_is_the_systems():
    """Without a context of one's own, https is spoken and a stranger's certificate refused."""

    async def go() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        async with serving(OK, tls=context) as server, httpx.AsyncClient(transport=LoadTransport()) as http:
            with pytest.raises(httpx.ConnectError, match="not trusted"):
                await http.get(server.url)

    run(go())
