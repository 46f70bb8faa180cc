"""Worker processes: what many of them record is what one would, and one that dies is noticed."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import httpx
import psutil
import pytest

from loadbench.analyze.capacity.search_evidence import SearchEvidence
from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.client.fast_transport import FastTransport
from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import LoadbenchError
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine import workers as workers_module
from loadbench.engine.capacity import CapacitySearch, grid_of
from loadbench.engine.level import LevelSpec
from loadbench.engine.worker_link import pack
from loadbench.engine.worker_pool import WorkerPool
from loadbench.engine.workers import _merged, workers_for
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.load import WHOLE, Closed, LevelDuration, Open, Phase, Shard
from loadbench.plan.scenario import Scenario
from loadbench.plan.search import Purpose
from loadbench.plan.settings import LoadSettings, WorkSettings
from loadbench.plan.sim_profile import PROFILES
from loadbench.plan.sources import resolve
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome
from loadbench.record.recorder import Health, LevelRecording
from loadbench.sim.process import SimProcess, TruthProcess
from loadbench.sim.transport import SimTransport
from loadbench.targets.target import Target
from tests.building import verdict_of
from tests.coverage.capacity import SearchJudge, a_scenario
from tests.engine.no_health import NoHealth
from tests.engine.scripted import ScriptedSession
from tests.engine.sharded import run_shards
from tests.record.levels import differences

if TYPE_CHECKING:
    from loadbench.record.sample import Sample

S = 1_000_000_000
EXACT = PROFILES["slot-server"].exact()


def scenario(**load) -> Scenario:
    """A short level with prompts and answers of a few tokens."""
    short = {"users": (6,), "duration": S, "warm_up": 200_000_000, "ramp": 100_000_000} | load
    return Scenario(load=LoadSettings(**short), work=WorkSettings(max_tokens=8))


@pytest.mark.parametrize(("shards"), [2, 3])
@pytest.mark.parametrize("requests", [None, 1, 25])
@pytest.mark.parametrize("load", [Closed(7), Open(40.0, parse_arrivals("poisson"))], ids=["closed", "open"])
def test_shards_record_what_one_process_records(load, requests, shards):
    """In virtual time a level in shards sends the same requests at the same moments, and all of it adds up."""
    duration = None if requests is None else LevelDuration(requests=requests, warm_up_ns=200_000_000)

    def recorded(parts: list[Shard]) -> tuple:
        async def main() -> tuple:
            clock = VirtualClock()
            plan = scenario()
            async with SimTransport(EXACT, clock=clock).serving() as transport:
                client = Client(
                    Endpoint(base_url="http://s/v1", model=EXACT.model), transport, clock=clock, timeouts=Timeouts()
                )
                samples, levels, recorder = await run_shards(
                    plan, LevelSpec(load=load, key="k", duration=duration), parts, client=client, clock=clock
                )
                recording = recorder.close(
                    window=(levels[0].phases.opens_ns, levels[0].phases.closes_ns),
                    arrivals_due=sum(level.due for level in levels),
                    missed=sum(level.missed for level in levels),
                    interrupted=False,
                    health=NoHealth().close(),
                )
                told = sorted((one.number, one.due_ns, one.sent_ns, one.end_ns, one.phase) for one in samples)
                return told, recording

        return run_virtual(main)

    sharded, whole = recorded([Shard(index, shards) for index in range(shards)]), recorded([WHOLE])
    assert sharded[0] == whole[0]
    assert list(differences(sharded[1], whole[1])) == []


def run_crew(
    plan: Scenario, load, *, workers: int, during=None, profile="slot-server", speed=4.0, duration=None, after=None
):
    """One level on real worker processes against a real server; recording, samples and the crew's process ids."""
    with SimProcess(profile, speed=speed) as server:

        async def main() -> tuple:
            samples: list = []
            target = Target(base_url=f"{server.url}/v1")
            async with WorkerPool.of(workers, lambda: (target,)) as crew:
                pids = [member.link.process.pid for member in crew._workers]
                level = await crew.level(
                    plan,
                    LevelSpec(load=load, key="k", duration=duration),
                    model=PROFILES[profile].model,
                    clock=MonotonicClock(),
                    on_sample=samples.append,
                )
                async with anyio.create_task_group() as group:
                    if during is not None:
                        group.start_soon(during, level, pids)
                    recording = await level.run()
                    group.cancel_scope.cancel()
                if after is not None:
                    after(server.url)
                return recording, samples, crew, pids

        return anyio.run(main)


