"""One request in, one sample out, over real sockets, with both transports: whatever a server does is an outcome."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
import pytest
import trustme

from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.client.fast_transport import FastTransport
from loadbench.client.httpx_transport import HttpxTransport
from loadbench.client.tls import tls_context
from loadbench.core.clock import MonotonicClock
from loadbench.plan.abandonment import Patience
from loadbench.plan.load import Phase
from loadbench.plan.prompts import Prompt
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.record.request import Request
from loadbench.wire.body import BodyChanges
from loadbench.wire.openai import Api
from tests.client.server import (
    ANSWER,
    ASK,
    CLOSE,
    DONE,
    END,
    FINISH,
    GONE,
    RST,
    Server,
    chunk,
    head,
    serving,
    stream,
    token,
    usage,
    whole,
)

if TYPE_CHECKING:
    from loadbench.record.sample import Sample

MS = 1_000_000
S = 1_000_000_000
KINDS = ("httpx", "fast")
CLOCK = MonotonicClock()
both = pytest.mark.parametrize("kind", KINDS)


def transport_of(kind: str, *, tls=None):
    """A transport of the kind."""
    return HttpxTransport(CLOCK, tls=tls) if kind == "httpx" else FastTransport(tls=tls)


@dataclass
class Talk:
    """What came of some requests: their samples, and what the server saw."""

    samples: list[Sample]
    server: Server

    @property
    def sample(self) -> Sample:
        """The last."""
        return self.samples[-1]


async def ask(
    client: Client, number: int = 0, *, prompt: str = "Hello?", keep: bool = False, patience: Patience | None = None
) -> Sample:
    """Send a request that is due now."""
    now_ns = CLOCK.now_ns()
    request = Request(
        number=number, phase=Phase.MEASURED, due_ns=now_ns, max_tokens=5, keep_text=keep, patience=patience
    )
    return await client.send(request, client.body_of(prompt, 5))


def talk(
    kind: str,
    *scripts,
    times: int = 1,
    pause_s: float = 0.0,
    timeouts: Timeouts | None = None,
    tls=None,
    server_tls=None,
    scheme: str = "http",
    prompt_bytes: int = 0,
    patience: Patience | None = None,
    **endpoint,
) -> Talk:
    """Ask a server of these scripts, one request after another, over one transport."""

    async def main() -> Talk:
        async with serving(*scripts, tls=server_tls) as server:
            transport = transport_of(kind, tls=tls)
            settings = Endpoint(base_url=server.url(scheme), model="m", **endpoint)
            client = Client(settings, transport, clock=CLOCK, timeouts=timeouts or Timeouts())
            samples = []
            try:
                for number in range(times):
                    prompt = "Hello?" + "x" * prompt_bytes
                    samples.append(await ask(client, number, prompt=prompt, patience=patience))
                    await asyncio.sleep(pause_s)
            finally:
                await transport.aclose()
            return Talk(samples, server)

    return asyncio.run(main())


def ended(kind: str, *script, **options) -> tuple[Outcome, str]:
    """How a request to this script ends."""
    sample = talk(kind, list(script), **options).sample
    return sample.outcome, sample.detail


# A good answer.


@both
def test_marks_come_in_order(kind):
    """due ≤ connected ≤ sent ≤ headers ≤ first byte ≤ first token ≤ last token ≤ end, and each is there."""
    role = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
    steps = [ASK, 0.02, head(), 0.02, chunk(role), 0.02, chunk(token("a")), 0.02, chunk(token("b") + FINISH), 0.02]
    sample = talk(kind, [*steps, chunk(usage(2) + DONE) + END, GONE]).sample
    marks = [
        sample.due_ns,
        sample.connected_ns,
        sample.sent_ns,
        sample.headers_ns,
        sample.first_byte_ns,
        sample.first_token_ns,
        sample.last_token_ns,
        sample.end_ns,
    ]
    assert None not in marks
    assert marks == sorted(marks)
    assert len(set(marks[2:])) == 6, "each of these came with a read of its own"
    assert sample.outcome is Outcome.OK
    assert list(sample.event_ns) == [sample.first_token_ns, sample.last_token_ns]
    assert (sample.output_tokens, sample.token_source, sample.input_tokens) == (2, TokenSource.USAGE, 7)


@pytest.mark.parametrize("keep", [True, False])
def test_an_answer_is_kept_only_where_it_is_asked_for(keep):
    """The visible text, and nothing of the reasoning; the same marks and tokens either way."""
    thought = b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n'
    said = chunk(thought + token("Be") + token("cause."))
    script = [ASK, head() + said + chunk(FINISH + usage(3) + DONE) + END, GONE]

    async def main():
        async with serving(script) as server:
            transport = FastTransport()
            settings = Endpoint(base_url=server.url("http"), model="m")
            client = Client(settings, transport, clock=CLOCK, timeouts=Timeouts())
            sample = await ask(client, keep=keep)
            await transport.aclose()
            return sample

    sample = asyncio.run(main())
    assert sample.text == ("Because." if keep else None)
    assert (sample.outcome, sample.output_tokens, len(sample.event_ns)) == (Outcome.OK, 3, 3)


@both
def test_usage_that_comes_late_is_no_part_of_the_answer(kind):
    """A3: a usage event and [DONE] after the last token move the end, and not the last token."""
    late = [ASK, head() + chunk(token("a") + token("b") + FINISH), 0.1, chunk(usage(2) + DONE) + END, GONE]
    sample = talk(kind, late).sample
    assert sample.end_ns - sample.last_token_ns > 10 * (sample.last_token_ns - sample.first_token_ns)
    assert sample.outcome is Outcome.OK


@both
def test_headers_are_not_the_end(kind):
    """A10: a head that comes long before the body ends nothing and starts no token."""
    sample = talk(kind, [ASK, head(), 0.4, *[chunk(token()) + chunk(FINISH + DONE) + END], GONE]).sample
    assert sample.headers_ns < sample.first_byte_ns <= sample.first_token_ns
    assert sample.first_token_ns - sample.headers_ns > 50 * MS


@both
def test_request_says_what_is_asked_and_no_more(kind):
    """Method, path, JSON body; no compression, since that would hold tokens back; nothing of the user's is lost."""
    found = talk(kind, [ASK, ANSWER, GONE], headers=(("authorization", "Bearer k"), ("x-team", "blue")), seed=3)
    (request,) = found.server.requests
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == f"127.0.0.1:{found.server.port}"
    assert (request.headers["authorization"], request.headers["x-team"]) == ("Bearer k", "blue")
    assert "cookie" not in request.headers
    body = orjson.loads(request.body)
    assert body["messages"] == [{"role": "user", "content": "Hello?"}]
    assert (body["model"], body["max_tokens"], body["seed"], body["stream"]) == ("m", 5, 3, True)
    assert body["stream_options"] == {"include_usage": True}


