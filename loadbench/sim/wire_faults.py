"""Faults of how an answer comes: broken connections, silence, unusual bytes, keep-alive and HTTP.

See `loadbench.sim.fault_frames` for what an entry is.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import orjson

from loadbench.record.outcome import Outcome
from loadbench.sim.fault_frames import (
    DONE,
    GAP_S,
    LATE_S,
    FaultTable,
    answer,
    choice,
    counts,
    finish,
    stop,
    usage_alone,
    whole_stream,
    word,
    words,
)

if TYPE_CHECKING:
    from loadbench.sim.faults import Wire

FAULTS = FaultTable()
# Two, three and four bytes in UTF-8, and a character that some take for the end of a line.
_WIDE = "é\u2028漢😀"
# What ends other requests than its own.
DISRUPTIVE = frozenset({"restarted"})


# Broken connections.


@FAULTS.ends(Outcome.TRUNCATED)
async def closed_midway(wire: Wire) -> None:
    """The connection is closed in the middle of the answer. What had come is kept in the sample."""
    wire.open()
    await words(wire, wire.asked)
    wire.close()


@FAULTS.ends(Outcome.RESET)
async def reset_midway(wire: Wire) -> None:
    """The connection is reset in the middle of the answer. What had come is kept in the sample."""
    wire.open()
    await words(wire, wire.asked)
    await wire.pause(GAP_S)
    wire.reset()


@FAULTS.ends(Outcome.RESET)
async def closed_unanswered(wire: Wire) -> None:
    """Every connection is closed without an answer. One kept connection that dies so is replaced, no new one is."""
    wire.close()


@FAULTS.ends(Outcome.OK)
async def no_last_chunk(wire: Wire) -> None:
    """All came, [DONE] too, but for the chunk that ends the body; then the connection is closed. An answer."""
    wire.open()
    await words(wire, wire.asked)
    await wire.send(stop(wire), usage_alone(wire, wire.asked), DONE)
    wire.close()


@FAULTS.ends(Outcome.TRUNCATED)
async def short_of_its_length(wire: Wire) -> None:
    """Content-Length announces more than comes before the close."""
    wire.open(framing=b"content-length: 1000000\r\n")
    for number in range(wire.asked):
        await wire.raw(word(wire, number))
    wire.close()


@FAULTS.ends(Outcome.OK)
async def until_close(wire: Wire) -> None:
    """Neither length nor chunks: the end of the connection is that of the body. An answer."""
    wire.open(framing=b"connection: close\r\n")
    await wire.raw(whole_stream(wire))
    wire.close()


@FAULTS.ends(Outcome.TRUNCATED, Outcome.RESET)
async def restarted(wire: Wire) -> None:
    """In the middle of the answer the server drops every connection, and is back fifty gaps later on its port."""
    wire.open()
    await words(wire, wire.asked)
    await wire.restart(LATE_S / 2)


# Silence.


@FAULTS.ends(Outcome.TIMEOUT_IDLE)
async def stalled(wire: Wire) -> None:
    """Two tokens, and then nothing until the client gives up. They are kept, and so is the time that was waited."""
    wire.open()
    await words(wire, 2)
    await wire.gone()


@FAULTS.ends(Outcome.TIMEOUT_FIRST_TOKEN)
async def silent(wire: Wire) -> None:
    """Headers, and nothing more until the client gives up."""
    wire.open()
    await wire.gone()


@FAULTS.ends(Outcome.TIMEOUT_FIRST_TOKEN)
async def mute(wire: Wire) -> None:
    """Not even headers, until the client gives up."""
    await wire.gone()


@FAULTS.ends(Outcome.TIMEOUT_FIRST_TOKEN)
async def kept_alive_in_vain(wire: Wire) -> None:
    """Comments and empty deltas for ever. They are signs of life, and no token."""
    wire.open()
    while True:
        await wire.pause(GAP_S)
        await wire.send(b": still here\n\n", choice(wire, {"content": ""}))


@FAULTS.ends(Outcome.OK)
async def slow_headers(wire: Wire) -> None:
    """The header block comes byte by byte; TTFB waits for its end."""
    for byte in wire.head():
        await wire.pause(GAP_S / 10)
        await wire.raw(bytes([byte]))
    await words(wire, wire.asked)
    await finish(wire)


# Bytes.


@FAULTS.ends(Outcome.OK)
async def byte_by_byte(wire: Wire) -> None:
    """Every byte of the answer is a chunk and a write of its own, characters of four bytes too."""
    wire.open()
    body = word(wire, 0) + choice(wire, {"content": _WIDE}) * (wire.asked - 1)
    for byte in body + stop(wire) + usage_alone(wire, wire.asked) + DONE:
        await wire.send(bytes([byte]))
    await wire.end()


@FAULTS.ends(Outcome.OK)
async def cut_characters(wire: Wire) -> None:
    """Reads end in the middle of a character of four bytes. The text is whole."""
    wire.open()
    for _ in range(wire.asked):
        event = choice(wire, {"content": _WIDE})
        cut = event.index("😀".encode()) + 2
        await wire.send(event[:cut])
        await wire.pause(GAP_S)
        await wire.send(event[cut:])
    await finish(wire)


@FAULTS.ends(Outcome.OK)
async def crlf(wire: Wire) -> None:
    """Lines end in CRLF, and reads end between the two."""
    wire.open()
    for part in whole_stream(wire).split(b"\n"):
        await wire.send(part + b"\r")
        await wire.pause(GAP_S / 20)
        await wire.send(b"\n")
    await wire.end()


@FAULTS.ends(Outcome.OK)
async def cr_alone(wire: Wire) -> None:
    """Lines end in CR, as the standard allows."""
    wire.open()
    await wire.send(whole_stream(wire).replace(b"\n", b"\r"))
    await wire.end()


@FAULTS.ends(Outcome.OK)
async def comments(wire: Wire) -> None:
    """A byte order mark, comments, unknown fields, ids and retry times stand among the events."""
    wire.open()
    await wire.send(b"\xef\xbb\xbf: hello\n\nid: 1\nretry: 100\nfoo: bar\n\n")
    await words(wire, wire.asked)
    await wire.send(b":\n\n: ping - 12:00\r\n\r\n")
    await finish(wire)


@FAULTS.ends(Outcome.OK)
async def pretty(wire: Wire) -> None:
    """Each event's JSON is indented, so that its data has many lines."""
    wire.open()
    for event in whole_stream(wire).removesuffix(DONE).strip().split(b"\n\n"):
        text = orjson.dumps(orjson.loads(event.removeprefix(b"data: ")), option=orjson.OPT_INDENT_2)
        await wire.send(b"".join(b"data: " + line + b"\n" for line in text.split(b"\n")) + b"\n")
    await wire.send(DONE)
    await wire.end()


