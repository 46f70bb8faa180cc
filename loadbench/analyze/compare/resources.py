"""What a side of a comparison needs besides time: its memory, how long it takes to begin, and the objectives that it
meets at the measured loads."""

from __future__ import annotations

import re
from statistics import median
from typing import TYPE_CHECKING

from loadbench.analyze.level.machine import IDLE_USE
from loadbench.results.compare import ColdStart, Memory, MetObjectives

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.run import Decision, Run

_OWN_MEMORY = re.compile(r"gpu\d+_process_memory_bytes")
_BOARD_MEMORY = re.compile(r"(gpu\d+)_memory_bytes")


def memory(runs: Sequence[Run]) -> Memory | None:
    """The most at any level; `None` where nothing was sampled. Memory of boards is summed over them, and that of idle
    boards is somebody else's."""
    process: list[float] = []
    own: list[float] = []  # of the server's process on the boards
    boards: list[float] = []
    for level in (level for run in runs for level in run.levels):
        gauges = {} if level.telemetry is None else level.telemetry.gauges
        if "process_rss_bytes" in gauges:
            process.append(gauges["process_rss_bytes"].max)
        of_process = [gauge.max for name, gauge in gauges.items() if _OWN_MEMORY.fullmatch(name)]
        own += [sum(of_process)] if of_process else []
        busy = [
            gauges[name].max
            for name, match in ((name, _BOARD_MEMORY.fullmatch(name)) for name in gauges)
            if match and (use := gauges.get(f"{match[1]}_use")) is not None and use.mean >= IDLE_USE
        ]
        boards += [sum(busy)] if busy else []
    process += [
        float(run.server_start.memory_peak_bytes)
        for run in runs
        if run.server_start is not None and run.server_start.memory_peak_bytes is not None
    ]
    on_boards = own if any(own) else boards
    if not process and not on_boards:
        return None
    return Memory(
        process_bytes=max(process, default=None),
        board_bytes=max(on_boards, default=None),
        board_of=None if not on_boards else "process" if on_boards is own else "board",
    )


def cold_start(runs: Sequence[Run]) -> ColdStart | None:
    """The times that the runs have; `None` where they have none. Only the first request of the first run finds a server
    that nobody used before."""
    used = {level.model for run in runs for level in run.levels}
    statuses = [status for run in runs for status in run.models if status.model in used]
    starts = [run.server_start for run in runs if run.server_start is not None]
    ready = [start.ready_s for start in starts if start.ready_s is not None]
    responded = [start.first_response_s for start in starts if start.first_response_s is not None]
    loads = [status.load_s for status in statuses if status.load_s is not None]
    first = next((one for one in statuses if one.cold_ttft_s is not None), None)
    if not (loads or ready or responded) and first is None:
        return None
    return ColdStart(
        ready_s=median(ready) if ready else None,
        first_response_s=median(responded) if responded else None,
        load_s=median(loads) if loads else None,
        cold_ttft_s=None if first is None else first.cold_ttft_s,
        warm_ttft_s=None if first is None else first.warm_ttft_s,
    )


def met_objectives(runs: Sequence[Run]) -> MetObjectives | None:
    """How far up the loads each run met every objective; `None` where there are no objectives, or none was decided."""
    rules: dict[str, None] = {}
    by_load: dict[tuple[float, str], list[dict[str, Decision]]] = {}
    for run in runs:
        for level in run.levels:
            if level.objectives and level.verdict.status != "INVALID" and not level.interrupted:
                decided = {one.rule: one.decision for one in level.objectives}
                rules |= dict.fromkeys(decided)
                by_load.setdefault((level.load.amount, level.load.label), []).append(decided)
    if not by_load:
        return None
    up_to = missed_at = None
    missed: list[str] = []
    passed_below = True
    for (_, label), of_runs in sorted(by_load.items()):
        passed = [set(decided.values()) == {"PASS"} for decided in of_runs]
        passed_below = passed_below and all(passed)
        if passed_below:
            up_to = label
        failed = {rule for decided in of_runs for rule, decision in decided.items() if decision == "FAIL"}
        if missed_at is None and failed and not any(passed):
            missed_at, missed = label, [rule for rule in rules if rule in failed]
    return MetObjectives(rules=list(rules), up_to=up_to, missed_at=missed_at, missed=missed)