@both
def test_completions_go_to_their_own_route(kind):
    """The other API has its path, and the prompt as it is."""
    text = b'data: {"choices":[{"text":"x","finish_reason":"stop"}]}\n\n'
    found = talk(kind, [ASK, head() + chunk(text + DONE) + END, GONE], api=Api.COMPLETIONS)
    assert found.server.requests[0].line == "POST /v1/completions HTTP/1.1"
    assert orjson.loads(found.server.requests[0].body)["prompt"] == "Hello?"
    assert found.sample.outcome is Outcome.OK


@both
def test_ollama_speaks_in_lines(kind):
    """Its chat stands beside /v1, in lines of JSON; each is stamped as it comes, the last has the counts."""
    line = b'{"model":"m","message":{"role":"assistant","content":"x"},"done":false}\n'
    counts = b'"prompt_eval_count":9,"eval_count":2'
    last = b'{"model":"m","message":{"content":""},"done":true,"done_reason":"stop",' + counts + b"}\n"
    lines = head(headers=b"content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n")
    found = talk(kind, [ASK, lines, 0.1, chunk(line), 0.1, chunk(line + last) + END, GONE], api=Api.OLLAMA)
    assert found.server.requests[0].line == "POST /api/chat HTTP/1.1"
    sample = found.sample
    assert (sample.outcome, sample.input_tokens, sample.output_tokens) == (Outcome.OK, 9, 2)
    assert sample.event_ns[1] - sample.event_ns[0] > 10_000_000
    assert sample.first_token_ns - sample.sent_ns > 10_000_000


@both
@pytest.mark.parametrize(
    ("content_type", "noted"),
    [
        (b"content-type: text/html; charset=utf-8\r\n", "Content-Type text/html; charset=utf-8 for a stream"),
        (b"content-type: application/json\r\n", "Content-Type application/json for a stream"),
        (b"content-type: text/plain\r\n", "Content-Type text/plain for a stream"),
        (b"content-type: application/octet-stream\r\n", "Content-Type application/octet-stream for a stream"),
        (b"content-type: application/x-ndjson\r\n", "Content-Type application/x-ndjson for a stream"),
        (b"", "no Content-Type for a stream"),
        (b"content-type: text/event-stream;charset=utf-8\r\n", None),
    ],
)
def test_stream_is_measured_whatever_its_content_type(kind, content_type, noted):
    """The first bytes show what it is, in however many reads they come; each event has its own stamp."""
    headers = head(headers=content_type + b"transfer-encoding: chunked\r\n")
    begin = [chunk(b"\xef\xbb"), 0.02, chunk(b"\xbf\r\n"), 0.02, chunk(b"da"), 0.02]
    first = token("a")[2:]
    steps = [*begin, chunk(first), 0.1, chunk(token("b")), 0.1, chunk(FINISH + usage(2) + DONE) + END]
    sample = talk(kind, [ASK, headers, *steps, GONE]).sample
    assert (sample.outcome, sample.output_tokens, sample.content_type) == (Outcome.OK, 2, noted)
    # The stamp is another however late the read is; how much later it is says how busy the machine was.
    assert sample.first_byte_ns < sample.first_token_ns == sample.event_ns[0] < sample.event_ns[1]


@both
@pytest.mark.parametrize("content_type", [b"text/html", b"text/event-stream", b"application/json"])
def test_ollamas_lines_are_measured_whatever_their_content_type(kind, content_type):
    """They begin with an object."""
    line = b'{"model":"m","message":{"role":"assistant","content":"x"},"done":false}\n'
    last = b'{"model":"m","message":{"content":""},"done":true,"done_reason":"stop","eval_count":2}\n'
    headers = head(headers=b"content-type: %b\r\ntransfer-encoding: chunked\r\n" % content_type)
    steps = [headers, chunk(line), 0.1, chunk(line + last) + END]
    sample = talk(kind, [ASK, *steps, GONE], api=Api.OLLAMA).sample
    assert (sample.outcome, sample.output_tokens) == (Outcome.OK, 2)
    assert sample.content_type == f"Content-Type {content_type.decode()} for a stream"
    assert sample.event_ns[1] > sample.event_ns[0]


@both
def test_whole_response_as_a_stream_is_noted(kind):
    """JSON with the Content-Type of a stream is read, and the type noted; with its own there is nothing to note."""
    body = b'{"choices":[{"message":{"content":"a b"},"finish_reason":"stop"}],"usage":{"completion_tokens":2}}'
    told = "Content-Type text/event-stream for a response that was not streamed"
    for content_type, noted in (("text/event-stream", told), ("application/json", None)):
        sample = talk(kind, [ASK, whole("200 OK", body, kind=content_type), GONE]).sample
        assert (sample.outcome, sample.output_tokens, sample.content_type) == (Outcome.OK, 2, noted)
        assert len(sample.event_ns) == 1


