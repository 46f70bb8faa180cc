"""Two sides in turn, in virtual time: the order, equal work, and what becomes of a stop or a silent side."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio
import orjson
import pytest

from loadbench.analyze.level.summary import summarize
from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.core.errors import BadInput, LoadbenchError, TargetUnavailable
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine.paired import EarlierRepeats, Paired, PairedSide
from loadbench.engine.sweep import LastLevel
from loadbench.plan.distribution import Uniform
from loadbench.plan.objective import parse_abort
from loadbench.plan.pairs import Pairing, planned_ns
from loadbench.plan.scenario import Scenario
from loadbench.plan.settings import LoadSettings, ObjectiveSettings, WorkSettings
from loadbench.plan.sim_profile import PROFILES
from loadbench.record.outcome import Outcome
from loadbench.sim.transport import SimTransport
from tests.building import a_run
from tests.engine.scripted import Act, Scripted, ScriptedSession

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.client.transport import Transport
    from loadbench.results.run import Run

S = 1_000_000_000
EXACT = PROFILES["slot-server"].exact()
SLOWER = replace(EXACT.faster(0.5), slots=4)


@dataclass
class Told:
    """A pair observer, and the sweeps' observers: keeps all, and may act as a block begins."""

    clock: VirtualClock
    on_block: Callable[[int], None] = lambda _: None
    blocks: list[tuple[int, str, str]] = field(default_factory=list)  # repeat, side, load
    begins_ns: list[int] = field(default_factory=list)
    ends_ns: list[int] = field(default_factory=list)
    warm_ups: list[int] = field(default_factory=list)
    levels: dict[tuple[int, str], list] = field(default_factory=dict)
    samples: dict[tuple[int, str, int], list] = field(default_factory=dict)
    complete: list[int] = field(default_factory=list)
    brought: list[tuple[int, int]] = field(default_factory=list)  # side, how long it took
    prepared: list[tuple[int, str]] = field(default_factory=list)  # repeat, side
    subjects: Sequence = ()
    enough: int = 1000  # repeats

    def sides_prepared(self, subjects):
        self.subjects = subjects

    def brought_up(self, side, took_ns):
        self.brought.append((side, took_ns))

    def repeat_begins(self, repeat):
        return _Side(self, repeat, "a"), _Side(self, repeat, "b")

    def repeat_ended(self, repeat):
        self.complete.append(repeat)
        return len(self.complete) >= self.enough

    def runs(self, side: str) -> list[Run]:
        return [a_run(*self.levels[repeat, side]) for repeat in self.complete]


@dataclass
class _Side:
    told: Told
    repeat: int
    side: str

    def model_prepared(self, subject):
        self.told.prepared.append((self.repeat, self.side))

    def level_planned(self, load, model, number):
        pass

    def level_begins(self, level, model, number):
        self.told.blocks.append((self.repeat, self.side, level.label))
        self.told.begins_ns.append(self.told.clock.now_ns())
        self.told.warm_ups.append(level.duration.warm_up_ns)
        self.told.on_block(len(self.told.blocks) - 1)

    def sample_ended(self, sample, number):
        self.told.samples.setdefault((self.repeat, self.side, number), []).append(sample)

    def level_ended(self, recording, model, load):
        self.told.ends_ns.append(self.told.clock.now_ns())
        level = summarize(recording, target=self.side, model=model, load=load, failure_limit=0.01)
        self.told.levels.setdefault((self.repeat, self.side), []).append(level)


def scenario(*, work: dict | None = None, **load) -> Scenario:
    """Two short levels."""
    short = {"users": (1, 4), "duration": 2 * S, "warm_up": S, "ramp": 0} | load
    return Scenario(load=LoadSettings(**short), work=WorkSettings(**{"max_tokens": 5} | (work or {})))


class Heard:
    """A transport that keeps the bodies of what it carries."""

    def __init__(self, transport: Transport) -> None:
        self.bodies: list[dict] = []
        self._transport = transport

    async def exchange(self, exchange, sink):
        self.bodies.append(orjson.loads(exchange.body))
        await self._transport.exchange(exchange, sink)


