"""Who is measured: ways to read streams in one asyncio loop, all but stock httpx with the same parser behind them.

Each asks one answer at a time per stream and counts what came. `loadbench` is what a sweep does for every request but
for the recording, `recorded` is all of it. `prepared` has the request's bytes at hand and looks at nothing that comes:
the price of the transport alone. httpx and aiohttp are as they come, without their limits on connections and time, and
read in the way that is the fastest of theirs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

import httpx
import orjson

from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.client.fast_transport import FastTransport
from loadbench.core.clock import MonotonicClock
from loadbench.plan.conversation import user_message
from loadbench.plan.load import LevelDuration, Phase, Phases
from loadbench.record.outcome import Outcome
from loadbench.record.recorder import Recorder
from loadbench.record.request import Request
from loadbench.wire.openai import Api
from loadbench.wire.response_reader import ResponseReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from loadbench.client.transport import HttpRequest
    from loadbench.sim.truth import Pace

# Longer than any measurement: its window must not close before ours does.
_FOR_EVER = LevelDuration(duration_ns=3600 * 10**9)


def exchange_for(url: str, pace: Pace) -> HttpRequest:
    """The same request as it goes over the wire."""
    endpoint = Endpoint(base_url=f"{url}/v1", model="truth")
    return endpoint.http_request(endpoint.body(user_message(pace.prompt), pace.events))


class Counts(Protocol):
    """How far it is: complete answers, and events, those of unfinished answers too."""

    @property
    def answers(self) -> int:
        """Complete ones."""
        ...

    def events(self) -> int:
        """Events so far."""
        ...


class Candidate(Counts, Protocol):
    """Asks, and counts."""

    async def ask(self) -> None:
        """One answer; raises if it is not whole."""
        ...

    def streaming(self) -> int:
        """Unfinished answers that have had an event."""
        ...


class Loadbench:
    """Our client over our transport, with or without the recorder."""

    def __init__(self, url: str, pace: Pace, *, recorded: bool = False) -> None:
        self.answers = 0
        self._done = 0
        self._pace = pace
        endpoint = Endpoint(base_url=f"{url}/v1", model="truth")
        self._client = Client(endpoint, FastTransport(), clock=MonotonicClock(), timeouts=Timeouts())
        self._recorder = Recorder(Phases(_FOR_EVER, time.perf_counter_ns())) if recorded else None

    async def ask(self) -> None:
        now_ns, pace = time.perf_counter_ns(), self._pace
        request = Request(number=self.answers, phase=Phase.MEASURED, due_ns=now_ns, max_tokens=pace.events)
        if self._recorder is not None:
            self._recorder.started(time.perf_counter_ns(), request)
        sample = await self._client.send(request, self._client.body_of(pace.prompt, pace.events))
        if self._recorder is not None:
            self._recorder.add(sample)
        if sample.outcome is not Outcome.OK:
            raise RuntimeError(f"{sample.outcome}: {sample.detail}")
        self.answers += 1
        self._done += len(sample.event_ns)

    def events(self) -> int:
        return self._done + self._client.tokens_seen

    def streaming(self) -> int:
        return sum(bool(call.reader.event_ns) for call in self._client._calls)


class Prepared:
    """The bare transport: the same bytes again and again, nothing done with the answer."""

    def __init__(self, url: str, pace: Pace) -> None:
        self.answers = 0
        self._pace = pace
        self._exchange = exchange_for(url, pace)
        self._transport = FastTransport()

    async def ask(self) -> None:
        await self._transport.exchange(self._exchange, _NOTHING)
        self.answers += 1

    def events(self) -> int:
        return self.answers * self._pace.events

    def streaming(self) -> int:
        return 0


class _Nothing:
    """A sink that does nothing."""

    def reconnecting(self) -> None: ...

    def connected(self, at_ns: int, *, reused: bool, connect_ns: int | None, **_: object) -> None: ...

    def sent(self, at_ns: int) -> None: ...

    def headers(self, at_ns: int, status: int, headers: object) -> None: ...

    def data(self, at_ns: int, chunk: bytes) -> None: ...


_NOTHING = _Nothing()


class _Pulling:
    """A client whose answer is an iterator that is awaited; what it yields is stamped there and goes to our parser."""

    def __init__(self, url: str, pace: Pace) -> None:
        self.answers = 0
        self._done = 0
        self._pace = pace
        self._exchange = exchange_for(url, pace)
        self._live: set[ResponseReader] = set()

    def _chunks(self) -> AsyncIterator[bytes]:
        raise NotImplementedError

    async def ask(self) -> None:
        await self.read(None)

    async def read(self, parts: list[bytes] | None) -> tuple[int, ResponseReader]:
        """One answer and when it was asked for; its bytes are added to `parts` if there are to be any."""
        answer = ResponseReader(Api.CHAT)
        self._live.add(answer)
        sent_ns = time.perf_counter_ns()
        async for chunk in self._chunks():
            answer.feed(time.perf_counter_ns(), chunk)
            if parts is not None:
                parts.append(chunk)
        self._live.discard(answer)
        answer.close(time.perf_counter_ns())
        if answer.outcome()[0] is not Outcome.OK:
            raise RuntimeError(str(answer.outcome()))
        self.answers += 1
        self._done += len(answer.event_ns)
        return sent_ns, answer

    def events(self) -> int:
        return self._done + sum(len(answer.event_ns) for answer in self._live)

    def streaming(self) -> int:
        return sum(bool(answer.event_ns) for answer in self._live)


class Httpx(_Pulling):
    """httpx.AsyncClient, `aiter_raw`."""

    def __init__(self, url: str, pace: Pace) -> None:
        super().__init__(url, pace)
        none = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.AsyncClient(timeout=None, limits=none)

    async def _chunks(self) -> AsyncIterator[bytes]:
        exchange = self._exchange
        async with self._client.stream(
            exchange.method, exchange.url, content=exchange.body, headers=dict(exchange.headers)
        ) as response:
            async for chunk in response.aiter_raw():
                yield chunk


class StockHttpx(Httpx):
    """httpx as people read streams with it: `aiter_lines`, the JSON of each line, and the time of each text."""

    def __init__(self, url: str, pace: Pace) -> None:
        super().__init__(url, pace)
        self._texts: dict[int, list[int]] = {}

    async def ask(self) -> None:
        exchange, stamps = self._exchange, list[int]()
        self._texts[id(stamps)] = stamps
        async with self._client.stream(
            exchange.method, exchange.url, content=exchange.body, headers=dict(exchange.headers)
        ) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    choices = orjson.loads(line[6:])["choices"]
                    if choices and choices[0]["delta"].get("content"):
                        stamps.append(time.perf_counter_ns())
        del self._texts[id(stamps)]
        if len(stamps) != self._pace.events:
            raise RuntimeError(f"{len(stamps)} events instead of {self._pace.events}")
        self.answers += 1
        self._done += len(stamps)

    def events(self) -> int:
        return self._done + sum(map(len, self._texts.values()))

    def streaming(self) -> int:
        return sum(map(bool, self._texts.values()))


class Aiohttp(_Pulling):
    """aiohttp.ClientSession, `iter_any`."""

    def __init__(self, url: str, pace: Pace) -> None:
        import aiohttp  # noqa: PLC0415 - the other candidates shall not carry its memory

        super().__init__(url, pace)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )

    async def _chunks(self) -> AsyncIterator[bytes]:
        exchange = self._exchange
        async with self._session.post(exchange.url, data=exchange.body, headers=dict(exchange.headers)) as response:
            async for chunk in response.content.iter_any():
                yield chunk


def make(name: str, url: str, pace: Pace) -> Candidate:
    """The candidate of this name; within a running event loop."""
    match name:
        case "loadbench" | "recorded":
            return Loadbench(url, pace, recorded=name == "recorded")
        case "prepared":
            return Prepared(url, pace)
        case "httpx":
            return Httpx(url, pace)
        case "stock httpx":
            return StockHttpx(url, pace)
        case "aiohttp":
            return Aiohttp(url, pace)
        case _:
            raise ValueError(f"no candidate {name!r}")
