"""One level: a load that is kept up through warm-up, window and cool-down, and then drained.

    begin       window opens            window closes          load ends           all answered, or cut
      |-- warm-up --|------ measured -------|---- cool-down ------|------ drain ------|

Two plain loops make requests due, each by its own rule. Both keep absolute schedules: a late request does not delay
those that follow. A request that becomes due is admitted to a phase, or the load is over and the loop ends. Every
sample goes to the recorder as it ends, and to the level's observers.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, Protocol, assert_never

import anyio
import anyio.lowlevel

from loadbench.core.units import NS_PER_S
from loadbench.engine.level_length import LOOK_NS, LevelLength
from loadbench.plan.conversation import Turn
from loadbench.plan.distribution import Constant
from loadbench.plan.load import MAX_IN_FLIGHT, WHOLE, Closed, LevelDuration, Load, Open, Phase, Phases, Shard
from loadbench.plan.prompt_source import given_prompts, prompt_source, word_prompts
from loadbench.plan.shares import UNMIXED, Rotation
from loadbench.plan.traces import Replayed, TracePrompts
from loadbench.record.outcome import Outcome
from loadbench.record.recorder import LevelRecording, Recorder
from loadbench.record.request import ONLY_DESTINATION, Destination, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.client.client import Client
    from loadbench.core.clock import Clock
    from loadbench.engine.health import HealthProbe
    from loadbench.engine.lease import Lease
    from loadbench.plan.abandonment import Abandonment, Patience
    from loadbench.plan.objective import Objective
    from loadbench.plan.prompts import Calibration, Prompt, PromptSource
    from loadbench.plan.scenario import Scenario
    from loadbench.record.recorder import SoFar
    from loadbench.record.sample import Sample

# From now to the beginning of a trace, which is measured from its first request: time to prepare that.
_LEAD_NS = 300_000_000
# From one failed request of a user to the next: a server that refuses at once must not get thousands a second.
_RETRY_NS = 100_000_000
# A user's task and first request are made so long before it starts, or up to twice as long. All at the beginning, those
# of 10,000 users would hold up the loop for a second, and need more memory than their streams do later.
_READY_NS = 100_000_000
# Think times from which one is drawn by its length.
_DRAWS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelSpec:
    """What sets one level of a run apart. A worker process makes the same level of it.

    `key` sets its prompts apart from those of other levels. What is `None` is as the scenario says: `duration`, the
    `seed` of arrivals and think times, and `ramp_ns`, over which a closed loop's users start. With `patient` no user
    gives up, whatever the scenario says. With `thinks_first` each user starts in the middle of a think time, as if the
    load had been there for long: users who start with a request make more load at first than later.
    """

    load: Load
    key: str
    calibration: Calibration | None = None
    duration: LevelDuration | None = None
    seed: int | None = None
    ramp_ns: int | None = None
    patient: bool = False
    thinks_first: bool = False
    further: tuple[Calibration | None, ...] = ()  # of a mix's other models

    @property
    def template_tokens(self) -> int:
        """Tokens that the server's chat template adds to each prompt at most; 0 where that is not known."""
        known = [one for one in (self.calibration, *self.further) if one is not None and not one.foreign]
        return max((one.overhead_tokens for one in known), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelPlan:
    """All that a level, or a worker's part of it, needs to know. `warm`: all prompts begin alike. `further` has the
    prompts for a mix's other models."""

    load: Load
    duration: LevelDuration
    prompts: PromptSource
    max_tokens: int
    further: tuple[PromptSource, ...] = ()
    rotation: Rotation = UNMIXED
    seed: int = 0
    ramp_ns: int = 0
    thinks_first: bool = False
    most_in_flight: int = MAX_IN_FLIGHT
    shard: Shard = WHOLE
    objectives: tuple[Objective, ...] = ()
    keep_texts: bool = False
    warm: bool = False
    plays_turns: bool = True
    template_tokens: int = 0
    abandon: Abandonment | None = None
    abandon_key: str = ""  # by which the users who give up are drawn


def level_plan(
    scenario: Scenario, spec: LevelSpec, shard: Shard = WHOLE, *, given: Sequence[Prompt] | None = None
) -> LevelPlan:
    """The plan of a level, or of a worker's part of it. A worker has the `given` prompts from the main process."""
    load, duration, work, target = spec.load, spec.duration or scenario.extent, scenario.work, scenario.target
    replayed = load.arrivals if isinstance(load, Open) and isinstance(load.arrivals, Replayed) else None

    def prompts(calibration: Calibration | None) -> PromptSource:
        if replayed is not None:
            words = word_prompts(work, Constant(1), key=spec.key, calibration=calibration)
            return TracePrompts(replayed.trace, words, time_scale=replayed.time_scale)
        return prompt_source(work, key=spec.key, calibration=calibration, given=given)

    rotation = Rotation.begin(
        [share.weight for share in target.mix_models or ()] or [1.0],
        len(target.url or ()) or 1,
        key=f"{work.seed}/{spec.key}",
        prompts=0 if replayed is not None else len(given_prompts(work) if given is None else given),
        users=load.users if isinstance(load, Closed) else 1,
    )
    ramp_ns = scenario.load.ramp or 0 if spec.ramp_ns is None else spec.ramp_ns
    return LevelPlan(
        load=load,
        duration=duration,
        prompts=prompts(spec.calibration),
        further=tuple(prompts(calibration) for calibration in spec.further),
        rotation=rotation,
        max_tokens=work.max_tokens,
        seed=work.seed if spec.seed is None else spec.seed,
        ramp_ns=min(ramp_ns, duration.warm_up_ns),
        thinks_first=spec.thinks_first,
        most_in_flight=max(1, shard.share(scenario.load.max_in_flight)),
        shard=shard,
        objectives=scenario.objectives_at(load),
        keep_texts=scenario.keeps_answers,
        # The system message is the same for all, and a server may have it cached.
        warm=work.system is not None,
        plays_turns=scenario.plays_turns,
        template_tokens=spec.template_tokens,
        abandon=None if spec.patient else scenario.load.abandon,
        abandon_key=f"{scenario.work.seed}/{spec.key}",
    )


class PreparedRequest(NamedTuple):
    """A request before it is due, with its body, so that it can be sent at the moment that it is due. `place` is that
    in its user's rotation of models and servers, in which a whole conversation has one place."""

    number: int
    user: int | None
    prompt: Prompt
    max_tokens: int
    body: bytes
    turn: Turn | None = None
    patience: Patience | None = None
    destination: Destination = ONLY_DESTINATION
    place: int = 0


class RequestSink(Protocol):
    """Takes each request as it starts and ends: a recorder, or a worker's outbox."""

    in_flight: int

    def started(self, at_ns: int, request: Request) -> None:
        """A request is in flight from now on."""
        ...

    def add(self, sample: Sample) -> None:
        """A request has ended."""
        ...


class Level:
    """One level, run once. `begin_ns` and `sink` are given by a worker, which runs one part of a level; the bounds of
    the window are then moved from outside."""

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
        sink: RequestSink | None = None,
    ) -> None:
        if begin_ns is None:
            begins_empty = isinstance(plan.load, Open) and plan.load.begins_empty
            begin_ns = clock.now_ns() + (_LEAD_NS if begins_empty else 0)
        self.plan = plan
        self.label, self.load, self.duration = plan.load.label, plan.load, plan.duration
        self.begin_ns = begin_ns
        self.phases = Phases(plan.duration, begin_ns)
        self.done = self.failed = self.gave_up = self.tokens = self.due = self.missed = 0
        self.failures: Counter[Outcome] = Counter()
        self.length = LevelLength(self.phases, plan.duration, plan.load)
        self._decides_length = sink is None
        self._recorder = Recorder(self.phases, plan.objectives, template_tokens=plan.template_tokens)
        self._sink: RequestSink = self._recorder if sink is None else sink
        self._client = client
        self._prompts = (plan.prompts, *plan.further)
        self._clock = clock
        self._health = health
        self._on_sample = on_sample
        self._on_start = on_start
        self.lease: Lease | None = None  # of a worker that shares a number of requests with others elsewhere
        self._over = anyio.Event()
        self._interrupted = False

    async def run(self) -> LevelRecording:
        """Run the load to its end, drain, and return what the level's own recorder has."""
        await self.run_load()
        closes_ns = self.phases.closes_ns
        assert closes_ns is not None  # noqa: S101 - the load ends by closing the window
        return self._recorder.close(
            window=(self.phases.opens_ns, closes_ns),
            arrivals_due=self.due,
            missed=self.missed,
            interrupted=self._interrupted,
            health=self._health.close(),
        )

    async def run_load(self) -> None:
        """Run the load to its end, and drain."""
        async with self._health.watching(), anyio.create_task_group() as group:
            group.start_soon(self._keep_time)
            match self.plan.load:
                case Closed() as load:
                    await self._closed_loop(load)
                case Open() as load:
                    await self._open_loop(load)
                case _ as never:
                    assert_never(never)
            group.cancel_scope.cancel()

    async def _keep_time(self) -> None:
        """End the load on time, wait for the drain, then cut what is still in flight."""
        while self.phases.moves and not self._over.is_set():
            with anyio.move_on_after(LOOK_NS / NS_PER_S):
                await self._over.wait()
            if self._decides_length:
                self.length.look(self._clock.now_ns())
            ends_ns = self.phases.load_ends_ns
            if ends_ns is not None and ends_ns <= self._clock.now_ns() + LOOK_NS:
                break  # nothing is moved to a moment that near
        ends_ns = self.phases.load_ends_ns
        if ends_ns is None:
            await self._over.wait()
        else:
            await self._clock.sleep_until(ends_ns, self._over)
            self._over.set()
        await self._clock.sleep_until(self._clock.now_ns() + self.plan.duration.drain_ns, anyio.Event())
        self._client.cut(Outcome.ABANDONED)

    # The two loops.

    async def _closed_loop(self, load: Closed) -> None:
        """Each user sends a request, reads the response, thinks, and sends the next. Their starts are spread over the
        ramp."""
        plan = self.plan
        async with asyncio.TaskGroup() as users:
            for user in filter(plan.shard.holds, range(load.users)):
                starts_ns = self.begin_ns + plan.ramp_ns * user // load.users
                is_early = starts_ns - self._clock.now_ns() > 2 * _READY_NS
                if is_early and not await self._clock.sleep_until(starts_ns - _READY_NS, self._over):
                    break
                users.create_task(self._user(load, user, starts_ns))

    async def _user(self, load: Closed, user: int, due_ns: int) -> None:
        rng: random.Random | None = None  # it has 2.5 KiB, and the usual user does not think
        # A user's prompts depend on no other user: they are the same however the others fare.
        plan, prepared, taken = self.plan, self.prepare(user, user), 1
        first = load.think_of(prepared.prompt.persona) if plan.thinks_first else None
        if first is not None:
            # The rest of a think time that is under way: of a long one with more probability, and uniform within it.
            rng = random.Random(f"{plan.seed}/{user}")
            lengths = [max(1e-9, first.sample(rng)) for _ in range(_DRAWS)]
            due_ns += round(rng.random() * rng.choices(lengths, lengths)[0])
        for turn in count(1):
            if not await self._clock.sleep_until(due_ns, self._over):
                return
            if self.lease is not None and due_ns >= self.phases.opens_ns:
                given_ns = await self.lease.wait(due_ns)
                if given_ns is None:
                    return
                due_ns = given_ns
            request = self._admit(due_ns, prepared)
            if request is None:
                return
            # The next request is prepared while this one is in flight. A conversation stays where it began.
            stays = prepared.turn is not None and prepared.turn.has_next
            numbers = turn * load.users + user, user, taken * load.users + user
            following = self._prepare_soon(*numbers, prepared.place + (not stays))
            sample = await self.send(request, prepared.body)
            think = load.think_of(request.persona)
            think_ns = 0
            if think is not None:
                rng = rng or random.Random(f"{plan.seed}/{user}")
                think_ns = max(0, round(think.sample(rng)))
            # The next turn of a conversation contains this response.
            fresh = await following
            continued = self.continue_conversation(fresh, prepared, sample)
            if stays and continued is fresh:
                # The conversation broke off, so this request begins another one, at the next place.
                continued = fresh = self.prepare(*numbers, prepared.place + 1)
            prepared = continued
            # A recorded dialogue takes one prompt for all its turns.
            taken += prepared.prompt is fresh.prompt
            # From the response's end, not from now: the client's own delay must not hide between two requests.
            due_ns = sample.end_ns + think_ns
            if sample.outcome not in {Outcome.OK, Outcome.GAVE_UP}:
                due_ns = max(due_ns, request.due_ns + _RETRY_NS)

    async def _open_loop(self, load: Open) -> None:
        """Requests become due at a rate, and are sent then, however those before them fare."""
        plan = self.plan
        async with anyio.create_task_group() as requests:
            for number, offset_ns in enumerate(load.offsets_ns(plan.seed, lead_ns=self.phases.warm_up_ns)):
                due_ns = self.begin_ns + offset_ns
                if not plan.shard.holds(number) and self.skip(due_ns):
                    continue
                prepared = self.prepare(number, place=number)
                in_time = await self._clock.sleep_until(due_ns, self._over)
                request = self._admit(due_ns, prepared) if in_time or self.is_overdue(due_ns) else None
                if request is None:
                    return
                if in_time and self.in_flight < plan.most_in_flight:
                    requests.start_soon(self._session, request, prepared)
                    # Give way, so that it is sent now and counts as in flight for the next of a burst.
                    await anyio.lowlevel.checkpoint()
                else:
                    self.missed += request.phase is Phase.MEASURED
        if isinstance(load.arrivals, Replayed) and load.arrivals.has_sessions:
            # Only now is it known when the last turn was due.
            self.phases.close(self._clock.now_ns())

    async def _session(self, request: Request, prepared: PreparedRequest) -> None:
        """Send a request, and the turns of a trace that follow its response; a failure ends the session."""
        sample = await self.send(request, prepared.body)
        while prepared.prompt.next_turn is not None and sample.outcome is Outcome.OK:
            number, delay_ns = prepared.prompt.next_turn
            due_ns = sample.end_ns + delay_ns
            prepared = self.continue_conversation(self.prepare(number, place=prepared.place), prepared, sample)
            in_time = await self._clock.sleep_until(due_ns, self._over)
            following = self._admit(due_ns, prepared) if in_time else None
            if following is None:
                return
            sample = await self.send(following, prepared.body)

    # What the loops share.

    def prepare(
        self, number: int, user: int | None = None, prompt_number: int | None = None, place: int = 0
    ) -> PreparedRequest:
        """Request `number` of the level, made before it is due, with the prompt of this number; `place` is that in its
        user's rotation."""
        index, destinations = self.plan.rotation.of(place, user or 0), self._client.destinations
        prompts, destination = self._prompts[index * len(self._prompts) // len(destinations)], destinations[index]
        prompt = prompts.next(number if prompt_number is None else prompt_number, user)
        max_tokens = prompt.output_tokens or self.plan.max_tokens
        # Without a user who reads the response, a dialogue is its first turn.
        turn = None if prompt.turns is None or not self.plan.plays_turns else Turn(of=prompt.turns)
        body = self._client.body_of(prompt, max_tokens, destination)
        abandon = self.plan.abandon
        patience = None if abandon is None else abandon.patience(self.plan.abandon_key, number)
        return PreparedRequest(number, user, prompt, max_tokens, body, turn, patience, destination, place)

    def _prepare_soon(self, number: int, user: int, prompt_number: int, place: int) -> asyncio.Future[PreparedRequest]:
        """Prepare a request in the event loop's next turn, by when the request before it has been sent."""
        loop = asyncio.get_running_loop()
        prepared: asyncio.Future[PreparedRequest] = loop.create_future()

        def prepare() -> None:
            if prepared.done():
                return
            try:
                prepared.set_result(self.prepare(number, user, prompt_number, place))
            except BaseException as error:  # noqa: BLE001 - raised in the user that awaits it
                prepared.set_exception(error)

        loop.call_soon(prepare)
        return prepared

    def continue_conversation(
        self, prepared: PreparedRequest, before: PreparedRequest, sample: Sample
    ) -> PreparedRequest:
        """The prepared request as the turn after `before`, if that turn's conversation goes on.

        A recorded dialogue has its own next turn, which is sent in place of the prepared prompt.
        """
        if before.turn is None or sample.outcome is not Outcome.OK:
            return prepared
        turn = before.turn.after(before.prompt.sent, sample.text)
        if turn is None:
            return prepared
        prompt, max_tokens = prepared.prompt, prepared.max_tokens
        if before.prompt.then:
            prompt = before.prompt.following
            max_tokens = prompt.output_tokens or self.plan.max_tokens
        body = self._client.body_of(prompt, max_tokens, prepared.destination, history=turn.history)
        return prepared._replace(prompt=prompt, max_tokens=max_tokens, turn=turn, body=body)

    def _admit(self, due_ns: int, prepared: PreparedRequest) -> Request | None:
        """The request, which is due now; `None` once the load is over."""
        phase = self.phases.admit(due_ns)
        if phase is None:
            self._over.set()
            return None
        self.due += phase is Phase.MEASURED
        prompt, turn = prepared.prompt, prepared.turn
        grown = turn is not None and turn.number > 1
        return Request(
            number=prepared.number,
            phase=phase,
            due_ns=due_ns,
            max_tokens=prepared.max_tokens,
            destination=prepared.destination,
            # Only the server knows how long a conversation has grown.
            target_input_tokens=None if grown else prompt.target_tokens,
            user=prepared.user,
            persona=prompt.persona,
            turn=None if turn is None else turn.number,
            warm=grown or prompt.warm or self.plan.warm,
            prompt_index=None if grown else prompt.position,
            patience=prepared.patience,
            keep_text=self.plan.keep_texts or (turn is not None and turn.has_next),
        )

    async def send(self, request: Request, body: bytes) -> Sample:
        """Send the request and record how it went."""
        self._sink.started(self._clock.now_ns(), request)
        self.length.started(request.due_ns)
        self._on_start(request)
        sample = await self._client.send(request, body)
        self._sink.add(sample)
        self.length.ended(sample)
        self.done += 1
        if sample.outcome.failed:
            self.failed += 1
            self.failures[sample.outcome] += 1
        self.gave_up += sample.outcome is Outcome.GAVE_UP
        self.tokens += sample.output_tokens or 0
        self._on_sample(sample)
        return sample

    def skip(self, due_ns: int) -> bool:
        """Count an arrival that another worker sends; false if it lies beyond the load, whose end is to be awaited."""
        ends_ns = self.phases.load_ends_ns
        if (ends_ns is not None and due_ns >= ends_ns) or self.phases.remaining == 0:
            return False
        self.phases.admit(due_ns)
        return True

    def is_overdue(self, due_ns: int) -> bool:
        """Whether a request was due before the load ended by time, and has not been sent."""
        ends_ns = self.phases.load_ends_ns
        return not self._interrupted and ends_ns is not None and due_ns < ends_ns

    # `loadbench.engine.observers.RunningLevel`.

    def stop(self) -> None:
        """End the load now and close the window; what is in flight is drained. The second time, cut that too."""
        if self._interrupted:
            self._client.cut(Outcome.CANCELLED)
        self._interrupted = True
        self._end_load()

    def finish(self, *, cut: bool) -> None:
        """End the load and close the window, since enough has been measured. What is in flight is drained, or cut."""
        self._end_load()
        if cut:
            self._client.cut(Outcome.CANCELLED)

    def _end_load(self) -> None:
        self.phases.close(self._clock.now_ns())
        self._over.set()
        if self.lease is not None:
            self.lease.end(self.phases.closes_ns or self._clock.now_ns())

    @property
    def now_ns(self) -> int:
        """The run's clock."""
        return self._clock.now_ns()

    @property
    def in_flight(self) -> int:
        """Requests sent that have not ended."""
        return self._sink.in_flight

    @property
    def measured_left(self) -> int | None:
        """Requests still to be measured, in a level by number of requests."""
        return self.phases.remaining

    @property
    def answers_left(self) -> int:
        """Responses that the window waits for beyond its duration, where nobody said how long to measure."""
        return self.length.answers_left

    @property
    def tokens_so_far(self) -> int:
        """Output tokens received; of responses that have not ended, one per event."""
        return self.tokens + self.tokens_in_flight

    @property
    def lag_ns(self) -> int | None:
        """The 99th percentile of how late the event loop runs."""
        return self._health.lag_ns

    def so_far(self) -> SoFar:
        """What has been measured until now."""
        return self._recorder.so_far()

    def expected_closes_ns(self) -> int | None:
        """When the window is likely to close; `None` while nobody can know, and in a level by number of requests."""
        return self.length.expected_closes_ns(self._clock.now_ns())

    @property
    def tokens_in_flight(self) -> int:
        """Token events of the responses that have not ended."""
        return self._client.tokens_seen