@both
def test_words_that_came_before_it_broke_are_kept(kind):
    """Whatever the server said outside of any event is quoted with what ended the request."""
    patience = Timeouts(connect_ns=10 * S, first_token_ns=S // 5, idle_ns=S, total_ns=10 * S)
    said = [ASK, head() + chunk(b"please hold the line\n\n"), GONE]
    outcome, detail = ended(kind, *said, timeouts=patience)
    assert outcome is Outcome.TIMEOUT_FIRST_TOKEN
    assert detail == "no token within 200ms; bytes outside of any event: 'please hold the line\\n'"
    error = [ASK, head() + chunk(b"upstream error: no memory"), GONE]
    assert ended(kind, *error, timeouts=patience) == (Outcome.STREAM_ERROR, "upstream error: no memory")
    plain = whole("200 OK", b"please hold", kind="text/plain").replace(b"length: 11", b"length: 99")
    outcome, detail = ended(kind, ASK, plain, GONE, timeouts=patience)
    assert detail == "no token within 200ms; the body was 'please hold'"


@both
def test_keep_alives_after_done_do_not_hold_the_request(kind):
    """The end of the body is waited for a little from [DONE] on, whatever comes after it."""
    steps = [step for _ in range(40) for step in (0.01, chunk(b": ping\n\n"))]
    sample = talk(kind, [ASK, head(), chunk(token() + FINISH + DONE), *steps, END, GONE]).sample
    assert sample.outcome is Outcome.OK
    assert sample.keep_alives < 20


@both
def test_answer_in_single_bytes_is_heard(kind):
    """D11: a server that writes byte for byte is slow, and nothing else."""
    pieces: list = [ANSWER[at : at + 1] for at in range(len(ANSWER))]
    spaced = [step for piece in pieces for step in (piece, 0)]
    sample = talk(kind, [ASK, *spaced, GONE]).sample
    assert (sample.outcome, sample.output_tokens, len(sample.event_ns)) == (Outcome.OK, 3, 3)


@both
def test_events_of_one_read_share_its_stamp(kind):
    """C9, C12: what came together is stamped together, and such reads are counted."""
    sample = talk(kind, [ASK, head(), 0.1, chunk(token("a") + token("b")), 0.1, chunk(token("c") + FINISH) + END, GONE])
    sample = sample.sample
    first, second, third = sample.event_ns
    assert first == second < third
    assert (sample.reads, sample.merged_reads) == (2, 1)


@both
@pytest.mark.parametrize("size", [200_000, 2_000_000])
def test_large_event_is_heard(kind, size):
    """C2: an event of any length is one event."""
    sample = talk(kind, [ASK, stream([token("x" * size), token("y")]), GONE]).sample
    assert (sample.outcome, len(sample.event_ns)) == (Outcome.OK, 2)


@both
def test_body_until_close_is_heard(kind):
    """HTTP/1.0 ways: no length, no chunks, the close is the end."""
    old = head(headers=b"content-type: text/event-stream\r\n").replace(b"HTTP/1.1", b"HTTP/1.0")
    found = talk(kind, [ASK, old + token() + FINISH + DONE, CLOSE], times=2)
    assert [sample.outcome for sample in found.samples] == [Outcome.OK] * 2
    assert [sample.reused for sample in found.samples] == [False, False]


@both
def test_json_answer_instead_of_a_stream_is_an_answer(kind):
    """A server that cannot stream is measured by its one event."""
    body = (
        b'{"choices":[{"message":{"content":"a b c"},"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":7,"completion_tokens":3},"model":"m"}'
    )
    sample = talk(kind, [ASK, whole("200 OK", body), GONE]).sample
    assert (sample.outcome, sample.output_tokens, len(sample.event_ns)) == (Outcome.OK, 3, 1)
    assert sample.first_token_ns == sample.last_token_ns == sample.end_ns


@both
def test_done_without_close_is_the_end(kind):
    """A stream that says [DONE] and is never ended is complete there; its connection is of no more use."""
    hung = [ASK, head() + chunk(token("a") + FINISH + DONE), GONE]
    found = talk(kind, hung, [ASK, ANSWER, GONE], times=2)
    first, second = found.samples
    assert (first.outcome, second.outcome) == (Outcome.OK, Outcome.OK)
    assert first.end_ns == first.last_token_ns
    assert second.reused is False
    assert found.server.gone == 1


# Connections.


@both
def test_kept_connection_is_used_again(kind):
    """C4: the first request pays for a connection, the others do not."""
    found = talk(kind, [ASK, ANSWER] * 3 + [GONE], times=3)
    assert found.server.connections == 1
    assert [sample.reused for sample in found.samples] == [False, True, True]
    first, *others = found.samples
    assert first.connect_ns > 0
    assert [sample.connect_ns for sample in others] == [None, None]
    assert [sample.reconnects for sample in found.samples] == [0, 0, 0]


@both
def test_closed_idle_connection_is_no_failure(kind):
    """C5: a server that closes what it does not need is met with a new connection."""
    found = talk(kind, [ASK, ANSWER, CLOSE], times=3, pause_s=0.05)
    assert [sample.outcome for sample in found.samples] == [Outcome.OK] * 3
    assert found.server.connections == len(found.server.requests) == 3


@both
@pytest.mark.parametrize("end", [CLOSE, RST])
def test_connection_that_dies_under_the_request_is_replaced_once_and_counted(kind, end):
    """C5: a kept connection that breaks before any answer was closing all along: it is replaced, once."""
    found = talk(kind, [ASK, ANSWER, ASK, end], [ASK, ANSWER, GONE], times=2)
    assert [sample.outcome for sample in found.samples] == [Outcome.OK] * 2
    assert [sample.reconnects for sample in found.samples] == [0, 1]
    assert found.sample.reused is False
    assert found.sample.connect_ns > 0
    assert found.server.connections == 2
    assert found.sample.connected_ns <= found.sample.sent_ns <= found.sample.first_byte_ns


@both
def test_second_connection_that_dies_is_a_failure(kind):
    """One replacement, not a retry: what breaks again is the server's failure."""
    found = talk(kind, [ASK, ANSWER, ASK, CLOSE], [ASK, CLOSE], times=2)
    assert found.sample.outcome is Outcome.RESET
    assert found.sample.reconnects == 1
    assert (found.server.connections, len(found.server.requests)) == (2, 3)


@both
def test_new_connection_that_dies_is_a_failure(kind):
    """Where the idle one was known to be closed, the request is the first on a new one, and is not sent twice."""
    found = talk(kind, [ASK, ANSWER, CLOSE], [ASK, CLOSE], times=2, pause_s=0.05)
    assert (found.sample.outcome, found.sample.reconnects) == (Outcome.RESET, 0)
    assert (found.server.connections, len(found.server.requests)) == (2, 2)


@both
def test_what_breaks_after_a_replacement_is_told_as_it_is(kind):
    """The second connection's fault is not taken for the first one's."""
    found = talk(kind, [ASK, ANSWER, ASK, RST], [ASK, b"* OK IMAP4 ready\r\n\r\n", CLOSE], times=2)
    assert found.sample.outcome is Outcome.PROTOCOL
    assert "reset" not in found.sample.detail
    assert found.sample.reconnects == 1


@both
def test_all_kept_connections_dead_cost_one_replacement_each(kind):
    """A server that drops all its idle connections under the next requests makes each of those reconnect once."""

    async def main() -> tuple[list[Sample], Server]:
        dies = [ASK, 0.05, ANSWER, ASK, RST]
        async with serving(*[dies] * 5, [ASK, ANSWER, GONE]) as server:
            transport = transport_of(kind)
            client = Client(Endpoint(base_url=server.url(), model="m"), transport, clock=CLOCK, timeouts=Timeouts())
            try:
                await asyncio.gather(*(ask(client, n) for n in range(5)))
                return await asyncio.gather(*(ask(client, n) for n in range(5))), server
            finally:
                await transport.aclose()

    samples, server = asyncio.run(main())
    assert [sample.outcome for sample in samples] == [Outcome.OK] * 5
    assert [sample.reconnects for sample in samples] == [1] * 5
    assert server.connections == 10


@both
def test_one_of_many_dead_connections_is_replaced_by_a_new_one(kind):
    """The replacement is a fresh connection, not the next of the dead."""

    async def main() -> Sample:
        async with serving(*[[ASK, 0.05, ANSWER, ASK, RST]] * 4, [ASK, ANSWER, GONE]) as server:
            transport = transport_of(kind)
            client = Client(Endpoint(base_url=server.url(), model="m"), transport, clock=CLOCK, timeouts=Timeouts())
            try:
                await asyncio.gather(*(ask(client, n) for n in range(4)))
                return await ask(client)
            finally:
                await transport.aclose()

    sample = asyncio.run(main())
    assert (sample.outcome, sample.reconnects, sample.reused) == (Outcome.OK, 1, False)


@both
def test_nothing_limits_how_many_are_in_flight(kind):
    """C3: so many requests are so many connections, all at once: the server answers none before it has them all."""
    many = 120

    async def main() -> tuple[list[Sample], Server]:
        async with serving([ASK, lambda server: len(server.requests) == many, ANSWER, GONE]) as server:
            transport = transport_of(kind)
            client = Client(Endpoint(base_url=server.url(), model="m"), transport, clock=CLOCK, timeouts=Timeouts())
            try:
                return await asyncio.gather(*(ask(client, n) for n in range(many))), server
            finally:
                await transport.aclose()

    samples, server = asyncio.run(main())
    assert {sample.outcome for sample in samples} == {Outcome.OK}
    assert server.connections == many
    assert max(sample.sent_ns for sample in samples) < min(sample.headers_ns for sample in samples)


@both
def test_cookies_are_not_kept(kind):
    """What a server sets with one answer is not said to it with the next: each request is the same."""
    cookie = whole("200 OK", b'{"choices":[{"message":{"content":"a"}}]}', more=b"set-cookie: sticky=1; Path=/\r\n")
    found = talk(kind, [ASK, cookie, ASK, cookie, GONE], times=2)
    assert len(found.server.requests) == 2
    assert all("cookie" not in request.headers for request in found.server.requests)
    assert found.server.requests[0] == found.server.requests[1]


@both
def test_headers_are_counted(kind):
    """Up to 1,000 are read, whichever transport it is."""

    def answer(headers: int) -> bytes:
        start, _, rest = ANSWER.partition(b"\r\n")
        own = rest.partition(b"\r\n\r\n")[0].count(b"\r\n") + 1
        return start + b"\r\n" + b"".join(b"a%d: b\r\n" % number for number in range(headers - own)) + rest

    assert ended(kind, ASK, answer(1000), GONE) == (Outcome.OK, "")
    outcome, detail = ended(kind, ASK, answer(1001), GONE)
    assert (outcome, "more than 1,000 headers" in detail) == (Outcome.PROTOCOL, True)


@both
def test_proxies_of_the_environment_are_ignored(kind, monkeypatch):
    """What is measured is the server, whatever HTTP_PROXY says."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert ended(kind, ASK, ANSWER, GONE) == (Outcome.OK, "")


# What breaks.


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def fire_at(kind: str, base_url: str, *, tls=None, timeouts: Timeouts | None = None) -> Sample:
    """One request to an address."""

    async def main() -> Sample:
        transport = transport_of(kind, tls=tls)
        endpoint = Endpoint(base_url=base_url, model="m")
        try:
            return await ask(Client(endpoint, transport, clock=CLOCK, timeouts=timeouts or Timeouts()))
        finally:
            await transport.aclose()

    return asyncio.run(main())


@both
def test_refused_connection_is_refused(kind):
    """Nobody there: no mark but the beginning and the end, and words that help."""
    sample = fire_at(kind, f"http://127.0.0.1:{closed_port()}/v1")
    assert sample.outcome is Outcome.REFUSED
    assert sample.detail.startswith("connection refused")
    assert (sample.connected_ns, sample.sent_ns, sample.status, sample.reused) == (None, None, None, None)
    assert sample.end_ns >= sample.due_ns


@both
def test_unknown_host_is_refused(kind, monkeypatch):
    """A name that no name service knows."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    sample = fire_at(kind, "http://no-such-host.invalid/v1")
    assert sample.outcome is Outcome.REFUSED
    assert sample.detail.startswith("no such host")


@both
@pytest.mark.skipif(sys.platform != "linux", reason="other systems queue connections in other ways")
def test_address_that_swallows_connections_is_given_up(kind):
    """Nobody refuses, nobody answers: the time limit for connecting ends the wait."""
    with socket.socket() as hole, contextlib.ExitStack() as stack:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(hole.getsockname())
        sample = fire_at(
            kind, f"http://127.0.0.1:{hole.getsockname()[1]}/v1", timeouts=Timeouts(connect_ns=300 * MS, total_ns=9 * S)
        )
    assert (sample.outcome, sample.sent_ns) == (Outcome.TIMEOUT_CONNECT, None)
    assert "no connection within 300ms" in sample.detail


@both
@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ([ASK, CLOSE], Outcome.RESET),
        ([ASK, RST], Outcome.RESET),
        ([RST], Outcome.RESET),
        ([ASK, b"HTTP/1.1 200 OK\r\ncontent-", CLOSE], Outcome.RESET),
        ([ASK, head() + chunk(token()), 0.05, RST], Outcome.RESET),
        ([ASK, head() + chunk(token()), CLOSE], Outcome.TRUNCATED),
        ([ASK, head() + chunk(token() + DONE), CLOSE], Outcome.TRUNCATED),
        ([ASK, head() + chunk(token()) + b"ff\r\nda", CLOSE], Outcome.TRUNCATED),
        ([ASK, head(headers=b"content-length: 500\r\n") + token(), CLOSE], Outcome.TRUNCATED),
        ([ASK, head() + chunk(token()) + END, GONE], Outcome.TRUNCATED),
        ([ASK, head() + chunk(FINISH + DONE) + END, GONE], Outcome.EMPTY),
        ([ASK, b"SSH-2.0-OpenSSH_9.2\r\n\r\n", CLOSE], Outcome.PROTOCOL),
        ([ASK, b"<html>hello</html>\r\n\r\n", CLOSE], Outcome.PROTOCOL),
        ([ASK, head() + b"zz\r\n", GONE], Outcome.PROTOCOL),
        ([ASK, head() + chunk(b"data: {broken\n\n" + DONE) + END, GONE], Outcome.PROTOCOL),
        ([ASK, head() + chunk(b'data: {"error":{"message":"slot lost"}}\n\n') + END, GONE], Outcome.STREAM_ERROR),
        ([ASK, head() + chunk(token() + b"event: error\ndata: no\n\n" + DONE) + END, GONE], Outcome.STREAM_ERROR),
        ([ASK, whole("200 OK", b'{"error":"busy"}'), GONE], Outcome.STREAM_ERROR),
        ([ASK, whole("200 OK", b"<html><title>Hi</title></html>", kind="text/html"), GONE], Outcome.PROTOCOL),
        ([ASK, whole("200 OK", b"", kind="text/html"), GONE], Outcome.PROTOCOL),
        ([ASK, whole("200 OK", b'{"models":[]}'), GONE], Outcome.PROTOCOL),
        ([ASK, whole("204 No Content", b"").replace(b"content-length: 0\r\n", b""), GONE], Outcome.HTTP_ERROR),
        ([ASK, whole("429 Too Many", b'{"error":{"message":"slow down"}}'), GONE], Outcome.HTTP_ERROR),
        ([ASK, whole("503 Busy", b"no"), GONE], Outcome.HTTP_ERROR),
        ([ASK, whole("500 Oh", b"no").replace(b"length: 2", b"length: 9"), CLOSE], Outcome.HTTP_ERROR),
        ([ASK, whole("302 Found", b"", more=b"location: /elsewhere\r\n"), GONE], Outcome.HTTP_ERROR),
        ([ASK, whole("308 Moved", b"", more=b"location: /elsewhere\r\n"), GONE], Outcome.HTTP_ERROR),
    ],
)
def test_each_way_to_break_is_its_own_outcome_and_is_asked_once(kind, script, outcome):
    """E1, E2, E3, D14, C6: no failure is taken for an answer, none for another, and nothing is asked twice."""
    found = talk(kind, script)
    assert found.sample.outcome is outcome
    assert found.sample.detail
    assert len(found.server.requests) == (ASK in script)
    assert found.server.connections == 1
    assert found.sample.reconnects == 0


