"""The sweep in virtual time: models and levels one after another, failures marked, stops obeyed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import orjson
import pytest

from loadbench.analyze.level.summary import summarize
from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.core.errors import ExitCode, TargetUnavailable
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine.sweep import EarlierLevels, LastLevel, Sweep
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.distribution import Constant, Uniform
from loadbench.plan.load import Closed, Open, Phase
from loadbench.plan.scenario import Scenario
from loadbench.plan.setting_types import AUTO_USERS
from loadbench.plan.settings import LoadSettings, WorkSettings
from loadbench.plan.sim_profile import PROFILES
from loadbench.record.outcome import Outcome
from loadbench.sim.transport import SimTransport
from tests.engine.scripted import MS, Act, Scripted, ScriptedSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.engine.target import ModelUnderTest

S = 1_000_000_000
EXACT = PROFILES["slot-server"].exact()


@dataclass
class Watcher:
    """An observer that keeps all, and may act on it."""

    on_begin: Callable[[int], None] = lambda _: None
    on_end: Callable[[int], None] = lambda _: None
    events: list[tuple] = field(default_factory=list)
    recordings: list = field(default_factory=list)
    samples: dict[int, list] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    subjects: list[ModelUnderTest] = field(default_factory=list)

    def model_prepared(self, subject):
        self.subjects.append(subject)

    def level_planned(self, load, model, number):
        pass

    def level_begins(self, level, model, number):
        self.events.append(("begins", model, level.label, number))
        self.on_begin(number)

    def sample_ended(self, sample, number):
        self.samples.setdefault(number, []).append(sample)

    def level_ended(self, recording, model, load):
        self.events.append(("ended", model, load.label))
        self.recordings.append(recording)
        self.on_end(len(self.recordings) - 1)

    def model_failed(self, model, reason):
        self.events.append(("failed", model))
        self.failures[model] = reason

    def ended(self) -> list[tuple]:
        """(model, load) of the levels that are complete."""
        return [event[1:] for event in self.events if event[0] == "ended"]


def scenario(*, work: WorkSettings | None = None, **load) -> Scenario:
    """A short sweep."""
    short = {"users": (1, 2), "duration": 2 * S, "warm_up": 0, "ramp": 0} | load
    return Scenario(load=LoadSettings(**short), work=work or WorkSettings(max_tokens=5))


def swept(
    plan: Scenario,
    *models: str,
    missing=None,
    watcher=None,
    have=("a", "b", "c"),
    during=None,
    counters=None,
    settled=None,
    next_users=None,
    earlier=None,
):
    """Sweep the simulated server, which has the models `have`; the watcher and the sweep. `during` runs beside it."""
    watcher = watcher or Watcher()
    kept: list[Sweep] = []
    failed: list[TargetUnavailable] = []

    async def main() -> None:
        clock = VirtualClock()
        async with SimTransport(EXACT, clock=clock, models=have).serving() as transport:

            def client_for(model: str) -> Client:
                endpoint = Endpoint(base_url="http://simulated/v1", model=model)
                return Client(endpoint, transport, clock=clock, timeouts=Timeouts())

            sweep = Sweep(
                plan,
                ScriptedSession(clock, client_for, counters=counters, settled=settled),
                models=models,
                missing=missing,
                observer=watcher,
                next_users=next_users,
                earlier=earlier,
            )
            kept.append(sweep)
            async with anyio.create_task_group() as beside:
                if during is not None:
                    beside.start_soon(during, sweep)
                try:
                    await sweep.run()
                except TargetUnavailable as error:
                    failed.append(error)  # raised below: a task group would wrap it

    run_virtual(main)
    if failed:
        raise failed[0]
    return watcher, kept[0]


def test_every_model_runs_at_every_load_in_order():
    """Levels are numbered through; each is handed out before the next begins."""
    watcher, sweep = swept(scenario(), "a", "b")
    assert watcher.events == [
        ("begins", "a", "users=1", 0),
        ("ended", "a", "users=1"),
        ("begins", "a", "users=2", 1),
        ("ended", "a", "users=2"),
        ("begins", "b", "users=1", 2),
        ("ended", "b", "users=1"),
        ("begins", "b", "users=2", 3),
        ("ended", "b", "users=2"),
    ]
    assert not sweep.stopped
    assert [recording.models for recording in watcher.recordings] == [
        {model: recording.outcomes[Outcome.OK]} for model, recording in zip("aabb", watcher.recordings, strict=True)
    ]


def test_a_resumed_sweep_goes_on_where_it_was():
    """Of a model that is complete nothing is asked; of the other one, the levels that are left, numbered on."""
    last = LastLevel(300 * MS, Closed(2))
    earlier = EarlierLevels({"a": last, "b": LastLevel(300 * MS)}, {"a": 2, "b": 1}, {"a"}, spent_ns=6 * S)
    watcher, _ = swept(scenario(), "a", "b", "c", earlier=earlier)
    assert [subject.model for subject in watcher.subjects] == ["b", "c"]
    assert [event for event in watcher.events if event[0] == "begins"] == [
        ("begins", "b", "users=2", 3),
        ("begins", "c", "users=1", 4),
        ("begins", "c", "users=2", 5),
    ]


def test_a_sweep_of_which_everything_is_complete_asks_nothing():
    """Its models respond or not: the run is what it was."""
    earlier = EarlierLevels({"a": LastLevel(MS)}, {"a": 2}, {"a"})
    watcher, sweep = swept(scenario(), "a", have=(), earlier=earlier)
    assert (watcher.events, sweep.stopped) == ([], False)


def test_levels_carry_the_scenarios_settings():
    """Load, extent, ramp and the longest answer are those of the scenario; the ramp stays within the warm-up."""
    plans = []
    watcher = Watcher()
    watcher.level_begins = lambda level, model, number: plans.append(level.plan)
    load = {"rate": (0.5, 4.0), "arrivals": parse_arrivals("constant"), "max_in_flight": 7, "cool_down": S}
    swept(scenario(warm_up=S, ramp=3 * S, **load), "a", watcher=watcher)
    assert [plan.load for plan in plans] == [Open(rate, parse_arrivals("constant")) for rate in (0.5, 4.0)]
    for plan in plans:
        assert (plan.duration.warm_up_ns, plan.duration.duration_ns, plan.duration.cool_down_ns) == (S, 2 * S, S)
        assert (plan.ramp_ns, plan.most_in_flight, plan.max_tokens) == (S, 7, 5)


def test_failing_model_is_marked_and_the_rest_go_on():
    """A model that the server does not have, or does not list, is no reason to lose the others."""
    watcher, sweep = swept(scenario(), "a", "absent", "unlisted", "b", missing={"unlisted": "has no model 'unlisted'"})
    assert watcher.ended() == [(model, load) for model in "ab" for load in ("users=1", "users=2")]
    assert watcher.failures.keys() == {"absent", "unlisted"}
    assert "404" in watcher.failures["absent"]
    assert "has no model" in watcher.failures["unlisted"]
    assert [event[3] for event in watcher.events if event[0] == "begins"] == [0, 1, 2, 3]
    assert not sweep.stopped


def test_all_failing_is_an_unavailable_target():
    """With no model left the sweep says why, of each, and the exit code is the target's."""
    watcher = Watcher()
    with pytest.raises(TargetUnavailable, match=r"no: .*404.*; nor: .*404") as caught:
        swept(scenario(), "no", "nor", watcher=watcher)
    assert caught.value.exit_code is ExitCode.TARGET_UNAVAILABLE
    assert watcher.events == [("failed", "no"), ("failed", "nor")]