async def until_under_way(level, *, done: int) -> None:
    """Wait until so many requests have ended, and the second worker has one under way, as it has said itself: on a busy
    machine it may send its first one when the other has had many."""
    while level.done < done or not level._workers[1].in_flight:
        await anyio.sleep(0.01)


def ended(pid: int) -> bool:
    """Whether there is no such process any more."""
    return not psutil.pid_exists(pid)


def test_users_are_shared_and_every_request_is_recorded():
    """Six users on two workers: each user asks its own numbers, peak in flight is six, nothing is lost or twice."""
    recording, samples, _, pids = run_crew(scenario(), Closed(6), workers=2)
    assert set(recording.outcomes) == {Outcome.OK}
    assert recording.in_flight_peak == 6
    assert {sample.request.user for sample in samples} == set(range(6))
    assert max(Counter(sample.number for sample in samples).values()) == 1
    assert sum(recording.phases.values()) == len(samples)
    assert recording.lost_workers == 0
    assert recording.health.loop_lag.count > 0
    assert all(ended(pid) for pid in pids)


def test_arrivals_are_one_stream_over_all_workers():
    """Every arrival of the one schedule is sent by exactly one worker, due when the schedule says.

    A worker that lacks a core as the load ends misses some of the last arrivals, and those are of the cool-down.
    """
    load = Open(60.0, parse_arrivals("constant"))
    plan = scenario(users=None, rate=(60.0,), cool_down=500_000_000)
    recording, samples, _, _ = run_crew(plan, load, workers=2)
    numbers = [sample.number for sample in samples]
    assert len(set(numbers)) == len(numbers)
    assert sorted(one.number for one in samples if one.phase is not Phase.COOL_DOWN) == list(range(72))
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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.parametrize("load", [Closed(6), Open(60.0, parse_arrivals("constant"))], ids=["closed", "open"])
def test_dead_worker_is_noticed(load):
    """A worker that is killed costs its part of the load: the level says so, nothing it had under way is forgotten."""

    async def during(level, pids) -> None:
        while level._measured < 5:
            await anyio.sleep(0.01)
        os.kill(pids[1], signal.SIGKILL)

    recording, _, crew, _ = run_crew(scenario(duration=2 * S), load, workers=2, during=during)
    assert recording.lost_workers == 1
    verdict = verdict_of(recording, load, failure_limit=0.01)
    assert "lost_worker" in [reason.code for reason in verdict.reasons]
    assert [member.lost for member in crew._workers] == [False, True]
    assert recording.outcomes[Outcome.OK] > 0
    # What it reported until then was due, whoever is gone. On a busy machine a request of each user may be due just
    # before the window and sent in it.
    assert recording.arrivals_due + 6 >= recording.arrivals_sent > 0
    if isinstance(load, Open):
        assert recording.missed > 0
        assert recording.arrivals_due == pytest.approx(60 * recording.window_s, abs=2)


def write_into(pid: int, read_end: int, data: bytes) -> None:
    """Write to the pipe that this process reads from, as that process could."""
    name = Path(f"/proc/self/fd/{read_end}").readlink()
    write_end = next(one for one in Path(f"/proc/{pid}/fd").iterdir() if one.readlink() == name)
    with write_end.open("wb", buffering=0) as pipe:
        pipe.write(data)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="writes into the pipe of another process")
