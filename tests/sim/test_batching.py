"""The engine under virtual time: its schedule is exact, and so are the formulas of the profile."""

from __future__ import annotations

from statistics import fmean

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.plan.sim_profile import PROFILES, Profile
from loadbench.sim.batching import BatchEngine, QueuedRequest
from tests.sim.steady_state import capacity, steady_state

SERVER = Profile(
    name="test",
    description="round numbers",
    model="m",
    slots=4,
    kv_tokens=400,
    context=400,
    prefill_base_s=0.010,
    prefill_per_token_s=0.001,
    decode_base_s=0.020,
    decode_per_sequence_s=0.005,
    noise=0.0,
)
MS = 1_000_000


class Asked:
    """One request and the moments of its tokens, as the clock showed them."""

    def __init__(
        self, engine: BatchEngine, clock: VirtualClock, *, prompt: int = 10, tokens: int = 3, then=None
    ) -> None:
        self.sent_ns = clock.now_ns()
        self.at_ns: list[int] = []
        self.due_ns: list[int] = []
        self._clock = clock
        self._then = then
        self.queued = engine.submit(prompt, tokens, deliver=self._deliver)

    def _deliver(self, queued: QueuedRequest) -> None:
        self.at_ns.append(self._clock.now_ns())
        self.due_ns.append(queued.token_ns)
        if queued.finished and self._then is not None:
            self._then(self)

    @property
    def ttft_ns(self) -> int:
        return self.at_ns[0] - self.sent_ns

    @property
    def e2e_ns(self) -> int:
        return self.at_ns[-1] - self.sent_ns


class ClosedLoop:
    """Users who ask again at once; keeps every request that has ended, in the order of ending."""

    def __init__(self, profile: Profile, *, prompt: int, tokens: int, seed: int = 0) -> None:
        self.clock = VirtualClock()
        self.ended: list[Asked] = []
        self._size = {"prompt": prompt, "tokens": tokens}
        self._profile, self._seed = profile, seed

    def run(self, *, starts_ms: list[int], for_s: float) -> ClosedLoop:
        """Begin one user at each moment and let them go on."""
        run_virtual(self._run, starts_ms, for_s)
        return self

    async def _run(self, starts_ms: list[int], for_s: float) -> None:
        self.engine = BatchEngine(self._profile, clock=self.clock, seed=self._seed)
        async with self.engine.stepping(), anyio.create_task_group() as users:
            self._users = users
            for start in starts_ms:
                users.start_soon(self._begin, start)
            await anyio.sleep(for_s)
            users.cancel_scope.cancel()

    async def _begin(self, start_ms: int) -> None:
        await anyio.sleep(start_ms / 1000)
        self._ask()

    def _ask(self) -> None:
        Asked(self.engine, self.clock, then=self._on_end, **self._size)

    def _on_end(self, asked: Asked) -> None:
        self.ended.append(asked)
        self._users.start_soon(self._again)

    async def _again(self) -> None:
        # In the same instant, but as many turns of the loop later as a client and its transport take.
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        self._ask()


def _cycles(loop: ClosedLoop, users: int, slots: int) -> tuple[list[Asked], float]:
    """The requests of whole rotations of every user, behind the first, and how many seconds they took."""
    size = users * slots
    first, last = size, len(loop.ended) // size * size
    assert last > first
    span_ns = loop.ended[last - 1].at_ns[-1] - loop.ended[first - 1].at_ns[-1]
    return loop.ended[first:last], span_ns / 1e9


def _check_steady_state(profile: Profile, users: int, *, prompt: int, tokens: int) -> None:
    slots = capacity(profile, input_tokens=prompt, output_tokens=tokens)
    truth = steady_state(profile, users, input_tokens=prompt, output_tokens=tokens)
    for_s = 3.2 * users * slots / truth.requests_per_s
    loop = ClosedLoop(profile, prompt=prompt, tokens=tokens).run(starts_ms=[0] * users, for_s=for_s)
    requests, span_s = _cycles(loop, users, min(slots, users))
    assert len(requests) / span_s == pytest.approx(truth.requests_per_s, rel=1e-12)
    assert len(requests) * tokens / span_s == pytest.approx(truth.output_tokens_per_s, rel=1e-12)
    assert fmean(r.e2e_ns for r in requests) / 1e9 == pytest.approx(truth.e2e_mean_s, rel=1e-12)
    assert fmean(r.ttft_ns for r in requests) / 1e9 == pytest.approx(truth.ttft_mean_s, rel=1e-12)
    if tokens > 1:
        tpot_s = fmean((r.e2e_ns - r.ttft_ns) / (tokens - 1) for r in requests) / 1e9
        assert tpot_s == pytest.approx(truth.tpot_s, rel=1e-12)


