"""What a run watches beside its requests: when it does, what it says, and what becomes of it at a level's end."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from types import SimpleNamespace

import anyio
import msgspec
import orjson
import pytest

from loadbench.analyze.level.verdict import GENERATOR_BOTTLENECK
from loadbench.core.clock import MonotonicClock
from loadbench.plan.scenario import Scenario
from loadbench.plan.settings import CostSettings, TargetSettings, TelemetrySettings
from loadbench.results.folder import RunFolder
from loadbench.results.run import Reason, Verdict
from loadbench.results.telemetry import MachineLoad
from loadbench.session import telemetry as watching
from loadbench.session.telemetry import RunTelemetry
from loadbench.targets.target import Target
from loadbench.telemetry import sampler
from tests.building import a_level
from tests.telemetry.metered import WATTS

HERE = "http://127.0.0.1:9/v1"
ELSEWHERE = "http://192.0.2.1:8080/v1"
# Workers: on another machine, on this one, and on this one in a container with numbers of its own.
AWAY = SimpleNamespace(is_here=False, pid=None)
NEAR = SimpleNamespace(is_here=True, pid=os.getpid())
HIDDEN = SimpleNamespace(is_here=True, pid=None)


def watched(
    tmp_path,
    *,
    url: str = HERE,
    simulated: bool = False,
    price: float | None = None,
    workers: list[SimpleNamespace] | None = None,
    lasts_s: float = 0.2,
    reasons: list[Reason] | None = None,
    **settings,
):
    """A level that was watched so, with what was said, and the readings kept."""
    said: list[str] = []
    scenario = Scenario(
        target=TargetSettings(url=None if simulated else (url,)),
        telemetry=TelemetrySettings(**{"interval": 100_000_000, **settings}),
        cost=CostSettings(kwh_price=price),
    )

    async def main():
        watch = RunTelemetry(scenario, Target(base_url=url), clock=MonotonicClock(), say=said.append, workers=workers)
        watch.keep_in(RunFolder(tmp_path), origin_ns=time.perf_counter_ns())
        async with watch.sampling(), anyio.create_task_group() as beside:
            beside.start_soon(watch.listen)
            await watch.measure_idle()
            await watch.caught_up(time.perf_counter_ns())
            watch.level_begins()
            opens_ns = time.perf_counter_ns()
            await anyio.sleep(lasts_s)
            closes_ns = time.perf_counter_ns()
            await watch.caught_up(closes_ns)
            level = msgspec.structs.replace(a_level(), window_s=(closes_ns - opens_ns) / 1e9)
            if reasons is not None:
                level = msgspec.structs.replace(level, verdict=Verdict("INVALID", reasons))
            level = watch.completed(level, (opens_ns, closes_ns))
            beside.cancel_scope.cancel()
        watch.flush()
        return watch.about, level

    about, level = asyncio.run(main())
    return about, level, said


@pytest.fixture
def metered(monkeypatch):
    """A machine with a meter, whose idle power takes a moment to measure."""
    monkeypatch.setattr(sampler, "_MODULE", "tests.telemetry.metered")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr(sampler, "child_environment", lambda: {**os.environ})  # with what the tests set
    monkeypatch.setattr(watching, "_IDLE_S", 0.2)


@pytest.mark.parametrize(
    ("url", "workers", "counts"),
    [
        (ELSEWHERE, [AWAY], False),
        (ELSEWHERE, [AWAY, NEAR], True),
        (ELSEWHERE, [HIDDEN], True),
        (ELSEWHERE, None, True),
        (HERE, [AWAY], True),
    ],
)
def test_a_machine_that_has_no_part_in_a_level_is_not_judged(tmp_path, url, workers, counts):
    """The load may be made elsewhere, and the server be elsewhere too: whoever keeps this machine busy, it is nothing
    to them."""
    _, level, _ = watched(tmp_path, url=url, workers=workers, lasts_s=1.2, sampling="off")
    assert (level.machine is not None) is counts
    if workers == [HIDDEN]:
        assert level.machine.others is None


@pytest.mark.parametrize(("workers", "blames"), [([NEAR], True), ([AWAY, NEAR], False), (None, True)])
def test_what_was_late_is_blamed_on_other_programs_where_all_of_the_load_is_made_here(
    tmp_path, monkeypatch, workers, blames
):
    """Who was late on another machine was not kept waiting by the programs of this one."""
    full = MachineLoad(cores=2, busy=1.0, others=0.9, stolen=0.0)
    monkeypatch.setattr(watching, "load_between", lambda *_: full)
    late = Reason("late_start", "loadbench sent requests late", GENERATOR_BOTTLENECK)
    _, level, _ = watched(tmp_path, workers=workers, reasons=[late], sampling="off")
    assert ("other programs" in level.verdict.reasons[0].message) is blames


def test_power_before_the_load_is_taken_off(metered, tmp_path):
    """A machine that draws 40 W whatever it does: 40 W in the level, as much without load, and nothing above it."""
    about, level, said = watched(tmp_path, price=0.3)
    assert about is not None
    assert about["packages"] == ["package0"]
    assert said == ["measuring the idle power for 0.2 s"]
    used = level.energy
    assert used is not None
    assert used.source == "package"
    assert (used.watts, used.idle_watts) == (pytest.approx(WATTS), pytest.approx(WATTS))
    assert used.joules == pytest.approx(WATTS * level.window_s)
    assert used.joules_per_request_above_idle == pytest.approx(0, abs=1e-6)
    assert level.cost is not None
    assert level.cost.energy_source == "package"
    first = orjson.loads((tmp_path / "telemetry.jsonl").read_bytes().splitlines()[0])
    assert first.keys() == {"at_ns", "package0_energy_j_total"}


def test_machine_without_a_meter_is_not_kept_waiting(tmp_path):
    """Where there is no power to measure there is no idle power; the machine is sampled all the same."""
    about, level, said = watched(tmp_path, lasts_s=1.2)  # many readings, of which a busy machine may lack some
    assert about is not None
    if not about["boards"] and not about["packages"]:
        assert said == []
        assert level.energy is None
    assert level.telemetry is not None
    assert level.telemetry.gauges["host_cpu_share"].readings >= 1


@pytest.mark.parametrize(
    ("over", "sampled", "words"),
    [
        ({"simulated": True}, False, []),
        ({"simulated": True, "sampling": "on"}, True, ["the server's process was not found"]),
        ({"sampling": "off"}, False, []),
        ({"url": ELSEWHERE}, False, []),
        ({"url": ELSEWHERE, "sampling": "on"}, False, ["the server is on another machine"]),
    ],
    ids=["simulated", "simulated, asked for", "off", "elsewhere", "elsewhere, asked for"],
)
def test_when_this_machine_is_sampled(metered, tmp_path, over, sampled, words):
    """The simulated server's only if asked for, another's never; who asked by name is told what is not there."""
    about, level, said = watched(tmp_path, **over)
    assert (about is not None, level.telemetry is not None) == (sampled, sampled)
    assert [word for word in words if not any(word in line for line in said)] == []
    assert sampled or len(said) == len(words)
    assert (tmp_path / "telemetry.jsonl").exists() is sampled


def test_sampler_that_ends_early_is_told(metered, tmp_path, monkeypatch):
    """From then on the machine is not known, and the run says so; one that had nothing to read says nothing."""
    monkeypatch.setenv("METERED_ENDS_AFTER", "1")
    _, _, said = watched(tmp_path)
    assert said[-1].startswith("telemetry: the sampler ended before the run did")
    monkeypatch.setenv("METERED_PACKAGE", "")
    assert watched(tmp_path)[2] == []
