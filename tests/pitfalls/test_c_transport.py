"""Pitfalls C: the transport and the client's own health."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from loadbench.client.connection import Connection
from loadbench.client.fast_transport import FastTransport
from loadbench.engine.health import LoopHealth
from loadbench.record.outcome import Outcome
from tests.building import a_level, a_recording, a_sample, calm
from tests.client.server import ANSWER, ASK, END, GONE, chunk, head, serving, stream, whole
from tests.engine.scripted import PATIENT, Act, fire_one
from tests.faults.server import FaultServer
from tests.pitfalls.playing import (
    CLOCK,
    KINDS,
    MS,
    SOON,
    Client,
    Endpoint,
    S,
    Timeouts,
    ask,
    end,
    evenly,
    faulty,
    gaps,
    played,
    read,
    token,
    transport_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.record.sample import Sample
    from tests.client.server import Server

both = pytest.mark.parametrize("kind", KINDS)


def asked(kind: str, *scripts, count: int = 1, at_once: bool = False) -> tuple[list[Sample], Server]:
    """So many requests to a server of these scripts, one after another or all at once."""

    async def main():
        async with serving(*scripts) as server:
            transport = transport_of(kind)
            client = Client(Endpoint(base_url=server.url(), model="m"), transport, clock=CLOCK, timeouts=SOON)
            try:
                if at_once:
                    return await asyncio.gather(*(ask(client, number=n) for n in range(count))), server
                return [await ask(client, number=n) for n in range(count)], server
            finally:
                await transport.aclose()

    return asyncio.run(main())


def reasons(level) -> set[str]:
    """Why the level is not valid."""
    return {reason.code for reason in level.verdict.reasons}


# C1.


def blast(*, answers: int, events: int) -> list[bytes]:
    """A script of answers that come as fast as the socket takes them."""
    body = stream([token("x" * 40)] * events)
    return [step for _ in range(answers) for step in (ASK, body)] + [GONE]


class Counting(Connection):
    """Counts how often reading is paused, by whoever."""

    paused = 0

    def connection_made(self, transport):
        pause = transport.pause_reading

        def counted():
            Counting.paused += 1
            pause()

        transport.pause_reading = counted
        super().connection_made(transport)


def test_c1_a_flood_never_pauses_reading():
    """Forty streams of 2000 events at full speed are read whole, and no reading is paused for a full buffer.

    Seen to fail with a stream reader of 64 KiB (`paused` below), which pauses again and again.
    """

    async def main():
        async with serving(blast(answers=1, events=2000)) as server:
            transport = FastTransport(connection=Counting)
            client = Client(Endpoint(base_url=server.url(), model="m"), transport, clock=CLOCK, timeouts=SOON)
            try:
                samples = await asyncio.gather(*(ask(client, number=n) for n in range(40)))
            finally:
                await transport.aclose()
            return samples, await slow_reader(server.port)

    samples, paused = asyncio.run(main())
    assert [len(sample.event_ns) for sample in samples] == [2000] * 40
    assert Counting.paused == 0
    assert paused > 0


async def slow_reader(port: int) -> int:
    """How often a line reader with the usual buffer pauses for one of these answers."""
    paused = 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
    pause = writer.transport.pause_reading

    def counted():
        nonlocal paused
        paused += 1
        pause()

    reader._transport.pause_reading = counted
    writer.write(b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
    while b"[DONE]" not in await reader.readline():
        await asyncio.sleep(0)  # the other streams have their turn
    writer.close()
    return paused


# C2.


@both
def test_c2_a_megabyte_line_is_an_event(kind):
    """An event of a megabyte is heard as one event, over both transports; one of 8 MiB is where the parser ends.

    Seen to fail with a line reader of the usual limit (`ValueError` below), as rivals do at 64 KiB.
    """
    (sample,) = faulty("megabyte_line", kind=kind)
    assert (sample.outcome, len(sample.event_ns), sample.output_tokens) == (Outcome.OK, 8, 8)
    assert asyncio.run(_line_reader(token("x" * 2**20))) is ValueError


async def _line_reader(data: bytes) -> type[BaseException] | None:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    try:
        await reader.readline()
    except ValueError as error:
        return type(error)
    return None


def test_c2_there_is_a_greatest_line_and_it_is_told():
    """A line of nearly 8 MiB is an event; a longer one is a protocol failure, and what came before it is kept.

    Seen to fail when `LARGEST_BLOCK` was 1 MiB.
    """
    large = token("x" * (8 * 2**20 - 4096))
    pieces = [large[at : at + 2**20] for at in range(0, len(large), 2**20)]
    assert read([token(), *pieces, end(2)], keep_text=False).outcome()[0] is Outcome.OK
    answer = read([token(), b"data: ", *[b"x" * 2**20] * 9, end(2)], keep_text=False)
    assert answer.outcome()[0] is Outcome.PROTOCOL
    assert len(answer.event_ns) == 1


# C3.


@both
def test_c3_as_many_requests_are_in_flight_as_are_asked(kind):
    """110 requests at once are 110 connections: the server answers none before it has them all.

    Seen to fail with httpx as it comes, whose pool has 100 (`PoolTimeout` below).
    """
    many = 110
    waits = [ASK, lambda server: len(server.requests) >= many, ANSWER, GONE]
    samples, server = asked(kind, waits, count=many, at_once=True)
    assert {sample.outcome for sample in samples} == {Outcome.OK}
    assert server.connections == many


def test_c3_the_usual_pool_would_hold_them_back():
    """The counterpart of the above: with httpx's default limits the 101st request waits for the pool.

    Seen to fail with `max_connections=None`.
    """

    async def main():
        async with serving([ASK, GONE]) as server, httpx.AsyncClient(trust_env=False) as client:
            client.timeout = httpx.Timeout(None, pool=0.1)
            posts = [asyncio.create_task(client.post(server.url(), content=b"{}", timeout=None)) for _ in range(100)]
            while len(server.requests) < 100:
                await asyncio.sleep(0.01)
            with pytest.raises(httpx.PoolTimeout):
                await client.post(server.url(), content=b"{}")
            for post in posts:
                post.cancel()
            await asyncio.wait(posts)
            return len(server.requests)

    assert asyncio.run(main()) == 100


# C4.


def test_c4_the_handshake_is_not_in_the_ttft():
    """A connection that takes 50 ms is `connect`; TTFT counts from the request that was sent after it.

    Seen to fail when TTFT counted from `due` (`since_due` below): 150 ms.
    """
    sample = fire_one(Act(connect_ns=50 * MS, first_ns=100 * MS))
    assert (sample.connect_ns, sample.since_sent(sample.first_token_ns)) == (50 * MS, 100 * MS)
    assert sample.since_due(sample.first_token_ns) == 150 * MS


@both
def test_c4_connections_are_used_again(kind):
    """The second request goes over the first one's connection, and says so: it has no set-up.

    Seen to fail when `FastTransport.keep` kept none.
    """
    first, second = faulty("plain", "plain", kind=kind)
    assert (first.reused, second.reused) == (False, True)
    assert first.connect_ns > 0
    assert second.connect_ns is None
    assert first.connect_ns < first.sent_ns - first.due_ns


# C5.


@both
@pytest.mark.parametrize("fault", ["closed_afterwards", "closed_idle", "closed_in_the_next"])
def test_c5_a_stale_connection_is_no_failure_of_the_server(kind, fault):
    """A kept connection that the server closes, before or under the next request, is replaced once, and that counted.

    Seen to fail with httpx as it comes, which raises `ReadError` or `RemoteProtocolError` (next test).
    """
    first, second = faulty(fault, "plain", kind=kind, pause_s=0.03 if fault == "closed_idle" else 0)
    assert (first.outcome, second.outcome) == (Outcome.OK, Outcome.OK)
    assert second.reused is False
    assert second.reconnects == (1 if fault == "closed_in_the_next" else second.reconnects)
    assert second.reconnects <= 1


def test_c5_the_usual_client_would_fail():
    """The counterpart: the same server makes the second request of a plain httpx client fail.

    Seen to fail when the server kept the connection (`plain`).
    """

    async def main() -> type[BaseException] | None:
        async with FaultServer(speed=50) as server, httpx.AsyncClient(trust_env=False) as client:
            body = {"messages": [{"role": "user", "content": "fault:closed_in_the_next"}], "max_tokens": 1}
            await client.post(server.url, json=body)
            try:
                await client.post(server.url, json=body)
            except httpx.TransportError as error:
                return type(error)
            return None

    assert asyncio.run(main()) in {httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError}


# C6.


@both
@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests"])
def test_c6_a_refusal_is_asked_once_and_told(kind, status):
    """503 and 429 with Retry-After end the request as failed, after one request on the wire.

    Seen to fail when it was fired again until it was ok (`retried` below): two requests, and no failure.
    """
    refuses = [ASK, whole(status, b'{"error":{"message":"no"}}', more=b"retry-after: 0\r\n"), ASK, ANSWER, GONE]
    (sample,), server = asked(kind, refuses)
    assert (sample.outcome, sample.status, len(server.requests)) == (Outcome.HTTP_ERROR, int(status[:3]), 1)
    retried, server = asked(kind, refuses, count=2)
    assert (retried[-1].outcome, len(server.requests)) == (Outcome.OK, 2)


# C7.


def test_c7_a_host_is_resolved_once_and_the_address_that_answers_is_kept(monkeypatch):
    """With a name of a dead and a living address, the name is looked up once and the dead one tried once.

    Seen to fail with a fresh look-up for each connection (`naive` below), which tries the dead one every time.
    """

    async def main():
        loop = asyncio.get_running_loop()
        dead = free_port()
        looked_up, tried = [], []
        async with serving([ASK, ANSWER]) as server:  # one answer a connection
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (dead, server.port)]
            connect = loop.sock_connect

            async def look_up(*_, **__):
                looked_up.append(1)
                return found

            async def counted(sock, address):
                tried.append(address[1])
                await connect(sock, address)

            monkeypatch.setattr(loop, "getaddrinfo", look_up)
            monkeypatch.setattr(loop, "sock_connect", counted)
            transport = FastTransport()
            client = Client(Endpoint(base_url="http://twofold/v1", model="m"), transport, clock=CLOCK, timeouts=SOON)
            for number in range(3):
                assert (await ask(client, number=number)).outcome is Outcome.OK
            await transport.aclose()
            ours, looks = list(tried), len(looked_up)
            for _ in range(3):
                _, writer = await asyncio.open_connection("twofold", 80)
                writer.close()
            return ours, looks, tried[len(ours) :], len(looked_up) - looks, (dead, server.port)

    ours, looks, naive, naive_looks, (dead, alive) = asyncio.run(main())
    assert (ours, looks) == ([dead, alive, alive, alive], 1)
    assert (naive, naive_looks) == ([dead, alive] * 3, 3)


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


# C8.


def in_a_thread(script: Callable[[socket.socket], None]) -> int:
    """The port of a server that answers one request in a thread of its own, whatever the event loop does."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with listener, listener.accept()[0] as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.recv(65536)
            with contextlib.suppress(OSError):
                script(sock)

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