def test_stop_between_levels_starts_no_other():
    """Stopped while a level's recording is being saved, the sweep ends with that level, which is whole."""
    stops = []
    watcher = Watcher(on_end=lambda _: stops[0]())

    async def remember(sweep):
        stops.append(sweep.stop)

    _, sweep = swept(scenario(), "a", "b", watcher=watcher, during=remember)
    assert watcher.ended() == [("a", "users=1")]
    assert sweep.stopped
    assert not watcher.recordings[0].interrupted


def stopping(*, times: int) -> tuple[Watcher, Callable]:
    """An observer, and who stops the sweep that it observes 3 s into the first level."""
    begun: list[anyio.Event] = []
    watcher = Watcher(on_begin=lambda _: begun[0].set())

    async def stop(sweep):
        begun.append(anyio.Event())
        await begun[0].wait()
        await anyio.sleep(3)
        for _ in range(times):
            sweep.stop()

    return watcher, stop


def test_stop_in_a_level_keeps_it_and_starts_no_other():
    """Stopped under way, a level is drained, handed out as interrupted, and is the last."""
    watcher, stop = stopping(times=1)
    _, sweep = swept(scenario(users=(1, 2), duration=60 * S), "a", "b", watcher=watcher, during=stop)
    assert watcher.ended() == [("a", "users=1")]
    (recording,) = watcher.recordings
    assert recording.interrupted
    assert recording.outcomes.keys() == {Outcome.OK}
    assert recording.window_s == 3
    assert sweep.stopped


