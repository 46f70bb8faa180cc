"""What faults are made of: their entry in the table, the connection they are played on, and the usual frames.

A fault is a small function that plays on one request what some server or proxy has been seen to do. Its entry states
in advance how that request must end: its `outcomes`, of which most have one. Its docstring says what happens and which
figures are right for it. The tables are in `tests.faults.response_faults` and `tests.faults.connection_faults`.

Pauses are in seconds at speed 1. The server's `speed` divides them all, so that their ratios stay the same.
`wire.max_tokens` is the number of tokens that the request allows; every fault sends as many unless it is about that.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import orjson

from loadbench.record.outcome import Outcome, TokenSource

# From token to token; a long pause is a hundred of these.
GAP_S = 0.02
LATE_S = 100 * GAP_S
DONE = b"data: [DONE]\n\n"
MOST_BODY_BYTES = 8 * 1024 * 1024
_CHUNKED = b"transfer-encoding: chunked\r\n"
# On, and no time to linger: closing sends a reset. On Windows the two numbers are shorter.
_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class Host(Protocol):
    """The server that a connection belongs to."""

    speed: float

    def restart(self, away_s: float) -> None:
        """Drop every connection, and listen again on the same port after this time."""
        ...


class Wire:
    """One connection as a fault sees it: the current request, and ways to respond to it."""

    def __init__(self, server: Host, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.closed = False
        self.max_tokens = self.prompt_tokens = 0
        self.model = self.prompt = ""
        self._server = server
        self._reader = reader
        self._writer = writer
        self._closes_in_the_next = False

    async def read_request(self) -> tuple[bytes, bytes]:
        """The next request: its first line and its body."""
        if self._closes_in_the_next:
            await self._reader.readexactly(16)
            self.reset()
            raise ConnectionResetError
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        body = await self._reader.readexactly(min(int(length[1]), MOST_BODY_BYTES)) if length else b""
        return head.partition(b"\r\n")[0], body

    def take(self, request: dict[str, object]) -> None:
        """Read the fields of the request; raises whatever a malformed one causes."""
        messages = request.get("messages")
        prompt = messages[-1]["content"] if isinstance(messages, list) else request["prompt"]
        self.model, self.prompt = str(request.get("model", "")), str(prompt)
        self.prompt_tokens = len(self.prompt.split())
        self.max_tokens = max(1, int(str(request.get("max_tokens") or 8)))

    async def pause(self, seconds: float) -> None:
        """Wait, in seconds at speed 1."""
        await asyncio.sleep(seconds / self._server.speed)

    def head(self, *, more: bytes = b"", framing: bytes = _CHUNKED) -> bytes:
        """The header block of an event stream."""
        return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + framing + more + b"\r\n"

    def open(self, *, more: bytes = b"", framing: bytes = _CHUNKED) -> None:
        """Send the header block."""
        self._writer.write(self.head(more=more, framing=framing))

    @staticmethod
    def chunk(data: bytes) -> bytes:
        """A chunk of a chunked body."""
        return b"%x\r\n%b\r\n" % (len(data), data)

    async def send(self, *frames: bytes) -> None:
        """Write these as one chunk; no bytes write nothing."""
        data = b"".join(frames)
        if data:
            await self.raw(self.chunk(data))

    async def raw(self, data: bytes) -> None:
        """Write this; raises `ConnectionError` once the client has gone."""
        self._writer.write(data)
        await self._writer.drain()
        # A write that goes out at once does not let other tasks run.
        await asyncio.sleep(0)

    async def end(self) -> None:
        """End the chunked body; the connection is kept."""
        await self.raw(b"0\r\n\r\n")

    async def respond(self, status: str, body: bytes, *, kind: bytes = b"application/json", more: bytes = b"") -> None:
        """Send a response in one piece."""
        head = b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n" % (status.encode(), kind, len(body))
        await self.raw(head + more + b"\r\n" + body)

    async def gone(self) -> None:
        """Wait until the client has ended the connection."""
        while await self._reader.read(4096):
            pass
        self.close()

    def close(self) -> None:
        """Close the connection in order."""
        self.closed = True
        self._writer.close()

    def reset(self) -> None:
        """Break the connection."""
        self.closed = True
        sock = self._writer.get_extra_info("socket")
        with suppress(OSError):  # it has gone already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._writer.transport.abort()

    def close_in_the_next(self) -> None:
        """Break the connection when the next request has begun to come."""
        self._closes_in_the_next = True

    async def restart(self, seconds: float) -> None:
        """Have the server restart, and be away for this time."""
        self._server.restart(seconds / self._server.speed)


Play: TypeAlias = Callable[[Wire], Coroutine[None, None, None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry: `source` is where the token count of a successful response must come from."""

    name: str
    play: Play
    outcomes: frozenset[Outcome]
    source: TokenSource

    @property
    def description(self) -> str:
        """What happens and what must come of it, in one line."""
        return " ".join((self.play.__doc__ or "").split())


