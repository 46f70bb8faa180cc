"""One level: a load, kept up through warm-up, window and cool-down, then drained.

    begin       window opens            window closes          load ends           all answered, or cut
      |-- warm-up --|------ measured -------|---- cool-down ------|------ drain ------|

The level lends the loops what they need (the clock, admission, firing) and keeps the time. What it measures goes to the
recorder, sample by sample, and to whoever else wants each sample as it ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, assert_never

import anyio

from loadbench.client.client import Request
from loadbench.engine.loops import closed, open_loop
from loadbench.plan.conversation import Turn
from loadbench.plan.load import WHOLE, Closed, LevelDuration, Load, Open, Phase, Phases, Shard
from loadbench.record.outcome import Outcome
from loadbench.record.recorder import LevelRecording, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.client.client import Client
    from loadbench.core.clock import Clock
    from loadbench.engine.health import HealthProbe
    from loadbench.plan.objective import Objective
    from loadbench.plan.prompts import Prompt, PromptSource
    from loadbench.record.sample import Sample

# Requests in flight that an open loop may build up before it calls arrivals missed; the file-descriptor limit
# usually says less.
MOST_IN_FLIGHT = 10_000
_LEAD_NS = 300_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelPlan:
    """What one level does. `ramp_ns` spreads the first requests of a closed loop's users."""

    load: Load
    extent: LevelDuration
    prompts: PromptSource
    max_tokens: int
    seed: int = 0
    ramp_ns: int = 0
    most_in_flight: int = MOST_IN_FLIGHT
    shard: Shard = WHOLE
    objectives: tuple[Objective, ...] = ()
    keep_answers: bool = False
    warm: bool = False  # whether all prompts begin alike
    template_tokens: int = 0  # that the server adds to each, as far as that is known


def _lead_ns(load: Load) -> int:
    """From now to the level's beginning: what is measured from its first request on needs time to get under way."""
    return _LEAD_NS if isinstance(load, Open) and load.begins_empty else 0


class PreparedRequest(NamedTuple):
    """A request before it is due."""

    number: int
    user: int | None
    prompt: Prompt
    max_tokens: int
    body: bytes
    turn: Turn | None = None


class RequestSink(Protocol):
    """Who is told of each request: a recorder, or a worker's outbox."""

    in_flight: int

    def started(self, at_ns: int, ask: Request) -> None:
        """A request is on its way."""
        ...

    def add(self, sample: Sample) -> None:
        """A request has ended."""
        ...


