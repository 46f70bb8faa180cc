"""A server in a few lines for virtual time, and what it takes to run a level against it.

It is a queue of so many workers who each serve in a fixed time, first come, first served: by the theory of queues the
moment of everything is known in advance. Each request may be told to fail, to stall or to connect slowly instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import orjson

from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.client.transport import TransportError
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine.level import Level, LevelPlan
from loadbench.plan.load import LevelDuration
from loadbench.plan.prompts import Prompt
from loadbench.record.request import ONLY_DESTINATION
from loadbench.targets.openai import first_response
from tests.engine.no_health import NoHealth

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from loadbench.client.transport import HttpRequest, Sink
    from loadbench.core.clock import Clock
    from loadbench.plan.load import Load
    from loadbench.record.outcome import Outcome
    from loadbench.record.recorder import LevelRecording
    from loadbench.record.request import Destination
    from loadbench.record.sample import Sample

MS = 1_000_000
S = 1_000_000_000
URL = "http://scripted/v1"
PATIENT = Timeouts(connect_ns=None, first_token_ns=None, idle_ns=None, total_ns=None)
_STREAM = [(b"content-type", b"text/event-stream")]
_TOKEN = b'data: {"choices":[{"delta":{"content":"x"}}],"model":"m"}\n\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """How one request is served; times in ns. The service takes `first_ns + (tokens - 1) * gap_ns`."""

    connect_ns: int = 0
    first_ns: int = 100 * MS
    gap_ns: int = 0
    tokens: int = 1
    stalls_after: int | None = None  # so many tokens, and then nothing ever
    status: int = 200
    breaks: Outcome | None = None  # in place of the end


class Scripted:
    """`loadbench.client.transport.Transport` whose requests are served by `workers`, each as its `act` says.

    With `unseen` a request that waits for a worker has no connection yet: the server is slow to accept.
    """

    def __init__(
        self, clock: Clock, act: Callable[[int], Act], *, workers: int = 1_000_000, unseen: bool = False
    ) -> None:
        self.taken = self.dropped = 0
        self._clock = clock
        self._act = act
        self._workers = anyio.Semaphore(workers)
        self._unseen = unseen

    async def exchange(self, exchange: HttpRequest, sink: Sink) -> None:
        """Serve one request."""
        act = self._act(self.taken)
        self.taken += 1
        if not self._unseen:
            await self._connect(act, sink)
        try:
            async with self._workers:
                if self._unseen:
                    await self._connect(act, sink)
                await self._serve(act, sink, max_tokens=orjson.loads(exchange.body)["max_tokens"])
        except anyio.get_cancelled_exc_class():
            self.dropped += 1
            raise

    async def _connect(self, act: Act, sink: Sink) -> None:
        await self._pass(act.connect_ns)
        sink.connected(self._clock.now_ns(), reused=False, connect_ns=act.connect_ns)
        sink.sent(self._clock.now_ns())

    async def _serve(self, act: Act, sink: Sink, *, max_tokens: int) -> None:
        if act.status != 200:
            await self._pass(act.first_ns)
            sink.headers(self._clock.now_ns(), act.status, [(b"content-type", b"application/json")])
            sink.data(self._clock.now_ns(), b'{"error":{"message":"no"}}')
            return
        if not act.tokens:
            await self._pass(act.first_ns)
        for number in range(min(act.tokens, max_tokens)):
            if number == act.stalls_after:
                await anyio.sleep_forever()
            await self._pass(act.gap_ns if number else act.first_ns)
            if number == 0:
                sink.headers(self._clock.now_ns(), 200, _STREAM)
            last = number == min(act.tokens, max_tokens) - 1 and act.breaks is None
            sink.data(self._clock.now_ns(), _TOKEN + _end(number + 1) * last)
        if act.breaks is not None:
            raise TransportError(act.breaks, "as scripted")

    async def _pass(self, ns: int) -> None:
        await self._clock.sleep_until(self._clock.now_ns() + ns, anyio.Event())

    async def aclose(self) -> None:
        """Nothing to close."""


def _end(tokens: int) -> bytes:
    usage = b'"usage":{"prompt_tokens":7,"completion_tokens":%d}' % tokens
    finish = b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\n'
    return finish + b'data: {"choices":[],' + usage + b"}\n\ndata: [DONE]\n\n"


class ScriptedSession:
    """`loadbench.engine.target.TargetSession` in virtual time; `client` makes the client of a model."""

    workers = None
    server = None
    health = NoHealth
    swaps_models = False
    mix = ()

    def __init__(
        self,
        clock: Clock,
        client: Callable[[str], Client],
        *,
        counters: Callable[[], Awaitable[dict[str, float] | None]] | None = None,
        settled: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self.clock = clock
        self.client = client
        self.made_ready: list[str] = []
        self._counters = counters
        self._settled = settled

    async def counters(self) -> list[dict[str, float]] | None:
        """As scripted, or none."""
        page = None if self._counters is None else await self._counters()
        return None if page is None else [page]

    async def ready(self, model: str) -> None:
        """Every model is."""
        self.made_ready.append(model)

    async def exact_lengths(self, model: str, destination: Destination = ONLY_DESTINATION) -> None:
        """They are not wanted."""

    async def first_response(
        self, model: str, *, prompt: str, max_tokens: int, destination: Destination = ONLY_DESTINATION
    ) -> Sample:
        """Nothing is refused here."""
        return await first_response(self.client(model), prompt=prompt, max_tokens=max_tokens, destination=destination)

    async def settled(self, closes_ns: int) -> None:
        """As scripted, or at once."""
        if self._settled is not None:
            await self._settled(closes_ns)


class SameWords:
    """Every request asks with the same three words."""

    def next(self, number: int, user: int | None) -> Prompt:
        """Always this."""
        return Prompt("three short words")

    def calibration_prompts(self) -> list[Prompt]:
        """This, once."""
        return [self.next(0, None)]

    def calibrate(self, tokens: object) -> None:
        """Nothing to find out."""


@dataclass
class Ran:
    """What a level left behind."""

    recording: LevelRecording
    samples: list[Sample] = field(default_factory=list)
    begin_ns: int = 0
    end_ns: int = 0
    taken: int = 0

    def by_number(self) -> list[Sample]:
        """The samples in the order of their requests."""
        return sorted(self.samples, key=lambda sample: sample.number)


def run_scripted(
    load: Load,
    act: Act | Callable[[int], Act],
    *,
    workers: int = 1_000_000,
    unseen: bool = False,
    timeouts: Timeouts = PATIENT,
    clock: Callable[[], Clock] = VirtualClock,
    during: Callable[[Level], Awaitable[None]] | None = None,
    plan: dict[str, Any] | None = None,
    **extent: int,
) -> Ran:
    """One level in virtual time. `during` runs beside it; `extent` and `plan` are its settings."""

    async def main() -> Ran:
        time = clock()
        script = act if callable(act) else lambda _: act
        transport = Scripted(time, script, workers=workers, unseen=unseen)
        client = Client(Endpoint(base_url=URL, model="m"), transport, clock=time, timeouts=timeouts)
        ran = await run_level(client, load, clock=time, during=during, plan=plan, **extent)
        ran.taken = transport.taken
        return ran

    return run_virtual(main)


async def run_level(
    client: Client,
    load: Load,
    *,
    clock: Clock,
    during: Callable[[Level], Awaitable[None]] | None = None,
    plan: dict[str, Any] | None = None,
    **extent: int,
) -> Ran:
    """One level with this client, and what came of it."""
    samples: list[Sample] = []
    settings = {"prompts": SameWords(), "max_tokens": 1000} | (plan or {})
    level_plan = LevelPlan(load=load, duration=LevelDuration(**extent), **settings)
    level = Level(level_plan, client=client, clock=clock, health=NoHealth(), on_sample=samples.append)
    async with anyio.create_task_group() as beside:
        if during is not None:
            beside.start_soon(during, level)
        recording = await level.run()
    return Ran(recording, samples, begin_ns=level.begin_ns, end_ns=clock.now_ns())


def fire_one(act: Act, *, timeouts: Timeouts = PATIENT) -> Sample:
    """One request alone, asked and due at 0."""

    async def main() -> Sample:
        clock = VirtualClock()
        transport = Scripted(clock, lambda _: act)
        client = Client(Endpoint(base_url=URL, model="m"), transport, clock=clock, timeouts=timeouts)
        return await client.send_prompt("x", max_tokens=1000)

    return run_virtual(main)
