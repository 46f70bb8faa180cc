"""What was seen beside the requests, for text and Markdown: tables under the level's own, and their notes.

One is of the machine, one of the server's own account. Each has a column for whatever a level of the model tells, and
is not there where none tells anything.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadbench.report.table import duration, load_text, significant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadbench.results.run import LevelResult, Run

    Cell = Callable[[LevelResult], str | None]

_GIB = 2**30
_MIB = 2**20


def tables(levels: Sequence[LevelResult]) -> Iterator[tuple[tuple[str, ...], list[list[str]]]]:
    """(names of the columns, a row per level) of each table that has something to tell."""
    for columns in (_MACHINE, _SERVER):
        names = [name for name, cell in columns.items() if any(cell(level) is not None for level in levels)]
        if names:
            rows = [[load_text(level), *(columns[name](level) or "-" for name in names)] for level in levels]
            yield ("load", *names), rows


def notes(run: Run) -> list[str]:
    """How the figures came about, as far as there are any."""
    return [*_energy_notes(run.levels), *_cost_notes(run.levels), *_first_token_notes(run.levels)]


def _gauge(level: LevelResult, name: str) -> float | None:
    gauge = None if level.telemetry is None else level.telemetry.gauges.get(name)
    return None if gauge is None else gauge.mean


def _process_cpu(level: LevelResult) -> str | None:
    spent_s = None if level.telemetry is None else level.telemetry.counters.get("process_cpu_s_total")
    return None if spent_s is None or level.window_s <= 0 else f"{spent_s / level.window_s:.2f} cores"


def _memory(level: LevelResult, name: str) -> str | None:
    """The most that was seen: memory that is short once is short."""
    gauge = None if level.telemetry is None else level.telemetry.gauges.get(name)
    return None if gauge is None else size(gauge.max)


def size(number: float) -> str:
    """Bytes for people."""
    return f"{significant(number / _GIB)} GiB" if number >= 0.9995 * _GIB else f"{significant(number / _MIB)} MiB"


def _boards(level: LevelResult, name: str) -> list[str]:
    """The readings of this kind, a board each, in the boards' order."""
    gauges = {} if level.telemetry is None else level.telemetry.gauges
    found = (re.fullmatch(rf"gpu(\d+)_{name}", one) for one in gauges)
    return [match[0] for match in sorted((one for one in found if one), key=lambda match: int(match[1]))]


def _gpu_use(level: LevelResult) -> str | None:
    uses = [_share(level, one) for one in _boards(level, "use")]
    return " ".join(use for use in uses if use is not None) or None


def _gpu_memory(level: LevelResult) -> str | None:
    return " ".join(_memory(level, one) or "-" for one in _boards(level, "memory_bytes")) or None


def _share(level: LevelResult, name: str) -> str | None:
    mean = _gauge(level, name)
    return None if mean is None else f"{100 * mean:.3g}%"


def _count(level: LevelResult, name: str) -> str | None:
    mean = _gauge(level, name)
    return None if mean is None else significant(mean)


def _watts(level: LevelResult) -> str | None:
    used = level.energy
    if used is None:
        return None
    if used.watts_range is not None and used.watts_range[0] < used.watts_range[1]:
        return f"{used.watts_range[0]:g}..{used.watts_range[1]:g} W est."
    return f"{significant(used.watts)} W" + (" est." if used.source == "estimate" else "")


def _joules(level: LevelResult) -> str | None:
    used = level.energy
    return None if used is None else _unit(used.joules_per_output_token, "J")


def _above_idle(level: LevelResult) -> str | None:
    used = level.energy
    return None if used is None else _unit(used.joules_per_output_token_above_idle, "J")


def _tokens_per_joule(level: LevelResult) -> str | None:
    used = level.energy
    return None if used is None or used.tokens_per_joule is None else significant(used.tokens_per_joule)


def _unit(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{significant(value)} {unit}"


def _cost(level: LevelResult) -> str | None:
    found = level.cost
    if found is None or found.per_million_output_tokens is None:
        return None
    unit = "" if found.currency is None else f" {found.currency}"
    if found.range is not None and found.range[0] < found.range[1]:
        return f"{significant(found.range[0])}..{significant(found.range[1])}{unit} est."
    return significant(found.per_million_output_tokens) + unit + (" est." if found.energy_source == "estimate" else "")


def _seconds(level: LevelResult, name: str) -> str | None:
    found = level.first_token
    value = None if found is None else getattr(found, name)
    return None if value is None else ("-" if value < 0 else "") + duration(abs(value))


_MACHINE: dict[str, Cell] = {
    "server CPU": _process_cpu,
    "server RSS": lambda level: _memory(level, "process_rss_bytes"),
    "host CPU": lambda level: _share(level, "host_cpu_share"),
    "GPU": _gpu_use,
    "GPU mem": _gpu_memory,
    "power": _watts,
    "J/token": _joules,
    "above idle": _above_idle,
    "tok/s/W": _tokens_per_joule,
    "per 1M tok": _cost,
}
_SERVER: dict[str, Cell] = {
    "running": lambda level: _count(level, "server_running"),
    "queued": lambda level: _count(level, "server_queued"),
    "KV use": lambda level: _share(level, "server_kv_use"),
    "TTFT queue": lambda level: _seconds(level, "queue_s"),
    "TTFT prefill": lambda level: _seconds(level, "prefill_s"),
    "TTFT rest": lambda level: _seconds(level, "rest_s"),
}


def _energy_notes(levels: Sequence[LevelResult]) -> list[str]:
    found = next((level.energy for level in levels if level.energy is not None), None)
    if found is None:
        return []
    if found.source == "estimate":
        return ["energy: an estimate from the watts that were given; nothing was metered"]
    idle = "" if found.idle_watts is None else f"; without load {significant(found.idle_watts)} W"
    parts = {"board": "the accelerators", "package": "CPU and memory"}
    seen = " and ".join(parts[one] for one in found.source.split("+"))
    return [f"energy: of {seen} alone ({', '.join(found.meters)}){idle}"]


def _cost_notes(levels: Sequence[LevelResult]) -> list[str]:
    """A level that made nothing has no cost of a token either: that is no lack of a meter."""
    costs = [level.cost for level in levels if level.cost is not None]
    if not costs:
        return []
    if any("electricity" in found.parts and found.energy_source is None for found in costs):
        return ["cost: not known, for electricity is not: nothing meters the power; estimate it with --watts"]
    return [f"cost: {' and '.join(costs[0].parts)} of a million output tokens, at this load all the machine's life"]


def _first_token_notes(levels: Sequence[LevelResult]) -> list[str]:
    found = next((level.first_token for level in levels if level.first_token is not None), None)
    if found is None:
        return []
    told = "its answers' timings" if found.source == "timings" else found.source
    rest = "network and client" if found.queue_s is not None else "the server's queue, network and client"
    return [f"mean time to first token by {told}: the rest is that of {rest}"]
