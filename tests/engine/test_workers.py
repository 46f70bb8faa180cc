"""Worker processes: what many of them record is what one would, and one that dies is noticed."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter

import anyio
import pytest

from loadbench.analyze.level.verdict import judge
from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import BadInput, LoadbenchError
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine.health import NoHealth
from loadbench.engine.level import Level
from loadbench.engine.parts import level_plan
from loadbench.engine.workers import WorkerPool, _together, workers_for
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.load import WHOLE, Closed, Open, Phase, Shard
from loadbench.plan.scenario import LoadSettings, Scenario, WorkSettings
from loadbench.plan.sources import resolve
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome
from loadbench.record.recorder import Health, Recorder
from loadbench.sim.process import SimProcess
from loadbench.sim.profile import PROFILES
from loadbench.sim.transport import SimTransport
from loadbench.targets.openai import Target

S = 1_000_000_000
EXACT = PROFILES["slot-server"].exact()


def scenario(**load) -> Scenario:
    """A short level with prompts and answers of a few tokens."""
    short = {"users": (6,), "duration": S, "warm_up": 200_000_000, "ramp": 100_000_000} | load
    return Scenario(load=LoadSettings(**short), work=WorkSettings(max_tokens=8))


@pytest.mark.parametrize(("shards"), [2, 3])
@pytest.mark.parametrize("load", [Closed(6), Open(40.0, parse_arrivals("poisson"))], ids=["closed", "open"])
def test_shards_record_what_one_process_records(load, shards):
    """In virtual time a level in shards sends the same requests at the same moments, and all of it adds up."""

    def recorded(parts: list[Shard]) -> tuple:
        async def main() -> tuple:
            clock = VirtualClock()
            plan = scenario()
            async with SimTransport(EXACT, clock=clock).serving() as transport:
                client = Client(
                    Endpoint(base_url="http://s/v1", model=EXACT.model), transport, clock=clock, timeouts=Timeouts()
                )
                samples: list = []
                levels = []
                recorder = None
                for part in parts:
                    level = Level(
                        level_plan(plan, load, key="k", calibration=None, shard=part),
                        client=client,
                        clock=clock,
                        health=NoHealth(),
                        on_sample=samples.append,
                        recorder=recorder,
                    )
                    recorder = recorder or Recorder(level.phases)
                    level._recorder = recorder
                    levels.append(level)
                async with anyio.create_task_group() as group:
                    for level in levels:
                        group.start_soon(level.keep)
                recording = recorder.close(
                    window=(levels[0].phases.opens_ns, levels[0].phases.closes_ns),
                    arrivals_due=sum(level.due for level in levels),
                    missed=sum(level.missed for level in levels),
                    interrupted=False,
                    health=NoHealth().close(),
                )
                told = sorted((one.number, one.due_ns, one.sent_ns, one.end_ns, one.phase) for one in samples)
                facts = (
                    recording.outcomes,
                    recording.production,
                    recording.arrivals_due,
                    recording.arrivals_sent,
                    recording.in_flight_peak,
                    recording.in_flight_mean,
                    recording.histograms,
                )
                return told, facts

        return run_virtual(main)

    assert recorded([Shard(index, shards) for index in range(shards)]) == recorded([WHOLE])


def run_crew(plan: Scenario, load, *, workers: int, during=None, profile="slot-server", speed=4.0):
    """One level on real worker processes against a real server; recording, samples and the crew's process ids."""
    with SimProcess(profile, speed=speed) as server:

        async def main() -> tuple:
            samples: list = []
            target = Target(base_url=f"{server.url}/v1")
            async with WorkerPool.of(workers, plan, target) as crew:
                pids = [member.process.pid for member in crew._members]
                level = crew.level(
                    load,
                    model=PROFILES[profile].model,
                    key="k",
                    calibration=None,
                    clock=MonotonicClock(),
                    on_sample=samples.append,
                )
                async with anyio.create_task_group() as group:
                    if during is not None:
                        group.start_soon(during, level, pids)
                    recording = await level.run()
                    group.cancel_scope.cancel()
                return recording, samples, crew, pids

        return anyio.run(main)