def test_second_stop_cuts_the_level_under_way():
    """Who does not want to wait for the drain need not."""
    watcher, stop = stopping(times=2)
    slow = WorkSettings(max_tokens=8000)
    swept(scenario(users=(2,), duration=60 * S, work=slow), "a", watcher=watcher, during=stop)
    (recording,) = watcher.recordings
    assert recording.outcomes == {Outcome.CANCELLED: 2}
    assert {sample.end_ns for sample in watcher.samples[0]} == {recording.window[1]}


def test_stop_before_the_first_level_ends_at_once():
    """Stopped while a model's first answer is awaited, there is no level, and no failure either."""
    clocks = []

    async def stop(sweep):
        await anyio.sleep(0.001)
        sweep.stop()
        clocks.append(VirtualClock().now_ns())

    watcher, sweep = swept(scenario(), "a", during=stop)
    assert watcher.events == []
    assert sweep.stopped
    assert clocks == [MS]


@pytest.mark.parametrize("users", [(1,), (3, 8)])
def test_dealt_words_make_prompts_of_exactly_the_asked_length(users):
    """H2: the first answers tell what a word and the template cost; each prompt then has the tokens asked for."""
    work = WorkSettings(input_tokens=Uniform(20, 300), max_tokens=5)
    watcher, _ = swept(scenario(users=users, work=work), "a")
    samples = [sample for level in watcher.samples.values() for sample in level]
    assert len(samples) > 20
    assert all(sample.input_tokens == sample.request.target_input_tokens for sample in samples)
    assert len({sample.input_tokens for sample in samples}) > 10
    for recording in watcher.recordings:
        assert recording.prompt_lengths.requests == recording.outcomes[Outcome.OK]
        assert (recording.prompt_lengths.error, recording.prompt_lengths.spread) == (0, 0)


def test_drawn_answer_lengths_are_asked_for_and_given():
    """Where the answers' lengths are drawn, each request asks for its own, and gets it."""
    work = WorkSettings(input_tokens=Constant(50), output_tokens=Uniform(1, 30))
    watcher, _ = swept(scenario(work=work), "a")
    for sample in watcher.samples[0]:
        assert sample.output_tokens == sample.request.max_tokens
    assert len({sample.output_tokens for sample in watcher.samples[0]}) > 5


