"""Pitfalls A: clocks and stamps. What the wrong way gives is computed beside what we give."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time

import anyio
import pytest

from loadbench.client import stamping
from loadbench.client.stamping import Stamper
from loadbench.core.clock import MonotonicClock
from loadbench.plan.arrivals import Arrivals, Spacing
from loadbench.plan.load import Open
from loadbench.record.outcome import Outcome
from loadbench.wire import formats
from loadbench.wire.openai import Api
from loadbench.wire.response_reader import ResponseReader
from tests.building import a_recording
from tests.client.server import ASK, GONE, chunk, head, serving
from tests.client.server import END as LAST_CHUNK
from tests.engine.scripted import Act, fire_one, run_scripted
from tests.pitfalls.playing import (
    CLOCK,
    DONE,
    KINDS,
    MS,
    SOON,
    Client,
    Endpoint,
    S,
    ask,
    delta,
    end,
    evenly,
    faulty,
    gaps,
    played,
    token,
    transport_of,
    usage,
)

CONSTANT = Arrivals(Spacing.CONSTANT)


def waits(workers: int, *, every_ns: int, service_ns: int, count: int) -> list[int]:
    """Response times of a D/D/c queue that starts empty: each waits for the worker that is free first."""
    free_ns, found = [0] * workers, []
    for number in range(count):
        due_ns = number * every_ns
        begins_ns = max(due_ns, free_ns[number % workers])
        free_ns[number % workers] = begins_ns + service_ns
        found.append(free_ns[number % workers] - due_ns)
    return found


@pytest.mark.parametrize("unseen", [False, True], ids=["queue in the server", "queue before the connection"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a1_response_time_counts_the_wait_for_a_place(workers, unseen):
    """At 10/s for `workers` places that take 0.4 s each, response times are those of the D/D/c queue, to the ns.

    Seen to fail when the time began with the place (`served` below): every answer then takes 0.4 s.
    """
    act = Act(first_ns=400 * MS)
    ran = run_scripted(Open(10.0, CONSTANT), act, workers=workers, unseen=unseen, duration_ns=3 * S, drain_ns=60 * S)
    samples = ran.by_number()
    right = waits(workers, every_ns=100 * MS, service_ns=400 * MS, count=30)
    assert [sample.since_due(sample.last_token_ns) for sample in samples] == right
    served = [400 * MS] * 30
    assert right != served
    # From `sent` on, too, the wait in a server's own queue is seen, and not the wait for a connection: both are kept.
    assert [sample.since_sent(sample.last_token_ns) for sample in samples] == (served if unseen else right)


def test_a2_every_event_has_one_stamp_and_sums_close():
    """E2E minus TTFT is the sum of the gaps exactly, for the first token is stamped once.

    Seen to fail when TTFT came from a second look at the clock (`late` below).
    """
    clock = itertools.count(1000)  # every look at it costs a tick
    answer, late = ResponseReader(Api.CHAT), None
    for _ in range(5):
        answer.feed(next(clock), token())
        late = late if late is not None else next(clock)
    assert answer.last_token_ns - answer.first_token_ns == sum(gaps(answer.event_ns))
    assert answer.last_token_ns - late != sum(gaps(answer.event_ns))


@pytest.mark.parametrize("kind", KINDS)
def test_a2_sums_close_over_sockets(kind):
    """E2E minus TTFT is the sum of the gaps for answers of any shape that came through the real client.

    Seen to fail when `ResponseReader._add_frame` took `first_token_ns` from the clock instead of from the read.
    """
    for sample in faulty("plain", "several_by_ids", "clumped", "reasoning_first", "usage_late", kind=kind):
        assert sample.last_token_ns - sample.first_token_ns == sum(sample.event_gaps())


def test_a3_late_usage_is_in_stream_end_alone():
    """Usage and [DONE] 2 s after the last token make the stream's end later, and neither E2E nor TPOT.

    Seen to fail when E2E was taken to the end of the body: 2.15 s and 418 ms a token instead of 0.15 s and 10 ms.
    """
    sample = played(*evenly(6), (150 * MS + 2 * S, end(6)))
    assert sample.since_sent(sample.last_token_ns) == 150 * MS
    assert sample.tpot() == 10 * MS
    assert sample.since_sent(sample.end_ns) == 2150 * MS
    assert (sample.end_ns - sample.first_token_ns) / 5 == 410 * MS


@pytest.mark.parametrize("kind", KINDS)
def test_a3_late_usage_over_sockets(kind):
    """With usage a hundred gaps late, E2E is far before the stream's end, and the count still comes from usage.

    Seen to fail when `_ended` was used for `last_token_ns`.
    """
    # Between two tokens there is little time for a busy machine to be held up.
    (sample,) = faulty("usage_late", kind=kind, speed=5, tokens=2)
    after_ns, within_ns = sample.end_ns - sample.last_token_ns, sample.last_token_ns - sample.first_token_ns
    assert after_ns > 2 * within_ns
    assert sample.output_tokens == 2


class Stepping:
    """A wall clock that jumps an hour forth or back at every look."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def __call__(self) -> float:
        return 1e9 + self._rng.choice((-3600.0, 3600.0))


