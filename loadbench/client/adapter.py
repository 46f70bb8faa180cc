"""Models in this process, measured as servers are: a small protocol, and the transport that speaks it.

An adapter loads a model and makes answers, piece by piece. The transport turns each piece into the frame that a server
would have sent, with the stamp of the moment at which it was made, so that one client measures both. What blocks while
it computes is run by `in_thread`, which stamps where the piece is made and not where the event loop comes to it.

An adapter that can make one answer at a time has the others wait in turn, as a server with one slot would.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

import anyio
import orjson

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
    """A piece of an answer; its text may be empty, as that of half a character is.

    `at_ns` is when it was made, by `time.perf_counter_ns`; `None` for now.
    """

    text: str
    tokens: int = 1
    at_ns: int | None = None


class Finish(NamedTuple):
    """The end of an answer: `stop` or `length`, and the tokens of its prompt if they are known."""

    reason: str
    input_tokens: int | None = None


class AdapterRequest(NamedTuple):
    """What an adapter is to answer: a conversation, as the chat endpoint has it, or one text to go on with."""

    messages: list[dict[str, str]]
    max_tokens: int
    temperature: float | None
    seed: int | None


class Adapter(Protocol):
    """A model in this process. `parallel` is how many answers it can make at once.

    One that knows how long prompt and answer may be together has that, loaded, as `context`, in tokens.
    """

    name: str
    parallel: int

    async def load(self) -> None:
        """Make the model ready; called once, before all else. What it raises ends the run, told by its message."""
        ...

    def generate(self, asked: AdapterRequest) -> AsyncIterator[Delta | Finish]:
        """The answer piece by piece, with a `Finish` at its end. What it raises is a failed request.

        What has an `aclose`, as an asynchronous generator has, is closed where nobody wants the rest.
        """
        ...

    async def aclose(self) -> None:
        """Let go of the model."""
        ...


class AdapterTransport:
    """`loadbench.client.transport.Transport` into a model in this process."""

    stamp_source = ADAPTER

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._turns = anyio.CapacityLimiter(max(1, adapter.parallel))

    async def exchange(self, exchange: HttpRequest, sink: Sink) -> None:
        """Carry one exchange; cancelled, it stops the answer after the piece that is being made."""
        asked = _asked(exchange.body)
        began_ns = time.perf_counter_ns()
        sink.connected(began_ns, reused=True, connect_ns=None)
        sink.sent(began_ns)
        sink.headers(began_ns, 200, _EVENT_STREAM)
        # Each request has its own turn, in the order in which they came.
        async with self._turns:
            await self._answer(asked, sink)

    async def _answer(self, asked: AdapterRequest, sink: Sink) -> None:
        made = 0
        finish: Finish | None = None
        try:
            async with _closing(self._adapter.generate(asked)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Finish):
                        finish = piece
                        break
                    made += piece.tokens
                    sink.data(_now(piece.at_ns), _frame(self._adapter.name, piece, made))
        except TransportError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a foreign model raises, its request has failed
            sink.data(_now(None), _event({"error": {"message": f"{type(error).__name__}: {clean(str(error))}"}}))
            return
        if finish is None:
            raise TransportError(Outcome.TRUNCATED, f"the adapter {self._adapter.name} did not finish its answer")
        sink.data(_now(None), _last(self._adapter.name, finish, made) + b"data: [DONE]\n\n")

    async def aclose(self) -> None:
        """Let go of the model; one that fails to leave has still been measured."""
        with suppress(Exception):
            await self._adapter.aclose()

    # Nothing is read from a socket: no read is late, none lacks its stamp.

    def take_delays(self) -> Histogram:
        """None."""
        return Histogram()

    def take_unstamped(self) -> int:
        """None."""
        return 0

    def take_steps(self) -> int:
        """None: no stamp is of the wall clock."""
        return 0


@asynccontextmanager
async def _closing(pieces: AsyncIterator[Delta | Finish]) -> AsyncIterator[AsyncIterator[Delta | Finish]]:
    """The pieces, closed at the end if they can be."""
    try:
        yield pieces
    finally:
        aclose = getattr(pieces, "aclose", None)
        if aclose is not None:
            await aclose()


def _now(at_ns: int | None) -> int:
    return time.perf_counter_ns() if at_ns is None else at_ns


def _asked(body: bytes) -> AdapterRequest:
    """The request that a client has made for a server."""
    document = orjson.loads(body)
    messages = document.get("messages") or [{"role": "user", "content": document.get("prompt", "")}]
    return AdapterRequest(messages, document["max_tokens"], document.get("temperature"), document.get("seed"))


def _frame(model: str, piece: Delta, made: int) -> bytes:
    """The frame of a piece, with the tokens made so far: one piece may hold several, or none that shows."""
    choice = {"index": 0, "delta": {"content": piece.text}, "finish_reason": None}
    return _event({"model": model, "choices": [choice], "usage": {"completion_tokens": made}})


def _last(model: str, finish: Finish, made: int) -> bytes:
    usage = {"prompt_tokens": finish.input_tokens, "completion_tokens": made}
    choice = {"index": 0, "delta": {}, "finish_reason": finish.reason}
    return _event({"model": model, "choices": [choice], "usage": usage})


def _event(document: object) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


async def in_thread(make: Callable[[], Iterator[Delta | Finish]]) -> AsyncGenerator[Delta | Finish]:
    """The pieces of an iterator that blocks, from a thread of its own; each is stamped there as it is made.

    Closed early, it stops the iterator after the piece that is being made, and waits for that.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[Delta | Finish | BaseException | None] = asyncio.Queue()
    stop = threading.Event()
    over = asyncio.Event()

    def tell(piece: Delta | Finish | BaseException | None) -> None:
        loop.call_soon_threadsafe(pieces.put_nowait, piece)

    def run() -> None:
        try:
            for piece in make():
                tell(piece._replace(at_ns=time.perf_counter_ns()) if isinstance(piece, Delta) else piece)
                if stop.is_set():
                    break
            tell(None)
        except BaseException as error:  # noqa: BLE001 - raised where the pieces are read
            tell(error)
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=run, name="loadbench-adapter", daemon=True).start()
    try:
        while (piece := await pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        stop.set()
        with anyio.CancelScope(shield=True):
            await over.wait()