@FAULTS.ends(Outcome.OK)
async def megabyte_line(wire: Wire) -> None:
    """One event of a megabyte. It is one event."""
    wire.open()
    await words(wire, wire.asked - 1)
    await wire.send(choice(wire, {"content": "x" * 2**20}))
    await finish(wire)


@FAULTS.ends(Outcome.OK)
async def unended_last_event(wire: Wire) -> None:
    """The body ends behind [DONE] without a line end."""
    wire.open()
    await wire.send(whole_stream(wire).rstrip(b"\n"))
    await wire.end()


@FAULTS.ends(Outcome.OK)
async def clumped(wire: Wire) -> None:
    """A proxy gathers the tokens and hands them on eight at a time. The reads say so: each brought several."""
    wire.open()
    for start in range(0, wire.asked, 8):
        numbers = range(start, min(start + 8, wire.asked))
        await wire.pause(len(numbers) * GAP_S)
        await wire.send(*(word(wire, number) for number in numbers))
    await finish(wire)


@FAULTS.ends(Outcome.OK)
async def held_back(wire: Wire) -> None:
    """The first half comes token by token, the second in one lump at the end. One read brought several."""
    wire.open()
    half = wire.asked - wire.asked // 2
    await words(wire, half)
    await wire.pause((wire.asked - half) * GAP_S)
    await wire.send(*(word(wire, number) for number in range(half, wire.asked)))
    await finish(wire)