@dataclass
class OneUp:
    """A side switch in virtual time, and a door before each server: nothing passes that of a side which is down."""

    starts_ns: tuple[int, int] = (3 * S, 5 * S)
    fails_at: int = 1000  # the number of the start that fails
    clock: VirtualClock | None = None
    up: int | None = None
    brought: list[int] = field(default_factory=list)
    used: set[int] = field(default_factory=set)
    heard: list[int] = field(default_factory=list)  # requests, by start

    async def bring_up(self, side):
        if self.up == side and side not in self.used:
            return self.starts_ns[side]
        self.up = None
        self.used.discard(side)
        if len(self.brought) == self.fails_at:
            raise TargetUnavailable("it is not ready after 5m", hint="see its log")
        await self.clock.sleep_until(self.clock.now_ns() + self.starts_ns[side], anyio.Event())
        self.up = side
        self.brought.append(side)
        self.heard.append(0)
        return self.starts_ns[side]

    def door(self, side, transport):
        switch = self

        class Door:
            async def exchange(self, exchange, sink):
                assert switch.up == side, f"a request to {'AB'[side]}, which is down"
                switch.used.add(side)
                switch.heard[-1] += 1
                await transport.exchange(exchange, sink)

        return Door()


def paired(
    plan: Scenario,
    *profiles,
    pairing=None,
    same=False,
    on_block=None,
    transports=None,
    during=None,
    earlier=None,
    switch=None,
):
    """Compare two simulated servers; what was told, and what either heard."""
    pairing = pairing or Pairing(repeats=2, settle_ns=S)
    kept: list = []
    failed: list[LoadbenchError] = []

    async def main() -> None:
        clock = VirtualClock()
        async with AsyncExitStack() as stack:
            made = transports(clock) if transports else [SimTransport(one, clock=clock) for one in profiles]
            for one in made:
                if isinstance(one, SimTransport):
                    await stack.enter_async_context(one.serving())
            if switch is not None:
                switch.clock = clock
                made = [switch.door(side, one) for side, one in enumerate(made)]
            heard = [Heard(one) for one in made]
            sides = [_side(plan, one, clock) for one in heard]
            told = Told(clock)
            comparison = Paired(
                tuple(sides), pairing=pairing, clock=clock, observer=told, same=same, earlier=earlier, switch=switch
            )
            if on_block is not None:
                told.on_block = lambda number: on_block(number, comparison)
            kept.extend((told, comparison, heard))
            async with anyio.create_task_group() as beside:
                if during is not None:
                    beside.start_soon(during, comparison)
                try:
                    await comparison.run()
                except LoadbenchError as error:
                    failed.append(error)  # raised below: a task group would wrap it

    run_virtual(main)
    told, comparison, heard = kept
    told.failed = failed[0] if failed else None
    return told, comparison, heard


def _side(plan: Scenario, transport: Transport, clock: VirtualClock) -> PairedSide:
    endpoint = Endpoint(base_url="http://simulated/v1", model="sim-chat")
    client = Client(endpoint, transport, clock=clock, timeouts=Timeouts())
    return PairedSide(scenario=plan, model="sim-chat", session=ScriptedSession(clock, lambda _: client))


def asked(told: Told, heard: Sequence[Heard], side: int) -> list[list[str]]:
    """The texts that a side was asked, block by block, its first answers, cold and warm, apart."""
    name = "ab"[side]
    texts = [body["messages"][-1]["content"] for body in heard[side].bodies][len(told.subjects[side].samples) + 1 :]
    blocks = []
    for repeat, block, load in told.blocks:
        if block == name:
            level = ("users=1", "users=4").index(load)
            count = len(told.samples[repeat, name, level])
            blocks.append(sorted(texts[:count]))
            texts = texts[count:]
    return blocks


def test_both_sides_have_first_tokens_cold_and_warm():
    """Each side is made ready and responds to a first prompt and to another, before its first level."""
    told, _, _ = paired(scenario(), EXACT, SLOWER)
    for subject in told.subjects:
        assert subject.samples[0].first_token_ns is not None
        assert subject.warm.first_token_ns is not None
        assert subject.warm.request.max_tokens == 1
        assert subject.warm.end_ns < told.begins_ns[0]