def test_a4_steps_of_the_wall_clock_change_no_duration(monkeypatch):
    """While the wall clock jumps by hours, marks stay in order and waiting ends neither early nor an hour late.

    Seen to fail when the client's clock was `time.time` (`by_wall` below).
    """
    monkeypatch.setattr(time, "time", Stepping(1))
    by_wall = [time.time() for _ in range(20)]
    assert min(gaps(by_wall)) < 0
    (sample,) = faulty("plain", kind="httpx", tokens=4)
    marks = [sample.due_ns, sample.sent_ns, sample.first_byte_ns, *sample.event_ns, sample.end_ns]
    assert marks == sorted(marks)
    assert marks[-1] - marks[0] < 3600 * S

    async def main() -> list[int]:
        clock = MonotonicClock()
        began_ns = clock.now_ns()
        for number in range(1, 6):
            await clock.sleep_until(began_ns + number * MS, anyio.Event())
        return [began_ns, clock.now_ns()]

    began_ns, ended_ns = asyncio.run(main())
    assert 5 * MS <= ended_ns - began_ns < 3600 * S


def test_a4_kernel_stamps_survive_a_step(monkeypatch):
    """The kernel stamps by the wall clock; after a step of it the run's clock still has the true moment.

    Seen to fail when the offset of the two clocks was measured once (`once` below): an hour off.
    """
    now_ns, ahead_ns = 10 * S, 5 * S
    monkeypatch.setattr(stamping.time, "perf_counter_ns", lambda: now_ns)
    monkeypatch.setattr(stamping.time, "time_ns", lambda: now_ns + ahead_ns)
    stamper = Stamper()
    once_ns = -ahead_ns
    now_ns, ahead_ns = now_ns + S, ahead_ns + 3600 * S
    socket = stamping.StampedSocket()
    with socket:
        socket.stamped_ns = now_ns + ahead_ns
        assert stamper.arrived(socket) == now_ns
    assert socket.stamped_ns + once_ns == now_ns + 3600 * S


def test_a5_token_at_time_zero_is_a_token():
    """A first token at 0 ns has a TTFT of 0, and the second one does not replace it.

    Seen to fail when 0 meant "not yet" (`wrong` below): TTFT 10 ms.
    """
    sample = played(*evenly(3, first_ns=0), (20 * MS, end(3)))
    assert (sample.first_token_ns, sample.since_sent(sample.first_token_ns)) == (0, 0)
    wrong = 0
    for stamp in sample.event_ns:
        wrong = wrong or stamp
    assert wrong == 10 * MS
    recording = a_recording([sample])
    assert (recording.histograms["ttft"].count, recording.histograms["ttft"].min) == (1, 0)
    assert fire_one(Act(first_ns=0, tokens=3, gap_ns=MS)).first_token_ns == 0


def test_a6_empty_first_chunk_does_not_spend_the_first_token():
    """After an empty delta at 1 ms the first token at 100 ms sets TTFT.

    Seen to fail when the guard was spent by the first chunk (`wrong` below): TTFT 0, or none.
    """
    stream = [(MS, delta(content="")), *evenly(3), (120 * MS, end(3))]
    assert played(*stream).first_token_ns == 100 * MS
    wrong, first = 0, True
    for at_ns, data in stream:
        if first:
            wrong, first = (at_ns if b'"content":"w' in data else 0), False
    assert wrong == 0