@pytest.mark.parametrize("garbage", [b"\0\0\0\x05hello", b"\xff" * 1000, pack(17), pack(None), b"warning: x\n"])
def test_worker_whose_pipe_has_garbage_is_lost(garbage):
    """Nothing more of it can be read: it is ended, the level says so, and nobody waits for gigabytes."""

    async def during(level, pids) -> None:
        while level._measured < 10:
            await anyio.sleep(0.01)
        read_end = level._workers[1].link.process._transport.get_pipe_transport(1).get_extra_info("pipe")
        write_into(pids[1], read_end.fileno(), garbage)
        with suppress(psutil.NoSuchProcess):
            while psutil.Process(pids[1]).status() != psutil.STATUS_ZOMBIE:
                await anyio.sleep(0.01)

    recording, _, crew, _ = run_crew(scenario(duration=2 * S), Closed(6), workers=2, during=during)
    assert (recording.lost_workers, [member.lost for member in crew._workers]) == (1, [False, True])
    assert recording.outcomes[Outcome.OK] > 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_what_a_dead_worker_had_under_way_keeps_its_persona():
    """The parts of the personas still add up to the level: who asked is known of every request that was begun."""

    async def during(level, pids) -> None:
        await until_under_way(level, done=30)
        os.kill(pids[1], signal.SIGKILL)

    flags = {"users": "6", "mix": ("chat,code",), "turns": "2", "think": "0s", "input_tokens": "20", "max_tokens": "8"}
    made = resolve(flags=flags | {"duration": "2s", "warm_up": "200ms"}, environment={})
    recording, samples, _, _ = run_crew(made, made.loads[0], workers=2, during=during)
    assert Outcome.CANCELLED in {one.outcome for one in samples}
    assert {one.request.persona for one in samples} == {"chat", "code"}
    assert sum(part.requests for part in recording.groups_of("persona").values()) == sum(recording.outcomes.values())
    assert sum(recording.turns.values()) == sum(recording.outcomes.values())


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_stopped_worker_is_ended(monkeypatch):
    """One that is stopped for good reports nothing: it is killed, and the level ends and says so."""
    monkeypatch.setattr(workers_module, "_MOST_SILENT_LOOKS", 3)

    async def during(level, pids) -> None:
        await until_under_way(level, done=3)
        os.kill(pids[1], signal.SIGSTOP)

    recording, samples, _, pids = run_crew(scenario(duration=3 * S), Closed(6), workers=2, during=during)
    assert (recording.lost_workers, recording.interrupted) == (1, False)
    assert recording.unreported or Outcome.CANCELLED in {sample.outcome for sample in samples}
    assert recording.outcomes[Outcome.OK] > 0
    assert all(ended(pid) for pid in pids)


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_ends_a_level_whose_workers_are_stopped(presses):
    """Nobody waits for a stopped worker once the user has had enough, and none is left behind."""
    ended_s = []

    async def during(level, pids) -> None:
        while level.done < 3:
            await anyio.sleep(0.01)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for _ in range(presses):
            level.stop()
        ended_s.append(time.monotonic())

    recording, _, _, pids = run_crew(scenario(duration=600 * S), Closed(4), workers=2, during=during)
    assert time.monotonic() - ended_s[0] < 30  # as it should take three; for good before
    assert (recording.lost_workers, recording.interrupted) == (2, True)
    assert all(ended(pid) for pid in pids)


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_requests_that_a_dead_worker_had_not_reported_are_counted():
    """What the server had from the workers is what is recorded and what is said to be in no figure."""
    had = []

    async def during(level, pids) -> None:
        while level.done < 200:
            await anyio.sleep(0.01)
        worker = level._workers[1]
        # One that is stopped just after its report has nothing to report, and goes on until the next moment.
        while True:
            os.kill(pids[1], signal.SIGSTOP)
            reports = None
            while reports != worker.reports:
                reports = worker.reports
                await anyio.sleep(0.05)
            if await worker.link.sent() >= worker.reported + 2:
                break
            os.kill(pids[1], signal.SIGCONT)
            await anyio.sleep(0.03)
        os.kill(pids[1], signal.SIGKILL)

    def count(url: str) -> None:
        page = httpx.get(f"{url}/metrics", trust_env=False).text
        had.append(sum(float(number) for number in re.findall(r"requests_total\{\S* (\S+)", page)))

    plan = scenario(duration=3 * S, users=(20,))
    recording, samples, _, _ = run_crew(plan, Closed(20), workers=2, during=during, speed=100.0, after=count)
    assert recording.lost_workers == 1
    assert recording.unreported >= 2
    # One of each user of that worker may have been counted and not been sent yet, or be under way to the server.
    assert abs(len(samples) + recording.unreported - had[0]) <= 10
    verdict = verdict_of(recording, Closed(20), failure_limit=0.01)
    (lost,) = [reason for reason in verdict.reasons if reason.code == "lost_worker"]
    assert f"{recording.unreported} requests that they had sent are in no figure" in lost.message


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

    async def next_level() -> None:
        await crew.level(scenario(), LevelSpec(load=Closed(1), key="k"), model="m", clock=MonotonicClock())

    with pytest.raises(LoadbenchError, match="every worker has ended"):
        anyio.run(next_level)


