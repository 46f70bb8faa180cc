"""A server of raw bytes on a real socket: each connection plays its script, in the event loop of the test.

A script is a list of steps: bytes are written, a number is a pause in seconds, `ASK` reads one request, `RST` and
`CLOSE` end the connection one way or the other, `GONE` waits until the client has ended it, and a function of the
server is waited for until it is true. The n-th connection plays the n-th script, all further ones the last. What comes
after the end of a script is a close.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Sequence


class Step(Enum):
    """What a script does besides writing and waiting."""

    ASK = auto()
    RST = auto()
    CLOSE = auto()
    GONE = auto()


ASK, RST, CLOSE, GONE = Step.ASK, Step.RST, Step.CLOSE, Step.GONE
_SSE = b"content-type: text/event-stream\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int  # which, from 0


@dataclass
class Server:
    """What a test looks at afterwards."""

    port: int = 0
    connections: int = 0
    requests: list[Request] = field(default_factory=list)
    gone: int = 0  # connections of which the client's end was seen by `GONE`
    faults: list[BaseException] = field(default_factory=list)

    def url(self, scheme: str = "http", *, host: str = "127.0.0.1") -> str:
        """The base of its API."""
        return f"{scheme}://{host}:{self.port}/v1"


Action = bytes | float | Step | Callable[[Server], bool]
Script = list[Action]


@contextlib.asynccontextmanager
async def serving(
    *scripts: Script, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Server]:
    """Serve while the context lasts; connections still open then are dropped."""
    server, players = Server(), set[asyncio.Task[None]]()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        players.add(task)
        number = server.connections
        script = scripts[min(number, len(scripts) - 1)]
        server.connections += 1
        try:
            for step in script:
                if step is ASK:
                    server.requests.append(await _request(reader, number))
                else:
                    await _do(step, server, reader, writer)
                if step in {RST, CLOSE}:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left early, or the test is over
        except BaseException as error:  # noqa: BLE001 - raised where the test sees it
            server.faults.append(error)
        finally:
            players.discard(task)
            await _close(writer)

    listener = await asyncio.start_server(play, host, 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in tuple(players):
            task.cancel()
        if players:
            await asyncio.wait(players, timeout=5)
        await listener.wait_closed()
        for fault in server.faults:
            raise fault


async def _do(step: Action, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    match step:
        case bytes():
            writer.write(step)
            await writer.drain()
        case Step.RST:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        case Step.GONE:
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            server.gone += 1
        case Step.ASK | Step.CLOSE:
            pass  # the caller's
        case int() | float():
            await asyncio.sleep(step)
        case _:
            while not step(server):
                await asyncio.sleep(0.005)


async def _request(reader: asyncio.StreamReader, connection: int) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): text for name, text in (line.split(": ", 1) for line in head[1:])}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(head[0], headers, body, connection)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, asyncio.CancelledError):
        await writer.wait_closed()


# What servers write.


def head(status: str = "200 OK", *, headers: bytes = _SSE + b"transfer-encoding: chunked\r\n") -> bytes:
    """A header block."""
    return b"HTTP/1.1 " + status.encode() + b"\r\n" + headers + b"\r\n"


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'


def token(text: str = "x") -> bytes:
    """An event with a token."""
    return b'data: {"choices":[{"index":0,"delta":{"content":"' + text.encode() + b'"}}],"model":"m"}\n\n'


def usage(tokens: int) -> bytes:
    """An event with the server's count."""
    return b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":%d}}\n\n' % tokens


def whole(status: str, body: bytes, *, kind: str = "application/json", more: bytes = b"") -> bytes:
    """An answer in one piece."""
    headers = b"content-type: %s\r\ncontent-length: %d\r\n" % (kind.encode(), len(body))
    return head(status, headers=headers + more) + body


def stream(tokens: Sequence[bytes]) -> bytes:
    """A complete answer of these events, all in one write."""
    return head() + chunk(b"".join((*tokens, FINISH, usage(len(tokens)), DONE))) + END


ANSWER = stream([token("a"), token("b"), token("c")])
