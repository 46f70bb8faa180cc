"""Personas, conversations, patterns and traces as they are asked: in virtual time, and by worker processes."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest

from loadbench.analyze.level.summary import summarize
from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import BadInput
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine.level import Level, LevelSpec, level_plan
from loadbench.engine.worker_pool import WorkerPool
from loadbench.engine.workers import workers_for
from loadbench.plan.load import Phase, Shard
from loadbench.plan.prompts import Calibration
from loadbench.plan.sim_profile import PROFILES
from loadbench.plan.sources import resolve
from loadbench.record.outcome import Outcome
from loadbench.sim.process import SimProcess
from loadbench.sim.transport import SimTransport
from loadbench.targets.target import Target
from tests.building import a_level, a_sample
from tests.engine.no_health import NoHealth
from tests.engine.scripted import Act, Scripted, run_level, run_scripted
from tests.plan.make_traces import AZURE_TRACE, MOONCAKE_TRACE, REQUESTS

if TYPE_CHECKING:
    from loadbench.client.transport import HttpRequest, Sink
    from loadbench.plan.scenario import Scenario
    from loadbench.record.recorder import LevelRecording
    from loadbench.record.sample import Sample

S = 1_000_000_000
EXACT = PROFILES["slot-server"].exact()
# What the simulated server's tokens are like.
KNOWN = Calibration(1.0, 4)
TALK = {"users": "2", "turns": "3", "input_tokens": "20", "max_tokens": "6", "duration": "20s", "warm_up": "5s"}


class Overheard:
    """A transport that notes what is asked."""

    def __init__(self, transport: Any) -> None:
        self.bodies: list[dict[str, Any]] = []
        self._transport = transport

    async def exchange(self, exchange: HttpRequest, sink: Sink) -> None:
        """Note and pass on."""
        self.bodies.append(orjson.loads(exchange.body))
        await self._transport.exchange(exchange, sink)


class Asked:
    """One level that was run in virtual time: what was asked, what came of it."""

    def __init__(self, flags: dict[str, Any], *, system: str | None = None, shard: Shard | None = None) -> None:
        self.scenario: Scenario = resolve(flags=flags, environment={})
        self.samples: list[Sample] = []
        self.bodies: list[dict[str, Any]] = []
        self._shard = shard or Shard()
        self.recording: LevelRecording = run_virtual(self._main, system)

    async def _main(self, system: str | None) -> LevelRecording:
        clock = VirtualClock()
        (load, *_) = self.scenario.loads
        plan = level_plan(self.scenario, LevelSpec(load=load, key="m/0", calibration=KNOWN), self._shard)
        async with SimTransport(EXACT, clock=clock).serving() as transport:
            heard = Overheard(transport)
            endpoint = Endpoint(base_url="http://s/v1", model=EXACT.model, system=system)
            client = Client(endpoint, heard, clock=clock, timeouts=Timeouts())
            level = Level(plan, client=client, clock=clock, health=NoHealth(), on_sample=self.samples.append)
            recording = await level.run()
        self.bodies = heard.bodies
        return recording

    def of_user(self, user: int) -> list[Sample]:
        """In the order in which they were due."""
        return sorted((one for one in self.samples if one.request.user == user), key=lambda one: one.due_ns)

    def summary(self) -> Any:
        """As run.json has it."""
        return summarize(self.recording, target="t", model=EXACT.model, load=self.scenario.loads[0], failure_limit=0.01)


@pytest.fixture(scope="module")
def talk() -> Asked:
    """Two users in conversations of three turns."""
    return Asked(TALK)


def test_a_turn_has_the_conversation_before_it(talk):
    """User and assistant alternate, from one message to five; each request begins with all of the one before it."""
    threads = [body["messages"] for body in talk.bodies]
    assert Counter(len(thread) for thread in threads).keys() == {1, 3, 5}
    for thread in threads:
        roles = [message["role"] for message in thread]
        assert roles == (["user", "assistant"] * 3)[: len(thread)]
    asked = {tuple(message["content"] for message in thread) for thread in threads}
    assert all(thread[:-2] in asked for thread in asked if len(thread) > 1)


def test_the_assistant_says_what_the_server_said(talk):
    """Every assistant's message is an answer of the six tokens that were asked for."""
    said = [
        message["content"] for body in talk.bodies for message in body["messages"] if message["role"] == "assistant"
    ]
    assert said
    assert all(len(text.split()) == 6 for text in said)


