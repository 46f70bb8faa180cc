"""Faults in the delivery of a response: broken connections, silence, unusual bytes, keep-alive and HTTP.

See `tests.faults.frames` for what an entry is.
"""

from __future__ import annotations

import gzip

import orjson

from loadbench.record.outcome import Outcome
from tests.faults.frames import (
    DONE,
    GAP_S,
    LATE_S,
    FaultTable,
    Wire,
    choice,
    counts,
    finish,
    plain_response,
    stop,
    usage_alone,
    whole_stream,
    word,
    words,
)

FAULTS = FaultTable()
# Two, three and four bytes in UTF-8, and a character that some take for the end of a line.
_WIDE = "é\u2028漢😀"
# Faults that end other requests than their own.
DISRUPTIVE = frozenset({"restarted"})


# Broken connections.


@FAULTS.ends(Outcome.TRUNCATED)
async def closed_midway(wire: Wire) -> None:
    """The connection is closed in the middle of the response. What had come is kept in the sample."""
    wire.open()
    await words(wire, wire.max_tokens)
    wire.close()


@FAULTS.ends(Outcome.RESET)
async def reset_midway(wire: Wire) -> None:
    """The connection is reset in the middle of the response. What had come is kept in the sample."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.pause(GAP_S)
    wire.reset()


@FAULTS.ends(Outcome.RESET)
async def closed_unanswered(wire: Wire) -> None:
    """Every connection is closed without a response. A kept connection that dies so is replaced, a new one not."""
    wire.close()


@FAULTS.ends(Outcome.OK)
async def no_last_chunk(wire: Wire) -> None:
    """The connection is closed after [DONE], without the chunk that ends the body. The response is complete."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.send(stop(wire), usage_alone(wire, wire.max_tokens), DONE)
    wire.close()


@FAULTS.ends(Outcome.TRUNCATED)
async def short_of_its_length(wire: Wire) -> None:
    """Content-Length announces more than comes before the close."""
    wire.open(framing=b"content-length: 1000000\r\n")
    for number in range(wire.max_tokens):
        await wire.raw(word(wire, number))
    wire.close()


@FAULTS.ends(Outcome.OK)
async def until_close(wire: Wire) -> None:
    """Neither length nor chunks: the end of the connection is that of the body. The response is complete."""
    wire.open(framing=b"connection: close\r\n")
    await wire.raw(whole_stream(wire))
    wire.close()


@FAULTS.ends(Outcome.TRUNCATED, Outcome.RESET)
async def restarted(wire: Wire) -> None:
    """In the middle of the response the server drops every connection, and is back fifty gaps later on its port."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.restart(LATE_S / 2)


# Silence.


@FAULTS.ends(Outcome.TIMEOUT_IDLE)
async def stalled(wire: Wire) -> None:
    """Two tokens, and then nothing until the client gives up. They are kept, and so is the time of waiting."""
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
async def keep_alives_only(wire: Wire) -> None:
    """Comments and empty deltas without end. They are signs of life, but no tokens."""
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
    await words(wire, wire.max_tokens)
    await finish(wire)


# Bytes.


@FAULTS.ends(Outcome.OK)
async def byte_by_byte(wire: Wire) -> None:
    """Every byte of the response is its own chunk and its own write, in characters of four bytes too."""
    wire.open()
    body = word(wire, 0) + choice(wire, {"content": _WIDE}) * (wire.max_tokens - 1)
    for byte in body + stop(wire) + usage_alone(wire, wire.max_tokens) + DONE:
        await wire.send(bytes([byte]))
    await wire.end()


@FAULTS.ends(Outcome.OK)
async def cut_characters(wire: Wire) -> None:
    """Reads end in the middle of a character of four bytes. The text is whole."""
    wire.open()
    for _ in range(wire.max_tokens):
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
    await words(wire, wire.max_tokens)
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
    await words(wire, wire.max_tokens - 1)
    await wire.send(choice(wire, {"content": "x" * 2**20}))
    await finish(wire)


@FAULTS.ends(Outcome.OK)
async def unended_last_event(wire: Wire) -> None:
    """The body ends after [DONE] without a line end."""
    wire.open()
    await wire.send(whole_stream(wire).rstrip(b"\n"))
    await wire.end()


@FAULTS.ends(Outcome.OK)
async def clumped(wire: Wire) -> None:
    """A proxy gathers the tokens and passes them on eight at a time. The reads show it: each brought several."""
    wire.open()
    for start in range(0, wire.max_tokens, 8):
        numbers = range(start, min(start + 8, wire.max_tokens))
        await wire.pause(len(numbers) * GAP_S)
        await wire.send(*(word(wire, number) for number in numbers))
    await finish(wire)


@FAULTS.ends(Outcome.OK)
async def held_back(wire: Wire) -> None:
    """The first half comes token by token, the second in one lump at the end. One read brought several."""
    wire.open()
    half = wire.max_tokens - wire.max_tokens // 2
    await words(wire, half)
    await wire.pause((wire.max_tokens - half) * GAP_S)
    await wire.send(*(word(wire, number) for number in range(half, wire.max_tokens)))
    await finish(wire)


@FAULTS.ends(Outcome.PROTOCOL)
async def not_json(wire: Wire) -> None:
    """One frame in the middle is not JSON, everything else is fine. A response with a gap is not a success."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.send(b'data: {"choices": [{"delta": {"content": "w\n\n')
    await finish(wire)


