"""Levels whose length nobody gave, in virtual time: how long they last, and that their rates are right."""

from __future__ import annotations

import random
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.client.client import Client, Endpoint
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine.sweep import Sweep, open_share_ns, share_ns
from loadbench.plan.distribution import Constant
from loadbench.plan.load import Closed, LevelDuration, Phase
from loadbench.plan.scenario import Scenario
from loadbench.plan.settings import LoadSettings, WorkSettings
from loadbench.plan.sources import resolve
from loadbench.record.outcome import Outcome
from tests.engine.scripted import PATIENT, Act, S, Scripted, ScriptedSession, run_scripted
from tests.engine.test_sweep import Watcher
from tests.engine.test_workers import run_crew

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.record.recorder import LevelRecording

MINUTE = 60 * S


def served(seconds: Callable[[], float]) -> Callable[[int], Act]:
    """Responses of ten tokens that take as long as drawn."""

    def act(_: int) -> Act:
        took = seconds()
        return Act(first_ns=round(took * S / 10), gap_ns=round(took * S / 10), tokens=10)

    return act


def swept(act: Callable[[int], Act], *, workers: int = 1_000_000, seed: int = 1, **load) -> list[LevelRecording]:
    """The levels of a sweep without --duration and without --warm-up."""
    watcher = Watcher()

    async def main() -> None:
        clock = VirtualClock()
        transport = Scripted(clock, act, workers=workers)
        client = Client(Endpoint(base_url="http://x/v1", model="m"), transport, clock=clock, timeouts=PATIENT)
        scenario = Scenario(load=LoadSettings(**load), work=WorkSettings(max_tokens=64, seed=seed))
        session = ScriptedSession(clock, lambda _: client)
        await Sweep(scenario, session, models=("m",), observer=watcher).run()

    run_virtual(main)
    return watcher.recordings


def ended(recording: LevelRecording) -> int:
    return sum(recording.outcomes.values())


def test_a_fast_server_is_measured_for_ten_seconds():
    """Where there is enough in ten seconds, nothing is longer than it was."""
    for recording in swept(served(lambda: 0.2), users=(1, 8)):
        assert recording.window_s == 10
        assert recording.warm_up_ns == 2 * S


@pytest.mark.parametrize(("users", "workers", "took_s"), [(1, 1, 1.0), (4, 4, 12.0), (8, 4, 5.0), (12, 4, 3.0)])
def test_a_slow_server_is_measured_until_there_is_enough(users, workers, took_s):
    """Three rounds of users, and 20 responses, after a warm-up in which every user had a response."""
    (recording,) = swept(served(lambda: took_s), workers=workers, users=(users,))
    assert ended(recording) >= max(20, 3 * users)
    rounds_s = took_s * max(1, users / workers)
    assert recording.warm_up_ns >= rounds_s * S
    assert recording.window_s <= 2 * max(20 / users, 3) * rounds_s + 1
    assert set(recording.outcomes) == {Outcome.OK}


def test_a_window_has_whole_slices_of_time():
    """It ends at a whole second of itself, and not with a response."""
    for seed in range(5):
        draw = random.Random(seed)
        (recording,) = swept(served(lambda draw=draw: draw.expovariate(1 / 2)), users=(1,))
        assert (recording.window[1] - recording.window[0]) % S == 0


def test_an_open_loop_waits_for_twenty_responses():
    """At one request in five seconds, ten seconds show two."""
    (recording,) = swept(served(lambda: 1.0), users=None, rate=(0.2,))
    assert ended(recording) >= 20
    assert recording.window_s >= 100


def test_think_times_are_part_of_a_round():
    """A user who thinks for a minute has no second response in ten seconds."""
    (recording,) = swept(served(lambda: 1.0), users=(4,), think=Constant(20 * S))
    assert 20 <= ended(recording) <= 32