def test_a7_usage_chunk_does_not_overwrite_the_first_token():
    """TTFT is set once, by a token; the usage chunk at the end leaves it.

    Seen to fail when each chunk with a `usage` or no choice set it again (`wrong` below).
    """
    stream = [*evenly(3), (400 * MS, usage(3)), (401 * MS, DONE)]
    sample = played(*stream)
    assert sample.first_token_ns == 100 * MS
    wrong = [at_ns for at_ns, data in stream if b'"usage"' in data or at_ns == 100 * MS][-1]
    assert wrong == 400 * MS


@pytest.mark.parametrize("kind", KINDS)
def test_a8_stamp_is_taken_before_parsing(monkeypatch, kind):
    """However long the parser needs, the event is stamped before it begins, and events of one read alike.

    Seen to fail when `_Call.data` stamped behind `answer.feed` (`parsed` below): the second event is 20 ms late.
    """
    began, parsed = [], []
    reads = formats.read_chunk

    def slow(data: bytes):
        began.append(CLOCK.now_ns())
        time.sleep(0.02)
        try:
            return reads(data)
        finally:
            parsed.append(CLOCK.now_ns())

    monkeypatch.setattr(formats, "read_chunk", slow)

    async def main():
        script = [
            ASK,
            head() + chunk(delta("stop", content="a") + delta("stop", content="b") + DONE) + LAST_CHUNK,
            GONE,
        ]
        async with serving(script) as server:
            transport = transport_of(kind)
            client = Client(Endpoint(base_url=server.url(), model="m"), transport, clock=CLOCK, timeouts=SOON)
            try:
                return await ask(client)
            finally:
                await transport.aclose()

    sample = asyncio.run(main())
    assert sample.outcome is Outcome.OK
    assert max(sample.event_ns) <= began[0]
    assert sample.event_gaps() == [0]
    assert parsed[1] - parsed[0] >= 20 * MS


def test_a9_arrivals_are_not_quantised():
    """At 3000/s requests become due and leave every 333,333 ns and not on whole milliseconds; each has its lateness.

    Seen to fail when due times were rounded to the timer's millisecond (`wrong` below): gaps of 0 and 1 ms.
    """
    ran = run_scripted(Open(3000.0, CONSTANT), Act(first_ns=MS), duration_ns=S // 10, drain_ns=S)
    sent = [sample.sent_ns for sample in ran.by_number()]
    assert len(sent) == 300
    assert set(gaps(sent)) <= {333_333, 333_334}
    wrong = [round(at_ns / MS) * MS for at_ns in sent]
    assert set(gaps(wrong)) == {0, MS}
    lateness = ran.recording.histograms["lateness"]
    assert (lateness.count, lateness.max) == (300, 0)


def test_a9_waiting_ends_at_no_moment_before():
    """The real clock wakes at or after a moment between two milliseconds, never at the millisecond before.

    Seen to fail when the tail of the sleep was left to the timer, which rounds.
    """

    async def main() -> list[int]:
        clock, early = MonotonicClock(), []
        for number in range(20):
            when_ns = clock.now_ns() + MS + number * 77_777
            await clock.sleep_until(when_ns, anyio.Event())
            early.append(clock.now_ns() - when_ns)
        return early

    assert min(asyncio.run(main())) >= 0


def test_a10_headers_are_not_the_end():
    """With headers at 0 and the body at 1 s, E2E is 1 s.

    Seen to fail when E2E stopped at the headers (`headers_ns`): 0.
    """
    sample = played(*evenly(3, first_ns=S, gap_ns=0), (S, end(3)), headers_ns=0)
    assert sample.since_sent(sample.last_token_ns) == S
    assert sample.since_sent(sample.headers_ns) == 0


@pytest.mark.parametrize("first", [{"content": ""}, {"content": None}, {"role": "assistant"}, {}])
def test_a11_empty_and_null_are_alike(first):
    """Whether a server begins with content "", null or none at all, TTFT is that of the first text.

    Seen to fail when any string was a token (`wrong` below): 1 ms with "" and 183 s with null.
    """
    stream = [(MS, delta(**first)), *evenly(2, first_ns=183 * S), (184 * S, end(2))]
    assert played(*stream).first_token_ns == 183 * S
    wrong = next(at_ns for at_ns, data in stream if isinstance(_content(data), str))
    assert wrong == (MS if first.get("content") == "" else 183 * S)


def _content(data: bytes) -> object:
    return json.loads(data.removeprefix(b"data: "))["choices"][0]["delta"].get("content")