@pytest.mark.parametrize(
    ("load", "cores", "taken", "workers"),
    [
        ({"users": (1,)}, 8, 0, 1),
        ({"users": (1, 128)}, 8, 0, 1),
        ({"users": (129,)}, 8, 0, 2),
        ({"users": (1000,)}, 8, 0, 7),
        ({"users": (1000,)}, 8, 1, 6),
        ({"users": (1000,)}, 8, 3.4, 4),
        # Other programs have the whole machine: as many as it takes to read so much, and no more.
        ({"users": (1000,)}, 8, 9, 2),
        ({"users": (3000,)}, 8, 9, 6),
        # On two cores with the server one process reads 512 streams in time, and more only with the help of another.
        ({"users": (512,)}, 2, 1, 1),
        ({"users": (513,)}, 2, 1, 2),
        ({"users": (1024,)}, 2, 1, 2),
        ({"users": (1024,)}, 2, 2.5, 2),
        ({"users": (10_000,)}, 2, 1, 2),
        ({"users": (5000,)}, 1, 0, 1),
        ({"users": (1000,), "requests": 50, "duration": None}, 8, 0, 7),
        ({"users": (1024,), "requests": 5000, "duration": None}, 2, 1, 2),
        ({"users": (2,), "workers": 3}, 8, 0, 3),
        ({"users": (2,), "workers": 3}, 1, 5, 3),
        ({"users": None, "rate": (0.5,)}, 64, 0, 1),
        ({"users": None, "rate": (250.0,)}, 64, 0, 3),
        ({"users": None, "rate": (250.0,)}, 3, 1, 1),
        ({"users": None, "rate": (800.0,)}, 2, 1, 2),
        ({"users": None, "rate": (800.0,), "requests": 900, "duration": None}, 2, 1, 2),
        ({"users": None, "rate": (250.0,), "max_in_flight": 8}, 64, 0, 1),
    ],
)
def test_number_of_workers(load, cores, taken, workers):
    """More processes than one only where one has too much to read, on cores that nobody else needs; but on those too
    where one process could not read it all."""
    assert workers_for(scenario(**load), cores, taken=taken) == workers


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("requests", [1, 2, 7, 50])
def test_users_share_a_number_of_requests(requests, workers):
    """Exactly that many are sent after the warm-up, whoever has the users; each user's are its own, in its order."""
    plan = scenario(requests=requests, duration=None, users=(5,))
    recording, samples, _, _ = run_crew(plan, Closed(5), workers=workers)
    assert recording.outcomes == {Outcome.OK: requests}
    assert recording.phases[Phase.MEASURED] == requests
    assert recording.phases.get(Phase.COOL_DOWN, 0) == 0
    assert recording.arrivals_due == requests
    assert sum(recording.phases.values()) == len(samples)
    assert not recording.interrupted
    measured = [sample for sample in samples if sample.phase is Phase.MEASURED]
    assert all(sample.due_ns >= recording.window[0] for sample in measured)
    assert recording.window[1] > recording.window[0]
    for user in range(5):
        numbers = [sample.number for sample in samples if sample.request.user == user]
        assert sorted(numbers) == [5 * turn + user for turn in range(len(numbers))]