class Level:
    """One level, run once."""

    def __init__(
        self,
        plan: LevelPlan,
        *,
        client: Client,
        clock: Clock,
        health: HealthProbe,
        on_sample: Callable[[Sample], None] = lambda _: None,
        on_start: Callable[[Request], None] = lambda _: None,
        begin_ns: int | None = None,
        recorder: RequestSink | None = None,
    ) -> None:
        self.plan = plan
        self.begin_ns = clock.now_ns() + _lead_ns(plan.load) if begin_ns is None else begin_ns
        self.phases = Phases(plan.extent, self.begin_ns)
        self.done = self.failed = self.tokens = self.missed = 0
        self.due = 0
        self._own = Recorder(self.phases, plan.objectives, template_tokens=plan.template_tokens)
        self._recorder: RequestSink = self._own if recorder is None else recorder
        self._client = client
        self._clock = clock
        self._health = health
        self._on_sample = on_sample
        self._on_start = on_start
        self._over = anyio.Event()
        self._interrupted = False

    async def run(self) -> LevelRecording:
        """Keep the load up to its end, drain, and return what was recorded by the level's own recorder."""
        await self.keep()
        closes_ns = self.phases.closes_ns
        assert closes_ns is not None  # noqa: S101 - the load ends by closing the window
        return self._own.close(
            window=(self.phases.opens_ns, closes_ns),
            arrivals_due=self.due,
            missed=self.missed,
            interrupted=self._interrupted,
            health=self._health.close(),
        )

    async def keep(self) -> None:
        """Keep the load up to its end, and drain."""
        async with self._health.watching(), anyio.create_task_group() as keepers:
            keepers.start_soon(self._keep_time)
            await self._keep_load()
            keepers.cancel_scope.cancel()

    async def _keep_load(self) -> None:
        match self.plan.load:
            case Closed() as load:
                await closed(self, load, ramp_ns=self.plan.ramp_ns, seed=self.plan.seed, shard=self.plan.shard)
            case Open() as load:
                await open_loop(self, load, seed=self.plan.seed, shard=self.plan.shard)
            case _ as never:
                assert_never(never)

    async def _keep_time(self) -> None:
        """End the load when it is time, give the drain its time, then cut what is left."""
        ends_ns = self.phases.load_ends_ns
        if ends_ns is None:
            await self._over.wait()
        else:
            await self._clock.sleep_until(ends_ns, self._over)
            self._over.set()
        await self._clock.sleep_until(self._clock.now_ns() + self.plan.extent.drain_ns, anyio.Event())
        self._client.cut(Outcome.ABANDONED)

    def stop(self) -> None:
        """End the load now and close the window; what is in flight is drained. Asked again: cut that too."""
        if self._interrupted:
            self._client.cut(Outcome.CANCELLED)
        self._interrupted = True
        self.phases.close(self._clock.now_ns())
        self._over.set()

    def finish(self, *, cut: bool) -> None:
        """End the load and close the window, for what was to be seen has been. What is in flight is drained, or cut."""
        self.phases.close(self._clock.now_ns())
        self._over.set()
        if cut:
            self._client.cut(Outcome.CANCELLED)

    # What the loops use.

    async def until(self, due_ns: int) -> bool:
        """Wait for the moment; false when the load is over before it comes."""
        return await self._clock.sleep_until(due_ns, self._over)

    def is_overdue(self, due_ns: int) -> bool:
        """Whether a request that was due inside the load, by time, has not been sent though the load is over."""
        ends_ns = self.phases.load_ends_ns
        return not self._interrupted and ends_ns is not None and due_ns < ends_ns

    def draft(self, number: int, user: int | None = None) -> PreparedRequest:
        """Request `number` of the level, made before it is due, so that it can leave the moment that it is."""
        prompt = self.plan.prompts.next(number, user)
        max_tokens = prompt.output_tokens or self.plan.max_tokens
        body = self._client.prepare(prompt.text, max_tokens)
        return PreparedRequest(
            number, user, prompt, max_tokens, body, None if prompt.turns is None else Turn(of=prompt.turns)
        )

    def continue_conversation(self, draft: PreparedRequest, before: PreparedRequest, sample: Sample) -> PreparedRequest:
        """The draft as the next turn of the conversation that `before` was a turn of, if that goes on."""
        if before.turn is None or sample.outcome is not Outcome.OK:
            return draft
        turn = before.turn.after(before.prompt.text, sample.answer)
        if turn is None:
            return draft
        body = self._client.prepare(draft.prompt.text, draft.max_tokens, said=turn.said)
        return draft._replace(turn=turn, body=body)

    def admit(self, due_ns: int, draft: PreparedRequest) -> Request | None:
        """The request, due now; `None` once the load is over."""
        phase = self.phases.admit(due_ns)
        if phase is None:
            self._over.set()
            return None
        self.due += phase is Phase.MEASURED
        prompt, turn = draft.prompt, draft.turn
        grown = turn is not None and turn.number > 1
        return Request(
            number=draft.number,
            phase=phase,
            due_ns=due_ns,
            prompt=prompt.text,
            max_tokens=draft.max_tokens,
            # How long it has grown to only the server knows.
            asked_input_tokens=None if grown else prompt.asked_tokens,
            user=draft.user,
            body=draft.body,
            keep_answer=self.plan.keep_answers or (turn is not None and turn.goes_on),
            prompt_index=None if grown else prompt.position,
            persona=prompt.persona,
            turn=None if turn is None else turn.number,
            warm=grown or prompt.warm or self.plan.warm,
        )

    async def send(self, ask: Request) -> Sample:
        """Make the request and record it."""
        self._recorder.started(self._clock.now_ns(), ask)
        self._on_start(ask)
        sample = await self._client.send(ask)
        self._recorder.add(sample)
        self.done += 1
        self.failed += sample.outcome.failed
        self.tokens += sample.output_tokens or 0
        self._on_sample(sample)
        return sample

    @property
    def has_room(self) -> bool:
        """Whether one more request may be in flight."""
        return self.in_flight < self.plan.most_in_flight

    def skip(self, due_ns: int) -> bool:
        """Count an arrival that is another worker's; false if it is beyond the load, whose end is to be waited for."""
        ends_ns = self.phases.load_ends_ns
        if (ends_ns is not None and due_ns >= ends_ns) or self.phases.remaining == 0:
            return False
        self.phases.admit(due_ns)
        return True

    def miss(self, ask: Request) -> None:
        """This request was due and is not made."""
        self.missed += ask.phase is Phase.MEASURED

    # What the progress line reads.

    @property
    def label(self) -> str:
        """The load in a few characters."""
        return self.plan.load.label

    @property
    def extent(self) -> LevelDuration:
        """How long the level goes on."""
        return self.plan.extent

    @property
    def measured_left(self) -> int | None:
        """Requests still to be measured, in a level by number."""
        return self.phases.remaining

    @property
    def in_flight(self) -> int:
        """Requests made and not yet ended."""
        return self._recorder.in_flight

    @property
    def now_ns(self) -> int:
        """The run's clock."""
        return self._clock.now_ns()

    @property
    def tokens_so_far(self) -> int:
        """Output tokens received, those of unfinished answers counted by event."""
        return self.tokens + self.tokens_under_way

    @property
    def tokens_under_way(self) -> int:
        """Events of the answers that are not finished."""
        return self._client.tokens_seen
