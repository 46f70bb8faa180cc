"""Two ways to have one request answered wrongly: by the fault server over sockets, and frame by frame in virtual time.

`faulty` asks a fault server, in the event loop of the test, through the real client and either transport. `played`
runs the same client over a script whose every byte has its nanosecond, so that figures can be asserted exactly.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import anyio
import orjson

from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.client.fast_transport import FastTransport
from loadbench.client.httpx_transport import HttpxTransport
from loadbench.core.clock import MonotonicClock
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.plan.load import Phase
from loadbench.record.request import Request
from loadbench.wire.openai import Api
from loadbench.wire.response_reader import ResponseReader
from tests.faults.server import FaultServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadbench.client.transport import HttpRequest, Sink
    from loadbench.record.sample import Sample

MS = 1_000_000
S = 1_000_000_000
KINDS = ("fast", "httpx")
CLOCK = MonotonicClock()
# Far above what a loaded machine needs.
SOON = Timeouts(connect_ns=10 * S, first_token_ns=10 * S, idle_ns=10 * S, total_ns=30 * S)
DONE = b"data: [DONE]\n\n"
STREAM = [(b"content-type", b"text/event-stream")]


async def ask(
    client: Client, prompt: str = "Hello?", *, number: int = 0, max_tokens: int = 8, due_ns: int | None = None
) -> Sample:
    """Send a request that is due now, or then."""
    due_ns = CLOCK.now_ns() if due_ns is None else due_ns
    request = Request(number=number, phase=Phase.MEASURED, due_ns=due_ns, max_tokens=max_tokens)
    return await client.send(request, client.body_of(prompt, max_tokens))


# Over sockets.


def transport_of(kind: str) -> FastTransport | HttpxTransport:
    """A transport of the kind."""
    return HttpxTransport(CLOCK) if kind == "httpx" else FastTransport()


def faulty(
    *names: str, kind: str = "fast", speed: float = 20, tokens: int = 8, pause_s: float = 0.0, timeouts: Timeouts = SOON
) -> list[Sample]:
    """Ask for these faults, one after another, over one transport; `timeouts` are those of the first."""

    async def main() -> list[Sample]:
        async with FaultServer(speed=speed) as server:
            transport = transport_of(kind)
            client, later = client_of(server, transport, timeouts=timeouts), client_of(server, transport)
            try:
                samples = []
                for number, name in enumerate(names):
                    asking = later if number else client
                    samples.append(await ask(asking, f"fault:{name}", number=number, max_tokens=tokens))
                    await asyncio.sleep(pause_s)
                assert [server.requests[name] for name in names] == [names.count(name) for name in names]
                assert server.errors == []
                return samples
            finally:
                await transport.aclose()

    return asyncio.run(main())


def client_of(server: FaultServer, transport: FastTransport | HttpxTransport, *, timeouts: Timeouts = SOON) -> Client:
    """A client of the server."""
    return Client(Endpoint(base_url=server.url + "/v1", model="m"), transport, clock=CLOCK, timeouts=timeouts)


# In virtual time.


class Played:
    """`loadbench.client.transport.Transport` that plays (moment in ns, bytes), counted from the request's sending."""

    def __init__(self, clock: VirtualClock, script: Iterable[tuple[int, bytes]], *, headers_ns: int = 0) -> None:
        self._clock = clock
        self._script = list(script)
        self._headers_ns = headers_ns

    async def exchange(self, exchange: HttpRequest, sink: Sink) -> None:
        """Play it; the body ends with the last bytes."""
        sent_ns = self._clock.now_ns()
        sink.connected(sent_ns, reused=True, connect_ns=None)
        sink.sent(sent_ns)
        await self._until(sent_ns + self._headers_ns)
        sink.headers(self._clock.now_ns(), 200, STREAM)
        for at_ns, data in self._script:
            await self._until(sent_ns + at_ns)
            sink.data(self._clock.now_ns(), data)

    async def _until(self, at_ns: int) -> None:
        await self._clock.sleep_until(at_ns, anyio.Event())

    async def aclose(self) -> None:
        """Nothing to close."""


def played(*script: tuple[int, bytes], headers_ns: int = 0, max_tokens: int = 1000) -> Sample:
    """What the client makes of an answer that comes like this; asked, due and sent at 0."""

    async def main() -> Sample:
        clock = VirtualClock()
        transport = Played(clock, script, headers_ns=headers_ns)
        patient = Timeouts(connect_ns=None, first_token_ns=None, idle_ns=None, total_ns=None)
        client = Client(Endpoint(base_url="http://played/v1", model="m"), transport, clock=clock, timeouts=patient)
        return await ask(client, max_tokens=max_tokens, due_ns=0)

    return run_virtual(main)


def read(chunks: Iterable[bytes], *, keep_text: bool = True) -> ResponseReader:
    """An answer that came in these reads, a millisecond apart."""
    answer, at_ns = ResponseReader(Api.CHAT, keep_text=keep_text), 0
    for chunk in chunks:
        at_ns += MS
        answer.feed(at_ns, chunk)
    answer.close(at_ns)
    return answer


# What a server sends.


def frame(document: object) -> bytes:
    """An event with this JSON."""
    return b"data: " + orjson.dumps(document) + b"\n\n"


def delta(finish: str | None = None, *, choice: dict[str, Any] | None = None, usage: Any = None, **parts: Any) -> bytes:
    """A frame with one choice of these parts."""
    made = {"index": 0, "delta": parts, "finish_reason": finish, **(choice or {})}
    return frame({"model": "m", "choices": [made], **({} if usage is None else {"usage": usage})})


def token(text: str = "x", **more: Any) -> bytes:
    """A frame with text."""
    return delta(content=text, **more)


def counted(tokens: int, *, prompt: int = 7, **more: Any) -> dict[str, Any]:
    """A usage."""
    return {"prompt_tokens": prompt, "completion_tokens": tokens, **more}


def usage(tokens: int, **more: Any) -> bytes:
    """A frame of usage alone."""
    return frame({"model": "m", "choices": [], "usage": counted(tokens, **more)})


def end(tokens: int | None = None) -> bytes:
    """How an answer ends; with its usage, if given."""
    return delta("stop") + (b"" if tokens is None else usage(tokens)) + DONE


def evenly(count: int, *, first_ns: int = 100 * MS, gap_ns: int = 10 * MS) -> list[tuple[int, bytes]]:
    """So many tokens, one an event."""
    return [(first_ns + number * gap_ns, token(f"w{number} ")) for number in range(count)]


def gaps(stamps: Sequence[int]) -> list[int]:
    """The differences."""
    return [later - earlier for earlier, later in itertools.pairwise(stamps)]