@FAULTS.ends(Outcome.PROTOCOL)
async def not_json(wire: Wire) -> None:
    """One frame in the middle is no JSON, all else is in order. An answer with a hole is no success."""
    wire.open()
    await words(wire, wire.asked)
    await wire.send(b'data: {"choices": [{"delta": {"content": "w\n\n')
    await finish(wire)


@FAULTS.ends(Outcome.PROTOCOL)
async def bad_chunk_size(wire: Wire) -> None:
    """The size of a chunk is no number: this is not HTTP any more."""
    wire.open()
    await words(wire, wire.asked)
    await wire.raw(b"zz\r\nnonsense\r\n")
    wire.close()


@FAULTS.ends(Outcome.PROTOCOL)
async def not_http(wire: Wire) -> None:
    """What answers speaks another protocol."""
    await wire.raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    wire.close()


# Keep-alive.


@FAULTS.ends(Outcome.OK)
async def closed_afterwards(wire: Wire) -> None:
    """The connection is closed right after the answer, unannounced. The next request has a new one, and no failure."""
    await answer(wire)
    wire.close()


@FAULTS.ends(Outcome.OK)
async def closed_idle(wire: Wire) -> None:
    """The connection is closed a little after the answer, as an idle one. The next request has a new one."""
    await answer(wire)
    await wire.pause(5 * GAP_S)
    wire.close()


@FAULTS.ends(Outcome.OK)
async def closed_in_the_next(wire: Wire) -> None:
    """The connection is closed when the next request is half read: that is sent again on a new one, and counted."""
    await answer(wire)
    wire.close_in_the_next()


# HTTP.


@FAULTS.ends(Outcome.HTTP_ERROR)
async def too_many(wire: Wire) -> None:
    """429 with Retry-After. It is a failure, and is not asked again."""
    await wire.whole("429 Too Many Requests", b'{"error":{"message":"slow down"}}', more=b"retry-after: 1\r\n")


@FAULTS.ends(Outcome.HTTP_ERROR)
async def unavailable(wire: Wire) -> None:
    """503 with a date in Retry-After, and the connection closed. It is a failure, and is not asked again."""
    date = b"retry-after: Fri, 01 Jan 2027 00:00:00 GMT\r\n"
    await wire.whole("503 Service Unavailable", b'{"error":{"message":"queue full"}}', more=date)
    wire.close()


@FAULTS.ends(Outcome.HTTP_ERROR)
async def broken(wire: Wire) -> None:
    """500 with a traceback as plain text."""
    await wire.whole("500 Internal Server Error", b"Traceback (most recent call last):\n", kind=b"text/plain")


@FAULTS.ends(Outcome.HTTP_ERROR)
async def redirected(wire: Wire) -> None:
    """307 to another path of this server. It is not followed: the key would go where nobody sent it."""
    await wire.whole("307 Temporary Redirect", b"", more=b"location: /v2/chat/completions\r\n")


@FAULTS.ends(Outcome.PROTOCOL)
async def page(wire: Wire) -> None:
    """200 with a page for people, as of a proxy that wants a login."""
    await wire.whole("200 OK", b"<!doctype html><html><title>Sign in</title></html>", kind=b"text/html")


@FAULTS.ends(Outcome.PROTOCOL)
async def compressed(wire: Wire) -> None:
    """The event stream comes gzipped though `identity` was asked for. Its tokens cannot be stamped: no success."""
    wire.open(more=b"content-encoding: gzip\r\n")
    await wire.send(gzip.compress(whole_stream(wire), mtime=0))
    await wire.end()


@FAULTS.ends(Outcome.OK)
async def not_streamed(wire: Wire) -> None:
    """One JSON answer instead of a stream. It has tokens and an end; gaps, ITL and TPOT it has not."""
    await wire.pause(wire.asked * GAP_S)
    choice = {"index": 0, "message": {"content": "w " * wire.asked}, "finish_reason": "stop"}
    answer = {"model": wire.model, "choices": [choice], "usage": counts(wire, wire.asked)}
    await wire.whole("200 OK", orjson.dumps(answer))


@FAULTS.ends(Outcome.OK)
async def another_model(wire: Wire) -> None:
    """The answer carries the name of another model. The sample keeps it, and the verdict tells."""
    wire.model = "another-model"
    await answer(wire)