def test_turns_go_from_one_to_three_and_begin_anew(talk):
    """Each user's samples count 1, 2, 3, 1, 2, 3, and only turns after the first are warm."""
    for user in (0, 1):
        turns = [one.request.turn for one in talk.of_user(user)]
        assert turns == [1 + index % 3 for index in range(len(turns))]
        assert all(one.request.warm == (one.request.turn > 1) for one in talk.of_user(user))


def test_h2_a_grown_prompt_is_not_held_against_a_length(talk):
    """Contexts grow by question and answer; the first turn alone has a length that was asked for, and it is met."""
    lengths = {one.request.turn: one.input_tokens for one in talk.samples if one.outcome is Outcome.OK}
    # Words are tokens to this server, and 4 are its template's.
    assert lengths == {1: 20, 2: 20 + 6 + 16, 3: 20 + 2 * (6 + 16)}
    asked = [one.request for one in talk.samples]
    assert {(one.turn, one.target_input_tokens) for one in asked} == {(1, 20), (2, None), (3, None)}
    assert "prompt_length" not in {reason.code for reason in talk.summary().verdict.reasons}


def test_a_level_counts_its_turns(talk):
    """run.json has the measured requests by turn, and how many of them a server should have had in its cache."""
    measured = Counter(one.request.turn for one in talk.samples if one.phase is Phase.MEASURED)
    summary = talk.summary()
    assert summary.turns == {str(turn): count for turn, count in sorted(measured.items())}
    assert summary.warm.requests == measured[2] + measured[3]
    assert summary.warm.cached_share is None


def test_a_conversation_is_the_same_however_long_answers_take(talk):
    """On a server of half the speed the same users say the same, in the same order."""
    slow = Asked(TALK | {"think": "700ms"})
    for user in (0, 1):
        for one, other in zip(talk.of_user(user), slow.of_user(user), strict=False):
            assert (one.number, one.request.turn, one.request.max_tokens) == (other.number, other.request.turn, 6)
    first = {thread[0]["content"] for thread in (body["messages"] for body in talk.bodies)}
    again = {thread[0]["content"] for thread in (body["messages"] for body in slow.bodies)}
    assert again <= first


def test_answers_are_kept_only_for_what_follows(talk):
    """The last turn's answer is for nobody; without conversations none is kept."""
    assert all((one.text is not None) == (one.request.turn < 3) for one in talk.samples)
    alone = Asked(TALK | {"turns": "1"})
    assert {(one.request.turn, one.text) for one in alone.samples} == {(1, None)}
    plain = Asked({name: value for name, value in TALK.items() if name != "turns"})
    assert {(one.request.turn, one.text, one.request.warm) for one in plain.samples} == {(None, None, False)}


def test_a_system_message_comes_first_and_is_declared_warm():
    """It stands before every conversation, and every prompt then begins as others do."""
    brief = Asked(TALK | {"system": "Be brief."}, system="Be brief.")
    assert {body["messages"][0]["content"] for body in brief.bodies} == {"Be brief."}
    assert all(one.request.warm for one in brief.samples)