def test_no_two_requests_of_a_sweep_ask_the_same():
    """B11, H1: levels and models differ in what they ask, so that no cache of prefixes can flatter any of them."""
    asked = []

    class Listening(SimTransport):
        async def exchange(self, exchange, sink):
            asked.append(exchange.body.partition(b'"content":')[2].partition(b"}")[0])
            await super().exchange(exchange, sink)

    async def main() -> None:
        clock = VirtualClock()
        async with Listening(EXACT, clock=clock, models=("a", "b")).serving() as transport:
            sweep = Sweep(
                scenario(work=WorkSettings(prompt="Why?", max_tokens=5)),
                ScriptedSession(
                    clock,
                    lambda model: Client(
                        Endpoint(base_url="http://s/v1", model=model), transport, clock=clock, timeouts=Timeouts()
                    ),
                ),
                models=("a", "b"),
                observer=Watcher(),
            )
            await sweep.run()

    run_virtual(main)
    first, *levels = asked
    assert len(levels) > 100
    assert len(set(levels)) >= len(levels) - 1  # both models are asked the same first question
    assert all(text.endswith(b' Why?"') for text in asked)
    assert levels.count(first) == 1


def test_model_that_answers_nothing_is_marked():
    """A first answer must come, within the limits: a hung model costs the sweep its time-out, and no more."""
    watcher = Watcher()

    async def main() -> None:
        clock = VirtualClock()

        def client_for(model: str) -> Client:
            act = Act(stalls_after=0) if model == "hung" else Act(first_ns=100 * MS, tokens=3)
            endpoint = Endpoint(base_url="http://s/v1", model=model)
            return Client(endpoint, Scripted(clock, lambda _: act), clock=clock, timeouts=Timeouts())

        sweep = Sweep(scenario(users=(1,)), ScriptedSession(clock, client_for), models=("hung", "m"), observer=watcher)
        await sweep.run()

    run_virtual(main)
    assert watcher.ended() == [("m", "users=1")]
    assert "no token within 2m" in watcher.failures["hung"]
    begins_ns = min(sample.due_ns for sample in watcher.samples[0])
    assert begins_ns == 120 * S + 3 * 100 * MS  # the time-out, then the three first answers of the other


def answered_by(act: Callable[[int], Act], work: WorkSettings) -> tuple[Watcher, list[ModelUnderTest], list[bytes]]:
    """Sweep a scripted server: the watcher, the models that answered, and what was asked, in order."""
    watcher, asked = Watcher(), []

    class Listening(Scripted):
        async def exchange(self, exchange, sink):
            asked.append(exchange.body)
            await super().exchange(exchange, sink)

    async def main() -> None:
        clock = VirtualClock()
        client = Client(
            Endpoint(base_url="http://s/v1", model="m"), Listening(clock, act), clock=clock, timeouts=Timeouts()
        )
        await Sweep(
            scenario(work=work, users=(1,), duration=S),
            ScriptedSession(clock, lambda _: client),
            models=("m",),
            observer=watcher,
        ).run()

    run_virtual(main)
    return watcher, watcher.subjects, asked


def test_a_model_is_measured_though_its_second_first_answer_fails():
    """What that one is asked for, a first token when warm, is unknown then; the levels run."""
    failing = WorkSettings(prompt="Why?", max_tokens=1)
    watcher, (subject,), _ = answered_by(lambda number: Act(status=500 if number == 1 else 200), failing)
    assert (subject.warm, watcher.failures) == (None, {})
    assert watcher.ended() == [("m", "users=1")]


@pytest.mark.parametrize(
    ("work", "differ"),
    [
        (WorkSettings(prompt="Why not now?", max_tokens=1), True),
        (WorkSettings(input_tokens=Constant(20), max_tokens=1), True),
        (WorkSettings(prompt="Why not now?", max_tokens=1, unique=False), False),
    ],
)
def test_warm_first_token_is_of_another_prompt_unless_prompts_are_asked_as_they_are(work, differ):
    """A cached prefix is not a warm model: first words differ, lengths do not."""
    _, (subject,), asked = answered_by(lambda _: Act(first_ns=MS), work)
    first, again = (orjson.loads(asked[at])["messages"][0]["content"] for at in (0, len(subject.samples)))
    assert (first.split()[0] != again.split()[0]) is differ
    assert len(first.split()) == len(again.split())


def test_first_answers_are_no_part_of_a_level():
    """What is asked before the load is in no recording."""
    watcher, _ = swept(scenario(users=(1,), requests=4), "a")
    assert watcher.recordings[0].phases == {Phase.MEASURED: 4}
    assert len(watcher.samples[0]) == 4
    assert Closed(1).label == watcher.ended()[0][1]