@pytest.mark.parametrize("later", [Act(status=500, first_ns=S // 10), Act(first_ns=10**6 * S)], ids=["fails", "silent"])
def test_a_server_that_stops_is_not_waited_for(later):
    """A server that refuses every request has ended them all; one that is silent ends the level with its share."""
    calls = iter(range(10**9))
    (recording,) = swept(lambda _: Act(first_ns=S // 10) if next(calls) < 50 else later, users=(2,), max_total=MINUTE)
    if later.status == 500:
        assert recording.window_s == 10
        return
    assert recording.warm_up_ns + recording.window[1] - recording.window[0] == MINUTE


def test_all_levels_keep_within_the_total():
    """What the first levels leave goes to the later ones; the end of the total ends a level with what it has."""
    levels = swept(served(lambda: 20.0), workers=1, users=(1, 2, 4, 8), max_total=10 * MINUTE)
    loads_ns = sum(level.warm_up_ns + level.window[1] - level.window[0] for level in levels)
    assert len(levels) == 4
    assert loads_ns <= 10 * MINUTE
    assert all(ended(level) > 0 for level in levels)


@given(left_s=st.integers(0, 4000), levels=st.integers(1, 40))
def test_a_share_leaves_the_others_their_least(left_s, levels):
    """However many levels there are, what all of them may take is what is left, or their least."""
    left_ns, least_ns = left_s * S, 12 * S
    taken = 0
    for more in range(levels, 0, -1):
        share = share_ns(left_ns - taken, more, least_ns)
        assert share >= least_ns
        taken += share
    assert taken <= max(left_ns, levels * least_ns)


def test_a_level_that_is_stopped_in_its_warm_up_ends_now():
    """How long the warm-up would have been is not known; nothing waits for the longest one."""
    stopped = []

    async def during(level) -> None:
        await anyio.sleep(3)
        level.stop()
        stopped.append(level.now_ns)

    extent = {"duration_ns": 10 * S, "warm_up_ns": 2 * S, "most_warm_up_ns": 120 * S, "most_ns": 600 * S, "answers": 20}
    ran = run_scripted(Closed(2), Act(first_ns=8 * S), during=during, **extent)
    assert ran.recording.window == (stopped[0], stopped[0])
    assert ran.recording.interrupted
    assert ran.end_ns < 10 * S


def test_an_open_loop_warms_up_for_its_first_responses():
    """The median of an overloaded or slow server is not above the warm-up; a rare request is not waited for."""
    (slow,) = swept(served(lambda: 7.0), users=None, rate=(2.0,))
    assert 14 * S <= slow.warm_up_ns <= 21 * S
    (rare,) = swept(served(lambda: 1.0), users=None, rate=(0.02,), max_total=30 * MINUTE)
    assert rare.warm_up_ns <= 10 * S


@pytest.mark.slow
@pytest.mark.parametrize("users", [3, 8])
def test_worker_processes_end_such_a_level_together(users):
    """They have one window, which is that of the responses of all; every request is in the phase of its due time."""
    scenario = resolve(flags={"users": str(users), "max_tokens": "300"}, environment={})
    duration = LevelDuration(
        duration_ns=2 * S, warm_up_ns=S // 2, most_warm_up_ns=10 * S, most_ns=60 * S, answers=3 * users + 20
    )
    recording, samples, _, _ = run_crew(scenario, Closed(users), workers=3, duration=duration)
    opens_ns, closes_ns = recording.window
    assert (closes_ns - opens_ns) % S == 0
    assert ended(recording) >= 3 * users + 20
    for sample in samples:
        expected = Phase.WARM_UP if sample.due_ns < opens_ns else Phase.MEASURED
        assert sample.phase is expected
        assert sample.due_ns < closes_ns
    first = {user: min(one.end_ns for one in samples if one.request.user == user) for user in range(users)}
    assert opens_ns >= max(first.values())


def test_rates_share_the_total_by_what_they_need():
    """A rate of one request in fifty seconds has no twenty in any share, and leaves the others theirs."""
    assert open_share_ns(900, [1500, 600, 300, 150, 100], 12) == 216
    assert open_share_ns(900, [100, 1500, 600, 300, 150], 12) == 180
    levels = swept(served(lambda: 5.0), users=None, rate=(0.02, 0.1, 0.2, 0.3))
    assert [ended(level) >= 20 for level in levels] == [False, True, True, True]
    assert sum(level.warm_up_ns + level.window[1] - level.window[0] for level in levels) <= 15 * MINUTE


def test_a_given_length_is_kept():
    """A duration, or a number of requests, is what it was; a given warm-up too."""
    (by_time,) = swept(served(lambda: 5.0), users=(2,), duration=7 * S, warm_up=3 * S)
    assert (by_time.window_s, by_time.warm_up_ns) == (7, 3 * S)
    (by_number,) = swept(served(lambda: 5.0), users=(2,), requests=6)
    assert ended(by_number) == 6
    assert by_number.warm_up_ns >= 5 * S


@pytest.mark.slow
@pytest.mark.parametrize(
    ("took", "workers", "load", "rate"),
    [
        (lambda draw: draw.expovariate(1 / 2), 10**6, {"users": (1,)}, 0.5),
        (lambda draw: draw.expovariate(1 / 5), 4, {"users": (8,)}, 0.8),
        (lambda draw: draw.lognormvariate(0.0, 0.5) * 3.0, 10**6, {"users": (4,)}, None),
        (lambda draw: draw.expovariate(1 / 2), 10**6, {"users": None, "rate": (0.4,)}, 0.4),
    ],
    ids=["one user", "eight users, four at once", "four users", "open"],
)
def test_throughput_is_unbiased(took, workers, load, rate):
    """A window that ended with its 20th response would show 5 % too many; over 60 levels that is far outside."""
    rates, tokens = [], []
    mean_s = 3.0 * 2.718281828 ** (0.5**2 / 2)
    rate = 4 / mean_s if rate is None else rate
    for seed in range(60):
        draw = random.Random(seed)
        (recording,) = swept(served(lambda draw=draw: took(draw)), workers=workers, seed=seed, **load)
        rates.append(recording.production.answers / recording.window_s / rate)
        tokens.append(recording.production.output_tokens / recording.window_s / rate / 10)
    for values in (rates, tokens):
        assert abs(fmean(values) - 1) < 2.6 * stdev(values) / len(values) ** 0.5 + 0.005