def test_h1_what_is_warm_may_be_cached_and_nothing_else():
    """Cached tokens of later turns are told as a share and are no fault; those of first turns make a level invalid."""

    def level(*, warm: bool):
        return a_level(
            a_sample(n, due_ns=n * S // 4, cached_tokens=40 * (n % 2), warm=warm and n % 2 == 1) for n in range(400)
        )

    told = level(warm=True)
    assert (told.warm.requests, told.warm.cached_requests, told.warm.cached_share) == (200, 200, 0.8)
    assert "cached_prompts" not in {reason.code for reason in told.verdict.reasons}
    assert "cached_prompts" in {reason.code for reason in level(warm=False).verdict.reasons}


def test_a_failed_turn_ends_its_conversation():
    """After an answer that did not come the user begins another, with a first turn."""
    flags = {"users": "1", "turns": "4", "duration": "20s", "warm_up": "0s"}
    scenario = resolve(flags=flags, environment={})
    plan = level_plan(scenario, LevelSpec(load=scenario.loads[0], key="m/0"))
    ran = run_scripted(
        scenario.loads[0],
        lambda number: Act(first_ns=S, status=500 if number % 3 == 2 else 200),
        plan={"prompts": plan.prompts},
        duration_ns=20 * S,
    )
    assert [one.request.turn for one in ran.by_number()][:7] == [1, 2, 3, 1, 2, 3, 1]


# Personas.


def test_personas_are_told_apart_in_samples_and_run():
    """Each sample has its persona; the level has the requests, tokens and times of each, and they add up."""
    mixed = Asked(
        {"users": "8", "mix": ("chat:3,code:1",), "think": "100ms", "duration": "60s", "warm_up": "20s", "drain": "90s"}
    )
    by_user = {one.request.user: one.request.persona for one in mixed.samples}
    assert Counter(by_user.values()) == {"chat": 6, "code": 2}
    summary = mixed.summary()
    assert {name: part.requests for name, part in summary.personas.items()} == Counter(
        one.request.persona for one in mixed.samples if one.phase is Phase.MEASURED
    )
    assert sum(part.output_tokens for part in summary.personas.values()) == summary.tokens.output
    assert sum(part.metrics["e2e_response_s"].count for part in summary.personas.values()) == summary.outcomes["ok"]


def test_a_users_pause_is_its_personas():
    """Between an answer's end and the next request lie 2 to 5 s for code, nothing for a summary."""
    flags = {"users": "2", "mix": ("code,summariser",), "input_tokens": "30", "output_tokens": "4"}
    paused = Asked(flags | {"duration": "60s", "warm_up": "10s"})
    pauses: dict[str, list[int]] = {"code": [], "summariser": []}
    for user in (0, 1):
        for before, after in pairwise(paused.of_user(user)):
            pauses[str(before.request.persona)].append(after.due_ns - before.end_ns)
    assert set(pauses["summariser"]) == {0}
    assert 2 * S <= min(pauses["code"]) < max(pauses["code"]) <= 5 * S


def test_b11_shards_of_a_mix_are_the_whole():
    """Two workers' parts ask what one process asks: each number once, its persona and its words the same."""
    flags = {"rate": "4", "mix": ("chat,code",), "output_tokens": "4", "duration": "20s", "warm_up": "1s"}
    whole = Asked(flags)
    parts = [Asked(flags, shard=Shard(index, 2)) for index in range(2)]
    assert {one.number: one.request.persona for part in parts for one in part.samples} == {
        one.number: one.request.persona for one in whole.samples
    }
    texts = [body["messages"][0]["content"] for part in parts for body in part.bodies]
    assert sorted(texts) == sorted(body["messages"][0]["content"] for body in whole.bodies)
    assert len({" ".join(text.split()[:6]) for text in texts}) == len(texts)


# The course of the rate.


def test_a_pattern_changes_the_rate_as_planned():
    """Twice as many requests become due where the factor is twice as high, and that is called planned, not unsteady."""
    flags = {"rate": "4", "arrivals": "constant", "pattern": "0s:1,30s:1,30s:2,60s:2", "max_tokens": "4"}
    made = Asked(flags | {"warm_up": "5s"})
    opens_ns = made.recording.window[0]
    due = Counter((one.due_ns - opens_ns) // (30 * S) for one in made.samples if one.phase is Phase.MEASURED)
    assert due == {0: 120, 1: 240}
    assert made.scenario.extent.duration_ns == 60 * S
    summary = made.summary()
    assert "planned_course" in {reason.code for reason in summary.caveats}
    assert not {"not_steady", "short_warm_up"} & {reason.code for reason in summary.verdict.reasons}


def test_a_rise_that_was_not_planned_is_unsteady():
    """The same load above capacity is found out where the rate was to stay: only what was planned is excused."""
    overload = {"rate": "60", "max_tokens": "16", "warm_up": "2s", "duration": "40s", "drain": "0s"}
    assert "not_steady" in {reason.code for reason in Asked(overload).summary().verdict.reasons}


# Traces.


@pytest.mark.parametrize("scale", [1, 20])
def test_a_trace_is_asked_at_its_offsets_with_its_lengths(scale):
    """Each request of the file becomes due at its offset, as long as it was, and is asked for as much as it gave."""
    made = Asked({"trace": str(AZURE_TRACE), "time_scale": str(scale)})
    (load,) = made.scenario.loads
    trace = load.arrivals.trace
    begin_ns = made.recording.window[0]
    assert begin_ns > 0  # it has had time to get under way
    samples = sorted(made.samples, key=lambda one: one.number)
    assert [one.due_ns - begin_ns for one in samples] == [round(at_ns / scale) for at_ns in trace.offsets_ns]
    assert [one.request.max_tokens for one in samples] == list(trace.output_tokens)
    # Nothing is shorter than one word and the template.
    assert [one.input_tokens for one in samples] == [max(5, tokens) for tokens in trace.input_tokens]
    assert {one.phase for one in samples} == {Phase.MEASURED}
    assert made.recording.arrivals_due == made.recording.arrivals_sent == REQUESTS
    reasons = {reason.code for reason in made.summary().verdict.reasons}
    assert not reasons & {"missed_arrivals", "rate_not_reached", "short_warm_up", "not_steady"}


@pytest.mark.parametrize("flags", [{"warm_up": "60s"}, {"duration": "1h"}])
def test_a_traces_rate_is_of_the_time_that_it_takes(flags):
    """Whatever is warmed up or asked for, the window ends with the trace, and what is offered in it is the trace's."""
    made = Asked({"trace": str(AZURE_TRACE), "time_scale": "10"} | flags)
    (load,) = made.scenario.loads
    begin_ns = made.recording.window[0] - made.recording.warm_up_ns
    assert made.recording.window[1] - begin_ns == load.arrivals.window_ns
    measured = sum(one.phase is Phase.MEASURED for one in made.samples)
    assert made.summary().offered_per_s == pytest.approx(measured / made.recording.window_s)
    assert len(made.samples) == REQUESTS


def test_a_trace_with_ids_is_warm_where_beginnings_come_again():
    """Of the sample trace's conversations nearly all share their first block with an earlier one."""
    made = Asked({"trace": str(MOONCAKE_TRACE), "time_scale": "10"})
    assert Counter(one.request.warm for one in made.samples) == {True: 54, False: 1}
    assert [one.input_tokens for one in sorted(made.samples, key=lambda one: one.number)] == list(
        made.scenario.loads[0].arrivals.trace.input_tokens
    )


def test_a_stopped_trace_keeps_what_it_asked():
    """Stopped after 60 s the level ends there, and what was due until then was sent."""
    scenario = resolve(flags={"trace": str(AZURE_TRACE)}, environment={})
    (load,) = scenario.loads
    plan = level_plan(scenario, LevelSpec(load=load, key="m/0"))

    async def main():
        clock = VirtualClock()
        client = Client(
            Endpoint(base_url="http://s/v1", model="m"),
            Scripted(clock, lambda _: Act()),
            clock=clock,
            timeouts=Timeouts(),
        )

        async def stop(level):
            await clock.sleep_until(60 * S, anyio.Event())
            level.stop()

        extent = scenario.extent.duration_ns
        return await run_level(
            client, load, clock=clock, during=stop, plan={"prompts": plan.prompts}, duration_ns=extent
        )

    ran = run_virtual(main)
    assert ran.recording.interrupted
    assert len(ran.samples) == sum(at_ns < 60 * S for at_ns in load.arrivals.trace.offsets_ns)


# Worker processes.


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        {"users": "4", "turns": "3", "mix": ("chat,code",), "think": "20ms", "input_tokens": "30", "duration": "2s"},
        {"trace": str(AZURE_TRACE), "time_scale": "200", "limit": "80"},
        {"rate": "20", "pattern": "0s:0.5,1s:1.5,2s:0.5"},
    ],
    ids=["talk", "trace", "pattern"],
)
def test_b11_workers_share_any_workload(flags):
    """Two processes ask each number once; turns go on within one of them, and no answer's text leaves it."""
    limits = {} if "trace" in flags else {"max_tokens": "4"}
    scenario = resolve(flags=flags | limits | {"drain": "20s"}, environment={})
    (load,) = scenario.loads
    samples: list[Sample] = []

    async def main(url: str) -> LevelRecording:
        target = Target(base_url=f"{url}/v1", headers=(), tls=None)
        async with WorkerPool.of(2, lambda: (target,)) as crew:
            level = await crew.level(
                scenario,
                LevelSpec(load=load, key="k", calibration=KNOWN),
                model="sim-chat",
                clock=MonotonicClock(),
                on_sample=samples.append,
            )
            return await level.run()

    with SimProcess("slot-server", seed=1) as simulated:
        recording = anyio.run(main, simulated.url)
    assert not recording.lost_workers
    assert set(recording.outcomes) == {Outcome.OK}
    numbers = [one.number for one in samples]
    assert len(set(numbers)) == len(numbers) > 20
    assert {one.text for one in samples} == {None}
    if "trace" in flags:
        assert sorted(numbers) == list(range(80))
        assert recording.missed == 0
    if "turns" in flags:
        assert set(recording.turns) == {1, 2, 3}
        assert set(recording.groups_of("persona")) == {"chat", "code"}