@pytest.mark.parametrize(
    ("load", "duration", "workers"),
    [
        (Closed(5), {"requests": 60}, 1),
        (Closed(5), {"requests": 60}, 2),
        (Closed(5), {"requests": 60}, 3),
        (Closed(5), {"duration_ns": S}, 2),
        (Open(37.0, parse_arrivals("constant")), {"requests": 31}, 2),
        # What a worker that lacks a core as the load ends can no longer send is of the cool-down.
        (Open(37.0, parse_arrivals("constant")), {"duration_ns": S, "cool_down_ns": S // 2}, 2),
    ],
    ids=["requests-1", "requests-2", "requests-3", "users-2", "requests-at-a-rate-2", "rate-2"],
)
def test_workers_give_the_figures_of_one_process(load, duration, workers, tmp_path):
    """The k-th prompt has its times and its tokens from the server, whoever sends it. The schedule says what must be
    recorded: of an open loop each number in its phase, of a closed loop each user's own numbers, one after another."""
    ttft_ms, events = [30, 120, 60, 90, 150], [3, 5, 4, 2, 6]
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"ttft={ttft_ms[n]}ms gap=2ms events={events[n]}\n" for n in range(5)))
    users = {"users": "5"} if isinstance(load, Closed) else {"rate": "37"}
    plan = resolve(flags={**users, "prompts": str(prompts), "unique": "false", "max_tokens": "8"}, environment={})
    spec = LevelSpec(load=load, key="k", duration=LevelDuration(warm_up_ns=200_000_000, **duration))
    samples: list[Sample] = []

    async def main(url: str) -> LevelRecording:
        async with WorkerPool.of(workers, lambda: (Target(base_url=f"{url}/v1"),)) as crew:
            clock = MonotonicClock()
            level = await crew.level(plan, spec, model="truth", clock=clock, on_sample=samples.append)
            return await level.run()

    with TruthProcess() as server:
        recording = anyio.run(main, server.url)
    assert {sample.outcome for sample in samples} == {Outcome.OK}
    assert all(sample.output_tokens == events[sample.number % 5] for sample in samples)
    # `sent` is taken after the send, which may take up to a millisecond.
    assert all(sample.first_token_ns - sample.sent_ns >= ttft_ms[sample.number % 5] * 1e6 - 1e6 for sample in samples)
    measured = [sample.number for sample in samples if sample.phase is Phase.MEASURED]
    assert recording.outcomes == {Outcome.OK: len(measured)}
    assert recording.production.output_tokens > 0
    if isinstance(load, Open):
        # The 8 arrivals of the first 0.2 s are the warm-up's, and every one is sent by one worker.
        assert sorted(measured) == list(range(8, 8 + 31 if "requests" in duration else 45))
    else:
        if "requests" in duration:
            assert len(measured) == 60
        # No user waits for another one, on whichever worker: not between its requests, nor for the last of all.
        last_ns = max(sample.due_ns for sample in samples if sample.phase is Phase.MEASURED)
        for user in range(5):
            own = sorted((one for one in samples if one.number % 5 == user), key=lambda one: one.number)
            assert all(later.due_ns == earlier.end_ns for earlier, later in pairwise(own))
            assert last_ns - own[-1].end_ns < recording.window_s * 1e9 / 2


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_the_rest_goes_on_when_a_worker_with_a_share_dies():
    """A level by number ends when the workers that are left have sent all the rest."""

    async def during(level, pids) -> None:
        while level.done < 8:
            await anyio.sleep(0.01)
        os.kill(pids[1], signal.SIGKILL)

    plan = scenario(requests=200, duration=None, users=(6,))
    recording, _, _, _ = run_crew(plan, Closed(6), workers=2, during=during)
    assert recording.lost_workers == 1
    # What the dead worker had taken and not reported is counted; one of each of its users may not have been sent.
    assert 200 - recording.unreported - 3 <= sum(recording.outcomes.values()) <= 200