@pytest.mark.parametrize("users", [1, 2, 3, 4, 5, 6, 8, 9])
def test_a_closed_loop_comes_to_the_formulas_exactly(users: int) -> None:
    """Throughput, E2E, TTFT and TPOT are those of `steady_state`, for users below, at and above the slots."""
    _check_steady_state(SERVER, users, prompt=10, tokens=5)


@pytest.mark.parametrize("users", [1, 2, 3, 5])
def test_the_formulas_hold_where_memory_is_the_limit(users: int) -> None:
    """Where two requests fill the KV memory, the server behaves as one with two slots."""
    assert capacity(SERVER, input_tokens=150, output_tokens=4) == 2
    _check_steady_state(SERVER, users, prompt=150, tokens=4)


@pytest.mark.parametrize("users", [1, 3, 7])
def test_one_token_answers_are_one_queue_of_prefills(users: int) -> None:
    """With nothing to decode each request waits for the prefills of all others and its own."""
    _check_steady_state(SERVER, users, prompt=10, tokens=1)
    truth = steady_state(SERVER, users, input_tokens=10, output_tokens=1)
    assert truth.tpot_s is None
    assert truth.ttft_mean_s == pytest.approx(users * 0.020)


@given(starts=st.lists(st.integers(0, 400), min_size=2, max_size=4))
@settings(max_examples=25, deadline=None)
def test_e2e_does_not_depend_on_how_users_began(starts: list[int]) -> None:
    """However users are spread, each later request of a closed loop takes T exactly, and has 1…n prefills as TTFT."""
    users, prefill_ns = len(starts), SERVER.prefill_ns(10)
    truth = steady_state(SERVER, users, input_tokens=10, output_tokens=4)
    loop = ClosedLoop(SERVER, prompt=10, tokens=4).run(starts_ms=starts, for_s=2.5)
    later = [r for r in loop.ended if r.sent_ns > 1_000 * MS]
    assert len(later) > users
    assert {r.e2e_ns for r in later} == {round(truth.e2e_mean_s * 1e9)}
    assert {r.ttft_ns for r in later} <= {k * prefill_ns for k in range(1, users + 1)}


def test_users_prefilled_alone_have_one_prefill_as_ttft() -> None:
    """Where no two users ask in the same instant, TTFT is one prefill and E2E is still T."""
    loop = ClosedLoop(SERVER, prompt=10, tokens=6).run(starts_ms=[0, 30, 90], for_s=4)
    later = loop.ended[12:]
    assert {r.ttft_ns for r in later} == {20 * MS}
    assert {r.e2e_ns for r in later} == {3 * 20 * MS + 5 * 35 * MS}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_noise_leaves_the_mean_alone(profile: Profile) -> None:
    """With noise a profile's throughput is that of its formula within sampling error, and its times vary."""
    users = profile.slots
    truth = steady_state(profile, users, input_tokens=20, output_tokens=10)
    loop = ClosedLoop(profile, prompt=20, tokens=10).run(starts_ms=[0] * users, for_s=60 * users / truth.requests_per_s)
    requests, span_s = _cycles(loop, users, 1)
    assert len(requests) / span_s == pytest.approx(truth.requests_per_s, rel=0.01)
    assert len({r.e2e_ns for r in requests}) > 10


def test_a_seed_reproduces_every_moment() -> None:
    """The same seed gives the same stamps to the nanosecond, another seed gives others."""

    def stamps(seed: int) -> list[list[int]]:
        loop = ClosedLoop(PROFILES["slot-server"], prompt=9, tokens=7, seed=seed).run(starts_ms=[0, 5, 9], for_s=3)
        return [r.at_ns for r in loop.ended]

    assert stamps(1) == stamps(1)
    assert stamps(1) != stamps(2)


@given(delays_us=st.lists(st.integers(0, 4000), min_size=1, max_size=3))
@settings(max_examples=25, deadline=None)
def test_who_turns_round_in_time_joins_the_step_and_delays_nobody(delays_us: list[int]) -> None:
    """Within 4 ms of an answer's end: the first token is a whole prefill later, the others' next is on time."""

    async def main() -> tuple[list[Asked], list[int]]:
        engine, [running, _] = await _engine_with((10, 9), (10, 2))
        clock, late = VirtualClock(), []

        async def ask(delay_us: int) -> None:
            await anyio.sleep(0.070 + delay_us / 1e6)  # 2 prefills of 20 and a step of 30: the second one has ended
            late.append(Asked(engine, clock, tokens=2))

        async with engine.stepping(), anyio.create_task_group() as users:
            for delay_us in delays_us:
                users.start_soon(ask, delay_us)
            await anyio.sleep(2)
        return late, running.at_ns

    late, running_ns = run_virtual(main)
    n = len(delays_us)
    for place, asked in enumerate(late, 1):
        assert asked.at_ns[0] == max(70 * MS + place * 20 * MS, asked.sent_ns + 20 * MS)
    assert {asked.at_ns[1] for asked in late} == {running_ns[2]} == {70 * MS + n * 20 * MS + SERVER.decode_ns(n + 1)}