@both
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (whole("429 Too Many", b'{"error":{"message":"slow down"}}'), "HTTP 429: slow down"),
        (whole("503 Busy", b"<html><title>503 Busy</title></html>", kind="text/html"), "HTTP 503: an HTML page"),
        (whole("200 OK", b"<html><title>Hi</title></html>", kind="text/html"), "an HTML page (Hi) instead of"),
        (head() + chunk(b'data: {"error":{"message":"slot lost"}}\n\n') + END, "slot lost"),
        (whole("307 Moved", b"", more=b"location: /x\r\n"), "HTTP 307: redirects to http://"),
        (whole("308 Moved", b"gone", more=b"location: https://h/v1/x/\r\n"), "HTTP 308: redirects to https://h/v1/x/"),
        (whole("429 Slow", b'{"error":"slow"}', more=b"retry-after: 20\r\n"), "HTTP 429: slow (Retry-After: 20)"),
    ],
)
def test_failure_says_what_the_server_said(kind, answer, words):
    """The reason is in the sample, in one line."""
    assert words in ended(kind, ASK, answer, GONE)[1]


@both
def test_partial_answer_is_kept(kind):
    """Tokens that came before a reset are in the sample, with their stamps; nothing comes after the end."""
    sample = talk(kind, [ASK, head(), 0.02, chunk(token("a")), 0.02, chunk(token("b")), 0.02, RST]).sample
    assert sample.outcome is Outcome.RESET
    assert len(sample.event_ns) == 2
    assert sample.sent_ns < sample.first_token_ns < sample.last_token_ns < sample.end_ns