@FAULTS.ends(Outcome.OK)
async def other_frames(wire: Wire) -> None:
    """Frames that are no part of a response stand among the others. They are counted, and the response is good."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.send(b'data: {"sources": ["a", "b"]}\n\n', b"data: hello\n\n", b"meta: 1\n\n")
    await finish(wire)


@FAULTS.ends(Outcome.OK)
async def keep_alive_events(wire: Wire) -> None:
    """Proxies keep the connection open by events with data of many kinds. No token comes of them."""
    wire.open()
    for sign in (
        b"data: \n\n",
        b"event: ping\ndata: ping\n\n",
        b"data: : keep-alive\n\n",
        b'data: {"type": "ping"}\n\n',
    ):
        await wire.send(sign, b"data: {}\n\n", b"event: ping\n\n", b"\n")
        await wire.pause(GAP_S)
    await words(wire, wire.max_tokens)
    await wire.send(b"data: [PING]\n\n", b"data: null\n\n")
    await finish(wire)


@FAULTS.ends(Outcome.STREAM_ERROR)
async def bare_error(wire: Wire) -> None:
    """A gateway passes the JSON of an error on into an event stream that it has begun, without `data:`."""
    wire.open()
    await wire.send(b'{"error":{"message":"request exceeds the available context size","code":400}}')
    await wire.end()


@FAULTS.ends(Outcome.STREAM_ERROR)
async def traceback_in_stream(wire: Wire) -> None:
    """The server writes its traceback into the stream."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.send(b'Traceback (most recent call last):\n  File "serve.py", line 3\nMemoryError: no block\n')
    await wire.end()


@FAULTS.ends(Outcome.PROTOCOL)
async def no_empty_lines(wire: Wire) -> None:
    """Events are separated by one line end instead of an empty line. No client can read them, and this is said."""
    wire.open()
    await wire.send(whole_stream(wire).replace(b"\n\n", b"\n"))
    await wire.end()


@FAULTS.ends(Outcome.OK)
async def as_a_page(wire: Wire) -> None:
    """A framework sends the stream as text/html. It is read for what it is, event by event."""
    await wire.raw(wire.head().replace(b"text/event-stream", b"text/html; charset=utf-8"))
    await words(wire, wire.max_tokens)
    await finish(wire)


@FAULTS.ends(Outcome.OK)
async def not_streamed_as_a_stream(wire: Wire) -> None:
    """One JSON response with the Content-Type of an event stream. It is read as `not_streamed` is."""
    wire.open()
    choice = {"index": 0, "message": {"content": "w " * wire.max_tokens}, "finish_reason": "stop"}
    await wire.send(orjson.dumps({"choices": [choice], "usage": counts(wire, wire.max_tokens)}))
    await wire.end()


@FAULTS.ends(Outcome.PROTOCOL)
async def bad_chunk_size(wire: Wire) -> None:
    """The size of a chunk is not a number: this is not HTTP any more."""
    wire.open()
    await words(wire, wire.max_tokens)
    await wire.raw(b"zz\r\nnonsense\r\n")
    wire.close()