def test_who_turns_round_too_late_waits_for_the_next_step() -> None:
    """A request 5 ms after an answer's end is prefilled when the decode step that has begun is over."""

    async def main() -> list[int]:
        engine, _ = await _engine_with((10, 9), (10, 2))
        async with engine.stepping():
            await anyio.sleep(0.075)
            late = Asked(engine, VirtualClock(), tokens=1)
            await anyio.sleep(2)
        return late.at_ns

    assert run_virtual(main) == [70 * MS + SERVER.decode_ns(1) + 20 * MS]


async def _engine_with(*sizes: tuple[int, int], profile: Profile = SERVER) -> tuple[BatchEngine, list[Asked]]:
    """Submit requests of these sizes to an engine of this profile at 0; nothing runs yet."""
    clock = VirtualClock()
    engine = BatchEngine(profile, clock=clock)
    return engine, [Asked(engine, clock, prompt=prompt, tokens=tokens) for prompt, tokens in sizes]


def test_prefills_come_one_after_another_then_all_decode_together() -> None:
    """Two requests: first tokens at 20 and 50 ms, then both get each token at the same moment, 30 ms apart."""

    async def main() -> list[list[int]]:
        engine, asked = await _engine_with((10, 3), (20, 3))
        async with engine.stepping():
            await anyio.sleep(1)
        return [a.at_ns for a in asked]

    assert run_virtual(main) == [[20 * MS, 80 * MS, 110 * MS], [50 * MS, 80 * MS, 110 * MS]]


def test_a_prefill_delays_the_running_sequences() -> None:
    """A request that comes during a decode step is prefilled before the next one, which waits for it."""

    async def main() -> list[list[int]]:
        engine, [first] = await _engine_with((10, 4))
        async with engine.stepping():
            await anyio.sleep(0.030)
            second = Asked(engine, VirtualClock(), prompt=30, tokens=2)
            await anyio.sleep(1)
        return [first.at_ns, second.at_ns]

    # The first decode step ends at 45; 40 ms of prefill; then steps of 30 with two and 25 with one.
    assert run_virtual(main) == [[20 * MS, 45 * MS, 115 * MS, 140 * MS], [85 * MS, 115 * MS]]


def test_first_come_first_served() -> None:
    """Requests get their slots in the order in which they came, also where a later one would fit into memory sooner."""

    async def main() -> list[int]:
        engine, asked = await _engine_with((150, 50), (150, 40), (300, 50), (10, 2), (10, 2))
        async with engine.stepping():
            await anyio.sleep(20)
        return [a.queued.admitted_ns for a in asked]

    admitted = run_virtual(main)
    assert admitted == sorted(admitted)
    assert admitted[2] > admitted[1] + 1000 * MS


@given(sizes=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 100)), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_slots_and_memory_are_never_exceeded(sizes: list[tuple[int, int]]) -> None:
    """At every token the running sequences keep to the slots and the KV memory; at the end all is done and free."""

    async def main() -> None:
        engine, asked = await _engine_with(*sizes)

        def check(_asked: Asked) -> None:
            assert engine.running <= SERVER.slots
            assert engine.kv_tokens <= SERVER.kv_tokens

        for request in asked:
            request._then = check
        async with engine.stepping():
            await anyio.sleep(200)
        assert [len(a.at_ns) for a in asked] == [tokens for _, tokens in sizes]
        assert (engine.running, engine.waiting, engine.kv_tokens) == (0, 0, 0)
        assert engine.counts.prompt_tokens == sum(prompt for prompt, _ in sizes)
        assert engine.counts.output_tokens == sum(tokens for _, tokens in sizes)
        assert engine.counts.finished == len(sizes)

    run_virtual(main)


def test_a_short_request_does_not_starve_the_running_ones() -> None:
    """Under a flood of one-token requests a running sequence still gets a token after as many prefills as are free."""

    async def main() -> list[int]:
        engine, [long, *_] = await _engine_with((10, 3), *[(10, 1)] * 40)
        async with engine.stepping():
            await anyio.sleep(2)
        return long.at_ns

    # Four slots: 4 prefills, then a step with one; from then on 3 prefills before each step, and room to gather.
    assert run_virtual(main) == [20 * MS, 105 * MS, 190 * MS]