@both
@pytest.mark.parametrize("end", [CLOSE, RST])
def test_answer_that_said_it_was_finished_is_whole(kind, end):
    """A connection that breaks after finish_reason and [DONE] takes nothing from the answer."""
    assert ended(kind, ASK, head() + chunk(token() + FINISH + DONE), 0.05, end) == (Outcome.OK, "")


# TLS.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@both
def test_trusted_server_is_spoken_to_in_tls(kind, authority, server_tls, tmp_path):
    """With its CA given, the answer is the same, and the connection's set-up contains the handshake."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    found = talk(
        kind,
        [ASK, ANSWER, ASK, ANSWER, GONE],
        times=2,
        tls=tls_context(cacert=tmp_path / "ca.pem"),
        server_tls=server_tls,
        scheme="https",
    )
    assert [sample.outcome for sample in found.samples] == [Outcome.OK] * 2
    assert [sample.reused for sample in found.samples] == [False, True]
    assert found.samples[0].connect_ns > 0


@both
def test_untrusted_certificate_is_refused_unless_told_otherwise(kind, server_tls):
    """A certificate of an unknown CA ends it, with what to do; --insecure goes on."""
    script = [ASK, ANSWER, GONE]
    sample = talk(kind, script, tls=tls_context(), server_tls=server_tls, scheme="https").sample
    assert sample.outcome is Outcome.REFUSED
    assert "not trusted" in sample.detail
    assert sample.sent_ns is None
    loosely = talk(kind, script, tls=tls_context(insecure=True), server_tls=server_tls, scheme="https")
    assert loosely.sample.outcome is Outcome.OK


@both
def test_without_a_tls_context_nothing_is_trusted_blindly(kind, server_tls):
    """A transport that was given no TLS context verifies by the system's trust, and never speaks in the clear."""
    sample = talk(kind, [ASK, ANSWER, GONE], tls=None, server_tls=server_tls, scheme="https").sample
    assert sample.outcome is Outcome.REFUSED
    assert "not trusted" in sample.detail