def test_sides_take_turns_level_by_level():
    """At each level the sides come AB BA BA AB (or BA AB AB BA) over the repeats, one right after the other."""
    told, _, _ = paired(scenario(), EXACT, EXACT, pairing=Pairing(repeats=4, settle_ns=0))
    for level, others in (("users=1", "BAABABBA"), ("users=4", "ABBABAAB")):
        order = "".join(side for _, side, load in told.blocks if load == level).upper()
        assert order in {others, others[::-1], others.translate(str.maketrans("AB", "BA"))}
    assert [(repeat, load) for repeat, _, load in told.blocks] == [
        (repeat, load) for repeat in range(4) for load in ("users=1", "users=1", "users=4", "users=4")
    ]
    assert told.complete == [0, 1, 2, 3]


def test_a_resumed_comparison_goes_on_where_it_was():
    """With the next repeat in its own order, and without the levels that an abort rule ended before."""
    whole, _, _ = paired(scenario(), EXACT, EXACT, pairing=Pairing(repeats=3))
    earlier = EarlierRepeats(2, None, ({0: LastLevel(S)}, {0: LastLevel(S)}))
    rest, _, _ = paired(scenario(), EXACT, EXACT, pairing=Pairing(repeats=3), earlier=earlier)
    assert rest.blocks == [block for block in whole.blocks if block[0] == 2]
    assert rest.complete == [2]
    cut, _, _ = paired(scenario(), EXACT, EXACT, pairing=Pairing(repeats=3), earlier=earlier._replace(levels=1))
    assert {load for _, _, load in cut.blocks} == {"users=1"}


