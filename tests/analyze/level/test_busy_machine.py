"""A machine that others keep busy: nothing, a caveat, or a reason."""

from __future__ import annotations

import msgspec
import pytest

from loadbench.analyze.level.machine import with_machine
from loadbench.analyze.level.overload import judge_overload
from loadbench.analyze.level.verdict import GENERATOR_BOTTLENECK
from loadbench.plan.settings import CostSettings
from loadbench.results.run import Reason, Verdict
from loadbench.results.telemetry import MachineLoad
from tests.building import a_level


def judged(*, busy=0.5, others=0.0, stolen=0.0, waited=None, waited_by="the server"):
    """(status, message) of a level on such a machine."""
    load = MachineLoad(
        cores=4, busy=busy, others=others, stolen=stolen, waited=waited, waited_by=waited_by if waited else ""
    )
    sound = msgspec.structs.replace(a_level(), verdict=Verdict("VALID"), caveats=[])
    level = with_machine(sound, None, idle={}, prices=CostSettings(), load=load)
    assert level.machine == load
    found = [*level.verdict.reasons, *level.caveats]
    assert {reason.code for reason in found} <= {"busy_machine"}
    (level,) = judge_overload([level])
    return level.verdict.status, found[0].message if found else ""


@pytest.mark.parametrize(
    "load",
    [
        {"busy": 1.0, "others": 0.05, "waited": 0.5},  # the server fills its machine alone
        {"busy": 0.6, "others": 0.4, "waited": 0.01},  # there are free cores
        {"busy": 0.6, "others": 0.4},
        {"busy": 1.0, "others": None},
    ],
)
def test_machine_that_has_room_is_not_mentioned(load):
    """Nor is one whose server is hidden: its use cannot be told from that of others."""
    assert judged(**load) == ("VALID", "")


@pytest.mark.parametrize(
    "load",
    [
        {"busy": 1.0, "others": 0.95, "waited": 0.2},
        {"busy": 0.95, "others": 0.2},
        {"busy": 0.7, "others": 0.2, "waited": 0.1},
        {"busy": 0.6, "others": 0.55, "waited": 0.01},
        {"busy": 0.95, "others": 0.0, "stolen": 0.2, "waited": 0.1},
        {"busy": 1.0, "others": 0.3, "waited": 0.9},  # the server's own threads wait for each other
        {"busy": 1.0, "others": 0.95},  # what others did to it is not known
    ],
)
def test_busy_machine_is_a_caveat(load):
    """With its figures, those of the level that it touches, and that loadbench's own part holds."""
    status, message = judged(**load)
    assert status == "VALID"
    assert f"{100 * load['busy']:.0f} % in use in all" in message
    assert message.endswith("; loadbench kept up, so its load and its times are right")
    waited = load.get("waited")
    if waited is not None and waited < 0.05:
        assert "neither loadbench nor a server here waited for a core" in message
    else:
        assert "(tok/s, TTFT, TPOT, E2E)" in message
    assert ("times as fast" in message) is (waited is not None and waited > 0.05)


@pytest.mark.parametrize(
    ("waited_by", "alone"),
    [
        ("the server", "the server waited for a core for 20 % of the time, so alone it may be about 1.2 times as fast"),
        ("loadbench", "loadbench waited for a core for 20 % of the time, so alone a server here may be about 1.2"),
    ],
)
def test_what_the_wait_means_depends_on_who_waited(waited_by, alone):
    """The thread that waited most may be that of loadbench: then the server's wait is no longer."""
    assert alone in judged(busy=1.0, others=0.9, waited=0.2, waited_by=waited_by)[1]


def test_late_load_generator_is_not_said_to_have_kept_up():
    """The verdict has the reason; the note on the busy machine does not contradict it."""
    late = Reason("late_reads", "loadbench read events late", GENERATOR_BOTTLENECK)
    level = msgspec.structs.replace(a_level(), verdict=Verdict("INVALID", [late]), caveats=[])
    load = MachineLoad(cores=4, busy=1.0, others=0.9, stolen=0.0, waited=0.2, waited_by="the server")
    (caveat,) = with_machine(level, None, idle={}, prices=CostSettings(), load=load).caveats
    assert "kept up" not in caveat.message