@both
def test_certificate_of_another_name_is_refused(kind, authority, tmp_path):
    """Trust in the CA is not trust in any name."""
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.example").configure_cert(other)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = tls_context(cacert=tmp_path / "ca.pem")
    sample = talk(kind, [ASK, ANSWER], tls=tls, server_tls=other, scheme="https").sample
    assert sample.outcome is Outcome.REFUSED
    assert "not trusted" in sample.detail


@both
@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", b"", b"\r\n"])
def test_tls_to_a_plain_port_is_refused(kind, answer):
    """A handshake that ends in something else, or in a close, is told as what it is."""
    sample = talk(kind, [answer, 0.05, CLOSE], tls=tls_context(), scheme="https").sample
    assert sample.outcome is Outcome.REFUSED
    assert "TLS" in sample.detail


@both
def test_plain_to_a_tls_port_is_no_answer(kind, server_tls):
    """An alert instead of a status line, or a close: never an answer, and not the client's crash."""
    sample = talk(kind, [ASK], server_tls=server_tls).sample
    assert sample.outcome in {Outcome.PROTOCOL, Outcome.RESET}
    assert sample.detail


# Deadlines and cuts. A deadline leaves a busy machine time for what must come before it, or for the next request.


@both
@pytest.mark.parametrize(
    ("script", "limits", "outcome"),
    [
        ([ASK, GONE], {"first_token_ns": 400 * MS}, Outcome.TIMEOUT_FIRST_TOKEN),
        ([ASK, head(), GONE], {"first_token_ns": 400 * MS}, Outcome.TIMEOUT_FIRST_TOKEN),
        ([ASK, head() + chunk(b": ping\n\n"), GONE], {"first_token_ns": 400 * MS}, Outcome.TIMEOUT_FIRST_TOKEN),
        ([ASK, head() + chunk(token()), GONE], {"idle_ns": 400 * MS}, Outcome.TIMEOUT_IDLE),
        ([ASK, head() + chunk(token()), GONE], {"total_ns": 400 * MS}, Outcome.TIMEOUT_TOTAL),
    ],
)
def test_silent_server_is_given_up_and_its_connection_closed(kind, script, limits, outcome):
    """C11: each deadline ends the request as its own outcome, drops the connection, and the next request is served."""
    found = talk(kind, script, [ASK, ANSWER, GONE], times=2, timeouts=Timeouts(**limits), pause_s=0.02)
    assert [sample.outcome for sample in found.samples] == [outcome, Outcome.OK]
    assert found.server.gone >= 1
    assert [sample.reused for sample in found.samples] == [False, False]


@both
@pytest.mark.parametrize("patience", [Patience(600 * MS), Patience(600 * MS, first_token=True)])
@pytest.mark.parametrize(
    ("script", "tokens"),
    [
        ([ASK, GONE], 0),
        ([ASK, head(), GONE], 0),
        ([ASK, head() + chunk(b": ping\n\n"), 0.05, chunk(b": ping\n\n"), GONE], 0),
        ([ASK, head() + chunk(token() * 2), GONE], 2),
        ([ASK, head() + chunk(token()), 0.03, chunk(token()), 0.03, chunk(token()), GONE], 3),
    ],
)
def test_a_user_who_gives_up_closes_the_connection(kind, script, tokens, patience):
    """The server sees it close; the request keeps what had arrived, and the next one has a connection of its own."""

    async def main() -> tuple[list[Sample], Server]:
        async with serving(script, [ASK, ANSWER, ASK, ANSWER, GONE]) as server:
            transport = transport_of(kind)
            timeouts = Timeouts(idle_ns=S)
            client = Client(Endpoint(base_url=server.url(), model="m"), transport, clock=CLOCK, timeouts=timeouts)
            samples = [await ask(client, patience=patience)]
            async with asyncio.timeout(20):
                while not server.gone:
                    await asyncio.sleep(0.005)
            samples += [await ask(client, number, patience=Patience(10 * S)) for number in (1, 2)]
            await transport.aclose()
            return samples, server

    samples, server = asyncio.run(main())
    left = samples[0]
    if patience.first_token and tokens:
        assert left.outcome is Outcome.TIMEOUT_IDLE  # it waits on, and the server says nothing more
    else:
        assert left.outcome is Outcome.GAVE_UP
        assert left.detail == f"no {'token' if patience.first_token else 'complete response'} within 600ms"
        assert 600 * MS <= left.end_ns - left.due_ns < 600 * MS + S
        assert left.sent_ns is not None
    assert len(left.event_ns) == tokens
    assert [sample.outcome for sample in samples[1:]] == [Outcome.OK, Outcome.OK]
    assert [sample.reused for sample in samples] == [False, False, True]
    assert [sample.connect_ns is None for sample in samples] == [False, False, True]
    assert samples[1].connect_ns <= samples[1].sent_ns - samples[1].due_ns  # no part of its TTFT, which is from sent
    assert server.connections == 2