# The server's own counters.


def scripted(watcher: Watcher, *told: dict | None, takes_s: float = 0.0) -> Callable:
    """What `/metrics` says, time after time; each reading is an event of the watcher."""
    pages = iter(told)

    async def counters():
        watcher.events.append(("counters",))
        await anyio.sleep(takes_s)
        return next(pages)

    return counters


def test_counters_are_read_before_a_level_begins_and_after_it_ran():
    """Each level has what rose from its own beginning to its own end; what rose between levels is nobody's."""
    watcher = Watcher()
    pairs = (5, None), (7, 1), (10, 1), (10, 4)
    told = [{"x_total": float(x)} | ({} if y is None else {"y_total": float(y)}) for x, y in pairs]
    counters = scripted(watcher, *told, takes_s=1.0)
    swept(scenario(), "a", watcher=watcher, counters=counters)
    assert [event[0] for event in watcher.events] == ["counters", "begins", "counters", "ended"] * 2
    assert [recording.server for recording in watcher.recordings] == [
        {"x_total": 2.0, "y_total": 1.0},
        {"x_total": 0.0, "y_total": 3.0},
    ]
    assert not any(recording.server_restarted for recording in watcher.recordings)
    # The seconds that the readings took are in no level.
    plain, _ = swept(scenario(), "a")
    for ours, theirs in zip(watcher.recordings, plain.recordings, strict=True):
        assert (ours.window_s, ours.outcomes) == (theirs.window_s, theirs.outcomes)


@pytest.mark.parametrize(
    ("before", "after", "restarted"),
    [
        ({"x_total": 5.0, "y_total": 1.0}, {"x_total": 4.0, "y_total": 9.0}, True),
        ({"x_total": 5.0, "y_total": 1.0}, {"y_total": 9.0}, True),
        ({"x_total": 5.0}, None, True),
        ({"x_total": 5.0}, {"x_total": 5.0}, False),
        ({"x_total": 0.0}, {"y_total": 9.0}, False),
        (None, {"x_total": 1.0}, False),
        (None, None, False),
    ],
)
def test_counters_that_fall_or_vanish_are_a_restart(before, after, restarted):
    """E8: a counter that fell, or that is gone, was begun anew; what it rose by is then not known."""
    watcher = Watcher()
    swept(scenario(users=(1,)), "a", watcher=watcher, counters=scripted(watcher, before, after, after))
    (recording,) = watcher.recordings
    assert recording.server_restarted is restarted
    assert (recording.server is None) is (restarted or before is None)
    level = summarize(recording, target="t", model="a", load=Closed(1), failure_limit=0.01)
    assert ("server_restarted" in {reason.code for reason in level.verdict.reasons}) is restarted


def test_page_that_was_missed_once_is_no_restart():
    """A busy server that does not tell its counters in time is asked once more."""
    watcher = Watcher()
    counters = scripted(watcher, {"x_total": 1.0}, None, {"x_total": 3.0})
    swept(scenario(users=(1,)), "a", watcher=watcher, counters=counters)
    assert watcher.recordings[0].server == {"x_total": 2.0}


def test_stop_while_the_counters_are_read_keeps_the_level():
    """A measured level is handed out, counters and all, should the sweep be stopped just then; it is the last."""
    watcher = Watcher()

    async def stop(sweep):
        while watcher.events[-1:] != [("counters",)] or len(watcher.events) < 3:
            await anyio.sleep(0.1)
        sweep.stop()

    told = ({"x_total": 1.0}, {"x_total": 3.0})
    counters = scripted(watcher, *told, takes_s=1.0)
    _, sweep = swept(scenario(), "a", watcher=watcher, during=stop, counters=counters)
    assert sweep.stopped
    assert watcher.ended() == [("a", "users=1")]
    assert watcher.recordings[0].server == {"x_total": 2.0}