def ended(pid: int) -> bool:
    """Whether there is no such process any more."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_users_are_shared_and_every_request_is_recorded():
    """Six users on two workers: each user asks its own numbers, peak in flight is six, nothing is lost or twice."""
    recording, samples, _, pids = run_crew(scenario(), Closed(6), workers=2)
    assert set(recording.outcomes) == {Outcome.OK}
    assert recording.in_flight_peak == 6
    assert {sample.user for sample in samples} == set(range(6))
    assert max(Counter(sample.number for sample in samples).values()) == 1
    assert sum(recording.phases.values()) == len(samples)
    assert recording.lost_workers == 0
    assert recording.health.loop_lag.count > 0
    assert all(ended(pid) for pid in pids)


def test_arrivals_are_one_stream_over_all_workers():
    """Every arrival of the one schedule is sent by exactly one worker, due when the schedule says."""
    load = Open(60.0, parse_arrivals("constant"))
    recording, samples, _, _ = run_crew(scenario(users=None, rate=(60.0,)), load, workers=2)
    numbers = sorted(sample.number for sample in samples)
    assert numbers == list(range(len(numbers)))
    begins_ns = recording.window[0] - 200_000_000
    assert all(sample.due_ns - begins_ns == round(sample.number * S / 60) for sample in samples)
    assert recording.arrivals_due == sum(sample.phase is Phase.MEASURED for sample in samples)
    assert recording.missed == 0


def test_number_of_requests_is_exact():
    """An open level by number measures exactly that many, whoever makes them, and no request twice."""
    load = Open(60.0, parse_arrivals("poisson"))
    plan = scenario(users=None, rate=(60.0,), requests=25, duration=None)
    recording, samples, _, _ = run_crew(plan, load, workers=2)
    assert recording.phases[Phase.MEASURED] == 25
    assert sorted(sample.number for sample in samples) == list(range(len(samples)))


def test_stop_keeps_what_was_measured():
    """Told to stop, the workers drain, and the level is interrupted and whole."""

    async def during(level, _pids) -> None:
        while level.done < 5:
            await anyio.sleep(0.01)
        level.stop()

    recording, samples, _, _ = run_crew(scenario(duration=60 * S), Closed(6), workers=2, during=during)
    assert recording.interrupted
    assert sum(recording.phases.values()) == len(samples) >= 5


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.parametrize("load", [Closed(6), Open(60.0, parse_arrivals("constant"))], ids=["closed", "open"])
def test_dead_worker_is_noticed(load):
    """A worker that is killed costs its part of the load: the level says so, nothing it had under way is forgotten."""

    async def during(level, pids) -> None:
        while level.done < 8:
            await anyio.sleep(0.01)
        os.kill(pids[1], signal.SIGKILL)

    recording, _, crew, _ = run_crew(scenario(duration=2 * S), load, workers=2, during=during)
    assert recording.lost_workers == 1
    verdict = judge(recording, load=load, model=EXACT.model, failure_limit=0.01)
    assert "lost_worker" in [reason.code for reason in verdict.reasons]
    assert [member.lost for member in crew._members] == [False, True]
    assert recording.outcomes[Outcome.OK] > 0
    if isinstance(load, Open):
        assert recording.missed > 0
        assert recording.arrivals_due == pytest.approx(60 * recording.window_s, abs=2)


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_what_a_dead_worker_had_under_way_keeps_its_persona():
    """The parts of the personas still add up to the level: who asked is known of every request that was begun."""

    async def during(level, pids) -> None:
        while level.done < 30:
            await anyio.sleep(0.01)
        os.kill(pids[1], signal.SIGKILL)

    flags = {"users": "6", "mix": ("chat,code",), "turns": "2", "think": "0s", "input_tokens": "20", "max_tokens": "8"}
    made = resolve(flags=flags | {"duration": "2s", "warm_up": "200ms"}, environment={})
    recording, samples, _, _ = run_crew(made, made.loads[0], workers=2, during=during)
    assert Outcome.CANCELLED in {one.outcome for one in samples}
    assert {one.persona for one in samples} == {"chat", "code"}
    assert sum(part.requests for part in recording.cohorts.personas.values()) == sum(recording.outcomes.values())
    assert sum(recording.cohorts.turns.values()) == sum(recording.outcomes.values())


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_sweep_ends_when_no_worker_is_left():
    """With every worker gone the level ends, and the next cannot begin."""

    async def during(level, pids) -> None:
        while level.done < 3:
            await anyio.sleep(0.01)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    recording, _, crew, _ = run_crew(scenario(duration=30 * S), Closed(4), workers=2, during=during)
    assert recording.lost_workers == 2
    with pytest.raises(LoadbenchError, match="every worker process has ended"):
        crew.level(Closed(1), model="m", key="k", calibration=None, clock=MonotonicClock())


@pytest.mark.parametrize(
    ("load", "cores", "workers"),
    [
        ({"users": (1,)}, 8, 1),
        ({"users": (1, 128)}, 8, 1),
        ({"users": (129,)}, 8, 2),
        ({"users": (1000,)}, 8, 7),
        ({"users": (1000,)}, 2, 1),
        ({"users": (5000,)}, 1, 1),
        ({"users": (1000,), "requests": 50, "duration": None}, 8, 1),
        ({"users": (2,), "workers": 3}, 8, 3),
        ({"users": None, "rate": (0.5,)}, 64, 1),
        ({"users": None, "rate": (250.0,)}, 64, 3),
        ({"users": None, "rate": (250.0,), "max_in_flight": 8}, 64, 1),
    ],
)
def test_number_of_workers(load, cores, workers):
    """More processes than one only where one has too much to read, and a core is left to the others."""
    assert workers_for(scenario(**load), cores) == workers


def test_users_cannot_share_a_count_of_requests():
    """Dealt out beforehand, a count would leave the last of it to fewer users than the level has."""
    with pytest.raises(BadInput, match="--workers"):
        workers_for(scenario(requests=50, duration=None, workers=2), 8)


def test_health_of_many_is_that_of_the_worst():
    """One worker whose stamps are its own makes the level's so; delays of all are put together."""

    def health(source: str) -> Health:
        lag = Histogram()
        lag.record(1000)
        return Health(stamp_source=source, loop_lag=lag, gc_pauses=Histogram(), cpu_share=0.5)

    together = _together([health("kernel"), health("user")])
    assert (together.stamp_source, together.loop_lag.count) == ("user", 2)
    assert _together([health("kernel"), health("kernel")]).stamp_source == "kernel"
