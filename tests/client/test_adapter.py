"""Models in this process: measured as servers are, and failing as servers do."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio

from loadbench.client.adapter import AdapterRequest, AdapterTransport, Delta, Finish, in_thread
from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.core.clock import MonotonicClock
from loadbench.record.outcome import Outcome, TokenSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from loadbench.record.sample import Sample

CLOCK = MonotonicClock()


class Model:
    """An adapter whose answers a test says."""

    name = "made"

    def __init__(self, make: Callable[[AdapterRequest], AsyncIterator[Delta | Finish]], *, parallel: int = 1) -> None:
        self.parallel = parallel
        self.asked: list[AdapterRequest] = []
        self._make = make

    async def load(self) -> None:
        """Nothing to load."""

    def generate(self, asked: AdapterRequest) -> AsyncIterator[Delta | Finish]:
        """As the test says."""
        self.asked.append(asked)
        return self._make(asked)

    async def aclose(self) -> None:
        """Nothing to close."""


def fired(model: Model, *, times: int = 1, timeouts: Timeouts | None = None) -> list[Sample]:
    """Requests to this model, all at once, in the order in which they were made."""

    async def main() -> list[Sample]:
        transport = AdapterTransport(model)
        endpoint = Endpoint(base_url="adapter:/v1", model=model.name, temperature=0.5, seed=3)
        client = Client(endpoint, transport, clock=CLOCK, timeouts=timeouts or Timeouts())
        samples: dict[int, Sample] = {}

        async def one(number: int) -> None:
            samples[number] = await client.send_prompt(f"Hi {number}", max_tokens=9)

        async with anyio.create_task_group() as requests:
            for number in range(times):
                requests.start_soon(one, number)
        return [samples[number] for number in range(times)]

    return anyio.run(main)


async def three(_asked: AdapterRequest) -> AsyncIterator[Delta | Finish]:
    """Three tokens, of which the second shows nothing yet."""
    yield Delta("a")
    yield Delta("")
    yield Delta("\u00e9b", tokens=2)
    yield Finish("stop", input_tokens=7)


def test_an_answer_is_a_sample_like_any_other() -> None:
    """Its pieces are events, its tokens are the adapter's count, attributed to the piece in which they show."""
    model = Model(three)
    (sample,) = fired(model)
    assert (sample.outcome, sample.detail) == (Outcome.OK, "")
    assert (sample.input_tokens, sample.output_tokens, sample.token_source) == (7, 4, TokenSource.USAGE)
    assert sample.event_tokens is not None
    assert (len(sample.event_ns), list(sample.event_tokens)) == (2, [1, 3])
    assert model.asked == [AdapterRequest([{"role": "user", "content": "Hi 0"}], 9, 0.5, 3)]


def test_what_cannot_be_made_at_once_waits_its_turn() -> None:
    """One after another, in the order in which they were asked: the wait is in the time to first token."""

    async def slow(_asked: AdapterRequest) -> AsyncIterator[Delta | Finish]:
        await anyio.sleep(0.02)
        yield Delta("a")
        yield Finish("stop")

    alone = fired(Model(slow), times=4)
    assert all(one.end_ns <= two.first_token_ns for one, two in pairwise(alone))

    under_way: list[AdapterRequest] = []

    async def waits_for_all(request: AdapterRequest) -> AsyncIterator[Delta | Finish]:
        under_way.append(request)
        with anyio.fail_after(30):
            while len(under_way) < 4:
                await anyio.sleep(0.001)
        yield Delta("a")
        yield Finish("stop")

    together = fired(Model(waits_for_all, parallel=4), times=4)
    assert [one.outcome for one in together] == [Outcome.OK] * 4
    assert max(one.sent_ns for one in together) <= min(one.first_token_ns for one in together)


class Counting:
    """An asynchronous iterator that is no generator: it has nothing to close."""

    def __init__(self, _asked: AdapterRequest) -> None:
        self._left: list[Delta | Finish] = [Finish("stop"), Delta("b"), Delta("a")]

    def __aiter__(self) -> Counting:
        return self

    async def __anext__(self) -> Delta | Finish:
        return self._left.pop()


def test_any_asynchronous_iterator_will_do() -> None:
    """As the protocol says; it need not be a generator. Seen to fail: it was asked for an `aclose` that it lacks."""
    (sample,) = fired(Model(Counting))
    assert (sample.outcome, sample.output_tokens) == (Outcome.OK, 2)