def test_health_of_many_is_that_of_the_worst():
    """One worker whose stamps are its own makes the level's so; delays of all are put together."""

    def health(source: str, cpu_ns: int | None = 7) -> Health:
        lag = Histogram()
        lag.record(1000)
        return Health(stamp_source=source, loop_lag=lag, gc_pauses=Histogram(), cpu_share=0.5, cpu_ns=cpu_ns)

    together = _merged([health("kernel"), health("user")], own_cpu_ns=5)
    assert (together.stamp_source, together.loop_lag.count) == ("user", 2)
    assert (together.cpu_share, together.cpu_ns) == (0.5, 19)
    assert _merged([health("kernel"), health("kernel", None)], own_cpu_ns=5).cpu_ns is None
    assert _merged([health("kernel"), health("kernel")]).stamp_source == "kernel"


@pytest.mark.slow
def test_a_search_runs_its_probes_on_workers():
    """Each probe is a level on all workers, is seen request by request with true due times, and ends early."""
    plan = a_scenario("e2e_p50<10s", budget=20 * S, at_most=6.0, warm_up=200_000_000)

    async def main(url: str) -> tuple[CapacitySearch, SearchJudge, list]:
        clock, target = MonotonicClock(), Target(base_url=f"{url}/v1")
        transport = FastTransport()
        endpoint = Endpoint(base_url=target.base_url, model=EXACT.model)
        judge = SearchJudge(SearchEvidence(plan.objectives, grid_of(plan), confidence=0.95))
        session = ScriptedSession(clock, lambda _: Client(endpoint, transport, clock=clock, timeouts=Timeouts()))
        started: list[tuple[int, int]] = []
        async with WorkerPool.of(2, lambda: (target,)) as workers:
            session.workers = workers
            search = CapacitySearch(plan, session, model=EXACT.model, judge=judge, observer=judge)
            monitor = judge.monitor

            def heard(probe, load, *, opens_ns):
                made = monitor(probe, load, opens_ns=opens_ns)
                inner = made.started

                def note(number, due_ns, *, measured):
                    started.append((due_ns, clock.now_ns()))
                    inner(number, due_ns, measured=measured)

                made.started = note
                return made

            judge.monitor = heard
            await search.run()
        await transport.aclose()
        return search, judge, started

    with SimProcess("slot-server", speed=20.0) as server:
        search, judge, started = anyio.run(main, server.url)
    assert search.search.passed == 6
    assert {probe.purpose for probe in judge.evidence.probes} >= {Purpose.BRACKET, Purpose.TEST}
    assert all(recording.lost_workers == 0 for recording in judge.recordings)
    assert judge.evidence.probes[0].window_s < 18, "it ended long before its time"
    assert started
    assert all(due_ns < heard_ns for due_ns, heard_ns in started)
    assert sum(probe.requests for probe in judge.evidence.probes) <= len(started)


@pytest.mark.parametrize("cut", [True, False])
def test_finish_ends_a_level_on_workers(cut):
    """The load ends at once, without an interruption; what is in flight is cut, or answered."""

    async def during(level, _pids) -> None:
        while level.done < 5:
            await anyio.sleep(0.01)
        level.finish(cut=cut)

    recording, samples, _, _ = run_crew(scenario(duration=60 * S), Closed(6), workers=2, during=during)
    assert not recording.interrupted
    assert recording.window_s < 30
    assert sum(recording.phases.values()) == len(samples) >= 5
    assert Outcome.CANCELLED not in recording.outcomes or cut