def test_stop_waits_only_a_moment_for_counters():
    """A page that takes minutes keeps nobody who presses Ctrl-C: the level is handed out without what rose."""
    watcher = Watcher()
    took_s = []

    async def counters():
        watcher.events.append(("counters",))
        if len(watcher.recordings) + len(watcher.events) > 2:
            await anyio.sleep(600)
        return {"x_total": 1.0}

    async def stop(sweep):
        while watcher.events[-1:] != [("counters",)] or len(watcher.events) < 3:
            await anyio.sleep(0.1)
        began_s = anyio.current_time()
        sweep.stop()
        while not watcher.ended():
            await anyio.sleep(0.1)
        took_s.append(anyio.current_time() - began_s)

    swept(scenario(), "a", watcher=watcher, during=stop, counters=counters)
    assert watcher.ended() == [("a", "users=1")]
    assert watcher.recordings[0].server is None
    assert took_s[0] < 2


def test_stop_while_the_first_counters_are_read_begins_no_level():
    """There is nothing to keep yet, and so nothing is waited for."""
    watcher = Watcher()

    async def stop(sweep):
        while not watcher.events:
            await anyio.sleep(0.1)
        sweep.stop()

    _, sweep = swept(scenario(), "a", watcher=watcher, during=stop, counters=scripted(watcher, None, takes_s=1.0))
    assert sweep.stopped
    assert watcher.events == [("counters",)]


def test_what_is_sampled_beside_a_level_is_known_before_it_is_kept():
    """After each level, with the moment its window closed, and before it is handed out; a stop does not cut that."""
    watcher = Watcher()
    settled_at: list[tuple[int, int]] = []

    async def settled(closes_ns: int) -> None:
        await anyio.sleep(0.5)
        settled_at.append((closes_ns, len(watcher.recordings)))

    async def stop(sweep: Sweep) -> None:
        while sweep._runner.level is None:
            await anyio.sleep(0.1)
        while sweep._runner.level is not None:
            await anyio.sleep(0.1)
        sweep.stop()  # the level is over, and its last reading is waited for

    swept(scenario(), "a", watcher=watcher, settled=settled)
    assert settled_at == [(recording.window[1], number) for number, recording in enumerate(watcher.recordings)]
    settled_at.clear()
    watcher = Watcher()
    swept(scenario(), "a", watcher=watcher, settled=settled, during=stop)
    assert [(watcher.recordings[0].window[1], 0)] == settled_at
    assert watcher.ended() == [("a", "users=1")]


def test_a_single_user_is_compared_with_the_first_requests():
    """They had the new connection that it has not, for a prompt of its length; more users bring their own."""
    words = WorkSettings(max_tokens=5, prompt="Why is the sky blue, and the grass green?", unique=False)
    watcher, _ = swept(scenario(users=(1, 2), work=words), "a")
    assert [sample.reused for sample in watcher.subjects[0].samples] == [False]
    alone, both = watcher.recordings
    # The kept connection is used again, and the second user opens another.
    assert (alone.connections.new.count, alone.connections.kept) == (1, alone.outcomes[Outcome.OK])
    assert (both.connections.new.count, both.connections.kept) == (1, both.outcomes[Outcome.OK] - 1)


def test_a_sweep_that_finds_its_levels_asks_for_each():
    """The users of the next level are asked for when the last one is kept, for each model by itself."""
    watcher, left, asked = Watcher(), {"a": [1, 2, 4, 3], "b": [1, 2]}, {"a": 0, "b": 0}

    def next_users(model):
        assert [one for one, _ in watcher.ended()].count(model) == asked[model]
        asked[model] += 1
        return left[model].pop(0) if left[model] else None

    swept(scenario(users=AUTO_USERS), "a", "b", watcher=watcher, next_users=next_users)
    assert watcher.ended() == [
        *(("a", f"users={users}") for users in (1, 2, 4, 3)),
        *(("b", f"users={users}") for users in (1, 2)),
    ]
    numbers = [event[3] for event in watcher.events if event[0] == "begins"]
    assert numbers == [0, 1, 2, 3, 4, 5]