def test_cancelling_frees_the_slot_at_the_next_step() -> None:
    """A cancelled sequence gets nothing more; who waits is prefilled as soon as the step under way has ended."""

    async def main() -> tuple[BatchEngine, list[Asked]]:
        engine, asked = await _engine_with(*[(10, 50)] * 5)
        async with engine.stepping():
            await anyio.sleep(0.100)  # in the first decode step, 80 … 120 ms
            engine.cancel(asked[0].queued)
            await anyio.sleep(10)
        return engine, asked

    engine, asked = run_virtual(main)
    assert asked[0].at_ns == [20 * MS]
    assert asked[4].queued.admitted_ns == 120 * MS
    assert [len(a.at_ns) for a in asked[1:]] == [50] * 4
    assert (engine.counts.cancelled, engine.counts.finished, engine.kv_tokens) == (1, 4, 0)


def test_cancelling_takes_a_waiting_request_out_of_the_queue() -> None:
    """It is never prefilled, and cancelling again, or after the end, changes nothing."""

    async def main() -> tuple[BatchEngine, list[Asked]]:
        engine, asked = await _engine_with(*[(10, 5)] * 6)
        async with engine.stepping():
            await anyio.sleep(0.050)
            engine.cancel(asked[4].queued)
            engine.cancel(asked[4].queued)
            await anyio.sleep(5)
            engine.cancel(asked[5].queued)
        return engine, asked

    engine, asked = run_virtual(main)
    assert asked[4].at_ns == []
    assert engine.counts.prompt_tokens == 50
    assert (engine.counts.cancelled, engine.counts.finished) == (1, 5)


def test_an_idle_engine_sets_no_timer() -> None:
    """With no request virtual time has nothing to jump to: the loop says that it stands still."""

    async def main() -> None:
        engine, _ = await _engine_with((10, 2))
        async with engine.stepping():
            await anyio.sleep(5)
            await anyio.Event().wait()

    with pytest.raises(RuntimeError, match="stands still"):
        run_virtual(main)


def test_after_idleness_a_step_begins_with_the_request() -> None:
    """A request into an idle engine has its first token one prefill after it came, however long the idleness."""

    async def main() -> list[int]:
        engine, _ = await _engine_with((10, 2))
        async with engine.stepping():
            await anyio.sleep(7.7777)
            late = Asked(engine, VirtualClock(), prompt=10, tokens=2)
            await anyio.sleep(1)
        return [at - late.sent_ns for at in late.at_ns]

    assert run_virtual(main) == [20 * MS, 45 * MS]


def test_late_timers_do_not_add_up() -> None:
    """With a clock whose every wake-up is 3 ms late, the hundredth token is 3 ms late and not 300."""

    class LateClock(VirtualClock):
        async def sleep_until(self, when_ns: int, stop: anyio.Event) -> bool:
            return await super().sleep_until(when_ns + 3 * MS, stop)

    async def main() -> Asked:
        clock = LateClock()
        engine = BatchEngine(SERVER, clock=clock)
        asked = Asked(engine, clock, tokens=100)
        async with engine.stepping():
            await anyio.sleep(5)
        return asked

    asked = run_virtual(main)
    assert asked.due_ns == [20 * MS + 25 * MS * k for k in range(100)]
    assert [at - due for at, due in zip(asked.at_ns, asked.due_ns, strict=True)] == [3 * MS] * 100


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (400, 1)])
def test_what_can_never_run_is_refused(size: tuple[int, int]) -> None:
    """A request without a prompt, without an answer, or larger than all memory is a `ValueError`."""

    async def main() -> None:
        await _engine_with(size)

    with pytest.raises(ValueError, match="do not fit"):
        run_virtual(main)


def test_profiles_explain_themselves() -> None:
    """Every named profile says what it stands for, bends at its slots, and can be made exact and faster."""
    for name, profile in PROFILES.items():
        assert profile.name == name
        assert profile.description
        below, at, above = (
            steady_state(profile, n, input_tokens=30, output_tokens=60).requests_per_s
            for n in (1, profile.slots, 3 * profile.slots)
        )
        assert below < at == above
        quick = steady_state(profile.faster(10).exact(), 3, input_tokens=30, output_tokens=60)
        slow = steady_state(profile, 3, input_tokens=30, output_tokens=60)
        assert quick.requests_per_s == pytest.approx(10 * slow.requests_per_s, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": 0}, "slots"),
        ({"context": 401}, "context"),
        ({"decode_base_s": 0.0}, "above 0"),
        ({"noise": -1.0}, "neg"),
    ],
)
def test_an_impossible_profile_is_refused(change: dict[str, float], message: str) -> None:
    """A profile that could not be worked off is a `ValueError` that names what is wrong."""
    fields = {name: getattr(SERVER, name) for name in SERVER.__dataclass_fields__}
    with pytest.raises(ValueError, match=message):
        Profile(**fields | change)