def test_the_budget_counts_what_was_measured_before():
    """Of a budget for two repeats and a half one is left after one."""
    one_ns = planned_ns(scenario(), Pairing()) or 0
    pairing = Pairing(budget_ns=one_ns * 5 // 2)
    told, comparison, _ = paired(scenario(), EXACT, EXACT, pairing=pairing, earlier=EarlierRepeats(1))
    assert told.complete == [1]
    assert "budget" in comparison.ended


def test_only_one_side_is_loaded_and_both_rest_between():
    """A block begins when the other has ended, its drain included, and the rest has passed."""
    told, _, _ = paired(scenario(), EXACT, SLOWER, pairing=Pairing(repeats=2, settle_ns=3 * S))
    for ended, begins in zip(told.ends_ns, told.begins_ns[1:], strict=False):
        assert begins - ended == 3 * S


def test_same_profiles_come_out_the_same():
    """Two servers that are alike in all give the same figures to the last digit, at every level of every repeat."""
    lengths = {"input_tokens": Uniform(20, 200), "output_tokens": Uniform(2, 30)}
    told, _, _ = paired(scenario(work=lengths), EXACT, EXACT, pairing=Pairing(repeats=3))
    for one, other in zip(told.runs("a"), told.runs("b"), strict=True):
        for a, b in zip(one.levels, other.levels, strict=True):
            assert a.metrics == b.metrics
            assert a.throughput == b.throughput
            assert a.tokens == b.tokens
            assert a.outcomes == b.outcomes


def test_both_sides_are_asked_the_same_and_no_repeat_asks_again():
    """Request by request a pair has the same text on both sides; no text comes twice on a side."""
    told, _, heard = paired(scenario(), EXACT, EXACT)
    a, b = asked(told, heard, 0), asked(told, heard, 1)
    assert a == b
    everything = [text for block in a for text in block]
    assert len(set(everything)) == len(everything) > 100


def test_lengths_are_the_same_where_speeds_differ():
    """However fast a side is, its request of a number asks for as many tokens as the other's of that number."""
    lengths = {"input_tokens": Uniform(20, 200), "output_tokens": Uniform(2, 30)}
    told, _, _ = paired(scenario(work=lengths), EXACT, SLOWER)
    for (repeat, side, level), samples in told.samples.items():
        if side == "a":
            asked_a = {one.number: (one.input_tokens, one.request.max_tokens) for one in samples}
            asked_b = {
                one.number: (one.input_tokens, one.request.max_tokens) for one in told.samples[repeat, "b", level]
            }
            common = asked_a.keys() & asked_b.keys()
            assert len(common) >= 15
            assert all(asked_a[number] == asked_b[number] for number in common)


def test_one_server_is_never_asked_the_same_twice():
    """Where both sides are one, they ask different texts of the same length: its prompt cache has none of them."""
    told, _, heard = paired(scenario(), EXACT, EXACT, same=True)
    texts = [text for side in (0, 1) for block in asked(told, heard, side) for text in block]
    assert len(set(texts)) == len(texts)
    assert len({len(text.split()) for text in texts}) == 1


def test_pairs_warm_up_alike():
    """Where the warm-up is as long as an answer takes, both sides have that of the slower one."""
    slow = replace(SLOWER, decode_base_s=1.0)
    told, _, _ = paired(scenario(warm_up=None, users=(1,)), EXACT, slow)
    for first, second in zip(told.warm_ups[::2], told.warm_ups[1::2], strict=True):
        assert first == second > 4 * S


def test_texts_are_those_made_for_a_where_b_counts_in_its_own_way():
    """A tokenizer of its own does not change what B is asked, and B's lengths are held against nothing."""
    told, _, heard = paired(scenario(), transports=lambda clock: [Counting(clock, 1), Counting(clock, 2)])
    assert asked(told, heard, 0) == asked(told, heard, 1)
    assert {one.request.target_input_tokens for one in told.samples[0, "a", 0]} == {128}
    assert {one.request.target_input_tokens for one in told.samples[0, "b", 0]} == {None}


class Counting:
    """Answers at once, and counts so many tokens for each word of the prompt."""

    def __init__(self, clock: VirtualClock, per_word: int) -> None:
        self._clock = clock
        self._per_word = per_word

    async def exchange(self, exchange, sink):
        words = len(orjson.loads(exchange.body)["messages"][-1]["content"].split())
        await self._clock.sleep_until(self._clock.now_ns() + S // 20, anyio.Event())
        sink.connected(self._clock.now_ns(), reused=True, connect_ns=None)
        sink.sent(self._clock.now_ns())
        sink.headers(self._clock.now_ns(), 200, [(b"content-type", b"text/event-stream")])
        usage = b'"usage":{"prompt_tokens":%d,"completion_tokens":1}' % (words * self._per_word)
        text = b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":"length"}]}\n\n'
        sink.data(self._clock.now_ns(), text + b'data: {"choices":[],' + usage + b"}\n\ndata: [DONE]\n\n")


def test_budget_ends_it_before_a_repeat_that_would_not_fit():
    """A repeat takes 4 x (1 + 1 + 2) s and a bit; 50 s are enough for three of them and not for a fourth."""
    told, _, _ = paired(scenario(), EXACT, EXACT, pairing=Pairing(budget_ns=51 * S))
    assert told.complete == [0, 1, 2]
    assert told.ends_ns[-1] <= 51 * S


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pairing", "enough", "repeats", "ended"),
    [
        (Pairing(repeats=4), 2, 2, ""),
        (Pairing(repeats=4), 9, 4, "all that were allowed"),
        (Pairing(budget_ns=51 * S), 9, 3, "the budget has no room for another"),
    ],
)
def test_it_ends_when_its_observer_has_enough_or_by_the_plan(pairing, enough, repeats, ended):
    """Why there was no further repeat is known."""

    def on_block(number, comparison):
        comparison._observer.enough = enough

    told, comparison, _ = paired(scenario(), EXACT, EXACT, pairing=pairing, on_block=on_block)
    assert told.complete == list(range(repeats))
    assert comparison.ended == ended


def test_stop_in_a_block_keeps_it_and_begins_no_other():
    """Stopped in the second repeat, the block under way is handed out as interrupted, and one repeat is complete."""
    told, comparison, _ = paired(scenario(), EXACT, EXACT, on_block=lambda n, one: n == 6 and one.stop())
    assert comparison.stopped
    assert told.complete == [0]
    assert len(told.blocks) == len(told.ends_ns) == 7
    last = told.blocks[-1][:2]
    assert told.levels[last][-1].interrupted


def test_stop_at_rest_ends_at_once():
    """Between two blocks there is nothing to wait for."""

    async def stop(comparison):
        await anyio.sleep(10)
        comparison.stop()
        comparison.stop()

    told, comparison, _ = paired(scenario(), EXACT, EXACT, pairing=Pairing(repeats=2, settle_ns=60 * S), during=stop)
    assert comparison.stopped
    assert told.blocks == []


def test_side_that_falls_silent_ends_it():
    """A side that fails every request of a block is named; the repeats before it are complete."""

    def transports(clock):
        return [
            Scripted(clock, lambda _: Act(tokens=5)),
            Scripted(clock, lambda taken: Act(status=500) if taken > 80 else Act(tokens=5)),
        ]

    told, _, _ = paired(scenario(duration=S), transports=transports, pairing=Pairing(repeats=6))
    assert "B responded to nothing at users=" in told.failed.message
    assert str(Outcome.HTTP_ERROR) in told.failed.message
    assert 1 <= len(told.complete) < 6


@pytest.mark.parametrize(
    ("rule", "levels"),
    [("ttft_p50>1ms@users=4", [(0, "users=4"), (1, "users=1"), (2, "users=1")]), ("ttft_p50>1ms", [(0, "users=1")])],
    ids=["last", "first"],
)
def test_level_that_is_given_up_is_not_come_to_again(rule, levels):
    """It is the last of its repeat, kept as far as it went; later repeats have the levels before it, if any."""
    plan = replace(scenario(duration=4 * S), slo=ObjectiveSettings(abort_on=(parse_abort(rule),)))
    told, _, _ = paired(plan, EXACT, EXACT, pairing=Pairing(repeats=3))
    assert told.complete == [repeat for repeat, _ in levels]
    lasts = {repeat: load for repeat, _, load in told.blocks}
    assert list(lasts.items()) == levels
    given_up = [level for kept in told.levels.values() for level in kept if level.interrupted]
    assert ["aborted" in {reason.code for reason in level.verdict.reasons} for level in given_up] == [True]


def test_side_that_never_answered_is_named():
    """The first request of B fails: nothing is measured."""

    def transports(clock):
        return [Scripted(clock, lambda _: Act(tokens=5)), Scripted(clock, lambda _: Act(status=500))]

    told, _, _ = paired(scenario(), transports=transports)
    assert told.failed.message.startswith("B: ")
    assert told.blocks == []


@pytest.mark.parametrize("times", [1.1, 1.5])
def test_true_ratio_is_found(times):
    """A server that is slower by a factor in all it does has that ratio of times, within what a window's edges do."""
    told, _, _ = paired(scenario(duration=10 * S, users=(2,)), EXACT, EXACT.faster(1 / times))
    for one, other in zip(told.runs("a"), told.runs("b"), strict=True):
        a, b = one.levels[0], other.levels[0]
        assert b.metrics["tpot_s"].p50 / a.metrics["tpot_s"].p50 == pytest.approx(times, rel=0.01)
        assert a.throughput.output_tokens_per_s / b.throughput.output_tokens_per_s == pytest.approx(times, rel=0.03)


# One side up at a time.


def test_only_one_side_is_up_and_each_turn_starts_it_afresh():
    """No request reaches a side that is down; a turn has all levels, in one order; each side comes first as often."""
    switch = OneUp()
    told, _, _ = paired(scenario(), EXACT, SLOWER, pairing=Pairing(repeats=4, settle_ns=S), switch=switch)
    assert told.failed is None
    turns = [(repeat, side) for repeat, side, load in told.blocks if load == "users=1"]
    assert told.blocks == [(repeat, side, load) for repeat, side in turns for load in ("users=1", "users=4")]
    sides = "".join(side for _, side in turns)
    assert sides in {"abbabaab", "baababba"}
    # The preparation ends with the side that is measured first; all further turns begin with a start.
    other = "ab".index(sides[1])
    assert switch.brought == [other, *("ab".index(side) for side in sides)]
    assert told.prepared == turns


def test_what_a_started_side_gets_before_its_turn_is_not_measured():
    """Each start has requests that are in no level: the caches of a new server are cold."""
    switch = OneUp()
    told, _, _ = paired(scenario(), EXACT, EXACT, switch=switch)
    measured = [
        sum(len(told.samples[repeat, side, level]) for level in (0, 1))
        for repeat, side, load in told.blocks
        if load == "users=1"
    ]
    unmeasured = [sent - known for sent, known in zip(switch.heard[1:], measured, strict=True)]
    assert all(count >= 1 for count in unmeasured)
    assert len(set(unmeasured[1:])) == 1  # those of the preparation are more


def test_pairs_in_turns_have_the_same_prompts_lengths_and_warm_up():
    """However far apart the halves of a pair are, their requests are the same, and so is the time to warm up."""
    slow = replace(SLOWER, decode_base_s=0.3)
    lengths = {"input_tokens": Uniform(20, 200), "output_tokens": Uniform(2, 30)}
    plan = scenario(work=lengths, warm_up=None, users=(1, 2))
    told, _, heard = paired(plan, EXACT, slow, switch=OneUp(), pairing=Pairing(repeats=3, settle_ns=S))
    a, b = ({(body["messages"][-1]["content"], body["max_tokens"]) for body in one.bodies} for one in heard)
    assert b < a  # the faster side gets further in the same sequence
    assert len(b) > 20
    warm_ups = dict(zip(told.blocks, told.warm_ups, strict=True))
    for repeat, side, load in told.blocks:
        assert warm_ups[repeat, "a", load] == warm_ups[repeat, "b", load] > S, side


def test_budget_has_room_for_the_starts():
    """A repeat takes 16 s and 8 s of starts; in 70 s, with the preparation, there are two and not three."""
    switch = OneUp()
    told, comparison, _ = paired(
        scenario(), EXACT, EXACT, pairing=Pairing(budget_ns=70 * S, settle_ns=S), switch=switch
    )
    assert told.complete == [0, 1]
    assert comparison.ended == "the budget has no room for another"
    assert told.ends_ns[-1] <= 70 * S
    assert [side for side, _ in told.brought] == switch.brought
    assert all(3 * S <= took < 7 * S for _, took in told.brought)


def test_budget_that_the_starts_use_up_is_refused_when_they_are_known():
    """17 s have room for the levels of a repeat, and not for its starts: the error says so before the first level."""
    told, _, _ = paired(scenario(), EXACT, EXACT, pairing=Pairing(budget_ns=17 * S, settle_ns=S), switch=OneUp())
    assert isinstance(told.failed, BadInput)
    assert "of which starting both sides takes" in told.failed.message
    assert told.blocks == []


@pytest.mark.parametrize("at", [0, 1, 3])
def test_side_that_does_not_come_up_is_named(at):
    """At first or at a later start; the repeats before it are complete."""
    switch = OneUp(fails_at=at)
    told, _, _ = paired(scenario(), EXACT, EXACT, pairing=Pairing(repeats=4, settle_ns=S), switch=switch)
    # Starts: the other side and the first one, then the other side in the first repeat, and so on.
    first = "AB".index(told.failed.message[0])
    assert told.failed.message[1:] == ": it is not ready after 5m"
    assert told.failed.hint == "see its log"
    assert told.complete == ([0] if at == 3 else [])
    assert first in {0, 1}


def test_stop_while_a_side_starts_ends_at_once():
    """Nothing is measured after it, and the switch is not asked again."""
    switch = OneUp(starts_ns=(100 * S, 100 * S))

    async def stop(comparison):
        await anyio.sleep(150)
        comparison.stop()

    told, comparison, _ = paired(scenario(), EXACT, EXACT, during=stop, switch=switch)
    assert comparison.stopped
    assert told.blocks == []
    assert len(switch.brought) == 1


def test_resumed_in_turns_goes_on_with_the_turn_that_is_next():
    """After two repeats the third has its own order and seed, and begins with the side that was prepared last."""
    plan = scenario()
    whole, _, _ = paired(plan, EXACT, EXACT, pairing=Pairing(repeats=3, settle_ns=S), switch=OneUp())
    switch = OneUp()
    rest, _, _ = paired(
        plan,
        EXACT,
        EXACT,
        pairing=Pairing(repeats=3, settle_ns=S),
        switch=switch,
        earlier=EarlierRepeats(repeats=2, last=({}, {})),
    )
    assert rest.blocks == [block for block in whole.blocks if block[0] == 2]
    assert len(switch.brought) == 3


def test_level_that_is_aborted_in_the_first_turn_is_not_measured_in_the_other():
    """The other side has the levels before it, and no later repeat comes to it."""
    plan = replace(scenario(duration=4 * S), slo=ObjectiveSettings(abort_on=(parse_abort("ttft_p50>1ms@users=4"),)))
    told, _, _ = paired(plan, EXACT, EXACT, pairing=Pairing(repeats=2, settle_ns=S), switch=OneUp())
    (first, *_), (second, *_) = told.blocks[0][1], told.blocks[2][1]
    assert told.blocks == [
        (0, first, "users=1"),
        (0, first, "users=4"),
        (0, second, "users=1"),
        (1, second, "users=1"),
        (1, first, "users=1"),
    ]
    assert told.complete == [0, 1]