@both
@pytest.mark.parametrize("api", list(Api))
def test_every_api_can_be_given_up(kind, api):
    """Whatever is streamed, and also where nothing is: a whole response that does not come."""
    frames = {
        Api.CHAT: head() + chunk(token()),
        Api.COMPLETIONS: head() + chunk(b'data: {"choices":[{"text":"x"}]}\n\n'),
        Api.RESPONSES: head() + chunk(b'data: {"type":"response.output_text.delta","delta":"x"}\n\n'),
        Api.OLLAMA: head(headers=b"content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n")
        + chunk(b'{"message":{"role":"assistant","content":"x"},"done":false}\n'),
    }
    for script in ([ASK, GONE], [ASK, frames[api], GONE]):
        sample = talk(kind, script, api=api, patience=Patience(400 * MS)).sample
        assert (sample.outcome, len(sample.event_ns)) == (Outcome.GAVE_UP, len(script) - 2)
    broken_off = [ASK, frames[api] + chunk(frames[api].partition(b"\r\n\r\n")[2].partition(b"\r\n")[2][:20]), GONE]
    sample = talk(kind, broken_off, api=api, patience=Patience(400 * MS)).sample
    assert (sample.outcome, len(sample.event_ns)) == (Outcome.GAVE_UP, 1), sample.detail
    whole_body = [ASK, head(headers=b"content-type: application/json\r\ncontent-length: 99\r\n") + b"{", GONE]
    assert talk(kind, whole_body, api=api, patience=Patience(400 * MS)).sample.outcome is Outcome.GAVE_UP


@both
@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ([ASK, 0.02, ANSWER], Outcome.OK),
        ([ASK, head() + chunk(token() + FINISH), 0.8, chunk(usage(1) + DONE), END], Outcome.OK),
        ([ASK, head() + chunk(token() + FINISH), 0.8, END], Outcome.OK),
        ([ASK, head() + chunk(token() + FINISH), 0.8, CLOSE], Outcome.OK),
        ([ASK, head() + chunk(token() + FINISH + DONE), 0.8, END], Outcome.OK),
        ([ASK, whole("503 Service Unavailable", b"{}")], Outcome.HTTP_ERROR),
        ([ASK, head() + chunk(b'data: {"error":{"message":"no"}}\n\n'), 0.8, END], Outcome.STREAM_ERROR),
        ([ASK, RST], Outcome.RESET),
        ([ASK, head("500 Internal Server Error") + chunk(b"{"), GONE], Outcome.HTTP_ERROR),
    ],
)
def test_what_came_before_patience_ended_is_what_it_is(kind, script, outcome):
    """A user who has the whole response, or an error, does not give up."""
    sample = talk(kind, script, patience=Patience(600 * MS)).sample
    assert sample.outcome is outcome, sample.detail


@both
def test_a_user_may_leave_before_there_is_a_connection(kind):
    """The server takes the connection and never shakes hands: the wait counts all the same."""
    sample = talk(kind, [GONE], tls=tls_context(), scheme="https", patience=Patience(250 * MS)).sample
    assert (sample.outcome, sample.sent_ns, sample.connected_ns) == (Outcome.GAVE_UP, None, None)


@both
def test_server_that_never_shakes_hands_is_given_up(kind):
    """Being connected includes TLS: a port that takes the connection and says nothing runs into that deadline."""
    sample = talk(kind, [GONE], tls=tls_context(), scheme="https", timeouts=Timeouts(connect_ns=50 * MS)).sample
    assert sample.outcome is Outcome.TIMEOUT_CONNECT
    assert sample.connected_ns is None


@both
@pytest.mark.parametrize(
    ("script", "tokens"), [([ASK, GONE], 0), ([ASK, head(), GONE], 0), ([ASK, head() + chunk(token() * 2), GONE], 2)]
)
@pytest.mark.parametrize("reason", [Outcome.ABANDONED, Outcome.CANCELLED])
def test_cut_closes_the_connection(kind, script, tokens, reason):
    """A request that is cut ends as what it was cut for, with what it had, and the server sees the connection go."""

    async def main() -> Sample:
        async with serving(script) as server:
            transport = transport_of(kind)
            client = Client(Endpoint(base_url=server.url(), model="m"), transport, clock=CLOCK, timeouts=Timeouts())
            under_way = asyncio.create_task(ask(client))
            while not server.requests or client.tokens_seen < tokens:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.02)
            client.cut(reason)
            sample = await under_way
            while not server.gone:
                await asyncio.sleep(0.005)
            await transport.aclose()
            return sample

    sample = asyncio.run(main())
    assert sample.outcome is reason
    # What was still running at the end of the drain counts as a failure.
    assert sample.outcome.failed is (reason is Outcome.ABANDONED)
    assert len(sample.event_ns) == tokens


