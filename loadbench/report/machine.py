"""What was measured alongside the requests: a table of the machine, one of the server's own figures, and their notes.

A table has a column for each figure that any level of the model has, and is left out where there is none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadbench.report.document import Table
from loadbench.report.values import byte_size, duration, load_name, percent, significant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.run import LevelResult, Run

# Figures of the machine that a narrow terminal shows last.
_RANKS = {"above idle": "4", "tok/s/W": "4", "TTFT rest": "4", "host CPU": "3", "server RSS": "3", "KV use": "2"}


def tables(levels: Sequence[LevelResult]) -> list[Table]:
    """The tables that have anything to show, a row for each level."""
    made = []
    for cells in (list(map(_machine_cells, levels)), list(map(_server_cells, levels))):
        names = [name for name in cells[0] if any(row[name] is not None for row in cells)]
        if names:
            rows = [
                [load_name(level, levels), *(row[name] or "-" for name in names)]
                for level, row in zip(levels, cells, strict=True)
            ]
            rank = "0" + "".join(_RANKS.get(name, "1") for name in names)
            made.append(Table(("load", *names), rows, "r" * (len(names) + 1), rank=rank))
    return made


def _machine_cells(level: LevelResult) -> dict[str, str | None]:
    gauges = {} if level.telemetry is None else level.telemetry.gauges
    counters = {} if level.telemetry is None else level.telemetry.counters

    def memory(name: str) -> str | None:
        """The maximum: memory that runs short once is short."""
        return byte_size(gauges[name].max) if name in gauges else None

    def boards(name: str) -> list[str]:
        """The readings of this kind, one for each board, in the order of the boards."""
        matches = filter(None, (re.fullmatch(rf"gpu(\d+)_{name}", gauge) for gauge in gauges))
        return [match[0] for match in sorted(matches, key=lambda match: int(match[1]))]

    cells: dict[str, str | None] = {"server CPU": None}
    cpu_s = counters.get("process_cpu_s_total")
    if cpu_s is not None and level.window_s > 0:
        cells["server CPU"] = f"{cpu_s / level.window_s:.2f} cores"
    cells["server RSS"] = memory("process_rss_bytes")
    cells["host CPU"] = percent(gauges["host_cpu_share"].mean) if "host_cpu_share" in gauges else None
    # Of some boards only the use by the server's processes is known.
    for kind in ("GPU", "NPU"):
        uses = [match for name in gauges if (match := re.fullmatch(rf"{kind.lower()}(\d+)_(process_)?use", name))]
        by_board = {int(match[1]): match[0] for match in sorted(uses, key=lambda match: match[2] is None)}
        cells[kind] = ", ".join(percent(gauges[by_board[board]].mean) for board in sorted(by_board)) or None
    cells["GPU mem"] = ", ".join(memory(name) or "-" for name in boards("memory_bytes")) or None

    energy, cost = level.energy, level.cost
    cells |= dict.fromkeys(("power", "J/token", "above idle", "tok/s/W", "per 1M tok"))
    if energy is not None:
        cells["power"] = f"{significant(energy.watts)} W" + (" est." if energy.source == "estimate" else "")
        if energy.watts_range is not None and energy.watts_range[0] < energy.watts_range[1]:
            cells["power"] = f"{energy.watts_range[0]:g}..{energy.watts_range[1]:g} W est."
        for name, joules in (
            ("J/token", energy.joules_per_output_token),
            ("above idle", energy.joules_per_output_token_above_idle),
        ):
            cells[name] = None if joules is None else f"{significant(joules)} J"
        cells["tok/s/W"] = None if energy.tokens_per_joule is None else significant(energy.tokens_per_joule)
    if cost is not None and cost.per_million_output_tokens is not None:
        amount, estimated = significant(cost.per_million_output_tokens), cost.energy_source == "estimate"
        if cost.range is not None and cost.range[0] < cost.range[1]:
            amount, estimated = "..".join(map(significant, cost.range)), True
        currency = "" if cost.currency is None else f" {cost.currency}"
        cells["per 1M tok"] = amount + currency + (" est." if estimated else "")
    return cells


def _server_cells(level: LevelResult) -> dict[str, str | None]:
    gauges = {} if level.telemetry is None else level.telemetry.gauges
    cells: dict[str, str | None] = {
        "running": significant(gauges["server_running"].mean) if "server_running" in gauges else None,
        "queued": significant(gauges["server_queued"].mean) if "server_queued" in gauges else None,
        "KV use": percent(gauges["server_kv_use"].mean) if "server_kv_use" in gauges else None,
    }
    for name in ("queue", "prefill", "rest"):
        seconds = None if level.first_token is None else getattr(level.first_token, f"{name}_s")
        # Less than 0 where the server reports more than the client measured.
        sign = "-" if seconds is not None and seconds < 0 else ""
        cells[f"TTFT {name}"] = None if seconds is None else sign + duration(abs(seconds))
    return cells


def notes(run: Run) -> list[str]:
    """How the figures were made, as far as there are any."""
    lines = []
    about = run.environment.get("telemetry")
    if isinstance(about, dict) and about.get("server"):
        lines.append(f"server CPU and RSS: of {about['server']} only, which is one of several servers")
    gauges = {name for level in run.levels if level.telemetry for name in level.telemetry.gauges}
    by_process = [match for name in gauges if (match := re.fullmatch(r"((?:gpu|npu)\d+)_process_use", name))]
    if only := sorted(match[1] for match in by_process if f"{match[1]}_use" not in gauges):
        lines.append(f"use of {', '.join(only)}: by the server's processes only, since the system shows no other")
    energy = next((level.energy for level in run.levels if level.energy is not None), None)
    if energy is not None and energy.source == "estimate":
        lines.append("energy: estimated from --watts, not metered")
    elif energy is not None:
        idle = "" if energy.idle_watts is None else f"; {significant(energy.idle_watts)} W without load"
        parts = {"board": "the accelerators", "package": "CPU and memory"}
        if energy.source == "machine":
            metered = "the whole machine, screen and load generator included, by what its battery gives"
        else:
            metered = " and ".join(parts[part] for part in energy.source.split("+")) + " only"
        lines.append(f"energy: of {metered} ({', '.join(energy.meters)}){idle}")

    # A level without output tokens has no cost per token either, which is no lack of a meter.
    costs = [level.cost for level in run.levels if level.cost is not None]
    if any("electricity" in cost.parts and cost.energy_source is None for cost in costs):
        lines.append("cost: unknown, since no meter shows the electricity used; estimate it with --watts")
    elif costs:
        parts_text = " and ".join(costs[0].parts)
        lines.append(f"cost: {parts_text} per million output tokens, if the machine always has this load")

    first = next((level.first_token for level in run.levels if level.first_token is not None), None)
    if first is not None:
        source = "the timings in its responses" if first.source == "timings" else first.source
        rest = "network and client" if first.queue_s is not None else "the server's queue, network and client"
        lines.append(f"mean time to first token as the server reports it ({source}); the rest is {rest}")
    return lines
