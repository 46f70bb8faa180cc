"""Add to a level what was measured alongside its requests: telemetry, energy and cost, with the caveats they raise."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from loadbench.analyze.level.cost import cost, energy, meter_watts
from loadbench.analyze.level.knee import busy_machine
from loadbench.analyze.level.verdict import CLIENT_CODES, GENERATOR_BOTTLENECK, LATE_CODES
from loadbench.results.run import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from loadbench.plan.settings import CostSettings
    from loadbench.results.run import LevelResult
    from loadbench.results.telemetry import MachineLoad, Telemetry

# Models whose names say that they run on an accelerator, such as `qwen2.5-0.5b-instruct-cuda-gpu:3`.
_ACCELERATED = re.compile(r"(?<![a-z])(gpu|cuda|trtrtx|tensorrt|webgpu|rocm|migraphx)(?![a-z])", re.IGNORECASE)
_USE = re.compile(r"(gpu|npu)\d+_(process_)?use")
# A desktop alone uses this share of its GPU; a model that decodes on it uses far more.
IDLE_USE = 0.02
# Clocks that are throttled for less of the window than this change no figure that is shown.
_MIN_THROTTLED = 0.05
# Less CPU time than this for others is what a system does by itself.
_MIN_OTHERS = 0.1
# So much changes clocks and caches even where there are free cores.
_MANY_OTHERS = 0.5
# Then somebody waits for a core, as far as is known without asking the scheduler.
_FULL = 0.9
# What a reason says of a lateness that others caused.
_KEPT_WAITING = "probably kept loadbench waiting"
# A thread that waits for this share of the time makes responses slower by about as much; by the second share, the
# figures are those of a machine with a third of the speed.
_MIN_WAITED = 0.05
_MAX_WAITED = 2 / 3


def with_machine(
    level: LevelResult,
    telemetry: Telemetry | None,
    *,
    idle: Mapping[str, float],
    prices: CostSettings,
    load: MachineLoad | None = None,
    makes_load: bool = True,
) -> LevelResult:
    """The level with its telemetry, energy, cost and their caveats; `idle` has each meter's watts before the load.

    A machine that others kept busy is a caveat, or a reason that makes the level INVALID. If it has no part in making
    the load (`makes_load`), nothing that was late is its others' fault.
    """
    verdict = level.verdict
    kept_up = not any(reason.code in CLIENT_CODES for reason in verdict.reasons)
    busy, is_severe = (None, False) if load is None else _busy(load, kept_up=kept_up)
    if load is not None and busy is not None:
        reasons = [_and_idle(reason) for reason in verdict.reasons]
        if makes_load and _has_no_free_core(load):
            reasons = [_because_of_others(reason, load) for reason in reasons]
        verdict = msgspec.structs.replace(verdict, reasons=reasons)
    if busy is not None and is_severe:
        verdict = msgspec.structs.replace(verdict, status="INVALID", reasons=[*verdict.reasons, busy])
    metered, unused = meter_watts(telemetry, level.window_s), _unused_boards(telemetry)
    of_server = {meter: watts for meter, watts in metered.items() if meter not in unused}
    # The battery feeds what the other meters show, and more.
    parts = {meter: watts for meter, watts in of_server.items() if not meter.startswith("battery")}
    used = energy(level, parts or of_server, idle=idle, estimate=prices.watts)
    unmetered = Reason(
        "unmetered",
        f"the server did not use {', '.join(metered)}, the only meters there are: its energy is not known",
        "state what the machine draws with --watts; most systems let only root read the meter of the processor",
    )
    return msgspec.structs.replace(
        level,
        verdict=verdict,
        telemetry=telemetry,
        machine=load,
        energy=used,
        cost=cost(level, used, prices),
        caveats=[
            *level.caveats,
            *([] if telemetry is None else _caveats(level, telemetry)),
            *([unmetered] if metered and used is None else []),
            *([] if busy is None or is_severe else [busy]),
            *([] if load is None else _power(load)),
        ],
    )


def _unused_boards(telemetry: Telemetry | None) -> set[str]:
    """The boards that the server has nothing to do with: it holds no memory there, and nobody used them. What they draw
    when idle is not its energy. In a container the driver may not know the server's process: a board in use counts."""
    gauges = {} if telemetry is None else telemetry.gauges
    return {
        board
        for board in {name.partition("_")[0] for name in gauges}
        if (held := gauges.get(f"{board}_process_memory_bytes")) is not None and held.max == 0
        if (use := gauges.get(f"{board}_use") or gauges.get(f"{board}_process_use")) is not None and use.mean < IDLE_USE
    }


def _has_no_free_core(load: MachineLoad) -> bool:
    return load.busy > _FULL or (load.waited or 0.0) > _MIN_WAITED


def _because_of_others(reason: Reason, load: MachineLoad) -> Reason:
    """A reason that says that loadbench was late, with what probably made it late; as it is if it knows better."""
    if reason.code not in LATE_CODES or reason.advice != GENERATOR_BOTTLENECK:
        return reason
    others = "other programs" if (load.others or 0.0) >= load.stolen else "other virtual machines"
    message = f"{others} {_KEPT_WAITING}: {reason.message.replace('loadbench', 'it', 1)}"
    return Reason(reason.code, message, "end the other programs, or measure when the machine is idle")