@both
def test_cancelled_task_closes_the_connection_and_stays_cancelled(kind):
    """A cancellation from outside is no outcome: it goes through, and leaves nothing open."""

    async def main() -> Server:
        async with serving([ASK, head() + chunk(token()), GONE]) as server:
            transport = transport_of(kind)
            client = Client(Endpoint(base_url=server.url(), model="m"), transport, clock=CLOCK, timeouts=Timeouts())
            under_way = asyncio.create_task(ask(client))
            while not server.requests:
                await asyncio.sleep(0.01)
            under_way.cancel()
            with pytest.raises(asyncio.CancelledError):
                await under_way
            while not server.gone:
                await asyncio.sleep(0.01)
            await transport.aclose()
            return server

    assert asyncio.run(main()).gone == 1


@both
def test_closing_the_transport_closes_idle_connections(kind):
    """What was kept is closed at the end of a run."""

    async def main() -> int:
        async with serving([ASK, ANSWER, GONE]) as server:
            transport = transport_of(kind)
            client = Client(Endpoint(base_url=server.url(), model="m"), transport, clock=CLOCK, timeouts=Timeouts())
            await asyncio.gather(*(ask(client, n) for n in range(3)))
            assert server.gone == 0
            await transport.aclose()
            while server.gone < server.connections:
                await asyncio.sleep(0.01)
            return server.gone

    assert asyncio.run(main()) == 3


@both
def test_progress_counts_the_tokens_of_what_is_under_way(kind):
    """The progress line sees tokens as they come, and not those of requests that have ended."""

    async def main() -> list[int]:
        async with serving([ASK, head() + chunk(token() + token()), 0.2, chunk(FINISH + DONE) + END, GONE]) as server:
            transport = transport_of(kind)
            client = Client(Endpoint(base_url=server.url(), model="m"), transport, clock=CLOCK, timeouts=Timeouts())
            seen = [client.tokens_seen]
            under_way = asyncio.create_task(ask(client))
            while client.tokens_seen < 2:
                await asyncio.sleep(0.005)
            seen.append(client.tokens_seen)
            await under_way
            await transport.aclose()
            return [*seen, client.tokens_seen]

    assert asyncio.run(main()) == [0, 2, 0]


@both
def test_secret_of_one_request_alone_is_hidden_too(kind):
    """A row of a data set has a key of its own: the model's name, which repeats it, is hidden every time."""
    key = "row-key-0123456789"
    frames = b'{"model": "%s", "choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}' % key.encode()
    script = [ASK, stream([b"data: " + frames + b"\n\n"])] * 3

    async def main() -> list[Sample]:
        async with serving(script) as server:
            transport = transport_of(kind)
            client = Client(Endpoint(base_url=server.url(), model="m"), transport, clock=CLOCK, timeouts=Timeouts())
            row = Prompt("Hello?", extra={"api_key": key})
            try:
                return [await client.send_prompt(row, max_tokens=5) for _ in range(3)]
            finally:
                await transport.aclose()

    assert [sample.model for sample in asyncio.run(main())] == ["***"] * 3


@both
def test_key_that_a_server_repeats_is_not_kept(kind):
    """A refusal that quotes the key it was sent is written down without it."""
    body = b'{"error": {"message": "Incorrect API key provided: sk-live-0123456789"}}'
    refusal = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    sample = talk(kind, [ASK, refusal], headers=(("authorization", "Bearer sk-live-0123456789"),)).sample
    assert sample.outcome is Outcome.HTTP_ERROR
    assert "Incorrect API key provided: ***" in sample.detail


def test_answer_before_the_whole_request_is_no_answer_to_it():
    """A response that begins before the request is sent is refused: no time can be told from it.

    The request is larger than what the buffers of both sockets hold.
    """
    sample = talk("fast", [0.05, ANSWER, 0.3, GONE], prompt_bytes=80_000_000).sample
    assert sample.outcome is Outcome.PROTOCOL
    assert "before the whole request" in sample.detail


@pytest.mark.parametrize(
    ("extra", "is_fault"), [({}, True), ({"max_tokens": 900}, False), ({"max_tokens": None}, False)]
)
def test_usage_is_held_against_the_limit_that_was_sent(extra, is_fault):
    """A body may have another limit than the one it was made for, or none."""
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":800}}\n\n'
    script = [ASK, head() + chunk(token()) + chunk(token()), chunk(FINISH + usage + DONE) + END, GONE]
    sample = talk("fast", script, changes=BodyChanges(extra=(extra,))).sample
    assert (sample.outcome, sample.output_tokens) == (Outcome.OK, 800)
    assert bool(sample.usage.fault) is is_fault
    assert sample.usage.hidden is None


def test_head_before_the_whole_request_is_no_fault():
    """A gateway may open the stream while it still reads the prompt. The tokens are those of this request."""
    script = [
        0.05,
        head() + chunk(b": busy\n\n"),
        0.05,
        ASK,
        chunk(token()),
        0.02,
        chunk(token() + FINISH + DONE) + END,
    ]
    sample = talk("fast", [*script, GONE], prompt_bytes=20_000_000).sample
    assert (sample.outcome, len(sample.event_ns)) == (Outcome.OK, 2)
    assert sample.since_sent(sample.first_byte_ns) is None
    assert 0 < sample.since_sent(sample.first_token_ns) < sample.since_sent(sample.last_token_ns)


def test_request_that_ended_leaves_nothing_to_the_garbage_collector():
    """A level of an hour would gather more and more of what only a full collection finds, and that is rare."""
    gc.collect()
    gc.disable()
    try:
        talk("fast", *[[ASK, ANSWER]] * 20, times=20)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [type(one) for one in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not [one for one in left if one.__module__ in {"loadbench.client.client", "loadbench.wire.response_reader"}]


@both
def test_body_that_never_ends_is_given_up(kind):
    """A 200 that is no event stream is held up to a bound, and not beyond."""
    start = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
    outcome, detail = ended(kind, ASK, start, *[b"x" * 1_000_000] * 20, GONE)
    assert outcome is Outcome.PROTOCOL
    assert "8 MiB" in detail