class FaultTable(dict[str, Fault]):
    """Faults by name; functions are entered by `ends`."""

    def ends(self, *outcomes: Outcome, source: TokenSource = TokenSource.USAGE) -> Callable[[Play], Play]:
        """Enter the function under its name, with the outcomes that its requests must have."""

        def enter(play: Play) -> Play:
            name = play.__name__
            self[name] = Fault(name, play, frozenset(outcomes), source)
            return play

        return enter


# Frames.


def frame(document: object) -> bytes:
    """An event with this JSON as its data."""
    return b"data: " + orjson.dumps(document) + b"\n\n"


def choice(
    wire: Wire,
    delta: dict[str, object],
    *,
    finish: str | None = None,
    ids: list[int] | None = None,
    usage: dict[str, object] | None = None,
) -> bytes:
    """A frame with one choice."""
    fields = {"index": 0, "delta": delta, "finish_reason": finish} | ({} if ids is None else {"token_ids": ids})
    counted = {} if usage is None else {"usage": usage}
    return frame({"object": "chat.completion.chunk", "model": wire.model, "choices": [fields], **counted})


def word(
    wire: Wire,
    number: int,
    *,
    finish: str | None = None,
    ids: list[int] | None = None,
    usage: dict[str, object] | None = None,
) -> bytes:
    """A frame with a word of the response."""
    return choice(wire, {"content": f"w{number} "}, finish=finish, ids=ids, usage=usage)


def stop(wire: Wire, *, usage: dict[str, object] | None = None) -> bytes:
    """The frame with the finish_reason."""
    return choice(wire, {}, finish="stop", usage=usage)


def counts(wire: Wire, tokens: int, *, reasoning: int | None = None) -> dict[str, object]:
    """A usage object; the reasoning tokens are part of `tokens`."""
    prompt = wire.prompt_tokens
    more = {} if reasoning is None else {"completion_tokens_details": {"reasoning_tokens": reasoning}}
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens, **more}


def usage_alone(wire: Wire, tokens: int, *, reasoning: int | None = None) -> bytes:
    """The frame with the usage."""
    return frame({"model": wire.model, "choices": [], "usage": counts(wire, tokens, reasoning=reasoning)})


# Parts of a response.


async def words(wire: Wire, count: int, *, gap_s: float = GAP_S, start: int = 0) -> None:
    """This number of tokens, one per event, with a pause before each."""
    for number in range(start, start + count):
        await wire.pause(gap_s)
        await wire.send(word(wire, number))


async def finish(wire: Wire, tokens: int | None = None, *, reasoning: int | None = None) -> None:
    """The normal end of a response."""
    count = wire.max_tokens if tokens is None else tokens
    await wire.send(stop(wire), usage_alone(wire, count, reasoning=reasoning), DONE)
    await wire.end()


async def plain_response(wire: Wire) -> None:
    """A response with nothing wrong."""
    wire.open()
    await words(wire, wire.max_tokens)
    await finish(wire)


def whole_stream(wire: Wire) -> bytes:
    """All frames of a response, the first of them without a token."""
    tokens = b"".join(word(wire, number) for number in range(wire.max_tokens))
    return choice(wire, {"role": "assistant"}) + tokens + stop(wire) + usage_alone(wire, wire.max_tokens) + DONE