def test_a_model_that_fails_to_leave_has_been_measured() -> None:
    """What its `aclose` raises ends nothing: the run is over by then."""

    class Clinging(Model):
        async def aclose(self) -> None:
            raise RuntimeError("still in use")

    anyio.run(AdapterTransport(Clinging(three)).aclose)


def test_what_a_model_raises_is_a_failed_request() -> None:
    """Expected failure is data: the message is kept, the next request goes on."""
    left = [True]

    async def fails_once(_asked: AdapterRequest) -> AsyncIterator[Delta | Finish]:
        yield Delta("a")
        if left.pop() if left else False:
            raise MemoryError("no room for the cache")
        yield Finish("stop")

    first, second = fired(Model(fails_once), times=2)
    assert (first.outcome, first.detail) == (Outcome.STREAM_ERROR, "MemoryError: no room for the cache")
    assert second.outcome is Outcome.OK


def test_an_answer_without_its_finish_is_truncated() -> None:
    """E3, for adapters too."""

    async def stops(_asked: AdapterRequest) -> AsyncIterator[Delta | Finish]:
        yield Delta("a")

    (sample,) = fired(Model(stops))
    assert sample.outcome is Outcome.TRUNCATED
    assert sample.first_token_ns is not None


def test_pieces_from_a_thread_are_stamped_where_they_are_made() -> None:
    """An event loop that is held up until the last piece is made holds up no stamp."""
    made = threading.Event()

    def pieces() -> Iterator[Delta | Finish]:
        for _ in range(5):
            yield Delta("x")
            time.sleep(0.005)
        made.set()
        yield Finish("length")

    async def main() -> tuple[list[int], int]:
        stamps, resumed_ns = [], 0
        async for piece in in_thread(pieces):
            if isinstance(piece, Delta):
                assert piece.at_ns is not None
                stamps.append(piece.at_ns)
                if len(stamps) == 1:
                    assert made.wait(30)  # the loop is to be held up
                    resumed_ns = time.perf_counter_ns()
        return stamps, resumed_ns

    stamps, resumed_ns = anyio.run(main)
    assert stamps[-1] - stamps[0] >= 4 * 5_000_000
    assert stamps[-1] < resumed_ns


def test_a_cut_answer_stops_the_thread() -> None:
    """A request that runs out of time ends the model's work after the piece that is being made."""
    made: list[int] = []
    ended = threading.Event()

    def endless() -> Iterator[Delta | Finish]:
        try:
            while True:
                made.append(len(made))
                time.sleep(0.002)
                yield Delta("x")
        finally:
            ended.set()

    timeouts = Timeouts(connect_ns=None, first_token_ns=None, idle_ns=None, total_ns=400_000_000)
    (sample,) = fired(Model(lambda _: in_thread(endless)), timeouts=timeouts)
    assert sample.outcome is Outcome.TIMEOUT_TOTAL
    assert ended.wait(5)
    so_far = len(made)
    time.sleep(0.02)
    assert len(made) == so_far


def test_a_thread_that_raises_does_so_to_who_reads() -> None:
    """As if there were no thread between."""

    def raises() -> Iterator[Delta | Finish]:
        yield Delta("x")
        raise ValueError("out of range")

    (sample,) = fired(Model(lambda _: in_thread(raises)))
    assert (sample.outcome, sample.detail) == (Outcome.STREAM_ERROR, "ValueError: out of range")


def test_many_threads_at_once_keep_apart() -> None:
    """Each answer gets its own pieces."""

    def words(asked: AdapterRequest) -> Iterator[Delta | Finish]:
        for word in asked.messages[0]["content"].split():
            yield Delta(word)
        yield Finish("stop", input_tokens=len(asked.messages))

    samples = fired(Model(lambda asked: in_thread(lambda: words(asked)), parallel=8), times=16)
    assert {one.outcome for one in samples} == {Outcome.OK}
    assert {one.output_tokens for one in samples} == {2}


def test_closing_early_waits_for_the_piece_under_way() -> None:
    """What holds a model's memory must not be freed under the thread that uses it."""
    inside = threading.Event()
    left: list[float] = []

    def slow() -> Iterator[Delta | Finish]:
        yield Delta("x")
        inside.set()
        time.sleep(0.05)
        left.append(time.perf_counter())
        yield Delta("y")

    async def main() -> float:
        pieces = in_thread(slow)
        await anext(pieces)
        await asyncio.to_thread(inside.wait)
        await pieces.aclose()
        return time.perf_counter()

    closed = anyio.run(main)
    assert left
    assert left[0] <= closed