@FAULTS.ends(Outcome.PROTOCOL)
async def not_http(wire: Wire) -> None:
    """The server speaks another protocol."""
    await wire.raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    wire.close()


# Keep-alive.


@FAULTS.ends(Outcome.OK)
async def closed_afterwards(wire: Wire) -> None:
    """The connection is closed right after the response, unannounced. The next request gets a new one."""
    await plain_response(wire)
    wire.close()


@FAULTS.ends(Outcome.OK)
async def closed_idle(wire: Wire) -> None:
    """The connection is closed a little after the response, while idle. The next request gets a new one."""
    await plain_response(wire)
    await wire.pause(5 * GAP_S)
    wire.close()


@FAULTS.ends(Outcome.OK)
async def closed_in_the_next(wire: Wire) -> None:
    """The connection is closed when the next request is half read: it is sent again on a new one, and counted."""
    await plain_response(wire)
    wire.close_in_the_next()


# HTTP.


@FAULTS.ends(Outcome.HTTP_ERROR)
async def too_many(wire: Wire) -> None:
    """429 with Retry-After. It is a failure, and is not retried."""
    await wire.respond("429 Too Many Requests", b'{"error":{"message":"slow down"}}', more=b"retry-after: 1\r\n")


@FAULTS.ends(Outcome.HTTP_ERROR)
async def unavailable(wire: Wire) -> None:
    """503 with a date in Retry-After, and the connection closed. It is a failure, and is not retried."""
    date = b"retry-after: Fri, 01 Jan 2027 00:00:00 GMT\r\n"
    await wire.respond("503 Service Unavailable", b'{"error":{"message":"queue full"}}', more=date)
    wire.close()


@FAULTS.ends(Outcome.HTTP_ERROR)
async def broken(wire: Wire) -> None:
    """500 with a traceback as plain text."""
    await wire.respond("500 Internal Server Error", b"Traceback (most recent call last):\n", kind=b"text/plain")


@FAULTS.ends(Outcome.HTTP_ERROR)
async def field_refused(wire: Wire) -> None:
    """422 with the record of a validator, which names a field. The first request of a run would leave it out."""
    refused = b'{"type":"extra_forbidden","loc":["body","seed"],"msg":"Extra inputs are not permitted"}'
    body = b'{"object":"error","message":{"detail":[' + refused + b"]}}"
    await wire.respond("422 Unprocessable Entity", body)


@FAULTS.ends(Outcome.HTTP_ERROR)
async def redirected(wire: Wire) -> None:
    """307 to another path of this server. It is not followed, so that the API key goes nowhere else."""
    await wire.respond("307 Temporary Redirect", b"", more=b"location: /v2/chat/completions\r\n")


@FAULTS.ends(Outcome.PROTOCOL)
async def page(wire: Wire) -> None:
    """200 with an HTML page, as from a proxy that requires a login."""
    await wire.respond("200 OK", b"<!doctype html><html><title>Sign in</title></html>", kind=b"text/html")


@FAULTS.ends(Outcome.PROTOCOL)
async def compressed(wire: Wire) -> None:
    """The event stream comes gzipped though `identity` was requested. Its tokens cannot be stamped: no success."""
    wire.open(more=b"content-encoding: gzip\r\n")
    await wire.send(gzip.compress(whole_stream(wire), mtime=0))
    await wire.end()


@FAULTS.ends(Outcome.OK)
async def not_streamed(wire: Wire) -> None:
    """One JSON response instead of a stream. It has tokens and an end, but no gaps, ITL and TPOT."""
    await wire.pause(wire.max_tokens * GAP_S)
    choice = {"index": 0, "message": {"content": "w " * wire.max_tokens}, "finish_reason": "stop"}
    response = {"model": wire.model, "choices": [choice], "usage": counts(wire, wire.max_tokens)}
    await wire.respond("200 OK", orjson.dumps(response))


@FAULTS.ends(Outcome.OK)
async def another_model(wire: Wire) -> None:
    """The response carries the name of another model. The sample keeps it, and the verdict mentions it."""
    wire.model = "another-model"
    await plain_response(wire)