def test_c8_a_busy_client_is_the_reason_that_is_told():
    """Where stamps are taken at the read, a loop lag of 40 ms makes a level with 20 ms between tokens INVALID.

    Seen to fail when the lag was in no rule: the level passes with 40 ms too much in its latencies.
    """
    samples = [a_sample(number, due_ns=number * S // 2) for number in range(200)]
    late = a_level(recording=a_recording(samples, health=calm(lag_ns=40 * MS)))
    assert (late.verdict.status, reasons(late)) == ("INVALID", {"loop_lag"})
    assert reasons(a_level(recording=a_recording(samples, health=calm(lag_ns=MS // 2)))) == set()


def test_c8_the_lag_of_a_blocked_loop_is_seen():
    """A loop that is blocked for 60 ms at a time has a lag of about that, stalled wake-ups included.

    Seen to fail when only the wake-up after the stall was recorded: its p50 would be that of a calm loop.
    """

    async def main(*, blocked: bool) -> float:
        transport = FastTransport()
        health = LoopHealth(transport)
        async with health.watching():
            for _ in range(6):
                if blocked:
                    time.sleep(0.06)  # noqa: ASYNC251 - that is the point
                await asyncio.sleep(0.011)
        await transport.aclose()
        return health.close().loop_lag.percentile(50)

    stalled = asyncio.run(main(blocked=True))
    assert stalled > 10 * MS
    # The calmest of some tries: on a busy machine a loop that nothing blocks is late too.
    assert stalled > 3 * min(asyncio.run(main(blocked=False)) for _ in range(5))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel stamps on Linux alone")
def test_c8_what_piles_up_while_the_client_is_busy_is_counted():
    """Ten events, 4 ms apart, during which the client's loop is blocked: they are known to be stamped too late.

    Seen to fail when a merged read was no sign of it: 0 of 10.
    """

    asked, blocks, sent = threading.Event(), threading.Event(), threading.Event()

    async def main(*, blocked: bool, from_first: bool = False) -> Sample:
        def script(sock: socket.socket) -> None:
            asked.set()
            if from_first:
                blocks.wait(10)
            sock.sendall(head() + chunk(token()))
            blocks.wait(10)
            for _ in range(10):
                time.sleep(0.004)
                sock.sendall(chunk(token()))
            sent.set()
            time.sleep(0.05)
            sock.sendall(chunk(end(11)) + END)

        for event in (asked, blocks, sent):
            event.clear()
        transport = FastTransport()
        url = f"http://127.0.0.1:{in_a_thread(script)}/v1"
        client = Client(Endpoint(base_url=url, model="m"), transport, clock=CLOCK, timeouts=SOON)
        request = asyncio.create_task(ask(client))
        while not (asked.is_set() if from_first else client.tokens_seen):
            await asyncio.sleep(0)
        blocks.set()
        if blocked:
            sent.wait(10)
            time.sleep(0.005)  # noqa: ASYNC251 - that is the point
        sample = await request
        await transport.aclose()
        return sample

    busy = [asyncio.run(main(blocked=True)) for _ in range(3)]
    assert min(sample.censored_events for sample in busy) >= 5
    quiet = min((asyncio.run(main(blocked=False)) for _ in range(3)), key=lambda sample: sample.censored_events)
    assert quiet.censored_events < busy[0].censored_events
    level = a_level([a_sample(0, censored_events=10, event_ns=busy[0].event_ns, event_tokens=None)])
    assert level.client.censored_events > 0.01
    # The first token was read in time here, as far as the machine let it, and late here.
    assert not all(sample.late_first_token for sample in busy)
    assert asyncio.run(main(blocked=True, from_first=True)).late_first_token


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel counts segments on Linux alone")
@pytest.mark.parametrize(
    ("writes", "late"),
    [
        ([token(), token()], 1),
        ([token(), token(), token()], 2),
        ([token("", role="assistant"), token(), token()], 1),
        ([token("", role="assistant"), token() + token()], 0),
        ([token() + token()], 0),
    ],
    ids=["two", "three", "a role and two", "a role and two at once", "two at once"],
)
def test_c8_the_first_token_of_a_late_read_is_counted_whatever_came_before_it(writes, late):
    """The head was read in time, then the loop is blocked while these are sent, 4 ms apart: the last alone has its own
    stamp. Only events that were sent alone count, and an event without text does not.

    Seen to fail when a head and a role were allowed for whether or not they had come in that read: 0 late ones.
    """
    asked, blocks, sent, seen = (threading.Event() for _ in range(4))

    def script(sock: socket.socket) -> None:
        sock.sendall(head())
        asked.set()
        blocks.wait(10)
        for write in writes:
            sock.sendall(chunk(write))
            time.sleep(0.004)
        sent.set()
        seen.wait(10)
        sock.sendall(chunk(token()) + chunk(end(9)) + END)

    async def main() -> Sample:
        transport = FastTransport()
        url = f"http://127.0.0.1:{in_a_thread(script)}/v1"
        client = Client(Endpoint(base_url=url, model="m"), transport, clock=CLOCK, timeouts=SOON)
        request = asyncio.create_task(ask(client))
        while not (asked.is_set() and all(call.headers_ns for call in client._calls)):
            await asyncio.sleep(0)
        blocks.set()
        sent.wait(10)
        time.sleep(0.005)  # noqa: ASYNC251 - that is the point
        while not client.tokens_seen:
            await asyncio.sleep(0)
        seen.set()
        sample = await request
        await transport.aclose()
        return sample

    sample = asyncio.run(main())
    assert (sample.censored_events, sample.late_first_token) == (late, late > 0)


# C9.


@both
def test_c9_a_buffering_proxy_is_seen_in_the_reads(kind):
    """Tokens that a proxy hands on eight at a time come in reads of several, all of them; otherwise hardly one does.

    Seen to fail when `_count_read` counted reads alone: `merged_reads` is 0 then.
    """
    clumped, plain = faulty("clumped", "plain", kind=kind, tokens=32, speed=4)
    assert (clumped.reads, clumped.merged_reads) == (4, 4)
    assert plain.merged_reads <= plain.reads // 4
    assert sorted(clumped.event_gaps())[16] == 0 < sorted(plain.event_gaps())[16]


def test_c9_the_median_gap_falls_while_the_answer_comes_later():
    """Clumped by eight, TTFT is later and TPOT hardly another, while the median gap is 0: the level says what it is.

    Seen to fail when the gaps stood alone (`median` below): a slower server looks infinitely fast.
    """
    tokens = [data for _, data in evenly(32)]
    lumps = [(100 * MS + at * 10 * MS, b"".join(tokens[at - 7 : at + 1])) for at in (7, 15, 23, 31)]
    clumped = played(*lumps, (410 * MS, end(32)))
    plain = played(*evenly(32), (410 * MS, end(32)))
    median = [sorted(sample.event_gaps())[16] for sample in (plain, clumped)]
    assert median == [10 * MS, 0]
    assert (plain.since_sent(plain.first_token_ns), clumped.since_sent(clumped.first_token_ns)) == (100 * MS, 170 * MS)
    assert a_level(recording=a_recording([clumped])).client.merged_reads == 1.0
    assert a_level(recording=a_recording([plain])).client.merged_reads == 0.0


# C10.


@both
def test_c10_a_timeout_keeps_what_came_and_says_which_it_was(kind):
    """An answer that stalls ends as `timeout_idle` with words, and its two tokens and their stamps are kept.

    Seen to fail with one limit on the whole and no sample (`TimeoutError` below, whose text is empty).
    """
    brief = Timeouts(connect_ns=5 * S, first_token_ns=5 * S, idle_ns=S // 2, total_ns=None)
    (sample,) = faulty("stalled", kind=kind, timeouts=brief)
    assert (sample.outcome, len(sample.event_ns), sample.output_tokens) == (Outcome.TIMEOUT_IDLE, 2, 2)
    assert "500ms" in sample.detail.replace(" ", "")
    assert sample.end_ns - sample.last_token_ns >= S // 2
    assert str(TimeoutError()) == ""


def test_c10_a_slow_device_is_waited_for():
    """An answer of an hour is whole where the limits allow it, and cut by the limit that was given where not.

    Seen to fail with a hidden limit of 300 s (`limited` below).
    """
    slow = Act(first_ns=400 * S, gap_ns=100 * S, tokens=33)
    sample = fire_one(slow, timeouts=PATIENT)
    assert (sample.outcome, sample.since_sent(sample.last_token_ns)) == (Outcome.OK, 3600 * S)
    limited = fire_one(slow, timeouts=Timeouts(connect_ns=None, first_token_ns=None, idle_ns=None, total_ns=1000 * S))
    assert (limited.outcome, len(limited.event_ns)) == (Outcome.TIMEOUT_TOTAL, 6)
    assert limited.end_ns == 1000 * S


# C11.


def test_c11_a_dead_peer_is_noticed():
    """A server that falls silent is given up by the idle limit and its connection closed; the system probes it too.

    Seen to fail when `_open` set no SO_KEEPALIVE.
    """

    async def main():
        async with serving([ASK, head() + chunk(token()), GONE]) as server:
            transport = FastTransport()
            brief = Timeouts(connect_ns=5 * S, first_token_ns=5 * S, idle_ns=S // 10, total_ns=None)
            client = Client(Endpoint(base_url=server.url(), model="m"), transport, clock=CLOCK, timeouts=brief)
            request = asyncio.create_task(ask(client))
            while not client.tokens_seen:
                await asyncio.sleep(0)
            (connection,) = transport._busy
            probed = connection._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            sample = await request
            while not server.gone:
                await asyncio.sleep(0.005)
            await transport.aclose()
            return sample, probed

    sample, probed = asyncio.run(main())
    assert sample.outcome is Outcome.TIMEOUT_IDLE
    assert probed


# C12.


def test_c12_tokens_of_one_read_are_not_called_fast():
    """Where all tokens came in one read, the sample says that it was one read: no gap between them was seen.

    Seen to fail when lines were counted without their reads: 1000 tokens in 0 ns look like any number of tokens/s.
    """
    sample = played((100 * MS, b"".join(token(f"w{n}") for n in range(1000))), (100 * MS + 1, end(1000)))
    assert (len(sample.event_ns), sample.reads, sample.merged_reads) == (1000, 1, 1)
    assert set(sample.event_gaps()) == {0}
    apart = played(*evenly(1000, gap_ns=MS), (2 * S, end(1000)))
    assert (apart.reads, apart.merged_reads) == (1000, 0)
    assert min(apart.event_gaps()) > 0


# C13.


@both
def test_c13_tokens_that_are_held_back_show_as_one_read(kind):
    """When the second half comes in one lump, one read brought several events, and that lump can be measured.

    Seen to fail when the lump was spread over its read: the gaps would all be alike (`spread` below).
    """
    (sample,) = faulty("held_back", kind=kind, tokens=16, speed=2)
    assert (sample.merged_reads, sample.reads) == (1, 9)
    largest = max(len(list(group)) for _, group in itertools.groupby(sample.event_ns))
    assert largest == 8
    spread = (sample.last_token_ns - sample.first_token_ns) / 15
    assert max(sample.event_gaps()) > 3 * spread
    assert sorted(sample.event_gaps())[:7] == [0] * 7


def test_c13_the_lump_is_no_late_read_of_ours():
    """Several events in a read that came in time are the server's doing, and are not counted against the client.

    Seen to fail when every merged read was censored.
    """
    stamps = [*evenly(4), (200 * MS, token() * 6), (210 * MS, end(10))]
    sample = played(*stamps)
    assert (sample.merged_reads, sample.censored_events) == (1, 0)
    assert gaps(sample.event_ns)[-6:] == [70 * MS, 0, 0, 0, 0, 0]
    level = a_level(recording=a_recording([sample]))
    assert level.client.merged_reads == pytest.approx(0.2)
    assert level.client.censored_events == 0
    assert not {"late_reads", "loop_lag", "late_first_tokens"} & reasons(level)