SESSIONS = [
    {"session_id": "a", "timestamp": 1_000, "input_length": 30, "output_length": 5},
    {"session_id": "b", "timestamp": 1_500, "input_length": 40, "output_length": 6},
    {"session_id": "a", "delay": 2_000, "input_length": 50, "output_length": 7},
    {"session_id": "a", "input_length": 60, "output_length": 8},
    {"session_id": "b", "delay": 4_000, "input_length": 70, "output_length": 9},
    {"timestamp": 2_000, "input_length": 80, "output_length": 10},
]


def sessions(tmp_path, **flags: str) -> Asked:
    """The level of a trace with sessions."""
    (tmp_path / "trace").write_bytes(b"\n".join(map(orjson.dumps, SESSIONS)))
    return Asked({"trace": str(tmp_path / "trace"), **flags})


@pytest.mark.parametrize("time_scale", [1, 4])
def test_a_turn_of_a_session_is_due_its_delay_after_the_response(tmp_path, time_scale):
    """First turns at their times, later turns after the end of the response before them, which they contain."""
    asked = sessions(tmp_path, time_scale=str(time_scale))
    found = {one.request.max_tokens: one for one in asked.samples}
    begin_ns = found[5].due_ns
    assert [found[tokens].due_ns - begin_ns for tokens in (6, 10)] == [S // 2 // time_scale, S // time_scale]
    assert [found[later].due_ns - found[before].end_ns for before, later in ((5, 7), (7, 8), (6, 9))] == [
        2 * S // time_scale, 0, 4 * S // time_scale,
    ]  # fmt: skip
    assert all(one.sent_ns == one.due_ns for one in asked.samples)
    lengths = [len(body["messages"]) for body in sorted(asked.bodies, key=lambda body: body["max_tokens"])]
    assert lengths == [1, 1, 3, 5, 3, 1]
    assert {one.request.max_tokens: one.request.turn for one in asked.samples} == {
        5: 1, 6: 1, 7: 2, 8: 3, 9: 2, 10: None,
    }  # fmt: skip
    assert found[8].input_tokens > found[7].input_tokens > found[5].input_tokens
    summary = asked.summary()
    assert (summary.outcomes, summary.missed) == ({"ok": 6}, 0)
    # The window closes with the last response.
    assert asked.recording.window[1] == max(one.end_ns for one in asked.samples)
    assert not {"missed_arrivals", "audit", "late_sends"} & {reason.code for reason in summary.verdict.reasons}


def test_a_session_ends_with_the_time_that_was_given(tmp_path):
    """What is due later is not sent; and a duration beyond the last response makes no empty time."""
    assert len(sessions(tmp_path, duration="2s").samples) == 3
    asked = sessions(tmp_path, duration="1h")
    assert len(asked.samples) == 6
    assert asked.recording.window[1] == max(one.end_ns for one in asked.samples)


def test_a_session_ends_with_a_failure(tmp_path):
    """There is no response that the next turn could contain."""
    (tmp_path / "trace").write_bytes(b"\n".join(map(orjson.dumps, SESSIONS[:3])))
    scenario = resolve(flags={"trace": str(tmp_path / "trace")}, environment={})
    plan = level_plan(scenario, LevelSpec(load=scenario.loads[0], key="m/0", calibration=KNOWN))
    ran = run_scripted(plan.load, Act(breaks=Outcome.RESET), plan={"prompts": plan.prompts}, requests=3)
    assert [one.outcome for one in ran.samples] == [Outcome.RESET, Outcome.RESET]
    assert ran.recording.arrivals_due == 2


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"api": "completions", "url": "http://127.0.0.1:1"}, "--api: the trace has sessions"),
        ({"cool_down": "3s"}, "--cool-down: has no effect with --trace: a trace that is measured to its end"),
    ],
)
def test_what_cannot_be_with_sessions_is_refused(tmp_path, flags, says):
    """Before anything is sent."""
    with pytest.raises(BadInput, match=says):
        sessions(tmp_path, **flags)


def test_sessions_need_one_process(tmp_path):
    """A turn follows the response that its own process received."""
    asked = sessions(tmp_path)
    assert workers_for(asked.scenario, cores=64) == 1
    (tmp_path / "trace").write_bytes(b"\n".join(map(orjson.dumps, SESSIONS)))
    scenario = resolve(flags={"trace": str(tmp_path / "trace"), "workers": "2"}, environment={})
    with pytest.raises(BadInput, match="--workers: a trace with sessions is replayed by one process"):
        workers_for(scenario, cores=64)
    scenario = resolve(flags={"trace": str(tmp_path / "trace"), "cluster": "local:2"}, environment={})
    with pytest.raises(BadInput, match="--cluster: a trace with sessions is replayed by one process"):
        workers_for(scenario, cores=64)
