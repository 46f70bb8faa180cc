"""Models in this process, measured as servers are: a small protocol, and the transport that calls it.

An adapter loads a model and generates responses piece by piece. The transport turns each piece into the frame that a
server would have sent, stamped with the moment at which it was generated, so the same client measures both. Code that
blocks while it computes runs in `in_thread`, which stamps where the piece is made and not when the event loop gets it.

Where an adapter can generate only one response at a time, other requests queue, as at a server with one slot.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

import anyio
import orjson

from loadbench.client.stamping import StampStats
from loadbench.client.transport import TransportError
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome
from loadbench.wire.openai import clean

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    from loadbench.client.transport import HttpRequest, Sink

ADAPTER = "adapter"
_EVENT_STREAM = [(b"content-type", b"text/event-stream")]


class Delta(NamedTuple):
    """A piece of a response; its text may be empty, like that of half a character.

    `at_ns` is when it was generated, by `time.perf_counter_ns`; `None` means now.
    """

    text: str
    tokens: int = 1
    at_ns: int | None = None


class Finish(NamedTuple):
    """The end of a response: `stop` or `length`, and the tokens of the prompt if they are known."""

    reason: str
    input_tokens: int | None = None


class AdapterRequest(NamedTuple):
    """A request to an adapter: the messages of a conversation, as the chat endpoint has them, and the limits."""

    messages: list[dict[str, str]]
    max_tokens: int
    temperature: float | None
    seed: int | None


class Adapter(Protocol):
    """A model in this process. `parallel` is the number of responses it can generate at once.

    An adapter that knows its context length sets `context`, in tokens, when it is loaded.
    """

    name: str
    parallel: int

    async def load(self) -> None:
        """Make the model ready; called once, before anything else. An exception ends the run, with its message."""
        ...

    def generate(self, request: AdapterRequest) -> AsyncIterator[Delta | Finish]:
        """The response piece by piece, with a `Finish` at its end. An exception is a failed request.

        An iterator with an `aclose`, such as an asynchronous generator, is closed when the rest is not needed.
        """
        ...

    async def aclose(self) -> None:
        """Free the model."""
        ...


class AdapterTransport:
    """`loadbench.client.transport.Transport` to a model in this process."""

    stamp_source = ADAPTER

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._slots = anyio.CapacityLimiter(max(1, adapter.parallel))

    async def exchange(self, request: HttpRequest, sink: Sink) -> None:
        """Carry one exchange; cancelled, it stops the response after the piece that is being generated."""
        body = orjson.loads(request.body)
        messages = body.get("messages") or [{"role": "user", "content": body.get("prompt", "")}]
        adapter_request = AdapterRequest(messages, body["max_tokens"], body.get("temperature"), body.get("seed"))
        began_ns = time.perf_counter_ns()
        sink.connected(began_ns, reused=True, connect_ns=None)
        sink.sent(began_ns)
        sink.headers(began_ns, 200, _EVENT_STREAM)
        # The limiter lets requests in one by one, in the order in which they came.
        async with self._slots:
            try:
                await self._respond(adapter_request, sink)
            except TransportError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a foreign model raises, its request has failed
                message = f"{type(error).__name__}: {clean(str(error))}"
                sink.data(time.perf_counter_ns(), _event({"error": {"message": message}}))

    async def _respond(self, request: AdapterRequest, sink: Sink) -> None:
        """Push the frames of one response, each with the number of tokens so far: a piece may have several or none."""
        model, tokens = self._adapter.name, 0
        finish: Finish | None = None
        pieces = self._adapter.generate(request)
        try:
            async for piece in pieces:
                if isinstance(piece, Finish):
                    finish = piece
                    break
                tokens += piece.tokens
                at_ns = time.perf_counter_ns() if piece.at_ns is None else piece.at_ns
                choice = {"index": 0, "delta": {"content": piece.text}, "finish_reason": None}
                sink.data(at_ns, _event({"model": model, "choices": [choice], "usage": {"completion_tokens": tokens}}))
        finally:
            aclose = getattr(pieces, "aclose", None)
            if aclose is not None:
                await aclose()

        if finish is None:
            raise TransportError(Outcome.TRUNCATED, f"the adapter {model} did not finish its response")
        choice = {"index": 0, "delta": {}, "finish_reason": finish.reason}
        usage = {"prompt_tokens": finish.input_tokens, "completion_tokens": tokens}
        last = _event({"model": model, "choices": [choice], "usage": usage})
        sink.data(time.perf_counter_ns(), last + b"data: [DONE]\n\n")

    async def aclose(self) -> None:
        """Free the model; an error then does no harm to what was measured."""
        with suppress(Exception):
            await self._adapter.aclose()

    def take_stamp_stats(self) -> StampStats:
        """Empty: nothing is read from a socket, so no read is late."""
        return StampStats(Histogram())


def _event(document: object) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


async def in_thread(make: Callable[[], Iterator[Delta | Finish]]) -> AsyncGenerator[Delta | Finish]:
    """The pieces of a blocking iterator, which runs in its own thread; each is stamped there when it is made.

    Closed early, it stops the iterator after the piece that is being made, and waits for that.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[Delta | Finish | BaseException | None] = asyncio.Queue()
    stop = threading.Event()
    ended = asyncio.Event()

    def put(piece: Delta | Finish | BaseException | None) -> None:
        loop.call_soon_threadsafe(pieces.put_nowait, piece)

    def run() -> None:
        try:
            for piece in make():
                put(piece._replace(at_ns=time.perf_counter_ns()) if isinstance(piece, Delta) else piece)
                if stop.is_set():
                    break
            put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the pieces are read
            put(error)
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=run, name="loadbench-adapter", daemon=True).start()
    try:
        while (piece := await pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        stop.set()
        with anyio.CancelScope(shield=True):
            await ended.wait()