def _and_idle(reason: Reason) -> Reason:
    """The reason that the server changed, with advice that names the other programs too."""
    if reason.code != "not_steady" or "the server changed" not in reason.message:
        return reason
    advice = f"end the other programs first (busy_machine): they may be what changed the server; then {reason.advice}"
    return Reason(reason.code, reason.message, advice)


def why_late(reasons: Iterable[Reason]) -> str:
    """`other programs probably kept loadbench waiting`, as far as one of the reasons says so, or that it was too slow
    by itself."""
    heads = (reason.message.partition(":")[0] for reason in reasons if reason.code in LATE_CODES)
    return next((head for head in heads if head.endswith(_KEPT_WAITING)), "loadbench was too slow")


def _busy(load: MachineLoad, *, kept_up: bool) -> tuple[Reason | None, bool]:
    """Whether other programs, or other virtual machines, kept this machine busy, and whether that is severe. The reason
    says what was seen and which figures it touches; those of loadbench's own part hold if it `kept_up`."""
    others, waited = (load.others or 0.0) + load.stolen, load.waited
    if others < _MIN_OTHERS or not (_has_no_free_core(load) or others > _MANY_OTHERS):
        return None, False
    is_severe = waited is not None and waited > _MAX_WAITED and others > _MANY_OTHERS
    machine = f"this machine's CPU time ({load.cores} cores, {100 * load.busy:.0f} % in use in all)"
    seen = "" if load.others is None else f"other programs used {100 * load.others:.0f} % of {machine}"
    if load.stolen > _MIN_OTHERS:
        stolen = f"the hypervisor gave {100 * load.stolen:.0f} % of {'it' if seen else machine} to other machines"
        seen += f"; {stolen}" if seen else stolen
    figures = "(tok/s, TTFT, TPOT, E2E)"
    if waited is None:
        touched = f"a server on this machine may have been slower for it {figures}"
    elif waited <= _MIN_WAITED:
        touched = f"neither loadbench nor a server here waited for a core, {100 * waited:.0f} % of the time at most"
    else:
        # Who has a core for the rest of the time only would be done so much sooner.
        faster = f"about {_alone(waited):.2g} times as fast {figures}"
        whose = "it" if load.waited_by == "the server" else "a server here"
        touched = (
            f"{load.waited_by} waited for a core for {100 * waited:.0f} % of the time, so alone {whose} may be {faster}"
        )
    # As far as the verdict has no reason that says otherwise.
    right = "; loadbench kept up, so its load and its times are right" * (kept_up and not is_severe)
    reason = Reason(
        "busy_machine",
        f"{seen}; {touched}{right}",
        "end the other programs, or measure when the machine is idle: `loadbench doctor` shows its load",
    )
    return reason, is_severe


def _alone(waited: float) -> float:
    return 1 / max(0.01, 1 - waited)


def faster_alone(level: LevelResult) -> float | None:
    """By about what factor the server of a level may be faster without the other programs of its `busy_machine` note;
    `None` where no note says that."""
    waited = None if level.machine is None else level.machine.waited
    if waited is None or waited <= _MIN_WAITED or not busy_machine(level):
        return None
    return _alone(waited)


def _power(load: MachineLoad) -> Iterator[Reason]:
    """A machine that is slower than it is when it is plugged in, or allowed to draw what it can."""
    compare = "or note it with the result, and compare only with runs under the same conditions"
    if load.on_battery:
        yield Reason("on_battery", "this machine ran on its battery", f"plug it in, {compare}")
    if load.power_saving:
        message = f"this machine saves power: {', '.join(load.power_saving)}"
        yield Reason("power_saving", message, f"choose the fastest power mode, {compare}")


def _caveats(level: LevelResult, telemetry: Telemetry) -> Iterator[Reason]:
    # Of some boards only the use by the server's processes is known, which is what counts here.
    uses = [gauge.mean for name, gauge in telemetry.gauges.items() if _USE.fullmatch(name)]
    decoding = level.throughput.output_tokens_per_s > 0
    if uses and decoding and max(uses) < IDLE_USE and _ACCELERATED.search(level.model):
        yield Reason(
            "cpu_fallback",
            f"the model's name says that it runs on the GPU, but no visible GPU was in use ({100 * max(uses):.1f} %)",
            "see the server's log for the device it chose; a driver or its execution provider may be missing",
        )

    # A machine that is too hot or short of power is slower than it will be when it is cool.
    compare = "or note it with the result: a cool machine, or a short run, is faster"
    for cause, remedy in (("heat", "cool the machine"), ("power", "raise its power limit")):
        shares = {name: gauge.mean for name, gauge in telemetry.gauges.items() if name.endswith(f"_throttled_{cause}")}
        if shares and max(shares.values()) > _MIN_THROTTLED:
            name = max(shares, key=lambda name: shares[name])
            message = f"{cause} throttled {name.partition('_')[0]} for {100 * shares[name]:.0f} % of the window"
            yield Reason(f"throttled_{cause}", message, f"{remedy}, {compare}")
    if telemetry.counters.get("host_throttled_total"):
        message = "heat throttled the processor during the level"
        yield Reason("throttled_cpu", message, f"cool the machine, {compare}")

    if telemetry.counters.get("process_restarts_total"):
        yield Reason(
            "process_restarted",
            "the server's process ended during the level, and another one replaced it",
            "see the server's log, then run it again",
        )