def test_server_without_a_core_is_invalid():
    """It waited for most of the time while others used most of the machine."""
    status, message = judged(busy=1.0, others=0.8, waited=0.7)
    assert status == "INVALID"
    assert message == (
        "other programs used 80 % of this machine's CPU time (4 cores, 100 % in use in all); the server waited for a "
        "core for 70 % of the time, so alone it may be about 3.3 times as fast (tok/s, TTFT, TPOT, E2E)"
    )


@pytest.mark.parametrize(
    ("load", "whose"),
    [
        ({"busy": 1.0, "others": 0.9, "waited": 0.2}, "other programs"),
        ({"busy": 0.95, "others": 0.1, "stolen": 0.3}, "other virtual machines"),
        ({"busy": 0.3, "others": 0.2}, None),  # there are free cores
    ],
)
def test_what_made_loadbench_late_comes_first(load, whose):
    """Where others had the cores, the reason names them and its advice is about them; else it stays as it was."""
    late = Reason("late_reads", "loadbench read events late", GENERATOR_BOTTLENECK)
    failed = Reason("failures", "3 of 9 requests failed", "see the failures")
    level = msgspec.structs.replace(a_level(), verdict=Verdict("INVALID", [late, failed]), caveats=[])
    seen = MachineLoad(cores=4, **{"stolen": 0.0, **load})
    reasons = with_machine(level, None, idle={}, prices=CostSettings(), load=seen).verdict.reasons
    assert reasons[1] == failed
    if whose is None:
        assert reasons[0] == late
    else:
        assert reasons[0].message == f"{whose} probably kept loadbench waiting: it read events late"
        assert reasons[0].advice.startswith("end the other programs")


@pytest.mark.parametrize(
    ("advice", "makes_load"), [("measure more --requests, or by --duration", True), (GENERATOR_BOTTLENECK, False)]
)
def test_a_lateness_that_other_programs_here_cannot_explain_keeps_its_words(advice, makes_load):
    """Where the reason knows better, and where the load is made on other machines."""
    late = Reason("late_start", "loadbench sent the users' next requests late", advice)
    level = msgspec.structs.replace(a_level(), verdict=Verdict("INVALID", [late]), caveats=[])
    load = MachineLoad(cores=4, busy=1.0, others=0.9, stolen=0.0)
    judged = with_machine(level, None, idle={}, prices=CostSettings(), load=load, makes_load=makes_load)
    assert judged.verdict.reasons == [late]


@pytest.mark.parametrize("others", [0.0, 0.9])
def test_advice_on_a_server_that_changed_begins_with_the_other_programs(others):
    """Only where there are any."""
    changed = Reason("not_steady", "the server changed during the level: TPOT went from 8 to 12 ms", "use --warm-up 9s")
    level = msgspec.structs.replace(a_level(), verdict=Verdict("INVALID", [changed]), caveats=[])
    load = MachineLoad(cores=4, busy=1.0, others=others, stolen=0.0)
    (reason,) = with_machine(level, None, idle={}, prices=CostSettings(), load=load).verdict.reasons
    assert reason.advice.startswith("end the other programs first") is (others > 0)
    assert reason.advice.endswith("use --warm-up 9s")


@pytest.mark.parametrize(
    ("on_battery", "saving", "expected"),
    [
        (False, [], []),
        (True, [], [("on_battery", "this machine ran on its battery")]),
        (
            True,
            ["platform profile low-power", "clock limited to 1.2 of 4.8 GHz"],
            [
                ("on_battery", "this machine ran on its battery"),
                (
                    "power_saving",
                    "this machine saves power: platform profile low-power, clock limited to 1.2 of 4.8 GHz",
                ),
            ],
        ),
    ],
)
def test_battery_and_saved_power_are_caveats(on_battery, saving, expected):
    """The level stays VALID: its figures are those of the machine as it was."""
    load = MachineLoad(cores=4, busy=0.5, others=0.0, stolen=0.0, on_battery=on_battery, power_saving=saving)
    sound = msgspec.structs.replace(a_level(), verdict=Verdict("VALID"), caveats=[])
    level = with_machine(sound, None, idle={}, prices=CostSettings(), load=load)
    assert [(caveat.code, caveat.message) for caveat in level.caveats] == expected
    assert level.verdict.status == "VALID"
